// SPDX-License-Identifier: GPL-2.0-only
//! The settings that can be changed in a loaded module, and their keys in the configuration.

use crate::difference::Difference;
use crate::networks;

/// A call that changes the loaded module, and the keys that it puts into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiveChange {
    Users,
    Sources,
    Admin,
    Limits,
    Memory,
    Latency,
    Interfaces,
}

impl LiveChange {
    /// All calls; those for which [`Self::widens`] holds come last.
    pub(crate) const ORDER: [Self; 7] = [
        Self::Users,
        Self::Sources,
        Self::Admin,
        Self::Limits,
        Self::Memory,
        Self::Latency,
        Self::Interfaces,
    ];

    /// The calls in an order in which no client is served meanwhile that neither the old nor the new configuration
    /// serves: those that restrict access, and last those that widen it.
    pub(crate) fn ordered(changes: &[Difference]) -> Vec<Self> {
        let widens = |step: &Self| {
            let of_step = |d: &&Difference| Self::of(d.key) == Some(*step);
            changes.iter().find(of_step).is_some_and(Self::widens)
        };
        let (widening, mut all): (Vec<_>, Vec<_>) = Self::ORDER.into_iter().partition(widens);
        // Clients that need not log in any more come after all other conditions.
        all.extend(widening.iter().filter(|step| **step != Self::Users));
        all.extend(widening.iter().filter(|step| **step == Self::Users));
        all
    }

    /// Whether a change lets in clients, or grants rights to them.
    fn widens(change: &Difference) -> bool {
        let rank = |admin: &str| {
            ["off", "local", "network"]
                .iter()
                .position(|name| *name == admin)
        };
        match Self::of(change.key) {
            Some(Self::Users) => change.wanted == "off",
            Some(Self::Sources) => !networks::covers(&change.now, &change.wanted),
            Some(Self::Admin) => rank(&change.wanted) > rank(&change.now),
            _ => false,
        }
    }

    /// The call for a key; `None` if the key needs a restart.
    pub(crate) fn of(key: &str) -> Option<Self> {
        match key {
            "auth_file" => Some(Self::Users),
            "allow" => Some(Self::Sources),
            "admin" => Some(Self::Admin),
            "udp_bytes" | "udp_rate" | "limits.udp_datagrams" | "limits.udp_private_rate" => {
                Some(Self::Limits)
            }
            "memory_mb" => Some(Self::Memory),
            "latency" => Some(Self::Latency),
            "xdp.interfaces" => Some(Self::Interfaces),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(changes: &[(&'static str, &str, &str)]) -> Vec<LiveChange> {
        let of = |(key, now, wanted): &(&'static str, &str, &str)| Difference {
            key,
            now: (*now).to_owned(),
            wanted: (*wanted).to_owned(),
            is_live: true,
        };
        let changes: Vec<_> = changes.iter().map(of).collect();
        let mut order = LiveChange::ordered(&changes);
        assert_eq!(order.len(), LiveChange::ORDER.len());
        order.retain(|step| changes.iter().any(|d| LiveChange::of(d.key) == Some(*step)));
        order
    }

    #[test]
    fn changes_that_widen_access_come_last() {
        use LiveChange::{Admin, Sources, Users};
        for (changes, expected) in [
            (
                &[("auth_file", "on", "off"), ("allow", "any", "10.0.0.0/8")][..],
                &[Sources, Users][..],
            ),
            (
                &[("allow", "default", "any"), ("admin", "network", "local")],
                &[Admin, Sources],
            ),
            (
                &[("auth_file", "off", "on"), ("allow", "default", "any")],
                &[Users, Sources],
            ),
            (
                &[
                    ("auth_file", "on", "off"),
                    ("allow", "10.0.0.0/8", "192.168.0.0/16"),
                    ("admin", "off", "local"),
                ],
                &[Sources, Admin, Users],
            ),
        ] {
            assert_eq!(order(changes), expected, "{changes:?}");
        }
    }
}
