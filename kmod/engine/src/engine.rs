// SPDX-License-Identifier: GPL-2.0-only
//! What all clients share: the store, the settings and what is counted.

use core::sync::atomic::{
    fence, AtomicBool, AtomicU32, AtomicU64, AtomicU8,
    Ordering::{Relaxed, SeqCst},
};

use hippos_proto::udp::{self, DATA_MAX};
use hippos_proto::RELATIVE_MAX;
use hippos_store::{ClassCounter, Counter, Item, Platform, Store};

use crate::administration::{Administration, Setting};
use crate::counters::EngineCounter;
use crate::host_stats::HostStats;
use crate::interval::Longest;
use crate::prefix::PrefixCounter;
use crate::settings::Settings;
use crate::uploads::Uploads;
use crate::watchers::{Counts, Kinds, Watchers};

/// What all clients of one cache share.
pub struct Engine<P: Platform> {
    /// The items. Made with at least [`ENGINE_COUNTERS`](crate::ENGINE_COUNTERS) tallies.
    pub store: Store<P>,
    pub(crate) settings: Settings,
    pub(crate) host_stats: &'static dyn HostStats,
    pub(crate) longest: Longest,
    verbosity: AtomicU32,
    /// [`DETAIL`], [`LOGIN`] and what is watched.
    flags: AtomicU8,
    watchers: Watchers,
    /// The number of the UDP socket.
    udp_number: AtomicU32,
    crawler: AtomicBool,
    /// The memory limit as the machine's owner set it, in bytes.
    memory_max_settable: AtomicU64,
    administration: Setting,
    pub(crate) uploads: Uploads,
    fast_bytes: AtomicU32,
    udp_bytes: AtomicU32,
    udp_datagrams: AtomicU32,
}

/// Keys are counted by prefix.
pub(crate) const DETAIL: u8 = 1;
/// Clients have to log in.
const LOGIN: u8 = 2;
/// What the UDP fast path is not made for.
const SLOW_PATH: u8 = DETAIL | LOGIN;

const _: () = assert!(SLOW_PATH >> Kinds::SHIFT == 0);

impl<P: Platform> Engine<P> {
    /// An engine over `store`. `host_stats` tells what only the host knows.
    pub fn new(store: Store<P>, settings: Settings, host_stats: &'static dyn HostStats) -> Self {
        Self {
            memory_max_settable: AtomicU64::new(store.memory_limit() as u64),
            uploads: Uploads::default(),
            store,
            host_stats,
            longest: Longest::default(),
            verbosity: AtomicU32::new(settings.verbosity),
            flags: AtomicU8::new(0),
            watchers: Watchers::default(),
            udp_number: AtomicU32::new(0),
            crawler: AtomicBool::new(true),
            administration: Setting::new(settings.administration),
            fast_bytes: AtomicU32::new(settings.fast_bytes),
            udp_bytes: AtomicU32::new(settings.udp_bytes),
            udp_datagrams: AtomicU32::new(udp::datagrams(settings.udp_bytes as usize) as u32),
            settings,
        }
    }

    /// The settings that it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sets the memory limit for the machine's owner, in bytes: from then on clients may ask for no
    /// more. Whether it was taken.
    pub fn set_memory(&self, bytes: usize) -> bool {
        // Before the limit itself: a client that still goes by the old one has set the limit before
        // this does, or sees the new one.
        let before = self.memory_max_settable.swap(bytes as u64, SeqCst);
        fence(SeqCst);
        let taken = self.store.resize(bytes);
        if !taken {
            self.memory_max_settable.store(before, SeqCst);
            // Meanwhile a client may have set what was not taken.
            self.keep_memory_limit();
        }
        taken
    }

    /// Sets the memory limit for a client. Whether it was taken.
    pub(crate) fn limit_memory(&self, bytes: usize) -> bool {
        if bytes as u64 > self.memory_max_settable() || !self.store.resize(bytes) {
            return false;
        }
        // The owner may have set less meanwhile.
        self.keep_memory_limit()
    }

    /// Keeps the memory limit to what clients may set. False if that is not possible.
    fn keep_memory_limit(&self) -> bool {
        loop {
            fence(SeqCst);
            let most = self.memory_max_settable.load(SeqCst);
            if self.store.memory_limit() as u64 <= most {
                return true;
            }
            if !self.store.resize(most as usize) {
                return false;
            }
        }
    }

    /// The most memory that a client may set the limit to, in bytes: what the machine's owner set.
    pub fn memory_max_settable(&self) -> u64 {
        self.memory_max_settable.load(Relaxed)
    }

    /// Which clients may use administration commands.
    pub fn administration(&self) -> Administration {
        self.administration.get()
    }

    /// Sets it, for open connections too.
    pub fn set_administration(&self, value: Administration) {
        self.administration.set(value);
    }

    /// The most bytes of a reply of the UDP fast path, frames not counted.
    #[inline]
    pub fn fast_bytes(&self) -> usize {
        self.fast_bytes.load(Relaxed) as usize
    }

    /// Sets the most bytes of a reply of the UDP fast path.
    pub fn set_fast_bytes(&self, bytes: u32) {
        self.fast_bytes.store(bytes, Relaxed);
    }

    /// The most bytes of any reply over UDP, frames not counted.
    pub fn udp_bytes(&self) -> usize {
        let (bytes, datagrams) = self.udp_limits();
        (bytes as usize).min((datagrams as usize).saturating_mul(DATA_MAX))
    }

    /// The most bytes and the most datagrams of any reply over UDP.
    pub fn udp_limits(&self) -> (u32, u32) {
        (
            self.udp_bytes.load(Relaxed),
            self.udp_datagrams.load(Relaxed),
        )
    }

    /// Sets both: from one datagram to as many as a frame counts, and no more
    /// bytes than the settings had. Whether they were taken.
    pub fn set_udp_limits(&self, bytes: u32, datagrams: u32) -> bool {
        let most = self.settings.udp_bytes;
        let counted = 1..=u32::from(u16::MAX);
        if !(DATA_MAX as u32..=most).contains(&bytes) || !counted.contains(&datagrams) {
            return false;
        }
        self.udp_bytes.store(bytes, Relaxed);
        self.udp_datagrams.store(datagrams, Relaxed);
        // The fast path gives no more than the other.
        let fast = self.udp_bytes().min(self.settings.fast_bytes as usize);
        self.set_fast_bytes(fast as u32);
        true
    }

    /// `verbosity`: kept and told, and of no other effect.
    pub fn verbosity(&self) -> u32 {
        self.verbosity.load(Relaxed)
    }

    pub(crate) fn set_verbosity(&self, level: u32) {
        const MAX: u32 = 2;
        self.verbosity.store(level.min(MAX), Relaxed);
    }

    /// Whether one of these flags is set.
    #[inline]
    pub(crate) fn has_flags(&self, flags: u8) -> bool {
        self.flags.load(Relaxed) & flags != 0
    }

    /// Whether keys are counted by prefix.
    #[inline]
    pub(crate) fn detail(&self) -> bool {
        self.has_flags(DETAIL)
    }

    pub(crate) fn set_detail(&self, on: bool) {
        self.set_flag(DETAIL, on);
    }

    /// Whether clients have to log in, and UDP is refused.
    pub fn authentication(&self) -> bool {
        self.has_flags(LOGIN)
    }

    pub(crate) fn set_authentication(&self, on: bool) {
        self.set_flag(LOGIN, on);
    }

    /// Whether there is something that only the UDP socket's worker heeds.
    #[inline]
    pub(crate) fn needs_slow_path(&self) -> bool {
        self.has_flags(SLOW_PATH)
    }

    /// The same, or that gets are watched.
    #[inline]
    pub(crate) fn needs_slow_get(&self) -> bool {
        self.has_flags(SLOW_PATH | Kinds::FETCHERS.flags())
    }

    fn set_flag(&self, bit: u8, on: bool) {
        if on {
            self.flags.fetch_or(bit, Relaxed);
        } else {
            self.flags.fetch_and(!bit, Relaxed);
        }
    }

    /// Whether events of one of these kinds are watched.
    #[inline]
    pub(crate) fn watches(&self, kinds: Kinds) -> bool {
        self.has_flags(kinds.flags())
    }

    /// How many clients watch.
    pub(crate) fn watchers(&self) -> u64 {
        self.watchers.counts().watchers()
    }

    /// Adds a client that watches, unless there are too many.
    pub(crate) fn add_watcher(&self, kinds: Kinds) -> bool {
        let added = self.watchers.add(kinds);
        if added {
            self.apply_watchers();
        }
        added
    }

    /// Takes one away.
    pub(crate) fn remove_watcher(&self, kinds: Kinds) {
        self.watchers.remove(kinds);
        self.apply_watchers();
    }

    /// Has the kinds noted that are watched. Whoever changes the counts last also looks at them last.
    fn apply_watchers(&self) {
        let mut seen: Option<Counts> = None;
        loop {
            let counts = self.watchers.counts();
            if seen.replace(counts) == Some(counts) {
                return;
            }
            let kinds = counts.kinds();
            self.store.log_evictions(kinds.any(Kinds::EVICTIONS));
            let rest = (1 << Kinds::SHIFT) - 1;
            let _ = self
                .flags
                .fetch_update(SeqCst, SeqCst, |flags| Some(flags & rest | kinds.flags()));
        }
    }

    /// Tells the number of the UDP socket, as `stats conns` has it.
    pub fn set_udp_number(&self, number: u32) {
        self.udp_number.store(number, Relaxed);
    }

    /// That number.
    pub(crate) fn udp_number(&self) -> u32 {
        self.udp_number.load(Relaxed)
    }

    /// Whether dumps and crawls are allowed: `lru_crawler enable` and `disable`.
    pub(crate) fn crawler(&self) -> bool {
        self.crawler.load(Relaxed)
    }

    /// Allows them, or not; whether they were allowed before.
    pub(crate) fn set_crawler(&self, on: bool) -> bool {
        self.crawler.swap(on, Relaxed)
    }

    /// Adds to one of the engine's counters.
    #[inline]
    pub fn tally(&self, tally: EngineCounter, n: u64) {
        self.store.tally(tally as usize, n);
    }

    /// One of the engine's counters.
    pub fn engine_counted(&self, tally: EngineCounter) -> u64 {
        let single = match tally {
            // The store has counted these: see [`single`](Self::single).
            EngineCounter::FastCommands | EngineCounter::FastDatagrams => self.store.single(),
            _ => 0,
        };
        single.wrapping_add(self.store.tallied(tally as usize))
    }

    /// One CPU's part of [`engine_counted`](Self::engine_counted).
    pub(crate) fn engine_counted_on(&self, cpu: usize, tally: EngineCounter) -> u64 {
        let single = match tally {
            EngineCounter::FastCommands | EngineCounter::FastDatagrams => self.store.single_on(cpu),
            _ => 0,
        };
        single.wrapping_add(self.store.tallied_on(cpu, tally as usize))
    }

    /// Counts a get that found `item`.
    #[inline]
    pub(crate) fn hit(&self, item: &Item<'_>) {
        self.store
            .count_class(item.class(), ClassCounter::GetHits, 1);
    }

    /// Counts `n` gets that found nothing.
    #[inline]
    pub(crate) fn miss(&self, n: u32) {
        if n != 0 {
            self.store.count(Counter::GetMisses, u64::from(n));
        }
    }

    /// Seconds from now until an expiry time as clients write it; not above 0 for never and for the
    /// past.
    pub(crate) fn until(&self, exptime: i64) -> i64 {
        if exptime <= RELATIVE_MAX {
            exptime
        } else {
            exptime.saturating_sub(self.store.unix())
        }
    }

    /// `flush_all`, with memcached's expiry times; 0 and less is at once. As
    /// there, whatever waits is done when the last second begins.
    pub fn flush(&self, exptime: i64) {
        let delay = self.until(exptime).saturating_sub(1);
        self.store.flush(u32::try_from(delay).unwrap_or(0));
    }

    /// `stats reset`.
    pub fn reset(&self) {
        self.store.reset_counters();
        self.longest.reset();
        self.settings.prefixes.reset();
        self.host_stats.reset();
    }

    /// Counts a get by its key's prefix.
    pub(crate) fn note_get(&self, key: &[u8], hit: bool) {
        if self.detail() {
            self.settings.prefixes.count(key, PrefixCounter::Gets);
            if hit {
                self.settings.prefixes.count(key, PrefixCounter::Hits);
            }
        }
    }

    /// Counts a store by its key's prefix.
    #[inline]
    pub(crate) fn note_set(&self, key: &[u8]) {
        if self.detail() {
            self.settings.prefixes.count(key, PrefixCounter::Sets);
        }
    }

    /// Counts a delete by its key's prefix.
    #[inline]
    pub(crate) fn note_delete(&self, key: &[u8]) {
        if self.detail() {
            self.settings.prefixes.count(key, PrefixCounter::Deletes);
        }
    }
}
