// SPDX-License-Identifier: GPL-2.0-only
//! Concurrent clients on few keys: their operations must have one order for each key.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use anyhow::{bail, ensure, Context, Result};
use hippos_client::{Tcp, Udp, PORT};
use hippos_conformance::packet;
use hippos_conformance::races::{self, Form};
use hippos_histories::{check, record, Plan};

use crate::modules::Hippos;
use crate::netns::Client;

/// Histories of a run without COUNT.
const HISTORIES: u64 = 4;

/// Histories over TCP and UDP, each on keys of its own: `TEST [COUNT]`
pub(super) fn histories_are_linearizable(arguments: &[String]) -> Result<()> {
    let count: u64 = arguments
        .first()
        .map_or(Ok(HISTORIES), |text| text.parse().context("how many?"))?;
    let client = Client::new()?;
    let hippos = Hippos::load("")?;
    let mut total = 0;
    for seed in 1..=count {
        let plan = Plan {
            server: SocketAddr::new(client.server(), PORT),
            clients: 6,
            keys: 8,
            operations: 250,
            udp: true,
            seed,
        };
        let history = client.enter(|| record(&plan))?;
        let operations: usize = history.values().map(Vec::len).sum();
        ensure!(
            operations == plan.clients * plan.operations,
            "operations are missing: {operations}"
        );
        total += operations;
        if let Some(key) = check(&history) {
            let mut seen = history[key].clone();
            seen.sort_by_key(|operation| operation.called);
            let lines: Vec<_> = seen.iter().map(|line| format!("{line:?}")).collect();
            bail!("{key} is not linearizable:\n{}", lines.join("\n"));
        }
    }
    println!("{count} histories, {total} operations");
    hippos.verify()?;
    hippos.unload()
}

/// Requests of each pair of reader and writer, by each receive path.
const RACES: usize = 40;

/// A reply over TCP: of text until the answer to the `mn` that follows, of binary as announced.
fn ask(tcp: &mut Tcp, request: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if request[0] == packet::REQUEST {
        tcp.send(request)?;
        bytes.resize(packet::HEADER, 0);
        tcp.read(&mut bytes)?;
        let body = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
        bytes.resize(packet::HEADER + body, 0);
        tcp.read(&mut bytes[packet::HEADER..])?;
        return Ok(bytes);
    }
    tcp.send(&[request, b"mn\r\n"].concat())?;
    while !bytes.ends_with(b"MN\r\n") {
        let mut byte = [0];
        tcp.read(&mut byte)
            .with_context(|| format!("no end of {}", bytes.escape_ascii()))?;
        bytes.push(byte[0]);
    }
    bytes.truncate(bytes.len() - 4);
    Ok(bytes)
}

/// Each form of a reader beside each write that changes an item in place, by UDP and by TCP: every
/// reply has the length that it announces.
pub(super) fn replies_are_framed_beside_writes() -> Result<()> {
    let client = Client::new()?;
    let hippos = Hippos::load("")?;
    let host = &client.server().to_string();
    client.enter(|| {
        let mut first = Tcp::connect(host)?;
        for writes in races::writers() {
            let (done, writes) = (&AtomicBool::new(false), &writes);
            thread::scope(|scope| {
                let writer = scope.spawn(move || -> Result<()> {
                    let mut tcp = Tcp::connect(host)?;
                    for write in writes.iter().cycle() {
                        ask(&mut tcp, write)?;
                        if done.load(Relaxed) {
                            break;
                        }
                    }
                    Ok(())
                });
                let mut read = || -> Result<()> {
                    let (mut text, mut binary) = (Tcp::connect(host)?, Tcp::connect(host)?);
                    let mut udp = Udp::connect(host)?;
                    for (form, request) in races::readers() {
                        let tcp = match form {
                            Form::Binary => &mut binary,
                            _ => &mut text,
                        };
                        // A writer may have left it to expire.
                        ask(&mut first, races::ITEMS)?;
                        for _ in 0..RACES {
                            for seen in [udp.ask(&request)?, ask(tcp, &request)?] {
                                ensure!(
                                    races::is_framed(form, &seen),
                                    "{} beside {}: {}",
                                    request.escape_ascii(),
                                    writes.concat().escape_ascii(),
                                    seen.escape_ascii()
                                );
                            }
                        }
                    }
                    Ok(())
                };
                let result = read();
                done.store(true, Relaxed);
                writer.join().expect("the writer")?;
                result
            })?;
        }
        Ok(())
    })?;
    hippos.verify()?;
    hippos.unload()
}
