// SPDX-License-Identifier: GPL-2.0-only
//! The least of a memcached client, for tests that look at packets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

/// memcached's port.
pub(crate) const PORT: u16 = 11211;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How long it may take where a loaded machine is no reason to give up.
const TIMEOUT: Duration = Duration::from_secs(90);

/// How long to listen for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// A connection.
pub(crate) struct Tcp {
    input: BufReader<TcpStream>,
}

impl Tcp {
    pub(crate) fn connect(host: &str) -> Result<Self> {
        let address = SocketAddr::new(host.parse::<IpAddr>()?, PORT);
        let stream = TcpStream::connect_timeout(&address, LIMIT)
            .with_context(|| format!("no connection to {address}"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        // Or a value that fills the socket of a peer that is gone waits for TCP to give up: 15 minutes.
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Tcp {
            input: BufReader::new(stream),
        })
    }

    /// A connection for a look at a guest that may be far behind.
    pub(crate) fn patient(host: &str) -> Result<Self> {
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

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.input.get_mut().write_all(bytes)?)
    }

    /// Waits so long for an answer, or for the server to take a request.
    pub(crate) fn timeout(&mut self, limit: Duration) -> Result<()> {
        self.input.get_ref().set_write_timeout(Some(limit))?;
        Ok(self.input.get_ref().set_read_timeout(Some(limit))?)
    }

    /// The next line, its end included.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.input.read_line(&mut line)?;
        Ok(line)
    }

    /// As many bytes as the buffer holds.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        Ok(self.input.read_exact(buffer)?)
    }

    /// What is left until the server closes.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.input.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let mut request = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
        self.send(&request)?;
        let line = self.line()?;
        ensure!(line == "STORED\r\n", "set {key}: {line:?}");
        Ok(())
    }

    /// The value of one line of `stats`.
    pub(crate) fn stat(&mut self, name: &str) -> Result<u64> {
        self.stat_of("", name)
    }

    /// The value of one line of `stats SECTION`.
    pub(crate) fn stat_of(&mut self, section: &str, name: &str) -> Result<u64> {
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

/// A socket for datagrams to one server.
pub(crate) struct Udp {
    pub(crate) socket: UdpSocket,
    id: u16,
}

impl Udp {
    pub(crate) fn connect(host: &str) -> Result<Self> {
        let socket = UdpSocket::bind(if host.contains(':') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        })?;
        socket.connect(SocketAddr::new(host.parse::<IpAddr>()?, PORT))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Udp { socket, id: 1000 })
    }

    /// Sends a request in a frame of its own; gives the frame's number.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<u16> {
        self.id = self.id.wrapping_add(1);
        self.socket.send(&framed(self.id, request))?;
        Ok(self.id)
    }

    /// All of one reply.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        let id = self.send(request)?;
        self.reply(id)
    }

    /// The reply to a request that was sent, from as many datagrams as it has.
    pub(crate) fn reply(&mut self, id: u16) -> Result<Vec<u8>> {
        let mut datagram = [0; 65536];
        let mut reply = Vec::new();
        let mut sequence = 0;
        loop {
            let length = self.socket.recv(&mut datagram).context("no reply")?;
            let total = check(&datagram[..length], id, sequence)?;
            reply.extend_from_slice(&datagram[8..length]);
            sequence += 1;
            if sequence == total {
                return Ok(reply);
            }
        }
    }

    /// Sees that nothing comes back.
    pub(crate) fn silence(&mut self, request: &[u8]) -> Result<()> {
        self.send(request)?;
        self.socket.set_read_timeout(Some(SILENCE))?;
        let mut datagram = [0; 2048];
        let result = self.socket.recv(&mut datagram);
        self.socket.set_read_timeout(Some(LIMIT))?;
        match result {
            Ok(length) => bail!(
                "an answer where none may be: {:?}",
                String::from_utf8_lossy(&datagram[..length])
            ),
            Err(_) => Ok(()),
        }
    }
}

/// A request behind its frame.
pub(crate) fn framed(id: u16, request: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut datagram = vec![high, low, 0, 0, 0, 1, 0, 0];
    datagram.extend_from_slice(request);
    datagram
}

/// Checks a reply datagram's frame and length; gives the number of datagrams.
pub(crate) fn check(datagram: &[u8], id: u16, sequence: u16) -> Result<u16> {
    ensure!(datagram.len() > 8, "{} bytes of reply", datagram.len());
    ensure!(datagram.len() <= 1400, "{} bytes of reply", datagram.len());
    let word = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
    let frame = (word(0), word(2), word(6));
    ensure!(
        frame == (id, sequence, 0),
        "frame {frame:?}, not {:?}",
        (id, sequence, 0)
    );
    Ok(word(4))
}
