// SPDX-License-Identifier: GPL-2.0-only
//! `doctor`: conditions that make the cache slow or faulty on this machine, with a remedy for each.

use std::fmt::Write;
use std::process::Command;

use hippos_abi::TESTED_SERIES;
use serde_json::{json, Value};

use crate::answer::Answer;
use crate::exit::Status;
use crate::firewall;
use crate::kernels;
use crate::refusals::{self, Severity};
use crate::stats::Stats;
use crate::status::{cards, queues};
use crate::system::{System, INTERFACES, PINS};
use crate::version;

/// A fault and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// The part that was checked.
    about: &'static str,
    weight: Weight,
    what: String,
    remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// Requests are lost or refused, or the cache does not work.
    Broken,
    /// It could be faster.
    Slow,
    /// Not a fault, but useful to know.
    Note,
}

impl Weight {
    fn word(self) -> &'static str {
        match self {
            Weight::Broken => "broken",
            Weight::Slow => "slow",
            Weight::Note => "note",
        }
    }
}

/// The module's state; everything else is in /sys and /proc.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Why the device could not be read.
    pub(crate) error: Option<String>,
    /// The versions of the loaded module and of this tool.
    pub(crate) version: Option<(String, String)>,
    pub(crate) general: Stats,
}

/// All findings, the most serious first.
pub(crate) fn doctor(system: &System, module: &Module) -> Answer {
    let mut found = of_module(system, module);
    found.extend(of_memory(system, module));
    found.extend(of_receive_paths(module));
    found.extend(of_firewall(system, module));
    for card in cards(system) {
        found.extend(of_card(system, &card));
    }
    found.extend(of_kernel(system));
    found.sort_by_key(|finding| finding.weight as u8);
    let mut text = String::new();
    for finding in &found {
        let weight = finding.weight.word();
        writeln!(
            text,
            "{weight}: {}: {}\n  remedy: {}",
            finding.about, finding.what, finding.remedy
        )
        .expect("a String takes all");
    }
    if found.is_empty() {
        text.push_str("no findings\n");
    }
    let of = |finding: &Finding| {
        json!({"weight": finding.weight.word(), "about": finding.about, "what": finding.what,
            "remedy": finding.remedy})
    };
    let json: Value = found.iter().map(of).collect();
    let is_found = found.iter().any(|finding| finding.weight != Weight::Note);
    Answer::new(text, json).ending(Status::found(is_found))
}

fn finding(
    about: &'static str,
    weight: Weight,
    what: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding {
        about,
        weight,
        what: what.into(),
        remedy: remedy.into(),
    }
}

fn of_module(system: &System, module: &Module) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(why) = &module.error {
        let remedy = if system.is_loaded() {
            "unload the module, and load the one that was built with this hippos-ctl"
        } else {
            "hippos-ctl start"
        };
        found.push(finding("module", Weight::Broken, why, remedy));
    }
    if let Some((loaded, tool)) = &module.version {
        if let Some(what) = version::difference(loaded, tool) {
            found.push(finding("module", Weight::Note, what, version::REMEDY));
        }
    }
    for occurred in refusals::occurred(&module.general) {
        let is_fault = occurred.refusal.severity != Severity::Intended;
        let weight = if is_fault && occurred.is_recent() {
            Weight::Broken
        } else {
            Weight::Note
        };
        let remedy = occurred.refusal.remedy;
        found.push(finding("refused", weight, occurred.text(), remedy));
    }
    found
}

fn of_memory(system: &System, module: &Module) -> Vec<Finding> {
    let mut found = Vec::new();
    let (limit, allowed) = (
        module.general.number("limit_maxbytes"),
        module.general.number("hippos_memory_allowed"),
    );
    if allowed > 0 && allowed < limit {
        let (allowed, limit) = (allowed >> 20, limit >> 20);
        let what = format!("the machine is short of memory: {allowed} of {limit} MiB may be used");
        let remedy = "lower memory_mb (hippos-ctl memory MIB), or stop what else takes memory";
        found.push(finding("memory", Weight::Slow, what, remedy));
    } else if system.is_nearly_all(limit) {
        let what = format!("{} MiB are near all of this machine's", limit >> 20);
        let remedy = "leave a tenth to everything else: hippos-ctl memory MIB";
        found.push(finding("memory", Weight::Note, what, remedy));
    }
    found
}

fn of_receive_paths(module: &Module) -> Vec<Finding> {
    let mut found = Vec::new();
    for (title, name) in [("IPv4", "hippos_hook_ipv4"), ("IPv6", "hippos_hook_ipv6")] {
        let (what, remedy) = match module.general.get(name) {
            Some("nat") => (
                "a NAT chain has rules",
                "take the rules out, or load with udp_fast=late (behind them) or always (before them)",
            ),
            Some("output" | "postrouting") => (
                "OUTPUT or POSTROUTING has rules or a policy",
                "take the rules out, or load with udp_fast=always if they don't concern replies",
            ),
            _ => continue,
        };
        let what = format!("the fast path for UDP over {title} is closed: {what}");
        found.push(finding("receive path", Weight::Slow, what, remedy));
    }
    found
}

fn of_firewall(system: &System, module: &Module) -> Option<Finding> {
    let chains = firewall::bypassed(system, &module.general);
    (!chains.is_empty()).then(|| {
        let what = format!(
            "UDP requests that are answered before the socket do not meet {}",
            chains.join(", ")
        );
        let remedy =
            "restrict clients by hippos-ctl allow; or load with udp_fast=0, and the socket serves \
                      all UDP behind the firewall, at several times the cost (fast-path.md)";
        finding("firewall", Weight::Note, what, remedy)
    })
}

fn of_card(system: &System, card: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let (count, cpus) = (queues(system, card), system.cpus());
    if count == 1 && cpus > 1 {
        let is_steered = system
            .read(&format!("{INTERFACES}/{card}/queues/rx-0/rps_cpus"))
            .is_some_and(|mask| mask.chars().any(|c| !matches!(c, '0' | ',')));
        let what = format!("{card} has one receive queue, and the machine {cpus} CPUs");
        let remedy = format!(
            "ethtool -L {card} combined N if the card can; else steer= spreads the load by itself"
        );
        let weight = if is_steered {
            Weight::Note
        } else {
            Weight::Slow
        };
        found.push(finding("queues", weight, what, remedy));
    }
    let interrupts = interrupts(system, card);
    let cpus_used: std::collections::BTreeSet<_> = interrupts.iter().collect();
    if interrupts.len() > 1 && cpus_used.len() == 1 && cpus > 1 {
        let what = format!(
            "all {} interrupts of {card} go to the same CPUs",
            interrupts.len()
        );
        let remedy = "start irqbalance, or write one CPU a queue to /proc/irq/N/smp_affinity_list";
        found.push(finding("interrupts", Weight::Slow, what, remedy));
    }
    if system.path(PINS).join(card).exists() {
        if let Some(mtu) = system.number::<u32>(&format!("{INTERFACES}/{card}/mtu")) {
            if mtu > 3500 {
                let what = format!("{card} has an MTU of {mtu}: few drivers take XDP then");
                let remedy = format!("ip link set {card} mtu 1500, or --mode generic");
                found.push(finding("mtu", Weight::Note, what, remedy));
            }
        }
    } else if system.is_loaded() {
        let what = format!(
            "{card} has no XDP program: a hit takes some 4,200 instructions at PRE_ROUTING and 2,400 at \
             XDP (operations.md)"
        );
        let remedy = format!("hippos-ctl xdp attach --dev {card}, and xdp.interfaces in the file");
        found.push(finding("xdp", Weight::Note, what, remedy));
    }
    let has_xdp = system.path(PINS).join(card).exists();
    found.extend(of_card_programs(system, card, has_xdp));
    if system.path(INTERFACES).join(card).join("master").exists() {
        let what = format!("{card} is a port of a bridge or a bond: XDP does not answer there");
        let remedy = "serve on an interface without one, or leave it to PRE_ROUTING";
        found.push(finding("master", Weight::Note, what, remedy));
    }
    found
}

/// The CPUs that a network card's interrupts go to, in the kernel's notation.
fn interrupts(system: &System, card: &str) -> Vec<String> {
    let numbers = system.names(&format!("{INTERFACES}/{card}/device/msi_irqs"));
    let affinity = |number: String| {
        let folder = format!("/proc/irq/{number}");
        let effective = system.read(&format!("{folder}/effective_affinity_list"));
        effective.or_else(|| system.read(&format!("{folder}/smp_affinity_list")))
    };
    numbers.into_iter().filter_map(affinity).collect()
}

/// Whether the kernel is one that Hippos is tested on.
fn of_series(system: &System) -> Option<Finding> {
    if system.number::<u32>("/sys/kernel/realtime") == Some(1) {
        let what = "the kernel is built with PREEMPT_RT, which Hippos does not support";
        return Some(finding(
            "kernel",
            Weight::Broken,
            what,
            "boot a kernel without it",
        ));
    }
    let release = system.read("/proc/sys/kernel/osrelease")?;
    if kernels::is_tested(&release)? {
        return None;
    }
    let [oldest, newest] = TESTED_SERIES;
    let what = format!(
        "Hippos is tested on the kernels from {}.{} to {}.{}, and this is {release}",
        oldest.0, oldest.1, newest.0, newest.1
    );
    let remedy = "boot a tested kernel, or run the tests on this one (kernels.md)";
    Some(finding("kernel", Weight::Note, what, remedy))
}

/// Findings about the machine's pages: unused huge pages, and a direct map of small ones.
fn of_pages(system: &System) -> Vec<Finding> {
    let mut found = Vec::new();
    let text = system.read("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let total = of("MemTotal");
    let reserved = of("HugePages_Free").saturating_mul(of("Hugepagesize"));
    if reserved > total / 10 {
        let what = format!(
            "{} MiB are reserved as huge pages and unused: the cache can't have them",
            reserved >> 10
        );
        let remedy =
            "sysctl vm.nr_hugepages=0: items lie in the kernel's direct map, which needs none";
        found.push(finding("hugepages", Weight::Note, what, remedy));
    }
    let small = of("DirectMap4k");
    if small > total / 2 {
        let what = format!(
            "{} of {} MiB of the kernel's direct map are in pages of 4 KiB: items cost more TLB misses",
            small >> 10,
            total >> 10
        );
        let remedy =
            "boot without debug_pagealloc=on and the like; long-lived BPF programs and modules \
                      split it, too";
        found.push(finding("hugepages", Weight::Note, what, remedy));
    }
    found
}

/// Programs that listen to all packets, of which each gets a copy.
fn of_taps(system: &System) -> Option<Finding> {
    let sockets = system.read("/proc/net/packet")?;
    // The fourth column is the protocol; 0003 is all of them.
    let is_tap = |line: &&str| line.split_whitespace().nth(3) == Some("0003");
    let taps = sockets.lines().skip(1).filter(is_tap).count();
    (taps != 0).then(|| {
        let what = format!(
            "{taps} sockets listen to all packets (tcpdump and the like): each packet is copied for \
             them; XDP's packets they do not see"
        );
        let remedy = "end them when they are not needed: ss -0 -p shows whose they are";
        finding("taps", Weight::Note, what, remedy)
    })
}

/// Findings about a network card that need programs of this host, such as ethtool.
fn of_card_programs(system: &System, card: &str, has_xdp: bool) -> Vec<Finding> {
    if !system.is_host() {
        return Vec::new();
    }
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let mut found = of_features(card, &run("ethtool", &["-k", card]), has_xdp);
    if !run("tc", &["filter", "show", "dev", card, "ingress"])
        .trim()
        .is_empty()
    {
        let what =
            format!("{card} has tc filters at ingress, which each packet passes before the hook");
        let remedy = format!(
            "tc filter del dev {card} ingress, or attach XDP, whose packets do not meet them"
        );
        found.push(finding("tc", Weight::Note, what, remedy));
    }
    found
}

/// GRO, as `ethtool -k` shows it.
fn of_features(card: &str, features: &str, has_xdp: bool) -> Vec<Finding> {
    let is_on = |name: &str| {
        let mut lines = features
            .lines()
            .filter_map(|line| line.trim().split_once(": "));
        lines.any(|(have, value)| have == name && value.starts_with("on"))
    };
    let mut found = Vec::new();
    for name in ["rx-udp-gro-forwarding", "rx-gro-list"] {
        if is_on(name) && !has_xdp {
            let what = format!(
                "{card} merges UDP datagrams ({name}): merged ones are left to the UDP socket"
            );
            let remedy = format!("ethtool -K {card} {name} off");
            found.push(finding("gro", Weight::Slow, what, remedy));
        }
    }
    if is_on("generic-receive-offload") && !has_xdp {
        let what = format!(
            "GRO on {card} takes 405 of the 4,224 instructions of a UDP get at PRE_ROUTING (performance.md)"
        );
        let remedy = format!(
            "attach XDP, which comes before GRO; ethtool -K {card} gro off slows TCP with large values"
        );
        found.push(finding("gro", Weight::Note, what, remedy));
    }
    found
}

fn of_kernel(system: &System) -> Vec<Finding> {
    let mut found = Vec::from_iter(of_series(system));
    for kernel in kernels::without_module(system) {
        found.push(finding("kernels", Weight::Note, kernel.what, kernel.remedy));
    }
    found.extend(of_pages(system));
    found.extend(of_taps(system));
    let filter = |name: &str| {
        let file = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        system.number::<u32>(&file).unwrap_or(0)
    };
    if filter("all").max(filter("default")) == 0 {
        let what = "rp_filter is off: sources of datagrams may be forged from outside";
        let remedy = "sysctl net.ipv4.conf.all.rp_filter=1 (2 with asymmetric routes)";
        found.push(finding("rp_filter", Weight::Note, what, remedy));
    }
    let governors: Vec<_> = system
        .names("/sys/devices/system/cpu")
        .iter()
        .filter_map(|cpu| {
            system.read(&format!(
                "/sys/devices/system/cpu/{cpu}/cpufreq/scaling_governor"
            ))
        })
        .collect();
    if governors.iter().any(|governor| governor == "powersave") {
        let driver = system.read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver");
        // intel_pstate's governor `powersave` corresponds to schedutil of other drivers.
        if !driver.is_some_and(|driver| driver.contains("pstate")) {
            let what = "the CPUs are kept at their lowest frequency (governor powersave)";
            let remedy = "cpupower frequency-set -g performance";
            found.push(finding("frequency", Weight::Slow, what, remedy));
        }
    }
    let deepest = idle_latency(system);
    if deepest > 100 {
        let what = format!("idle CPUs may sleep so deep that waking takes {deepest} us");
        let remedy = "where latency counts: cpupower idle-set -D 50";
        found.push(finding("idle", Weight::Note, what, remedy));
    }
    let of = |name| system.number::<u64>(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
    let (tracked, most) = (of("count").unwrap_or(0), of("max").unwrap_or(0));
    if most > 0 && tracked.saturating_mul(10) > most.saturating_mul(8) {
        let what =
            format!("connection tracking holds {tracked} of {most} entries, then drops packets");
        let remedy =
            "don't track the cache's port (nft: notrack), or raise net.netfilter.nf_conntrack_max";
        found.push(finding("conntrack", Weight::Broken, what, remedy));
    }
    found
}

/// The time that waking from the deepest enabled idle state takes, in microseconds.
fn idle_latency(system: &System) -> u64 {
    const STATES: &str = "/sys/devices/system/cpu/cpu0/cpuidle";
    let latency = |state: String| {
        let of = |file: &str| system.number(&format!("{STATES}/{state}/{file}"));
        (of("disable") != Some(1)).then(|| of("latency")).flatten()
    };
    system
        .names(STATES)
        .into_iter()
        .filter_map(latency)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::Folder;

    #[test]
    fn a_good_machine_has_no_findings() {
        let folder = Folder::new(
            "doctor-good",
            &[
                ("/proc/meminfo", "MemTotal: 8000000 kB\n"),
                ("/proc/sys/net/ipv4/conf/all/rp_filter", "1\n"),
                ("/sys/devices/system/cpu/online", "0-1\n"),
                ("/sys/class/net/eth0/device/vendor", ""),
                ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
                ("/sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n"),
                ("/sys/class/net/eth0/device/msi_irqs/7", ""),
                ("/sys/class/net/eth0/device/msi_irqs/8", ""),
                ("/proc/irq/7/effective_affinity_list", "0\n"),
                ("/proc/irq/8/effective_affinity_list", "1\n"),
                ("/sys/class/net/eth0/mtu", "1500\n"),
                ("/sys/fs/bpf/hippos/eth0", ""),
                ("/sys/module/hippos/refcnt", "1\n"),
            ],
        );
        let module = Module {
            version: Some(("1".into(), "1".into())),
            general: Stats::of(&["limit_maxbytes 67108864", "hippos_hook_ipv4 open"]),
            ..Module::default()
        };
        let answer = doctor(&folder.system(), &module);
        assert_eq!(answer.text, "no findings\n");
        assert_eq!(answer.status, Status::Done);
    }

    #[test]
    fn gro_is_found_where_it_is_in_the_way() {
        let features = "Features for eth0:\ngeneric-receive-offload: on\n\
                        rx-gro-list: off\nrx-udp-gro-forwarding: on [fixed]\n";
        let words = |has_xdp| -> Vec<_> {
            let found = of_features("eth0", features, has_xdp);
            found.iter().map(|found| found.weight).collect()
        };
        assert_eq!(words(false), [Weight::Slow, Weight::Note]);
        assert_eq!(words(true), []);
    }

    #[test]
    fn only_tested_kernels_are_without_a_finding() {
        let [oldest, newest] = TESTED_SERIES;
        for ((major, minor), rest, is_found) in [
            (oldest, "12+deb13-cloud-amd64", false),
            (newest, "4", false),
            ((oldest.0, oldest.1 - 1), "0", true),
            ((newest.0, newest.1 + 1), "0", true),
            ((newest.0, newest.1 * 10), "0", true),
            ((newest.0 + 1, oldest.1), "0", true),
        ] {
            let release = &format!("{major}.{minor}.{rest}");
            let name = format!("doctor-series-{release}");
            let folder = Folder::new(&name, &[("/proc/sys/kernel/osrelease", release)]);
            assert_eq!(of_series(&folder.system()).is_some(), is_found, "{release}");
        }
        let folder = Folder::new("doctor-rt", &[("/sys/kernel/realtime", "1\n")]);
        let found = of_series(&folder.system()).unwrap();
        assert_eq!(found.weight, Weight::Broken);
    }

    #[test]
    fn each_fault_is_found_with_its_remedy_and_the_gravest_first() {
        let folder = Folder::new(
            "doctor-bad",
            &[
                (
                    "/proc/meminfo",
                    "MemTotal: 135000 kB\nHugePages_Free: 10\nHugepagesize: 2048 kB\n\
                     DirectMap4k: 100000 kB\n",
                ),
                ("/sys/devices/system/cpu/online", "0-3\n"),
                (
                    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
                    "powersave\n",
                ),
                (
                    "/sys/devices/system/cpu/cpu0/cpuidle/state3/latency",
                    "900\n",
                ),
                ("/sys/class/net/eth0/device/msi_irqs/7", ""),
                ("/sys/class/net/eth0/device/msi_irqs/8", ""),
                ("/proc/irq/7/effective_affinity_list", "0\n"),
                ("/proc/irq/8/effective_affinity_list", "0\n"),
                ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "00\n"),
                ("/sys/class/net/eth0/master/x", ""),
                ("/sys/module/hippos/refcnt", "1\n"),
                ("/proc/sys/kernel/osrelease", "6.12.3-amd64\n"),
                ("/proc/net/ip_tables_names", "filter\n"),
                (
                    "/proc/net/packet",
                    "sk RefCnt Type Proto Iface R Rmem User Inode\n\
                     0001 3 3 0003 0 1 0 0 9\n0002 3 3 0800 0 1 0 0 9\n0003 3 3 0800 0 1 0 0 9\n",
                ),
                ("/proc/sys/net/netfilter/nf_conntrack_count", "900\n"),
                ("/proc/sys/net/netfilter/nf_conntrack_max", "1000\n"),
            ],
        );
        let module = Module {
            version: Some(("0.1.0".into(), "0.2.0".into())),
            general: Stats::of(&[
                "limit_maxbytes 67108864",
                "rejected_connections 3",
                "hippos_age_rejected_connections 0",
                "hippos_tcp_refused 4",
                "hippos_age_tcp_refused 61",
                "store_no_memory 5",
                "hippos_age_store_no_memory 9",
                "hippos_hook_ipv4 nat",
                "hippos_hook_ipv6 open",
            ]),
            ..Module::default()
        };
        let answer = doctor(&folder.system(), &module);
        let [oldest, newest] = TESTED_SERIES;
        let series = format!(
            "note: kernel: Hippos is tested on the kernels from {}.{} to {}.{}, and this is 6.12.3-amd64",
            oldest.0, oldest.1, newest.0, newest.1
        );
        for expected in [
            "broken: refused: 3 connections beyond maxconns",
            "note: refused: 4 TCP connections",
            "broken: refused: 5 writes for lack of memory",
            "broken: conntrack: connection tracking holds 900 of 1000",
            "slow: receive path: the fast path for UDP over IPv4 is closed",
            "slow: queues: eth0 has one receive queue, and the machine 4 CPUs",
            "slow: interrupts: all 2 interrupts of eth0",
            "slow: frequency:",
            "note: memory: 64 MiB are near all",
            "note: module: the loaded module is of version 0.1.0, this tool of 0.2.0",
            "note: xdp: eth0 has no XDP program",
            "note: master:",
            series.as_str(),
            "note: hugepages: 20 MiB are reserved",
            "note: hugepages: 97 of 131 MiB of the kernel's direct map",
            "note: taps: 1 sockets listen",
            "note: firewall: UDP requests that are answered before the socket do not meet \
             iptables-legacy filter",
            "note: rp_filter:",
            "note: idle: idle CPUs may sleep so deep that waking takes 900 us",
        ] {
            assert!(
                answer.text.contains(expected),
                "{expected}: {}",
                answer.text
            );
        }
        let weights: Vec<_> = answer
            .text
            .lines()
            .filter(|line| !line.starts_with(' '))
            .map(|line| line.split(':').next().unwrap())
            .collect();
        let mut sorted = weights.clone();
        sorted.sort_by_key(|weight| ["broken", "slow", "note"].iter().position(|w| w == weight));
        assert_eq!(weights, sorted);
        assert_eq!(answer.status, Status::Found);
        let remedies = answer.text.matches("\n  remedy: ").count();
        assert_eq!(remedies, weights.len());
        assert_eq!(answer.json.as_array().unwrap().len(), weights.len());
    }

    #[test]
    fn a_module_that_is_not_loaded_or_stale_is_broken() {
        let folder = Folder::new(
            "doctor-none",
            &[("/proc/sys/net/ipv4/conf/all/rp_filter", "1")],
        );
        let module = Module {
            error: Some("/dev/hippos is not there".into()),
            ..Module::default()
        };
        let answer = doctor(&folder.system(), &module);
        assert!(
            answer.text.contains("remedy: hippos-ctl start"),
            "{}",
            answer.text
        );
    }
}
