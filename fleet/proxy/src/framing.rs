// SPDX-License-Identifier: MIT

//! Finds the end of a node's reply.

use hippos_proto::binary::{op, Header, HEADER, RESPONSE};
use hippos_proto::number::parse_u32;
use hippos_proto::reply;
use hippos_proto::token::{memchr, Words};

/// The kind of a command's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// One line.
    Line,
    /// `VALUE` lines with their data up to `END`, or one line of error.
    Values,
    /// A line of a meta command, with data if it begins with `VA`.
    Meta,
    /// Lines up to `END`, or one line.
    Listing,
    /// A packet.
    Binary,
    /// Packets up to one without a key.
    BinaryListing,
}

/// The result of looking for a reply in a node's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed {
    /// The reply is incomplete.
    More,
    /// A reply.
    Reply {
        /// Its length, 0 if the command was not answered.
        reply: usize,
        /// Its length with that of the fence.
        taken: usize,
    },
    /// It is not a reply: the connection cannot be used any more.
    Broken,
}

/// Sent after a text command that may have no reply.
pub const FENCE: &[u8] = b"mn\r\n";

/// Sent after a binary command that may have no reply: `NOOP`.
pub const BINARY_FENCE: [u8; HEADER] = {
    let mut packet = [0; HEADER];
    packet[0] = hippos_proto::binary::REQUEST;
    packet[1] = op::NOOP;
    packet
};

/// The longest line of a reply, line end included.
const LINE_MAX: usize = 8 << 10;

/// Finds the end of the reply at the start of `input`. A reply of more than `limit` bytes is an error.
pub fn frame(input: &[u8], expect: Expect, fence: bool, limit: usize) -> Framed {
    let found = if fence {
        fenced(input, expect, limit)
    } else {
        one(input, expect, limit).map(|len| (len, len))
    };
    match found {
        Ok((reply, taken)) => Framed::Reply { reply, taken },
        Err(Missing::More) if input.len() > limit => Framed::Broken,
        Err(Missing::More) => Framed::More,
        Err(Missing::Never) => Framed::Broken,
    }
}

#[derive(Clone, Copy, Debug)]
enum Missing {
    More,
    Never,
}

fn fenced(input: &[u8], expect: Expect, limit: usize) -> Result<(usize, usize), Missing> {
    let mut reply = 0;
    for _ in 0..2 {
        let rest = &input[reply..];
        if matches!(expect, Expect::Binary) {
            let head = Header::parse(rest).ok_or(Missing::More)?;
            if head.opcode == op::NOOP {
                return Ok((reply, reply + one(rest, expect, limit)?));
            }
        } else if line(rest)? == reply::MN {
            return Ok((reply, reply + reply::MN.len()));
        }
        if reply == 0 {
            reply = one(rest, expect, limit)?;
        }
    }
    Err(Missing::Never)
}

/// The line at the start of `input`, with its line end.
fn line(input: &[u8]) -> Result<&[u8], Missing> {
    let window = input.get(..LINE_MAX).unwrap_or(input);
    match memchr(b'\n', window) {
        Some(end) if end > 0 && window[end - 1] == b'\r' => Ok(&window[..=end]),
        Some(_) => Err(Missing::Never),
        None if window.len() < LINE_MAX => Err(Missing::More),
        None => Err(Missing::Never),
    }
}

fn is_error(line: &[u8]) -> bool {
    line.starts_with(b"ERROR")
        || line.starts_with(b"CLIENT_ERROR ")
        || line.starts_with(b"SERVER_ERROR ")
}

/// A `VALUE` line with its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// The key.
    pub key: &'a [u8],
    /// All bytes: the line, the data, its line end.
    pub whole: &'a [u8],
}

/// Parses the `VALUE` line at the start of `input` and its data; `None` if they are incomplete or invalid.
pub fn value(input: &[u8]) -> Option<Value<'_>> {
    let (head, key, len) = value_line(line(input).ok()?)?;
    let whole = input.get(..head + len + 2)?;
    whole.ends_with(b"\r\n").then_some(Value { key, whole })
}

/// The length, key and data length of a `VALUE` line.
fn value_line(line: &[u8]) -> Option<(usize, &[u8], usize)> {
    let text = line.strip_prefix(b"VALUE ")?.strip_suffix(b"\r\n")?;
    let mut words = Words::new(text);
    let key = words.next()?;
    words.next()?;
    let len = parse_u32(words.next()?)?;
    Some((line.len(), key, len as usize))
}

fn one(input: &[u8], expect: Expect, limit: usize) -> Result<usize, Missing> {
    let data = |at: usize, len: usize| {
        let end = at.checked_add(len).and_then(|end| end.checked_add(2));
        let end = end.filter(|&end| end <= limit).ok_or(Missing::Never)?;
        match input.get(end - 2..end) {
            Some(b"\r\n") => Ok(end),
            Some(_) => Err(Missing::Never),
            None => Err(Missing::More),
        }
    };
    match expect {
        Expect::Line => match line(input)? {
            [b'A'..=b'Z' | b'0'..=b'9', ..] => Ok(line(input)?.len()),
            _ => Err(Missing::Never),
        },
        Expect::Values => {
            let mut at = 0;
            loop {
                let line = line(&input[at..])?;
                if line == reply::END || is_error(line) {
                    return Ok(at + line.len());
                }
                let (head, _, len) = value_line(line).ok_or(Missing::Never)?;
                at = data(at + head, len)?;
            }
        }
        Expect::Meta => {
            let line = line(input)?;
            if let Some(text) = line.strip_prefix(b"VA ") {
                let text = text.strip_suffix(b"\r\n").unwrap_or(text);
                let len = Words::new(text).next().and_then(parse_u32);
                return data(line.len(), len.ok_or(Missing::Never)? as usize);
            }
            match line {
                [b'A'..=b'Z', b'A'..=b'Z', b' ' | b'\r', ..] => Ok(line.len()),
                line if is_error(line) => Ok(line.len()),
                _ => Err(Missing::Never),
            }
        }
        Expect::Listing => {
            let mut at = 0;
            loop {
                let line = line(&input[at..])?;
                at += line.len();
                let more = [&b"STAT "[..], b"ITEM ", b"PREFIX "];
                if !more.iter().any(|word| line.starts_with(word)) {
                    return Ok(at);
                }
            }
        }
        Expect::Binary => packet(input, limit).map(|(len, _)| len),
        Expect::BinaryListing => {
            let mut at = 0;
            loop {
                let (len, last) = packet(&input[at..], limit)?;
                at += len;
                if last {
                    return Ok(at);
                }
            }
        }
    }
}

/// The length of a packet, and whether it is the last of a list.
fn packet(input: &[u8], limit: usize) -> Result<(usize, bool), Missing> {
    match input.first() {
        Some(&RESPONSE) => {}
        Some(_) => return Err(Missing::Never),
        None => return Err(Missing::More),
    }
    let head = Header::parse(input).ok_or(Missing::More)?;
    let len = HEADER + head.body as usize;
    if len > limit || head.value().is_none() {
        return Err(Missing::Never);
    }
    let status = [input[6], input[7]];
    match input.len() {
        have if have < len => Err(Missing::More),
        _ => Ok((len, head.key == 0 || status != [0, 0])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    fn framed(input: &[u8], expect: Expect, fence: bool) -> Framed {
        frame(input, expect, fence, LIMIT)
    }

    #[test]
    fn a_reply_ends_where_it_ends_and_not_before() {
        let packet = |opcode: u8, key: u8, body: u8| {
            let mut bytes = vec![0; HEADER + usize::from(body)];
            (bytes[0], bytes[1], bytes[3], bytes[11]) = (RESPONSE, opcode, key, body);
            bytes
        };
        let stats = [packet(op::STAT, 1, 2), packet(op::STAT, 0, 0)].concat();
        let quiet = [packet(op::SET, 0, 5), packet(op::NOOP, 0, 0)].concat();
        let set = packet(op::SET, 0, 3);
        for (bytes, expect, fence, reply) in [
            (&b"STORED\r\n"[..], Expect::Line, false, 8),
            (b"12\r\n", Expect::Line, false, 4),
            (b"END\r\n", Expect::Values, false, 5),
            (
                b"VALUE a 0 2\r\n\r\n\r\nVALUE b 0 0 7\r\n\r\nEND\r\n",
                Expect::Values,
                false,
                39,
            ),
            (b"SERVER_ERROR x\r\n", Expect::Values, false, 16),
            (b"VA 3 t-1\r\nabc\r\n", Expect::Meta, false, 15),
            (b"HD\r\n", Expect::Meta, false, 4),
            (b"MN\r\n", Expect::Meta, true, 0),
            (b"EN\r\nMN\r\n", Expect::Meta, true, 4),
            (b"VA 4\r\nMN\r\n\r\nMN\r\n", Expect::Meta, true, 12),
            (b"SERVER_ERROR x\r\nMN\r\n", Expect::Line, true, 16),
            (b"STAT a b\r\nEND\r\n", Expect::Listing, false, 15),
            (b"RESET\r\n", Expect::Listing, false, 7),
            (&set, Expect::Binary, false, 27),
            (&quiet, Expect::Binary, true, 29),
            (&stats, Expect::BinaryListing, false, 50),
        ] {
            let taken = bytes.len();
            let want = Framed::Reply { reply, taken };
            let text = String::from_utf8_lossy(bytes);
            for cut in 0..taken {
                assert_eq!(
                    framed(&bytes[..cut], expect, fence),
                    Framed::More,
                    "{text} {cut}"
                );
            }
            assert_eq!(framed(bytes, expect, fence), want, "{text}");
            let more = [bytes, b"VALUE"].concat();
            assert_eq!(framed(&more, expect, fence), want, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_a_reply_break_the_connection() {
        for (bytes, expect, fence) in [
            (&b"VALUE a 0 2\r\nabc\r\nEND\r\n"[..], Expect::Values, false),
            (b"VALUE a 0 4000000000\r\n", Expect::Values, false),
            (b"STORED\r\n", Expect::Values, false),
            (b"VALUE a 0 x\r\n", Expect::Values, false),
            (b"VA\r\n", Expect::Binary, false),
            (b"stored\r\n", Expect::Line, false),
            (b"END\n", Expect::Values, false),
            (b"HD\r\nHD\r\n", Expect::Meta, true),
            (b"VA x\r\n", Expect::Meta, false),
        ] {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(framed(bytes, expect, fence), Framed::Broken, "{text}");
        }
        let endless = vec![b'A'; LINE_MAX];
        assert_eq!(framed(&endless, Expect::Line, false), Framed::Broken);
    }

    proptest! {
        #[test]
        fn any_bytes_are_framed_within_their_length(bytes: Vec<u8>, fence: bool) {
            for expect in [Expect::Line, Expect::Values, Expect::Meta, Expect::Listing,
                           Expect::Binary, Expect::BinaryListing] {
                if let Framed::Reply { reply, taken } = framed(&bytes, expect, fence) {
                    prop_assert!(reply <= taken && taken <= bytes.len());
                }
            }
        }
    }
}
