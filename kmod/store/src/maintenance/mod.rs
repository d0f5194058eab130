// SPDX-License-Identifier: GPL-2.0-only
//! Maintenance: work that a background thread does so that writers seldom have to.
//!
//! Each call is one bounded step: collect retired memory, keep the classes' reserves, grow or shrink the index, move a
//! slab from a class that makes little use of it to one that needs memory, return memory after the limit was lowered,
//! reclaim expired items.

mod crawler;
pub(crate) mod drain;
pub(crate) mod evict;
mod index_size;
mod rebalance;
mod reclaim;

use hippos_invariant::Exact;
use hippos_semantics::MEMORY_MIN;

use crate::counters::Counter;
use crate::item::Slot;
use crate::memory::class::CLASSES;
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::{Acquire, Relaxed, Release};

/// Items that one step evicts from a class to keep its reserve.
const RESERVE: usize = 128;
/// Seconds after which a reserve gives up half of its increase.
const RESERVE_HALF: u32 = 8;
/// Seconds after which the platform is asked again for a block that it has refused.
const REFUSAL_SECS: u32 = 2;

/// The result of a step of maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintained {
    /// The caller should call again after this many milliseconds, or earlier after [`Platform::wake`].
    pub next_ms: u32,
}

/// Nothing to do: check again.
const IDLE_MS: u32 = 250;
/// Work is in progress that needs time, such as a grace period.
const SOON_MS: u32 = 10;
/// There is more to do at once.
const NOW_MS: u32 = 1;

impl<P: Platform> Store<P> {
    /// One bounded step of maintenance, which looks at some thousand slots at most. One thread calls it, at the times
    /// that it returns. Process context, may sleep.
    pub fn maintain(&self) -> Maintained {
        if self.maintenance.busy.swap(true, Acquire) {
            return Maintained { next_ms: SOON_MS };
        }
        self.apply_memory_pressure();
        self.retire.close_all(&self.platform);
        let mut next_ms = if self.retire.count() == 0 {
            IDLE_MS
        } else {
            SOON_MS
        };
        self.collect_retired();
        self.count_spare_slabs();
        self.refill_reserves();
        for step in [self.resize_index(), self.rebalance_slabs(), self.crawl()] {
            next_ms = next_ms.min(step);
        }
        self.maintenance.busy.store(false, Release);
        Maintained { next_ms }
    }

    /// Changes the memory limit. A lower limit takes effect gradually, through `maintain`. False if it is less than a
    /// store's minimum, or more than `Config::memory_max`.
    pub fn resize(&self, memory: usize) -> bool {
        let blocks = memory.checked_div(self.pool.block_size()).unwrap_or(0);
        if blocks < 2 || blocks > self.pool.capacity() {
            return false;
        }
        self.pool.set_limit(blocks);
        self.platform.wake();
        true
    }

    /// Lowers the number of blocks that may be held while the platform is short of memory.
    fn apply_memory_pressure(&self) {
        let now = self.now();
        let asked = &self.maintenance.asked_again;
        if now.wrapping_sub(asked.load(Relaxed)) >= REFUSAL_SECS {
            asked.store(now, Relaxed);
            let _ = self.pool.forget_refusal();
        }
        let (held, block) = (self.pool.held(), self.pool.block_size());
        let blocks = |bytes: usize| bytes.checked_div(block).unwrap_or(0);
        let ceiling = match self.platform.memory_headroom() {
            None => usize::MAX,
            Some(spare @ 0..) => {
                let ceiling = held.saturating_add(blocks(spare as usize));
                // The platform has memory for all that the limit allows.
                if ceiling < self.pool.limit() {
                    ceiling
                } else {
                    usize::MAX
                }
            }
            Some(lack) => {
                self.count(Counter::Shortages, 1);
                let back = blocks(lack.unsigned_abs()).saturating_add(1);
                let least = blocks(MEMORY_MIN as usize).max(2);
                held.saturating_sub(back).max(least)
            }
        };
        self.pool.set_ceiling(ceiling);
    }

    /// The memory limit in bytes.
    pub fn memory_limit(&self) -> usize {
        let blocks = self.pool.limit();
        blocks.mul_exact(self.pool.block_size())
    }

    /// The most bytes of blocks that may be held now: less than the limit while the platform is short of memory.
    pub fn allowed(&self) -> usize {
        let blocks = self.pool.budget();
        blocks.mul_exact(self.pool.block_size())
    }

    /// Bytes of slots that are pinned, of linked items too.
    pub fn pinned_bytes(&self) -> usize {
        self.retire.pinned_bytes()
    }

    /// Bytes of a slot.
    pub(crate) fn slot_size(&self, slot: Slot) -> usize {
        let of = self.slabs.get(slot.class());
        of.map_or(0, |of| of.size() as usize)
    }

    /// Counts the classes' spare slabs once a second.
    fn count_spare_slabs(&self) {
        let now = self.now();
        if self.maintenance.spare_counted.swap(now, Relaxed) != now {
            for of in self.slabs.classes().iter().filter(|of| of.slabs() != 0) {
                self.slabs.count_spare(&self.pool, of);
            }
        }
    }

    fn refill_reserves(&self) {
        let now = self.now();
        let lower = now.wrapping_sub(self.maintenance.lowered.load(Relaxed)) >= RESERVE_HALF;
        if lower {
            self.maintenance.lowered.store(now, Relaxed);
        }
        for (i, of) in (0..CLASSES).zip(self.slabs.classes()) {
            let reserve = of.reserve.load(Relaxed);
            if reserve == 0 {
                continue;
            }
            let free = u32::try_from(of.free()).unwrap_or(u32::MAX);
            let low = of.low_water.fetch_min(free, Relaxed).min(free);
            if lower {
                // Reserved slots that were never used are not needed.
                of.reserve
                    .store(reserve.saturating_sub(low.div_ceil(2)), Relaxed);
                of.low_water.store(u32::MAX, Relaxed);
            }
            let deficit = self.reserve_deficit(of) as usize;
            if deficit != 0 {
                self.evict(i, deficit.min(RESERVE), None);
            }
        }
    }
}
