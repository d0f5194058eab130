// SPDX-License-Identifier: GPL-2.0-only
//! An item in its slot: header, key, value.
//!
//! ```text
//!  0        8       12      16      20      24      28     29     30    31    32
//!  | cas    | expiry| flags | lens  | epoch | atime | class| state| refs| pins| key… value…
//! ```
//!
//! A slot goes from free to reserved (its writer fills it), live (readers may find it), retired (unlinked; readers may
//! still read it) and, when a grace period has passed and no pin is left, free again. Key, value, flags, lengths and
//! epoch do not change while the slot is live. The other fields change in place, by
//! [`in_place`](crate::operations::in_place) and by hits; they are read once, as an [`ItemSnapshot`].

use core::marker::PhantomData;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

use hippos_invariant::Exact;

use crate::hash::KeyWords;
use crate::sync::{planted, Acquire, AtomicU32, AtomicU64, AtomicU8, Bug, Relaxed, Release};
use crate::time::Expiry;

/// Bytes before the key.
pub(crate) const HEADER: usize = 32;

/// The low two bits of `state`.
const FREE: u8 = 0;
const RESERVED: u8 = 1;
const LIVE: u8 = 2;
const RETIRED: u8 = 3;
const STATE: u8 = 3;

/// The item was invalidated: the client that gets its token should store it anew.
pub(crate) const STALE: u8 = 1 << 2;
/// A client has the token, and so the task to store the item anew.
pub(crate) const TOKEN_SENT: u8 = 1 << 3;
/// It was read since it was stored.
pub(crate) const FETCHED: u8 = 1 << 4;
/// The key came base64-encoded.
pub(crate) const BINARY_KEY: u8 = 1 << 5;
/// It was found expired or flushed and was counted as such: once, as memcached does, which removes it then.
pub(crate) const COUNTED_EXPIRED: u8 = 1 << 7;

/// Of a live item: several fields are being changed, under the stripe's lock. A live item is not retired meanwhile, so
/// that the same bit can have another meaning in a retired slot.
const CHANGING: u8 = 1 << 6;

/// Of a retired slot: it was found pinned, and its last unpin frees it. Written under the lock of pins.
const FREE_DEFERRED: u8 = 1 << 6;

/// The state of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Free,
    Reserved,
    Live,
    /// It waits for its grace period, and its class counts on it.
    Retired,
    /// It waits for its last unpin.
    Pinned,
}

/// Seconds after which a hit writes the access time even if the reference bit is set.
const ATIME_COARSE: u32 = 60;

#[repr(C, align(8))]
pub(crate) struct ItemHeader {
    pub(crate) cas: AtomicU64,
    /// Seconds of the store's clock, 0 for never. In a free slot: the link to the next free one.
    pub(crate) expiry: AtomicU32,
    pub(crate) flags: AtomicU32,
    /// `value << 8 | key`.
    lens: AtomicU32,
    /// The store's flush epoch when the item was stored.
    pub(crate) epoch: AtomicU32,
    pub(crate) atime: AtomicU32,
    pub(crate) class: AtomicU8,
    state: AtomicU8,
    /// CLOCK's and SIEVE's bit, S3-FIFO's frequency.
    pub(crate) refs: AtomicU8,
    pins: AtomicU8,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<ItemHeader>() == HEADER);

/// A slot of a slab.
///
/// # Invariants
///
/// It refers to an initialised header in a slab that stays mapped for as long as the value is
/// used: its holder owns the slot (reserved), keeps it linked (holds its stripe's lock), or is in
/// a read-side section that began while it was linked or its slab in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(NonNull<ItemHeader>);

// SAFETY: a slot is an address; all of the header is atomic.
unsafe impl Send for Slot {}

impl Slot {
    /// # Safety
    ///
    /// The type's invariants hold for `at`.
    #[inline]
    pub(crate) unsafe fn new(at: NonNull<u8>) -> Self {
        Self(at.cast())
    }

    /// Makes a header in raw memory: a slot that was never used before, reserved.
    ///
    /// # Safety
    ///
    /// `at` is aligned to 8; the [`HEADER`] bytes there belong to a slab, and to the caller alone.
    pub(crate) unsafe fn carve(at: NonNull<u8>) -> Self {
        let header = ItemHeader {
            cas: AtomicU64::new(0),
            expiry: AtomicU32::new(0),
            flags: AtomicU32::new(0),
            lens: AtomicU32::new(0),
            epoch: AtomicU32::new(0),
            atime: AtomicU32::new(0),
            class: AtomicU8::new(0),
            state: AtomicU8::new(RESERVED),
            refs: AtomicU8::new(0),
            pins: AtomicU8::new(0),
        };
        // SAFETY: the caller owns these bytes.
        unsafe { at.cast::<ItemHeader>().write(header) };
        Self(at.cast())
    }

    #[inline]
    pub(crate) fn address(self) -> NonZeroUsize {
        self.0.addr()
    }

    #[inline]
    pub(crate) fn header(&self) -> &ItemHeader {
        // SAFETY: by the type's invariants there is a header there.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn byte(&self, offset: usize) -> *mut u8 {
        // Callers stay inside the slot.
        self.0
            .as_ptr()
            .cast::<u8>()
            .wrapping_add(HEADER)
            .wrapping_add(offset)
    }

    #[inline]
    pub(crate) fn key_len(&self) -> usize {
        (self.header().lens.load(Relaxed) & 0xff) as usize
    }

    #[inline]
    pub(crate) fn value_len(&self) -> usize {
        (self.header().lens.load(Relaxed) >> 8) as usize
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        // SAFETY: the writer put so many bytes there before the slot left its hands, and they do
        // not change until the slot is reused, which the type's invariants exclude.
        unsafe { core::slice::from_raw_parts(self.byte(0), self.key_len()) }
    }

    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        // SAFETY: as for the key.
        unsafe { core::slice::from_raw_parts(self.byte(self.key_len()), self.value_len()) }
    }

    /// Whether the item's key is `key`.
    #[inline(always)]
    pub(crate) fn is(&self, key: &KeyWords) -> bool {
        let len = key.len();
        if self.key_len() != len {
            return false;
        }
        let at = |offset: usize| {
            // SAFETY: the key has `len` bytes (see `key`), and all offsets below leave 8 of them.
            unsafe { self.byte(offset).cast::<u64>().read_unaligned() }.to_le()
        };
        let [a, b, c, d] = key.words();
        if len >= 16 {
            let last = len.sub_exact(16);
            (at(0) ^ a) | (at(8) ^ b) | (at(last) ^ c) | (at(last.add_exact(8)) ^ d) == 0
        } else {
            // A `KeyWords` has 8 at least.
            (at(0) ^ a) | (at(len.sub_exact(8)) ^ b) == 0
        }
    }

    /// Bytes of the slot that the item occupies.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        HEADER + self.key_len() + self.value_len()
    }

    /// The owner of a reserved slot sets lengths and key. The value's bytes are arbitrary.
    ///
    /// # Safety
    ///
    /// The caller reserved the slot, of at least `HEADER + key.len() + value_len` bytes; the key
    /// has at most [`KEY_MAX`](hippos_semantics::KEY_MAX) bytes and the value less than 16 MiB.
    pub(crate) unsafe fn init_item(&self, key: &[u8], value_len: usize) {
        self.header()
            .lens
            .store((value_len as u32) << 8 | key.len() as u32, Relaxed);
        // SAFETY: the caller owns the slot and it is large enough.
        unsafe { core::ptr::copy_nonoverlapping(key.as_ptr(), self.byte(0), key.len()) }
    }

    /// The owner of a reserved slot writes `bytes` at `offset` of the value. Bytes that do not fit are left out.
    /// Returns how many fitted.
    ///
    /// # Safety
    ///
    /// The caller reserved the slot and initialised it with `init_item`.
    #[inline]
    pub(crate) unsafe fn write_value(&self, offset: usize, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.value_len().saturating_sub(offset));
        if n != 0 {
            let to = self.byte(self.key_len().add_exact(offset));
            // SAFETY: `offset + n` is within the value, which the caller owns.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, n) }
        }
        n
    }

    /// Like [`Slot::write_value`], but fills the rest of the value with one byte.
    ///
    /// # Safety
    ///
    /// As for [`Slot::write_value`].
    pub(crate) unsafe fn pad(&self, offset: usize, byte: u8) {
        let n = self.value_len().saturating_sub(offset);
        // SAFETY: `offset + n` is the value's end, and the caller owns it.
        unsafe {
            self.byte(self.key_len().add_exact(offset))
                .write_bytes(byte, n)
        }
    }

    /// Overwrites a free slot's bytes, except the header.
    ///
    /// # Safety
    ///
    /// The slot is free, `bytes` long, and the caller holds its class's lock.
    pub(crate) unsafe fn poison(&self, bytes: usize) {
        // SAFETY: no other thread touches a free slot.
        unsafe { self.byte(0).write_bytes(0xdb, bytes.sub_exact(HEADER)) }
    }

    /// The slab class. Policies keep flags of their own beside it.
    #[inline]
    pub(crate) fn class(&self) -> usize {
        usize::from(self.header().class.load(Relaxed) & 0x3f)
    }

    #[inline]
    pub(crate) fn is_live(&self) -> bool {
        self.header().state.load(Acquire) & STATE == LIVE
    }

    pub(crate) fn phase(&self) -> Phase {
        let state = self.header().state.load(Acquire);
        match state & STATE {
            RESERVED => Phase::Reserved,
            LIVE => Phase::Live,
            RETIRED if state & FREE_DEFERRED == 0 => Phase::Retired,
            RETIRED => Phase::Pinned,
            _ => Phase::Free,
        }
    }

    /// Whether it is retired and its class counts on it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.header().state.load(Relaxed) & (STATE | FREE_DEFERRED) == RETIRED
    }

    /// A retired slot is pinned, for an unknown time: its class must not count on it.
    pub(crate) fn defer_free(&self) {
        self.header().state.fetch_or(FREE_DEFERRED, Relaxed);
    }

    pub(crate) fn is_free_deferred(&self) -> bool {
        let both = RETIRED | FREE_DEFERRED;
        self.header().state.load(Relaxed) & both == both
    }

    /// Marks the item as counted expired or flushed; true the first time.
    pub(crate) fn mark_counted_expired(&self) -> bool {
        self.header().state.fetch_or(COUNTED_EXPIRED, Relaxed) & COUNTED_EXPIRED == 0
    }

    #[inline]
    pub(crate) fn marks(&self) -> u8 {
        self.header().state.load(Relaxed) & !STATE
    }

    /// Free to reserved. The caller allocates it under its class's lock.
    #[inline]
    pub(crate) fn reserve(&self, class: u8) {
        self.header().class.store(class, Relaxed);
        self.header().refs.store(0, Relaxed);
        self.header().state.store(RESERVED, Relaxed);
    }

    /// Reserved to live, with `marks`. A reader that sees the slot live sees all that its owner wrote.
    #[inline]
    pub(crate) fn publish(&self, marks: u8) {
        self.header().state.store(LIVE | marks, Release);
    }

    /// Live to retired. Only the thread that unlinked the slot may call it.
    #[inline]
    pub(crate) fn retire(&self) {
        self.header().state.fetch_or(RETIRED, Release);
    }

    /// To free.
    #[inline]
    pub(crate) fn free(&self) {
        self.header().state.store(FREE, Release);
    }

    /// Links a free slot to another.
    #[inline]
    pub(crate) fn link_free(&self, next: Option<Slot>) {
        let next = next.map_or(0, |slot| slot.address().get());
        self.header().cas.store(next as u64, Relaxed);
    }

    /// The free slot that this one was linked to.
    #[inline]
    pub(crate) fn next_free(&self) -> Option<Slot> {
        let address = self.header().cas.load(Relaxed) as usize as *mut ItemHeader;
        NonNull::new(address).map(Slot)
    }

    /// Records a hit, and writes only if it has to. `cap` is the highest reference count.
    #[inline]
    pub(crate) fn hit(&self, cap: u8, now: u32) {
        let header = self.header();
        let refs = header.refs.load(Relaxed);
        // An item that replaced another inherits its reference count, but was not fetched yet.
        let first = self.marks() & FETCHED == 0;
        if refs < cap || first {
            header.refs.store(refs.saturating_add(1).min(cap), Relaxed);
            if first && planted(Bug::TornMark) {
                header
                    .state
                    .store(header.state.load(Relaxed) | FETCHED, Relaxed);
            } else if first {
                header.state.fetch_or(FETCHED, Relaxed);
            }
            header.atime.store(now, Relaxed);
        // The difference wraps when another CPU saw a later clock: then the time is written again.
        } else if now.wrapping_sub(header.atime.load(Relaxed)) > ATIME_COARSE {
            header.atime.store(now, Relaxed);
        }
    }

    /// Records a use that did not read the value.
    pub(crate) fn refer(&self, cap: u8, now: u32) {
        let header = self.header();
        let refs = header.refs.load(Relaxed);
        header.refs.store(refs.saturating_add(1).min(cap), Relaxed);
        header.atime.store(now, Relaxed);
    }

    /// The CAS number.
    #[inline]
    pub(crate) fn cas(&self) -> u64 {
        self.header().cas.load(Relaxed)
    }

    /// Changes fields of a published item in the order that [`Item::snapshot`] relies on. The caller
    /// holds the stripe's lock: see [`in_place`](crate::operations::in_place).
    pub(crate) fn change(&self, fields: &Fields) {
        let header = self.header();
        let marks = fields.set | fields.clear;
        let one = u8::from(fields.cas.is_some())
            .add_exact(u8::from(fields.expiry.is_some()))
            .add_exact(u8::from(marks != 0))
            <= 1;
        if !one && !planted(Bug::UnmarkedChange) {
            header.state.fetch_or(CHANGING, Relaxed);
        }
        if let Some(cas) = fields.cas {
            // A reader that sees this number also sees that the item is being changed.
            header.cas.store(cas, Release);
        }
        if let Some(expiry) = fields.expiry {
            header.expiry.store(expiry.0, Release);
            // A reader can find the item expired just before: that it expires later is counted again.
            if header.state.load(Relaxed) & COUNTED_EXPIRED != 0 {
                header.state.fetch_and(!COUNTED_EXPIRED, Relaxed);
            }
        }
        if one && marks == 0 {
            return;
        }
        // Hits set marks concurrently. A reader that sees CHANGING cleared sees the whole change.
        let change = |state: u8| Some((state | fields.set) & !(fields.clear | CHANGING));
        let _ = header.state.fetch_update(Release, Relaxed, change);
    }

    #[inline]
    pub(crate) fn pinned(&self) -> bool {
        self.header().pins.load(Acquire) != 0
    }

    /// Removes a pin; true if it was the last.
    pub(crate) fn unpin(&self) -> bool {
        self.header().pins.fetch_sub(1, Release) == 1
    }
}

/// A change of a published item's fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) cas: Option<u64>,
    pub(crate) expiry: Option<Expiry>,
    /// Marks that are set.
    pub(crate) set: u8,
    /// Marks that are cleared.
    pub(crate) clear: u8,
}

/// The fields that change in place while readers see the item, as they were at one moment. A reply is sized and written
/// from one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemSnapshot {
    cas: u64,
    expiry: u32,
    /// The store's clock when the item was looked up.
    now: u32,
    atime: u32,
    state: u8,
}

impl ItemSnapshot {
    /// The snapshot of an item that was just stored under this number and never expires.
    pub fn new(cas: u64) -> Self {
        Self {
            cas,
            expiry: 0,
            now: 0,
            atime: 0,
            state: LIVE,
        }
    }

    /// The unique number of this version of the item.
    #[inline]
    pub fn cas(&self) -> u64 {
        self.cas
    }

    /// Seconds left, or None if it never expires.
    #[inline]
    pub fn ttl(&self) -> Option<u32> {
        match self.expiry {
            0 => None,
            at => Some(at.saturating_sub(self.now)),
        }
    }

    /// Whether it has expired.
    #[inline]
    pub fn expired(&self) -> bool {
        self.expiry != 0 && self.expiry <= self.now
    }

    /// Seconds since the last recorded hit, or since it was stored. While the item's reference bit is set, hits are
    /// recorded at most once a minute.
    #[inline]
    pub fn idle(&self) -> u32 {
        self.now.saturating_sub(self.atime)
    }

    /// Whether it was hit since it was stored.
    #[inline]
    pub fn fetched(&self) -> bool {
        self.state & FETCHED != 0
    }

    /// Whether it was invalidated.
    #[inline]
    pub fn stale(&self) -> bool {
        self.state & STALE != 0
    }

    /// Whether a client has its token, and so the task to store it anew.
    #[inline]
    pub fn token_sent(&self) -> bool {
        self.state & TOKEN_SENT != 0
    }

    /// Whether its key came base64-encoded.
    #[inline]
    pub fn binary_key(&self) -> bool {
        self.state & BINARY_KEY != 0
    }
}

/// A live item. It stays valid for the read-side section it was found in.
#[derive(Clone, Copy)]
pub struct Item<'g> {
    slot: Slot,
    /// The store's clock when the item was looked up.
    now: u32,
    guard: PhantomData<&'g ()>,
}

impl<'g> Item<'g> {
    /// # Safety
    ///
    /// The slot is live or retired, and stays so for `'g`.
    #[inline]
    pub(crate) unsafe fn new(slot: Slot, now: u32) -> Self {
        Self {
            slot,
            now,
            guard: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &'g [u8] {
        // SAFETY: the slot's bytes stay as they are for 'g (see `new`).
        unsafe { core::slice::from_raw_parts(self.slot.byte(0), self.slot.key_len()) }
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> &'g [u8] {
        let at = self.slot.byte(self.slot.key_len());
        // SAFETY: the slot's bytes stay as they are for 'g (see `new`).
        unsafe { core::slice::from_raw_parts(at, self.slot.value_len()) }
    }

    /// Key and value, for the cost of reading the lengths once.
    #[inline(always)]
    pub fn parts(&self) -> (&'g [u8], &'g [u8]) {
        let lens = self.slot.header().lens.load(Relaxed);
        let (key, value) = ((lens & 0xff) as usize, (lens >> 8) as usize);
        // SAFETY: the slot's bytes stay as they are for 'g (see `new`).
        unsafe {
            (
                core::slice::from_raw_parts(self.slot.byte(0), key),
                core::slice::from_raw_parts(self.slot.byte(key), value),
            )
        }
    }

    /// The client's flags.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.slot.header().flags.load(Relaxed)
    }

    /// The unique number of this version of the item. It changes in place: a reply is sized and
    /// written from one call, or from a [snapshot](Self::snapshot).
    #[inline]
    pub fn cas(&self) -> u64 {
        self.slot.cas()
    }

    /// When it was found, in seconds of the store's clock.
    pub(crate) fn now(&self) -> u32 {
        self.now
    }

    /// The fields that change in place, read one by one. Consistent only while no writer changes them.
    #[inline]
    pub(crate) fn fields(&self) -> ItemSnapshot {
        let header = self.slot.header();
        let cas = header.cas.load(Acquire);
        let state = header.state.load(Acquire);
        ItemSnapshot {
            cas,
            expiry: header.expiry.load(Acquire),
            now: self.now,
            atime: header.atime.load(Relaxed),
            state,
        }
    }

    /// The fields that change in place, all of one moment; None if a writer is changing them. Any context.
    /// [`Store::snapshot_of`](crate::Store::snapshot_of) waits instead.
    ///
    /// A change of several fields sets CHANGING, writes the CAS number, then the expiry, and clears CHANGING in its
    /// last step. The snapshot reads the fields in the same order and the state once more: a change that began
    /// meanwhile shows in CHANGING or in the CAS number.
    #[inline]
    pub fn snapshot(&self) -> Option<ItemSnapshot> {
        const LOCKED: u8 = STALE | TOKEN_SENT | CHANGING;
        let seen = self.fields();
        let header = self.slot.header();
        let moved = (header.state.load(Relaxed) ^ seen.state) & LOCKED;
        let moved = moved | (seen.state & CHANGING);
        (moved == 0 && header.cas.load(Relaxed) == seen.cas).then_some(seen)
    }

    /// The slab class, from 0.
    #[inline]
    pub fn class(&self) -> usize {
        self.slot.class()
    }

    /// Bytes that the item occupies, header included.
    #[inline]
    pub fn size(&self) -> usize {
        self.slot.size()
    }

    /// Whether it is of this epoch, has not expired, and a hit would not write to it.
    #[inline(always)]
    pub(crate) fn hit_changes_nothing(&self, epoch: u32, cap: u8) -> bool {
        let header = self.slot.header();
        let expiry = header.expiry.load(Relaxed);
        header.epoch.load(Relaxed) == epoch
            && (expiry == 0 || expiry > self.now)
            && header.refs.load(Relaxed) >= cap
            && self.slot.marks() & FETCHED != 0
            && self.now.wrapping_sub(header.atime.load(Relaxed)) <= ATIME_COARSE
    }

    /// Records a hit: see [`Slot::hit`].
    #[inline]
    pub(crate) fn hit(&self, cap: u8) {
        self.slot.hit(cap, self.now);
    }

    /// Whether a slow reader keeps its slot from being reused.
    pub fn is_pinned(&self) -> bool {
        self.slot.pinned()
    }

    /// Keeps the slot from being reused until it is unpinned; true if this is its first pin. None if there are 255 pins
    /// already.
    pub(crate) fn pin(&self) -> Option<(Slot, bool)> {
        let pins = &self.slot.header().pins;
        pins.fetch_update(Acquire, Relaxed, |n| n.checked_add(1))
            .ok()
            .map(|before| (self.slot, before == 0))
    }
}

impl core::fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Item")
            .field("key", &self.key())
            .field("value_len", &self.slot.value_len())
            .field("cas", &self.cas())
            .finish_non_exhaustive()
    }
}
