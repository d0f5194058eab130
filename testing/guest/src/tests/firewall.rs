// SPDX-License-Identifier: GPL-2.0-only
//! Rules and receive paths: which of them close, which of them rules hold for, and what is said of it.

use std::net::UdpSocket;

use anyhow::{ensure, Context, Result};
use hippos_client::{ReceivePath, Tcp};
use nix::sys::socket::{setsockopt, sockopt};

use crate::modules::{self, Hippos};
use crate::request::{from_mac, v4, HOST};
use crate::row::fast;
use crate::system::run;
use crate::tap::Datagram;
use crate::topology::{set_up, Served, Topology, LIMIT, NAT, OTHER};

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
