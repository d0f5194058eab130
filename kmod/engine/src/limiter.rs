// SPDX-License-Identifier: GPL-2.0-only
//! How many reply bytes a UDP source gets.

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

    /// Takes `bytes` out of a bucket, if there are so many in it.
    pub(crate) fn take(&self, hash: u64, now: u32, bytes: usize, rate: u32) -> bool {
        let Some(bucket) = self.buckets.get(hash as usize % BUCKETS) else {
            return false;
        };
        let taken = bucket.fetch_update(Relaxed, Relaxed, |then| {
            let used = if then >> 32 == u64::from(now) {
                then & u64::from(u32::MAX)
            } else {
                0
            };
            let used = used.saturating_add(bytes as u64);
            (used <= u64::from(rate)).then_some((u64::from(now) << 32) | used)
        });
        taken.is_ok()
    }

    /// Puts back what [`take`](Self::take) took in this second.
    pub(crate) fn give_back(&self, hash: u64, now: u32, bytes: usize) {
        let Some(bucket) = self.buckets.get(hash as usize % BUCKETS) else {
            return;
        };
        // Of an earlier second nothing is counted any more.
        let _ = bucket.fetch_update(Relaxed, Relaxed, |then| {
            let used = then & u64::from(u32::MAX);
            let left = used.saturating_sub(bytes as u64);
            (then >> 32 == u64::from(now)).then_some((u64::from(now) << 32) | left)
        });
    }
}
