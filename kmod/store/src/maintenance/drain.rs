// SPDX-License-Identifier: GPL-2.0-only
//! Moving memory: a slab is drained for a class that needs memory, for the index, or to return its block to the
//! platform.

use hippos_invariant::Exact;

use crate::array_vec::ArrayVec;
use crate::counters::{ClassCounter, Counter};
use crate::hash::Hash;
use crate::maintenance_state::Drain;
use crate::memory::class::HEAD;
use crate::memory::pool::{Block, NONE};
use crate::platform::{Cookie, Platform};
use crate::store::Store;
use crate::sync::{Acquire, Relaxed, Release};

use super::rebalance::{bit, pick_receiver, pick_victim, ClassStats, Purpose};
use super::{IDLE_MS, NOW_MS, SOON_MS};

/// Slots that one step of a drain looks at.
const DRAIN: usize = 1024;
/// Passes over a draining slab, with a grace period after each, before the drain is abandoned: items that were being
/// written during the first pass can be evicted in the second.
const DRAIN_ROUNDS: u32 = 2;
/// Spare slabs that a writer moves after one grace period: a writer of values as large as a slab needs one for each.
const SPARE_MOVES: usize = 16;
/// Steps of a drain that a writer makes before it yields the CPU.
const STEAL_STEPS: u32 = 16;

/// The result of a writer's attempt to take a slab from another class.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StealResult {
    /// A slab was drained: a block is available, if the limit allows it.
    Slab,
    /// Call again at once: there is more to do.
    Working,
    /// It waits for a grace period.
    Waiting,
    /// No slab was available.
    Nothing,
    /// Maintenance or another writer is moving memory: a slab may become available.
    Busy,
}

/// The result of one step of draining a slab.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DrainResult {
    /// There is more to evict.
    Working,
    /// It waits for a grace period, or for a slot that is reserved or pinned.
    Waiting,
    /// A block has become free.
    Done,
    /// The drain was abandoned.
    Failed,
}

impl<P: Platform> Store<P> {
    /// Moves memory: drains slabs for a class that needs memory, for the index, or to return blocks to the platform.
    pub(super) fn rebalance_slabs(&self) -> u32 {
        while self.pool.release_idle(&self.platform) {}
        let mut next_ms = IDLE_MS;
        for drain in self
            .maintenance
            .drains
            .iter()
            .filter(|drain| !drain.is_idle())
        {
            next_ms = next_ms.min(match self.drain(drain, None) {
                DrainResult::Working | DrainResult::Done => NOW_MS,
                DrainResult::Waiting => SOON_MS,
                DrainResult::Failed => IDLE_MS,
            });
        }
        let needs_segment = &self.maintenance.needs_segment;
        if needs_segment.load(Relaxed) && self.pool.available() != 0 && self.add_segment() {
            needs_segment.store(false, Relaxed);
        }
        if next_ms != IDLE_MS {
            // The next decision waits until these drains are done.
            return next_ms;
        }
        let over = self.pool.held().saturating_sub(self.pool.allowed());
        if over != 0 {
            return self.start_drains(Purpose::Memory, over);
        }
        if self.pool.available() != 0 {
            return IDLE_MS;
        }
        if needs_segment.load(Relaxed) {
            return self.start_drains(Purpose::Memory, 1);
        }
        let Some((class, slabs)) = pick_receiver(self.class_stats()) else {
            return IDLE_MS;
        };
        self.sample_usage();
        for of in self.slabs.classes() {
            of.pressure.store(0, Relaxed);
        }
        self.start_drains(Purpose::Pressure(class), slabs)
    }

    /// Counts the recent hits and evictions of each class: with every sample, older ones count half.
    fn sample_usage(&self) {
        for (i, usage) in (0..self.slabs.classes().len()).zip(&self.maintenance.recent_usage) {
            usage
                .hits
                .sample(self.class_counted(i, ClassCounter::GetHits));
            usage
                .evictions
                .sample(self.class_counted(i, ClassCounter::Evicted));
        }
    }

    /// The statistics of each class, for the decisions.
    fn class_stats(&self) -> impl Iterator<Item = ClassStats> + Clone + '_ {
        (0..self.slabs.classes().len()).filter_map(|class| {
            let of = self.slabs.get(class)?;
            let usage = self.maintenance.recent_usage.get(class)?;
            Some(ClassStats {
                class,
                size: of.size(),
                slots_per_slab: of.slots_per_slab(),
                slabs: of.slabs(),
                spare: of.spare.load(Relaxed),
                free: of.free(),
                reserve: of.reserve.load(Relaxed),
                pressure: of.pressure.load(Relaxed),
                hits: usage.hits.recent.load(Relaxed),
                evictions: usage.evictions.recent.load(Relaxed),
            })
        })
    }

    /// Starts draining up to `slabs` slabs.
    fn start_drains(&self, purpose: Purpose, slabs: usize) -> u32 {
        let mut started = IDLE_MS;
        for drain in self
            .maintenance
            .drains
            .iter()
            .filter(|drain| drain.is_idle())
            .take(slabs)
        {
            if !self.start_drain(drain, purpose) {
                break;
            }
            started = NOW_MS;
        }
        started
    }

    /// Starts draining one slab.
    fn start_drain(&self, drain: &Drain, purpose: Purpose) -> bool {
        let now = self.maintenance.attempts.fetch_add(1, Relaxed);
        let mut except = 0;
        let id = loop {
            let Some(class) = pick_victim(self.class_stats(), purpose, except) else {
                return false;
            };
            let Some(of) = self.slabs.get(class) else {
                return false;
            };
            match self.slabs.pick_drain_victim(&self.pool, of, now) {
                // Every slab of this class is backing off.
                NONE => except |= bit(class),
                id => break id,
            }
        };
        if !self.slabs.drain(&self.pool, id) {
            return false;
        }
        drain.at.store(HEAD as u32, Relaxed);
        drain.rounds.store(0, Relaxed);
        drain.over.store(false, Relaxed);
        drain.empty.store(false, Relaxed);
        let to = purpose.receiver();
        let to = to.map_or(0, |class| class.add_exact(1) as u32);
        drain.to.store(to, Relaxed);
        drain.block.store(id, Relaxed);
        true
    }

    /// One step of draining a slab. It fails if the slab holds an item whose key has the hash `keep`.
    fn drain(&self, drain: &Drain, keep: Option<Hash>) -> DrainResult {
        let id = drain.block.load(Relaxed);
        let Some(block) = self.pool.get(id) else {
            return DrainResult::Failed;
        };
        if drain.empty.load(Relaxed) {
            // The crawler and walks may still look at its slots.
            if !self.platform.gp_done(Cookie(drain.cookie.load(Relaxed))) {
                return DrainResult::Waiting;
            }
            drain.block.store(NONE, Relaxed);
            // SAFETY: all slots are free, none can be allocated, and a grace period has passed.
            unsafe { self.give_slab(id, block, drain.to.load(Relaxed)) };
            return DrainResult::Done;
        }
        if !drain.over.load(Relaxed) {
            let at = drain.at.load(Relaxed);
            if let (Some(next), _) = self.unlink_range(block, at, DRAIN, keep, |_| true) {
                drain.at.store(next, Relaxed);
                return DrainResult::Working;
            }
            self.retire.close_all(&self.platform);
            drain.cookie.store(self.platform.gp_start().0, Relaxed);
            drain.over.store(true, Relaxed);
        }
        let passed = self.platform.gp_done(Cookie(drain.cookie.load(Relaxed)));
        self.collect_retired();
        if self.slabs.try_finish_drain(&self.pool, id) {
            drain.cookie.store(self.platform.gp_start().0, Relaxed);
            drain.empty.store(true, Relaxed);
        } else if passed {
            if drain.rounds.fetch_add(1, Relaxed).add_exact(1) >= DRAIN_ROUNDS {
                // A slot is still reserved or pinned, by a value that arrives slowly or by a slow reader.
                drain.block.store(NONE, Relaxed);
                let now = self.maintenance.attempts.load(Relaxed);
                self.slabs.abort_drain(&self.pool, id, now);
                return DrainResult::Failed;
            }
            drain.at.store(HEAD as u32, Relaxed);
            drain.over.store(false, Relaxed);
            return DrainResult::Working;
        }
        DrainResult::Waiting
    }

    /// Gives spare slabs of other classes back to the pool, after a grace period, so that no item has to be evicted.
    /// False if there are none. No lock or section is held; sleeps.
    #[cold]
    pub(crate) fn move_spare_slabs(&self, class: usize) -> bool {
        let mut taken = ArrayVec::<u32, SPARE_MOVES>::new();
        while !taken.is_full() {
            let Some(id) = self.slabs.take_spare(&self.pool, class) else {
                break;
            };
            taken.push(id);
        }
        if taken.len() == 0 {
            return false;
        }
        // The crawler and walks may still look at their slots.
        self.wait();
        for id in taken.iter() {
            if let Some(block) = self.pool.get(id) {
                // SAFETY: all its slots are free, none can be allocated, and a grace period has passed.
                unsafe { self.give_slab(id, block, class.add_exact(1) as u32) };
            }
        }
        true
    }

    /// Gives a slab's block back to the pool, for the class `to`, counted from 1, or 0 for the index or the platform.
    ///
    /// # Safety
    ///
    /// As for [`Pool::free_block`](crate::memory::pool::Pool::free_block).
    unsafe fn give_slab(&self, id: u32, block: &Block, to: u32) {
        let from = u32::from(block.class.load(Relaxed)).add_exact(1);
        self.platform.trace_slab_moved(from, to);
        // SAFETY: the caller's promise.
        unsafe { self.pool.free_block(&self.platform, id) };
        self.count(Counter::Moves, 1);
    }

    /// One step towards taking a slab of another class for a class that has nothing to evict, without an item whose key
    /// has the hash `keep`. No lock or section is held; does not sleep.
    #[cold]
    pub(crate) fn steal(&self, class: usize, keep: Option<Hash>) -> StealResult {
        if self.maintenance.busy.swap(true, Acquire) {
            return StealResult::Busy;
        }
        let drains = &self.maintenance.drains;
        if drains.iter().all(Drain::is_idle) {
            self.sample_usage();
            self.start_drains(Purpose::NothingToEvict(class), 1);
        }
        let mut result = StealResult::Nothing;
        for drain in drains.iter().filter(|drain| !drain.is_idle()) {
            let mut steps = STEAL_STEPS;
            let mut drained = self.drain(drain, keep);
            while drained == DrainResult::Working && steps != 0 {
                steps = steps.sub_exact(1);
                drained = self.drain(drain, keep);
            }
            result = match (drained, result) {
                (DrainResult::Done, _) => StealResult::Slab,
                (_, StealResult::Slab) => StealResult::Slab,
                // Another slab may still be drained.
                (DrainResult::Working | DrainResult::Failed, _) => StealResult::Working,
                (DrainResult::Waiting, StealResult::Nothing) => StealResult::Waiting,
                (DrainResult::Waiting, other) => other,
            };
        }
        self.maintenance.busy.store(false, Release);
        result
    }
}
