// SPDX-License-Identifier: GPL-2.0-only
//! Memory: the limit is kept, memory moves to the item sizes in use, and a platform without free memory does not cost
//! any item.

use hippos_store::host::Host;
use hippos_store::{
    ClassCounter, Commit, Config, Counter, Eviction, Expiry, NewError, Outcome, Store, StoreError,
    WalkStep,
};

const BLOCK: usize = 64 << 10;

fn config(blocks: usize) -> Config {
    Config {
        memory: blocks * BLOCK,
        block: BLOCK,
        item_max: BLOCK,
        ..Config::default()
    }
}

fn set(store: &Store<Host>, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let mut new = store.reserve(key, store.hash(key), 0, Expiry::NEVER, value.len())?;
    new.write(value);
    let outcome = store.commit(new, &Commit::default())?;
    assert!(matches!(outcome, Outcome::Stored { .. }));
    Ok(())
}

fn has(store: &Store<Host>, key: &[u8]) -> bool {
    store.get(&store.read(), key, store.hash(key)).is_some()
}

struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Approximates a Zipf distribution with exponent 1: the logarithm of the rank is uniform.
    fn zipf(&mut self, n: f64) -> u32 {
        n.powf(self.unit()) as u32
    }
}

/// Requests values of `len` bytes, and stores after each miss. Returns the hits of each window of 1000 requests.
fn serve(store: &Store<Host>, keys: f64, len: usize, requests: usize) -> Vec<usize> {
    let value = vec![b'v'; len];
    let mut random = Random(7);
    let mut windows = Vec::new();
    for i in 0..requests {
        if i % 1000 == 0 {
            windows.push(0);
        }
        let key = format!("{len}-{}", random.zipf(keys));
        let hash = store.hash(key.as_bytes());
        let class = store
            .get(&store.read(), key.as_bytes(), hash)
            .map(|item| item.class());
        match class {
            Some(class) => {
                store.count_class(class, ClassCounter::GetHits, 1);
                *windows.last_mut().unwrap() += 1;
            }
            None => set(store, key.as_bytes(), &value).unwrap(),
        }
        if i % 64 == 0 {
            store.maintain();
        }
    }
    windows
}

/// The workload of a cache full of small values changes to large ones.
fn turn(eviction: Eviction) {
    const OPERATIONS: usize = 5_000;
    let make = || {
        Store::new(
            Config {
                eviction,
                ..config(256)
            },
            Host::new(),
        )
        .unwrap()
    };
    let (old, fresh) = (make(), make());
    serve(&old, 400_000.0, 100, 400_000);
    assert!(old.classes_counted(ClassCounter::Evicted) > 0);
    let index = old.snapshot().index;

    let turned = serve(&old, 20_000.0, 4096, OPERATIONS + 20_000);
    let anew = serve(&fresh, 20_000.0, 4096, OPERATIONS + 20_000);
    // Measured over the twenty windows after that number of operations.
    let sum = |windows: &[usize]| windows[OPERATIONS / 1000..].iter().sum::<usize>();
    let (a, b) = (sum(&turned), sum(&anew));
    let reached = turned.iter().zip(&anew).position(|(t, f)| t * 10 >= f * 9);
    println!("{eviction:?}: {a} hits, fresh {b}, within a tenth from window {reached:?} on");
    println!(
        "  moves {}, index {index} -> {}",
        old.counted(Counter::Moves),
        old.snapshot().index
    );
    assert!(a * 10 >= b * 9, "{turned:?}\n{anew:?}");
}

#[test]
fn memory_turns_to_other_sizes_under_clock() {
    turn(Eviction::Clock);
}

#[test]
fn memory_turns_to_other_sizes_under_sieve() {
    turn(Eviction::Sieve);
}

#[test]
fn memory_turns_to_other_sizes_under_s3fifo() {
    turn(Eviction::S3Fifo);
}

/// Values of any size can be stored when another size occupies all memory.
#[test]
fn a_class_without_a_slab_gets_one() {
    let store = Store::new(config(8), Host::new()).unwrap();
    for len in [50, 9000, 20, 60_000, 300, 1, 30_000, 2000] {
        let value = vec![1; len];
        for i in 0..2000 {
            set(&store, format!("{len}-{i}").as_bytes(), &value).unwrap();
        }
        assert!(has(&store, format!("{len}-1999").as_bytes()));
        let shot = store.snapshot();
        assert!(shot.held <= shot.limit, "{shot:?}");
    }
}

/// The platform refuses blocks long before the limit is reached: the store works with the blocks that it has.
#[test]
fn allocation_failure_keeps_the_store_working() {
    for allowed in 0..12 {
        let host = Host::new();
        host.allow_blocks(allowed);
        let store = match Store::new(config(64), host) {
            Ok(store) => store,
            Err(error) => {
                assert_eq!((error, allowed), (NewError::OutOfMemory, 0));
                continue;
            }
        };
        let mut stored = 0;
        for i in 0..20_000 {
            match set(&store, format!("key-{i}").as_bytes(), &[7; 100]) {
                Ok(()) => {
                    stored += 1;
                    assert!(has(&store, format!("key-{i}").as_bytes()));
                }
                Err(error) => assert_eq!(error, StoreError::OutOfMemory),
            }
        }
        let shot = store.snapshot();
        assert!(shot.held <= allowed * BLOCK, "{shot:?}");
        // One block is the index's; with a second block all stores succeed.
        assert_eq!(stored != 0, allowed > 1);
        if allowed > 1 {
            assert_eq!(stored, 20_000);
        }
        // More blocks become available: the store takes them when it asks again.
        store.platform().allow_blocks(1000);
        if allowed == 1 {
            assert_eq!(set(&store, b"without a slab", &[7; 100]), Ok(()));
        }
        store.tick(10, 1_700_000_010);
        store.maintain();
        for i in 0..20_000 {
            set(&store, format!("key-{i}").as_bytes(), &[7; 100]).unwrap();
        }
        assert!((0..20_000).all(|i| has(&store, format!("key-{i}").as_bytes())));
    }
}

/// A lower limit is reached in a bounded number of steps, without any action by writers; a higher limit is used.
#[test]
fn the_limit_can_be_moved() {
    let store = Store::new(
        Config {
            memory_max: 512 * BLOCK,
            ..config(256)
        },
        Host::new(),
    )
    .unwrap();
    let fill = || {
        for i in 0..150_000 {
            set(&store, format!("key-{i}").as_bytes(), &[7; 60]).unwrap();
            if i % 64 == 0 {
                store.maintain();
            }
        }
    };
    fill();
    let full = store.snapshot();
    assert!(full.held > 200 * BLOCK);
    assert!(store.resize(16 * BLOCK));
    let mut steps = 0;
    while store.snapshot().held > 16 * BLOCK {
        store.maintain();
        steps += 1;
        assert!(steps < 500, "{:?}", store.snapshot());
    }
    println!("{} blocks given back in {steps} steps", 256 - 16);
    let shot = store.snapshot();
    assert!(shot.items > 5_000, "{shot:?}");
    assert!(has(&store, b"key-0") || shot.items < full.items);
    fill();
    assert!(store.snapshot().held <= 16 * BLOCK);
    assert!(store.resize(512 * BLOCK));
    fill();
    assert!((0..150_000).all(|i| has(&store, format!("key-{i}").as_bytes())));
    assert!(!store.resize(BLOCK) && !store.resize(513 * BLOCK));
}

/// Expired and flushed items are reclaimed without a request for them, unless the crawler is stopped.
#[test]
fn crawler_reclaims_expired_items() {
    let store = Store::new(config(64), Host::new()).unwrap();
    store.tick(0, 1_700_000_000);
    for i in 0..10_000 {
        let key = format!("key-{i}");
        let expiry = store.expiry(if i % 2 == 0 { 5 } else { 0 });
        let new = store
            .reserve(key.as_bytes(), store.hash(key.as_bytes()), 0, expiry, 9)
            .unwrap();
        store.commit(new, &Commit::default()).unwrap();
    }
    assert_eq!(store.snapshot().items, 10_000);
    store.tick(20, 1_700_000_020);
    assert!(store.set_crawler(false));
    for _ in 0..100 {
        store.maintain();
    }
    assert_eq!(store.snapshot().items, 10_000);
    assert!(!store.set_crawler(true));
    for _ in 0..100 {
        store.maintain();
    }
    assert_eq!(store.snapshot().items, 5_000);
    assert_eq!(store.classes_counted(ClassCounter::Reclaimed), 5_000);
    assert_eq!(store.classes_counted(ClassCounter::ExpiredUnfetched), 5_000);
    store.flush(0);
    for _ in 0..100 {
        store.maintain();
    }
    assert_eq!(store.snapshot().items, 0);
    assert_eq!(store.classes_counted(ClassCounter::Evicted), 0);
}

/// Retired memory stays within its share while a reader delays all grace periods; writers then get an error, and no
/// memory beyond the limit.
#[test]
fn retired_memory_is_bounded() {
    let store = &Store::new(config(64), Host::new()).unwrap();
    let keys: Vec<String> = (0..100).map(|i| format!("key-{i}")).collect();
    for key in &keys {
        set(store, key.as_bytes(), &[1; 1000]).unwrap();
    }
    std::thread::scope(|scope| {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let (ready, begun) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let _guard = store.read();
            ready.send(()).unwrap();
            let _ = held.recv();
        });
        begun.recv().unwrap();
        let writer = scope.spawn(|| {
            // Far more than the bound, so that the writer has to wait for the reader.
            for round in 0..100u8 {
                for key in &keys {
                    set(store, key.as_bytes(), &[round; 1000]).unwrap();
                }
            }
        });
        // Wait until the writer is blocked: the counters do not change for a while.
        let mut last = (0, 0);
        let mut still = 0;
        while still < 50 {
            std::thread::sleep(std::time::Duration::from_millis(2));
            let shot = store.snapshot();
            let now = (shot.retired, shot.retired_bytes);
            still = if now == last && now.0 != 0 {
                still + 1
            } else {
                0
            };
            last = now;
        }
        let most = 64 * BLOCK / 16;
        assert!(last.1 <= (most + (512 << 10)) as u64, "{last:?}");
        assert!(!writer.is_finished());
        drop(hold);
        writer.join().unwrap();
    });
    assert!(keys.iter().all(|key| has(store, key.as_bytes())));
}

/// Many writers of all sizes while memory is full, with hardly more slabs than sizes and writers: each writer gets a
/// slot, even if other writers are often faster.
#[test]
fn writers_are_served_under_memory_pressure() {
    const WRITERS: u64 = 12;
    const SETS: u64 = 400;
    let store = &Store::new(config(28), Host::new()).unwrap();
    let start = &std::sync::Barrier::new(WRITERS as usize);
    let refused: usize = std::thread::scope(|scope| {
        let writer = |seed| {
            scope.spawn(move || {
                let value = vec![b'v'; 8000];
                let mut random = Random(seed);
                start.wait();
                let refused = (0..SETS).filter(|_| {
                    let key = format!("{seed}-{}", random.zipf(1e5));
                    let hash = store.hash(key.as_bytes());
                    let len = 50.0 * 160f64.powf(random.unit());
                    let new = store.reserve(key.as_bytes(), hash, 0, Expiry::NEVER, len as usize);
                    // As when a value arrives in pieces.
                    std::thread::yield_now();
                    let stored = new.and_then(|mut new| {
                        new.write(&value);
                        store.commit(new, &Commit::default())
                    });
                    stored.is_err()
                });
                refused.count()
            })
        };
        let writers: Vec<_> = (0..WRITERS).map(writer).collect();
        writers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    assert_eq!(refused, 0);
    assert_ne!(store.classes_counted(ClassCounter::Evicted), 0);
}

/// A walk pauses while its slab becomes another class's. Where the next small item would start, there is then a part of
/// a large value, which looks like a header.
#[test]
fn walk_rejects_stale_offset_after_slab_reuse() {
    let mut header = [0u8; 32];
    // The lengths and state of a linked item with a key of 250 bytes.
    header[16] = 250;
    header[29] = 2;
    let large = header.repeat(600);
    for rest in 0..40 {
        let store = Store::new(config(4), Host::new()).unwrap();
        for i in 0..3000 {
            set(&store, format!("small-{i:04}").as_bytes(), b"").unwrap();
        }
        let mut walk = store.walk();
        for _ in 0..rest * 50 {
            walk.next(&store.read());
        }
        for i in 0..60 {
            set(&store, format!("large-{i:02}").as_bytes(), &large).unwrap();
            store.maintain();
        }
        let mut large = 0;
        loop {
            let guard = store.read();
            match walk.next(&guard) {
                WalkStep::Item(item) => match item.key().len() {
                    10 => assert!(item.key().starts_with(b"small-")),
                    8 => large += usize::from(item.key().starts_with(b"large-")),
                    len => panic!("a key of {len} bytes, {rest} steps on"),
                },
                WalkStep::Pause => {}
                WalkStep::End => break,
            }
        }
        assert!(rest > 0 || large > 0, "no slab has changed hands");
    }
}

/// Sections are short whatever a walk meets: it pauses after 256 slots, live or not.
#[test]
fn a_walk_pauses_among_live_items_too() {
    let store = Store::new(config(8), Host::new()).unwrap();
    for i in 0..2000 {
        set(&store, format!("key-{i:04}").as_bytes(), b"").unwrap();
    }
    let mut walk = store.walk();
    let (mut items, mut since, mut most) = (0, 0, 0);
    loop {
        match walk.next(&store.read()) {
            WalkStep::Item(_) => {
                items += 1;
                since += 1;
                most = most.max(since);
            }
            WalkStep::Pause => since = 0,
            WalkStep::End => break,
        }
    }
    assert_eq!(items, 2000);
    assert!(most <= 256, "{most} items in one section");
}

/// A reader is slow to read a value that was replaced: its slot is unavailable meanwhile, and the class continues to
/// evict other items.
#[test]
fn pinned_slots_are_not_counted_on() {
    let store = Store::new(config(8), Host::new()).unwrap();
    let value = vec![7; 60_000];
    for i in 0..20 {
        set(&store, format!("key-{i}").as_bytes(), &value).unwrap();
    }
    let pins: Vec<_> = (18..20)
        .map(|i| {
            let key = format!("key-{i}");
            let guard = store.read();
            let item = store.get(&guard, key.as_bytes(), store.hash(key.as_bytes()));
            store.pin(&item.unwrap()).unwrap()
        })
        .collect();
    for i in (18..20).chain(30..50) {
        let key = format!("key-{i}");
        assert_eq!(set(&store, key.as_bytes(), &value), Ok(()), "{key}");
    }
    drop(pins);
    for _ in 0..10 {
        store.maintain();
    }
    let classes = store.snapshot().classes;
    let retired = |class| store.class(class).unwrap().retired;
    assert_eq!((0..classes).map(retired).sum::<u32>(), 0);
}

/// The platform is short of memory: the store returns blocks, takes none meanwhile, and grows to its limit again
/// afterwards.
#[test]
fn memory_is_returned_under_pressure() {
    let store = Store::new(config(256), Host::new()).unwrap();
    let fill = || {
        for i in 0..60_000 {
            set(&store, format!("key-{i}").as_bytes(), &[7; 300]).unwrap();
            if i % 64 == 0 {
                store.maintain();
            }
        }
    };
    fill();
    let full = store.snapshot();
    assert!(full.held > 240 * BLOCK, "{full:?}");
    let target = full.held - 100 * BLOCK;
    for _ in 0..2000 {
        let lack = store.snapshot().held.saturating_sub(target) as isize;
        store.platform().set_spare(-lack);
        store.maintain();
    }
    let short = store.snapshot();
    assert!(
        (target - 8 * BLOCK..=target).contains(&short.held),
        "{short:?}"
    );
    assert!(
        short.allowed < short.limit && short.items > 5_000,
        "{short:?}"
    );
    fill();
    assert!(store.snapshot().held <= short.held);
    // The store keeps a minimum, however much memory the platform asks for.
    store.platform().set_spare(isize::MIN);
    for _ in 0..2000 {
        store.maintain();
    }
    assert_eq!(store.snapshot().held, 8 << 20);
    store.platform().set_spare(1 << 30);
    store.maintain();
    fill();
    let again = store.snapshot();
    assert!(
        again.held > 240 * BLOCK && again.allowed == again.limit,
        "{again:?}"
    );
}

/// The workload of a cache changes from large values that are read to small ones that are only written, at a high rate:
/// the evictions of small items are then the only sign that their class needs memory.
fn turn_by_writes(eviction: Eviction) {
    const SETS: usize = 300_000;
    let config = Config {
        eviction,
        ..Config::default()
    };
    let store = Store::new(config, Host::new()).unwrap();
    serve(&store, 100_000.0, 4096, 150_000);
    let large = store.snapshot();
    assert!(large.held > 60 << 20, "{large:?}");
    // About 250 sets a millisecond; maintenance runs when it asked to or was woken.
    let mut due = 0;
    for i in 0..SETS {
        set(&store, format!("small-{i}").as_bytes(), &[7; 100]).unwrap();
        if i % 1000 == 0 {
            let now = i / 250;
            if store.platform().take_wake() || now >= due {
                due = now + (store.maintain().next_ms as usize).max(4);
            }
        }
    }
    let small = (0..SETS)
        .filter(|i| has(&store, format!("small-{i}").as_bytes()))
        .count();
    println!("{eviction:?}: {small} of {SETS} small values are held");
    assert!(small >= SETS / 2, "{small}");
}

#[test]
fn memory_moves_to_write_only_class() {
    for eviction in [Eviction::Clock, Eviction::Sieve, Eviction::S3Fifo] {
        turn_by_writes(eviction);
    }
}

/// The platform refuses blocks below the limit: memory moves between the classes as it does at the limit.
#[test]
fn memory_moves_while_the_platform_refuses_blocks() {
    let kept = |limit: usize, blocks: usize| {
        let host = Host::new().cpus(1);
        host.allow_blocks(blocks);
        let store = Store::new(config(limit), host).unwrap();
        store.tick(100, 1_700_000_000);
        for i in 0..60_000 {
            set(&store, format!("small-{i}").as_bytes(), &[1; 60]).unwrap();
        }
        let waits = store.counted(Counter::Waits);
        for i in 0..2000 {
            set(&store, format!("large-{i}").as_bytes(), &[2; 5000]).unwrap();
            store.maintain();
            // The platform is asked again now and then.
            store.tick(100 + i / 100, 1_700_000_000);
        }
        let kept = (0..2000).filter(|i| has(&store, format!("large-{i}").as_bytes()));
        (kept.count(), store.counted(Counter::Waits) - waits)
    };
    let (full, _) = kept(32, usize::MAX);
    let (refused, waits) = kept(64, 31);
    println!("{full} values kept at the limit, {refused} below it, {waits} grace periods");
    assert!(refused * 2 > full, "{refused} of {full}");
    assert!(waits < 200, "{waits} grace periods");
}

/// memcached shows the age of the tail of its list of all items: of the item that goes next.
#[test]
fn tail_age_is_of_the_item_accessed_longest_ago() {
    for eviction in [Eviction::Clock, Eviction::Sieve, Eviction::S3Fifo] {
        let config = Config {
            eviction,
            ..config(16)
        };
        let store = Store::new(config, Host::new()).unwrap();
        assert_eq!(store.tail_age(0), 0, "a class without slabs");
        assert_eq!(store.tail_age(1000), 0, "no class");
        store.tick(100, 0);
        set(&store, b"old", b"v").unwrap();
        let class = store
            .get(&store.read(), b"old", store.hash(b"old"))
            .unwrap()
            .class();
        store.tick(400, 300);
        set(&store, b"new", b"v").unwrap();
        store.tick(500, 400);
        for _ in 0..3 {
            assert_eq!(
                store.tail_age(class),
                400,
                "{eviction:?}: it changes nothing"
            );
        }
        set(&store, b"old", b"w").unwrap();
        assert_eq!(
            store.tail_age(class),
            100,
            "{eviction:?}: the older item is gone"
        );
        assert_eq!(store.counted(Counter::HandScanned), 0);
    }
}
