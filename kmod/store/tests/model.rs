// SPDX-License-Identifier: GPL-2.0-only
//! Random operations, checked against a map from the standard library.
//!
//! The model does not know which items are evicted: the store's counters must account for a missing item, and a present
//! one must match exactly.

use std::collections::HashMap;

use hippos_store::host::Host;
use hippos_store::{
    Arith, Arithmetic, ClassCounter, Commit, Config, Deleted, Eviction, Expiry, Invalidate,
    ItemChange, Outcome, Store, StoreError, StoreMode, WalkStep,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Get(u8),
    Store {
        key: u8,
        mode: StoreMode,
        len: usize,
        fill: u8,
        flags: u32,
        ttl: i64,
        compare: Compare,
    },
    Delete(u8, Compare),
    Touch(u8, i64),
    Arith {
        key: u8,
        decrement: bool,
        by: u64,
        compare: Compare,
    },
    Number(u8, u64),
    Invalidate(u8, Compare),
    Flush(u32),
    Tick(u32),
    Maintain,
    Walk,
    Abandon(u8, usize),
    Resize(usize),
}

#[derive(Clone, Copy, Debug)]
enum Compare {
    None,
    Right,
    Wrong,
}

fn ops() -> impl Strategy<Value = Op> {
    let key = || 0..48u8;
    let ttl = || prop_oneof![6 => Just(0i64), 2 => 1..30i64, 1 => Just(-1i64)];
    let compare = || prop_oneof![5 => Just(Compare::None), 2 => Just(Compare::Right), 1 => Just(Compare::Wrong)];
    let mode = prop_oneof![
        6 => Just(StoreMode::Set),
        1 => Just(StoreMode::Add),
        1 => Just(StoreMode::Replace),
        1 => Just(StoreMode::Append),
        1 => Just(StoreMode::Prepend),
    ];
    let len = prop_oneof![3 => 0..100usize, 2 => 0..2000usize, 1 => 0..9000usize];
    prop_oneof![
        10 => key().prop_map(Op::Get),
        16 => (key(), mode, len, any::<u8>(), any::<u32>(), ttl(), compare()).prop_map(
            |(key, mode, len, fill, flags, ttl, compare)| {
                Op::Store { key, mode, len, fill, flags, ttl, compare }
            }
        ),
        3 => (key(), compare()).prop_map(|(k, c)| Op::Delete(k, c)),
        2 => (key(), ttl()).prop_map(|(k, t)| Op::Touch(k, t)),
        2 => (key(), any::<bool>(), prop_oneof![0..200u64, any::<u64>()], compare()).prop_map(
            |(key, decrement, by, compare)| Op::Arith { key, decrement, by, compare }
        ),
        2 => (key(), prop_oneof![0..200u64, any::<u64>()]).prop_map(|(k, n)| Op::Number(k, n)),
        1 => (key(), compare()).prop_map(|(k, c)| Op::Invalidate(k, c)),
        1 => (0..3u32).prop_map(Op::Flush),
        2 => (0..10u32).prop_map(Op::Tick),
        6 => Just(Op::Maintain),
        1 => Just(Op::Walk),
        1 => (key(), 0..9000usize).prop_map(|(k, l)| Op::Abandon(k, l)),
        1 => (8..24usize).prop_map(Op::Resize),
    ]
}

#[derive(Clone, Debug)]
struct Entry {
    value: Vec<u8>,
    flags: u32,
    cas: u64,
    /// In seconds of the model's clock; 0 for never, 1 for past.
    expiry: u64,
    stale: bool,
}

struct Model {
    store: Store<Host>,
    items: HashMap<Vec<u8>, Entry>,
    now: u64,
    flush_at: Option<u64>,
    /// Items that were missing, for no reason that the model knows.
    missing: u64,
}

/// Bytes of a block: small, so that few items fill the store.
const BLOCK: usize = 16 << 10;

/// Takes the token of an item, if it is free.
fn take_token(store: &Store<Host>, key: &[u8]) -> bool {
    let mut won = false;
    store.modify(&store.read(), key, store.hash(key), |_, seen| {
        won = !seen.token_sent();
        ItemChange {
            token: won,
            ..ItemChange::default()
        }
    });
    won
}

impl Model {
    fn new(eviction: Eviction, memory: usize) -> Self {
        let config = Config {
            memory,
            memory_max: 64 * BLOCK,
            block: BLOCK,
            item_max: 8 << 10,
            eviction,
            ..Config::default()
        };
        let store = Store::new(config, Host::new().poison().cpus(2)).unwrap();
        store.tick(0, 1_700_000_000);
        Self {
            store,
            items: HashMap::new(),
            now: 100,
            flush_at: None,
            missing: 0,
        }
    }

    fn key(key: u8) -> Vec<u8> {
        // Keys of all lengths up to 48.
        let mut name = format!("{key}-").into_bytes();
        name.resize(name.len() + usize::from(key), b'k');
        name
    }

    fn expiry(&self, ttl: i64) -> u64 {
        match ttl {
            0 => 0,
            ..0 => 1,
            _ => self.now + ttl as u64,
        }
    }

    fn alive(&self, entry: &Entry) -> bool {
        entry.expiry == 0 || entry.expiry > self.now
    }

    /// Removes from the model the items that are dead or that the store has evicted.
    fn settle(&mut self, key: &[u8]) {
        let dead = self.items.get(key).is_some_and(|e| !self.alive(e));
        if dead {
            self.items.remove(key);
        }
        let guard = self.store.read();
        let there = self.store.peek(&guard, key, self.store.hash(key));
        match (there, self.items.get(key)) {
            (None, Some(_)) => {
                self.missing += 1;
                self.items.remove(key);
            }
            (Some(item), Some(entry)) => {
                let seen = item.snapshot().expect("no concurrent writer");
                assert_eq!(item.key(), key);
                assert_eq!(item.value(), entry.value);
                assert_eq!(item.flags(), entry.flags);
                assert_eq!((item.cas(), seen.cas()), (entry.cas, entry.cas));
                assert_eq!(seen.stale(), entry.stale);
                let ttl = (entry.expiry != 0).then(|| (entry.expiry - self.now) as u32);
                assert_eq!(seen.ttl(), ttl);
            }
            (Some(item), None) => panic!("{item:?} should not be there"),
            (None, None) => {}
        }
    }

    fn settle_all(&mut self) {
        for i in 0..48 {
            self.settle(&Self::key(i));
        }
    }

    fn compare(&self, key: &[u8], compare: Compare) -> Option<u64> {
        let cas = self.items.get(key).map_or(77, |e| e.cas);
        match compare {
            Compare::None => None,
            Compare::Right => Some(cas),
            Compare::Wrong => Some(cas + 1_000_000),
        }
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>, flags: u32, ttl: i64, commit: &Commit) {
        let store = &self.store;
        let hash = store.hash(key);
        let before = self.items.get(key).cloned();
        let new = match store.reserve(key, hash, flags, store.expiry(ttl), value.len()) {
            Ok(mut new) => {
                // Written in two pieces.
                let (a, b) = value.split_at(value.len() / 3);
                assert_eq!(new.write(a) + new.write(b), value.len());
                assert_eq!(new.write(b"more"), 0);
                new
            }
            Err(error) => {
                let size =
                    48 + 8 + key.len() + 1 + value.len() + 2 + if flags == 0 { 0 } else { 4 };
                assert_eq!(
                    error == StoreError::TooLarge,
                    size > 8 << 10,
                    "{error:?} {size}"
                );
                return;
            }
        };
        // The store may have evicted this item itself to get a slot.
        let there = store.peek(&store.read(), key, hash).is_some();
        let before = match before {
            Some(_) if !there => {
                self.missing += 1;
                self.items.remove(key);
                None
            }
            other => other,
        };
        let joined = matches!(commit.mode, StoreMode::Append | StoreMode::Prepend);
        let outcome = store.commit(new, commit);
        let differs = |old: &Entry| commit.compare.is_some_and(|cas| cas != old.cas);
        let expected = match (&before, commit.mode) {
            (Some(_), StoreMode::Add) => "not stored",
            (Some(old), _) if differs(old) => "exists",
            (None, StoreMode::Set | StoreMode::Replace) if commit.compare.is_some() => "not found",
            (None, StoreMode::Replace | StoreMode::Append | StoreMode::Prepend) => "not stored",
            _ => "stored",
        };
        let kind = |outcome: &Outcome| match outcome {
            Outcome::Stored { .. } => "stored",
            Outcome::NotStored => "not stored",
            Outcome::Exists { .. } => "exists",
            Outcome::NotFound => "not found",
        };
        let (cas, item) = match outcome {
            Ok(Outcome::Stored { cas, item, .. }) => {
                assert_eq!(expected, "stored");
                (cas, item)
            }
            Ok(Outcome::NotStored) if joined && before.is_some() => {
                // The old item was evicted to get a slot for the joined value.
                self.settle(key);
                assert!(!self.items.contains_key(key));
                return;
            }
            Err(error) => {
                assert!(joined, "{error:?}");
                self.settle(key);
                return;
            }
            Ok(other) => return assert_eq!(kind(&other), expected),
        };
        let entry = match before {
            Some(old) if joined => {
                let joined = match commit.mode {
                    StoreMode::Append => [old.value, value].concat(),
                    _ => [value, old.value].concat(),
                };
                Entry {
                    value: joined,
                    cas,
                    stale: false,
                    ..old
                }
            }
            _ => Entry {
                value,
                flags,
                cas,
                expiry: self.expiry(ttl),
                stale: false,
            },
        };
        assert_eq!(item.len, entry.value.len());
        self.items.insert(key.to_vec(), entry);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Get(k) => {
                let key = Self::key(k);
                let guard = self.store.read();
                let hash = self.store.hash(&key);
                self.store.prefetch(hash);
                self.store.prefetch_item(&guard, hash);
                self.store.get(&guard, &key, hash);
                drop(guard);
                self.settle(&key);
            }
            Op::Store {
                key,
                mode,
                len,
                fill,
                flags,
                ttl,
                compare,
            } => {
                let key = Self::key(key);
                self.settle(&key);
                let compare = self.compare(&key, compare);
                let value = (0..len).map(|i| fill.wrapping_add(i as u8)).collect();
                let commit = Commit {
                    compare,
                    ..Commit::new(mode)
                };
                self.put(&key, value, flags, ttl, &commit);
                self.settle(&key);
            }
            Op::Number(key, n) => {
                let key = Self::key(key);
                self.settle(&key);
                self.put(&key, n.to_string().into_bytes(), 5, 0, &Commit::default());
            }
            Op::Arith {
                key,
                decrement,
                by,
                compare,
            } => {
                let key = Self::key(key);
                self.settle(&key);
                let compare = self.compare(&key, compare);
                let how = Arith {
                    decrement,
                    by,
                    compare,
                    ..Arith::default()
                };
                // As with C's strtoull: a space or a zero byte ends the number, whatever follows.
                let number = |e: &Entry| {
                    let blank = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
                    let text = e.value.iter().copied().skip_while(blank);
                    let word: Vec<u8> = text.take_while(|b| !blank(b) && *b != 0).collect();
                    let number = std::str::from_utf8(&word).ok()?.parse::<i128>().ok()?;
                    match u64::try_from(number) {
                        Err(_) if number < 0 => Some(number as u64).filter(|n| n >> 63 == 0),
                        number => number.ok(),
                    }
                };
                let result = self.store.arith(&key, self.store.hash(&key), &how);
                match (result, self.items.get_mut(&key)) {
                    (Ok(Arithmetic::Value { value, cas, .. }), Some(old)) => {
                        let was = number(old).expect("not a number");
                        let is = if decrement {
                            was.saturating_sub(by)
                        } else {
                            was.wrapping_add(by)
                        };
                        assert_eq!(value, is);
                        assert!(compare.is_none_or(|c| c == old.cas));
                        let width = old.value.len();
                        old.value = format!("{is:<width$}").into_bytes();
                        old.cas = cas;
                        old.stale &= old.value.len() == width;
                    }
                    (Ok(Arithmetic::NotFound), None) => {}
                    (Ok(Arithmetic::NotFound), Some(_)) => {} //  Evicted to get a slot for its own replacement: settled.
                    (Ok(Arithmetic::Exists { .. }), Some(old)) => {
                        assert!(compare.is_some_and(|c| c != old.cas))
                    }
                    (Ok(Arithmetic::NonNumeric), Some(old)) => assert_eq!(number(old), None),
                    (other, old) => panic!("{other:?} {old:?}"),
                }
                self.settle(&key);
            }
            Op::Delete(key, compare) => {
                let key = Self::key(key);
                self.settle(&key);
                let compare = self.compare(&key, compare);
                let result = self.store.delete(&key, self.store.hash(&key), compare);
                match (result, self.items.get(&key)) {
                    (Deleted::Deleted { .. }, Some(old)) => {
                        assert!(compare.is_none_or(|c| c == old.cas));
                        self.items.remove(&key);
                    }
                    (Deleted::Exists { .. }, Some(old)) => {
                        assert!(compare.is_some_and(|c| c != old.cas))
                    }
                    (Deleted::NotFound, None) => {}
                    (other, old) => panic!("{other:?} {old:?}"),
                }
                self.settle(&key);
            }
            Op::Invalidate(key, compare) => {
                let key = Self::key(key);
                self.settle(&key);
                let compare = self.compare(&key, compare);
                let how = Invalidate {
                    compare,
                    ..Invalidate::default()
                };
                let result = self.store.invalidate(&key, self.store.hash(&key), &how);
                match (result, self.items.get_mut(&key)) {
                    (Deleted::Deleted { .. }, Some(old)) => {
                        let guard = self.store.read();
                        let item = self
                            .store
                            .peek(&guard, &key, self.store.hash(&key))
                            .unwrap();
                        assert!(item.cas() > old.cas);
                        assert!(take_token(&self.store, &key) && !take_token(&self.store, &key));
                        old.cas = item.cas();
                        old.stale = true;
                    }
                    (Deleted::Exists { .. }, Some(old)) => {
                        assert!(compare.is_some_and(|c| c != old.cas))
                    }
                    (Deleted::NotFound, None) => {}
                    (other, old) => panic!("{other:?} {old:?}"),
                }
                self.settle(&key);
            }
            Op::Touch(key, ttl) => {
                let key = Self::key(key);
                self.settle(&key);
                let expiry = self.expiry(ttl);
                let done = self
                    .store
                    .touch(&key, self.store.hash(&key), self.store.expiry(ttl));
                assert_eq!(done.is_some(), self.items.contains_key(&key));
                if let Some(entry) = self.items.get_mut(&key) {
                    entry.expiry = expiry;
                }
                self.settle(&key);
            }
            Op::Flush(delay) => {
                self.settle_all();
                self.store.flush(delay);
                if delay == 0 {
                    self.items.clear();
                    self.flush_at = None;
                } else {
                    self.flush_at = Some(self.now + u64::from(delay));
                }
            }
            Op::Tick(secs) => {
                self.settle_all();
                self.now += u64::from(secs);
                let up = (self.now - 100) as u32;
                self.store.tick(up, 1_700_000_000 + i64::from(up));
                if self.flush_at.is_some_and(|at| at <= self.now) {
                    self.items.clear();
                    self.flush_at = None;
                }
            }
            Op::Maintain => {
                self.store.maintain();
            }
            Op::Abandon(key, len) => {
                let key = Self::key(key);
                let hash = self.store.hash(&key);
                let _ = self.store.reserve(&key, hash, 0, Expiry::NEVER, len);
            }
            Op::Resize(blocks) => {
                assert!(self.store.resize(blocks * BLOCK));
            }
            Op::Walk => {
                let mut walk = self.store.walk();
                let mut seen = HashMap::new();
                loop {
                    let guard = self.store.read();
                    match walk.next(&guard) {
                        WalkStep::Item(item) => {
                            assert!(seen.insert(item.key().to_vec(), item.cas()).is_none());
                        }
                        WalkStep::Pause => {}
                        WalkStep::End => break,
                    }
                }
                for i in 0..48 {
                    let key = Self::key(i);
                    self.settle(&key);
                    assert_eq!(seen.get(&key), self.items.get(&key).map(|e| &e.cas));
                }
            }
        }
    }

    /// The checks at the end.
    fn finish(mut self) {
        self.settle_all();
        let shot = self.store.snapshot();
        assert_eq!(
            self.missing,
            self.store.classes_counted(ClassCounter::Evicted),
            "{shot:?}"
        );
        // No reader is left: all memory is reclaimed, the limit is kept, dead items are reclaimed.
        self.now += 60;
        let up = (self.now - 100) as u32;
        self.store.tick(up, 1_700_000_000 + i64::from(up));
        for _ in 0..200 {
            self.store.maintain();
        }
        let shot = self.store.snapshot();
        assert!(shot.held <= shot.limit, "{shot:?}");
        assert_eq!((shot.retired, shot.retired_bytes), (0, 0));
        self.settle_all();
        assert_eq!(shot.items, self.items.len() as u64, "{shot:?}");
        let bytes = |(k, e): (&Vec<u8>, &Entry)| (32 + k.len() + e.value.len()) as u64;
        assert_eq!(shot.bytes, self.items.iter().map(bytes).sum::<u64>());
        let used: u64 = (0..shot.classes)
            .map(|i| self.store.class(i).unwrap())
            .map(|c| c.slots - c.free)
            .sum();
        assert_eq!(used, shot.items);
        let census = self.store.verify().unwrap();
        assert_eq!((census.reserved, census.live), (0, shot.items));
    }
}

fn check(eviction: Eviction, memory: usize, ops: Vec<Op>) {
    let mut model = Model::new(eviction, memory);
    for op in ops {
        model.apply(op);
    }
    model.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn clock_agrees_with_a_map(ops in prop::collection::vec(ops(), 1..300), blocks in 3..20usize) {
        check(Eviction::Clock, blocks * BLOCK, ops);
    }

    #[test]
    fn sieve_agrees_with_a_map(ops in prop::collection::vec(ops(), 1..300), blocks in 3..20usize) {
        check(Eviction::Sieve, blocks * BLOCK, ops);
    }

    #[test]
    fn s3fifo_agrees_with_a_map(ops in prop::collection::vec(ops(), 1..300), blocks in 3..20usize) {
        check(Eviction::S3Fifo, blocks * BLOCK, ops);
    }
}
