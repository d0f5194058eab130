// SPDX-License-Identifier: GPL-2.0-only
//! How long requests take and wait, by receive path: `stats hippos_latency`.
//!
//! The host has the clock, and measures while latency is enabled. The histograms are here: counters of each CPU in the
//! store's tallies, so that an increment is an atomic addition to the CPU's own memory, in any context, and a reset
//! loses at most the increments made at that moment.

use core::sync::atomic::Ordering::Relaxed;

use hippos_invariant::Exact;
use hippos_store::Platform;

use crate::counters::EngineCounter;
use crate::histogram::{self, Histogram, BUCKETS};
use crate::interval::{Interval, CELLS, TALLIES};
use crate::Engine;

/// An interval's first tally: the buckets, followed by the sum.
#[inline]
fn first_tally(interval: Interval) -> usize {
    (EngineCounter::Count as usize).add_exact((interval as usize).mul_exact(CELLS))
}

impl<P: Platform> Engine<P> {
    /// Adds the time that a number of requests took or waited, in nanoseconds. Softirq-safe.
    #[inline]
    pub fn note_time(&self, interval: Interval, ns: u64, requests: u32) {
        let first = first_tally(interval);
        let n = u64::from(requests);
        self.store.tally(first.add_exact(histogram::bucket(ns)), n);
        self.store
            .tally(first.add_exact(BUCKETS), ns.wrapping_mul(n));
        if let Some(longest) = self.longest.of(interval) {
            if ns > longest.load(Relaxed) {
                longest.fetch_max(ns, Relaxed);
            }
        }
    }

    /// Resets all times.
    pub fn reset_times(&self) {
        self.store
            .reset_tallies(EngineCounter::Count as usize, TALLIES);
        self.longest.reset();
    }

    /// The times of all CPUs.
    pub(crate) fn measured(&self, interval: Interval) -> Histogram {
        let first = first_tally(interval);
        let longest = self.longest.of(interval);
        Histogram::read(
            |bucket| self.store.tallied(first.add_exact(bucket)),
            longest.map_or(0, |longest| longest.load(Relaxed)),
        )
    }

    /// The sum of the times, in nanoseconds.
    pub(crate) fn time_spent(&self, interval: Interval) -> u64 {
        self.store.tallied(first_tally(interval).add_exact(BUCKETS))
    }
}
