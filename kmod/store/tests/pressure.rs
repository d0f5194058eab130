// SPDX-License-Identifier: GPL-2.0-only
//! Writers under memory pressure: the work of one write is bounded, its grace periods included, independently of the
//! memory that other callers hold.

mod instrumented;

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use hippos_store::host::Host;
use hippos_store::{
    Arith, Arithmetic, ClassCounter, Commit, Config, Cookie, Eviction, Expiry, Outcome, Pin, Store,
    StoreError, StoreMode,
};

use instrumented::{Instrumented, Watch};

const BLOCK: usize = 64 << 10;

/// Counts grace periods and polls for them since `restart`, and fails the test when there are too many of either,
/// because an endless loop would not end by itself.
#[derive(Default)]
struct Count {
    waits: AtomicUsize,
    polls: AtomicUsize,
    /// Grace periods last until a thread sleeps for one, which is close to the kernel's behaviour.
    long: AtomicBool,
    passed: AtomicU64,
}

impl Count {
    const MOST: usize = 100_000;

    fn restart(&self) {
        self.waits.store(0, Relaxed);
        self.polls.store(0, Relaxed);
    }

    fn waits(&self) -> usize {
        self.waits.load(Relaxed)
    }
}

impl Watch for Count {
    fn given(&self, _block: NonNull<u8>, _bytes: usize) {}
    fn asked(&self) {}
    fn waited(&self, cookie: Cookie) {
        self.passed.fetch_max(cookie.0, Relaxed);
        assert!(self.waits.fetch_add(1, Relaxed) < Self::MOST, "no end");
    }
    fn polled(&self, cookie: Cookie) -> bool {
        assert!(self.polls.fetch_add(1, Relaxed) < Self::MOST, "no end");
        !self.long.load(Relaxed) || cookie.0 <= self.passed.load(Relaxed)
    }
}

type Counted = Instrumented<Count>;

fn make(config: Config) -> Store<Counted> {
    let platform = Instrumented {
        host: Host::new().cpus(1),
        watch: Count::default(),
    };
    Store::new(config, platform).unwrap()
}

fn small(blocks: usize) -> Store<Counted> {
    small_with(blocks, Config::default().eviction)
}

fn small_with(blocks: usize, eviction: Eviction) -> Store<Counted> {
    make(Config {
        memory: blocks * BLOCK,
        block: BLOCK,
        item_max: BLOCK,
        eviction,
        ..Config::default()
    })
}

fn set(store: &Store<Counted>, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let mut new = store.reserve(key, store.hash(key), 0, Expiry::NEVER, value.len())?;
    new.write(value);
    let outcome = store.commit(new, &Commit::default())?;
    assert!(matches!(outcome, Outcome::Stored { .. }));
    Ok(())
}

fn pin<'s>(store: &'s Store<Counted>, key: &[u8]) -> Pin<'s, Counted> {
    let guard = store.read();
    let item = store.get(&guard, key, store.hash(key)).unwrap();
    store.pin(&item).unwrap()
}

/// Free slots of all classes.
fn free(store: &Store<Counted>) -> u64 {
    let classes = store.snapshot().classes;
    (0..classes).map(|i| store.class(i).unwrap().free).sum()
}

/// Stores values, pins each and overwrites it, as with slow readers.
fn pin_retired(store: &Store<Counted>, count: usize) -> Vec<Pin<'_, Counted>> {
    let value = vec![7; 3000];
    let pins = (0..count).map(|i| {
        let key = format!("slow-{i}");
        assert_eq!(set(store, key.as_bytes(), &value), Ok(()), "{key}");
        let pin = pin(store, key.as_bytes());
        assert_eq!(set(store, key.as_bytes(), &value), Ok(()), "{key}");
        pin
    });
    pins.collect()
}

/// Readers pin as many replaced values as a CPU's ring of retired slots holds: writers do not wait for the readers.
#[test]
fn a_writer_does_not_wait_for_a_ring_of_pinned_slots() {
    let store = small(2048);
    let pins = pin_retired(&store, 8000);
    store.platform().watch.restart();
    for i in 0..200 {
        set(&store, format!("slow-{i}").as_bytes(), &[8; 3000]).unwrap();
    }
    assert!(store.platform().watch.waits() <= 20);
    assert!(pins.iter().all(|pin| pin.value() == [7; 3000]));
    let before = free(&store);
    drop(pins);
    for _ in 0..10 {
        store.maintain();
    }
    assert!(free(&store) >= before + 8000, "{before} {}", free(&store));
}

/// Maintenance ends its step even if a whole batch of retired slots is pinned, and then is idle; the last reader frees
/// its slot.
#[test]
fn maintenance_rests_while_slots_are_pinned() {
    for count in [1, 5, 62, 300] {
        let store = small(256);
        let pins = pin_retired(&store, count);
        for _ in 0..10 {
            store.maintain();
        }
        assert_eq!(store.maintain().next_ms, 250, "{count} pinned");
        assert_eq!(store.snapshot().retired, 0);
        assert_eq!(store.snapshot().pinned, count);
        let before = free(&store);
        drop(pins);
        assert_eq!(free(&store) as usize, before as usize + count);
        assert_eq!(store.snapshot().pinned, 0);
    }
}

/// Two readers pin one value: the second unpin frees the slot.
#[test]
fn a_slot_comes_back_with_its_last_pin() {
    let store = small(256);
    set(&store, b"key", &[1; 3000]).unwrap();
    let (one, two) = (pin(&store, b"key"), pin(&store, b"key"));
    set(&store, b"key", &[2; 3000]).unwrap();
    for _ in 0..4 {
        store.maintain();
    }
    let before = free(&store);
    drop(one);
    assert_eq!((free(&store), two.value()), (before, &[1; 3000][..]));
    drop(two);
    assert_eq!(free(&store), before + 1);
}
/// Connections announce values and send no data: another writer is served or refused after a few grace periods.
#[test]
fn unfinished_values_cost_other_writers_few_grace_periods() {
    let store = make(Config::default());
    let reserve = |i: usize| {
        let key = format!("big{i}");
        let hash = store.hash(key.as_bytes());
        store.reserve(key.as_bytes(), hash, 0, Expiry::NEVER, 1_000_000)
    };
    let held: Vec<_> = (0..70).map_while(|i| reserve(i).ok()).collect();
    assert!(held.len() > 50, "{}", held.len());
    let watch = &store.platform().watch;
    watch.long.store(true, Relaxed);
    watch.restart();
    let mut most = 0;
    let mut refused = 0;
    for i in 0..400 {
        let before = watch.waits();
        refused += usize::from(set(&store, format!("key-{i}").as_bytes(), &[1; 5000]).is_err());
        most = most.max(watch.waits() - before);
    }
    println!(
        "{} values, {refused} refused, {} grace periods, {most} at most",
        held.len(),
        watch.waits()
    );
    assert!(most <= 16, "{most} grace periods for one write");
    assert!(watch.waits() <= 800, "{} grace periods", watch.waits());
    // Writers are served again as soon as the values are given up.
    drop(held);
    for i in 0..40 {
        set(&store, format!("key-{i}").as_bytes(), &[1; 5000]).unwrap();
    }
}

/// An upload that has stalled holds the only slot of its class. The class takes a slab from classes that are read a
/// lot, so that the next large value is stored.
#[test]
fn a_class_whose_only_slot_is_reserved_gets_another_slab() {
    let store = small(16);
    let keys: Vec<_> = (0..20_000).map(|i| format!("small-{i}")).collect();
    for key in &keys {
        set(&store, key.as_bytes(), &[1; 40]).unwrap();
    }
    let large = vec![2; BLOCK * 3 / 4];
    set(&store, b"large", &large).unwrap();
    for _ in 0..4 {
        for key in &keys {
            let guard = store.read();
            if let Some(item) = store.get(&guard, key.as_bytes(), store.hash(key.as_bytes())) {
                store.count_class(item.class(), ClassCounter::GetHits, 1);
            }
        }
    }
    let stalled = store
        .reserve(
            b"stalled",
            store.hash(b"stalled"),
            0,
            Expiry::NEVER,
            large.len(),
        )
        .unwrap();
    assert_eq!(set(&store, b"large", &large), Ok(()));
    drop(stalled);
}

/// A cache full of small items, and their keys.
fn full_of_small(blocks: usize) -> (Store<Counted>, Vec<String>) {
    let store = small(blocks);
    let keys = fill_with_small(&store);
    (store, keys)
}

/// Stores more small items than fit, and returns their keys.
fn fill_with_small(store: &Store<Counted>) -> Vec<String> {
    let keys: Vec<_> = (0..40_000).map(|i| format!("small-{i}")).collect();
    for key in &keys {
        set(store, key.as_bytes(), &[1; 40]).unwrap();
    }
    keys
}

/// A cache whose slabs of small items became empty by a flush, and are spare.
fn with_spare_slabs(blocks: usize) -> Store<Counted> {
    let (store, _) = full_of_small(blocks);
    store.tick(200, 1_700_000_100);
    store.flush(0);
    maintain(&store, 200);
    store
}

/// Runs maintenance for ten seconds: it counts the spare slabs once a second.
fn maintain(store: &Store<Counted>, since: u32) {
    for second in since..since + 10 {
        store.tick(second, 1_700_000_000 + i64::from(second));
        (0..1000).for_each(|_| {
            store.maintain();
        });
    }
}

static LARGE: [u8; BLOCK * 3 / 4] = [2; BLOCK * 3 / 4];

/// The keys that have an item.
fn found<'k>(store: &Store<Counted>, keys: &[&'k str]) -> Vec<&'k str> {
    let guard = store.read();
    let has = |key: &&&str| {
        let key = key.as_bytes();
        store.peek(&guard, key, store.hash(key)).is_some()
    };
    keys.iter().filter(has).copied().collect()
}

/// Slabs of small items that became empty, by a flush, are used for large values, none of which is evicted.
#[test]
fn slabs_that_other_classes_have_emptied_are_used_before_an_item_is_evicted() {
    let store = with_spare_slabs(16);
    let large = ["large-1", "large-2", "large-3"];
    for key in large {
        set(&store, key.as_bytes(), &LARGE).unwrap();
    }
    assert_eq!(found(&store, &large), large);
}

/// Each large value needs a slab of its own: they are moved several at a time, so that few writes wait.
#[test]
fn spare_slabs_are_moved_with_few_grace_periods() {
    let store = with_spare_slabs(64);
    store.platform().watch.restart();
    for i in 0..32 {
        set(&store, format!("large-{i}").as_bytes(), &LARGE).unwrap();
    }
    assert!(store.platform().watch.waits() <= 4);
    store.verify().unwrap();
}

/// Free slots that are scattered over slabs with items cost no such item: a large value evicts one of its own class.
#[test]
fn a_class_that_can_evict_takes_no_slab_with_items() {
    let (store, keys) = full_of_small(16);
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    for key in found(&store, &keys).iter().step_by(4) {
        store.delete(key.as_bytes(), store.hash(key.as_bytes()), None);
    }
    store.maintain();
    assert!(free(&store) > 3 * (BLOCK as u64) / 100);
    let before = found(&store, &keys).len();
    for key in ["large-1", "large-2", "large-3"] {
        set(&store, key.as_bytes(), &LARGE).unwrap();
        assert_eq!(found(&store, &[key]), [key]);
    }
    assert_eq!(found(&store, &keys).len(), before);
}

/// A class with a reserve does not evict for it either while a slab of another class is empty.
#[test]
fn a_reserve_is_not_refilled_by_eviction_while_another_class_has_an_empty_slab() {
    let (store, _) = full_of_small(16);
    let medium: Vec<_> = (0..200).map(|i| format!("medium-{i}")).collect();
    for key in &medium {
        set(&store, key.as_bytes(), &[3; 3000]).unwrap();
    }
    store.tick(200, 1_700_000_100);
    store.flush(0);
    maintain(&store, 200);
    let evicted = || store.classes_counted(ClassCounter::Evicted);
    let before = evicted();
    for key in &medium {
        set(&store, key.as_bytes(), &[3; 3000]).unwrap();
    }
    let keys: Vec<_> = medium.iter().map(String::as_str).collect();
    assert_eq!(found(&store, &keys), keys);
    assert_eq!(evicted(), before);
}

/// A class keeps the slabs that it works with: other classes take an empty one that it has not used between two counts.
#[test]
fn an_empty_slab_is_taken_only_when_its_class_has_not_used_it_for_a_second() {
    let (store, _) = full_of_small(16);
    set(&store, b"large", &LARGE).unwrap();
    let large = {
        let guard = store.read();
        let found = store.get(&guard, b"large", store.hash(b"large"));
        found.unwrap().class()
    };
    let slabs = || store.class(large).unwrap().slabs;
    let write_small = |round: u32| {
        for i in 0..4000 {
            set(&store, format!("next-{round}-{i}").as_bytes(), &[1; 40]).unwrap();
        }
    };
    // So many reads that maintenance moves no slab of the class by itself.
    store.count_class(large, ClassCounter::GetHits, 1 << 40);
    store.delete(b"large", store.hash(b"large"), None);
    for (second, kept) in [(200, 1), (201, 0)] {
        store.tick(second, 1_700_000_100);
        store.maintain();
        write_small(second);
        assert_eq!(slabs(), kept, "second {second}");
    }
}

/// A store full of small items, with a slab of the smallest class, which has free slots.
fn filled_with_small(eviction: Eviction) -> Store<Counted> {
    let store = small_with(16, eviction);
    set(&store, b"tiny", b"t").unwrap();
    fill_with_small(&store);
    store
}

/// The only item of its class needs memory for its new value: items of other classes make place for it.
#[test]
fn an_append_keeps_its_own_item() {
    for eviction in Eviction::ALL {
        let store = filled_with_small(eviction);
        let hash = store.hash(b"large");
        let mut part = store.reserve(b"large", hash, 0, Expiry::NEVER, 1).unwrap();
        part.write(b"x");
        set(&store, b"large", &LARGE).unwrap();
        let outcome = store.commit(part, &Commit::new(StoreMode::Append));
        let stored = matches!(outcome, Ok(Outcome::Stored { .. }));
        assert!(stored, "{eviction:?}: {outcome:?}");
    }
}

/// As for an append.
#[test]
fn an_increment_keeps_its_own_item() {
    // A number, and blanks.
    let mut number = vec![b' '; BLOCK * 3 / 4];
    number[0] = b'7';
    let by = Arith {
        by: 1,
        ..Arith::default()
    };
    for eviction in Eviction::ALL {
        let store = filled_with_small(eviction);
        set(&store, b"large", &number).unwrap();
        let got = store.arith(b"large", store.hash(b"large"), &by).unwrap();
        let found = matches!(got, Arithmetic::Value { .. });
        assert!(found, "{eviction:?}: {got:?}");
    }
}

/// A write that gets no memory otherwise replaces the only item that could be evicted: its own.
#[test]
fn a_set_replaces_its_own_item_where_nothing_else_can_be_evicted() {
    for eviction in Eviction::ALL {
        let store = small_with(16, eviction);
        set(&store, b"large", &[b'1'; BLOCK * 3 / 4]).unwrap();
        let value = vec![9; BLOCK * 3 / 4];
        let mut held = Vec::new();
        while store.snapshot().held + store.block_size() <= store.allowed() {
            let hash = store.hash(b"held");
            let new = store.try_reserve(b"held", hash, 0, Expiry::NEVER, value.len());
            held.extend(new.ok());
        }
        assert_eq!(set(&store, b"large", &value), Ok(()), "{eviction:?}");
    }
}
