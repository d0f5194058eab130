// SPDX-License-Identifier: GPL-2.0-only
//! The pieces of replies, and the common parts of all protocols' requests.

/// Values with more bytes are generated while they are sent.
pub(crate) const STREAMED: u32 = 1 << 20;

/// One piece of a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Element<'a> {
    /// A hit.
    Value {
        /// The key; empty if the reply does not name it.
        key: &'a [u8],
        /// Client flags.
        flags: u32,
        /// The CAS value, 0 if the reply has none.
        cas: u64,
        /// The value.
        data: &'a [u8],
    },
    /// A miss of one key (meta, and binary of a single one).
    Miss,
    /// The end of a GET's reply (classic, and binary of several keys).
    End,
    /// Any other line, without its line end.
    Line(&'a [u8]),
    /// Any other reply of the binary protocol.
    Status {
        /// The command that it answers.
        opcode: u8,
        /// The outcome.
        status: u16,
        /// The opaque value of the request.
        opaque: u32,
    },
    /// Not a reply; the text is the reason.
    Malformed(&'static str),
}

/// memcached interprets up to 30 days as seconds from now, and more as Unix time in 32 bits, signed: an expiry beyond
/// that, in 2038, becomes never.
pub(crate) fn expiry(ttl: u32) -> u64 {
    if i64::from(ttl) <= hippos_semantics::RELATIVE_MAX {
        return u64::from(ttl);
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    match now + u64::from(ttl) {
        at if at > i32::MAX as u64 => 0,
        at => at,
    }
}
