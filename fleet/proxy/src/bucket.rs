// SPDX-License-Identifier: MIT

//! The token buckets of a route's limits.

use crate::route::Limit;

/// The token buckets of a route's limits, in millionths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    requests: u64,
    bytes: u64,
    since: u64,
}

impl Bucket {
    /// A full bucket holds one second's tokens.
    pub(crate) fn new(limit: &Limit, workers: u64, now: u64) -> Self {
        Self {
            requests: limit.requests * 1_000_000 / workers,
            bytes: limit.bytes * 1_000_000 / workers,
            since: now,
        }
    }

    /// Takes tokens; `false` if there are not enough.
    pub(crate) fn take(
        &mut self,
        limit: &Limit,
        workers: u64,
        now: u64,
        requests: u64,
        bytes: u64,
    ) -> bool {
        let past = now.saturating_sub(self.since).min(1_000_000);
        self.since = now;
        let fill = |level: u64, rate: u64| {
            (level + past * rate / workers).min(rate.max(1) * 1_000_000 / workers)
        };
        self.requests = fill(self.requests, limit.requests);
        self.bytes = fill(self.bytes, limit.bytes);
        // A bucket may hold less than one command needs: a full bucket lets one through.
        let needs = |level: u64, rate: u64, n: u64| {
            rate == 0 || level >= (n * 1_000_000).min(rate.max(1) * 1_000_000 / workers)
        };
        if !needs(self.requests, limit.requests, requests) || !needs(self.bytes, limit.bytes, bytes)
        {
            return false;
        }
        self.requests = self.requests.saturating_sub(requests * 1_000_000);
        self.bytes = self.bytes.saturating_sub(bytes * 1_000_000);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_no_more_through_than_its_rate() {
        let limit = Limit {
            requests: 10,
            bytes: 1000,
            in_flight: 0,
        };
        let mut bucket = Bucket::new(&limit, 2, 0);
        let taken = |bucket: &mut Bucket, now| {
            (0..100)
                .filter(|_| bucket.take(&limit, 2, now, 1, 1))
                .count()
        };
        assert_eq!(taken(&mut bucket, 0), 5);
        assert_eq!(taken(&mut bucket, 400_000), 2);
        assert_eq!(taken(&mut bucket, 60_000_000), 5);
        // A command larger than the bucket waits until the bucket is full.
        let mut bucket = Bucket::new(&limit, 2, 0);
        assert!(bucket.take(&limit, 2, 0, 1, 5000) && !bucket.take(&limit, 2, 500_000, 1, 400));
        assert!(bucket.take(&limit, 2, 2_000_000, 1, 5000));
    }
}
