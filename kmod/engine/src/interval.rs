// SPDX-License-Identifier: GPL-2.0-only
//! The measured intervals of time, and the longest time of each.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::histogram::BUCKETS;

/// The intervals, each on its receive path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Interval {
    /// From the frame until its reply is written.
    XdpService,
    /// From the packet until its reply is handed to the driver, or queued with others.
    HookService,
    /// From the time the worker takes a datagram until its reply is sent.
    UdpService,
    /// From the callback until the replies are sent.
    TcpCallbackService,
    /// From the beginning of a turn to its end.
    TcpWorkerService,
    /// From the kernel's time stamp to the hook.
    HookQueue,
    /// From the kernel's time stamp to the worker.
    UdpQueue,
    /// From the callback, or the end of an earlier turn that left work, to the turn.
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

    /// The receive path, and the kind of interval.
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
}

/// Tallies of an interval.
pub(crate) const CELLS: usize = BUCKETS + 1;
/// Tallies of all intervals.
pub(crate) const TALLIES: usize = Interval::ALL.len() * CELLS;

/// The longest times, in nanoseconds. They are seldom exceeded, so that all CPUs share one value.
#[derive(Default)]
pub(crate) struct Longest([AtomicU64; Interval::ALL.len()]);

impl Longest {
    #[inline]
    pub(crate) fn of(&self, interval: Interval) -> Option<&AtomicU64> {
        self.0.get(interval as usize)
    }

    pub(crate) fn reset(&self) {
        for longest in &self.0 {
            longest.store(0, Relaxed);
        }
    }
}
