// SPDX-License-Identifier: GPL-2.0-only
//! Rules of the firewall that UDP requests do not meet while a receive path before the socket answers them.

use std::process::Command;

use crate::stats::{Stats, RECEIVE_PATHS};
use crate::system::System;

/// The base chains of an `nft list ruleset` that incoming packets pass, and that do something: have rules, or a policy
/// other than accept. Each as `FAMILY TABLE CHAIN (hook HOOK)`.
fn chains(ruleset: &str) -> Vec<String> {
    const HOOKS: [&str; 3] = ["ingress", "prerouting", "input"];
    let (mut table, mut chain, mut found) = ("", None, Vec::new());
    for line in ruleset.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = Some((name.trim_end_matches(" {"), None));
        } else if line == "}" {
            chain = None;
        } else if let Some((name, hook)) = &mut chain {
            if let Some((_, rest)) = line.split_once(" hook ") {
                let word = rest.split([' ', ';']).next().unwrap_or_default();
                *hook = HOOKS.into_iter().find(|hook| *hook == word);
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

/// The chains of this machine's firewall that do not see the UDP requests which are answered before them; empty if no
/// receive path is open, or if the firewall can't be read.
pub(crate) fn bypassed(system: &System, general: &Stats) -> Vec<String> {
    let is_open = |(_, name): &(&str, &str)| general.get(name) == Some("open");
    if !RECEIVE_PATHS.iter().any(is_open) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for file in ["ip_tables_names", "ip6_tables_names"] {
        let tables = system
            .read(&format!("/proc/net/{file}"))
            .unwrap_or_default();
        let version = file.trim_end_matches("_tables_names");
        let tables = tables.lines().filter(|table| *table != "nat");
        found.extend(tables.map(|table| format!("{version}tables-legacy {table}")));
    }
    if system.is_host() {
        let listed = Command::new("nft").args(["list", "ruleset"]).output();
        let listed = listed.map(|output| output.stdout).unwrap_or_default();
        found.extend(chains(&String::from_utf8_lossy(&listed)));
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
            chains(ruleset),
            [
                "inet filter input (hook input)",
                "inet filter closed (hook input)",
                "ip6 raw pre (hook prerouting)"
            ]
        );
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
