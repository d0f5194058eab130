// SPDX-License-Identifier: GPL-2.0-only
//! Many threads on a small store: a value that a reader sees is never torn, freed memory or another key's, and no
//! update is lost.
//!
//! Freed slots are overwritten, so a slot that is reused too early shows. `HIPPOS_STRESS` lengthens
//! the runs by a factor; `HIPPOS_FENCED` makes sections order memory in a way that ThreadSanitizer
//! understands.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread;

use hippos_store::host::Host;
use hippos_store::{
    Arith, Arithmetic, ClassCounter, Commit, Config, Eviction, Expiry, ItemChange, Outcome, Store,
    StoreMode, WalkStep,
};

const BLOCK: usize = 16 << 10;

fn factor() -> u64 {
    std::env::var("HIPPOS_STRESS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1)
}

fn host() -> Host {
    let host = Host::new().poison().cpus(3);
    if std::env::var_os("HIPPOS_FENCED").is_some() {
        host.fenced()
    } else {
        host
    }
}

fn config(eviction: Eviction) -> Config {
    Config {
        memory: 24 * BLOCK,
        memory_max: 64 * BLOCK,
        block: BLOCK,
        item_max: 8 << 10,
        eviction,
        ..Config::default()
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

fn key(i: u64) -> Vec<u8> {
    format!("key-{i}").into_bytes()
}

/// A value that contains its key and a checksum.
fn value(key: u64, version: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 24);
    for word in [key, version, len as u64] {
        out.extend(word.to_le_bytes());
    }
    let mut random = Random(key << 32 ^ version << 1 | 1);
    out.extend((0..len).map(|_| random.next() as u8));
    out
}

fn check(key: u64, bytes: &[u8]) -> bool {
    let word = |i: usize| {
        bytes
            .get(i * 8..i * 8 + 8)
            .map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()))
    };
    word(2) == (bytes.len() as u64).wrapping_sub(24)
        && word(0) == key
        && bytes == value(key, word(1), bytes.len() - 24)
}

/// Runs readers, writers and maintenance at once. Returns how many wrong values were seen, and how many right ones.
fn churn(store: &Store<Host>, rounds: u64) -> (u64, u64) {
    const KEYS: u64 = 2000;
    let (wrong, right) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        // Each thread is joined explicitly, which race detectors recognise.
        let mut bounded = Vec::new();
        let mut until_done = Vec::new();
        for t in 0..2u64 {
            bounded.push(scope.spawn(move || {
                let _end = End;
                let mut random = Random(t + 1);
                for i in 0..rounds {
                    let k = random.below(KEYS);
                    let name = key(k);
                    let hash = store.hash(&name);
                    match random.below(20) {
                        0 => {
                            store.delete(&name, hash, None);
                        }
                        1 => {
                            store.touch(&name, hash, store.expiry(random.below(3) as i64 - 1));
                        }
                        _ => {
                            // Sizes change over time, so that memory moves between classes.
                            let most = if i / 4096 % 2 == 0 { 300 } else { 3000 };
                            let value = value(k, i, random.below(most) as usize);
                            let expiry = store.expiry(i64::from(random.below(30) == 0));
                            if let Ok(mut new) = store.reserve(&name, hash, 0, expiry, value.len())
                            {
                                new.write(&value);
                                store.commit(new, &Commit::default()).unwrap();
                            }
                        }
                    }
                }
            }));
        }
        for t in 0..2u64 {
            until_done.push(scope.spawn(move || {
                let _end = End;
                let mut random = Random(t + 99);
                let mut pins = Vec::new();
                while !done.load(Relaxed) {
                    let guard = store.read();
                    for _ in 0..random.below(20) {
                        let k = random.below(KEYS);
                        let name = key(k);
                        let Some(item) = store.get(&guard, &name, store.hash(&name)) else {
                            continue;
                        };
                        if random.below(8) == 0 {
                            // Yield, so that other threads overtake this one.
                            thread::yield_now();
                        }
                        let ok = item.key() == name && check(k, item.value());
                        (if ok { right } else { wrong }).fetch_add(1, Relaxed);
                        if pins.len() < 4 {
                            pins.extend(store.pin(&item).map(|pin| (k, pin)));
                        }
                    }
                    drop(guard);
                    if random.below(4) == 0 {
                        for (k, pin) in pins.drain(..) {
                            let ok = pin.key() == key(k) && check(k, pin.value());
                            (if ok { right } else { wrong }).fetch_add(1, Relaxed);
                        }
                    }
                }
            }));
        }
        until_done.push(scope.spawn(move || {
            let _end = End;
            let mut up = 0;
            while !done.load(Relaxed) {
                up += 1;
                store.tick(up / 64, 1_700_000_000 + i64::from(up / 64));
                store.maintain();
                if up % 512 == 0 {
                    store.resize((12 + up as usize / 512 % 3 * 6) * BLOCK);
                }
                if up % 2048 == 0 {
                    store.flush(0);
                }
                thread::yield_now();
            }
        }));
        join(bounded);
        done.store(true, Relaxed);
        join(until_done);
    });
    (wrong.load(Relaxed), right.load(Relaxed))
}

/// The writes of ended threads are visible after joining them. The standard library ensures that, but a race detector
/// may not recognise it.
static ENDED: AtomicU64 = AtomicU64::new(0);

struct End;

impl Drop for End {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Release);
    }
}

fn join(threads: Vec<thread::ScopedJoinHandle<'_, ()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
    assert_ne!(ENDED.load(Acquire), 0);
}

/// The counts are right once all threads have ended.
fn settle(store: &Store<Host>) {
    for _ in 0..2000 {
        store.maintain();
    }
    let shot = store.snapshot();
    assert_eq!(shot.retired, 0, "{shot:?}");
    assert!(shot.held <= shot.limit, "{shot:?}");
    let used: u64 = (0..shot.classes)
        .map(|i| store.class(i).unwrap())
        .map(|c| c.slots - c.free)
        .sum();
    assert_eq!(used, shot.items, "{shot:?}");
    let mut walk = store.walk();
    let (mut items, mut bytes) = (0, 0);
    loop {
        let guard = store.read();
        match walk.next(&guard) {
            WalkStep::Item(item) => {
                items += 1;
                bytes += item.size() as u64;
                let found = store
                    .peek(&guard, item.key(), store.hash(item.key()))
                    .unwrap();
                assert_eq!(found.cas(), item.cas());
            }
            WalkStep::Pause => {}
            WalkStep::End => break,
        }
    }
    assert_eq!((items, bytes), (shot.items, shot.bytes), "{shot:?}");
    let census = store.verify().unwrap();
    assert_eq!((census.reserved, census.live), (0, shot.items), "{shot:?}");
}

fn stress(eviction: Eviction) {
    let store = Store::new(config(eviction), host()).unwrap();
    let (wrong, right) = churn(&store, 30_000 * factor());
    assert_eq!(wrong, 0);
    assert!(right > 1000, "{right}");
    // The crawler runs every ten seconds.
    store.tick(1_000_000, 1_700_000_000);
    settle(&store);
    assert!(store.classes_counted(ClassCounter::Evicted) > 0);
}

#[test]
fn readers_see_whole_values_under_clock() {
    stress(Eviction::Clock);
}

#[test]
fn readers_see_whole_values_under_sieve() {
    stress(Eviction::Sieve);
}

#[test]
fn readers_see_whole_values_under_s3fifo() {
    stress(Eviction::S3Fifo);
}

/// The same with grace periods that end at once: the check above has to notice.
#[test]
fn reuse_without_a_grace_period_is_noticed() {
    if std::env::var_os("HIPPOS_FENCED").is_some() {
        println!("skipped: a race on purpose is not for race detectors");
        return;
    }
    for _ in 0..50 {
        let store = Store::new(config(Eviction::Clock), host().careless()).unwrap();
        if churn(&store, 10_000).0 != 0 {
            return;
        }
    }
    panic!("nothing was noticed");
}

#[test]
fn no_increment_is_lost() {
    const EACH: u64 = 3000;
    // Enough memory for the longest text, so that nothing is evicted.
    let config = Config {
        memory: 64 * BLOCK,
        ..config(Eviction::Clock)
    };
    let store = &Store::new(config, host()).unwrap();
    let set = |name: &[u8], value: &[u8]| {
        let mut new = store
            .reserve(name, store.hash(name), 0, Expiry::NEVER, value.len())
            .unwrap();
        new.write(value);
        store.commit(new, &Commit::default()).unwrap();
    };
    for name in [b"arith", b"swaps", b"texts"] {
        set(name, b"0");
    }
    let stored = |name: &[u8], value: &[u8], commit: &Commit| {
        let mut new = store
            .reserve(name, store.hash(name), 0, Expiry::NEVER, value.len())
            .unwrap();
        new.write(value);
        store.commit(new, commit).unwrap()
    };
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for t in 0..3 {
            threads.push(scope.spawn(move || {
                let _end = End;
                for i in 0..EACH * factor() {
                    let how = Arith {
                        by: 1,
                        ..Arith::default()
                    };
                    let hash = store.hash(b"arith");
                    let done = store.arith(b"arith", hash, &how).unwrap();
                    assert!(matches!(done, Arithmetic::Value { .. }));
                    // Compare and swap until it works.
                    loop {
                        let (n, cas) = {
                            let guard = store.read();
                            let item = store.get(&guard, b"swaps", store.hash(b"swaps")).unwrap();
                            let text = std::str::from_utf8(item.value()).unwrap();
                            (text.parse::<u64>().unwrap(), item.cas())
                        };
                        let commit = Commit {
                            compare: Some(cas),
                            ..Commit::default()
                        };
                        match stored(b"swaps", (n + 1).to_string().as_bytes(), &commit) {
                            Outcome::Stored { .. } => break,
                            Outcome::Exists { .. } => {}
                            other => panic!("{other:?}"),
                        }
                    }
                    if i < 1000 {
                        let mode = if t == 0 {
                            StoreMode::Prepend
                        } else {
                            StoreMode::Append
                        };
                        let done = stored(b"texts", b"x", &Commit::new(mode));
                        assert!(matches!(done, Outcome::Stored { .. }));
                    }
                    store.maintain();
                }
            }));
        }
        join(threads);
    });
    let guard = store.read();
    let value = |name: &[u8]| store.get(&guard, name, store.hash(name)).unwrap().value();
    assert_eq!(
        value(b"arith"),
        (3 * EACH * factor()).to_string().as_bytes()
    );
    assert_eq!(
        value(b"swaps"),
        (3 * EACH * factor()).to_string().as_bytes()
    );
    assert_eq!(value(b"texts").len(), 3001);
}

/// Of several threads that add the same key, one succeeds; of those that ask for a token, too.
#[test]
fn one_of_many_concurrent_adds_succeeds() {
    let store = &Store::new(config(Eviction::Clock), host()).unwrap();
    let (adds, tokens) = (&AtomicU64::new(0), &AtomicU64::new(0));
    const ROUNDS: u64 = 2000;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..3 {
            threads.push(scope.spawn(move || {
                let _end = End;
                for i in 0..ROUNDS {
                    let name = key(i % 100 + i / 100 * 1000);
                    let hash = store.hash(&name);
                    let mut new = store.reserve(&name, hash, 0, Expiry::NEVER, 1).unwrap();
                    new.write(b"x");
                    if let Outcome::Stored { .. } =
                        store.commit(new, &Commit::new(StoreMode::Add)).unwrap()
                    {
                        adds.fetch_add(1, Relaxed);
                    }
                    let guard = store.read();
                    let mut won = false;
                    store.modify(&guard, &name, hash, |_, seen| {
                        won = !seen.token_sent();
                        ItemChange {
                            token: won,
                            ..ItemChange::default()
                        }
                    });
                    if won {
                        tokens.fetch_add(1, Relaxed);
                    }
                }
            }));
        }
        join(threads);
    });
    let evicted = store.classes_counted(ClassCounter::Evicted);
    assert_eq!(
        (adds.load(Relaxed), evicted),
        (ROUNDS, 0),
        "{:?}",
        store.snapshot()
    );
    assert_eq!(tokens.load(Relaxed), ROUNDS);
}

/// The self-test that the kernel runs, on two lanes.
#[test]
fn the_selftest_passes_and_notices() {
    let store = &Store::new(config(Eviction::Clock), host()).unwrap();
    thread::scope(|scope| {
        let lane = |n| {
            scope.spawn(move || {
                let _end = End;
                hippos_store::selftest::run(store, n, 20_000).unwrap();
            })
        };
        join(vec![lane(1), lane(2)]);
    });
    hippos_store::selftest::check(store).unwrap();
    // Another thread increments a counter meanwhile, which the self-test reports; on a busy machine one thread may be
    // done before the other begins.
    let reported = || {
        thread::scope(|scope| {
            let a = scope.spawn(|| hippos_store::selftest::run(store, 3, 20_000));
            let b = scope.spawn(|| hippos_store::selftest::run(store, 3, 20_000));
            a.join().unwrap().is_err() | b.join().unwrap().is_err()
        })
    };
    assert!((0..50).any(|_| reported()));
}

/// An item that was made from another after all were flushed is flushed as well.
#[test]
fn flushed_items_do_not_reappear() {
    const LEN: usize = 400_000;
    let config = Config {
        memory: 32 << 20,
        ..Config::default()
    };
    let store = &Store::new(config, host()).unwrap();
    let done = &AtomicBool::new(false);
    let appended = &AtomicU64::new(0);
    let name = b"appended";
    let hash = store.hash(name);
    let stored = |value: &[u8], commit: &Commit| {
        let mut new = store
            .reserve(name, hash, 0, Expiry::NEVER, value.len())
            .unwrap();
        new.write(value);
        store.commit(new, commit).unwrap()
    };
    thread::scope(|scope| {
        let appender = scope.spawn(move || {
            let _end = End;
            while !done.load(Relaxed) {
                let outcome = stored(b"x", &Commit::new(StoreMode::Append));
                appended.fetch_add(
                    u64::from(matches!(outcome, Outcome::Stored { .. })),
                    Relaxed,
                );
            }
        });
        let value = vec![b'v'; LEN];
        let mut rounds = 0;
        // The other thread may be scheduled late.
        while rounds < 300 * factor() || (appended.load(Relaxed) < 10 && rounds < 1_000_000) {
            rounds += 1;
            stored(&value, &Commit::default());
            for _ in 0..3 {
                thread::yield_now();
            }
            store.flush(0);
            for _ in 0..10 {
                assert!(store.get(&store.read(), name, hash).is_none(), "it is back");
                thread::yield_now();
            }
        }
        done.store(true, Relaxed);
        join(vec![appender]);
        assert!(appended.load(Relaxed) > 0, "nothing was appended");
    });
}
