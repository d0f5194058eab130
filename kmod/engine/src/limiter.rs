// SPDX-License-Identifier: GPL-2.0-only
//! Rate limits on the reply bytes of UDP sources.

use hippos_invariant::Exact;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Number of buckets that sources are hashed to.
const BUCKETS: usize = 4096;

/// Limits the reply bytes of each UDP source per second, in buckets that are refilled every second. Sources that hash
/// to the same bucket share it, so that memory is bounded for any number of sources.
pub struct Limiter {
    /// The second of the last reply in the high half, and the bytes sent in it in the low half.
    buckets: [AtomicU64; BUCKETS],
    /// Bytes a second for sources outside private networks; 0 is no limit.
    rate: AtomicU32,
    /// The same for sources in private networks.
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

    pub(crate) fn set_rates(&self, public: Option<u32>, private: Option<u32>) {
        if let Some(rate) = public {
            self.rate.store(rate, Relaxed);
        }
        if let Some(rate) = private {
            self.private_rate.store(rate, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn limited(&self) -> bool {
        self.rate.load(Relaxed) | self.private_rate.load(Relaxed) != 0
    }

    /// Takes `bytes` out of a bucket, if it has that many, and returns the second that they are counted in. That is at
    /// least the bucket's own second, because the caller may have read the clock earlier than others.
    pub(crate) fn take(&self, hash: u64, now: u32, bytes: usize, rate: u32) -> Option<u32> {
        let bucket = self.buckets.get(hash as usize % BUCKETS)?;
        let taken = bucket.fetch_update(Relaxed, Relaxed, |then| {
            let (second, used) = in_second(then, now);
            let used = used.add_exact(bytes as u64);
            (used <= u64::from(rate)).then_some((u64::from(second) << 32) | used)
        });
        taken.ok().map(|then| in_second(then, now).0)
    }

    /// Returns the bytes that [`take`](Self::take) counted in that second.
    pub(crate) fn give_back(&self, hash: u64, second: u32, bytes: usize) {
        let Some(bucket) = self.buckets.get(hash as usize % BUCKETS) else {
            return;
        };
        // Bytes of an earlier second are not counted any more.
        let _ = bucket.fetch_update(Relaxed, Relaxed, |then| {
            let used = then & u64::from(u32::MAX);
            let left = used.saturating_sub(bytes as u64);
            (then >> 32 == u64::from(second)).then_some((u64::from(second) << 32) | left)
        });
    }
}

/// For a bucket with the contents `then`: the second to count in, and the bytes sent in it so far.
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
        // Meanwhile the next second has begun, with its own bytes.
        assert_eq!(limiter.take(1, 11, 1000, 1000), Some(11));
        limiter.give_back(1, 10, 600);
        assert_eq!(limiter.take(1, 11, 1, 1000), None);
        limiter.give_back(1, 11, 600);
        assert_eq!(limiter.take(1, 11, 600, 1000), Some(11));
    }

    #[test]
    fn an_earlier_clock_reading_does_not_restart_a_second() {
        let limiter = Limiter::new();
        assert_eq!(limiter.take(1, 11, 900, 1000), Some(11));
        assert_eq!(limiter.take(1, 10, 900, 1000), None);
        assert_eq!(limiter.take(1, 10, 100, 1000), Some(11));
        assert_eq!(limiter.take(1, 11, 1, 1000), None);
    }
}
