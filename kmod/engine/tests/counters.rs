// SPDX-License-Identifier: GPL-2.0-only
//! The counters of each command, compared with the matrix that was recorded from memcached: the example server over
//! host sockets, and memcached itself if `HIPPOS_MEMCACHED` contains the command that starts it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

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
    let Ok(command) = std::env::var("HIPPOS_MEMCACHED") else {
        println!("skipped: HIPPOS_MEMCACHED is not set");
        return Ok(());
    };
    let mut words = command.split_whitespace();
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let port = address.port().to_string();
    let _server = Process::from(
        Command::new(words.next().unwrap_or_default())
            .args(words)
            .args(["-l", "127.0.0.1", "-p", &port, "-U", &port, "-t", "1"])
            .args(["-u", "root", "-o", "no_lru_crawler,no_lru_maintainer"])
            .stderr(Stdio::null())
            .spawn()?,
    );
    for _ in 0..100 {
        if TcpStream::connect(address).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let report = counters::compare(&target(address), "", counters::Server::Memcached)?;
    assert!(report.failures.is_empty(), "{report}");
    Ok(())
}
