// SPDX-License-Identifier: GPL-2.0-only
//! Whether a memcached answers: the question that `version` is.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{ensure, Context, Result};

const LIMIT: Duration = Duration::from_secs(2);

/// `version` over TCP and over UDP.
pub(crate) fn answers(address: SocketAddr) -> Result<()> {
    tcp(address).context("no answer over TCP")?;
    udp(address).context("no answer over UDP")
}

fn tcp(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"version\r\n")?;
    let mut answer = Vec::new();
    let mut part = [0; 64];
    while !answer.ends_with(b"\r\n") {
        let length = stream.read(&mut part)?;
        ensure!(length > 0, "closed");
        answer.extend_from_slice(&part[..length]);
    }
    check(&answer)
}

fn udp(address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(address)?;
    socket.send(b"\x12\x34\0\0\0\x01\0\0version\r\n")?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    let text = answer[..length].strip_prefix(b"\x12\x34\0\0\0\x01\0\0");
    check(text.context("not an answer to our datagram")?)
}

fn check(answer: &[u8]) -> Result<()> {
    ensure!(
        answer.starts_with(b"VERSION "),
        "{:?}",
        String::from_utf8_lossy(answer)
    );
    Ok(())
}
