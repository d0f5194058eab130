// SPDX-License-Identifier: GPL-2.0-only
//! The statistics that count refused requests and connections.

use crate::answer::duration;
use crate::stats::{Stats, AGES};

/// So many seconds after a refusal it still counts as a fault of now: as long as an operator needs to see it, and short
/// enough for a repaired fault to disappear while they watch.
pub(crate) const RECENT: u64 = 60;

/// A counter of refusals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// The row of `stats`.
    pub(crate) statistic: &'static str,
    /// The refused objects, in the plural.
    pub(crate) what: &'static str,
    pub(crate) remedy: &'static str,
    pub(crate) severity: Severity,
}

/// The meaning of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The cache lacks something that it needs to serve its clients.
    Shortage,
    /// A setting refuses clients, which may be entitled to what they ask for.
    Policy,
    /// The server works as configured.
    Intended,
}

const NO_MEMORY: &str =
    "hippos-ctl slabs shows which size; raise memory_mb, or wait: memory moves between sizes";

/// All refusals.
pub(crate) const REFUSALS: [Refusal; 9] = [
    Refusal {
        statistic: "rejected_connections",
        what: "connections beyond maxconns",
        remedy: "raise maxconns, or find the clients that hold them: hippos-ctl conns",
        severity: Severity::Shortage,
    },
    Refusal {
        statistic: "hippos_tcp_refused",
        what: "TCP connections of sources that are not allowed",
        remedy: "hippos-ctl allow list; hippos-ctl allow add NETWORK",
        severity: Severity::Policy,
    },
    Refusal {
        statistic: "hippos_udp_refused",
        what: "datagrams of sources that are not allowed, or while clients have to log in",
        remedy: "hippos-ctl allow list; hippos-ctl allow add NETWORK; hippos-ctl auth status",
        severity: Severity::Policy,
    },
    Refusal {
        statistic: "hippos_udp_limited",
        what: "UDP replies beyond a source's rate",
        remedy:
            "hippos-ctl limits --udp-rate BYTES, or --udp-private-rate BYTES for private networks",
        severity: Severity::Policy,
    },
    Refusal {
        statistic: "auth_errors",
        what: "logins",
        remedy: "compare the client's name and password with the file of auth_file",
        severity: Severity::Policy,
    },
    Refusal {
        statistic: "store_no_memory",
        what: "writes for lack of memory",
        remedy: NO_MEMORY,
        severity: Severity::Shortage,
    },
    Refusal {
        statistic: "hippos_no_memory",
        what: "changes of values, or binary requests, for lack of memory",
        remedy: NO_MEMORY,
        severity: Severity::Shortage,
    },
    Refusal {
        statistic: "hippos_admin_refused",
        what: "administration commands",
        remedy: "hippos-ctl admin shows which clients may use them",
        severity: Severity::Intended,
    },
    Refusal {
        statistic: "hippos_reads_refused",
        what: "reads of large values, while slow readers held half of the memory",
        remedy: "find the clients that do not read: hippos-ctl conns; or raise memory_mb",
        severity: Severity::Shortage,
    },
];

/// A refusal that has occurred.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occurred {
    pub(crate) refusal: &'static Refusal,
    pub(crate) count: u64,
    /// Seconds since the last one; `None` if the server does not report it.
    pub(crate) age: Option<u64>,
}

impl Occurred {
    /// Whether it occurred in the last [`RECENT`] seconds. Without a time it counts as old, since it may have
    /// occurred long ago.
    pub(crate) fn is_recent(&self) -> bool {
        self.age.is_some_and(|age| age <= RECENT)
    }

    /// The refusal's text, its count and its time.
    pub(crate) fn text(&self) -> String {
        let when = match self.age {
            Some(age) => format!("the last {} ago", duration(age)),
            None => "the server does not say when".into(),
        };
        format!("{} {}, {when}", self.count, self.refusal.what)
    }
}

/// The refusals that have occurred.
pub(crate) fn occurred(stats: &Stats) -> impl Iterator<Item = Occurred> + '_ {
    let of = |refusal: &'static Refusal| {
        let name = refusal.statistic.trim_start_matches("hippos_");
        let age = stats.get(&format!("{AGES}{name}"));
        Occurred {
            refusal,
            count: stats.number(refusal.statistic),
            age: age.and_then(|age| age.parse().ok()),
        }
    };
    REFUSALS
        .iter()
        .map(of)
        .filter(|occurred| occurred.count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_that_are_zero_or_missing_are_no_refusals() {
        let stats = Stats::of(&["auth_errors 3", "hippos_udp_limited 0"]);
        let found: Vec<_> = occurred(&stats).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].refusal.what, found[0].count), ("logins", 3));
    }

    #[test]
    fn a_refusal_is_recent_for_a_minute() {
        let of = |rows: &[&str]| occurred(&Stats::of(rows)).next().unwrap();
        let now = of(&["hippos_tcp_refused 2", "hippos_age_tcp_refused 60"]);
        assert!(now.is_recent());
        assert!(now.text().ends_with("not allowed, the last 1 min ago"));
        let before = of(&["hippos_tcp_refused 2", "hippos_age_tcp_refused 61"]);
        assert!(!before.is_recent());
        let unknown = of(&["store_no_memory 2"]);
        assert!(!unknown.is_recent());
        assert!(unknown.text().ends_with("the server does not say when"));
    }

    /// The table of docs/statistics.md is the engine's.
    #[test]
    fn each_refusal_has_rows_for_its_count_and_its_age() {
        let table = include_str!("../../docs/statistics.md");
        for refusal in REFUSALS {
            let name = refusal.statistic;
            let age = format!("{AGES}{}", name.trim_start_matches("hippos_"));
            for row in [
                format!("| `{name}` | counter"),
                format!("| `{age}` | gauge"),
            ] {
                assert!(table.contains(&row), "{row}");
            }
        }
    }
}
