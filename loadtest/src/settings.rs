// SPDX-License-Identifier: GPL-2.0-only
//! The connections to the servers, and the ways in which a run can fail.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

/// The transport of GETs; all other requests go over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// In datagrams with memcached's frame.
    Udp,
    /// On the connections.
    Tcp,
}

/// The protocol of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// `get`, `set`, `delete`.
    #[default]
    Classic,
    /// `mg`, `ms`, `md`.
    Meta,
    /// Packets of the binary protocol.
    Binary,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Endpoint {
    /// Address and port.
    Net(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Net(address) => address.fmt(f),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Endpoint::Net(address)
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Endpoint::Unix(path.into())),
            None => text.parse().map(Endpoint::Net),
        }
    }
}

/// Encryption of connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Trusted certificate authorities; without them any certificate is accepted.
    pub ca: Option<PathBuf>,
    /// Name in the server's certificate, if not its address.
    pub name: Option<String>,
}

/// User and password, as for memcached's `-Y`. Reports do not contain it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Password(String);

impl Password {
    /// From the user's name, a space or colon, and the password.
    pub fn new(text: &str) -> Self {
        Self(text.trim_end().replacen(':', " ", 1))
    }

    /// The text to be sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// One of several generators that share the keys of a workload or trace: number 1 to `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its number.
    pub number: u64,
    /// The number of parts.
    pub of: u64,
}

impl Default for Part {
    fn default() -> Self {
        Self { number: 1, of: 1 }
    }
}

impl std::str::FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('/')
            .and_then(|(n, m)| Some((n.parse().ok()?, m.parse().ok()?)));
        match parts {
            Some((number, of)) if number >= 1 && number <= of && of <= 1000 => {
                Ok(Self { number, of })
            }
            _ => Err(format!("{text:?} is no part: want N/M, from 1/M to M/M")),
        }
    }
}

impl Part {
    /// Whether a key belongs to this part.
    pub fn holds(&self, hash: u64) -> bool {
        self.of == 1 || crate::payload::mix(hash ^ 0x7061_7274) % self.of == self.number - 1
    }
}

/// The connections to the servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Keys are spread over these by their hash.
    pub servers: Vec<Endpoint>,
    /// Threads that generate load.
    pub threads: usize,
    /// UDP sockets of a thread for each server, and thus source ports.
    pub sockets: usize,
    /// TCP connections of a thread to each server.
    pub connections: usize,
    /// The transport of GETs.
    pub get: Transport,
    /// The protocol of requests.
    #[serde(default)]
    pub protocol: Protocol,
    /// The servers send every packet back (packet mirrors): only GETs, only UDP.
    pub mirror: bool,
    /// Requests of the same length that are due together are sent as one, to be segmented by the network card (UDP
    /// segmentation offload), and replies may be received that way.
    #[serde(default)]
    pub gso: bool,
    /// Nanoseconds after which a request is given up.
    pub timeout: u64,
    /// GETs whose values are longer than this together go over TCP.
    pub udp_max: u32,
    /// Store the value after a GET that misses, as a client in front of a database does.
    pub fill_on_miss: bool,
    /// Seeds the operations and their times.
    pub seed: u64,
    /// Whether values are verified.
    #[serde(default = "yes")]
    pub check: bool,
    /// Other programs write the same keys: an older value is not an error.
    #[serde(default)]
    pub shared: bool,
    /// The part of the keys that this generator uses.
    #[serde(default)]
    pub part: Part,
    /// The prefix of every key.
    #[serde(default)]
    pub prefix: String,
    /// Reconnect when a connection breaks, and count the requests on it as lost.
    #[serde(default)]
    pub reconnect: bool,
    /// Connections are encrypted.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Sent at the beginning of each connection.
    #[serde(skip)]
    pub password: Option<Password>,
}

fn yes() -> bool {
    true
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::from(([127, 0, 0, 1], 11211)).into()],
            threads: 1,
            sockets: 16,
            connections: 4,
            get: Transport::Udp,
            protocol: Protocol::Classic,
            mirror: false,
            gso: false,
            timeout: 1_000_000_000,
            udp_max: 16 << 10,
            fill_on_miss: false,
            seed: 1,
            check: true,
            shared: false,
            part: Part::default(),
            prefix: String::new(),
            reconnect: false,
            tls: None,
            password: None,
        }
    }
}

impl Settings {
    /// An error in the settings, if there is one.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.servers.is_empty(), "no server is named");
        ensure!(
            self.threads > 0 && self.threads <= 256,
            "threads: must be 1 to 256"
        );
        ensure!(
            self.sockets > 0 && self.sockets <= 4096,
            "sockets: must be 1 to 4096"
        );
        ensure!(
            self.connections > 0 && self.connections <= 4096,
            "connections: must be 1 to 4096"
        );
        ensure!(self.timeout > 0, "timeout: must not be 0");
        ensure!(
            !self.mirror || self.get == Transport::Udp,
            "a mirror answers UDP only"
        );
        let local = |server: &Endpoint| matches!(server, Endpoint::Unix(_));
        ensure!(
            self.get == Transport::Tcp || !self.servers.iter().any(local),
            "a Unix socket has no UDP: want --get tcp"
        );
        ensure!(
            self.get == Transport::Tcp || self.tls.is_none(),
            "TLS is for TCP: want --get tcp"
        );
        ensure!(
            cfg!(feature = "tls") || self.tls.is_none(),
            "this hippos-load has no TLS: build it with --features tls"
        );
        ensure!(
            self.password.is_none() || self.protocol != Protocol::Binary,
            "a password is sent in text (memcached -Y): no --protocol binary"
        );
        ensure!(
            self.prefix.len() <= 128 && self.prefix.bytes().all(|b| b.is_ascii_graphic()),
            "prefix: at most 128 bytes, without spaces and control characters"
        );
        Ok(())
    }
}

/// Parses `host:port`, `host:first-last` (one server per port), and several of these separated by commas. `unix:PATH`
/// or an absolute path is a Unix socket.
pub fn servers(text: &str) -> Result<Vec<Endpoint>> {
    let mut servers = Vec::new();
    for part in text.split(',') {
        if part.starts_with("unix:") || part.starts_with('/') {
            let path = part.strip_prefix("unix:").unwrap_or(part);
            servers.push(Endpoint::Unix(path.into()));
            continue;
        }
        let Some((host, ports)) = part.rsplit_once(':') else {
            bail!("server {part}: want host:port");
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| {
            text.parse::<u16>()
                .with_context(|| format!("server {part}: {text} is no port"))
        };
        let (first, last) = (port(first)?, port(last)?);
        ensure!(
            first <= last,
            "server {part}: ports {first} to {last} are none"
        );
        let host = host.trim_start_matches('[').trim_end_matches(']');
        for port in first..=last {
            let found = (host, port)
                .to_socket_addrs()
                .with_context(|| format!("server {part}"))?
                .next();
            let found = found.with_context(|| format!("server {part}: no address"))?;
            servers.push(found.into());
        }
    }
    Ok(servers)
}

/// Why a run ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server answered with wrong bytes.
    Wrong(String),
    /// The server cannot be reached, closed, or does not answer.
    Server(String),
    /// The input cannot be read.
    Input(String),
    /// The user interrupted it.
    Interrupted,
}

impl Failure {
    /// Exit status of the command.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Input(_) => 1,
            Failure::Wrong(_) => 3,
            Failure::Server(_) => 4,
            Failure::Interrupted => 130,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Wrong(what) => write!(f, "wrong reply: {what}"),
            Failure::Server(what) => write!(f, "server: {what}"),
            Failure::Input(what) => write!(f, "{what}"),
            Failure::Interrupted => write!(f, "interrupted"),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_are_parsed() {
        assert_eq!(servers("127.0.0.1:11211").unwrap().len(), 1);
        let four = servers("127.0.0.1:1000-1002,[::1]:7").unwrap();
        assert_eq!(four.len(), 4);
        assert_eq!(four[2].to_string(), "127.0.0.1:1002");
        assert_eq!(four[3].to_string(), "[::1]:7");
        let local = servers("unix:/run/m.sock,/tmp/x").unwrap();
        assert_eq!(local[0], Endpoint::Unix("/run/m.sock".into()));
        assert_eq!(Endpoint::try_from(local[1].to_string()).unwrap(), local[1]);
        for bad in [
            "127.0.0.1",
            "127.0.0.1:x",
            "127.0.0.1:9-8",
            "127.0.0.1:99999",
        ] {
            assert!(servers(bad).is_err(), "{bad}");
        }
    }
}
