//! A stock client, the `memcache` crate, over TCP and over UDP.

use std::collections::HashMap;

use anyhow::{ensure, Result};
use memcache::Client;

pub(super) fn tcp(port: u16) -> Result<()> {
    everyday(&format!(
        "memcache://127.0.0.1:{port}?timeout=10&protocol=ascii"
    ))
}

pub(super) fn udp(port: u16) -> Result<()> {
    everyday(&format!("memcache+udp://127.0.0.1:{port}?timeout=10"))
}

/// What any program does with a cache.
fn everyday(url: &str) -> Result<()> {
    let client = Client::connect(url)?;
    ensure!(
        client.get::<String>("missing")?.is_none(),
        "a value out of nowhere"
    );
    client.set("greeting", "hello", 0)?;
    ensure!(
        client.get::<String>("greeting")?.as_deref() == Some("hello"),
        "not what was set"
    );
    client.add("added", "once", 0)?;
    ensure!(client.add("added", "twice", 0).is_err(), "added twice");
    client.replace("added", "replaced", 0)?;
    ensure!(
        client.get::<String>("added")?.as_deref() == Some("replaced"),
        "not replaced"
    );
    ensure!(
        client.replace("never", "set", 0).is_err(),
        "replaced what was not there"
    );

    let all: HashMap<String, String> = client.gets(&["greeting", "missing", "added"])?;
    ensure!(all.len() == 2, "two of three keys are there, not {all:?}");

    // 1,000 bytes still fit in one datagram.
    let long = "x".repeat(1000);
    client.set("long", long.as_str(), 0)?;
    ensure!(
        client.get::<String>("long")?.as_deref() == Some(long.as_str()),
        "long value"
    );

    ensure!(client.delete("greeting")?, "deleted nothing");
    ensure!(!client.delete("greeting")?, "deleted twice");
    ensure!(client.get::<String>("greeting")?.is_none(), "still there");
    client.flush()?;
    ensure!(
        client.get::<String>("added")?.is_none(),
        "flushed, but still there"
    );
    Ok(())
}
