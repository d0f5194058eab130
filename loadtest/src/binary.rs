// SPDX-License-Identifier: GPL-2.0-only
//! The binary protocol from the client's side: requests, and replies as [`Element`]s.
//!
//! A GET of one key is a `getk`, which always gets a reply; a GET of several keys is one `getkq` for each, whose misses
//! get no reply, and a `noop`, whose reply ends the whole.

use crate::element::{expiry, Element, STREAMED};
use crate::payload::{self, Stream};
use crate::request::{Request, Verb};

/// Bytes of a packet's header.
pub const HEADER: usize = 24;
/// First byte of a request.
pub(crate) const REQUEST: u8 = 0x80;
/// First byte of a reply.
pub(crate) const REPLY: u8 = 0x81;
/// A reply is at most this much longer than the largest value.
const LONGEST: usize = crate::workload::VALUE_MAX as usize + 1024;

/// Commands.
pub(crate) mod opcode {
    pub(crate) const SET: u8 = 0x01;
    pub(crate) const ADD: u8 = 0x02;
    pub(crate) const REPLACE: u8 = 0x03;
    pub(crate) const DELETE: u8 = 0x04;
    pub(crate) const INCR: u8 = 0x05;
    pub(crate) const NOOP: u8 = 0x0a;
    pub(crate) const VERSION: u8 = 0x0b;
    pub(crate) const GETK: u8 = 0x0c;
    pub(crate) const GETKQ: u8 = 0x0d;
    pub(crate) const APPEND: u8 = 0x0e;
    pub(crate) const TOUCH: u8 = 0x1c;
    pub(crate) const GATK: u8 = 0x23;
}

/// The statuses of replies.
pub(crate) mod status {
    pub(crate) const OK: u16 = 0;
    pub(crate) const NOT_FOUND: u16 = 1;
    pub(crate) const EXISTS: u16 = 2;
    pub(crate) const NOT_STORED: u16 = 5;
    pub(crate) const UNKNOWN: u16 = 0x81;
    pub(crate) const OUT_OF_MEMORY: u16 = 0x82;
}

/// The fields of a header that differ from packet to packet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Header {
    pub(crate) opcode: u8,
    pub(crate) key: usize,
    pub(crate) extras: usize,
    pub(crate) value: usize,
    /// The vbucket of a request, 0; the status of a reply.
    pub(crate) status: u16,
    pub(crate) opaque: u32,
    pub(crate) cas: u64,
}

impl Header {
    pub(crate) fn write(self, magic: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(&[magic, self.opcode]);
        out.extend_from_slice(&(self.key as u16).to_be_bytes());
        out.extend_from_slice(&[self.extras as u8, 0]);
        out.extend_from_slice(&self.status.to_be_bytes());
        let body = self.key + self.extras + self.value;
        out.extend_from_slice(&(body as u32).to_be_bytes());
        out.extend_from_slice(&self.opaque.to_be_bytes());
        out.extend_from_slice(&self.cas.to_be_bytes());
    }

    /// Parses a header; `None` if its lengths contradict each other.
    pub(crate) fn read(bytes: &[u8; HEADER]) -> Option<Self> {
        let short = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(short(at)) << 16 | u32::from(short(at + 2));
        let (key, extras) = (usize::from(short(2)), usize::from(bytes[4]));
        Some(Self {
            opcode: bytes[1],
            key,
            extras,
            value: (word(8) as usize).checked_sub(key + extras)?,
            status: short(6),
            opaque: word(12),
            cas: u64::from(word(16)) << 32 | u64::from(word(20)),
        })
    }

    /// Bytes of the whole packet.
    pub(crate) fn packet(&self) -> usize {
        HEADER + self.extras + self.key + self.value
    }
}

/// The value that connects replies with their request, besides their keys.
pub(crate) fn opaque(hash: u64) -> u32 {
    hash as u32
}

/// The command for a verb; for a GET, the one that always gets a reply.
pub(crate) fn command(verb: Verb) -> u8 {
    match verb {
        Verb::Get | Verb::Gets => opcode::GETK,
        Verb::Gat => opcode::GATK,
        Verb::Set | Verb::Cas => opcode::SET,
        Verb::Add => opcode::ADD,
        Verb::Replace => opcode::REPLACE,
        Verb::Append => opcode::APPEND,
        Verb::Delete => opcode::DELETE,
        Verb::Touch => opcode::TOUCH,
        Verb::Incr => opcode::INCR,
    }
}

/// The request that asks for the server's version.
pub(crate) fn version() -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header {
        opcode: opcode::VERSION,
        ..Header::default()
    };
    header.write(REQUEST, &mut out);
    out
}

/// Bytes of the version that follow the header of a reply to [`version`].
pub(crate) fn version_len(head: &[u8; HEADER]) -> std::io::Result<usize> {
    match Header::read(head) {
        Some(header) if head[0] == REPLY && header.status == status::OK && header.value < 80 => {
            Ok(header.value)
        }
        _ => Err(std::io::Error::other(format!(
            "no memcached: it answers a binary version with {:?}",
            String::from_utf8_lossy(head)
        ))),
    }
}

/// Like [`crate::wire::encode`]; nothing follows a value that is returned.
pub(crate) fn encode(request: &Request, version: u32, out: &mut Vec<u8>) -> Option<Stream> {
    let key = request.keys.first()?;
    let verb = request.verb;
    let opaque = opaque(key.hash);
    if verb.reads() && request.keys.len() > 1 {
        for key in &request.keys {
            let name = request.key(key);
            let header = Header {
                opcode: opcode::GETKQ,
                key: name.len(),
                opaque,
                ..Header::default()
            };
            header.write(REQUEST, out);
            out.extend_from_slice(name);
        }
        let header = Header {
            opcode: opcode::NOOP,
            opaque,
            ..Header::default()
        };
        header.write(REQUEST, out);
        return None;
    }
    let ttl = (expiry(request.ttl) as u32).to_be_bytes();
    let mut extras = [0; 20];
    let extras = match verb {
        Verb::Set | Verb::Cas | Verb::Add | Verb::Replace => {
            extras[..4].copy_from_slice(&payload::flags(key.hash).to_be_bytes());
            extras[4..8].copy_from_slice(&ttl);
            &extras[..8]
        }
        Verb::Touch | Verb::Gat => {
            extras[..4].copy_from_slice(&ttl);
            &extras[..4]
        }
        Verb::Incr => {
            // By one; a missing counter is not created.
            extras[7] = 1;
            extras[16..].fill(0xff);
            &extras[..]
        }
        _ => &[],
    };
    let name = request.key(key);
    let len = if verb.stores() { request.value_len } else { 0 };
    let header = Header {
        opcode: command(verb),
        key: name.len(),
        extras: extras.len(),
        value: len as usize,
        status: 0,
        opaque,
        cas: if verb == Verb::Cas { request.cas } else { 0 },
    };
    header.write(REQUEST, out);
    out.extend_from_slice(extras);
    out.extend_from_slice(name);
    if verb.stores() {
        if key.counter() {
            out.resize(out.len() + len as usize, b'0');
        } else if len > STREAMED {
            return Some(Stream::new(key.hash, version, len as usize));
        } else {
            payload::append(out, len as usize, key.hash, version);
        }
    }
    None
}

/// Like [`crate::wire::element`].
pub(crate) fn element(input: &[u8]) -> Option<(Element<'_>, usize)> {
    let malformed = |why| Some((Element::Malformed(why), input.len()));
    if *input.first()? != REPLY {
        return malformed("no reply of the binary protocol");
    }
    let Some(header) = Header::read(input.first_chunk()?).filter(|h| h.packet() <= LONGEST) else {
        return malformed("a packet whose lengths cannot be");
    };
    let body = input.get(HEADER..header.packet())?;
    let (extras, body) = body.split_at(header.extras);
    let (key, data) = body.split_at(header.key);
    let element = match (header.opcode, header.status) {
        (opcode::GETK | opcode::GETKQ | opcode::GATK, status::OK) => match extras.first_chunk() {
            Some(flags) => Element::Value {
                key,
                flags: u32::from_be_bytes(*flags),
                cas: header.cas,
                data,
            },
            None => Element::Malformed("a value without flags"),
        },
        (opcode::GETK | opcode::GATK, status::NOT_FOUND) => Element::Miss,
        (opcode::NOOP, status::OK) => Element::End,
        (opcode, status) => Element::Status {
            opcode,
            status,
            opaque: header.opaque,
        },
    };
    Some((element, header.packet()))
}

/// The name of an error status in reports.
pub(crate) fn error(status: u16) -> &'static [u8] {
    match status {
        0x03 => b"too large (status 0x03)",
        0x04 => b"invalid arguments (status 0x04)",
        0x06 => b"not a number (status 0x06)",
        0x08 => b"authentication is wanted (status 0x08)",
        0x20 => b"not allowed (status 0x20)",
        0x81 => b"unknown command (status 0x81)",
        0x82 => b"out of memory (status 0x82)",
        0x83 => b"not supported (status 0x83)",
        0x84 => b"internal error (status 0x84)",
        0x85 => b"busy (status 0x85)",
        0x86 => b"try again (status 0x86)",
        _ => b"an unknown status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestKey;

    fn encoded(verb: Verb, keys: &[&str], change: impl FnOnce(&mut Request)) -> Vec<u8> {
        let mut request = Request::default();
        request.reset(verb);
        for key in keys {
            request.push(RequestKey::NO_ID, RequestKey::UNKNOWN, |out| {
                out.extend_from_slice(key.as_bytes())
            });
        }
        change(&mut request);
        let mut out = Vec::new();
        assert!(encode(&request, 1, &mut out).is_none());
        out
    }

    /// Opcode, extras, key, bytes of the value and CAS of each packet.
    fn packets(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>, String, usize, u64)> {
        let mut all = Vec::new();
        while let Some(head) = bytes.first_chunk() {
            let header = Header::read(head).unwrap();
            assert_eq!(bytes[0], REQUEST);
            let (packet, rest) = bytes.split_at(header.packet());
            let (extras, body) = packet[HEADER..].split_at(header.extras);
            let key = String::from_utf8_lossy(&body[..header.key]).into_owned();
            all.push((
                header.opcode,
                extras.to_vec(),
                key,
                header.value,
                header.cas,
            ));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        all
    }

    #[test]
    fn requests_have_the_protocol_s_bytes() {
        let get = |op: u8, key: &str| (op, vec![], key.to_string(), 0, 0);
        let none = |_: &mut Request| {};
        let cases = [
            (Verb::Get, vec![get(0x0c, "ab")]),
            (Verb::Delete, vec![get(0x04, "ab")]),
        ];
        for (verb, expected) in cases {
            assert_eq!(packets(&encoded(verb, &["ab"], none)), expected, "{verb:?}");
        }
        assert_eq!(
            packets(&encoded(Verb::Get, &["a", "bc"], none)),
            [get(0x0d, "a"), get(0x0d, "bc"), get(0x0a, "")]
        );
        let flags = payload::flags(payload::hash(b"ab")).to_be_bytes();
        let stored = |request: &mut Request| {
            request.ttl = 60;
            request.value_len = 9;
            request.cas = 77;
        };
        let extras = [&flags[..], &[0, 0, 0, 60]].concat();
        for (verb, op, cas) in [
            (Verb::Set, 0x01, 0),
            (Verb::Add, 0x02, 0),
            (Verb::Replace, 0x03, 0),
            (Verb::Cas, 0x01, 77),
        ] {
            let expected = [(op, extras.clone(), "ab".to_string(), 9, cas)];
            assert_eq!(packets(&encoded(verb, &["ab"], stored)), expected);
        }
        let cases = [
            (Verb::Append, 0x0e, vec![], 9),
            (Verb::Touch, 0x1c, vec![0, 0, 0, 60], 0),
            (Verb::Gat, 0x23, vec![0, 0, 0, 60], 0),
            (
                Verb::Incr,
                0x05,
                [&[0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 8], &[0xff; 4]].concat(),
                0,
            ),
        ];
        for (verb, op, extras, value) in cases {
            let expected = [(op, extras, "ab".to_string(), value, 0)];
            assert_eq!(packets(&encoded(verb, &["ab"], stored)), expected);
        }
    }

    fn reply(header: Header, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        header.write(REPLY, &mut out);
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn replies_are_parsed_one_by_one() {
        let header = |opcode, status| Header {
            opcode,
            status,
            opaque: 5,
            cas: 9,
            ..Header::default()
        };
        let hit = Header {
            extras: 4,
            key: 2,
            value: 3,
            ..header(opcode::GETKQ, 0)
        };
        let miss = Header {
            key: 2,
            ..header(opcode::GETK, 1)
        };
        let text = Header {
            value: 13,
            ..header(opcode::SET, 0x82)
        };
        let value = Element::Value {
            key: b"ab",
            flags: 7,
            cas: 9,
            data: b"xyz",
        };
        let status = |opcode, status| Element::Status {
            opcode,
            status,
            opaque: 5,
        };
        let cases = [
            (reply(hit, b"\0\0\0\x07abxyz"), value),
            (reply(miss, b"ab"), Element::Miss),
            (reply(header(opcode::NOOP, 0), b""), Element::End),
            (reply(header(opcode::SET, 0), b""), status(opcode::SET, 0)),
            (reply(text, b"Out of memory"), status(opcode::SET, 0x82)),
        ];
        for (input, expected) in cases {
            assert_eq!(element(&input), Some((expected, input.len())));
            for cut in 0..input.len() {
                assert_eq!(element(&input[..cut]), None, "{input:02x?} cut at {cut}");
            }
        }
    }

    #[test]
    fn bytes_that_are_not_a_reply_are_malformed() {
        let bare = Header {
            opcode: opcode::GETK,
            ..Header::default()
        };
        let mut contradicts = reply(bare, b"");
        contradicts[3] = 9;
        let mut endless = reply(bare, b"");
        endless[8] = 0xff;
        for input in [&b"ERROR\r\n"[..], &reply(bare, b""), &contradicts, &endless] {
            assert!(
                matches!(element(input), Some((Element::Malformed(_), _))),
                "{input:02x?}"
            );
        }
    }
}
