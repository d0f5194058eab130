//! How to talk to the servers, and how a run can fail.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

/// How GETs travel; everything else goes over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// In datagrams with memcached's frame.
    Udp,
    /// On the connections.
    Tcp,
}

/// How to talk to the servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Keys are spread over these by their hash.
    pub servers: Vec<SocketAddr>,
    /// Threads that make load.
    pub threads: usize,
    /// UDP sockets of a thread for each server: so many source ports.
    pub sockets: usize,
    /// TCP connections of a thread to each server.
    pub connections: usize,
    /// How GETs travel.
    pub get: Transport,
    /// Meta commands instead of the classic ones.
    pub meta: bool,
    /// The servers send back what they get (a packet mirror): only GETs, only UDP.
    pub mirror: bool,
    /// Requests of one length that are due together leave as one, to be cut up
    /// by the network card (UDP segmentation offload), and replies may come so.
    #[serde(default)]
    pub gso: bool,
    /// Nanoseconds after which a request is given up.
    pub timeout: u64,
    /// GETs whose values are longer than this together go over TCP.
    pub udp_max: u32,
    /// Store what a GET has missed, as a client in front of a database does.
    pub fill_on_miss: bool,
    /// Seeds the operations and their times.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::from(([127, 0, 0, 1], 11211))],
            threads: 1,
            sockets: 16,
            connections: 4,
            get: Transport::Udp,
            meta: false,
            mirror: false,
            gso: false,
            timeout: 1_000_000_000,
            udp_max: 16 << 10,
            fill_on_miss: false,
            seed: 1,
        }
    }
}

impl Settings {
    /// What is wrong with them, if anything.
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
        Ok(())
    }
}

/// Parses `host:port`, `host:first-last` (one server a port), and several of these with commas between.
pub fn servers(text: &str) -> Result<Vec<SocketAddr>> {
    let mut servers = Vec::new();
    for part in text.split(',') {
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
            servers.push(found.with_context(|| format!("server {part}: no address"))?);
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
    /// The user had enough.
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
    fn servers_are_read() {
        assert_eq!(servers("127.0.0.1:11211").unwrap().len(), 1);
        let four = servers("127.0.0.1:1000-1002,[::1]:7").unwrap();
        assert_eq!(four.len(), 4);
        assert_eq!(four[2].port(), 1002);
        assert!(four[3].is_ipv6());
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
