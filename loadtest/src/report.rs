//! Reports: what a run was, what came of it, as JSON and as a table.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{presets, CellAlignment, Table};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::arrival::Arrival;
use crate::settings::Settings;
use crate::stats::Counters;

/// Version of the report's format.
pub const FORMAT: u32 = 1;

/// A whole report: one of these a command, in one JSON file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// `hippos-load` and its version.
    pub tool: String,
    /// `run`, `peak`, `sweep`, `replay` or `fill`.
    pub command: String,
    /// The workload's name or the trace's file name.
    pub workload: String,
    /// What the servers say they are, in their order.
    pub servers: Vec<String>,
    /// Start in seconds since 1970.
    pub started: u64,
    /// Processors of the machine that made the load.
    pub processors: usize,
    /// How the servers were talked to.
    pub settings: Settings,
    /// How the command ended: `complete`, or why not.
    pub outcome: String,
    /// The filling before the run, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<Run>,
    /// The runs: one, or each step of a search or sweep in their order.
    pub runs: Vec<Run>,
    /// What a search found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<Peak>,
}

/// The result of a search for peak throughput.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// The bound on the mean latency in microseconds.
    pub bound_us: f64,
    /// The bound on the share of requests that are lost or fail.
    pub bound_loss: f64,
    /// The highest rate offered within the bounds, requests a second.
    pub offered_per_second: f64,
    /// What was answered a second at that rate; 0 if no rate was within the bounds.
    pub answered_per_second: f64,
    /// Mean latency there, in microseconds.
    pub mean_us: f64,
}

/// How requests leave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// On schedule, whatever the server does.
    Open {
        /// Requests a second.
        rate: f64,
        /// How they are spread.
        arrival: Arrival,
    },
    /// As replies make room.
    Closed {
        /// Requests that may wait on each socket or connection.
        window: usize,
    },
    /// At a trace's recorded times.
    Recorded {
        /// Times faster than recorded.
        speed: f64,
    },
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// How requests left.
    pub pace: Pace,
    /// Seconds over which rates are taken, warm-up excluded.
    pub seconds: f64,
    /// Requests due a second, sent or not.
    pub offered_per_second: f64,
    /// Requests answered a second while sending went on.
    pub answered_per_second: f64,
    /// Counts.
    pub counters: Counters,
    /// Hits over keys asked for, if any were.
    pub hit_ratio: Option<f64>,
    /// Latency of all kinds together.
    pub latency: Latency,
    /// Latency of each kind that occurred.
    pub kinds: BTreeMap<String, Latency>,
    /// From the scheduled time to the sending: what of the latency is the generator's own.
    pub lag: Latency,
    /// Error replies and how often each came.
    pub errors: BTreeMap<String, u64>,
    /// Throughput over time.
    pub timeline: Vec<Moment>,
    /// Processor seconds that the generator used.
    pub cpu_seconds: f64,
}

impl Run {
    /// Share of the requests that were not answered rightly and in time.
    pub fn loss(&self) -> f64 {
        let c = &self.counters;
        let due = (c.sent + c.unsent).max(1);
        (c.timeouts + c.errors + c.unsent) as f64 / due as f64
    }
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub count: u64,
    pub mean_us: f64,
    pub min_us: f64,
    pub p50_us: f64,
    pub p75_us: f64,
    pub p90_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub p99_99_us: f64,
    pub max_us: f64,
}

impl Latency {
    /// The percentiles of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |q: f64| us(histogram.value_at_quantile(q));
        Self {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            min_us: us(histogram.min()),
            p50_us: at(0.5),
            p75_us: at(0.75),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: us(histogram.max()),
        }
    }
}

/// One interval of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its start, in seconds since the run's.
    pub at: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Of these, with an error.
    pub errors: u64,
    /// Requests given up.
    pub timeouts: u64,
    /// Mean latency of the answered in microseconds.
    pub mean_us: f64,
    /// Their 99th percentile in microseconds.
    pub p99_us: f64,
}

impl Report {
    /// A report without runs.
    pub fn new(command: &str, workload: &str, settings: &Settings) -> Self {
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            format: FORMAT,
            tool: concat!("hippos-load ", env!("CARGO_PKG_VERSION")).to_string(),
            command: command.to_string(),
            workload: workload.to_string(),
            servers: Vec::new(),
            started: started.map_or(0, |d| d.as_secs()),
            processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
            settings: settings.clone(),
            outcome: "complete".to_string(),
            fill: None,
            runs: Vec::new(),
            peak: None,
        }
    }

    /// Reads a report.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
    }

    /// Writes it as JSON, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let context = || format!("cannot write {}", path.display());
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        std::fs::write(&partial, text).with_context(context)?;
        std::fs::rename(&partial, path).with_context(context)
    }

    /// The report for people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let servers = self.settings.servers.iter().zip(
            self.servers
                .iter()
                .map(String::as_str)
                .chain(std::iter::repeat("?")),
        );
        for (address, version) in servers {
            out += &format!("{address} {version}\n");
        }
        match (self.command.as_str(), self.runs.as_slice()) {
            ("peak" | "sweep", runs) => out += &steps(runs),
            (_, runs) => {
                for run in runs {
                    out += &one(run);
                }
            }
        }
        if let Some(peak) = &self.peak {
            out += &format!(
                "peak: {} answered a second at {} offered, mean latency {} (bound {})\n",
                rate(peak.answered_per_second),
                rate(peak.offered_per_second),
                us(peak.mean_us),
                us(peak.bound_us),
            );
        }
        if self.outcome != "complete" {
            out += &format!("NOT COMPLETE: {}\n", self.outcome);
        }
        out
    }
}

fn steps(runs: &[Run]) -> String {
    let header = [
        "offered/s",
        "answered/s",
        "mean",
        "p50",
        "p99",
        "p99.9",
        "max",
        "loss",
        "lag p99",
    ];
    let mut table = table(&header);
    for run in runs {
        let l = &run.latency;
        let mut row = vec![rate(run.offered_per_second), rate(run.answered_per_second)];
        row.extend([l.mean_us, l.p50_us, l.p99_us, l.p99_9_us, l.max_us].map(us));
        row.push(percent(run.loss()));
        row.push(us(run.lag.p99_us));
        table.add_row(row);
    }
    finish(table)
}

fn one(run: &Run) -> String {
    let mut latency = table(&[
        "", "count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max",
    ]);
    let all = ("all".to_string(), &run.latency);
    let kinds = run.kinds.iter().map(|(name, l)| (name.clone(), l));
    let lag = ("(lag)".to_string(), &run.lag);
    let all = (run.kinds.len() > 1).then_some(all);
    for (name, l) in kinds.chain(all).chain([lag]) {
        let mut row = vec![name, l.count.to_string()];
        row.extend(
            [
                l.mean_us,
                l.p50_us,
                l.p90_us,
                l.p99_us,
                l.p99_9_us,
                l.p99_99_us,
                l.max_us,
            ]
            .map(us),
        );
        latency.add_row(row);
    }
    let c = &run.counters;
    let mut out = finish(latency);
    out += &format!(
        "{} offered a second, {} answered a second, for {}\n",
        rate(run.offered_per_second),
        rate(run.answered_per_second),
        humantime::format_duration(Duration::from_millis((run.seconds * 1e3) as u64)),
    );
    if let Some(ratio) = run.hit_ratio {
        out += &format!(
            "keys: {} hits, {} misses ({} hits)\n",
            c.hits,
            c.misses,
            percent(ratio)
        );
    }
    let counts = [
        ("stored", c.stored),
        ("not stored", c.not_stored),
        ("deleted", c.deleted),
        ("touched", c.touched),
        ("not found", c.not_found),
        ("refills", c.refills),
        ("errors", c.errors),
        ("timeouts", c.timeouts),
        ("of them partly answered", c.partial),
        ("late replies", c.late),
        ("stray datagrams", c.strays),
        ("unsent", c.unsent),
    ];
    let shown: Vec<String> = counts
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{n} {name}"))
        .collect();
    if !shown.is_empty() {
        out += &format!("{}\n", shown.join(", "));
    }
    for (text, n) in &run.errors {
        out += &format!("  {n} x {text}\n");
    }
    out += &format!("generator: {:.2} processor seconds\n", run.cpu_seconds);
    out
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(header.iter().copied());
    table
}

fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt() + "\n"
}

/// A rate with a sensible number of digits.
pub fn rate(x: f64) -> String {
    match x {
        x if x >= 1e6 => format!("{:.2}M", x / 1e6),
        x if x >= 1e4 => format!("{:.1}k", x / 1e3),
        x => format!("{x:.0}"),
    }
}

/// Microseconds with a sensible unit.
pub fn us(x: f64) -> String {
    match x {
        x if x >= 1e6 => format!("{:.2} s", x / 1e6),
        x if x >= 1e4 => format!("{:.1} ms", x / 1e3),
        x if x >= 1e3 => format!("{:.2} ms", x / 1e3),
        x => format!("{x:.0} us"),
    }
}

fn percent(x: f64) -> String {
    match x * 100.0 {
        x if x == 0.0 || x >= 1.0 => format!("{x:.1} %"),
        x => format!("{x:.3} %"),
    }
}
