// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! The flags of meta commands: one table for the parser, for tests that draw flags at random, and for the
//! documentation; and the flags of a command, with their arguments.

use crate::base64::Decoded;
use crate::number::{parse_i32, parse_u32, parse_u64};
use crate::reply;

/// The argument that follows a flag's letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// None; bytes that follow nevertheless are ignored.
    None,
    /// Bytes, at most 31.
    Opaque,
    /// The item's time to live, like the `exptime` of a text command: 32 bits, signed.
    TimeToLive,
    /// Seconds that a time to live is compared with: 32 bits, signed.
    Seconds,
    /// 32 bits, unsigned.
    Word,
    /// 64 bits, unsigned.
    Number,
    /// One letter.
    Mode,
    /// Bytes that are ignored.
    Ignored,
}

/// The effect of a flag of `mg` that matters to code without knowledge of the flag: softirq does not answer an `mg` that
/// writes, and a proxy does not send equal lines once for several clients if reads are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetEffect {
    /// None of these.
    None,
    /// It may change the item.
    Writes,
    /// The reply shows whether or when the item was read before.
    ShowsReads,
}

/// A flag of meta commands.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// ASCII letter.
    pub letter: u8,
    /// Its argument.
    pub argument: Argument,
    /// The commands that use it, separated by spaces. All others ignore it.
    pub commands: &'static str,
    /// Its effect in an `mg`.
    pub effect: GetEffect,
    /// Its meaning.
    pub text: &'static str,
}

const fn flag(
    letter: u8,
    argument: Argument,
    commands: &'static str,
    effect: GetEffect,
    text: &'static str,
) -> Flag {
    Flag {
        letter,
        argument,
        commands,
        effect,
        text,
    }
}

/// All flags; any other letter is refused.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    flag(b'b', Argument::None, "mg ms md ma me", GetEffect::None, "The key comes, and is given back, in base64"),
    flag(b'c', Argument::None, "mg ms ma", GetEffect::None, "Give back the CAS number"),
    flag(b'f', Argument::None, "mg", GetEffect::None, "Give back the client flags"),
    flag(b'h', Argument::None, "mg", GetEffect::ShowsReads, "Give back whether the item was hit before"),
    flag(b'k', Argument::None, "mg ms md ma", GetEffect::None, "Give back the key"),
    flag(b'l', Argument::None, "mg", GetEffect::ShowsReads, "Give back the seconds since the last access"),
    flag(b'q', Argument::None, "mg ms md ma", GetEffect::None, "No reply to a nominal outcome: `EN`, and `HD` of all but `mg`"),
    flag(b's', Argument::None, "mg ms", GetEffect::None, "Give back the size of the value"),
    flag(b't', Argument::None, "mg ma", GetEffect::None, "Give back the seconds that are left, -1 for all time"),
    flag(b'u', Argument::None, "mg", GetEffect::None, "The hit does not count for eviction"),
    flag(b'v', Argument::None, "mg ma", GetEffect::None, "Give back the value"),
    flag(b'x', Argument::None, "md", GetEffect::None, "Remove the value and the client flags, keep the item"),
    flag(b'C', Argument::Number, "mg ms md ma", GetEffect::None, "The CAS number to compare with"),
    flag(b'D', Argument::Number, "ma", GetEffect::None, "The number to add or subtract"),
    flag(b'E', Argument::Number, "mg ms md ma", GetEffect::None, "The CAS number to give the item"),
    flag(b'F', Argument::Word, "ms", GetEffect::None, "The client flags to store"),
    flag(b'I', Argument::None, "ms md", GetEffect::None, "Invalidate: `md` marks the item stale, `ms` stores over a newer item, as stale"),
    flag(b'J', Argument::Number, "ma", GetEffect::None, "The number to begin with, beside `N`"),
    flag(b'L', Argument::Ignored, "", GetEffect::None, "For proxies"),
    flag(b'M', Argument::Mode, "ms ma", GetEffect::None, "The mode: `E` add, `A` append, `P` prepend, `R` replace, `S` set; `I` or `+`, `D` or `-`"),
    flag(b'N', Argument::TimeToLive, "mg ms ma", GetEffect::Writes, "On a miss make the item, with this time to live"),
    flag(b'O', Argument::Opaque, "mg ms md ma", GetEffect::None, "Give this back as it is"),
    flag(b'P', Argument::Ignored, "", GetEffect::None, "For proxies"),
    flag(b'R', Argument::Seconds, "mg", GetEffect::Writes, "Win the token when fewer seconds are left"),
    flag(b'T', Argument::TimeToLive, "mg ms md ma", GetEffect::Writes, "The new time to live"),
];

/// The bit of a letter in sets of flags.
#[inline]
const fn bit(letter: u8) -> u64 {
    1 << (letter.wrapping_sub(b'@') & 63)
}

/// The set of all flags, without the letters that are not flags. Only ASCII letters may be looked up.
const KNOWN: u64 = WRITES | SHOWS_READS | with_effect(GetEffect::None);
/// The set of the flags by which `mg` changes an item.
const WRITES: u64 = with_effect(GetEffect::Writes);
/// The set of the flags by which `mg` shows earlier reads.
const SHOWS_READS: u64 = with_effect(GetEffect::ShowsReads);

const fn with_effect(effect: GetEffect) -> u64 {
    let (mut set, mut rest) = (0, FLAGS);
    while let [flag, more @ ..] = rest {
        if flag.effect as u8 == effect as u8 {
            set |= bit(flag.letter);
        }
        rest = more;
    }
    set
}

/// The flags of a meta command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The set of the flags.
    seen: u64,
    /// `M`: the mode's letter, 0 for none.
    pub(crate) mode: u8,
    /// `T`: the new time to live.
    pub ttl: Option<i32>,
    /// `N`: on a miss create the item, with this time to live.
    pub vivify: Option<i32>,
    /// `R`: win the token when the time to live is less.
    pub recache: Option<i32>,
    /// `F`: client flags.
    pub client: u32,
    /// `C`: the CAS value to compare with.
    pub compare: Option<u64>,
    /// `E`: the CAS value for the item.
    pub cas: Option<u64>,
    /// `J`: the initial number.
    pub initial: u64,
    /// `D`: the number to add or subtract.
    pub delta: Option<u64>,
}

impl Flags {
    /// Whether `letter`, an ASCII letter, is among the flags.
    #[inline]
    pub const fn has(&self, letter: u8) -> bool {
        self.seen & bit(letter) != 0
    }

    /// `q`: no reply to nominal outcomes.
    #[inline]
    pub const fn quiet(&self) -> bool {
        self.has(b'q')
    }

    /// `v`: return the value.
    #[inline]
    pub const fn value(&self) -> bool {
        self.has(b'v')
    }

    /// Whether an `mg` with them changes the item.
    #[inline]
    pub const fn writes(&self) -> bool {
        self.seen & WRITES != 0
    }

    /// Whether the reply to an `mg` with them shows whether or when the item was read before.
    #[inline]
    pub const fn shows_reads(&self) -> bool {
        self.seen & SHOWS_READS != 0
    }

    /// Parses `words`; an error is a reply line. As in memcached, an error in an argument does not end the parsing, and
    /// the last such error is the reply.
    #[inline]
    pub(crate) fn parse(key: &[u8], words: &[&[u8]]) -> Result<Self, &'static [u8]> {
        let mut flags = Self::default();
        let mut failed = false;
        let mut error = reply::BAD_FORMAT;
        for &word in words {
            let Some((&letter, argument)) = word.split_first() else {
                continue;
            };
            if !letter.is_ascii_alphabetic() {
                // memcached treats bytes that are not ASCII as duplicates.
                return Err(if letter < 127 { INVALID } else { DUPLICATE });
            }
            if flags.has(letter) {
                return Err(DUPLICATE);
            }
            if KNOWN & bit(letter) == 0 {
                return Err(INVALID);
            }
            flags.seen |= bit(letter);
            let mut fail = |line| {
                failed = true;
                error = line;
            };
            match letter {
                b'b' if Decoded::new(key).is_none() => fail(BAD_KEY),
                b'N' => match parse_i32(argument) {
                    Some(ttl) => flags.vivify = Some(ttl),
                    None => fail(BAD_TOKEN),
                },
                b'T' => match parse_i32(argument) {
                    Some(ttl) => flags.ttl = Some(ttl),
                    None => fail(BAD_TOKEN),
                },
                b'R' => match parse_i32(argument) {
                    Some(ttl) => flags.recache = Some(ttl),
                    None => fail(BAD_TOKEN),
                },
                b'C' => match parse_u64(argument) {
                    Some(cas) => flags.compare = Some(cas),
                    None => fail(BAD_TOKEN),
                },
                b'E' => match parse_u64(argument) {
                    Some(cas) => flags.cas = Some(cas),
                    None => fail(BAD_TOKEN),
                },
                b'J' => match parse_u64(argument) {
                    Some(initial) => flags.initial = initial,
                    None => fail(BAD_INITIAL),
                },
                b'D' => match parse_u64(argument) {
                    Some(delta) => flags.delta = Some(delta),
                    None => fail(BAD_DELTA),
                },
                b'M' => match argument {
                    [mode] => flags.mode = *mode,
                    _ => fail(BAD_MODE_LENGTH),
                },
                b'F' => match parse_u32(argument) {
                    Some(client) => flags.client = client,
                    // memcached has no error text of its own here.
                    None => failed = true,
                },
                _ => {}
            }
        }
        if failed {
            return Err(error);
        }
        Ok(flags)
    }
}

macro_rules! errors {
    ($($name:ident = $text:literal;)*) => {
        $(pub(crate) const $name: &[u8] = concat!("CLIENT_ERROR ", $text, "\r\n").as_bytes();)*
    };
}

errors! {
    INVALID = "invalid flag";
    DUPLICATE = "duplicate flag";
    INVALID_OR_DUPLICATE = "invalid or duplicate flag";
    BAD_KEY = "error decoding key";
    BAD_TOKEN = "bad token in command line format";
    BAD_INITIAL = "invalid numeric initial value";
    BAD_DELTA = "invalid numeric delta value";
    BAD_MODE_LENGTH = "incorrect length for M token";
    BAD_SET_MODE = "invalid mode for ms M token";
    BAD_ARITH_MODE = "invalid mode for ma M token";
    TOO_LONG = "options flags are too long";
    TOO_LONG_TOO = "options flags too long";
    OPAQUE = "opaque token too long";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_is_a_letter_that_is_there_once() {
        for (at, flag) in FLAGS.iter().enumerate() {
            assert!(flag.letter.is_ascii_alphabetic());
            assert!(FLAGS[..at].iter().all(|other| other.letter != flag.letter));
        }
        assert_eq!(KNOWN.count_ones() as usize, FLAGS.len());
    }

    #[test]
    fn effects_are_those_of_the_flags_that_are_there() {
        let flags = |words: &[&[u8]]| Flags::parse(b"k", words).unwrap();
        for (word, writes, shows_reads) in [
            (&b"T5"[..], true, false),
            (b"N5", true, false),
            (b"R5", true, false),
            (b"h", false, true),
            (b"l", false, true),
            (b"v", false, false),
            (b"t", false, false),
        ] {
            let flags = flags(&[b"k", word]);
            assert_eq!(flags.writes(), writes, "{word:?}");
            assert_eq!(flags.shows_reads(), shows_reads, "{word:?}");
        }
    }
}
