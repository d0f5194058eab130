// SPDX-License-Identifier: GPL-2.0-only
//! A histogram of times: four buckets for each power of two from 64 ns to 2³⁰ ns, one below and one above, so that a
//! percentile is at most a quarter too high.

use hippos_invariant::Exact;

/// Buckets for each power of two.
pub(crate) const STEPS: usize = 4;
/// The first bucket goes up to two to the power of this, in nanoseconds.
const LEAST: u32 = 6;
/// Times longer than two to the power of this are in the last bucket.
const MOST: u32 = 30;
/// Powers of two that have [`STEPS`] buckets each.
pub(crate) const POWERS: usize = (MOST - LEAST) as usize;
/// The number of buckets.
pub(crate) const BUCKETS: usize = POWERS * STEPS + 2;

/// The bucket of a time in nanoseconds.
#[inline]
pub(crate) fn bucket(ns: u64) -> usize {
    // A bucket's upper bound belongs to it.
    let below = ns.saturating_sub(1);
    let Some(power) = below.checked_ilog2().filter(|power| *power >= LEAST) else {
        return 0;
    };
    if power >= MOST {
        return BUCKETS - 1;
    }
    let step = below.shr_by(power.sub_exact(2)) as usize % STEPS;
    (power.sub_exact(LEAST) as usize)
        .mul_exact(STEPS)
        .add_exact(step)
        .add_exact(1)
}

/// The longest time of a bucket, in nanoseconds; `None` for the last.
pub(crate) fn bound(bucket: usize) -> Option<u64> {
    let Some(step) = bucket.checked_sub(1) else {
        return Some(1 << LEAST);
    };
    if step >= POWERS.mul_exact(STEPS) {
        return None;
    }
    let power = 1u64.shl_by(LEAST.add_exact((step / STEPS) as u32));
    let steps = (step % STEPS).add_exact(1) as u64;
    Some(power.add_exact((power / STEPS as u64).mul_exact(steps)))
}

/// The number of times in each bucket.
pub(crate) struct Histogram {
    counts: [u64; BUCKETS],
    max: u64,
}

impl Histogram {
    /// Made from the counts that `read` returns for each bucket, and the longest time. If the histogram is written or
    /// reset meanwhile, the counts are of slightly different moments; each is read once.
    pub(crate) fn read(read: impl FnMut(usize) -> u64, max: u64) -> Self {
        Self {
            counts: core::array::from_fn(read),
            max,
        }
    }

    /// The number of times in a bucket.
    pub(crate) fn times(&self, bucket: usize) -> u64 {
        self.counts.get(bucket).copied().unwrap_or(0)
    }

    /// The number of all times.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// The longest time, in nanoseconds.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The time that `of_thousand` of every thousand times do not exceed, in nanoseconds: the upper bound of its
    /// bucket, or the longest time if that is less. 0 for an empty histogram.
    pub(crate) fn quantile(&self, of_thousand: u64) -> u64 {
        let count = self.count();
        let (whole, rest) = (count / 1000, count % 1000);
        let rank = whole
            .wrapping_mul(of_thousand)
            .wrapping_add(rest.wrapping_mul(of_thousand).div_ceil(1000));
        let mut below = 0u64;
        for (bucket, n) in self.counts.iter().enumerate() {
            below = below.wrapping_add(*n);
            if *n != 0 && below >= rank {
                return bound(bucket).map_or(self.max, |bound| bound.min(self.max));
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A repeatable stream of numbers of all magnitudes (xorshift).
    fn times(seed: u64, count: usize) -> Vec<u64> {
        let mut x = seed | 1;
        (0..count)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x >> (20 + x % 44)
            })
            .collect()
    }

    fn histogram(times: &[u64]) -> Histogram {
        let mut counts = [0; BUCKETS];
        for time in times {
            counts[bucket(*time)] += 1;
        }
        Histogram::read(|i| counts[i], times.iter().copied().max().unwrap_or(0))
    }

    #[test]
    fn each_time_is_in_the_bucket_whose_bounds_hold_it() {
        let edges = (0..BUCKETS).filter_map(bound);
        let edges = edges.flat_map(|bound| [bound - 1, bound, bound + 1]);
        for time in edges.chain(times(7, 100_000)).chain([0, u64::MAX]) {
            let bucket = bucket(time);
            assert!(bucket < BUCKETS, "{time}");
            if let Some(most) = bound(bucket) {
                assert!(time <= most, "{time} in bucket {bucket}");
            }
            if let Some(before) = bucket.checked_sub(1) {
                assert!(bound(before).unwrap() < time, "{time} in bucket {bucket}");
            }
        }
    }

    #[test]
    fn bounds_go_from_64_ns_to_a_second_by_steps_of_a_quarter_at_most() {
        let bounds: Vec<_> = (0..BUCKETS).filter_map(bound).collect();
        assert_eq!(bounds.len(), BUCKETS - 1);
        assert_eq!((bounds[0], *bounds.last().unwrap()), (64, 1 << 30));
        for pair in bounds.windows(2) {
            assert!(
                pair[0] < pair[1] && pair[1] - pair[0] <= pair[0] / 4,
                "{pair:?}"
            );
        }
    }

    #[test]
    fn quantiles_are_never_below_and_at_most_a_quarter_above() {
        for seed in 1..200u64 {
            let mut times = times(seed * 0x9e37_79b9, seed as usize * 7);
            let histogram = histogram(&times);
            assert_eq!(histogram.count(), times.len() as u64);
            times.sort_unstable();
            for of_thousand in [1, 500, 900, 990, 999, 1000] {
                let rank = (times.len() as u64 * of_thousand).div_ceil(1000).max(1);
                let exact = times[rank as usize - 1];
                let estimate = histogram.quantile(of_thousand);
                assert!(estimate >= exact, "{of_thousand}: {estimate} of {exact}");
                assert!(
                    exact > 1 << MOST || estimate <= (exact + exact / 4).max(64),
                    "{of_thousand}: {estimate} of {exact}"
                );
            }
            assert_eq!(histogram.quantile(1000), *times.last().unwrap());
        }
    }

    #[test]
    fn the_quantiles_of_an_empty_histogram_are_zero() {
        let none = histogram(&[]);
        assert_eq!((none.count(), none.max(), none.quantile(500)), (0, 0, 0));
        assert_eq!(histogram(&[70]).quantile(1), 70);
    }
}
