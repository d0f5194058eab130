// SPDX-License-Identifier: GPL-2.0-only
//! The tests that run inside the guest.
//!
//! To add one: write `pub(super) fn name() -> anyhow::Result<()>` in the file of
//! its theme and name it below; the name states the behaviour that it checks. It
//! runs in a process of its own, as root, with the module not loaded; it must
//! leave the guest as it found it. Panics, errors and warnings of the kernel fail
//! it. The tests of the themes `planted` and `defect`, named by the fault that
//! they commit, must fail, the latter on the debug kernel alone; `soak` has a
//! command of its own, `boot_options` a guest.

mod boot_options;
mod changes;
mod consistency;
mod defect;
mod dumps;
mod faults;
mod firewall;
mod fuzz;
mod latency;
mod live;
mod module;
mod operator;
mod outage;
mod overload;
mod packet;
mod planted;
mod pressure;
mod protocol;
mod routes;
mod smoke;
mod soak;
mod steer;
mod tcp;
mod topologies;
mod trace;
mod watch;
mod xdp;

use std::process::ExitCode;

use anyhow::Result;

/// One test.
pub(crate) struct Test {
    /// `theme::behaviour`; a test of `planted` or `defect` must fail.
    pub(crate) name: &'static str,
    run: Run,
}

enum Run {
    Plain(fn() -> Result<()>),
    /// Takes arguments, all of them optional.
    Sized(fn(&[String]) -> Result<()>),
}

/// Lists the tests of each theme's file; the tests behind a slash take arguments.
macro_rules! tests {
    ($($theme:ident: $($name:ident),* $(/ $($sized:ident),+)?;)+) => {
        /// Every test, in the order in which they run.
        pub(crate) const TESTS: &[Test] = &[
            $($(Test {
                name: concat!(stringify!($theme), "::", stringify!($name)),
                run: Run::Plain($theme::$name),
            },)*
            $($(Test {
                name: concat!(stringify!($theme), "::", stringify!($sized)),
                run: Run::Sized($theme::$sized),
            },)+)?)+
        ];
    };
}

tests! {
    smoke:
        serves_tcp_and_udp;
    module:
        loads_and_unloads,
        bad_parameters_are_refused,
        parameters_match_settings_and_modinfo,
        port_in_use_is_refused,
        udp_can_be_switched_off,
        connections_beyond_the_limit_are_refused,
        device_is_root_only_and_pins_the_module,
        hippos_ctl_shows_and_changes_state,
        udp_reply_limits_hold,
        login_is_required_once_users_are_set,
        fewer_and_more_workers_than_cpus_serve,
        selftest_passes_and_finds_a_planted_fault,
        verify_counts_items_on_the_debug_kernel,
        lower_limit_is_reached_by_eviction,
        unloads_under_load,
        unload_waits_once_at_each_place;
    packet:
        requests_over_veth_take_the_fast_path,
        requests_over_loopback_take_the_fast_path,
        packets_for_others_pass_unchanged,
        other_namespaces_keep_their_packets,
        each_gso_segment_is_answered,
        fragmented_requests_are_answered,
        requests_over_a_vlan_take_the_fast_path,
        requests_in_a_vrf_are_answered_by_the_socket,
        bridged_packets_pass_and_own_are_answered,
        ipsec_policy_blocks_requests,
        long_replies_arrive_whole,
        replies_beyond_the_mtu_leave_by_the_socket,
        tapped_requests_are_not_overwritten,
        replies_bypass_only_idle_queueing_disciplines,
        reply_headers_are_exact,
        malformed_and_foreign_packets_are_not_answered,
        unusual_packets_are_left_to_the_socket,
        each_pass_is_counted_by_its_reason,
        clients_of_a_resolved_neighbour_are_answered_in_place,
        partial_checksums_are_accepted,
        only_allowed_sources_are_answered,
        sources_beyond_their_rate_get_no_reply,
        dev_serves_one_interface_only;
    tcp:
        short_connections_are_served_and_closed,
        sockets_stay_out_of_socket_maps,
        pipelines_cut_anywhere_are_answered,
        replies_leave_before_silent_commands,
        large_values_return_whole,
        silent_readers_do_not_delay_others,
        writers_at_the_memory_limit_all_store,
        fin_retransmitted_after_unload;
    watch:
        each_receive_path_logs_its_events,
        slow_watchers_lose_lines_and_delay_no_client;
    latency:
        each_receive_path_counts_its_own_requests,
        parameter_measures_from_the_load_on,
        switches_and_resets_under_load;
    trace:
        requests_are_traced_by_each_receive_path,
        refusals_are_traced_with_their_reason,
        evictions_expiries_and_slab_moves_are_traced,
        steering_and_its_end_are_traced,
        unloads_while_traced;
    steer:
        packets_leave_a_busy_cpu_and_return,
        card_moved_to_another_namespace_is_restored;
    xdp:
        native_and_generic_programs_answer,
        module_outlives_its_attached_programs,
        frames_with_hidden_vlan_tags_are_not_answered,
        frames_of_a_bridge_are_not_answered,
        datagrams_pass_where_ipv6_is_off,
        attach_is_refused_with_a_reason,
        several_commands_in_a_frame_are_answered_or_passed_whole;
    boot_options:
        disabled_ipv6_leaves_ipv4_served,
        isolated_cpus_get_no_worker;
    protocol:
        recorded_cases_get_memcacheds_replies,
        counters_match_memcacheds,
        fast_and_worker_commands_are_counted_apart;
    consistency:
        replies_are_framed_beside_writes
        / histories_are_linearizable;
    routes:
        replies_take_the_sockets_route,
        replies_over_stacked_interfaces_take_the_sockets_route,
        rules_below_ip_hold_for_the_hook_only,
        counters_rise_as_a_sockets,
        lookups_are_bounded;
    firewall:
        late_answers_own_requests_behind_nat,
        late_keeps_xdp_closed_before_nat,
        requests_assigned_by_tproxy_reach_their_socket,
        requests_for_a_pod_reach_the_pod,
        input_rules_hold_as_documented,
        path_states_are_shown_alike;
    changes:
        next_reply_follows_a_change,
        replies_under_load_follow_changes,
        replies_follow_changes_of_an_interface,
        neighbours_of_no_client_keep_cached_routes,
        changes_in_another_namespace_cost_no_lookups;
    topologies:
        / replies_leave_alike_by_each_receive_path;
    faults:
        values_survive_link_down,
        values_survive_mtu_changes,
        values_survive_address_changes,
        values_survive_card_removal,
        values_survive_namespace_removal,
        values_and_affinity_survive_cpu_offline,
        values_survive_memory_pressure,
        values_survive_failing_allocations
        / start_survives_each_failing_allocation;
    operator:
        invalid_settings_are_refused_with_a_hint,
        refused_clients_are_logged_at_a_limited_rate,
        refused_datagrams_are_logged_at_a_limited_rate,
        admin_decides_who_may_administer,
        item_times_follow_a_clock_that_is_set,
        cpu_time_and_interface_are_shown,
        each_failure_has_its_exit_status,
        each_change_is_logged_with_its_user,
        changes_by_clients_are_logged_with_their_address,
        long_lines_are_logged_whole,
        limits_changed_at_the_same_time_are_all_kept,
        start_leaves_a_module_alone_that_another_start_loaded,
        configuration_is_in_force_before_the_first_client,
        sysfs_keeps_parameters_as_loaded,
        warm_restart_keeps_the_cache,
        status_doctor_keys_and_metrics_show_the_state,
        each_query_of_the_dashboard_finds_samples,
        dump_manuals_and_rates_are_printed,
        kill_closes_only_the_connections_asked_for;
    live:
        statistics_and_rates_are_printed_again_and_again,
        latency_of_each_interval_is_printed,
        top_shows_what_is_served_and_takes_keys,
        top_outlives_the_module_and_ends_by_signal;
    dumps:
        interrupted_dump_goes_on,
        whole_blocks_of_a_cut_dump_are_loaded,
        most_keys_are_listed;
    outage:
        uploads_that_fill_a_class_are_reported,
        refused_subnet_is_reported,
        one_queue_is_reported,
        slow_reader_is_reported,
        stale_module_is_reported;
    overload:
        idle_connections_do_not_delay_others,
        never_reading_clients_hold_bounded_memory,
        short_replies_never_read_hold_little_memory,
        medium_replies_never_read_hold_little_memory,
        never_finished_values_leave_others_served,
        half_open_connections_do_not_keep_the_module,
        large_values_at_once_return_whole,
        endless_lines_are_cut_off,
        reply_over_a_slow_link_is_cut_and_counted;
    pressure:
        memory_limit_is_bounded_by_machine_and_owner,
        unfinished_values_are_bounded_and_timed_out,
        other_connections_served_while_writer_waits,
        costly_pipelines_do_not_delay_others,
        cache_shrinks_before_the_kernel_kills,
        unloads_under_memory_pressure;
    fuzz:
        / packets_do_not_stop_the_server,
        streams_do_not_stop_the_server;
    soak:
        / run_for;
    planted:
        crash,
        warning,
        failure;
    defect:
        use_after_free,
        freed_pages,
        sleep_in_softirq,
        sleep_under_rcu,
        unguarded,
        unsafe_lock,
        lock_order,
        freed_timer,
        leak;
}

/// Runs the test of that name.
pub(crate) fn run(name: &str, arguments: &[String]) -> ExitCode {
    let Some(test) = TESTS.iter().find(|test| test.name == name) else {
        eprintln!("no test {name}");
        return ExitCode::FAILURE;
    };
    let result = match test.run {
        Run::Plain(run) => run(),
        Run::Sized(run) => run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
