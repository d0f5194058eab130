// SPDX-License-Identifier: GPL-2.0-only
//! The store's behaviour at its public interface, one operation at a time.

use hippos_store::host::Host;
use hippos_store::{
    Arith, Arithmetic, ClassCounter, Commit, Config, Deleted, Expiry, Invalidate, ItemChange,
    NewError, Outcome, Store, StoreError, StoreMode, WalkStep,
};

fn store(config: Config) -> Store<Host> {
    let store = Store::new(config, Host::new().poison()).unwrap();
    store.tick(0, 1_700_000_000);
    store
}

/// Eight blocks of 64 KiB.
fn small() -> Config {
    Config {
        memory: 1 << 20,
        block: 64 << 10,
        ..Config::default()
    }
}

fn put(store: &Store<Host>, key: &[u8], value: &[u8], commit: &Commit) -> Outcome {
    put_until(store, key, value, commit, Expiry::NEVER)
}

fn put_until(
    store: &Store<Host>,
    key: &[u8],
    value: &[u8],
    commit: &Commit,
    expiry: Expiry,
) -> Outcome {
    let mut new = store
        .reserve(key, store.hash(key), 7, expiry, value.len())
        .unwrap();
    assert_eq!(new.write(value), value.len());
    assert_eq!(new.remaining(), 0);
    store.commit(new, commit).unwrap()
}

fn set(store: &Store<Host>, key: &[u8], value: &[u8]) -> u64 {
    match put(store, key, value, &Commit::default()) {
        Outcome::Stored { cas, .. } => cas,
        other => panic!("{other:?}"),
    }
}

fn get(store: &Store<Host>, key: &[u8]) -> Option<Vec<u8>> {
    let guard = store.read();
    let item = store.get(&guard, key, store.hash(key))?;
    assert_eq!(item.key(), key);
    Some(item.value().to_vec())
}

#[test]
fn an_item_is_stored_replaced_and_deleted() {
    let store = store(Config::default());
    assert_eq!(get(&store, b"a"), None);
    let first = set(&store, b"a", b"one");
    assert_eq!(get(&store, b"a").unwrap(), b"one");
    let second = set(&store, b"a", b"another");
    assert!(second > first);
    assert_eq!(get(&store, b"a").unwrap(), b"another");
    let hash = store.hash(b"a");
    assert!(matches!(
        store.delete(b"a", hash, Some(first)),
        Deleted::Exists { .. }
    ));
    assert!(matches!(
        store.delete(b"a", hash, Some(second)),
        Deleted::Deleted { .. }
    ));
    assert_eq!(store.delete(b"a", hash, None), Deleted::NotFound);
    assert_eq!(get(&store, b"a"), None);
    assert_eq!(store.snapshot().items, 0);
    assert_eq!(store.snapshot().bytes, 0);
}

#[test]
fn a_verb_stores_only_if_its_condition_holds() {
    let store = store(Config::default());
    let commit = Commit::new;
    let with = |mode, cas| Commit {
        compare: Some(cas),
        ..Commit::new(mode)
    };
    assert_eq!(
        put(&store, b"k", b"1", &commit(StoreMode::Replace)),
        Outcome::NotStored
    );
    assert_eq!(
        put(&store, b"k", b"1", &commit(StoreMode::Append)),
        Outcome::NotStored
    );
    assert_eq!(
        put(&store, b"k", b"1", &with(StoreMode::Set, 5)),
        Outcome::NotFound
    );
    assert!(matches!(
        put(&store, b"k", b"1", &commit(StoreMode::Add)),
        Outcome::Stored { cas: 1, .. }
    ));
    assert_eq!(
        put(&store, b"k", b"2", &commit(StoreMode::Add)),
        Outcome::NotStored
    );
    assert!(matches!(
        put(&store, b"k", b"2", &commit(StoreMode::Replace)),
        Outcome::Stored { cas: 2, .. }
    ));
    assert!(matches!(
        put(&store, b"k", b"3", &with(StoreMode::Set, 1)),
        Outcome::Exists { .. }
    ));
    assert!(matches!(
        put(&store, b"k", b"3", &with(StoreMode::Set, 0)),
        Outcome::Exists { .. }
    ));
    assert!(matches!(
        put(&store, b"k", b"3", &with(StoreMode::Set, 2)),
        Outcome::Stored { cas: 3, .. }
    ));
    assert!(matches!(
        put(&store, b"k", b"45", &commit(StoreMode::Append)),
        Outcome::Stored { cas: 4, .. }
    ));
    assert!(matches!(
        put(&store, b"k", b"12", &with(StoreMode::Prepend, 4)),
        Outcome::Stored { cas: 5, .. }
    ));
    assert!(matches!(
        put(&store, b"k", b"x", &with(StoreMode::Prepend, 4)),
        Outcome::Exists { .. }
    ));
    assert_eq!(get(&store, b"k").unwrap(), b"12345");
    let chosen = Commit {
        new_cas: Some(99),
        ..Commit::default()
    };
    assert!(matches!(
        put(&store, b"k", b"", &chosen),
        Outcome::Stored { cas: 99, .. }
    ));
    assert_eq!(get(&store, b"k").unwrap(), b"");
    let vivify = Commit {
        vivify: true,
        ..Commit::new(StoreMode::Append)
    };
    assert!(matches!(
        put(&store, b"v", b"a", &vivify),
        Outcome::Stored { .. }
    ));
    assert!(matches!(
        put(&store, b"v", b"b", &vivify),
        Outcome::Stored { .. }
    ));
    assert_eq!(get(&store, b"v").unwrap(), b"ab");
}

#[test]
fn numbers_are_incremented_and_decremented() {
    let store = store(Config::default());
    let hash = store.hash(b"n");
    let arith = |decrement, by| {
        store
            .arith(
                b"n",
                hash,
                &Arith {
                    decrement,
                    by,
                    ..Arith::default()
                },
            )
            .unwrap()
    };
    assert_eq!(arith(false, 1), Arithmetic::NotFound);
    set(&store, b"n", b"99");
    let value = |a| match a {
        Arithmetic::Value { value, .. } => value,
        other => panic!("{other:?}"),
    };
    assert_eq!(value(arith(false, 1)), 100);
    assert_eq!(get(&store, b"n").unwrap(), b"100");
    assert_eq!(value(arith(true, 95)), 5);
    assert_eq!(get(&store, b"n").unwrap(), b"5  ");
    assert_eq!(value(arith(false, 2)), 7);
    assert_eq!(get(&store, b"n").unwrap(), b"7  ");
    assert_eq!(value(arith(true, 8)), 0);
    assert_eq!(value(arith(false, u64::MAX)), u64::MAX);
    assert_eq!(value(arith(false, 1)), 0);
    set(&store, b"n", b"x");
    assert_eq!(arith(false, 1), Arithmetic::NonNumeric);
}

#[test]
fn expired_and_flushed_items_are_misses() {
    let store = store(Config::default());
    let set = Commit::default();
    put_until(&store, b"a", b"1", &set, store.expiry(10));
    put_until(&store, b"b", b"1", &set, store.expiry(-1));
    assert!(get(&store, b"a").is_some() && get(&store, b"b").is_none());
    store.tick(9, 1_700_000_009);
    assert_eq!(
        store
            .peek(&store.read(), b"a", store.hash(b"a"))
            .unwrap()
            .snapshot()
            .unwrap()
            .ttl(),
        Some(1)
    );
    assert!(store
        .touch(b"a", store.hash(b"a"), store.expiry(5))
        .is_some());
    store.tick(13, 1_700_000_013);
    assert!(get(&store, b"a").is_some());
    store.tick(14, 1_700_000_014);
    assert!(get(&store, b"a").is_none());
    assert_eq!(store.touch(b"a", store.hash(b"a"), store.expiry(5)), None);
    put(&store, b"c", b"1", &Commit::new(StoreMode::Add));
    store.flush(0);
    assert!(get(&store, b"c").is_none());
    put(&store, b"c", b"2", &Commit::new(StoreMode::Add));
    assert_eq!(get(&store, b"c").unwrap(), b"2");
    store.flush(10);
    assert!(get(&store, b"c").is_some());
    store.tick(24, 1_700_000_024);
    assert!(get(&store, b"c").is_none());
}

#[test]
fn one_client_wins_the_token_of_a_stale_item() {
    let store = store(Config::default());
    let old = set(&store, b"a", b"1");
    let hash = store.hash(b"a");
    assert!(matches!(
        store.invalidate(
            b"a",
            hash,
            &Invalidate {
                compare: Some(old),
                ..Default::default()
            }
        ),
        Deleted::Deleted { .. }
    ));
    {
        let guard = store.read();
        let item = store.get(&guard, b"a", hash).unwrap();
        assert!(item.snapshot().unwrap().stale() && item.cas() > old);
        let take = || {
            let mut won = false;
            store.modify(&guard, b"a", hash, |_, seen| {
                won = !seen.token_sent();
                ItemChange {
                    token: won,
                    ..ItemChange::default()
                }
            });
            won
        };
        assert!(take());
        assert!(!take());
    }
    // A store with an older number succeeds, but the item is stale.
    let late = Commit {
        compare: Some(old),
        invalidate: true,
        ..Commit::default()
    };
    assert!(matches!(
        put(&store, b"a", b"2", &late),
        Outcome::Stored { .. }
    ));
    let guard = store.read();
    let item = store.get(&guard, b"a", hash).unwrap();
    let seen = item.snapshot().unwrap();
    assert!(seen.stale() && seen.token_sent());
}

#[test]
fn a_full_store_evicts_and_goes_on() {
    let store = store(small());
    let mut there = 0;
    for i in 0..50_000u32 {
        set(&store, &i.to_be_bytes(), &i.to_le_bytes().repeat(10));
        assert_eq!(
            get(&store, &i.to_be_bytes()).unwrap(),
            i.to_le_bytes().repeat(10)
        );
    }
    for i in 0..50_000u32 {
        if let Some(value) = get(&store, &i.to_be_bytes()) {
            assert_eq!(value, i.to_le_bytes().repeat(10));
            there += 1;
        }
    }
    let shot = store.snapshot();
    assert_eq!(there, shot.items);
    assert!(shot.held <= shot.limit);
    assert_eq!(50_000 - there, store.classes_counted(ClassCounter::Evicted));
    assert!(there > 7_000, "{there} {shot:?}");
}

#[test]
fn an_item_that_is_too_large_is_refused() {
    let store = store(Config::default());
    let hash = store.hash(b"k");
    let fits = (1 << 20) - 60;
    assert!(store.reserve(b"k", hash, 0, Expiry::NEVER, fits).is_ok());
    let error = store.reserve(b"k", hash, 0, Expiry::NEVER, fits + 1).err();
    assert_eq!(error, Some(StoreError::TooLarge));
    assert!(store.reserve(b"k", hash, 1, Expiry::NEVER, fits).is_err());
    assert!(store
        .reserve(&[b'x'; 251], hash, 0, Expiry::NEVER, 1)
        .is_err());
    assert_eq!(
        Store::new(
            Config {
                memory: 1 << 20,
                ..Config::default()
            },
            Host::new()
        )
        .err(),
        Some(NewError::TooSmall)
    );
}

#[test]
fn a_walk_reports_each_item_once() {
    let store = store(Config::default());
    for i in 0..5_000u32 {
        set(&store, &i.to_be_bytes(), &vec![0; i as usize % 500]);
    }
    let mut seen = vec![0; 5_000];
    let mut walk = store.walk();
    loop {
        let guard = store.read();
        match walk.next(&guard) {
            WalkStep::Item(item) => {
                seen[u32::from_be_bytes(item.key().try_into().unwrap()) as usize] += 1
            }
            WalkStep::Pause => {}
            WalkStep::End => break,
        }
    }
    assert!(seen.iter().all(|n| *n == 1));
}

#[test]
fn a_pinned_value_outlives_its_item() {
    let store = store(small());
    set(&store, b"pinned", &[42; 1000]);
    let pin = {
        let guard = store.read();
        let item = store.get(&guard, b"pinned", store.hash(b"pinned")).unwrap();
        store.pin(&item).unwrap()
    };
    store.delete(b"pinned", store.hash(b"pinned"), None);
    for i in 0..10_000u32 {
        set(&store, &i.to_be_bytes(), &[1; 1000]);
    }
    assert_eq!(pin.value(), [42; 1000]);
}

#[test]
fn an_index_that_grows_loses_and_doubles_nothing() {
    for memory in [64 << 10, 1 << 20] {
        let config = Config {
            memory: 16 << 20,
            block: memory.min(64 << 10),
            ..Config::default()
        };
        let store = store(config);
        for i in 0..100_000u32 {
            let key = format!("key-{i}");
            let stored = put(&store, key.as_bytes(), b"x", &Commit::new(StoreMode::Add));
            assert!(matches!(stored, Outcome::Stored { .. }), "{i}");
            for again in [i, i / 2, i / 3] {
                let key = format!("key-{again}");
                let stored = put(&store, key.as_bytes(), b"x", &Commit::new(StoreMode::Add));
                assert_eq!(stored, Outcome::NotStored, "{again} after {i}");
            }
        }
        assert_eq!(store.snapshot().items, 100_000);
    }
}

/// A chain has at most nine buckets of seven entries, however many overflow buckets are spare: one more item replaces
/// another.
#[test]
fn an_item_more_than_a_chain_holds_replaces_another() {
    const LOW: u64 = (1 << 10) - 1;
    let store = store(Config {
        block: 4096,
        item_max: 1024,
        memory: 1 << 20,
        ..Config::default()
    });
    let keys = (0..).map(|i: u32| format!("key-{i}"));
    let of_one_bucket = keys.filter(|key| store.hash(key.as_bytes()).get() & LOW == 0);
    let keys: Vec<String> = of_one_bucket.take(80).collect();
    for key in &keys {
        set(&store, key.as_bytes(), b"");
        assert!(get(&store, key.as_bytes()).is_some());
    }
    let left = keys
        .iter()
        .filter(|key| get(&store, key.as_bytes()).is_some());
    assert_eq!(left.count(), 63);
    assert_eq!(store.classes_counted(ClassCounter::Evicted), 80 - 63);
    store.verify().unwrap();
}

/// A key's bytes in a received segment may change after they were hashed: the item has the hash of its own key.
#[test]
fn an_item_is_linked_by_the_hash_of_its_copied_key() {
    let store = store(small());
    let hash = store.hash(b"before");
    let mut new = store.reserve(b"behind", hash, 0, Expiry::NEVER, 1).unwrap();
    new.write(b"v");
    store.commit(new, &Commit::default()).unwrap();
    let guard = store.read();
    assert!(store.peek(&guard, b"before", hash).is_none());
    let found = store.peek(&guard, b"behind", store.hash(b"behind"));
    assert!(found.is_some());
    drop(guard);
    store.verify().unwrap();
}
