// SPDX-License-Identifier: GPL-2.0-only
//! Statistics printed every few seconds.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hippos_abi::Section;

use crate::source::Source;
use crate::stats::Stats;

/// Prints a section every few seconds, with `rates` the increase per second; ends when its output is closed.
pub(crate) fn watch(
    source: &Source,
    section: Section,
    every: Duration,
    rates: bool,
    is_json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let mut before = source.stats(section)?;
    let mut at = Instant::now();
    if !rates {
        show(&before, is_json, out)?;
    }
    loop {
        thread::sleep(every);
        let now = source.stats(section)?;
        let seconds = at.elapsed().as_secs_f64();
        at = Instant::now();
        if rates {
            show(&now.rates(&before, seconds), is_json, out)?;
        } else {
            show(&now, is_json, out)?;
        }
        before = now;
    }
}

fn show(stats: &Stats, is_json: bool, out: &mut impl Write) -> Result<()> {
    if is_json {
        writeln!(out, "{}", stats.json())?;
    } else {
        writeln!(out, "{}", stats.table())?;
    }
    Ok(out.flush()?)
}
