// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Text commands: one line, its words, and the request that they form.

use crate::meta;
use crate::number::{parse_i32, parse_u32, parse_u64};
use crate::reply;
use crate::token::{Tokens, Words};
use crate::{StoreMode, KEY_MAX};

/// A parsed command line.
pub enum TextRequest<'a> {
    /// `get`, `gets`, `gat`, `gats`.
    Get(Get<'a>),
    /// `set` and its variants; a data block follows.
    Store(StoreRequest<'a>),
    /// `delete`.
    Delete {
        /// The key.
        key: &'a [u8],
        /// No answer is wanted.
        noreply: bool,
    },
    /// `incr` and `decr`.
    Arith {
        /// The key.
        key: &'a [u8],
        /// Subtract instead of adding.
        decrement: bool,
        /// The number to add or subtract.
        by: u64,
        /// No answer is wanted.
        noreply: bool,
    },
    /// `touch`.
    Touch {
        /// The key.
        key: &'a [u8],
        /// When it is to expire.
        exptime: i32,
        /// No answer is wanted.
        noreply: bool,
    },
    /// A meta command. Its words are parsed further by [`meta::Command`].
    Meta(Tokens<'a>),
    /// `mn`.
    Noop,
    /// `flush_all`.
    FlushAll {
        /// Seconds to wait, or a date; nothing when it isn't a number.
        delay: Option<i32>,
        /// No answer is wanted.
        noreply: bool,
    },
    /// `verbosity`.
    Verbosity {
        /// The new level.
        level: u32,
        /// No answer is wanted.
        noreply: bool,
    },
    /// `version`.
    Version,
    /// `quit`.
    Quit,
    /// `stats`, `slabs`, `lru`, `lru_crawler`, `cache_memlimit`, `watch` and
    /// other rare commands, by their words.
    Admin(Tokens<'a>),
    /// A line that cannot be served: it only has a reply.
    Reply {
        /// The reply line.
        line: &'static [u8],
        /// The client asked for no reply.
        noreply: bool,
    },
    /// An HTTP request: the connection is closed without a reply.
    Hangup,
}

/// `get`, `gets`, `gat`, `gats`.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// The reply has CAS values.
    pub cas: bool,
    /// The new expiry of the items.
    pub touch: Option<i32>,
    /// The keys, of any length: the caller checks it.
    pub keys: Words<'a>,
}

/// `set` and its variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreRequest<'a> {
    /// The mode: `cas` is [`StoreMode::Set`] with a CAS value to compare with.
    pub mode: StoreMode,
    /// `cas`: store when the item has this CAS value.
    pub compare: Option<u64>,
    /// The key.
    pub key: &'a [u8],
    /// The client's flags.
    pub flags: u32,
    /// The item's expiry.
    pub exptime: i32,
    /// Bytes of the data block, its line end not counted.
    pub len: u32,
    /// The client asked for no reply.
    pub noreply: bool,
}

const ERROR: TextRequest<'static> = TextRequest::Reply {
    line: reply::ERROR,
    noreply: false,
};

const fn refuse<'a>(line: &'static [u8], noreply: bool) -> TextRequest<'a> {
    TextRequest::Reply { line, noreply }
}

/// Parses a command line, which is passed without its line end.
#[inline]
pub fn parse(line: &[u8]) -> TextRequest<'_> {
    let mut words = Words::new(line);
    match words.next().unwrap_or(&[]) {
        b"get" => get(words, false, false),
        b"set" => store(line, words, StoreMode::Set, false),
        b"mn" => TextRequest::Noop,
        [b'm', _] => TextRequest::Meta(Tokens::new(line)),
        b"gets" => get(words, true, false),
        b"add" => store(line, words, StoreMode::Add, false),
        b"cas" => store(line, words, StoreMode::Set, true),
        _ => rare(line, words),
    }
}

/// All other commands.
#[inline(never)]
fn rare<'a>(line: &'a [u8], words: Words<'a>) -> TextRequest<'a> {
    let tokens = Tokens::new(line);
    let noreply = tokens.noreply();
    let key = tokens.at(1);
    let bad_format = refuse(reply::BAD_FORMAT, noreply);
    match tokens.at(0) {
        b"gat" => get(words, false, true),
        b"gats" => get(words, true, true),
        b"bget" => get(words, false, false),
        b"replace" => store(line, words, StoreMode::Replace, false),
        b"append" => store(line, words, StoreMode::Append, false),
        b"prepend" => store(line, words, StoreMode::Prepend, false),
        command @ (b"incr" | b"decr") => {
            if !matches!(tokens.len(), 3 | 4) {
                return ERROR;
            }
            if key.len() > KEY_MAX {
                return bad_format;
            }
            match parse_u64(tokens.at(2)) {
                Some(by) => TextRequest::Arith {
                    key,
                    decrement: command == b"decr",
                    by,
                    noreply,
                },
                None => refuse(reply::BAD_DELTA, noreply),
            }
        }
        b"touch" => {
            if !matches!(tokens.len(), 3 | 4) {
                return ERROR;
            }
            if key.len() > KEY_MAX {
                return bad_format;
            }
            match parse_i32(tokens.at(2)) {
                Some(exptime) => TextRequest::Touch {
                    key,
                    exptime,
                    noreply,
                },
                None => refuse(reply::BAD_EXPTIME, noreply),
            }
        }
        b"delete" => {
            if !matches!(tokens.len(), 2..=4) {
                return ERROR;
            }
            // An old form of the command had a time, which may still be 0.
            let zero = tokens.at(2) == b"0";
            let valid = match tokens.len() {
                2 => true,
                3 => zero || noreply,
                _ => zero && noreply,
            };
            let noreply = noreply && tokens.len() > 2;
            if !valid {
                refuse(reply::DELETE_USAGE, noreply)
            } else if key.len() > KEY_MAX {
                refuse(reply::BAD_FORMAT, noreply)
            } else {
                TextRequest::Delete { key, noreply }
            }
        }
        b"flush_all" => {
            if !matches!(tokens.len(), 1..=3) {
                return ERROR;
            }
            let delay = if tokens.len() == if noreply { 2 } else { 1 } {
                Some(0)
            } else {
                parse_i32(tokens.at(1))
            };
            TextRequest::FlushAll { delay, noreply }
        }
        b"verbosity" => {
            if !matches!(tokens.len(), 2 | 3) {
                return ERROR;
            }
            match parse_u32(tokens.at(1)) {
                Some(level) => TextRequest::Verbosity { level, noreply },
                None => bad_format,
            }
        }
        b"version" => TextRequest::Version,
        b"quit" => TextRequest::Quit,
        b"shutdown" => refuse(reply::NO_SHUTDOWN, false),
        b"stats" | b"slabs" | b"lru" | b"lru_crawler" | b"cache_memlimit" | b"watch"
        | b"extstore" | b"refresh_certs" => TextRequest::Admin(tokens),
        [] | [_] => ERROR,
        // memcached distinguishes commands by the first letter, and checks for browsers last.
        [b'g' | b's' | b'a' | b'c' | b'i' | b'd' | b't', ..] => ERROR,
        _ if tokens.last().starts_with(b"HTTP/") => TextRequest::Hangup,
        _ => ERROR,
    }
}

#[inline]
fn get(mut words: Words<'_>, cas: bool, touch: bool) -> TextRequest<'_> {
    let mut keys = words;
    let Some(first) = words.next() else {
        return ERROR;
    };
    let mut exptime = None;
    if touch {
        exptime = parse_i32(first);
        if exptime.is_none() {
            return refuse(reply::BAD_EXPTIME, false);
        }
        keys = words;
    }
    TextRequest::Get(Get {
        cas,
        touch: exptime,
        keys,
    })
}

/// If the line is malformed it is split again: the last word decides whether the error is sent.
#[inline]
fn store<'a>(line: &'a [u8], mut words: Words<'a>, mode: StoreMode, cas: bool) -> TextRequest<'a> {
    let mut next = || words.next().unwrap_or(&[]);
    let (key, flags, exptime, len) = (next(), next(), next(), next());
    let unique = if cas { next() } else { b"0" };
    let (extra, excess) = (next(), next());
    if len.is_empty() || unique.is_empty() || !excess.is_empty() {
        return ERROR;
    }
    let parsed = (|| {
        let flags = parse_u32(flags)?;
        let exptime = parse_i32(exptime)?;
        let unique = parse_u64(unique)?;
        Some(StoreRequest {
            mode,
            compare: cas.then_some(unique),
            key,
            flags,
            exptime,
            len: meta::value_len(len)?,
            noreply: extra == b"noreply",
        })
    })();
    match parsed {
        Some(store) if key.len() <= KEY_MAX => TextRequest::Store(store),
        _ => refuse(reply::BAD_FORMAT, Tokens::new(line).noreply()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    /// A request as text, for comparison.
    fn show(line: &str) -> String {
        match parse(line.as_bytes()) {
            TextRequest::Get(Get { cas, touch, keys }) => {
                let keys: Vec<_> = keys.map(String::from_utf8_lossy).collect();
                format!("get cas={cas} touch={touch:?} {}", keys.join(","))
            }
            TextRequest::Store(store) => format!("{store:?}"),
            TextRequest::Delete { key, noreply } => format!("delete {key:?} {noreply}"),
            TextRequest::Arith {
                key,
                decrement,
                by,
                noreply,
            } => format!("arith {key:?} {decrement} {by} {noreply}"),
            TextRequest::Touch {
                key,
                exptime,
                noreply,
            } => format!("touch {key:?} {exptime} {noreply}"),
            TextRequest::Meta(tokens) => format!("meta {}", tokens.len()),
            TextRequest::Noop => "mn".into(),
            TextRequest::FlushAll { delay, noreply } => format!("flush {delay:?} {noreply}"),
            TextRequest::Verbosity { level, noreply } => format!("verbosity {level} {noreply}"),
            TextRequest::Version => "version".into(),
            TextRequest::Quit => "quit".into(),
            TextRequest::Admin(tokens) => format!("admin {}", tokens.len()),
            TextRequest::Reply { line, noreply } => {
                let line = String::from_utf8_lossy(line);
                format!("{}{}", line.trim_end(), if noreply { " -" } else { "" })
            }
            TextRequest::Hangup => "hangup".into(),
        }
    }

    #[test]
    fn a_command_line_is_parsed_as_memcached_parses_it() {
        let format = "CLIENT_ERROR bad command line format";
        let delta = "CLIENT_ERROR invalid numeric delta argument";
        let exptime = "CLIENT_ERROR invalid exptime argument";
        let usage = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
        for (line, want) in [
            ("", "ERROR"),
            ("  ", "ERROR"),
            ("v", "ERROR"),
            ("get", "ERROR"),
            ("get\tf", "ERROR"),
            ("GET f", "ERROR"),
            ("  get  f   g ", "get cas=false touch=None f,g"),
            ("gets f", "get cas=true touch=None f"),
            ("bget f", "get cas=false touch=None f"),
            ("gat", "ERROR"),
            ("gat 10", "get cas=false touch=Some(10) "),
            ("gat x a", exptime),
            ("gats -1 a b", "get cas=true touch=Some(-1) a,b"),
            ("set f 0 0", "ERROR"),
            ("set f 0 0 1 a b", "ERROR"),
            ("set f 0 0 noreply", &format!("{format} -")),
            ("set f x 0 1", format),
            ("set f 0 0 -1", format),
            ("set f 0 0 2147483646", format),
            ("cas a 0 0 1", "ERROR"),
            ("cas a 0 0 1 noreply", &format!("{format} -")),
            ("cas a 0 0 1 1 1 1", "ERROR"),
            ("incr a", "ERROR"),
            ("incr a x", delta),
            ("incr a noreply", &format!("{delta} -")),
            ("decr a 1 2", "arith [97] true 1 false"),
            ("incr a 1 noreply", "arith [97] false 1 true"),
            ("touch a x", exptime),
            ("touch a 5 noreply", "touch [97] 5 true"),
            ("delete", "ERROR"),
            (
                "delete noreply",
                "delete [110, 111, 114, 101, 112, 108, 121] false",
            ),
            ("delete a 0", "delete [97] false"),
            ("delete a 1", usage),
            ("delete a 0 0", usage),
            ("delete a x noreply", &format!("{usage} -")),
            ("delete a 0 noreply", "delete [97] true"),
            ("delete a 0 0 0", "ERROR"),
            ("flush_all", "flush Some(0) false"),
            ("flush_all noreply", "flush Some(0) true"),
            ("flush_all x", "flush None false"),
            ("flush_all 5 noreply", "flush Some(5) true"),
            ("flush_all noreply noreply", "flush None true"),
            ("flush_all 0 0 noreply", "ERROR"),
            ("verbosity", "ERROR"),
            ("verbosity foo", format),
            ("verbosity noreply", &format!("{format} -")),
            ("verbosity 1", "verbosity 1 false"),
            ("version foo", "version"),
            ("quit foo", "quit"),
            ("mn foo", "mn"),
            ("mg a v", "meta 3"),
            ("mgx a v", "ERROR"),
            ("shutdown", "ERROR: shutdown not enabled"),
            ("stats items", "admin 2"),
            ("statsfoo", "ERROR"),
            ("GET / HTTP/1.1", "hangup"),
            ("foo HTTP/1.0 x", "ERROR"),
            ("geta HTTP/1.0", "ERROR"),
        ] {
            assert_eq!(show(line), want, "{line:?}");
        }
    }

    #[test]
    fn a_store_command_has_its_fields() {
        let TextRequest::Store(store) = parse(b"set key 5 -1 10") else {
            panic!("not a store");
        };
        let want = StoreRequest {
            mode: StoreMode::Set,
            compare: None,
            key: b"key",
            flags: 5,
            exptime: -1,
            len: 10,
            noreply: false,
        };
        assert_eq!(store, want);
        let TextRequest::Store(store) = parse(b"cas key 5 60 0 9 noreply") else {
            panic!("not a store");
        };
        assert_eq!((store.mode, store.compare), (StoreMode::Set, Some(9)));
        assert!(store.noreply);
        for (word, mode) in [
            ("add", StoreMode::Add),
            ("replace", StoreMode::Replace),
            ("append", StoreMode::Append),
            ("prepend", StoreMode::Prepend),
        ] {
            let line = format!("{word} k 0 0 1");
            let TextRequest::Store(store) = parse(line.as_bytes()) else {
                panic!("not a store");
            };
            assert_eq!((store.mode, store.compare), (mode, None));
        }
    }

    #[test]
    fn keys_of_251_bytes_are_refused() {
        let key = "k".repeat(251);
        for line in ["set K 0 0 1", "incr K 1", "touch K 1", "delete K"] {
            assert_eq!(
                show(&line.replace('K', &key)),
                "CLIENT_ERROR bad command line format"
            );
            assert!(!show(&line.replace('K', &key[1..])).contains("ERROR"));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_without_a_panic(line: Vec<u8>) {
            let _ = parse(&line);
        }

        /// A store command with one word more or less is an error.
        #[test]
        fn a_store_command_with_a_wrong_number_of_words_is_an_error(extra in 0usize..6, cas: bool) {
            let line = format!("{} k{}", if cas { "cas" } else { "set" }, " 1".repeat(extra));
            let need = if cas { 4 } else { 3 };
            let ok = extra == need || extra == need + 1;
            prop_assert_eq!(matches!(parse(line.as_bytes()), TextRequest::Store(_)), ok);
        }
    }
}
