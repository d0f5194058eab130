// SPDX-License-Identifier: GPL-2.0-only
//! Dumps that were interrupted or damaged, and lists of keys, as an administrator handles them.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use hippos_client::Tcp;

use crate::modules::Hippos;
use crate::system::run;

const FILE: &str = "/tmp/cache.dump";
const PARTIAL: &str = "/tmp/cache.dump.partial";
/// Several blocks of a dump.
const ITEMS: usize = 4000;

/// `hippos-ctl`'s exit status and all that it says.
fn ctl(line: &str) -> Result<(i32, String)> {
    let output = Command::new("hippos-ctl").args(line.split(' ')).output()?;
    let said = [output.stdout, output.stderr].concat();
    let status = output.status.code().context("ended by a signal")?;
    Ok((status, String::from_utf8_lossy(&said).into_owned()))
}

/// Stores the same value with all keys.
fn fill(tcp: &mut Tcp, value: &str) -> Result<()> {
    let len = value.len();
    for number in 0..ITEMS {
        tcp.send(format!("ms key{number} {len} q\r\n{value}\r\n").as_bytes())?;
    }
    let said = tcp.ask("mn\r\n")?;
    ensure!(said == "MN\r\n", "{said}");
    Ok(())
}

fn flush() -> Result<()> {
    // An item that was set within the second survives.
    thread::sleep(Duration::from_millis(1200));
    run("hippos-ctl flush").map(drop)
}

/// The sizes of those that are there, as `mg` says them.
fn found(tcp: &mut Tcp) -> Result<Vec<String>> {
    let requests: String = (0..ITEMS).map(|n| format!("mg key{n} s\r\n")).collect();
    tcp.send(requests.as_bytes())?;
    let mut found = Vec::new();
    for _ in 0..ITEMS {
        let reply = tcp.line()?;
        if reply != "EN\r\n" {
            found.push(reply.trim_end().to_owned());
        }
    }
    Ok(found)
}

/// A dump that a power failure interrupted goes on where it ended, with the values of now for the rest.
pub(super) fn interrupted_dump_goes_on() -> Result<()> {
    let hippos = Hippos::load("memory_mb=64")?;
    let mut tcp = Tcp::patient("127.0.0.1")?;
    fill(&mut tcp, &"v".repeat(1000))?;
    run(&format!("hippos-ctl dump {FILE} --connections 1"))?;
    let bytes = fs::read(FILE)?;
    fs::rename(FILE, PARTIAL)?;
    fs::write(PARTIAL, &bytes[..bytes.len() * 3 / 4])?;
    fill(&mut tcp, "again")?;
    let said = run(&format!("hippos-ctl dump {FILE} --resume"))?;
    ensure!(said.starts_with(&format!("{ITEMS} items in ")), "{said}");
    ensure!(!fs::exists(PARTIAL)?, "{PARTIAL} is left");
    flush()?;
    let said = run(&format!("hippos-ctl load {FILE}"))?;
    ensure!(said.contains(&format!("{ITEMS} items stored")), "{said}");
    let sizes = found(&mut tcp)?;
    let count = |size: &str| sizes.iter().filter(|shown| *shown == size).count();
    let (old, new) = (count("HD s1000"), count("HD s5"));
    ensure!(
        old >= 1000 && new >= 500 && old + new == ITEMS,
        "{old} of before, {new} of later"
    );
    // Without anything to go on with, the command says so.
    let (status, said) = ctl("dump /tmp/none.dump --resume")?;
    ensure!(
        status == 1 && said.contains("none.dump.partial"),
        "{status}: {said}"
    );
    fs::remove_file(FILE)?;
    drop(tcp);
    hippos.unload()
}

/// A file that was cut off is refused, unless its whole blocks are asked for.
pub(super) fn whole_blocks_of_a_cut_dump_are_loaded() -> Result<()> {
    let hippos = Hippos::load("memory_mb=64")?;
    let mut tcp = Tcp::patient("127.0.0.1")?;
    fill(&mut tcp, &"v".repeat(1000))?;
    run(&format!("hippos-ctl dump {FILE} --connections 1"))?;
    let bytes = fs::read(FILE)?;
    fs::write(FILE, &bytes[..bytes.len() * 3 / 4])?;
    flush()?;
    let (status, said) = ctl(&format!("load {FILE}"))?;
    ensure!(
        status == 1 && said.contains("nothing is loaded (--salvage loads the blocks before)"),
        "{status}: {said}"
    );
    ensure!(found(&mut tcp)?.is_empty(), "something is loaded");
    let (status, said) = ctl(&format!("load {FILE} --salvage"))?;
    ensure!(
        status == 1 && said.contains("only the blocks before are loaded"),
        "{status}: {said}"
    );
    let saved = found(&mut tcp)?;
    ensure!(
        (1000..ITEMS).contains(&saved.len()),
        "{} saved",
        saved.len()
    );
    ensure!(saved.iter().all(|shown| shown == "HD s1000"), "{saved:?}");
    fs::remove_file(FILE)?;
    drop(tcp);
    hippos.unload()
}

/// `keys --most` prints so many, and says how many there are.
pub(super) fn most_keys_are_listed() -> Result<()> {
    let hippos = Hippos::load("memory_mb=32")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for number in 0..5 {
        tcp.set(&format!("user:{number}"), b"value")?;
    }
    tcp.set("other", b"value")?;
    let (status, said) = ctl("keys user: --most 3")?;
    let listed = said
        .lines()
        .filter(|line| line.starts_with("user:"))
        .count();
    ensure!(
        status == 0 && listed == 3 && said.contains("3 of 5 keys are listed (--most)"),
        "{status}: {said}"
    );
    let (status, said) = ctl("keys user: --most 5")?;
    ensure!(status == 0 && said.lines().count() == 5, "{status}: {said}");
    ensure!(!said.contains("--most"), "{said}");
    let (status, said) = ctl("--json keys --most 2")?;
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with('{')).collect();
    ensure!(status == 0 && lines.len() == 2, "{status}: {said}");
    for line in lines {
        let item: serde_json::Value = serde_json::from_str(line)?;
        ensure!(item["key"].is_string() && item["bytes"].is_u64(), "{item}");
    }
    drop(tcp);
    hippos.unload()
}
