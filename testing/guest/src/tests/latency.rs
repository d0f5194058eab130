// SPDX-License-Identifier: GPL-2.0-only
//! Measured times: each receive path's histogram has exactly the requests that it served while times were measured.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::modules::Hippos;
use crate::netns;
use crate::system::run;
use hippos_client::{framed, Tcp, Udp};

/// Requests by each receive path.
const MANY: u64 = 20;

/// The request at XDP and at the hook: its reply is shorter than the request.
const MISS: &[u8] = b"get none_of_this_name\r\n";

/// How many requests each histogram has, those without any left out.
fn counts() -> Result<BTreeMap<String, u64>> {
    let said = run("hippos-ctl latency --json")?;
    let said: serde_json::Value = serde_json::from_str(&said).context("latency --json")?;
    let mut counts = BTreeMap::new();
    for row in said["paths"].as_array().context("no paths")? {
        let word = |name: &str| row[name].as_str().context("no word");
        let number = |name: &str| row[name].as_u64().context("no number");
        let name = format!("{} {}", word("path")?, word("measure")?);
        let (count, longest) = (number("count")?, number("max_ns")?);
        let quantiles = [number("p50_ns")?, number("p99_ns")?, longest];
        ensure!(quantiles.is_sorted(), "{row}");
        // A service time is not 0, while a waiting time may be; neither is a minute.
        let least = u64::from(!name.ends_with("queue"));
        let is_sane = (least..60_000_000_000).contains(&longest);
        ensure!(count == 0 || is_sane, "{row}");
        if count != 0 {
            counts.insert(name, count);
        }
    }
    Ok(counts)
}

fn expect(wanted: &[(&str, u64)]) -> Result<()> {
    let found = counts()?;
    let wanted: BTreeMap<_, _> = wanted
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect();
    ensure!(found == wanted, "{found:?} where {wanted:?} was sent");
    Ok(())
}

fn switch(words: &str) -> Result<()> {
    run(&format!("hippos-ctl latency {words}")).map(drop)
}

/// Sends requests while nothing is measured, and while times are; only the latter must be in `wanted`'s histograms.
fn measured(ask: &mut dyn FnMut() -> Result<()>, wanted: &[(&str, u64)]) -> Result<()> {
    switch("--reset")?;
    ask()?;
    expect(&[]).context("while it was off")?;
    switch("on")?;
    // The kernel's time stamps begin a moment later.
    let begins = |found: &BTreeMap<_, _>| wanted.iter().all(|(name, _)| found.contains_key(*name));
    for _ in 0..100 {
        ask()?;
        if begins(&counts()?) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    switch("--reset")?;
    ask()?;
    switch("off")?;
    expect(wanted)?;
    ask()?;
    expect(wanted).context("when it was off again")?;
    switch("--reset")?;
    expect(&[]).context("after the reset")
}

/// Each receive path counts its own requests.
pub(super) fn each_receive_path_counts_its_own_requests() -> Result<()> {
    let (there, link) = netns::joined_for_xdp()?;
    let hippos = Hippos::load("")?;
    let host = &link.here_ipv4;
    let mut udp = there.enter(|| Udp::connect(host))?;
    let mut ask = |request: &[u8], right: &[u8]| -> Result<()> {
        for _ in 0..MANY {
            let reply = udp.ask(request)?;
            ensure!(reply == right, "{reply:?}");
        }
        Ok(())
    };
    let mut misses = || ask(MISS, b"END\r\n");
    misses()?;
    measured(
        &mut misses,
        &[("prerouting service", MANY), ("prerouting queue", MANY)],
    )
    .context("PRE_ROUTING")?;
    run(&format!(
        "hippos-ctl xdp attach --dev {} --mode generic",
        link.here
    ))?;
    misses()?;
    measured(&mut misses, &[("xdp service", MANY)]).context("XDP")?;
    run(&format!("hippos-ctl xdp detach --dev {}", link.here))?;
    // Only the socket's worker stores.
    measured(
        &mut || ask(b"set key 0 0 5\r\nvalue\r\n", b"STORED\r\n"),
        &[("udp service", MANY), ("udp queue", MANY)],
    )
    .context("UDP socket")?;

    let mut tcp = there.enter(|| Tcp::connect(host))?;
    measured(
        &mut || (0..MANY).try_for_each(|_| tcp.set("key", b"value")),
        &[("tcp_worker service", MANY), ("tcp_worker queue", MANY)],
    )
    .context("TCP worker")?;
    // The worker's last turn has ended, so that the callback finds the connection unowned.
    let mut gets = || -> Result<()> {
        thread::sleep(Duration::from_millis(300));
        // Also several in one segment.
        for times in [1, 1, 8, MANY as usize - 10] {
            tcp.send(b"get none\r\n".repeat(times).as_slice())?;
            for _ in 0..times {
                let line = tcp.line()?;
                ensure!(line == "END\r\n", "{line:?}");
            }
        }
        Ok(())
    };
    measured(&mut gets, &[("tcp_callback service", MANY)]).context("TCP callback")?;
    hippos.unload_all()
}

/// `latency=1` measures from the load on; the settings show it; `stats reset` clears the histograms.
pub(super) fn parameter_measures_from_the_load_on() -> Result<()> {
    let hippos = Hippos::load("latency=1")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("key", b"value")?;
    expect(&[("tcp_worker service", 1), ("tcp_worker queue", 1)])?;
    let settings = run("hippos-ctl stats settings")?;
    ensure!(
        settings
            .lines()
            .any(|line| line.split_whitespace().eq(["hippos_latency", "yes"])),
        "{settings}"
    );
    let rows = run("hippos-ctl stats latency")?;
    ensure!(rows.lines().count() == 1 + 8 * 33, "{rows}");
    switch("off")?;
    let settings = run("hippos-ctl config show")?;
    ensure!(settings.contains("latency = false"), "{settings}");
    run("hippos-ctl stats reset")?;
    expect(&[])?;
    hippos.unload()
}

/// The measurement is switched, read and reset while requests come by all receive paths, and is on at the unload.
pub(super) fn switches_and_resets_under_load() -> Result<()> {
    let (there, link) = netns::joined_for_xdp()?;
    let hippos = Hippos::load("")?;
    let host = &link.here_ipv4;
    Tcp::connect(host)?.set("key", b"value")?;
    run(&format!(
        "hippos-ctl xdp attach --dev {} --mode generic",
        link.here
    ))?;
    let udp = there.enter(|| Udp::connect(host))?;
    let mut tcp = there.enter(|| Tcp::connect(host))?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        // Their replies don't matter: there are none once the module is unloaded.
        scope.spawn(|| {
            let set = framed(7, b"set key 0 0 5\r\nvalue\r\n");
            let miss = framed(8, MISS);
            let hit = framed(9, b"get key\r\n");
            while !over.load(Relaxed) {
                for request in [&set, &miss, &hit] {
                    let _ = udp.socket.send(request);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        scope.spawn(|| {
            while !over.load(Relaxed) {
                if tcp.set("key", b"value").is_err() {
                    break;
                }
            }
        });
        let switched = || -> Result<()> {
            for _ in 0..10 {
                for words in ["on", "", "--reset", "off"] {
                    switch(words)?;
                }
            }
            switch("on")?;
            thread::sleep(Duration::from_millis(200));
            ensure!(counts()?.len() >= 4, "{:?}", counts()?);
            hippos.unload_all()
        };
        let result = switched();
        over.store(true, Relaxed);
        result
    })?;
    let hippos = Hippos::load("")?;
    expect(&[])?;
    hippos.unload()
}
