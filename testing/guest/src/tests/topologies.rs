// SPDX-License-Identifier: GPL-2.0-only
//! Random topologies: whatever leaves because of a request leaves alike by the hook, by XDP and by a
//! socket (`udp_fast=0`).

use anyhow::{bail, ensure, Result};
use hippos_client::ReceivePath;

use crate::modules;
use crate::random::Random;
use crate::request::{from_mac, long, second, v4, v6, with, Ask, FAR, HOST, HOST6};
use crate::row::fast;
use crate::tap::{text, Datagram};
use crate::topology::{set_up, Sent, Served, Topology, ASKER, BEHIND, NAMES, NAT, OTHER};

/// A topology drawn by chance: what is set up, what is undone, and what is asked.
fn draw(random: &mut Random) -> (String, String, Vec<Ask>) {
    let mut lines = Vec::new();
    let mut undo = Vec::new();
    // Connection tracking remembers the flows of the topologies before.
    let from_port = 10_000 + random.below(50_000) as u16;
    let hop = |random: &mut Random| {
        *random.pick(&[
            "10.9.200.2",
            "10.9.200.3",
            "10.9.200.4",
            "10.9.201.2",
            "10.9.201.3",
        ])
    };
    let hop6 = |random: &mut Random| {
        *random.pick(&["fd09:200::2", "fd09:200::3", "fd09:200::4", "fd09:201::2"])
    };
    let metrics = |random: &mut Random| {
        *random.pick(&[
            "",
            "",
            "",
            " mtu 1300",
            " mtu lock 1280",
            " hoplimit 9",
            " advmss 900",
        ])
    };
    for prefix in ["8.8.0.0/16", "8.8.8.0/24", "10.77.0.0/16"] {
        match random.below(6) {
            0 => {}
            1 => {
                let kind = *random.pick(&["blackhole", "unreachable", "prohibit"]);
                lines.push(format!("route add {kind} {prefix}"));
                undo.push(format!("route del {kind} {prefix}"));
            }
            2 => lines.push(format!(
                "route add {prefix} nexthop via {} nexthop via {}",
                hop(random),
                hop(random)
            )),
            3 => lines.push(format!(
                "route add {prefix} dev {}",
                random.pick(&NAMES[..2])
            )),
            _ => lines.push(format!(
                "route add {prefix} via {}{}",
                hop(random),
                metrics(random)
            )),
        }
    }
    for prefix in ["2001:db8::/32", "2001:db8:1::/48"] {
        match random.below(5) {
            0 => {}
            1 => {
                lines.push(format!("route add blackhole {prefix}"));
                undo.push(format!("route del blackhole {prefix}"));
            }
            2 => lines.push(format!(
                "route add {prefix} dev {}",
                random.pick(&NAMES[..2])
            )),
            _ => lines.push(format!(
                "route add {prefix} via {}{}",
                hop6(random),
                random.pick(&["", " mtu 1300", " hoplimit 9"])
            )),
        }
    }
    if random.one_in(3) {
        let by_port = format!("ipproto 17 dport {from_port}");
        let what = *random.pick(&[
            "from 10.9.200.1",
            "to 8.8.0.0/16",
            "iif e0",
            "iif lo",
            "from 8.8.8.0/24",
            &by_port,
            "tos 0x10",
        ]);
        lines.push(format!("rule add pref 100 {what} lookup 100"));
        lines.push(format!(
            "route add 8.8.0.0/16 via {} table 100",
            hop(random)
        ));
        undo.push("rule del pref 100".into());
        undo.push("route flush table 100".into());
    }
    if random.one_in(4) {
        let station = text(*random.pick(&[ASKER, OTHER, BEHIND]));
        lines.push(format!(
            "neigh replace 10.9.200.2 lladdr {station} dev e0 nud permanent"
        ));
    }
    for card in &NAMES[..2] {
        let filter = random.below(4).saturating_sub(1);
        lines.push(format!("sysctl net.ipv4.conf.{card}.rp_filter={filter}"));
        undo.push(format!("sysctl net.ipv4.conf.{card}.rp_filter=0"));
    }
    if random.one_in(4) {
        lines.push("addr add 10.77.0.1/32 dev lo".into());
        undo.push("addr del 10.77.0.1/32 dev lo".into());
    }
    if random.one_in(4) {
        lines.push(format!(
            "sysctl net.ipv4.ip_default_ttl={}",
            1 + random.below(255)
        ));
        undo.push("sysctl net.ipv4.ip_default_ttl=64".into());
    }
    if random.one_in(4) {
        let chain = *random.pick(&[
            "nft add chain ip t p { type nat hook prerouting priority dstnat ; }\nnft add rule ip t p ip saddr 8.8.8.0/24 udp dport 11211 dnat to 10.9.201.2",
            "nft add chain ip t p { type nat hook postrouting priority srcnat ; }\nnft add rule ip t p oifname e0 masquerade",
            "nft add chain ip t p { type filter hook output priority filter ; }\nnft add rule ip t p ip daddr 8.8.0.0/16 drop",
            "nft add chain ip t p { type filter hook postrouting priority mangle ; }\nnft add rule ip t p ip ttl set 7",
            "nft add chain ip t p { type filter hook output priority filter ; }",
        ]);
        lines.push(format!("nft add table ip t\n{chain}"));
        undo.push("nft delete table ip t".into());
    }
    let mut asks = Vec::new();
    for _ in 0..8 {
        let to = *random.pick(&[HOST, HOST, [10, 9, 201, 1], [10, 77, 0, 1]]);
        let from = *random.pick(&[
            [10, 9, 200, 2],
            [10, 9, 200, 3],
            [10, 9, 200, 9],
            FAR,
            [8, 8, 9, 9],
            [10, 77, 0, 7],
            [10, 9, 201, 2],
            [10, 9, 201, 1],
            [240, 1, 1, 1],
            [10, 9, 201, 255],
            [192, 0, 2, 9],
        ]);
        let datagram = if random.one_in(3) {
            let from = *random.pick(&[
                "fd09:200::2",
                "fd09:200::3",
                "2001:db8::8",
                "2001:db8:1::8",
                "fd09:201::2",
                "fd09:201::1",
                "fd00::9",
            ]);
            v6(from, random.pick::<&'static str>(&[HOST6, "fd09:201::1"]))
        } else {
            v4(from, to)
        };
        let datagram = if random.one_in(4) {
            with(long(), datagram)
        } else {
            datagram
        };
        let datagram = Datagram {
            from_port,
            ..datagram
        };
        let mac = *random.pick(&[ASKER, ASKER, OTHER]);
        if random.one_in(3) {
            asks.push(second(datagram));
        } else {
            asks.push((0, from_mac(mac, datagram).frame()));
        }
    }
    (lines.join("\n"), undo.join("\n"), asks)
}

/// Topologies drawn by chance. Arguments: how many, and the seed.
pub(super) fn random(arguments: &[String]) -> Result<()> {
    let number = |at: usize, usual: u64| -> Result<u64> {
        Ok(arguments
            .get(at)
            .map(|text| text.parse())
            .transpose()?
            .unwrap_or(usual))
    };
    let (count, seed) = (number(0, 8)?, number(1, 1)?);
    for module in NAT {
        modules::load(module)?;
    }
    let mut bench = Topology::new()?;
    let mut judge: Vec<Vec<Vec<Sent>>> = Vec::new();
    let (mut replies, mut in_place) = (0, 0);
    for by in [
        ReceivePath::Socket,
        ReceivePath::Prerouting,
        ReceivePath::Xdp,
    ] {
        bench.reset()?;
        let served = Served::load(by, "")?;
        let before = fast()?;
        for topology in 0..count {
            let mut random = Random::new(seed.wrapping_add(topology));
            let (lines, undo, asks) = draw(&mut random);
            bench.reset()?;
            set_up(&lines)?;
            let mut seen = Vec::new();
            for (card, frame) in &asks {
                seen.push(bench.ask(*card, frame)?);
            }
            set_up(&undo)?;
            if by == ReceivePath::Socket {
                replies += seen.iter().filter(|sent| !sent.is_empty()).count();
                judge.push(seen);
                continue;
            }
            let right = &judge[topology as usize];
            for (number, (sent, right)) in seen.iter().zip(right).enumerate() {
                if sent != right {
                    let (card, frame) = &asks[number];
                    bail!(
                        "{by:?}, seed {}, request {number} by {}: {}\n{sent:?}\nthe socket: {right:?}\nin\n{lines}",
                        seed.wrapping_add(topology),
                        NAMES[*card],
                        frame.escape_ascii()
                    );
                }
            }
        }
        in_place += fast()? - before;
        served.unload()?;
    }
    println!("{count} topologies, {replies} answered by the socket, {in_place} in place");
    ensure!(in_place > 0, "nothing was answered in place");

    Ok(())
}
