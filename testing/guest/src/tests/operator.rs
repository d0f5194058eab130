// SPDX-License-Identifier: GPL-2.0-only
//! An operator's settings and their reports: refused values, the right to administration commands,
//! a clock that is set, the module's CPU time, and the tool's output.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{anyhow, bail, ensure, Context, Result};
use hippos_client::{Tcp, Udp, PORT};

use crate::kmsg::Log;
use crate::modules::{self, Hippos};
use crate::netns::{self, Namespace};
use crate::receive_path;
use crate::system::run;
use crate::{dashboard, exporter};

/// How often a test checks for a change that it waits for.
const TRIES: u32 = 600;
/// The time between two checks.
const PAUSE: Duration = Duration::from_millis(50);

/// The kernel's log names refused clients with the reason, in ten lines a minute at most.
pub(super) fn refused_clients_are_logged_at_a_limited_rate() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let (host, peer) = (&link.here_ipv4, &link.far_ipv4);
    let mut log = Log::open()?;
    let mut seen = |parameters: &str, why: &str, refuse: &dyn Fn() -> Result<()>| -> Result<()> {
        log.lines();
        let hippos = Hippos::load(parameters)?;
        refuse()?;
        hippos.unload()?;
        let lines = log.lines();
        let named =
            |line: &&String| line.starts_with(&format!("hippos: {peer}:")) && line.ends_with(why);
        let count = lines.iter().filter(named).count();
        ensure!(
            (1..=10).contains(&count),
            "{parameters}: {count} lines: {lines:?}"
        );
        Ok(())
    };
    let tcp = || there.enter(|| Tcp::connect(host));
    seen(
        "allow=10.10.0.0/16",
        "refused by tcp_worker: source",
        &|| (0..40).try_for_each(|_| tcp()?.rest().map(drop)),
    )?;
    seen("maxconns=1", "refused by tcp_worker: connections", &|| {
        let mut first = tcp()?;
        first.set("key", b"value")?;
        tcp()?.rest().map(drop)
    })?;
    seen("allow=10.10.0.0/16", "refused by udp: source", &|| {
        there.enter(|| Udp::connect(host))?.silence(b"get key\r\n")
    })
}

/// Datagrams beyond the rate of their source are in the log too when they are refused where they arrive, in as few lines.
pub(super) fn refused_datagrams_are_logged_at_a_limited_rate() -> Result<()> {
    const SENT: u64 = 40;
    let (there, link) = netns::joined_for_xdp()?;
    let mut log = Log::open()?;
    for path in ["prerouting", "xdp"] {
        log.lines();
        let hippos = Hippos::load("")?;
        if path == "xdp" {
            receive_path::attach(&link.here, "generic")?;
        }
        let mut udp = there.enter(|| Udp::connect(&link.here_ipv4))?;
        // The first datagram of a client may go on to the socket, because the way to it is not known yet.
        let reply = udp.ask(b"get none\r\n")?;
        ensure!(reply == b"END\r\n", "{reply:?}");
        // A reply that finds nothing is 13 bytes with its frame.
        run("hippos-ctl limits --udp-private-rate 12")?;
        for _ in 0..SENT {
            udp.send(b"get none\r\n")?;
        }
        let limited = || -> Result<u64> { Tcp::connect("127.0.0.1")?.stat("hippos_udp_limited") };
        let _ = (0..TRIES).find(|_| {
            thread::sleep(PAUSE);
            limited().is_ok_and(|count| count == SENT)
        });
        ensure!(limited()? == SENT, "{} are counted", limited()?);
        let lines = log.lines();
        let count = |part: &str| {
            let named = |line: &&String| {
                line.starts_with(&format!("hippos: {}:", link.far_ipv4)) && line.contains(part)
            };
            lines.iter().filter(named).count()
        };
        let (all, here) = (count("rate"), count(&format!("refused by {path}: rate")));
        ensure!(here >= 1 && all <= 10, "{path}: {here} of {all}: {lines:?}");
        hippos.unload_all()?;
    }
    Ok(())
}

/// `hippos-ctl` refuses invalid values, names the valid ones, and changes nothing.
pub(super) fn invalid_settings_are_refused_with_a_hint() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32 udp_bytes=100000")?;
    let users = "/tmp/users";
    fs::write(users, "root:x:0:0:root:/root:/bin/sh\n")?;
    let state = || -> Result<Vec<String>> {
        let mut state = Vec::new();
        for command in ["allow list", "limits", "info", "admin", "stats settings"] {
            state.push(run(&format!("hippos-ctl {command}"))?);
        }
        Ok(state)
    };
    let before = state()?;
    for (command, shown) in [
        ("memory 1000000", "must be from 8 to "),
        ("memory 7", "must be from 8 to "),
        ("auth set /tmp/users", "passwd(5)"),
        ("auth set /dev/null", "it has no users"),
        ("allow remove default", "no network would be left"),
        ("allow add 10.0.0.1/8", "did you mean 10.0.0.0/8"),
        ("allow set 10.0.0.0/33", "from 0 to 32"),
        ("allow remove 1.1.1.1", "not all of that is in the list"),
        ("limits --udp-datagrams 70000", "1..=65535"),
        ("limits --udp-bytes 100001", "from 1392 to 100000"),
        ("limits --udp-bytes 100", "1392..="),
        ("flush --delay 2592001", "0..=2592000"),
        ("admin everybody", "network, local, off"),
    ] {
        match run(&format!("hippos-ctl {command}")) {
            Ok(_) => bail!("`{command}` was taken"),
            Err(error) => {
                let error = format!("{error:#}");
                ensure!(error.contains(shown), "`{command}`: {error}");
            }
        }
    }
    ensure!(state()? == before, "something changed: {before:?}");
    // Accepted, with a warning.
    let output = Command::new("hippos-ctl")
        .args(["limits", "--udp-rate", "1"])
        .output()?;
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{warning}");
    ensure!(warning.contains("less than 1400"), "{warning}");
    hippos.unload()?;
    for parameters in ["admin=everybody", "allow=10.0.0.1/8", "allow=10.0.0.0/33"] {
        ensure!(Hippos::load(parameters).is_err(), "{parameters} was taken");
    }
    Ok(())
}

/// `admin=` decides which clients may use administration commands, when the module is loaded and when it is set.
pub(super) fn admin_decides_who_may_administer() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load("")?;
    let here = link.here_ipv4.clone();
    let mut near = Tcp::connect("127.0.0.1")?;
    let mut far = there.enter(|| Tcp::connect(&here))?;
    let mut udp = Udp::connect("127.0.0.1")?;
    let ask = |tcp: &mut Tcp, allowed: bool| -> Result<()> {
        for (line, name) in [
            ("verbosity 1", "verbosity"),
            ("lru mode flat", "lru"),
            ("flush_all", "flush_all"),
            ("cache_memlimit 64", "cache_memlimit"),
        ] {
            tcp.send(format!("{line}\r\n").as_bytes())?;
            let said = tcp.line()?;
            let want = match allowed {
                true => "OK\r\n".to_owned(),
                false => format!("CLIENT_ERROR {name} not allowed\r\n"),
            };
            ensure!(said == want, "{line}: {said:?}, not {want:?}");
        }
        Ok(())
    };
    for (who, near_may, far_may, udp_may) in [
        ("network", true, true, true),
        ("local", true, false, false),
        ("off", false, false, false),
        ("network", true, true, true),
    ] {
        run(&format!("hippos-ctl admin {who}"))?;
        let shown = run("hippos-ctl admin")?;
        ensure!(shown.trim() == who, "{shown} is shown for {who}");
        ask(&mut near, near_may)?;
        ask(&mut far, far_may)?;
        let said = udp.ask(b"verbosity 0\r\n")?;
        ensure!((said == b"OK\r\n") == udp_may, "{who}: {said:?}");
        let said = udp.ask(b"cache_memlimit 64\r\n")?;
        let refused = b"CLIENT_ERROR cache_memlimit not allowed over UDP\r\n";
        ensure!(said == refused, "{who}: {said:?}");
        // The owner's own tool is never refused.
        run("hippos-ctl flush")?;
        run("hippos-ctl memory 64")?;
    }
    // The limit over UDP each time; with `local` the far client's four and the datagram, with `off`
    // the near client's four as well.
    let refused = 4 + (4 + 1) + (4 + 4 + 1);
    let counted = near.stat("hippos_admin_refused")?;
    ensure!(counted == refused, "{counted} are counted of {refused}");
    drop((near, far));
    hippos.unload()?;
    let hippos = Hippos::load("admin=off")?;
    ask(&mut Tcp::connect("127.0.0.1")?, false)?;
    hippos.unload()
}

/// Expiry and last access of the only item, as in a metadump.
fn times(tcp: &mut Tcp) -> Result<(i64, i64)> {
    tcp.send(b"lru_crawler metadump all\r\n")?;
    let mut times = None;
    loop {
        let line = tcp.line()?;
        if line == "END\r\n" {
            return times.context("no item in the dump");
        }
        let number = |name: &str| -> Result<i64> {
            let word = line.split(' ').find_map(|word| word.strip_prefix(name));
            Ok(word
                .with_context(|| format!("no {name} in {line}"))?
                .parse()?)
        };
        times = Some((number("exp=")?, number("la=")?));
    }
}

/// Absolute times of an untouched item are always the same, and follow a clock that is set.
pub(super) fn item_times_follow_a_clock_that_is_set() -> Result<()> {
    let hippos = Hippos::load("")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.send(b"set key 0 1000 1\r\nx\r\n")?;
    ensure!(tcp.line()? == "STORED\r\n", "not stored");
    let first = times(&mut tcp)?;
    for _ in 0..40 {
        let now = times(&mut tcp)?;
        ensure!(now == first, "{now:?} after {first:?}");
        thread::sleep(PAUSE);
    }
    let set = |ahead: i64| -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
        run(&format!("date -s @{}", now + ahead)).map(drop)
    };
    set(3600)?;
    let moved = (0..TRIES).find_map(|_| {
        thread::sleep(PAUSE);
        times(&mut tcp).ok().filter(|now| *now != first)
    });
    tcp.send(b"mg key t\r\n")?;
    let left = tcp.line()?;
    // The clock is set back before any check can fail.
    set(-3600)?;
    let moved = moved.context("the clock was set, and the times stay")?;
    let by = (moved.0 - first.0, moved.1 - first.1);
    // `date` sets whole seconds.
    ensure!(
        by.0 == by.1 && (3598..=3601).contains(&by.0),
        "moved by {by:?}"
    );
    let left: u32 = left
        .trim()
        .strip_prefix("HD t")
        .unwrap_or_default()
        .parse()?;
    ensure!((1..=1000).contains(&left), "{left} seconds left");
    drop(tcp);
    hippos.unload()
}

/// The CPU time of threads and softirqs is shown, and grows with work. The interface of `dev=` is shown.
pub(super) fn cpu_time_and_interface_are_shown() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let setting = |name: &str| -> Result<String> {
        let shown = run("hippos-ctl stats settings")?;
        let mut words = shown.lines().map(|line| line.split_whitespace());
        let value =
            words.find_map(|mut words| (words.next() == Some(name)).then(|| words.next())?);
        Ok(value.with_context(|| format!("no {name}"))?.to_owned())
    };
    let hippos = Hippos::load("")?;
    ensure!(
        setting("inter")? == "NULL",
        "an interface that was not asked for"
    );
    let spent = || -> Result<f64> {
        let shown = run("hippos-ctl stats")?;
        let mut words = shown.lines().map(|line| line.split_whitespace());
        let value = words
            .find_map(|mut words| (words.next() == Some("rusage_system")).then(|| words.next())?);
        Ok(value.context("no rusage_system")?.parse()?)
    };
    let before = spent()?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let grew = (0..TRIES).any(|_| {
        for _ in 0..100 {
            if tcp.set("key", &[b'x'; 10_000]).is_err() {
                return false;
            }
        }
        spent().is_ok_and(|now| now > before)
    });
    ensure!(grew, "rusage_system stays at {before}");
    drop(tcp);
    hippos.unload()?;
    let hippos = Hippos::load(&format!("dev={}", link.here))?;
    ensure!(
        setting("inter")? == link.here,
        "inter is {}",
        setting("inter")?
    );
    hippos.unload()
}

/// `hippos-ctl`'s exit status and its output.
fn ctl(line: &str) -> Result<(i32, String)> {
    let output = Command::new("hippos-ctl").args(line.split(' ')).output()?;
    let said = [output.stdout, output.stderr].concat();
    let status = output.status.code().context("ended by a signal")?;
    Ok((status, String::from_utf8_lossy(&said).into_owned()))
}

/// The command must end with this status, and its output must contain this text.
fn ends(line: &str, status: i32, shown: &str) -> Result<()> {
    let (ended, said) = ctl(line)?;
    ensure!(
        ended == status && said.contains(shown),
        "`{line}` ended with {ended}, not {status}, or did not say {shown:?}: {said}"
    );
    Ok(())
}

const FILE: &str = "/tmp/hippos.toml";
const USERS: &str = "/tmp/users";

/// Each kind of failure has its own exit status.
pub(super) fn each_failure_has_its_exit_status() -> Result<()> {
    ends("info", 3, "is the module loaded?")?;
    ends("stop", 3, "not loaded")?;
    ends("--json info", 3, r#""status":3"#)?;
    ends("bogus", 2, "unrecognized subcommand")?;
    let hippos = Hippos::load("memory_mb=32")?;
    ends("memory 7", 5, "must be from 8 to")?;
    ends("allow remove 1.1.1.1", 5, "not all of that is in the list")?;
    ends("memory", 0, "32 MiB")?;
    let nobody = Command::new("hippos-ctl").arg("info").uid(65534).output()?;
    ensure!(nobody.status.code() == Some(4), "{nobody:?}");
    fs::write(FILE, format!("[load]\nmodule = '{}'\n", modules::HIPPOS))?;
    ends(&format!("start {FILE}"), 5, "loaded already")?;
    hippos.unload()
}

/// The log has each change, with its user, and no command that only reads.
pub(super) fn each_change_is_logged_with_its_user() -> Result<()> {
    const DUMP: &str = "/tmp/logged.dump";
    const SAVED: &str = "/tmp/logged.toml";
    let mut log = Log::open()?;
    log.lines();
    let hippos = Hippos::load("memory_mb=32 allow=any latency=1")?;
    let line = "hippos: loaded by user 0; parameters that are not the defaults: memory_mb=32 allow=any latency=yes";
    let lines = log.lines();
    ensure!(lines.iter().any(|found| found == line), "{lines:?}");
    Tcp::connect("127.0.0.1")?.set("key", b"value")?;
    let (save, dump, load) = (
        format!("config save {SAVED}"),
        format!("dump {DUMP}"),
        format!("load {DUMP}"),
    );
    for (command, status, end) in [
        ("memory 40", 0, ""),
        (save.as_str(), 0, ""),
        ("config show", 0, "none"),
        (dump.as_str(), 0, "none"),
        (load.as_str(), 0, ""),
        ("load /nonexistent", 1, " failed: "),
        ("memory 1", 5, "none"),
    ] {
        ends(command, status, "")?;
        let lines = log.lines();
        let start = format!("hippos-ctl: {command}{end}");
        let notes: Vec<_> = lines
            .iter()
            .filter(|line| line.contains("hippos-ctl: "))
            .collect();
        let is_right = match (end, &notes[..]) {
            ("none", notes) => notes.is_empty(),
            (_, [note]) => note.starts_with(&start) && note.ends_with("(by user 0)"),
            _ => false,
        };
        ensure!(is_right, "{command}: {lines:?}");
    }
    for file in [DUMP, SAVED] {
        fs::remove_file(file)?;
    }
    hippos.unload()
}

/// Changes by clients are in the log with the client's address, in ten lines a minute at most.
pub(super) fn changes_by_clients_are_logged_with_their_address() -> Result<()> {
    const COMMANDS: u64 = 40;
    let mut log = Log::open()?;
    let hippos = Hippos::load("")?;
    log.lines();
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let mut tcp = there.enter(|| Tcp::connect(&link.here_ipv4))?;
    for command in ["cache_memlimit 32", "flush_all", "lru mode flat"] {
        let reply = tcp.ask(&format!("{command}\r\n"))?;
        ensure!(reply.trim_end() == "OK", "{command}: {reply}");
    }
    let mut udp = there.enter(|| Udp::connect(&link.here_ipv4))?;
    let reply = udp.ask(b"verbosity 1\r\n")?;
    ensure!(reply == b"OK\r\n", "{reply:?}");
    let lines = log.lines();
    let changes: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("by the client"))
        .collect();
    let by = |change: &str, path: &str| {
        let start = format!("hippos: {change} by the client {}:", link.far_ipv4);
        let is_it = |line: &&&String| line.starts_with(&start) && line.ends_with(path);
        changes.iter().filter(is_it).count()
    };
    ensure!(by("cache_memlimit 32", "(tcp_worker)") == 1, "{lines:?}");
    ensure!(by("flush_all", "(tcp_worker)") == 1, "{lines:?}");
    ensure!(by("verbosity 1", "(udp)") == 1, "{lines:?}");
    // `lru` changes nothing.
    ensure!(changes.len() == 3, "{lines:?}");
    for _ in 0..COMMANDS {
        tcp.ask("verbosity 2\r\n")?;
    }
    let more = log.lines();
    let more = more.iter().filter(|line| line.contains("by the client"));
    ensure!(more.count() <= 10 - changes.len(), "more than ten lines");
    drop(tcp);
    hippos.unload()
}

/// Lines longer than the kernel's longest record are logged in parts: none of the networks is cut off.
pub(super) fn long_lines_are_logged_whole() -> Result<()> {
    let networks: Vec<_> = (0..32)
        .map(|n| format!("fd00:1111:2222:3333::{:x}:0/112", 0xf00 + n))
        .collect();
    let list = networks.join(",");
    ensure!((900..=1024).contains(&list.len()), "{} bytes", list.len());
    let whole = |lines: &[String], of: &str| -> Result<()> {
        let parts = lines.iter().filter(|line| line.starts_with(of));
        let text: String = parts.map(|line| format!("{line} ")).collect();
        for network in &networks {
            ensure!(text.contains(network), "{network} is not in {text}");
        }
        Ok(())
    };
    let mut log = Log::open()?;
    log.lines();
    let hippos = Hippos::load(&format!("allow={list} eviction=clock maxconns=500"))?;
    let lines = log.lines();
    whole(&lines, "hippos: ")?;
    let last = lines.iter().any(|line| line.ends_with("admin=network"));
    ensure!(last, "the first line has lost its end: {lines:?}");
    run(&format!("hippos-ctl allow set {list},192.0.2.1"))
        .err()
        .context("33 networks were taken")?;
    let shorter = networks[1..].join(",");
    run(&format!("hippos-ctl allow set 10.0.0.0/8,{shorter}"))?;
    log.lines();
    run(&format!("hippos-ctl allow set {list}"))?;
    whole(&log.lines(), "hippos-ctl: ")?;
    hippos.unload()
}

/// Two `limits` at the same time that change different ones: both changes are in force.
pub(super) fn limits_changed_at_the_same_time_are_all_kept() -> Result<()> {
    const ROUNDS: u32 = 20;
    let hippos = Hippos::load("")?;
    for round in 1..=ROUNDS {
        let (rate, private) = (100_000 + round, 200_000 + round);
        thread::scope(|scope| {
            let other = scope.spawn(move || run(&format!("hippos-ctl limits --udp-rate {rate}")));
            run(&format!("hippos-ctl limits --udp-private-rate {private}"))?;
            other.join().map_err(|_| anyhow!("limits panicked"))?
        })?;
        let shown = format!("udp-rate {rate}\nudp-private-rate {private}\n");
        ends("limits", 0, &shown)?;
    }
    hippos.unload()
}

/// A module that another start loads between this one's check and its modprobe is neither configured nor unloaded. The
/// modprobe of this test is the other start, and then does what kmod's does.
pub(super) fn start_leaves_a_module_alone_that_another_start_loaded() -> Result<()> {
    const FOLDER: &str = "/tmp/start";
    fs::create_dir_all(FOLDER)?;
    let modprobe = format!("{FOLDER}/modprobe");
    let script = format!(
        "#!/bin/busybox sh\n/bin/busybox insmod {} memory_mb=32\n[ \"$1\" = --first-time ] || exit 0\n\
         echo 'Module already in kernel' >&2\nexit 1\n",
        modules::HIPPOS
    );
    fs::write(&modprobe, script)?;
    fs::set_permissions(&modprobe, fs::Permissions::from_mode(0o755))?;
    fs::write(FILE, "memory_mb = 48\n[limits]\nudp_datagrams = 8\n")?;
    let output = Command::new("hippos-ctl")
        .args(["start", FILE])
        .env("PATH", format!("{FOLDER}:/sbin:/usr/sbin:/bin:/usr/bin"))
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let (limits, memory) = (ctl("limits"), ctl("memory"));
    modules::remove("hippos")?;
    fs::remove_dir_all(FOLDER)?;
    ensure!(output.status.code() == Some(5), "{output:?}");
    ensure!(error.contains("already in kernel"), "{error}");
    let limits = limits?.1;
    ensure!(
        !limits.contains("udp-datagrams 8\n"),
        "it was configured: {limits}"
    );
    let memory = memory?.1;
    ensure!(memory.contains("32 MiB"), "{memory}");
    Ok(())
}

/// Requests a key on new connections until `end` is set; keeps the lines of the answers.
fn ask_on(answers: &Mutex<Vec<String>>, end: &AtomicBool) {
    let ask = || -> std::io::Result<String> {
        let mut tcp = TcpStream::connect(("127.0.0.1", PORT))?;
        tcp.write_all(b"get key\r\n")?;
        let mut line = String::new();
        BufReader::new(tcp).read_line(&mut line)?;
        Ok(line)
    };
    while !end.load(Relaxed) {
        if let (Ok(line), Ok(mut answers)) = (ask(), answers.lock()) {
            answers.push(line);
        }
    }
}

/// `start` with a configuration file: no client is served before logins are in force, and interfaces
/// are waited for. A reload changes the live settings, and `config save` saves the settings in force.
pub(super) fn configuration_is_in_force_before_the_first_client() -> Result<()> {
    fs::write(USERS, "user:pass\n")?;
    fs::write(FILE, "memory = 3\n\nport = 70000\n")?;
    ends(&format!("check {FILE}"), 6, "/tmp/hippos.toml:1:1: memory")?;
    ends(
        &format!("start {FILE}"),
        6,
        "/tmp/hippos.toml:3:8: port=70000",
    )?;
    let load = format!("[load]\nmodule = '{}'\nwait = 60\n", modules::HIPPOS);
    let file = |memory: u32, rest: &str, interface: &str| {
        fs::write(
            FILE,
            format!(
                "memory_mb = {memory}\nudp_rate = 5000\nauth_file = '{USERS}'\n{rest}\n\
                 [limits]\nudp_datagrams = 8\n[xdp]\ninterfaces = ['{interface}']\n\
                 mode = 'generic'\n{load}"
            ),
        )
    };

    let there = Namespace::new("there")?;
    // The name that join gives.
    file(32, "", "here1")?;
    let (answers, end) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let link = thread::scope(|scope| -> Result<_> {
        scope.spawn(|| ask_on(&answers, &end));
        let start = scope.spawn(|| run(&format!("hippos-ctl start {FILE}")));
        thread::sleep(PAUSE);
        let link = netns::join(&there, 1);
        let started = start.join();
        // Further answers, from a time when the whole file is in force.
        let many = |answers: &Vec<String>| answers.len() > 20;
        let _ = (0..TRIES).find(|_| {
            thread::sleep(PAUSE);
            answers.lock().map_or(true, |answers| many(&answers))
        });
        end.store(true, Relaxed);
        started.map_err(|_| anyhow!("start panicked"))??;
        link
    })?;
    let answers = answers
        .into_inner()
        .map_err(|_| anyhow!("asking panicked"))?;
    ensure!(!answers.is_empty(), "no client was answered");
    let served = |line: &&String| !line.is_empty() && !line.contains("unauthenticated");
    let served = answers.iter().find(served);
    ensure!(served.is_none(), "a client was served: {served:?}");
    ends("auth status", 0, "have to log in")?;
    ends("limits", 0, "udp-datagrams 8\nudp-rate 5000")?;
    ends("xdp status", 0, &format!("{} generic", link.here))?;
    ends(&format!("diff {FILE}"), 0, "")?;

    file(48, "port = 11300\nadmin = 'local'", &link.here)?;
    ends(
        &format!("diff {FILE}"),
        6,
        "port: 11211 is in force, 11300 in the file (needs a restart)",
    )?;
    ends(&format!("reload {FILE}"), 6, "memory_mb: 48 (was 32)")?;
    ends("admin", 0, "local")?;
    ends("memory", 0, "48 MiB")?;
    ends(
        &format!("reload {FILE}"),
        6,
        "port: stays 11211; 11300 needs a restart",
    )?;
    fs::write(USERS, "other:word\n")?;
    file(48, "admin = 'local'", &link.here)?;
    ends(&format!("reload {FILE}"), 0, "")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.send(b"set x 0 0 10\r\nother word\r\n")?;
    ensure!(tcp.line()? == "STORED\r\n", "the new password is not known");
    drop(tcp);

    ends("allow add 192.0.2.0/24", 0, "")?;
    ends(&format!("config save {FILE}"), 0, "is written")?;
    ends(&format!("diff {FILE}"), 0, "")?;
    ends("config show", 0, "allow = [\"default\", \"192.0.2.0/24\"]")?;
    run("hippos-ctl stop")?;
    // A start with the saved file works.
    run(&format!("hippos-ctl start {FILE}"))?;
    ends("allow list", 0, "192.0.2.0/24")?;
    ends(&format!("diff {FILE}"), 0, "")?;
    run("hippos-ctl stop")?;

    // A failed start leaves no module loaded.
    fs::write(FILE, format!("dev = 'none'\n{}", load.replace("60", "0")))?;
    ends(&format!("start {FILE}"), 1, "no interface none")?;
    fs::write(FILE, format!("memory_mb = 1000000\n{load}"))?;
    ends(&format!("check {FILE}"), 6, "on this machine")?;
    ends(
        &format!("start {FILE}"),
        5,
        "memory_mb=1000000: must be from 8 to",
    )?;
    ensure!(!modules::loaded("hippos"), "it is loaded");
    Ok(())
}

/// The files of the parameters in sysfs.
fn parameters() -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/sys/module/hippos/parameters")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        all.push((name, fs::read_to_string(&path)?));
    }
    all.sort();
    Ok(all)
}

/// `stats settings` has these rows with these values.
fn has_settings(wanted: &[(&str, &str)]) -> Result<()> {
    let shown = run("hippos-ctl stats settings")?;
    for (name, value) in wanted {
        let is_right = |line: &str| line.split_whitespace().eq([*name, *value]);
        ensure!(
            shown.lines().any(is_right),
            "{name} is not {value}: {shown}"
        );
    }
    Ok(())
}

/// `/sys/module/hippos/parameters` keeps the values at the load, and `config show` has those in force:
/// docs/parameters.md.
pub(super) fn sysfs_keeps_parameters_as_loaded() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32 allow=any udp_rate=7000")?;
    let loaded = parameters()?;
    for (name, value) in [("memory_mb", "32"), ("allow", "any"), ("udp_rate", "7000")] {
        let file = (name.to_owned(), format!("{value}\n"));
        ensure!(loaded.contains(&file), "{file:?} is not in {loaded:?}");
    }
    for command in [
        "memory 48",
        "allow set 127.0.0.0/8,10.0.0.0/8",
        "admin local",
        "limits --udp-rate 9000 --udp-bytes 5000",
        "latency on",
    ] {
        run(&format!("hippos-ctl {command}"))?;
    }
    has_settings(&[
        ("hippos_udp_rate", "9000"),
        ("hippos_udp_bytes", "5000"),
        ("hippos_allow_networks", "2"),
        ("hippos_udp_private_rate", "0"),
        ("hippos_closed", "no"),
    ])?;
    run("hippos-ctl allow remove 10.0.0.0/8")?;
    run("hippos-ctl limits --udp-private-rate 7 --udp-datagrams 3")?;
    has_settings(&[
        ("hippos_allow_networks", "1"),
        ("hippos_udp_private_rate", "7"),
        ("hippos_udp_datagrams", "3"),
        ("hippos_udp_rate", "9000"),
    ])?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for command in ["cache_memlimit 40", "verbosity 2"] {
        tcp.send(format!("{command}\r\n").as_bytes())?;
        ensure!(tcp.line()? == "OK\r\n", "{command} was refused");
    }
    let now = parameters()?;
    ensure!(now == loaded, "{loaded:?} became {now:?}");
    let shown = run("hippos-ctl config show")?;
    for line in [
        "memory_mb = 40",
        "allow = [\"127.0.0.0/8\"]",
        "admin = \"local\"",
        "udp_rate = 9000",
        "udp_bytes = 5000",
        "latency = true",
    ] {
        ensure!(
            shown.lines().any(|shown| shown.starts_with(line)),
            "no {line} in {shown}"
        );
    }
    ends("stats settings", 0, "verbosity")?;
    drop(tcp);
    hippos.unload()
}

/// `stop` dumps the cache and `start` loads it, once; a dump that is damaged stops neither.
pub(super) fn warm_restart_keeps_the_cache() -> Result<()> {
    const FILE: &str = "/tmp/warm.toml";
    const CACHE: &str = "/tmp/warm/cache.dump";
    let text = format!(
        "memory_mb = 32\n[load]\nmodule = '{}'\n[warm]\nfile = '{CACHE}'\n",
        modules::HIPPOS
    );
    fs::write(FILE, text)?;
    let start = format!("hippos-ctl start {FILE}");
    let stop = format!("hippos-ctl stop {FILE}");
    let count = || -> Result<u64> { Tcp::connect("127.0.0.1")?.stat("curr_items") };
    run(&start)?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for number in 0..2000 {
        tcp.set(&format!("key:{number}"), b"value")?;
    }
    drop(tcp);
    run(&stop)?;
    ensure!(fs::exists(CACHE)?, "there is no dump");
    run(&start)?;
    ensure!(count()? == 2000, "{} items are there again", count()?);
    ensure!(!fs::exists(CACHE)?, "a crash would load the dump again");
    // Without a dump a start is cold.
    run(&format!("{stop} --no-dump"))?;
    run(&start)?;
    ensure!(count()? == 0, "{} items without a dump", count()?);
    run(&format!("{stop} --no-dump"))?;
    fs::write(CACHE, b"nonsense")?;
    run(&start)?;
    ensure!(count()? == 0, "{} items of nonsense", count()?);
    run(&format!("{stop} --no-dump"))?;
    ensure!(!modules::loaded("hippos"), "it is loaded");
    Ok(())
}

/// The operator's reports show the present state: status, sockets, slab classes, keys, findings, metrics.
pub(super) fn status_doctor_keys_and_metrics_show_the_state() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32 maxconns=2 admin=off")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("user:1", b"value")?;
    tcp.set("user:2", b"value")?;
    tcp.set("other", &[b'x'; 5000])?;
    tcp.send(b"mg user:1 v\r\n")?;
    tcp.line()?;
    tcp.line()?;
    ends("status", 0, "connections: ")?;
    ends("status --json", 0, r#""health":"#)?;
    ends("conns", 0, "tcp:127.0.0.1:")?;
    ends("slabs", 0, "#")?;
    let json = |line: &str| -> Result<serde_json::Value> { Ok(serde_json::from_str(&run(line)?)?) };
    let stats = json("hippos-ctl stats --json")?;
    ensure!(stats["get_hits"] == 1, "{stats}");
    // The owner may reset the statistics even with `admin=off`.
    ends("stats reset", 0, "")?;
    let stats = json("hippos-ctl stats --json")?;
    ensure!(
        stats["get_hits"] == 0 && stats["curr_items"] == 3,
        "{stats}"
    );

    // More clients than `maxconns`: found, with the remedy.
    let others: Vec<_> = (0..4)
        .map(|_| TcpStream::connect(("127.0.0.1", PORT)))
        .collect();
    let found = (0..TRIES).any(|_| {
        thread::sleep(PAUSE);
        ctl("doctor").is_ok_and(|(status, said)| status == 6 && said.contains("raise maxconns"))
    });
    ensure!(found, "{:?}", ctl("doctor"));
    ends("status", 0, "degraded: hippos")?;
    drop((others, tcp));
    hippos.unload()?;

    let hippos = Hippos::load("memory_mb=32")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for key in ["user:1", "user:2", "other"] {
        tcp.set(key, b"value")?;
    }
    let keys = run("hippos-ctl keys user:")?;
    ensure!(
        keys.lines().count() == 2 && keys.contains("user:2  "),
        "{keys}"
    );

    let page = exporter::scrape()?;
    for sample in [
        "memcached_up 1",
        "memcached_current_items 3",
        "hippos_receive_path_open{",
    ] {
        ensure!(page.contains(sample), "no {sample} in {page}");
    }
    drop(tcp);
    hippos.unload()
}

/// Each query of the dashboard finds something in the scrape of a module that was asked.
pub(super) fn each_query_of_the_dashboard_finds_samples() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32 latency=1")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("key", b"value")?;
    tcp.ask("mg key\r\n")?;
    ensure!(tcp.stat("get_hits")? == 1, "no hit");
    let page = exporter::scrape()?;
    dashboard::check(&page)?;
    // A write over UDP is left to the socket, and by each path for that reason.
    let before = "hippos_pass_total{path=\"hook\",reason=\"unserved\"} 0";
    ensure!(
        page.lines().any(|line| line == before),
        "no {before}: {page}"
    );
    let reply = Udp::connect("127.0.0.1")?.ask(b"set key 0 0 1\r\n1\r\n")?;
    ensure!(reply == b"STORED\r\n", "{reply:?}");
    let page = exporter::scrape()?;
    let is_counted = !page.lines().any(|line| line == before);
    ensure!(is_counted, "the datagram is not counted: {page}");
    drop(tcp);
    hippos.unload()
}

/// Output that no other test reads: a dump and its load, manual pages, completions, the times of the receive
/// paths, rates and the hottest keys.
pub(super) fn dump_manuals_and_rates_are_printed() -> Result<()> {
    const DUMP: &str = "/tmp/prints.dump";
    const PAGES: &str = "/tmp/man";
    let hippos = Hippos::load("memory_mb=32")?;
    let version = run("hippos-ctl --version")?;
    let version = version.trim().replace("hippos-ctl ", "hippos ");
    let info = run("hippos-ctl info")?;
    ensure!(
        info == format!("{version}\nport 11211\nmemory 32 MiB\n"),
        "{info}"
    );
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for number in 0..300 {
        tcp.set(
            &format!("key:{number}"),
            format!("value {number}").as_bytes(),
        )?;
    }
    ends(&format!("dump {DUMP}"), 0, "300 items in ")?;
    // `flush` spares items that were set within the same second.
    thread::sleep(Duration::from_millis(1200));
    ends("flush", 0, "")?;
    ensure!(tcp.ask("mg key:299\r\n")? == "EN\r\n", "flush leaves items");
    ends(&format!("load {DUMP}"), 0, "300 items stored")?;
    let mut client = Tcp::connect("127.0.0.1")?;
    client.send(b"get key:123\r\n")?;
    let reply = [client.line()?, client.line()?, client.line()?].concat();
    ensure!(
        reply == "VALUE key:123 0 9\r\nvalue 123\r\nEND\r\n",
        "{reply}"
    );
    let half = &fs::read(DUMP)?[..100];
    fs::write(DUMP, half)?;
    let (status, said) = ctl(&format!("load {DUMP}"))?;
    ensure!(status == 1 && said.contains(DUMP), "{status}: {said}");

    run(&format!("hippos-ctl man {PAGES}"))?;
    let page = |name: &str| fs::read_to_string(format!("{PAGES}/{name}.1"));
    let all = page("hippos-ctl")?;
    for command in ["status", "doctor", "dump", "load", "conns"] {
        // A hyphen is escaped in a page.
        ensure!(
            all.contains(&format!("hippos\\-ctl\\-{command}(1)")),
            "{all}"
        );
        let one = page(&format!("hippos-ctl-{command}"))?;
        ensure!(one.contains(".SH SYNOPSIS"), "{one}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let text = run(&format!("hippos-ctl completions {shell}"))?;
        ensure!(
            text.contains("doctor") && text.contains("hippos-ctl"),
            "{text}"
        );
    }

    // While times are not measured, then while they are.
    ends(
        "latency",
        0,
        "latency is not measured: hippos-ctl latency on",
    )?;
    run("hippos-ctl latency on")?;
    let rates = thread::scope(|scope| -> Result<_> {
        let status = scope.spawn(|| run("hippos-ctl status --interval 2"));
        while !status.is_finished() {
            tcp.ask("get none\r\n")?;
        }
        let status = status.join().map_err(|_| anyhow!("status panicked"))??;
        let top = scope.spawn(|| run("hippos-ctl top --once --keys --interval 2"));
        while !top.is_finished() {
            tcp.ask("get hot\r\n")?;
        }
        let top = top.join().map_err(|_| anyhow!("top panicked"))??;
        Ok((status, top))
    })?;
    let (status, top) = rates;
    for part in [
        "held for: items ",
        "in the last ",
        "by protocol: TCP ",
        "by CPU, busiest first: ",
    ] {
        ensure!(status.contains(part), "no {part:?} in {status}");
    }
    ensure!(!status.contains("TCP 0 commands"), "{status}");
    let is_hot = |line: &str| line.starts_with("key: ") && line.ends_with("/s hot");
    ensure!(top.lines().any(is_hot), "{top}");
    ensure!(top.contains("latency: tcp_"), "{top}");
    ends("latency", 0, "tcp_")?;
    drop((tcp, client));
    hippos.unload()
}

/// A connection that answers `version`.
struct Client {
    stream: TcpStream,
    port: u16,
}

impl Client {
    fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect((host, PORT))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let port = stream.local_addr()?.port();
        let mut client = Self { stream, port };
        client.ask()?;
        Ok(client)
    }

    fn ask(&mut self) -> Result<()> {
        self.stream.write_all(b"version\r\n")?;
        let mut answer = [0; 7];
        self.stream.read_exact(&mut answer)?;
        ensure!(&answer == b"VERSION", "{answer:?}");
        let mut rest = [0; 64];
        let len = self.stream.read(&mut rest)?;
        ensure!(rest[..len].ends_with(b"\n"), "{rest:?}");
        Ok(())
    }

    /// Until the server's end of file.
    fn read_to_end(&mut self) -> Result<usize> {
        Ok(self.stream.read_to_end(&mut Vec::new())?)
    }

    fn is_listed(&self) -> Result<bool> {
        let peer = format!(":{}  ", self.port);
        Ok(run("hippos-ctl conns")?.contains(&peer))
    }

    fn is_soon_gone(&self) -> Result<()> {
        for _ in 0..TRIES {
            if !self.is_listed()? {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        bail!("{} is still listed", self.port)
    }
}

/// `conns kill` closes the selected connections and no other; `top` and the device's statistics show
/// the served requests.
pub(super) fn kill_closes_only_the_connections_asked_for() -> Result<()> {
    let hippos = Hippos::load("memory_mb=64")?;
    let (mut killed, mut other) = (Client::connect("127.0.0.1")?, Client::connect("127.0.0.1")?);
    ensure!(killed.is_listed()? && other.is_listed()?, "not listed");
    let mut log = Log::open()?;
    log.lines();
    let kill = format!("conns kill 127.0.0.1:{}", killed.port);
    ends(&kill, 0, "closed connections: 1\n")?;
    let lines = log.lines();
    let noted = format!("hippos-ctl: {kill} (by user 0");
    ensure!(lines.iter().any(|line| line.contains(&noted)), "{lines:?}");
    ensure!(killed.read_to_end()? == 0, "more than the end");
    killed.is_soon_gone()?;
    other.ask()?;
    ends("conns kill 10.9.9.9", 0, "closed connections: 0\n")?;
    ends("conns kill ::1", 0, "closed connections: 0\n")?;
    let user = Command::new("hippos-ctl")
        .args(["conns", "kill", "127.0.0.1"])
        .uid(65534)
        .output()?;
    ensure!(user.status.code() == Some(4), "{user:?}");
    other.ask()?;

    // Of another family, in the middle of a value, and with replies that are never read.
    let mut ipv6 = Client::connect("::1")?;
    ends("conns kill [::1]", 0, "closed connections: 1\n")?;
    ipv6.read_to_end()?;
    let mut sending = Client::connect("127.0.0.1")?;
    sending.stream.write_all(b"set part 0 0 1000\r\nabc")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("large", &vec![b'x'; 1_000_000])?;
    let mut deaf = Client::connect("127.0.0.1")?;
    for _ in 0..32 {
        deaf.stream.write_all(b"get large\r\n")?;
    }
    for client in [&sending, &deaf] {
        let kill = format!("conns kill 127.0.0.1:{}", client.port);
        ends(&kill, 0, "closed connections: 1\n")?;
        client.is_soon_gone()?;
    }
    ensure!(sending.read_to_end()? == 0, "more than the end");
    other.ask()?;

    // By idle time.
    let mut idle = Client::connect("127.0.0.1")?;
    let is_closed = (0..TRIES).any(|_| {
        thread::sleep(PAUSE);
        drop((other.ask(), tcp.send(b"version\r\n"), tcp.line()));
        // Connections that were just served stay.
        ctl("conns kill --idle 3").is_ok_and(|(_, text)| text == "closed connections: 1\n")
    });
    ensure!(is_closed, "none was idle");
    idle.read_to_end()?;
    other.ask()?;

    // `top` shows the served requests.
    let port = other.port;
    let top = thread::scope(|scope| {
        let top = scope.spawn(|| run("hippos-ctl top --once --json --interval 3"));
        while !top.is_finished() {
            other.ask()?;
        }
        top.join().map_err(|_| anyhow!("top panicked"))?
    })?;
    let top: serde_json::Value = serde_json::from_str(&top)?;
    let sum = |rows: &serde_json::Value, field: &str| -> f64 {
        let rows = rows.as_array().into_iter().flatten();
        rows.filter_map(|row| row[field].as_f64()).sum()
    };
    ensure!(
        top["receive_paths"][3]["rate"].as_f64() > Some(0.0),
        "{top}"
    );
    ensure!(sum(&top["cpus"], "tcp") > 0.0, "{top}");
    let first = &top["talkers"][0];
    let is_other = first["peer"] == format!("127.0.0.1:{port}").as_str();
    ensure!(
        is_other && first["bytes_read"].as_f64() > Some(0.0),
        "{top}"
    );
    ends("top --once --interval 0.1", 0, "PRE_ROUTING")?;
    ends("top", 2, "--once or --json")?;
    ends("stats cpus", 0, "0:hippos_tcp_commands")?;
    ends("stats sizes", 0, "sizes_status")?;
    ends("stats detail on", 0, "")?;
    tcp.set("user:1", b"value")?;
    let detail: serde_json::Value = serde_json::from_str(&run("hippos-ctl stats detail --json")?)?;
    ensure!(detail["user"]["set"] == 1, "{detail}");
    ends("stats detail off", 0, "")?;

    // Unloading meets connections that were just closed, some of them with unread replies.
    let clients: Vec<_> = (0..50)
        .map(|_| Client::connect("127.0.0.1"))
        .collect::<Result<_>>()?;
    for client in &clients {
        (&client.stream).write_all(b"get large\r\n")?;
    }
    let (status, text) = ctl("conns kill 127.0.0.1")?;
    ensure!(status == 0 && text != "closed connections: 0\n", "{text}");
    hippos.unload()
}
