//! Hit ratios: the real store under each policy, beside an LRU of as many items.
//!
//! Keys are drawn from a Zipf distribution; a miss stores the item, as a look-aside cache's client
//! would. The first half of the requests warms up, the second is counted.
//!
//! `cargo run --release -p hippos_store --example ratio [keys] [requests]`

use std::collections::HashMap;
use std::time::Instant;

use hippos_store::host::Host;
use hippos_store::{Commit, Config, Counter, Eviction, Expiry, Store};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Ranks under Zipf's law, by a table of the distribution.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: usize, s: f64) -> Self {
        let mut sum = 0.0;
        let mut table: Vec<f64> = (1..=n)
            .map(|rank| {
                sum += (rank as f64).powf(-s);
                sum
            })
            .collect();
        table.iter_mut().for_each(|p| *p /= sum);
        Self(table)
    }

    fn draw(&self, random: &mut Random) -> usize {
        let u = random.unit();
        self.0.partition_point(|p| *p < u)
    }
}

/// What is asked for, in order: numbers of keys.
struct Workload {
    name: &'static str,
    /// Bytes of a value.
    value: usize,
    keys: usize,
    requests: Vec<u32>,
}

impl Workload {
    fn zipf(name: &'static str, s: f64, value: usize, keys: usize, requests: usize) -> Self {
        let zipf = Zipf::new(keys, s);
        let random = &mut Random(1);
        let requests = (0..requests).map(|_| zipf.draw(random) as u32).collect();
        Self {
            name,
            value,
            keys,
            requests,
        }
    }

    /// The same, but the popular keys change: every so often ranks move on by a few.
    fn drift(name: &'static str, s: f64, value: usize, keys: usize, requests: usize) -> Self {
        let zipf = Zipf::new(keys, s);
        let random = &mut Random(2);
        let requests = (0..requests)
            .map(|i| ((zipf.draw(random) + i / 50) % keys) as u32)
            .collect();
        Self {
            name,
            value,
            keys,
            requests,
        }
    }

    /// Bytes of all items.
    fn footprint(&self) -> usize {
        self.keys * (32 + KEY + self.value)
    }
}

const KEY: usize = 20;

fn key(buf: &mut [u8; KEY], n: u32) -> &[u8] {
    let mut n = n;
    for place in buf.iter_mut().rev() {
        *place = b'0' + (n % 10) as u8;
        n /= 10;
    }
    buf
}

struct Run {
    hits: usize,
    counted: usize,
    /// Items at the end.
    items: usize,
    waits: u64,
    ns: f64,
}

impl Run {
    fn ratio(&self) -> f64 {
        100.0 * self.hits as f64 / self.counted as f64
    }
}

fn drive(load: &Workload, eviction: Eviction, memory: usize) -> Run {
    // Blocks small enough that a small cache has some.
    let block = (memory / 64).next_power_of_two().clamp(16 << 10, 1 << 20);
    let config = Config {
        memory,
        block,
        eviction,
        item_max: 8 << 10,
        ..Config::default()
    };
    let store = Store::new(config, Host::new()).expect("a store");
    let value = vec![b'x'; load.value];
    let warm = load.requests.len() / 2;
    let mut run = Run {
        hits: 0,
        counted: load.requests.len() - warm,
        items: 0,
        waits: 0,
        ns: 0.0,
    };
    let mut buf = [b'0'; KEY];
    let start = Instant::now();
    for (i, n) in load.requests.iter().enumerate() {
        let name = key(&mut buf, *n);
        let hash = store.hash(name);
        let hit = store.get(&store.read(), name, hash).is_some();
        if !hit {
            let mut new = store
                .reserve(name, hash, 0, Expiry::NEVER, value.len())
                .expect("memory");
            new.write(&value);
            store.commit(new, &Commit::default()).expect("memory");
        } else if i >= warm {
            run.hits += 1;
        }
        if i % 256 == 0 {
            store.maintain();
        }
    }
    run.ns = start.elapsed().as_nanos() as f64 / load.requests.len() as f64;
    run.items = store.snapshot().items as usize;
    run.waits = store.counted(Counter::Waits);
    run
}

/// An LRU of so many items, exactly.
fn lru(load: &Workload, capacity: usize) -> f64 {
    // A list in arrays: 0 is its head.
    let mut next = vec![0u32; capacity + 1];
    let mut before = vec![0u32; capacity + 1];
    let mut names = vec![0u32; capacity + 1];
    let mut places: HashMap<u32, u32> = HashMap::with_capacity(capacity);
    let warm = load.requests.len() / 2;
    let mut hits = 0;
    for (i, name) in load.requests.iter().enumerate() {
        let at = match places.get(name) {
            Some(at) => {
                hits += usize::from(i >= warm);
                let (a, b) = (before[*at as usize], next[*at as usize]);
                next[a as usize] = b;
                before[b as usize] = a;
                *at
            }
            None => {
                let at = if places.len() < capacity {
                    places.len() as u32 + 1
                } else {
                    let last = before[0];
                    let a = before[last as usize];
                    next[a as usize] = 0;
                    before[0] = a;
                    places.remove(&names[last as usize]);
                    last
                };
                names[at as usize] = *name;
                places.insert(*name, at);
                at
            }
        };
        let first = next[0];
        next[at as usize] = first;
        before[at as usize] = 0;
        before[first as usize] = at;
        next[0] = at;
    }
    100.0 * hits as f64 / (load.requests.len() - warm) as f64
}

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let keys = args.next().unwrap_or(500_000);
    let requests = args.next().unwrap_or(keys * 10);
    println!("{keys} keys, {requests} requests, hits in % of the second half");
    println!("| workload | cache | items | LRU | CLOCK | SIEVE | S3-FIFO | ns/request (CLOCK) |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for load in [
        Workload::zipf("Zipf 0.8, 20/20", 0.8, 20, keys, requests),
        Workload::zipf("Zipf 0.99, 20/20", 0.99, 20, keys, requests),
        Workload::zipf("Zipf 0.99, 20/300", 0.99, 300, keys, requests),
        Workload::drift("Zipf 0.99, drifting", 0.99, 100, keys, requests),
    ] {
        for percent in [1, 5, 10, 25] {
            let memory = load.footprint() * percent / 100;
            let clock = drive(&load, Eviction::Clock, memory);
            let sieve = drive(&load, Eviction::Sieve, memory);
            let s3fifo = drive(&load, Eviction::S3Fifo, memory);
            println!(
                "| {} | {percent} % | {} | {:.2} | {:.2} | {:.2} ({}) | {:.2} ({}) | {:.0} |",
                load.name,
                clock.items,
                lru(&load, clock.items),
                clock.ratio(),
                sieve.ratio(),
                sieve.items,
                s3fifo.ratio(),
                s3fifo.items,
                clock.ns,
            );
        }
    }
}
