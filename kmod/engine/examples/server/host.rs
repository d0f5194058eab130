//! What the engine asks its host: process and connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;
use std::time::Instant;

use hippos_engine::{Address, Connection, Facts, Host};

/// This process and its connections.
pub struct Process {
    listen: SocketAddr,
    next: AtomicU32,
    open: Mutex<BTreeMap<u32, (SocketAddr, Instant)>>,
    total: AtomicU64,
    rejected: AtomicU64,
    pub accepting: AtomicBool,
}

impl Process {
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            next: AtomicU32::new(1),
            open: Mutex::default(),
            total: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            accepting: AtomicBool::new(false),
        }
    }

    /// Takes a place among `most` connections; its number.
    pub fn enter(&self, peer: SocketAddr, most: u32) -> Option<u32> {
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

    /// Notes that a connection is alive.
    pub fn active(&self, id: u32) {
        if let Some((_, last)) = self.open.lock().unwrap().get_mut(&id) {
            *last = Instant::now();
        }
    }

    /// Gives a place back.
    pub fn leave(&self, id: u32) {
        self.open.lock().unwrap().remove(&id);
    }
}

fn address(of: SocketAddr) -> Address {
    Address {
        ip: of.ip(),
        port: of.port(),
    }
}

impl Facts for Process {
    fn host(&self) -> Host {
        Host {
            pid: std::process::id(),
            connections: self.open.lock().unwrap().len() as u64,
            total_connections: self.total.load(Relaxed),
            rejected_connections: self.rejected.load(Relaxed),
            accepting: self.accepting.load(Relaxed),
            ..Host::default()
        }
    }

    fn connection(&self, index: usize) -> Option<Connection> {
        let listen = address(self.listen);
        let Some(index) = index.checked_sub(1) else {
            return Some(Connection {
                id: 0,
                address: listen,
                listen: None,
                state: "conn_listening",
                udp: false,
                idle: 0,
            });
        };
        let open = self.open.lock().unwrap();
        let (id, (peer, last)) = open.iter().nth(index)?;
        Some(Connection {
            id: *id,
            address: address(*peer),
            listen: Some(listen),
            state: "conn_read",
            udp: false,
            idle: last.elapsed().as_secs() as u32,
        })
    }

    fn reset(&self) {
        self.total.store(0, Relaxed);
        self.rejected.store(0, Relaxed);
    }
}
