// SPDX-License-Identifier: MIT

//! The state that all threads share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::{self, Config};
use crate::health::Health;
use crate::metrics::{Counters, Meters, NodeMeter, RouteMeter};

/// The state that all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Mutex<Arc<Config>>,
    pub(crate) generation: AtomicU64,
    pub(crate) draining: AtomicBool,
    pub(crate) connections: AtomicUsize,
    /// The counters of each worker.
    pub(crate) counters: Vec<Arc<Counters>>,
    pub(crate) routes: Meters<RouteMeter>,
    pub(crate) node_meters: Meters<NodeMeter>,
    pub(crate) health: Mutex<HashMap<Vec<SocketAddr>, Arc<Health>>>,
    /// The start of all time stamps.
    pub(crate) start: Instant,
    /// The same in seconds since 1970.
    pub(crate) unix_start: u64,
    /// Lines for the log.
    pub(crate) log: SyncSender<String>,
}

impl Shared {
    pub(crate) fn config(&self) -> Arc<Config> {
        let config = self.config.lock();
        config.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The health of the node with these addresses, which all workers share; a reload that changes its settings keeps it.
    pub(crate) fn health(&self, node: &config::Node) -> Arc<Health> {
        let mut all = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(node.addresses.clone()).or_default().clone()
    }

    /// The configuration's nodes.
    pub(crate) fn nodes(&self) -> Vec<(String, Arc<Health>)> {
        let config = self.config();
        let nodes = config.nodes.iter();
        nodes
            .map(|node| (node.name.clone(), self.health(node)))
            .collect()
    }
}
