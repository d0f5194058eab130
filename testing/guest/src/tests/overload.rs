// SPDX-License-Identifier: GPL-2.0-only
//! Overload and abuse: thousands of connections, clients that never read, never
//! finish a request, or disappear.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use hippos_client::{check, Tcp, Udp, PORT};
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::socket::{
    connect, setsockopt, socket, sockopt, AddressFamily, SockFlag, SockType, SockaddrIn,
};

use crate::leaks;
use crate::modules::{self, Hippos};
use crate::netns::{self, Namespace};
use crate::system::{memory, run};

const LIMIT: Duration = Duration::from_secs(60);

/// Other clients are served as usual.
fn served() -> Result<()> {
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("small", b"value")?;
    let reply = Udp::connect("127.0.0.1")?.ask(b"get small\r\n")?;
    ensure!(reply == b"VALUE small 0 5\r\nvalue\r\nEND\r\n", "{reply:?}");
    Ok(())
}

/// Waits until no more than `most` connections are open.
fn settled(most: u64) -> Result<()> {
    let start = Instant::now();
    loop {
        let open = Tcp::connect("127.0.0.1")?.stat("curr_connections")?;
        if open <= most {
            return Ok(());
        }
        ensure!(start.elapsed() < LIMIT, "{open} connections are left over");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Ten thousand connections that send nothing.
pub(super) fn idle_connections_do_not_delay_others() -> Result<()> {
    const COUNT: usize = 10_000;
    setrlimit(Resource::RLIMIT_NOFILE, 30_000, 30_000)?;
    let hippos = Hippos::load("memory_mb=16 maxconns=12000")?;
    served()?;
    let before = memory("MemFree:")?;
    let mut idle = Vec::with_capacity(COUNT);
    for number in 0..COUNT {
        let stream = TcpStream::connect(("127.0.0.1", PORT))
            .with_context(|| format!("connection {number}"))?;
        idle.push(stream);
    }
    // Accepted, all of them.
    let start = Instant::now();
    loop {
        let open = Tcp::connect("127.0.0.1")?.stat("curr_connections")?;
        if open >= COUNT as u64 {
            break;
        }
        ensure!(start.elapsed() < LIMIT, "only {open} connections");
        thread::sleep(Duration::from_millis(100));
    }
    let each = before.saturating_sub(memory("MemFree:")?) / COUNT as u64;
    println!("{COUNT} connections, {each} bytes each with the client's end");
    served()?;
    for stream in idle.iter_mut().step_by(501) {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"version\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        ensure!(&answer == b"VERSION", "{answer:?}");
    }
    drop(idle);
    settled(10)?;
    hippos.unload()
}

/// Clients that request large values and read nothing: the kernel's memory for each is bounded.
pub(super) fn never_reading_clients_hold_bounded_memory() -> Result<()> {
    const COUNT: usize = 16;
    const MOST: u64 = 8 << 20;
    let hippos = Hippos::load("memory_mb=16")?;
    Tcp::connect("127.0.0.1")?.set("large", &vec![b'x'; 1_000_000])?;
    let before = memory("MemFree:")?;
    let mut silent = Vec::new();
    for _ in 0..COUNT {
        let stream = TcpStream::connect(("127.0.0.1", PORT))?;
        stream.set_nonblocking(true)?;
        silent.push(stream);
    }
    // A thousand million bytes are requested, again and again.
    let requests = b"get large\r\n".repeat(1000);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        for stream in &mut silent {
            match stream.write(&requests) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    let each = before.saturating_sub(memory("MemFree:")?) / COUNT as u64;
    println!("{each} bytes for each of {COUNT} clients that never read");
    ensure!(each < MOST, "{each} bytes each");
    served()?;
    drop(silent);
    settled(10)?;
    hippos.unload()
}

/// Clients that do not read short replies hold no more memory than they need, even if other
/// clients' replies are sent between them.
pub(super) fn short_replies_never_read_hold_little_memory() -> Result<()> {
    const LINE: &[u8] = b"get none\r\n";
    // More than the window, so that further replies wait in the server's socket.
    never_read(LINE, 2000, 400, 1 << 20)
}

/// The same with replies of some pages, of which fewer fill the socket's buffer.
pub(super) fn medium_replies_never_read_hold_little_memory() -> Result<()> {
    // The small window makes many small packets of them, each with its own sk_buff: three times the
    // bytes. With a block of 32 KiB for each reply it would be twice as much.
    never_read(b"get medium\r\n", 4, 100, 2 << 20)
}

/// Clients send `line` `first` times at once, then `then` times with other clients' replies between,
/// and read nothing. Each may hold less than `most` bytes.
fn never_read(line: &[u8], first: usize, then: usize, most: u64) -> Result<()> {
    const COUNT: usize = 8;
    let hippos = Hippos::load("memory_mb=16")?;
    let mut reader = Tcp::connect("127.0.0.1")?;
    // Ten of them fill nearly a block of reply pages; each is answered in softirq.
    reader.set("value", &vec![b'x'; 3_000])?;
    reader.set("medium", &vec![b'x'; 4_100])?;
    let mut silent = Vec::new();
    for _ in 0..COUNT {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )?;
        // The smallest buffer there is: its window closes after some thousand bytes.
        setsockopt(&socket, sockopt::RcvBuf, &1)?;
        connect(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, PORT))?;
        silent.push(TcpStream::from(socket));
    }
    for stream in &mut silent {
        stream.write_all(&line.repeat(first))?;
    }
    let mut value = vec![0; "VALUE value 0 3000\r\n".len() + 3_000 + "\r\nEND\r\n".len()];
    let before = memory("MemFree:")?;
    for _ in 0..then {
        for stream in &mut silent {
            stream.write_all(line)?;
            for _ in 0..10 {
                reader.send(b"get value\r\n")?;
                reader.read(&mut value)?;
            }
        }
    }
    let each = before.saturating_sub(memory("MemFree:")?) / COUNT as u64;
    println!("{each} bytes for each of {COUNT} clients that never read");
    ensure!(each < most || leaks::kmemleak_is_on(), "{each} bytes each");
    served()?;
    drop(silent);
    drop(reader);
    settled(10)?;
    hippos.unload()
}

/// Clients that begin a large value and never finish it hold a slot each; other
/// clients are served, and get the memory when those connections are closed.
pub(super) fn never_finished_values_leave_others_served() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32")?;
    served()?;
    let mut slow = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
        stream.set_nonblocking(true)?;
        let head = format!("set slow{number} 0 0 1000000\r\n");
        let _ = stream.write(head.as_bytes())?;
        let _ = stream.write(&vec![b'x'; 20_000]);
        slow.push(stream);
    }
    thread::sleep(Duration::from_millis(500));
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.send(b"get small\r\n")?;
    let line = tcp.line()?;
    ensure!(
        line == "VALUE small 0 5\r\n" || line == "END\r\n",
        "{line:?}"
    );
    drop(tcp);
    // Single bytes from time to time.
    for _ in 0..5 {
        for stream in &mut slow {
            let _ = stream.write(b"x");
        }
        thread::sleep(Duration::from_millis(20));
    }
    drop(slow);
    settled(10)?;
    served()?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("large", &vec![b'y'; 1_000_000])?;
    drop(tcp);
    hippos.unload()
}

/// Clients that disappear without closing their connections: their host is down.
pub(super) fn half_open_connections_do_not_keep_the_module() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load("memory_mb=32")?;
    Tcp::connect("127.0.0.1")?.set("large", &vec![b'x'; 1_000_000])?;
    let gone = there.enter(|| {
        let mut gone = Vec::new();
        for number in 0..100 {
            let mut tcp = Tcp::connect(&link.here_ipv4)?;
            tcp.set(&format!("key{number}"), b"value")?;
            // A third is in the middle of an answer, a third in that of a request.
            match number % 3 {
                0 => tcp.send(b"get large\r\nget large\r\n")?,
                1 => tcp.send(b"set large 0 0 1000000\r\nxxx")?,
                _ => {}
            }
            gone.push(tcp);
        }
        Ok(gone)
    })?;
    run(&format!("ip link set {} down", link.here))?;
    drop(gone);
    served()?;
    // Half-sent replies must not delay the unload.
    let start = Instant::now();
    hippos.unload()?;
    println!("unloaded in {:?}", start.elapsed());
    Ok(())
}

/// The largest values, many at once, both ways.
pub(super) fn large_values_at_once_return_whole() -> Result<()> {
    const CLIENTS: usize = 24;
    let hippos = Hippos::load("memory_mb=64")?;
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || -> Result<()> {
                    let mut tcp = Tcp::connect("127.0.0.1")?;
                    let value: Vec<u8> = (0..1_000_000).map(|i| (i * (client + 1)) as u8).collect();
                    for round in 0..3 {
                        let key = format!("large{client}");
                        tcp.set(&key, &value)?;
                        tcp.send(format!("get {key}\r\n").as_bytes())?;
                        let line = tcp.line()?;
                        if line == "END\r\n" {
                            // Evicted by other clients' values meanwhile.
                            continue;
                        }
                        ensure!(line == format!("VALUE {key} 0 1000000\r\n"), "{line:?}");
                        let mut found = vec![0; value.len() + 7];
                        tcp.read(&mut found)?;
                        ensure!(
                            found[..value.len()] == value,
                            "other bytes in round {round}"
                        );
                        ensure!(&found[value.len()..] == b"\r\nEND\r\n", "no end");
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("panicked")))
            .collect()
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    served()?;
    hippos.unload()
}

/// A reply over UDP that would leave a slow link only after a long time ends early, and is counted as such.
pub(super) fn reply_over_a_slow_link_is_cut_and_counted() -> Result<()> {
    modules::load("sch_tbf")?;
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    // Some 140 datagrams a second: the socket's buffer always has space before a send times out.
    let rate = "rate 1600kbit burst 3kb limit 8mb";
    // ARP requests would wait in the queue as well, until the address counts as unreachable.
    let (device, far, address) = (&link.here, &link.far, &link.far_ipv4);
    const MAC: &str = "02:00:00:00:01:02";
    there.ip(&format!("link set {far} address {MAC}"))?;
    run(&format!(
        "ip neigh replace {address} lladdr {MAC} dev {device} nud permanent"
    ))?;
    run(&format!(
        "/usr/sbin/tc qdisc add dev {device} root tbf {rate}"
    ))?;
    let hippos = Hippos::load("memory_mb=32 udp_bytes=4000000")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for key in ["a", "b", "c", "d"] {
        tcp.set(key, &vec![b'x'; 900_000])?;
    }
    let (came, whole) = there.enter(|| {
        let address = SocketAddr::new(link.here_ipv4.parse()?, PORT);
        // A longer silence is its end.
        let mut udp = Udp::to(address, Duration::from_secs(8))?;
        let id = udp.send(b"get a b c d\r\n")?;
        let (mut came, mut whole) = (0, 0);
        let mut datagram = [0; 2048];
        while let Ok(len) = udp.socket.recv(&mut datagram) {
            whole = check(&datagram[..len], id, came)?;
            came += 1;
        }
        Ok((came, whole))
    })?;
    println!("{came} of {whole} datagrams");
    ensure!(came > 0 && came < whole, "{came} of {whole} datagrams");
    let incomplete = Tcp::patient("127.0.0.1")?.stat("hippos_udp_incomplete")?;
    ensure!(incomplete == 1, "{incomplete} replies were sent in part");
    served()?;
    hippos.unload()
}

/// The connection of an endless line is closed; an endless list of keys is answered as it arrives.
pub(super) fn endless_lines_are_cut_off() -> Result<()> {
    let hippos = Hippos::load("memory_mb=16")?;
    let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut sent = 0;
    while sent < 10_000_000 {
        match stream.write(&[b'x'; 4096]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    ensure!(sent < 10_000_000, "a line of {sent} bytes was taken");
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("key", b"value")?;
    tcp.send(b"get")?;
    for _ in 0..2000 {
        tcp.send(b" key none")?;
    }
    tcp.send(b"\r\n")?;
    for number in 0..2000 {
        for line in ["VALUE key 0 5\r\n", "value\r\n"] {
            let found = tcp.line()?;
            ensure!(found == line, "value {number}: {found:?}");
        }
    }
    let end = tcp.line()?;
    ensure!(end == "END\r\n", "{end:?}");
    hippos.unload()
}
