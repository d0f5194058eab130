// SPDX-License-Identifier: GPL-2.0-only
//! A steady-state hit writes to no memory that CPUs share: it works while the items and the index are write-protected.
//! (It counts in a cache line of its CPU, in a table.) A write would end the test with a fault.

mod instrumented;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::thread;

use hippos_store::host::Host;
use hippos_store::{ClassCounter, Commit, Config, Eviction, KeyWords, OneLineLookup, Store};
use nix::sys::mman::{mprotect, ProtFlags};

use instrumented::{Instrumented, Watch};

/// Remembers the blocks that the store was given.
struct WriteProtector {
    blocks: Mutex<Vec<(usize, usize)>>,
}

impl WriteProtector {
    fn protect(&self, flags: ProtFlags) {
        for &(at, bytes) in &*self.blocks.lock().unwrap() {
            let at = NonNull::new(at as *mut c_void).unwrap();
            // SAFETY: a block of the store's own, of whole pages.
            unsafe { mprotect(at, bytes, flags) }.unwrap();
        }
    }
}

impl Watch for WriteProtector {
    fn given(&self, block: NonNull<u8>, bytes: usize) {
        let mut blocks = self.blocks.lock().unwrap();
        blocks.push((block.as_ptr() as usize, bytes));
    }
}

fn steady(eviction: Eviction) {
    const ITEMS: u32 = 2000;
    const THREADS: u64 = 2;
    let config = Config {
        eviction,
        ..Config::default()
    };
    let freezer = Instrumented {
        host: Host::new().cpus(THREADS as usize),
        watch: WriteProtector {
            blocks: Mutex::default(),
        },
    };
    let store = Store::new(config, freezer).unwrap();
    store.tick(100, 1_700_000_000);
    let key = |i: u32| format!("key-{i:016}").into_bytes();
    let hit_all = |marking: bool| {
        let guard = store.read();
        for i in 0..ITEMS {
            let key = key(i);
            let item = store
                .get(&guard, &key, store.hash(&key))
                .expect("it is there");
            store.count_single_hit(store.cpu(), item.class());
            let words = KeyWords::new(&key).unwrap();
            assert!(
                marking || matches!(store.lookup_one_line(&guard, &words), OneLineLookup::Hit(_))
            );
            let mut lookup = store.begin_lookup(&guard, store.hash(&key));
            store.advance_lookup(&guard, &mut lookup);
            let (item, marks) = store
                .finish_lookup(&guard, &key, &lookup)
                .expect("it is there");
            assert!(marking || !marks);
            if marks {
                store.bump(&item);
            }
        }
    };
    for i in 0..ITEMS {
        let key = key(i);
        let (hash, expiry) = (store.hash(&key), store.expiry(1000));
        let mut slot = store.reserve(&key, hash, i, expiry, 20).unwrap();
        slot.write(b"01234567890123456789");
        store.commit(slot, &Commit::default()).unwrap();
    }
    // The first hits set marks; the policy with the highest count counts to three.
    hit_all(true);
    hit_all(true);
    store.platform().watch.protect(ProtFlags::PROT_READ);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| hit_all(false));
        }
    });
    let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    store.platform().watch.protect(both);
    let hits = store.classes_counted(ClassCounter::GetHits);
    assert_eq!(hits, u64::from(ITEMS) * (2 + THREADS));
}

#[test]
fn a_steady_hit_writes_to_nothing_shared() {
    for eviction in [Eviction::Clock, Eviction::Sieve, Eviction::S3Fifo] {
        steady(eviction);
    }
}
