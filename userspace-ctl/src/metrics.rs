// SPDX-License-Identifier: GPL-2.0-only
//! Statistics as Prometheus metrics: memcached_exporter's metrics under its names, so that dashboards made for it work,
//! and Hippos's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::latency::Times;
use crate::stats::{Stats, RECEIVE_PATHS};

const COUNTER: MetricType = MetricType::Counter;
const GAUGE: MetricType = MetricType::Gauge;

/// A metric without labels: its name (a counter's gets the suffix `_total`), its type, its statistic and its meaning.
type MetricRow = (&'static str, MetricType, &'static str, &'static str);

const GENERAL: &[MetricRow] = &[
    (
        "memcached_uptime_seconds",
        GAUGE,
        "uptime",
        "Seconds since the start",
    ),
    (
        "memcached_time_seconds",
        GAUGE,
        "time",
        "The server's clock",
    ),
    (
        "memcached_process_user_cpu_seconds",
        COUNTER,
        "rusage_user",
        "CPU time in user space",
    ),
    (
        "memcached_process_system_cpu_seconds",
        COUNTER,
        "rusage_system",
        "CPU time in the kernel",
    ),
    (
        "memcached_read_bytes",
        COUNTER,
        "bytes_read",
        "Bytes from the network",
    ),
    (
        "memcached_written_bytes",
        COUNTER,
        "bytes_written",
        "Bytes to the network",
    ),
    (
        "memcached_current_connections",
        GAUGE,
        "curr_connections",
        "Open connections",
    ),
    (
        "memcached_connections",
        COUNTER,
        "total_connections",
        "Connections since the start",
    ),
    (
        "memcached_connections_rejected",
        COUNTER,
        "rejected_connections",
        "Connections refused because of the limit",
    ),
    (
        "memcached_connections_yielded",
        COUNTER,
        "conn_yields",
        "Turns of connections that ended before all their commands were served",
    ),
    (
        "memcached_connections_listener_disabled",
        COUNTER,
        "listen_disabled_num",
        "Times that no connection was accepted because of the limit",
    ),
    ("memcached_current_bytes", GAUGE, "bytes", "Bytes of items"),
    (
        "memcached_limit_bytes",
        GAUGE,
        "limit_maxbytes",
        "The memory limit",
    ),
    ("memcached_current_items", GAUGE, "curr_items", "Items"),
    (
        "memcached_items",
        COUNTER,
        "total_items",
        "Items stored since the start",
    ),
    (
        "memcached_items_evicted",
        COUNTER,
        "evictions",
        "Items evicted",
    ),
    (
        "memcached_items_reclaimed",
        COUNTER,
        "reclaimed",
        "Expired items that were reclaimed",
    ),
    (
        "memcached_item_too_large",
        COUNTER,
        "store_too_large",
        "Writes of items beyond the largest size",
    ),
    (
        "memcached_item_no_memory",
        COUNTER,
        "store_no_memory",
        "Writes refused for lack of memory",
    ),
    (
        "memcached_direct_reclaims",
        COUNTER,
        "direct_reclaims",
        "Writes that had to evict items themselves",
    ),
    (
        "memcached_accepting_connections",
        GAUGE,
        "accepting_conns",
        "Whether connections are accepted",
    ),
    (
        "memcached_lru_crawler_starts",
        COUNTER,
        "lru_crawler_starts",
        "Runs of the crawler",
    ),
    (
        "memcached_lru_crawler_reclaimed",
        COUNTER,
        "crawler_reclaimed",
        "Items that the crawler freed",
    ),
    (
        "memcached_lru_crawler_items_checked",
        COUNTER,
        "crawler_items_checked",
        "Items that the crawler looked at",
    ),
    (
        "memcached_lru_crawler_moves_to_cold",
        COUNTER,
        "moves_to_cold",
        "Moves to the COLD LRU",
    ),
    (
        "memcached_lru_crawler_moves_to_warm",
        COUNTER,
        "moves_to_warm",
        "Moves to the WARM LRU",
    ),
    (
        "memcached_lru_crawler_moves_within_lru",
        COUNTER,
        "moves_within_lru",
        "Moves within the HOT or the WARM LRU",
    ),
];

const SETTINGS: &[MetricRow] = &[
    (
        "memcached_max_connections",
        GAUGE,
        "maxconns",
        "The most connections",
    ),
    (
        "memcached_lru_crawler_enabled",
        GAUGE,
        "lru_crawler",
        "Whether the crawler is on",
    ),
    (
        "memcached_lru_crawler_sleep",
        GAUGE,
        "lru_crawler_sleep",
        "Microseconds between its steps",
    ),
    (
        "memcached_lru_crawler_to_crawl",
        GAUGE,
        "lru_crawler_tocrawl",
        "The most items of a run",
    ),
    (
        "memcached_lru_crawler_maintainer_thread",
        GAUGE,
        "lru_maintainer_thread",
        "Whether there is a thread for the LRUs",
    ),
    (
        "memcached_lru_crawler_hot_percent",
        GAUGE,
        "hot_lru_pct",
        "Share of the HOT LRU",
    ),
    (
        "memcached_lru_crawler_warm_percent",
        GAUGE,
        "warm_lru_pct",
        "Share of the WARM LRU",
    ),
    (
        "memcached_lru_crawler_hot_max_factor",
        GAUGE,
        "hot_max_factor",
        "Age limit of the HOT LRU",
    ),
    (
        "memcached_lru_crawler_warm_max_factor",
        GAUGE,
        "warm_max_factor",
        "Age limit of the WARM LRU",
    ),
];

/// Rows of `stats items`, each with the label `slab`.
const ITEMS: &[MetricRow] = &[
    (
        "memcached_slab_current_items",
        GAUGE,
        "number",
        "Items of the class",
    ),
    (
        "memcached_slab_items_age_seconds",
        GAUGE,
        "age",
        "Age of its oldest item",
    ),
    (
        "memcached_slab_items_crawler_reclaimed",
        COUNTER,
        "crawler_reclaimed",
        "Items that the crawler freed",
    ),
    (
        "memcached_slab_items_evicted",
        COUNTER,
        "evicted",
        "Evicted items",
    ),
    (
        "memcached_slab_items_evicted_nonzero",
        COUNTER,
        "evicted_nonzero",
        "Evicted items with an expiry time",
    ),
    (
        "memcached_slab_items_evicted_time_seconds",
        GAUGE,
        "evicted_time",
        "How long the last evicted item was not read",
    ),
    (
        "memcached_slab_items_evicted_unfetched",
        COUNTER,
        "evicted_unfetched",
        "Evicted items never read",
    ),
    (
        "memcached_slab_items_expired_unfetched",
        COUNTER,
        "expired_unfetched",
        "Expired items never read",
    ),
    (
        "memcached_slab_items_outofmemory",
        COUNTER,
        "outofmemory",
        "Writes refused for lack of memory",
    ),
    (
        "memcached_slab_items_reclaimed",
        COUNTER,
        "reclaimed",
        "Expired items that were reclaimed",
    ),
    (
        "memcached_slab_items_tailrepairs",
        COUNTER,
        "tailrepairs",
        "Repairs of an LRU's tail",
    ),
    (
        "memcached_slab_mem_requested_bytes",
        GAUGE,
        "mem_requested",
        "Bytes of the class's items",
    ),
    (
        "memcached_slab_items_moves_to_cold",
        GAUGE,
        "moves_to_cold",
        "Moves to the COLD LRU",
    ),
    (
        "memcached_slab_items_moves_to_warm",
        GAUGE,
        "moves_to_warm",
        "Moves to the WARM LRU",
    ),
    (
        "memcached_slab_items_moves_within_lru",
        GAUGE,
        "moves_within_lru",
        "Moves within an LRU",
    ),
    (
        "memcached_slab_hot_items",
        GAUGE,
        "number_hot",
        "Items of the HOT LRU",
    ),
    (
        "memcached_slab_warm_items",
        GAUGE,
        "number_warm",
        "Items of the WARM LRU",
    ),
    (
        "memcached_slab_cold_items",
        GAUGE,
        "number_cold",
        "Items of the COLD LRU",
    ),
    (
        "memcached_slab_temporary_items",
        GAUGE,
        "number_temp",
        "Items of the temporary LRU",
    ),
    (
        "memcached_slab_hot_age_seconds",
        GAUGE,
        "age_hot",
        "Age of the oldest item of the HOT LRU",
    ),
    (
        "memcached_slab_warm_age_seconds",
        GAUGE,
        "age_warm",
        "Age of the oldest item of the WARM LRU",
    ),
];

/// Rows of `stats slabs`, each with the label `slab`.
const SLABS: &[MetricRow] = &[
    (
        "memcached_slab_chunk_size_bytes",
        GAUGE,
        "chunk_size",
        "Bytes of a chunk",
    ),
    (
        "memcached_slab_chunks_per_page",
        GAUGE,
        "chunks_per_page",
        "Chunks of a page",
    ),
    (
        "memcached_slab_current_pages",
        GAUGE,
        "total_pages",
        "Pages of the class",
    ),
    (
        "memcached_slab_current_chunks",
        GAUGE,
        "total_chunks",
        "Chunks of the class",
    ),
    (
        "memcached_slab_chunks_used",
        GAUGE,
        "used_chunks",
        "Chunks with an item",
    ),
    (
        "memcached_slab_chunks_free",
        GAUGE,
        "free_chunks",
        "Chunks without",
    ),
    (
        "memcached_slab_chunks_free_end",
        GAUGE,
        "free_chunks_end",
        "Free chunks at the end of the last page",
    ),
];

/// Commands whose hits and misses are counted.
const COMMANDS: [&str; 6] = ["get", "delete", "incr", "decr", "cas", "touch"];
/// The documentation's table of statistics, which is generated from the engine's.
const STATISTICS: &str = include_str!("../../docs/statistics.md");

/// The statistics that a scrape reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) general: Stats,
    pub(crate) settings: Stats,
    pub(crate) items: Stats,
    pub(crate) slabs: Stats,
    pub(crate) latency: Stats,
    pub(crate) passes: Stats,
    /// Whether the server answered.
    pub(crate) is_up: bool,
}

impl Scrape {
    /// Formats them in OpenMetrics's text format.
    pub(crate) fn text(self) -> Result<String, fmt::Error> {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Hippos's own statistics that can decrease.
fn own_gauges() -> impl Iterator<Item = &'static str> {
    STATISTICS.lines().filter_map(|line| {
        let mut cells = line.trim_matches(['|', ' ']).split(" | ");
        let name = cells.next()?.trim_matches('`');
        (name.starts_with("hippos_") && cells.next() == Some("gauge")).then_some(name)
    })
}

/// The classes of `stats items` or `stats slabs`, each with its rows.
fn classes<'s>(stats: &'s Stats, prefix: &str) -> BTreeMap<u64, BTreeMap<&'s str, &'s str>> {
    let mut classes: BTreeMap<u64, BTreeMap<_, _>> = BTreeMap::new();
    for (name, value) in stats.iter() {
        let row = name
            .strip_prefix(prefix)
            .and_then(|rest| rest.split_once(':'));
        if let Some((class, row)) = row {
            if let Ok(class) = class.parse() {
                classes.entry(class).or_default().insert(row, value);
            }
        }
    }
    classes
}

/// A value as a number; a switch is 1 or 0.
fn number(value: &str) -> Option<f64> {
    match value {
        "yes" => Some(1.0),
        "no" => Some(0.0),
        value => value.parse().ok(),
    }
}

fn put(metric: &mut MetricEncoder<'_>, kind: MetricType, value: f64) -> fmt::Result {
    match kind {
        MetricType::Counter => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        _ => metric.encode_gauge(&value),
    }
}

/// A copy, because the crate's type does not implement it.
fn same(kind: &MetricType) -> MetricType {
    match kind {
        MetricType::Counter => COUNTER,
        _ => GAUGE,
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        let help = "Whether the server answered";
        let mut up = out.encode_descriptor("memcached_up", help, None, GAUGE)?;
        up.encode_gauge(&i64::from(self.is_up))?;
        if !self.is_up {
            return Ok(());
        }
        let version = self.general.get("version").unwrap_or("?");
        let help = "The server's version";
        let mut metric = out.encode_descriptor("memcached_version", help, None, GAUGE)?;
        metric
            .encode_family(&[("version", version)])?
            .encode_gauge(&1u64)?;
        rows(out, GENERAL, &self.general)?;
        rows(out, SETTINGS, &self.settings)?;
        let malloced = self.slabs.number("total_malloced");
        let help = "Bytes of all pages";
        let mut metric = out.encode_descriptor("memcached_malloced_bytes", help, None, GAUGE)?;
        metric.encode_gauge(&malloced)?;
        self.commands(out)?;
        let items = classes(&self.items, "items:");
        by_class(out, ITEMS, &items)?;
        let help = "Reads from an LRU";
        let mut family = out.encode_descriptor("memcached_slab_lru_hits", help, None, COUNTER)?;
        for (class, rows) in &items {
            for (lru, row) in [
                ("hot", "hits_to_hot"),
                ("warm", "hits_to_warm"),
                ("cold", "hits_to_cold"),
                ("temporary", "hits_to_temp"),
            ] {
                if let Some(value) = rows.get(row).and_then(|value| number(value)) {
                    let class = class.to_string();
                    let labels = [("slab", class.as_str()), ("lru", lru)];
                    put(&mut family.encode_family(&labels)?, COUNTER, value)?;
                }
            }
        }
        let slabs = classes(&self.slabs, "");
        by_class(out, SLABS, &slabs)?;
        let help = "Commands by slab class, command and outcome";
        let mut family = out.encode_descriptor("memcached_slab_commands", help, None, COUNTER)?;
        for (class, rows) in &slabs {
            let get = |name: &str| rows.get(name).and_then(|value| value.parse().ok());
            for (command, status, value) in commands(get, false) {
                let class = class.to_string();
                let labels = [
                    ("slab", class.as_str()),
                    ("command", command),
                    ("status", status),
                ];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
            }
        }
        self.own(out)?;
        self.passed(out)?;
        self.times(out)
    }
}

impl Scrape {
    fn commands(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Commands by command and outcome";
        let mut family = out.encode_descriptor("memcached_commands", help, None, COUNTER)?;
        let get = |name: &str| self.general.get(name)?.parse().ok();
        for (command, status, value) in commands(get, true) {
            family
                .encode_family(&[("command", command), ("status", status)])?
                .encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
        Ok(())
    }

    /// Histograms of the measured times, if there are any, with a bucket for each power of two.
    fn times(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = Times::read(&self.latency);
        if all.iter().all(|times| times.count() == 0) {
            return Ok(());
        }
        for (measure, name, help) in [
            (
                "service",
                "hippos_service_seconds",
                "How long requests took, by receive path",
            ),
            (
                "queue",
                "hippos_queue_seconds",
                "How long requests waited to be served, by receive path",
            ),
        ] {
            let mut family = out.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for times in all.iter().filter(|times| times.measure == measure) {
                let seconds = |ns: u64| ns as f64 / 1e9;
                let buckets: Vec<_> = times
                    .powers()
                    .into_iter()
                    .map(|(bound, count)| (bound.map_or(f64::MAX, seconds), count))
                    .collect();
                family
                    .encode_family(&[("path", times.path.as_str())])?
                    .encode_histogram::<NoLabelSet>(
                        seconds(times.sum_ns),
                        times.count(),
                        &buckets,
                        None,
                    )?;
            }
        }
        Ok(())
    }

    /// Why datagrams were left to the next receive path.
    fn passed(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if passes(&self.passes).next().is_none() {
            return Ok(());
        }
        let help = "Datagrams left to the next receive path, by the path that left them and why";
        let mut family = out.encode_descriptor("hippos_pass", help, None, COUNTER)?;
        for (path, reason, count) in passes(&self.passes) {
            family
                .encode_family(&[("path", path), ("reason", reason)])?
                .encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        Ok(())
    }

    /// Metrics that a memcached does not have.
    fn own(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let gauges: BTreeSet<_> = own_gauges().collect();
        for (name, value) in self.general.iter() {
            let Some(value) = number(value).filter(|_| name.starts_with("hippos_")) else {
                continue;
            };
            let kind = if gauges.contains(name) {
                GAUGE
            } else {
                COUNTER
            };
            let help = format!("{name} of stats");
            let mut metric = out.encode_descriptor(name, &help, None, same(&kind))?;
            put(&mut metric, kind, value)?;
        }
        let paths: Vec<_> = RECEIVE_PATHS
            .iter()
            .filter_map(|(_, name)| Some((*name, self.general.get(name)?)))
            .collect();
        if !paths.is_empty() {
            let help = "Whether this receive path of UDP is open, and if not, why";
            let mut family =
                out.encode_descriptor("hippos_receive_path_open", help, None, GAUGE)?;
            for (name, value) in paths {
                let path = name.trim_start_matches("hippos_");
                let labels = [("path", path), ("state", value)];
                let open = u64::from(value == "open");
                family.encode_family(&labels)?.encode_gauge(&open)?;
            }
        }
        Ok(())
    }
}

/// The rows of `stats hippos_pass`: receive path, reason and count.
fn passes(stats: &Stats) -> impl Iterator<Item = (&'static str, &str, u64)> {
    stats.iter().filter_map(|(name, value)| {
        let reason = name.strip_prefix("hippos_pass_")?;
        let (path, reason) = match reason.strip_prefix("xdp_") {
            Some(reason) => ("xdp", reason),
            None => ("hook", reason),
        };
        Some((path, reason, value.parse().ok()?))
    })
}

/// Command, outcome and count, as in memcached_exporter: cas is also counted in `cmd_set`. There are no misses by
/// class.
fn commands(
    get: impl Fn(&str) -> Option<u64>,
    has_misses: bool,
) -> Vec<(&'static str, &'static str, u64)> {
    let mut found = Vec::new();
    for command in COMMANDS {
        for (end, status) in [("hits", "hit"), ("misses", "miss")] {
            if let Some(value) = get(&format!("{command}_{end}")) {
                found.push((command, status, value));
            }
        }
    }
    found.extend(get("cas_badval").map(|value| ("cas", "badval", value)));
    found.extend(get("cmd_flush").map(|value| ("flush", "hit", value)));
    let misses = if has_misses {
        get("cas_misses")
    } else {
        Some(0)
    };
    if let (Some(all), Some(hits), Some(bad), Some(misses)) =
        (get("cmd_set"), get("cas_hits"), get("cas_badval"), misses)
    {
        let cas = hits.saturating_add(bad).saturating_add(misses);
        found.push(("set", "hit", all.saturating_sub(cas)));
    }
    found
}

fn rows(out: &mut DescriptorEncoder<'_>, rows: &[MetricRow], stats: &Stats) -> fmt::Result {
    for (name, kind, stat, help) in rows {
        if let Some(value) = stats.get(stat).and_then(number) {
            let mut metric = out.encode_descriptor(name, help, None, same(kind))?;
            put(&mut metric, same(kind), value)?;
        }
    }
    Ok(())
}

fn by_class(
    out: &mut DescriptorEncoder<'_>,
    rows: &[MetricRow],
    classes: &BTreeMap<u64, BTreeMap<&str, &str>>,
) -> fmt::Result {
    for (name, kind, stat, help) in rows {
        let mut family = out.encode_descriptor(name, help, None, same(kind))?;
        for (class, rows) in classes {
            if let Some(value) = rows.get(stat).and_then(|value| number(value)) {
                let labels = [("slab", class.to_string())];
                put(&mut family.encode_family(&labels)?, same(kind), value)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_that_can_decrease_are_gauges() {
        let gauges: Vec<_> = own_gauges().collect();
        for gauge in [
            "hippos_memory_held",
            "hippos_age_udp_refused",
            "hippos_polling_cpu",
        ] {
            assert!(gauges.contains(&gauge), "{gauge}");
        }
        assert!(!gauges.contains(&"hippos_udp_refused"));
        assert!(STATISTICS.contains("| `hippos_udp_refused` | counter |"));
    }

    #[test]
    fn metrics_have_memcached_exporters_names_and_labels() {
        let scrape = Scrape {
            general: Stats::of(&[
                "version 1.6.38",
                "uptime 5",
                "rusage_user 1.500000",
                "get_hits 3",
                "get_misses 4",
                "cmd_set 10",
                "cas_hits 1",
                "cas_misses 2",
                "cas_badval 3",
                "curr_items 7",
                "hippos_memory_held 99",
                "hippos_xdp_served 5",
                "hippos_hook_ipv4 nat",
                "hippos_version 0.1.0",
            ]),
            settings: Stats::of(&["maxconns 1024", "lru_crawler yes"]),
            items: Stats::of(&["items:2:number 7", "items:2:hits_to_cold 9"]),
            slabs: Stats::of(&[
                "2:chunk_size 96",
                "2:cmd_set 5",
                "2:cas_hits 1",
                "2:cas_badval 1",
                "total_malloced 1048576",
            ]),
            latency: Stats::of(&[
                "hippos_latency on",
                "xdp:service:sum_ns 1500",
                "xdp:service:le_64 1",
                "xdp:service:le_128 2 3 0 4",
                "xdp:service:le_inf 1",
                "udp:queue:sum_ns 0",
                "udp:queue:le_64 0",
                "udp:queue:le_inf 0",
            ]),
            passes: Stats::of(&[
                "hippos_pass_fragment 2",
                "hippos_pass_source_port 0",
                "hippos_pass_xdp_fragment 3",
            ]),
            is_up: true,
        };
        let text = scrape.text().unwrap();
        for line in [
            "memcached_up 1",
            "memcached_version{version=\"1.6.38\"} 1",
            "memcached_uptime_seconds 5.0",
            "memcached_process_user_cpu_seconds_total 1.5",
            "memcached_commands_total{command=\"get\",status=\"hit\"} 3",
            "memcached_commands_total{command=\"get\",status=\"miss\"} 4",
            "memcached_commands_total{command=\"set\",status=\"hit\"} 4",
            "memcached_current_items 7.0",
            "memcached_max_connections 1024.0",
            "memcached_lru_crawler_enabled 1.0",
            "memcached_malloced_bytes 1048576",
            "memcached_slab_current_items{slab=\"2\"} 7.0",
            "memcached_slab_lru_hits_total{slab=\"2\",lru=\"cold\"} 9.0",
            "memcached_slab_chunk_size_bytes{slab=\"2\"} 96.0",
            "memcached_slab_commands_total{slab=\"2\",command=\"set\",status=\"hit\"} 3",
            "hippos_memory_held 99.0",
            "hippos_xdp_served_total 5.0",
            "# TYPE hippos_service_seconds histogram",
            "hippos_service_seconds_bucket{le=\"6.4e-8\",path=\"xdp\"} 1",
            "hippos_service_seconds_bucket{le=\"1.28e-7\",path=\"xdp\"} 10",
            "hippos_service_seconds_bucket{le=\"+Inf\",path=\"xdp\"} 11",
            "hippos_service_seconds_count{path=\"xdp\"} 11",
            "hippos_service_seconds_sum{path=\"xdp\"} 0.0000015",
            "hippos_queue_seconds_count{path=\"udp\"} 0",
            "hippos_receive_path_open{path=\"hook_ipv4\",state=\"nat\"} 0",
            "hippos_pass_total{path=\"hook\",reason=\"fragment\"} 2",
            "hippos_pass_total{path=\"hook\",reason=\"source_port\"} 0",
            "hippos_pass_total{path=\"xdp\",reason=\"fragment\"} 3",
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(!text.contains("hippos_version"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_server_that_does_not_answer_is_down() {
        let text = Scrape::default().text().unwrap();
        let values: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(values, ["memcached_up 0"]);
    }
}
