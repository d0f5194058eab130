// SPDX-License-Identifier: GPL-2.0-only
//! The counters of each command, compared with the matrix that was recorded from memcached: the example server over
//! host sockets, and memcached itself if `HIPPOS_MEMCACHED` contains the command that starts it.

use std::net::SocketAddr;

use hippos_conformance::{counters, Target};
use hippos_process::Process;

fn target(address: SocketAddr) -> Target {
    Target {
        tcp: address,
        udp: Some(address),
    }
}

#[test]
fn commands_count_as_in_memcached() -> anyhow::Result<()> {
    let server = Process::engine(&["--port", "0"]);
    let report = counters::compare(&target(server.address()), "", counters::Server::Engine)?;
    assert!(report.failures.is_empty(), "{report}");
    Ok(())
}

#[test]
fn memcached_counts_as_recorded() -> anyhow::Result<()> {
    let arguments = ["-t", "1", "-o", "no_lru_crawler,no_lru_maintainer"];
    let Some((_server, address)) = Process::memcached(&arguments) else {
        return Ok(());
    };
    let report = counters::compare(&target(address), "", counters::Server::Memcached)?;
    assert!(report.failures.is_empty(), "{report}");
    Ok(())
}
