// SPDX-License-Identifier: GPL-2.0-only
//! A store whose construction fails frees all its memory.

mod instrumented;

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use hippos_store::host::Host;
use hippos_store::{Config, Eviction, NewError, Store};

use instrumented::{Instrumented, Watch};

/// The memory that a store has from the platform.
#[derive(Clone, Default)]
struct Ledger {
    tables: Arc<AtomicUsize>,
    blocks: Arc<AtomicUsize>,
}

impl Ledger {
    fn is_clear(&self) -> bool {
        self.tables.load(Relaxed) == 0 && self.blocks.load(Relaxed) == 0
    }
}

/// Refuses one allocation.
struct Refusal {
    ledger: Ledger,
    /// Allocations that succeed before it.
    before: usize,
    asked: AtomicUsize,
}

impl Watch for Refusal {
    fn refuses(&self) -> bool {
        self.asked.fetch_add(1, Relaxed) == self.before
    }
    fn given(&self, _block: NonNull<u8>, _bytes: usize) {
        self.ledger.blocks.fetch_add(1, Relaxed);
    }
    fn freed(&self, _block: NonNull<u8>, _bytes: usize) {
        self.ledger.blocks.fetch_sub(1, Relaxed);
    }
    fn table_given(&self) {
        self.ledger.tables.fetch_add(1, Relaxed);
    }
    fn table_freed(&self) {
        self.ledger.tables.fetch_sub(1, Relaxed);
    }
}

fn make(config: Config, before: usize) -> (Result<Store<Instrumented<Refusal>>, NewError>, Ledger) {
    let ledger = Ledger::default();
    let watch = Refusal {
        ledger: ledger.clone(),
        before,
        asked: AtomicUsize::new(0),
    };
    let host = Host::new();
    (Store::new(config, Instrumented { host, watch }), ledger)
}

#[test]
fn construction_frees_its_memory_whichever_allocation_fails() {
    for (eviction, most) in [
        (Eviction::Clock, 14),
        (Eviction::Sieve, 14),
        (Eviction::S3Fifo, 15),
    ] {
        let config = Config {
            eviction,
            ..Config::default()
        };
        let mut refused = 0;
        loop {
            let (store, ledger) = make(config, refused);
            let Err(error) = store else {
                assert!(!ledger.is_clear());
                drop(store);
                assert!(ledger.is_clear());
                break;
            };
            assert_eq!(error, NewError::OutOfMemory);
            assert!(ledger.is_clear(), "{eviction:?}: {refused} given before");
            refused += 1;
        }
        // Each table, and the index's first block.
        assert_eq!(refused, most, "{eviction:?}");
    }
}

#[test]
fn construction_frees_its_memory_when_the_limit_is_beyond_what_links_reach() {
    let config = Config {
        memory: 1 << 40,
        item_max: 1 << 20,
        eviction: Eviction::Sieve,
        ..Config::default()
    };
    let (store, ledger) = make(config, usize::MAX);
    assert!(matches!(store, Err(NewError::Invalid)));
    assert!(ledger.is_clear());
}
