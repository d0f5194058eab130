// SPDX-License-Identifier: GPL-2.0-only
//! The TCP workers: many connections, long ones, and clients that behave oddly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use hippos_client::{Tcp, PORT};

use crate::modules::Hippos;
use crate::netns::{self, Namespace};
use crate::socket_map::SocketMap;

/// Connections that are opened and closed as fast as possible: each is served and closed.
pub(super) fn short_connections_are_served_and_closed() -> Result<()> {
    let hippos = Hippos::load("")?;
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let client = |host: &'static str| {
            move || -> Result<()> {
                for number in 0..300 {
                    let mut tcp = Tcp::connect(host)?;
                    tcp.send(b"version\r\n")?;
                    let line = tcp.line().with_context(|| format!("connection {number}"))?;
                    ensure!(line.starts_with("VERSION"), "{line:?}");
                    if number % 2 == 0 {
                        tcp.send(b"quit\r\n")?;
                        ensure!(tcp.rest()?.is_empty(), "more after quit");
                    }
                }
                Ok(())
            }
        };
        let threads: Vec<_> = (0..16)
            .map(|n| scope.spawn(client(if n % 2 == 0 { "127.0.0.1" } else { "::1" })))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("panicked")))
            .collect()
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    let open = Tcp::connect("127.0.0.1")?.stat("curr_connections")?;
    ensure!(open < 10, "{open} connections left over");
    hippos.unload()
}

/// A BPF program that puts each socket into a socket map as it is accepted or listens, for which the
/// map keeps data of its own with the socket: Hippos's sockets stay out of it, and are served.
pub(super) fn sockets_stay_out_of_socket_maps() -> Result<()> {
    let map = SocketMap::attach()?;
    let plain = TcpListener::bind("127.0.0.1:0")?;
    drop(TcpStream::connect(plain.local_addr()?)?);
    ensure!(map.socket().is_some(), "an ordinary socket is not in it");
    drop(plain);
    ensure!(map.socket().is_none(), "a closed socket is in it");
    let hippos = Hippos::load("")?;
    for number in 0..100 {
        let mut tcp = Tcp::connect("127.0.0.1")?;
        tcp.set("key", b"value")
            .with_context(|| format!("connection {number}"))?;
        ensure!(map.socket().is_none(), "connection {number} is in it");
    }
    hippos.unload_all()
}

/// Pipelined requests, cut anywhere.
pub(super) fn pipelines_cut_anywhere_are_answered() -> Result<()> {
    let hippos = Hippos::load("")?;
    let stream = TcpStream::connect(("127.0.0.1", PORT))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut requests = Vec::new();
    let mut answers = Vec::new();
    for number in 0..3000usize {
        let value = format!("{number:x}").repeat(number % 500 + 1);
        let head = format!("set key{number} {number} 0 {}\r\n", value.len());
        requests.extend_from_slice(format!("{head}{value}\r\nget key{number} none\r\n").as_bytes());
        answers.extend_from_slice(b"STORED\r\n");
        let head = format!("VALUE key{number} {number} {}\r\n", value.len());
        answers.extend_from_slice(format!("{head}{value}\r\nEND\r\n").as_bytes());
    }
    let mut reading = stream.try_clone()?;
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            let mut stream = &stream;
            let mut rest = &requests[..];
            for size in (1..).step_by(7).map(|n| n % 4000 + 1) {
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at(size.min(rest.len()));
                if stream.write_all(part).is_err() {
                    break;
                }
                rest = after;
            }
            // All requests are still answered.
            let _ = stream.shutdown(Shutdown::Write);
        });
        let mut found = Vec::new();
        reading.read_to_end(&mut found)?;
        ensure!(
            found == answers,
            "{} bytes, not the {} expected",
            found.len(),
            answers.len()
        );
        Ok(())
    })?;
    hippos.unload()
}

/// A reply that fills the worker's page is sent although the commands behind it have none: it is not
/// held back for bytes that do not come.
pub(super) fn replies_leave_before_silent_commands() -> Result<()> {
    // Some of the pipelines end where a page ends, independently of earlier replies.
    const PASSES: usize = 10;
    const LONGEST: usize = 40;
    // The requests of another connection that may be served meanwhile. One worker serves both in the order of
    // their requests, unless a turn was cut short; TCP's timer takes hundreds of times as long.
    const OTHERS: usize = 64;
    let hippos = Hippos::load("threads=1")?;
    let mut other = Tcp::connect("127.0.0.1")?;
    other.set("key", &[b'v'; 1000])?;
    let reply = [b"VALUE key 0 1000\r\n", &[b'v'; 1000][..], b"\r\nEND\r\n"].concat();
    let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    for count in (0..PASSES).flat_map(|_| 1..=LONGEST) {
        // The first command keeps the callback from serving the others.
        let commands = [
            b"mn\r\n",
            &b"get key\r\n".repeat(count)[..],
            b"delete none noreply\r\n",
        ];
        stream.write_all(&commands.concat())?;
        let wanted = [b"MN\r\n", &reply.repeat(count)[..]].concat();
        let mut found = vec![0; wanted.len()];
        let mut len = 0;
        for _ in 0..OTHERS {
            other.send(b"mn\r\n")?;
            ensure!(other.line()? == "MN\r\n", "another connection's reply");
            match stream.read(&mut found[len..]) {
                Ok(count) => len += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if len == wanted.len() {
                break;
            }
        }
        ensure!(
            found[..len] == wanted,
            "{count} values: {len} bytes, not the {} expected",
            wanted.len()
        );
    }
    hippos.unload()
}

/// The largest values, in and out.
pub(super) fn large_values_return_whole() -> Result<()> {
    let hippos = Hippos::load("")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for length in [100_000, 500_000, 1_000_000, 1_048_576 - 200] {
        let value: Vec<u8> = (0..length).map(|i| (i % 253) as u8).collect();
        tcp.set("large", &value)?;
        for _ in 0..3 {
            tcp.send(b"get large\r\n")?;
            let line = tcp.line()?;
            ensure!(line == format!("VALUE large 0 {length}\r\n"), "{line:?}");
            let mut found = vec![0; length];
            tcp.read(&mut found)?;
            ensure!(found == value, "{length} bytes came back otherwise");
            let end = (tcp.line()?, tcp.line()?);
            ensure!(end == ("\r\n".into(), "END\r\n".into()), "{end:?}");
        }
    }
    let head = format!("set large 0 0 {}\r\n", 1 << 20);
    tcp.send(head.as_bytes())?;
    tcp.send(&vec![b'x'; 1 << 20])?;
    tcp.send(b"\r\n")?;
    let line = tcp.line()?;
    ensure!(
        line == "SERVER_ERROR object too large for cache\r\n",
        "{line:?}"
    );
    hippos.unload()
}

/// Clients that request large values and read nothing do not delay the requests of
/// other clients, and get their replies when they read.
pub(super) fn silent_readers_do_not_delay_others() -> Result<()> {
    let hippos = Hippos::load("memory_mb=16")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("large", &vec![b'x'; 1_000_000])?;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
        stream.set_nonblocking(true)?;
        let requests = b"get large\r\n".repeat(1000);
        // The server reads until the reply fills the socket's buffers; then it must stop reading.
        let mut rest = &requests[..];
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) && !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
        silent.push(stream);
    }
    for _ in 0..100 {
        tcp.set("key", b"value")?;
        tcp.send(b"get key\r\n")?;
        for line in ["VALUE key 0 5\r\n", "value\r\n", "END\r\n"] {
            let found = tcp.line()?;
            ensure!(found == line, "{found:?}");
        }
    }
    // One of them begins to read after all.
    let mut late = silent.pop().context("no connection")?;
    late.set_nonblocking(false)?;
    late.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut found = vec![0; 5_000_000];
    late.read_exact(&mut found)?;
    ensure!(
        found.starts_with(b"VALUE large 0 1000000\r\nxxx"),
        "not the value"
    );
    hippos.unload()
}

/// Many connections that store while memory is full: items are evicted for each of them.
pub(super) fn writers_at_the_memory_limit_all_store() -> Result<()> {
    const CONNECTIONS: usize = 24;
    const SETS: usize = 120;
    // More workers than CPUs: each may lack memory while another one evicts.
    let hippos = Hippos::load("memory_mb=8 threads=8")?;
    let value: Vec<u8> = (0..10_100).map(|i| (i % 251) as u8).collect();
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let client = |number: usize| {
            let value = &value[..];
            move || -> Result<()> {
                let mut tcp = Tcp::connect("127.0.0.1")?;
                tcp.timeout(Duration::from_secs(60))?;
                let mut random = number * 77 + 1;
                for round in 0..SETS {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let length = [1000, 10_000][(random >> 33) % 2] + (random >> 20) % 100;
                    let key = format!("{number}:{}", random % 4096);
                    tcp.set(&key, &value[..length])
                        .with_context(|| format!("connection {number}, set {round}"))?;
                    tcp.send(format!("get {key}\r\n").as_bytes())?;
                    let head = tcp.line()?;
                    // It may have been evicted.
                    if head == "END\r\n" {
                        continue;
                    }
                    ensure!(head == format!("VALUE {key} 0 {length}\r\n"), "{head:?}");
                    let mut found = vec![0; length + 7];
                    tcp.read(&mut found)?;
                    ensure!(found[..length] == value[..length], "{key} is another's");
                }
                Ok(())
            }
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(|n| scope.spawn(client(n))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("panicked")))
            .collect()
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    ensure!(tcp.stat("evictions")? > 0, "memory was never full");
    ensure!(tcp.stat("store_no_memory")? == 0, "a client was refused");
    hippos.unload()
}

/// The peer of a connection that was closed while it could not be reached still gets the FIN, which is
/// retransmitted even after the module was unloaded.
pub(super) fn fin_retransmitted_after_unload() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load("")?;
    let mut stream = there.enter(|| Ok(TcpStream::connect((link.here_ipv4.as_str(), PORT))?))?;
    stream.set_read_timeout(Some(Duration::from_secs(90)))?;
    stream.write_all(b"version\r\n")?;
    let mut line = [0; 64];
    let len = stream.read(&mut line)?;
    ensure!(line[..len].starts_with(b"VERSION"), "{:?}", &line[..len]);
    // The client's address is removed: packets to it are lost, without an error.
    let address = format!("{}/24 dev {}", link.far_ipv4, link.far);
    there.ip(&format!("addr del {address}"))?;
    hippos.unload()?;
    thread::sleep(Duration::from_millis(100));
    there.ip(&format!("addr add {address}"))?;
    let len = stream
        .read(&mut line)
        .context("the FIN was not sent again")?;
    ensure!(len == 0, "{len} bytes after the end");
    Ok(())
}
