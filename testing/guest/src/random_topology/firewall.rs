// SPDX-License-Identifier: GPL-2.0-only
//! Rules of nftables: NAT, for outgoing packets, and for incoming ones.

use super::{Draw, Interface, MARK, TRANSLATED_PORT};

/// The feature's name, a table's family, a chain, and a rule if it has one.
type Rule = (&'static str, &'static str, &'static str, String);

const DSTNAT: &str = "type nat hook prerouting priority dstnat ;";
const SRCNAT: &str = "type nat hook postrouting priority srcnat ;";
const OUTPUT: &str = "type filter hook output priority filter ;";
const DROP_OUTPUT: &str = "type filter hook output priority filter ; policy drop ;";
const ROUTE_OUTPUT: &str = "type route hook output priority mangle ;";
const POSTROUTING: &str = "type filter hook postrouting priority mangle ;";
const RAW: &str = "type filter hook prerouting priority raw ;";
const MANGLE: &str = "type filter hook prerouting priority mangle ;";
const INPUT: &str = "type filter hook input priority filter ;";
const DROP_INPUT: &str = "type filter hook input priority filter ; policy drop ;";

/// NAT, and rules that could see a reply. The marker's card stays out of it, and lo's TCP.
#[rustfmt::skip]
fn leaving(interface: &Interface) -> Vec<Rule> {
    let (station, station6) = (interface.ipv4(2), interface.ipv6(2));
    let (own, own6) = (interface.ipv4(1), interface.ipv6(1));
    let requests = "iifname != \"mark\" udp dport 11211";
    let others = format!("iifname != \"mark\" udp dport {TRANSLATED_PORT}");
    let out = format!("oifname \"{}\"", interface.name);
    let mark = format!("udp sport 11211 meta mark set {MARK}");
    vec![
        ("DNAT, IPv4", "ip", DSTNAT, format!("{requests} ip saddr 8.8.8.0/24 dnat to {station}")),
        ("DNAT, IPv4", "ip", DSTNAT, format!("{requests} ip daddr {own} dnat to {station}")),
        ("DNAT, IPv6", "ip6", DSTNAT, format!("{requests} dnat to {station6}")),
        ("DNAT, inet", "inet", DSTNAT, format!("{requests} dnat ip to {station}")),
        ("DNAT to this host", "ip", DSTNAT, format!("{others} dnat to {own}:11211")),
        ("DNAT to this host", "ip6", DSTNAT, format!("{others} dnat to [{own6}]:11211")),
        ("redirect", "ip", DSTNAT, format!("{others} redirect to :11211")),
        ("redirect", "ip6", DSTNAT, format!("{others} redirect to :11211")),
        ("redirect", "inet", DSTNAT, format!("{others} redirect to :11211")),
        ("masquerade", "ip", SRCNAT, format!("{out} masquerade")),
        ("masquerade", "ip6", SRCNAT, format!("{out} masquerade")),
        ("masquerade", "inet", SRCNAT, format!("{out} masquerade")),
        ("SNAT", "ip", SRCNAT, "ip daddr 8.8.0.0/16 snat to 10.9.200.77".into()),
        ("SNAT", "ip6", SRCNAT, "ip6 daddr 2001:db8::/32 snat to fd09:200::77".into()),
        ("drop in OUTPUT", "ip", OUTPUT, "ip daddr 8.8.0.0/16 drop".into()),
        ("drop in OUTPUT", "ip6", OUTPUT, "ip6 daddr 2001:db8::/32 drop".into()),
        ("a policy of drop in OUTPUT", "inet", DROP_OUTPUT, "oifname { \"lo\", \"mark\" } accept".into()),
        ("marks in OUTPUT", "ip", ROUTE_OUTPUT, mark.clone()),
        ("marks in OUTPUT", "ip6", ROUTE_OUTPUT, mark),
        ("mangling in POSTROUTING", "ip", POSTROUTING, "ip ttl set 7".into()),
        ("mangling in POSTROUTING", "ip6", POSTROUTING, "ip6 hoplimit set 7".into()),
        ("mangling in POSTROUTING", "inet", POSTROUTING, format!("{out} ip dscp set cs3")),
        ("drop in POSTROUTING", "inet", POSTROUTING, format!("{out} udp sport 11211 drop")),
        ("chains without rules", "inet", OUTPUT, String::new()),
        ("chains without rules", "inet", DSTNAT, String::new()),
    ]
}

/// Rules for requests: XDP is before all of them, PRE_ROUTING before the most.
#[rustfmt::skip]
fn coming() -> Vec<Rule> {
    let cards = "iifname != { \"lo\", \"mark\" }";
    vec![
        ("drop in PREROUTING", "inet", RAW, format!("{cards} ip saddr 8.8.0.0/16 drop")),
        ("drop in PREROUTING", "inet", MANGLE, format!("{cards} ip6 saddr 2001:db8::/32 drop")),
        ("marks in PREROUTING", "inet", MANGLE, format!("{cards} udp dport 11211 meta mark set {MARK}")),
        ("drop in INPUT", "inet", INPUT, format!("{cards} ip saddr 10.9.200.0/24 udp dport 11211 drop")),
        ("a policy of drop in INPUT", "inet", DROP_INPUT, "iifname { \"lo\", \"mark\" } accept".into()),
        ("connection tracking in INPUT", "inet", INPUT, "ct state established accept".into()),
    ]
}

/// A table of one chain.
fn lines(table: &str, (_, family, chain, rule): &Rule) -> Vec<String> {
    let mut lines = vec![
        format!("nft add table {family} {table}"),
        format!("nft add chain {family} {table} c {{ {chain} }}"),
    ];
    if !rule.is_empty() {
        lines.push(format!("nft add rule {family} {table} c {rule}"));
    }
    lines
}

impl Draw {
    /// Rules that the receive paths before the socket close for.
    pub(super) fn firewall(&mut self) {
        if !self.random.one_in(4) {
            return;
        }
        let interface = self.some_interface();
        let rule = self
            .random
            .pick(&leaving(&self.interfaces[interface]))
            .clone();
        self.note(rule.0);
        self.drawn.lines.extend(lines("t", &rule));
        self.undo(format!("nft delete table {} t", rule.1));
    }

    /// Rules that they do not meet.
    pub(super) fn input_rules(&mut self) {
        if !self.random.one_in(6) {
            return;
        }
        let rule = self.random.pick(&coming()).clone();
        self.note(rule.0);
        self.drawn.input_rules = lines("i", &rule);
    }
}
