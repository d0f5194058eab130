// SPDX-License-Identifier: GPL-2.0-only
//! Commands that store only over an item, beside `flush`: once it has returned none of them finds one, so the key is
//! absent until it is stored without a condition.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use hippos_store::host::Host;
use hippos_store::{Arith, Commit, Config, Expiry, Outcome, Store, StoreMode};

const KEY: &[u8] = b"flushed";
const CAS: u64 = 7;

/// Flushes beside one command.
const ROUNDS: usize = 40_000;

fn put(store: &Store<Host>, commit: &Commit) -> Outcome {
    let hash = store.hash(KEY);
    let mut new = store.reserve(KEY, hash, 0, Expiry::NEVER, 1).unwrap();
    new.write(b"1");
    store.commit(new, commit).unwrap()
}

/// `HIPPOS_STRESS` lengthens the runs by a factor.
fn rounds() -> usize {
    let factor = std::env::var("HIPPOS_STRESS").ok();
    let factor = factor.and_then(|text| text.parse().ok()).unwrap_or(1);
    ROUNDS * factor
}

fn nothing_survives(what: &str, command: impl Fn(&Store<Host>) + Sync) {
    let store = Store::new(Config::default(), Host::new()).unwrap();
    store.tick(100, 1_700_000_000);
    let (stop, mut survived) = (AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                command(&store);
            }
        });
        let first = Commit {
            new_cas: Some(CAS),
            ..Commit::default()
        };
        for round in 0..rounds() {
            put(&store, &first);
            (0..round % 50).for_each(|_| spin_loop());
            store.flush(0);
            let found = || {
                let guard = store.read();
                store.peek(&guard, KEY, store.hash(KEY)).is_some()
            };
            survived += usize::from((0..100).any(|_| found()));
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(survived, 0, "{what}");
}

#[test]
fn replace_does_not_survive_flush() {
    nothing_survives("replace", |store| {
        put(store, &Commit::new(StoreMode::Replace));
    });
}

#[test]
fn compare_and_swap_does_not_survive_flush() {
    for invalidate in [false, true] {
        nothing_survives("cas", |store| {
            let commit = Commit {
                // An older number stores too, but only over an item.
                compare: Some(CAS - u64::from(invalidate)),
                new_cas: Some(CAS),
                invalidate,
                ..Commit::default()
            };
            put(store, &commit);
        });
    }
}

#[test]
fn append_and_increment_do_not_survive_flush() {
    nothing_survives("append", |store| {
        put(store, &Commit::new(StoreMode::Append));
    });
    nothing_survives("incr", |store| {
        let one = Arith {
            by: 1,
            ..Arith::default()
        };
        store.arith(KEY, store.hash(KEY), &one).unwrap();
    });
}
