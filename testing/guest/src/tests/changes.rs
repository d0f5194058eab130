// SPDX-License-Identifier: GPL-2.0-only
//! Changes of routes, neighbours, rules and interfaces while requests are served: the next reply follows them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use hippos_client::{ReceivePath, Tcp};

use crate::netns::Namespace;
use crate::request::{short, v4, v6, with, FAR, HOST, HOST6};
use crate::row::{compare_in_turn, fast, xdp, ExpectedRoute, Row};
use crate::tap::{Datagram, Tap};
use crate::topology::{ip, set_up, Served, Topology, ASKER, BEHIND, LIMIT, OTHER};

/// Changes of the way to the source of requests, by both families: routes, the neighbour of the gateway, nexthop objects.
const VIA_ASKER: &str =
    "route replace 8.8.0.0/16 via 10.9.200.2\nroute replace 2001:db8::/32 via fd09:200::2";
const VIA_OTHER: &str =
    "route replace 8.8.0.0/16 via 10.9.200.3\nroute replace 2001:db8::/32 via fd09:200::3";
const VIA_BEHIND: &str =
    "route replace 8.8.0.0/16 via 10.9.201.2\nroute replace 2001:db8::/32 via fd09:201::2";
const MAC_OF_ASKER: &str =
    "neigh replace 10.9.200.2 lladdr 02:00:00:00:09:02 dev e0 nud permanent\nneigh replace fd09:200::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent";
const MAC_OF_OTHER: &str =
    "neigh replace 10.9.200.2 lladdr 02:00:00:00:09:03 dev e0 nud permanent\nneigh replace fd09:200::2 lladdr 02:00:00:00:09:03 dev e0 nud permanent";
const BY_OBJECTS: &str =
    "nexthop replace id 1 via 10.9.200.2 dev e0\nnexthop replace id 2 via fd09:200::2 dev e0\nroute replace 8.8.0.0/16 nhid 1\nroute replace 2001:db8::/32 nhid 2";
const OBJECTS_TO_ASKER: &str =
    "nexthop replace id 1 via 10.9.200.2 dev e0\nnexthop replace id 2 via fd09:200::2 dev e0";
const OBJECTS_TO_OTHER: &str =
    "nexthop replace id 1 via 10.9.200.3 dev e0\nnexthop replace id 2 via fd09:200::3 dev e0";

/// After a change of routes, rules or neighbours the very next reply follows it.
pub(super) fn next_reply_follows_a_change() -> Result<()> {
    let mut bench = Topology::new()?;
    for by in [ReceivePath::Prerouting, ReceivePath::Xdp] {
        bench.reset()?;
        let served = Served::load(by, "")?;
        ip("route add 8.8.0.0/16 via 10.9.200.2\nroute add 2001:db8::/32 via fd09:200::2")?;
        let steps: [(&str, &str, [u8; 6]); 9] = [
            ("", "e0", ASKER),
            (VIA_OTHER, "e0", OTHER),
            (VIA_BEHIND, "e1", BEHIND),
            (VIA_ASKER, "e0", ASKER),
            (MAC_OF_OTHER, "e0", OTHER),
            (MAC_OF_ASKER, "e0", ASKER),
            (BY_OBJECTS, "e0", ASKER),
            (OBJECTS_TO_OTHER, "e0", OTHER),
            (OBJECTS_TO_ASKER, "e0", ASKER),
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

/// Where replies go: the card, and the station by it.
type Way = (usize, [u8; 6]);

/// Changes of one kind.
struct Changes {
    what: &'static str,
    setup: &'static str,
    /// Made in turn: the lines, and the way after them.
    turns: &'static [(&'static str, Way)],
}

const CHANGES: [Changes; 4] = [
    Changes {
        what: "routes",
        setup: "",
        turns: &[
            (
                VIA_OTHER,
                (0, OTHER),
            ),
            (
                VIA_BEHIND,
                (1, BEHIND),
            ),
            (
                VIA_ASKER,
                (0, ASKER),
            ),
        ],
    },
    Changes {
        what: "neighbours",
        setup: "",
        turns: &[
            (
                MAC_OF_OTHER,
                (0, OTHER),
            ),
            (
                MAC_OF_ASKER,
                (0, ASKER),
            ),
        ],
    },
    Changes {
        what: "rules",
        setup: "route add 8.8.0.0/16 via 10.9.200.3 table 100\nroute add 2001:db8::/32 via fd09:200::3 table 100",
        turns: &[
            ("rule add pref 100 lookup 100\n-6 rule add pref 100 lookup 100", (0, OTHER)),
            ("rule del pref 100\n-6 rule del pref 100", (0, ASKER)),
        ],
    },
    Changes {
        what: "nexthop objects",
        setup: BY_OBJECTS,
        turns: &[
            (
                OBJECTS_TO_OTHER,
                (0, OTHER),
            ),
            (
                OBJECTS_TO_ASKER,
                (0, ASKER),
            ),
        ],
    },
];

/// Sends requests over IPv4 and IPv6 in turn, numbered by `last`, until `stop`. The sources are many, so that there are
/// always some that need a lookup.
fn send_requests(tap: &Tap, last: &AtomicU16, stop: &AtomicBool) -> Result<()> {
    for source in (1..=32).cycle() {
        if stop.load(SeqCst) {
            break;
        }
        for datagram in [
            v4([8, 8, 0, source], HOST),
            v6(&format!("2001:db8::{source}"), HOST6),
        ] {
            let number = last.fetch_add(1, SeqCst).wrapping_add(1);
            let mut payload = short();
            payload[..2].copy_from_slice(&number.to_be_bytes());
            tap.send_with(Default::default(), &with(payload, datagram).frame())?;
        }
        // Replies are taken off the wire before the cards' queues are full.
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A reply to [`send_requests`]: its number, whether it is IPv6, and where it went.
fn next_reply(bench: &Topology) -> Result<Option<(u16, bool, Way)>> {
    for (card, tap) in bench.taps.iter().enumerate().take(2) {
        while let Some(frame) = tap.receive(Duration::ZERO, |_| true)? {
            let ipv6 = frame.get(12..14) == Some(&[0x86, 0xdd]);
            let at = if ipv6 { 62 } else { 42 };
            let is_udp = frame.get(if ipv6 { 20 } else { 23 }) == Some(&17);
            if let (true, Some(&[high, low])) = (is_udp, frame.get(at..at + 2)) {
                let number = u16::from_be_bytes([high, low]);
                return Ok(Some((number, ipv6, (card, frame[..6].try_into()?))));
            }
        }
    }
    Ok(None)
}

/// Routes, neighbours, rules and nexthop objects change under load: the reply to each request after a change
/// follows it.
pub(super) fn replies_under_load_follow_changes() -> Result<()> {
    const ROUNDS: usize = 30;
    /// Replies of each family after a change.
    const REPLIES: usize = 4;
    let mut bench = Topology::new()?;
    for by in [ReceivePath::Prerouting, ReceivePath::Xdp] {
        for Changes { what, setup, turns } in CHANGES {
            bench.reset()?;
            let served = Served::load(by, "")?;
            ip("route add 8.8.0.0/16 via 10.9.200.2\nroute add 2001:db8::/32 via fd09:200::2")?;
            ip(setup)?;
            // Replies to the changes before.
            while next_reply(&bench)?.is_some() {}
            let before = (fast()?, xdp()?);
            let (last, stop) = (AtomicU16::new(0), AtomicBool::new(false));
            let judge = || -> Result<()> {
                for (round, &(lines, way)) in turns.iter().cycle().take(ROUNDS).enumerate() {
                    set_up(lines)?;
                    let after = last.load(SeqCst);
                    let end = Instant::now() + LIMIT;
                    let mut replies = [0; 2];
                    while replies.iter().any(|&count| count < REPLIES) {
                        ensure!(Instant::now() < end, "{round}: {replies:?} replies");
                        let Some((number, ipv6, went)) = next_reply(&bench)? else {
                            thread::sleep(Duration::from_millis(1));
                            continue;
                        };
                        if number.wrapping_sub(after) as i16 <= 0 {
                            continue;
                        }
                        ensure!(went == way, "{round}: {lines}: {went:02x?}, IPv6: {ipv6}");
                        replies[usize::from(ipv6)] += 1;
                    }
                }
                Ok(())
            };
            thread::scope(|scope| {
                let sender = scope.spawn(|| send_requests(&bench.taps[0], &last, &stop));
                let judged = judge();
                stop.store(true, SeqCst);
                let sent = sender
                    .join()
                    .unwrap_or_else(|_| bail!("the sender panicked"));
                judged.and(sent)
            })
            .with_context(|| format!("{by:?}, {what}"))?;
            let in_place = match by {
                ReceivePath::Xdp => xdp()? - before.1,
                _ => fast()? - before.0,
            };
            let least = (ROUNDS * REPLIES) as u64;
            ensure!(in_place > least, "{by:?}, {what}: {in_place} in place");
            served.unload()?;
        }
    }
    Ok(())
}

/// An interface gets another MAC address, another name, and moves to another namespace and back.
#[rustfmt::skip]
fn steps() -> Vec<Row> {
    const NEW_MAC: [u8; 6] = [2, 0, 0, 0, 9, 0x77];
    // With the address it loses its neighbours.
    const ANOTHER_MAC: &str = "\
link set e0 address 02:00:00:00:09:77
neigh replace 10.9.200.2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
neigh replace fd09:200::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
";
    // A link that is set down loses its neighbours and its IPv6 addresses.
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
        Row { name, setup, undo: "", asks, goes, fast, above_xdp: false }
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

/// An interface changes while it is served.
pub(super) fn replies_follow_changes_of_an_interface() -> Result<()> {
    compare_in_turn(&steps(), &[ReceivePath::Prerouting, ReceivePath::Xdp])
}

/// Announcements of neighbours that no reply went to seldom end the cached routes, however many there are.
pub(super) fn neighbours_of_no_client_keep_cached_routes() -> Result<()> {
    const CLIENTS: u8 = 240;
    const STRANGERS: u16 = 1000;
    // Some clients share a slot of the table of neighbours: each announcement of a neighbour in it is a change.
    const CHANGES_MAX: u64 = 5;
    let client = |number: u8| [10, 9, 200, 10 + number];
    let station = |host: &str| {
        format!("neigh replace {host} lladdr 02:00:00:00:09:02 dev e0 nud permanent\n")
    };
    let clients: String = (0..CLIENTS)
        .map(|number| station(&Ipv4Addr::from(client(number)).to_string()))
        .collect();
    let strangers: String = (0..STRANGERS)
        .map(|number| station(&format!("fd09:200::{:x}", 0x1000 + number)))
        .collect();
    let mut bench = Topology::new()?;
    for by in [ReceivePath::Prerouting, ReceivePath::Xdp] {
        bench.reset()?;
        let served = Served::load(by, "")?;
        ip(&clients)?;
        for number in 0..CLIENTS {
            bench.ask(0, &v4(client(number), HOST).frame())?;
        }
        let changes = || Tcp::connect("127.0.0.1")?.stat("hippos_route_changes");
        let before = changes()?;
        ip(&strangers)?;
        let changes = changes()? - before;
        ensure!(changes < CHANGES_MAX, "{by:?}: {changes} changes");
        served.unload()?;
    }
    Ok(())
}

/// Addresses and interfaces that change in another namespace cost this one no routing lookups.
pub(super) fn changes_in_another_namespace_cost_no_lookups() -> Result<()> {
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
