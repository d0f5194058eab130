// SPDX-License-Identifier: GPL-2.0-only
//! Prints how many items the store holds at its first eviction, and the bytes per item, at a limit of 64 MiB; and the
//! same for a memcached, if its address is given.
//!
//! `cargo run --release -p hippos_store --example capacity [127.0.0.1:11211]`
//!
//! The memcached must be fresh (`memcached -m 64`): it is filled and flushed.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use hippos_store::host::Host;
use hippos_store::{ClassCounter, Commit, Config, Expiry, Store};

const MEMORY: usize = 64 << 20;

fn key(n: usize, len: usize) -> String {
    format!("{n:0len$}")
}

/// Items that our store holds when it first evicts.
fn ours(key_len: usize, value_len: usize, factor: u32) -> usize {
    let config = Config {
        memory: MEMORY,
        // As the figures in README.md.
        item_min: 16,
        factor,
        ..Config::default()
    };
    let store = Store::new(config, Host::new()).expect("a store");
    let value = vec![b'x'; value_len];
    for n in 0.. {
        let name = key(n, key_len);
        let hash = store.hash(name.as_bytes());
        let mut new = store
            .reserve(name.as_bytes(), hash, 0, Expiry::NEVER, value_len)
            .expect("memory");
        new.write(&value);
        store.commit(new, &Commit::default()).expect("memory");
        if n % 64 == 0 {
            store.maintain();
        }
        if store.classes_counted(ClassCounter::Evicted) != 0 {
            let shot = store.snapshot();
            println!(
                "  slabs {} index {} overflow {} of {} blocks, {} buckets, tables {} KiB",
                shot.slabs,
                shot.index,
                shot.overflow,
                shot.limit >> 20,
                shot.buckets,
                shot.tables >> 10
            );
            return shot.items as usize;
        }
    }
    unreachable!()
}

/// Items that a memcached holds when it first evicts.
fn theirs(address: &str, key_len: usize, value_len: usize) -> std::io::Result<usize> {
    let mut out = TcpStream::connect(address)?;
    out.set_nodelay(true)?;
    let mut input = BufReader::new(out.try_clone()?);
    let mut stat = |out: &mut TcpStream, name: &str| -> std::io::Result<usize> {
        out.write_all(b"stats\r\n")?;
        let mut found = 0;
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("STAT"), Some(n), Some(v)) if n == name => found = v.parse().unwrap_or(0),
                (Some("END"), ..) => return Ok(found),
                _ => {}
            }
        }
    };
    let before = stat(&mut out, "evictions")?;
    let value = "x".repeat(value_len);
    let mut n = 0;
    loop {
        let mut batch = String::new();
        for _ in 0..50 {
            batch += &format!(
                "set {} 0 0 {value_len} noreply\r\n{value}\r\n",
                key(n, key_len)
            );
            n += 1;
        }
        out.write_all(batch.as_bytes())?;
        if stat(&mut out, "evictions")? != before {
            return stat(&mut out, "curr_items");
        }
    }
}

fn main() -> std::io::Result<()> {
    // Each size needs a fresh memcached, because memcached keeps its pages in their classes.
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    for (i, (k, v)) in [(20, 20), (30, 200), (45, 450)].into_iter().enumerate() {
        let mine = ours(k, v, Config::default().factor);
        let bytes = MEMORY as f64 / mine as f64;
        print!("{k}/{v}: {mine} items, {bytes:.1} bytes each");
        if let Some(address) = addresses.get(i) {
            let theirs = theirs(address, k, v)?;
            print!(
                "; memcached {theirs}: {:.3} times",
                mine as f64 / theirs as f64
            );
        }
        println!();
    }
    Ok(())
}
