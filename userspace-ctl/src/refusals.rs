// SPDX-License-Identifier: GPL-2.0-only
//! The statistics that count refused requests and connections.

use crate::stats::Stats;

/// A counter of refusals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// The row of `stats`.
    pub(crate) statistic: &'static str,
    /// The refused objects, in the plural.
    pub(crate) what: &'static str,
    pub(crate) remedy: &'static str,
    /// Whether a client may have lost something that it is entitled to.
    pub(crate) is_fault: bool,
}

/// All refusals.
pub(crate) const REFUSALS: [Refusal; 8] = [
    Refusal {
        statistic: "rejected_connections",
        what: "connections beyond maxconns",
        remedy: "raise maxconns, or find the clients that hold them: hippos-ctl conns",
        is_fault: true,
    },
    Refusal {
        statistic: "hippos_tcp_refused",
        what: "TCP connections of sources that are not allowed",
        remedy: "hippos-ctl allow list; hippos-ctl allow add NETWORK",
        is_fault: true,
    },
    Refusal {
        statistic: "hippos_udp_refused",
        what: "datagrams of sources that are not allowed, or while clients have to log in",
        remedy: "hippos-ctl allow list; hippos-ctl allow add NETWORK; hippos-ctl auth status",
        is_fault: true,
    },
    Refusal {
        statistic: "hippos_udp_limited",
        what: "UDP replies beyond a source's rate",
        remedy: "hippos-ctl limits --udp-rate BYTES",
        is_fault: true,
    },
    Refusal {
        statistic: "auth_errors",
        what: "logins",
        remedy: "compare the client's name and password with the file of auth_file",
        is_fault: true,
    },
    Refusal {
        statistic: "store_no_memory",
        what: "writes for lack of memory",
        remedy:
            "hippos-ctl slabs shows which size; raise memory_mb, or wait: memory moves between \
                 sizes",
        is_fault: true,
    },
    Refusal {
        statistic: "hippos_admin_refused",
        what: "administration commands",
        remedy: "hippos-ctl admin shows which clients may use them",
        is_fault: false,
    },
    Refusal {
        statistic: "hippos_reads_refused",
        what: "reads of large values, while slow readers held half of the memory",
        remedy: "find the clients that do not read: hippos-ctl conns; or raise memory_mb",
        is_fault: true,
    },
];

/// The refusals that have occurred, with their counts.
pub(crate) fn counted(stats: &Stats) -> impl Iterator<Item = (&'static Refusal, u64)> + '_ {
    REFUSALS
        .iter()
        .map(|refusal| (refusal, stats.number(refusal.statistic)))
        .filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_that_are_zero_or_missing_are_no_refusals() {
        let stats = Stats::of(&["auth_errors 3", "hippos_udp_limited 0"]);
        let found: Vec<_> = counted(&stats).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0.what, found[0].1), ("logins", 3));
    }
}
