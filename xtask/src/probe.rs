// SPDX-License-Identifier: GPL-2.0-only
//! Whether a memcached answers: the question that `version` is.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use hippos_client::{Tcp, Udp};

const LIMIT: Duration = Duration::from_secs(2);

/// `version` over TCP and over UDP.
pub(crate) fn answers(address: SocketAddr) -> Result<()> {
    let tcp = || check(&Tcp::to(address, LIMIT)?.ask("version\r\n")?);
    let udp = || {
        let answer = Udp::to(address, LIMIT)?.ask(b"version\r\n")?;
        check(&String::from_utf8_lossy(&answer))
    };
    tcp().context("no answer over TCP")?;
    udp().context("no answer over UDP")
}

fn check(answer: &str) -> Result<()> {
    ensure!(answer.starts_with("VERSION "), "{answer:?}");
    Ok(())
}
