// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! The frame of UDP requests and replies: request id, sequence number, number of datagrams and a reserved field, big
//! endian.

use crate::token::Words;

/// Bytes of a frame.
pub const FRAME: usize = 8;

/// The most bytes of one reply datagram, frame included.
pub const DATAGRAM_MAX: usize = 1400;

/// The most reply bytes in one datagram.
pub const DATA_MAX: usize = DATAGRAM_MAX - FRAME;

/// memcached's own port.
pub const MEMCACHED_PORT: u16 = 11211;

/// Whether a reply may be sent to this source port by a server at `port`: a server at the source, perhaps a forged
/// one, could answer the reply, and both would go on forever.
#[inline]
pub const fn may_answer_port(source: u16, port: u16) -> bool {
    source != 0 && source != MEMCACHED_PORT && source != port
}

/// The frame of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The client's request id, repeated in every datagram of the reply.
    pub id: u16,
    /// The number of datagrams of the request.
    pub total: u16,
}

impl Frame {
    /// Removes the frame from a datagram's payload. `None` when there is no more than a frame.
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (frame, data) = payload.split_first_chunk::<FRAME>()?;
        if data.is_empty() {
            return None;
        }
        let [id @ .., _, _, t0, t1, _, _] = *frame;
        let frame = Self {
            id: u16::from_be_bytes(id),
            total: u16::from_be_bytes([t0, t1]),
        };
        Some((frame, data))
    }
}

/// The frame of reply datagram number `sequence` of `total`.
#[inline]
pub fn reply_frame(id: u16, sequence: u16, total: u16) -> [u8; FRAME] {
    (u64::from(id) << 48 | u64::from(sequence) << 32 | u64::from(total) << 16).to_be_bytes()
}

/// The number of datagrams of a reply of `len` bytes.
#[inline]
pub const fn datagrams(len: usize) -> usize {
    len.div_ceil(DATA_MAX)
}

/// Whether a datagram's data is itself the start of a reply. Without this check, two servers and one forged source
/// address would answer each other forever.
pub fn is_reply(data: &[u8]) -> bool {
    let first = match data.first() {
        Some(0x81) => return true,
        Some(byte) => *byte,
        None => return false,
    };
    // Commands start with a lower-case letter.
    if first.is_ascii_lowercase() || first == 0x80 {
        return false;
    }
    let line = data.split(|&b| b == b'\r' || b == b'\n').next();
    let word = line.and_then(|line| Words::new(line).next()).unwrap_or(&[]);
    if !word.is_empty() && word.iter().all(u8::is_ascii_digit) {
        return true;
    }
    matches!(
        word,
        b"ERROR"
            | b"ERROR:"
            | b"Error"
            | b"CLIENT_ERROR"
            | b"SERVER_ERROR"
            | b"VALUE"
            | b"END"
            | b"STORED"
            | b"NOT_STORED"
            | b"EXISTS"
            | b"NOT_FOUND"
            | b"DELETED"
            | b"TOUCHED"
            | b"OK"
            | b"RESET"
            | b"STAT"
            | b"PREFIX"
            | b"ITEM"
            | b"VERSION"
            | b"BUSY"
            | b"BADCLASS"
            | b"NOSPARE"
            | b"NOTSTARTED"
            | b"SAME"
            | b"HD"
            | b"VA"
            | b"EN"
            | b"NF"
            | b"NS"
            | b"EX"
            | b"ME"
            | b"MN"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply;

    #[test]
    fn a_frame_is_parsed_and_written() {
        assert_eq!(Frame::parse(b"12345678"), None);
        assert_eq!(Frame::parse(b""), None);
        let (frame, data) = Frame::parse(b"\x12\x34\0\0\0\x01\0\0mn\r\n").unwrap();
        assert_eq!((frame.id, frame.total, data), (0x1234, 1, &b"mn\r\n"[..]));
        assert_eq!(reply_frame(0x1234, 5, 6), *b"\x12\x34\0\x05\0\x06\0\0");
        assert_eq!(datagrams(0), 0);
        assert_eq!(datagrams(1392), 1);
        assert_eq!(datagrams(1393), 2);
    }

    #[test]
    fn the_start_of_a_reply_is_recognised() {
        for line in [
            reply::ERROR,
            reply::END,
            reply::STORED,
            reply::VERSION,
            reply::BAD_FORMAT,
            reply::TOO_LARGE,
            reply::NO_SHUTDOWN,
            reply::EN,
            b"VALUE a 0 1\r\nx\r\nEND\r\n",
            b"VA 2 t-1\r\n",
            b"12\r\n",
            b"ERROR\n",
            b"\x81\0",
        ] {
            assert!(is_reply(line), "{line:?}");
        }
        for line in [
            &b"get a\r\n"[..],
            b"FOO\r\n",
            b"\x80\0",
            b"GET END\r\n",
            b" mn\r\n",
        ] {
            assert!(!is_reply(line), "{line:?}");
        }
    }
}
