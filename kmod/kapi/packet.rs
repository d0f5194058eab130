// SPDX-License-Identifier: GPL-2.0-only
//! A datagram that may be answered in its own sk_buff (`linux/skbuff.h`), or in
//! its frame before there is one.
//!
//! Everything here runs in softirq: nothing sleeps. An allocation may fail; the
//! packet is passed then, untouched.

use core::net::IpAddr;
use core::ptr::{self, NonNull};
use core::slice;

use hippos_invariant::Exact;

use crate::ffi;
use crate::pass::Reason;
use crate::rcu;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NF_STOLEN: u32 = 2;

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// The most datagrams of one reply: more would keep the softirq from other
/// packets for too long.
pub const DATAGRAMS_MAX: u16 = 8;

/// The decision about a packet. Only [`Packet`]'s methods make one.
#[must_use]
pub struct Verdict(pub(crate) u32);

/// The result for a packet that was not passed: see [`Packet::observed`].
pub enum Served<'a> {
    /// There is no reply.
    Silently,
    /// This is the reply.
    Reply(&'a [u8]),
    /// The reply was several datagrams, of so many bytes together.
    Replies(usize),
}

/// A datagram to our port on this host that may be answered in place.
///
/// # Invariants
///
/// `skb`, if there is one, is ours until this turns into a [`Verdict`], linear, and
/// `raw` describes it; else `raw` describes a frame that is ours. `raw.len`
/// initialised bytes are at `raw.payload`, and `raw.room` bytes there that have no
/// other reader.
pub struct Packet<'a> {
    skb: Option<NonNull<ffi::sk_buff>>,
    raw: &'a mut ffi::hippos_packet,
}

impl<'a> Packet<'a> {
    /// # Safety
    ///
    /// The type's invariants hold for `skb` and `raw`, for the time `'a`.
    #[inline]
    pub(crate) unsafe fn new(
        skb: Option<NonNull<ffi::sk_buff>>,
        raw: &'a mut ffi::hippos_packet,
    ) -> Self {
        Self { skb, raw }
    }

    /// The read-side section in which every packet is handled.
    #[inline]
    pub fn section(&self) -> rcu::ReadSection {
        // SAFETY: hooks are called inside a section. The holder of the packet runs in the hook, and
        // the guard, which must stay on the thread, is dropped before the hook returns.
        unsafe { rcu::within() }
    }

    /// The UDP payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        // SAFETY: by the invariant these bytes are initialised and stay while `self` does;
        // nothing writes them while it is borrowed.
        unsafe { slice::from_raw_parts(self.raw.payload, self.raw.len as usize) }
    }

    /// The sender's address.
    #[inline]
    pub fn source(&self) -> IpAddr {
        source(self.raw)
    }

    /// The sender's IPv4 address as a number; 0 when it has none.
    #[inline]
    pub fn source_ipv4(&self) -> u32 {
        u32::from_be(self.raw.ipv4)
    }

    /// The sender's port.
    pub fn source_port(&self) -> u16 {
        // SAFETY: by the invariant's description the payload lies behind the UDP header, whose first field
        // this is.
        let port = unsafe { self.raw.payload.sub(UDP_HEADER).cast::<[u8; 2]>().read() };
        u16::from_be_bytes(port)
    }

    /// Whether it is still a frame, without an sk_buff.
    #[inline]
    pub fn is_frame(&self) -> bool {
        self.skb.is_none()
    }

    /// Whether the sender is this host, over its loopback device.
    #[inline]
    pub fn is_local(&self) -> bool {
        self.raw.local
    }

    /// The number of the receiving interface.
    #[inline]
    pub fn interface(&self) -> u32 {
        self.raw.interface
    }

    /// The CPU that handles it.
    #[inline]
    pub fn cpu(&self) -> usize {
        self.raw.cpu as usize
    }

    /// The most bytes of reply that a frame can hold, in one datagram; none with an sk_buff,
    /// whose reply may be several datagrams of any length.
    #[inline]
    pub fn most(&self) -> Option<usize> {
        match self.skb {
            Some(_) => None,
            None => Some(self.raw.room as usize),
        }
    }

    /// Lets `serve` decide about the packet and, unless it passes the packet, calls `look` with the result. For
    /// tracing: other packets are served without this.
    pub fn observed(
        self,
        serve: impl FnOnce(Packet<'_>) -> Verdict,
        look: impl FnOnce(Served<'_>),
    ) -> Verdict {
        let Self { skb, raw } = self;
        raw.sent = 0;
        // INVARIANT: as `self`, which was taken apart.
        let verdict = serve(Packet {
            skb,
            raw: &mut *raw,
        });
        match verdict.0.checked_sub(ffi::HIPPOS_REPLY) {
            // SAFETY: such a verdict means that a reply of so many bytes is in place, in memory that stays
            // ours until the verdict is returned to C, which sends it then.
            Some(len) => look(Served::Reply(unsafe {
                slice::from_raw_parts(raw.payload, len as usize)
            })),
            None if verdict.0 == NF_ACCEPT => {}
            None if raw.sent == 0 => look(Served::Silently),
            None => look(Served::Replies(raw.sent as usize)),
        }
        verdict
    }

    /// Passes the packet.
    #[cold]
    pub fn pass(self, reason: Reason) -> Verdict {
        reason.count(self.skb.is_none());
        Verdict(NF_ACCEPT)
    }

    /// Drops a request, which the kernel counts as dropped.
    #[inline]
    pub fn discard(self) -> Verdict {
        Verdict(NF_DROP)
    }

    /// Consumes a request that was served without a reply.
    pub fn consume(self) -> Verdict {
        if let Some(skb) = self.skb {
            // SAFETY: the packet is ours; after NF_STOLEN the kernel does not use it.
            unsafe { ffi::hippos_packet_consume(skb.as_ptr()) };
        }
        Verdict(NF_STOLEN)
    }

    /// Answers with one datagram of at most `len` bytes, which `write` writes
    /// into the request's own memory: it gets `len` bytes of room and returns
    /// how many it used. The packet is passed when there is no memory, or when
    /// the return path's MTU is too small.
    #[inline]
    pub fn reply(mut self, len: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Verdict {
        if !self.make_room(len) {
            return self.pass(Reason::ROOM);
        }
        // SAFETY: `make_room(len)` was true.
        let used = unsafe { self.write(len, write) };
        // The hook sends it. The length, at most an MTU, can't make the sum overflow.
        Verdict(ffi::HIPPOS_REPLY.add_exact(used))
    }

    /// Answers with `count` datagrams of at most `len` bytes each: `write`
    /// gets the number of each with its room, the first one last, because
    /// that overwrites the request.
    pub fn reply_many(
        mut self,
        count: u16,
        len: usize,
        mut write: impl FnMut(u16, &mut [u8]) -> usize,
    ) -> Verdict {
        // A frame without an sk_buff becomes one datagram only.
        let Some(skb) = self.skb else {
            return self.pass(Reason::ROOM);
        };
        if count > DATAGRAMS_MAX {
            return self.pass(Reason::ROOM);
        }
        let mut reply_skbs = ReplySkbs::default();
        for _ in 1..count {
            if !reply_skbs.add(skb, self.raw, len) {
                return self.pass(Reason::ROOM);
            }
        }
        if !self.make_room(len) {
            return self.pass(Reason::ROOM);
        }
        let rest = reply_skbs.fill(&mut write);
        // SAFETY: `make_room(len)` was true; the payload is in place then, and the packet is
        // not used afterwards.
        unsafe {
            let used = self.write(len, |buffer| write(0, buffer));
            // Some datagrams of an MTU each.
            self.raw.sent = rest.add_exact(used);
            ffi::hippos_packet_reply(skb.as_ptr(), self.raw, used, true);
        }
        reply_skbs.send(self.raw);
        Verdict(NF_STOLEN)
    }

    #[inline]
    fn make_room(&mut self, len: usize) -> bool {
        if len <= self.raw.room as usize {
            return true;
        }
        let (Some(skb), Ok(len)) = (self.skb, u32::try_from(len)) else {
            return false;
        };
        // SAFETY: the packet is ours and `raw` describes it; neither changes when the result
        // is false.
        unsafe { ffi::hippos_packet_room(skb.as_ptr(), self.raw, len) }
    }

    /// Calls `write` and returns how many bytes it wrote.
    ///
    /// # Safety
    ///
    /// `make_room(len)` was true.
    #[inline]
    unsafe fn write(&mut self, len: usize, write: impl FnOnce(&mut [u8]) -> usize) -> u32 {
        // SAFETY: there are `len` bytes of room, ours alone. They come from the kernel's
        // allocator, through a pointer of unknown origin to the compiler, so that bytes which
        // were never written hold arbitrary values.
        let buffer = unsafe { slice::from_raw_parts_mut(self.raw.payload, len) };
        write(buffer).min(len) as u32
    }
}

/// The sender's address.
#[inline]
pub(crate) fn source(raw: &ffi::hippos_packet) -> IpAddr {
    match raw.ipv4 {
        0 => IpAddr::from(raw.ipv6),
        ipv4 => IpAddr::from(ipv4.to_ne_bytes()),
    }
}

/// The second and further datagrams of a reply, until they are sent.
#[derive(Default)]
struct ReplySkbs {
    /// The first `count` are sk_buffs of ours with `len` bytes of room at
    /// their payload.
    list: [Option<ReplySkb>; DATAGRAMS_MAX as usize - 1],
}

struct ReplySkb {
    skb: NonNull<ffi::sk_buff>,
    payload: NonNull<u8>,
    /// Room before, payload after [`ReplySkbs::fill`].
    len: usize,
}

impl ReplySkbs {
    fn add(
        &mut self,
        original: NonNull<ffi::sk_buff>,
        raw: &mut ffi::hippos_packet,
        len: usize,
    ) -> bool {
        let Some(free) = self.list.iter_mut().find(|reply_skb| reply_skb.is_none()) else {
            return false;
        };
        let Ok(room) = u32::try_from(len) else {
            return false;
        };
        let mut payload = ptr::null_mut();
        // SAFETY: `raw` describes the original, which is only read, and stays where it is.
        let skb =
            unsafe { ffi::hippos_packet_alloc_reply(original.as_ptr(), raw, room, &mut payload) };
        let (Some(skb), Some(payload)) = (NonNull::new(skb), NonNull::new(payload)) else {
            return false;
        };
        *free = Some(ReplySkb { skb, payload, len });
        true
    }

    /// Calls `write` for each and returns how many bytes it wrote.
    fn fill(&mut self, write: &mut impl FnMut(u16, &mut [u8]) -> usize) -> u32 {
        let (mut number, mut written) = (0u16, 0u32);
        for reply_skb in self.list.iter_mut().flatten() {
            number = number.add_exact(1);
            // SAFETY: `len` bytes from the kernel's allocator, ours alone; see `write`.
            let buffer =
                unsafe { slice::from_raw_parts_mut(reply_skb.payload.as_ptr(), reply_skb.len) };
            reply_skb.len = write(number, buffer).min(reply_skb.len);
            written = written.add_exact(reply_skb.len as u32);
        }
        written
    }

    fn send(mut self, raw: &mut ffi::hippos_packet) {
        for reply_skb in self.list.iter_mut() {
            if let Some(reply_skb) = reply_skb.take() {
                // SAFETY: the reply is ours and its payload in place; it is not used afterwards.
                unsafe {
                    ffi::hippos_packet_reply(
                        reply_skb.skb.as_ptr(),
                        raw,
                        reply_skb.len as u32,
                        false,
                    )
                }
            }
        }
    }
}

impl Drop for ReplySkbs {
    fn drop(&mut self) {
        for reply_skb in self.list.iter().flatten() {
            // SAFETY: an sk_buff that is still in the list was not sent and is ours.
            unsafe { ffi::hippos_packet_free(reply_skb.skb.as_ptr()) }
        }
    }
}
