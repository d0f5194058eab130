// SPDX-License-Identifier: GPL-2.0-only
//! What changes while it is served: the next reply goes the new way.

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use hippos_client::{ReceivePath, Tcp};

use crate::netns::Namespace;
use crate::random::Random;
use crate::request::{v4, v6, FAR, HOST, HOST6};
use crate::row::{compare_in_turn, fast, ExpectedRoute, Row};
use crate::tap::Datagram;
use crate::topology::{ip, Served, Topology, ASKER, BEHIND, OTHER};

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

/// An interface gets another MAC address, another name, and goes to another namespace and back.
#[rustfmt::skip]
fn steps() -> Vec<Row> {
    const NEW_MAC: [u8; 6] = [2, 0, 0, 0, 9, 0x77];
    // With the address its neighbours go.
    const ANOTHER_MAC: &str = "\
link set e0 address 02:00:00:00:09:77
neigh replace 10.9.200.2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
neigh replace fd09:200::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
";
    // A link that goes down takes its neighbours and its IPv6 addresses along.
    const FLAP: &str = "\
link set e0 down
link set e0 up
addr add fd09:200::1/64 dev e0 nodad
neigh replace 10.9.200.2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
neigh replace fd09:200::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
";
    const AWAY: &str = "\
netns add there
link set e0 netns there
in there link set e0 up
in there addr add 10.9.200.1/24 dev e0
in there neigh replace 10.9.200.2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
";
    const BACK: &str = "\
in there link set e0 netns 1
netns del there
sysctl net.ipv6.conf.e0.accept_ra=0
sysctl net.ipv6.conf.e0.router_solicitations=0
sysctl net.ipv6.conf.e0.addr_gen_mode=1
link set e0 up
addr add 10.9.200.1/24 dev e0
addr add fd09:200::1/64 dev e0 nodad
neigh replace 10.9.200.2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
neigh replace fd09:200::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
";
    const OLD_MAC: &str = "\
link set e0 address 02:00:00:00:09:01
neigh replace 10.9.200.2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
neigh replace fd09:200::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
";
    let row = |name, setup, asks: [Datagram; 2], goes, fast| {
        let asks = asks.into_iter().map(|datagram| (0, datagram.frame())).collect();
        Row { name, setup, undo: "", asks, goes, fast }
    };
    let both = || [v4([10, 9, 200, 2], HOST), v6("fd09:200::2", HOST6)];
    let by_new_mac = || both().map(|datagram| Datagram { to_mac: NEW_MAC, ..datagram });
    let here = ExpectedRoute::To(ASKER);
    vec![
        row("before", "", both(), here, true),
        row("down and up again", FLAP, both(), here, true),
        row("another MAC address", ANOTHER_MAC, by_new_mac(), here, true),
        row("to the old MAC address", "", both(), ExpectedRoute::Nowhere, false),
        row("the old MAC address again", OLD_MAC, both(), here, true),
        row("to the other one", "", by_new_mac(), ExpectedRoute::Nowhere, false),
        row("another name", "link set e0 name e7", both(), here, true),
        row("the old name again", "link set e7 name e0", both(), here, true),
        row("in another namespace", AWAY, both(), ExpectedRoute::Nowhere, false),
        row("back", BACK, both(), here, true),
    ]
}

/// What happens to an interface while it is served.
pub(super) fn interface() -> Result<()> {
    compare_in_turn(&steps(), &[ReceivePath::Prerouting, ReceivePath::Xdp])
}

/// Addresses and interfaces that change in another namespace cost this one no routing lookups.
pub(super) fn in_another_namespace() -> Result<()> {
    let mut bench = Topology::new()?;
    let other = Namespace::new("other")?;
    // Without a program, since an entry ends after a quarter of a second: the first two remove and add an address.
    let change = || {
        other.enter(|| {
            for (name, value) in [
                ("ipv6/conf/lo/disable_ipv6", "1"),
                ("ipv6/conf/lo/disable_ipv6", "0"),
                ("ipv4/fib_multipath_hash_policy", "0"),
            ] {
                fs::write(Path::new("/proc/sys/net").join(name), value).context(name)?;
            }
            Ok(())
        })
    };
    for by in [ReceivePath::Prerouting, ReceivePath::Xdp] {
        bench.reset()?;
        let served = Served::load(by, "")?;
        let frame = v4([10, 9, 200, 2], HOST).frame();
        let lookups = || Tcp::connect("127.0.0.1")?.stat("hippos_route_lookups");
        let mut has_kept = false;
        // An entry may have become too old by the second request.
        for _ in 0..20 {
            bench.ask(0, &frame)?;
            let before = lookups()?;
            change()?;
            let in_place = fast()?;
            bench.ask(0, &frame)?;
            ensure!(fast()? > in_place, "{by:?}: not answered in place");
            has_kept |= lookups()? == before;
        }
        ensure!(has_kept, "{by:?}: each request needed a lookup");
        served.unload()?;
    }
    Ok(())
}
