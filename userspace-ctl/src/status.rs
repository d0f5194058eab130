// SPDX-License-Identifier: GPL-2.0-only
//! Which ways of answering UDP are open, and why a closed one is closed.

use anyhow::{Context, Result};
use std::fmt::Write;

/// The ways before the socket: their names and their statistics (docs/doors.md).
const WAYS: [(&str, &str); 4] = [
    ("PRE_ROUTING, IPv4", "hippos_hook_ipv4"),
    ("PRE_ROUTING, IPv6", "hippos_hook_ipv6"),
    ("XDP, IPv4", "hippos_xdp_ipv4"),
    ("XDP, IPv6", "hippos_xdp_ipv6"),
];

/// What a value of these statistics means.
fn meaning(value: &str) -> String {
    match value {
        "open" => "open".into(),
        "off" => "closed: the module was loaded with udp_fast=0 or udp=0".into(),
        "nat" => "closed: a NAT chain has rules, which the reply would miss; \
                  udp_fast=late serves behind them, udp_fast=always before them"
            .into(),
        "output" | "postrouting" => format!(
            "closed: {} has rules or a policy that the reply would miss; udp_fast=always \
             ignores them",
            value.to_ascii_uppercase()
        ),
        other => format!("closed: {other}"),
    }
}

/// One line for each way, of the general statistics.
///
/// # Errors
///
/// The module does not list a way: it is of another version.
pub(crate) fn lines(stats: &[(&str, &str)]) -> Result<String> {
    let mut out = String::new();
    for (title, name) in WAYS {
        let value = stats.iter().find(|(have, _)| *have == name);
        let (_, value) = value.with_context(|| format!("the module has no statistic {name}"))?;
        writeln!(out, "{title}: {}", meaning(value)).expect("a String takes all");
    }
    Ok(out)
}

/// The same for programs: the statistics as they are.
pub(crate) fn only<'a>(stats: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let of_ways = |name: &str| WAYS.iter().any(|(_, way)| *way == name);
    stats
        .iter()
        .copied()
        .filter(|(name, _)| of_ways(name) || name.starts_with("hippos_route_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: [(&str, &str); 6] = [
        ("pid", "0"),
        ("hippos_hook_ipv4", "nat"),
        ("hippos_hook_ipv6", "open"),
        ("hippos_xdp_ipv4", "postrouting"),
        ("hippos_xdp_ipv6", "off"),
        ("hippos_route_lookups", "7"),
    ];

    #[test]
    fn each_way_has_a_line_with_the_reason_and_the_remedy() {
        let lines = lines(&STATS).unwrap();
        let of = |title: &str| lines.lines().find(|line| line.starts_with(title)).unwrap();
        assert!(of("PRE_ROUTING, IPv4").contains("NAT chain"), "{lines}");
        assert!(of("PRE_ROUTING, IPv4").contains("udp_fast=late"), "{lines}");
        assert_eq!(of("PRE_ROUTING, IPv6"), "PRE_ROUTING, IPv6: open");
        assert!(of("XDP, IPv4").contains("POSTROUTING"), "{lines}");
        assert!(of("XDP, IPv6").contains("udp_fast=0"), "{lines}");
        assert_eq!(lines.lines().count(), WAYS.len());
    }

    #[test]
    fn a_module_without_these_statistics_is_an_error() {
        assert!(lines(&STATS[..3]).is_err());
    }

    #[test]
    fn programs_get_ways_and_look_ups_alone() {
        assert_eq!(only(&STATS), STATS[1..]);
    }
}
