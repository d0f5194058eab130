// SPDX-License-Identifier: GPL-2.0-only
//! Statistics that only the host has: its process, its clock, its connections.

use core::fmt;
use core::net::SocketAddr;

use crate::host_counters::HostCounter;

/// The host's part of the statistics.
pub trait HostStats: Sync {
    /// The state of the host.
    fn host(&self) -> HostState {
        HostState::default()
    }

    /// The receive paths before the socket, if there are any.
    fn fast_path(&self) -> Option<FastPathStats> {
        None
    }

    /// The value of a counter, if the host keeps it.
    fn counted(&self, counter: &HostCounter) -> Option<u64> {
        let _ = counter;
        None
    }

    /// The first socket at or after a place, for `stats conns`, and its place, which stays its own while it is open;
    /// `None` after the last.
    fn socket(&self, from: usize) -> Option<(usize, SocketInfo)> {
        let _ = from;
        None
    }

    /// Passes each setting that only the host has to `tell`, with the name of its row in `stats settings`.
    fn settings(&self, tell: &mut dyn FnMut(&'static str, fmt::Arguments<'_>)) {
        let _ = tell;
    }

    /// Passes to `tell` how often datagrams were passed to the next receive path, and why: the receive path's part of
    /// the row's name, the reason's part, and the count.
    fn pass_counts(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        let _ = tell;
    }

    /// Whether the host measures latency, for [`note_time`](crate::Engine::note_time).
    fn measures_latency(&self) -> bool {
        false
    }

    /// A client of that number, as `stats conns` has it, was refused something. Process context; no lock of the
    /// store's is held.
    fn refused(&self, client: u32, why: Refusal) {
        let _ = (client, why);
    }

    /// A client of that number, which is not the administrator of the host, made a change. Process context; no lock of
    /// the store's is held.
    fn changed(&self, client: u32, change: Change) {
        let _ = (client, change);
    }

    /// Resets the host's statistics too.
    fn reset(&self) {}
}

/// A host without statistics.
impl HostStats for () {}

/// The reason for which a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has not logged in, or tried in vain.
    Login,
    /// It may not use administration commands.
    Admin,
    /// Its item is too large.
    ItemTooLarge,
    /// There is no memory for its item.
    NoMemory,
    /// The reply is longer than one over UDP may be.
    ReplyTooLarge,
    /// A datagram's commands take too long.
    TooSlow,
}

/// A change of the server by a command. Its text is the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The memory limit, in MiB.
    Memory(u32),
    /// All items are removed, now or at this expiry time.
    Flush(i64),
    /// The level of `verbosity`.
    Verbosity(u32),
    /// Whether dumps and crawls are allowed.
    Crawler(bool),
    /// Whether commands are counted by prefix.
    Detail(bool),
    /// The counters begin anew.
    Reset,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |on, yes, no| if on { yes } else { no };
        match *self {
            Change::Memory(mib) => write!(f, "cache_memlimit {mib}"),
            Change::Flush(0) => f.write_str("flush_all"),
            Change::Flush(exptime) => write!(f, "flush_all {exptime}"),
            Change::Verbosity(level) => write!(f, "verbosity {level}"),
            Change::Crawler(on) => write!(f, "lru_crawler {}", word(on, "enable", "disable")),
            Change::Detail(on) => write!(f, "stats detail {}", word(on, "on", "off")),
            Change::Reset => f.write_str("stats reset"),
        }
    }
}

/// The state of the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostState {
    /// Process id; 0 if there is none.
    pub pid: u32,
    /// CPU time spent in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time spent in the kernel, in microseconds.
    pub system_us: u64,
    /// Connections now.
    pub connections: u64,
    /// Connections since the start.
    pub total_connections: u64,
    /// Connections refused because there were too many.
    pub rejected_connections: u64,
    /// Times that listening was stopped because there were too many connections.
    pub listen_disabled: u64,
    /// Whether new connections are accepted.
    pub accepting: bool,
    /// How packets are spread over CPUs, if the host controls that.
    pub steering: Option<SteeringStats>,
}

/// The receive paths before the UDP socket.
#[derive(Clone, Copy, Debug)]
pub struct FastPathStats {
    /// Whether PRE_ROUTING is open for IPv4 and for IPv6, or why not.
    pub hook: [&'static str; 2],
    /// The same for XDP.
    pub xdp: [&'static str; 2],
}

/// How packets are spread over CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SteeringStats {
    /// Whether packets are spread over the CPUs.
    pub steered: bool,
    /// How often that changed.
    pub changes: u64,
    /// The CPU that receives all packets, and that runs no workers.
    pub polling: Option<u32>,
    /// The load of that CPU, now or when it last received all packets, in percent.
    pub load: u32,
}

/// A row of `stats conns`: a connection, a listener or a UDP socket.
#[derive(Clone, Copy)]
pub struct SocketInfo {
    /// Its number, like a file descriptor.
    pub id: u32,
    /// The other end, or a listener's own end.
    pub address: SocketAddr,
    /// Our end of a client's connection.
    pub listen: Option<SocketAddr>,
    /// memcached's name of the state, `conn_read` and the like.
    pub state: &'static str,
    /// Whether it is a UDP socket.
    pub udp: bool,
    /// Seconds since its last command.
    pub idle: u32,
    /// Bytes received by a connection, and bytes sent as far as the client has acknowledged them, if the host counts
    /// them.
    pub bytes: Option<(u64, u64)>,
}
