// SPDX-License-Identifier: GPL-2.0-only
//! `watch` over TCP: the events of each receive path, watchers that do not read, and unloading the module
//! while clients watch.

use anyhow::{ensure, Context, Result};
use hippos_client::{Tcp, Udp};

use crate::modules::Hippos;
use crate::netns::{self, Namespace};
use crate::receive_path;
use crate::system::run;

/// A client that watches.
fn watcher(host: &str, words: &str) -> Result<Tcp> {
    let mut tcp = Tcp::connect(host)?;
    tcp.send(format!("watch {words}\r\n").as_bytes())?;
    let line = tcp.line()?;
    ensure!(line == "OK\r\n", "watch: {line:?}");
    Ok(tcp)
}

/// Reads up to the next line with `words`, which `rest` must follow.
fn expect(watcher: &mut Tcp, words: &str, rest: &str) -> Result<()> {
    loop {
        let line = watcher.line().with_context(|| format!("no {words:?}"))?;
        ensure!(line.starts_with("ts=") && line.ends_with('\n'), "{line:?}");
        if let Some((_, after)) = line.split_once(words) {
            ensure!(after.starts_with(rest), "{line:?} where {rest:?} goes on");
            return Ok(());
        }
    }
}

/// The events of each receive path are logged.
pub(super) fn each_receive_path_logs_its_events() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    run(&receive_path::prepare(&link.here))?;
    there.enter(|| run(&receive_path::prepare(&link.far)))?;
    let hippos = Hippos::load("")?;
    let mut watcher = watcher(
        "127.0.0.1",
        "fetchers mutations deletions connevents rawcmds",
    )?;
    let host = &link.here_ipv4;
    let key = "key_of_the_inline_path";
    let stored = format!(" key={key} status=stored cmd=set ttl=0 clsid=1 cfd=");
    let found = format!(" key={key} status=found clsid=1 cfd=");
    there.enter(|| Tcp::connect(host)?.set(key, b"value"))?;
    expect(
        &mut watcher,
        "type=conn_new",
        &format!(" rip={}", link.far_ipv4),
    )?;
    expect(
        &mut watcher,
        "type=item_get",
        &format!(" key={key} status=not_found"),
    )?;
    expect(&mut watcher, "type=item_store", &stored)?;
    expect(
        &mut watcher,
        "type=conn_close",
        &format!(" rip={}", link.far_ipv4),
    )?;
    // Several: the first hit of an item sets its mark, the next ones change nothing.
    let ask = |times: usize| {
        there.enter(|| {
            let mut udp = Udp::connect(host)?;
            for _ in 0..times {
                for name in [key, "none_of_this_name"] {
                    udp.ask(format!("get {name}\r\n").as_bytes())?;
                }
            }
            udp.ask(format!("get {key} other\r\n").as_bytes())?;
            Ok(())
        })
    };
    let lines = |watcher: &mut Tcp, times: usize| -> Result<()> {
        for _ in 0..times {
            expect(watcher, "type=item_get", &found)?;
            expect(
                watcher,
                "type=item_get",
                " key=none_of_this_name status=not_found",
            )?;
        }
        expect(watcher, "type=item_get", &found)?;
        expect(watcher, "type=item_get", " key=other status=not_found")
    };
    let counted = |name: &str| Tcp::connect("127.0.0.1")?.stat(name);
    let fast = "hippos_udp_fast_datagrams";
    let before = counted(fast)?;
    ask(3)?;
    lines(&mut watcher, 3)?;
    ensure!(counted(fast)? - before == 6, "not by PRE_ROUTING");
    let attach = |verb: &str| run(&format!("hippos-ctl xdp {verb} --dev {}", link.here));
    attach("attach --mode generic")?;
    let served = "hippos_xdp_served";
    let before = counted(served)?;
    ask(3)?;
    lines(&mut watcher, 3)?;
    ensure!(counted(served)? - before >= 3, "not by XDP");
    attach("detach")?;
    // By the TCP callback.
    there.enter(|| {
        let mut tcp = Tcp::connect(host)?;
        tcp.send(format!("get {key}\r\n").as_bytes())?;
        tcp.line().map(drop)
    })?;
    expect(&mut watcher, "type=item_get", &found)?;
    // A closed connection ends its watch.
    ensure!(counted("log_watchers")? == 1, "watchers");
    drop(watcher);
    for _ in 0..100 {
        if counted("log_watchers")? == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    ensure!(counted("log_watchers")? == 0, "a watcher is left");
    hippos.unload()
}

/// Clients are served beside watchers that do not read; those lose lines, and get their number. The
/// module is unloaded while they watch.
pub(super) fn slow_watchers_lose_lines_and_delay_no_client() -> Result<()> {
    let hippos = Hippos::load("")?;
    let mut slow = watcher("127.0.0.1", "fetchers")?;
    let mut others = Vec::new();
    for _ in 1..20 {
        others.push(watcher("127.0.0.1", "evictions")?);
    }
    let mut late = Tcp::connect("127.0.0.1")?;
    late.send(b"watch\r\n")?;
    let line = late.line()?;
    ensure!(
        line == "WATCHER_TOO_MANY log watcher limit reached\r\n",
        "{line:?}"
    );
    let name = "n".repeat(200);
    let request = format!("get {name}\r\n").repeat(100);
    // More bytes of lines than both ends' sockets, 4 and 6 MiB at most, and the log can hold.
    const ROUNDS: u64 = 600;
    for _ in 0..ROUNDS {
        late.send(request.as_bytes())?;
        for _ in 0..100 {
            let line = late.line()?;
            ensure!(line == "END\r\n", "{line:?}");
        }
    }
    let written = late.stat("log_worker_written")?;
    ensure!(written == ROUNDS * 100, "{written} events");
    // A slow watcher that reads again gets the number of lost lines.
    let mut seen = 0;
    while seen < written {
        let line = slow.line()?;
        if let Some(skipped) = line.strip_prefix("skipped=") {
            ensure!(skipped.trim_end().parse::<u64>()? > 0, "{line:?}");
            break;
        }
        seen += 1;
    }
    ensure!((1..written).contains(&seen), "{seen} lines before");
    ensure!(late.stat("log_watcher_skipped")? > 0, "not counted");
    let line = slow.line()?;
    ensure!(line.contains(" type=item_get key=nnn"), "{line:?}");
    drop(late);
    hippos.unload()
}
