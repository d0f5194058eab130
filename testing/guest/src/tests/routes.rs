// SPDX-License-Identifier: GPL-2.0-only
//! Replies in place leave as a socket's would: the same bytes, by the same card, to the same next
//! hop, with the same time to live. A socket in the same topology (`udp_fast=0`) is the judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{bail, ensure, Context, Result};
use hippos_client::{framed, ReceivePath, Tcp};

use crate::leaks;
use crate::modules;
use crate::request::{
    encapsulated, from_mac, icmp_error, long, second, v4, v6, with, FAR, HOST, HOST6,
};
use crate::row::{compare, expect, fast, ExpectedRoute, Row};
use crate::tap::{Datagram, Reply};
use crate::topology::{ip, Sent, Served, Topology, ASKER, BEHIND, OTHER, VXLAN};

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let row = |name, setup, undo, asks, goes, fast| Row { name, setup, undo, asks, goes, fast, above_xdp: false };
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
        row("a rule by ports of what this host sends",
            "route add 8.8.0.0/16 via 10.9.200.2\nrule add pref 100 iif lo ipproto 17 dport 45000 lookup 100\nroute add 8.8.0.0/16 via 10.9.201.2 table 100",
            "rule del pref 100\nroute flush table 100",
            [30_000, 45_000].map(|port| (0, Datagram { from_port: port, ..far() }.frame())).to_vec(),
            ExpectedRoute::Second, false),
        row("a rule by ports of what this host sends, IPv6",
            "route add 2001:db8::/32 via fd09:200::2\n-6 rule add pref 100 iif lo ipproto 17 dport 45000 lookup 100\nroute add 2001:db8::/32 via fd09:201::2 table 100",
            "-6 rule del pref 100\n-6 route flush table 100",
            [30_000, 45_000].map(|port| (0, Datagram { from_port: port, ..far6() }.frame())).to_vec(),
            ExpectedRoute::Second, false),
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
        row("a long reply", "", "", one(with(long(), near())), ExpectedRoute::To(ASKER), true).above_xdp(),
        row("a hop limit on the route",
            "route add 8.8.0.0/16 via 10.9.200.2 hoplimit 33", "", one(far()), ExpectedRoute::To(ASKER), true),
        row("a hop limit on the route, IPv6",
            "route add 2001:db8::/32 via fd09:200::2 hoplimit 33", "", one(far6()), ExpectedRoute::To(ASKER), true),
        row("ip_default_ttl", "sysctl net.ipv4.ip_default_ttl=99", "sysctl net.ipv4.ip_default_ttl=64",
            one(near()), ExpectedRoute::To(ASKER), true),
        row("hop_limit", "sysctl net.ipv6.conf.e0.hop_limit=77", "sysctl net.ipv6.conf.e0.hop_limit=64",
            one(v6("fd09:200::2", HOST6)), ExpectedRoute::To(ASKER), true),
        row("DNAT of the host's port",
            "sysctl net.ipv4.ip_forward=1\nnft add table ip t\nnft add chain ip t p { type nat hook prerouting priority dstnat ; }\nnft add rule ip t p udp dport 11211 ip daddr 10.9.200.1 dnat to 10.9.201.2",
            "nft delete table ip t\nsysctl net.ipv4.ip_forward=0",
            one(near()), ExpectedRoute::Second, false),
        row("a service's address on a dummy interface", SERVICE, "link del svc",
            one(v4([10, 9, 200, 2], [10, 96, 0, 1])), ExpectedRoute::To(ASKER), true),
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
            // Its own port: a translated connection stays so after its rule was removed.
            "nft delete table inet f", one(Datagram { from_port: 40_388, ..near() }), ExpectedRoute::To(ASKER), true),
        row("output drop",
            "nft add table inet f\nnft add chain inet f o { type filter hook output priority filter ; }\nnft add rule inet f o udp sport 11211 ip daddr 10.9.200.2 drop",
            "nft delete table inet f", one(near()), ExpectedRoute::Nowhere, false),
        row("output drops by policy, IPv6",
            "nft add table ip6 f\nnft add chain ip6 f o { type filter hook output priority filter ; policy drop ; }",
            "nft delete table ip6 f", one(v6("fd09:200::2", HOST6)), ExpectedRoute::Nowhere, false),
        row("postrouting drops by policy, IPv6",
            "nft add table ip6 f\nnft add chain ip6 f o { type filter hook postrouting priority filter ; policy drop ; }",
            "nft delete table ip6 f", one(v6("fd09:200::2", HOST6)), ExpectedRoute::Nowhere, false),
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
        row("a priority tag", "", "", one(Datagram { vlan: Some(0xa000), ..near() }), ExpectedRoute::To(ASKER), true).above_xdp(),
        row("a priority tag, IPv6", "", "", one(Datagram { vlan: Some(0), ..v6("fd09:200::2", HOST6) }),
            ExpectedRoute::To(ASKER), true).above_xdp(),
        row("link-local", "neigh replace fe80::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent\naddr add fe80::1/64 dev e0 nodad", "",
            one(v6("fe80::2", "fe80::1")), ExpectedRoute::To(ASKER), true),
    ]
}

/// A service's address, as kube-proxy and others put it on an interface without a link.
const SERVICE: &str = "link add svc type dummy\naddr add 10.96.0.1/32 dev svc\nlink set svc up";

/// A VLAN on the first card.
const VLAN: &str = "\
link add link e0 name e0.7 type vlan id 7
addr add 10.9.214.1/24 dev e0.7
link set e0.7 up
neigh replace 10.9.214.2 lladdr 02:00:00:00:09:02 dev e0.7 nud permanent
";

/// Interfaces upon interfaces, and shaping.
#[rustfmt::skip]
fn stacked() -> Vec<Row> {
    let row = |name, setup, undo, ask, goes, fast| {
        Row { name, setup, undo, asks: vec![ask], goes, fast, above_xdp: false }
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
    let by_vlan = |tag| {
        (0, Datagram { vlan: Some(tag), ..v4([10, 9, 214, 2], [10, 9, 214, 1]) }.frame())
    };
    vec![
        row("a VLAN", VLAN, "link del e0.7", by_vlan(7), ExpectedRoute::To(ASKER), true),
        row("a VLAN, with a priority in the tag", VLAN, "link del e0.7", by_vlan(0xa007), ExpectedRoute::To(ASKER), true),
        row("a VLAN that gives its packets a priority",
            "link add link e0 name e0.7 type vlan id 7 egress-qos-map 0:5\naddr add 10.9.214.1/24 dev e0.7\nlink set e0.7 up\nneigh replace 10.9.214.2 lladdr 02:00:00:00:09:02 dev e0.7 nud permanent",
            "link del e0.7", by_vlan(0x2007), ExpectedRoute::To(ASKER), true),
        row("another VLAN", VLAN, "link del e0.7", by_vlan(8), ExpectedRoute::Nowhere, false),
        row("a priority tag beside a VLAN", VLAN, "link del e0.7",
            (0, Datagram { vlan: Some(0), ..v4([10, 9, 200, 2], HOST) }.frame()), ExpectedRoute::To(ASKER), true).above_xdp(),
        row("macvlan with a MAC of its own",
            "link add mv link e0 address 02:00:00:00:09:11 type macvlan mode bridge\naddr add 10.9.211.1/24 dev mv\nlink set mv up\nneigh replace 10.9.211.2 lladdr 02:00:00:00:09:02 dev mv nud permanent",
            "link del mv",
            (0, Datagram { to_mac: [2, 0, 0, 0, 9, 0x11], ..v4([10, 9, 211, 2], [10, 9, 211, 1]) }.frame()),
            ExpectedRoute::To(ASKER), true).above_xdp(),
        row("an active-backup bond",
            "link add b0 type bond mode active-backup\nlink set e0 down\nlink set e1 down\nlink set e0 master b0\nlink set e1 master b0\nlink set b0 up\naddr add 10.9.212.1/24 dev b0\nneigh replace 10.9.212.2 lladdr 02:00:00:00:09:02 dev b0 nud permanent",
            "link set e0 nomaster\nlink set e1 nomaster\nlink del b0",
            by_bond(0), ExpectedRoute::To(ASKER), true).above_xdp(),
        row("an active-backup bond after a fail-over",
            "link add b0 type bond mode active-backup\nlink set e0 down\nlink set e1 down\nlink set e0 master b0\nlink set e1 master b0\nlink set b0 up\naddr add 10.9.212.1/24 dev b0\nneigh replace 10.9.212.2 lladdr 02:00:00:00:09:02 dev b0 nud permanent\nlink set b0 type bond active_slave e1",
            "link set e0 nomaster\nlink set e1 nomaster\nlink del b0",
            by_bond(1), ExpectedRoute::Second, true).above_xdp(),
        row("VXLAN",
            "link add vx address 02:00:00:00:0a:01 type vxlan id 7 dev e0 local 10.9.200.1 remote 10.9.200.2 dstport 4789 nolearning\naddr add 10.9.213.1/24 dev vx\nlink set vx up\nneigh replace 10.9.213.2 lladdr 02:00:00:00:0a:02 dev vx nud permanent",
            "link del vx",
            (0, vxlan.frame()), ExpectedRoute::To(ASKER), true).above_xdp(),
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
    ]
}

/// Rules that see frames below IP, or before PRE_ROUTING's hook.
#[rustfmt::skip]
fn below_ip() -> Vec<Row> {
    let row = |name, setup, undo, goes, fast| {
        let asks = vec![(0, v4([10, 9, 200, 2], HOST).frame())];
        Row { name, setup, undo, asks, goes, fast, above_xdp: false }
    };
    vec![
        row("tc redirects what leaves",
            "tc qdisc add dev e0 clsact\ntc filter add dev e0 egress matchall action mirred egress redirect dev e1",
            "tc qdisc del dev e0 clsact",
            ExpectedRoute::Second, true),
        row("netdev ingress drops",
            "nft add table netdev n\nnft add chain netdev n i { type filter hook ingress device e0 priority 0 ; }\nnft add rule netdev n i udp dport 11211 drop",
            "nft delete table netdev n",
            ExpectedRoute::Nowhere, false),
        row("netdev egress drops",
            "nft add table netdev n\nnft add chain netdev n e { type filter hook egress device e0 priority 0 ; }\nnft add rule netdev n e udp sport 11211 drop",
            "nft delete table netdev n",
            ExpectedRoute::Nowhere, true),
        row("a rule before the hook drops",
            "nft add table ip t\nnft add chain ip t p { type filter hook prerouting priority -450 ; }\nnft add rule ip t p iifname e0 udp dport 11211 drop",
            "nft delete table ip t",
            ExpectedRoute::Nowhere, false),
    ]
}

/// Each topology by each receive path.
pub(super) fn replies_take_the_sockets_route() -> Result<()> {
    modules::load("dummy")?;
    compare(&rows(), &[ReceivePath::Prerouting, ReceivePath::Xdp])
}

/// Interfaces upon interfaces, and shaping.
pub(super) fn replies_over_stacked_interfaces_take_the_sockets_route() -> Result<()> {
    for module in [
        "8021q", "macvlan", "bonding", "vxlan", "ipip", "sch_fq", "sch_tbf", "sch_htb",
    ] {
        modules::load(module)?;
    }
    compare(&stacked(), &[ReceivePath::Prerouting, ReceivePath::Xdp])
}

/// Rules below IP apply to PRE_ROUTING. XDP gets its frames before all of them and sends its replies behind
/// all of them (docs/fast-path.md).
pub(super) fn rules_below_ip_hold_for_the_hook_only() -> Result<()> {
    for module in ["sch_ingress", "cls_matchall", "act_mirred"] {
        modules::load(module)?;
    }
    compare(&below_ip(), &[ReceivePath::Prerouting])?;
    let by_xdp = below_ip().into_iter().map(|row| Row {
        goes: ExpectedRoute::To(ASKER),
        fast: true,
        ..row
    });
    expect(by_xdp, ReceivePath::Xdp)
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
pub(super) fn counters_rise_as_a_sockets() -> Result<()> {
    const ASKED: usize = 20;
    const LOOKED_AT: [&str; 18] = [
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
        "Ip6InReceives",
        "Ip6InNoECTPkts",
        "Ip6OutTransmits",
        "Ip6OutOctets",
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
        // The last one's reply takes two datagrams.
        Tcp::connect("127.0.0.1")?.set("longer", &[b'x'; 2000])?;
        let longer = framed(9, b"get longer\r\n");
        let datagrams = [
            (v4([10, 9, 200, 2], HOST), 1),
            (v6("fd09:200::2", HOST6), 1),
            (with(longer.clone(), v4([10, 9, 200, 2], HOST)), 2),
            (with(longer, v6("fd09:200::2", HOST6)), 2),
        ];
        // A packet of another sender may be counted in part before a reading, and in part after it: two equal
        // counts are of the requests alone.
        let mut undisturbed: Option<Vec<i64>> = None;
        let mut counted = None;
        for _ in 0..TRIES {
            let before = counters_now()?;
            for _ in 0..ASKED {
                for (datagram, replies) in &datagrams {
                    let sent = bench.ask(0, &datagram.frame())?;
                    ensure!(sent.len() == *replies, "{by:?}: {sent:?}");
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

/// A reply without the fields that depend on its receiver: address, port and checksums.
fn without_receiver(sent: &Sent) -> Sent {
    let mut sent = sent.clone();
    for range in [30..34, 36..38, 40..42] {
        if let Some(bytes) = sent.bytes.get_mut(range) {
            bytes.fill(0);
        }
    }
    sent
}

/// Lookups are bounded: in a burst of new sources the socket answers those beyond the bound; after the
/// burst all are answered in place.
pub(super) fn lookups_are_bounded() -> Result<()> {
    const SOURCES: u16 = 400;
    const BURSTS: u8 = 60;
    const AGAIN: usize = 8;
    let mut bench = Topology::new()?;
    for by in [ReceivePath::Prerouting, ReceivePath::Xdp] {
        bench.reset()?;
        let served = Served::load(by, "")?;
        let counter = |name: &str| Tcp::connect("127.0.0.1")?.stat(name);
        ip("route add 8.0.0.0/8 via 10.9.200.2")?;
        let right = bench.ask(0, &v4(FAR, HOST).frame())?;
        let [right] = &right[..] else {
            bail!("{by:?}: {right:?}");
        };
        let right = without_receiver(right);
        let (mut limited, mut burst) = (0, 0);
        let mut frames = Vec::new();
        while limited == 0 && burst < BURSTS {
            burst += 1;
            let source = |number: u16| {
                // None that ends in 0 or 255.
                [8, burst, (number / 200) as u8, 1 + (number % 200) as u8]
            };
            frames = (1..=SOURCES)
                .map(|number| v4(source(number), HOST).frame())
                .collect();
            let before = counter("hippos_route_limited")?;
            let in_place = fast()?;
            for frame in &frames {
                bench.taps[0].send_with(Default::default(), frame)?;
            }
            let mut answered = BTreeSet::new();
            while answered.len() < usize::from(SOURCES) {
                let (sent, raw) = bench
                    .next_by(0)?
                    .with_context(|| format!("{by:?}: {} answered", answered.len()))?;
                let Some(sent) = sent else { continue };
                let sent = without_receiver(&sent);
                ensure!(sent == right, "{by:?}: {sent:?}, not {right:?}");
                Reply::parse(&raw).context("no datagram")?.check()?;
                let to: [u8; 4] = raw[30..34].try_into()?;
                ensure!(answered.insert(to), "{by:?}: {to:?} is answered twice");
            }
            let wrong = (1..=SOURCES).find(|number| !answered.contains(&source(*number)));
            ensure!(wrong.is_none(), "{by:?}: source {wrong:?} has no answer");
            limited = counter("hippos_route_limited")? - before;
            let in_place = fast()? - in_place;
            ensure!(
                in_place + limited >= u64::from(SOURCES) && (limited == 0 || in_place > 0),
                "{by:?}: {in_place} in place, {limited} beyond the bound"
            );
        }
        println!("{by:?}: {limited} of {SOURCES} beyond the bound in burst {burst}");
        // The debug kernel is too slow for so many in a tick.
        ensure!(
            limited > 0 || leaks::kmemleak_is_on(),
            "{by:?}: no burst went beyond the bound"
        );
        let before = fast()?;
        for frame in frames.iter().rev().take(AGAIN) {
            let sent = bench.ask(0, frame)?;
            ensure!(sent.len() == 1, "{by:?}: {sent:?}");
        }
        let again = fast()? - before;
        ensure!(again == AGAIN as u64, "{by:?}: {again} in place afterwards");
        served.unload()?;
    }
    Ok(())
}
