// SPDX-License-Identifier: GPL-2.0-only
//! Making room: handing slots out, evicting, and taking retired slots back.

use core::num::NonZeroUsize;

use crate::commit::StoreError;
use crate::counters::{ClassCounter, Counter};
use crate::hash::Hash;
use crate::index::{Unchained, BUCKET};
use crate::item::{Slot, FETCHED};
use crate::maintain::{Stolen, PRESSED};
use crate::platform::Platform;
use crate::policy::{self, Picked, PICK};
use crate::pool::Use;
use crate::retire::{Harvest, Pushed, Retired};
use crate::slab::Class;
use crate::store::Store;
use crate::sync::Relaxed;

/// Grace periods that one write waits for at most.
const GRACES: u32 = 16;
/// Times that one write looks again for what others are about to give back, with a nap before most.
const TRIES: u32 = 128;
/// Times that it finds nothing to take and nothing on the way before it believes it.
const BARREN: u32 = 4;
/// Slots that one call of a writer's looks at to evict some.
const LOOKS: usize = 1 << 16;
/// Retired memory is at most one part in so many of the limit (but at least the largest item),
/// beside a batch for each CPU.
const RETIRED_SHARE: usize = 16;
/// A class keeps at most one part in so many of its slots free.
const RESERVE_SHARE: u32 = 32;
/// The reserve that a class starts with when it needs one.
const RESERVE_FIRST: u32 = 4;
/// Items that a writer evicts to keep up the reserve, for each slot that it takes.
const TEND: usize = 2;

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// The item is too large.
    TooLarge,
    /// None is free now; one may be a little later.
    Soon,
    /// None is free, and there is nothing that could become free.
    Nothing,
}

/// What a writer may still do for a slot.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Grace periods.
    graces: u32,
    tries: u32,
    /// Times that it may find nothing.
    barren: u32,
    /// It may sleep for other reasons than grace periods.
    waits: bool,
}

impl From<Short> for StoreError {
    fn from(short: Short) -> Self {
        match short {
            Short::TooLarge => Self::TooLarge,
            Short::Soon | Short::Nothing => Self::OutOfMemory,
        }
    }
}

impl Effort {
    /// One that ends with an error that is final.
    pub(crate) const WHOLE: Self = Self {
        graces: GRACES,
        tries: TRIES,
        barren: BARREN,
        waits: true,
    };
    /// A turn among others: one grace period at most, and no other sleep.
    pub(crate) const TURN: Self = Self {
        graces: 1,
        tries: TRIES / 8,
        barren: 0,
        waits: false,
    };

    fn look_again(&mut self) -> Result<(), Short> {
        self.tries = self.tries.checked_sub(1).ok_or(Short::Soon)?;
        Ok(())
    }

    fn find_nothing(&mut self) -> Result<(), Short> {
        self.barren = self.barren.checked_sub(1).ok_or(Short::Nothing)?;
        Ok(())
    }
}

impl<P: Platform> Store<P> {
    /// A reserved slot of a class for a key of this hash: memory that has become free, a new slab, or
    /// eviction. No lock or section is held; may sleep, as long as `effort` lasts.
    #[inline]
    pub(crate) fn alloc(&self, class: usize, hash: Hash, effort: Effort) -> Result<Slot, Short> {
        let slot = match self.alloc_ready(class, hash) {
            Some(slot) => slot,
            None => self.make_room(class, hash, effort)?,
        };
        self.tend(class);
        Ok(slot)
    }

    /// A slot that is free now. May be called in a section.
    #[inline]
    pub(crate) fn alloc_ready(&self, class: usize, hash: Hash) -> Option<Slot> {
        let ready = || self.slabs.take(&self.pool, class, hash);
        (!self.congested()).then(ready).flatten()
    }

    #[cold]
    fn make_room(&self, class: usize, hash: Hash, mut effort: Effort) -> Result<Slot, Short> {
        let Some(of) = self.slabs.get(class) else {
            return Err(Short::TooLarge);
        };
        while self.congested() {
            self.pause(&mut effort)?;
        }
        let mut raised = false;
        loop {
            self.harvest();
            if let Some(slot) = self.slabs.take(&self.pool, class, hash) {
                return Ok(slot);
            }
            if self.add_slab(class) {
                effort.look_again()?;
                continue;
            }
            if !raised {
                // Memory is full and the reserve did not last.
                raised = true;
                self.raise_reserve(of);
                self.platform.wake();
            }
            let coming = of.retired.load(Relaxed);
            let want = of.reserve.load(Relaxed).max(1).saturating_sub(coming);
            if want == 0 || coming != 0 {
                self.evict(class, want as usize);
                self.pause(&mut effort)?;
                continue;
            }
            match self.evict_some(class, want as usize, LOOKS) {
                // Not all were looked at, or some are on their way.
                (0, false) => effort.look_again()?,
                (1.., _) => self.pause(&mut effort)?,
                // The class has nothing to give: take a slab from another.
                (0, true) => match self.steal(class) {
                    Stolen::Slab | Stolen::Working => effort.look_again()?,
                    Stolen::Waiting => self.pause(&mut effort)?,
                    Stolen::Busy => self.nap(&mut effort)?,
                    Stolen::Nothing => {
                        effort.find_nothing()?;
                        self.nap(&mut effort)?;
                    }
                },
            }
        }
    }

    /// Makes a class's reserve larger.
    fn raise_reserve(&self, of: &Class<P::Lock>) {
        of.low_water.store(0, Relaxed);
        let most = of.slots() / RESERVE_SHARE;
        let reserve = of.reserve.load(Relaxed).saturating_mul(2);
        let reserve = reserve.max(RESERVE_FIRST).min(most);
        of.reserve.store(reserve, Relaxed);
    }

    /// Waits for a grace period, or just for a moment.
    fn pause(&self, effort: &mut Effort) -> Result<(), Short> {
        if effort.graces == 0 {
            return self.nap(effort);
        }
        effort.graces = effort.graces.wrapping_sub(1);
        self.wait();
        Ok(())
    }

    /// Lets others run, who are about to give something back.
    fn nap(&self, effort: &mut Effort) -> Result<(), Short> {
        effort.look_again()?;
        if effort.waits {
            self.platform.nap();
            return Ok(());
        }
        Err(Short::Soon)
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
        self.evict_some(class, want, LOOKS).0
    }

    /// The same, looking at up to some `looks` slots, or all of the class a few times: says which.
    fn evict_some(&self, class: usize, want: usize, looks: usize) -> (usize, bool) {
        let Some(of) = self.slabs.get(class) else {
            return (0, true);
        };
        // A few times round: the first ones may only lower counts.
        let rounds = usize::from(self.cap).saturating_add(1);
        let slots = of.slots().saturating_add(of.slabs()) as usize;
        let all = slots.saturating_mul(rounds);
        let most = all.min(looks);
        let mut looked = 0usize;
        let mut evicted = 0usize;
        let mut empty = false;
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
                empty = true;
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
        let before = of.pressure.fetch_add(evicted as u32, Relaxed);
        let pressed = of.slots_per_slab() / PRESSED;
        if before <= pressed && before.saturating_add(evicted as u32) > pressed {
            // Worth a slab, if there is one to be moved.
            self.platform.wake();
        }
        (evicted, empty || looked > all)
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
