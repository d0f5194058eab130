// SPDX-License-Identifier: GPL-2.0-only
//! The coarse clock, expiry and flushing.
//!
//! Seconds since shortly before the start, so that 1 is always in the past and 0 can mean never.
//!
//! The host has two clocks: a monotonic one, and Unix time. Their seconds begin at different moments, so that their
//! difference in whole seconds depends on when it is taken. The difference is therefore kept in milliseconds, and
//! changes only when a clock is set.

use hippos_semantics::RELATIVE_MAX;

use crate::sync::{Acquire, AtomicU32, AtomicU64, Relaxed, Release};

/// The clock's value at an uptime of 0. As in memcached, an expiry of 1 is thus in the past.
const START: u32 = 2;
/// The change in the difference of the two clocks, in milliseconds, that is ignored: they are read one after the other,
/// and are no finer than a timer tick.
const SKEW: u64 = 100;
/// The most milliseconds between two readings of the uptime, before and after that of Unix time, for which their
/// difference is used: a thread can lose the CPU between two readings.
const READING_MAX: u64 = SKEW / 2;
/// How often the clocks are read until they are read quickly.
const READINGS: u32 = 4;

/// When an item expires, in seconds of the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(pub(crate) u32);

impl Expiry {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// It has already passed.
    pub const PAST: Self = Self(1);

    /// Seconds from `now` of the store's clock; None for never.
    #[inline]
    pub fn ttl(self, now: u32) -> Option<u32> {
        (self.0 != 0).then(|| self.0.saturating_sub(now))
    }

    /// Seconds from `now` of the store's clock: negative for the past, and 0 for never, as in memcached's log.
    pub fn relative(self, now: u32) -> i32 {
        match self.0 {
            0 => 0,
            at => at.wrapping_sub(now) as i32,
        }
    }
}

pub(crate) struct Clock {
    now: AtomicU32,
    /// Items of other epochs were flushed.
    epoch: AtomicU32,
    /// When to flush; 0 if no flush is pending.
    flush_at: AtomicU32,
    /// Unix time of the clock's 0 in milliseconds, as an i64's bits.
    zero: AtomicU64,
}

/// Milliseconds since the clock's 0.
fn since_zero(uptime_ms: u64) -> u64 {
    uptime_ms.saturating_add(u64::from(START).saturating_mul(1000))
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            now: AtomicU32::new(START),
            epoch: AtomicU32::new(0),
            flush_at: AtomicU32::new(0),
            zero: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn now(&self) -> u32 {
        self.now.load(Relaxed)
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Relaxed)
    }

    /// Unix time of the clock's 0, in seconds.
    fn zero(&self) -> i64 {
        (self.zero.load(Relaxed) as i64).div_euclid(1000)
    }

    /// Unix time of a time of this clock.
    pub(crate) fn unix_at(&self, moment: u32) -> i64 {
        self.zero().saturating_add(i64::from(moment))
    }

    pub(crate) fn unix(&self) -> i64 {
        self.unix_at(self.now())
    }

    /// Called from one thread. Returns the uptime.
    pub(crate) fn tick_by(
        &self,
        mut uptime_ms: impl FnMut() -> u64,
        mut unix_ms: impl FnMut() -> i64,
    ) -> u64 {
        let mut before = uptime_ms();
        let mut quick = None;
        for _ in 0..READINGS {
            let unix = unix_ms();
            let after = uptime_ms();
            if after.saturating_sub(before) <= READING_MAX {
                quick = Some(unix);
                break;
            }
            before = after;
        }
        // If all of them were interrupted, the next tick sets the difference.
        if let Some(unix) = quick {
            self.set_unix(before, unix);
        }
        self.advance(before);
        before
    }

    /// Called from one thread.
    pub(crate) fn tick(&self, uptime_ms: u64, unix_ms: i64) {
        self.set_unix(uptime_ms, unix_ms);
        self.advance(uptime_ms);
    }

    /// Updates the difference of the two clocks.
    fn set_unix(&self, uptime_ms: u64, unix_ms: i64) {
        let zero = unix_ms.saturating_sub_unsigned(since_zero(uptime_ms));
        if zero.abs_diff(self.zero.load(Relaxed) as i64) > SKEW {
            self.zero.store(zero as u64, Relaxed);
        }
    }

    fn advance(&self, uptime_ms: u64) {
        let since = since_zero(uptime_ms);
        let now = u32::try_from(since / 1000).unwrap_or(u32::MAX);
        // The clock never goes back.
        let now = self.now.fetch_max(now, Relaxed).max(now);
        let at = self.flush_at.load(Acquire);
        if at != 0
            && at <= now
            && self
                .flush_at
                .compare_exchange(at, 0, Relaxed, Relaxed)
                .is_ok()
        {
            self.epoch.fetch_add(1, Release);
        }
    }

    pub(crate) fn flush(&self, delay_secs: u32) {
        if delay_secs == 0 {
            self.flush_at.store(0, Relaxed);
            self.epoch.fetch_add(1, Release);
        } else {
            self.flush_at
                .store(self.now().saturating_add(delay_secs), Release);
        }
    }

    pub(crate) fn expiry(&self, exptime: i64) -> Expiry {
        self.expiry_from(self.now(), exptime)
    }

    pub(crate) fn expiry_from(&self, now: u32, exptime: i64) -> Expiry {
        Expiry(match exptime {
            0 => 0,
            ..0 => 1,
            1..=RELATIVE_MAX => now.saturating_add(exptime as u32),
            _ => {
                let at = exptime.saturating_sub(self.zero());
                at.clamp(1, i64::from(u32::MAX)) as u32
            }
        })
    }

    /// Whether this expiry has passed.
    #[inline]
    pub(crate) fn expired(&self, expiry: u32) -> bool {
        expiry != 0 && expiry <= self.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_relative_up_to_thirty_days() {
        let clock = Clock::new();
        clock.tick(98000, 1_700_000_000_000);
        assert_eq!(clock.now(), 100);
        assert_eq!(clock.unix(), 1_700_000_000);
        assert_eq!(clock.expiry(0), Expiry::NEVER);
        assert_eq!(clock.expiry(-1), Expiry::PAST);
        assert_eq!(clock.expiry(i64::MIN), Expiry::PAST);
        assert_eq!(clock.expiry(10), Expiry(110));
        assert_eq!(
            clock.expiry(RELATIVE_MAX),
            Expiry(100 + RELATIVE_MAX as u32)
        );
        assert_eq!(clock.expiry(RELATIVE_MAX + 1), Expiry::PAST);
        assert_eq!(clock.expiry(1_700_000_010), Expiry(110));
        assert_eq!(clock.expiry(i64::MAX), Expiry(u32::MAX));
        assert!(clock.expired(1) && clock.expired(100));
        assert!(!clock.expired(0) && !clock.expired(101));
    }

    #[test]
    fn absolute_times_do_not_depend_on_the_phase_of_the_clocks() {
        for phase in [0, 1, 250, 499, 500, 750, 999] {
            let clock = Clock::new();
            // Two seconds of ticks at arbitrary times, with the two clocks read up to a timer tick apart.
            let tick = |ms: u64| {
                let unix = 1_700_000_000_000 + phase + ms as i64 + (ms % 11) as i64;
                clock.tick(5_000 + ms, unix);
            };
            tick(0);
            let (zero, expiry) = (clock.zero(), clock.expiry(1_700_000_100));
            for ms in (0..2_000).step_by(7) {
                tick(ms);
                assert_eq!(clock.zero(), zero, "{phase} {ms}");
                assert_eq!(clock.expiry(1_700_000_100), expiry, "{phase} {ms}");
            }
        }
    }

    #[test]
    fn absolute_times_follow_a_clock_that_is_set_and_relative_ones_do_not() {
        let clock = Clock::new();
        clock.tick(98_000, 1_700_000_000_300);
        let relative = clock.expiry(10);
        for unix in [1_700_003_600_300i64, 1_600_000_000_300, 1_700_000_001_300] {
            clock.tick(98_000, unix);
            assert_eq!(clock.now(), 100);
            assert_eq!(clock.expiry(10), relative);
            assert_eq!(clock.unix_at(relative.0), unix / 1000 + 10);
            assert_eq!(clock.expiry(unix / 1000 + 10), relative);
        }
        // Slowly, as when a clock is disciplined by NTP.
        for step in 0..100 {
            clock.tick(98_000, 1_700_000_001_300 + 50 * step);
        }
        assert_eq!(clock.unix(), 1_700_000_006);
    }

    /// A tick whose thread loses the CPU for `lost` milliseconds after each of its first `times` readings of the uptime.
    fn interrupted(clock: &Clock, at: u64, times: u32, lost: u64) -> u64 {
        let (now, mut left) = (core::cell::Cell::new(at), times);
        let uptime = || {
            let read = now.get();
            if left != 0 {
                left -= 1;
                now.set(read + lost);
            }
            read
        };
        clock.tick_by(uptime, || 1_700_000_000_000 + now.get() as i64)
    }

    #[test]
    fn a_tick_that_is_interrupted_keeps_the_difference_of_the_clocks() {
        for lost in [60, 101, 250, 5000] {
            for times in [1, 2, 3, READINGS, 100] {
                let clock = Clock::new();
                interrupted(&clock, 98_000, 0, 0);
                let (zero, expiry) = (clock.zero.load(Relaxed), clock.expiry(1_700_000_500));
                let uptime = interrupted(&clock, 99_000, times, lost);
                assert_eq!(clock.zero.load(Relaxed), zero, "{times} {lost}");
                assert_eq!(clock.expiry(1_700_000_500), expiry);
                // The clock itself goes on in any case.
                assert_eq!(u64::from(clock.now()), uptime / 1000 + 2);
                assert!(clock.now() >= 101);
            }
        }
        // The first tick knows the Unix time unless it is interrupted each time.
        let clock = Clock::new();
        interrupted(&clock, 98_000, READINGS - 1, 1000);
        assert_eq!(clock.unix_at(2), 1_700_000_000);
    }

    #[test]
    fn a_tick_follows_a_clock_that_is_set_between_its_readings() {
        let clock = Clock::new();
        clock.tick_by(|| 98_000, || 1_700_000_000_000);
        clock.tick_by(|| 99_000, || 1_600_000_001_000);
        assert_eq!(clock.unix(), 1_600_000_001);
    }

    #[test]
    fn a_delayed_flush_comes_once_and_a_new_one_replaces_it() {
        let clock = Clock::new();
        clock.tick(0, 0);
        clock.flush(10);
        clock.tick(9000, 9_000);
        assert_eq!(clock.epoch(), 0);
        clock.tick(10000, 10_000);
        assert_eq!(clock.epoch(), 1);
        clock.tick(11000, 11_000);
        assert_eq!(clock.epoch(), 1);
        clock.flush(5);
        clock.flush(0);
        clock.tick(100000, 100_000);
        assert_eq!(clock.epoch(), 2);
    }
}
