// SPDX-License-Identifier: GPL-2.0-only
//! Output of `hippos-ctl` that is printed again and again: statistics, times, and `top` on a terminal.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use hippos_client::Tcp;
use nix::sys::signal::Signal;

use crate::modules::Hippos;
use crate::system::run;
use crate::terminal::Terminal;

/// So many blocks are read, or looks taken, for something that comes by itself.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(100);

/// A command that prints until its output is closed.
struct Printing {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl Printing {
    fn start(command: &str) -> Result<Self> {
        let mut child = Command::new("hippos-ctl")
            .args(command.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self {
            child,
            output: Some(output),
        })
    }

    /// The lines up to the next empty one.
    fn block(&mut self) -> Result<Vec<String>> {
        let output = self.output.as_mut().context("it is closed")?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(output.read_line(&mut line)? > 0, "no more: {lines:?}");
            match line.trim_end() {
                "" => return Ok(lines),
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// The first block that is so.
    fn block_with(&mut self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        let mut last = Vec::new();
        for _ in 0..TRIES {
            last = self.block()?;
            if is_so(&last) {
                return Ok(last);
            }
        }
        bail!("no block has {what}: {}", last.join("\n"))
    }

    /// Closes its output, which ends it.
    fn ends(mut self) -> Result<()> {
        self.output = None;
        for _ in 0..TRIES {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        bail!("the process still prints, though its reader is closed")
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}

/// The value in the row of that name.
fn row<'l>(lines: &'l [String], name: &str) -> Option<&'l str> {
    lines.iter().find_map(|line| {
        let (found, value) = line.split_once(' ')?;
        (found == name).then(|| value.trim())
    })
}

/// Does the work while a client asks for a missing key again and again.
fn while_asking<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                if tcp.ask("get none\r\n").is_err() {
                    break;
                }
            }
        });
        let done = work();
        over.store(true, Relaxed);
        done
    })
}

/// `stats --watch` shows each change, and `--rates` what grows, by how much a second, and nothing else.
pub(super) fn statistics_and_rates_are_printed_again_and_again() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("first", b"value")?;
    let mut tables = Printing::start("stats --watch 1")?;
    let first = tables.block()?;
    ensure!(row(&first, "curr_items") == Some("1"), "{first:?}");
    tcp.set("second", b"value")?;
    let has_two = |lines: &[String]| row(lines, "curr_items") == Some("2");
    let later = tables.block_with("2 items", has_two)?;
    ensure!(later.len() == first.len(), "{first:?} became {later:?}");
    tables.ends()?;

    let mut rates = Printing::start("stats --rates")?;
    let rate = |lines: &[String]| -> Option<f64> {
        let rate = row(lines, "get_misses")?.strip_prefix('+')?;
        rate.strip_suffix("/s")?.parse().ok()
    };
    let lines = while_asking(|| rates.block_with("misses", |lines| rate(lines) > Some(0.0)))?;
    for unchanged in ["curr_items", "limit_maxbytes", "uptime", "get_hits"] {
        ensure!(row(&lines, unchanged).is_none(), "{unchanged}: {lines:?}");
    }
    // The client is gone.
    rates.block_with("no misses", |lines| row(lines, "get_misses").is_none())?;
    rates.ends()?;
    drop(tcp);
    hippos.unload()
}

/// A time as it is shown, in nanoseconds.
fn nanoseconds(number: &str, unit: &str) -> Result<f64> {
    let number: f64 = number.parse().with_context(|| number.to_owned())?;
    Ok(match unit {
        "ns" => number,
        "us" => number * 1e3,
        "ms" => number * 1e6,
        _ => bail!("a time in {unit}"),
    })
}

/// `latency --watch` shows the requests of each interval by themselves, with quantiles in their order.
pub(super) fn latency_of_each_interval_is_printed() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32 latency=1")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for _ in 0..1000 {
        tcp.ask("get none\r\n")?;
    }
    let mut tables = Printing::start("latency --watch 1")?;
    let none = |lines: &[String]| lines == ["no request was measured yet"];
    // Those before it are not in it.
    tables.block_with("no request", none)?;
    let is_of_tcp = |line: &&String| line.starts_with("tcp_") && line.contains(" service ");
    let has_requests = |lines: &[String]| lines.iter().any(|line| is_of_tcp(&line));
    let lines = while_asking(|| tables.block_with("requests over TCP", has_requests))?;
    ensure!(
        lines[0]
            .split_whitespace()
            .eq(["path", "measure", "count", "p50", "p90", "p99", "p99.9", "max"]),
        "{lines:?}"
    );
    for line in lines.iter().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, _, count, times @ ..] = &words[..] else {
            bail!("{line:?}");
        };
        ensure!(count.parse::<u64>()? > 0 && times.len() == 10, "{line:?}");
        let times: Vec<_> = times
            .chunks(2)
            .map(|time| nanoseconds(time[0], time[1]))
            .collect::<Result<_>>()?;
        // They are rounded to a tenth of their unit.
        ensure!(
            times.windows(2).all(|pair| pair[0] <= pair[1] * 1.05),
            "{line:?}"
        );
    }
    tables.block_with("no request", none)?;
    tables.ends()?;
    run("hippos-ctl latency off")?;
    drop(tcp);
    hippos.unload()
}

const SIZE: (u16, u16) = (100, 40);

/// `top` on a terminal shows what is served while it is served, takes keys, and leaves the terminal as it was.
pub(super) fn top_shows_what_is_served_and_takes_keys() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("key", b"value")?;
    let port = tcp.reader().get_ref().local_addr()?.port();
    let mut top = Terminal::start("hippos-ctl top --interval 0.5", SIZE)?;
    let has = |lines: &[String], text: &str| lines.iter().any(|line| line.contains(text));
    top.shows("the first line", |lines| {
        lines[0].contains(": hippos ") && lines[0].contains(" on port 11211, up ")
    })?;
    let peer = format!("127.0.0.1:{port}");
    top.shows("the connection", |lines| has(lines, &peer))?;
    top.shows("the item", |lines| has(lines, " in 1 items"))?;
    while_asking(|| {
        top.shows("rates", |lines| {
            let is_served = |line: &String| {
                let mut words = line.split_whitespace();
                let rate = words.by_ref().find(|word| *word == "TCP").and(words.next());
                rate.is_some_and(|rate| {
                    rate != "0" && rate.starts_with(|c: char| c.is_ascii_digit())
                })
            };
            has(lines, "hits 0.0 %") && !has(lines, "gets 0/s") && lines.iter().any(is_served)
        })
    })?;
    // The cursor is hidden once the first frame is drawn.
    ensure!(top.is_taken()?, "the terminal is as it was before");
    // Nothing is served any more, and the rates go.
    top.shows("no rates", |lines| has(lines, "gets 0/s"))?;

    let footer = |lines: &[String]| -> String {
        let found = lines.iter().find(|line| line.contains("q quit"));
        found.cloned().unwrap_or_default()
    };
    let before = top.shows("the keys", |lines| {
        footer(lines).contains("interval: 0.5 s")
    })?;
    let before = footer(&before);
    top.press("s")?;
    top.shows("another order", |lines| {
        footer(lines).contains("sort: ") && footer(lines) != before
    })?;
    top.press("+")?;
    top.shows("a longer interval", |lines| {
        footer(lines).contains("interval: 1 s")
    })?;
    top.press("p")?;
    top.shows("the pause", |lines| footer(lines).contains("PAUSED"))?;
    top.press("p")?;
    top.shows("no pause", |lines| !footer(lines).contains("PAUSED"))?;
    top.press("q")?;
    let status = top.ends()?;
    ensure!(status.success(), "{status}");
    drop(tcp);
    hippos.unload()
}

/// A signal ends `top` as its key does. The module may be unloaded meanwhile: `top` says so, and goes on.
pub(super) fn top_outlives_the_module_and_ends_by_signal() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32")?;
    let mut top = Terminal::start("hippos-ctl top --interval 0.5", SIZE)?;
    let is_shown = |lines: &[String]| lines[0].contains(" on port 11211");
    top.shows("the first line", is_shown)?;
    hippos.unload()?;
    let loaded = "is the module loaded?";
    let has_error = |lines: &[String]| lines.iter().any(|line| line.contains(loaded));
    top.shows("that the module is gone", has_error)?;
    let hippos = Hippos::load("memory_mb=32")?;
    top.shows("that it is back", |lines| {
        !has_error(lines) && is_shown(lines)
    })?;
    top.signal(Signal::SIGTERM)?;
    let status = top.ends()?;
    ensure!(status.success(), "{status}");
    hippos.unload()
}
