// SPDX-License-Identifier: GPL-2.0-only
//! The server under test, and how to run the table.

use std::net::SocketAddr;
use std::time::Duration;

/// The server under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Where it listens for TCP.
    pub tcp: SocketAddr,
    /// Where it listens for UDP; without one the cases over UDP are skipped.
    pub udp: Option<SocketAddr>,
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only cases whose `group: name` contains this.
    pub filter: String,
    /// Connections at a time.
    pub parallel: usize,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The server is the reference: no alternatives, and its several messages for one
    /// request over UDP are taken as one.
    pub reference: bool,
    /// Feed every case in splits too.
    pub splits: bool,
    /// For the random splits.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            filter: String::new(),
            parallel: 24,
            timeout: Duration::from_secs(5),
            reference: false,
            splits: true,
            seed: 1,
        }
    }
}
