// SPDX-License-Identifier: GPL-2.0-only
//! The state that all clients share: the store, the settings and the counters.

use core::sync::atomic::{
    fence, AtomicU32, AtomicU64, AtomicU8,
    Ordering::{Relaxed, SeqCst},
};

use hippos_invariant::Exact;
use hippos_proto::udp::{self, DATA_MAX};
use hippos_proto::RELATIVE_MAX;
use hippos_semantics::Administration;
use hippos_store::{ClassCounter, Counter, Item, Platform, Store};

use crate::administration::Setting;
use crate::counters::EngineCounter;
use crate::host_stats::HostStats;
use crate::interval::Longest;
use crate::prefix::PrefixCounter;
use crate::refusals::{LastRefusals, RefusalCounter};
use crate::settings::Settings;
use crate::uploads::Uploads;
use crate::watchers::{Counts, Kinds, Watchers};

/// The state that all clients of one cache share.
pub struct Engine<P: Platform> {
    /// The items. Made with at least [`ENGINE_COUNTERS`](crate::ENGINE_COUNTERS) tallies.
    pub store: Store<P>,
    pub(crate) settings: Settings,
    pub(crate) host_stats: &'static dyn HostStats,
    pub(crate) longest: Longest,
    pub(crate) last_refusals: LastRefusals,
    verbosity: AtomicU32,
    /// [`DETAIL`], [`LOGIN`] and the kinds of events that are watched.
    flags: AtomicU8,
    watchers: Watchers,
    /// The number of the UDP socket.
    udp_number: AtomicU32,
    /// The memory limit as the administrator set it, in bytes.
    memory_max_settable: AtomicU64,
    administration: Setting,
    pub(crate) uploads: Uploads,
    fast_bytes: AtomicU32,
    udp_bytes: AtomicU32,
    udp_datagrams: AtomicU32,
}

/// Keys are counted by prefix.
pub(crate) const DETAIL: u8 = 1;
/// Clients have to authenticate.
const LOGIN: u8 = 2;
/// The states that the UDP fast path does not support.
const SLOW_PATH: u8 = DETAIL | LOGIN;

const _: () = assert!(SLOW_PATH >> Kinds::SHIFT == 0);

impl<P: Platform> Engine<P> {
    /// An engine over `store`. `host_stats` provides the statistics that only the host has.
    pub fn new(store: Store<P>, settings: Settings, host_stats: &'static dyn HostStats) -> Self {
        Self {
            memory_max_settable: AtomicU64::new(store.memory_limit() as u64),
            uploads: Uploads::default(),
            store,
            host_stats,
            longest: Longest::default(),
            last_refusals: LastRefusals::new(),
            verbosity: AtomicU32::new(settings.verbosity),
            flags: AtomicU8::new(0),
            watchers: Watchers::default(),
            udp_number: AtomicU32::new(0),
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

    /// Sets the memory limit for the administrator, in bytes. From then on clients cannot set a higher one. Whether it
    /// was accepted.
    pub fn set_memory(&self, bytes: usize) -> bool {
        // Stored before the limit itself: a client that still uses the old value has set the limit before this call
        // does, or sees the new value.
        let before = self.memory_max_settable.swap(bytes as u64, SeqCst);
        fence(SeqCst);
        let taken = self.store.resize(bytes);
        if !taken {
            self.memory_max_settable.store(before, SeqCst);
            // Meanwhile a client may have set a limit above the previous value.
            self.keep_memory_limit();
        }
        taken
    }

    /// Sets the memory limit for a client. Whether it was accepted.
    pub(crate) fn limit_memory(&self, bytes: usize) -> bool {
        if bytes as u64 > self.memory_max_settable() || !self.store.resize(bytes) {
            return false;
        }
        // The administrator may have set a lower limit meanwhile.
        self.keep_memory_limit()
    }

    /// Lowers the memory limit to what clients may set. False if that is not possible.
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

    /// The largest memory limit that a client may set, in bytes: the one that the administrator set.
    pub fn memory_max_settable(&self) -> u64 {
        self.memory_max_settable.load(Relaxed)
    }

    /// Which clients may use administration commands.
    pub fn administration(&self) -> Administration {
        self.administration.get()
    }

    /// Sets it, also for open connections.
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
        (bytes as usize).min((datagrams as usize).mul_exact(DATA_MAX))
    }

    /// The most bytes and the most datagrams of any reply over UDP.
    pub fn udp_limits(&self) -> (u32, u32) {
        (
            self.udp_bytes.load(Relaxed),
            self.udp_datagrams.load(Relaxed),
        )
    }

    /// Sets both: at least one datagram and at most as many as a frame can count, and no more bytes than in the
    /// settings. Whether they were accepted.
    pub fn set_udp_limits(&self, bytes: u32, datagrams: u32) -> bool {
        self.change_udp_limits(Some(bytes), Some(datagrams))
    }

    /// Sets those that are given, like [`Self::set_udp_limits`], or none of them. Calls at the same time change what each
    /// was given.
    pub fn change_udp_limits(&self, bytes: Option<u32>, datagrams: Option<u32>) -> bool {
        let sendable = DATA_MAX as u32..=self.settings.udp_bytes;
        let counted = 1..=u32::from(u16::MAX);
        if bytes.is_some_and(|bytes| !sendable.contains(&bytes))
            || datagrams.is_some_and(|datagrams| !counted.contains(&datagrams))
        {
            return false;
        }
        if let Some(bytes) = bytes {
            self.udp_bytes.store(bytes, Relaxed);
        }
        if let Some(datagrams) = datagrams {
            self.udp_datagrams.store(datagrams, Relaxed);
        }
        // The fast path's limit is at most this one.
        let fast = || self.udp_bytes().min(self.settings.fast_bytes as usize);
        loop {
            fence(SeqCst);
            let bytes = fast();
            self.set_fast_bytes(bytes as u32);
            fence(SeqCst);
            // Another call may have changed one of the two in between, and set the fast path's before this one did.
            if fast() == bytes {
                return true;
            }
        }
    }

    /// `verbosity`: stored and shown, without any other effect.
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

    /// Whether clients have to authenticate, and UDP is refused.
    pub fn authentication(&self) -> bool {
        self.has_flags(LOGIN)
    }

    pub(crate) fn set_authentication(&self, on: bool) {
        self.set_flag(LOGIN, on);
    }

    /// Whether a state is set that only the UDP socket's worker supports.
    #[inline]
    pub(crate) fn needs_slow_path(&self) -> bool {
        self.has_flags(SLOW_PATH)
    }

    /// The same, or gets are watched.
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

    /// The number of clients that watch.
    pub(crate) fn watchers(&self) -> u64 {
        self.watchers.counts().watchers()
    }

    /// Adds a watching client, unless there are too many.
    pub(crate) fn add_watcher(&self, kinds: Kinds) -> bool {
        let added = self.watchers.add(kinds);
        if added {
            self.apply_watchers();
        }
        added
    }

    /// Removes a watching client.
    pub(crate) fn remove_watcher(&self, kinds: Kinds) {
        self.watchers.remove(kinds);
        self.apply_watchers();
    }

    /// Enables logging of the kinds that are watched. Of concurrent callers, the one that changes the counts last also
    /// reads them last.
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

    /// Sets the number of the UDP socket in `stats conns`.
    pub fn set_udp_number(&self, number: u32) {
        self.udp_number.store(number, Relaxed);
    }

    /// That number.
    pub(crate) fn udp_number(&self) -> u32 {
        self.udp_number.load(Relaxed)
    }

    /// Adds to one of the engine's counters.
    #[inline]
    pub fn tally(&self, tally: EngineCounter, n: u64) {
        self.store.tally(tally as usize, n);
    }

    /// Counts a refusal, and keeps its time. Any context.
    #[cold]
    pub fn count_refused(&self, refused: RefusalCounter) {
        if let Some(counter) = refused.counter() {
            self.tally(counter, 1);
        }
        self.last_refusals.note(refused, self.store.now());
    }

    /// One of the engine's counters.
    pub fn engine_counted(&self, tally: EngineCounter) -> u64 {
        let single = match tally {
            // The store has counted these: see [`single`](hippos_store::Store::single).
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

    /// Counts `n` gets that missed.
    #[inline]
    pub(crate) fn miss(&self, n: u32) {
        if n != 0 {
            self.store.count(Counter::GetMisses, u64::from(n));
        }
    }

    /// Seconds from now until an expiry time in a client's notation; 0 or negative for never and for the past.
    pub(crate) fn until(&self, exptime: i64) -> i64 {
        if exptime <= RELATIVE_MAX {
            exptime
        } else {
            exptime.saturating_sub(self.store.unix())
        }
    }

    /// `flush_all`, with memcached's expiry times; 0 and less mean at once. As in memcached, a delayed flush happens at
    /// the beginning of its last second.
    pub fn flush(&self, exptime: i64) {
        let delay = self.until(exptime).saturating_sub(1);
        self.store.flush(u32::try_from(delay).unwrap_or(0));
    }

    /// `stats reset`.
    pub fn reset(&self) {
        self.store.reset_counters();
        self.longest.reset();
        self.last_refusals.reset();
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
