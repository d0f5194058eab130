// SPDX-License-Identifier: GPL-2.0-only
//! What an engine is set to.

use crate::administration::Administration;
use crate::credentials::Credentials;
use crate::limiter::Limiter;
use crate::prefix::Prefixes;
use crate::sources::Sources;

// The tables of those that bring none.
static PREFIXES: Prefixes = Prefixes::new();
static SOURCES: Sources = Sources::new();
static LIMITER: Limiter = Limiter::new();
static CREDENTIALS: Credentials = Credentials::new();

/// The settings of an engine. Those that only the host acts on are here to be
/// told by `stats settings`.
#[derive(Clone, Copy)]
pub struct Settings {
    /// The TCP port, 0 if it isn't served.
    pub tcp_port: u16,
    /// The UDP port, 0 if it isn't served.
    pub udp_port: u16,
    /// The interface or address that is served alone; `NULL` for all of them.
    pub interface: &'static str,
    /// The most connections at a time.
    pub max_connections: u32,
    /// Length of the listeners' queues.
    pub backlog: u32,
    /// Worker threads.
    pub threads: u32,
    /// What `verbosity` sets.
    pub verbosity: u32,
    /// The most bytes of a reply that the UDP fast path gives; larger ones
    /// are left to the UDP socket's worker.
    pub fast_bytes: u32,
    /// The most bytes of a reply over UDP that may be set; a request for more
    /// gets an error.
    pub udp_bytes: u32,
    /// Where `stats detail` counts.
    pub prefixes: &'static Prefixes,
    /// Who may ask.
    pub sources: &'static Sources,
    /// What a UDP source gets in a second.
    pub limiter: &'static Limiter,
    /// Who may log in.
    pub credentials: &'static Credentials,
    /// Which clients may use administration commands at first.
    pub administration: Administration,
    /// Hippos's own version.
    pub version: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tcp_port: 11211,
            udp_port: 11211,
            interface: "NULL",
            max_connections: 1024,
            backlog: 1024,
            threads: 1,
            verbosity: 0,
            fast_bytes: 16 << 10,
            udp_bytes: (1 << 20) + (64 << 10),
            prefixes: &PREFIXES,
            sources: &SOURCES,
            limiter: &LIMITER,
            credentials: &CREDENTIALS,
            administration: Administration::Network,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}
