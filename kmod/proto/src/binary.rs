// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! The binary protocol: headers, opcodes and status codes.

/// The first byte of a request.
pub const REQUEST: u8 = 0x80;
/// The first byte of a response.
pub const RESPONSE: u8 = 0x81;
/// Bytes of a header.
pub const HEADER: usize = 24;
/// The most bytes of header, extras and key that memcached accepts before it closes the connection: its read buffer.
pub const FRONT_MAX: usize = 16 << 10;

/// Opcodes.
pub mod op {
    #![allow(missing_docs)]
    pub const GET: u8 = 0x00;
    pub const SET: u8 = 0x01;
    pub const ADD: u8 = 0x02;
    pub const REPLACE: u8 = 0x03;
    pub const DELETE: u8 = 0x04;
    pub const INCREMENT: u8 = 0x05;
    pub const DECREMENT: u8 = 0x06;
    pub const QUIT: u8 = 0x07;
    pub const FLUSH: u8 = 0x08;
    pub const GETQ: u8 = 0x09;
    pub const NOOP: u8 = 0x0a;
    pub const VERSION: u8 = 0x0b;
    pub const GETK: u8 = 0x0c;
    pub const GETKQ: u8 = 0x0d;
    pub const APPEND: u8 = 0x0e;
    pub const PREPEND: u8 = 0x0f;
    pub const STAT: u8 = 0x10;
    pub const SETQ: u8 = 0x11;
    pub const ADDQ: u8 = 0x12;
    pub const REPLACEQ: u8 = 0x13;
    pub const DELETEQ: u8 = 0x14;
    pub const INCREMENTQ: u8 = 0x15;
    pub const DECREMENTQ: u8 = 0x16;
    pub const QUITQ: u8 = 0x17;
    pub const FLUSHQ: u8 = 0x18;
    pub const APPENDQ: u8 = 0x19;
    pub const PREPENDQ: u8 = 0x1a;
    pub const TOUCH: u8 = 0x1c;
    pub const GAT: u8 = 0x1d;
    pub const GATQ: u8 = 0x1e;
    pub const SASL_LIST_MECHS: u8 = 0x20;
    pub const SASL_AUTH: u8 = 0x21;
    pub const SASL_STEP: u8 = 0x22;
    pub const GATK: u8 = 0x23;
    pub const GATKQ: u8 = 0x24;
}

/// The normal form of a quiet opcode; `None` when the opcode is not quiet.
#[inline]
pub const fn non_quiet(opcode: u8) -> Option<u8> {
    Some(match opcode {
        op::GETQ => op::GET,
        op::GETKQ => op::GETK,
        op::SETQ => op::SET,
        op::ADDQ => op::ADD,
        op::REPLACEQ => op::REPLACE,
        op::DELETEQ => op::DELETE,
        op::INCREMENTQ => op::INCREMENT,
        op::DECREMENTQ => op::DECREMENT,
        op::QUITQ => op::QUIT,
        op::FLUSHQ => op::FLUSH,
        op::APPENDQ => op::APPEND,
        op::PREPENDQ => op::PREPEND,
        op::GATQ => op::GAT,
        op::GATKQ => op::GATK,
        _ => return None,
    })
}

/// The outcome in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// Done.
    Success = 0x00,
    /// No such key.
    NotFound = 0x01,
    /// The CAS value differs, or the key exists already.
    Exists = 0x02,
    /// Larger than the item limit.
    TooLarge = 0x03,
    /// Malformed request.
    Invalid = 0x04,
    /// Nothing to append or prepend to.
    NotStored = 0x05,
    /// incr or decr of a value that is not a number.
    NonNumeric = 0x06,
    /// Not allowed.
    AuthError = 0x20,
    /// Unknown opcode.
    UnknownCommand = 0x81,
    /// No memory.
    OutOfMemory = 0x82,
}

impl Status {
    /// The text that an error response carries.
    pub const fn text(self) -> &'static [u8] {
        match self {
            Status::Success => b"",
            Status::NotFound => b"Not found",
            Status::Exists => b"Data exists for key.",
            Status::TooLarge => b"Too large.",
            Status::Invalid => b"Invalid arguments",
            Status::NotStored => b"Not stored.",
            Status::NonNumeric => b"Non-numeric server-side value for incr or decr",
            Status::AuthError => b"Auth failure.",
            Status::UnknownCommand => b"Unknown command",
            Status::OutOfMemory => b"Out of memory",
        }
    }
}

/// A request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first byte, [`REQUEST`] in a valid request.
    pub magic: u8,
    /// The operation, see [`op`].
    pub opcode: u8,
    /// Bytes of the key.
    pub key: u16,
    /// Bytes of the extras.
    pub extras: u8,
    /// Bytes that follow the header: extras, key and value.
    pub body: u32,
    /// The client's opaque number, returned unchanged.
    pub opaque: u32,
    /// The CAS value to compare with, 0 for none.
    pub cas: u64,
}

impl Header {
    /// Parses the header at the start of `input`, if all of it has arrived.
    #[inline]
    pub fn parse(input: &[u8]) -> Option<Self> {
        let b = input.first_chunk::<HEADER>()?;
        Some(Self {
            magic: b[0],
            opcode: b[1],
            key: u16::from_be_bytes([b[2], b[3]]),
            extras: b[4],
            body: u32::from_be_bytes([b[8], b[9], b[10], b[11]]),
            opaque: u32::from_be_bytes([b[12], b[13], b[14], b[15]]),
            cas: u64::from_be_bytes([b[16], b[17], b[18], b[19], b[20], b[21], b[22], b[23]]),
        })
    }

    /// Bytes of the value; `None` when the lengths contradict each other.
    #[inline]
    pub const fn value(&self) -> Option<u32> {
        self.body.checked_sub(self.key as u32 + self.extras as u32)
    }
}

/// A response's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's opcode.
    pub opcode: u8,
    /// The outcome.
    pub status: Status,
    /// Bytes of the key.
    pub key: u16,
    /// Bytes of the extras.
    pub extras: u8,
    /// Bytes that follow the header: extras, key and value.
    pub body: u32,
    /// The request's opaque number.
    pub opaque: u32,
    /// The item's CAS value, 0 for none.
    pub cas: u64,
}

impl Response {
    /// The header's bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let [k0, k1] = self.key.to_be_bytes();
        let [s0, s1] = (self.status as u16).to_be_bytes();
        let [b0, b1, b2, b3] = self.body.to_be_bytes();
        let [o0, o1, o2, o3] = self.opaque.to_be_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.cas.to_be_bytes();
        [
            RESPONSE,
            self.opcode,
            k0,
            k1,
            self.extras,
            0,
            s0,
            s1,
            b0,
            b1,
            b2,
            b3,
            o0,
            o1,
            o2,
            o3,
            c0,
            c1,
            c2,
            c3,
            c4,
            c5,
            c6,
            c7,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_header_is_parsed() {
        let mut bytes = [0u8; 24];
        bytes[..12].copy_from_slice(b"\x80\x01\0\x03\x08\0\0\0\0\0\0\x0d");
        bytes[12..16].copy_from_slice(b"abcd");
        bytes[23] = 9;
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(
            header,
            Header {
                magic: REQUEST,
                opcode: op::SET,
                key: 3,
                extras: 8,
                body: 13,
                opaque: u32::from_be_bytes(*b"abcd"),
                cas: 9
            }
        );
        assert_eq!(header.value(), Some(2));
        assert_eq!(Header { body: 10, ..header }.value(), None);
        assert_eq!(Header::parse(&bytes[..23]), None);
    }

    proptest! {
        /// A response has the same shape as a request.
        #[test]
        fn a_header_is_written_as_it_is_parsed(opcode: u8, key: u16, extras: u8, body: u32, opaque: u32, cas: u64) {
            let status = Status::NotStored;
            let bytes = Response { opcode, status, key, extras, body, opaque, cas }.to_bytes();
            let magic = RESPONSE;
            let want = Header { magic, opcode, key, extras, body, opaque, cas };
            prop_assert_eq!(Header::parse(&bytes), Some(want));
            prop_assert_eq!(&bytes[5..8], &[0, 0, 5][..]);
        }
    }
}
