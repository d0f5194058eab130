// SPDX-License-Identifier: GPL-2.0-only
//! Receive packet steering of a card with one receive queue.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use hippos_client::Tcp;
use nix::mount::{mount, umount, MsFlags};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;

use crate::modules::{self, Hippos};
use crate::net;
use crate::netns::Namespace;
use crate::system::run;

const MAP: &str = "/sys/class/net/eth0/queues/rx-0/rps_cpus";
/// How long a change may take; it takes a few seconds where the guest has its processors to itself.
const LIMIT: Duration = Duration::from_secs(90);

/// Packets of a busy CPU that polls the card are spread over other CPUs, and return to it when it is idle.
pub(super) fn packets_leave_a_busy_cpu_and_return() -> Result<()> {
    let queues = fs::read_dir("/sys/class/net/eth0/queues")?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-"))
        .count();
    ensure!(queues == 1, "eth0 has {queues} receive queues");
    ensure!(!steered()?, "steered before the module is there");
    steered_and_back(true).context("to its end")?;
    steered_and_back(false).context("unloaded meanwhile")?;

    // An administrator's map is kept.
    fs::write(MAP, "1")?;
    let hippos = Hippos::load("steer=1")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("key", b"value")?;
    hippos.unload()?;
    let map = fs::read_to_string(MAP)?;
    fs::write(MAP, "0")?;
    ensure!(
        map.trim() == "1",
        "the administrator's map was changed: {map}"
    );
    Ok(())
}

/// Keeps the polling CPU busy until its packets are spread and, with `end`, idle until they are not.
fn steered_and_back(end: bool) -> Result<()> {
    let hippos = Hippos::load("steer=90")?;
    keep_busy(end)?;
    hippos.unload()?;
    ensure!(!steered()?, "steered after the module is gone");
    Ok(())
}

/// A card that is moved to another namespace while its packets are spread loses its map there, even if it gets
/// another number.
pub(super) fn card_moved_to_another_namespace_is_restored() -> Result<()> {
    let there = Namespace::new("moved")?;
    modules::load("dummy")?;
    let index = fs::read_to_string("/sys/class/net/eth0/ifindex")?;
    let index = index.trim();
    // A default device of the namespace may have it already.
    let links = there.ip("-oneline link show")?;
    if !links
        .lines()
        .any(|line| line.starts_with(&format!("{index}:")))
    {
        there.ip(&format!("link add taken index {index} type dummy"))?;
    }
    let result = steered_and_moved(&there, index);
    let back = there.ip("link set eth0 netns 1");
    net::up()?;
    result.and(back.map(drop))
}

fn steered_and_moved(there: &Namespace, index: &str) -> Result<()> {
    let hippos = Hippos::load("steer=90")?;
    keep_busy(false)?;
    ensure!(steered()?, "not steered any more");
    run("ip link set eth0 netns moved")?;
    let shown = there.ip("-oneline link show eth0")?;
    ensure!(
        !shown.starts_with(&format!("{index}:")),
        "the same number: {shown}"
    );
    hippos.unload()?;
    let sys = Path::new("/tmp/moved");
    fs::create_dir_all(sys)?;
    there.enter(|| {
        let kind = Some("sysfs");
        Ok(mount(kind, sys, kind, MsFlags::empty(), None::<&str>)?)
    })?;
    let map = fs::read_to_string(sys.join("class/net/eth0/queues/rx-0/rps_cpus"));
    umount(sys)?;
    let map = map?;
    ensure!(!spreads(&map), "still spread there: {map}");
    Ok(())
}

/// The same to its end, with a call before it and one behind it, while the module is loaded.
pub(super) fn steered_and_back_while(
    before: impl FnOnce() -> Result<()>,
    after: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let hippos = Hippos::load("steer=90")?;
    before()?;
    keep_busy(true)?;
    after()?;
    hippos.unload()
}

fn keep_busy(end: bool) -> Result<()> {
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let (stop, busy) = (&AtomicBool::new(false), &AtomicBool::new(true));
    let cpu = &AtomicUsize::new(0);
    thread::scope(|scope| {
        let talker = scope.spawn(move || talk(busy, stop));
        let result: Result<()> = (|| {
            // Workers avoid it and still serve. A worker moves at its next turn: each has one while the same CPU polls.
            let polls = wait("a CPU that polls", || {
                let Some(before) = polling()? else {
                    return Ok(None);
                };
                use_each_worker()?;
                Ok((polling_now() == Some(before)).then_some(before))
            })?;
            cpu.store(polls, Ordering::Relaxed);
            tcp.set("key", b"value")?;
            scope.spawn(move || spin(cpu, busy, stop));
            wait("steering", || {
                // Another CPU may poll by now: that one must be busy then.
                if let Some(now) = polling()? {
                    cpu.store(now, Ordering::Relaxed);
                }
                Ok(steered()?.then_some(()))
            })?;
            wait("its mention", || {
                Ok((tcp.stat("hippos_steered")? == 1).then_some(()))
            })?;
            tcp.set("key", b"value")?;
            // The worker that has left its CPU returns to it at its next turn.
            use_each_worker()?;
            if end {
                busy.store(false, Ordering::Relaxed);
                wait("its end", || Ok((!steered()?).then_some(())))?;
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        talker.join().map_err(|_| anyhow::anyhow!("no talk"))??;
        result
    })
}

/// The CPU that polls the card, after a while without other traffic.
fn polling() -> Result<Option<usize>> {
    // Packets over lo count as well: there must be fewer than the card's.
    thread::sleep(Duration::from_secs(2));
    Ok(polling_now())
}

/// The CPU that polls, as the statistics name it.
fn polling_now() -> Option<usize> {
    // `none` is no number; the rest of the answer stays unread, so that the connection is not reused.
    let cpu = Tcp::connect("127.0.0.1").ok()?.stat("hippos_polling_cpu");
    cpu.ok().map(|cpu| cpu as usize)
}

/// Whether packets of eth0 are spread.
fn steered() -> Result<bool> {
    let map = fs::read_to_string(MAP).with_context(|| format!("cannot read {MAP}"))?;
    Ok(spreads(&map))
}

/// Whether a map names a CPU.
fn spreads(map: &str) -> bool {
    map.trim().chars().any(|digit| digit != '0' && digit != ',')
}

/// Waits until `look` returns a value.
fn wait<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if start.elapsed() > LIMIT {
            let stat = |name| Tcp::connect("127.0.0.1")?.stat(name);
            bail!(
                "{what}: not seen; steered {:?}, load {:?}, changes {:?}",
                stat("hippos_steered"),
                stat("hippos_polling_load"),
                stat("hippos_steering_changes"),
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Makes the card receive: refusals of connections, fewer while `busy` is false, since they are
/// much work for an emulated kernel with all its checkers.
fn talk(busy: &AtomicBool, stop: &AtomicBool) -> Result<()> {
    let gateway: Ipv4Addr = net::GATEWAY.parse()?;
    let closed = SocketAddr::from((gateway, 9));
    while !stop.load(Ordering::Relaxed) {
        let _ = TcpStream::connect_timeout(&closed, Duration::from_secs(1));
        let pause = if busy.load(Ordering::Relaxed) { 5 } else { 100 };
        thread::sleep(Duration::from_millis(pause));
    }
    Ok(())
}

/// Keeps `cpu` busy while `busy` is set, also when the number changes.
fn spin(cpu: &AtomicUsize, busy: &AtomicBool, stop: &AtomicBool) {
    let mut bound = None;
    while !stop.load(Ordering::Relaxed) {
        let wanted = cpu.load(Ordering::Relaxed);
        if bound != Some(wanted) {
            bind(wanted).expect("a CPU to be bound to");
            bound = Some(wanted);
        }
        if !busy.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Binds the calling thread to a CPU.
fn bind(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Has each CPU's worker serve a connection, which comes from its CPU.
fn use_each_worker() -> Result<()> {
    let connections = thread::spawn(|| -> Result<()> {
        for cpu in 0..thread::available_parallelism()?.get() {
            bind(cpu)?;
            Tcp::connect("127.0.0.1")?.set("key", b"value")?;
        }
        Ok(())
    });
    connections
        .join()
        .map_err(|_| anyhow::anyhow!("no connection"))?
}
