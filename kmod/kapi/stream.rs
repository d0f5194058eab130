// SPDX-License-Identifier: GPL-2.0-only
//! TCP connections under their lock: received bytes are read in place, and replies
//! are sent from the pages that they were written to. `kmod/c/stream.c` describes
//! the contexts in which that is allowed.

use core::ffi::c_int;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::slice;
use kernel::prelude::*;
use kernel::types::Opaque;

use hippos_invariant::{invariant, Exact};

use crate::ffi;
use crate::socket::{result, Socket};

/// A connection whose lock the current context holds.
///
/// # Invariants
///
/// `sk` is a TCP socket, locked for as long as this lives.
pub struct SocketStream<'a> {
    sk: NonNull<ffi::sock>,
    _context: PhantomData<(&'a Socket, *mut ())>,
}

/// The first received bytes that were not consumed yet.
#[derive(Clone, Copy, Debug)]
pub enum ReceivedBytes<'s> {
    /// The bytes that are contiguous; at least one.
    Bytes(&'s [u8]),
    /// They have to be [copied](SocketStream::copy).
    Scattered,
    /// There are none yet.
    Nothing,
    /// The peer sends no more, or the connection is broken.
    End,
}

impl SocketStream<'_> {
    /// # Safety
    ///
    /// `sk` is a TCP socket that stays locked while the result lives.
    pub(crate) unsafe fn new(sk: NonNull<ffi::sock>) -> Self {
        // INVARIANT: by this function's own requirement.
        Self {
            sk,
            _context: PhantomData,
        }
    }

    /// The bytes to read next.
    #[inline]
    pub fn peek(&self) -> ReceivedBytes<'_> {
        let mut len = 0;
        // SAFETY: by the invariant a locked socket.
        let start = unsafe { ffi::hippos_stream_peek(self.sk.as_ptr(), &mut len) };
        match NonNull::new(start.cast_mut()) {
            // SAFETY: so many bytes of a buffer in the receive queue, which it leaves only by `consume` while the socket
            // is locked. The kernel does not write to it. A sender on this machine may, where the bytes are a packet
            // socket's ring: then the slice's bytes change, which Rust's rules exclude. It is accepted because no address
            // or length is taken from the bytes but as a value that is then checked against the slice's bounds, and an
            // item is linked by the hash of its copied key. Such a sender can store a key with a blank in it.
            Some(start) => ReceivedBytes::Bytes(unsafe {
                slice::from_raw_parts(start.as_ptr().cast::<u8>(), len as usize)
            }),
            None if len != 0 => ReceivedBytes::Scattered,
            // SAFETY: as above.
            None if unsafe { ffi::hippos_stream_ended(self.sk.as_ptr()) } => ReceivedBytes::End,
            None => ReceivedBytes::Nothing,
        }
    }

    /// Copies the first received bytes, without consuming them, and returns their number.
    /// There may be more behind them.
    pub fn copy(&self, to: &mut [u8]) -> usize {
        let len = u32::try_from(to.len()).unwrap_or(u32::MAX);
        // SAFETY: by the invariant a locked socket; it writes at most `len` bytes.
        unsafe { ffi::hippos_stream_copy(self.sk.as_ptr(), to.as_mut_ptr().cast(), len) as usize }
    }

    /// Consumes the first `len` received bytes.
    #[inline]
    pub fn consume(&mut self, len: usize) {
        if len != 0 {
            // SAFETY: by the invariant a locked socket.
            unsafe { ffi::hippos_stream_consume(self.sk.as_ptr(), len as u32) }
        }
    }

    /// Whether the socket would probably accept a whole short reply; the send may
    /// still fail.
    #[inline]
    pub fn takes(&self) -> bool {
        // SAFETY: by the invariant a locked socket.
        unsafe { ffi::hippos_stream_takes(self.sk.as_ptr()) }
    }

    /// Sends, by copying, as many of `bytes` as the socket takes now, and returns
    /// their number.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize> {
        // SAFETY: by the invariant a locked socket; `bytes` is only read.
        sent(unsafe {
            ffi::hippos_stream_send(self.sk.as_ptr(), bytes.as_ptr().cast(), bytes.len(), false)
        })
    }

    /// Sends `reply` from its pages. Returns the bytes that the socket does not take;
    /// the caller has to copy them, because the pages are reused. `more` promises that
    /// bytes follow at once, and may hold a short segment back.
    #[inline]
    pub fn reply<'r>(&mut self, reply: Reply<'r>, more: bool) -> Result<&'r [u8]> {
        if reply.len == 0 {
            return Ok(&[]);
        }
        // SAFETY: by the invariant a locked socket, and pages last opened for this reply, of
        // which `len` bytes were written.
        let count = sent(unsafe {
            ffi::hippos_reply_pages_send(
                reply.pages.as_ptr(),
                self.sk.as_ptr(),
                reply.len as u32,
                more,
            )
        })?;
        if count >= reply.len {
            return Ok(&[]);
        }
        // SAFETY: within the written bytes, which do not change before the pages are opened
        // again: that needs them exclusively.
        Ok(unsafe {
            slice::from_raw_parts(reply.start.as_ptr().add(count), reply.len.sub_exact(count))
        })
    }
}

/// A count; a socket that takes nothing now has taken none.
fn sent(count: c_int) -> Result<usize> {
    match result(count) {
        Err(error) if error == EAGAIN => Ok(0),
        other => other,
    }
}

/// A connection that a thread has locked. Unlocked when dropped.
pub struct LockedStream<'a> {
    stream: SocketStream<'a>,
}

impl<'a> LockedStream<'a> {
    /// Takes the lock; may sleep.
    pub fn new(socket: &'a Socket) -> Self {
        // SAFETY: an open socket, and process context: only kapi itself makes streams in softirq.
        let sk = unsafe { NonNull::new_unchecked(ffi::hippos_stream_lock(socket.as_ptr())) };
        Self {
            // SAFETY: unlocked when this is dropped.
            stream: unsafe { SocketStream::new(sk) },
        }
    }

    /// The connection.
    #[inline]
    pub fn stream(&mut self) -> &mut SocketStream<'a> {
        &mut self.stream
    }
}

impl Drop for LockedStream<'_> {
    fn drop(&mut self) {
        // SAFETY: locked by `new`.
        unsafe { ffi::hippos_stream_unlock(self.stream.sk.as_ptr()) }
    }
}

/// Pages to write replies to.
pub struct ReplyPages {
    raw: KBox<Opaque<ffi::hippos_reply_pages>>,
}

// SAFETY: pages belong to no thread.
unsafe impl Send for ReplyPages {}

impl ReplyPages {
    /// Allocates the pages when they are needed.
    pub fn new() -> Result<Self> {
        // All zeroes: no pages yet.
        let raw = KBox::new(Opaque::zeroed(), GFP_KERNEL)?;
        Ok(Self { raw })
    }

    /// Begins a reply, if there is memory for it; may sleep.
    pub fn open(&mut self) -> Option<Reply<'_>> {
        let pages = NonNull::new(self.raw.get())?;
        // SAFETY: initialised, and ours alone while the reply lives.
        unsafe { Reply::new(pages, false) }
    }
}

impl Drop for ReplyPages {
    fn drop(&mut self) {
        // SAFETY: initialised; no reply borrows it.
        unsafe { ffi::hippos_reply_pages_free(self.raw.get()) }
    }
}

/// The reply pages of this CPU's softirqs, in one of which the holder runs.
pub struct SoftirqPages<'a> {
    pages: NonNull<ffi::hippos_reply_pages>,
    _softirq: PhantomData<&'a mut ReplyPages>,
}

impl<'a> SoftirqPages<'a> {
    /// # Safety
    ///
    /// Called in softirq, of which there is one on a CPU at a time, by a caller
    /// that has no other; while the result lives, the softirq does not end, and
    /// a [`SoftirqPagesUser`] is held.
    pub(crate) unsafe fn new() -> Option<Self> {
        // SAFETY: per-CPU memory, which begins as zeroes: no pages yet.
        let pages = NonNull::new(unsafe { ffi::hippos_reply_pages_this_cpu() })?;
        Some(Self {
            pages,
            _softirq: PhantomData,
        })
    }

    /// Begins a reply, if there is memory for it.
    pub fn open(self) -> Option<Reply<'a>> {
        // SAFETY: ours alone, by the requirement of `new`.
        unsafe { Reply::new(self.pages, true) }
    }
}

/// Keeps the reply pages of softirqs, one set a CPU, from being freed. The owner of callbacks
/// that use them holds one.
pub(crate) struct SoftirqPagesUser(());

impl SoftirqPagesUser {
    pub(crate) fn get() -> Self {
        // SAFETY: counts; process context.
        unsafe { ffi::hippos_reply_pages_get() };
        Self(())
    }
}

impl Drop for SoftirqPagesUser {
    fn drop(&mut self) {
        // SAFETY: counted by `get`; the holder's callbacks have been removed.
        unsafe { ffi::hippos_reply_pages_put() }
    }
}

/// A reply that is being written.
///
/// # Invariants
///
/// `start` begins `size` bytes of `pages`, which were opened for this reply;
/// the first `len` of them, at most `size`, were written.
pub struct Reply<'r> {
    pages: NonNull<ffi::hippos_reply_pages>,
    start: NonNull<u8>,
    size: usize,
    len: usize,
    _pages: PhantomData<&'r mut ReplyPages>,
}

impl Reply<'_> {
    /// # Safety
    ///
    /// `pages` is initialised and has no other user while the result lives;
    /// `atomic` where sleeping is not allowed.
    pub(crate) unsafe fn new(
        pages: NonNull<ffi::hippos_reply_pages>,
        atomic: bool,
    ) -> Option<Self> {
        let mut size = 0;
        // SAFETY: by this function's own requirement.
        let start = unsafe { ffi::hippos_reply_pages_open(pages.as_ptr(), atomic, &mut size) };
        // INVARIANT: just opened; nothing was written.
        Some(Self {
            pages,
            start: NonNull::new(start.cast())?,
            size: size as usize,
            len: 0,
            _pages: PhantomData,
        })
    }

    /// The bytes that are not written yet.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        // SAFETY: by the invariant so many bytes of ours, in initialised pages; they still hold
        // bytes of earlier replies.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().add(self.len), self.spare_len()) }
    }

    /// How many bytes are not written yet.
    #[inline]
    pub fn spare_len(&self) -> usize {
        self.size.sub_exact(self.len)
    }

    /// The next `n` bytes were written.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        invariant!(
            n <= self.spare_len(),
            "{n} bytes beyond {}",
            self.spare_len()
        );
        self.len = self.len.add_exact(n.min(self.spare_len()));
    }

    /// The bytes written.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: by the invariant so many bytes were written, which only this reply's holder changes.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The number of bytes written.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
