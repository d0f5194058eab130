// SPDX-License-Identifier: GPL-2.0-only
//! Replies in place leave as a socket's would: the same bytes, by the same card, to the same next
//! hop, with the same time to live. A socket in the same topology (`udp_fast=0`) is the judge.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{ensure, Context, Result};
use hippos_client::ReceivePath;

use crate::modules;
use crate::request::{
    encapsulated, from_mac, icmp_error, long, second, v4, v6, with, FAR, HOST, HOST6,
};
use crate::row::{compare, ExpectedRoute, Row};
use crate::tap::Datagram;
use crate::topology::{Served, Topology, ASKER, BEHIND, OTHER, VXLAN};

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
