// SPDX-License-Identifier: GPL-2.0-only
//! Nexthop objects, routes and rules.

use std::net::IpAddr;

use super::{Draw, MARK};

/// The networks of hosts whose requests the rules match.
const TWO_WAYS4: &str = "192.0.2.0/25";
const TWO_WAYS6: &str = "2001:db8:2::/48";
const REMOTE4: [&str; 5] = [
    "8.8.0.0/16",
    "8.8.8.0/24",
    "10.77.0.0/16",
    "198.51.100.0/24",
    "0.0.0.0/0",
];
const REMOTE6: [&str; 4] = [
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1:2::/64",
    "::/0",
];
/// Ways to nowhere.
const NOWHERE: [&str; 3] = ["blackhole", "unreachable", "prohibit"];

impl Draw {
    /// A next hop: an address and its interface. No host has number 4.
    fn hop(&mut self, family6: bool) -> (String, &'static str) {
        let interface = self.some_interface();
        let interface = &self.interfaces[interface];
        let number = *self.random.pick(&[2, 2, 2, 3, 3, 4]);
        let address = match family6 {
            true => interface.ipv6(number).to_string(),
            false => interface.ipv4(number).to_string(),
        };
        (address, interface.name)
    }

    pub(super) fn nexthop_objects(&mut self) {
        for (family6, first, feature) in [
            (false, 1, "nexthop objects, IPv4"),
            (true, 21, "nexthop objects, IPv6"),
        ] {
            if !self.feature(4, feature) {
                continue;
            }
            for id in first..first + 3 {
                let (hop, name) = self.hop(family6);
                self.line(format!("ip nexthop add id {id} via {hop} dev {name}"));
            }
            let (one, two) = (first, first + 1);
            let group = first + 10;
            self.line(format!("ip nexthop add id {group} group {one},5/{two},3"));
            let mut ids = vec![first, first + 2, group];
            if self.feature(3, "a nexthop object to nowhere") {
                let family = if family6 { "-6 " } else { "" };
                self.line(format!("ip {family}nexthop add id {} blackhole", first + 4));
                ids.push(first + 4);
            }
            self.nexthops[usize::from(family6)] = ids;
        }
    }

    fn metrics(&mut self, family6: bool) -> String {
        match self.random.below(12) {
            0 => {
                self.note("a route's mtu");
                format!(" mtu {}", self.random.pick(&[1300, 1280, 1400]))
            }
            1 => {
                self.note("a route's mtu lock");
                format!(" mtu lock {}", self.random.pick(&[1300, 1280, 1400]))
            }
            2 => {
                self.note("a route's hoplimit");
                format!(" hoplimit {}", 1 + self.random.below(255))
            }
            3 => " advmss 900".into(),
            4 if !family6 => {
                self.note("a route's src");
                format!(" src {}", self.random.pick(&self.own4))
            }
            5 => {
                self.note("a route's metric");
                format!(" metric {}", 10 + self.random.below(3))
            }
            6 if !family6 => {
                self.note("a route for a TOS");
                " tos 0x10".into()
            }
            _ => String::new(),
        }
    }

    /// Routes of a table, the main one if it has no name.
    pub(super) fn routes(&mut self, table: &str) {
        for prefix in REMOTE4 {
            self.route(prefix, false, table);
        }
        for prefix in REMOTE6 {
            self.route(prefix, true, table);
        }
    }

    fn route(&mut self, prefix: &str, family6: bool, table: &str) {
        let table = match table {
            "" => String::new(),
            table => format!(" table {table}"),
        };
        let (hop, name) = self.hop(family6);
        // No route for some prefixes, since a route hides those of shorter prefixes.
        match self.random.below(16) {
            0..=3 => {}
            4 => {
                let kind = *self.random.pick(&NOWHERE);
                self.note(kind);
                self.line(format!("ip route add {kind} {prefix}{table}"));
                self.undo(format!("ip route del {kind} {prefix}{table}"));
            }
            5 => {
                self.note("routes without a gateway");
                self.line(format!("ip route add {prefix} dev {name}{table}"));
            }
            6 | 7 => {
                self.note("several next hops");
                let (other, other_name) = self.hop(family6);
                self.line(format!(
                    "ip route add {prefix}{table} nexthop via {hop} dev {name} weight 2 nexthop via {other} dev {other_name}"
                ));
            }
            8 if !self.nexthops[usize::from(family6)].is_empty() => {
                self.note("routes by nexthop objects");
                let id = *self.random.pick(&self.nexthops[usize::from(family6)]);
                self.line(format!("ip route add {prefix} nhid {id}{table}"));
            }
            9 if !family6 => {
                self.note("an IPv6 gateway for IPv4");
                let (hop, name) = self.hop(true);
                self.line(format!(
                    "ip route add {prefix} via inet6 {hop} dev {name}{table}"
                ));
            }
            10 => {
                self.note("onlink");
                let (hop, interface) = (self.random.below(200), self.some_interface());
                let hop = match family6 {
                    true => format!("fd66::{hop:x}"),
                    false => format!("10.67.0.{hop}"),
                };
                let name = self.interfaces[interface].name;
                self.neighbour(interface, 3, hop.clone());
                self.line(format!(
                    "ip route add {prefix} via {hop} dev {name} onlink{table}"
                ));
            }
            11 if !table.is_empty() => {
                self.note("throw");
                self.line(format!("ip route add throw {prefix}{table}"));
                self.undo(format!("ip route del throw {prefix}{table}"));
            }
            _ => {
                self.note("routes by a gateway");
                let metrics = self.metrics(family6);
                self.line(format!(
                    "ip route add {prefix} via {hop} dev {name}{metrics}{table}"
                ));
            }
        }
    }

    pub(super) fn rules(&mut self) {
        let families = [
            self.feature(2, "rules, IPv4"),
            self.feature(2, "rules, IPv6"),
        ];
        if !families.contains(&true) {
            return;
        }
        self.routes("100");
        self.two_ways();
        // lo and the marker's card stay reachable.
        let kept = [
            ("", "pref 3 to 10.9.250.1 lookup local"),
            ("", "pref 4 to 127.0.0.0/8 lookup local"),
            ("", "pref 5 to 10.9.250.0/24 lookup main"),
            ("-6 ", "pref 4 to ::1 lookup local"),
        ];
        for (family, rule) in kept {
            self.line(format!("ip {family}rule add {rule}"));
            self.undo(format!("ip {family}rule del {rule}"));
        }
        for family6 in [false, true] {
            if !families[usize::from(family6)] {
                continue;
            }
            let family = if family6 { "-6 " } else { "" };
            if self.feature(6, "the local table behind rules") {
                self.line(format!("ip {family}rule add pref 32000 lookup local"));
                self.line(format!("ip {family}rule del pref 0"));
                self.undo(format!("ip {family}rule del pref 32000"));
                self.undo(format!("ip {family}rule add pref 0 lookup local"));
            }
            for pref in 100..101 + self.random.below(3) {
                let selector = self.selector(family6);
                let action = match self.random.below(10) {
                    0 if selector.starts_with("to ") || selector.starts_with("from ") => {
                        self.note("rules to nowhere");
                        (*self.random.pick(&NOWHERE)).to_owned()
                    }
                    1 => {
                        self.note("suppress_prefixlength");
                        "lookup main suppress_prefixlength 0".into()
                    }
                    _ => "lookup 100".into(),
                };
                self.line(format!(
                    "ip {family}rule add pref {pref} {selector} {action}"
                ));
                self.undo(format!("ip {family}rule del pref {pref}"));
            }
        }
    }

    /// A network that has one next hop by the main table, if no other route is drawn for it, and
    /// another one by the rules' table: a reply's next hop shows which table was used.
    fn two_ways(&mut self) {
        let interface = self.interfaces[0].clone();
        let name = interface.name;
        for (prefix, one, other) in [
            (
                TWO_WAYS4,
                interface.ipv4(2).to_string(),
                interface.ipv4(3).to_string(),
            ),
            (
                TWO_WAYS6,
                interface.ipv6(2).to_string(),
                interface.ipv6(3).to_string(),
            ),
        ] {
            self.line(format!("ip route add {prefix} via {one} dev {name}"));
            self.line(format!(
                "ip route add {prefix} via {other} dev {name} table 100"
            ));
        }
    }

    /// The selector of a rule.
    fn selector(&mut self, family6: bool) -> String {
        let interface = self.some_interface();
        let interface = self.interfaces[interface].name;
        let remote = match family6 {
            true => *self.random.pick(&REMOTE6[..3]),
            false => *self.random.pick(&REMOTE4[..4]),
        };
        let own = match family6 {
            true => self.random.pick(&self.drawn.own6).to_string(),
            false => self.random.pick(&self.own4).to_string(),
        };
        let (feature, text) = match self.random.below(20) {
            0..=4 => ("a rule from", format!("from {own}")),
            5 | 6 => ("a rule from", format!("from {remote}")),
            7..=9 => ("a rule to", format!("to {remote}")),
            10 | 11 => ("a rule iif", format!("iif {interface}")),
            12 => ("a rule iif", "iif lo".into()),
            13 | 14 => ("a rule by fwmark", format!("fwmark {MARK}")),
            15 => ("a rule that is turned round", format!("not from {own}")),
            16 => ("a rule by uid", "uidrange 0-0".into()),
            17 => ("a rule by TOS", "tos 0x10".into()),
            18 => ("a rule oif", format!("oif {interface}")),
            _ => {
                let port = *self.random.pick(&self.ports);
                if self.random.one_in(2) {
                    ("a rule by ports", format!("ipproto 17 dport {port}"))
                } else {
                    let text = format!("iif lo ipproto 17 dport {port}");
                    ("a rule by ports of what this host sends", text)
                }
            }
        };
        self.note(feature);
        if text.ends_with(&own) {
            self.ruled.extend(own.parse::<IpAddr>());
        }
        text
    }
}
