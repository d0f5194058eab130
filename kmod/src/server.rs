// SPDX-License-Identifier: GPL-2.0-only
//! The state that all receive paths share: the engine, the settings and the count of connections.

use core::ffi::CStr;
use core::fmt;
use core::mem::MaybeUninit;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering::Relaxed};

use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex, MutexGuard};

use hippos_abi::NETWORKS_MAX;
use hippos_engine::{
    Change, Engine, FastPathStats, HostCounter, HostState, HostStats, Refusal, RefusalCounter,
    Settings, SocketInfo, SourcesChange, SteeringStats,
};
use hippos_invariant::{Exact, CHECKED};
use hippos_kapi::counters;
use hippos_kapi::cpu;
use hippos_kapi::hook;
use hippos_kapi::params::Params;
use hippos_kapi::registry::{Registration, Registry};
use hippos_kapi::socket::{ConnectionRef, SocketAddresses};
use hippos_kapi::{latency, log, pass, thread, trace};
use hippos_store::{NewError, Store};

use crate::config::{printable, ServerConfig};
use crate::platform::Kernel;
use crate::steer::STEERING;
use crate::traced::{TCP_WORKER, UDP_SOCKET};

/// The engine and its settings.
pub(crate) struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) engine: KBox<Engine<Kernel>>,
    /// See [`lock_maintenance`](Self::lock_maintenance).
    maintaining: Arc<Mutex<()>>,
}

impl Server {
    /// A server for `config`, with all its tables allocated.
    #[inline(never)]
    pub(crate) fn new(config: ServerConfig) -> Result<Arc<Self>> {
        CONNECTIONS
            .softirq_before
            .store(thread::softirq_us(), Relaxed);
        let place = KBox::new_uninit(GFP_KERNEL)?;
        let engine = engine(place, store(config.store)?, config.settings);
        engine.set_udp_rates(config.params.udp_rate, 0);
        // `to_bytes` subtracts, which the compiler takes for a place that may panic.
        let allow = config.params.allow.to_bytes_with_nul();
        set_sources(&engine, allow.split_last().map_or(&[], |(_, text)| text))?;
        if config.params.closed {
            engine.close();
        }
        let server = Self {
            config,
            engine,
            maintaining: Arc::pin_init(new_mutex!(()), GFP_KERNEL)?,
        };
        Ok(Arc::new(server, GFP_KERNEL)?)
    }

    /// Held while maintenance changes the store and while `debug verify` compares it. `None`, and no
    /// lock taken, in a module without that call.
    pub(crate) fn lock_maintenance(&self) -> Option<MutexGuard<'_, ()>> {
        CHECKED.then(|| self.maintaining.lock())
    }

    /// A connection permit, unless there are `maxconns` connections already.
    pub(crate) fn acquire_connection(&self) -> Option<ConnectionPermit> {
        let most = u64::from(self.config.params.maxconns);
        let place = CONNECTIONS.now.fetch_update(Relaxed, Relaxed, |now| {
            (now < most).then_some(now.add_exact(1))
        });
        match place {
            Ok(_) => {
                CONNECTIONS.total.fetch_add(1, Relaxed);
                Some(ConnectionPermit(()))
            }
            Err(_) => {
                CONNECTIONS.rejected.fetch_add(1, Relaxed);
                self.engine.count_refused(RefusalCounter::Connections);
                None
            }
        }
    }

    /// Registers a socket for `stats conns`.
    pub(crate) fn register_socket(
        &self,
        kind: SocketKind,
        ends: &SocketAddresses,
        connection: Option<ConnectionRef>,
    ) -> Result<Registration<SocketRecord>> {
        let connection = connection
            .map(|connection| Arc::new(connection, GFP_KERNEL))
            .transpose()?;
        CONNECTIONS.registry.register(SocketRecord {
            connection,
            id: CONNECTIONS.number.fetch_add(1, Relaxed),
            kind,
            port: self.config.port,
            ends: *ends,
            last: AtomicU32::new(CONNECTIONS.uptime.load(Relaxed)),
            activity: AtomicU8::new(Activity::Read as u8),
        })
    }
}

/// The engine is moved over the stack several times before it is in its place. Out of line, and without calls, so that
/// this fits the stack.
#[inline(never)]
fn engine(
    place: KBox<MaybeUninit<Engine<Kernel>>>,
    store: Store<Kernel>,
    settings: Settings,
) -> KBox<Engine<Kernel>> {
    place.write(Engine::new(store, settings, &CONNECTIONS))
}

/// Out of line for the same reason.
#[inline(never)]
fn set_sources(engine: &Engine<Kernel>, text: &[u8]) -> Result {
    engine
        .change_sources(SourcesChange::Set, text)
        .map_err(|_| {
            let given = printable(text);
            pr_err!(
                "allow={given}: must be any, default, or up to {NETWORKS_MAX} networks like \
             10.0.0.0/8,fd00::/8, without bits beyond their length\n"
            );
            EINVAL
        })
}

/// A store. Out of line for the same reason.
#[inline(never)]
pub(crate) fn store(config: hippos_store::Config) -> Result<Store<Kernel>> {
    Store::new(config, Kernel::new()).map_err(|error| match error {
        NewError::TooSmall => {
            pr_err!(
                "memory_mb={}: too small for item_max={}\n",
                config.memory >> 20,
                config.item_max
            );
            EINVAL
        }
        NewError::Invalid => {
            pr_err!("item_max=, item_min= and factor= are incompatible\n");
            EINVAL
        }
        NewError::OutOfMemory => ENOMEM,
    })
}

/// The permit is released when dropped.
pub(crate) struct ConnectionPermit(());

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        CONNECTIONS.now.fetch_sub(1, Relaxed);
    }
}

/// The kind of a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketKind {
    Listener,
    Connection,
    Datagrams,
}

/// The state of a socket.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Activity {
    /// It waits for requests.
    Read,
    /// Output waits for the peer.
    Send,
    /// It sends events to a watcher.
    Watch,
}

fn address(ip: &[u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), port)
}

/// A socket's entry in the registry.
pub(crate) struct SocketRecord {
    id: u32,
    kind: SocketKind,
    port: u16,
    ends: SocketAddresses,
    /// The connection, unless it is a listener or UDP.
    connection: Option<Arc<ConnectionRef>>,
    /// When it was last served, in seconds of uptime.
    last: AtomicU32,
    /// Its state, an [`Activity`].
    activity: AtomicU8,
}

impl SocketRecord {
    /// Records that it was served.
    pub(crate) fn served(&self, activity: Activity) {
        let now = CONNECTIONS.uptime.load(Relaxed);
        if self.last.load(Relaxed) != now {
            self.last.store(now, Relaxed);
        }
        let activity = activity as u8;
        if self.activity.load(Relaxed) != activity {
            self.activity.store(activity, Relaxed);
        }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.ends.peer_address()
    }

    fn info(&self) -> SocketInfo {
        let own = address(self.ends.own(), self.port);
        let (address, listen) = match self.kind {
            SocketKind::Connection => (self.peer(), Some(own)),
            SocketKind::Listener | SocketKind::Datagrams => (own, None),
        };
        SocketInfo {
            id: self.id,
            address,
            listen,
            state: match self.kind {
                SocketKind::Listener => "conn_listening",
                SocketKind::Connection if self.activity.load(Relaxed) == Activity::Send as u8 => {
                    "conn_mwrite"
                }
                SocketKind::Connection if self.activity.load(Relaxed) == Activity::Watch as u8 => {
                    "conn_watch"
                }
                SocketKind::Connection | SocketKind::Datagrams => "conn_read",
            },
            udp: self.kind == SocketKind::Datagrams,
            idle: CONNECTIONS
                .uptime
                .load(Relaxed)
                .saturating_sub(self.last.load(Relaxed)),
            bytes: self
                .connection
                .as_ref()
                .map(|connection| connection.bytes()),
        }
    }

    /// The connection, if it meets the conditions.
    fn matching(&self, wanted: &Wanted) -> Option<Arc<ConnectionRef>> {
        let is_peer = wanted.peer.is_none_or(|(address, port)| {
            *self.ends.peer() == address && (port == 0 || self.ends.peer_port() == port)
        });
        let now = CONNECTIONS.uptime.load(Relaxed);
        let idle = now.saturating_sub(self.last.load(Relaxed));
        let connection = self.connection.as_ref()?;
        (is_peer && idle >= wanted.idle).then(|| connection.clone())
    }
}

/// Conditions on connections.
pub(crate) struct Wanted {
    /// The peer's address, and its port, 0 for any; `None`: any peer.
    pub(crate) peer: Option<([u8; 16], u16)>,
    /// Seconds since the last command, at least.
    pub(crate) idle: u32,
}

/// The sockets, and the count of all connections so far. A static: there is one module, and the count starts at 0 with
/// each load.
pub(crate) static CONNECTIONS: Connections = Connections {
    registry: Registry::new(),
    number: AtomicU32::new(0),
    uptime: AtomicU32::new(0),
    softirq_before: AtomicU64::new(0),
    now: AtomicU64::new(0),
    total: AtomicU64::new(0),
    rejected: AtomicU64::new(0),
    datagram_peer: [AtomicU64::new(0), AtomicU64::new(0)],
    datagram_port: AtomicU32::new(0),
};

pub(crate) struct Connections {
    registry: Registry<SocketRecord>,
    number: AtomicU32,
    /// Seconds since the start, by the store's clock.
    uptime: AtomicU32,
    /// Microseconds that the machine had spent in softirqs at the start.
    softirq_before: AtomicU64,
    now: AtomicU64,
    total: AtomicU64,
    rejected: AtomicU64,
    /// The sender of the datagram that is being served, while refusals are traced. Only the UDP worker uses it: it
    /// reads the sender when it refuses the request.
    datagram_peer: [AtomicU64; 2],
    datagram_port: AtomicU32,
}

impl Connections {
    /// Sets the time.
    pub(crate) fn tick(&self, uptime: u32) {
        self.uptime.store(uptime, Relaxed);
    }

    /// Seconds since the start.
    pub(crate) fn uptime(&self) -> u32 {
        self.uptime.load(Relaxed)
    }

    /// Ends the connections that meet the conditions and returns their number. Their workers close them. May sleep.
    pub(crate) fn shut_down(&self, wanted: &Wanted) -> u32 {
        let (mut from, mut count) = (0, 0u32);
        // Not under the registry's mutex: it waits for the socket's lock.
        while let Some((place, connection)) =
            self.registry.next(from, |record| record.matching(wanted))
        {
            if connection.is_some_and(|connection| connection.shut_down()) {
                count = count.add_exact(1);
            }
            from = place.add_exact(1);
            cpu::resched();
        }
        count
    }

    /// Sets the sender of the datagram that is served next.
    pub(crate) fn set_datagram_peer(&self, peer: SocketAddr) {
        let ip = match peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let [high, low] = &self.datagram_peer;
        let bits = ip.to_bits();
        high.store((bits >> 64) as u64, Relaxed);
        low.store(bits as u64, Relaxed);
        self.datagram_port.store(peer.port().into(), Relaxed);
    }

    fn datagram_peer(&self) -> SocketAddr {
        let [high, low] = &self.datagram_peer;
        let bits = u128::from(high.load(Relaxed)) << 64 | u128::from(low.load(Relaxed));
        let port = self.datagram_port.load(Relaxed) as u16;
        SocketAddr::new(Ipv6Addr::from_bits(bits).to_canonical(), port)
    }

    /// Traces that a client was refused something.
    #[cold]
    #[inline(never)]
    fn trace_refused(&self, client: u32, why: Refusal) {
        let reason = match why {
            Refusal::Login => c"login",
            Refusal::Admin => c"admin",
            Refusal::ItemTooLarge => c"item_too_large",
            Refusal::NoMemory => c"no_memory",
            Refusal::ReplyTooLarge => c"reply_too_large",
            Refusal::TooSlow => c"too_slow",
        };
        if let Some((path, peer)) = self.client(client) {
            trace::refuse(path, reason, peer);
        }
    }

    /// The receive path and the address of the client of a number, whose command is being served.
    fn client(&self, number: u32) -> Option<(&'static CStr, SocketAddr)> {
        let look =
            |record: &SocketRecord| (record.id == number).then(|| (record.kind, record.peer()));
        let mut from = 0;
        loop {
            let (place, found) = self.registry.next(from, look)?;
            match found {
                Some((SocketKind::Datagrams, _)) => {
                    return Some((UDP_SOCKET, self.datagram_peer()));
                }
                Some((_, peer)) => return Some((TCP_WORKER, peer)),
                None => from = place.add_exact(1),
            }
        }
    }
}

impl HostStats for Connections {
    fn host(&self) -> HostState {
        let softirq = thread::softirq_us().saturating_sub(self.softirq_before.load(Relaxed));
        HostState {
            // A TCP worker's: these are started last.
            pid: thread::last_pid(),
            // The only contexts in which GETs and TCP are served.
            system_us: thread::runtime_us().saturating_add(softirq),
            connections: self.now.load(Relaxed),
            total_connections: self.total.load(Relaxed),
            rejected_connections: self.rejected.load(Relaxed),
            accepting: true,
            steering: Some(SteeringStats {
                steered: STEERING.steered(),
                changes: STEERING.changes(),
                polling: STEERING.polling(),
                load: STEERING.load(),
            }),
            ..Default::default()
        }
    }

    fn fast_path(&self) -> Option<FastPathStats> {
        let state = hook::fast_path_state();
        Some(FastPathStats {
            hook: state.hook,
            xdp: state.xdp,
        })
    }

    fn counted(&self, counter: &HostCounter) -> Option<u64> {
        Some(counters::sum(counter.number()))
    }

    fn pass_counts(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        for row in pass::rows() {
            tell("", row.name, row.hook);
        }
        for row in pass::rows() {
            tell("xdp_", row.name, row.xdp);
        }
    }

    fn socket(&self, from: usize) -> Option<(usize, SocketInfo)> {
        self.registry.next(from, SocketRecord::info)
    }

    fn settings(&self, tell: &mut dyn FnMut(&'static str, fmt::Arguments<'_>)) {
        Params::tell(tell);
    }

    fn refused(&self, client: u32, why: Refusal) {
        if trace::refusals_on() {
            self.trace_refused(client, why);
        }
    }

    fn changed(&self, client: u32, change: Change) {
        if !log::permits(log::Kind::Change) {
            return;
        }
        if let Some((path, peer)) = self.client(client) {
            let path = printable(path.to_bytes());
            pr_info!(
                "{}\n",
                format_args!("{change} by the client {peer} ({path})")
            );
        }
    }

    fn measures_latency(&self) -> bool {
        latency::is_on()
    }

    fn reset(&self) {
        self.total.store(0, Relaxed);
        self.rejected.store(0, Relaxed);
    }
}
