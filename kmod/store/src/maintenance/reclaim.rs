// SPDX-License-Identifier: GPL-2.0-only
//! Reclaiming retired memory: into the rings, and out of them when grace periods are over.

use core::num::NonZeroUsize;

use hippos_invariant::Exact;

use crate::counters::Counter;
use crate::index::BUCKET;
use crate::item::Slot;
use crate::memory::retire::{Pushed, Retired, RetiredBatch};
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;

impl<P: Platform> Store<P> {
    /// Retires a slot that was unlinked and accounted for: it may be reused after a grace period. No lock or section is
    /// held; may sleep.
    pub(crate) fn retire_slot(&self, slot: Slot) {
        let Some(of) = self.slabs.get(slot.class()) else {
            return;
        };
        slot.retire();
        of.retired.fetch_add(1, Relaxed);
        self.push(Retired::slot(slot), of.size() as usize);
    }

    /// Retires an overflow bucket, if there is one.
    pub(crate) fn retire_overflow(&self, address: Option<NonZeroUsize>) {
        if let Some(address) = address {
            self.push(Retired::overflow(address), BUCKET);
        }
    }

    fn push(&self, what: Retired, bytes: usize) {
        match self.retire.push(&self.platform, what, bytes) {
            Pushed::Taken => {}
            // Slots that are collected soon are still in the CPU's cache.
            Pushed::Collectable => {
                self.collect_retired_of(self.platform.cpu());
            }
            Pushed::Full => {
                self.wait();
                // Its grace period has passed meanwhile, so it needs no place in the ring.
                let mut out = RetiredBatch::new();
                out.push(what);
                self.give_back(&out);
            }
        }
    }

    /// Sleeps for a grace period and collects the memory that it frees. No lock or section is held.
    pub(crate) fn wait(&self) {
        self.retire.close_all(&self.platform);
        self.count(Counter::Waits, 1);
        self.platform.gp_wait();
        self.collect_retired();
    }

    /// Collects the memory that grace periods have freed; true if there was any.
    pub(crate) fn collect_retired(&self) -> bool {
        (0..self.retire.shards()).fold(false, |any, cpu| self.collect_retired_of(cpu) | any)
    }

    /// Collects one CPU's retired memory.
    fn collect_retired_of(&self, cpu: usize) -> bool {
        let mut out = RetiredBatch::new();
        let mut any = false;
        while self.retire.take_batch(&self.platform, cpu, &mut out) {
            any = true;
            self.give_back(&out);
        }
        any
    }

    /// Frees retired slots and overflow buckets, except pinned slots, which their last unpin frees. Their grace period
    /// has passed, and no other thread frees them.
    fn give_back(&self, out: &RetiredBatch) {
        out.iter()
            .filter_map(Retired::as_overflow)
            .for_each(|at| self.index.give_overflow(at));
        // SAFETY: a slot that was just taken out of the rings has not been freed yet.
        let slots = out.iter().filter_map(|what| unsafe { what.as_slot() });
        let mut free = RetiredBatch::new();
        for slot in slots {
            // No reader can pin it any more.
            if !slot.pinned() || !self.defer_to_unpin(slot) {
                free.push(Retired::slot(slot));
            }
        }
        // SAFETY: as above.
        let slots = free.iter().filter_map(|what| unsafe { what.as_slot() });
        // SAFETY: these were retired, their grace period is over, and they are not pinned.
        unsafe {
            self.slabs
                .free_slots(&self.pool, slots, self.platform.poison())
        };
    }

    /// Leaves a slot to its last unpin. False if it has no pin. Until it is freed, its class evicts as if the slot did
    /// not exist.
    #[cold]
    fn defer_to_unpin(&self, slot: Slot) -> bool {
        let class = slot.class();
        let left = self.retire.defer_to_unpin(slot);
        if left {
            if let Some(of) = self.slabs.get(class) {
                let _ = of.retired.fetch_sub(1, Relaxed).sub_exact(1);
            }
        }
        left
    }

    /// Removes a pin, and frees the slot if it waited for this unpin alone.
    pub(crate) fn unpin(&self, slot: Slot) {
        if self.retire.unpin(slot, self.slot_size(slot)) {
            // SAFETY: the slot was left to its pins after its grace period, and this was the last pin.
            unsafe {
                let one = core::iter::once(slot);
                self.slabs
                    .free_slots(&self.pool, one, self.platform.poison());
            }
        }
    }
}
