// SPDX-License-Identifier: GPL-2.0-only
//! What statistics tell.

use hippos_proto::reply::{self, Cursor, Out};
use hippos_proto::VERSION;
use hippos_store::{ClassCounter as Class, Counter, Eviction, Platform};

use crate::administration::Administration;
use crate::counters::Tally;
use crate::facts::Facts;
use crate::session::lines::Lines;
use crate::Engine;

/// Seconds with microseconds.
fn seconds(us: u64) -> (u64, u64) {
    (us / 1_000_000, us % 1_000_000)
}

fn on(yes: bool) -> &'static str {
    if yes {
        "yes"
    } else {
        "no"
    }
}

impl<P: Platform> Engine<P> {
    pub(super) fn stats(&self, lines: &mut Lines<'_, impl Out>) {
        let host = self.facts.host();
        let shot = self.store.snapshot();
        let store = &self.store;
        let class = |counter| store.classes_counted(counter);
        let get_hits = class(Class::GetHits);
        let get_misses = store.counted(Counter::GetMisses);
        let touch_hits = class(Class::TouchHits);
        let touch_misses = store.counted(Counter::TouchMisses);
        let user = seconds(host.user_us);
        let system = seconds(host.system_us);
        // The store's clock starts at 2.
        let uptime = u64::from(store.now().saturating_sub(2));
        let unix = u64::try_from(store.unix()).unwrap_or(0);
        lines.numbers(&[
            ("pid", u64::from(host.pid)),
            ("uptime", uptime),
            ("time", unix),
        ]);
        lines.words(&[("version", VERSION), ("libevent", "none")]);
        lines.number("pointer_size", usize::BITS);
        lines.stat("rusage_user", format_args!("{}.{:06}", user.0, user.1));
        lines.stat(
            "rusage_system",
            format_args!("{}.{:06}", system.0, system.1),
        );
        lines.numbers(&[
            ("max_connections", u64::from(self.settings.max_connections)),
            ("curr_connections", host.connections),
            ("total_connections", host.total_connections),
            ("rejected_connections", host.rejected_connections),
            ("connection_structures", host.connections),
            ("response_obj_oom", 0),
            ("response_obj_count", 0),
            ("response_obj_bytes", 0),
            ("read_buf_count", 0),
            ("read_buf_bytes", 0),
            ("read_buf_bytes_free", 0),
            ("read_buf_oom", 0),
            ("reserved_fds", 0),
            ("cmd_get", get_hits.wrapping_add(get_misses)),
            ("cmd_set", class(Class::CmdSet)),
            ("cmd_flush", store.counted(Counter::CmdFlush)),
            ("cmd_touch", touch_hits.wrapping_add(touch_misses)),
            ("cmd_meta", self.tallied(Tally::MetaCommands)),
            ("get_hits", get_hits),
            ("get_misses", get_misses),
            ("get_expired", store.counted(Counter::GetExpired)),
            ("get_flushed", store.counted(Counter::GetFlushed)),
            ("delete_misses", store.counted(Counter::DeleteMisses)),
            ("delete_hits", class(Class::DeleteHits)),
            ("incr_misses", store.counted(Counter::IncrMisses)),
            ("incr_hits", class(Class::IncrHits)),
            ("decr_misses", store.counted(Counter::DecrMisses)),
            ("decr_hits", class(Class::DecrHits)),
            ("cas_misses", store.counted(Counter::CasMisses)),
            ("cas_hits", class(Class::CasHits)),
            ("cas_badval", class(Class::CasBadval)),
            ("touch_hits", touch_hits),
            ("touch_misses", touch_misses),
            ("store_too_large", self.tallied(Tally::TooLarge)),
            ("store_no_memory", self.tallied(Tally::NoMemory)),
            ("auth_cmds", self.tallied(Tally::AuthCommands)),
            ("auth_errors", self.tallied(Tally::AuthErrors)),
            ("bytes_read", self.tallied(Tally::BytesRead)),
            ("bytes_written", self.tallied(Tally::BytesWritten)),
            ("limit_maxbytes", shot.limit as u64),
            ("accepting_conns", u64::from(host.accepting)),
            ("listen_disabled_num", host.listen_disabled),
            ("time_in_listen_disabled_us", 0),
            ("threads", u64::from(self.settings.threads)),
            ("conn_yields", host.yields),
            (
                "hash_power_level",
                u64::from(shot.buckets.checked_ilog2().unwrap_or(0)),
            ),
            ("hash_bytes", shot.index.saturating_mul(shot.block) as u64),
            ("hash_is_expanding", 0),
            ("slab_reassign_rescues", 0),
            ("slab_reassign_chunk_rescues", 0),
            ("slab_reassign_inline_reclaim", 0),
            ("slab_reassign_busy_items", 0),
            ("slab_reassign_busy_deletes", 0),
            ("slab_reassign_busy_nomem", 0),
            ("slab_reassign_running", 0),
            ("slabs_moved", store.counted(Counter::Moves)),
            ("lru_crawler_running", 0),
            ("lru_crawler_starts", 0),
            ("lru_maintainer_juggles", 0),
            ("malloc_fails", 0),
            ("log_worker_dropped", 0),
            ("log_worker_written", 0),
            ("log_watcher_skipped", 0),
            ("log_watcher_sent", 0),
            ("log_watchers", 0),
            ("unexpected_napi_ids", 0),
            ("round_robin_fallback", 0),
            ("bytes", shot.bytes),
            ("curr_items", shot.items),
            ("total_items", store.counted(Counter::TotalItems)),
            ("slab_global_page_pool", shot.idle as u64),
            ("expired_unfetched", class(Class::ExpiredUnfetched)),
            ("evicted_unfetched", class(Class::EvictedUnfetched)),
            ("evicted_active", 0),
            ("evictions", class(Class::Evicted)),
            ("reclaimed", class(Class::Reclaimed)),
            ("crawler_reclaimed", 0),
            ("crawler_items_checked", store.counted(Counter::Checked)),
            ("lrutail_reflocked", 0),
            ("moves_to_cold", 0),
            ("moves_to_warm", 0),
            ("moves_within_lru", 0),
            ("direct_reclaims", store.counted(Counter::Waits)),
            ("lru_bumps_dropped", 0),
        ]);
        lines.words(&[("hippos_version", self.settings.version)]);
        lines.numbers(&[
            (
                "hippos_udp_fast_commands",
                self.tallied(Tally::FastCommands),
            ),
            (
                "hippos_udp_fast_datagrams",
                self.tallied(Tally::FastDatagrams),
            ),
            ("hippos_udp_commands", self.tallied(Tally::UdpCommands)),
            ("hippos_udp_datagrams", self.tallied(Tally::UdpDatagrams)),
            ("hippos_udp_invalid", self.tallied(Tally::UdpInvalid)),
            ("hippos_udp_too_large", self.tallied(Tally::UdpTooLarge)),
            ("hippos_udp_refused", self.tallied(Tally::UdpRefused)),
            ("hippos_udp_limited", self.tallied(Tally::UdpLimited)),
            ("hippos_admin_refused", self.tallied(Tally::AdminRefused)),
            ("hippos_tcp_refused", self.tallied(Tally::TcpRefused)),
            ("hippos_xdp_served", host.xdp_served),
            ("hippos_xdp_passed", host.xdp_passed),
            ("hippos_tcp_commands", self.tallied(Tally::TcpCommands)),
            ("hippos_upload_bytes", self.uploads.bytes()),
            (
                "hippos_uploads_timed_out",
                self.tallied(Tally::UploadsTimedOut),
            ),
            ("hippos_memory_most", self.memory_most()),
            ("hippos_memory_allowed", shot.allowed as u64),
            ("hippos_memory_shortages", store.counted(Counter::Shortages)),
            ("hippos_memory_held", shot.held as u64),
            ("hippos_memory_tables", shot.tables as u64),
            ("hippos_index_buckets", shot.buckets as u64),
            (
                "hippos_overflow_bytes",
                shot.overflow.saturating_mul(shot.block) as u64,
            ),
            ("hippos_retired_items", shot.retired as u64),
            ("hippos_retired_bytes", shot.retired_bytes),
            ("hippos_pinned_items", shot.pinned as u64),
            ("hippos_hand_swept", store.counted(Counter::Swept)),
            ("hippos_writer_waits", store.counted(Counter::Waits)),
            ("hippos_index_splits", store.counted(Counter::Splits)),
            ("hippos_index_merges", store.counted(Counter::Merges)),
        ]);
        list_ways(lines, self.facts);
        if let Some(steering) = host.steering {
            lines.numbers(&[
                ("hippos_steered", u64::from(steering.steered)),
                ("hippos_steering_changes", steering.changes),
                ("hippos_polling_load", u64::from(steering.load)),
            ]);
            match steering.polling {
                Some(cpu) => lines.number("hippos_polling_cpu", cpu),
                None => lines.words(&[("hippos_polling_cpu", "none")]),
            }
        }
    }

    pub(super) fn stats_settings(&self, lines: &mut Lines<'_, impl Out>) {
        let settings = &self.settings;
        let administration = self.administration();
        let shot = self.store.snapshot();
        let config = self.store.config();
        let factor = u64::from(config.factor);
        lines.numbers(&[
            ("maxbytes", shot.limit as u64),
            ("maxconns", u64::from(settings.max_connections)),
            ("tcpport", u64::from(settings.tcp_port)),
            ("udpport", u64::from(settings.udp_port)),
        ]);
        lines.words(&[("inter", settings.interface)]);
        lines.number("verbosity", self.verbosity());
        lines.number("oldest", 0u64);
        lines.words(&[
            ("evictions", "on"),
            ("domain_socket", "NULL"),
            ("umask", "700"),
            ("shutdown_command", "no"),
        ]);
        lines.stat(
            "growth_factor",
            format_args!("{}.{:02}", factor / 100, factor % 100),
        );
        lines.numbers(&[
            ("chunk_size", config.item_min as u64),
            ("num_threads", u64::from(settings.threads)),
            ("num_threads_per_udp", 1),
        ]);
        lines.words(&[
            ("stat_key_prefix", ":"),
            ("detail_enabled", on(self.detail())),
        ]);
        lines.number("reqs_per_event", 20u64);
        lines.words(&[("cas_enabled", "yes")]);
        lines.number("tcp_backlog", settings.backlog);
        lines.words(&[
            ("binding_protocol", "auto-negotiate"),
            ("auth_enabled_sasl", "no"),
            ("auth_enabled_ascii", on(self.authentication())),
        ]);
        lines.number("item_size_max", self.store.item_max());
        lines.words(&[("maxconns_fast", "yes")]);
        lines.number("hashpower_init", 0u64);
        lines.words(&[("slab_reassign", "yes")]);
        lines.number("slab_automove", 1u64);
        lines.words(&[("slab_automove_ratio", "0.80")]);
        lines.number("slab_automove_window", 10u64);
        lines.number("slab_chunk_max", self.store.item_max());
        lines.words(&[("lru_crawler", on(self.crawler()))]);
        lines.numbers(&[
            ("lru_crawler_sleep", 100),
            ("lru_crawler_tocrawl", 0),
            ("tail_repair_time", 0),
        ]);
        lines.words(&[
            ("flush_enabled", on(administration != Administration::Off)),
            ("dump_enabled", on(administration != Administration::Off)),
            ("hash_algorithm", "folded"),
            ("lru_maintainer_thread", "no"),
            ("lru_segmented", "no"),
        ]);
        lines.numbers(&[("hot_lru_pct", 0), ("warm_lru_pct", 0)]);
        lines.words(&[
            ("hot_max_factor", "0.00"),
            ("warm_max_factor", "0.00"),
            ("temp_lru", "no"),
        ]);
        lines.numbers(&[
            ("temporary_ttl", 61),
            ("idle_timeout", 0),
            ("watcher_logbuf_size", 0),
            ("worker_logbuf_size", 0),
            ("read_buf_mem_limit", 0),
        ]);
        lines.words(&[("track_sizes", "no"), ("inline_ascii_response", "no")]);
        // No flash, TLS or proxy: as a memcached tells that has them off.
        lines.numbers(&[
            ("ext_item_size", 512),
            ("ext_item_age", u64::from(u32::MAX)),
            ("ext_low_ttl", 0),
            ("ext_recache_rate", 2000),
            ("ext_wbuf_size", 4 << 20),
            ("ext_compact_under", 0),
            ("ext_drop_under", 0),
            ("ext_max_sleep", 1_000_000),
        ]);
        lines.words(&[
            ("ext_max_frag", "0.80"),
            ("slab_automove_freeratio", "0.010"),
            ("ext_drop_unread", "no"),
            ("ssl_enabled", "no"),
            ("ssl_chain_cert", "(null)"),
            ("ssl_key", "(null)"),
            ("ssl_verify_mode", "0"),
            ("ssl_keyformat", "1"),
            ("ssl_ciphers", "NULL"),
            ("ssl_ca_cert", "NULL"),
            ("ssl_wbuf_size", "16384"),
            ("ssl_session_cache", "no"),
            ("ssl_kernel_tls", "no"),
            ("ssl_min_version", "tlsv1.2"),
            ("proxy_enabled", "no"),
            ("proxy_uring_enabled", "no"),
            ("num_napi_ids", "(null)"),
            ("memory_file", "(null)"),
        ]);
        lines.number("client_flags_size", 4u64);
        let eviction = match config.eviction {
            Eviction::Clock => "clock",
            Eviction::Sieve => "sieve",
            Eviction::S3Fifo => "s3fifo",
        };
        lines.words(&[
            ("hippos_eviction", eviction),
            ("hippos_admin", administration.name()),
        ]);
        lines.number("hippos_udp_bytes", self.udp_bytes());
        lines.number("hippos_udp_fast_bytes", self.fast_bytes());
        self.facts
            .settings(&mut |name, value| lines.stat(name, value));
    }

    pub(super) fn stats_items(&self, lines: &mut Lines<'_, impl Out>) {
        let store = &self.store;
        for index in 0..usize::MAX {
            let Some(shot) = store.class(index) else {
                break;
            };
            if shot.items == 0 {
                continue;
            }
            let class = |counter| store.class_counted(index, counter);
            let get_hits = class(Class::GetHits);
            for (name, value) in [
                ("number", shot.items),
                ("number_hot", 0),
                ("number_warm", 0),
                ("number_cold", shot.items),
                ("age_hot", 0),
                ("age_warm", 0),
                ("age", u64::from(shot.evicted_age)),
                ("mem_requested", shot.bytes),
                ("evicted", class(Class::Evicted)),
                ("evicted_nonzero", class(Class::EvictedNonzero)),
                ("evicted_time", u64::from(shot.evicted_age)),
                ("outofmemory", class(Class::OutOfMemory)),
                ("tailrepairs", 0),
                ("reclaimed", class(Class::Reclaimed)),
                ("expired_unfetched", class(Class::ExpiredUnfetched)),
                ("evicted_unfetched", class(Class::EvictedUnfetched)),
                ("evicted_active", 0),
                ("crawler_reclaimed", 0),
                ("crawler_items_checked", 0),
                ("lrutail_reflocked", 0),
                ("moves_to_cold", 0),
                ("moves_to_warm", 0),
                ("moves_within_lru", 0),
                ("direct_reclaims", 0),
                ("hits_to_hot", 0),
                ("hits_to_warm", 0),
                ("hits_to_cold", get_hits),
                ("hits_to_temp", 0),
            ] {
                let number = index.saturating_add(1);
                lines.put(
                    format_args!("items:{number}:{name}"),
                    format_args!("{value}"),
                );
            }
        }
    }

    pub(super) fn stats_slabs(&self, lines: &mut Lines<'_, impl Out>) {
        let store = &self.store;
        let block = store.snapshot().block as u64;
        let mut active = 0u64;
        let mut slabs = 0u64;
        for index in 0..usize::MAX {
            let Some(shot) = store.class(index) else {
                break;
            };
            if shot.slabs == 0 {
                continue;
            }
            active = active.wrapping_add(1);
            slabs = slabs.wrapping_add(u64::from(shot.slabs));
            let class = |counter| store.class_counted(index, counter);
            let used = shot.slots.saturating_sub(shot.free);
            for (name, value) in [
                ("chunk_size", shot.size as u64),
                ("chunks_per_page", u64::from(shot.per_slab)),
                ("total_pages", u64::from(shot.slabs)),
                ("total_chunks", u64::from(shot.slots)),
                ("used_chunks", u64::from(used)),
                ("free_chunks", u64::from(shot.free)),
                ("free_chunks_end", 0),
                ("get_hits", class(Class::GetHits)),
                ("cmd_set", class(Class::CmdSet)),
                ("delete_hits", class(Class::DeleteHits)),
                ("incr_hits", class(Class::IncrHits)),
                ("decr_hits", class(Class::DecrHits)),
                ("cas_hits", class(Class::CasHits)),
                ("cas_badval", class(Class::CasBadval)),
                ("touch_hits", class(Class::TouchHits)),
                ("hippos_retired", u64::from(shot.retired)),
                ("hippos_reserve", u64::from(shot.reserve)),
            ] {
                let number = index.saturating_add(1);
                lines.put(format_args!("{number}:{name}"), format_args!("{value}"));
            }
        }
        lines.number("active_slabs", active);
        lines.number("total_malloced", slabs.wrapping_mul(block));
    }

    pub(super) fn stats_detail(&self, lines: &mut Lines<'_, impl Out>) {
        const NAME: &[u8] = b"detailed";
        for told in self.settings.prefixes.all() {
            let mut buffer = [0; 160];
            let mut line = Cursor::new(&mut buffer);
            line.put(b"PREFIX ");
            line.put(told.name());
            for (name, count) in [" get ", " hit ", " set ", " del "].iter().zip(told.counts) {
                line.put(name.as_bytes());
                line.put_decimal(count);
            }
            line.put(reply::CRLF);
            lines.line(NAME, line.as_bytes());
        }
        if lines.request.is_some() {
            lines.line(NAME, reply::END);
        }
    }

    pub(super) fn stats_connections(&self, lines: &mut Lines<'_, impl Out>) {
        for index in 0..usize::MAX {
            let Some(socket) = self.facts.socket(index) else {
                break;
            };
            let id = socket.id;
            let kind = if socket.udp { "udp" } else { "tcp" };
            if socket.udp {
                lines.put(format_args!("{id}:UDP"), format_args!("UDP"));
            }
            lines.put(
                format_args!("{id}:addr"),
                format_args!("{kind}:{}", socket.address),
            );
            if let Some(listen) = socket.listen {
                lines.put(
                    format_args!("{id}:listen_addr"),
                    format_args!("{kind}:{listen}"),
                );
            }
            lines.put(format_args!("{id}:state"), format_args!("{}", socket.state));
            lines.put(
                format_args!("{id}:secs_since_last_cmd"),
                format_args!("{}", socket.idle),
            );
        }
    }
}

/// Out of line: the rest takes what a function may have of the stack.
#[inline(never)]
fn list_ways(lines: &mut Lines<'_, impl Out>, facts: &dyn Facts) {
    let Some(ways) = facts.ways() else {
        return;
    };
    let [hook_ipv4, hook_ipv6] = ways.hook;
    let [xdp_ipv4, xdp_ipv6] = ways.xdp;
    lines.words(&[
        ("hippos_hook_ipv4", hook_ipv4),
        ("hippos_hook_ipv6", hook_ipv6),
        ("hippos_xdp_ipv4", xdp_ipv4),
        ("hippos_xdp_ipv6", xdp_ipv6),
    ]);
    lines.numbers(&[
        ("hippos_route_lookups", ways.looked),
        ("hippos_route_elsewhere", ways.elsewhere),
        ("hippos_route_limited", ways.limited),
    ]);
}
