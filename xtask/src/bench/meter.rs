// SPDX-License-Identifier: GPL-2.0-only
//! The counts of the guest's instructions, in sum or by kernel symbol, from the QEMU
//! plugin (`bench/plugin`).

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::{shell, workspace};

/// How often a guest is looked at until it rests, and for how long.
const SETTLE_STEP: Duration = Duration::from_millis(200);
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Instructions of an idle guest in such a step, at most.
const IDLE: u64 = 1_000_000;

/// Builds the plugin.
pub(crate) fn library() -> Result<PathBuf> {
    let mut build = Command::new(workspace::cargo());
    build
        .args(["build", "--quiet", "--locked", "--release", "--package"])
        .arg("hippos_plugin")
        .current_dir(workspace::root());
    shell::run(&mut build).context("the plugin does not build")?;
    let library = workspace::root().join("target/release/libhippos_plugin.so");
    ensure!(library.exists(), "the build left no {}", library.display());
    Ok(library)
}

/// A line to the plugin of one guest.
pub(crate) struct Meter {
    socket: BufReader<UnixStream>,
}

impl Meter {
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path)
            .with_context(|| format!("no plugin at {}", path.display()))?;
        Ok(Meter {
            socket: BufReader::new(socket),
        })
    }

    /// Instructions executed since the guest's start.
    pub(crate) fn count(&mut self) -> Result<u64> {
        self.ask("count")?;
        let line = self.line()?;
        line.parse()
            .with_context(|| format!("the plugin says {line:?}"))
    }

    /// Waits until the guest has finished its startup work and is idle.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let mut quiet = 0;
        let mut before = self.count()?;
        while quiet < 5 {
            ensure!(
                Instant::now() < deadline,
                "the guest does not come to rest: {before} instructions so far"
            );
            thread::sleep(SETTLE_STEP);
            let now = self.count()?;
            quiet = if now - before < IDLE { quiet + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }

    /// Executed instructions by block of code since the guest's start.
    pub(crate) fn blocks(&mut self) -> Result<Blocks> {
        self.ask("blocks")?;
        let mut blocks = Blocks::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(blocks);
            }
            let words: Vec<&str> = line.split(' ').collect();
            let [address, length, count] = words[..] else {
                anyhow::bail!("the plugin says {line:?}");
            };
            let address = u64::from_str_radix(address, 16)?;
            let instructions = length.parse::<u64>()? * count.parse::<u64>()?;
            *blocks.entry(address).or_default() += instructions;
        }
    }

    fn ask(&mut self, question: &str) -> Result<()> {
        writeln!(self.socket.get_mut(), "{question}")?;
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.socket.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the plugin hung up");
        line.pop();
        Ok(line)
    }
}

/// Instructions by the address of the block that they are in.
pub(crate) type Blocks = HashMap<u64, u64>;

/// The guest's symbols by address, from its /proc/kallsyms.
pub(crate) struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// Reads `kallsyms` lines: address, type, name and perhaps `[module]`.
    pub(crate) fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut symbols = BTreeMap::new();
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(address), Some(kind), Some(name)) =
                (words.first(), words.get(1), words.get(2))
            else {
                continue;
            };
            if !matches!(*kind, "t" | "T" | "w" | "W") {
                continue;
            }
            if let Ok(address) = u64::from_str_radix(address, 16) {
                let module = words.get(3).map(|m| format!(" {m}")).unwrap_or_default();
                symbols
                    .entry(address)
                    .or_insert_with(|| format!("{:#}{module}", rustc_demangle::demangle(name)));
            }
        }
        Symbols(symbols)
    }

    fn name(&self, address: u64) -> &str {
        // The upper half is the kernel's.
        if address < 1 << 63 {
            return "(user space)";
        }
        self.0
            .range(..=address)
            .next_back()
            .map_or("(unknown)", |(_, name)| name)
    }

    /// Instructions by symbol between two looks, the greatest first.
    pub(crate) fn profile(&self, before: &Blocks, after: &Blocks) -> Vec<(String, u64)> {
        let mut by_name: HashMap<&str, u64> = HashMap::new();
        for (&address, &count) in after {
            let spent = count - before.get(&address).copied().unwrap_or(0);
            if spent > 0 {
                *by_name.entry(self.name(address)).or_default() += spent;
            }
        }
        let mut rows: Vec<_> = by_name
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect();
        rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        rows
    }

    /// Instructions by block between two looks, in the order of addresses: the block's symbol,
    /// its distance from the symbol's start, and the count.
    pub(crate) fn places(&self, before: &Blocks, after: &Blocks) -> Vec<(&str, u64, u64)> {
        let spent: BTreeMap<u64, u64> = after
            .iter()
            .map(|(&at, &count)| (at, count - before.get(&at).copied().unwrap_or(0)))
            .filter(|(at, count)| *at >= 1 << 63 && *count > 0)
            .collect();
        let place = |(at, count)| {
            let (start, name) = self.0.range(..=at).next_back()?;
            Some((name.as_str(), at - start, count))
        };
        spent.into_iter().filter_map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_the_difference_by_symbol() {
        let symbols = Symbols::parse(
            "ffffffff81000000 T start\nffffffff81000100 t skb_put\nffffffff81000080 d data\n\
             ffffffffc0000000 t answer [hippos]\n"
                .lines(),
        );
        let before = Blocks::from([(0xffff_ffff_8100_0110, 10)]);
        let after = Blocks::from([
            (0xffff_ffff_8100_0110, 30),
            (0xffff_ffff_8100_00f0, 5),
            (0xffff_ffff_c000_0010, 7),
            (0x40_0000, 1),
        ]);
        let rows = symbols.profile(&before, &after);
        let rows: Vec<_> = rows.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(
            symbols.places(&before, &after),
            [
                ("start", 0xf0, 5),
                ("skb_put", 0x10, 20),
                ("answer [hippos]", 0x10, 7)
            ]
        );
        assert_eq!(
            rows,
            [
                ("skb_put", 20),
                ("answer [hippos]", 7),
                ("start", 5),
                ("(user space)", 1)
            ]
        );
    }
}
