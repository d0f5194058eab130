// SPDX-License-Identifier: GPL-2.0-only
//! What all doors share: the engine, the settings and the count of connections.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_engine::{Engine, Facts, Host, Settings, TALLIES};
use hippos_kapi::random;
use hippos_store::{NewError, Store};

use crate::config::Config;
use crate::platform::Kernel;

/// The engine and its settings.
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) engine: KBox<Engine<Kernel>>,
}

impl Server {
    /// A server of `config` with `threads` TCP workers, and all its memory
    /// for tables.
    #[inline(never)]
    pub(crate) fn new(config: Config, threads: usize) -> Result<Arc<Self>> {
        let settings = Settings {
            tcp_port: config.port,
            udp_port: if config.udp { config.port } else { 0 },
            max_connections: config.maxconns as u32,
            backlog: config.backlog,
            threads: threads as u32,
            ..Default::default()
        };
        let place = KBox::new_uninit(GFP_KERNEL)?;
        let engine = engine(place, store(&config)?, settings);
        Ok(Arc::new(Self { config, engine }, GFP_KERNEL)?)
    }

    /// A place among the connections, unless they are `maxconns` already.
    pub(crate) fn take_place(&self) -> Option<Place> {
        let most = self.config.maxconns as u64;
        let place = CONNECTIONS.now.fetch_update(Relaxed, Relaxed, |now| {
            (now < most).then_some(now.wrapping_add(1))
        });
        match place {
            Ok(_) => {
                CONNECTIONS.total.fetch_add(1, Relaxed);
                Some(Place(()))
            }
            Err(_) => {
                CONNECTIONS.rejected.fetch_add(1, Relaxed);
                None
            }
        }
    }
}

/// An engine passes through the stack several times before it is in its place.
/// Out of line, and calling nothing, that needs no more of the stack than there
/// is.
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
fn store(config: &Config) -> Result<Store<Kernel>> {
    Store::new(
        hippos_store::Config {
            memory: config.memory,
            item_max: config.item_max,
            item_min: config.item_min,
            factor: config.factor,
            seed: random::words(),
            eviction: config.eviction,
            tallies: TALLIES,
            ..Default::default()
        },
        Kernel::new(),
    )
    .map_err(|error| match error {
        NewError::TooSmall => {
            pr_err!(
                "memory_mb={}: too small for item_max={}\n",
                config.memory >> 20,
                config.item_max
            );
            EINVAL
        }
        NewError::Invalid => {
            pr_err!("item_max=, item_min= and factor= do not go together\n");
            EINVAL
        }
        NewError::OutOfMemory => ENOMEM,
    })
}

/// Given back when dropped.
pub(crate) struct Place(());

impl Drop for Place {
    fn drop(&mut self) {
        CONNECTIONS.now.fetch_sub(1, Relaxed);
    }
}

/// How many connections there are and were. A static: there is one module,
/// and its count begins anew with each load.
pub(crate) static CONNECTIONS: Connections = Connections {
    now: AtomicU64::new(0),
    total: AtomicU64::new(0),
    rejected: AtomicU64::new(0),
    yields: AtomicU64::new(0),
};

pub(crate) struct Connections {
    now: AtomicU64,
    total: AtomicU64,
    rejected: AtomicU64,
    yields: AtomicU64,
}

impl Connections {
    /// A worker went on to others though a connection had more.
    pub(crate) fn note_yield(&self) {
        self.yields.fetch_add(1, Relaxed);
    }
}

impl Facts for Connections {
    fn host(&self) -> Host {
        Host {
            connections: self.now.load(Relaxed),
            total_connections: self.total.load(Relaxed),
            rejected_connections: self.rejected.load(Relaxed),
            yields: self.yields.load(Relaxed),
            accepting: true,
            ..Default::default()
        }
    }

    fn reset(&self) {
        self.total.store(0, Relaxed);
        self.rejected.store(0, Relaxed);
        self.yields.store(0, Relaxed);
    }
}
