// SPDX-License-Identifier: GPL-2.0-only
//! Drives `hippos-load`: the workloads and their measurements.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::server::Server;
use crate::vm::INTERRUPTED;
use crate::{shell, workspace};

/// One kind of load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// As reports name it.
    pub(crate) name: &'static str,
    /// As `hippos-load` does.
    spec: &'static str,
    more: &'static [&'static str],
    /// Requests that wait on each socket or connection in a closed loop.
    window: &'static str,
    /// Its GETs travel over UDP and it has nothing else: a mirror can answer.
    pub(crate) mirrored: bool,
    /// It is measured by the wall clock as well.
    pub(crate) clocked: bool,
    /// So many times fewer requests are enough, since each has many keys.
    pub(crate) weight: u64,
}

/// Unmeasured beginning of each open loop.
pub(crate) const WARMUP: Duration = Duration::from_millis(300);

const TCP: &[&str] = &["--get", "tcp"];
/// As many connections as there are UDP sockets.
const MANY: &[&str] = &["--get", "tcp", "--connections", "16"];

/// Everything that is measured.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload::new("get-hit", "micro:get-hit", &[], true),
    Workload::new("get-miss", "micro:get-miss", &[], true),
    Workload::new("mget16", "micro:mget-16", &[], true).weight(8),
    Workload::new("set", "micro:set", &[], false),
    Workload::new("tcp-get", "micro:get-hit", TCP, false),
    Workload::new("set-single", "micro:set", MANY, false).counted("1"),
    Workload::new("tcp-get-single", "micro:get-hit", MANY, false).counted("1"),
    Workload::new("set-pipe16", "micro:set", TCP, false).counted("16"),
    Workload::new("tcp-get-pipe16", "micro:get-hit", TCP, false).counted("16"),
    Workload::new("usr", "usr", &[], false),
    Workload::new("app", "app", &[], false),
    Workload::new("etc", "etc", &[], false),
    Workload::new("var", "var", &[], false),
    Workload::new("sys", "sys", &[], false),
];

impl Workload {
    const fn new(
        name: &'static str,
        spec: &'static str,
        more: &'static [&'static str],
        mirrored: bool,
    ) -> Self {
        Workload {
            name,
            spec,
            more,
            window: "4",
            mirrored,
            clocked: true,
            weight: 1,
        }
    }

    /// A closed loop of this window, whose instructions alone are of interest.
    const fn counted(self, window: &'static str) -> Self {
        Workload {
            window,
            clocked: false,
            ..self
        }
    }

    const fn weight(self, weight: u64) -> Self {
        Workload { weight, ..self }
    }
}

/// The load generator against one server.
pub(crate) struct Load<'a> {
    pub(crate) program: &'a Path,
    pub(crate) server: Server,
    pub(crate) address: String,
    pub(crate) keys: u64,
    /// For reports.
    pub(crate) dir: &'a Path,
}

/// One measured stretch.
pub(crate) struct Measurement {
    pub(crate) answered: u64,
    pub(crate) sent_per_second: f64,
    pub(crate) per_second: f64,
    pub(crate) mean_us: f64,
}

impl Load<'_> {
    /// Stores the workload's keys and makes the first requests, which are not measured: the first hit of an item costs
    /// more than all later ones.
    pub(crate) fn prepare(&self, workload: &Workload) -> Result<Measurement> {
        if !self.server.mirrors() {
            self.call("fill", workload, &[])?;
        }
        self.closed(workload, 4 * self.keys / workload.weight)
    }

    /// `requests` in a closed loop that keeps the server busy.
    pub(crate) fn closed(&self, workload: &Workload, requests: u64) -> Result<Measurement> {
        let requests = requests.to_string();
        let arguments = [
            "--no-fill",
            "--closed",
            "--window",
            workload.window,
            "--requests",
            &requests,
            "--warmup",
            "0s",
            "--timeout",
            "5s",
        ];
        let report = self.call("run", workload, &arguments)?;
        measurement(&report["runs"][0])
    }

    /// An open loop at `rate` a second.
    pub(crate) fn open(
        &self,
        workload: &Workload,
        rate: f64,
        duration: Duration,
    ) -> Result<Measurement> {
        let rate = format!("{rate:.0}");
        let (duration, warmup) = (milliseconds(duration), milliseconds(WARMUP));
        let arguments = [
            "--no-fill",
            "--rate",
            &rate,
            "--duration",
            &duration,
            "--warmup",
            &warmup,
        ];
        let report = self.call("run", workload, &arguments)?;
        measurement(&report["runs"][0])
    }

    /// The highest rate whose mean latency stays under 1 ms, sought around `guess`; none where
    /// no rate does, as on a machine that is busy with other work.
    pub(crate) fn peak(
        &self,
        workload: &Workload,
        guess: f64,
        step: Duration,
    ) -> Result<Option<f64>> {
        let guess = format!("{guess:.0}");
        let (step, warmup) = (milliseconds(step), milliseconds(WARMUP));
        let arguments = [
            "--no-fill",
            "--start",
            &guess,
            "--stride",
            "1.3",
            "--step",
            &step,
            "--warmup",
            &warmup,
            "--precision",
            "0.05",
        ];
        let report = self.call("peak", workload, &arguments)?;
        let peak = number(&report["peak"]["answered_per_second"])?;
        Ok((peak > 0.0).then_some(peak))
    }

    fn call(&self, verb: &str, workload: &Workload, arguments: &[&str]) -> Result<Value> {
        let json = self
            .dir
            .join(format!("{}-{}.json", self.server.name(), workload.name));
        let mut command = Command::new(self.program);
        command
            .args([verb, workload.spec, "--server", &self.address])
            .args(["--keys", &self.keys.to_string(), "--quiet"])
            .arg("--json")
            .arg(&json);
        if verb != "fill" {
            command.args(workload.more);
            if self.server.mirrors() {
                command.arg("--mirror");
            }
        }
        command.args(arguments);
        shell::output(&mut command)?;
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        let text = std::fs::read(&json)?;
        serde_json::from_slice(&text).with_context(|| format!("{}", json.display()))
    }
}

/// As `hippos-load` takes a time.
fn milliseconds(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

fn measurement(run: &Value) -> Result<Measurement> {
    let counters = &run["counters"];
    let answered = number(&counters["answered"])? as u64;
    ensure!(answered > 0, "nothing was answered: {counters}");
    Ok(Measurement {
        answered,
        sent_per_second: number(&counters["sent"])? / number(&run["seconds"])?,
        per_second: number(&run["answered_per_second"])?,
        mean_us: number(&run["latency"]["mean_us"])?,
    })
}

fn number(value: &Value) -> Result<f64> {
    value
        .as_f64()
        .context("hippos-load's report lacks a number")
}

/// Replays a trace, with keys distinct from those of other traces; a miss is stored. Fails on a wrong reply, an error,
/// a lost datagram, or hits other than those of an infinite cache.
pub(super) fn replay(program: &Path, trace: &Path, server: &str) -> Result<()> {
    let name = trace.file_name().unwrap_or_default().to_string_lossy();
    let json = tempfile::NamedTempFile::new()?;
    let mut replay = Command::new(program);
    replay
        .arg("replay")
        .arg(trace)
        .args(["--server", server, "--speed", "max", "--window", "1"])
        .args(["--prefix", &format!("{name}:")])
        .args(["--fill-on-miss", "--timeout", "5s", "--quiet", "--json"])
        .arg(json.path());
    shell::output(&mut replay)?;
    let report: Value = serde_json::from_slice(&std::fs::read(json.path())?)?;
    let run = &report["runs"][0];
    let counters = &run["counters"];
    let count = |name: &str| number(&counters[name]);
    ensure!(
        count("errors")? == 0.0 && count("timeouts")? == 0.0 && count("answered")? > 0.0,
        "errors, timeouts or no answers: {counters}"
    );
    let mut stat = Command::new(program);
    stat.arg("stat").arg(trace).arg("--json").arg(json.path());
    shell::output(&mut stat)?;
    let truth: Value = serde_json::from_slice(&std::fs::read(json.path())?)?;
    ensure!(
        run["hit_ratio"] == truth["hits_filling"],
        "{} hits, not {}: {counters}",
        run["hit_ratio"],
        truth["hits_filling"]
    );
    Ok(())
}

/// How the load generator is built: for measurements, or as tests have it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    Release,
    Debug,
}

/// Builds the load generator.
pub(super) fn build(how: Build) -> Result<PathBuf> {
    let mut build = Command::new(workspace::cargo());
    build
        .args(["build", "--quiet", "--locked", "--package", "hippos-load"])
        .current_dir(workspace::root());
    if how == Build::Release {
        build.arg("--release");
    }
    shell::run(&mut build).context("hippos-load does not build")?;
    Ok(workspace::root().join(match how {
        Build::Release => "target/release/hippos-load",
        Build::Debug => "target/debug/hippos-load",
    }))
}
