// SPDX-License-Identifier: GPL-2.0-only
//! The crawler, which reclaims expired and flushed items, and evicting the items of a range of slots.

use hippos_invariant::Exact;

use crate::capacities::PICK;
use crate::counters::{ClassCounter, Counter};
use crate::eviction::Picked;
use crate::hash::Hash;
use crate::index::Unchained;
use crate::item::Slot;
use crate::memory::class::HEAD;
use crate::memory::pool::{Block, Use, NONE};
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;

use super::{IDLE_MS, SOON_MS};

/// Slots that one step of the crawler looks at: the minimum and the maximum.
const CRAWL_SLOTS: (usize, usize) = (1024, 16384);
/// Steps in which the crawler should finish one pass.
const CRAWL_STEPS: usize = 4096;
/// Seconds between passes.
const CRAWL_INTERVAL_SECS: u32 = 10;

impl<P: Platform> Store<P> {
    /// Evicts the items of a slab that are `wanted` and whose keys do not have the hash `keep`, starting at `at`, and
    /// looks at up to `most` slots. Returns where to continue, or None at the end, and how many slots it looked at.
    pub(super) fn unlink_range(
        &self,
        block: &Block,
        at: u32,
        most: usize,
        keep: Option<Hash>,
        wanted: impl Fn(Slot) -> bool,
    ) -> (Option<u32>, usize) {
        let mut at = at;
        let mut scanned = 0usize;
        loop {
            let mut unlinked = Picked::new();
            let mut overflow = Unchained::new();
            let mut end = false;
            let guard = self.read();
            // The block may have got another use since the last section.
            let Some(of) = self.slabs.class_at(block, at) else {
                return (None, scanned);
            };
            // As many as one section may evict.
            for _ in 0..PICK {
                let Some(slot) = self.slabs.slot_at(block, at) else {
                    end = true;
                    break;
                };
                at = at.add_exact(of.size());
                scanned = scanned.add_exact(1);
                if slot.is_live() && wanted(slot) && self.unlink(slot, keep, &wanted, &mut overflow)
                {
                    // The list holds as many as one section evicts.
                    unlinked.push(slot);
                }
            }
            drop(guard);
            self.retire_unlinked(&unlinked, &overflow);
            if end {
                return (None, scanned);
            }
            if scanned >= most {
                return (Some(at), scanned);
            }
            self.platform.cond_resched();
        }
    }

    /// Whether the crawler runs.
    pub fn crawler(&self) -> bool {
        self.maintenance.crawler.load(Relaxed)
    }

    /// Lets the crawler run or not; returns whether it did before. Without it, expired and flushed items stay until a
    /// writer finds or evicts them.
    pub fn set_crawler(&self, on: bool) -> bool {
        let before = self.maintenance.crawler.swap(on, Relaxed);
        if on {
            self.platform.wake();
        }
        before
    }

    /// One step of the crawler.
    pub(super) fn crawl(&self) -> u32 {
        let up = &self.maintenance;
        if !self.crawler() {
            return IDLE_MS;
        }
        let mut id = up.crawl_block.load(Relaxed);
        let now = self.now();
        if id == NONE {
            let epoch = self.clock.epoch();
            let due = now.wrapping_sub(up.crawl_started.load(Relaxed)) >= CRAWL_INTERVAL_SECS;
            if !due && epoch == up.crawl_epoch.load(Relaxed) {
                return IDLE_MS;
            }
            up.crawl_started.store(now, Relaxed);
            up.crawl_epoch.store(epoch, Relaxed);
            up.crawl_at.store(HEAD as u32, Relaxed);
            id = 0;
        }
        let items = self.classes_counted(ClassCounter::Items) as usize;
        let (least, most) = CRAWL_SLOTS;
        let mut left = (items / CRAWL_STEPS).clamp(least, most);
        let end = self.pool.used();
        while id < end && left != 0 {
            let Some(block) = self.pool.get(id).filter(|b| b.usage() == Use::Slab) else {
                id = id.add_exact(1);
                up.crawl_at.store(HEAD as u32, Relaxed);
                continue;
            };
            let at = up.crawl_at.load(Relaxed);
            let (next, scanned) =
                self.unlink_range(block, at, left, None, |slot| !self.is_valid(slot));
            self.count(Counter::CrawlerChecked, scanned as u64);
            left = left.saturating_sub(scanned);
            up.crawl_at.store(next.unwrap_or(HEAD as u32), Relaxed);
            if next.is_none() {
                id = id.add_exact(1);
            }
        }
        up.crawl_block
            .store(if id < end { id } else { NONE }, Relaxed);
        SOON_MS
    }
}
