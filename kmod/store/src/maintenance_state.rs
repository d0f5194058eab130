// SPDX-License-Identifier: GPL-2.0-only
//! The state of [maintenance](crate::maintenance), a part of the store's.

use hippos_invariant::Exact;

use crate::memory::class::CLASSES;
use crate::memory::pool::NONE;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Relaxed};

/// Slabs that are drained at the same time: each has to wait for two grace periods.
const DRAINS: usize = 8;

/// The state of maintenance. Only the thread that has set `busy` touches it, except `needs_segment` and `crawler`.
pub(crate) struct MaintenanceState {
    /// Whether a step is running.
    pub(crate) busy: AtomicBool,
    /// The index should grow, but has no segment for it.
    pub(crate) needs_segment: AtomicBool,
    pub(crate) drains: [Drain; DRAINS],
    /// Number of attempts to drain a slab.
    pub(crate) attempts: AtomicU32,
    /// Whether the crawler may run; any thread sets it.
    pub(crate) crawler: AtomicBool,
    /// The crawler's position, when its pass began, and the flush epoch then.
    pub(crate) crawl_block: AtomicU32,
    pub(crate) crawl_at: AtomicU32,
    pub(crate) crawl_started: AtomicU32,
    pub(crate) crawl_epoch: AtomicU32,
    /// When the reserves were last lowered.
    pub(crate) lowered: AtomicU32,
    /// When the classes' spare slabs were last counted.
    pub(crate) spare_counted: AtomicU32,
    /// When a refusal of the platform was last forgotten.
    pub(crate) asked_again: AtomicU32,
    /// Recent events of each class.
    pub(crate) recent_usage: [RecentUsage; CLASSES],
}

/// The drain of one slab.
pub(crate) struct Drain {
    /// The slab, or NONE.
    pub(crate) block: AtomicU32,
    /// The class that is to have it, counted from 1; 0 for the index or the platform.
    pub(crate) to: AtomicU32,
    /// The position of the pass over it, and the number of passes.
    pub(crate) at: AtomicU32,
    pub(crate) rounds: AtomicU32,
    /// The pass is over: the evicted slots are freed after this grace period.
    pub(crate) over: AtomicBool,
    /// It is empty, and its block can be reused after this grace period.
    pub(crate) empty: AtomicBool,
    pub(crate) cookie: AtomicU64,
}

/// Recent events of a class.
#[derive(Default)]
pub(crate) struct RecentUsage {
    pub(crate) hits: DecayingCounter,
    pub(crate) evictions: DecayingCounter,
}

/// A counter's last value, and a decaying sum of its recent increases.
#[derive(Default)]
pub(crate) struct DecayingCounter {
    pub(crate) last: AtomicU64,
    pub(crate) recent: AtomicU64,
}

impl DecayingCounter {
    pub(crate) fn sample(&self, total: u64) {
        // `stats reset` makes the total smaller than the last one.
        let new = total.saturating_sub(self.last.swap(total, Relaxed));
        let old = self.recent.load(Relaxed) / 2;
        self.recent.store(old.add_exact(new), Relaxed);
    }
}

impl Drain {
    pub(crate) fn new() -> Self {
        Self {
            block: AtomicU32::new(NONE),
            to: AtomicU32::new(0),
            at: AtomicU32::new(0),
            rounds: AtomicU32::new(0),
            over: AtomicBool::new(false),
            empty: AtomicBool::new(false),
            cookie: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.block.load(Relaxed) == NONE
    }
}

impl MaintenanceState {
    pub(crate) fn new() -> Self {
        Self {
            busy: AtomicBool::new(false),
            needs_segment: AtomicBool::new(false),
            drains: core::array::from_fn(|_| Drain::new()),
            attempts: AtomicU32::new(0),
            crawler: AtomicBool::new(true),
            crawl_block: AtomicU32::new(NONE),
            crawl_at: AtomicU32::new(0),
            crawl_started: AtomicU32::new(0),
            crawl_epoch: AtomicU32::new(0),
            lowered: AtomicU32::new(0),
            spare_counted: AtomicU32::new(0),
            asked_again: AtomicU32::new(0),
            recent_usage: core::array::from_fn(|_| RecentUsage::default()),
        }
    }
}
