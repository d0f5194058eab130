// SPDX-License-Identifier: GPL-2.0-only
//! Random topologies: the frames that leave in answer to a request are the same by the hook, by XDP and by a
//! socket (`udp_fast=0`).
//!
//! A number makes a topology; `--size 1 --seed NUMBER` plays that one alone.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use hippos_client::{ReceivePath, Tcp};

use crate::modules;
use crate::net::GATEWAY;
use crate::random_topology::{RandomTopology, FEATURES, HUGE, OTHER_PORTS, RARE};
use crate::system::run;
use crate::topology::{Sent, Served, Topology, MARKER, NAT};

/// The modules for stacked interfaces and for rules beside [`NAT`].
const MODULES: [&str; 6] = ["bonding", "bridge", "8021q", "vrf", "dummy", "nft_redir"];
/// How long addresses and links may take to come up.
const SETTLED: Duration = Duration::from_secs(10);
/// So many topologies have all but the rarest features, and replies in place with each of these.
const MANY: u64 = 200;
/// Differences that are shown; then it ends.
const SHOWN: usize = 8;

/// How requests are answered: the judge first. XDP has the other place of the hook behind it, so
/// that both are seen.
const PASSES: [(ReceivePath, &str); 3] = [
    (ReceivePath::Socket, ""),
    (ReceivePath::Prerouting, ""),
    (ReceivePath::Xdp, "udp_fast=late"),
];

/// Intended differences from a socket (docs/fast-path.md), beside the fields that [`Sent`] leaves out: DF,
/// the identification, the flow label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum OnPurpose {
    /// Replies in place meet no rules of PREROUTING and INPUT: as a socket without these rules.
    InputRules,
    /// `fib_multipath_hash_policy=1`: a socket chooses by ports, an entry has none.
    HopByPorts,
}

/// Everything that left because of a request.
type Reply = Vec<Sent>;

/// The replies that left in a topology.
struct Seen {
    /// By request.
    replies: Vec<Reply>,
    /// By request, if the next hop may be chosen by ports: one for each other port, without it.
    by_other_ports: Vec<Vec<Reply>>,
    /// Lines that were refused.
    refused: Vec<String>,
}

/// The socket's replies in a topology.
struct Judged {
    seen: Seen,
    /// Without the rules for incoming packets, if there are any.
    unfiltered: Option<Seen>,
}

/// The results for a feature, or for all topologies.
#[derive(Default)]
struct Tally {
    topologies: u64,
    answered: u64,
    by_hook: u64,
    by_xdp: u64,
    by_late_hook: u64,
}

/// Makes one topology after the other.
struct Bench {
    topology: Topology,
    /// Whether there is a card to the host.
    uplink: bool,
}

impl Bench {
    fn new() -> Result<Self> {
        for module in NAT.iter().chain(&MODULES) {
            modules::load(module)?;
        }
        let topology = Topology::new()?;
        // The rules that the first VRF of a namespace brings stay.
        run("ip link add vrf0 type vrf table 300")?;
        run("ip link del vrf0")?;
        for knob in [
            // New interfaces send no packets that no test causes.
            "ipv6/conf/default/addr_gen_mode=1",
            "ipv6/conf/default/accept_ra=0",
            "ipv6/conf/default/router_solicitations=0",
            // The same choice among next hops whenever it is played.
            "ipv4/fib_multipath_hash_seed=1",
            // A stale neighbour is not probed meanwhile.
            "ipv4/neigh/default/delay_first_probe_time=600",
            "ipv6/neigh/default/delay_first_probe_time=600",
            "ipv4/neigh/e0/delay_first_probe_time=600",
            "ipv6/neigh/e0/delay_first_probe_time=600",
            "ipv4/neigh/e1/delay_first_probe_time=600",
            "ipv6/neigh/e1/delay_first_probe_time=600",
            // Connection tracking forgets a pass before the next one.
            "netfilter/nf_conntrack_udp_timeout=1",
            "netfilter/nf_conntrack_udp_timeout_stream=1",
        ] {
            let (name, value) = knob.split_once('=').context("a knob")?;
            fs::write(format!("/proc/sys/net/{name}"), value).with_context(|| knob.to_owned())?;
        }
        // Default routes are drawn; the card to the host has one, and a router that announces one.
        let uplink = Path::new("/sys/class/net/eth0").exists();
        if uplink {
            fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "0")?;
            run("ip -4 route flush default")?;
            run("ip -6 route flush default")?;
        }
        run("ip link set mark up")?;
        run("ip addr add 10.9.250.1/24 dev mark")?;
        run(&format!(
            "ip neigh replace 10.9.250.2 lladdr {} dev mark nud permanent",
            crate::tap::text(MARKER)
        ))?;
        Ok(Bench { topology, uplink })
    }

    /// Asks everything of a topology, and by other ports if these are to show the socket's next hops.
    fn see(
        &mut self,
        drawn: &RandomTopology,
        input_rules: bool,
        other_ports: bool,
    ) -> Result<Seen> {
        let seen = self.play(drawn, input_rules, other_ports && drawn.hash_by_ports);
        let mut undo = drawn.undo.clone();
        if input_rules && !drawn.input_rules.is_empty() {
            undo.push("nft delete table inet i".into());
        }
        // Down together, or routes by two of them would stay.
        for line in ["link set e0 down", "link set e1 down", "addr flush dev e0"] {
            undo.push(format!("ip {line}"));
        }
        undo.push("ip addr flush dev e1".into());
        undo.push("ip nexthop flush".into());
        apply(&undo)?;
        seen
    }

    fn play(
        &mut self,
        drawn: &RandomTopology,
        input_rules: bool,
        other_ports: bool,
    ) -> Result<Seen> {
        let mut refused = apply(&drawn.lines)?;
        if input_rules {
            refused.extend(apply(&drawn.input_rules)?);
        }
        settle(drawn)?;
        let mut replies = Vec::new();
        for ask in &drawn.asks {
            replies.push(self.topology.ask(ask.card, &ask.frame())?);
        }
        let mut by_other_ports = Vec::new();
        for ask in drawn.asks.iter().filter(|_| other_ports) {
            let replies: Result<Vec<Reply>> = (0..OTHER_PORTS)
                .map(|number| {
                    let frame = ask.frame_by_other_port(number);
                    Ok(without_port(&self.topology.ask(ask.card, &frame)?))
                })
                .collect();
            by_other_ports.push(replies?);
        }
        Ok(Seen {
            replies,
            by_other_ports,
            refused,
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The usual values.
        for (name, value) in [
            ("ipv6/conf/default/addr_gen_mode", "0"),
            ("ipv6/conf/default/accept_ra", "1"),
            ("ipv6/conf/default/router_solicitations", "-1"),
            ("ipv4/neigh/default/delay_first_probe_time", "5"),
            ("ipv6/neigh/default/delay_first_probe_time", "5"),
            ("netfilter/nf_conntrack_udp_timeout", "30"),
            ("netfilter/nf_conntrack_udp_timeout_stream", "120"),
        ] {
            let _ = fs::write(format!("/proc/sys/net/{name}"), value);
        }
        if self.uplink {
            let _ = fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "1");
            let _ = run(&format!("ip route add default via {GATEWAY}"));
        }
    }
}

/// Lines for one program.
type Batch<'a> = (&'a str, Vec<&'a str>);

/// Runs the lines as a shell would, but many of them in one process. Returns the refused lines: a random
/// topology need not be valid.
fn apply(lines: &[String]) -> Result<Vec<String>> {
    let mut batches: Vec<Batch> = Vec::new();
    for line in lines {
        let program = ["ip -6 ", "ip ", "nft ", "sysctl -w ", "wait "]
            .into_iter()
            .find(|program| line.starts_with(program))
            .with_context(|| format!("of no known program: {line}"))?;
        let rest = &line[program.len()..];
        match batches.last_mut() {
            Some((last, batch)) if *last == program => batch.push(rest),
            _ => batches.push((program, vec![rest])),
        }
    }
    let mut refused = Vec::new();
    for (program, batch) in batches {
        match program {
            "sysctl -w " => {
                for knob in batch {
                    let (name, value) = knob.split_once('=').context("a knob has no value")?;
                    let path = format!("/proc/sys/{}", name.replace('.', "/"));
                    // Its interface may have been removed.
                    if fs::write(path, value).is_err() {
                        refused.push(format!("{program}{knob}"));
                    }
                }
            }
            "wait " => batch.iter().try_for_each(|name| wait_for(name))?,
            "nft " => {
                fs::write("/tmp/topology", batch.join("\n") + "\n")?;
                if let Err(error) = run("/usr/sbin/nft -f /tmp/topology") {
                    refused.push(format!("{}: {error:#}", batch.join("\n")));
                }
            }
            _ => {
                fs::write("/tmp/topology", batch.join("\n") + "\n")?;
                let Err(error) = run(&format!("{program}-force -batch /tmp/topology")) else {
                    continue;
                };
                let text = format!("{error:#}");
                let failed: Vec<usize> = text
                    .split("Command failed /tmp/topology:")
                    .skip(1)
                    .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
                    .filter_map(|number| number.parse().ok())
                    .collect();
                ensure!(!failed.is_empty(), "{text}");
                for number in failed {
                    let line = batch.get(number - 1).context("a line that was not there")?;
                    refused.push(format!("{program}{line}"));
                }
            }
        }
    }
    Ok(refused)
}

/// Stacked links come up in a worker of the kernel's.
fn wait_for(name: &str) -> Result<()> {
    let path = Path::new("/sys/class/net").join(name).join("operstate");
    let end = Instant::now() + SETTLED;
    while fs::read_to_string(&path)?.trim() != "up" {
        ensure!(Instant::now() < end, "{name} does not come up");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// So do the routes of IPv6 addresses.
fn settle(drawn: &RandomTopology) -> Result<()> {
    let end = Instant::now() + SETTLED;
    let missing = |routes: &str| {
        drawn.own6.iter().find(|address| {
            let hex: String = address
                .octets()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            !routes.contains(&(hex + " 80 "))
        })
    };
    while let Some(address) = missing(&fs::read_to_string("/proc/net/ipv6_route")?) {
        ensure!(Instant::now() < end, "{address} is not there");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The intended difference between a reply and the socket's; an error if there is another one.
fn compare(
    drawn: &RandomTopology,
    ask: usize,
    sent: &[Sent],
    judged: &Judged,
) -> Result<Option<OnPurpose>, ()> {
    if sent == judged.seen.replies[ask] {
        return Ok(None);
    }
    let unfiltered = judged.unfiltered.as_ref();
    if unfiltered.is_some_and(|seen| sent == seen.replies[ask]) {
        return Ok(Some(OnPurpose::InputRules));
    }
    if drawn.hash_by_ports {
        // As the socket replies to another port.
        let sent = without_port(sent);
        let by_hop = |seen: &Seen| seen.by_other_ports[ask].contains(&sent);
        if by_hop(&judged.seen) || unfiltered.is_some_and(by_hop) {
            return Ok(Some(OnPurpose::HopByPorts));
        }
    }
    Err(())
}

/// Without the port that a reply goes to, and the checksum.
fn without_port(reply: &[Sent]) -> Reply {
    let mut reply = reply.to_vec();
    for Sent { bytes, .. } in &mut reply {
        let ip = match bytes[12..14] {
            [0x81, 0] => 18,
            _ => 14,
        };
        let udp = match (bytes[ip] >> 4, bytes[ip + 6]) {
            (4, _) => ip + usize::from(bytes[ip] & 15) * 4,
            (_, 44) => ip + 48,
            _ => ip + 40,
        };
        for field in [udp + 2..udp + 4, udp + 6..udp + 8] {
            // A later fragment may be short.
            if let Some(field) = bytes.get_mut(field) {
                field.fill(0);
            }
        }
    }
    reply.sort();
    reply
}

/// Frames, short: headers and how long they are.
fn brief(sent: &[Sent]) -> String {
    if sent.is_empty() {
        return " nothing".into();
    }
    sent.iter().fold(String::new(), |mut text, sent| {
        let head = &sent.bytes[..sent.bytes.len().min(82)];
        let _ = write!(text, "\n    {}, {} bytes:", sent.card, sent.bytes.len());
        for (at, byte) in head.iter().enumerate() {
            let gap = if matches!(at, 0 | 6 | 12 | 14) {
                " "
            } else {
                ""
            };
            let _ = write!(text, "{gap}{byte:02x}");
        }
        text
    })
}

/// The topology as lines for a shell.
fn shell(drawn: &RandomTopology) -> String {
    let line = |line: &String| match (line.strip_prefix("nft "), line.strip_prefix("wait ")) {
        (Some(rule), _) => format!("nft '{rule}'"),
        (_, Some(name)) => {
            format!("until grep -q up /sys/class/net/{name}/operstate; do sleep .1; done")
        }
        _ => line.clone(),
    };
    let lines: Vec<_> = drawn
        .lines
        .iter()
        .chain(&drawn.input_rules)
        .map(line)
        .collect();
    lines.join("\n")
}

/// Topologies drawn by chance. Arguments: how many, and the number of the first.
pub(super) fn replies_leave_alike_by_each_receive_path(arguments: &[String]) -> Result<()> {
    let number = |at: usize, usual: u64| -> Result<u64> {
        Ok(arguments
            .get(at)
            .map(|text| text.parse())
            .transpose()?
            .unwrap_or(usual))
    };
    let (count, first) = (number(0, 8)?, number(1, 1)?);
    let drawn: Vec<(u64, RandomTopology)> = (0..count)
        .map(|topology| first.wrapping_add(topology))
        .map(|number| (number, RandomTopology::draw(number)))
        .collect();
    let mut bench = Bench::new()?;
    let mut judged: Vec<Option<Judged>> = Vec::new();
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut purposes: BTreeMap<OnPurpose, u64> = BTreeMap::new();
    let mut differences = Vec::new();
    let mut refused: Vec<String> = Vec::new();
    for (by, parameters) in PASSES {
        let start = Instant::now();
        let served = Served::load(by, parameters)?;
        let mut tcp = Tcp::connect("127.0.0.1")?;
        tcp.set(HUGE.0, &vec![b'y'; HUGE.1])?;
        for (at, (number, drawn)) in drawn.iter().enumerate() {
            let before = answered(&mut tcp)?;
            if by != ReceivePath::Socket && judged[at].is_none() {
                continue;
            }
            let seen = match bench.see(drawn, true, by == ReceivePath::Socket) {
                Ok(seen) => seen,
                Err(error) => {
                    differences.push(format!(
                        "topology {number} by {by:?}: {error:#}\n{}",
                        shell(drawn)
                    ));
                    ensure!(differences.len() < SHOWN, "{}", differences.join("\n\n"));
                    if by == ReceivePath::Socket {
                        judged.push(None);
                    }
                    continue;
                }
            };
            let after = answered(&mut tcp)?;
            let (fast, xdp) = (after.0 - before.0, after.1 - before.1);
            for feature in drawn.features.iter().chain(&[ALL]) {
                let tally = tallies.entry(feature).or_default();
                match by {
                    ReceivePath::Socket => {
                        tally.topologies += 1;
                        tally.answered +=
                            seen.replies.iter().filter(|sent| !sent.is_empty()).count() as u64;
                    }
                    ReceivePath::Prerouting => tally.by_hook += fast,
                    ReceivePath::Xdp => {
                        tally.by_xdp += xdp;
                        tally.by_late_hook += fast.saturating_sub(xdp);
                    }
                }
            }
            if by == ReceivePath::Socket {
                refused.extend(seen.refused.iter().cloned());
                let unfiltered = match drawn.input_rules.is_empty() {
                    true => None,
                    false => Some(bench.see(drawn, false, true)?),
                };
                judged.push(Some(Judged { seen, unfiltered }));
                continue;
            }
            let Some(Some(judge)) = judged.get(at) else {
                continue;
            };
            let mut wrong = String::new();
            if seen.refused != judge.seen.refused {
                let _ = writeln!(
                    wrong,
                    "refused: {:?}, before: {:?}",
                    seen.refused, judge.seen.refused
                );
            }
            for (ask, sent) in seen.replies.iter().enumerate() {
                match compare(drawn, ask, sent, judge) {
                    Ok(None) => {}
                    Ok(Some(purpose)) => *purposes.entry(purpose).or_default() += 1,
                    Err(()) => {
                        let _ = writeln!(
                            wrong,
                            "  request {ask}, {}\n  {by:?}:{}\n  the socket:{}",
                            drawn.asks[ask].about,
                            brief(sent),
                            brief(&judge.seen.replies[ask])
                        );
                    }
                }
            }
            if !wrong.is_empty() {
                differences.push(format!(
                    "topology {number} ({fast} in place, {xdp} by XDP):\n{wrong}{}",
                    shell(drawn)
                ));
                ensure!(differences.len() < SHOWN, "{}", differences.join("\n\n"));
            }
        }
        println!(
            "{by:?} {parameters}: {:.2} s each; left to the next path:",
            start.elapsed().as_secs_f32() / count.max(1) as f32
        );
        for line in run("hippos-ctl stats pass")?.lines() {
            if !line.ends_with(" 0") {
                println!("  {line}");
            }
        }
        served.unload()?;
        // Connection tracking forgets.
        thread::sleep(Duration::from_secs(2));
    }
    show(&tallies, &purposes, &refused);
    ensure!(
        differences.is_empty(),
        "{} of {count} topologies differ:\n{}",
        differences.len(),
        differences.join("\n\n")
    );
    check_minimum(&tallies, count)
}

/// The row of all topologies.
const ALL: &str = "all";

/// Requests that were answered in place so far, and those by XDP.
fn answered(tcp: &mut Tcp) -> Result<(u64, u64)> {
    Ok((
        tcp.stat("hippos_udp_fast_datagrams")?,
        tcp.stat("hippos_xdp_served")?,
    ))
}

fn show(tallies: &BTreeMap<&str, Tally>, purposes: &BTreeMap<OnPurpose, u64>, refused: &[String]) {
    println!(
        "{:34} topologies, answered by the socket; in place: hook, XDP, late hook",
        "feature"
    );
    for (feature, tally) in tallies {
        println!(
            "{feature:34} {:5} {:6} {:6} {:6} {:6}",
            tally.topologies, tally.answered, tally.by_hook, tally.by_xdp, tally.by_late_hook
        );
    }
    println!(
        "different on purpose: {purposes:?}; {} lines refused, for example:",
        refused.len()
    );
    for line in refused.iter().take(20) {
        println!("  {line}");
    }
}

/// A fuzzer of which nothing is answered in place proves nothing, nor one that draws little.
fn check_minimum(tallies: &BTreeMap<&str, Tally>, count: u64) -> Result<()> {
    let all = tallies.get(ALL).context("no topology")?;
    // A replayed one may be one in which nothing is.
    if count > 1 {
        ensure!(all.by_hook >= count, "only {} by the hook", all.by_hook);
        ensure!(all.by_xdp >= count / 2, "only {} by XDP", all.by_xdp);
    }
    if count < MANY {
        return Ok(());
    }
    ensure!(
        tallies.len() > FEATURES - RARE,
        "only {} features were drawn",
        tallies.len() - 1
    );
    let closed: Vec<_> = tallies
        .iter()
        .filter(|(name, tally)| {
            let everywhere = tally.topologies >= 10 && !closes(name);
            everywhere && (tally.by_hook == 0 || (tally.by_xdp == 0 && !above_xdp(name)))
        })
        .map(|(name, _)| *name)
        .collect();
    ensure!(closed.is_empty(), "nothing in place with {closed:?}");
    Ok(())
}

/// Whether nothing can be answered in place in topologies with this.
fn closes(feature: &str) -> bool {
    let begins = [
        "DNAT",
        "redirect",
        "masquerade",
        "SNAT",
        "drop in OUTPUT",
        "a policy of drop in OUTPUT",
        "marks in OUTPUT",
        "mangling in POSTROUTING",
        "drop in POSTROUTING",
        "a rule by ports",
    ];
    begins.iter().any(|begin| feature.starts_with(begin))
}

/// Whether it keeps frames from XDP.
fn above_xdp(feature: &str) -> bool {
    feature.starts_with("bond") || feature == "bridge"
}
