// SPDX-License-Identifier: GPL-2.0-only
//! The table of `stats`: each row's name, kind, meaning and source, in the order in which they are shown. The table in
//! the documentation is generated from it.
//!
//! The name and meaning of a counter of the engine ([`EngineCounter`]), of the store ([`Counter`]) or of the host
//! ([`HostCounter`]) are at its definition. It needs a row here only to have a certain position: all others come last.

use hippos_invariant::Exact;
use hippos_proto::VERSION;
use hippos_store::{ClassCounter as Class, Counter, Snapshot};

use crate::counters::EngineCounter;
use crate::host_counters::HostCounter;
use crate::host_stats::{FastPathStats, HostState};
use crate::refusals::{RefusalAges, RefusalCounter};
use crate::settings::Settings;

/// A row of `stats`.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "kind and doc are the documentation's")
)]
pub(crate) struct Statistic {
    pub(crate) name: &'static str,
    pub(crate) kind: StatisticKind,
    pub(crate) doc: &'static str,
    pub(crate) source: Source,
}

/// How a statistic changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatisticKind {
    /// Grows since the start, or since `stats reset`.
    Counter,
    /// The present state.
    Gauge,
    /// Always zero, for clients that look for memcached's row.
    Zero,
}

/// The source of a value.
pub(crate) enum Source {
    Zero,
    EngineCounter(EngineCounter),
    /// A counter of the engine of which `stats hippos_cpus` has a row for each CPU.
    PerCpu(EngineCounter),
    Store(Counter),
    /// A counter of the host. The row does not exist where the host does not keep it.
    Host(&'static HostCounter),
    /// The sum over the slab classes.
    Class(Class),
    /// The sum over the slab classes, and a counter of the store.
    Sum(Class, Counter),
    Number(fn(&Now<'_>) -> u64),
    /// A row that does not always exist.
    Value(fn(&Now<'_>) -> Option<Value>),
}

/// A value that is not a sum of counters.
pub(crate) enum Value {
    Number(u64),
    Word(&'static str),
    /// Microseconds, shown as seconds.
    Seconds(u64),
}

/// The state that the rows show.
pub(crate) struct Now<'a> {
    pub(crate) host: HostState,
    pub(crate) fast_path: Option<FastPathStats>,
    pub(crate) shot: Snapshot,
    pub(crate) settings: &'a Settings,
    pub(crate) uptime: u64,
    pub(crate) unix: u64,
    pub(crate) upload_bytes: u64,
    pub(crate) memory_max_settable: u64,
    pub(crate) watchers: u64,
    pub(crate) refusal_ages: RefusalAges,
}

const fn row(
    name: &'static str,
    kind: StatisticKind,
    source: Source,
    doc: &'static str,
) -> Statistic {
    Statistic {
        name,
        kind,
        doc,
        source,
    }
}

const fn counter(name: &'static str, source: Source, doc: &'static str) -> Statistic {
    row(name, StatisticKind::Counter, source, doc)
}

const fn tally(tally: EngineCounter) -> Statistic {
    counter(tally.name(), Source::EngineCounter(tally), tally.doc())
}

const fn per_cpu(tally: EngineCounter) -> Statistic {
    counter(tally.name(), Source::PerCpu(tally), tally.doc())
}

const fn store(store: Counter) -> Statistic {
    counter(store.name(), Source::Store(store), store.doc())
}

const fn host(host: &'static HostCounter) -> Statistic {
    counter(host.name(), Source::Host(host), host.doc())
}

const fn gauge(name: &'static str, number: fn(&Now<'_>) -> u64, doc: &'static str) -> Statistic {
    row(name, StatisticKind::Gauge, Source::Number(number), doc)
}

const fn value(
    name: &'static str,
    value: fn(&Now<'_>) -> Option<Value>,
    doc: &'static str,
) -> Statistic {
    row(name, StatisticKind::Gauge, Source::Value(value), doc)
}

const fn zero(name: &'static str) -> Statistic {
    row(name, StatisticKind::Zero, Source::Zero, "")
}

/// The rows with a position of their own.
const PLACED: &[Statistic] = &[
    gauge("pid", |now| u64::from(now.host.pid), "Process id; for the module that of a TCP worker"),
    gauge("uptime", |now| now.uptime, "Seconds since the start"),
    gauge("time", |now| now.unix, "Unix time, seconds"),
    value("version", |_| Some(Value::Word(VERSION)), "memcached's version whose behaviour this is"),
    value("libevent", |_| Some(Value::Word("none")), "There is none"),
    gauge("pointer_size", |_| u64::from(usize::BITS), "Bits of a pointer"),
    counter("rusage_user", Source::Value(|now| Some(Value::Seconds(now.host.user_us))), "CPU time in user mode, seconds"),
    counter("rusage_system", Source::Value(|now| Some(Value::Seconds(now.host.system_us))), "CPU time in the kernel, seconds"),
    gauge("max_connections", |now| u64::from(now.settings.max_connections), "The most connections at a time"),
    gauge("curr_connections", |now| now.host.connections, "Connections now"),
    counter("total_connections", Source::Number(|now| now.host.total_connections), "Connections since the start"),
    counter("rejected_connections", Source::Number(|now| now.host.rejected_connections), "Connections refused because there were too many"),
    gauge("connection_structures", |now| now.host.connections, "The same as curr_connections"),
    zero("response_obj_oom"),
    zero("response_obj_count"),
    zero("response_obj_bytes"),
    zero("read_buf_count"),
    zero("read_buf_bytes"),
    zero("read_buf_bytes_free"),
    zero("read_buf_oom"),
    zero("reserved_fds"),
    counter("cmd_get", Source::Sum(Class::GetHits, Counter::GetMisses), "Keys looked up"),
    counter("cmd_set", Source::Class(Class::CmdSet), "Requests to store"),
    store(Counter::CmdFlush),
    counter("cmd_touch", Source::Sum(Class::TouchHits, Counter::TouchMisses), "Touches"),
    tally(EngineCounter::MetaCommands),
    counter("get_hits", Source::Class(Class::GetHits), "Lookups that found an item"),
    store(Counter::GetMisses),
    store(Counter::GetExpired),
    store(Counter::GetFlushed),
    store(Counter::DeleteMisses),
    counter("delete_hits", Source::Class(Class::DeleteHits), "Deletes that found an item"),
    store(Counter::IncrMisses),
    counter("incr_hits", Source::Class(Class::IncrHits), "Increments that found an item"),
    store(Counter::DecrMisses),
    counter("decr_hits", Source::Class(Class::DecrHits), "Decrements that found an item"),
    store(Counter::CasMisses),
    counter("cas_hits", Source::Class(Class::CasHits), "Compare-and-swaps whose number was right"),
    counter("cas_badval", Source::Class(Class::CasBadval), "Compare-and-swaps whose number was wrong"),
    counter("touch_hits", Source::Class(Class::TouchHits), "Touches that found an item"),
    store(Counter::TouchMisses),
    tally(EngineCounter::TooLarge),
    tally(EngineCounter::NoMemory),
    tally(EngineCounter::AuthCommands),
    tally(EngineCounter::AuthErrors),
    tally(EngineCounter::BytesRead),
    tally(EngineCounter::BytesWritten),
    gauge("limit_maxbytes", |now| now.shot.limit as u64, "The memory limit, bytes"),
    gauge("accepting_conns", |now| u64::from(now.host.accepting), "Whether new connections are accepted"),
    counter("listen_disabled_num", Source::Number(|now| now.host.listen_disabled), "Times that listening was stopped because there were too many connections"),
    zero("time_in_listen_disabled_us"),
    gauge("threads", |now| u64::from(now.settings.threads), "Worker threads"),
    tally(EngineCounter::Yields),
    gauge("hash_power_level", |now| u64::from(now.shot.buckets.checked_ilog2().unwrap_or(0)), "The number of the index's buckets, as a power of two"),
    gauge("hash_bytes", |now| now.shot.index.mul_exact(now.shot.block) as u64, "Bytes of the index"),
    zero("hash_is_expanding"),
    zero("slab_reassign_rescues"),
    zero("slab_reassign_chunk_rescues"),
    zero("slab_reassign_inline_reclaim"),
    zero("slab_reassign_busy_items"),
    zero("slab_reassign_busy_deletes"),
    zero("slab_reassign_busy_nomem"),
    zero("slab_reassign_running"),
    store(Counter::Moves),
    zero("lru_crawler_running"),
    zero("lru_crawler_starts"),
    zero("lru_maintainer_juggles"),
    zero("malloc_fails"),
    store(Counter::EventsDropped),
    store(Counter::EventsLogged),
    tally(EngineCounter::EventsSkipped),
    tally(EngineCounter::EventsSent),
    gauge("log_watchers", |now| now.watchers, "Clients that watch"),
    zero("unexpected_napi_ids"),
    zero("round_robin_fallback"),
    gauge("bytes", |now| now.shot.bytes, "Bytes of the items, headers included"),
    gauge("curr_items", |now| now.shot.items, "Items now"),
    store(Counter::TotalItems),
    gauge("slab_global_page_pool", |now| now.shot.idle as u64, "Memory blocks that wait for a use"),
    counter("expired_unfetched", Source::Class(Class::ExpiredUnfetched), "Items found expired or flushed that were never hit"),
    counter("evicted_unfetched", Source::Class(Class::EvictedUnfetched), "Items evicted that were never hit"),
    zero("evicted_active"),
    counter("evictions", Source::Class(Class::Evicted), "Items evicted"),
    counter("reclaimed", Source::Class(Class::Reclaimed), "Items found expired or flushed, whose slots were reclaimed"),
    zero("crawler_reclaimed"),
    store(Counter::CrawlerChecked),
    zero("lrutail_reflocked"),
    zero("moves_to_cold"),
    zero("moves_to_warm"),
    zero("moves_within_lru"),
    counter("direct_reclaims", Source::Store(Counter::Waits), "The same as hippos_writer_waits"),
    zero("lru_bumps_dropped"),
    value("hippos_version", |now| Some(Value::Word(now.settings.version)), "Hippos's version"),
    per_cpu(EngineCounter::FastCommands),
    tally(EngineCounter::FastDatagrams),
    per_cpu(EngineCounter::UdpCommands),
    tally(EngineCounter::UdpDatagrams),
    tally(EngineCounter::UdpInvalid),
    tally(EngineCounter::UdpTooLarge),
    tally(EngineCounter::UdpTooSlow),
    tally(EngineCounter::UdpIncomplete),
    tally(EngineCounter::UdpRefused),
    tally(EngineCounter::UdpLimited),
    tally(EngineCounter::AdminRefused),
    tally(EngineCounter::TcpRefused),
    host(HostCounter::named("hippos_xdp_served")),
    host(HostCounter::named("hippos_xdp_passed")),
    per_cpu(EngineCounter::TcpCommands),
    gauge("hippos_upload_bytes", |now| now.upload_bytes, "Memory of values that are being received"),
    tally(EngineCounter::UploadsTimedOut),
    tally(EngineCounter::ReadsRefused),
    gauge("hippos_memory_most", |now| now.memory_max_settable, "The largest limit that clients may set, bytes: set by the administrator"),
    gauge("hippos_memory_allowed", |now| now.shot.allowed as u64, "Bytes that may be held now: less than `limit_maxbytes` while the machine is short of memory"),
    store(Counter::Shortages),
    gauge("hippos_memory_held", |now| now.shot.held as u64, "Bytes of memory blocks held within the limit"),
    gauge("hippos_memory_tables", |now| now.shot.tables as u64, "Bytes of fixed tables, beside the limit"),
    gauge("hippos_index_buckets", |now| now.shot.buckets as u64, "Buckets of the index"),
    gauge("hippos_overflow_bytes", |now| now.shot.overflow.mul_exact(now.shot.block) as u64, "Bytes of overflow buckets"),
    gauge("hippos_retired_items", |now| now.shot.retired as u64, "Items that wait for a grace period"),
    gauge("hippos_retired_bytes", |now| now.shot.retired_bytes, "Their bytes"),
    gauge("hippos_pinned_items", |now| now.shot.pinned as u64, "Removed items that stay in memory because slow readers have pinned them"),
    gauge("hippos_pinned_bytes", |now| now.shot.pinned_bytes, "Bytes of items that slow readers have pinned, removed or not"),
    store(Counter::HandScanned),
    store(Counter::Waits),
    store(Counter::Splits),
    store(Counter::Merges),
    value("hippos_hook_ipv4", |now| match now.fast_path?.hook { [word, _] => Some(Value::Word(word)) }, "Whether PRE_ROUTING answers IPv4: `open`, closed because of the firewall (`nat`, `output`, `postrouting`), or `off`"),
    value("hippos_hook_ipv6", |now| match now.fast_path?.hook { [_, word] => Some(Value::Word(word)) }, "Whether PRE_ROUTING answers IPv6: `open`, closed because of the firewall (`nat`, `output`, `postrouting`), or `off`"),
    value("hippos_xdp_ipv4", |now| match now.fast_path?.xdp { [word, _] => Some(Value::Word(word)) }, "Whether XDP answers IPv4: `open`, closed because of the firewall (`nat`, `output`, `postrouting`), or `off`"),
    value("hippos_xdp_ipv6", |now| match now.fast_path?.xdp { [_, word] => Some(Value::Word(word)) }, "Whether XDP answers IPv6: `open`, closed because of the firewall (`nat`, `output`, `postrouting`), or `off`"),
    host(HostCounter::named("hippos_route_lookups")),
    host(HostCounter::named("hippos_route_elsewhere")),
    host(HostCounter::named("hippos_route_limited")),
    host(HostCounter::named("hippos_route_changes")),
    value("hippos_steered", |now| Some(Value::Number(now.host.steering?.steered.into())), "Whether packets are spread over all CPUs that are not isolated"),
    counter("hippos_steering_changes", Source::Value(|now| Some(Value::Number(now.host.steering?.changes))), "How often `hippos_steered` changed"),
    value("hippos_polling_load", |now| Some(Value::Number(now.host.steering?.load.into())), "Load of the polling CPU now, or when it last received all packets, percent"),
    value("hippos_polling_cpu", |now| Some(match now.host.steering?.polling { Some(cpu) => Value::Number(cpu.into()), None => Value::Word("none") }), "The CPU that polls all network cards and runs no TCP workers, or `none`"),
    value("hippos_age_rejected_connections", |now| Some(Value::Number(now.refusal_ages.of(RefusalCounter::Connections)?)), "Seconds since `rejected_connections` last grew; no row if it has not since the start or `stats reset`"),
    value("hippos_age_tcp_refused", |now| Some(Value::Number(now.refusal_ages.of(RefusalCounter::TcpSources)?)), "Seconds since `hippos_tcp_refused` last grew; no row if it has not since the start or `stats reset`"),
    value("hippos_age_udp_refused", |now| Some(Value::Number(now.refusal_ages.of(RefusalCounter::UdpSources)?)), "Seconds since `hippos_udp_refused` last grew; no row if it has not since the start or `stats reset`"),
    value("hippos_age_udp_limited", |now| Some(Value::Number(now.refusal_ages.of(RefusalCounter::UdpRate)?)), "Seconds since `hippos_udp_limited` last grew; no row if it has not since the start or `stats reset`"),
    value("hippos_age_auth_errors", |now| Some(Value::Number(now.refusal_ages.of(RefusalCounter::Logins)?)), "Seconds since `auth_errors` last grew; no row if it has not since the start or `stats reset`"),
    value("hippos_age_store_no_memory", |now| Some(Value::Number(now.refusal_ages.of(RefusalCounter::Memory)?)), "Seconds since `store_no_memory` last grew; no row if it has not since the start or `stats reset`"),
    value("hippos_age_no_memory", |now| Some(Value::Number(now.refusal_ages.of(RefusalCounter::OtherMemory)?)), "Seconds since `hippos_no_memory` last grew; no row if it has not since the start or `stats reset`"),
    value("hippos_age_admin_refused", |now| Some(Value::Number(now.refusal_ages.of(RefusalCounter::Admin)?)), "Seconds since `hippos_admin_refused` last grew; no row if it has not since the start or `stats reset`"),
    value("hippos_age_reads_refused", |now| Some(Value::Number(now.refusal_ages.of(RefusalCounter::Reads)?)), "Seconds since `hippos_reads_refused` last grew; no row if it has not since the start or `stats reset`"),
];

/// Whether a row has a position of its own.
fn placed(name: &str) -> bool {
    PLACED.iter().any(|row| row.name == name)
}

/// All rows, in their order.
pub(crate) fn each(mut show: impl FnMut(&Statistic)) {
    for row in PLACED {
        show(row);
    }
    for row in EngineCounter::ALL.iter().map(|it| tally(*it)) {
        if !placed(row.name) {
            show(&row);
        }
    }
    for row in Counter::ALL.iter().map(|it| store(*it)) {
        if !placed(row.name) {
            show(&row);
        }
    }
    for row in HostCounter::all().iter().map(host) {
        if !placed(row.name) {
            show(&row);
        }
    }
}

/// The counters of `stats hippos_cpus`, in their order.
pub(crate) fn counters_per_cpu() -> impl Iterator<Item = EngineCounter> {
    PLACED.iter().filter_map(|row| match row.source {
        Source::PerCpu(counter) => Some(counter),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
