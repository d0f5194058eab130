// SPDX-License-Identifier: GPL-2.0-only
//! What a connection asks of its host: a byte stream, pages for replies, memory between turns.

use hippos_proto::reply::Out;

/// The stream is broken: nothing can be sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// There was no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// The first bytes that were received and not yet consumed.
#[derive(Clone, Copy, Debug)]
pub enum Peek<'s> {
    /// So much of it lies in one piece; at least one byte.
    Bytes(&'s [u8]),
    /// It has to be [copied](Stream::copy).
    Scattered,
    /// Nothing yet.
    Nothing,
    /// The peer sends no more and everything was consumed, or the stream is broken.
    End,
}

/// A byte stream that never blocks. The caller has it for itself during a call.
pub trait Stream {
    /// A reply in the making, on one of the host's [`Pages`].
    type Reply<'r>: Out;

    /// The bytes to read next: the same at each call, or more of them, until they are consumed.
    fn peek(&self) -> Peek<'_>;

    /// Copies the first bytes that were received, which stay there; how many. There may be more
    /// behind them. 0 for an empty queue or an error; [`peek`](Self::peek) then says which.
    fn copy(&self, to: &mut [u8]) -> usize;

    /// Is done with the first `len` bytes, which `peek` or `copy` had shown.
    fn consume(&mut self, len: usize);

    /// Whether a short reply would go out whole, as far as can be known.
    fn takes(&self) -> bool;

    /// Sends a copy of what the stream takes now of `bytes`, and says how much that was: less than
    /// all of it when it would block.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken>;

    /// Sends `reply` and returns the bytes that the stream did not take. With `more` other bytes
    /// follow at once, and the last ones may be held back for them.
    fn reply<'r>(&mut self, reply: Self::Reply<'r>, more: bool) -> Result<&'r [u8], Broken>;
}

/// Where replies are written, one at a time.
pub trait Pages<S: Stream> {
    /// Begins a reply with room for at least [`REPLY_HEADER_MAX`](crate::REPLY_HEADER_MAX) bytes; `None` without
    /// memory for it.
    fn open(&mut self) -> Option<S::Reply<'_>>;
}

/// Bytes that a connection holds between its turns. Empty ones take no memory.
pub trait HeldBytes: Default {
    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// Appends `bytes`, all of them or none; may sleep.
    fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory>;

    /// As [`append`](Self::append), but where sleeping is not allowed.
    fn append_atomic(&mut self, bytes: &[u8]) -> Result<(), NoMemory>;

    /// Drops the first `len` bytes.
    fn discard(&mut self, len: usize);
}
