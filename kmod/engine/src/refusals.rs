// SPDX-License-Identifier: GPL-2.0-only
//! The times of the last refusals, by reason: a count alone does not show whether clients are still refused.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::counters::EngineCounter;

/// A counter of refusals whose last time is kept, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum RefusalCounter {
    /// Connections beyond the limit, which the host counts.
    Connections,
    /// Connections of sources that are not allowed.
    TcpSources,
    /// Datagrams of sources that are not allowed, or while clients have to authenticate.
    UdpSources,
    /// Replies over UDP beyond a source's rate.
    UdpRate,
    /// Attempts to authenticate.
    Logins,
    /// Stores for lack of memory.
    Memory,
    /// Other requests for lack of memory.
    OtherMemory,
    /// Administration commands.
    Admin,
    /// Reads of large values.
    Reads,
    #[doc(hidden)]
    Count,
}

impl RefusalCounter {
    /// The counter, unless it is the host's.
    pub(crate) const fn counter(self) -> Option<EngineCounter> {
        Some(match self {
            RefusalCounter::Connections | RefusalCounter::Count => return None,
            RefusalCounter::TcpSources => EngineCounter::TcpRefused,
            RefusalCounter::UdpSources => EngineCounter::UdpRefused,
            RefusalCounter::UdpRate => EngineCounter::UdpLimited,
            RefusalCounter::Logins => EngineCounter::AuthErrors,
            RefusalCounter::Memory => EngineCounter::NoMemory,
            RefusalCounter::OtherMemory => EngineCounter::OtherNoMemory,
            RefusalCounter::Admin => EngineCounter::AdminRefused,
            RefusalCounter::Reads => EngineCounter::ReadsRefused,
        })
    }
}

const COUNTERS: usize = RefusalCounter::Count as usize;

/// The store's time of the last refusal of each kind; 0, which is before the store's first second, for none.
pub(crate) struct LastRefusals([AtomicU32; COUNTERS]);

impl LastRefusals {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; COUNTERS])
    }

    /// Keeps the time. A client can cause refusals at any rate, on all CPUs: the cache line is written once a second.
    pub(crate) fn note(&self, counter: RefusalCounter, now: u32) {
        if let Some(last) = self.0.get(counter as usize) {
            if last.load(Relaxed) != now {
                last.store(now, Relaxed);
            }
        }
    }

    /// Seconds since each one; `None` for those that have not occurred.
    pub(crate) fn ages(&self, now: u32) -> RefusalAges {
        RefusalAges(core::array::from_fn(|i| {
            let last = self.0.get(i)?.load(Relaxed);
            (last != 0).then(|| now.saturating_sub(last))
        }))
    }

    pub(crate) fn reset(&self) {
        for last in &self.0 {
            last.store(0, Relaxed);
        }
    }
}

/// Seconds since the last refusal of each kind.
pub(crate) struct RefusalAges([Option<u32>; COUNTERS]);

impl RefusalAges {
    pub(crate) fn of(&self, counter: RefusalCounter) -> Option<u64> {
        self.0.get(counter as usize)?.map(u64::from)
    }
}
