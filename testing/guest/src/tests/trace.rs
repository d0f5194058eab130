// SPDX-License-Identifier: GPL-2.0-only
//! Trace points: the events in tracefs that clients cause, and unloading the module while they are on.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};
use hippos_client::{framed, Tcp, Udp};
use nix::libc::O_NONBLOCK;
use nix::mount::{mount, umount, MsFlags};

use super::steer;
use crate::modules::Hippos;
use crate::netns::{self, Link, Namespace};
use crate::receive_path;
use crate::system::run;

pub(super) const TRACEFS: &str = "/sys/kernel/tracing";

const ITEM_FIELDS: &[&str] = &[
    "slab_class",
    "key",
    "key_len",
    "size",
    "idle",
    "fetched",
    "reason",
];

/// The events, and the fields that tools read (docs/bpftrace/README.md).
const EVENTS: &[(&str, &[&str])] = &[
    (
        "request",
        &[
            "path", "client", "family", "port", "command", "key", "key_len", "outcome", "commands",
            "bytes", "ns",
        ],
    ),
    ("refuse", &["path", "client", "family", "port", "reason"]),
    ("evict", ITEM_FIELDS),
    ("expire", ITEM_FIELDS),
    ("reclaim", &["from_class", "to_class"]),
    ("steer", &["what", "from_cpu", "to_cpu", "load"]),
    ("pass", &["from", "reason"]),
];

/// tracefs; dropping it switches all events off.
pub(super) struct Tracing(());

impl Tracing {
    pub(super) fn new() -> Result<Self> {
        let none = None::<&str>;
        mount(none, TRACEFS, Some("tracefs"), MsFlags::empty(), none)?;
        fs::write(format!("{TRACEFS}/buffer_size_kb"), "4096")?;
        Ok(Self(()))
    }

    /// Writes to a file of an event's, or of all of them with `event` empty.
    fn write(&self, event: &str, file: &str, word: &str) -> Result<()> {
        let file = format!("{TRACEFS}/events/hippos/{event}/{file}");
        fs::write(&file, word).with_context(|| format!("{word:?} to {file}"))
    }

    fn enable(&self, event: &str, on: bool) -> Result<()> {
        self.write(event, "enable", if on { "1" } else { "0" })
    }

    /// Removes the lines and returns them, each an event's name and its fields.
    pub(super) fn take(&self) -> Result<Vec<(String, String)>> {
        let file = format!("{TRACEFS}/trace");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, "")?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let split = |line: &str| {
            let (_, said) = line.split_once(": ")?;
            let (event, fields) = said.split_once(": ")?;
            Some((event.to_owned(), fields.to_owned()))
        };
        lines
            .map(|line| split(line).with_context(|| format!("no event: {line:?}")))
            .collect()
    }

    /// The lines of one event, which is on during `happen`; there must be no lines of others.
    fn lines(&self, event: &str, happen: impl FnOnce() -> Result<()>) -> Result<Vec<String>> {
        self.take()?;
        self.enable(event, true)?;
        let result = happen();
        self.enable(event, false)?;
        result?;
        let lines = self.take()?;
        for (name, fields) in &lines {
            ensure!(name == event, "{name} while {event} is on: {fields}");
        }
        Ok(lines.into_iter().map(|(_, fields)| fields).collect())
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        let _ = fs::write(format!("{TRACEFS}/events/enable"), "0");
        if let Err(error) = umount(TRACEFS) {
            eprintln!("{TRACEFS}: {error}");
        }
    }
}

/// The line that has all of these fields; there must be one.
fn expect<'l>(lines: &'l [String], fields: &str) -> Result<&'l str> {
    let fits = |line: &&String| {
        let has: Vec<_> = line.split(' ').collect();
        fields.split(' ').all(|field| has.contains(&field))
    };
    let last = lines.iter().rev().take(3).collect::<Vec<_>>();
    let found = lines.iter().find(fits);
    let count = lines.len();
    Ok(found.with_context(|| format!("no {fields:?} in {count} lines; the last are {last:?}"))?)
}

/// A field's number.
fn number(line: &str, field: &str) -> Result<i64> {
    let is = |word: &&str| word.split('=').next() == Some(field);
    let word = line.split(' ').find(is).context("no such field")?;
    let (_, number) = word.split_once('=').context("no value")?;
    number.parse().with_context(|| format!("{line:?}: {field}"))
}

/// Requests by each receive path are traced with their fields.
pub(super) fn requests_are_traced_by_each_receive_path() -> Result<()> {
    let (there, link) = netns::joined_for_xdp()?;
    let hippos = Hippos::load("")?;
    let tracing = Tracing::new()?;
    let host = &link.here_ipv4;
    let mut udp = there.enter(|| Udp::connect(host))?;
    let mut tcp = there.enter(|| Tcp::connect(host))?;
    // A second one, which no worker owns, so that its callback serves.
    let mut idle = there.enter(|| Tcp::connect(host))?;
    tcp.set("stored", b"value")?;
    idle.set("idle", b"value")?;
    ensure!(tracing.take()?.is_empty(), "lines while nothing is on");
    // The formats have the fields, and no constants of the module, which tools can't resolve.
    for (event, fields) in EVENTS {
        let format = fs::read_to_string(format!("{TRACEFS}/events/hippos/{event}/format"))?;
        for field in *fields {
            let there = [format!(" {field};"), format!(" {field}[")];
            ensure!(
                there.iter().any(|field| format.contains(field)),
                "{event} has no {field}:\n{format}"
            );
        }
        // Debian 13's bpftrace reads these fields wrong.
        ensure!(!format.contains("__data_loc"), "{format}");
        ensure!(!format.contains("HIPPOS_"), "{format}");
    }

    let client = format!("client=[::ffff:{}]:", link.far_ipv4);
    let port = udp.socket.local_addr()?.port();
    let lines = tracing.lines("request", || {
        udp.ask(b"get none_of_this_name\r\n")?;
        udp.ask(b"get stored\r\n")?;
        // Control characters of a terminal, and more bytes than a key may have.
        udp.ask(b"get \x1b[2J\x07%\r\n")?;
        udp.ask(&[b"get ", &[b'k'; 250][..], b"\r\n"].concat())?;
        udp.ask(b"mg stored v\r\n")?;
        // The socket's worker stores.
        udp.ask(b"set by_udp 0 0 3\r\nget\r\n")?;
        udp.ask(&[b"get ", &[b'\x01'; 400][..], b"\r\n"].concat())?;
        udp.silence(b"delete stored noreply\r\n")?;
        Ok(())
    })?;
    for line in &lines {
        ensure!(line.contains(&format!("{client}{port} ")), "{line}");
        ensure!(number(line, "ns")? > 0, "{line}");
    }
    ensure!(lines.len() == 8, "{lines:?}");
    for fields in [
        "path=prerouting command=get key=none_of_this_name key_len=17 outcome=miss commands=1 bytes=5",
        "path=prerouting command=get key=stored key_len=6 outcome=hit commands=1 bytes=30",
        "command=get key=%1B[2J%07%25 key_len=6 outcome=miss",
        &format!("key={} key_len=250 outcome=miss", "k".repeat(127)),
        "command=mg key=stored outcome=hit",
        "path=udp command=set key=by_udp key_len=6 outcome=stored commands=1 bytes=8",
        &format!("path=udp command=get key={} key_len=400 outcome=client_error", "%01".repeat(42)),
        "path=udp command=delete key=stored outcome=none bytes=0",
    ] {
        expect(&lines, fields)?;
    }

    receive_path::attach(&link.here, "generic")?;
    let lines = tracing.lines("request", || {
        udp.ask(b"get by_udp\r\n")?;
        udp.ask(b"get gone\r\n").map(drop)
    })?;
    expect(&lines, "path=xdp command=get key=by_udp outcome=hit")?;
    expect(&lines, "path=xdp command=get key=gone outcome=miss bytes=5")?;
    receive_path::detach(&link.here)?;

    let lines = tracing.lines("request", || {
        idle.ask("get idle\r\n")?;
        for _ in 0..2 {
            idle.line()?;
        }
        idle.send(b"get two\r\nget keys\r\n")?;
        for _ in 0..2 {
            idle.line()?;
        }
        tcp.ask("incr none 1\r\n")?;
        // The value arrives later, and looks like a command.
        tcp.send(b"set late 0 0 9\r\n")?;
        thread::sleep(Duration::from_millis(300));
        tcp.send(b"get value\r\n")?;
        tcp.line().map(drop)
    })?;
    expect(
        &lines,
        "path=tcp_callback command=get key=idle outcome=hit commands=1",
    )?;
    expect(
        &lines,
        "path=tcp_callback key=two outcome=miss commands=2 bytes=10",
    )?;
    expect(
        &lines,
        "path=tcp_worker command=incr key=none outcome=not_found",
    )?;
    expect(
        &lines,
        "path=tcp_worker command=set key=late outcome=none commands=1",
    )?;
    expect(
        &lines,
        "path=tcp_worker command=data key=late outcome=stored commands=0 bytes=8",
    )?;
    ensure!(
        !lines.iter().any(|line| line.contains("key=value")),
        "a value is traced as a key"
    );

    let lines = tracing.lines("pass", || udp.ask(b"set by_udp 0 0 1\r\nx\r\n").map(drop))?;
    expect(&lines, "from=hook reason=unserved")?;

    // tracefs filters by the fields.
    tracing.write("request", "filter", "command == \"gets\" && family == 10")?;
    let host = &link.here_ipv6;
    let mut udp = there.enter(|| Udp::connect(host))?;
    let lines = tracing.lines("request", || {
        udp.ask(b"get a\r\n")?;
        udp.ask(b"gets a\r\n").map(drop)
    })?;
    ensure!(lines.len() == 1, "{lines:?}");
    expect(&lines, "command=gets key=a")?;
    ensure!(
        lines[0].contains(&format!("client=[{}]:", link.far_ipv6)),
        "{lines:?}"
    );
    drop(tracing);
    hippos.unload_all()
}

/// The receive paths and reasons of refusals, in their order; all of this client.
fn refused(lines: &[String], client: &str) -> Result<Vec<String>> {
    let mut refused = Vec::new();
    for line in lines {
        ensure!(line.contains(client), "{line}");
        let words: Vec<_> = line.split(' ').collect();
        let value = |name| words.iter().find_map(|word| word.strip_prefix(name));
        let (path, reason) = (value("path="), value("reason="));
        refused.push(format!(
            "{} {}",
            path.context("no path")?,
            reason.context("no reason")?
        ));
    }
    refused.dedup();
    Ok(refused)
}

/// Checks the receive paths and reasons of a client's refusals by a module with these parameters.
fn expect_refused(
    parameters: &str,
    wanted: &[&str],
    client: &dyn Fn() -> Result<()>,
    link: &Link,
) -> Result<()> {
    let hippos = Hippos::load(parameters)?;
    let tracing = Tracing::new()?;
    let lines = tracing.lines("refuse", client)?;
    let found = refused(&lines, &format!("client=[::ffff:{}]:", link.far_ipv4))?;
    ensure!(
        found == wanted,
        "{parameters:?}: {found:?} where {wanted:?} is right"
    );
    drop(tracing);
    hippos.unload()
}

/// Clients that are not allowed, or exceed a limit.
pub(super) fn refusals_are_traced_with_their_reason() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let host = &link.here_ipv4;
    let udp = || there.enter(|| Udp::connect(host));
    let tcp = || there.enter(|| Tcp::connect(host));
    let by_source = || -> Result<()> {
        udp()?.silence(b"get key\r\n")?;
        tcp()?.rest().map(drop)
    };
    expect_refused(
        "allow=10.10.0.0/16",
        &["udp source", "tcp_worker source"],
        &by_source,
        &link,
    )?;
    let by_number = || -> Result<()> {
        let mut first = tcp()?;
        first.set("key", b"value")?;
        tcp()?.rest().map(drop)
    };
    expect_refused("maxconns=1", &["tcp_worker connections"], &by_number, &link)?;
    let by_command = || -> Result<()> {
        tcp()?.ask("flush_all\r\n")?;
        udp()?.ask(b"flush_all\r\n").map(drop)
    };
    expect_refused(
        "admin=off",
        &["tcp_worker admin", "udp admin"],
        &by_command,
        &link,
    )?;
    let by_size = || -> Result<()> {
        let mut tcp = tcp()?;
        tcp.send(b"set large 0 0 2000000\r\n")?;
        tcp.send(&vec![b'x'; 2_000_000])?;
        let line = tcp.ask("\r\n")?;
        ensure!(line.contains("too large"), "{line:?}");
        run("hippos-ctl limits --udp-bytes 1392")?;
        tcp.set("long", &[b'x'; 1500])?;
        let reply = udp()?.ask(b"get long\r\n")?;
        ensure!(reply.starts_with(b"SERVER_ERROR"), "{} bytes", reply.len());
        Ok(())
    };
    expect_refused(
        "",
        &["tcp_worker item_too_large", "udp reply_too_large"],
        &by_size,
        &link,
    )?;
    let by_rate = || -> Result<()> {
        run("hippos-ctl limits --udp-private-rate 12")?;
        udp()?.silence(b"get key\r\n")?;
        udp()?.silence(b"set key 0 0 5\r\nvalue\r\n")
    };
    expect_refused("", &["prerouting rate", "udp rate"], &by_rate, &link)?;
    let by_login = || -> Result<()> {
        fs::write("/tmp/users", "user:pass\n")?;
        run("hippos-ctl auth set /tmp/users")?;
        tcp()?.ask("get key\r\n")?;
        tcp()?.ask("set x 0 0 9\r\nuser word\r\n")?;
        udp()?.silence(b"get key\r\n")
    };
    expect_refused("", &["tcp_worker login", "udp login"], &by_login, &link)?;
    let by_time = || -> Result<()> {
        let mut tcp = tcp()?;
        tcp.send(b"set never 0 0 10\r\n")?;
        tcp.rest().map(drop)
    };
    expect_refused("upload_timeout=1", &["tcp_worker timeout"], &by_time, &link)
}

/// Items that are evicted or expire, and slabs that move to another class.
pub(super) fn evictions_expiries_and_slab_moves_are_traced() -> Result<()> {
    const LARGE: usize = 10_000;
    let hippos = Hippos::load("memory_mb=8")?;
    let tracing = Tracing::new()?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let lines = tracing.lines("expire", || {
        tcp.ask("set dead 0 -1 1\r\nx\r\n")?;
        tcp.ask("set dead 0 0 1\r\nx\r\n")?;
        tcp.ask("flush_all\r\n")?;
        tcp.ask("set dead 0 0 1\r\nx\r\n").map(drop)
    })?;
    expect(
        &lines,
        "key=dead key_len=4 size=37 fetched=0 reason=expired",
    )?;
    expect(
        &lines,
        "key=dead key_len=4 size=37 fetched=0 reason=flushed",
    )?;

    let lines = tracing.lines("evict", || {
        tcp.set("read", &[b'x'; LARGE])?;
        tcp.ask("get read\r\n")?;
        tcp.read(&mut [0; LARGE + 2])?;
        tcp.line()?;
        tcp.set("unread", &[b'x'; LARGE])?;
        thread::sleep(Duration::from_secs(3));
        for number in 0..1200 {
            tcp.set(&format!("large{number}"), &[b'x'; LARGE])?;
        }
        Ok(())
    })?;
    let size = 32 + LARGE;
    let read = expect(
        &lines,
        &format!(
            "key=read key_len=4 size={} fetched=1 reason=memory",
            size + 4
        ),
    )?;
    let unread = expect(&lines, &format!("key=unread size={} fetched=0", size + 6))?;
    for line in [read, unread] {
        // The store's clock counts seconds.
        ensure!((1..3600).contains(&number(line, "idle")?), "{line}");
    }
    let class = number(read, "slab_class")?;
    let evicted = tcp.stat_of("items", &format!("items:{class}:evicted"))?;
    let of_class = format!("slab_class={class} ");
    let logged = lines.iter().filter(|line| line.starts_with(&of_class));
    let logged = logged.count() as u64;
    ensure!(evicted == logged, "{evicted} evictions, {logged} lines");

    let lines = tracing.lines("reclaim", || {
        for number in 0..8_000 {
            tcp.set(&format!("small{number}"), &[b'x'; 500])?;
        }
        Ok(())
    })?;
    let moved = expect(&lines, &format!("from_class={class}"))?;
    let to = number(moved, "to_class")?;
    let there = tcp.stat_of("items", &format!("items:{to}:number"))?;
    ensure!(there > 1000, "{there} items in class {to}");
    drop(tracing);
    hippos.unload()
}

/// A card's packets move to other CPUs and back, a worker to another CPU and back.
pub(super) fn steering_and_its_end_are_traced() -> Result<()> {
    let tracing = Tracing::new()?;
    // The events exist while the module is loaded, so that they can't be on before.
    let lines = RefCell::new(Vec::new());
    steer::steered_and_back_while(
        || tracing.enable("steer", true),
        || {
            tracing.enable("steer", false)?;
            for (event, fields) in tracing.take()? {
                ensure!(event == "steer", "{event}: {fields}");
                lines.borrow_mut().push(fields);
            }
            Ok(())
        },
    )?;
    let lines = lines.into_inner();
    let on = expect(&lines, "what=packets to_cpu=-1")?;
    ensure!(
        number(on, "from_cpu")? >= 0 && number(on, "load")? > 90,
        "{on}"
    );
    let off = expect(&lines, "what=packets from_cpu=-1")?;
    ensure!(number(off, "to_cpu")? >= 0, "{off}");
    let away = expect(&lines, "what=worker to_cpu=-1")?;
    ensure!(number(away, "from_cpu")? >= 0, "{away}");
    expect(&lines, "what=worker from_cpu=-1")?;
    Ok(())
}

/// The module is unloaded while all events are on, trace_pipe is read and requests come; loaded again it is not traced.
pub(super) fn unloads_while_traced() -> Result<()> {
    let (there, link) = netns::joined_for_xdp()?;
    let host = &link.here_ipv4;
    let hippos = Hippos::load("")?;
    let tracing = Tracing::new()?;
    let udp = there.enter(|| Udp::connect(host))?;
    let mut tcp = there.enter(|| Tcp::connect(host))?;
    let (over, read) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| -> Result<()> {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(O_NONBLOCK);
            let mut pipe = options.open(format!("{TRACEFS}/trace_pipe"))?;
            let mut buffer = vec![0; 1 << 16];
            while !over.load(Relaxed) {
                match pipe.read(&mut buffer) {
                    Ok(count) => drop(read.fetch_add(count, Relaxed)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => return Err(error).context("trace_pipe"),
                }
            }
            Ok(())
        });
        scope.spawn(|| {
            let requests = [
                framed(7, b"set key 0 0 5\r\nvalue\r\n"),
                framed(8, b"get key\r\n"),
            ];
            // After the unload there is no answer.
            while !over.load(Relaxed) {
                for request in &requests {
                    let _ = udp.socket.send(request);
                }
            }
        });
        scope.spawn(|| {
            while !over.load(Relaxed) {
                if tcp.set("key", b"value").is_err() {
                    break;
                }
            }
        });
        let result = (|| {
            // Each event alone first, switched on and off under load.
            for (event, _) in EVENTS.iter().cycle().take(3 * EVENTS.len()) {
                tracing.enable(event, true)?;
                thread::sleep(Duration::from_millis(10));
                tracing.enable(event, false)?;
            }
            tracing.enable("", true)?;
            let before = read.load(Relaxed);
            for _ in 0..1000 {
                if read.load(Relaxed) > before {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            ensure!(read.load(Relaxed) > before, "nothing in trace_pipe");
            hippos.unload()
        })();
        thread::sleep(Duration::from_millis(300));
        over.store(true, Relaxed);
        reader.join().map_err(|_| anyhow!("panicked"))??;
        result
    })?;
    let events = format!("{TRACEFS}/events/hippos");
    ensure!(!fs::exists(&events)?, "{events} without a module");
    tracing.take()?;
    let hippos = Hippos::load("")?;
    Tcp::connect("127.0.0.1")?.set("key", b"value")?;
    let lines = tracing.take()?;
    ensure!(lines.is_empty(), "traced since the load: {lines:?}");
    let lines = tracing.lines("request", || {
        Tcp::connect("127.0.0.1")?.set("key", b"value")
    })?;
    expect(&lines, "path=tcp_worker command=set key=key outcome=stored")?;
    drop(tracing);
    hippos.unload()
}
