// SPDX-License-Identifier: GPL-2.0-only
//! Hit ratios of the real store under each of its policies, and of an LRU, with this crate's workloads and without a
//! network.
//!
//! `cargo run --release -p hippos-load --example simulate -- [--keys N] [--requests N] [POOL...]`
//!
//! Clients are look-aside: a GET that misses stores the item. SETs and DELETEs are the pool's. The first half of the
//! requests warms up, the second is counted, without keys that are never stored. Cache sizes are percentages of the
//! footprint, which is every key with its value and a header. The LRU is exact and global, and holds as many bytes as
//! the store under CLOCK does at the end.

use std::collections::HashMap;

use anyhow::{ensure, Result};
use clap::Parser;

use hippos_load::request::{RequestKey, Verb};
use hippos_load::workload::{Model, Sampler, Workload};
use hippos_store::host::Host;
use hippos_store::{ClassCounter, Commit, Config, Eviction, Expiry, Store};

/// Hit ratios of the store's policies under this crate's workloads.
#[derive(Parser)]
struct Args {
    /// Keys of each pool
    #[arg(long, default_value_t = 300_000)]
    keys: u64,
    /// Requests of each run
    #[arg(long, default_value_t = 3_000_000)]
    requests: usize,
    /// Cache sizes, in per cent of the footprint
    #[arg(long, value_delimiter = ',', default_values_t = [1, 5, 10, 25])]
    sizes: Vec<usize>,
    /// Workloads
    #[arg(default_values = ["usr", "app", "etc", "var", "sys"])]
    pools: Vec<String>,
}

/// Bytes of an item's header in the store.
const HEADER: usize = 32;
/// Bytes of the smallest memory block used here, which also bounds the largest item.
const BLOCKS: std::ops::RangeInclusive<usize> = 16 << 10..=1 << 20;
/// Requests between two steps of maintenance.
const MAINTAIN_EVERY: usize = 256;

/// A cache under test.
trait Cache {
    /// Whether the key is there; a hit counts as a use.
    fn get(&mut self, id: u64) -> bool;
    fn set(&mut self, id: u64);
    fn delete(&mut self, id: u64);
}

/// The store, and the parts that make items for it.
struct HipposCache<'m> {
    store: Store<Host>,
    model: &'m Model,
    key: Vec<u8>,
    value: Vec<u8>,
    turns: usize,
}

impl<'m> HipposCache<'m> {
    fn new(model: &'m Model, eviction: Eviction, memory: usize, block: usize) -> Result<Self> {
        let config = Config {
            memory,
            block,
            item_max: block,
            // Classes as narrow as the items: sizes matter here, not the default.
            item_min: 16,
            eviction,
            ..Config::default()
        };
        let store = Store::new(config, Host::new()).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let value = vec![b'x'; block];
        Ok(Self {
            store,
            model,
            key: Vec::new(),
            value,
            turns: 0,
        })
    }

    fn name(&mut self, id: u64) {
        self.key.clear();
        self.model.write_key(id, &mut self.key);
        self.turns += 1;
        if self.turns % MAINTAIN_EVERY == 0 {
            self.store.maintain();
        }
    }
}

impl Cache for HipposCache<'_> {
    fn get(&mut self, id: u64) -> bool {
        self.name(id);
        let guard = self.store.read();
        let hash = self.store.hash(&self.key);
        let item = self.store.get(&guard, &self.key, hash);
        if let Some(item) = item {
            // Maintenance moves memory to the classes with hits.
            self.store
                .count_class(item.class(), ClassCounter::GetHits, 1);
        }
        item.is_some()
    }

    fn set(&mut self, id: u64) {
        self.name(id);
        let len = self.model.value_len(id) as usize;
        let hash = self.store.hash(&self.key);
        if let Ok(mut new) = self.store.reserve(&self.key, hash, 0, Expiry::NEVER, len) {
            new.write(&self.value);
            let _ = self.store.commit(new, &Commit::default());
        }
    }

    fn delete(&mut self, id: u64) {
        self.name(id);
        self.store
            .delete(&self.key, self.store.hash(&self.key), None);
    }
}

/// An exact LRU of a limited number of bytes: list entries by key; entry 0 is the head.
struct Lru<'m> {
    model: &'m Model,
    room: usize,
    places: HashMap<u64, usize>,
    list: Vec<Entry>,
    free: Vec<usize>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    id: u64,
    next: usize,
    before: usize,
}

impl<'m> Lru<'m> {
    fn new(model: &'m Model, bytes: usize) -> Self {
        Self {
            model,
            room: bytes,
            places: HashMap::new(),
            list: vec![Entry::default()],
            free: Vec::new(),
        }
    }

    fn unlink(&mut self, at: usize) {
        let Entry { next, before, .. } = self.list[at];
        self.list[before].next = next;
        self.list[next].before = before;
    }

    fn front(&mut self, at: usize) {
        let first = self.list[0].next;
        self.list[at].next = first;
        self.list[at].before = 0;
        self.list[first].before = at;
        self.list[0].next = at;
    }
}

/// Bytes of an item.
fn size(model: &Model, id: u64) -> usize {
    HEADER + model.key_len(id) + model.value_len(id) as usize
}

impl Cache for Lru<'_> {
    fn get(&mut self, id: u64) -> bool {
        let Some(at) = self.places.get(&id).copied() else {
            return false;
        };
        self.unlink(at);
        self.front(at);
        true
    }

    fn set(&mut self, id: u64) {
        self.delete(id);
        let bytes = size(self.model, id);
        while self.room < bytes {
            let last = self.list[0].before;
            if last == 0 {
                return;
            }
            self.delete(self.list[last].id);
        }
        self.room -= bytes;
        let at = self.free.pop().unwrap_or(self.list.len());
        if at == self.list.len() {
            self.list.push(Entry::default());
        }
        self.list[at].id = id;
        self.front(at);
        self.places.insert(id, at);
    }

    fn delete(&mut self, id: u64) {
        if let Some(at) = self.places.remove(&id) {
            self.unlink(at);
            self.free.push(at);
            self.room += size(self.model, id);
        }
    }
}

/// Hits in per cent. Items larger than `most` fit into no cache.
fn drive(model: &Model, cache: &mut dyn Cache, requests: usize, most: usize) -> f64 {
    let mut sampler = Sampler::new(model, 1);
    let (mut asked, mut hits) = (0u64, 0u64);
    for i in 0..requests {
        let op = sampler.draw();
        for id in &op.ids {
            if *id & RequestKey::ABSENT != 0 || size(model, *id) > most {
                continue;
            }
            match op.verb {
                Verb::Get => {
                    let hit = cache.get(*id);
                    if !hit {
                        cache.set(*id);
                    }
                    if i >= requests / 2 {
                        asked += 1;
                        hits += u64::from(hit);
                    }
                }
                Verb::Delete => cache.delete(*id),
                _ => cache.set(*id),
            }
        }
    }
    100.0 * hits as f64 / asked as f64
}

fn main() -> Result<()> {
    let args = Args::parse();
    println!(
        "{} keys, {} requests, hits in % of the second half's GETs\n",
        args.keys, args.requests
    );
    println!("| pool | cache | MiB | LRU | CLOCK | SIEVE | S3-FIFO |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for pool in &args.pools {
        let mut workload = Workload::named(pool)?;
        workload.keys.count = args.keys;
        let model = Model::new(&workload)?;
        let footprint = model.data_bytes() as usize + HEADER * args.keys as usize;
        for percent in &args.sizes {
            let memory = footprint * percent / 100;
            let block = (memory / 64)
                .next_power_of_two()
                .clamp(*BLOCKS.start(), *BLOCKS.end());
            ensure!(
                memory >= 8 * block,
                "{pool}: more keys, for a cache of {percent} %"
            );
            // The slab has a head, and an item at the store's own limit has more than these bytes.
            let most = block - 128;
            let mut bytes = 0;
            let mut ratio = |eviction| -> Result<f64> {
                let mut ours = HipposCache::new(&model, eviction, memory, block)?;
                let ratio = drive(&model, &mut ours, args.requests, most);
                if eviction == Eviction::Clock {
                    bytes = ours.store.snapshot().bytes as usize;
                }
                Ok(ratio)
            };
            let clock = ratio(Eviction::Clock)?;
            let sieve = ratio(Eviction::Sieve)?;
            let s3fifo = ratio(Eviction::S3Fifo)?;
            let lru = drive(&model, &mut Lru::new(&model, bytes), args.requests, most);
            println!(
                "| {pool} | {percent} % | {:.1} | {lru:.2} | {clock:.2} | {sieve:.2} | {s3fifo:.2} |",
                memory as f64 / f64::from(1 << 20),
            );
        }
    }
    Ok(())
}
