// SPDX-License-Identifier: GPL-2.0-only
//! What commands count, by the matrix that was recorded from memcached: the example server over
//! host sockets, and memcached itself where `HIPPOS_MEMCACHED` holds the command that starts it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hippos_conformance::{counters, Target};

/// A server, ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn target(address: SocketAddr) -> Target {
    Target {
        tcp: address,
        udp: Some(address),
    }
}

#[test]
fn commands_count_as_in_memcached() -> anyhow::Result<()> {
    // Without `--all-targets` nobody has built it.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "hippos_engine"])
        .args(["--example", "server"])
        .status()?;
    anyhow::ensure!(built.success(), "the example server does not build");
    let tests = std::env::current_exe()?;
    let program = tests
        .ancestors()
        .nth(2)
        .map(|dir| dir.join("examples/server"));
    let program = program.ok_or_else(|| anyhow::anyhow!("{}", tests.display()))?;
    let mut server = Server(
        Command::new(program)
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut line = String::new();
    if let Some(out) = server.0.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    let address = line.split(' ').nth(3).unwrap_or_default().parse()?;
    let report = counters::compare(&target(address), "", counters::Server::Engine)?;
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
    let _server = Server(
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
