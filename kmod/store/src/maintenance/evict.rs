// SPDX-License-Identifier: GPL-2.0-only
//! Evicting items, and the accounting of items that are gone.

use hippos_invariant::Exact;

use crate::capacities::PICK;
use crate::counters::{ClassCounter, Counter};
use crate::eviction::Picked;
use crate::index::Unchained;
use crate::item::{Slot, FETCHED};
use crate::memory::class::Class;
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;

use super::rebalance::PRESSURE_DIVISOR;

/// Slots that one call of a writer's looks at to evict some.
pub(crate) const SCAN_MAX: usize = 1 << 16;

/// What an item counts for. Noted while its slot is the caller's.
#[derive(Clone, Copy)]
pub(crate) struct Charge {
    class: usize,
    bytes: u64,
}

impl Charge {
    pub(crate) fn of(slot: Slot) -> Self {
        Self {
            class: slot.class(),
            bytes: slot.size() as u64,
        }
    }
}

impl<P: Platform> Store<P> {
    /// Slots that a class lacks to its reserve.
    #[inline]
    pub(crate) fn reserve_deficit(&self, of: &Class<P::Lock>) -> u32 {
        let there = of.free().add_exact(u64::from(of.retired.load(Relaxed)));
        let there = u32::try_from(there).unwrap_or(u32::MAX);
        let deficit = of.reserve.load(Relaxed).saturating_sub(there);
        if deficit != 0 && self.pool.available() != 0 {
            return 0;
        }
        deficit
    }

    /// Evicts up to `want` items of a class and returns how many it did. No lock or section is
    /// held; may sleep.
    pub(crate) fn evict(&self, class: usize, want: usize) -> usize {
        self.evict_some(class, want, SCAN_MAX).0
    }

    /// The same, looking at up to some `looks` slots, or all of the class a few times: says which.
    pub(crate) fn evict_some(&self, class: usize, want: usize, scan_max: usize) -> (usize, bool) {
        let Some(of) = self.slabs.get(class) else {
            return (0, true);
        };
        // A few times round: the first ones may only lower counts.
        let rounds = usize::from(self.cap).add_exact(1);
        let slots = of.slots().add_exact(u64::from(of.slabs())) as usize;
        let all = slots.mul_exact(rounds);
        let most = all.min(scan_max);
        let mut scanned = 0usize;
        let mut evicted = 0usize;
        let mut empty = false;
        while evicted < want && scanned <= most {
            let mut picked = Picked::new();
            let guard = self.read();
            let n = {
                let mut state = of.state.lock();
                let (mut class, policy) = self.slabs.class_slots(&self.pool, of, &mut state);
                let want = want.saturating_sub(evicted).min(PICK);
                let dead = |slot| !self.is_valid(slot);
                policy.pick(
                    &mut class,
                    want,
                    dead,
                    |slot| self.hash_of(slot),
                    &mut picked,
                )
            };
            if n == 0 {
                empty = true;
                break;
            }
            scanned = scanned.add_exact(n);
            self.count(Counter::HandScanned, n as u64);
            let mut unlinked = Picked::new();
            let mut overflow = Unchained::new();
            for slot in picked.iter() {
                if self.unlink(slot, &mut overflow) {
                    // There is room for as many as were picked.
                    unlinked.push(slot);
                }
            }
            drop(guard);
            evicted = evicted.add_exact(unlinked.len());
            self.retire_unlinked(&unlinked, &overflow);
            if evicted < want {
                // It may go over every item of the class, to find each one referred to.
                self.platform.cond_resched();
            }
        }
        let before = of.pressure.fetch_add(evicted as u32, Relaxed);
        let threshold = of.slots_per_slab() / PRESSURE_DIVISOR;
        if before <= threshold && before.add_exact(evicted as u32) > threshold {
            // Worth a slab, if there is one to be moved.
            self.platform.wake();
        }
        (evicted, empty || scanned > all)
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

    /// Accounts and retires what was unlinked to make room. No lock or section is held.
    pub(crate) fn retire_unlinked(&self, slots: &Picked, overflow: &Unchained) {
        for slot in slots.iter() {
            let dead = !self.is_valid(slot);
            if !dead {
                self.count_eviction(slot);
            }
            self.account_and_retire(Some(slot), None, dead);
        }
        for address in overflow.iter() {
            self.retire_overflow(Some(address));
        }
    }

    pub(crate) fn count_eviction(&self, slot: Slot) {
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
        if self.events.evictions.load(Relaxed) {
            self.log_eviction(slot);
        }
    }

    pub(crate) fn count_reclaim(&self, slot: Slot) {
        let class = slot.class();
        self.count_class(class, ClassCounter::Reclaimed, 1);
        if slot.marks() & FETCHED == 0 {
            self.count_class(class, ClassCounter::ExpiredUnfetched, 1);
        }
    }

    /// Keeps the accounting after a change and retires the slot that was unlinked. `new`: what the item
    /// that was linked counts for; nobody may look at its slot any more, which can be another item's
    /// by now. `reclaimed`: because the old one had expired or was flushed. No lock or section is
    /// held.
    pub(crate) fn account_and_retire(
        &self,
        old: Option<Slot>,
        new: Option<Charge>,
        reclaimed: bool,
    ) {
        let cpu = self.platform.cpu();
        // Counters' cells wrap: less is added as the two's complement.
        let book = |class, items, bytes| {
            for (counter, n) in [(ClassCounter::Items, items), (ClassCounter::Bytes, bytes)] {
                if n != 0 {
                    self.counters.count_class(cpu, class, counter, n);
                }
            }
        };
        match (new, old.map(Charge::of)) {
            // Most often an item takes the place of its like.
            (Some(new), Some(old)) if new.class == old.class => {
                book(new.class, 0, new.bytes.wrapping_sub(old.bytes));
            }
            (new, old) => {
                if let Some(new) = new {
                    book(new.class, 1, new.bytes);
                }
                if let Some(old) = old {
                    book(old.class, 1u64.wrapping_neg(), old.bytes.wrapping_neg());
                }
            }
        }
        if let Some(slot) = old {
            if reclaimed {
                self.count_reclaim(slot);
            }
            self.retire_slot(slot);
        }
    }
}
