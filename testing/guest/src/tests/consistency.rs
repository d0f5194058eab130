// SPDX-License-Identifier: GPL-2.0-only
//! Concurrent clients on few keys: their operations must have one order for each key.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use anyhow::{bail, ensure, Context, Result};
use hippos_client::{Tcp, Udp, PORT};
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
const RACES: usize = 60;

/// The key of all of them.
const KEY: &[u8] = b"k";

/// A binary request.
fn binary(opcode: u8, extras: &[u8]) -> Vec<u8> {
    let mut head = vec![0; 24];
    head[..5].copy_from_slice(&[0x80, opcode, 0, KEY.len() as u8, extras.len() as u8]);
    head[11] = (KEY.len() + extras.len()) as u8;
    [&head, extras, KEY].concat()
}

/// Whether `bytes` are one whole text or meta reply, by the announced lengths.
fn framed(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return false;
        };
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 2..];
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().is_ok();
        let (len, more) = match words[..] {
            ["END" | "EN"] | ["HD" | "ME", ..] => return rest.is_empty(),
            ["VALUE", "k", _, len] => (len, true),
            ["VALUE", "k", _, len, cas] if number(cas) => (len, true),
            ["VA", len, ..] => (len, false),
            _ => return false,
        };
        let Some((value, after)) = len.parse().ok().and_then(|len| rest.split_at_checked(len))
        else {
            return false;
        };
        let Some(after) = after.strip_prefix(b"\r\n") else {
            return false;
        };
        if !value.iter().all(|&b| b.is_ascii_digit() || b == b' ') {
            return false;
        }
        rest = after;
        if !more {
            return rest.is_empty();
        }
    }
}

/// Whether `bytes` are one whole binary reply.
fn framed_binary(bytes: &[u8]) -> bool {
    let Some((head, body)) = bytes.split_at_checked(24) else {
        return false;
    };
    let announced = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
    let before = usize::from(head[4]) + usize::from(u16::from_be_bytes([head[2], head[3]]));
    let value = body.get(before..).unwrap_or(&[]);
    let digits = value.iter().all(|&b| b.is_ascii_digit() || b == b' ');
    head[0] == 0x81 && announced == body.len() && (head[7] != 0 || digits)
}

/// A reply over TCP: of text until the answer to the `mn` that follows, of binary as announced.
fn ask(tcp: &mut Tcp, request: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if request[0] == 0x80 {
        tcp.send(request)?;
        bytes.resize(24, 0);
        tcp.read(&mut bytes)?;
        let body = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
        bytes.resize(24 + body, 0);
        tcp.read(&mut bytes[24..])?;
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
    let expiry = 1000u32.to_be_bytes();
    let readers: Vec<Vec<u8>> = vec![
        b"get k\r\n".to_vec(),
        b"gets k\r\n".to_vec(),
        b"gets k none k\r\n".to_vec(),
        b"gats 1000 k\r\n".to_vec(),
        b"mg k t c l h f s v\r\n".to_vec(),
        b"mg k T1000 c v\r\n".to_vec(),
        b"me k\r\n".to_vec(),
        binary(0x00, &[]),
        binary(0x0c, &[]),
        binary(0x1d, &expiry),
        binary(0x23, &expiry),
    ];
    let writers: [&[&str]; 5] = [
        &["md k I E1\r\n", "md k I E18446744073709551615\r\n"],
        &["md k I T30 E1\r\n", "md k I T0 E18446744073709551615\r\n"],
        &["touch k 9\r\n", "gat 2000000 k\r\n", "mg k T0\r\n"],
        &["incr k 1\r\n", "ma k MD E1\r\n"],
        &[
            "md k I E1\r\n",
            "mg k\r\n",
            "ma k E18446744073709551615\r\n",
        ],
    ];
    let client = Client::new()?;
    let hippos = Hippos::load("")?;
    let host = &client.server().to_string();
    client.enter(|| {
        let mut first = Tcp::connect(host)?;
        first.set("k", b"10")?;
        for writes in writers {
            let done = &AtomicBool::new(false);
            thread::scope(|scope| {
                let writer = scope.spawn(move || -> Result<()> {
                    let mut tcp = Tcp::connect(host)?;
                    for write in writes.iter().cycle() {
                        ask(&mut tcp, write.as_bytes())?;
                        if done.load(Relaxed) {
                            break;
                        }
                    }
                    Ok(())
                });
                let read = || -> Result<()> {
                    let (mut text, mut other) = (Tcp::connect(host)?, Tcp::connect(host)?);
                    let mut udp = Udp::connect(host)?;
                    for request in &readers {
                        let is_binary = request[0] == 0x80;
                        let tcp = if is_binary { &mut other } else { &mut text };
                        for _ in 0..RACES {
                            for seen in [udp.ask(request)?, ask(tcp, request)?] {
                                ensure!(
                                    if is_binary {
                                        framed_binary(&seen)
                                    } else {
                                        framed(&seen)
                                    },
                                    "{} beside {writes:?}: {}",
                                    request.escape_ascii(),
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
