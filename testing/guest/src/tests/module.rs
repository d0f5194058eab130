// SPDX-License-Identifier: GPL-2.0-only
//! Loading and unloading the module.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use hippos_abi::parameters::{ParameterKind, PARAMETERS};
use hippos_client::{framed, Tcp, Udp, PORT};
use nix::errno::Errno;

use crate::kmsg::Log;
use crate::leaks;
use crate::modules::{self, Hippos};
use crate::netns::{self, Namespace};
use crate::system::run;

use super::trace::{Tracing, TRACEFS};

pub(super) fn loads_and_unloads() -> Result<()> {
    let mut log = Log::open()?;
    log.lines();
    let hippos = Hippos::load("")?;
    ensure!(modules::loaded("hippos"), "loaded, but not in /sys/module");
    let version = fs::read_to_string("/sys/module/hippos/version")?;
    let version = version.trim();
    ensure!(
        version.starts_with(concat!(env!("CARGO_PKG_VERSION"), "+")),
        "{version:?}"
    );
    let tool = run("hippos-ctl --version")?;
    ensure!(
        tool == format!("hippos-ctl {version}\n"),
        "{tool:?}, and the module is of {version:?}"
    );
    // The text that `modinfo -F version` shows.
    let shown = format!("\0version={version}\0");
    let file = fs::read(modules::HIPPOS)?;
    ensure!(
        file.windows(shown.len())
            .any(|part| part == shown.as_bytes()),
        "no {shown:?} in the file"
    );
    let line = format!(
        "workers: version {version}, memory_mb=64, eviction=clock, allow=default, admin=network"
    );
    let lines = log.lines();
    ensure!(
        lines.iter().any(|found| found.contains(&line)),
        "no {line:?} in {lines:?}"
    );
    let pid = Tcp::connect("127.0.0.1")?.stat("pid")?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
    let number = name.trim().strip_prefix("hippos/").map(str::parse::<u32>);
    ensure!(matches!(number, Some(Ok(_))), "process {pid} is {name:?}");
    hippos.unload()?;
    ensure!(
        !modules::loaded("hippos"),
        "unloaded, but still in /sys/module"
    );
    Ok(())
}

/// Loads with these parameters, which must fail with that error and a line in
/// the log that holds this text.
fn refused(parameters: &str, error: Errno, text: &str) -> Result<()> {
    let mut log = Log::open()?;
    log.lines();
    match modules::insert(modules::HIPPOS.as_ref(), parameters) {
        Err(found) if found == error => {}
        Err(found) => bail!("`{parameters}`: {found}, not {error}"),
        Ok(()) => {
            modules::remove("hippos")?;
            bail!("`{parameters}` was taken");
        }
    }
    let lines = log.lines();
    ensure!(
        lines
            .iter()
            .any(|line| line.starts_with("hippos: ") && line.contains(text)),
        "`{parameters}`: the log says {lines:?}, not {text:?}"
    );
    Ok(())
}

pub(super) fn bad_parameters_are_refused() -> Result<()> {
    for parameters in [
        "port=0",
        "port=65536",
        "memory_mb=7",
        "memory_mb=0",
        "memory_mb=4294967295",
        "memory_mb=1000000",
        "maxconns=0",
        "maxconns=1000001",
        "threads=1025",
        "steer=101",
        "backlog=0",
        "item_min=0",
        "item_max=1",
        "item_max=5m",
        "item_max=k",
        "item_max=",
        "item_max=12x",
        "item_max=99999999999999999999k",
        "factor=100",
        "factor=1001",
        "eviction=lru",
        "eviction=",
        "allow=10.0.0.0/33",
        "allow=10.0.0",
        "allow=::1/129",
        "allow=,",
        "allow=everybody",
    ] {
        let name = parameters.split('=').next().unwrap_or(parameters);
        refused(parameters, Errno::EINVAL, &format!("{name}="))?;
    }
    refused(
        "memory_mb=8 item_max=4m factor=125 port=11211 item_min=48 threads=1025",
        Errno::EINVAL,
        "threads=",
    )?;
    // The kernel itself refuses a text that is no number.
    refused("port=x", Errno::EINVAL, "invalid for parameter `port'").or_else(|_| {
        ensure!(!modules::loaded("hippos"), "loaded with port=x");
        Ok(())
    })
}

/// The rows of `stats settings`.
fn settings() -> Result<BTreeMap<String, String>> {
    let shown = run("hippos-ctl stats settings")?;
    let row = |line: &str| {
        line.split_once("  ")
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
    };
    Ok(shown.lines().filter_map(row).collect())
}

/// `stats settings` shows the loaded values; `modinfo` shows the ranges that the module accepts.
pub(super) fn parameters_match_settings_and_modinfo() -> Result<()> {
    let cpus = thread::available_parallelism()?.to_string();
    // A value that is not the default, and its row; the row of the default.
    let values = [
        ("port", "11300", "11300", "11211"),
        ("memory_mb", "48", "50331648", "67108864"),
        ("maxconns", "99", "99", "1024"),
        ("threads", "3", "3", &cpus),
        ("backlog", "77", "77", "1024"),
        ("steer", "55", "55", "70"),
        ("upload_timeout", "44", "44", "30"),
        ("item_max", "512k", "524288", "1048576"),
        ("item_min", "300", "300", "48"),
        ("factor", "200", "2.00", "1.25"),
        ("eviction", "sieve", "sieve", "clock"),
        ("udp_fast", "late", "late", "1"),
        ("udp_bytes", "100000", "100000", "1114112"),
        ("udp_rate", "5000", "5000", "0"),
        ("dev", "lo", "lo", "NULL"),
        (
            "allow",
            "127.0.0.0/8,10.0.0.0/8",
            "127.0.0.0/8,10.0.0.0/8",
            "default",
        ),
        ("admin", "local", "local", "network"),
        ("closed", "1", "yes", "no"),
        ("latency", "1", "yes", "no"),
        ("selftest", "1", "yes", "no"),
    ];
    let parameter = |name: &str| {
        let found = PARAMETERS.iter().find(|parameter| parameter.name == name);
        found.with_context(|| format!("no parameter {name}"))
    };
    let given: Vec<String> = values
        .iter()
        .map(|(name, value, ..)| format!("{name}={value}"))
        .collect();
    for (parameters, loaded) in [(given.join(" "), true), (String::new(), false)] {
        let hippos = Hippos::load(&parameters)?;
        let rows = settings()?;
        for (name, _, changed, default) in values {
            let (row, wanted) = (
                parameter(name)?.row.name(),
                if loaded { changed } else { default },
            );
            let found = rows.get(row).map(String::as_str);
            ensure!(
                found == Some(wanted),
                "{row} is {found:?} with {parameters:?}"
            );
        }
        hippos.unload()?;
    }
    let hippos = Hippos::load("udp=0")?;
    let rows = settings()?;
    let row = parameter("udp")?.row.name();
    ensure!(
        rows.get(row).map(String::as_str) == Some("0"),
        "{row}: {rows:?}"
    );
    hippos.unload()?;

    let module = fs::read(modules::HIPPOS)?;
    let holds = |text: &str| {
        module
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    for parameter in PARAMETERS {
        let name = parameter.name;
        // UDP was tried alone.
        let tried = name == "udp" || values.iter().any(|(other, ..)| *other == name);
        ensure!(tried, "{name} is not tried here");
        let text = format!("\0parm={name}:{}\0", parameter.modinfo);
        ensure!(holds(&text), "modinfo has not {text:?}");
        if let ParameterKind::Number(least, most) = parameter.kind {
            for beyond in [least.checked_sub(1), most.checked_add(1)]
                .into_iter()
                .flatten()
            {
                refused(
                    &format!("{name}={beyond}"),
                    Errno::EINVAL,
                    &format!("{name}="),
                )?;
            }
        }
    }
    Ok(())
}

pub(super) fn port_in_use_is_refused() -> Result<()> {
    for host in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
        let tcp = TcpListener::bind((host, PORT))?;
        refused("", Errno::EADDRINUSE, "port 11211 is in use").context("TCP")?;
        drop(tcp);
        let udp = UdpSocket::bind((host, PORT))?;
        refused("", Errno::EADDRINUSE, "port 11211 is in use").context("UDP")?;
        // Without UDP the module does not need that port.
        Hippos::load("udp=0")?.unload()?;
        drop(udp);
    }
    let hippos = Hippos::load("port=11212")?;
    ensure!(
        TcpListener::bind(("127.0.0.1", 11212)).is_err(),
        "taken by others"
    );
    hippos.unload()
}

/// `udp=0` switches UDP off.
pub(super) fn udp_can_be_switched_off() -> Result<()> {
    let hippos = Hippos::load("udp=0")?;
    Tcp::connect("127.0.0.1")?.set("key", b"value")?;
    let mut udp = Udp::connect("127.0.0.1")?;
    udp.silence(b"get key\r\n").or_else(|error| {
        // A closed port is reported at once, by ICMP.
        if format!("{error:#}").contains("refused") {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    hippos.unload()
}

pub(super) fn connections_beyond_the_limit_are_refused() -> Result<()> {
    let hippos = Hippos::load("maxconns=10")?;
    let mut within = Vec::new();
    for _ in 0..10 {
        let mut tcp = Tcp::connect("127.0.0.1")?;
        tcp.set("key", b"value")?;
        within.push(tcp);
    }
    let mut beyond = Tcp::connect("127.0.0.1")?;
    let answer = beyond.rest()?;
    ensure!(
        answer == b"ERROR Too many open connections\r\n",
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    within.pop();
    // The permit is free when the worker has seen the connection's end.
    let start = Instant::now();
    loop {
        let mut again = Tcp::connect("127.0.0.1")?;
        if again.set("key", b"value").is_ok() {
            break;
        }
        ensure!(start.elapsed() < Duration::from_secs(10), "no place again");
    }
    hippos.unload()
}

/// Only root may open the control device, and an open file keeps the module loaded.
pub(super) fn device_is_root_only_and_pins_the_module() -> Result<()> {
    let hippos = Hippos::load("")?;
    let start = Instant::now();
    while fs::metadata("/dev/hippos").is_err() {
        ensure!(start.elapsed() < Duration::from_secs(5), "no /dev/hippos");
        thread::sleep(Duration::from_millis(10));
    }
    let metadata = fs::metadata("/dev/hippos")?;
    ensure!(
        metadata.permissions().mode() & 0o7777 == 0o600,
        "mode {:o}",
        metadata.mode()
    );
    ensure!((metadata.uid(), metadata.gid()) == (0, 0), "not root's");
    let open = fs::File::open("/dev/hippos")?;
    match modules::remove("hippos") {
        Err(Errno::EWOULDBLOCK | Errno::EBUSY) => {}
        other => bail!("rmmod with an open device: {other:?}"),
    }
    drop(open);
    hippos.unload()?;
    ensure!(
        fs::metadata("/dev/hippos").is_err(),
        "/dev/hippos is left over"
    );
    Ok(())
}

/// An operator's commands of hippos-ctl.
pub(super) fn hippos_ctl_shows_and_changes_state() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("key", b"value")?;
    let info = run("hippos-ctl info")?;
    for line in ["hippos ", "port 11211", "memory 32 MiB"] {
        ensure!(info.contains(line), "info: {info}");
    }
    let stats = run("hippos-ctl stats")?;
    let line = |name: &str| {
        let mut words = stats.lines().map(|line| line.split_whitespace());
        words.find_map(|mut words| (words.next() == Some(name)).then(|| words.next())?)
    };
    ensure!(line("curr_items") == Some("1"), "stats: {stats}");
    ensure!(line("cmd_set") == Some("1"), "stats: {stats}");
    for section in ["settings", "items", "slabs", "conns"] {
        run(&format!("hippos-ctl stats {section}"))?;
    }
    let conns = run("hippos-ctl stats conns")?;
    for text in ["tcp:127.0.0.1:", "conn_listening", "conn_read", "udp"] {
        ensure!(conns.contains(text), "stats conns: {conns}");
    }
    run("hippos-ctl flush")?;
    tcp.send(b"get key\r\n")?;
    let found = tcp.line()?;
    ensure!(found == "END\r\n", "flushed, but {found:?}");
    run("hippos-ctl memory 64")?;
    ensure!(tcp.stat("limit_maxbytes")? == 64 << 20, "not the new limit");
    for wrong in ["hippos-ctl memory 7", "hippos-ctl memory 1000000000"] {
        ensure!(run(wrong).is_err(), "`{wrong}` was taken");
    }
    ensure!(
        tcp.stat("limit_maxbytes")? == 64 << 20,
        "the limit has changed"
    );
    hippos.unload()
}

/// `hippos-ctl debug verify` counts the items on the debug kernel; on any other its error has the reason.
pub(super) fn verify_counts_items_on_the_debug_kernel() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for key in ["one", "two", "three"] {
        tcp.set(key, b"value")?;
    }
    match run("hippos-ctl debug verify") {
        Ok(slots) => ensure!(slots.contains("\nlive 3\n"), "{slots}"),
        Err(error) => ensure!(
            !leaks::kmemleak_is_on() && format!("{error:#}").contains("debug kernel"),
            "{error:#}"
        ),
    }
    hippos.unload()
}

/// The longest UDP reply, in bytes and in datagrams, is limited also for a key that is repeated.
pub(super) fn udp_reply_limits_hold() -> Result<()> {
    let hippos = Hippos::load("udp_bytes=100000")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("key", &[b'x'; 4000])?;
    let mut udp = Udp::connect("127.0.0.1")?;
    let error = b"SERVER_ERROR reply too large for UDP\r\n";
    let mut ask = |times: usize| udp.ask(format!("get{}\r\n", " key".repeat(times)).as_bytes());
    ensure!(ask(20)?.len() > 80_000, "too short");
    ensure!(ask(30)? == error, "too long");
    let limits = run("hippos-ctl limits")?;
    for line in ["udp-bytes 100000\n", "udp-datagrams 72\n", "udp-rate 0\n"] {
        ensure!(limits.contains(line), "limits: {limits}");
    }
    run("hippos-ctl limits --udp-datagrams 3")?;
    ensure!(ask(1)?.len() > 4000, "too short");
    ensure!(ask(2)? == error, "too many datagrams");
    run("hippos-ctl limits --udp-bytes 3000")?;
    ensure!(ask(1)? == error, "too many bytes");
    for wrong in ["--udp-bytes 100001", "--udp-bytes 100", "--udp-datagrams 0"] {
        ensure!(
            run(&format!("hippos-ctl limits {wrong}")).is_err(),
            "{wrong} was taken"
        );
    }
    ensure!(tcp.stat("hippos_udp_too_large")? == 3, "not counted");
    hippos.unload()
}

/// memcached's text authentication: TCP is served after the right password only, UDP not at all.
pub(super) fn login_is_required_once_users_are_set() -> Result<()> {
    let hippos = Hippos::load("")?;
    let mut before = Tcp::connect("127.0.0.1")?;
    before.set("key", b"value")?;
    fs::write("/tmp/users", "user:pass\nother:word\n")?;
    run("hippos-ctl auth set /tmp/users")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for (request, answer) in [
        ("get key", "CLIENT_ERROR unauthenticated"),
        (
            "set x 0 0 9\r\nuser word",
            "CLIENT_ERROR authentication failure",
        ),
        ("set x 0 0 10\r\nother word", "STORED"),
        ("get x", "END"),
        ("set x 0 0 9\r\nuser word", "STORED"),
    ] {
        tcp.send(format!("{request}\r\n").as_bytes())?;
        let found = tcp.line()?;
        ensure!(found.trim_end() == answer, "{request:?}: {found:?}");
    }
    let mut udp = Udp::connect("127.0.0.1")?;
    udp.silence(b"get key\r\n")?;
    udp.silence(b"set x 0 0 9\r\nuser pass\r\n")?;
    // The connection from before still works, and so does the control device.
    ensure!(before.stat("hippos_udp_refused")? == 2, "not counted");
    ensure!(before.stat("auth_errors")? == 1, "not counted");
    let settings = run("hippos-ctl stats settings")?;
    let row = settings
        .lines()
        .find(|line| line.starts_with("auth_enabled_ascii"));
    ensure!(row.is_some_and(|line| line.ends_with("yes")), "{settings}");
    fs::write("/tmp/users", "nobody\n")?;
    ensure!(run("hippos-ctl auth set /tmp/users").is_err(), "taken");
    run("hippos-ctl auth off")?;
    let reply = udp.ask(b"get key\r\n")?;
    ensure!(reply.starts_with(b"VALUE key"), "{reply:?}");
    Tcp::connect("127.0.0.1")?.set("key", b"other")?;
    fs::remove_file("/tmp/users")?;
    hippos.unload()
}

/// Fewer workers than CPUs, and more.
pub(super) fn fewer_and_more_workers_than_cpus_serve() -> Result<()> {
    for threads in ["threads=1", "threads=7"] {
        let hippos = Hippos::load(threads)?;
        let mut connections = Vec::new();
        for number in 0..50 {
            let mut tcp = Tcp::connect("127.0.0.1")?;
            tcp.set(&format!("key{number}"), b"value")?;
            connections.push(tcp);
        }
        for tcp in &mut connections {
            tcp.send(b"get key49\r\n")?;
            let found = tcp.line()?;
            ensure!(found == "VALUE key49 0 5\r\n", "{found:?}");
        }
        hippos.unload()?;
    }
    Ok(())
}

/// The store's self-test passes under each policy, and reports a fault that the debug kernel's module plants.
pub(super) fn selftest_passes_and_finds_a_planted_fault() -> Result<()> {
    for eviction in ["clock", "sieve", "s3fifo"] {
        let mut log = Log::open()?;
        log.lines();
        let hippos = Hippos::load(&format!("selftest=1 eviction={eviction}"))?;
        let lines = log.lines();
        ensure!(
            lines
                .iter()
                .any(|line| line.starts_with("hippos: selftest: ") && line.ends_with(": passed")),
            "eviction={eviction}: the log says {lines:?}"
        );
        Tcp::connect("127.0.0.1")?.set("key", b"value")?;
        hippos.unload()?;
    }
    if leaks::kmemleak_is_on() {
        let planted = "selftest=1 selftest_fault=shared_lane";
        refused(planted, Errno::EIO, "faults, not serving")?;
    }
    Ok(())
}

/// Each call site in the module that waits for a grace period while it is unloaded does so once, not for each CPU. With
/// one worker, because each worker's listener waits for one.
pub(super) fn unload_waits_once_at_each_place() -> Result<()> {
    const WAITS: [&str; 2] = ["synchronize_net", "synchronize_rcu"];
    let caller = if cfg!(target_arch = "aarch64") {
        "%lr"
    } else {
        "$stack0"
    };
    let tracing = Tracing::new()?;
    let probes = format!("{TRACEFS}/kprobe_events");
    let define = WAITS.map(|name| format!("p:waits/{name} {name} caller={caller}:x64\n"));
    fs::write(&probes, define.concat())?;
    let hippos = Hippos::load("threads=1")?;
    Tcp::connect("127.0.0.1")?.set("key", b"value")?;
    let modules = fs::read_to_string("/proc/modules")?;
    let line = modules.lines().find(|line| line.starts_with("hippos "));
    let words: Vec<_> = line.context("not listed")?.split(' ').collect();
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
    let (start, size) = (hex(words[5])?, words[1].parse::<u64>()?);
    let switch = format!("{TRACEFS}/events/waits/enable");
    fs::write(&switch, "1")?;
    let unloaded = hippos.unload();
    let traced = fs::write(&switch, "0")
        .map_err(Into::into)
        .and_then(|()| tracing.take());
    // Takes the probes away.
    fs::write(&probes, "")?;
    unloaded?;
    // synchronize_net() ends in synchronize_rcu(), which then has the same caller.
    let mut places = BTreeMap::<(String, u64), u32>::new();
    for (wait, fields) in traced? {
        let (_, caller) = fields.split_once("caller=").context("no caller")?;
        let caller = hex(caller.trim())?;
        if (start..start + size).contains(&caller) {
            *places.entry((wait, caller - start)).or_default() += 1;
        }
    }
    ensure!(places.len() >= 3, "too few were seen: {places:x?}");
    ensure!(places.values().all(|&count| count == 1), "{places:x?}");
    Ok(())
}

/// A lower limit is reached by eviction; requests are served meanwhile.
pub(super) fn lower_limit_is_reached_by_eviction() -> Result<()> {
    let hippos = Hippos::load("memory_mb=64")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let value = vec![b'x'; 50_000];
    for number in 0..1000 {
        tcp.set(&format!("key{number}"), &value)?;
    }
    let held = |tcp: &mut Tcp| -> Result<u64> {
        tcp.send(b"stats slabs\r\n")?;
        let mut held = None;
        loop {
            let line = tcp.line()?;
            if line == "END\r\n" {
                break held.context("stats slabs has no total_malloced");
            }
            if let Some(bytes) = line.strip_prefix("STAT total_malloced ") {
                held = Some(bytes.trim().parse()?);
            }
        }
    };
    let before = held(&mut tcp)?;
    ensure!(before > 40 << 20, "only {before} bytes before");
    tcp.send(b"cache_memlimit 10\r\n")?;
    let line = tcp.line()?;
    ensure!(line == "OK\r\n", "{line:?}");
    // Some 50 slabs, eight at a time, each after two grace periods: a second on an idle machine.
    let start = Instant::now();
    while held(&mut tcp)? > 10 << 20 {
        ensure!(
            start.elapsed() < Duration::from_secs(60),
            "{} bytes are still held",
            held(&mut tcp)?
        );
        tcp.set("other", b"value")?;
        thread::sleep(Duration::from_millis(20));
    }
    eprintln!("given back within {:.1} s", start.elapsed().as_secs_f32());
    let left = tcp.stat("curr_items")?;
    ensure!((10..1000).contains(&left), "{left} items are left");
    tcp.set("key0", &value)?;
    hippos.unload()
}

/// The module is loaded and unloaded twenty times under load.
pub(super) fn unloads_under_load() -> Result<()> {
    // The debug kernel takes a dozen seconds for a round.
    let rounds = if leaks::kmemleak_is_on() { 5 } else { 20 };
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let stop = AtomicBool::new(false);
    let memory = Memory::settled(&["kmalloc-", "TCP", "UDP", "sock_inode_cache", "skbuff"])?;
    let result = thread::scope(|scope| -> Result<()> {
        let (stop, there, link) = (&stop, &there, &link);
        let load = scope.spawn(move || {
            there.enter(|| {
                thread::scope(|scope| {
                    for host in [&link.here_ipv4, &link.here_ipv6] {
                        scope.spawn(move || flood_udp(host, stop));
                        scope.spawn(move || flood_tcp(host, stop));
                        scope.spawn(move || hang_tcp(host, stop));
                    }
                });
                Ok(())
            })
        });
        let rounds = (0..rounds).try_for_each(|round| {
            let hippos = Hippos::load("memory_mb=16").with_context(|| format!("round {round}"))?;
            // The load must have reached it.
            served(&link.here_ipv4).with_context(|| format!("round {round}"))?;
            thread::sleep(Duration::from_millis(50));
            let start = Instant::now();
            hippos.unload().with_context(|| format!("round {round}"))?;
            println!("round {round}: unloaded in {:?}", start.elapsed());
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        load.join()
            .map_err(|_| anyhow::anyhow!("the load panicked"))??;
        rounds
    });
    result?;
    memory.compare()
}

/// Waits until the module answers.
fn served(host: &str) -> Result<()> {
    let mut tcp = Tcp::connect(host)?;
    tcp.set("key", b"value")?;
    let reply = Udp::connect(host)?.ask(b"get key\r\n")?;
    ensure!(reply.ends_with(b"END\r\n"), "{reply:?}");
    Ok(())
}

/// Sends requests without a pause, and without waiting for the answers.
fn flood_udp(host: &str, stop: &AtomicBool) {
    let Ok(udp) = Udp::connect(host) else { return };
    let _ = udp.socket.set_nonblocking(true);
    let mut datagram = [0; 2048];
    for id in (0..=u16::MAX).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let request: &[u8] = match id % 4 {
            0 => b"set key 0 0 5\r\nvalue\r\n",
            1 => b"get key none\r\n",
            _ => b"get key\r\n",
        };
        let _ = udp.socket.send(&framed(id, request));
        while udp.socket.recv(&mut datagram).is_ok() {}
    }
}

/// Sends pipelined sets and gets, over one connection after the other.
fn flood_tcp(host: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut tcp) = Tcp::connect(host) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let round = |tcp: &mut Tcp| -> Result<()> {
            for _ in 0..20 {
                tcp.send(&b"set key 0 0 5\r\nvalue\r\nget key\r\n".repeat(20))?;
                for _ in 0..20 * 4 {
                    tcp.line()?;
                }
            }
            Ok(())
        };
        let _ = round(&mut tcp);
    }
}

/// Sends requests for large values and reads nothing; also connects without sending.
fn hang_tcp(host: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let silent = TcpStream::connect_timeout(
            &std::net::SocketAddr::new(host.parse().expect("an address"), PORT),
            Duration::from_secs(1),
        );
        if let Ok(mut tcp) = Tcp::connect(host) {
            let _ = tcp.set("large", &vec![b'x'; 100_000]);
            let _ = tcp.send(&b"get large\r\n".repeat(100));
        }
        thread::sleep(Duration::from_millis(20));
        drop(silent);
    }
}

/// Kernel memory, in pages and in objects of some slab caches.
struct Memory {
    free: u64,
    sockets: String,
    caches: &'static [&'static str],
}

impl Memory {
    /// The state after one load and unload, because memory that the first load leaves behind is no leak.
    fn settled(caches: &'static [&'static str]) -> Result<Self> {
        Hippos::load("memory_mb=16")?.unload()?;
        Self::now(caches)
    }

    fn now(caches: &'static [&'static str]) -> Result<Self> {
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        let info = fs::read_to_string("/proc/meminfo")?;
        let field = |name: &str| -> Result<u64> {
            let line = info.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(number.with_context(|| name.to_owned())?.parse()?)
        };
        Ok(Memory {
            free: field("MemFree:")?,
            sockets: listening()?,
            caches,
        })
    }

    /// Fails if less memory is free than before, by more than noise.
    fn compare(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let now = Self::now(self.caches)?;
            // The items of one round would be 16 MiB.
            let lost = self.free.saturating_sub(now.free);
            if (lost < 8 << 10 || leaks::kmemleak_is_on()) && now.sockets == self.sockets {
                return Ok(());
            }
            ensure!(
                start.elapsed() < Duration::from_secs(20),
                "{lost} KiB less free than before; sockets {:?}, then {:?}",
                self.sockets,
                now.sockets
            );
            thread::sleep(Duration::from_millis(500));
        }
    }
}

/// The sockets that use our port and would still do so without the module.
fn listening() -> Result<String> {
    let mut found = String::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/net/{table}"))?;
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Local address, and state: 0A listens, 07 is UDP's only one.
            if words.get(1).is_some_and(|local| local.ends_with(":2BCB"))
                && matches!(words.get(3), Some(&"0A" | &"07"))
            {
                found.push_str(table);
            }
        }
    }
    Ok(found)
}
