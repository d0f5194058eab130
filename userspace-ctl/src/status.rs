// SPDX-License-Identifier: GPL-2.0-only
//! `status`: the cache's state in one screen, with warnings.

use std::fmt::Write;

use anyhow::Result;
use hippos_abi::Section;
use serde_json::json;

use crate::answer::{duration, Answer};
use crate::firewall;
use crate::refusals::{self, Occurred, Severity, RECENT};
use crate::source::Source;
use crate::stats::{Stats, RECEIVE_PATHS};
use crate::system::{System, INTERFACES, PINS};
use crate::version::{self, VERSION};

/// Explains a value of these statistics.
fn path_state(value: &str) -> String {
    match value {
        "open" => "open".into(),
        "off" => "closed: the module was loaded with udp_fast=0 or udp=0".into(),
        "nat" => "closed: a NAT chain has rules, which the reply would miss; \
                  udp_fast=late serves behind them, udp_fast=always before them"
            .into(),
        "output" | "postrouting" => format!(
            "closed: {} has rules or a policy that the reply would miss; udp_fast=always \
             ignores them",
            value.to_ascii_uppercase()
        ),
        other => format!("closed: {other}"),
    }
}

/// The statistics that the status is computed from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) general: Stats,
    pub(crate) settings: Stats,
}

impl Snapshot {
    pub(crate) fn read(source: &Source) -> Result<Self> {
        Ok(Snapshot {
            general: source.stats(Section::General)?,
            settings: source.stats(Section::Settings)?,
        })
    }
}

/// One screen.
///
/// # Errors
///
/// None: writing to a String does not fail.
pub(crate) fn status(snapshot: &Snapshot, system: Option<&System>) -> Result<Answer> {
    let notes = system.map_or_else(Vec::new, |system| notes(snapshot, system));
    let Snapshot { general, settings } = snapshot;
    let warnings = warnings(snapshot, system);
    let health = health(&warnings);
    let mut text = String::new();
    let version = version_of(general);
    let port = settings.number("tcpport");
    let up = duration(general.number("uptime"));
    writeln!(text, "{health}: {version} on port {port}, up {up}")?;
    let (used, limit) = (general.number("bytes"), general.number("limit_maxbytes"));
    let held = general.number("hippos_memory_held");
    let limit_mib = limit >> 20;
    writeln!(
        text,
        "memory: {limit_mib} MiB at most, {} MiB taken, {} MiB in items ({})",
        held >> 20,
        used >> 20,
        percent(used, limit)
    )?;
    for line in held_for(snapshot) {
        writeln!(text, "  {line}")?;
    }
    let (hits, misses) = (general.number("get_hits"), general.number("get_misses"));
    let gets = hits.saturating_add(misses);
    writeln!(
        text,
        "items: {}, {} evicted, {} expired before they were read",
        general.number("curr_items"),
        general.number("evictions"),
        general.number("expired_unfetched")
    )?;
    let seconds = general.number("uptime").max(1);
    writeln!(
        text,
        "gets: {gets}, {} hits, {} a second since the start; sets: {}",
        percent(hits, gets),
        gets / seconds,
        general.number("cmd_set")
    )?;
    writeln!(
        text,
        "commands: {} over TCP, {} by the UDP socket, {} where their packets arrived, {} of them by XDP",
        general.number("hippos_tcp_commands"),
        general.number("hippos_udp_commands"),
        general.number("hippos_udp_fast_commands"),
        general.number("hippos_xdp_served")
    )?;
    writeln!(
        text,
        "connections: {} of {}",
        general.number("curr_connections"),
        general.number("max_connections")
    )?;
    for (title, name) in RECEIVE_PATHS {
        if let Some(value) = general.get(name) {
            writeln!(text, "{title}: {}", path_state(value))?;
        }
    }
    for occurred in refusals::occurred(general) {
        writeln!(text, "refused: {}", occurred.text())?;
    }
    for warning in &warnings {
        writeln!(text, "warning: {}", warning.what)?;
    }
    for note in &notes {
        writeln!(text, "note: {note}")?;
    }
    let mut json = general.json();
    json["health"] = health.into();
    json["tool_version"] = VERSION.into();
    json["warnings"] = warnings
        .iter()
        .map(|warning| json!({"what": warning.what, "loses_requests": warning.loses_requests}))
        .collect();
    json["notes"] = notes.into();
    json["refused"] = refusals::occurred(general)
        .map(|occurred| {
            json!({"what": occurred.refusal.what, "count": occurred.count,
                "seconds_ago": occurred.age, "is_recent": occurred.is_recent()})
        })
        .collect();
    Ok(Answer::new(text, json))
}

const MIB: u64 = 1 << 20;

/// Bytes of a memory block: a MiB, or more where items may be larger (docs/adr/0011-blocks-of-one-mebibyte.md).
fn block(settings: &Stats) -> u64 {
    let item_max = settings.number("item_size_max");
    item_max.max(MIB).checked_next_power_of_two().unwrap_or(MIB)
}

/// The uses of the held memory; empty for a memcached.
fn held_for(snapshot: &Snapshot) -> Vec<String> {
    let of = |name: &str| snapshot.general.number(name);
    let held = of("hippos_memory_held");
    if held == 0 {
        return Vec::new();
    }
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / MIB as f64);
    let index = of("hash_bytes").saturating_add(of("hippos_overflow_bytes"));
    let idle = of("slab_global_page_pool").saturating_mul(block(&snapshot.settings));
    let slabs = held.saturating_sub(index).saturating_sub(idle);
    let retired = of("hippos_retired_bytes");
    let free = slabs.saturating_sub(of("bytes")).saturating_sub(retired);
    let mut lines = vec![format!(
        "held for: items {}, the index {}, free slots and rounding {}, blocks without a use {}",
        mib(of("bytes")),
        mib(index),
        mib(free),
        mib(idle)
    )];
    for (bytes, why) in [
        (retired, "of removed items that wait for a grace period"),
        (
            of("hippos_pinned_bytes"),
            "of items that slow readers hold: hippos-ctl conns",
        ),
        (
            of("hippos_upload_bytes"),
            "of values that are being received",
        ),
    ] {
        if bytes != 0 {
            lines.push(format!("{} {why}", mib(bytes)));
        }
    }
    lines
}

/// The server's name and version.
pub(crate) fn version_of(general: &Stats) -> String {
    general.get("hippos_version").map_or_else(
        || format!("memcached {}", general.get("version").unwrap_or("?")),
        |version| format!("hippos {version}"),
    )
}

/// The warnings, and the word that summarises them.
pub(crate) fn warnings_and_health(
    snapshot: &Snapshot,
    system: Option<&System>,
) -> (Vec<String>, &'static str) {
    let warnings = warnings(snapshot, system);
    let health = health(&warnings);
    let texts = warnings.into_iter().map(|warning| warning.what);
    (texts.collect(), health)
}

/// A condition that needs attention.
struct Warning {
    what: String,
    /// Whether clients lose requests.
    loses_requests: bool,
}

fn health(warnings: &[Warning]) -> &'static str {
    if warnings.iter().any(|warning| warning.loses_requests) {
        "degraded"
    } else if warnings.is_empty() {
        "healthy"
    } else {
        "serving"
    }
}

fn warnings(snapshot: &Snapshot, system: Option<&System>) -> Vec<Warning> {
    let Snapshot { general, settings } = snapshot;
    let mut warnings = Vec::new();
    let mut warn = |loses_requests, what: String| {
        warnings.push(Warning {
            what,
            loses_requests,
        });
    };
    let (now, most) = (
        general.number("curr_connections"),
        general.number("max_connections"),
    );
    if most > 0 && now >= most {
        warn(
            true,
            format!("all {most} connections are taken: raise maxconns"),
        );
    } else if most > 0 && now.saturating_mul(10) >= most.saturating_mul(9) {
        warn(
            false,
            format!("{now} of {most} connections are taken: raise maxconns"),
        );
    }
    for occurred in refusals::occurred(general).filter(Occurred::is_recent) {
        let loses_requests = match occurred.refusal.severity {
            Severity::Shortage => true,
            Severity::Policy => false,
            Severity::Intended => continue,
        };
        let what = format!(
            "{} were refused in the last {RECENT} s: {}",
            occurred.refusal.what, occurred.refusal.remedy
        );
        warn(loses_requests, what);
    }
    let (limit, allowed) = (
        general.number("limit_maxbytes"),
        general.number("hippos_memory_allowed"),
    );
    if allowed > 0 && allowed < limit {
        let (allowed, limit) = (allowed >> 20, limit >> 20);
        let what = format!(
            "the machine is short of memory: {allowed} MiB are used of the {limit} allowed"
        );
        warn(false, what);
    }
    if settings.get("hippos_closed") == Some("yes") {
        let what =
            "the module was loaded closed: until hippos-ctl auth is used, no client is served";
        warn(false, what.into());
    }
    let is_closed = |path: &str| {
        general
            .get(path)
            .is_some_and(|value| value != "open" && value != "off")
    };
    if is_closed("hippos_hook_ipv4") || is_closed("hippos_hook_ipv6") {
        warn(
            false,
            "the fast path for UDP is closed: hippos-ctl doctor".into(),
        );
    }
    if let Some(system) = system {
        machine_warnings(snapshot, system, &mut warn);
    }
    warnings
}

/// Conditions that may be as they should be: they do not change the first word.
fn notes(snapshot: &Snapshot, system: &System) -> Vec<String> {
    let mut notes = Vec::new();
    let loaded = snapshot.general.get("hippos_version");
    if let Some(what) = loaded.and_then(|loaded| version::difference(loaded, VERSION)) {
        notes.push(format!("{what}: {}", version::REMEDY));
    }
    if !cards(system).is_empty() && system.names(PINS).is_empty() {
        notes.push("no interface has an XDP program: hippos-ctl xdp attach".into());
    }
    let chains = firewall::bypassed(system, &snapshot.general);
    if let [first, others @ ..] = &chains[..] {
        let more = match others.len() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        notes.push(format!(
            "UDP requests are answered before the firewall's {first}{more}: only `allow` counts"
        ));
    }
    notes
}

/// Warnings from the machine's own files.
fn machine_warnings(snapshot: &Snapshot, system: &System, warn: &mut impl FnMut(bool, String)) {
    let limit = snapshot.general.number("limit_maxbytes");
    if system.is_nearly_all(limit) {
        let what = format!("memory: {} MiB are near all of this machine's", limit >> 20);
        warn(false, what);
    }
    for interface in cards(system) {
        let queues = queues(system, &interface);
        if queues == 1 && system.cpus() > 1 {
            warn(
                false,
                format!("{interface} has one receive queue: its CPU answers alone"),
            );
        }
    }
}

/// Interfaces of hardware devices.
pub(crate) fn cards(system: &System) -> Vec<String> {
    let mut names = system.names(INTERFACES);
    names.retain(|name| system.path(INTERFACES).join(name).join("device").exists());
    names
}

/// The number of an interface's receive queues.
pub(crate) fn queues(system: &System, interface: &str) -> usize {
    let queues = system.names(&format!("{INTERFACES}/{interface}/queues"));
    queues
        .iter()
        .filter(|queue| queue.starts_with("rx-"))
        .count()
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;
    use crate::system::tests::Folder;

    fn snapshot(general: &str, settings: &str) -> Snapshot {
        let parse = |rows: &str| {
            let text: String = rows
                .lines()
                .map(|row| format!("STAT {}\n", row.trim()))
                .collect();
            Stats::parse(&text).unwrap()
        };
        Snapshot {
            general: parse(general),
            settings: parse(settings),
        }
    }

    const GENERAL: &str = "uptime 3700
        hippos_version 0.1.0
        get_hits 75
        get_misses 25
        bytes 1048576
        limit_maxbytes 67108864
        curr_connections 2
        max_connections 1024
        hippos_hook_ipv4 open
        hippos_hook_ipv6 open
        hippos_xdp_ipv4 open
        hippos_xdp_ipv6 off";

    #[test]
    fn a_healthy_cache_fits_one_screen() {
        let answer = status(&snapshot(GENERAL, "tcpport 11211"), None).unwrap();
        let first = answer.text.lines().next().unwrap();
        assert_eq!(first, "healthy: hippos 0.1.0 on port 11211, up 1 h 1 min");
        assert!(answer.text.contains("100, 75.0 % hits"), "{}", answer.text);
        assert!(answer.text.contains("64 MiB at most"), "{}", answer.text);
        assert!(answer.text.lines().count() < 24, "{}", answer.text);
        assert!(
            answer.text.lines().all(|line| line.len() < 100),
            "{}",
            answer.text
        );
        assert_eq!(answer.json["health"], "healthy");
        assert_eq!(answer.json["hippos_hook_ipv4"], "open");
        assert_eq!(answer.status, Status::Done);
    }

    #[test]
    fn each_receive_path_has_a_line_with_reason_and_remedy() {
        let general = GENERAL.replace("hippos_hook_ipv4 open", "hippos_hook_ipv4 nat");
        let general = general.replace("hippos_xdp_ipv4 open", "hippos_xdp_ipv4 postrouting");
        let answer = status(&snapshot(&general, ""), None).unwrap();
        let of = |title: &str| {
            answer
                .text
                .lines()
                .find(|line| line.starts_with(title))
                .unwrap()
        };
        assert!(of("PRE_ROUTING, IPv4").contains("NAT chain"));
        assert!(of("PRE_ROUTING, IPv4").contains("udp_fast=late"));
        assert_eq!(of("PRE_ROUTING, IPv6"), "PRE_ROUTING, IPv6: open");
        assert!(of("XDP, IPv4").contains("POSTROUTING"));
        assert!(of("XDP, IPv6").contains("udp_fast=0"));
        assert!(of("warning: the fast path").contains("doctor"));
        assert_eq!(answer.json["health"], "serving");
    }

    #[test]
    fn refused_writes_and_connections_degrade() {
        for (row, what) in [
            (
                "store_no_memory 3\nhippos_age_store_no_memory 60",
                "writes for lack of memory were refused in the last 60 s",
            ),
            ("curr_connections 1024", "all 1024 connections"),
        ] {
            let name = row.split(' ').next().unwrap();
            let general: Vec<_> = GENERAL
                .lines()
                .filter(|line| !line.trim().starts_with(name))
                .collect();
            let general = format!("{}\n{row}", general.join("\n"));
            let answer = status(&snapshot(&general, ""), None).unwrap();
            assert!(answer.text.starts_with("degraded:"), "{}", answer.text);
            assert!(answer.text.contains(what), "{}", answer.text);
        }
    }

    /// A cache that had a fault yesterday is healthy today.
    #[test]
    fn a_refusal_of_long_ago_is_shown_and_does_not_degrade() {
        for row in [
            "store_no_memory 3\nhippos_age_store_no_memory 61",
            "rejected_connections 1\nhippos_age_rejected_connections 90000",
            "hippos_tcp_refused 9\nhippos_age_tcp_refused 61",
        ] {
            let answer = status(&snapshot(&format!("{GENERAL}\n{row}"), ""), None).unwrap();
            assert!(answer.text.starts_with("healthy:"), "{}", answer.text);
            let refused = answer
                .text
                .lines()
                .find(|line| line.starts_with("refused: "));
            assert!(refused.unwrap().contains("the last 1 "), "{refused:?}");
            assert_eq!(answer.json["refused"][0]["is_recent"], false);
        }
    }

    /// The setting may be intended: the first word does not report that clients lose requests.
    #[test]
    fn clients_that_a_setting_refuses_are_a_warning() {
        let general = format!("{GENERAL}\nhippos_tcp_refused 9\nhippos_age_tcp_refused 4");
        let answer = status(&snapshot(&general, ""), None).unwrap();
        assert!(answer.text.starts_with("serving:"), "{}", answer.text);
        assert!(answer.text.contains("allow add"), "{}", answer.text);
        let general = format!("{GENERAL}\nhippos_admin_refused 9\nhippos_age_admin_refused 4");
        let answer = status(&snapshot(&general, ""), None).unwrap();
        assert!(answer.text.starts_with("healthy:"), "{}", answer.text);
    }

    #[test]
    fn cards_and_memory_of_the_machine_are_checked() {
        let folder = Folder::new(
            "status",
            &[
                ("/proc/meminfo", "MemTotal: 135000 kB\n"),
                ("/sys/class/net/eth0/device/vendor", ""),
                ("/sys/class/net/eth0/queues/rx-0/rps_cpus", ""),
                ("/sys/class/net/veth0/queues/rx-0/rps_cpus", ""),
                ("/sys/devices/system/cpu/online", "0-3\n"),
            ],
        );
        let answer = status(&snapshot(GENERAL, ""), Some(&folder.system())).unwrap();
        assert!(
            answer.text.contains("warning: eth0 has one receive queue"),
            "{}",
            answer.text
        );
        assert!(!answer.text.contains("veth0"), "{}", answer.text);
        assert!(
            answer.text.contains("64 MiB are near all"),
            "{}",
            answer.text
        );
    }

    #[test]
    fn memory_is_explained() {
        let general = format!(
            "{GENERAL}\nhippos_memory_held 12582912\nhash_bytes 1048576\nhippos_overflow_bytes 1048576
             slab_global_page_pool 2\nhippos_retired_bytes 524288\nhippos_pinned_bytes 1572864"
        );
        let answer = status(&snapshot(&general, ""), None).unwrap();
        for line in [
            "  held for: items 1.0 MiB, the index 2.0 MiB, free slots and rounding 6.5 MiB, \
             blocks without a use 2.0 MiB",
            "  0.5 MiB of removed items that wait for a grace period",
            "  1.5 MiB of items that slow readers hold: hippos-ctl conns",
        ] {
            assert!(
                answer.text.lines().any(|shown| shown == line),
                "{line}: {}",
                answer.text
            );
        }
        assert!(!answer.text.contains("being received"), "{}", answer.text);
        // Items of up to 3 MiB are in blocks of four.
        let settings = "item_size_max 3145728";
        let answer = status(&snapshot(&general, settings), None).unwrap();
        assert!(
            answer.text.contains("blocks without a use 8.0 MiB"),
            "{}",
            answer.text
        );
    }

    /// A machine without XDP, or with a firewall, is as healthy as it was set up to be.
    #[test]
    fn notes_do_not_change_the_health() {
        let folder = Folder::new(
            "status-notes",
            &[
                ("/sys/class/net/eth0/device/vendor", ""),
                ("/sys/class/net/eth0/queues/rx-0/rps_cpus", ""),
                ("/sys/class/net/eth0/queues/rx-1/rps_cpus", ""),
                ("/proc/net/ip_tables_names", "filter\nmangle\n"),
            ],
        );
        let answer = status(&snapshot(GENERAL, ""), Some(&folder.system())).unwrap();
        assert!(answer.text.starts_with("healthy:"), "{}", answer.text);
        let versions =
            format!("note: the loaded module is of version 0.1.0, this tool of {VERSION}: ");
        for note in [
            versions.as_str(),
            "note: no interface has an XDP program",
            "note: UDP requests are answered before the firewall's iptables-legacy filter and 1 more",
        ] {
            assert!(answer.text.contains(note), "{note}: {}", answer.text);
        }
        assert_eq!(answer.json["notes"].as_array().map(Vec::len), Some(3));
        let general = GENERAL.replace("hippos_version 0.1.0", &format!("hippos_version {VERSION}"));
        let answer = status(&snapshot(&general, ""), Some(&folder.system())).unwrap();
        assert!(!answer.text.contains("of version"), "{}", answer.text);
        assert_eq!(answer.json["tool_version"], answer.json["hippos_version"]);
    }

    #[test]
    fn a_memcached_has_a_status() {
        let answer = status(&snapshot("version 1.6.38\nuptime 5", "tcpport 1"), None).unwrap();
        assert!(answer
            .text
            .starts_with("healthy: memcached 1.6.38 on port 1, up 5 s"));
        assert!(!answer.text.contains("XDP,"), "{}", answer.text);
    }
}
