// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! A connection, and the few commands by which tests prepare their items.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::{LIMIT, PORT};

/// The limit for an answer in tests that a loaded machine must not fail.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A connection that sends without delay, and waits at most `limit` for the server to take or send bytes.
pub fn stream(address: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, limit)
        .with_context(|| format!("no connection to {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    // Without it a send to a peer that has disappeared waits until TCP times out: 15 minutes.
    stream.set_write_timeout(Some(limit))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection, and the bytes that were read ahead.
#[derive(Debug)]
pub struct Tcp {
    input: BufReader<TcpStream>,
}

impl Tcp {
    /// A connection to memcached's port of a host.
    pub fn connect(host: &str) -> Result<Self> {
        Self::to(SocketAddr::new(host.parse()?, PORT), LIMIT)
    }

    /// A connection to this address. So long an answer may take.
    pub fn to(address: SocketAddr, limit: Duration) -> Result<Self> {
        let input = BufReader::new(stream(address, limit)?);
        Ok(Self { input })
    }

    /// A connection for a look at a machine that may be far behind.
    pub fn patient(host: &str) -> Result<Self> {
        let start = Instant::now();
        loop {
            match Self::connect(host) {
                Ok(mut tcp) => {
                    tcp.timeout(TIMEOUT)?;
                    return Ok(tcp);
                }
                Err(error) if start.elapsed() > TIMEOUT => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// The connection as a stream of bytes.
    pub fn reader(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.input
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.input.get_mut().write_all(bytes)?)
    }

    /// Waits so long for an answer, or for the server to take a request.
    pub fn timeout(&mut self, limit: Duration) -> Result<()> {
        self.input.get_ref().set_write_timeout(Some(limit))?;
        Ok(self.input.get_ref().set_read_timeout(Some(limit))?)
    }

    /// The next line, its end included; nothing where the server has closed.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.input.read_line(&mut line)?;
        Ok(line)
    }

    /// The line that answers a request.
    pub fn ask(&mut self, request: &str) -> Result<String> {
        self.send(request.as_bytes())?;
        self.line()
    }

    /// As many bytes as the buffer holds.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        Ok(self.input.read_exact(buffer)?)
    }

    /// The remaining bytes until the server closes.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.input.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Stores a value, for ever and without flags.
    pub fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let mut request = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
        self.send(&request)?;
        let line = self.line()?;
        ensure!(line == "STORED\r\n", "set {key}: {line:?}");
        Ok(())
    }

    /// The value of one line of `stats`.
    pub fn stat(&mut self, name: &str) -> Result<u64> {
        self.stat_of("", name)
    }

    /// The value of one line of `stats SECTION`.
    pub fn stat_of(&mut self, section: &str, name: &str) -> Result<u64> {
        self.send(format!("stats {section}\r\n").as_bytes())?;
        let mut found = None;
        loop {
            let line = self.line()?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["END"] => break,
                ["STAT", n, value] if n == name => found = Some(value.parse()?),
                ["STAT", ..] => {}
                _ => bail!("stats: {line:?}"),
            }
        }
        found.with_context(|| format!("stats has no {name}"))
    }
}
