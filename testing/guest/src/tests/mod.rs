// SPDX-License-Identifier: GPL-2.0-only
//! The tests that run inside the guest.
//!
//! To add one: write `pub(super) fn name() -> anyhow::Result<()>` in the file of
//! its theme and name it below. It runs in a process of its own, as root, with
//! the module not loaded; it must leave the guest as it found it. Panics and
//! errors fail it, and so does whatever the kernel complains of meanwhile. The
//! themes `planted` and `defect` are meant to fail, the latter on the debug
//! kernel alone; `soak` runs when it is asked for by its own command.

mod changes;
mod consistency;
mod defect;
mod faults;
mod firewall;
mod fuzz;
mod latency;
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
    /// `theme::name`; what begins with `planted::` is meant to fail.
    pub(crate) name: &'static str,
    run: Run,
}

enum Run {
    Plain(fn() -> Result<()>),
    /// Takes arguments, none of which need be there.
    Sized(fn(&[String]) -> Result<()>),
}

/// Lists the tests of each theme's file; those behind a slash take arguments.
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
    smoke: serves;
    module: loads_and_unloads, bad_parameters, parameters, port_in_use, without_udp, connection_limit, device,
        control, limits, login, worker_counts, selftest, verified, lower_limit,
        unloads_under_load, unload_waits_once_at_each_place;
    packet: veth, loopback, forwarded, namespaces, segmented, fragmented, vlan, bridged, ipsec,
        long_replies, small_mtu, tapped, transmit, headers, unanswered, left_to_the_socket, reasons, partial_checksum, allowed,
        rate_limited, one_interface;
    tcp: short_connections, pipelines, replies_leave_before_silent_commands, large_values, silent_readers,
        memory_limit, fin_retransmitted_after_unload;
    watch: receive_paths, slow_watchers;
    latency: paths, from_the_start, switched_under_load;
    trace: requests, refusals, items, steering, unloads_while_traced;
    steer: one_queue, moved_card;
    xdp: modes, life, hidden_tags, refusals, several;
    protocol: table, counts, fast_share;
    consistency: framing / histories;
    routes: table, interfaces, rules_below_ip, counters, lookups_bounded;
    firewall: late, late_xdp, assigned, service_of_pod, rules_for_input, path_states_shown_alike;
    changes: stale, under_load, interface, neighbours_of_no_client, in_another_namespace;
    topologies: / random;
    faults: link_down, mtu, address, card_removed, namespace_removed, cpu_offline, memory_pressure,
        allocations / failing_start;
    operator: refusals, refused_clients, administration, clock, threads_and_interface, statuses, configuration, parameters_as_loaded, warm, looks, prints, connections;
    outage: full_class, refused_subnet, one_queue, never_reading, stale_module;
    overload: idle_connections, never_reading, short_replies_never_read, never_finishing, half_open, large_at_once,
        endless_lines, slow_link;
    pressure: limits, unfinished_values, other_connections_served_while_writer_waits, costly_pipelines, memory_shortage, unload_under_memory_pressure;
    fuzz: / packets, streams;
    soak: / run_for;
    planted: crash, warning, failure;
    defect: use_after_free, freed_pages, sleep_in_softirq, sleep_under_rcu, unguarded, unsafe_lock,
        lock_order, freed_timer, leak;
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
