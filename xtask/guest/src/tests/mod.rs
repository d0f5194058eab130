//! The tests that run inside the guest.
//!
//! To add one: write `pub(super) fn name() -> anyhow::Result<()>` in the file of
//! its theme and name it below. It runs in a process of its own, as root, with
//! the module not loaded; it must leave the guest as it found it. Panics and
//! errors fail it, and so does whatever the kernel complains of meanwhile.

mod consistency;
mod module;
mod packet;
mod planted;
mod protocol;
mod tcp;

use std::process::ExitCode;

use anyhow::Result;

/// One test.
pub(crate) struct Test {
    /// `theme::name`; what begins with `planted::` is meant to fail.
    pub(crate) name: &'static str,
    run: fn() -> Result<()>,
}

/// Lists the tests of each theme's file.
macro_rules! tests {
    ($($theme:ident: $($name:ident),+;)+) => {
        /// Every test, in the order in which they run.
        pub(crate) const TESTS: &[Test] = &[
            $($(Test {
                name: concat!(stringify!($theme), "::", stringify!($name)),
                run: $theme::$name,
            },)+)+
        ];
    };
}

tests! {
    module: loads_and_unloads, bad_parameters, port_in_use, without_udp, connection_limit, device,
        control, worker_counts,
        unloads_under_load;
    packet: veth, loopback, forwarded, namespaces, segmented, fragmented, vlan, bridged,
        long_replies, small_mtu, tapped, headers, unanswered, left_to_the_socket, partial_checksum, allowed;
    tcp: short_connections, pipelines, large_values, silent_readers, memory_limit;
    protocol: table;
    consistency: histories;
    planted: crash, warning, failure;
}

/// Runs the test of that name.
pub(crate) fn run(name: &str) -> ExitCode {
    let Some(test) = TESTS.iter().find(|test| test.name == name) else {
        eprintln!("no test {name}");
        return ExitCode::FAILURE;
    };
    match (test.run)() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
