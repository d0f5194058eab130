//! Retired memory on its way back: unlinked, waiting for a grace period.
//!
//! Each CPU has a ring of batches. References go into the newest batch; when it is full, or
//! somebody is in need, a grace period is asked for it, and once that has passed the references
//! are handed back. Nothing is written into what is retired, since readers may still be in it.

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use crate::few::Few;
use crate::item::Slot;
use crate::lock::Locked;
use crate::platform::{Cookie, Platform, RawLock, Role};
use crate::sync::{AtomicU64, AtomicUsize, Relaxed};
use crate::table::Table;

/// References of a batch.
pub(crate) const BATCH: usize = 62;
/// Batches of a CPU's ring, a power of two.
const RING: usize = 128;
/// A batch is closed when it holds so many bytes.
const BATCH_BYTES: u64 = 256 << 10;
/// Closed batches of a ring from which on it is worth asking for the oldest one's grace period.
const RIPE: usize = 4;

/// What became of a reference that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It was taken.
    Taken,
    /// It was taken and closed a batch, and several are closed: their time may have come.
    Ripe,
    /// The CPU's ring is full: wait for a grace period, harvest, and try again.
    Full,
}

/// A retired reference, as a word: an address, and in its lowest bit what lies there.
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

    fn unword(word: u64) -> Option<Self> {
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

    /// The overflow bucket's address, if it is one.
    pub(crate) fn as_overflow(self) -> Option<NonZeroUsize> {
        if self.0.get() & 1 == 0 {
            return None;
        }
        NonZeroUsize::new(self.0.get() & !1)
    }
}

/// Under its ring's lock.
struct Batch {
    cookie: AtomicU64,
    bytes: AtomicU64,
    references: [AtomicU64; BATCH],
}

/// Where a CPU's ring is. Batches from `tail` to before `head` are closed, `head` is the one being
/// filled.
#[derive(Default)]
struct Ring {
    head: usize,
    tail: usize,
    filled: usize,
}

#[repr(align(64))]
struct Shard<L> {
    ring: Locked<L, Ring>,
    /// References in the ring. Written under the lock.
    count: AtomicUsize,
}

pub(crate) struct Retire<L> {
    shards: Table<Shard<L>>,
    batches: Table<Batch>,
    /// Bytes of closed batches.
    bytes: AtomicU64,
}

/// The references of one batch, packed.
pub(crate) type Harvest = Few<Retired, BATCH>;

impl<L: RawLock> Retire<L> {
    pub(crate) fn new<P: Platform<Lock = L>>(platform: &P) -> Option<Self> {
        let cpus = platform.cpus().max(1);
        let shards = Table::new(platform, cpus, || Shard {
            ring: Locked::new(Ring::default()),
            count: AtomicUsize::new(0),
        })?;
        let batches = Table::new(platform, cpus.checked_mul(RING)?, || Batch {
            cookie: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            references: core::array::from_fn(|_| AtomicU64::new(0)),
        });
        let Some(batches) = batches else {
            // SAFETY: the table came from this platform and is not used again.
            unsafe { shards.free(platform) };
            return None;
        };
        Some(Self {
            shards,
            batches,
            bytes: AtomicU64::new(0),
        })
    }

    pub(crate) fn init(&self) {
        for shard in self.shards.iter() {
            shard.ring.init(Role::Shard);
        }
    }

    /// # Safety
    ///
    /// As for [`Table::free`].
    pub(crate) unsafe fn free<P: Platform<Lock = L>>(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe {
            self.shards.free(platform);
            self.batches.free(platform);
        }
    }

    pub(crate) fn tables(&self) -> usize {
        self.shards.size().saturating_add(self.batches.size())
    }

    /// Bytes that wait for grace periods, those of the newest batches not counted.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// References that wait.
    pub(crate) fn count(&self) -> usize {
        self.shards
            .iter()
            .fold(0, |sum, s| sum.wrapping_add(s.count.load(Relaxed)))
    }

    fn batch(&self, shard: usize, at: usize) -> Option<&Batch> {
        self.batches
            .get(shard.wrapping_mul(RING).wrapping_add(at & (RING - 1)))
    }

    fn shard(&self, cpu: usize) -> (usize, Option<&Shard<L>>) {
        let at = if cpu < self.shards.len() { cpu } else { 0 };
        (at, self.shards.get(at))
    }

    /// Takes a reference that was just unlinked.
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
        let closed = ring.head.wrapping_sub(ring.tail);
        if closed >= RING {
            return Pushed::Full;
        }
        self.append(platform, at, &mut ring, what.word(), bytes as u64);
        shard
            .count
            .store(shard.count.load(Relaxed).wrapping_add(1), Relaxed);
        if ring.filled == 0 && closed >= RIPE {
            Pushed::Ripe
        } else {
            Pushed::Taken
        }
    }

    fn close<P: Platform<Lock = L>>(&self, platform: &P, batch: &Batch, ring: &mut Ring) {
        batch.cookie.store(platform.gp_start().0, Relaxed);
        if let Some(end) = batch.references.get(ring.filled) {
            end.store(0, Relaxed);
        }
        self.bytes.fetch_add(batch.bytes.load(Relaxed), Relaxed);
        ring.head = ring.head.wrapping_add(1);
        ring.filled = 0;
    }

    /// Asks for grace periods for what the newest batches hold.
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

    /// Takes the oldest batch out of the ring of `cpu`, if its grace period has passed; what is to
    /// be `kept` goes round once more. False if there is no such batch.
    pub(crate) fn harvest<P: Platform<Lock = L>>(
        &self,
        platform: &P,
        cpu: usize,
        kept: impl Fn(Retired) -> bool,
        out: &mut Harvest,
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
            .map(|r| Retired::unword(r.load(Relaxed)));
        references
            .map_while(|what| what)
            .for_each(|what| out.push(what));
        // From here on the batch's place may be filled again.
        ring.tail = ring.tail.wrapping_add(1);
        self.bytes.fetch_sub(bytes, Relaxed);
        let mut count = shard.count.load(Relaxed).saturating_sub(out.len());
        let mut left = Harvest::new();
        for what in out.iter() {
            if kept(what) {
                // There is room: the ring has lost a whole batch. Its bytes no longer count, since
                // no waiting makes them free.
                self.append(platform, at, &mut ring, what.word(), 0);
                count = count.wrapping_add(1);
            } else {
                left.push(what);
            }
        }
        *out = left;
        shard.count.store(count, Relaxed);
        true
    }

    /// Puts a reference into the newest batch, of which there is one.
    fn append<P: Platform<Lock = L>>(
        &self,
        platform: &P,
        shard: usize,
        ring: &mut Ring,
        word: u64,
        bytes: u64,
    ) {
        let Some(batch) = self.batch(shard, ring.head) else {
            return;
        };
        if let Some(reference) = batch.references.get(ring.filled) {
            reference.store(word, Relaxed);
        }
        let total = if ring.filled == 0 {
            0
        } else {
            batch.bytes.load(Relaxed)
        };
        let total = total.saturating_add(bytes);
        batch.bytes.store(total, Relaxed);
        ring.filled = ring.filled.wrapping_add(1);
        if ring.filled >= BATCH || total >= BATCH_BYTES {
            self.close(platform, batch, ring);
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }
}
