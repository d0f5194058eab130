// SPDX-License-Identifier: GPL-2.0-only
//! How long requests take and wait, by receive path: `stats hippos_latency`.
//!
//! The host has the clock, and measures while somebody wants to know. Here are the histograms: counters of
//! each CPU in the store's tallies, so that adding to one is an atomic addition to the CPU's own memory,
//! in any context, and a reset loses no more than what is added at that moment.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hippos_store::Platform;

use crate::counters::EngineCounter;
use crate::histogram::{self, Histogram, BUCKETS};
use crate::Engine;

/// What is measured, each on its receive path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Interval {
    /// From the frame to its reply, made.
    XdpService,
    /// From the packet to its reply, handed to the driver or put with those that go together.
    HookService,
    /// From a datagram that the worker has taken to its reply, sent.
    UdpService,
    /// From the callback to the replies, sent.
    TcpCallbackService,
    /// From the beginning of a turn to its end.
    TcpWorkerService,
    /// From the kernel's time stamp to the hook.
    HookQueue,
    /// From the kernel's time stamp to the worker.
    UdpQueue,
    /// From the callback, or the end of an earlier turn that left something to do, to the turn.
    TcpWorkerQueue,
}

impl Interval {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::XdpService,
        Self::HookService,
        Self::UdpService,
        Self::TcpCallbackService,
        Self::TcpWorkerService,
        Self::HookQueue,
        Self::UdpQueue,
        Self::TcpWorkerQueue,
    ];

    /// The receive path, and what is measured there.
    pub(crate) const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::XdpService => ("xdp", "service"),
            Self::HookService => ("prerouting", "service"),
            Self::UdpService => ("udp", "service"),
            Self::TcpCallbackService => ("tcp_callback", "service"),
            Self::TcpWorkerService => ("tcp_worker", "service"),
            Self::HookQueue => ("prerouting", "queue"),
            Self::UdpQueue => ("udp", "queue"),
            Self::TcpWorkerQueue => ("tcp_worker", "queue"),
        }
    }

    /// Its first tally: the buckets, and behind them the sum.
    #[inline]
    const fn tally(self) -> usize {
        (EngineCounter::Count as usize).wrapping_add((self as usize).wrapping_mul(CELLS))
    }
}

/// Tallies of an interval.
const CELLS: usize = BUCKETS + 1;
/// Tallies of all of them.
pub(crate) const TALLIES: usize = Interval::ALL.len() * CELLS;

/// The longest times, in nanoseconds. They are seldom exceeded, so that all CPUs share one.
#[derive(Default)]
pub(crate) struct Longest([AtomicU64; Interval::ALL.len()]);

impl Longest {
    #[inline]
    fn of(&self, interval: Interval) -> Option<&AtomicU64> {
        self.0.get(interval as usize)
    }

    pub(crate) fn reset(&self) {
        for longest in &self.0 {
            longest.store(0, Relaxed);
        }
    }
}

impl<P: Platform> Engine<P> {
    /// Notes that so many requests took or waited so long, in nanoseconds. Softirq-safe.
    #[inline]
    pub fn note_time(&self, interval: Interval, ns: u64, requests: u32) {
        let first = interval.tally();
        let n = u64::from(requests);
        self.store
            .tally(first.wrapping_add(histogram::bucket(ns)), n);
        self.store
            .tally(first.wrapping_add(BUCKETS), ns.wrapping_mul(n));
        if let Some(longest) = self.longest.of(interval) {
            if ns > longest.load(Relaxed) {
                longest.fetch_max(ns, Relaxed);
            }
        }
    }

    /// Forgets all times.
    pub fn reset_times(&self) {
        self.store
            .reset_tallies(EngineCounter::Count as usize, TALLIES);
        self.longest.reset();
    }

    /// The times of all CPUs.
    pub(crate) fn measured(&self, interval: Interval) -> Histogram {
        let first = interval.tally();
        let longest = self.longest.of(interval);
        Histogram::read(
            |bucket| self.store.tallied(first.wrapping_add(bucket)),
            longest.map_or(0, |longest| longest.load(Relaxed)),
        )
    }

    /// Their sum, in nanoseconds.
    pub(crate) fn time_spent(&self, interval: Interval) -> u64 {
        self.store.tallied(interval.tally().wrapping_add(BUCKETS))
    }
}
