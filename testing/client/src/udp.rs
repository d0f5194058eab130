// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Datagrams, each behind a frame of eight bytes: request id, sequence number, number of datagrams of the
//! message, zero; each two bytes, big endian.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use crate::{LIMIT, PORT};

/// Bytes of a frame.
pub const FRAME: usize = 8;
/// Most bytes of a datagram that a server sends.
pub const DATAGRAM: usize = 1400;

/// How long to listen for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// A socket for datagrams to this address and from it.
pub fn socket(address: SocketAddr) -> Result<UdpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.connect(address)?;
    Ok(socket)
}

/// A socket for datagrams to one server.
#[derive(Debug)]
pub struct Udp {
    /// Where they go out and come in.
    pub socket: UdpSocket,
    limit: Duration,
    id: u16,
}

impl Udp {
    /// A socket for memcached's port of a host.
    pub fn connect(host: &str) -> Result<Self> {
        Self::to(SocketAddr::new(host.parse()?, PORT), LIMIT)
    }

    /// A socket for this address. So long a datagram may take.
    pub fn to(address: SocketAddr, limit: Duration) -> Result<Self> {
        let socket = socket(address)?;
        socket.set_read_timeout(Some(limit))?;
        Ok(Self {
            socket,
            limit,
            id: 1000,
        })
    }

    /// Sends a request in a frame of its own; returns the frame's number.
    pub fn send(&mut self, request: &[u8]) -> Result<u16> {
        self.id = self.id.wrapping_add(1);
        self.socket.send(&framed(self.id, request))?;
        Ok(self.id)
    }

    /// All of one reply.
    pub fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        let id = self.send(request)?;
        self.reply(id)
    }

    /// The reply to a request that was sent, from as many datagrams as it has.
    pub fn reply(&mut self, id: u16) -> Result<Vec<u8>> {
        let mut datagram = [0; 65536];
        let mut reply = Vec::new();
        let mut sequence = 0;
        loop {
            let length = self.socket.recv(&mut datagram).context("no reply")?;
            let total = check(&datagram[..length], id, sequence)?;
            reply.extend_from_slice(&datagram[FRAME..length]);
            sequence += 1;
            if sequence == total {
                return Ok(reply);
            }
        }
    }

    /// Sends a request, to which no answer may come.
    pub fn silence(&mut self, request: &[u8]) -> Result<()> {
        self.send(request)?;
        self.socket.set_read_timeout(Some(SILENCE))?;
        let mut datagram = [0; 2048];
        let result = self.socket.recv(&mut datagram);
        self.socket.set_read_timeout(Some(self.limit))?;
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
pub fn framed(id: u16, request: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    [&[high, low, 0, 0, 0, 1, 0, 0], request].concat()
}

/// Checks a reply datagram's frame and length; gives the number of datagrams.
pub fn check(datagram: &[u8], id: u16, sequence: u16) -> Result<u16> {
    let length = datagram.len();
    ensure!(
        length > FRAME && length <= DATAGRAM,
        "{length} bytes of reply"
    );
    let word = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
    let frame = (word(0), word(2), word(6));
    ensure!(
        frame == (id, sequence, 0),
        "frame {frame:?}, not {:?}",
        (id, sequence, 0)
    );
    Ok(word(4))
}
