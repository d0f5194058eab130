// SPDX-License-Identifier: GPL-2.0-only
//! The store itself: construction, blocks for its parts, time and counters.

use core::cell::Cell;
use core::marker::PhantomData;

use hippos_invariant::Exact;

use crate::config::{Config, NewError};
use crate::counters::{ClassCounter, Counter, Counters};
use crate::event_log::{Event, EventLog, NextEvent};
use crate::eviction;
use crate::hash::{self, Hash};
use crate::index::{Index, BUCKET};
use crate::item::{Item, ItemSnapshot, Slot, FETCHED};
use crate::maintenance_state::MaintenanceState;
use crate::memory::pool::{Pool, Use};
use crate::memory::retire::Retire;
use crate::memory::slab::Slabs;
use crate::platform::Platform;
use crate::sync::{AtomicU64, Padded, Relaxed};
use crate::table::{Fixed, Part};
use crate::time::{Clock, Expiry};

/// The smallest and the largest `item_max`.
pub const ITEM_MAX: core::ops::RangeInclusive<usize> = 1024..=4 << 20;
/// The smallest and the largest `item_min`.
pub const ITEM_MIN: core::ops::RangeInclusive<usize> = 1..=1024;
/// The smallest and the largest `factor`.
pub const FACTOR: core::ops::RangeInclusive<u32> = 102..=1000;
/// The smallest block of an item slab, except in tests.
const BLOCK_MIN: usize = 1 << 20;
/// Stripes of bucket locks.
const STRIPES: usize = 1024;
/// The limit divided by this is the memory that the index starts with.
const INDEX_SHARE: usize = 64;

/// A cache of items.
pub struct Store<P: Platform> {
    pub(crate) platform: P,
    pub(crate) secrets: [u64; 4],
    pub(crate) index: Index<P::Lock>,
    pub(crate) clock: Clock,
    /// The highest value of a reference count.
    pub(crate) cap: u8,
    pub(crate) item_max: usize,
    pub(crate) pool: Pool<P::Lock>,
    pub(crate) slabs: Slabs<P::Lock>,
    pub(crate) retire: Retire<P::Lock>,
    pub(crate) counters: Counters,
    /// The last CAS number that was assigned.
    pub(crate) cas: Padded<AtomicU64>,
    pub(crate) maintenance: Fixed<MaintenanceState>,
    pub(crate) events: EventLog,
    config: Config,
}

// SAFETY: all that is shared is atomic or under locks; memory blocks belong to the store.
unsafe impl<P: Platform + Send> Send for Store<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for Store<P> {}

/// A read-side section of the store: items found in it stay readable until it is dropped.
pub struct Guard<'s, P: Platform> {
    _section: P::Guard,
    store: PhantomData<&'s Store<P>>,
    /// Set when the last lookup was the first to find an item dead.
    dead: Cell<Option<Dead>>,
    /// A section ends on the thread where it began.
    stay: PhantomData<*const ()>,
}

/// Why an item that is still linked is not found by lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// It was flushed.
    Flushed,
    /// It has expired.
    Expired,
}

impl<P: Platform> Guard<'_, P> {
    /// Whether a lookup of this section was the first to find an item dead, and why it is dead; once for each item.
    pub fn take_dead(&self) -> Option<Dead> {
        self.dead.take()
    }
}

impl<P: Platform> Store<P> {
    /// Makes a store: allocates its tables and the first blocks of the index. May sleep. The value may be moved until
    /// it is first used.
    pub fn new(config: Config, platform: P) -> Result<Self, NewError> {
        let block = match config.block {
            0 => config.item_max.max(BLOCK_MIN).checked_next_power_of_two(),
            n => Some(n).filter(|n| n.is_power_of_two() && (4096..=4 << 20).contains(n)),
        };
        let block = block.ok_or(NewError::Invalid)?;
        if !ITEM_MAX.contains(&config.item_max)
            || !ITEM_MIN.contains(&config.item_min)
            || !FACTOR.contains(&config.factor)
        {
            return Err(NewError::Invalid);
        }
        let shift = block.trailing_zeros();
        let limit = config.memory >> shift;
        if limit < 2 {
            return Err(NewError::TooSmall);
        }
        let most = match config.memory_max {
            0 => config.memory.saturating_mul(4).max(1 << 30),
            n => n.max(config.memory),
        };
        let buckets = block / BUCKET;
        let slabs = Slabs::new(
            &platform,
            block,
            config.item_min,
            config.factor,
            config.eviction,
            config.memory,
        );
        let slabs = slabs.ok_or(NewError::OutOfMemory)?;
        let capacity = (most >> shift).min(slabs.max_blocks());
        let segments = (capacity / 4).max(1);
        let classes = slabs.classes().len();
        if capacity < limit {
            return Err(NewError::Invalid);
        }
        let short = NewError::OutOfMemory;
        let index = Index::new(&platform, segments, buckets, STRIPES.min(buckets)).ok_or(short)?;
        let pool = Pool::new(&platform, block, capacity, limit).ok_or(short)?;
        let retire = Retire::new(&platform).ok_or(short)?;
        let counters = Counters::new(&platform, classes, config.tallies).ok_or(short)?;
        let maintenance = Fixed::new(&platform, MaintenanceState::new).ok_or(short)?;

        // Nothing can fail between here and the making of the store, which frees its parts when it is dropped.
        let (slabs, index, pool) = (slabs.keep(), index.keep(), pool.keep());
        let (retire, counters, maintenance) = (retire.keep(), counters.keep(), maintenance.keep());
        index.init();
        pool.init();
        retire.init();
        slabs.init();
        let store = Self {
            platform,
            secrets: hash::secrets(config.seed),
            index,
            clock: Clock::new(),
            cap: eviction::cap(config.eviction),
            item_max: config.item_max.min(block),
            pool,
            slabs,
            retire,
            counters,
            cas: Padded(AtomicU64::new(0)),
            maintenance,
            events: EventLog::new(),
            config,
        };
        let first = (limit / INDEX_SHARE).clamp(1, 64);
        let mut made = 0usize;
        while made < first && store.add_segment() {
            made = made.add_exact(1);
        }
        let whole = made.checked_ilog2().ok_or(NewError::OutOfMemory)?;
        store.index.open(buckets << whole);
        Ok(store)
    }

    /// Allocates a block for the index. False if none is available.
    pub(crate) fn add_segment(&self) -> bool {
        let Some(id) = self.pool.alloc_block(&self.platform, Use::Index) else {
            return false;
        };
        let added = match self.pool.get(id).and_then(|block| block.at()) {
            // SAFETY: the block was just taken for this.
            Some(at) => unsafe { self.index.add_segment(at, id) },
            None => false,
        };
        if !added {
            // SAFETY: no other thread has seen the block.
            unsafe { self.pool.free_block(&self.platform, id) };
        }
        added
    }

    /// Gives a class another slab, if there is a block available.
    pub(crate) fn add_slab(&self, class: usize) -> bool {
        let Some(id) = self.pool.alloc_block(&self.platform, Use::Taken) else {
            return false;
        };
        // SAFETY: the block was just taken for this.
        unsafe { self.slabs.make_slab(&self.pool, class, id) };
        true
    }

    /// Adds a block of overflow buckets. False if none is available.
    pub(crate) fn add_overflow(&self) -> bool {
        if self.index.spare() != 0 {
            return true;
        }
        let Some(id) = self.pool.alloc_block(&self.platform, Use::Overflow) else {
            return false;
        };
        let at = self.pool.get(id).and_then(|block| block.at());
        let buckets = self.pool.block_size() / BUCKET;
        // SAFETY: the block was just taken for this.
        let added = at.is_some_and(|at| unsafe { self.index.add_overflow(at, buckets) });
        if !added {
            // SAFETY: no other thread has seen the block.
            unsafe { self.pool.free_block(&self.platform, id) };
        }
        self.index.spare() != 0
    }

    /// Frees a segment of the index that holds no bucket.
    pub(crate) fn trim_index(&self) -> bool {
        let Some(id) = self.index.trim(|cookie| self.platform.gp_done(cookie)) else {
            return false;
        };
        // SAFETY: the segment was out of use for longer than a grace period.
        unsafe { self.pool.free_block(&self.platform, id) };
        self.count(Counter::Moves, 1);
        true
    }

    /// The platform that the store runs on.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// Starts a read-side section. Any context. Keep it short: retired memory waits for it.
    #[inline]
    pub fn read(&self) -> Guard<'_, P> {
        self.read_in(self.platform.read_lock())
    }

    /// Like [`Store::read`], for a section that the caller has already entered.
    #[inline]
    pub fn read_in(&self, section: P::Guard) -> Guard<'_, P> {
        Guard {
            _section: section,
            store: PhantomData,
            dead: Cell::new(None),
            stay: PhantomData,
        }
    }

    /// A key's hash with the secrets of this boot.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> Hash {
        hash::hash(&self.secrets, key)
    }

    /// Whether an item is neither expired nor flushed, by its snapshot.
    #[inline]
    pub(crate) fn is_valid_snapshot(&self, item: &Item<'_>, seen: &ItemSnapshot) -> bool {
        let epoch = item.slot().header().epoch.load(Relaxed);
        epoch == self.clock.epoch() && !seen.expired()
    }

    /// Counts an item that was found expired or flushed, once for each item. The caller holds its stripe's lock or is
    /// in the section that it was found in.
    #[cold]
    pub(crate) fn count_expired_hit(&self, slot: Slot) -> Option<Dead> {
        if !slot.mark_counted_expired() {
            return None;
        }
        let flushed = slot.header().epoch.load(Relaxed) != self.clock.epoch();
        let (counter, dead) = if flushed {
            (Counter::GetFlushed, Dead::Flushed)
        } else {
            (Counter::GetExpired, Dead::Expired)
        };
        self.count(counter, 1);
        Some(dead)
    }

    /// Counts it for a lookup of a section, and makes [`Guard::take_dead`] return it.
    #[cold]
    pub(crate) fn note_dead(&self, guard: &Guard<'_, P>, slot: Slot) {
        if let Some(dead) = self.count_expired_hit(slot) {
            guard.dead.set(Some(dead));
        }
    }

    /// A slot as an item of this section.
    #[inline]
    pub(crate) fn item<'g>(&self, _guard: &'g Guard<'_, P>, slot: Slot) -> Item<'g> {
        // SAFETY: callers saw the slot live or linked within the section, so it is not reused
        // before its end.
        unsafe { Item::new(slot, self.clock.now()) }
    }

    /// Whether the slot's item is neither expired nor flushed.
    #[inline]
    pub(crate) fn is_valid(&self, slot: Slot) -> bool {
        self.is_valid_in(slot, self.clock.epoch())
    }

    /// Whether the slot's item is of this epoch and has not expired.
    #[inline]
    pub(crate) fn is_valid_in(&self, slot: Slot, epoch: u32) -> bool {
        let header = slot.header();
        header.epoch.load(Relaxed) == epoch && !self.clock.expired(header.expiry.load(Relaxed))
    }

    /// The hash of a slot's key.
    #[inline]
    pub(crate) fn hash_of(&self, slot: Slot) -> Hash {
        self.hash(slot.key())
    }

    /// Sets the time: monotonic seconds since some start, and Unix time. One caller, about once a second.
    pub fn tick(&self, uptime_secs: u32, unix: i64) {
        self.tick_ms(
            u64::from(uptime_secs).mul_exact(1000),
            unix.saturating_mul(1000),
        );
    }

    /// Like [`Store::tick`], in milliseconds. The difference of the two clocks is updated only when it changes by more
    /// than the inaccuracy of reading them.
    pub fn tick_ms(&self, uptime_ms: u64, unix_ms: i64) {
        self.clock.tick(uptime_ms, unix_ms);
    }

    /// Like [`Store::tick_ms`], with functions that read the two clocks. Their difference is taken only from readings
    /// between which the thread was not interrupted. Returns the uptime.
    pub fn tick_by(&self, uptime_ms: impl FnMut() -> u64, unix_ms: impl FnMut() -> i64) -> u64 {
        self.clock.tick_by(uptime_ms, unix_ms)
    }

    /// Seconds of the store's clock: the uptime of the last tick, plus 2.
    pub fn now(&self) -> u32 {
        self.clock.now()
    }

    /// Unix time of the last tick.
    pub fn unix(&self) -> i64 {
        self.clock.unix()
    }

    /// Unix time of the moment that an item was found, from which [`Item::ttl`] and
    /// [`Item::idle`] count.
    pub fn unix_of(&self, item: &Item<'_>) -> i64 {
        self.clock.unix_at(item.now())
    }

    /// Converts memcached's expiry times: 0 never, negative at once, up to 30 days from now, and Unix time beyond that.
    #[inline]
    pub fn expiry(&self, exptime: i64) -> Expiry {
        self.clock.expiry(exptime)
    }

    /// Like [`Store::expiry`], from `now` of the store's clock: for a caller that compares the result with it.
    #[inline]
    pub fn expiry_from(&self, now: u32, exptime: i64) -> Expiry {
        self.clock.expiry_from(now, exptime)
    }

    /// Flushes all items that exist now, or in that many seconds; a new flush replaces one that is still pending.
    pub fn flush(&self, delay_secs: u32) {
        self.clock.flush(delay_secs);
        self.platform.wake();
    }

    /// The configuration that it was made from. The present memory limit is [`Snapshot::limit`](crate::Snapshot).
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The largest item in bytes as memcached counts it.
    pub fn item_max(&self) -> usize {
        self.item_max
    }

    /// Whether an item with such a key and value is too large, by memcached's rule: its header is 48 bytes and a CAS
    /// number, and it adds a zero byte to the key, a line end to the value, and flags that are not 0.
    pub fn too_large(&self, key_len: usize, value_len: usize, flags: u32) -> bool {
        let flags = if flags == 0 { 0 } else { 4 };
        let memcached = 48 + 8 + 1 + 2 + flags;
        key_len.saturating_add(value_len).saturating_add(memcached) > self.item_max
    }

    /// Adds to a counter.
    #[inline]
    pub fn count(&self, counter: Counter, n: u64) {
        self.counters.count(self.platform.cpu(), counter, n);
    }

    /// Adds to a class's counter.
    #[inline]
    pub fn count_class(&self, class: usize, counter: ClassCounter, n: u64) {
        self.counters
            .count_class(self.platform.cpu(), class, counter, n);
    }

    /// Adds to the caller's own counter `i`, of [`Config::tallies`].
    #[inline]
    pub fn tally(&self, i: usize, n: u64) {
        self.counters.tally(self.platform.cpu(), i, n);
    }

    /// A counter's sum.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters.counted(counter)
    }

    /// Counts a hit that was a whole request, in place of `GetHits`. `cpu` is the current CPU, from [`Store::cpu`].
    #[inline(always)]
    pub fn count_single_hit(&self, cpu: usize, class: usize) {
        self.counters.count_single_hit(cpu, class);
    }

    /// Counts a miss that was a whole request, in place of `GetMisses`.
    #[inline(always)]
    pub fn count_single_miss(&self, cpu: usize) {
        self.counters.count_single_miss(cpu);
    }

    /// The current CPU.
    #[inline]
    pub fn cpu(&self) -> usize {
        self.platform.cpu()
    }

    /// The number of requests that were counted only by their hit or miss.
    pub fn single(&self) -> u64 {
        self.counters.single()
    }

    /// A class counter's sum.
    pub fn class_counted(&self, class: usize, counter: ClassCounter) -> u64 {
        let sum = self.counters.class_counted(class, counter);
        match counter {
            // Another CPU may count a removal before the addition is visible.
            ClassCounter::Items | ClassCounter::Bytes => (sum as i64).max(0) as u64,
            _ => sum,
        }
    }

    /// A class counter's sum over all classes.
    pub fn classes_counted(&self, counter: ClassCounter) -> u64 {
        let classes = 0..self.slabs.classes().len();
        classes.fold(0, |sum, class| {
            sum.wrapping_add(self.class_counted(class, counter))
        })
    }

    /// The sum of the caller's own counter `i`.
    pub fn tallied(&self, i: usize) -> u64 {
        self.counters.tallied(i)
    }

    /// Zeroes `count` of the caller's own counters, from `first` on.
    pub fn reset_tallies(&self, first: usize, count: usize) {
        self.counters.reset_tallies(first, count);
    }

    /// The number of CPUs that have counters.
    pub fn counting_cpus(&self) -> usize {
        self.counters.cpus()
    }

    /// One CPU's part of the caller's own counter `i`.
    pub fn tallied_on(&self, cpu: usize, i: usize) -> u64 {
        self.counters.tallied_on(cpu, i)
    }

    /// One CPU's part of [`single`](Self::single).
    pub fn single_on(&self, cpu: usize) -> u64 {
        self.counters.single_on(cpu)
    }

    /// Zeroes the counters, except those of the present items and bytes.
    pub fn reset_counters(&self) {
        self.counters.reset();
        for class in self.slabs.classes() {
            class.evicted_age.store(0, Relaxed);
        }
    }
}

// Events.
impl<P: Platform> Store<P> {
    /// Allocates the log if it does not exist yet, and returns whether it exists. May sleep.
    pub fn open_events(&self) -> bool {
        self.events.open(&self.platform)
    }

    /// Logs an event about a key, unless it has to be dropped. Any context.
    #[cold]
    pub fn log_event(&self, event: &Event, key: &[u8]) {
        let counter = if self.events.push(self.platform.unix_us(), event, key) {
            Counter::EventsLogged
        } else {
            Counter::EventsDropped
        };
        self.count(counter, 1);
    }

    /// The number of the next event, where a new reader begins.
    pub fn next_event(&self) -> u64 {
        self.events.next()
    }

    /// Reads the event of number `at`, or the oldest one after it that is left, and advances `at`.
    pub fn read_event(&self, at: &mut u64) -> NextEvent {
        self.events.read(at)
    }

    /// Sets whether evictions are logged.
    pub fn log_evictions(&self, on: bool) {
        self.events.evictions.store(on, Relaxed);
    }

    /// Logs that an item is evicted. Its slot still belongs to the caller.
    #[cold]
    pub(crate) fn log_eviction(&self, slot: Slot) {
        let header = slot.header();
        let expiry = Expiry(header.expiry.load(Relaxed));
        let event = Event {
            kind: Event::EVICTION,
            status: u8::from(slot.marks() & FETCHED != 0),
            class: slot.class().add_exact(1) as u8,
            size: slot.value_len() as u32,
            ttl: expiry.ttl(self.now()).map_or(-1, |ttl| ttl as i32),
            idle: self.now().saturating_sub(header.atime.load(Relaxed)),
            ..Event::default()
        };
        self.log_event(&event, slot.key());
    }
}

impl<P: Platform> Drop for Store<P> {
    fn drop(&mut self) {
        // SAFETY: the store is not borrowed, so no section and no reservation is left.
        unsafe {
            self.pool.free(&self.platform);
            self.index.free(&self.platform);
            self.slabs.free(&self.platform);
            self.retire.free(&self.platform);
            self.counters.free(&self.platform);
            self.maintenance.free(&self.platform);
            self.events.free(&self.platform);
        }
    }
}

#[cfg(all(test, not(loom), feature = "host"))]
mod tests {
    use super::*;
    use crate::host::Host;
    use std::{format, println};

    /// At the load at which the index grows, for any part of the index split since its size was a power of two.
    #[test]
    fn one_cache_line_decides_nearly_every_miss() {
        let store = Store::new(Config::default(), Host::new()).unwrap();
        let mut items = 0;
        for fill in [66_000, 75_000, 85_000, 100_000, 115_000, 131_000] {
            while items < fill {
                let key = format!("key-{items}");
                let hash = store.hash(key.as_bytes());
                let new = store.reserve(key.as_bytes(), hash, 0, Expiry::NEVER, 20);
                store.commit(new.unwrap(), &Default::default()).unwrap();
                items += 1;
            }
            while store.maintain().next_ms == 1 {}
            let tried = 200_000;
            let hash = |n| store.hash(format!("none-{n}").as_bytes());
            let alone = (0..tried)
                .filter(|n| store.index.one_line(hash(*n)))
                .count();
            let share = alone as f64 / f64::from(tried);
            let load = items as f64 / store.index.buckets() as f64;
            println!("{load:.2} items a bucket: {:.2} %", 100.0 * share);
            assert!(share > 0.9 && load <= 4.1, "{share} at {load}");
        }
    }
}
