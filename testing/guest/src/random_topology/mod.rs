// SPDX-License-Identifier: GPL-2.0-only
//! Topologies drawn by chance: a pure function of a number.
//!
//! No topology affects lo's TCP, the card `mark` with its reply, and the stations'
//! addresses, so that a frame shows the station to which it was sent.

mod asks;
mod firewall;
mod interfaces;
mod routing;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::random::Random;
use crate::tap::Datagram;

/// The value of several datagrams.
pub(crate) const HUGE: (&str, usize) = ("huge", 5000);
/// Requests of a topology.
const ASKS: usize = 10;
/// Ports by which a socket's choice of the next hop is tried: each of two hops is met by one, but for once in thousands.
pub(crate) const OTHER_PORTS: u16 = 32;
/// Features that are ever drawn, and so many of them that 200 topologies may lack.
pub(crate) const FEATURES: usize = 100;
pub(crate) const RARE: usize = 8;
/// The mark that rules look for.
const MARK: u8 = 7;
/// A port that only NAT leads from to ours.
const TRANSLATED_PORT: u16 = 11299;

/// A request: a datagram and the card that receives it.
pub(crate) struct Ask {
    pub(crate) card: usize,
    pub(crate) datagram: Datagram,
    pub(crate) about: String,
}

impl Ask {
    pub(crate) fn frame(&self) -> Vec<u8> {
        self.datagram.frame()
    }

    /// The same from a port that no request has, one of [`OTHER_PORTS`].
    pub(crate) fn frame_by_other_port(&self, number: u16) -> Vec<u8> {
        let datagram = Datagram {
            from_port: 61_000 + self.datagram.from_port % ASKS as u16 * OTHER_PORTS + number,
            ..self.datagram.clone()
        };
        datagram.frame()
    }
}

/// The lines that set it up and undo it, and the requests. Lines are a shell's, without quotes.
#[derive(Default)]
pub(crate) struct RandomTopology {
    pub(crate) lines: Vec<String>,
    /// Rules for incoming packets, which apply behind the receive paths before the socket.
    pub(crate) input_rules: Vec<String>,
    pub(crate) undo: Vec<String>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) features: BTreeSet<&'static str>,
    /// Addresses that take a moment until they are there.
    pub(crate) own6: Vec<Ipv6Addr>,
    /// Whether the next hop may be chosen by ports.
    pub(crate) hash_by_ports: bool,
}

/// One that has addresses, and the stations beyond it.
#[derive(Clone)]
struct Interface {
    name: &'static str,
    /// Cards by which frames for it may come.
    cards: Vec<usize>,
    mac: [u8; 6],
    vlan: Option<u16>,
    net: u8,
}

impl Interface {
    fn station(&self, number: u8) -> [u8; 6] {
        [2, 0, 0, 0, self.net, number]
    }

    fn ipv4(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, self.net, number)
    }

    fn ipv6(&self, number: u8) -> Ipv6Addr {
        ipv6(&format!("fd09:{}::{number}", self.net))
    }
}

fn ipv6(text: &str) -> Ipv6Addr {
    text.parse().unwrap_or(Ipv6Addr::UNSPECIFIED)
}

struct Draw {
    random: Random,
    drawn: RandomTopology,
    interfaces: Vec<Interface>,
    own4: Vec<Ipv4Addr>,
    /// Stations beside the usual ones: the interface and the address.
    near4: Vec<(usize, Ipv4Addr)>,
    near6: Vec<(usize, Ipv6Addr)>,
    /// Addresses of this host that rules are about.
    ruled: Vec<IpAddr>,
    ports: Vec<u16>,
    /// Nexthop objects, of IPv4 and of IPv6.
    nexthops: [Vec<u32>; 2],
}

impl RandomTopology {
    pub(crate) fn draw(number: u64) -> Self {
        let mut random = Random::new(number);
        // Connection tracking remembers flows for a while, so that each topology has its own ports.
        let first = 12_000 + 16 * random.below(3000) as u16;
        let mut draw = Draw {
            random,
            drawn: RandomTopology::default(),
            interfaces: Vec::new(),
            own4: Vec::new(),
            near4: Vec::new(),
            near6: Vec::new(),
            ruled: Vec::new(),
            ports: (first..).take(ASKS).collect(),
            nexthops: Default::default(),
        };
        draw.stack();
        draw.knobs();
        draw.addresses();
        draw.neighbours();
        draw.nexthop_objects();
        draw.routes("");
        draw.rules();
        draw.firewall();
        draw.input_rules();
        draw.asks();
        draw.drawn.undo.reverse();
        draw.drawn
    }
}

impl Draw {
    fn line(&mut self, line: impl Into<String>) {
        self.drawn.lines.push(line.into());
    }

    /// Lines are undone in the opposite order.
    fn undo(&mut self, line: impl Into<String>) {
        self.drawn.undo.push(line.into());
    }

    /// Once in `times`, and then it is noted.
    fn feature(&mut self, times: usize, name: &'static str) -> bool {
        let drawn = self.random.one_in(times);
        if drawn {
            self.drawn.features.insert(name);
        }
        drawn
    }

    fn note(&mut self, name: &'static str) {
        self.drawn.features.insert(name);
    }

    fn sysctl(&mut self, knob: &str, value: impl std::fmt::Display, usual: impl std::fmt::Display) {
        self.line(format!("sysctl -w {knob}={value}"));
        self.undo(format!("sysctl -w {knob}={usual}"));
    }

    fn some_ipv6(&mut self, from: &[&str]) -> Ipv6Addr {
        let text = *self.random.pick(from);
        ipv6(text)
    }

    fn some_interface(&mut self) -> usize {
        self.random.below(self.interfaces.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_draws_one_topology() {
        let (one, two) = (RandomTopology::draw(7), RandomTopology::draw(7));
        assert_eq!(one.lines, two.lines);
        assert_eq!(one.undo, two.undo);
        let frames =
            |drawn: &RandomTopology| -> Vec<_> { drawn.asks.iter().map(Ask::frame).collect() };
        assert_eq!(frames(&one), frames(&two));
        assert_ne!(one.lines, RandomTopology::draw(8).lines);
    }

    #[test]
    fn two_hundred_topologies_have_all_but_the_rarest_features() {
        let features = |numbers: std::ops::Range<u64>| -> BTreeSet<_> {
            numbers
                .flat_map(|number| RandomTopology::draw(number).features)
                .collect()
        };
        let all = features(0..1500);
        for night in 0..10 {
            let drawn = features(night * 1000..night * 1000 + 200);
            let missing: Vec<_> = all.difference(&drawn).collect();
            assert!(missing.len() <= RARE, "missing: {missing:?}");
        }
        assert_eq!(all.len(), FEATURES);
    }
}
