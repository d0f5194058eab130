// SPDX-License-Identifier: GPL-2.0-only
//! The client's side of the protocols (the binary one is in [`binary`]), and the frame of UDP datagrams.

use crate::binary;
use crate::element::{expiry, Element, STREAMED};
use crate::payload::{self, Stream};
use crate::request::{Request, Verb};
use crate::settings::Protocol;

/// The end of a line and of a value.
const CRLF: &[u8] = b"\r\n";

/// Bytes of the UDP frame.
pub const FRAME: usize = 8;
/// The longest datagram of a request: memcached's limit, and one Ethernet frame.
pub const REQUEST_MAX: usize = 1400;

/// The 8-byte header of a datagram: request id, sequence number, datagrams in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Frame {
    pub id: u16,
    pub sequence: u16,
    pub total: u16,
}

impl Frame {
    /// The header as bytes, in network order; the last two are reserved.
    pub fn bytes(self) -> [u8; FRAME] {
        let ([a, b], [c, d], [e, f]) = (
            self.id.to_be_bytes(),
            self.sequence.to_be_bytes(),
            self.total.to_be_bytes(),
        );
        [a, b, c, d, e, f, 0, 0]
    }

    /// A message without datagrams and bytes, with which memcached's reply to several keys begins if the first one
    /// misses.
    pub fn empty(self, body: &[u8]) -> bool {
        (self.sequence, self.total) == (0, 0) && body.is_empty()
    }

    /// Removes the header from a datagram; `None` if it is not part of a message.
    pub fn split(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let (head, body) = datagram.split_first_chunk::<FRAME>()?;
        let [a, b, c, d, e, f, ..] = *head;
        let frame = Self {
            id: u16::from_be_bytes([a, b]),
            sequence: u16::from_be_bytes([c, d]),
            total: u16::from_be_bytes([e, f]),
        };
        let part = frame.sequence < frame.total;
        (part || frame.empty(body)).then_some((frame, body))
    }
}

/// Appends a request to `out`; a stored value is the key's at `version`. A value that is too large to generate at once
/// is returned: it and the bytes of [`tail`] have to follow.
#[must_use]
pub fn encode(
    request: &Request,
    protocol: Protocol,
    version: u32,
    out: &mut Vec<u8>,
) -> Option<Stream> {
    if protocol == Protocol::Binary {
        return binary::encode(request, version, out);
    }
    let meta = protocol == Protocol::Meta;
    let key = request.keys.first()?;
    let name = request.key(key);
    let flags = payload::flags(key.hash);
    let ttl = expiry(request.ttl);
    match (request.verb, meta) {
        (Verb::Get | Verb::Gets, true) => {
            let cas = if request.verb == Verb::Gets { " c" } else { "" };
            for key in &request.keys {
                push(
                    out,
                    &[b"mg ", request.key(key), b" k f v", cas.as_bytes(), b"\r\n"],
                );
            }
        }
        (Verb::Get | Verb::Gets, false) => {
            push(out, &[request.verb.word().as_bytes()]);
            for key in &request.keys {
                push(out, &[b" ", request.key(key)]);
            }
            push(out, &[b"\r\n"]);
        }
        (Verb::Gat, true) => push(
            out,
            &[b"mg ", name, b" k f v T", ttl.to_string().as_bytes(), CRLF],
        ),
        (Verb::Gat, false) => push(
            out,
            &[b"gat ", ttl.to_string().as_bytes(), b" ", name, CRLF],
        ),
        (Verb::Incr, true) => push(out, &[b"ma ", name, b" N0 J0\r\n"]),
        (Verb::Incr, false) => push(out, &[b"incr ", name, b" 1\r\n"]),
        (verb, _) if verb.stores() => {
            let len = request.value_len;
            let cas = request.cas;
            let line = if meta {
                let mode = match request.verb {
                    Verb::Add => " ME",
                    Verb::Replace => " MR",
                    Verb::Append => " MA",
                    _ => "",
                };
                let cas = match request.verb {
                    Verb::Cas => format!(" C{cas}"),
                    _ => String::new(),
                };
                format!(" {len} F{flags} T{ttl}{mode}{cas}\r\n")
            } else if request.verb == Verb::Cas {
                format!(" {flags} {ttl} {len} {cas}\r\n")
            } else {
                format!(" {flags} {ttl} {len}\r\n")
            };
            let verb = if meta { "ms" } else { request.verb.word() };
            push(out, &[verb.as_bytes(), b" ", name, line.as_bytes()]);
            if key.counter() {
                out.resize(out.len() + len as usize, b'0');
            } else if len > STREAMED {
                return Some(Stream::new(key.hash, version, len as usize));
            } else {
                payload::append(out, len as usize, key.hash, version);
            }
            push(out, &[CRLF]);
        }
        (Verb::Delete, _) => push(
            out,
            &[if meta { b"md " } else { b"delete " }, name, b"\r\n"],
        ),
        (Verb::Touch, true) => push(
            out,
            &[b"mg ", name, b" T", ttl.to_string().as_bytes(), b"\r\n"],
        ),
        (Verb::Touch, false) => push(
            out,
            &[b"touch ", name, b" ", ttl.to_string().as_bytes(), b"\r\n"],
        ),
        // The other verbs store, and are handled above.
        _ => {}
    }
    None
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The bytes after a value that is generated piece by piece.
pub fn tail(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Binary => b"",
        _ => CRLF,
    }
}

/// The first element of a reply and its length; `None` if more bytes are needed.
pub fn element(protocol: Protocol, input: &[u8]) -> Option<(Element<'_>, usize)> {
    match protocol {
        Protocol::Binary => binary::element(input),
        _ => line(input),
    }
}

/// The first element of a text reply.
fn line(input: &[u8]) -> Option<(Element<'_>, usize)> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        // A line of a reply is at most a key and a few numbers.
        return (input.len() > 2048)
            .then_some((Element::Malformed("a line without an end"), input.len()));
    };
    let after = end + 1;
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let (word, rest) = split_word(line);
    let header = match word {
        b"VALUE" => classic_header(rest),
        b"VA" => meta_header(rest),
        b"END" => return Some((Element::End, after)),
        b"EN" => return Some((Element::Miss, after)),
        _ => return Some((Element::Line(line), after)),
    };
    let Some((key, flags, len, cas)) = header else {
        return Some((
            Element::Malformed("a value whose header cannot be read"),
            after,
        ));
    };
    let data = input.get(after..after + len)?;
    let tail = input.get(after + len..after + len + 2)?;
    if tail != b"\r\n" {
        return Some((
            Element::Malformed("a value that does not end where it should"),
            input.len(),
        ));
    }
    let value = Element::Value {
        key,
        flags,
        cas,
        data,
    };
    Some((value, after + len + 2))
}

fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', line) {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &[]),
    }
}

/// `key flags bytes [cas]`
fn classic_header(rest: &[u8]) -> Option<(&[u8], u32, usize, u64)> {
    let (key, rest) = split_word(rest);
    let (flags, rest) = split_word(rest);
    let (len, cas) = split_word(rest);
    Some((key, number(flags)?, number(len)? as usize, long(cas)))
}

/// `bytes [fFLAGS] [kKEY] ...`
fn meta_header(rest: &[u8]) -> Option<(&[u8], u32, usize, u64)> {
    let (len, mut rest) = split_word(rest);
    let (mut key, mut flags, mut cas): (&[u8], u32, u64) = (b"", 0, 0);
    while !rest.is_empty() {
        let (token, more) = split_word(rest);
        match token.split_first()? {
            (b'k', name) => key = name,
            (b'f', value) => flags = number(value)?,
            (b'c', value) => cas = long(value),
            _ => {}
        }
        rest = more;
    }
    Some((key, flags, number(len)? as usize, cas))
}

/// A CAS value; 0 if there is none.
fn long(digits: &[u8]) -> u64 {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// A decimal number of at most 10 digits.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
    u32::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestKey;

    fn request(verb: Verb, keys: &[&str]) -> Request {
        let mut request = Request::default();
        request.reset(verb);
        for key in keys {
            request.push(RequestKey::NO_ID, RequestKey::UNKNOWN, |out| {
                out.extend_from_slice(key.as_bytes())
            });
        }
        request
    }

    fn encoded(request: &Request, meta: bool) -> String {
        let protocol = if meta {
            Protocol::Meta
        } else {
            Protocol::Classic
        };
        let mut out = Vec::new();
        assert!(encode(request, protocol, 1, &mut out).is_none());
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn requests_have_the_protocol_s_bytes() {
        assert_eq!(
            encoded(&request(Verb::Get, &["a", "bc"]), false),
            "get a bc\r\n"
        );
        assert_eq!(encoded(&request(Verb::Gets, &["a"]), false), "gets a\r\n");
        assert_eq!(
            encoded(&request(Verb::Get, &["a", "bc"]), true),
            "mg a k f v\r\nmg bc k f v\r\n"
        );
        assert_eq!(
            encoded(&request(Verb::Delete, &["a"]), false),
            "delete a\r\n"
        );
        assert_eq!(encoded(&request(Verb::Delete, &["a"]), true), "md a\r\n");
        assert_eq!(
            encoded(&request(Verb::Touch, &["a"]), false),
            "touch a 0\r\n"
        );
        let mut set = request(Verb::Set, &["a"]);
        set.ttl = 60;
        let flags = payload::flags(payload::hash(b"a"));
        assert_eq!(encoded(&set, false), format!("set a {flags} 60 0\r\n\r\n"));
        assert_eq!(encoded(&set, true), format!("ms a 0 F{flags} T60\r\n\r\n"));
    }

    #[test]
    fn a_large_value_is_made_while_it_is_sent() {
        let len = 528_000_000;
        for protocol in [Protocol::Classic, Protocol::Meta, Protocol::Binary] {
            let mut set = request(Verb::Set, &["a"]);
            set.value_len = len;
            let mut out = Vec::new();
            let value = encode(&set, protocol, 1, &mut out).map(|value| value.left());
            assert_eq!(value, Some(len as usize), "{protocol:?}");
            assert!(out.len() < 100, "{protocol:?}: {} bytes at once", out.len());
        }
    }

    #[test]
    fn long_expiry_times_become_absolute() {
        assert_eq!(expiry(2_592_000), 2_592_000);
        assert!(expiry(2_592_001) > 1_600_000_000);
    }

    #[test]
    fn expiry_times_beyond_2038_are_never() {
        // Older servers keep Unix time in 32 bits, signed: anything later would be in the past.
        for ttl in [i32::MAX as u32 - 1, i32::MAX as u32, u32::MAX - 1, u32::MAX] {
            assert_eq!(expiry(ttl), 0, "{ttl}");
        }
    }

    #[test]
    fn replies_are_parsed_one_by_one() {
        let value = |key, flags, data| Element::Value {
            key,
            flags,
            cas: 0,
            data,
        };
        let cases: [(&[u8], Element); 9] = [
            (b"VALUE k 5 3\r\nabc\r\n", value(b"k", 5, b"abc")),
            (
                b"VALUE k 5 3 77\r\na\r\n\r\n",
                Element::Value {
                    key: b"k",
                    flags: 5,
                    cas: 77,
                    data: b"a\r\n",
                },
            ),
            (b"VALUE k 0 0\r\n\r\n", value(b"k", 0, b"")),
            (b"VA 2 kkey f9\r\nab\r\n", value(b"key", 9, b"ab")),
            (b"VA 2\r\nab\r\n", value(b"", 0, b"ab")),
            (b"END\r\n", Element::End),
            (b"EN kx\r\n", Element::Miss),
            (b"STORED\r\n", Element::Line(b"STORED")),
            (
                b"SERVER_ERROR out of memory\r\n",
                Element::Line(b"SERVER_ERROR out of memory"),
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(line(input), Some((expected, input.len())));
            for cut in 0..input.len() {
                assert_eq!(
                    line(&input[..cut]),
                    None,
                    "{:?} cut at {cut}",
                    String::from_utf8_lossy(input)
                );
            }
        }
    }

    #[test]
    fn bytes_that_are_not_a_reply_are_malformed() {
        let bad: [&[u8]; 5] = [
            b"VALUE k 5\r\n",
            b"VALUE k five 3\r\nabc\r\n",
            b"VALUE k 5 3\r\nabcd\r\n",
            b"VA x\r\n",
            b"VALUE k 5 99999999999\r\n",
        ];
        for input in bad {
            assert!(
                matches!(line(input), Some((Element::Malformed(_), _))),
                "{:?}",
                String::from_utf8_lossy(input)
            );
        }
        assert!(matches!(
            line(&[b'x'; 3000]),
            Some((Element::Malformed(_), _))
        ));
    }

    #[test]
    fn frames_survive_the_round_trip() {
        let frame = Frame {
            id: 0x1234,
            sequence: 1,
            total: 300,
        };
        let mut datagram = frame.bytes().to_vec();
        assert_eq!(datagram, [0x12, 0x34, 0, 1, 1, 0x2c, 0, 0]);
        datagram.extend_from_slice(b"END\r\n");
        assert_eq!(Frame::split(&datagram), Some((frame, &b"END\r\n"[..])));
        assert_eq!(Frame::split(&datagram[..7]), None);
        assert!(Frame::split(&[1, 2, 0, 0, 0, 0, 0, 0]).is_some());
        assert_eq!(Frame::split(&[1, 2, 0, 0, 0, 0, 0, 0, b'E']), None);
        assert_eq!(
            Frame::split(
                &Frame {
                    id: 1,
                    sequence: 1,
                    total: 1
                }
                .bytes()
            ),
            None
        );
    }
}
