//! Counters: a shard a CPU, exact when summed at rest.
//!
//! An increment is one atomic addition to a cache line of the CPU's own, so that a softirq that
//! comes in between, or a move to another CPU, loses nothing.

use crate::platform::Platform;
use crate::sync::{AtomicU64, Relaxed};
use crate::table::Table;

/// What is counted for the store as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Lookups that found nothing.
    GetMisses,
    /// Of those, what had expired.
    GetExpired,
    /// Of those, what had been flushed.
    GetFlushed,
    /// Touches that found nothing.
    TouchMisses,
    /// Deletes that found nothing.
    DeleteMisses,
    /// Increments that found nothing.
    IncrMisses,
    /// Decrements that found nothing.
    DecrMisses,
    /// Compare-and-swaps that found nothing.
    CasMisses,
    /// Flushes asked for.
    CmdFlush,
    /// Items stored since the start.
    TotalItems,
    /// Slots that hands looked at.
    Swept,
    /// Times that a writer slept for a grace period.
    Waits,
    /// Buckets that the index grew by.
    Splits,
    /// Buckets that the index shrank by.
    Merges,
    /// Blocks that changed their use.
    Moves,
    /// Slots that the sweep for expired items looked at.
    Checked,
    #[doc(hidden)]
    Count,
}

/// What is counted for each slab class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ClassCounter {
    /// Lookups that found an item.
    GetHits,
    /// Touches that found an item.
    TouchHits,
    /// Deletes that found an item.
    DeleteHits,
    /// Increments that found an item.
    IncrHits,
    /// Decrements that found an item.
    DecrHits,
    /// Compare-and-swaps whose number was right.
    CasHits,
    /// Compare-and-swaps whose number was wrong.
    CasBadval,
    /// Requests to store.
    CmdSet,
    /// Items now, as a wrapping sum.
    Items,
    /// Bytes of the items now, headers included, as a wrapping sum.
    Bytes,
    /// Items evicted.
    Evicted,
    /// Of those, items that had an expiry.
    EvictedNonzero,
    /// Of those, items that were never hit.
    EvictedUnfetched,
    /// Items found expired or flushed that were never hit.
    ExpiredUnfetched,
    /// Items found expired or flushed, whose slots were taken back.
    Reclaimed,
    /// Stores refused for lack of memory.
    OutOfMemory,
    #[doc(hidden)]
    Count,
}

/// Counters of a cache line.
const LINE: usize = 8;
const GLOBAL: usize = Counter::Count as usize;
const CLASS: usize = ClassCounter::Count as usize;

#[repr(C, align(64))]
struct Line([AtomicU64; LINE]);

pub(crate) struct Counters {
    lines: Table<Line>,
    /// Lines of a CPU.
    width: usize,
    cpus: usize,
    classes: usize,
    tallies: usize,
}

impl Counters {
    pub(crate) fn new<P: Platform>(platform: &P, classes: usize, tallies: usize) -> Option<Self> {
        let cpus = platform.cpus().max(1);
        let cells = classes
            .checked_mul(CLASS)?
            .checked_add(GLOBAL)?
            .checked_add(tallies)?;
        let width = cells.div_ceil(LINE);
        let lines = Table::new(platform, width.checked_mul(cpus)?, || {
            Line(core::array::from_fn(|_| AtomicU64::new(0)))
        })?;
        Some(Self {
            lines,
            width,
            cpus,
            classes,
            tallies,
        })
    }

    /// # Safety
    ///
    /// As for [`Table::free`].
    pub(crate) unsafe fn free<P: Platform>(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe { self.lines.free(platform) };
    }

    pub(crate) fn tables(&self) -> usize {
        self.lines.size()
    }

    #[inline]
    fn cell(&self, cpu: usize, at: usize) -> Option<&AtomicU64> {
        let line = cpu.wrapping_mul(self.width).wrapping_add(at / LINE);
        self.lines.get(line)?.0.get(at % LINE)
    }

    #[inline]
    fn add(&self, cpu: usize, at: usize, n: u64) {
        if let Some(cell) = self.cell(cpu, at) {
            cell.fetch_add(n, Relaxed);
        }
    }

    fn sum(&self, at: usize) -> u64 {
        (0..self.cpus)
            .filter_map(|cpu| self.cell(cpu, at))
            .fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }

    /// Class counters first, so that each class's lie in two lines.
    #[inline]
    fn class_at(&self, class: usize, counter: ClassCounter) -> Option<usize> {
        (class < self.classes).then(|| class.wrapping_mul(CLASS).wrapping_add(counter as usize))
    }

    #[inline]
    fn global_at(&self, counter: Counter) -> usize {
        self.classes
            .wrapping_mul(CLASS)
            .wrapping_add(counter as usize)
    }

    #[inline]
    fn tally_at(&self, i: usize) -> Option<usize> {
        (i < self.tallies).then(|| {
            self.classes
                .wrapping_mul(CLASS)
                .wrapping_add(GLOBAL)
                .wrapping_add(i)
        })
    }

    #[inline]
    pub(crate) fn count(&self, cpu: usize, counter: Counter, n: u64) {
        self.add(cpu, self.global_at(counter), n);
    }

    #[inline]
    pub(crate) fn count_class(&self, cpu: usize, class: usize, counter: ClassCounter, n: u64) {
        if let Some(at) = self.class_at(class, counter) {
            self.add(cpu, at, n);
        }
    }

    #[inline]
    pub(crate) fn tally(&self, cpu: usize, i: usize, n: u64) {
        if let Some(at) = self.tally_at(i) {
            self.add(cpu, at, n);
        }
    }

    pub(crate) fn counted(&self, counter: Counter) -> u64 {
        self.sum(self.global_at(counter))
    }

    pub(crate) fn class_counted(&self, class: usize, counter: ClassCounter) -> u64 {
        self.class_at(class, counter).map_or(0, |at| self.sum(at))
    }

    pub(crate) fn tallied(&self, i: usize) -> u64 {
        self.tally_at(i).map_or(0, |at| self.sum(at))
    }

    /// Zeroes all but what tells a present state.
    pub(crate) fn reset(&self) {
        let gauges = [ClassCounter::Items as usize, ClassCounter::Bytes as usize];
        let class_cells = self.classes.wrapping_mul(CLASS);
        let end = class_cells.wrapping_add(GLOBAL).wrapping_add(self.tallies);
        for cpu in 0..self.cpus {
            for at in 0..end {
                if at < class_cells && gauges.contains(&(at % CLASS)) {
                    continue;
                }
                if let Some(cell) = self.cell(cpu, at) {
                    cell.store(0, Relaxed);
                }
            }
        }
    }
}
