// SPDX-License-Identifier: GPL-2.0-only
//! How many reply bytes a UDP source gets.

use hippos_invariant::Exact;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// How many UDP sources are told apart.
const BUCKETS: usize = 4096;

/// Reply bytes for each source of UDP datagrams: buckets that are full again
/// after a second. Sources that fall into one bucket share it, so that memory
/// is bounded whoever asks.
pub struct Limiter {
    /// The second of the last reply, and below it the bytes since it began.
    buckets: [AtomicU64; BUCKETS],
    /// Bytes a second for sources outside private networks; 0 is no limit.
    rate: AtomicU32,
    /// The same for those within.
    private_rate: AtomicU32,
}

impl Limiter {
    /// No limits.
    #[allow(clippy::new_without_default, reason = "made at compile time")]
    pub const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            rate: AtomicU32::new(0),
            private_rate: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(crate) fn rate(&self, private: bool) -> u32 {
        if private {
            self.private_rate.load(Relaxed)
        } else {
            self.rate.load(Relaxed)
        }
    }

    pub(crate) fn set_rates(&self, public: u32, private: u32) {
        self.rate.store(public, Relaxed);
        self.private_rate.store(private, Relaxed);
    }

    #[inline]
    pub(crate) fn limited(&self) -> bool {
        self.rate.load(Relaxed) | self.private_rate.load(Relaxed) != 0
    }

    /// Takes `bytes` out of a bucket, if there are so many in it: the second that they are counted in.
    /// That is not before the bucket's own, though the caller may have read the clock before others.
    pub(crate) fn take(&self, hash: u64, now: u32, bytes: usize, rate: u32) -> Option<u32> {
        let bucket = self.buckets.get(hash as usize % BUCKETS)?;
        let taken = bucket.fetch_update(Relaxed, Relaxed, |then| {
            let (second, used) = in_second(then, now);
            let used = used.add_exact(bytes as u64);
            (used <= u64::from(rate)).then_some((u64::from(second) << 32) | used)
        });
        taken.ok().map(|then| in_second(then, now).0)
    }

    /// Puts back what [`take`](Self::take) counted in that second.
    pub(crate) fn give_back(&self, hash: u64, second: u32, bytes: usize) {
        let Some(bucket) = self.buckets.get(hash as usize % BUCKETS) else {
            return;
        };
        // Of an earlier second nothing is counted any more.
        let _ = bucket.fetch_update(Relaxed, Relaxed, |then| {
            let used = then & u64::from(u32::MAX);
            let left = used.saturating_sub(bytes as u64);
            (then >> 32 == u64::from(second)).then_some((u64::from(second) << 32) | left)
        });
    }
}

/// The second to count in, of a bucket that is as `then`, and the bytes since it began.
fn in_second(then: u64, now: u32) -> (u32, u64) {
    let second = (then >> 32) as u32;
    if second >= now {
        (second, then & u64::from(u32::MAX))
    } else {
        (now, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_given_back_to_the_second_that_they_were_counted_in() {
        let limiter = Limiter::new();
        let second = limiter.take(1, 10, 600, 1000);
        assert_eq!(second, Some(10));
        // Meanwhile the next second has begun, and has its own.
        assert_eq!(limiter.take(1, 11, 1000, 1000), Some(11));
        limiter.give_back(1, 10, 600);
        assert_eq!(limiter.take(1, 11, 1, 1000), None);
        limiter.give_back(1, 11, 600);
        assert_eq!(limiter.take(1, 11, 600, 1000), Some(11));
    }

    #[test]
    fn who_read_the_clock_earlier_begins_no_second_anew() {
        let limiter = Limiter::new();
        assert_eq!(limiter.take(1, 11, 900, 1000), Some(11));
        assert_eq!(limiter.take(1, 10, 900, 1000), None);
        assert_eq!(limiter.take(1, 10, 100, 1000), Some(11));
        assert_eq!(limiter.take(1, 11, 1, 1000), None);
    }
}
