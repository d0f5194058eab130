// SPDX-License-Identifier: GPL-2.0-only
//! Retired memory: unlinked, waiting for a grace period.
//!
//! Each CPU has a ring of batches. References go into the newest batch; when it is full, or a writer needs memory, a
//! grace period is started for it, and once that has passed the references are returned. Nothing is written to retired
//! memory, since readers may still read it.
//!
//! A slot that is still pinned when its grace period is over leaves the ring: its last unpin frees it.

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use hippos_invariant::Exact;

use crate::array_vec::ArrayVec;
use crate::capacities::{BATCH, RING};
use crate::item::Slot;
use crate::lock::LockedData;
use crate::platform::{Cookie, LockClass, Platform, RawLock};
use crate::sync::{AtomicU64, AtomicUsize, Relaxed};
use crate::table::{Draft, Fixed, Part, Table};

/// A batch is closed when it holds so many bytes.
const BATCH_BYTES: u64 = 256 << 10;
/// With this many closed batches in a ring, it is worth checking the oldest one's grace period.
const COLLECT_AT: usize = 4;

/// The result of adding a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It was added.
    Taken,
    /// It was added and closed a batch, and several are closed: grace periods may have passed.
    Collectable,
    /// The CPU's ring is full, and the reference still belongs to the caller.
    Full,
}

/// A retired reference, as a word: an address, whose lowest bit gives the type of the object there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retired(NonZeroUsize);

impl Retired {
    pub(crate) fn slot(slot: Slot) -> Self {
        Self(slot.address())
    }

    pub(crate) fn overflow(address: NonZeroUsize) -> Self {
        Self(address | 1)
    }

    fn word(self) -> u64 {
        self.0.get() as u64
    }

    pub(crate) fn from_word(word: u64) -> Option<Self> {
        NonZeroUsize::new(word as usize).map(Self)
    }

    /// The slot, if it is one.
    ///
    /// # Safety
    ///
    /// The slot has not been given back yet.
    pub(crate) unsafe fn as_slot(self) -> Option<Slot> {
        if self.0.get() & 1 != 0 {
            return None;
        }
        // SAFETY: a retired slot's slab stays in use until the slot is given back.
        NonNull::new(self.0.get() as *mut u8).map(|at| unsafe { Slot::new(at) })
    }

    /// The slot's address, if it is one.
    pub(crate) fn as_slot_address(self) -> Option<NonZeroUsize> {
        (self.0.get() & 1 == 0).then_some(self.0)
    }

    /// The overflow bucket's address, if it is one.
    pub(crate) fn as_overflow(self) -> Option<NonZeroUsize> {
        if self.0.get() & 1 == 0 {
            return None;
        }
        NonZeroUsize::new(self.0.get() & !1)
    }
}

/// The references of a batch, under its ring's lock.
pub(crate) struct Batch {
    cookie: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) references: [AtomicU64; BATCH],
}

/// The state of a CPU's ring. Batches from `tail` up to but not including `head` are closed; `head` is being filled.
#[derive(Default)]
pub(crate) struct RetireRing {
    pub(crate) head: usize,
    pub(crate) tail: usize,
    pub(crate) filled: usize,
}

#[repr(align(64))]
pub(crate) struct Shard<L> {
    pub(crate) ring: LockedData<L, RetireRing>,
    /// References in the ring. Written under the lock.
    pub(crate) count: AtomicUsize,
}

pub(crate) struct Retire<L> {
    pub(crate) shards: Table<Shard<L>>,
    batches: Table<Batch>,
    /// Bytes of closed batches.
    bytes: AtomicU64,
    /// Held to leave a slot to its pins and to remove a pin, so that the second of the two sees the first.
    pins: Fixed<LockedData<L, ()>>,
    /// Slots that are left to their pins.
    pinned: AtomicUsize,
    pinned_bytes: AtomicUsize,
}

/// The references of one batch, packed.
pub(crate) type RetiredBatch = ArrayVec<Retired, BATCH>;

impl<L: RawLock> Retire<L> {
    pub(crate) fn new<P: Platform<Lock = L>>(platform: &P) -> Option<Draft<'_, P, Self>> {
        let cpus = platform.cpus().max(1);
        let shards = Table::new(platform, cpus, || Shard {
            ring: LockedData::new(RetireRing::default()),
            count: AtomicUsize::new(0),
        })?;
        let batches = Table::new(platform, cpus.checked_mul(RING)?, || Batch {
            cookie: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            references: core::array::from_fn(|_| AtomicU64::new(0)),
        })?;
        let pins = Fixed::new(platform, || LockedData::new(()))?;
        let retire = Self {
            shards: shards.keep(),
            batches: batches.keep(),
            bytes: AtomicU64::new(0),
            pins: pins.keep(),
            pinned: AtomicUsize::new(0),
            pinned_bytes: AtomicUsize::new(0),
        };
        Some(Draft::new(platform, retire))
    }

    pub(crate) fn init(&self) {
        for shard in self.shards.iter() {
            shard.ring.init(LockClass::Shard);
        }
        self.pins.init(LockClass::Pins);
    }

    pub(crate) fn tables(&self) -> usize {
        [self.batches.size(), self.pins.size()]
            .iter()
            .fold(self.shards.size(), |sum, size| sum.add_exact(*size))
    }

    /// Bytes that wait for grace periods, without those of the batches that are not closed.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Number of references that wait.
    pub(crate) fn count(&self) -> usize {
        self.shards
            .iter()
            .fold(0, |sum, s| sum.add_exact(s.count.load(Relaxed)))
    }

    pub(crate) fn batch(&self, shard: usize, at: usize) -> Option<&Batch> {
        self.batches
            .get(shard.mul_exact(RING).add_exact(at & (RING - 1)))
    }

    fn shard(&self, cpu: usize) -> (usize, Option<&Shard<L>>) {
        let at = if cpu < self.shards.len() { cpu } else { 0 };
        (at, self.shards.get(at))
    }

    /// Adds a reference that was just unlinked.
    pub(crate) fn push<P: Platform<Lock = L>>(
        &self,
        platform: &P,
        what: Retired,
        bytes: usize,
    ) -> Pushed {
        let (at, Some(shard)) = self.shard(platform.cpu()) else {
            return Pushed::Full;
        };
        let mut ring = shard.ring.lock();
        // Sequence numbers wrap.
        let closed = ring.head.wrapping_sub(ring.tail);
        if closed >= RING {
            return Pushed::Full;
        }
        let Some(batch) = self.batch(at, ring.head) else {
            return Pushed::Full;
        };
        if let Some(reference) = batch.references.get(ring.filled) {
            reference.store(what.word(), Relaxed);
        }
        let before = match ring.filled {
            0 => 0,
            _ => batch.bytes.load(Relaxed),
        };
        let total = before.add_exact(bytes as u64);
        batch.bytes.store(total, Relaxed);
        ring.filled = ring.filled.add_exact(1);
        if ring.filled >= BATCH || total >= BATCH_BYTES {
            self.close(platform, batch, &mut ring);
        }
        shard
            .count
            .store(shard.count.load(Relaxed).add_exact(1), Relaxed);
        if ring.filled == 0 && closed >= COLLECT_AT {
            Pushed::Collectable
        } else {
            Pushed::Taken
        }
    }

    fn close<P: Platform<Lock = L>>(&self, platform: &P, batch: &Batch, ring: &mut RetireRing) {
        batch.cookie.store(platform.gp_start().0, Relaxed);
        if let Some(end) = batch.references.get(ring.filled) {
            end.store(0, Relaxed);
        }
        self.bytes.fetch_add(batch.bytes.load(Relaxed), Relaxed);
        ring.head = ring.head.wrapping_add(1);
        ring.filled = 0;
    }

    /// Starts grace periods for the newest batches.
    pub(crate) fn close_all<P: Platform<Lock = L>>(&self, platform: &P) {
        for (at, shard) in (0..self.shards.len()).zip(self.shards.iter()) {
            let mut ring = shard.ring.lock();
            if ring.filled != 0 {
                if let Some(batch) = self.batch(at, ring.head) {
                    self.close(platform, batch, &mut ring);
                }
            }
        }
    }

    /// Number of slots that are left to their pins.
    pub(crate) fn pinned(&self) -> usize {
        self.pinned.load(Relaxed)
    }

    /// Leaves a retired slot, whose grace period is over, to its last unpin. False if it has no pin: it then belongs to
    /// the caller.
    #[cold]
    pub(crate) fn defer_to_unpin(&self, slot: Slot) -> bool {
        let _held = self.pins.lock();
        let pinned = slot.pinned();
        if pinned {
            slot.defer_free();
            self.pinned.fetch_add(1, Relaxed);
        }
        pinned
    }

    /// Bytes of pinned slots, linked or retired.
    pub(crate) fn pinned_bytes(&self) -> usize {
        self.pinned_bytes.load(Relaxed)
    }

    /// A slot of `size` bytes got its first pin.
    pub(crate) fn note_pinned(&self, size: usize) {
        self.pinned_bytes.fetch_add(size, Relaxed);
    }

    /// Removes a pin of a slot of `size` bytes. True if it was the last of a slot that was left to its pins: it then
    /// belongs to the caller.
    pub(crate) fn unpin(&self, slot: Slot, size: usize) -> bool {
        let _held = self.pins.lock();
        // Read before the pin is removed: after that the slot may hold another item.
        let left = slot.is_free_deferred();
        let last = slot.unpin();
        if last {
            // The first pin was counted before it was removed, also under the lock.
            let _ = self.pinned_bytes.fetch_sub(size, Relaxed).sub_exact(size);
        }
        if left && last {
            let _ = self.pinned.fetch_sub(1, Relaxed).sub_exact(1);
        }
        left && last
    }

    /// Takes the oldest batch out of the ring of `cpu`, if its grace period has passed. False if there is no such
    /// batch.
    pub(crate) fn take_batch<P: Platform<Lock = L>>(
        &self,
        platform: &P,
        cpu: usize,
        out: &mut RetiredBatch,
    ) -> bool {
        out.clear();
        let (at, Some(shard)) = self.shard(cpu) else {
            return false;
        };
        if shard.count.load(Relaxed) == 0 {
            return false;
        }
        let mut ring = shard.ring.lock();
        if ring.head == ring.tail {
            return false;
        }
        let Some(batch) = self.batch(at, ring.tail) else {
            return false;
        };
        if !platform.gp_done(Cookie(batch.cookie.load(Relaxed))) {
            return false;
        }
        let bytes = batch.bytes.load(Relaxed);
        let references = batch
            .references
            .iter()
            .map(|r| Retired::from_word(r.load(Relaxed)));
        references
            .map_while(|what| what)
            .for_each(|what| out.push(what));
        // From here on the batch's place may be reused.
        ring.tail = ring.tail.wrapping_add(1);
        let _ = self.bytes.fetch_sub(bytes, Relaxed).sub_exact(bytes);
        let count = shard.count.load(Relaxed).sub_exact(out.len());
        shard.count.store(count, Relaxed);
        true
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }
}

impl<L: RawLock, P: Platform<Lock = L>> Part<P> for Retire<L> {
    unsafe fn free(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe {
            self.shards.free(platform);
            self.batches.free(platform);
            self.pins.free(platform);
        }
    }
}
