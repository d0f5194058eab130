// SPDX-License-Identifier: GPL-2.0-only
//! The firewall and the receive paths: rules that close them, rules that apply to them, and the reports of their state.

use std::net::UdpSocket;

use anyhow::{ensure, Context, Result};
use hippos_client::{ReceivePath, Tcp};
use nix::sys::socket::{setsockopt, sockopt};

use crate::exporter;
use crate::kmsg::Log;
use crate::modules::{self, Hippos};
use crate::netns::{self, Namespace};
use crate::request::{from_mac, v4, v6, HOST, HOST6};
use crate::row::fast;
use crate::system::run;
use crate::tap::{Datagram, Reply};
use crate::topology::{set_up, Served, Topology, LIMIT, NAT, OTHER};

/// Behind destination NAT, requests to this host are answered in place and others are translated.
pub(super) fn late_answers_own_requests_behind_nat() -> Result<()> {
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

/// Behind destination NAT the hook is open while XDP is closed; XDP does not use the hook's cached routes.
pub(super) fn late_keeps_xdp_closed_before_nat() -> Result<()> {
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
pub(super) fn requests_assigned_by_tproxy_reach_their_socket() -> Result<()> {
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

/// A service's address on a dummy interface, which destination NAT sends to a pod.
const SERVICE: &str = "\
sysctl net.ipv4.ip_forward=1
link add svc type dummy
addr add 10.96.0.1/32 dev svc
link set svc up
nft add table ip t
nft add chain ip t p { type nat hook prerouting priority dstnat ; }
nft add rule ip t p ip daddr 10.96.0.1 udp dport 11211 dnat to 10.9.1.2
";

/// The pod answers the requests to the service's address, this host those to its own address.
pub(super) fn requests_for_a_pod_reach_the_pod() -> Result<()> {
    for module in NAT.iter().chain(&["dummy"]) {
        modules::load(module)?;
    }
    let mut bench = Topology::new()?;
    let pod = Namespace::new("pod")?;
    let link = netns::join(&pod, 1)?;
    pod.ip(&format!("route add default via {}", link.here_ipv4))?;
    let server = pod.enter(|| Ok(UdpSocket::bind((link.far_ipv4.as_str(), 11211))?))?;
    server.set_read_timeout(Some(LIMIT))?;
    // A port for each: connection tracking remembers flows of those before.
    let cases = [
        (4421, ReceivePath::Socket, "", false),
        (4422, ReceivePath::Prerouting, "", false),
        (4423, ReceivePath::Prerouting, "udp_fast=late", true),
        (4424, ReceivePath::Xdp, "", false),
        (4425, ReceivePath::Xdp, "udp_fast=late", true),
    ];
    for (from_port, by, parameter, in_place) in cases {
        let shown = format!("{by:?} {parameter}");
        bench.reset()?;
        let served = Served::load(by, parameter)?;
        set_up(SERVICE)?;
        let request = |to| Datagram {
            from_port,
            ..v4([10, 9, 200, 2], to)
        };
        let before = fast()?;
        // The pod gets memcached's frame, eight bytes, as part of its payload.
        bench.taps[0].send_with(Default::default(), &request([10, 96, 0, 1]).frame())?;
        let mut buffer = [0; 2048];
        let (length, from) = server
            .recv_from(&mut buffer)
            .with_context(|| format!("{shown}: the pod is not asked"))?;
        ensure!(
            buffer.get(..length) == Some(&request([0; 4]).payload[..]),
            "{shown}: {:?}",
            buffer[..length].escape_ascii()
        );
        server.send_to(b"the pod's", from)?;
        let reply = loop {
            let (sent, raw) = bench.next_by(0)?.with_context(|| shown.clone())?;
            if sent.is_some() {
                break raw;
            }
        };
        let datagram = Reply::parse(&reply).with_context(|| shown.clone())?;
        datagram.check()?;
        ensure!(
            reply[26..34] == [10, 96, 0, 1, 10, 9, 200, 2]
                && (datagram.from_port, datagram.to_port) == (11211, from_port)
                && reply.ends_with(b"the pod's"),
            "{shown}: {}",
            reply.escape_ascii()
        );
        ensure!(fast()? == before, "{shown}: the pod's request in place");
        let sent = bench.ask(0, &request(HOST).frame())?;
        ensure!(
            matches!(&sent[..], [one] if one.card == "e0"),
            "{shown}: {sent:?}"
        );
        ensure!(
            (fast()? > before) == in_place,
            "{shown}: this host's in place: {}",
            !in_place
        );
        set_up("nft delete table ip t\nlink del svc\nsysctl net.ipv4.ip_forward=0")?;
        served.unload()?;
    }
    Ok(())
}

/// Rules for incoming packets, for each value of `udp_fast` and its receive path: rules before
/// destination NAT apply with `late`, and none with the others (docs/fast-path.md).
pub(super) fn input_rules_hold_as_documented() -> Result<()> {
    const DROP: &str = "ip saddr 10.9.200.2 udp dport 11211";
    let chain = |family: &str, hook: &str, rule: &str| {
        format!(
            "nft add table {family} t\nnft add chain {family} t p {{ {hook} ; }}\n\
             nft add rule {family} t p {rule} drop"
        )
    };
    let raw = "type filter hook prerouting priority raw";
    let mangle = "type filter hook prerouting priority mangle";
    let cases = [
        ("ip", chain("ip", raw, DROP), true),
        (
            "ip6",
            chain("ip6", raw, "ip6 saddr fd09:200::2 udp dport 11211"),
            true,
        ),
        (
            "ip",
            chain("ip", mangle, &format!("{DROP} ct state new")),
            true,
        ),
        (
            "inet",
            chain("inet", mangle, "udp dport 11211 ct state new"),
            true,
        ),
        (
            "ip",
            chain("ip", "type filter hook input priority filter", DROP),
            false,
        ),
    ];
    for module in NAT {
        modules::load(module)?;
    }
    let mut bench = Topology::new()?;
    for (parameter, by, late) in [
        ("udp_fast=0", ReceivePath::Socket, false),
        ("udp_fast=late", ReceivePath::Prerouting, true),
        ("", ReceivePath::Prerouting, false),
        ("udp_fast=always", ReceivePath::Prerouting, false),
        ("udp_fast=late", ReceivePath::Xdp, false),
    ] {
        bench.reset()?;
        let served = Served::load(
            by,
            if by == ReceivePath::Socket {
                ""
            } else {
                parameter
            },
        )?;
        for (family, rules, before_nat) in &cases {
            set_up(rules)?;
            let datagram = match *family {
                "ip6" => v6("fd09:200::2", HOST6),
                _ => v4([10, 9, 200, 2], HOST),
            };
            let before = fast()?;
            let sent = bench.ask(0, &datagram.frame())?;
            let in_place = fast()? - before;
            set_up(&format!("nft delete table {family} t"))?;
            let holds = by == ReceivePath::Socket || (late && *before_nat);
            ensure!(
                sent.len() == usize::from(!holds) && in_place == u64::from(!holds),
                "{by:?} {parameter}: {in_place} in place, {sent:?} with {rules}"
            );
        }
        served.unload()?;
    }
    Ok(())
}

/// PRE_ROUTING and XDP, each IPv4 and IPv6: their names, in statistics and in the kernel's log.
const PATHS: [(&str, &str); 4] = [
    ("hook_ipv4", "PRE_ROUTING, IPv4"),
    ("hook_ipv6", "PRE_ROUTING, IPv6"),
    ("xdp_ipv4", "XDP, IPv4"),
    ("xdp_ipv6", "XDP, IPv6"),
];

/// The texts of `hippos-ctl status` and of the kernel's log for a word of the statistics.
fn said(word: &str) -> (&'static str, &'static str) {
    match word {
        "nat" => ("closed: a NAT chain", "disabled by NAT,"),
        "output" => ("closed: OUTPUT has rules", "disabled by rules in OUTPUT,"),
        "postrouting" => (
            "closed: POSTROUTING has rules",
            "disabled by rules in POSTROUTING,",
        ),
        _ => ("open", "enabled"),
    }
}

/// Statistics, the exporter, `status` and the kernel's log show alike which receive path is closed, and
/// why, while rules are added and removed.
pub(super) fn path_states_are_shown_alike() -> Result<()> {
    let nat = |family: &str, to: &str| {
        format!(
            "nft add table {family} t\n\
             nft add chain {family} t p {{ type nat hook prerouting priority dstnat ; }}\n\
             nft add rule {family} t p udp dport 11211 dnat to {to}"
        )
    };
    let filter = |hook: &str| {
        format!(
            "nft add table inet t\n\
             nft add chain inet t p {{ type filter hook {hook} priority filter ; }}\n\
             nft add rule inet t p udp sport 11211 accept"
        )
    };
    let cases = [
        (
            "ip",
            nat("ip", "10.9.201.2"),
            ["nat", "open", "nat", "open"],
        ),
        (
            "ip6",
            nat("ip6", "fd09:201::2"),
            ["open", "nat", "open", "nat"],
        ),
        ("inet", filter("output"), ["output"; 4]),
        ("inet", filter("postrouting"), ["postrouting"; 4]),
    ];
    for module in NAT {
        modules::load(module)?;
    }
    // No line is lost to the rate limit.
    set_up("sysctl net.core.message_cost=0")?;
    let mut log = Log::open()?;
    for parameter in ["", "udp_fast=late", "udp_fast=always"] {
        let hippos = Hippos::load(parameter)?;
        let mut words = ["open"; 4];
        check_shown(&words, &words, &mut log).context("at the start")?;
        for (family, rules, expected) in &cases {
            let expected = match parameter {
                "udp_fast=always" => ["open"; 4],
                // PRE_ROUTING is behind destination NAT, XDP is not.
                "udp_fast=late" if expected.contains(&"nat") => {
                    ["open", "open", expected[2], expected[3]]
                }
                _ => *expected,
            };
            for (rules, expected) in [
                (rules.clone(), expected),
                (format!("nft delete table {family} t"), ["open"; 4]),
            ] {
                set_up(&rules)?;
                check_shown(&words, &expected, &mut log)
                    .with_context(|| format!("{parameter}: after {rules}"))?;
                words = expected;
            }
        }
        hippos.unload()?;
    }
    set_up("sysctl net.core.message_cost=5")
}

/// Checks that all reports show `now`, and that the log has the changes since `before`.
fn check_shown(before: &[&str; 4], now: &[&str; 4], log: &mut Log) -> Result<()> {
    log.lines();
    let statistics = run("hippos-ctl stats")?;
    let status = run("hippos-ctl status")?;
    let metrics = exporter::scrape()?;
    let logged = log.lines();
    for (number, (name, title)) in PATHS.into_iter().enumerate() {
        let word = now[number];
        let (shown, logged_as) = said(word);
        let found = statistics.lines().any(|line| {
            line.split_whitespace()
                .eq([&format!("hippos_{name}"), word])
        });
        ensure!(found, "{name} is not {word} in {statistics}");
        let found = status
            .lines()
            .any(|line| line.starts_with(&format!("{title}: {shown}")));
        ensure!(found, "{title} is not {shown} in {status}");
        let sample = format!("hippos_receive_path_open{{path=\"{name}\",state=\"{word}\"}}");
        let sample = format!("{sample} {}", u8::from(word == "open"));
        ensure!(metrics.contains(&sample), "no {sample} in {metrics}");
        let begin = format!("hippos: {title}: fast path ");
        let lines: Vec<_> = logged
            .iter()
            .filter_map(|line| line.strip_prefix(&begin))
            .collect();
        let right = if before[number] == word {
            lines.is_empty()
        } else {
            matches!(lines[..], [line] if line.starts_with(logged_as))
        };
        ensure!(
            right,
            "{title} from {} to {word}: {lines:?}",
            before[number]
        );
    }
    Ok(())
}
