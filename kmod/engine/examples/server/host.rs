// SPDX-License-Identifier: GPL-2.0-only
//! The process and its connections, as the engine's host.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;
use std::time::Instant;

use hippos_engine::{Engine, HostState, HostStats, SocketInfo};
use hippos_store::host::Host;

/// The engine on the host's memory.
pub(crate) type Server = Engine<Host>;

/// The number of the UDP socket.
pub(crate) const UDP_NUMBER: u32 = 1;

/// This process and its connections.
pub(crate) struct Process {
    listen: SocketAddr,
    udp: bool,
    next: AtomicU32,
    open: Mutex<BTreeMap<u32, (SocketAddr, Instant)>>,
    total: AtomicU64,
    rejected: AtomicU64,
    pub(crate) accepting: AtomicBool,
}

impl Process {
    pub(crate) fn new(listen: SocketAddr, udp: bool) -> Self {
        Self {
            listen,
            udp,
            next: AtomicU32::new(2),
            open: Mutex::default(),
            total: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            accepting: AtomicBool::new(false),
        }
    }

    /// Takes one of `most` connection slots, and returns its number.
    pub(crate) fn enter(&self, peer: SocketAddr, most: u32) -> Option<u32> {
        let mut open = self.open.lock().unwrap();
        if open.len() >= most as usize {
            self.rejected.fetch_add(1, Relaxed);
            return None;
        }
        let id = self.next.fetch_add(1, Relaxed);
        open.insert(id, (peer, Instant::now()));
        self.total.fetch_add(1, Relaxed);
        Some(id)
    }

    /// Records that a connection is active.
    pub(crate) fn active(&self, id: u32) {
        if let Some((_, last)) = self.open.lock().unwrap().get_mut(&id) {
            *last = Instant::now();
        }
    }

    /// Frees a connection slot.
    pub(crate) fn leave(&self, id: u32) {
        self.open.lock().unwrap().remove(&id);
    }
}

impl HostStats for Process {
    fn host(&self) -> HostState {
        HostState {
            pid: std::process::id(),
            connections: self.open.lock().unwrap().len() as u64,
            total_connections: self.total.load(Relaxed),
            rejected_connections: self.rejected.load(Relaxed),
            accepting: self.accepting.load(Relaxed),
            ..HostState::default()
        }
    }

    fn socket(&self, from: usize) -> Option<(usize, SocketInfo)> {
        let listen = self.listen;
        let socket = |id, udp, state| SocketInfo {
            id,
            address: listen,
            listen: None,
            state,
            udp,
            idle: 0,
            bytes: None,
        };
        match from {
            0 => return Some((0, socket(0, false, "conn_listening"))),
            1 if self.udp => return Some((1, socket(UDP_NUMBER, true, "conn_read"))),
            _ => {}
        }
        // A connection's number is its slot's.
        let open = self.open.lock().unwrap();
        let (id, (peer, last)) = open.range(u32::try_from(from).ok()?..).next()?;
        let info = SocketInfo {
            id: *id,
            address: *peer,
            listen: Some(listen),
            state: "conn_read",
            udp: false,
            idle: last.elapsed().as_secs() as u32,
            bytes: None,
        };
        Some((*id as usize, info))
    }

    fn reset(&self) {
        self.total.store(0, Relaxed);
        self.rejected.store(0, Relaxed);
    }
}
