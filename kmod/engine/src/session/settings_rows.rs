// SPDX-License-Identifier: GPL-2.0-only
//! The table of `stats settings`: each row's name and value, in memcached's order, and after them Hippos's own.

use hippos_proto::reply::Out;
use hippos_semantics::Administration;
use hippos_store::{Config, Platform};

use crate::session::lines::Lines;
use crate::settings::Settings;
use crate::Engine;

/// The settings in force.
struct InForce<'a> {
    settings: &'a Settings,
    store: &'a Config,
    memory_limit: usize,
    item_max: usize,
    verbosity: u32,
    detail: bool,
    authentication: bool,
    closed: bool,
    crawler: bool,
    administration: Administration,
    latency: bool,
    udp_bytes: usize,
    fast_bytes: usize,
    udp_datagrams: u32,
    udp_rate: u32,
    udp_private_rate: u32,
    networks: usize,
}

/// A row's value.
enum Value {
    /// One that cannot be changed.
    Fixed(&'static str),
    Number(fn(&InForce<'_>) -> u64),
    /// A number of hundredths, shown with two decimals.
    Hundredths(fn(&InForce<'_>) -> u64),
    Word(fn(&InForce<'_>) -> &'static str),
    Switch(fn(&InForce<'_>) -> bool),
}

use Value::{Fixed, Hundredths, Number, Switch, Word};

/// The rows.
#[rustfmt::skip]
const ROWS: &[(&str, Value)] = &[
    ("maxbytes", Number(|now| now.memory_limit as u64)),
    ("maxconns", Number(|now| u64::from(now.settings.max_connections))),
    ("tcpport", Number(|now| u64::from(now.settings.tcp_port))),
    ("udpport", Number(|now| u64::from(now.settings.udp_port))),
    ("inter", Word(|now| now.settings.interface)),
    ("verbosity", Number(|now| u64::from(now.verbosity))),
    ("oldest", Fixed("0")),
    ("evictions", Fixed("on")),
    ("domain_socket", Fixed("NULL")),
    ("umask", Fixed("700")),
    ("shutdown_command", Fixed("no")),
    ("growth_factor", Hundredths(|now| u64::from(now.store.factor))),
    ("chunk_size", Number(|now| now.store.item_min as u64)),
    ("num_threads", Number(|now| u64::from(now.settings.threads))),
    ("num_threads_per_udp", Fixed("1")),
    ("stat_key_prefix", Fixed(":")),
    ("detail_enabled", Switch(|now| now.detail)),
    ("reqs_per_event", Fixed("20")),
    ("cas_enabled", Fixed("yes")),
    ("tcp_backlog", Number(|now| u64::from(now.settings.backlog))),
    ("binding_protocol", Fixed("auto-negotiate")),
    ("auth_enabled_sasl", Fixed("no")),
    ("auth_enabled_ascii", Switch(|now| now.authentication)),
    ("item_size_max", Number(|now| now.item_max as u64)),
    ("maxconns_fast", Fixed("yes")),
    ("hashpower_init", Fixed("0")),
    ("slab_reassign", Fixed("yes")),
    ("slab_automove", Fixed("1")),
    ("slab_automove_ratio", Fixed("0.80")),
    ("slab_automove_window", Fixed("10")),
    ("slab_chunk_max", Number(|now| now.item_max as u64)),
    ("lru_crawler", Switch(|now| now.crawler)),
    ("lru_crawler_sleep", Fixed("100")),
    ("lru_crawler_tocrawl", Fixed("0")),
    ("tail_repair_time", Fixed("0")),
    ("flush_enabled", Switch(|now| now.administration != Administration::Off)),
    ("dump_enabled", Switch(|now| now.administration != Administration::Off)),
    ("hash_algorithm", Fixed("folded")),
    ("lru_maintainer_thread", Fixed("no")),
    ("lru_segmented", Fixed("no")),
    ("hot_lru_pct", Fixed("0")),
    ("warm_lru_pct", Fixed("0")),
    ("hot_max_factor", Fixed("0.00")),
    ("warm_max_factor", Fixed("0.00")),
    ("temp_lru", Fixed("no")),
    ("temporary_ttl", Fixed("61")),
    ("idle_timeout", Fixed("0")),
    ("watcher_logbuf_size", Fixed("0")),
    ("worker_logbuf_size", Fixed("0")),
    ("read_buf_mem_limit", Fixed("0")),
    ("track_sizes", Fixed("no")),
    ("inline_ascii_response", Fixed("no")),
    // There is no external storage, TLS or proxy: these are the rows of a memcached that has them disabled.
    ("ext_item_size", Fixed("512")),
    ("ext_item_age", Fixed("4294967295")),
    ("ext_low_ttl", Fixed("0")),
    ("ext_recache_rate", Fixed("2000")),
    ("ext_wbuf_size", Fixed("4194304")),
    ("ext_compact_under", Fixed("0")),
    ("ext_drop_under", Fixed("0")),
    ("ext_max_sleep", Fixed("1000000")),
    ("ext_max_frag", Fixed("0.80")),
    ("slab_automove_freeratio", Fixed("0.010")),
    ("ext_drop_unread", Fixed("no")),
    ("ssl_enabled", Fixed("no")),
    ("ssl_chain_cert", Fixed("(null)")),
    ("ssl_key", Fixed("(null)")),
    ("ssl_verify_mode", Fixed("0")),
    ("ssl_keyformat", Fixed("1")),
    ("ssl_ciphers", Fixed("NULL")),
    ("ssl_ca_cert", Fixed("NULL")),
    ("ssl_wbuf_size", Fixed("16384")),
    ("ssl_session_cache", Fixed("no")),
    ("ssl_kernel_tls", Fixed("no")),
    ("ssl_min_version", Fixed("tlsv1.2")),
    ("proxy_enabled", Fixed("no")),
    ("proxy_uring_enabled", Fixed("no")),
    ("num_napi_ids", Fixed("(null)")),
    ("memory_file", Fixed("(null)")),
    ("client_flags_size", Fixed("4")),
    ("hippos_eviction", Word(|now| now.store.eviction.name())),
    ("hippos_admin", Word(|now| now.administration.name())),
    ("hippos_closed", Switch(|now| now.closed)),
    ("hippos_latency", Switch(|now| now.latency)),
    ("hippos_udp_bytes", Number(|now| now.udp_bytes as u64)),
    ("hippos_udp_fast_bytes", Number(|now| now.fast_bytes as u64)),
    ("hippos_udp_datagrams", Number(|now| now.udp_datagrams.into())),
    ("hippos_udp_rate", Number(|now| now.udp_rate.into())),
    ("hippos_udp_private_rate", Number(|now| now.udp_private_rate.into())),
    ("hippos_allow_networks", Number(|now| now.networks as u64)),
];

impl<P: Platform> Engine<P> {
    pub(super) fn stats_settings(&self, lines: &mut Lines<'_, impl Out>) {
        let (_, udp_datagrams) = self.udp_limits();
        let (udp_rate, udp_private_rate) = self.udp_rates();
        let now = InForce {
            settings: &self.settings,
            store: self.store.config(),
            memory_limit: self.store.memory_limit(),
            item_max: self.store.item_max(),
            verbosity: self.verbosity(),
            detail: self.detail(),
            authentication: self.authentication(),
            closed: self.is_closed(),
            crawler: self.store.crawler(),
            administration: self.administration(),
            latency: self.host_stats.measures_latency(),
            udp_bytes: self.udp_bytes(),
            fast_bytes: self.fast_bytes(),
            udp_datagrams,
            udp_rate,
            udp_private_rate,
            networks: self.allowed_networks(),
        };
        for (name, value) in ROWS {
            let word = match value {
                Fixed(word) => word,
                Word(of) => of(&now),
                Switch(of) if of(&now) => "yes",
                Switch(_) => "no",
                Number(of) => {
                    lines.number(name, of(&now));
                    continue;
                }
                Hundredths(of) => {
                    let (whole, rest) = (of(&now) / 100, of(&now) % 100);
                    lines.stat(name, format_args!("{whole}.{rest:02}"));
                    continue;
                }
            };
            lines.words(&[(*name, word)]);
        }
        self.host_stats
            .settings(&mut |name, value| lines.stat(name, value));
    }
}
