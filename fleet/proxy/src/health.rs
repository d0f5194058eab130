// SPDX-License-Identifier: MIT

//! Whether a node is in use. All workers share this state, because a write that one worker could not send must not be
//! read by another.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::config::RejoinPolicy;

/// A node's state.
#[derive(Debug, Default)]
pub(crate) struct Health {
    out: AtomicBool,
    /// When it is probed next, in microseconds.
    probe_at: AtomicU64,
    /// It answers, and waits for an operator to admit it.
    waits: AtomicBool,
    admitted: AtomicBool,
}

/// The probe of an ejected node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Whether it answers.
    Version,
    /// Flushes its contents.
    Flush,
}

impl Health {
    pub(crate) fn is_in(&self) -> bool {
        !self.out.load(Relaxed)
    }

    /// "in", "out" or "held".
    pub(crate) fn name(&self) -> &'static str {
        match (self.is_in(), self.waits.load(Relaxed)) {
            (true, _) => "in",
            (false, false) => "out",
            (false, true) => "held",
        }
    }

    /// Ejects the node until `probe_at`; whether it was in use.
    pub(crate) fn eject(&self, probe_at: u64) -> bool {
        self.probe_at.store(probe_at, Relaxed);
        let was_in = !self.out.swap(true, Relaxed);
        if was_in {
            self.waits.store(false, Relaxed);
            self.admitted.store(false, Relaxed);
        }
        was_in
    }

    /// When the next probe is due, if the node is ejected.
    pub(crate) fn probe_at(&self) -> Option<u64> {
        (!self.is_in()).then(|| self.probe_at.load(Relaxed))
    }

    /// The probe that this caller alone is to send now.
    pub(crate) fn claim(&self, now: u64, next: u64, returning: RejoinPolicy) -> Option<Probe> {
        let at = self.probe_at()?;
        if now < at {
            return None;
        }
        let claimed = self.probe_at.compare_exchange(at, next, Relaxed, Relaxed);
        claimed.ok()?;
        Some(match returning {
            RejoinPolicy::Flush => Probe::Flush,
            RejoinPolicy::Keep | RejoinPolicy::Hold => Probe::Version,
        })
    }

    /// The probe was answered; whether the node is in use now.
    pub(crate) fn probed(&self, reply: &[u8], returning: RejoinPolicy) -> bool {
        let well = match returning {
            RejoinPolicy::Keep => true,
            RejoinPolicy::Flush => reply == hippos_proto::reply::OK,
            RejoinPolicy::Hold => {
                self.waits.store(true, Relaxed);
                self.admitted.load(Relaxed)
            }
        };
        if well {
            self.out.store(false, Relaxed);
        }
        well
    }

    /// Lets a held node be readmitted at its next probe; whether it is ejected.
    pub(crate) fn admit(&self) -> bool {
        self.admitted.store(true, Relaxed);
        !self.is_in()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_probes_and_a_held_node_waits_to_be_admitted() {
        let health = Health::default();
        assert!(health.is_in() && health.claim(9, 10, RejoinPolicy::Keep).is_none());
        assert!(health.eject(100) && !health.eject(100));
        assert_eq!(health.claim(99, 200, RejoinPolicy::Flush), None);
        assert_eq!(
            health.claim(100, 200, RejoinPolicy::Flush),
            Some(Probe::Flush)
        );
        assert_eq!(health.claim(100, 200, RejoinPolicy::Flush), None);
        assert!(!health.probed(b"ERROR\r\n", RejoinPolicy::Flush) && !health.is_in());
        assert!(health.probed(b"OK\r\n", RejoinPolicy::Flush) && health.is_in());
        health.eject(300);
        let version = b"VERSION 1\r\n";
        assert!(!health.probed(version, RejoinPolicy::Hold));
        assert_eq!(health.name(), "held");
        assert!(health.admit() && health.probed(version, RejoinPolicy::Hold));
        assert_eq!(health.name(), "in");
    }
}
