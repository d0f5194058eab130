// SPDX-License-Identifier: GPL-2.0-only
//! A writer is preempted right after it has unlocked the stripe. When it continues, the item that it stored may have
//! been deleted or evicted, a grace period may have passed, and the slot may hold another item. It must have read
//! everything that it counts before it unlocked.

mod instrumented;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

use hippos_store::host::Host;
use hippos_store::{Arith, Arithmetic, Commit, Config, Deleted, Expiry, Store};

use instrumented::{Instrumented, Watch};

const KEY: &[u8] = b"overtaken";
/// A shorter key, of the same class.
const OTHER: &[u8] = b"x";

static STORE: OnceLock<Store<Instrumented<ConcurrentUpdate>>> = OnceLock::new();

/// A concurrent writer, which overtakes the first one once.
struct ConcurrentUpdate {
    armed: AtomicBool,
}

impl ConcurrentUpdate {
    /// Deletes the item that was just stored, and reuses its slot.
    fn overtake(&self) {
        let store = STORE.get().unwrap();
        let deleted = store.delete(KEY, store.hash(KEY), None);
        assert!(matches!(deleted, Deleted::Deleted { .. }), "{deleted:?}");
        for _ in 0..2 {
            store.maintain();
        }
        assert_eq!(store.snapshot().retired, 0);
        let new = store.reserve(OTHER, store.hash(OTHER), 0, Expiry::NEVER, 0);
        store.commit(new.unwrap(), &Commit::default()).unwrap();
    }
}

impl Watch for ConcurrentUpdate {
    /// Called when the store counts something, after everything has been unlocked.
    fn asked(&self) {
        if self.armed.swap(false, Ordering::Relaxed) {
            self.overtake();
        }
    }
}

#[test]
fn counters_are_exact_when_item_is_removed_concurrently() {
    let platform = Instrumented {
        host: Host::new().poison(),
        watch: ConcurrentUpdate {
            armed: AtomicBool::new(false),
        },
    };
    let store = STORE.get_or_init(|| Store::new(Config::default(), platform).ok().unwrap());
    store.tick(100, 1_700_000_000);
    let hash = store.hash(KEY);
    let reserve = || {
        let mut new = store.reserve(KEY, hash, 0, Expiry::NEVER, 1).unwrap();
        new.write(b"1");
        new
    };
    let arm = || store.platform().watch.armed.store(true, Ordering::Relaxed);
    let at_rest = |what: &str| {
        store.delete(OTHER, store.hash(OTHER), None);
        let shot = store.snapshot();
        assert_eq!((shot.items, shot.bytes), (0, 0), "{what}");
    };

    let new = reserve();
    arm();
    store.commit(new, &Commit::default()).unwrap();
    at_rest("set");

    store.commit(reserve(), &Commit::default()).unwrap();
    let new = reserve();
    arm();
    store.commit(new, &Commit::default()).unwrap();
    at_rest("set over another");

    store.commit(reserve(), &Commit::default()).unwrap();
    let one = Arith {
        by: 1,
        ..Arith::default()
    };
    arm();
    let counted = store.arith(KEY, hash, &one).unwrap();
    assert!(matches!(counted, Arithmetic::Value { value: 2, .. }));
    at_rest("arithmetic");
}
