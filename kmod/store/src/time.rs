//! The coarse clock, expiry and flushing.
//!
//! Seconds since shortly before the start, so that 1 is always in the past and 0 can mean never.

use crate::sync::{Acquire, AtomicU32, AtomicU64, Relaxed, Release};

/// The clock's value at an uptime of 0: as memcached has it, so that an expiry of 1 has passed.
const START: u32 = 2;
/// Expiry times beyond this are absolute: 30 days.
const RELATIVE_MAX: i64 = 60 * 60 * 24 * 30;

/// When an item expires, in seconds of the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(pub(crate) u32);

impl Expiry {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// It already has.
    pub const PAST: Self = Self(1);
}

pub(crate) struct Clock {
    now: AtomicU32,
    /// Items of other epochs were flushed.
    epoch: AtomicU32,
    /// When to flush; 0 for not at all.
    flush_at: AtomicU32,
    /// Unix time of the clock's 0, as an i64's bits.
    zero: AtomicU64,
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

    pub(crate) fn unix(&self) -> i64 {
        (self.zero.load(Relaxed) as i64).saturating_add(i64::from(self.now()))
    }

    pub(crate) fn tick(&self, uptime_secs: u32, unix: i64) {
        let now = uptime_secs.saturating_add(START);
        self.zero
            .store(unix.saturating_sub(i64::from(now)) as u64, Relaxed);
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
        Expiry(match exptime {
            0 => 0,
            ..0 => 1,
            1..=RELATIVE_MAX => self.now().saturating_add(exptime as u32),
            _ => {
                let at = exptime.saturating_sub(self.zero.load(Relaxed) as i64);
                at.clamp(1, i64::from(u32::MAX)) as u32
            }
        })
    }

    /// Has this expiry come?
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
        clock.tick(98, 1_700_000_000);
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
    fn a_delayed_flush_comes_once_and_a_new_one_replaces_it() {
        let clock = Clock::new();
        clock.tick(0, 0);
        clock.flush(10);
        clock.tick(9, 9);
        assert_eq!(clock.epoch(), 0);
        clock.tick(10, 10);
        assert_eq!(clock.epoch(), 1);
        clock.tick(11, 11);
        assert_eq!(clock.epoch(), 1);
        clock.flush(5);
        clock.flush(0);
        clock.tick(100, 100);
        assert_eq!(clock.epoch(), 2);
    }
}
