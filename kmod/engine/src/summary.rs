// SPDX-License-Identifier: GPL-2.0-only
//! The summary of a request and of its reply for trace points, read from their first bytes: the first command, its key
//! and its outcome.
//!
//! The names of commands and outcomes are from fixed lists, never the client's bytes, so that no client can fill a
//! tracer's table with them.

use hippos_invariant::Exact;
use hippos_proto::binary::{self, op, Header, Status};

use crate::reply::uri::percent_encoded;

/// Commands that a key follows.
const KEYED: &[&str] = &[
    "get", "gets", "mg", "set", "ms", "gat", "gats", "add", "replace", "append", "prepend", "cas",
    "incr", "decr", "ma", "delete", "md", "touch", "me",
];
/// Commands without one.
const KEYLESS: &[&str] = &[
    "mn",
    "stats",
    "version",
    "flush_all",
    "verbosity",
    "quit",
    "watch",
];
/// All others.
const OTHER: &str = "other";

/// A request's first command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary<'a> {
    /// Its name in the text protocol, of the binary one as well; or `other`.
    pub command: &'static str,
    /// Its first key, as far as it is there.
    pub key: &'a [u8],
}

impl<'a> Summary<'a> {
    /// Of a request, without its frame.
    pub fn of(input: &'a [u8]) -> Self {
        match input.first() {
            Some(&binary::REQUEST) => Self::of_binary(input),
            _ => Self::of_text(input),
        }
    }

    /// Of the value of a command that came earlier: the name is `data`.
    pub fn of_data(key: Option<&'a [u8]>) -> Self {
        Self {
            command: "data",
            key: key.unwrap_or(&[]),
        }
    }

    fn of_text(input: &'a [u8]) -> Self {
        let line = input.split(|byte| matches!(byte, b'\r' | b'\n' | 0)).next();
        let mut words = line
            .unwrap_or(&[])
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty());
        let name = words.next().unwrap_or(&[]);
        let named = |list: &[&'static str]| {
            let found = list.iter().find(|command| command.as_bytes() == name);
            found.copied()
        };
        let Some(command) = named(KEYED) else {
            return Self {
                command: named(KEYLESS).unwrap_or(OTHER),
                key: &[],
            };
        };
        // `gat` and `gats` have a time first.
        let skipped = usize::from(matches!(name, b"gat" | b"gats"));
        Self {
            command,
            key: words.nth(skipped).unwrap_or(&[]),
        }
    }

    fn of_binary(input: &'a [u8]) -> Self {
        let Some(head) = Header::parse(input) else {
            return Self {
                command: OTHER,
                key: &[],
            };
        };
        let command = match binary::non_quiet(head.opcode).unwrap_or(head.opcode) {
            op::GET | op::GETK => "get",
            op::SET => "set",
            op::ADD => "add",
            op::REPLACE => "replace",
            op::APPEND => "append",
            op::PREPEND => "prepend",
            op::DELETE => "delete",
            op::INCREMENT => "incr",
            op::DECREMENT => "decr",
            op::TOUCH => "touch",
            op::GAT | op::GATK => "gat",
            op::NOOP => "mn",
            op::STAT => "stats",
            op::VERSION => "version",
            op::FLUSH => "flush_all",
            op::QUIT => "quit",
            _ => OTHER,
        };
        let start = binary::HEADER.add_exact(usize::from(head.extras));
        let end = start.add_exact(usize::from(head.key));
        Self {
            command,
            key: input.get(start..end).unwrap_or(&[]),
        }
    }
}

/// The outcome of a command, read from the start of its reply, without a frame; with several commands or keys, that of
/// the first one with a reply. `none` when there is no reply.
pub fn outcome(command: &str, reply: &[u8]) -> &'static str {
    if let [binary::RESPONSE, _, _, _, _, _, high, low, ..] = *reply {
        return binary_outcome(command, u16::from_be_bytes([high, low]));
    }
    let end = |byte: &u8| matches!(byte, b' ' | b'\r' | b'\n');
    match reply.split(end).next().unwrap_or(&[]) {
        b"" => "none",
        b"VALUE" | b"ME" => "hit",
        b"END" if command != "stats" => "miss",
        b"EN" => "miss",
        b"VA" | b"HD" => done(command),
        b"STORED" => "stored",
        b"DELETED" => "deleted",
        b"TOUCHED" => "touched",
        b"NOT_STORED" | b"NS" => "not_stored",
        b"EXISTS" | b"EX" => "exists",
        b"NOT_FOUND" | b"NF" => "not_found",
        b"ERROR" | b"CLIENT_ERROR" => "client_error",
        b"SERVER_ERROR" => "server_error",
        _ => "ok",
    }
}

/// The outcome of a command whose reply only confirms it.
fn done(command: &str) -> &'static str {
    match command {
        "get" | "gat" | "mg" => "hit",
        "set" | "add" | "replace" | "append" | "prepend" | "ms" | "data" => "stored",
        "delete" | "md" => "deleted",
        "touch" => "touched",
        _ => "ok",
    }
}

fn binary_outcome(command: &str, status: u16) -> &'static str {
    const SUCCESS: u16 = Status::Success as u16;
    const NOT_FOUND: u16 = Status::NotFound as u16;
    const EXISTS: u16 = Status::Exists as u16;
    const NOT_STORED: u16 = Status::NotStored as u16;
    const TOO_LARGE: u16 = Status::TooLarge as u16;
    const OUT_OF_MEMORY: u16 = Status::OutOfMemory as u16;
    match status {
        SUCCESS => done(command),
        NOT_FOUND if done(command) == "hit" => "miss",
        NOT_FOUND => "not_found",
        EXISTS => "exists",
        NOT_STORED => "not_stored",
        TOO_LARGE | OUT_OF_MEMORY => "server_error",
        _ => "client_error",
    }
}

/// A key that may be printed to a terminal: printable bytes are unchanged; `%`, blanks and all other bytes are
/// percent-encoded, as in a URI (`%0A`). Bytes that do not fit are left out.
pub struct PrintableKey {
    text: [u8; Self::MAX],
    shown: usize,
    len: usize,
}

impl PrintableKey {
    /// The most bytes that the kernel's trace points take.
    pub const MAX: usize = 127;

    /// Of any bytes.
    pub fn new(key: &[u8]) -> Self {
        let mut text = [0; Self::MAX];
        let mut shown = 0usize;
        for &byte in key {
            let encoded = percent_encoded(byte);
            let as_it_is = byte.is_ascii_graphic() && byte != b'%';
            let bytes: &[u8] = if as_it_is { &[byte] } else { &encoded };
            let end = shown.add_exact(bytes.len());
            let Some(place) = text.get_mut(shown..end) else {
                break;
            };
            for (to, from) in place.iter_mut().zip(bytes) {
                *to = *from;
            }
            shown = end;
        }
        Self {
            text,
            shown,
            len: key.len(),
        }
    }

    /// The printed part.
    pub fn text(&self) -> &[u8] {
        self.text.get(..self.shown).unwrap_or(&[])
    }

    /// Bytes of the key itself.
    pub fn key_len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn summary(input: &[u8]) -> (&str, &[u8]) {
        let summary = Summary::of(input);
        (summary.command, summary.key)
    }

    #[test]
    fn text_commands_have_name_and_key() {
        for (input, name, key) in [
            (&b"get a b\r\n"[..], "get", &b"a"[..]),
            (b"  set  key 0 0 1\r\nv\r\n", "set", b"key"),
            (b"gat 10 key\r\n", "gat", b"key"),
            (b"mg key v\nget a\r\n", "mg", b"key"),
            (b"mn\r\nget a\r\n", "mn", b""),
            (b"stats slabs\r\n", "stats", b""),
            (b"get", "get", b""),
            (b"get \xff\x1b[2J\0x\r\n", "get", b"\xff\x1b[2J"),
            (b"GET a\r\n", "other", b""),
            (b"\x1b[2J a\r\n", "other", b""),
            (b"\r\n", "other", b""),
            (b"", "other", b""),
        ] {
            assert_eq!(summary(input), (name, key));
        }
    }

    #[test]
    fn binary_commands_have_name_and_key() {
        let mut request = [0; 30];
        request[..5].copy_from_slice(&[binary::REQUEST, op::SETQ, 0, 3, 2]);
        request[26..29].copy_from_slice(b"key");
        assert_eq!(summary(&request), ("set", &b"key"[..]));
        // Lengths in the header that exceed the input give no key.
        for len in 1..29 {
            assert_eq!(summary(&request[..len]).1, b"");
        }
        request[2..5].copy_from_slice(&[0xff; 3]);
        assert_eq!(summary(&request), ("set", &b""[..]));
    }

    #[test]
    fn outcomes_are_those_of_the_reply() {
        for (command, reply, wanted) in [
            ("get", &b"VALUE a 0 1\r\nx\r\nEND\r\n"[..], "hit"),
            ("get", b"END\r\n", "miss"),
            ("mg", b"HD\r\n", "hit"),
            ("mg", b"EN\r\n", "miss"),
            ("ms", b"HD\r\n", "stored"),
            ("md", b"HD\r\n", "deleted"),
            ("ma", b"VA 1\r\n5\r\n", "ok"),
            ("set", b"STORED\r\n", "stored"),
            (
                "set",
                b"SERVER_ERROR object too large for cache\r\n",
                "server_error",
            ),
            ("set", b"", "none"),
            ("incr", b"12\r\n", "ok"),
            ("stats", b"END\r\n", "ok"),
            ("other", b"ERROR\r\n", "client_error"),
            ("get", b"\x81\0\0\0\0\0\0\0", "hit"),
            ("get", b"\x81\0\0\0\0\0\0\x01", "miss"),
            ("delete", b"\x81\0\0\0\0\0\0\x01", "not_found"),
            ("set", b"\x81\0\0\0\0\0\0\x82", "server_error"),
        ] {
            assert_eq!(outcome(command, reply), wanted, "{command:?}: {reply:?}");
        }
    }

    #[test]
    fn keys_are_printable_and_bounded() {
        let all: Vec<u8> = (0..=255).collect();
        for key in all.chunks(64) {
            let key = PrintableKey::new(key);
            assert!(key.text().iter().all(u8::is_ascii_graphic));
            assert_eq!(key.key_len(), 64);
        }
        assert_eq!(
            PrintableKey::new(b"user:1 \n%\x1b").text(),
            b"user:1%20%0A%25%1B"
        );
        let plain = [b'k'; PrintableKey::MAX];
        assert_eq!(PrintableKey::new(&plain).text(), plain);
        let long = [b'\n'; 65535];
        let key = PrintableKey::new(&long);
        // No encoded byte is cut.
        assert_eq!(key.text(), b"%0A".repeat(42).as_slice());
        assert_eq!(key.key_len(), 65535);
    }
}
