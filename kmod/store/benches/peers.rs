// SPDX-License-Identifier: GPL-2.0-only
//! Compares the store with other caches that a program could use instead, in one run.
//!
//! `cargo bench -p hippos_store --bench peers [-- FILTER]`
//!
//! Keys are 20 bytes, values 20 or 500; the working set fits into L2, into L3, or into neither. A mix is a percentage
//! of lookups: 99.7, 73 and 18. Readers copy the value out, as a reply would. The figures are CPU time, so that a busy
//! machine gives the same ones as an idle one.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use hippos_store::host::Host;
use hippos_store::{Commit, Config, Expiry, Store};
use nix::time::{clock_gettime, ClockId};

type BenchKey = [u8; 20];

fn key(n: u64) -> BenchKey {
    let mut out = [b'0'; 20];
    let mut n = n;
    for place in out.iter_mut().rev() {
        *place = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out
}

/// A cache, reduced to its two operations.
trait Peer: Sync {
    fn get(&self, key: &BenchKey, out: &mut [u8]) -> bool;
    fn set(&self, key: &BenchKey, value: &[u8]);
}

struct Hippos(Store<Host>);

impl Peer for Hippos {
    fn get(&self, key: &BenchKey, out: &mut [u8]) -> bool {
        let guard = self.0.read();
        match self.0.get(&guard, key, self.0.hash(key)) {
            Some(item) => {
                copy(item.value(), out);
                true
            }
            None => false,
        }
    }

    fn set(&self, key: &BenchKey, value: &[u8]) {
        let hash = self.0.hash(key);
        let mut new = self
            .0
            .reserve(key, hash, 0, Expiry::NEVER, value.len())
            .expect("memory");
        new.write(value);
        self.0.commit(new, &Commit::default()).expect("memory");
    }
}

fn copy(value: &[u8], out: &mut [u8]) {
    out[..value.len()].copy_from_slice(value);
}

impl Peer for RwLock<HashMap<BenchKey, Box<[u8]>>> {
    fn get(&self, key: &BenchKey, out: &mut [u8]) -> bool {
        self.read()
            .unwrap()
            .get(key)
            .map(|v| copy(v, out))
            .is_some()
    }
    fn set(&self, key: &BenchKey, value: &[u8]) {
        self.write().unwrap().insert(*key, value.into());
    }
}

impl Peer for dashmap::DashMap<BenchKey, Box<[u8]>> {
    fn get(&self, key: &BenchKey, out: &mut [u8]) -> bool {
        dashmap::DashMap::get(self, key)
            .map(|v| copy(&v, out))
            .is_some()
    }
    fn set(&self, key: &BenchKey, value: &[u8]) {
        self.insert(*key, value.into());
    }
}

impl Peer for papaya::HashMap<BenchKey, Box<[u8]>> {
    fn get(&self, key: &BenchKey, out: &mut [u8]) -> bool {
        self.pin().get(key).map(|v| copy(v, out)).is_some()
    }
    fn set(&self, key: &BenchKey, value: &[u8]) {
        self.pin().insert(*key, value.into());
    }
}

impl Peer for moka::sync::Cache<BenchKey, Arc<[u8]>> {
    fn get(&self, key: &BenchKey, out: &mut [u8]) -> bool {
        moka::sync::Cache::get(self, key)
            .map(|v| copy(&v, out))
            .is_some()
    }
    fn set(&self, key: &BenchKey, value: &[u8]) {
        self.insert(*key, value.into());
    }
}

impl Peer for quick_cache::sync::Cache<BenchKey, Arc<[u8]>> {
    fn get(&self, key: &BenchKey, out: &mut [u8]) -> bool {
        quick_cache::sync::Cache::get(self, key)
            .map(|v| copy(&v, out))
            .is_some()
    }
    fn set(&self, key: &BenchKey, value: &[u8]) {
        self.insert(*key, value.into());
    }
}

/// Makes a peer whose capacity is that many items of that size, so that it does not have to evict.
type Make = fn(usize, usize) -> Box<dyn Peer>;

const PEERS: [(&str, Make); 6] = [
    ("hippos", |capacity, len| {
        let config = Config {
            memory: (capacity * (len + 120)).max(16 << 20),
            ..Config::default()
        };
        Box::new(Hippos(Store::new(config, Host::new()).expect("a store")))
    }),
    ("rwlock", |_, _| {
        Box::new(RwLock::new(HashMap::<BenchKey, Box<[u8]>>::new()))
    }),
    ("dashmap", |_, _| {
        Box::new(dashmap::DashMap::<BenchKey, Box<[u8]>>::new())
    }),
    ("papaya", |_, _| {
        Box::new(papaya::HashMap::<BenchKey, Box<[u8]>>::new())
    }),
    ("moka", |capacity, _| {
        Box::new(moka::sync::Cache::<BenchKey, Arc<[u8]>>::new(
            capacity as u64,
        ))
    }),
    ("quick_cache", |capacity, _| {
        Box::new(quick_cache::sync::Cache::<BenchKey, Arc<[u8]>>::new(
            capacity,
        ))
    }),
];

/// A peer that holds `items` items, each read once, as items that stay in a cache usually were.
fn filled(make: Make, items: u64, value: &[u8]) -> Box<dyn Peer> {
    let peer = make(items as usize * 2, value.len());
    for n in 0..items {
        peer.set(&key(n), value);
    }
    let mut out = [0; 512];
    for n in 0..items {
        peer.get(&key(n), &mut out);
    }
    peer
}

/// The mix of operations: lookups in thousandths, and whether they hit.
#[derive(Clone, Copy)]
struct Mix {
    name: &'static str,
    lookups: u64,
    hit: bool,
}

const MIXES: [Mix; 6] = [
    Mix {
        name: "hit",
        lookups: 1000,
        hit: true,
    },
    Mix {
        name: "miss",
        lookups: 1000,
        hit: false,
    },
    Mix {
        name: "set",
        lookups: 0,
        hit: true,
    },
    Mix {
        name: "99.7",
        lookups: 997,
        hit: true,
    },
    Mix {
        name: "73",
        lookups: 730,
        hit: true,
    },
    Mix {
        name: "18",
        lookups: 180,
        hit: true,
    },
];

fn work(peer: &dyn Peer, mix: Mix, items: u64, value: &[u8], seed: u64, rounds: u64) {
    let mut random = seed | 1;
    let mut out = [0; 512];
    for _ in 0..rounds {
        random = random
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        let n = (random >> 33) % items;
        if (random >> 20) % 1000 < mix.lookups {
            let n = if mix.hit { n } else { n + items };
            black_box(peer.get(&key(n), &mut out));
        } else {
            peer.set(&key(n), value);
        }
    }
}

/// Each run asks for keys in another order; the same order would find them in the CPU's caches.
static SEED: AtomicU64 = AtomicU64::new(1);

/// CPU time that this thread has used.
fn used() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("a clock")
        .into()
}

/// The CPU time per thread of `rounds` operations on each of `threads` threads.
fn run(peer: &dyn Peer, mix: Mix, items: u64, value: &[u8], threads: u64, wanted: u64) -> Duration {
    // Enough rounds that the start of a thread does not matter.
    let rounds = wanted.max(20_000);
    let timed = || {
        let seed = SEED.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        let start = used();
        work(peer, mix, items, value, seed, rounds);
        used() - start
    };
    if threads == 1 {
        return timed().mul_f64(wanted as f64 / rounds as f64);
    }
    let barrier = &Barrier::new(threads as usize);
    let sum: Duration = thread::scope(|scope| {
        let start = |_| {
            scope.spawn(|| {
                barrier.wait();
                timed()
            })
        };
        let threads: Vec<_> = (0..threads).map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    sum.mul_f64(wanted as f64 / rounds as f64 / threads as f64)
}

fn bench(c: &mut Criterion) {
    for len in [20usize, 500] {
        let value = vec![b'v'; len];
        // Bytes of an item anywhere, roughly: half of L2 (1 MiB), half of L3 (32 MiB), far beyond.
        let bytes = len as u64 + 80;
        for (place, set) in [
            ("L2", 512 << 10),
            ("L3", 12 << 20),
            ("memory", 192u64 << 20),
        ] {
            let items = set / bytes;
            // Filled when they are first used.
            let peers = PEERS.map(|(name, make)| {
                let value = &value[..];
                (name, LazyCell::new(move || filled(make, items, value)))
            });
            for mix in MIXES {
                for threads in [1, 2] {
                    let group = format!("{}/{len}/{place}/{threads}", mix.name);
                    let mut group = c.benchmark_group(group);
                    for (name, peer) in &peers {
                        group.bench_function(BenchmarkId::from_parameter(name), |b| {
                            LazyCell::force(peer);
                            b.iter_custom(|n| run(&***peer, mix, items, &value, threads, n));
                        });
                    }
                    group.finish();
                }
            }
        }
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(10)
        .nresamples(1000)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}
