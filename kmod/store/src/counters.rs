// SPDX-License-Identifier: GPL-2.0-only
//! Counters, sharded by CPU: their sum is exact when no operation is running.
//!
//! A request that is a single lookup is counted once, as a single hit of its class or as a single miss; the numbers of
//! hits, misses and requests are sums of these.
//!
//! An increment is one atomic addition to a cache line of the CPU's own, so that neither a softirq in between nor a
//! migration to another CPU loses a count. A decrement adds the two's complement, on whichever CPU it runs: counter
//! cells and their sums wrap.

use hippos_invariant::Exact;

use crate::memory::class::CLASSES;
use crate::platform::Platform;
use crate::sync::{AtomicU64, Relaxed};
use crate::table::{Draft, Part, Table};

/// Defines an enumeration of counters, each with its name in `stats` and its meaning. The hidden last value, `Count`,
/// is their number.
#[macro_export]
macro_rules! counters {
    (
        $(#[$attribute:meta])*
        pub enum $Counters:ident {
            $($(#[doc = $doc:literal])* $counter:ident = $name:literal,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $Counters {
            $($(#[doc = $doc])* $counter,)*
            #[doc(hidden)]
            Count,
        }

        impl $Counters {
            /// All of them.
            pub const ALL: &'static [$Counters] = &[$($Counters::$counter),*];

            /// Its name in `stats`.
            pub const fn name(self) -> &'static str {
                match self {
                    $($Counters::$counter => $name,)*
                    $Counters::Count => "",
                }
            }

            /// Its meaning.
            pub const fn doc(self) -> &'static str {
                match self {
                    $($Counters::$counter => concat!($($doc),*),)*
                    $Counters::Count => "",
                }
            }
        }
    };
}

counters! {
    /// Counters of the store as a whole. `stats` shows all of them.
    pub enum Counter {
        /// Lookups that found nothing.
        GetMisses = "get_misses",
        /// Of those, lookups whose item had expired.
        GetExpired = "get_expired",
        /// Of those, lookups whose item had been flushed.
        GetFlushed = "get_flushed",
        /// Touches that found nothing.
        TouchMisses = "touch_misses",
        /// Deletes that found nothing.
        DeleteMisses = "delete_misses",
        /// Increments that found nothing.
        IncrMisses = "incr_misses",
        /// Decrements that found nothing.
        DecrMisses = "decr_misses",
        /// Compare-and-swaps that found nothing.
        CasMisses = "cas_misses",
        /// Requests to flush.
        CmdFlush = "cmd_flush",
        /// Items stored since the start.
        TotalItems = "total_items",
        /// Slots that the eviction hands looked at.
        HandScanned = "hippos_hand_swept",
        /// Times that a writer slept for a grace period.
        Waits = "hippos_writer_waits",
        /// Buckets that the index grew by.
        Splits = "hippos_index_splits",
        /// Buckets that the index shrank by.
        Merges = "hippos_index_merges",
        /// Memory blocks that changed their use.
        Moves = "slabs_moved",
        /// Steps of maintenance that found the platform short of memory.
        Shortages = "hippos_memory_shortages",
        /// Slots that the crawler looked at.
        CrawlerChecked = "crawler_items_checked",
        /// Events logged for watchers.
        EventsLogged = "log_worker_written",
        /// Events dropped because the log was full.
        EventsDropped = "log_worker_dropped",
    }
}

/// Counters of each slab class.
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
    /// Items found expired or flushed, whose slots were reclaimed.
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
struct CacheLine([AtomicU64; LINE]);

/// One CPU's requests that were a single lookup.
#[repr(C, align(64))]
struct SingleLookups {
    hits: [AtomicU64; CLASSES],
    misses: AtomicU64,
}

pub(crate) struct Counters {
    lines: Table<CacheLine>,
    single: Table<SingleLookups>,
    /// Lines of a CPU.
    width: usize,
    cpus: usize,
    classes: usize,
    tallies: usize,
}

impl Counters {
    pub(crate) fn new<P: Platform>(
        platform: &P,
        classes: usize,
        tallies: usize,
    ) -> Option<Draft<'_, P, Self>> {
        let cpus = platform.cpus().max(1);
        let cells = classes
            .checked_mul(CLASS)?
            .checked_add(GLOBAL)?
            .checked_add(tallies)?;
        let single = Table::new(platform, cpus, || SingleLookups {
            hits: core::array::from_fn(|_| AtomicU64::new(0)),
            misses: AtomicU64::new(0),
        })?;
        let width = cells.div_ceil(LINE);
        let lines = Table::new(platform, width.checked_mul(cpus)?, || {
            CacheLine(core::array::from_fn(|_| AtomicU64::new(0)))
        })?;
        let counters = Self {
            lines: lines.keep(),
            single: single.keep(),
            width,
            cpus,
            classes,
            tallies,
        };
        Some(Draft::new(platform, counters))
    }

    pub(crate) fn tables(&self) -> usize {
        self.lines.size().add_exact(self.single.size())
    }

    #[inline(always)]
    fn cell(&self, cpu: usize, at: usize) -> Option<&AtomicU64> {
        let line = cpu.mul_exact(self.width).add_exact(at / LINE);
        self.lines.get(line)?.0.get(at % LINE)
    }

    #[inline(always)]
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
        (class < self.classes).then(|| class.mul_exact(CLASS).add_exact(counter as usize))
    }

    #[inline]
    fn global_at(&self, counter: Counter) -> usize {
        self.classes.mul_exact(CLASS).add_exact(counter as usize)
    }

    #[inline]
    fn tally_at(&self, i: usize) -> Option<usize> {
        (i < self.tallies).then(|| self.classes.mul_exact(CLASS).add_exact(GLOBAL).add_exact(i))
    }

    #[inline(always)]
    pub(crate) fn count_single_hit(&self, cpu: usize, class: usize) {
        if let Some(single) = self.single.get(cpu) {
            if let Some(hits) = single.hits.get(class & (CLASSES - 1)) {
                hits.fetch_add(1, Relaxed);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn count_single_miss(&self, cpu: usize) {
        if let Some(single) = self.single.get(cpu) {
            single.misses.fetch_add(1, Relaxed);
        }
    }

    fn single_hits(&self, class: usize) -> u64 {
        let hits = self
            .single
            .iter()
            .filter_map(|single| single.hits.get(class));
        hits.fold(0, |sum, hits| sum.wrapping_add(hits.load(Relaxed)))
    }

    fn single_misses(&self) -> u64 {
        let misses = self.single.iter().map(|single| single.misses.load(Relaxed));
        misses.fold(0, u64::wrapping_add)
    }

    pub(crate) fn single(&self) -> u64 {
        (0..CLASSES).fold(self.single_misses(), |sum, class| {
            sum.wrapping_add(self.single_hits(class))
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
        let single = match counter {
            Counter::GetMisses => self.single_misses(),
            _ => 0,
        };
        single.wrapping_add(self.sum(self.global_at(counter)))
    }

    pub(crate) fn class_counted(&self, class: usize, counter: ClassCounter) -> u64 {
        let Some(at) = self.class_at(class, counter) else {
            return 0;
        };
        let single = match counter {
            ClassCounter::GetHits => self.single_hits(class),
            _ => 0,
        };
        single.wrapping_add(self.sum(at))
    }

    pub(crate) fn tallied(&self, i: usize) -> u64 {
        self.tally_at(i).map_or(0, |at| self.sum(at))
    }

    /// Zeroes `count` tallies from `first` on.
    pub(crate) fn reset_tallies(&self, first: usize, count: usize) {
        for cpu in 0..self.cpus {
            for i in first..first.add_exact(count) {
                if let Some(cell) = self.tally_at(i).and_then(|at| self.cell(cpu, at)) {
                    cell.store(0, Relaxed);
                }
            }
        }
    }

    /// How many shards there are.
    pub(crate) fn cpus(&self) -> usize {
        self.cpus
    }

    /// One CPU's part of [`tallied`](Self::tallied).
    pub(crate) fn tallied_on(&self, cpu: usize, i: usize) -> u64 {
        let cell = self.tally_at(i).and_then(|at| self.cell(cpu, at));
        cell.map_or(0, |cell| cell.load(Relaxed))
    }

    /// One CPU's part of [`single`](Self::single).
    pub(crate) fn single_on(&self, cpu: usize) -> u64 {
        self.single.get(cpu).map_or(0, |single| {
            let misses = single.misses.load(Relaxed);
            let hits = single.hits.iter().map(|hits| hits.load(Relaxed));
            hits.fold(misses, u64::wrapping_add)
        })
    }

    /// Zeroes all counters but those that describe the present state.
    pub(crate) fn reset(&self) {
        let gauges = [ClassCounter::Items as usize, ClassCounter::Bytes as usize];
        let class_cells = self.classes.mul_exact(CLASS);
        let end = class_cells.add_exact(GLOBAL).add_exact(self.tallies);
        for single in self.single.iter() {
            single.misses.store(0, Relaxed);
            for hits in &single.hits {
                hits.store(0, Relaxed);
            }
        }
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

impl<P: Platform> Part<P> for Counters {
    unsafe fn free(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe {
            self.lines.free(platform);
            self.single.free(platform);
        }
    }
}
