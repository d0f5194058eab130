// SPDX-License-Identifier: GPL-2.0-only
//! Evicting items, and accounting for removed items.

use hippos_invariant::Exact;

use crate::capacities::PICK;
use crate::counters::{ClassCounter, Counter};
use crate::eviction::Picked;
use crate::hash::Hash;
use crate::index::Unchained;
use crate::item::{Slot, FETCHED};
use crate::memory::class::Class;
use crate::platform::{Platform, Removed};
use crate::store::Store;
use crate::sync::Relaxed;

use super::rebalance::PRESSURE_DIVISOR;

/// Slots that one eviction by a writer looks at.
const SCAN_MAX: usize = 1 << 16;

/// The memory that an item is charged for. Recorded while its slot belongs to the caller.
#[derive(Clone, Copy)]
pub(crate) struct Charge {
    class: usize,
    bytes: u64,
}

impl Charge {
    #[inline]
    pub(crate) fn of(slot: Slot) -> Self {
        Self {
            class: slot.class(),
            bytes: slot.size() as u64,
        }
    }

    pub(crate) fn class(&self) -> usize {
        self.class
    }
}

impl<P: Platform> Store<P> {
    /// Slots that a class lacks to have its reserve.
    #[inline]
    pub(crate) fn reserve_deficit(&self, of: &Class<P::Lock>) -> u32 {
        let there = of.free().add_exact(u64::from(of.retired.load(Relaxed)));
        let there = u32::try_from(there).unwrap_or(u32::MAX);
        let deficit = of.reserve.load(Relaxed).saturating_sub(there);
        if deficit != 0 && (self.pool.available() != 0 || self.has_spare_slab(of)) {
            return 0;
        }
        deficit
    }

    /// Whether a class may take a slab from another one.
    #[inline]
    pub(crate) fn has_spare_slab(&self, of: &Class<P::Lock>) -> bool {
        self.slabs.spare_for(of) != 0 && self.pool.held() <= self.pool.allowed()
    }

    /// Evicts up to `want` items of a class, but none whose key has the hash `keep`, and returns how many it evicted. No
    /// lock or section is held; may sleep.
    pub(crate) fn evict(&self, class: usize, want: usize, keep: Option<Hash>) -> usize {
        self.evict_some(class, want, keep).0
    }

    /// Like [`evict`](Self::evict), but also returns whether it went over all of the class.
    pub(crate) fn evict_some(
        &self,
        class: usize,
        want: usize,
        keep: Option<Hash>,
    ) -> (usize, bool) {
        let Some(of) = self.slabs.get(class) else {
            return (0, true);
        };
        // Several rounds: the first ones may only lower reference counts.
        let rounds = usize::from(self.cap).add_exact(1);
        let slots = of.slots().add_exact(u64::from(of.slabs())) as usize;
        let all = slots.mul_exact(rounds);
        let most = all.min(SCAN_MAX);
        let mut scanned = 0usize;
        let mut evicted = 0usize;
        let mut empty = false;
        while evicted < want && scanned <= most {
            let mut picked = Picked::new();
            let guard = self.read();
            let n = {
                let mut state = of.state.lock();
                let (mut class, policy) = self.slabs.class_slots(&self.pool, of, &mut state);
                let want = want.sub_exact(evicted).min(PICK);
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
                // A pick may be any item, also one that was dead and whose life was extended meanwhile.
                if self.unlink(slot, keep, |_| true, &mut overflow) {
                    // The list holds as many as were picked.
                    unlinked.push(slot);
                } else if slot.is_live() {
                    let mut state = of.state.lock();
                    let (class, policy) = self.slabs.class_slots(&self.pool, of, &mut state);
                    policy.put_back(&class, slot);
                }
            }
            drop(guard);
            evicted = evicted.add_exact(unlinked.len());
            self.retire_unlinked(&unlinked, &overflow);
            if evicted < want {
                // The loop may pass over every item of the class, if each was hit.
                self.platform.cond_resched();
            }
        }
        let before = of.pressure.fetch_add(evicted as u32, Relaxed);
        let threshold = of.slots_per_slab() / PRESSURE_DIVISOR;
        if before <= threshold && before.add_exact(evicted as u32) > threshold {
            // A slab's worth was evicted: maintenance may move a slab to this class.
            self.platform.wake();
        }
        (evicted, empty || scanned > all)
    }

    /// How many seconds the item of a class has been idle that was accessed longest ago of those that the eviction
    /// looks at next; 0 if there is none. Process context; takes the class's lock.
    pub fn tail_age(&self, class: usize) -> u32 {
        let Some(of) = self.slabs.get(class) else {
            return 0;
        };
        let now = self.now();
        let mut age = 0;
        let _guard = self.read();
        let mut state = of.state.lock();
        let (mut class, policy) = self.slabs.class_slots(&self.pool, of, &mut state);
        policy.look_ahead(&mut class, &mut |slot| {
            if slot.is_live() {
                age = age.max(now.saturating_sub(slot.header().atime.load(Relaxed)));
            }
        });
        age
    }

    /// Unlinks a slot if its key does not have the hash `keep`, it is still linked, and `wanted`, which is decided under
    /// the stripe's lock: another client may have changed the item since the caller looked at it. The caller is in a
    /// section in which it saw the slot live, and `overflow` has space for one more bucket.
    pub(crate) fn unlink(
        &self,
        slot: Slot,
        keep: Option<Hash>,
        wanted: impl Fn(Slot) -> bool,
        overflow: &mut Unchained,
    ) -> bool {
        if !slot.is_live() {
            return false;
        }
        let hash = self.hash_of(slot);
        if keep == Some(hash) {
            return false;
        }
        let Some(mut chain) = self.index.lock(hash) else {
            return false;
        };
        let Some(place) = chain.find(|s| s == slot && wanted(s)) else {
            return false;
        };
        if let Some(address) = chain.remove(&place) {
            overflow.push(address);
        }
        true
    }

    /// Accounts for and retires slots that were unlinked by eviction. No lock or section is held.
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
        self.platform.trace_evicted(|| self.removed(&slot));
    }

    /// An item as trace points show it. The caller keeps its slot.
    fn removed<'s>(&self, slot: &'s Slot) -> Removed<'s> {
        let header = slot.header();
        Removed {
            key: slot.key(),
            class: slot.class().add_exact(1) as u8,
            size: slot.size() as u32,
            idle: self.now().saturating_sub(header.atime.load(Relaxed)),
            fetched: slot.marks() & FETCHED != 0,
            flushed: header.epoch.load(Relaxed) != self.clock.epoch(),
        }
    }

    pub(crate) fn count_reclaim(&self, slot: Slot) {
        let class = slot.class();
        self.count_class(class, ClassCounter::Reclaimed, 1);
        if slot.marks() & FETCHED == 0 {
            self.count_class(class, ClassCounter::ExpiredUnfetched, 1);
        }
        self.platform.trace_dead(|| self.removed(&slot));
    }

    /// Accounts for a change and retires the slot that was unlinked. `new` is the charge of the item that was linked:
    /// its slot must not be read any more, because it can already hold another item. `reclaimed`: the old item had
    /// expired or was flushed. No lock or section is held.
    pub(crate) fn account_and_retire(
        &self,
        old: Option<Slot>,
        new: Option<Charge>,
        reclaimed: bool,
    ) {
        let cpu = self.platform.cpu();
        // Counter cells wrap: a decrease is added as its two's complement.
        let book = |class, items, bytes| {
            for (counter, n) in [(ClassCounter::Items, items), (ClassCounter::Bytes, bytes)] {
                if n != 0 {
                    self.counters.count_class(cpu, class, counter, n);
                }
            }
        };
        match (new, old.map(Charge::of)) {
            // Most often an item replaces one of the same class.
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
