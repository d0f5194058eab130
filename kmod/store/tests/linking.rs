// SPDX-License-Identifier: GPL-2.0-only
//! A slot is live only if it is linked: a walk or an eviction uses live slots, and a slot that was never linked is
//! freed without a grace period.

mod instrumented;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::OnceLock;

use hippos_store::host::Host;
use hippos_store::{
    ClassCounter, Commit, Config, Expiry, LockClass, Outcome, Store, StoreMode, WalkStep,
};

use instrumented::{Instrumented, Watch, LOCKING};

static STORE: OnceLock<Store<Instrumented<Memory>>> = OnceLock::new();
static REFUSES: AtomicBool = AtomicBool::new(false);
static LOOKS: AtomicUsize = AtomicUsize::new(0);

struct Memory;

impl Watch for Memory {
    fn refuses(&self) -> bool {
        REFUSES.load(Relaxed)
    }
}

/// A writer that finds its bucket full looks for an overflow bucket, with its stripe locked: another thread walks the items.
fn look(class: LockClass) {
    let Some(store) = STORE.get().filter(|_| class == LockClass::Overflow) else {
        return;
    };
    LOOKS.fetch_add(1, Relaxed);
    let mut walk = store.walk();
    loop {
        let guard = store.read();
        match walk.next(&guard) {
            WalkStep::Item(item) => {
                let found = store.peek(&guard, item.key(), store.hash(item.key()));
                assert!(found.is_some(), "{item:?} is live and not linked");
            }
            WalkStep::Pause => {}
            WalkStep::End => return,
        }
    }
}

#[test]
fn slot_is_live_only_if_linked() {
    const LOW: u64 = (1 << 10) - 1;
    let config = Config {
        block: 4096,
        item_max: 1024,
        memory: 1 << 20,
        ..Config::default()
    };
    let platform = Instrumented {
        host: Host::new().poison(),
        watch: Memory,
    };
    let store = STORE.get_or_init(|| Store::new(config, platform).ok().unwrap());
    store.tick(100, 1_700_000_000);
    let keys = (0..).map(|i: u32| format!("key-{i}"));
    let mut keys = keys.filter(|key| store.hash(key.as_bytes()).get() & LOW == 0);
    let mut put = |mode| {
        let key = keys.next().unwrap();
        let key = key.as_bytes();
        let new = store.reserve(key, store.hash(key), 0, Expiry::NEVER, 0);
        store.commit(new.unwrap(), &Commit::new(mode)).unwrap()
    };
    for _ in 0..7 {
        put(StoreMode::Set);
    }
    REFUSES.store(true, Relaxed);
    LOCKING.set(Some(look));
    for mode in [StoreMode::Set, StoreMode::Add] {
        assert!(matches!(put(mode), Outcome::Stored { .. }));
    }
    LOCKING.set(None);
    assert_ne!(LOOKS.load(Relaxed), 0);
    assert_eq!(store.classes_counted(ClassCounter::Evicted), 2);
    store.verify().unwrap();
}
