// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Meta commands: a key and flags of one letter, some with an argument.

use crate::base64::Decoded;
use crate::flag::{
    Flags, BAD_ARITH_MODE, BAD_SET_MODE, INVALID_OR_DUPLICATE, OPAQUE, TOO_LONG, TOO_LONG_TOO,
};
use crate::number::parse_i32;
use crate::reply;
use crate::token::Tokens;
use crate::{StoreMode, KEY_MAX};

/// The most words of a meta command.
const WORDS_MAX: usize = 19;

/// The longest opaque, its `O` included.
const OPAQUE_MAX: usize = 32;

/// The operation of a meta command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVerb {
    /// `mg`.
    Get,
    /// `ms` with its mode and the bytes of its value.
    Set {
        /// How it stores the value.
        mode: StoreMode,
        /// Bytes of the value.
        len: u32,
    },
    /// `md`.
    Delete,
    /// `ma`.
    Arith {
        /// Subtract instead of adding.
        decrement: bool,
    },
    /// `me`.
    Debug,
}

/// A meta command.
pub struct Command<'a> {
    /// The operation.
    pub verb: MetaVerb,
    /// The key as it was sent.
    pub key: &'a [u8],
    /// The decoded key, if it was sent as base64.
    pub decoded: Option<Decoded>,
    /// The flags.
    pub flags: Flags,
    tokens: Tokens<'a>,
}

/// A refused meta command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaError {
    /// The reply line.
    pub line: &'static [u8],
    /// Bytes of data that follow and are to be skipped, the value's line end included.
    pub swallow: u32,
}

impl From<&'static [u8]> for MetaError {
    fn from(line: &'static [u8]) -> Self {
        Self { line, swallow: 0 }
    }
}

impl<'a> Command<'a> {
    /// Reads the meta command in `tokens`, whose first word has two letters
    /// and starts with an `m`.
    pub fn parse(tokens: Tokens<'a>) -> Result<Self, MetaError> {
        let key = tokens.at(1);
        let (verb, first) = match tokens.at(0) {
            b"me" => return Self::debug(tokens),
            b"mg" => (MetaVerb::Get, 2),
            b"ms" => {
                let (mode, len) = (StoreMode::Set, 0);
                (MetaVerb::Set { mode, len }, 3)
            }
            b"md" => (MetaVerb::Delete, 2),
            b"ma" => (MetaVerb::Arith { decrement: false }, 2),
            _ => return Err(reply::ERROR.into()),
        };
        if tokens.len() < 2 {
            return Err(reply::ERROR.into());
        }
        if key.len() > KEY_MAX {
            return Err(reply::BAD_FORMAT.into());
        }
        let mut len = 0;
        if first == 3 {
            if tokens.len() == 2 {
                return Err(reply::BAD_FORMAT.into());
            }
            if tokens.len() > WORDS_MAX {
                return Err(TOO_LONG_TOO.into());
            }
            len = value_len(tokens.at(2)).ok_or(reply::BAD_FORMAT)?;
        } else if tokens.len() > WORDS_MAX {
            let get = verb == MetaVerb::Get;
            return Err(if get { TOO_LONG } else { TOO_LONG_TOO }.into());
        }
        let words = tokens.from(first);
        let swallow = match verb {
            MetaVerb::Set { .. } => len.saturating_add(2),
            _ => 0,
        };
        let refused = |line| MetaError { line, swallow };
        let flags = Flags::parse(key, words).map_err(|line| match verb {
            MetaVerb::Get | MetaVerb::Set { .. } => refused(line),
            _ => refused(INVALID_OR_DUPLICATE),
        })?;
        let verb = match (verb, flags.mode) {
            (MetaVerb::Set { .. }, mode) => MetaVerb::Set {
                len,
                mode: match mode {
                    0 | b'S' => StoreMode::Set,
                    b'E' => StoreMode::Add,
                    b'A' => StoreMode::Append,
                    b'P' => StoreMode::Prepend,
                    b'R' => StoreMode::Replace,
                    _ => return Err(refused(BAD_SET_MODE)),
                },
            },
            (MetaVerb::Arith { .. }, mode) => MetaVerb::Arith {
                decrement: match mode {
                    0 | b'I' | b'+' => false,
                    b'D' | b'-' => true,
                    _ => return Err(refused(BAD_ARITH_MODE)),
                },
            },
            (verb, _) => verb,
        };
        if flags.has(b'O') {
            let long = |word: &&[u8]| word.first() == Some(&b'O') && word.len() > OPAQUE_MAX;
            if words.iter().any(long) {
                return Err(refused(OPAQUE));
            }
        }
        let decoded = if flags.has(b'b') {
            Decoded::new(key)
        } else {
            None
        };
        Ok(Self {
            verb,
            key,
            decoded,
            flags,
            tokens,
        })
    }

    /// `me` has one flag, right after the key, and ignores all others.
    fn debug(tokens: Tokens<'a>) -> Result<Self, MetaError> {
        let key = tokens.at(1);
        if tokens.len() < 2 || key.len() > KEY_MAX {
            return Err(reply::BAD_FORMAT.into());
        }
        let mut decoded = None;
        if tokens.at(2) == b"b" {
            decoded = Some(Decoded::new(key).ok_or(reply::BAD_FORMAT)?);
        }
        Ok(Self {
            verb: MetaVerb::Debug,
            key,
            decoded,
            flags: Flags::default(),
            tokens,
        })
    }

    /// The key's bytes.
    #[inline]
    pub fn key(&self) -> &[u8] {
        match &self.decoded {
            Some(decoded) => decoded.as_bytes(),
            None => self.key,
        }
    }

    /// The flags as they were sent, in order.
    #[inline]
    pub fn words(&self) -> &[&'a [u8]] {
        let first = match self.verb {
            MetaVerb::Set { .. } => 3,
            _ => 2,
        };
        self.tokens.from(first)
    }
}

/// The length of a data block: a 32-bit number that leaves space for the line end.
#[inline]
pub fn value_len(word: &[u8]) -> Option<u32> {
    match parse_i32(word) {
        Some(len @ 0..=2_147_483_645) => Some(len as u32),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Argument, Flag, FLAGS};
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    fn parse(line: &str) -> Result<Command<'_>, MetaError> {
        Command::parse(Tokens::new(line.as_bytes()))
    }

    /// A flag's word with an argument, if it takes one.
    fn word(letter: &str, flag: Option<&Flag>) -> String {
        let argument = match flag.map(|flag| flag.argument) {
            None | Some(Argument::None) => "",
            Some(Argument::Opaque | Argument::Ignored) => "any",
            Some(Argument::TimeToLive | Argument::Seconds) => "-5",
            Some(Argument::Word | Argument::Number) => "7",
            Some(Argument::Mode) => "S",
        };
        std::format!("{letter}{argument}")
    }

    #[test]
    fn a_flag_without_the_argument_that_it_takes_is_refused() {
        for flag in FLAGS {
            let line = std::format!("mg Zm9v {}", char::from(flag.letter));
            let want = matches!(
                flag.argument,
                Argument::None | Argument::Opaque | Argument::Ignored
            );
            assert_eq!(parse(&line).is_ok(), want, "{line}");
        }
    }

    fn refusal(line: &str) -> (String, u32) {
        let refused = parse(line).err().expect(line);
        let text = String::from_utf8(refused.line.to_vec()).unwrap();
        (text.trim_end().into(), refused.swallow)
    }

    #[test]
    fn a_bad_meta_command_is_refused_as_by_memcached() {
        let long = "k".repeat(251);
        for (line, text, swallow) in [
            ("mg", "ERROR", 0),
            ("mx a", "ERROR", 0),
            ("me", "CLIENT_ERROR bad command line format", 0),
            ("ms a", "CLIENT_ERROR bad command line format", 0),
            ("ms a x", "CLIENT_ERROR bad command line format", 0),
            ("ms a -1", "CLIENT_ERROR bad command line format", 0),
            ("ms a 2147483646", "CLIENT_ERROR bad command line format", 0),
            ("ms a 1 Fx", "CLIENT_ERROR bad command line format", 3),
            ("ms a 1 a", "CLIENT_ERROR invalid flag", 3),
            ("ms a 1 MX", "CLIENT_ERROR invalid mode for ms M token", 3),
            ("ms a 1 M", "CLIENT_ERROR incorrect length for M token", 3),
            ("ms a 1 b", "CLIENT_ERROR error decoding key", 3),
            ("ms a 1 b Fx", "CLIENT_ERROR error decoding key", 3),
            (
                "mg a Nx",
                "CLIENT_ERROR bad token in command line format",
                0,
            ),
            ("mg a N", "CLIENT_ERROR bad token in command line format", 0),
            (
                "mg a Tx q",
                "CLIENT_ERROR bad token in command line format",
                0,
            ),
            ("mg a v v", "CLIENT_ERROR duplicate flag", 0),
            ("mg a \u{ff}", "CLIENT_ERROR duplicate flag", 0),
            ("mg a !", "CLIENT_ERROR invalid flag", 0),
            ("mg a 1", "CLIENT_ERROR invalid flag", 0),
            ("md a v v", "CLIENT_ERROR invalid or duplicate flag", 0),
            ("ma a D-1", "CLIENT_ERROR invalid or duplicate flag", 0),
            ("ma a MX", "CLIENT_ERROR invalid mode for ma M token", 0),
            (
                "mg a O12345678901234567890123456789012",
                "CLIENT_ERROR opaque token too long",
                0,
            ),
        ] {
            assert_eq!(refusal(line), (text.into(), swallow), "{line}");
        }
        assert_eq!(refusal(&std::format!("mg {long}")).1, 0);
        let many = std::format!("mg a {}", "v ".repeat(18));
        assert_eq!(refusal(&many).0, "CLIENT_ERROR options flags are too long");
    }

    #[test]
    fn flags_and_their_arguments_are_parsed() {
        let command = parse("mg Zm9v b k v N30 t T-1 R5 C7 E9 Oabc q")
            .ok()
            .unwrap();
        assert_eq!(command.verb, MetaVerb::Get);
        assert_eq!(command.key(), b"foo");
        let flags = &command.flags;
        assert!(flags.value() && flags.quiet() && flags.has(b'k') && !flags.has(b'c'));
        assert_eq!(flags.vivify, Some(30));
        assert_eq!(flags.ttl, Some(-1));
        assert_eq!(flags.recache, Some(5));
        assert_eq!((flags.compare, flags.cas), (Some(7), Some(9)));
        assert_eq!(command.words().len(), 11);
        let command = parse("ms a 10 MA N0 F5").ok().unwrap();
        let (mode, len) = (StoreMode::Append, 10);
        assert_eq!(command.verb, MetaVerb::Set { mode, len });
        assert_eq!(command.flags.client, 5);
        let command = parse("ma a M- D3 J9").ok().unwrap();
        assert_eq!(command.verb, MetaVerb::Arith { decrement: true });
        assert_eq!((command.flags.delta, command.flags.initial), (Some(3), 9));
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_without_a_panic(line: Vec<u8>) {
            if let Ok(command) = Command::parse(Tokens::new(&line)) {
                prop_assert!(!command.key().is_empty());
            }
        }

        /// Each letter at most once, and only letters that are flags.
        #[test]
        fn only_known_letters_without_duplicates_are_accepted(letters in proptest::collection::vec("[A-Za-z]", 0..6)) {
            let flag = |letter: &String| FLAGS.iter().find(|flag| flag.letter == letter.as_bytes()[0]);
            let words: Vec<_> = letters.iter().map(|letter| word(letter, flag(letter))).collect();
            let line = std::format!("mg Zm9v {}", words.join(" "));
            let want = letters.iter().enumerate().all(|(i, letter)| {
                flag(letter).is_some() && !letters[..i].contains(letter)
            });
            prop_assert_eq!(parse(&line).is_ok(), want, "{}", line);
        }
    }
}
