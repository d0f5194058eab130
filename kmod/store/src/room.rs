//! Making room: handing slots out, evicting, and taking retired slots back.

use core::num::NonZeroUsize;

use crate::commit::StoreError;
use crate::counters::{ClassCounter, Counter};
use crate::hash::Hash;
use crate::index::{Unchained, BUCKET};
use crate::item::{Slot, FETCHED};
use crate::maintain::Stolen;
use crate::platform::Platform;
use crate::policy::{self, Picked, PICK};
use crate::pool::Use;
use crate::retire::{Harvest, Pushed, Retired};
use crate::slab::Class;
use crate::store::Store;
use crate::sync::Relaxed;

/// Times that a writer in need waits for a grace period before it gives up. Others may take what
/// has become free under its nose, so it is more than a few.
const PATIENCE: usize = 64;
/// Times that it waits besides while somebody else is moving memory: emptying a slab takes as long as
/// it takes, and an error would come of nothing but being second.
const QUEUE: usize = 4096;
/// Times that it finds nothing to take and nothing on the way before it believes it.
const BARREN: u32 = 3;
/// Retired memory is at most one part in so many of the limit (but at least the largest item),
/// beside a batch for each CPU.
const RETIRED_SHARE: usize = 16;
/// A class keeps at most one part in so many of its slots free.
const RESERVE_SHARE: u32 = 32;
/// The reserve that a class starts with when it needs one.
const RESERVE_FIRST: u32 = 4;
/// Items that a writer evicts to keep up the reserve, for each slot that it takes.
const TEND: usize = 2;

impl<P: Platform> Store<P> {
    /// A reserved slot of a class for a key of this hash, whatever it takes: memory that has
    /// become free, a new slab, or eviction. No lock or section is held; may sleep.
    pub(crate) fn alloc(&self, class: usize, hash: Hash) -> Result<Slot, StoreError> {
        if self.congested() {
            self.relieve()?;
        }
        let slot = match self.slabs.take(&self.pool, class, hash) {
            Some(slot) => slot,
            None => self.alloc_slow(class, hash)?,
        };
        self.tend(class);
        Ok(slot)
    }

    #[cold]
    fn alloc_slow(&self, class: usize, hash: Hash) -> Result<Slot, StoreError> {
        let Some(of) = self.slabs.get(class) else {
            return Err(StoreError::TooLarge);
        };
        let mut patience = PATIENCE;
        let mut queue = QUEUE;
        let mut barren = BARREN;
        while patience != 0 {
            self.harvest();
            if let Some(slot) = self.slabs.take(&self.pool, class, hash) {
                return Ok(slot);
            }
            if self.add_slab(class) {
                continue;
            }
            // Memory is full and the reserve did not last: make it larger, and make room now.
            of.low_water.store(0, Relaxed);
            let most = of.slots() / RESERVE_SHARE;
            let reserve = of
                .reserve
                .load(Relaxed)
                .saturating_mul(2)
                .max(RESERVE_FIRST)
                .min(most);
            of.reserve.store(reserve, Relaxed);
            let coming = of.retired.load(Relaxed);
            let want = reserve.max(1).saturating_sub(coming);
            if want != 0 && self.evict(class, want as usize) == 0 && coming == 0 {
                // The class has nothing to give: take a slab from another.
                match self.steal(class) {
                    Stolen::Nothing if barren != 0 => barren = barren.saturating_sub(1),
                    Stolen::Nothing => break,
                    _ if queue == 0 => break,
                    Stolen::Slab => {
                        // Most likely it is ours now; it may not be often that somebody is faster.
                        queue = queue.saturating_sub(QUEUE / PATIENCE);
                        continue;
                    }
                    Stolen::Busy => {
                        queue = queue.saturating_sub(1);
                        self.platform.nap();
                        continue;
                    }
                }
            }
            patience = patience.saturating_sub(1);
            self.platform.wake();
            self.wait_again(PATIENCE.saturating_sub(patience));
        }
        self.count_class(class, ClassCounter::OutOfMemory, 1);
        Err(StoreError::OutOfMemory)
    }

    /// The most bytes that may wait for grace periods before writers do.
    fn most_retired(&self) -> u64 {
        let limit = self.pool.limit().saturating_mul(self.pool.block_size());
        (limit / RETIRED_SHARE).max(self.item_max) as u64
    }

    /// Does too much wait for grace periods?
    #[inline]
    pub(crate) fn congested(&self) -> bool {
        self.retire.bytes() > self.most_retired()
    }

    /// Too much waits for grace periods: so does the writer.
    #[cold]
    fn relieve(&self) -> Result<(), StoreError> {
        self.harvest();
        for n in 0..PATIENCE {
            if !self.congested() {
                return Ok(());
            }
            self.wait_again(n);
        }
        Err(StoreError::OutOfMemory)
    }

    /// Gives a class another slab, if there is a block to be had.
    pub(crate) fn add_slab(&self, class: usize) -> bool {
        let Some(id) = self.pool.take(&self.platform, Use::Taken) else {
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
        if let Some(of) = self.slabs.get(class) {
            if self.lacks(of) != 0 {
                self.evict(class, TEND);
            }
        }
    }

    /// Slots that a class lacks to its reserve.
    #[inline]
    pub(crate) fn lacks(&self, of: &Class<P::Lock>) -> u32 {
        let there = of.free().saturating_add(of.retired.load(Relaxed));
        let lacks = of.reserve.load(Relaxed).saturating_sub(there);
        if lacks != 0 && self.pool.room() != 0 {
            return 0;
        }
        lacks
    }

    /// Evicts up to `want` items of a class and returns how many it did. No lock or section is
    /// held; may sleep.
    pub(crate) fn evict(&self, class: usize, want: usize) -> usize {
        let Some(of) = self.slabs.get(class) else {
            return 0;
        };
        // A few times round: the first ones may only lower counts.
        let rounds = usize::from(self.cap).saturating_add(1);
        let slots = of.slots().saturating_add(of.slabs()) as usize;
        let most = slots.saturating_mul(rounds);
        let mut looked = 0usize;
        let mut evicted = 0usize;
        while evicted < want && looked <= most {
            let mut picked = Picked::new();
            let guard = self.read();
            let n = {
                let mut state = of.state.lock();
                let mut class = policy::Locked {
                    slabs: &self.slabs,
                    pool: &self.pool,
                    of,
                    state: &mut state,
                };
                let want = want.saturating_sub(evicted).min(PICK);
                let dead = |slot| !self.alive(slot);
                class.pick(want, dead, |slot| self.hash_of(slot), &mut picked)
            };
            if n == 0 {
                break;
            }
            looked = looked.saturating_add(n);
            self.count(Counter::Swept, n as u64);
            let mut unlinked = Picked::new();
            let mut overflow = Unchained::new();
            for slot in picked.iter() {
                if self.unlink(slot, &mut overflow) {
                    // There is room for as many as were picked.
                    unlinked.push(slot);
                }
            }
            drop(guard);
            evicted = evicted.saturating_add(unlinked.len());
            self.discard(&unlinked, &overflow);
            if evicted < want {
                // It may go over every item of the class, to find each one referred to.
                self.platform.relax();
            }
        }
        of.pressure.fetch_add(evicted as u32, Relaxed);
        evicted
    }

    /// Unlinks a slot if it still is linked. The caller is in a section in which it saw it live,
    /// and has room for an overflow bucket.
    pub(crate) fn unlink(&self, slot: Slot, overflow: &mut Unchained) -> bool {
        if !slot.is_live() {
            return false;
        }
        let Some(mut chain) = self.index.lock(self.hash_of(slot)) else {
            return false;
        };
        let Some(place) = chain.find(|s| s == slot) else {
            return false;
        };
        if let Some(address) = chain.remove(&place) {
            overflow.push(address);
        }
        true
    }

    /// Books and retires what was unlinked to make room. No lock or section is held.
    pub(crate) fn discard(&self, slots: &Picked, overflow: &Unchained) {
        for slot in slots.iter() {
            let dead = !self.alive(slot);
            if !dead {
                self.note_eviction(slot);
            }
            self.unlinked(Some(slot), None, dead);
        }
        for address in overflow.iter() {
            self.retire_overflow(Some(address));
        }
    }

    pub(crate) fn note_eviction(&self, slot: Slot) {
        let header = slot.header();
        let class = slot.class();
        let cpu = self.platform.cpu();
        self.counters
            .count_class(cpu, class, ClassCounter::Evicted, 1);
        if header.expiry.load(Relaxed) != 0 {
            self.counters
                .count_class(cpu, class, ClassCounter::EvictedNonzero, 1);
        }
        if slot.marks() & FETCHED == 0 {
            self.counters
                .count_class(cpu, class, ClassCounter::EvictedUnfetched, 1);
        }
        if let Some(of) = self.slabs.get(class) {
            let age = self.now().saturating_sub(header.atime.load(Relaxed));
            of.evicted_age.store(age, Relaxed);
        }
    }

    pub(crate) fn note_reclaim(&self, slot: Slot) {
        let class = slot.class();
        self.count_class(class, ClassCounter::Reclaimed, 1);
        if slot.marks() & FETCHED == 0 {
            self.count_class(class, ClassCounter::ExpiredUnfetched, 1);
        }
    }

    /// A slot was unlinked: it is to be used again after a grace period. Its books are done. No
    /// lock or section is held; may sleep.
    pub(crate) fn retire_slot(&self, slot: Slot) {
        let Some(of) = self.slabs.get(slot.class()) else {
            return;
        };
        slot.retire();
        of.retired.fetch_add(1, Relaxed);
        self.push(Retired::slot(slot), of.size() as usize);
    }

    /// The same for an overflow bucket, if there is one.
    pub(crate) fn retire_overflow(&self, address: Option<NonZeroUsize>) {
        if let Some(address) = address {
            self.push(Retired::overflow(address), BUCKET);
        }
    }

    fn push(&self, what: Retired, bytes: usize) {
        match self.retire.push(&self.platform, what, bytes) {
            Pushed::Taken => {}
            // Slots that come back soon are still near the CPU.
            Pushed::Ripe => {
                self.harvest_of(self.platform.cpu());
            }
            Pushed::Full => {
                self.wait();
                // It has had its grace period now, and needs no place in the ring.
                let mut out = Harvest::new();
                out.push(what);
                self.give_back(&out);
            }
        }
    }

    /// Sleeps for a grace period and takes back what it frees. No lock or section is held.
    pub(crate) fn wait(&self) {
        self.retire.close_all(&self.platform);
        self.count(Counter::Waits, 1);
        self.platform.gp_wait();
        self.harvest();
    }

    /// As `wait`, for the nth time: somebody else may be just about to give back what this one
    /// waits for, and needs the CPU for it.
    fn wait_again(&self, n: usize) {
        if n > 1 {
            self.platform.nap();
        }
        self.wait();
    }

    /// Takes back what grace periods have freed, and says if there was anything.
    pub(crate) fn harvest(&self) -> bool {
        (0..self.retire.shards()).fold(false, |any, cpu| self.harvest_of(cpu) | any)
    }

    /// The same for what one CPU has retired.
    fn harvest_of(&self, cpu: usize) -> bool {
        let mut out = Harvest::new();
        let mut any = false;
        while self.retire.harvest(&self.platform, cpu, &mut out) {
            any = true;
            self.give_back(&out);
        }
        any
    }

    /// Makes what was retired free: all but pinned slots, which are left to their pins. A grace
    /// period has passed since, and nobody else gives it back.
    fn give_back(&self, out: &Harvest) {
        out.iter()
            .filter_map(Retired::as_overflow)
            .for_each(|at| self.index.give_overflow(at));
        // SAFETY: what was just taken out of the rings has not been given back.
        let slots = out.iter().filter_map(|what| unsafe { what.as_slot() });
        let mut free = Harvest::new();
        for slot in slots {
            // Nobody can pin it any more.
            if !slot.pinned() || !self.leave(slot) {
                free.push(Retired::slot(slot));
            }
        }
        // SAFETY: as above.
        let slots = free.iter().filter_map(|what| unsafe { what.as_slot() });
        // SAFETY: these were retired, their grace period is over, and they are not pinned.
        unsafe { self.slabs.give(&self.pool, slots, self.platform.poison()) };
    }

    /// Leaves a slot to its pins. False if it has none. Until it comes back, its class is to evict as
    /// if it were not there.
    #[cold]
    fn leave(&self, slot: Slot) -> bool {
        let class = slot.class();
        let left = self.retire.leave(slot);
        if left {
            if let Some(of) = self.slabs.get(class) {
                of.retired.fetch_sub(1, Relaxed);
            }
        }
        left
    }

    /// Gives a pin up, and the slot back if it waited for that alone.
    pub(crate) fn unpin(&self, slot: Slot) {
        if self.retire.unpin(slot) {
            // SAFETY: the slot was retired for longer than a grace period when it was left to its
            // pins, and this was the last.
            unsafe {
                let one = core::iter::once(slot);
                self.slabs.give(&self.pool, one, self.platform.poison());
            }
        }
    }
}
