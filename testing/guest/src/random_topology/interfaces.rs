// SPDX-License-Identifier: GPL-2.0-only
//! Interfaces upon interfaces, their settings, addresses and neighbours.

use std::net::Ipv4Addr;

use super::{ipv6, Draw, Interface};
use crate::tap::text;
use crate::topology::NEAR;

/// A VLAN's number.
pub(super) const VLAN: u16 = 5;

impl Draw {
    /// Interfaces upon interfaces. All cards are down before.
    pub(super) fn stack(&mut self) {
        let plain = |card: usize| Interface {
            name: ["e0", "e1"][card],
            cards: vec![card],
            mac: NEAR[card],
            vlan: None,
            net: 200 + card as u8,
        };
        match self.random.below(12) {
            0 | 1 => self.bond(),
            2 => self.bridge(),
            _ => {
                self.note("plain cards");
                for card in 0..2 {
                    let interface = plain(card);
                    self.line(format!("ip link set {} up", interface.name));
                    self.interfaces.push(interface);
                }
            }
        }
        // A bridge of one card leaves the other.
        if self.interfaces[0].cards == [0] && self.interfaces.len() == 1 {
            self.line("ip link set e1 up");
            self.interfaces.push(plain(1));
        }
        if self.feature(3, "VLAN") {
            let below = self.some_interface();
            let below = self.interfaces[below].clone();
            let own = self.feature(4, "VLAN with a MAC of its own");
            let mac = if own { [2, 0, 0, 0, 9, 5] } else { below.mac };
            self.line(format!(
                "ip link add link {} name v5 address {} type vlan id {VLAN}",
                below.name,
                text(mac)
            ));
            self.line("ip link set v5 up");
            self.line("wait v5");
            self.undo("ip link del v5");
            if self.feature(3, "a VLAN's priorities") {
                self.line("ip link set v5 type vlan egress 0:3");
            }
            self.interfaces.push(Interface {
                name: "v5",
                mac,
                vlan: Some(VLAN),
                net: 205,
                ..below
            });
        }
        if self.interfaces.len() > 1 && self.feature(8, "VRF") {
            let inside = self.interfaces[self.interfaces.len() - 1].name;
            self.line("ip link add vrf0 type vrf table 300");
            self.line("ip link set vrf0 up");
            self.line(format!("ip link set {inside} master vrf0"));
            // A card is up at once, and its state unknown.
            if inside != "e1" {
                self.line(format!("wait {inside}"));
            }
            self.undo("ip link del vrf0");
            let accept = self.random.below(2);
            self.sysctl("net.ipv4.udp_l3mdev_accept", accept, 0);
        }
        if self.feature(6, "a short MTU") {
            let interface = self.some_interface();
            let name = self.interfaces[interface].name;
            let mtu = *self.random.pick(&[1280, 1300, 1400]);
            self.line(format!("ip link set {name} mtu {mtu}"));
            for card in ["e0", "e1"] {
                self.undo(format!("ip link set {card} mtu 1500"));
            }
        }
        if self.feature(4, "a dummy with addresses") {
            self.line("ip link add d0 type dummy");
            self.line("ip link set d0 up");
            self.line("ip addr add 10.78.0.1/32 dev d0");
            self.line("ip addr add fd78::1/128 dev d0 nodad");
            self.undo("ip link del d0");
            self.own4.push(Ipv4Addr::new(10, 78, 0, 1));
            self.drawn.own6.push(ipv6("fd78::1"));
        }
        if self.feature(4, "addresses on lo") {
            for (address, rest) in [("10.77.0.1/32", ""), ("fd77::1/128", " nodad")] {
                self.line(format!("ip addr add {address} dev lo{rest}"));
                self.undo(format!("ip addr del {address} dev lo"));
            }
            self.own4.push(Ipv4Addr::new(10, 77, 0, 1));
            self.drawn.own6.push(ipv6("fd77::1"));
        }
    }

    fn bond(&mut self) {
        let policy = *self
            .random
            .pick(&["layer2", "layer2+3", "layer3+4", "vlan+srcmac"]);
        // By load, balance-tlb would choose otherwise each time.
        let (name, mode) = match self.random.below(3) {
            0 => ("bond, active-backup", "active-backup".to_owned()),
            1 => (
                "bond, balance-xor",
                format!("balance-xor xmit_hash_policy {policy}"),
            ),
            _ => (
                "bond, balance-tlb",
                format!("balance-tlb tlb_dynamic_lb 0 xmit_hash_policy {policy}"),
            ),
        };
        self.note(name);
        self.line(format!("ip link add b0 type bond mode {mode}"));
        self.line("ip link set e0 master b0");
        self.line("ip link set e1 master b0");
        self.line("ip link set b0 up");
        self.line("wait b0");
        if name == "bond, active-backup" && self.random.one_in(2) {
            self.line("ip link set b0 type bond active_slave e1");
        }
        for undo in [
            "ip link del b0",
            "ip link set e0 nomaster",
            "ip link set e1 nomaster",
        ] {
            self.undo(undo);
        }
        self.interfaces.push(Interface {
            name: "b0",
            cards: vec![0, 1],
            mac: NEAR[0],
            vlan: None,
            net: 200,
        });
    }

    fn bridge(&mut self) {
        self.note("bridge");
        let cards = if self.random.one_in(2) {
            vec![0]
        } else {
            vec![0, 1]
        };
        let mac = text(NEAR[0]);
        self.line(format!("ip link add br0 address {mac} type bridge"));
        for &card in &cards {
            self.line(format!("ip link set e{card} master br0"));
            self.line(format!("ip link set e{card} up"));
        }
        self.line("ip link set br0 up");
        self.line("wait br0");
        self.undo("ip link del br0");
        self.interfaces.push(Interface {
            name: "br0",
            cards,
            mac: NEAR[0],
            vlan: None,
            net: 200,
        });
    }

    /// Settings by sysctl.
    pub(super) fn knobs(&mut self) {
        let names: Vec<&str> = self.interfaces.iter().map(|i| i.name).collect();
        if self.feature(6, "rp_filter of all") {
            let filter = 1 + self.random.below(2);
            self.sysctl("net.ipv4.conf.all.rp_filter", filter, 0);
        }
        for name in names {
            let filter = self.random.below(4).saturating_sub(1);
            if filter > 0 {
                self.note(["", "rp_filter 1", "rp_filter 2"][filter]);
                self.sysctl(&format!("net.ipv4.conf.{name}.rp_filter"), filter, 0);
            }
            for (feature, knob) in [
                ("accept_local", "accept_local"),
                ("route_localnet", "route_localnet"),
                ("src_valid_mark", "src_valid_mark"),
                (
                    "drop_unicast_in_l2_multicast",
                    "drop_unicast_in_l2_multicast",
                ),
            ] {
                if self.feature(10, feature) {
                    self.sysctl(&format!("net.ipv4.conf.{name}.{knob}"), 1, 0);
                }
            }
            if self.feature(6, "hop_limit") {
                let limit = 1 + self.random.below(255);
                self.sysctl(&format!("net.ipv6.conf.{name}.hop_limit"), limit, 64);
            }
        }
        if self.feature(4, "ip_default_ttl") {
            let ttl = 1 + self.random.below(255);
            self.sysctl("net.ipv4.ip_default_ttl", ttl, 64);
        }
        if self.feature(6, "forwarding, IPv4") {
            self.sysctl("net.ipv4.ip_forward", 1, 0);
        }
        if self.feature(6, "forwarding, IPv6") {
            self.sysctl("net.ipv6.conf.all.forwarding", 1, 0);
        }
        if self.feature(6, "fib_multipath_hash_policy") {
            let policy = 1 + self.random.below(2);
            self.drawn.hash_by_ports = policy == 1;
            self.sysctl("net.ipv4.fib_multipath_hash_policy", policy, 0);
            self.sysctl("net.ipv6.fib_multipath_hash_policy", policy, 0);
        }
        if self.feature(8, "fib_multipath_use_neigh") {
            self.sysctl("net.ipv4.fib_multipath_use_neigh", 1, 0);
        }
    }

    fn address(&mut self, interface: usize, address: &str, rest: &str) {
        let name = self.interfaces[interface].name;
        self.line(format!("ip addr add {address} dev {name}{rest}"));
        let own = address.split(['/', ' ']).next().unwrap_or(address);
        if let Ok(own) = own.parse() {
            self.own4.push(own);
        } else {
            self.drawn.own6.push(ipv6(own));
        }
    }

    /// Several of each kind; a kind's network has a station, number 2.
    pub(super) fn addresses(&mut self) {
        for i in 0..self.interfaces.len() {
            let net = self.interfaces[i].net;
            self.address(i, &format!("10.9.{net}.1/24"), "");
            self.address(i, &format!("fd09:{net}::1/64"), " nodad");
            if self.feature(4, "secondary addresses") {
                self.address(i, &format!("10.9.{net}.7/24"), "");
                self.address(i, &format!("fd09:{net}::7/64"), " nodad");
            }
            for (feature, number, prefix, rest) in [
                ("several networks, IPv4", 60, "/25", ""),
                ("a network of two, IPv4", 61, "/31", ""),
                ("a peer's address, IPv4", 62, " peer", ""),
                ("deprecated addresses, IPv4", 63, "/24", " preferred_lft 0"),
                ("another broadcast address", 64, "/24", " brd 10.64.0.77"),
                ("noprefixroute, IPv4", 65, "/24", " noprefixroute"),
                ("addresses of a link's scope", 66, "/24", " scope link"),
            ] {
                if !self.feature(9, feature) {
                    continue;
                }
                let own = if prefix == "/31" { 3 } else { 1 };
                let station = Ipv4Addr::new(10, number, net, 2);
                let prefix = match prefix {
                    " peer" => format!(" peer {station}/32"),
                    prefix => prefix.to_owned(),
                };
                let rest = rest.replace("64.0.77", &format!("64.{net}.77"));
                self.address(i, &format!("10.{number}.{net}.{own}{prefix}"), &rest);
                self.near4.push((i, station));
            }
            for (feature, number, prefix, rest) in [
                ("several prefixes, IPv6", 60, "/64", ""),
                ("addresses without a network, IPv6", 61, "/128", ""),
                ("a peer's address, IPv6", 62, " peer", ""),
                ("deprecated addresses, IPv6", 63, "/64", " preferred_lft 0"),
                ("noprefixroute, IPv6", 64, "/64", " noprefixroute"),
            ] {
                if !self.feature(7, feature) {
                    continue;
                }
                let station = ipv6(&format!("fd{number}:{net}::2"));
                let prefix = match prefix {
                    " peer" => format!(" peer {station}/128"),
                    prefix => prefix.to_owned(),
                };
                let own = format!("fd{number}:{net}::1{prefix}");
                self.address(i, &own, &format!("{rest} nodad"));
                self.near6.push((i, station));
            }
            if self.feature(4, "link-local addresses, IPv6") {
                self.address(i, "fe80::1/64", " nodad");
                self.near6.push((i, ipv6("fe80::2")));
            }
        }
    }

    pub(super) fn neighbour(&mut self, interface: usize, number: u8, address: String) {
        let interface = self.interfaces[interface].clone();
        let name = interface.name;
        let mut mac = interface.station(number);
        let mut state = "permanent";
        match self.random.below(30) {
            0 => {
                self.note("a neighbour with another's MAC");
                mac = interface.station(3);
            }
            1 => {
                self.note("a neighbour with the MAC of all");
                mac = *self.random.pick(&[[255; 6], [1, 0, 94, 1, 2, 3]]);
            }
            2 => {
                self.note("a failed neighbour");
                return self.line(format!("ip neigh replace {address} dev {name} nud failed"));
            }
            3 => return self.note("an unknown neighbour"),
            4 => {
                self.note("a stale neighbour");
                state = "stale";
            }
            5 => {
                self.note("a reachable neighbour");
                state = "reachable";
            }
            6 => {
                self.note("a neighbour without ARP");
                state = "noarp";
            }
            7 => {
                self.note("a neighbour with the host's own MAC");
                mac = interface.mac;
            }
            _ => {}
        }
        self.line(format!(
            "ip neigh replace {address} lladdr {} dev {name} nud {state}",
            text(mac)
        ));
    }

    pub(super) fn neighbours(&mut self) {
        for i in 0..self.interfaces.len() {
            let interface = self.interfaces[i].clone();
            for number in [2, 3] {
                self.neighbour(i, number, interface.ipv4(number).to_string());
                self.neighbour(i, number, interface.ipv6(number).to_string());
            }
            if self.feature(6, "proxied neighbours") {
                let name = interface.name;
                for address in [
                    format!("10.9.{}.50", interface.net),
                    interface.ipv6(50).to_string(),
                ] {
                    self.line(format!("ip neigh add proxy {address} dev {name}"));
                    self.undo(format!("ip neigh del proxy {address} dev {name}"));
                }
                self.sysctl(&format!("net.ipv4.conf.{name}.proxy_arp"), 1, 0);
            }
        }
        for (interface, address) in self.near4.clone() {
            self.neighbour(interface, 2, address.to_string());
        }
        for (interface, address) in self.near6.clone() {
            self.neighbour(interface, 2, address.to_string());
        }
    }
}
