// SPDX-License-Identifier: GPL-2.0-only
//! Allocating slots for writers: a free slot, or one that becomes free in time.

use hippos_invariant::Exact;

use crate::hash::Hash;
use crate::item::Slot;
use crate::maintenance::drain::StealResult;
use crate::memory::class::Class;
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;

use super::commit::StoreError;

/// The most grace periods that one write waits for.
const MAX_GRACE_WAITS: u32 = 16;
/// The most retries of one write, most of them after a short sleep, for slots that other threads are about to free.
const MAX_RETRIES: u32 = 128;
/// Scans that find nothing to evict and nothing about to be freed before the write gives up.
const MAX_EMPTY_SCANS: u32 = 4;
/// The limit divided by this is the most that retired memory may take (but at least the largest item), beside a batch
/// for each CPU.
const RETIRED_SHARE: usize = 16;
/// A class's number of slots divided by this is its largest reserve.
const RESERVE_SHARE: u64 = 32;
/// The first reserve of a class that needs one.
const RESERVE_FIRST: u32 = 4;
/// Items that a writer evicts to refill the reserve, for each slot that it takes.
const REFILL: usize = 2;

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocError {
    /// The item is too large.
    TooLarge,
    /// No slot is free now; one may be a little later.
    Retry,
    /// No slot is free, and none can become free.
    Exhausted,
}

/// Whether a write that gets no memory otherwise may evict the item that its key has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnItem {
    /// The write replaces it.
    Evictable,
    /// The write is made from it.
    Kept,
}

/// The retries that a writer has left to get a slot.
#[derive(Clone, Copy)]
pub(crate) struct RetryBudget {
    /// Grace periods left.
    grace_waits: u32,
    retries: u32,
    /// Scans without a result left.
    empty_scans: u32,
    /// Whether it may sleep for other reasons than grace periods.
    waits: bool,
}

impl From<AllocError> for StoreError {
    fn from(short: AllocError) -> Self {
        match short {
            AllocError::TooLarge => Self::TooLarge,
            AllocError::Retry | AllocError::Exhausted => Self::OutOfMemory,
        }
    }
}

impl RetryBudget {
    /// The budget of a write whose error is final.
    pub(crate) const FULL: Self = Self {
        grace_waits: MAX_GRACE_WAITS,
        retries: MAX_RETRIES,
        empty_scans: MAX_EMPTY_SCANS,
        waits: true,
    };
    /// The budget of one turn among others: one grace period at most, and no other sleep.
    pub(crate) const ONE_TURN: Self = Self {
        grace_waits: 1,
        retries: MAX_RETRIES / 8,
        empty_scans: 0,
        waits: false,
    };

    fn retry(&mut self) -> Result<(), AllocError> {
        self.retries = self.retries.checked_sub(1).ok_or(AllocError::Retry)?;
        Ok(())
    }

    fn count_empty_scan(&mut self) -> Result<(), AllocError> {
        self.empty_scans = self
            .empty_scans
            .checked_sub(1)
            .ok_or(AllocError::Exhausted)?;
        Ok(())
    }
}

impl<P: Platform> Store<P> {
    /// Allocates a slot of a class, reserved, for a key of this hash: from freed memory, a new slab, or by eviction. No
    /// lock or section is held; may sleep, as far as `budget` allows.
    #[inline]
    pub(crate) fn alloc(
        &self,
        class: usize,
        hash: Hash,
        budget: &mut RetryBudget,
    ) -> Result<Slot, AllocError> {
        let slot = match self.alloc_fast(class, || hash) {
            Some(slot) => slot,
            None => self.alloc_slow(class, hash, OwnItem::Evictable, budget)?,
        };
        self.refill_reserve(class, || hash);
        Ok(slot)
    }

    /// Allocates a slot that is free now. May be called in a section.
    #[inline]
    pub(crate) fn alloc_fast(&self, class: usize, hash: impl FnOnce() -> Hash) -> Option<Slot> {
        let ready = || self.slabs.alloc_slot(&self.pool, class, hash);
        (!self.congested()).then(ready).flatten()
    }

    /// Allocates a slot after [`Store::alloc_fast`] found none. The key's own item is evicted last, or never. No lock or
    /// section is held; may sleep, as far as `budget` allows.
    #[cold]
    pub(super) fn alloc_slow(
        &self,
        class: usize,
        hash: Hash,
        own: OwnItem,
        budget: &mut RetryBudget,
    ) -> Result<Slot, AllocError> {
        let Some(of) = self.slabs.get(class) else {
            return Err(AllocError::TooLarge);
        };
        while self.congested() {
            self.wait_grace_period(budget)?;
        }
        let mut raised = false;
        let mut looked_for_spare = false;
        let mut asked_again = false;
        loop {
            self.collect_retired();
            if let Some(slot) = self.slabs.alloc_slot(&self.pool, class, || hash) {
                return Ok(slot);
            }
            if self.add_slab(class) {
                budget.retry()?;
                continue;
            }
            if !raised {
                // Memory is full and the reserve was not sufficient.
                raised = true;
                self.raise_reserve(of);
                self.platform.wake();
            }
            let coming = of.retired.load(Relaxed);
            let want = of.reserve.load(Relaxed).max(1).saturating_sub(coming);
            if want != 0 && budget.grace_waits != 0 && !looked_for_spare {
                // Once, since another writer may get the slab.
                looked_for_spare = true;
                if self.has_spare_slab(of) && self.move_spare_slabs(class) {
                    budget.grace_waits = budget.grace_waits.sub_exact(1);
                    continue;
                }
            }
            if want == 0 || coming != 0 {
                self.evict(class, want as usize, Some(hash));
                self.wait_grace_period(budget)?;
                continue;
            }
            match self.evict_some(class, want as usize, Some(hash)) {
                // The scan did not reach all slots, or some are about to be freed.
                (0, false) => budget.retry()?,
                (1.., _) => self.wait_grace_period(budget)?,
                // Before items of other classes are evicted or the write is refused, the platform is asked once more.
                (0, true) if !asked_again && self.pool.forget_refusal() => {
                    asked_again = true;
                    budget.retry()?;
                }
                // The class has nothing to evict: take a slab from another class.
                (0, true) => match self.steal(class, Some(hash)) {
                    StealResult::Slab | StealResult::Working => budget.retry()?,
                    StealResult::Waiting => self.wait_grace_period(budget)?,
                    StealResult::Busy => self.short_sleep(budget)?,
                    StealResult::Nothing
                        if own == OwnItem::Evictable && self.evict(class, 1, None) != 0 =>
                    {
                        self.wait_grace_period(budget)?;
                    }
                    StealResult::Nothing => {
                        budget.count_empty_scan()?;
                        self.short_sleep(budget)?;
                    }
                },
            }
        }
    }

    /// Increases a class's reserve.
    fn raise_reserve(&self, of: &Class<P::Lock>) {
        of.low_water.store(0, Relaxed);
        let most = of.slots() / RESERVE_SHARE;
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let reserve = of.reserve.load(Relaxed).saturating_mul(2);
        let reserve = reserve.max(RESERVE_FIRST).min(most);
        of.reserve.store(reserve, Relaxed);
    }

    /// Waits for a grace period, or only sleeps for a moment.
    fn wait_grace_period(&self, budget: &mut RetryBudget) -> Result<(), AllocError> {
        if budget.grace_waits == 0 {
            return self.short_sleep(budget);
        }
        budget.grace_waits = budget.grace_waits.sub_exact(1);
        self.wait();
        Ok(())
    }

    /// Sleeps for a moment, so that threads that are about to free slots can run.
    fn short_sleep(&self, budget: &mut RetryBudget) -> Result<(), AllocError> {
        budget.retry()?;
        if budget.waits {
            self.platform.short_sleep();
            return Ok(());
        }
        Err(AllocError::Retry)
    }

    /// The most bytes that may wait for grace periods before writers wait too.
    fn max_retired(&self) -> u64 {
        (self.memory_limit() / RETIRED_SHARE).max(self.item_max) as u64
    }

    /// Whether too much memory waits for grace periods.
    #[inline]
    pub(crate) fn congested(&self) -> bool {
        self.retire.bytes() > self.max_retired()
    }

    /// A writer's share of keeping the reserve: evicts a few items when memory is full and fewer slots than the reserve
    /// are free or about to be freed, but not the writer's own, which has this hash. No lock or section is held.
    #[inline]
    pub(crate) fn refill_reserve(&self, class: usize, hash: impl FnOnce() -> Hash) {
        if let Some(of) = self.slabs.get(class) {
            if self.reserve_deficit(of) != 0 {
                self.evict(class, REFILL, Some(hash()));
            }
        }
    }
}
