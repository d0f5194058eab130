// SPDX-License-Identifier: GPL-2.0-only
//! What all doors share.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Config;
use crate::standin::Engine;

/// The engine and its settings.
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    connections: AtomicUsize,
}

impl Server {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            engine: Engine,
            connections: AtomicUsize::new(0),
        }
    }

    /// A place among the connections, unless they are `maxconns` already.
    pub(crate) fn take_place(&self) -> Option<Place<'_>> {
        let most = self.config.maxconns;
        self.connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now < most).then_some(now + 1)
            })
            .ok()
            .map(|_| Place { server: self })
    }
}

/// Given back when dropped.
pub(crate) struct Place<'e> {
    server: &'e Server,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.server.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
