// SPDX-License-Identifier: GPL-2.0-only
//! A stock client, the `memcache` crate, over TCP and over UDP.

use std::collections::HashMap;

use anyhow::{ensure, Result};
use memcache::Client;

pub(super) fn text(port: u16) -> Result<()> {
    basic_operations(
        &format!("memcache://127.0.0.1:{port}?timeout=10&protocol=ascii"),
        true,
    )
}

pub(super) fn binary(port: u16) -> Result<()> {
    basic_operations(
        &format!("memcache://127.0.0.1:{port}?timeout=10&protocol=binary"),
        true,
    )
}

/// Over UDP the crate never sends a get of the text protocol, nor one of several keys.
pub(super) fn udp(port: u16) -> Result<()> {
    basic_operations(
        &format!("memcache+udp://127.0.0.1:{port}?timeout=10&protocol=binary"),
        false,
    )
}

/// The basic operations of a cache.
fn basic_operations(url: &str, several: bool) -> Result<()> {
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
    // Over text the crate reports success for a value that was not stored, over binary an error.
    client.add("added", "once", 0)?;
    let _ = client.add("added", "twice", 0);
    ensure!(
        client.get::<String>("added")?.as_deref() == Some("once"),
        "not added once"
    );
    client.replace("added", "replaced", 0)?;
    ensure!(
        client.get::<String>("added")?.as_deref() == Some("replaced"),
        "not replaced"
    );
    let _ = client.replace("never", "set", 0);
    ensure!(
        client.get::<String>("never")?.is_none(),
        "replaced what was not there"
    );

    if several {
        let all: HashMap<String, String> = client.gets(&["greeting", "missing", "added"])?;
        ensure!(all.len() == 2, "two of three keys are there, not {all:?}");
    }

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
