// SPDX-License-Identifier: GPL-2.0-only
//! Requests and their senders.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hippos_client::framed;

use super::interfaces::VLAN;
use super::{ipv6, Ask, Draw, ASKS, HUGE, TRANSLATED_PORT};
use crate::request::{long, short};
use crate::tap::{text, Addresses, Checksum, Datagram};
use crate::topology::NEAR;

/// Hosts of networks with two ways.
const TWO_WAYS4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const TWO_WAYS6: &str = "2001:db8:2::77";
/// In a tag.
const PRIORITY: u16 = 3 << 13;

const HOSTS4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(8, 8, 8, 8),
    Ipv4Addr::new(8, 8, 9, 9),
    Ipv4Addr::new(10, 77, 0, 7),
    Ipv4Addr::new(198, 51, 100, 5),
    Ipv4Addr::new(203, 0, 113, 9),
];
const MARTIANS: [Ipv4Addr; 8] = [
    Ipv4Addr::new(0, 0, 0, 0),
    Ipv4Addr::new(0, 1, 2, 3),
    Ipv4Addr::new(127, 0, 0, 1),
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(240, 1, 1, 1),
    Ipv4Addr::new(255, 255, 255, 255),
    Ipv4Addr::new(169, 254, 1, 1),
    Ipv4Addr::new(192, 0, 2, 9),
];
const HOSTS6: [&str; 9] = [
    "2001:db8::8",
    "2001:db8:1::8",
    "2001:db8:1:2::8",
    "2001:470::9",
    "fd00::9",
    "::",
    "::1",
    "ff02::1",
    "::ffff:8.8.8.8",
];

impl Draw {
    pub(super) fn asks(&mut self) {
        let mut last: Option<(usize, Datagram)> = None;
        for number in 0..ASKS {
            // The first is one that most topologies answer.
            let usual = number == 0 || self.random.one_in(3);
            let (card, mut datagram) = match last.clone() {
                // The same way once more: an entry that is there already.
                Some(last) if !usual && self.random.one_in(3) => last,
                _ => self.addressed(usual, number),
            };
            datagram.from_port = self.ports[number];
            let (what, payload) = match self.random.below(9) {
                0 | 1 => ("long", long()),
                2 => ("huge", framed(9, format!("get {}\r\n", HUGE.0).as_bytes())),
                3 => ("several keys", framed(9, b"get key long none\r\n")),
                4 => ("meta", framed(9, b"mg key v k\r\n")),
                5 => ("miss", framed(9, b"get none\r\n")),
                6 if self.random.one_in(3) => {
                    ("nonsense", b"\0\x01\0\0\0\x01\0\0nonsense".to_vec())
                }
                _ => ("short", short()),
            };
            datagram.payload = payload;
            let about = format!(
                "{what} from {} port {} ({}) to {} port {} ({}) by e{card}{}",
                address(&datagram, 0),
                datagram.from_port,
                text(datagram.from_mac),
                address(&datagram, 1),
                datagram.to_port,
                text(datagram.to_mac),
                datagram
                    .vlan
                    .map_or(String::new(), |tag| format!(", tag {tag:#x}")),
            );
            self.drawn.asks.push(Ask {
                card,
                datagram: datagram.clone(),
                about,
            });
            last = Some((card, datagram));
        }
    }

    /// The card, sender and receiver of a request. A usual sender is a station on the interface's link.
    fn addressed(&mut self, usual: bool, number: usize) -> (usize, Datagram) {
        if number > 0 && !self.ruled.is_empty() && self.random.one_in(3) {
            return self.ruled();
        }
        let i = if number == 0 {
            0
        } else {
            self.some_interface()
        };
        let interface = self.interfaces[i].clone();
        let family6 = number > 0 && self.random.one_in(3);
        let addresses = if family6 {
            let (from, to) = match usual {
                true => (interface.ipv6(2), interface.ipv6(1)),
                false => (self.source6(i), self.target6(i)),
            };
            Addresses::Ipv6(from.octets(), to.octets())
        } else {
            let (from, to) = match usual {
                true => (interface.ipv4(2), interface.ipv4(1)),
                false => (self.source4(i), self.target4(i)),
            };
            Addresses::Ipv4(from.octets(), to.octets())
        };
        let mut datagram = Datagram {
            to_mac: interface.mac,
            from_mac: interface.station(*self.random.pick(&[2, 2, 3])),
            vlan: interface.vlan,
            addresses,
            ..Datagram::ipv4(&[])
        };
        let card = *self.random.pick(&interface.cards);
        if datagram.vlan.is_some() && self.random.one_in(3) {
            datagram.vlan = Some(VLAN | PRIORITY);
        }
        if usual {
            return (card, datagram);
        }
        match self.random.below(30) {
            0 => datagram.to_mac = [255; 6],
            1 => datagram.to_mac = [2, 0, 0, 0, 9, 99],
            2 => datagram.to_mac = NEAR[card],
            3 if !family6 => datagram.options = vec![1; 4],
            4 => datagram.ttl = 1,
            5 => datagram.checksum = Checksum::Zero,
            6 => datagram.checksum = Checksum::Bad,
            // A tag of no VLAN, for its priority alone.
            7 if datagram.vlan.is_none() => datagram.vlan = Some(PRIORITY),
            10 | 11 => datagram.to_port = TRANSLATED_PORT,
            _ => {}
        }
        (card, datagram)
    }

    /// From a host that has two ways to an address that a rule is about.
    fn ruled(&mut self) -> (usize, Datagram) {
        let interface = self.interfaces[0].clone();
        let addresses = match *self.random.pick(&self.ruled) {
            IpAddr::V4(to) => Addresses::Ipv4(TWO_WAYS4.octets(), to.octets()),
            IpAddr::V6(to) => Addresses::Ipv6(ipv6(TWO_WAYS6).octets(), to.octets()),
        };
        let datagram = Datagram {
            to_mac: interface.mac,
            from_mac: interface.station(3),
            vlan: interface.vlan,
            addresses,
            ..Datagram::ipv4(&[])
        };
        (*self.random.pick(&interface.cards), datagram)
    }

    fn source4(&mut self, i: usize) -> Ipv4Addr {
        let other = self.some_interface();
        let (here, other) = (self.interfaces[i].clone(), self.interfaces[other].clone());
        match self.random.below(20) {
            0..=2 => here.ipv4(2),
            3 | 4 => here.ipv4(3),
            5 => here.ipv4(*self.random.pick(&[4, 9, 50])),
            6..=9 => *self.random.pick(&HOSTS4),
            10 | 11 if !self.near4.is_empty() => self.random.pick(&self.near4).1,
            12 => other.ipv4(2),
            13 => *self.random.pick(&self.own4),
            14 => other.ipv4(*self.random.pick(&[0, 255])),
            15 => Ipv4Addr::new(10, 64, here.net, *self.random.pick(&[77, 255])),
            16 | 17 => *self.random.pick(&MARTIANS),
            _ => *self.random.pick(&HOSTS4),
        }
    }

    fn target4(&mut self, i: usize) -> Ipv4Addr {
        if let (Some(IpAddr::V4(ruled)), true) = (self.ruled.first(), self.random.one_in(2)) {
            return *ruled;
        }
        let here = self.interfaces[i].clone();
        match self.random.below(16) {
            0..=5 => here.ipv4(1),
            6 => here.ipv4(*self.random.pick(&[0, 50, 255])),
            7 => *self.random.pick(&[
                Ipv4Addr::new(255, 255, 255, 255),
                Ipv4Addr::new(224, 0, 0, 1),
                Ipv4Addr::new(127, 0, 0, 1),
                Ipv4Addr::new(10, 77, 0, 9),
                Ipv4Addr::new(8, 8, 8, 9),
            ]),
            _ => *self.random.pick(&self.own4),
        }
    }

    fn source6(&mut self, i: usize) -> Ipv6Addr {
        let other = self.some_interface();
        let (here, other) = (self.interfaces[i].clone(), self.interfaces[other].clone());
        match self.random.below(16) {
            0..=3 => here.ipv6(2),
            4 => here.ipv6(3),
            5 => here.ipv6(*self.random.pick(&[0, 4, 9, 50])),
            6 | 7 if !self.near6.is_empty() => self.random.pick(&self.near6).1,
            8 => other.ipv6(2),
            9 => *self.random.pick(&self.drawn.own6),
            10 => ipv6("fe80::2"),
            _ => self.some_ipv6(&HOSTS6),
        }
    }

    fn target6(&mut self, i: usize) -> Ipv6Addr {
        if let (Some(IpAddr::V6(ruled)), true) = (self.ruled.last(), self.random.one_in(2)) {
            return *ruled;
        }
        let here = self.interfaces[i].clone();
        match self.random.below(16) {
            0..=6 => here.ipv6(1),
            // The second is that of any router of a network.
            7 => here.ipv6(*self.random.pick(&[50, 0])),
            8 => self.some_ipv6(&["ff02::1", "::1", "2001:db8::99", "fe80::1"]),
            _ => *self.random.pick(&self.drawn.own6),
        }
    }
}

/// The source or the destination of a datagram.
fn address(datagram: &Datagram, at: usize) -> String {
    match datagram.addresses {
        Addresses::Ipv4(from, to) => Ipv4Addr::from([from, to][at]).to_string(),
        Addresses::Ipv6(from, to) => Ipv6Addr::from([from, to][at]).to_string(),
    }
}
