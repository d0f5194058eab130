// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask nightly`: the checks that take too long for every change.

use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{ensure, Result};

use crate::appliance;
use crate::package::{install, tracing};
use crate::target::Selection;
use crate::workspace;

/// Run the checks that `.ci/run` has no time for: some hours on two processors.
///
/// The README's installation on a real machine, in a fresh Debian root; the packages, installed on a fresh Debian
/// machine, and built twice; perf and bpftrace with the trace points; the exporter's page in the browser that
/// HIPPOS_CHROMIUM names; the whole suite on the previous kernel series; the
/// generic flavour; the debug kernel's suite; random topologies, with a new seed each night; long runs of the soak and
/// the fuzzers. After a failed part the remaining ones still run.
#[derive(clap::Args)]
pub(crate) struct NightlyArgs {
    /// Only parts whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// The work of a part.
enum Work {
    /// The README's lines are followed.
    Readme,
    /// The packages are installed on a fresh machine.
    Packages,
    /// perf and bpftrace read the trace points.
    Tracing,
    /// A browser opens the exporter's page.
    Page,
    /// Commands of this program.
    Commands(&'static [&'static str]),
}

const PARTS: &[(&str, Work)] = &[
    ("readme", Work::Readme),
    ("packages-install", Work::Packages),
    ("tracing", Work::Tracing),
    ("page", Work::Page),
    ("packages-twice", Work::Commands(&["package --twice"])),
    (
        "previous-series",
        Work::Commands(&["test --guest --series previous"]),
    ),
    (
        "generic-flavour",
        Work::Commands(&[
            "test --guest --flavour generic --filter guest::packet:: --filter guest::protocol:: \
             --filter guest::module:: --filter guest::xdp::",
        ]),
    ),
    (
        "debug-kernel",
        Work::Commands(&[
            "test --debug-kernel",
            "fuzz packets --packets 100000 --debug-kernel",
            "soak --minutes 20 --debug-kernel",
        ]),
    ),
    (
        "topologies",
        Work::Commands(&["test --guest --filter topologies:: --size 500 --seed NIGHT"]),
    ),
    (
        "long-runs",
        Work::Commands(&["soak --minutes 60", "fuzz all --seconds 900"]),
    ),
];

/// Runs every part; gives our exit status.
pub(crate) fn nightly(args: &NightlyArgs, selection: &Selection) -> Result<u8> {
    let mut failed = 0;
    for (name, work) in PARTS {
        if args
            .only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        let start = Instant::now();
        let result = match work {
            Work::Readme => appliance::follow(selection),
            Work::Packages => install::trial(selection),
            Work::Tracing => tracing::trial(selection),
            Work::Page => page(),
            Work::Commands(lines) => lines.iter().try_for_each(|line| own(line)),
        };
        let minutes = start.elapsed().as_secs_f32() / 60.0;
        match result {
            Ok(()) => println!("nightly {name} ... ok ({minutes:.1} min)"),
            Err(error) => {
                failed += 1;
                println!("nightly {name} ... FAILED ({minutes:.1} min)\n{error:#}");
            }
        }
    }
    Ok(u8::from(failed > 0))
}

/// Runs the test that opens the exporter's page in a browser.
fn page() -> Result<()> {
    if std::env::var_os("HIPPOS_CHROMIUM").is_none() {
        println!("skipped: HIPPOS_CHROMIUM is not set");
        return Ok(());
    }
    let status = Command::new(workspace::cargo())
        .args(["test", "--quiet", "--locked", "--package", "hippos-ctl"])
        .args(["--test", "page", "--", "--nocapture"])
        .status()?;
    ensure!(status.success(), "the page's test: {status}");
    Ok(())
}

/// Runs this program with the line's words as arguments; `NIGHT` is a number that differs by a thousand from
/// each day to the next.
fn own(line: &str) -> Result<()> {
    let days = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / (24 * 60 * 60);
    let line = &line.replace("NIGHT", &(days * 1000).to_string());
    println!("cargo xtask {line}");
    let status = Command::new(std::env::current_exe()?)
        .args(line.split_whitespace())
        .status()?;
    ensure!(status.success(), "cargo xtask {line}: {status}");
    Ok(())
}
