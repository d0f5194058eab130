// SPDX-License-Identifier: GPL-2.0-only
//! The host's part of a connection: a byte stream, pages for replies, memory between turns.

use hippos_proto::reply::Out;

/// The stream is broken: no more bytes can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Memory could not be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// The first bytes that were received and not consumed yet.
#[derive(Clone, Copy, Debug)]
pub enum Peek<'s> {
    /// The part that is contiguous; at least one byte.
    Bytes(&'s [u8]),
    /// The bytes have to be [copied](Stream::copy).
    Scattered,
    /// No bytes have arrived.
    Nothing,
    /// All bytes are consumed and the peer has closed its side, or the stream is broken.
    End,
}

/// A byte stream that never blocks. During a call, only the caller uses it.
pub trait Stream {
    /// A reply that is being written, on one of the host's [`Pages`].
    type Reply<'r>: Out;

    /// The next bytes to read: each call returns the same bytes, or more, until they are consumed.
    fn peek(&self) -> Peek<'_>;

    /// Copies the first bytes that were received, without consuming them, and returns how many. More bytes may follow
    /// them. 0 for an empty queue or an error; [`peek`](Self::peek) distinguishes the two.
    fn copy(&self, to: &mut [u8]) -> usize;

    /// Consumes the first `len` bytes, which `peek` or `copy` returned before.
    fn consume(&mut self, len: usize);

    /// Whether the stream would probably accept a short reply as a whole.
    fn takes(&self) -> bool;

    /// Sends a copy of as many of `bytes` as the stream accepts now, and returns how many: fewer than all if it would
    /// block.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken>;

    /// Sends `reply` and returns the bytes that the stream did not accept. With `more`, other bytes follow at once, and
    /// the last bytes may be held back for them.
    fn reply<'r>(&mut self, reply: Self::Reply<'r>, more: bool) -> Result<&'r [u8], Broken>;
}

/// The pages that replies are written to, one at a time.
pub trait Pages<S: Stream> {
    /// Begins a reply with space for at least [`REPLY_HEADER_MAX`](crate::REPLY_HEADER_MAX) bytes; `None` if there is
    /// no memory for it.
    fn open(&mut self) -> Option<S::Reply<'_>>;
}

/// Bytes that a connection holds between its turns. An empty buffer takes no memory.
pub trait HeldBytes: Default {
    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// Appends `bytes`, all of them or none; may sleep.
    fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory>;

    /// Like [`append`](Self::append), but does not sleep.
    fn append_atomic(&mut self, bytes: &[u8]) -> Result<(), NoMemory>;

    /// Drops the first `len` bytes.
    fn discard(&mut self, len: usize);
}
