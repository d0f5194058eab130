// SPDX-License-Identifier: GPL-2.0-only
//! The contents of `top`: a pure function of two samples of the statistics.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{json, Value};

use crate::latency::Times;
use crate::refusals;
use crate::stats::{Stats, RECEIVE_PATHS};
use crate::status::{self, Snapshot};
use crate::system::System;
use crate::top::hot_keys::Gets;

/// Keys that are shown.
const KEYS: usize = 8;

/// The statistics at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Time since any fixed moment.
    pub(crate) at: Duration,
    pub(crate) snapshot: Snapshot,
    pub(crate) items: Stats,
    pub(crate) slabs: Stats,
    /// Empty for a server that refuses them.
    pub(crate) conns: Stats,
    /// Empty for a memcached.
    pub(crate) cpus: Stats,
    /// Empty for a memcached.
    pub(crate) latency: Stats,
    /// If they are watched.
    pub(crate) gets: Option<Gets>,
}

/// The order of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    /// The highest rate first.
    #[default]
    Rate,
    /// The largest memory or longest idle time first.
    Size,
    /// By number or address.
    Name,
}

impl Sort {
    pub(crate) fn next(self) -> Self {
        match self {
            Sort::Rate => Sort::Size,
            Sort::Size => Sort::Name,
            Sort::Name => Sort::Rate,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Sort::Rate => "rate",
            Sort::Size => "size",
            Sort::Name => "name",
        }
    }
}

/// One frame. Rates are per second, over the time between the samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) health: &'static str,
    pub(crate) version: String,
    pub(crate) port: u64,
    /// Seconds since the start.
    pub(crate) uptime: u64,
    /// Seconds between the samples.
    pub(crate) seconds: f64,
    pub(crate) gets: f64,
    pub(crate) sets: f64,
    pub(crate) evictions: f64,
    /// Of the lookups between the samples, from 0 to 1; `None` without lookups.
    pub(crate) hit_ratio: Option<f64>,
    /// Bytes.
    pub(crate) memory_limit: u64,
    pub(crate) memory_held: u64,
    pub(crate) memory_items: u64,
    pub(crate) items: u64,
    pub(crate) connections: u64,
    pub(crate) connections_most: u64,
    pub(crate) paths: Vec<Path>,
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) classes: Vec<Class>,
    pub(crate) talkers: Vec<Talker>,
    /// Of the requests between the samples, if latency is measured.
    pub(crate) latency: Vec<Latency>,
    /// The hottest keys, with gets a second, if they are watched.
    pub(crate) keys: Vec<(String, f64)>,
    pub(crate) refusals: Vec<RefusalRate>,
    pub(crate) warnings: Vec<String>,
}

/// A receive path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path {
    pub(crate) name: &'static str,
    /// For IPv4, then for IPv6: `open`, or why it is closed; empty for a path that cannot be closed.
    pub(crate) state: String,
    /// Datagrams; for TCP, commands.
    pub(crate) rate: f64,
}

/// The commands that one CPU serves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) number: u64,
    pub(crate) fast: f64,
    pub(crate) socket: f64,
    pub(crate) tcp: f64,
}

impl Cpu {
    pub(crate) fn rate(&self) -> f64 {
        self.fast + self.socket + self.tcp
    }
}

/// A slab class.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Class {
    pub(crate) number: u64,
    /// Bytes of a slot.
    pub(crate) size: u64,
    pub(crate) slots: u64,
    pub(crate) used: u64,
    pub(crate) evictions: f64,
}

/// A connection with its traffic, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Talker {
    pub(crate) peer: String,
    /// Seconds.
    pub(crate) idle: u64,
    pub(crate) read: f64,
    pub(crate) written: f64,
}

/// How long requests took on a receive path, or waited before it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Latency {
    pub(crate) path: String,
    /// `service` or `queue`.
    pub(crate) measure: String,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
}

/// Requests or connections that were refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RefusalRate {
    pub(crate) what: &'static str,
    pub(crate) rate: f64,
    pub(crate) total: u64,
}

/// The frame for two samples.
pub(crate) fn frame(before: &Sample, now: &Sample, system: Option<&System>, sort: Sort) -> Model {
    let seconds = now.at.saturating_sub(before.at).as_secs_f64();
    let seconds = if seconds > 0.0 { seconds } else { 1.0 };
    let general = &now.snapshot.general;
    let old = &before.snapshot.general;
    let rate = |before: u64, now: u64| grown(before, now) as f64 / seconds;
    let of = |name: &str| rate(old.number(name), general.number(name));
    let (hits, gets) = (of("get_hits"), of("get_hits") + of("get_misses"));
    let (warnings, health) = status::warnings_and_health(&now.snapshot, system);
    let refused = refusals::occurred(general).map(|occurred| RefusalRate {
        what: occurred.refusal.what,
        rate: of(occurred.refusal.statistic),
        total: occurred.count,
    });
    let mut model = Model {
        health,
        version: status::version_of(general),
        port: now.snapshot.settings.number("tcpport"),
        uptime: general.number("uptime"),
        seconds,
        gets,
        sets: of("cmd_set"),
        evictions: of("evictions"),
        hit_ratio: (gets > 0.0).then(|| hits / gets),
        memory_limit: general.number("limit_maxbytes"),
        memory_held: general.number("hippos_memory_held"),
        memory_items: general.number("bytes"),
        items: general.number("curr_items"),
        connections: general.number("curr_connections"),
        connections_most: general.number("max_connections"),
        paths: paths(old, general, seconds),
        cpus: cpus(&before.cpus, &now.cpus, seconds),
        classes: classes(before, now, seconds),
        talkers: talkers(&before.conns, &now.conns, seconds),
        latency: latency(&before.latency, &now.latency),
        keys: now
            .gets
            .as_ref()
            .map_or_else(Vec::new, |gets| gets.hottest(KEYS)),
        refusals: refused.collect(),
        warnings,
    };
    model.sort(sort);
    model
}

/// The increase of a counter; one that was reset meanwhile started again at 0.
fn grown(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

fn paths(before: &Stats, now: &Stats, seconds: f64) -> Vec<Path> {
    // A memcached does not count receive paths.
    if now.get("hippos_tcp_commands").is_none() {
        return Vec::new();
    }
    let of = |name: &str| grown(before.number(name), now.number(name));
    let state = |path: &str| {
        let states: Vec<_> = RECEIVE_PATHS
            .iter()
            .filter(|(_, name)| name.contains(path))
            .filter_map(|(_, name)| now.get(name))
            .collect();
        states.join(" ")
    };
    // A frame that XDP drops counts as served, but not as a datagram.
    let xdp = of("hippos_xdp_served");
    let hook = of("hippos_udp_fast_datagrams").saturating_sub(xdp);
    [
        ("XDP", state("_xdp_"), xdp),
        ("PRE_ROUTING", state("_hook_"), hook),
        ("UDP socket", String::new(), of("hippos_udp_datagrams")),
        ("TCP", String::new(), of("hippos_tcp_commands")),
    ]
    .into_iter()
    .map(|(name, state, count)| Path {
        name,
        state,
        rate: count as f64 / seconds,
    })
    .collect()
}

/// Rows like `NUMBER:FIELD value`.
fn numbered(stats: &Stats) -> BTreeMap<u64, BTreeMap<&str, &str>> {
    let mut rows: BTreeMap<u64, BTreeMap<&str, &str>> = BTreeMap::new();
    for (name, value) in stats.iter() {
        let name = name.strip_prefix("items:").unwrap_or(name);
        if let Some((number, field)) = name.split_once(':') {
            if let Ok(number) = number.parse() {
                rows.entry(number).or_default().insert(field, value);
            }
        }
    }
    rows
}

fn field(row: Option<&BTreeMap<&str, &str>>, name: &str) -> u64 {
    row.and_then(|row| row.get(name)?.parse().ok()).unwrap_or(0)
}

fn cpus(before: &Stats, now: &Stats, seconds: f64) -> Vec<Cpu> {
    let before = numbered(before);
    numbered(now)
        .iter()
        .map(|(number, row)| {
            let old = before.get(number);
            let of = |name| grown(field(old, name), field(Some(row), name)) as f64 / seconds;
            Cpu {
                number: *number,
                fast: of("hippos_udp_fast_commands"),
                socket: of("hippos_udp_commands"),
                tcp: of("hippos_tcp_commands"),
            }
        })
        .collect()
}

fn classes(before: &Sample, now: &Sample, seconds: f64) -> Vec<Class> {
    let (old, items) = (numbered(&before.items), numbered(&now.items));
    numbered(&now.slabs)
        .iter()
        .map(|(number, row)| {
            let of = |name| field(Some(row), name);
            // A class without items has no row; when it has items again, its row has its old count.
            let evicted = |rows: &BTreeMap<_, _>| field(rows.get(number), "evicted");
            let evictions = if old.contains_key(number) {
                grown(evicted(&old), evicted(&items))
            } else {
                0
            };
            Class {
                number: *number,
                size: of("chunk_size"),
                slots: of("total_chunks"),
                used: of("used_chunks"),
                evictions: evictions as f64 / seconds,
            }
        })
        .collect()
}

fn latency(before: &Stats, now: &Stats) -> Vec<Latency> {
    let before = Times::read(before);
    let of = |now: &Times| {
        let is_same = |was: &&Times| was.path == now.path && was.measure == now.measure;
        let times = match before.iter().find(is_same) {
            Some(was) => now.since(was),
            None => now.clone(),
        };
        (times.count() != 0).then(|| Latency {
            path: times.path.clone(),
            measure: times.measure.clone(),
            p50_ns: times.quantile(500),
            p99_ns: times.quantile(990),
        })
    };
    Times::read(now).iter().filter_map(of).collect()
}

fn talkers(before: &Stats, now: &Stats, seconds: f64) -> Vec<Talker> {
    let before = numbered(before);
    let connection = |(number, row): (&u64, &BTreeMap<&str, &str>)| {
        // A listener and a UDP socket have no peer.
        row.get("listen_addr")?;
        let old = before.get(number);
        let of = |name| {
            let now = field(Some(row), name);
            grown(field(old, name), now) as f64 / seconds
        };
        let peer = row.get("addr")?.trim_start_matches("tcp:").to_owned();
        Some(Talker {
            peer,
            idle: field(Some(row), "secs_since_last_cmd"),
            read: of("hippos_bytes_read"),
            written: of("hippos_bytes_written"),
        })
    };
    numbered(now).iter().filter_map(connection).collect()
}

impl Model {
    fn sort(&mut self, sort: Sort) {
        match sort {
            Sort::Rate => {
                self.cpus.sort_by(|a, b| b.rate().total_cmp(&a.rate()));
                self.classes.sort_by(|a, b| {
                    let used = |class: &Class| class.size.saturating_mul(class.used);
                    let by_rate = b.evictions.total_cmp(&a.evictions);
                    by_rate.then(used(b).cmp(&used(a)))
                });
                self.talkers
                    .sort_by(|a, b| (b.read + b.written).total_cmp(&(a.read + a.written)));
            }
            Sort::Size => {
                let bytes = |class: &Class| class.size.saturating_mul(class.slots);
                self.classes
                    .sort_by_key(|class| std::cmp::Reverse(bytes(class)));
                self.talkers
                    .sort_by_key(|talker| std::cmp::Reverse(talker.idle));
            }
            // The samples are in this order.
            Sort::Name => self.talkers.sort_by(|a, b| a.peer.cmp(&b.peer)),
        }
    }

    pub(crate) fn json(&self) -> Value {
        let paths = self.paths.iter();
        let paths = paths.map(|p| json!({"name": p.name, "state": p.state, "rate": p.rate}));
        let cpus = self.cpus.iter();
        let cpus = cpus.map(
            |c| json!({"cpu": c.number, "udp_fast": c.fast, "udp_socket": c.socket, "tcp": c.tcp}),
        );
        let classes = self.classes.iter().map(|c| {
            json!({"class": c.number, "chunk_size": c.size, "chunks": c.slots, "used": c.used,
                "evictions": c.evictions})
        });
        let talkers = self.talkers.iter().map(|t| {
            json!({"peer": t.peer, "idle": t.idle, "bytes_read": t.read,
                "bytes_written": t.written})
        });
        let refusals = self.refusals.iter();
        let refusals = refusals.map(|r| json!({"what": r.what, "rate": r.rate, "total": r.total}));
        let latency = self.latency.iter().map(|l| {
            json!({"path": l.path, "measure": l.measure, "p50_ns": l.p50_ns, "p99_ns": l.p99_ns})
        });
        let keys = self.keys.iter();
        let keys = keys.map(|(key, rate)| json!({"key": key, "gets": rate}));
        json!({
            "health": self.health, "version": self.version, "port": self.port,
            "uptime": self.uptime, "seconds": self.seconds, "gets": self.gets, "sets": self.sets,
            "evictions": self.evictions, "hit_ratio": self.hit_ratio,
            "memory_limit": self.memory_limit, "memory_held": self.memory_held,
            "memory_items": self.memory_items, "items": self.items,
            "connections": self.connections, "max_connections": self.connections_most,
            "receive_paths": paths.collect::<Value>(), "cpus": cpus.collect::<Value>(),
            "classes": classes.collect::<Value>(), "talkers": talkers.collect::<Value>(),
            "latency": latency.collect::<Value>(), "keys": keys.collect::<Value>(),
            "refusals": refusals.collect::<Value>(), "warnings": self.warnings,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A server after `seconds` seconds, each of which has served a fixed number of requests.
    pub(crate) fn sample(seconds: u64) -> Sample {
        let row = |name: &str, rate: u64| format!("{name} {}", rate * seconds);
        let of = |rows: Vec<String>| {
            let rows: Vec<_> = rows.iter().map(String::as_str).collect();
            Stats::of(&rows)
        };
        Sample {
            at: Duration::from_secs(seconds),
            snapshot: Snapshot {
                general: of(vec![
                    row("uptime", 1),
                    "hippos_version 0.1.0".into(),
                    row("get_hits", 75),
                    row("get_misses", 25),
                    row("cmd_set", 10),
                    row("evictions", 4),
                    row("hippos_udp_fast_datagrams", 50),
                    row("hippos_xdp_served", 30),
                    row("hippos_udp_datagrams", 5),
                    row("hippos_tcp_commands", 7),
                    row("hippos_tcp_refused", 2),
                    "hippos_hook_ipv4 nat".into(),
                    "hippos_hook_ipv6 open".into(),
                    "hippos_xdp_ipv4 open".into(),
                    "hippos_xdp_ipv6 open".into(),
                    "limit_maxbytes 67108864".into(),
                    "hippos_memory_held 33554432".into(),
                    "bytes 16777216".into(),
                    "curr_items 5".into(),
                    "curr_connections 2".into(),
                    "max_connections 1024".into(),
                ]),
                settings: Stats::of(&["tcpport 11211"]),
            },
            items: of(vec![row("items:1:evicted", 1), row("items:5:evicted", 3)]),
            slabs: Stats::of(&[
                "1:chunk_size 96",
                "1:total_chunks 1000",
                "1:used_chunks 10",
                "5:chunk_size 200",
                "5:total_chunks 100",
                "5:used_chunks 100",
                "active_slabs 2",
            ]),
            conns: of(vec![
                "0:addr tcp:0.0.0.0:11211".into(),
                "0:state conn_listening".into(),
                "7:addr tcp:10.0.0.1:4000".into(),
                "7:listen_addr tcp:10.0.0.9:11211".into(),
                "7:secs_since_last_cmd 300".into(),
                row("7:hippos_bytes_read", 100),
                row("7:hippos_bytes_written", 200),
                "9:addr tcp:[fd00::1]:5000".into(),
                "9:listen_addr tcp:[fd00::9]:11211".into(),
                "9:secs_since_last_cmd 0".into(),
                row("9:hippos_bytes_read", 1000),
                row("9:hippos_bytes_written", 2000),
            ]),
            cpus: of(vec![
                row("0:hippos_udp_fast_commands", 10),
                row("0:hippos_udp_commands", 5),
                row("0:hippos_tcp_commands", 0),
                row("1:hippos_udp_fast_commands", 40),
                row("1:hippos_udp_commands", 0),
                row("1:hippos_tcp_commands", 7),
            ]),
            latency: of(vec![
                "hippos_latency on".into(),
                row("prerouting:service:sum_ns", 3000),
                row("prerouting:service:max_ns", 1024),
                row("prerouting:service:le_512", 9),
                row("prerouting:service:le_1024", 1),
                "prerouting:queue:le_512 0".into(),
            ]),
            gets: None,
        }
    }

    #[test]
    fn rates_are_a_second_whatever_the_interval() {
        for now in [11, 14] {
            let model = frame(&sample(10), &sample(now), None, Sort::Rate);
            assert_eq!(
                (model.gets, model.sets, model.evictions),
                (100.0, 10.0, 4.0)
            );
            assert_eq!(model.hit_ratio, Some(0.75));
            let paths: Vec<_> = model.paths.iter().map(|p| (p.name, p.rate)).collect();
            let expected = [
                ("XDP", 30.0),
                ("PRE_ROUTING", 20.0),
                ("UDP socket", 5.0),
                ("TCP", 7.0),
            ];
            assert_eq!(paths, expected);
            assert_eq!(model.paths[1].state, "nat open");
            assert_eq!((model.cpus[0].number, model.cpus[0].rate()), (1, 47.0));
            assert_eq!(model.refusals[0].rate, 2.0);
            assert_eq!(model.refusals[0].total, 2 * now);
        }
    }

    #[test]
    fn latency_is_of_the_requests_between_the_samples() {
        let model = frame(&sample(1), &sample(3), None, Sort::Rate);
        let [only] = &model.latency[..] else {
            panic!("{:?}", model.latency);
        };
        assert_eq!((&*only.path, &*only.measure), ("prerouting", "service"));
        assert_eq!((only.p50_ns, only.p99_ns), (512, 1024));
        assert_eq!(model.json()["latency"][0]["p50_ns"], 512);
        let idle = frame(&sample(3), &sample(3), None, Sort::Rate);
        assert_eq!(idle.latency, []);
    }

    #[test]
    fn rows_are_sorted_as_asked() {
        let of = |sort| {
            let model = frame(&sample(1), &sample(2), None, sort);
            let classes: Vec<_> = model.classes.iter().map(|class| class.number).collect();
            let peers: Vec<_> = model.talkers.iter().map(|t| t.peer.clone()).collect();
            (classes, peers)
        };
        let peers = |first: &str, second: &str| vec![first.to_owned(), second.to_owned()];
        let (v4, v6) = ("10.0.0.1:4000", "[fd00::1]:5000");
        assert_eq!(of(Sort::Rate), (vec![5, 1], peers(v6, v4)));
        assert_eq!(of(Sort::Size), (vec![1, 5], peers(v4, v6)));
        assert_eq!(of(Sort::Name), (vec![1, 5], peers(v4, v6)));
    }

    #[test]
    fn counters_that_were_reset_begin_at_zero() {
        let mut before = sample(100);
        before.at = Duration::from_secs(1);
        let model = frame(&before, &sample(2), None, Sort::Rate);
        assert_eq!(model.gets, 200.0);
        assert_eq!(model.hit_ratio, Some(0.75));
    }

    #[test]
    fn a_memcached_without_own_statistics_has_a_frame() {
        let now = Sample {
            snapshot: Snapshot {
                general: Stats::of(&["version 1.6.38", "get_hits 3"]),
                ..Snapshot::default()
            },
            ..Sample::default()
        };
        let model = frame(&now, &now, None, Sort::Rate);
        assert_eq!(model.version, "memcached 1.6.38");
        assert_eq!(model.hit_ratio, None);
        assert!(model.paths.is_empty() && model.cpus.is_empty());
    }
}
