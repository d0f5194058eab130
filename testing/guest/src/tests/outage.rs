// SPDX-License-Identifier: GPL-2.0-only
//! Outages: each test plants a fault, finds it by the output of `hippos-ctl` alone, applies the
//! printed remedy, and checks that the fault is not reported any more.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use hippos_client::{Tcp, Udp, PORT};

use crate::modules::{self, Hippos};
use crate::netns::{self, Namespace};
use crate::system::run;

/// How often a test checks for a report that it waits for, and the time between two checks.
const TRIES: u32 = 600;
const PAUSE: Duration = Duration::from_millis(100);

const STATUS: &str = "status --interval 0";

/// The output of `hippos-ctl`, with any exit status.
fn shown(command: &str) -> Result<String> {
    let output = Command::new("hippos-ctl")
        .args(command.split(' '))
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The first line that a command prints with all of these parts.
fn line_of(command: &str, parts: &[&str]) -> Result<Option<String>> {
    let text = shown(command)?;
    let mut lines = text.lines();
    let found = lines.find(|line| parts.iter().all(|part| line.contains(part)));
    Ok(found.map(str::to_owned))
}

/// Waits for such a line.
fn reports(command: &str, parts: &[&str]) -> Result<String> {
    for _ in 0..TRIES {
        if let Some(line) = line_of(command, parts)? {
            return Ok(line);
        }
        thread::sleep(PAUSE);
    }
    let text = shown(command)?;
    Err(anyhow::anyhow!(
        "`{command}` does not report {parts:?}: {text}"
    ))
}

/// Waits until there is no such line any more.
fn is_silent(command: &str, parts: &[&str]) -> Result<()> {
    for _ in 0..TRIES {
        if line_of(command, parts)?.is_none() {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    let text = shown(command)?;
    Err(anyhow::anyhow!(
        "`{command}` still reports {parts:?}: {text}"
    ))
}

/// Clients announce values that never come, and hold the memory for them: other values of that size
/// find none. `status` reports the refused writes and the use of the memory, `slabs` the size, and
/// `conns` the clients.
pub(super) fn uploads_that_fill_a_class_are_reported() -> Result<()> {
    let hippos = Hippos::load("memory_mb=64 threads=1 upload_timeout=0")?;
    is_silent(STATUS, &["refused"])?;
    is_silent(STATUS, &["degraded"])?;
    // `stats items`, and with it `slabs`, has a class's refusals only while the class has an item.
    let mut client = Tcp::patient("127.0.0.1")?;
    client.set("early", &[b'z'; 400_000])?;
    let mut held = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
        stream.write_all(format!("set big{number} 0 0 400000\r\n").as_bytes())?;
        held.push(stream);
    }
    reports(STATUS, &["MiB of values that are being received"])?;
    client.send(b"set late 0 0 400000\r\n")?;
    client.send(&[b'z'; 400_000])?;
    client.send(b"\r\n")?;
    // This write is refused, or one before it was.
    client.line()?;

    reports(STATUS, &["degraded: hippos"])?;
    reports(
        STATUS,
        &[
            "warning: writes for lack of memory",
            "in the last 60 s",
            "hippos-ctl slabs",
        ],
    )?;
    reports("doctor", &["broken: refused:", "writes for lack of memory"])?;
    // Titles, then class, size, MiB, items, evicted, out of memory.
    let slabs = run("hippos-ctl slabs")?;
    let rows = slabs.lines().skip(1).map(|line| {
        let words: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
        (
            words.get(1).copied(),
            line.split_whitespace().nth(5) != Some("0"),
        )
    });
    let failing: Vec<_> = rows.filter(|(_, fails)| *fails).collect();
    ensure!(
        matches!(failing[..], [(Some(400_000..), true)]),
        "not one class of large slots: {slabs}"
    );
    let conns = run("hippos-ctl conns")?;
    ensure!(conns.matches("127.0.0.1:").count() >= 100, "{conns}");

    thread::sleep(Duration::from_secs(4));
    run("hippos-ctl conns kill --idle 3")?;
    is_silent(STATUS, &["MiB of values that are being received"])?;
    // The client was idle as well.
    client = Tcp::connect("127.0.0.1")?;
    client.set("late", &[b'z'; 400_000])?;
    drop((held, client));
    hippos.unload()
}

/// Clients of a subnet that `allow` does not have: `status` names the refusal and the remedy.
pub(super) fn refused_subnet_is_reported() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let host = &link.here_ipv4;
    let hippos = Hippos::load("allow=127.0.0.0/8,10.10.0.0/16")?;
    let what = [
        "TCP connections of sources that are not allowed",
        "in the last 60 s",
    ];
    is_silent(STATUS, &what)?;
    let tcp = || there.enter(|| Tcp::connect(host));
    ensure!(tcp()?.rest()?.is_empty(), "a refused client was served");
    there.enter(|| Udp::connect(host)?.silence(b"get key\r\n"))?;

    let line = reports(STATUS, &what)?;
    ensure!(line.contains("hippos-ctl allow add NETWORK"), "{line}");
    reports(
        STATUS,
        &["warning: datagrams of sources that are not allowed"],
    )?;
    // The refusal may be intended, so that the state is not degraded.
    is_silent(STATUS, &["degraded"])?;
    reports("doctor", &["broken: refused: 1 TCP connections of sources"])?;
    let allowed = run("hippos-ctl allow list")?;
    ensure!(!allowed.contains("10.9."), "{allowed}");

    run("hippos-ctl allow add 10.9.1.0/24")?;
    tcp()?.set("key", b"value")?;
    let reply = there.enter(|| Udp::connect(host)?.ask(b"get key\r\n"))?;
    ensure!(reply.starts_with(b"VALUE key"), "{reply:?}");
    run("hippos-ctl stats reset")?;
    is_silent(STATUS, &["not allowed"])?;
    hippos.unload()
}

/// A card with one receive queue on a machine of several CPUs.
pub(super) fn one_queue_is_reported() -> Result<()> {
    let hippos = Hippos::load("steer=0")?;
    reports(
        STATUS,
        &[
            "warning: eth0 has one receive queue",
            "its CPU answers alone",
        ],
    )?;
    reports("doctor", &["slow: queues: eth0 has one receive queue"])?;
    reports("doctor", &["remedy: ethtool -L eth0 combined N", "steer="])?;
    // No other card is blamed.
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    is_silent(STATUS, &["warning: ", &link.here])?;
    is_silent("doctor", &["queues: ", &link.here])?;
    hippos.unload()
}

/// A client requests large values and reads none of them: `status` reports the memory that slow readers
/// hold, and `conns` shows the client.
pub(super) fn slow_reader_is_reported() -> Result<()> {
    let hippos = Hippos::load("memory_mb=64")?;
    let mut other = Tcp::connect("127.0.0.1")?;
    other.set("large", &vec![b'x'; 1_000_000])?;
    let what = ["MiB of items that slow readers hold", "hippos-ctl conns"];
    is_silent(STATUS, &what)?;
    let mut silent = TcpStream::connect(("127.0.0.1", PORT))?;
    silent.write_all(&b"get large\r\n".repeat(100))?;

    reports(STATUS, &what)?;
    let line = reports("conns", &["conn_mwrite"])?;
    let peer = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("tcp:127.0.0.1:"))
        .with_context(|| line.clone())?;
    let port = silent.local_addr()?.port().to_string();
    ensure!(peer == port, "{line} is not of port {port}");

    run(&format!("hippos-ctl conns kill 127.0.0.1:{peer}"))?;
    is_silent(STATUS, &what)?;
    is_silent("conns", &["conn_mwrite"])?;
    ensure!(
        other.ask("version\r\n")?.starts_with("VERSION"),
        "the other client is gone"
    );
    drop((silent, other));
    hippos.unload()
}

/// After an upgrade the old module is still loaded: `status` and `doctor` say so. The package's version is often the
/// same before and after; only the sources differ, which the digest of the version shows.
pub(super) fn stale_module_is_reported() -> Result<()> {
    const STALE: &str = "/tmp/stale.ko";
    let version = shown("--version")?;
    let version = version.trim().rsplit(' ').next().unwrap_or_default();
    let (package, digest) = version
        .split_once('+')
        .with_context(|| version.to_owned())?;
    ensure!(digest.len() == 12, "{version}");
    // The module as Kbuild makes it of other sources of this package's version.
    let other: String = digest.chars().rev().collect();
    ensure!(
        other != digest,
        "{version} reads backwards as it does forwards"
    );
    let mut module = fs::read(modules::HIPPOS)?;
    let places: Vec<_> = (0..module.len() - digest.len())
        .filter(|at| module[*at..].starts_with(digest.as_bytes()))
        .collect();
    for at in places {
        module[at..at + digest.len()].copy_from_slice(other.as_bytes());
    }
    fs::write(STALE, module)?;
    modules::insert(Path::new(STALE), "")?;
    let what = format!("the loaded module is of version {package}+{other}, this tool of {version}");
    let found = reports("doctor", &["note: module: ", &what])
        .and_then(|_| {
            reports(
                "doctor",
                &["remedy: hippos-ctl stop, then hippos-ctl start"],
            )
        })
        .and_then(|_| reports(STATUS, &["note: ", &what, "hippos-ctl stop"]))
        .and_then(|_| reports("info", &["hippos ", &other]));
    modules::remove("hippos")?;
    fs::remove_file(STALE)?;
    found?;
    let hippos = Hippos::load("")?;
    is_silent("doctor", &["note: module: "])?;
    is_silent(STATUS, &["of version"])?;
    hippos.unload()
}
