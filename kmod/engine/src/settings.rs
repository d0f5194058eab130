// SPDX-License-Identifier: GPL-2.0-only
//! The settings of an engine.

use hippos_semantics::Administration;

use crate::credentials::Credentials;
use crate::limiter::Limiter;
use crate::prefix::Prefixes;
use crate::sources::Sources;

// The default tables, for callers that provide none.
static PREFIXES: Prefixes = Prefixes::new();
static SOURCES: Sources = Sources::new();
static LIMITER: Limiter = Limiter::new();
static CREDENTIALS: Credentials = Credentials::new();

/// The settings of an engine. It only shows some of them in `stats settings`, because only the host uses them.
#[derive(Clone, Copy)]
pub struct Settings {
    /// The TCP port, 0 if TCP is not served.
    pub tcp_port: u16,
    /// The UDP port, 0 if UDP is not served.
    pub udp_port: u16,
    /// The only interface or address that is served; `NULL` for all.
    pub interface: &'static str,
    /// The most connections at a time.
    pub max_connections: u32,
    /// Length of the listeners' queues.
    pub backlog: u32,
    /// Worker threads.
    pub threads: u32,
    /// The value that `verbosity` sets.
    pub verbosity: u32,
    /// The most bytes of a reply of the UDP fast path; longer ones are left to the UDP socket's worker.
    pub fast_bytes: u32,
    /// The largest settable limit for a reply over UDP; a request for more gets an error.
    pub udp_bytes: u32,
    /// The counters of `stats detail`.
    pub prefixes: &'static Prefixes,
    /// The allow list.
    pub sources: &'static Sources,
    /// The rate limits of UDP sources.
    pub limiter: &'static Limiter,
    /// The users that may authenticate.
    pub credentials: &'static Credentials,
    /// Which clients may use administration commands initially.
    pub administration: Administration,
    /// Hippos's own version.
    pub version: &'static str,
}

/// The module's defaults, as its table of parameters has them, with one worker.
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
