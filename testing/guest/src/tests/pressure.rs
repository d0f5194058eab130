// SPDX-License-Identifier: GPL-2.0-only
//! Memory pressure: the cache's memory is held by values that never come, or the machine's is short.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use hippos_client::{Tcp, Udp, PORT};

use crate::kmsg::Log;
use crate::modules::{self, Hippos};
use crate::system::{memory, run};

/// A guest that shares its processors may be slow.
const LIMIT: Duration = Duration::from_secs(120);

/// Connections that announce values of 1,000,000 bytes and send nothing more.
fn announce(count: usize) -> Result<Vec<TcpStream>> {
    let all = (0..count).map(|number| {
        let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
        stream.write_all(format!("set big{number} 0 0 1000000\r\n").as_bytes())?;
        Ok(stream)
    });
    all.collect()
}

/// Waits until `wanted` accepts the value of `name` in `stats`.
fn wait_for(tcp: &mut Tcp, name: &str, wanted: impl Fn(u64) -> bool) -> Result<u64> {
    let start = Instant::now();
    loop {
        let found = tcp.stat(name)?;
        if wanted(found) {
            return Ok(found);
        }
        ensure!(start.elapsed() < LIMIT, "{name} is still {found}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The part of a machine's memory that the cache does not use. Bytes.
fn reserve(total: u64) -> u64 {
    (total / 16).max(64 << 20)
}

/// The most that the cache may use of so many bytes. Whole MiB.
fn most(total: u64) -> u64 {
    (total - reserve(total)) >> 20
}

/// The memory limit can't exceed the machine's memory, and a client can't raise it above the owner's.
pub(super) fn memory_limit_is_bounded_by_machine_and_owner() -> Result<()> {
    let all = memory("MemTotal:")?;
    let total = all >> 20;
    let nearly = total - 10;
    let mut log = Log::open()?;
    log.lines();
    let refused = modules::insert(modules::HIPPOS.as_ref(), &format!("memory_mb={nearly}"));
    ensure!(refused.is_err(), "memory_mb={nearly} of {total} was taken");
    let lines = log.lines();
    let range = format!("memory_mb={nearly}: must be from 8 to {} on", most(all));
    ensure!(lines.iter().any(|line| line.contains(&range)), "{lines:?}");

    let hippos = Hippos::load("memory_mb=64")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let mut ask = |mib: u64| -> Result<String> {
        tcp.send(format!("cache_memlimit {mib}\r\n").as_bytes())?;
        tcp.line()
    };
    for mib in [65, 128, nearly, 1024] {
        let line = ask(mib)?;
        ensure!(line.starts_with("MEMLIMIT_ADJUST_FAILED "), "{mib}: {line}");
    }
    for mib in [32, 64] {
        let line = ask(mib)?;
        ensure!(line == "OK\r\n", "{mib}: {line}");
    }
    let reply = Udp::connect("127.0.0.1")?.ask(b"cache_memlimit 32\r\n")?;
    ensure!(reply.starts_with(b"CLIENT_ERROR "), "{reply:?}");
    // Tables that were made for 64 MiB suffice for 16 times that.
    let most = (most(all) - 1).min(16 * 64);
    run(&format!("hippos-ctl memory {most}"))?;
    ensure!(run(&format!("hippos-ctl memory {nearly}")).is_err());
    let line = ask(most)?;
    ensure!(line == "OK\r\n", "what the owner set: {line}");
    hippos.verify()?;
    hippos.unload()
}

/// Clients that announce values and send none leave memory for other clients, cost them few grace
/// periods, and are disconnected in the end.
pub(super) fn unfinished_values_are_bounded_and_timed_out() -> Result<()> {
    let hippos = Hippos::load("memory_mb=64 upload_timeout=3")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let mut held = announce(70)?;
    wait_for(&mut tcp, "hippos_upload_bytes", |bytes| bytes > 30 << 20)?;
    let before = tcp.stat("hippos_writer_waits")?;
    for number in 0..40 {
        tcp.set(&format!("key{number}"), &[b'x'; 5000])?;
    }
    let waits = tcp.stat("hippos_writer_waits")? - before;
    println!("{waits} grace periods for 40 sets beside 70 unfinished values");
    ensure!(waits <= 40 * 16, "{waits} grace periods");
    wait_for(&mut tcp, "hippos_uploads_timed_out", |count| count >= 30)?;
    wait_for(&mut tcp, "hippos_upload_bytes", |bytes| bytes == 0)?;
    // The workers decide which of them get a slot.
    let mut gone = 0;
    for stream in &mut held {
        stream.set_nonblocking(true)?;
        gone += usize::from(match stream.read(&mut [0; 64]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        });
    }
    ensure!(gone >= 30, "{gone} were hung up on");
    tcp.set("large", &vec![b'y'; 900_000])?;
    hippos.verify()?;
    hippos.unload()
}

/// Commands that copy much do not delay the other connections of their worker.
pub(super) fn costly_pipelines_do_not_delay_others() -> Result<()> {
    const APPENDS: usize = 400;
    const LEN: usize = 800_000;
    // One buffer of the socket's holds 276.
    const MOST: u64 = 200;
    let hippos = Hippos::load("memory_mb=64 threads=1")?;
    let mut tcp = Tcp::patient("127.0.0.1")?;
    tcp.set("big", &[b'x'; LEN])?;
    let mut costly = Tcp::patient("127.0.0.1")?;
    costly.send(&b"append big 0 0 1 noreply\r\nx\r\n".repeat(APPENDS))?;
    let done = loop {
        tcp.send(b"mg big s\r\n")?;
        let line = tcp.line()?;
        let len: u64 = line
            .trim_end()
            .strip_prefix("HD s")
            .with_context(|| line.clone())?
            .parse()?;
        if len > LEN as u64 {
            break len - LEN as u64;
        }
    };
    println!("{done} appends before another's command");
    ensure!(done < MOST, "{done} came first");
    // The store is verified at rest.
    costly.send(b"version\r\n")?;
    costly.line()?;
    hippos.verify()?;
    hippos.unload()
}

/// While a writer waits for memory, other connections of its worker are served.
pub(super) fn other_connections_served_while_writer_waits() -> Result<()> {
    let hippos = Hippos::load("memory_mb=64 threads=1")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("small", b"value")?;
    let held = announce(70)?;
    wait_for(&mut tcp, "hippos_upload_bytes", |bytes| bytes > 30 << 20)?;
    // Those of the seventy that wait for memory are refused in the end; their values are skipped then.
    let sure = AtomicBool::new(false);
    let turns = thread::scope(|scope| -> Result<usize> {
        let waiting = scope.spawn(|| -> Result<String> {
            let mut late = Tcp::connect("127.0.0.1")?;
            late.timeout(LIMIT)?;
            late.send(b"set late 0 0 400000\r\n")?;
            late.send(&vec![b'z'; 400_000])?;
            late.send(b"\r\n")?;
            let line = late.line();
            sure.store(true, Ordering::Relaxed);
            line
        });
        let mut turns = 0;
        while !sure.load(Ordering::Relaxed) {
            tcp.send(b"touch small 0\r\n")?;
            ensure!(tcp.line()? == "TOUCHED\r\n");
            turns += 1;
        }
        let line = waiting.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        ensure!(line.starts_with("SERVER_ERROR out of memory"), "{line:?}");
        Ok(turns)
    })?;
    println!("{turns} commands of others while one waited");
    ensure!(turns >= 10, "only {turns} commands while another waited");
    drop(held);
    hippos.verify()?;
    hippos.unload()
}

/// The machine is short of memory: the cache frees memory before the kernel kills a process.
pub(super) fn cache_shrinks_before_the_kernel_kills() -> Result<()> {
    let mut log = Log::open()?;
    log.lines();
    let all = memory("MemTotal:")?;
    let total = all >> 20;
    let hippos = Hippos::load(&format!("memory_mb={}", most(all) - 1))?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.timeout(LIMIT)?;
    let value = vec![b'x'; 500_000];
    for number in 0..total * 2 {
        tcp.set(&format!("key{number}"), &value)?;
    }
    let full = tcp.stat("hippos_memory_held")?;
    let left = memory("MemAvailable:")?;
    println!(
        "{} of {total} MiB held, {} available",
        full >> 20,
        left >> 20
    );
    ensure!(left > 24 << 20, "{left} bytes are left to others");
    // Another program takes more memory than was left, piece by piece.
    let piece = reserve(all) / 16;
    let mut hog = Vec::new();
    for step in 1..=20u64 {
        hog.push(vec![1u8; piece as usize]);
        let most = full.saturating_sub((step * piece).saturating_sub(piece * 6));
        wait_for(&mut tcp, "hippos_memory_held", |held| held <= most)?;
        tcp.set("key0", &value)?;
    }
    ensure!(tcp.stat("hippos_memory_shortages")? != 0);
    ensure!(tcp.stat("hippos_memory_allowed")? < tcp.stat("limit_maxbytes")?);
    ensure!(memory("MemAvailable:")? > 8 << 20);
    let given = full - tcp.stat("hippos_memory_held")?;
    println!("{} MiB given back", given >> 20);
    drop(hog);
    let allowed = |bytes: u64| bytes > full - (16 << 20);
    wait_for(&mut tcp, "hippos_memory_allowed", allowed)?;
    let lines = log.lines();
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    ensure!(has("memory shortage: limit lowered"), "{lines:?}");
    ensure!(!has("Out of memory") && !has("oom-kill"), "{lines:?}");
    hippos.verify()?;
    hippos.unload()
}

/// Unloading while connections wait for memory, values are being received, slow readers hold deleted
/// items, and the machine is short of memory.
pub(super) fn unloads_under_memory_pressure() -> Result<()> {
    let all = memory("MemTotal:")?;
    let total = all >> 20;
    for round in 0..3 {
        let hippos = Hippos::load(match round {
            0 => "memory_mb=16",
            1 => "memory_mb=16 upload_timeout=1",
            _ => "memory_mb=16 threads=1",
        })?;
        let held = announce(40)?;
        let mut tcp = Tcp::connect("127.0.0.1")?;
        for number in 0..40 {
            tcp.set(&format!("key{number}"), &[b'x'; 100_000]).ok();
        }
        let mut slow = Vec::new();
        for _ in 0..40 {
            let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
            stream.set_nonblocking(true)?;
            let _ = stream.write(&b"get key39\r\n".repeat(100));
            slow.push(stream);
        }
        thread::sleep(Duration::from_millis(200));
        tcp.set("key39", &[b'y'; 100_000]).ok();
        tcp.send(b"set last 0 0 900000\r\n")?;
        thread::sleep(Duration::from_millis(20 * round));
        hippos.unload().with_context(|| format!("round {round}"))?;
        drop((held, slow));
    }
    let hippos = Hippos::load(&format!("memory_mb={}", most(all) - 1))?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.timeout(LIMIT)?;
    for number in 0..total * 2 {
        tcp.set(&format!("key{number}"), &vec![b'x'; 500_000])?;
    }
    let hog: Vec<_> = (0..8).map(|_| vec![1u8; 4 << 20]).collect();
    hippos.unload()?;
    drop(hog);
    Ok(())
}
