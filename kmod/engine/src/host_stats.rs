// SPDX-License-Identifier: GPL-2.0-only
//! What only the host knows: its process, its clock, its connections.

use core::fmt;

/// What the host is asked when statistics are wanted.
pub trait HostStats: Sync {
    /// The state of the host.
    fn host(&self) -> Host {
        Host::default()
    }

    /// What is answered before the socket, where there are such receive paths.
    fn fast_path(&self) -> Option<FastPathStats> {
        None
    }

    /// The first socket at or behind a place, for `stats conns`, and its place, which is its own
    /// while it is open; `None` behind the last.
    fn socket(&self, from: usize) -> Option<(usize, SocketInfo)> {
        let _ = from;
        None
    }

    /// Tells settings of the host's own, each by its row of `stats settings`.
    fn settings(&self, tell: &mut dyn FnMut(&'static str, fmt::Arguments<'_>)) {
        let _ = tell;
    }

    /// Tells how often datagrams were left to the next one on their way, and why: the receive path's part of
    /// a row's name, the reason's, and the count.
    fn pass_counts(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        let _ = tell;
    }

    /// Whether it measures how long requests take, for [`note_time`](crate::Engine::note_time).
    fn measures_latency(&self) -> bool {
        false
    }

    /// Statistics were reset: so are the host's own.
    fn reset(&self) {}
}

/// A host that knows nothing.
impl HostStats for () {}

/// The state of the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    /// Process id, 0 for a kernel.
    pub pid: u32,
    /// CPU time spent in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time spent in the kernel, in microseconds.
    pub system_us: u64,
    /// Connections now.
    pub connections: u64,
    /// Connections since the start.
    pub total_connections: u64,
    /// Connections refused since there were too many.
    pub rejected_connections: u64,
    /// Times that a worker went on to other connections though there was more.
    pub yields: u64,
    /// Times that listening was stopped since there were too many connections.
    pub listen_disabled: u64,
    /// Whether new connections are accepted.
    pub accepting: bool,
    /// Frames that were answered before they were packets (XDP).
    pub xdp_served: u64,
    /// Frames that XDP was asked about and let pass.
    pub xdp_passed: u64,
    /// How packets are spread over CPUs, where the host decides that.
    pub steering: Option<Steering>,
}

/// The receive paths before the UDP socket, and the return paths of their replies.
#[derive(Clone, Copy, Debug)]
pub struct FastPathStats {
    /// Whether PRE_ROUTING is open for IPv4 and for IPv6, or why not.
    pub hook: [&'static str; 2],
    /// The same of XDP.
    pub xdp: [&'static str; 2],
    /// Lookups of the way that replies take.
    pub lookups: u64,
    /// Those that left replies to the socket.
    pub rejected: u64,
    /// Those that were not made because there were too many.
    pub limited: u64,
}

/// How packets are spread over CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steering {
    /// They are spread over all.
    pub steered: bool,
    /// How often that began or ended.
    pub changes: u64,
    /// The CPU that gets all of them, and workers keep off.
    pub polling: Option<u32>,
    /// How busy that CPU is, or was when it last got all, in percent.
    pub load: u32,
}

/// A row of `stats conns`: a connection, a listener or a UDP socket.
#[derive(Clone, Copy)]
pub struct SocketInfo {
    /// Its number, like a file descriptor.
    pub id: u32,
    /// The other end, or the own one of a listener.
    pub address: Address,
    /// The own end of a client's connection.
    pub listen: Option<Address>,
    /// `conn_read` and the like, in memcached's words.
    pub state: &'static str,
    /// Whether it is a UDP socket.
    pub udp: bool,
    /// Seconds since its last command.
    pub idle: u32,
    /// Bytes of a connection received, and sent as far as the client acknowledged them, where the
    /// host counts them.
    pub bytes: Option<(u64, u64)>,
}

/// An address of a socket.
#[derive(Clone, Copy)]
pub struct Address {
    /// The address itself; IPv4 ones mapped into IPv6.
    pub ip: core::net::IpAddr,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            core::net::IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            core::net::IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}
