//! Keeping memory in order: making room, taking retired slots back, growing.

use crate::commit::StoreError;
use crate::counters::{ClassCounter, Counter};
use crate::index::{Step, Unchained};
use crate::item::Slot;
use crate::platform::Platform;
use crate::policy::{self, Picked, PICK};
use crate::pool::Use;
use crate::retire::{Harvest, Retired};
use crate::store::Store;
use crate::sync::{Acquire, AtomicBool, AtomicU32, Relaxed, Release};

/// Times that a writer in need waits for a grace period before it gives up.
const PATIENCE: usize = 16;
/// Retired memory is at most one part in so many of the limit, plus a batch a CPU.
const RETIRED_SHARE: usize = 16;
/// A class keeps at most one part in so many of its slots free.
const RESERVE_SHARE: u32 = 32;
/// The least that a class keeps free.
const RESERVE_MIN: u32 = 4;
/// Steps of the index's growth that one call of `maintain` makes.
const GROWTH: usize = 256;
/// Spare overflow buckets that `maintain` sees to.
const SPARE: usize = 64;

/// The state of maintenance.
pub(crate) struct Upkeep {
    /// Somebody is at it.
    busy: AtomicBool,
    /// The index wants to grow, but has no segment for it.
    hungry: AtomicBool,
    /// The next class to look at.
    class: AtomicU32,
}

impl Upkeep {
    pub(crate) fn new() -> Self {
        Self {
            busy: AtomicBool::new(false),
            hungry: AtomicBool::new(false),
            class: AtomicU32::new(0),
        }
    }
}

/// What a step of maintenance did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintained {
    /// Call again after so many milliseconds; [`Platform::wake`] may ask for less.
    pub next_ms: u32,
}

impl<P: Platform> Store<P> {
    /// A reserved slot of a class, whatever it takes: memory that has become free, a new slab, or
    /// eviction. No lock or section is held; may sleep.
    pub(crate) fn alloc(&self, class: usize) -> Result<Slot, StoreError> {
        let slot = match self.slabs.take(&self.pool, class) {
            Some(slot) => slot,
            None => self.alloc_slow(class)?,
        };
        self.tend(class);
        Ok(slot)
    }

    #[cold]
    fn alloc_slow(&self, class: usize) -> Result<Slot, StoreError> {
        let Some(of) = self.slabs.get(class) else {
            return Err(StoreError::TooLarge);
        };
        for _ in 0..PATIENCE {
            self.harvest();
            if let Some(slot) = self.slabs.take(&self.pool, class) {
                return Ok(slot);
            }
            if self.add_slab(class) {
                continue;
            }
            // Memory is full and the reserve did not last: make it larger, and make room now.
            let most = (of.slots() / RESERVE_SHARE).max(RESERVE_MIN);
            let reserve = of
                .reserve
                .load(Relaxed)
                .saturating_mul(2)
                .clamp(RESERVE_MIN, most);
            of.reserve.store(reserve, Relaxed);
            let coming = of.retired.load(Relaxed);
            if coming < reserve {
                self.evict(class, reserve.saturating_sub(coming) as usize);
            }
            self.retire.close_all(&self.platform);
            self.platform.wake();
            self.count(Counter::Waits, 1);
            self.platform.gp_wait();
        }
        self.count_class(class, ClassCounter::OutOfMemory, 1);
        Err(StoreError::OutOfMemory)
    }

    /// Gives a class another slab, if there is a block to be had.
    fn add_slab(&self, class: usize) -> bool {
        let Some(id) = self.pool.take(&self.platform, Use::Slab) else {
            return false;
        };
        // SAFETY: the block was just taken for this.
        unsafe { self.slabs.add(&self.pool, class, id) };
        true
    }

    /// A writer's share of keeping the reserve: evicts a little when memory is full and less than
    /// the reserve is free or on the way to it. No lock or section is held.
    #[inline]
    pub(crate) fn tend(&self, class: usize) {
        let Some(of) = self.slabs.get(class) else {
            return;
        };
        let free = of.free().saturating_add(of.retired.load(Relaxed));
        if free < of.reserve.load(Relaxed) && self.pool.room() == 0 {
            self.evict(class, 2);
        }
    }

    /// Evicts up to `want` items of a class and returns how many it did. No lock or section is
    /// held; may sleep.
    pub(crate) fn evict(&self, class: usize, want: usize) -> usize {
        let Some(of) = self.slabs.get(class) else {
            return 0;
        };
        // Twice round: the first time may only clear marks.
        let most = (of.slots() as usize)
            .saturating_mul(2)
            .saturating_add(of.slabs() as usize);
        let mut looked = 0usize;
        let mut evicted = 0usize;
        while evicted < want && looked <= most {
            let mut picked = Picked::new();
            let guard = self.read();
            {
                let mut state = of.state.lock();
                let want = want.saturating_sub(evicted).min(PICK);
                let n = policy::clock(
                    &self.slabs,
                    &self.pool,
                    of,
                    &mut state,
                    want,
                    |slot| !self.alive(slot),
                    &mut picked,
                );
                if n == 0 {
                    break;
                }
                looked = looked.saturating_add(n);
                self.count(Counter::Swept, n as u64);
            }
            let mut overflow = Unchained::new();
            picked.retain(|slot| self.unlink(*slot, &mut overflow));
            drop(guard);
            for slot in &picked {
                self.evicted(*slot);
                evicted = evicted.saturating_add(1);
            }
            for address in overflow {
                self.retire_overflow(Some(address));
            }
        }
        evicted
    }

    /// Unlinks a slot if it still is linked. The caller is in a section in which it saw it live.
    fn unlink(&self, slot: Slot, overflow: &mut Unchained) -> bool {
        if !slot.is_live() || overflow.is_full() {
            return false;
        }
        let Some(mut chain) = self.index.lock(self.hash_of(slot)) else {
            return false;
        };
        let Some(place) = chain.find(|s| s == slot) else {
            return false;
        };
        if let Some(address) = chain.remove(&place) {
            // There is room: see above.
            let _ = overflow.push(address);
        }
        true
    }

    /// Books and retires a slot that was unlinked to make room.
    fn evicted(&self, slot: Slot) {
        let dead = !self.alive(slot);
        if !dead {
            self.note_eviction(slot);
        }
        self.unlinked(Some(slot), None, dead);
    }

    pub(crate) fn note_eviction(&self, slot: Slot) {
        let header = slot.header();
        let class = usize::from(header.class.load(Relaxed));
        let cpu = self.platform.cpu();
        self.counters
            .count_class(cpu, class, ClassCounter::Evicted, 1);
        if header.expiry.load(Relaxed) != 0 {
            self.counters
                .count_class(cpu, class, ClassCounter::EvictedNonzero, 1);
        }
        if slot.marks() & crate::item::FETCHED == 0 {
            self.counters
                .count_class(cpu, class, ClassCounter::EvictedUnfetched, 1);
        }
        if let Some(of) = self.slabs.get(class) {
            let age = self.now().saturating_sub(header.atime.load(Relaxed));
            of.evicted_age.store(age, Relaxed);
        }
    }

    pub(crate) fn note_reclaim(&self, slot: Slot) {
        let class = usize::from(slot.header().class.load(Relaxed));
        self.count_class(class, ClassCounter::Reclaimed, 1);
        if slot.marks() & crate::item::FETCHED == 0 {
            self.count_class(class, ClassCounter::ExpiredUnfetched, 1);
        }
    }

    /// A slot was unlinked: it is to be used again after a grace period. Its books are done. No
    /// lock or section is held; may sleep.
    pub(crate) fn retire_slot(&self, slot: Slot) {
        let class = usize::from(slot.header().class.load(Relaxed));
        let Some(of) = self.slabs.get(class) else {
            return;
        };
        slot.retire();
        of.retired.fetch_add(1, Relaxed);
        self.push(Retired::Slot(slot.address()), of.size() as usize);
    }

    /// The same for an overflow bucket, if there is one.
    pub(crate) fn retire_overflow(&self, address: Option<usize>) {
        if let Some(address) = address {
            self.push(Retired::Overflow(address), crate::index::BUCKET);
        }
    }

    fn push(&self, what: Retired, bytes: usize) {
        while !self.retire.push(&self.platform, what, bytes) {
            self.wait();
        }
        let most = self.pool.limit().saturating_mul(self.pool.block_size()) / RETIRED_SHARE;
        let most = (most.max(self.item_max)) as u64;
        for _ in 0..PATIENCE {
            if self.retire.bytes() <= most {
                return;
            }
            self.harvest();
            if self.retire.bytes() <= most {
                return;
            }
            self.wait();
        }
    }

    /// Sleeps for a grace period and takes back what it frees.
    fn wait(&self) {
        self.count(Counter::Waits, 1);
        self.platform.gp_wait();
        self.harvest();
    }

    /// Takes back what grace periods have freed.
    pub(crate) fn harvest(&self) -> usize {
        let mut out = Harvest::new();
        let mut taken = 0usize;
        let pinned = |what| match what {
            // SAFETY: a retired slot stays mapped until it is given back.
            Retired::Slot(at) => self.retired_slot(at).is_some_and(|slot| slot.pinned()),
            Retired::Overflow(_) => false,
        };
        for cpu in 0..self.retire.shards() {
            while self.retire.harvest(&self.platform, cpu, pinned, &mut out) {
                taken = taken.saturating_add(out.len());
                for word in &out {
                    if let Retired::Overflow(at) = Retired::unpack(*word) {
                        self.index.give_overflow(at);
                    }
                }
                let slots = || {
                    out.iter().filter_map(|word| match Retired::unpack(*word) {
                        Retired::Slot(at) => self.retired_slot(at),
                        Retired::Overflow(_) => None,
                    })
                };
                for slot in slots() {
                    let class = usize::from(slot.header().class.load(Relaxed));
                    if let Some(of) = self.slabs.get(class) {
                        of.retired.fetch_sub(1, Relaxed);
                    }
                }
                // SAFETY: these were retired, their grace period is over, and they are not pinned.
                unsafe { self.slabs.give(&self.pool, slots(), self.platform.poison()) };
            }
        }
        taken
    }

    fn retired_slot(&self, at: usize) -> Option<Slot> {
        let at = core::ptr::NonNull::new(at as *mut u8)?;
        // SAFETY: a retired slot's slab stays in use until the slot is given back.
        Some(unsafe { Slot::new(at) })
    }

    /// Grows the index by a bucket, on behalf of a writer whose stripe is crowded. No lock or
    /// section is held.
    pub(crate) fn grow_index(&self) {
        match self.split() {
            Step::NoSegment => {
                if !self.upkeep.hungry.swap(true, Relaxed) {
                    self.platform.wake();
                }
                if self.pool.room() != 0 && self.add_segment() {
                    self.upkeep.hungry.store(false, Relaxed);
                }
            }
            Step::NoOverflow => {
                self.add_overflow();
            }
            Step::Done | Step::NotNow => {}
        }
    }

    fn split(&self) -> Step {
        let mut unchained = Unchained::new();
        let step = self.index.split(
            |slot| self.hash_of(slot),
            |cookie| self.platform.gp_done(cookie),
            &mut unchained,
        );
        for address in unchained {
            self.retire_overflow(Some(address));
        }
        if step == Step::Done {
            self.count(Counter::Splits, 1);
        }
        step
    }

    /// Adds a block of overflow buckets. False if none is to be had.
    pub(crate) fn add_overflow(&self) -> bool {
        if self.index.spare() != 0 {
            return true;
        }
        let Some(id) = self.pool.take(&self.platform, Use::Overflow) else {
            return false;
        };
        let at = self.pool.get(id).and_then(|block| block.at());
        let buckets = self.pool.block_size() / crate::index::BUCKET;
        // SAFETY: the block was just taken for this.
        let added = at.is_some_and(|at| unsafe { self.index.add_overflow(at, buckets) });
        if !added {
            // SAFETY: nobody has seen the block.
            unsafe { self.pool.give(&self.platform, id) };
        }
        self.index.spare() != 0
    }

    /// One bounded step of maintenance. To be called from one place, as often as it says. Process
    /// context, may sleep.
    pub fn maintain(&self) -> Maintained {
        if self.upkeep.busy.swap(true, Acquire) {
            return Maintained { next_ms: 10 };
        }
        self.retire.close_all(&self.platform);
        let mut next_ms = if self.harvest() != 0 { 10 } else { 100 };
        let at = self.upkeep.class.fetch_add(1, Relaxed) as usize;
        let classes = self.slabs.classes().len();
        for i in 0..classes {
            let class = at.wrapping_add(i).checked_rem(classes).unwrap_or(0);
            self.tend(class);
        }
        for _ in 0..GROWTH {
            if !self.upkeep.hungry.load(Relaxed) {
                break;
            }
            match self.split() {
                Step::Done => {}
                Step::NoSegment if self.add_segment() => {}
                Step::NoOverflow if self.add_overflow() => {}
                _ => {
                    next_ms = 10;
                    break;
                }
            }
            self.upkeep.hungry.store(false, Relaxed);
        }
        if self.index.spare() < SPARE && self.pool.room() != 0 {
            self.add_overflow();
        }
        self.upkeep.busy.store(false, Release);
        Maintained { next_ms }
    }

    /// Changes the memory limit. Lowering it takes effect by and by, through `maintain`. False if
    /// it is less than the least that a store can have, or more than `Config::memory_max`.
    pub fn resize(&self, memory: usize) -> bool {
        let blocks = memory.checked_div(self.pool.block_size()).unwrap_or(0);
        if blocks < 2 || blocks > self.pool.capacity() {
            return false;
        }
        self.pool.set_limit(blocks);
        self.platform.wake();
        true
    }
}
