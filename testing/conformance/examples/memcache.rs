// SPDX-License-Identifier: GPL-2.0-only
//! Every operation of the Rust crate `memcache`, in text and binary, over TCP and UDP.
//!
//! `cargo run -p hippos_conformance --example memcache -- HOST:PORT`

use anyhow::{ensure, Context, Result};
use memcache::Client;
use std::collections::HashMap;
use std::time::Duration;

fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("expected HOST:PORT")?;
    // Text over UDP is left out: the crate waits for the answer to a get that it never sends.
    for (transport, protocol) in [("tcp", "ascii"), ("tcp", "binary"), ("udp", "binary")] {
        let url = format!("memcache+{transport}://{address}?timeout=20&protocol={protocol}");
        operations(&url, transport).with_context(|| url.clone())?;
        println!("memcache crate: {protocol} over {transport} passed");
    }
    Ok(())
}

fn operations(url: &str, transport: &str) -> Result<()> {
    let client = Client::connect(url)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let key = |name: &str| format!("c{}:{name}", now.as_nanos());
    let get = |name: &str| -> Result<Option<String>> { Ok(client.get(&key(name))?) };

    ensure!(!client.version()?.is_empty());
    client.set(&key("a"), "1", 0)?;
    ensure!(get("a")? == Some("1".into()));
    ensure!(get("none")?.is_none());
    // The crate reports whether the value was stored in one protocol only.
    let _ = client.add(&key("a"), "2", 0);
    ensure!(get("a")? == Some("1".into()));
    client.add(&key("b"), "2", 0)?;
    client.replace(&key("b"), "3", 0)?;
    let _ = client.replace(&key("none"), "3", 0);
    ensure!(get("none")?.is_none());
    client.append(&key("b"), "4")?;
    client.prepend(&key("b"), "2")?;
    ensure!(get("b")? == Some("234".into()));
    let _ = client.append(&key("none"), "4");
    ensure!(get("none")?.is_none());
    client.set(&key("n"), 10, 0)?;
    ensure!(client.increment(&key("n"), 5)? == 15);
    ensure!(client.decrement(&key("n"), 6)? == 9);
    // In the binary protocol the crate makes the counter.
    let _ = client.increment(&key("none2"), 1);
    // Over UDP the crate waits for the answer to a gets that it never sends.
    if transport == "tcp" {
        let names: Vec<String> = (0..40).map(|i| key(&format!("m{i}"))).collect();
        for name in &names {
            client.set(name, name.as_str(), 100)?;
        }
        let mut asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let none = key("none");
        asked.push(&none);
        let got: HashMap<String, String> = client.gets(&asked)?;
        ensure!(got.len() == 40, "{} of 40 keys", got.len());
        ensure!(got.iter().all(|(k, v)| k == v));
        // gets of one key carries its CAS.
        let cas: HashMap<String, (Vec<u8>, u32, Option<u64>)> = client.gets(&[&key("a")])?;
        let id = cas
            .get(&key("a"))
            .and_then(|(_, _, cas)| *cas)
            .context("no CAS")?;
        ensure!(client.cas(&key("a"), "5", 0, id)?);
        ensure!(!client.cas(&key("a"), "6", 0, id)?);
    }
    ensure!(client.touch(&key("a"), 100)?);
    ensure!(!client.touch(&key("none"), 100)?);
    ensure!(client.delete(&key("a"))?);
    ensure!(!client.delete(&key("a"))?);
    let large = vec![b'x'; if transport == "tcp" { 900_000 } else { 1200 }];
    client.set(&key("large"), large.as_slice(), 0)?;
    ensure!(client.get::<Vec<u8>>(&key("large"))? == Some(large));
    if transport == "udp" {
        // A value of several datagrams, stored in pieces since a request is one datagram.
        let piece = vec![b'y'; 1000];
        client.set(&key("long"), piece.as_slice(), 0)?;
        for _ in 0..9 {
            client.append(&key("long"), piece.as_slice())?;
        }
        ensure!(client.get::<Vec<u8>>(&key("long"))? == Some(vec![b'y'; 10_000]));
    }
    ensure!(client.get::<Vec<u8>>(&"k".repeat(251)).is_err());
    client.set(&key("short"), "1", 1)?;
    std::thread::sleep(Duration::from_millis(2100));
    ensure!(get("short")?.is_none());
    if url.ends_with("binary") {
        // In text the crate stops reading at the first line.
        let stats = client.stats()?;
        ensure!(stats
            .iter()
            .all(|(_, stats)| stats.contains_key("curr_items")));
    }
    client.flush_with_delay(1_000_000)?;
    client.flush()?;
    Ok(())
}
