// SPDX-License-Identifier: GPL-2.0-only
//! Rules of the firewall that UDP requests do not meet while a receive path before the socket answers them.

use std::process::Command;

use crate::stats::{Stats, RECEIVE_PATHS};
use crate::system::{System, PINS};

/// The base chains of an `nft list ruleset` at one of these hooks that do something: have rules, or a policy other than
/// accept. Each as `FAMILY TABLE CHAIN (hook HOOK)`.
fn chains(ruleset: &str, hooks: &[&'static str]) -> Vec<String> {
    let (mut table, mut chain, mut found) = ("", None, Vec::new());
    let mut ignored = false;
    for line in ruleset.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            // No requests are ARP's. A bridge's chains come before those of IP, and frames of its ports meet them.
            ignored = name.starts_with("arp ") || name.starts_with("bridge ");
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = Some((name.trim_end_matches(" {"), None));
        } else if line == "}" {
            chain = None;
        } else if let Some((name, hook)) = &mut chain {
            if let Some((_, rest)) = line.split_once(" hook ") {
                let word = rest.split([' ', ';']).next().unwrap_or_default();
                let of_chain = hooks.iter().find(|hook| **hook == word);
                *hook = of_chain.filter(|_| !ignored);
                if !line.contains("policy drop") {
                    continue;
                }
            }
            // A rule, or the policy; one line for each chain.
            if let Some(hook) = hook.take() {
                found.push(format!("{table} {name} (hook {hook})"));
            }
        }
    }
    found
}

/// The hooks of Netfilter that do not see the UDP requests which are answered before them.
fn bypassed_hooks(system: &System, general: &Stats) -> Vec<&'static str> {
    let is_open = |prefix: &str| {
        let mut paths = RECEIVE_PATHS.iter();
        paths.any(|(_, name)| name.starts_with(prefix) && general.get(name) == Some("open"))
    };
    // XDP's paths are open without a program, too.
    let by_xdp = is_open("hippos_xdp_") && !system.names(PINS).is_empty();
    let by_hook = is_open("hippos_hook_");
    if !by_xdp && !by_hook {
        return Vec::new();
    }
    // With `late` the hook comes after prerouting (docs/fast-path.md).
    let is_late = system.parameter("udp_fast").as_deref() == Some("late");
    let mut hooks = vec!["input"];
    if by_xdp || !is_late {
        hooks.push("prerouting");
    }
    // PRE_ROUTING comes after Netfilter's ingress, XDP before it.
    if by_xdp {
        hooks.push("ingress");
    }
    hooks
}

/// The chains of this machine's firewall that do not see the UDP requests which are answered before them; empty if no
/// receive path is open, or if the firewall can't be read.
pub(crate) fn bypassed(system: &System, general: &Stats) -> Vec<String> {
    let hooks = bypassed_hooks(system, general);
    if hooks.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for file in ["ip_tables_names", "ip6_tables_names"] {
        let tables = system
            .read(&format!("/proc/net/{file}"))
            .unwrap_or_default();
        let version = file.trim_end_matches("_tables_names");
        let tables = tables.lines().filter(|table| match *table {
            "nat" => false,
            "raw" | "mangle" => hooks.contains(&"prerouting"),
            _ => true,
        });
        found.extend(tables.map(|table| format!("{version}tables-legacy {table}")));
    }
    if system.is_host() {
        let listed = Command::new("nft").args(["list", "ruleset"]).output();
        let listed = listed.map(|output| output.stdout).unwrap_or_default();
        found.extend(chains(&String::from_utf8_lossy(&listed), &hooks));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::Folder;

    #[test]
    fn chains_for_incoming_packets_that_do_something_are_found() {
        let ruleset = "table inet filter {
            set bad {
                type ipv4_addr
            }
            chain input {
                type filter hook input priority filter; policy accept;
                ip saddr @bad drop
                tcp dport 22 accept
            }
            chain empty {
                type filter hook prerouting priority raw; policy accept;
            }
            chain closed {
                type filter hook input priority filter + 1; policy drop;
            }
            chain output {
                type filter hook output priority filter; policy drop;
                accept
            }
            chain other {
                accept
            }
        }
        table ip6 raw {
            chain pre {
                type filter hook prerouting priority raw; policy accept;
                udp dport 11211 drop
            }
        }";
        assert_eq!(
            chains(ruleset, &["input", "prerouting"]),
            [
                "inet filter input (hook input)",
                "inet filter closed (hook input)",
                "ip6 raw pre (hook prerouting)"
            ]
        );
        let input = chains(ruleset, &["input"]);
        assert!(input.iter().all(|chain| chain.ends_with("(hook input)")));
        assert_eq!(input.len(), 2);
    }

    #[test]
    fn chains_of_arp_and_of_bridges_are_met_or_never_concern_requests() {
        let ruleset = "table arp filter {
            chain input {
                type filter hook input priority filter; policy drop;
            }
        }
        table bridge filter {
            chain pre {
                type filter hook prerouting priority filter; policy accept;
                drop
            }
        }
        table netdev cards {
            chain eth0 {
                type filter hook ingress device \"eth0\" priority 0; policy accept;
                drop
            }
        }";
        let all = ["input", "prerouting", "ingress"];
        assert_eq!(chains(ruleset, &all), ["netdev cards eth0 (hook ingress)"]);
        assert!(chains(ruleset, &["input", "prerouting"]).is_empty());
    }

    /// The hooks and the tables of iptables that each setting bypasses.
    #[test]
    fn prerouting_is_bypassed_unless_late_and_ingress_by_xdp_alone() {
        const TABLES: (&str, &str) = ("/proc/net/ip_tables_names", "raw\nmangle\nfilter\n");
        const PIN: (&str, &str) = ("/sys/fs/bpf/hippos/eth0", "");
        let late = ("/sys/module/hippos/parameters/udp_fast", "late\n");
        let auto = ("/sys/module/hippos/parameters/udp_fast", "1\n");
        let both = "hippos_hook_ipv4 open,hippos_xdp_ipv4 open";
        let by_nat = "hippos_hook_ipv4 open,hippos_xdp_ipv4 nat";
        let by_xdp = "hippos_hook_ipv4 nat,hippos_xdp_ipv4 open";
        for (number, (files, general, hooks)) in [
            (&[TABLES, auto][..], both, &["input", "prerouting"][..]),
            (
                &[TABLES, auto, PIN],
                both,
                &["input", "prerouting", "ingress"],
            ),
            (&[TABLES, late], both, &["input"]),
            (
                &[TABLES, late, PIN],
                both,
                &["input", "prerouting", "ingress"],
            ),
            (&[TABLES, late, PIN], by_nat, &["input"]),
            (
                &[TABLES, auto, PIN],
                by_xdp,
                &["input", "prerouting", "ingress"],
            ),
            (&[TABLES, auto], by_xdp, &[]),
        ]
        .into_iter()
        .enumerate()
        {
            let folder = Folder::new(&format!("firewall-hooks-{number}"), files);
            let general = Stats::of(&general.split(',').collect::<Vec<_>>());
            let system = folder.system();
            assert_eq!(bypassed_hooks(&system, &general), hooks, "{number}");
            let tables: &[_] = match hooks.len() {
                0 => &[],
                1 => &["iptables-legacy filter"],
                _ => &[
                    "iptables-legacy raw",
                    "iptables-legacy mangle",
                    "iptables-legacy filter",
                ],
            };
            assert_eq!(bypassed(&system, &general), tables, "{number}");
        }
    }

    #[test]
    fn tables_of_iptables_are_bypassed_while_a_path_is_open() {
        let folder = Folder::new(
            "firewall",
            &[("/proc/net/ip_tables_names", "filter\nnat\n")],
        );
        let of = |state: &str| {
            let general = Stats::of(&[&format!("hippos_hook_ipv4 {state}")]);
            bypassed(&folder.system(), &general)
        };
        assert_eq!(of("open"), ["iptables-legacy filter"]);
        assert!(of("off").is_empty());
    }
}
