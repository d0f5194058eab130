// SPDX-License-Identifier: GPL-2.0-only
//! Replies in place leave as a socket's would: the same bytes, by the same card, to the same next
//! hop, with the same time to live. A socket in the same topology (`udp_fast=0`) is the judge.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use hippos_client::{framed, ReceivePath, Tcp};
use nix::sys::socket::{setsockopt, sockopt};

use crate::firewall::{iptables, ipvs};
use crate::modules::{self, Hippos};
use crate::random::Random;
use crate::receive_path;
use crate::system::run;
use crate::tap::{fold, sum, Addresses, Datagram, Tap};

const LIMIT: Duration = Duration::from_secs(30);

/// The cards' own addresses and those of who is at the other end.
const NEAR: [[u8; 6]; 3] = [[2, 0, 0, 0, 9, 1], [2, 0, 0, 0, 8, 1], [2, 0, 0, 0, 7, 1]];
/// The asker, on the first card.
pub(super) const ASKER: [u8; 6] = [2, 0, 0, 0, 9, 2];
/// Another station there.
pub(super) const OTHER: [u8; 6] = [2, 0, 0, 0, 9, 3];
/// A station on the second card.
pub(super) const BEHIND: [u8; 6] = [2, 0, 0, 0, 8, 2];
/// The one on the third card, which only sees that all before was served.
const MARKER: [u8; 6] = [2, 0, 0, 0, 7, 2];
/// The port of VXLAN.
const VXLAN: u16 = 4789;
/// What rules of nftables need.
pub(super) const NAT: [&str; 4] = ["nft_chain_nat", "nft_nat", "nft_masq", "nft_ct"];
pub(super) const NAMES: [&str; 3] = ["e0", "e1", "mark"];

/// What the cards have in every topology.
const USUAL: &str = "\
addr add 10.9.200.1/24 dev e0
addr add fd09:200::1/64 dev e0 nodad
addr add 10.9.201.1/24 dev e1
addr add fd09:201::1/64 dev e1 nodad
addr add 10.9.250.1/24 dev mark
neigh replace 10.9.200.2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
neigh replace fd09:200::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
neigh replace 10.9.200.3 lladdr 02:00:00:00:09:03 dev e0 nud permanent
neigh replace fd09:200::3 lladdr 02:00:00:00:09:03 dev e0 nud permanent
neigh replace 10.9.201.2 lladdr 02:00:00:00:08:02 dev e1 nud permanent
neigh replace fd09:201::2 lladdr 02:00:00:00:08:02 dev e1 nud permanent
neigh replace 10.9.250.2 lladdr 02:00:00:00:07:02 dev mark nud permanent
";

/// Three cards whose wires are in our hands; gone when dropped.
pub(super) struct Topology {
    taps: Vec<Tap>,
    number: u16,
}

/// A frame that left, without what no two replies have alike: IPv4's identification and with it the
/// checksum, the flag that forbids fragments, and IPv6's flow label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sent {
    pub(super) card: &'static str,
    pub(super) bytes: Vec<u8>,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.card, self.bytes.escape_ascii())
    }
}

impl Sent {
    /// `None` for what is no UDP of ours.
    fn new(card: &'static str, frame: &[u8]) -> Option<Self> {
        let mut bytes = frame.to_vec();
        match frame.get(12..14)? {
            [8, 0] if frame.get(23) == Some(&17) => {
                bytes.get_mut(18..20)?.fill(0);
                bytes[20] &= !0x40;
                bytes.get_mut(24..26)?.fill(0);
                // A tunnel's port is by a hash; what it carries is a frame in its turn.
                if bytes.get(36..38) == Some(&VXLAN.to_be_bytes()) {
                    bytes.get_mut(34..36)?.fill(0);
                    let inner = Sent::new(card, bytes.get(50..)?)?;
                    bytes.truncate(50);
                    bytes.extend_from_slice(&inner.bytes);
                }
            }
            [0x86, 0xdd] if matches!(frame.get(20), Some(17 | 44)) => {
                bytes.get_mut(15..18)?.fill(0);
                // A fragment's identification.
                if frame.get(20) == Some(&44) {
                    bytes.get_mut(58..62)?.fill(0);
                }
            }
            _ => return None,
        }
        Some(Sent { card, bytes })
    }
}

impl Topology {
    pub(super) fn new() -> Result<Self> {
        let mut taps = Vec::new();
        for (name, mac) in NAMES.iter().zip(NEAR) {
            taps.push(Tap::unconfigured(name, mac)?);
            // Nothing is said that no test asks for.
            for knob in ["accept_ra=0", "router_solicitations=0", "addr_gen_mode=1"] {
                run(&format!("sysctl -qw net.ipv6.conf.{name}.{knob}"))?;
            }
        }
        Ok(Topology { taps, number: 0 })
    }

    /// Puts the usual addresses on the cards, and nothing else.
    pub(super) fn reset(&mut self) -> Result<()> {
        let mut lines = String::new();
        // All at once, or routes by two of them would stay.
        for state in ["down", "up"] {
            for name in NAMES {
                lines += &format!("link set {name} {state}\naddr flush dev {name}\n");
            }
        }
        ip(&(lines + USUAL))
    }

    /// Sends a frame on a wire and gives everything that leaves by any card because of it.
    pub(super) fn ask(&mut self, card: usize, frame: &[u8]) -> Result<Vec<Sent>> {
        while self.next(Duration::ZERO)?.is_some() {}
        self.taps[card].send_with(Default::default(), frame)?;
        // The socket's worker takes one after the other: whoever is answered now came last. Writes
        // are always its own.
        self.number = self.number.wrapping_add(1);
        let request = format!("set mark 0 0 5\r\n{:05}\r\n", self.number);
        let marker = Datagram {
            to_mac: NEAR[2],
            from_mac: MARKER,
            addresses: Addresses::Ipv4([10, 9, 250, 2], [10, 9, 250, 1]),
            from_port: 4999,
            ..Datagram::ipv4(&framed(self.number, request.as_bytes()))
        };
        self.taps[2].send_with(Default::default(), &marker.frame())?;
        let number = self.number.to_be_bytes();
        let end = self.taps[2].receive(LIMIT, |frame| {
            frame.get(36..38) == Some(&4999u16.to_be_bytes()) && frame.get(42..44) == Some(&number)
        })?;
        ensure!(end.is_some(), "the socket's worker does not answer");
        let mut sent = Vec::new();
        while let Some(frame) = self.next(Duration::ZERO)? {
            sent.extend(frame);
        }
        sent.sort();
        Ok(sent)
    }

    /// The next frame that left by any card but the marker's.
    fn next(&mut self, limit: Duration) -> Result<Option<Option<Sent>>> {
        for (name, tap) in NAMES.iter().zip(&mut self.taps).take(2) {
            if let Some(frame) = tap.receive(limit, |_| true)? {
                return Ok(Some(Sent::new(name, &frame)));
            }
        }
        Ok(None)
    }
}

/// A number of `ip`'s commands, a line each.
fn ip(lines: &str) -> Result<()> {
    let file = "/tmp/ip-batch";
    fs::write(file, lines)?;
    run(&format!("ip -batch {file}"))
        .map(drop)
        .with_context(|| lines.to_owned())
}

/// Lines of `ip`, of nft behind `nft`, of tc behind `tc` and of sysctl behind `sysctl`; `ipvs
/// SERVICE SERVER` and `ipvs flush`; `iptables TABLE`, which makes it with no rule;
/// `rmmod MODULE`.
pub(super) fn set_up(lines: &str) -> Result<()> {
    let mut batch = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(rule) = line.strip_prefix("nft ") {
            run(&format!("/usr/sbin/nft {rule}"))?;
        } else if let Some(rule) = line.strip_prefix("tc ") {
            run(&format!("/usr/sbin/tc {rule}"))?;
        } else if let Some(knob) = line.strip_prefix("sysctl ") {
            run(&format!("sysctl -qw {knob}"))?;
        } else if let Some(service) = line.strip_prefix("ipvs ") {
            virtual_service(service)?;
        } else if let Some(table) = line.strip_prefix("iptables ") {
            legacy_table(table)?;
        } else if let Some(module) = line.strip_prefix("rmmod ") {
            modules::remove(module)?;
        } else {
            batch += line;
            batch += "\n";
        }
    }
    ip(&batch)
}

fn virtual_service(line: &str) -> Result<()> {
    let Some((service, server)) = line.split_once(' ') else {
        return ipvs::flush();
    };
    modules::load("ip_vs_rr")?;
    ipvs::add(service.parse()?, server.parse()?)
}

fn legacy_table(table: &str) -> Result<()> {
    modules::load(&format!("iptable_{table}"))?;
    iptables::ensure_table(table)
}

/// The module by one receive path, on both cards.
pub(super) struct Served {
    hippos: Hippos,
    by: ReceivePath,
}

impl Served {
    pub(super) fn load(by: ReceivePath, parameters: &str) -> Result<Self> {
        let hippos = Hippos::load(&format!("allow=any {parameters}{}", by.parameter()))?;
        if by == ReceivePath::Xdp {
            for name in &NAMES[..2] {
                receive_path::attach(name, "native")?;
            }
        }
        let mut tcp = Tcp::connect("127.0.0.1")?;
        tcp.set("key", b"value")?;
        tcp.set("long", &[b'x'; 1345])?;
        Ok(Served { hippos, by })
    }

    pub(super) fn unload(self) -> Result<()> {
        if self.by == ReceivePath::Xdp {
            return self.hippos.unload_all();
        }
        self.hippos.unload()
    }
}

/// A request whose reply fits its frame.
fn short() -> Vec<u8> {
    framed(7, format!("get key {}\r\n", "n".repeat(230)).as_bytes())
}

/// One with a reply of a whole datagram, 1,392 bytes.
pub(super) fn long() -> Vec<u8> {
    framed(8, b"get long\r\n")
}

pub(super) fn v4(from: [u8; 4], to: [u8; 4]) -> Datagram {
    Datagram {
        addresses: Addresses::Ipv4(from, to),
        ..Datagram::ipv4(&short())
    }
}

pub(super) fn v6(from: &str, to: &str) -> Datagram {
    let address = |text: &str| {
        text.parse::<std::net::Ipv6Addr>()
            .map_or([0; 16], |a| a.octets())
    };
    Datagram {
        addresses: Addresses::Ipv6(address(from), address(to)),
        ..Datagram::ipv6(&short())
    }
}

pub(super) fn from_mac(mac: [u8; 6], datagram: Datagram) -> Datagram {
    Datagram {
        from_mac: mac,
        ..datagram
    }
}

pub(super) fn with(payload: Vec<u8>, datagram: Datagram) -> Datagram {
    Datagram {
        payload,
        ..datagram
    }
}

/// A frame, and the card that it comes in by.
pub(super) type Ask = (usize, Vec<u8>);

/// By the second card.
pub(super) fn second(datagram: Datagram) -> Ask {
    let datagram = Datagram {
        to_mac: NEAR[1],
        from_mac: BEHIND,
        ..datagram
    };
    (1, datagram.frame())
}

/// The usual headers around `payload`, for protocols other than UDP.
fn encapsulated(payload: &[u8], protocol: u8, outer: Datagram) -> Ask {
    let mut frame = outer.frame();
    frame.truncate(outer.before_udp());
    frame.extend_from_slice(payload);
    let length = frame.len() - 14;
    match outer.addresses {
        Addresses::Ipv4(..) => {
            frame[16..18].copy_from_slice(&(length as u16).to_be_bytes());
            frame[23] = protocol;
            frame[24..26].fill(0);
            let sum = checksum(&frame[14..34], 0);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        Addresses::Ipv6(..) => {
            frame[18..20].copy_from_slice(&((length - 40) as u16).to_be_bytes());
            frame[20] = protocol;
        }
    }
    (0, frame)
}

/// An ICMP error from `router` about the reply to `request`.
fn icmp_error(router: Datagram, kind: [u8; 2], rest: [u8; 4], request: &Datagram) -> Ask {
    let reply = Datagram {
        addresses: match request.addresses {
            Addresses::Ipv4(from, to) => Addresses::Ipv4(to, from),
            Addresses::Ipv6(from, to) => Addresses::Ipv6(to, from),
        },
        from_port: request.to_port,
        to_port: request.from_port,
        ..with(vec![b'x'; 8], v4(FAR, HOST))
    };
    let mut message = [&kind[..], &[0, 0], &rest, &reply.frame()[14..]].concat();
    let (protocol, pseudo) = match router.addresses {
        Addresses::Ipv4(..) => (1, 0),
        Addresses::Ipv6(from, to) => {
            let addresses = sum(&[from, to].concat());
            (58, addresses + 58 + message.len() as u32)
        }
    };
    let sum = checksum(&message, pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    encapsulated(&message, protocol, router)
}

/// The Internet checksum, with what a pseudo header adds.
fn checksum(bytes: &[u8], pseudo: u32) -> u16 {
    !fold(sum(bytes) + pseudo)
}

/// Where the judge must be seen to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ExpectedRoute {
    /// To this station by the first card.
    To([u8; 6]),
    /// To this one by the second.
    Second,
    Nowhere,
    /// In pieces.
    Pieces,
}

struct Row {
    name: &'static str,
    setup: &'static str,
    undo: &'static str,
    asks: Vec<Ask>,
    /// Of the last of them.
    goes: ExpectedRoute,
    /// Whether the receive paths before the socket answer it themselves.
    fast: bool,
}

pub(super) const HOST: [u8; 4] = [10, 9, 200, 1];
pub(super) const HOST6: &str = "fd09:200::1";
pub(super) const FAR: [u8; 4] = [8, 8, 8, 8];

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let row = |name, setup, undo, asks, goes, fast| Row { name, setup, undo, asks, goes, fast };
    let near = || v4([10, 9, 200, 2], HOST);
    let far = || v4(FAR, HOST);
    let far6 = || v6("2001:db8::8", HOST6);
    let one = |datagram: Datagram| vec![(0, datagram.frame())];
    vec![
        row("on the link", "", "", one(near()), ExpectedRoute::To(ASKER), true),
        row("on the link, IPv6", "", "", one(v6("fd09:200::2", HOST6)), ExpectedRoute::To(ASKER), true),
        row("by a gateway", "route add 8.8.0.0/16 via 10.9.200.2", "",
            one(far()), ExpectedRoute::To(ASKER), true),
        row("by a gateway, IPv6", "route add 2001:db8::/32 via fd09:200::2", "",
            one(far6()), ExpectedRoute::To(ASKER), true),
        row("by an IPv6 gateway, IPv4", "route add 8.8.0.0/16 via inet6 fd09:200::2 dev e0", "",
            one(far()), ExpectedRoute::To(ASKER), true),
        row("direct server return: VIP on lo, the balancer is not the gateway",
            "addr add 10.77.0.1/32 dev lo\nroute add 8.8.0.0/16 via 10.9.200.3",
            "addr del 10.77.0.1/32 dev lo",
            one(v4(FAR, [10, 77, 0, 1])), ExpectedRoute::To(OTHER), true),
        row("direct server return by the other card",
            "addr add 10.77.0.1/32 dev lo\nroute add 8.8.0.0/16 via 10.9.201.2",
            "addr del 10.77.0.1/32 dev lo",
            one(v4(FAR, [10, 77, 0, 1])), ExpectedRoute::Second, false),
        row("asymmetric: in by one card, back by the other", "route add 8.8.0.0/16 via 10.9.201.2", "",
            one(far()), ExpectedRoute::Second, false),
        row("asymmetric, IPv6", "route add 2001:db8::/32 via fd09:201::2", "",
            one(far6()), ExpectedRoute::Second, false),
        row("a rule by the local address",
            "route add 8.8.0.0/16 via 10.9.200.2\nrule add pref 100 from 10.9.200.1 lookup 100\nroute add 8.8.0.0/16 via 10.9.201.2 table 100",
            "rule del pref 100\nroute flush table 100",
            one(far()), ExpectedRoute::Second, false),
        row("a rule by ports",
            "route add 8.8.0.0/16 via 10.9.200.2\nrule add pref 100 ipproto 17 sport 11211 lookup 100\nroute add 8.8.0.0/16 via 10.9.201.2 table 100",
            "rule del pref 100\nroute flush table 100",
            one(far()), ExpectedRoute::Second, false),
        row("a blackhole", "route add blackhole 8.8.0.0/16", "route del blackhole 8.8.0.0/16",
            one(far()), ExpectedRoute::Nowhere, false),
        row("no route", "", "", one(far()), ExpectedRoute::Nowhere, false),
        row("no route, IPv6", "", "", one(far6()), ExpectedRoute::Nowhere, false),
        row("strict uRPF: rp_filter=1, the source is elsewhere",
            "sysctl net.ipv4.conf.e0.rp_filter=1\nroute add 8.8.0.0/16 via 10.9.201.2",
            "sysctl net.ipv4.conf.e0.rp_filter=0",
            one(far()), ExpectedRoute::Nowhere, false),
        row("strict uRPF: a neighbour claims an address behind another",
            "sysctl net.ipv4.conf.e0.rp_filter=1\nroute add 10.9.9.0/24 via 10.9.201.2",
            "sysctl net.ipv4.conf.e0.rp_filter=0",
            one(v4([10, 9, 9, 9], HOST)), ExpectedRoute::Nowhere, false),
        row("a source of 240/4", "", "", one(v4([240, 0, 0, 9], HOST)), ExpectedRoute::Nowhere, false),
        row("another card's own address", "", "", one(v4([10, 9, 201, 1], HOST)), ExpectedRoute::Nowhere, false),
        row("another card's broadcast address", "", "", one(v4([10, 9, 201, 255], HOST)), ExpectedRoute::Nowhere, false),
        row("the host's own address, IPv6", "", "", one(v6("fd09:201::1", HOST6)), ExpectedRoute::Nowhere, false),
        row("VRRP: the frame comes from the router that is not the gateway",
            "route add 8.8.0.0/16 via 10.9.200.3", "", one(far()), ExpectedRoute::To(OTHER), true),
        row("a bond that sends from another of its addresses", "", "",
            one(from_mac(OTHER, near())), ExpectedRoute::To(ASKER), true),
        row("a bond that sends from another of its addresses, IPv6", "", "",
            one(from_mac(OTHER, v6("fd09:200::2", HOST6))), ExpectedRoute::To(ASKER), true),
        row("an MTU on the route, IPv6",
            "route add 2001:db8::/32 via fd09:200::2 mtu 1300", "",
            one(with(long(), far6())), ExpectedRoute::Pieces, false),
        row("mtu lock", "route add 8.8.0.0/16 via 10.9.200.2 mtu lock 1300", "",
            one(with(long(), far())), ExpectedRoute::Pieces, false),
        row("a path MTU that a router reports",
            "route add 8.8.0.0/16 via 10.9.200.2", "",
            vec![
                icmp_error(near(), [3, 4], [0, 0, 5, 20], &far()),
                (0, with(long(), far()).frame()),
            ],
            ExpectedRoute::Pieces, false),
        row("a path MTU that a router reports, IPv6",
            "route add 2001:db8::/32 via fd09:200::2", "",
            vec![
                icmp_error(v6("fd09:200::2", HOST6), [2, 0], [0, 0, 5, 20], &far6()),
                (0, with(long(), far6()).frame()),
            ],
            ExpectedRoute::Pieces, false),
        row("a gateway that redirects to another",
            "route add 8.8.0.0/16 via 10.9.200.2", "",
            vec![icmp_error(near(), [5, 1], [10, 9, 200, 3], &far()), (0, far().frame())],
            ExpectedRoute::To(OTHER), true),
        row("a long reply", "", "", one(with(long(), near())), ExpectedRoute::To(ASKER), true),
        row("a hop limit on the route",
            "route add 8.8.0.0/16 via 10.9.200.2 hoplimit 33", "", one(far()), ExpectedRoute::To(ASKER), true),
        row("ip_default_ttl", "sysctl net.ipv4.ip_default_ttl=99", "sysctl net.ipv4.ip_default_ttl=64",
            one(near()), ExpectedRoute::To(ASKER), true),
        row("hop_limit", "sysctl net.ipv6.conf.e0.hop_limit=77", "sysctl net.ipv6.conf.e0.hop_limit=64",
            one(v6("fd09:200::2", HOST6)), ExpectedRoute::To(ASKER), true),
        row("DNAT of the host's port",
            "sysctl net.ipv4.ip_forward=1\nnft add table ip t\nnft add chain ip t p { type nat hook prerouting priority dstnat ; }\nnft add rule ip t p udp dport 11211 ip daddr 10.9.200.1 dnat to 10.9.201.2",
            "nft delete table ip t\nsysctl net.ipv4.ip_forward=0",
            one(near()), ExpectedRoute::Second, false),
        row("a masqueraded flow with our port",
            "sysctl net.ipv4.ip_forward=1\nnft add table ip t\nnft add chain ip t p { type nat hook postrouting priority srcnat ; }\nnft add rule ip t p oifname e0 masquerade",
            "nft delete table ip t\nsysctl net.ipv4.ip_forward=0",
            vec![
                second(Datagram { from_port: 11211, to_port: 53,
                    ..with(b"\0\x07\x01\0\0\x01\0\0\0\0\0\0question".to_vec(), v4([10, 9, 201, 2], [10, 9, 200, 2])) }),
                (0, Datagram { from_port: 53, ..with(b"\0\x07\x81\0\0\x01\0\x01\0\0\0\0answer".to_vec(), near()) }.frame()),
            ],
            ExpectedRoute::Second, false),
        row("empty chains of nftables",
            "nft add table inet f\nnft add chain inet f i { type filter hook input priority filter ; }\nnft add chain inet f o { type filter hook output priority filter ; }\nnft add chain inet f p { type nat hook prerouting priority dstnat ; }\nnft add rule inet f i ct state established accept",
            // Of a port of its own: a connection that was translated stays so after its rule is gone.
            "nft delete table inet f", one(Datagram { from_port: 40_388, ..near() }), ExpectedRoute::To(ASKER), true),
        row("output drop",
            "nft add table inet f\nnft add chain inet f o { type filter hook output priority filter ; }\nnft add rule inet f o udp sport 11211 ip daddr 10.9.200.2 drop",
            "nft delete table inet f", one(near()), ExpectedRoute::Nowhere, false),
        row("postrouting dscp set",
            "nft add table inet f\nnft add chain inet f o { type filter hook postrouting priority mangle ; }\nnft add rule inet f o udp sport 11211 ip dscp set cs3",
            "nft delete table inet f", one(near()), ExpectedRoute::To(ASKER), false),
        row("IPVS",
            "sysctl net.ipv4.ip_forward=1\nipvs 10.9.200.1:11211 10.9.201.2:11211",
            "ipvs flush\nsysctl net.ipv4.ip_forward=0",
            one(Datagram { from_port: 40_389, ..near() }), ExpectedRoute::Second, false),
        row("a table of iptables-legacy that accepts", "iptables filter", "rmmod iptable_filter",
            one(near()), ExpectedRoute::To(ASKER), false),
        row("an empty NAT table of iptables-legacy", "iptables nat", "rmmod iptable_nat",
            one(Datagram { from_port: 40_390, ..near() }), ExpectedRoute::To(ASKER), false),
        row("no table of iptables-legacy any more", "", "",
            one(Datagram { from_port: 40_391, ..near() }), ExpectedRoute::To(ASKER), true),
        row("a pinned neighbour", "", "", one(from_mac(BEHIND, near())), ExpectedRoute::To(ASKER), true),
        row("equal routes", "route add 8.8.0.0/16 nexthop via 10.9.200.2 nexthop via 10.9.200.3", "",
            one(far()), ExpectedRoute::Nowhere, true),
        row("by the second card", "", "", vec![second(v4([10, 9, 201, 2], [10, 9, 201, 1]))], ExpectedRoute::Second, true),
        row("no request", "", "", one(with(b"\0\x01\0\0\0\x01\0\0nonsense".to_vec(), near())), ExpectedRoute::Nowhere, false),
        row("link-local", "neigh replace fe80::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent\naddr add fe80::1/64 dev e0 nodad", "",
            one(v6("fe80::2", "fe80::1")), ExpectedRoute::To(ASKER), true),
    ]
}

/// Interfaces upon interfaces, and what looks at frames below IP. XDP is before all of it.
#[rustfmt::skip]
fn stacked() -> Vec<Row> {
    let row = |name, setup, undo, ask, goes, fast| {
        Row { name, setup, undo, asks: vec![ask], goes, fast }
    };
    let near = || (0, v4([10, 9, 200, 2], HOST).frame());
    let by_bond = |card| {
        (card, v4([10, 9, 212, 2], [10, 9, 212, 1]).frame())
    };
    let inner = Datagram {
        to_mac: [2, 0, 0, 0, 10, 1],
        from_mac: [2, 0, 0, 0, 10, 2],
        ..v4([10, 9, 213, 2], [10, 9, 213, 1])
    };
    let vxlan = Datagram {
        to_port: VXLAN,
        ..with([&[8, 0, 0, 0, 0, 0, 7, 0], &inner.frame()[..]].concat(), v4([10, 9, 200, 2], HOST))
    };
    vec![
        row("macvlan with a MAC of its own",
            "link add mv link e0 address 02:00:00:00:09:11 type macvlan mode bridge\naddr add 10.9.211.1/24 dev mv\nlink set mv up\nneigh replace 10.9.211.2 lladdr 02:00:00:00:09:02 dev mv nud permanent",
            "link del mv",
            (0, Datagram { to_mac: [2, 0, 0, 0, 9, 0x11], ..v4([10, 9, 211, 2], [10, 9, 211, 1]) }.frame()),
            ExpectedRoute::To(ASKER), true),
        row("an active-backup bond",
            "link add b0 type bond mode active-backup\nlink set e0 down\nlink set e1 down\nlink set e0 master b0\nlink set e1 master b0\nlink set b0 up\naddr add 10.9.212.1/24 dev b0\nneigh replace 10.9.212.2 lladdr 02:00:00:00:09:02 dev b0 nud permanent",
            "link set e0 nomaster\nlink set e1 nomaster\nlink del b0",
            by_bond(0), ExpectedRoute::To(ASKER), true),
        row("an active-backup bond after a fail-over",
            "link add b0 type bond mode active-backup\nlink set e0 down\nlink set e1 down\nlink set e0 master b0\nlink set e1 master b0\nlink set b0 up\naddr add 10.9.212.1/24 dev b0\nneigh replace 10.9.212.2 lladdr 02:00:00:00:09:02 dev b0 nud permanent\nlink set b0 type bond active_slave e1",
            "link set e0 nomaster\nlink set e1 nomaster\nlink del b0",
            by_bond(1), ExpectedRoute::Second, true),
        row("VXLAN",
            "link add vx address 02:00:00:00:0a:01 type vxlan id 7 dev e0 local 10.9.200.1 remote 10.9.200.2 dstport 4789 nolearning\naddr add 10.9.213.1/24 dev vx\nlink set vx up\nneigh replace 10.9.213.2 lladdr 02:00:00:00:0a:02 dev vx nud permanent",
            "link del vx",
            (0, vxlan.frame()), ExpectedRoute::To(ASKER), true),
        row("direct server return by IPIP",
            "link set tunl0 up\naddr add 10.77.0.1/32 dev tunl0\nroute add 8.8.0.0/16 via 10.9.200.3",
            "addr del 10.77.0.1/32 dev tunl0\nlink set tunl0 down",
            encapsulated(&v4(FAR, [10, 77, 0, 1]).frame()[14..], 4, v4([10, 9, 200, 2], HOST)),
            ExpectedRoute::To(OTHER), false),
        row("shaped by fq", "tc qdisc add dev e0 root fq", "tc qdisc del dev e0 root",
            near(), ExpectedRoute::To(ASKER), true),
        row("shaped by tbf",
            "tc qdisc add dev e0 root tbf rate 100mbit burst 32kb latency 50ms", "tc qdisc del dev e0 root",
            near(), ExpectedRoute::To(ASKER), true),
        row("shaped by htb",
            "tc qdisc add dev e0 root handle 1: htb default 10\ntc class add dev e0 parent 1: classid 1:10 htb rate 100mbit",
            "tc qdisc del dev e0 root",
            near(), ExpectedRoute::To(ASKER), true),
        row("tc redirects what leaves",
            "tc qdisc add dev e0 clsact\ntc filter add dev e0 egress matchall action mirred egress redirect dev e1",
            "tc qdisc del dev e0 clsact",
            near(), ExpectedRoute::Second, true),
        row("netdev ingress drops",
            "nft add table netdev n\nnft add chain netdev n i { type filter hook ingress device e0 priority 0 ; }\nnft add rule netdev n i udp dport 11211 drop",
            "nft delete table netdev n",
            near(), ExpectedRoute::Nowhere, false),
        row("netdev egress drops",
            "nft add table netdev n\nnft add chain netdev n e { type filter hook egress device e0 priority 0 ; }\nnft add rule netdev n e udp sport 11211 drop",
            "nft delete table netdev n",
            near(), ExpectedRoute::Nowhere, true),
        row("a rule before the hook drops",
            "nft add table ip t\nnft add chain ip t p { type filter hook prerouting priority -450 ; }\nnft add rule ip t p iifname e0 udp dport 11211 drop",
            "nft delete table ip t",
            near(), ExpectedRoute::Nowhere, false),
    ]
}

/// What left, and how many requests the receive paths before the socket answered.
type Seen = (Vec<Vec<Sent>>, u64);

pub(super) fn fast() -> Result<u64> {
    Tcp::connect("127.0.0.1")?.stat("hippos_udp_fast_datagrams")
}

impl Row {
    fn see(&self, bench: &mut Topology) -> Result<Seen> {
        bench.reset()?;
        set_up(self.setup)?;
        let before = fast()?;
        let seen = self
            .asks
            .iter()
            .map(|(card, frame)| bench.ask(*card, frame))
            .collect::<Result<Vec<_>>>();
        let after = fast()?;
        set_up(self.undo)?;
        Ok((seen?, after - before))
    }

    /// Whether the judge did what the row is about.
    fn check_expected(&self, seen: &Seen) -> Result<()> {
        let last = seen.0.last().context("nothing was asked")?;
        let goes = match &last[..] {
            [] => ExpectedRoute::Nowhere,
            [_, _, ..] => ExpectedRoute::Pieces,
            [one] if one.card == "e1" => ExpectedRoute::Second,
            [one] => ExpectedRoute::To(one.bytes[..6].try_into()?),
        };
        // Either of equal routes.
        if self.name == "equal routes" {
            return Ok(());
        }
        ensure!(goes == self.goes, "the socket: {goes:02x?}: {last:?}");
        Ok(())
    }
}

/// Each topology by each receive path.
pub(super) fn table() -> Result<()> {
    compare(&rows(), &[ReceivePath::Prerouting, ReceivePath::Xdp])
}

/// Interfaces upon interfaces, shaping and rules below IP.
pub(super) fn interfaces() -> Result<()> {
    for module in [
        "macvlan",
        "bonding",
        "vxlan",
        "ipip",
        "sch_fq",
        "sch_tbf",
        "sch_htb",
        "sch_ingress",
        "cls_matchall",
        "act_mirred",
    ] {
        modules::load(module)?;
    }
    compare(&stacked(), &[ReceivePath::Prerouting])
}

/// Compares each row by the socket and by `paths`.
fn compare(rows: &[Row], paths: &[ReceivePath]) -> Result<()> {
    let mut bench = Topology::new()?;
    for module in NAT {
        modules::load(module)?;
    }
    let mut judge = BTreeMap::new();
    let mut wrong = Vec::new();
    for &by in [ReceivePath::Socket].iter().chain(paths) {
        bench.reset()?;
        let served = Served::load(by, "")?;
        for row in rows {
            let seen = row
                .see(&mut bench)
                .with_context(|| format!("{by:?}: {}", row.name))?;
            if by == ReceivePath::Socket {
                if let Err(error) = row.check_expected(&seen) {
                    wrong.push(format!("{}: {error:#}", row.name));
                }
                judge.insert(row.name, seen.0);
                continue;
            }
            if judge.get(row.name) != Some(&seen.0) {
                wrong.push(format!(
                    "{by:?}: {}: {:?}, the socket: {:?}",
                    row.name,
                    seen.0,
                    judge.get(row.name)
                ));
            }
            if (seen.1 > 0) != row.fast {
                wrong.push(format!("{by:?}: {}: {} in place", row.name, seen.1));
            }
        }
        served.unload()?;
    }
    ensure!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// The kernel's counters of one protocol, by `Ip.InReceives` and the like.
fn counters_now() -> Result<BTreeMap<String, i64>> {
    let mut all = BTreeMap::new();
    for file in ["/proc/net/snmp", "/proc/net/netstat"] {
        let text = fs::read_to_string(file)?;
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks(2) {
            let [names, values] = pair else { continue };
            let names = names.split_whitespace();
            let protocol = names.clone().next().unwrap_or("").trim_end_matches(':');
            for (name, value) in names.zip(values.split_whitespace()).skip(1) {
                all.insert(format!("{protocol}.{name}"), value.parse().unwrap_or(0));
            }
        }
    }
    for line in fs::read_to_string("/proc/net/snmp6")?.lines() {
        if let Some((name, value)) = line.split_once(char::is_whitespace) {
            all.insert(name.to_owned(), value.trim().parse().unwrap_or(0));
        }
    }
    Ok(all)
}

/// Requests and replies count as a socket's do.
pub(super) fn counters() -> Result<()> {
    const ASKED: usize = 20;
    const LOOKED_AT: [&str; 14] = [
        "Ip.InReceives",
        "Ip.InDelivers",
        "Ip.OutRequests",
        "Ip.OutTransmits",
        "IpExt.InOctets",
        "IpExt.OutOctets",
        "IpExt.InNoECTPkts",
        "Udp.InDatagrams",
        "Udp.OutDatagrams",
        "Udp6InDatagrams",
        "Udp6OutDatagrams",
        "Ip6InDelivers",
        "Ip6OutRequests",
        "Ip6InOctets",
    ];
    // Other traffic of the guest, which counts in the same places.
    const OTHERS: [&str; 4] = ["Tcp.InSegs", "Tcp.OutSegs", "Icmp6InMsgs", "Icmp6OutMsgs"];
    const TRIES: usize = 20;
    let mut bench = Topology::new()?;
    let mut judge: Option<Vec<i64>> = None;
    for by in [
        ReceivePath::Socket,
        ReceivePath::Prerouting,
        ReceivePath::Xdp,
    ] {
        bench.reset()?;
        let served = Served::load(by, "")?;
        let datagrams = [v4([10, 9, 200, 2], HOST), v6("fd09:200::2", HOST6)];
        // A packet of others may be counted in part before a look, and in part after it: what was
        // counted twice alike is of the requests alone.
        let mut undisturbed: Option<Vec<i64>> = None;
        let mut counted = None;
        for _ in 0..TRIES {
            let before = counters_now()?;
            for _ in 0..ASKED {
                for datagram in &datagrams {
                    let sent = bench.ask(0, &datagram.frame())?;
                    ensure!(sent.len() == 1, "{by:?}: {sent:?}");
                }
            }
            let after = counters_now()?;
            let by_name = |name: &str| {
                after.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0)
            };
            if OTHERS.iter().all(|name| by_name(name) == 0) {
                let now = LOOKED_AT.map(by_name).to_vec();
                if undisturbed.as_ref() == Some(&now) {
                    counted = Some(now);
                    break;
                }
                undisturbed = Some(now);
            }
        }
        served.unload()?;
        let counted = counted.context("other traffic in each of the tries")?;
        let shown: Vec<String> = LOOKED_AT
            .iter()
            .zip(&counted)
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        println!("{by:?}: {}", shown.join(", "));
        match &judge {
            None => judge = Some(counted),
            Some(judge) => ensure!(
                *judge == counted,
                "{by:?}: {}, the socket: {judge:?}",
                shown.join(", ")
            ),
        }
    }
    Ok(())
}

/// Behind destination NAT, requests to this host are answered in place and others go their way.
pub(super) fn late() -> Result<()> {
    let mut bench = Topology::new()?;
    for module in NAT {
        modules::load(module)?;
    }
    bench.reset()?;
    // Ports of their own: connection tracking remembers flows of earlier tests, translated, for 30 s.
    for (from_port, parameter, fast_by_nat) in [
        (4401, "udp_fast=late", true),
        (4402, "", false),
        (4403, "udp_fast=always", true),
    ] {
        let hippos = Hippos::load(&format!("allow=any {parameter}"))?;
        Tcp::connect("127.0.0.1")?.set("key", b"value")?;
        let check = |bench: &mut Topology, datagram: Datagram, goes: &str, by_hook: bool| {
            let before = fast()?;
            let datagram = Datagram {
                from_port,
                ..datagram
            };
            let sent = bench.ask(0, &datagram.frame())?;
            let in_place = fast()? > before;
            let cards: Vec<_> = sent.iter().map(|sent| sent.card).collect();
            ensure!(
                cards == [goes] && in_place == by_hook,
                "{parameter}: in place: {in_place}, {sent:?}"
            );
            Ok(())
        };
        check(&mut bench, v4([10, 9, 200, 2], HOST), "e0", true)?;
        set_up(
            "sysctl net.ipv4.ip_forward=1\nnft add table ip t\n\
             nft add chain ip t p { type nat hook prerouting priority dstnat ; }\n\
             nft add rule ip t p ip saddr 10.9.200.3 udp dport 11211 dnat to 10.9.201.2",
        )?;
        run("sleep 1")?;
        let status = run("hippos-ctl status")?;
        let word = status
            .lines()
            .find_map(|line| line.strip_prefix("PRE_ROUTING, IPv4: "))
            .with_context(|| format!("status does not name the way: {status}"))?;
        ensure!(
            if fast_by_nat {
                word == "open"
            } else {
                word.contains("NAT")
            },
            "{parameter}: {word}"
        );
        check(&mut bench, v4([10, 9, 200, 2], HOST), "e0", fast_by_nat)?;
        let translated = from_mac(OTHER, v4([10, 9, 200, 3], HOST));
        if parameter == "udp_fast=always" {
            check(&mut bench, translated, "e0", true)?;
        } else {
            check(&mut bench, translated, "e1", false)?;
        }
        set_up("nft delete table ip t\nsysctl net.ipv4.ip_forward=0")?;
        run("sleep 1")?;
        check(&mut bench, v4([10, 9, 200, 2], HOST), "e0", true)?;
        hippos.unload()?;
    }
    Ok(())
}

/// Behind destination NAT the hook is open while XDP is closed, whatever the hook has looked up.
pub(super) fn late_xdp() -> Result<()> {
    let mut bench = Topology::new()?;
    for module in NAT {
        modules::load(module)?;
    }
    bench.reset()?;
    let served = Served::load(ReceivePath::Xdp, "udp_fast=late")?;
    set_up(
        "sysctl net.ipv4.ip_forward=1\nnft add table ip t\n\
         nft add chain ip t p { type nat hook prerouting priority dstnat ; }\n\
         nft add rule ip t p udp sport 4412 udp dport 11211 dnat to 10.9.201.2",
    )?;
    run("sleep 1")?;
    let by_xdp = || Tcp::connect("127.0.0.1")?.stat("hippos_xdp_served");
    let before = by_xdp()?;
    for (from_port, goes) in [(4411, "e0"), (4412, "e1"), (4411, "e0"), (4412, "e1")] {
        let request = Datagram {
            from_port,
            ..v4([10, 9, 200, 2], HOST)
        };
        let sent = bench.ask(0, &request.frame())?;
        let cards: Vec<_> = sent.iter().map(|sent| sent.card).collect();
        ensure!(cards == [goes], "from port {from_port}: {sent:?}");
    }
    let by_xdp = by_xdp()? - before;
    set_up("nft delete table ip t\nsysctl net.ipv4.ip_forward=0")?;
    served.unload()?;
    ensure!(by_xdp == 0, "{by_xdp} by XDP, which is closed");
    Ok(())
}

/// A request that TPROXY gives to another socket is that socket's.
pub(super) fn assigned() -> Result<()> {
    let mut bench = Topology::new()?;
    modules::load("nft_tproxy")?;
    for parameter in ["udp_fast=0", "udp_fast=late"] {
        bench.reset()?;
        let hippos = Hippos::load(&format!("allow=any {parameter}"))?;
        let other = UdpSocket::bind("10.9.200.1:9999")?;
        setsockopt(&other, sockopt::IpTransparent, &true)?;
        other.set_read_timeout(Some(LIMIT))?;
        set_up(
            "nft add table ip t\n\
             nft add chain ip t p { type filter hook prerouting priority mangle ; }\n\
             nft add rule ip t p ip saddr 10.9.200.2 udp dport 11211 tproxy to 10.9.200.1:9999 accept",
        )?;
        let sent = bench.ask(0, &v4([10, 9, 200, 2], HOST).frame())?;
        set_up("nft delete table ip t")?;
        ensure!(sent.is_empty(), "{parameter}: {sent:?}");
        let mut buffer = [0; 2048];
        other
            .recv(&mut buffer)
            .with_context(|| parameter.to_owned())?;
        hippos.unload()?;
    }
    Ok(())
}

/// After a change of routes, rules or neighbours the very next reply goes the new way.
pub(super) fn stale() -> Result<()> {
    let mut bench = Topology::new()?;
    for by in [ReceivePath::Prerouting, ReceivePath::Xdp] {
        bench.reset()?;
        let served = Served::load(by, "")?;
        ip("route add 8.8.0.0/16 via 10.9.200.2\nroute add 2001:db8::/32 via fd09:200::2")?;
        let steps: [(&str, &str, [u8; 6]); 9] = [
            ("", "e0", ASKER),
            (
                "route replace 8.8.0.0/16 via 10.9.200.3\nroute replace 2001:db8::/32 via fd09:200::3",
                "e0",
                OTHER,
            ),
            (
                "route replace 8.8.0.0/16 via 10.9.201.2\nroute replace 2001:db8::/32 via fd09:201::2",
                "e1",
                BEHIND,
            ),
            (
                "route replace 8.8.0.0/16 via 10.9.200.2\nroute replace 2001:db8::/32 via fd09:200::2",
                "e0",
                ASKER,
            ),
            (
                "neigh replace 10.9.200.2 lladdr 02:00:00:00:09:03 dev e0 nud permanent\nneigh replace fd09:200::2 lladdr 02:00:00:00:09:03 dev e0 nud permanent",
                "e0",
                OTHER,
            ),
            (
                "neigh replace 10.9.200.2 lladdr 02:00:00:00:09:02 dev e0 nud permanent\nneigh replace fd09:200::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent",
                "e0",
                ASKER,
            ),
            (
                "nexthop replace id 1 via 10.9.200.2 dev e0\nnexthop replace id 2 via fd09:200::2 dev e0\nroute replace 8.8.0.0/16 nhid 1\nroute replace 2001:db8::/32 nhid 2",
                "e0",
                ASKER,
            ),
            (
                "nexthop replace id 1 via 10.9.200.3 dev e0\nnexthop replace id 2 via fd09:200::3 dev e0",
                "e0",
                OTHER,
            ),
            (
                "nexthop replace id 1 via 10.9.200.2 dev e0\nnexthop replace id 2 via fd09:200::2 dev e0",
                "e0",
                ASKER,
            ),
        ];
        for round in 0..3 {
            for (lines, card, station) in &steps {
                ip(lines)?;
                for datagram in [v4(FAR, HOST), v6("2001:db8::8", HOST6)] {
                    for _ in 0..2 {
                        let sent = bench.ask(0, &datagram.frame())?;
                        let right = matches!(&sent[..], [one] if one.card == *card && one.bytes[..6] == *station);
                        ensure!(right, "{by:?}, round {round}, after {lines:?}: {sent:?}");
                    }
                }
            }
        }
        served.unload()?;
    }
    Ok(())
}

/// Routes change while requests are on their way: those that come after a change are answered the new
/// way, each of them.
pub(super) fn route_change_in_flight() -> Result<()> {
    const CHANGES: usize = 60;
    let ways = [
        ("10.9.200.2", ASKER),
        ("10.9.200.3", OTHER),
        ("10.9.201.2", BEHIND),
    ];
    let mut bench = Topology::new()?;
    for by in [ReceivePath::Prerouting, ReceivePath::Xdp] {
        bench.reset()?;
        let served = Served::load(by, "")?;
        ip("route add 8.8.0.0/16 via 10.9.200.2")?;
        let mut random = Random::new(14);
        let frame = v4(FAR, HOST).frame();
        let mut in_place = 0;
        for change in 0..CHANGES {
            for _ in 0..8 {
                bench.taps[0].send_with(Default::default(), &frame)?;
            }
            let (gateway, station) = *random.pick(&ways);
            ip(&format!("route replace 8.8.0.0/16 via {gateway}"))?;
            // Those before are answered one way or the other.
            bench.ask(0, &frame)?;
            let before = fast()?;
            let sent = bench.ask(0, &frame)?;
            in_place += fast()? - before;
            let right = matches!(&sent[..], [one] if one.bytes.get(..6) == Some(&station));
            ensure!(right, "{by:?}, change {change} to {gateway}: {sent:?}");
        }
        ensure!(in_place > 0, "{by:?}: nothing was answered in place");
        served.unload()?;
    }
    Ok(())
}
