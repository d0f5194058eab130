// SPDX-License-Identifier: GPL-2.0-only
//! Blocks that a reference of 48 bits cannot address are not used: an item in such a block would be read at another
//! address.

mod instrumented;

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use hippos_store::host::Host;
use hippos_store::{Commit, Config, Expiry, NewError, Store, REACH};

use instrumented::{Instrumented, Watch};

/// References are relative to `base`.
struct HighAddresses {
    base: usize,
    /// Blocks given to the store and not freed.
    held: Arc<AtomicUsize>,
}

impl Watch for HighAddresses {
    fn given(&self, _block: NonNull<u8>, _bytes: usize) {
        self.held.fetch_add(1, Relaxed);
    }
    fn freed(&self, _block: NonNull<u8>, _bytes: usize) {
        self.held.fetch_sub(1, Relaxed);
    }
    fn base(&self) -> usize {
        self.base
    }
}

fn store(
    base: usize,
) -> (
    Result<Store<Instrumented<HighAddresses>>, NewError>,
    Arc<AtomicUsize>,
) {
    let held = Arc::new(AtomicUsize::new(0));
    let watch = HighAddresses {
        base,
        held: held.clone(),
    };
    let host = Host::new();
    (
        Store::new(Config::default(), Instrumented { host, watch }),
        held,
    )
}

#[test]
fn blocks_out_of_reach_are_given_back() {
    // As far above the base as on a kernel for 52-bit addresses that runs on a 48-bit processor.
    let (store, held) = store(0usize.wrapping_sub(15 * REACH));
    if let Ok(store) = &store {
        let (key, value) = (b"key", b"value");
        let hash = store.hash(key);
        let mut new = store.reserve(key, hash, 0, Expiry::NEVER, 5).unwrap();
        new.write(value);
        store.commit(new, &Commit::default()).unwrap();
        assert!(store.get(&store.read(), key, hash).is_some());
    }
    assert!(matches!(store, Err(NewError::OutOfMemory)));
    assert_eq!(held.load(Relaxed), 0);
}

#[test]
fn a_base_may_be_anywhere_below() {
    // User space has addresses of 47 bits.
    let (store, held) = store(0usize.wrapping_sub(REACH / 2));
    assert!(store.is_ok());
    assert!(held.load(Relaxed) > 0);
}
