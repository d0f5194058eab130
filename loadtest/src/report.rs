// SPDX-License-Identifier: GPL-2.0-only
//! Reports: the settings and results of a run, as JSON and as a table.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};
use base64::prelude::{Engine, BASE64_STANDARD};
use comfy_table::{presets, CellAlignment, Table};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::arrival::Arrival;
use crate::output;
use crate::settings::Settings;
use crate::stats::Counters;

/// Version of the report's format.
pub const FORMAT: u32 = 2;

/// A complete report: one for each command, in one JSON file.
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
    /// The versions that the servers report, in their order.
    pub servers: Vec<String>,
    /// Start in seconds since 1970.
    pub started: f64,
    /// The trace, for a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// Processors of the machine that made the load.
    pub processors: usize,
    /// The connections to the servers.
    pub settings: Settings,
    /// How the command ended: `complete`, or why not.
    pub outcome: String,
    /// The fill before the run, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<Run>,
    /// The runs: one, or each step of a search or sweep in their order.
    pub runs: Vec<Run>,
    /// The result of a search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<Peak>,
}

/// The result of reading a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Its format.
    pub format: String,
    /// Requests that were read.
    pub requests: u64,
    /// Lines that could not be read and were skipped.
    pub skipped: u64,
    /// Why, for the first of them.
    pub skipped_why: Vec<String>,
    /// Keys that were cut to memcached's 250 bytes.
    pub cut_keys: u64,
    /// The last line was incomplete, and skipped.
    pub truncated: bool,
    /// How often it was read from its beginning.
    pub rounds: u64,
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
    /// The replies per second at that rate; 0 if no rate was within the bounds.
    pub answered_per_second: f64,
    /// Mean latency there, in microseconds.
    pub mean_us: f64,
}

/// The pace of requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// On schedule, independent of the server.
    Open {
        /// Requests a second.
        rate: f64,
        /// How they are spread.
        arrival: Arrival,
    },
    /// As fast as replies arrive.
    Closed {
        /// Requests in flight on each socket or connection.
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
    /// The pace of requests.
    pub pace: Pace,
    /// Seconds over which rates are taken, warm-up excluded.
    pub seconds: f64,
    /// Requests due per second, sent or not.
    pub offered_per_second: f64,
    /// Requests answered per second while requests were sent.
    pub answered_per_second: f64,
    /// Counts.
    pub counters: Counters,
    /// Hits divided by keys requested, if there were any.
    pub hit_ratio: Option<f64>,
    /// Latency of all kinds together.
    pub latency: Latency,
    /// Latency of each kind that occurred.
    pub kinds: BTreeMap<String, Latency>,
    /// From the scheduled time to the sending: the generator's own part of the latency.
    pub lag: Latency,
    /// Error replies with their counts.
    pub errors: BTreeMap<String, u64>,
    /// Throughput over time.
    pub timeline: Vec<IntervalReport>,
    /// Processor seconds that the generator used.
    pub cpu_seconds: f64,
}

impl Run {
    /// The share of requests that were not answered correctly and in time.
    pub fn loss(&self) -> f64 {
        let c = &self.counters;
        let due = (c.sent + c.unsent + c.lost).max(1);
        (c.timeouts + c.lost + c.errors + c.unsent) as f64 / due as f64
    }
}

/// Latencies in microseconds; absent (`null`) where there was no request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Latency {
    /// Requests that were answered, in time or late, and those that were not.
    pub count: u64,
    /// Of these, those without a reply: they count with the time after which they were given up.
    #[serde(default)]
    pub unanswered: u64,
    /// Values above this are lower bounds, because a request without a reply may have determined them.
    #[serde(default, with = "absent")]
    pub exact_below_us: f64,
    #[serde(with = "absent")]
    pub mean_us: f64,
    /// Mean of the answered requests.
    #[serde(default = "absent::nan", with = "absent")]
    pub mean_answered_us: f64,
    #[serde(with = "absent")]
    pub min_us: f64,
    #[serde(with = "absent")]
    pub p50_us: f64,
    #[serde(with = "absent")]
    pub p75_us: f64,
    #[serde(with = "absent")]
    pub p90_us: f64,
    #[serde(with = "absent")]
    pub p95_us: f64,
    #[serde(with = "absent")]
    pub p99_us: f64,
    #[serde(with = "absent")]
    pub p99_9_us: f64,
    #[serde(with = "absent")]
    pub p99_99_us: f64,
    #[serde(with = "absent")]
    pub max_us: f64,
    /// All latencies in nanoseconds: HdrHistogram's compressed format in base 64.
    #[serde(default)]
    pub histogram: String,
    /// Those of requests without a reply, if any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unanswered_histogram: String,
}

/// Numbers that may be absent: NaN here, `null` in JSON.
mod absent {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn nan() -> f64 {
        f64::NAN
    }

    pub(super) fn serialize<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
        x.is_finite().then_some(*x).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            count: 0,
            unanswered: 0,
            exact_below_us: f64::NAN,
            mean_us: f64::NAN,
            mean_answered_us: f64::NAN,
            min_us: f64::NAN,
            p50_us: f64::NAN,
            p75_us: f64::NAN,
            p90_us: f64::NAN,
            p95_us: f64::NAN,
            p99_us: f64::NAN,
            p99_9_us: f64::NAN,
            p99_99_us: f64::NAN,
            max_us: f64::NAN,
            histogram: String::new(),
            unanswered_histogram: String::new(),
        }
    }
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
            mean_answered_us: histogram.mean() / 1e3,
            min_us: us(histogram.min()),
            p50_us: at(0.5),
            p75_us: at(0.75),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: us(histogram.max()),
            histogram: pack(histogram),
            ..Self::default()
        }
    }

    /// The percentiles of a histogram, of which the values in `unanswered` are lower bounds.
    pub fn bounded(histogram: &Histogram<u64>, unanswered: &Histogram<u64>) -> Self {
        let mut latency = Self::of(histogram);
        if unanswered.is_empty() {
            return latency;
        }
        let mut answered = histogram.clone();
        // Each value of one is in the other.
        let _ = answered.subtract(unanswered);
        latency.unanswered = unanswered.len();
        latency.exact_below_us = unanswered.min() as f64 / 1e3;
        latency.mean_answered_us = match answered.is_empty() {
            true => f64::NAN,
            false => answered.mean() / 1e3,
        };
        latency.unanswered_histogram = pack(unanswered);
        latency
    }

    /// A value as text, marked as a bound if it is one.
    fn text(&self, value: f64) -> String {
        if self.unanswered > 0 && value >= self.exact_below_us {
            return format!("> {}", us(value));
        }
        us(value)
    }

    /// The mean as text.
    fn mean_text(&self) -> String {
        let bound = if self.unanswered > 0 { "> " } else { "" };
        format!("{bound}{}", us(self.mean_us))
    }
}

/// A histogram as text.
fn pack(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    BASE64_STANDARD.encode(bytes)
}

/// Parses a histogram of [`Latency`]; an empty one for no text.
pub fn unpack(text: &str) -> Result<Histogram<u64>> {
    if text.is_empty() {
        return Ok(crate::stats::histogram());
    }
    let bytes = BASE64_STANDARD.decode(text)?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|e| anyhow!("a histogram cannot be read: {e:?}"))
}

/// One interval of the timeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IntervalReport {
    /// Its start, in seconds since the run's.
    pub at: f64,
    /// Its start, in seconds since the start of the run.
    pub seconds: f64,
    /// It belongs to the warm-up, and is not in the sums.
    #[serde(default)]
    pub warmup: bool,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Of these, requests with an error.
    pub errors: u64,
    /// Requests given up or lost.
    pub timeouts: u64,
    /// Keys that GETs found.
    #[serde(default)]
    pub hits: u64,
    /// Keys that GETs did not find.
    #[serde(default)]
    pub misses: u64,
    /// Mean latency in microseconds; a request that was given up counts with the time that it had taken.
    #[serde(with = "absent")]
    pub mean_us: f64,
    /// Median.
    #[serde(default = "absent::nan", with = "absent")]
    pub p50_us: f64,
    /// 99th percentile.
    #[serde(with = "absent")]
    pub p99_us: f64,
    /// 99.9th percentile.
    #[serde(default = "absent::nan", with = "absent")]
    pub p99_9_us: f64,
    /// 99th percentile of the generator's own delay.
    #[serde(default = "absent::nan", with = "absent")]
    pub lag_p99_us: f64,
    /// The latencies, as [`Latency::histogram`].
    #[serde(default)]
    pub histogram: String,
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
            started: started.map_or(0.0, |d| (d.as_secs_f64() * 1e3).round() / 1e3),
            trace: None,
            processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
            settings: settings.clone(),
            outcome: "complete".to_string(),
            fill: None,
            runs: Vec::new(),
            peak: None,
        }
    }

    /// Reads a report; `-` is standard input.
    pub fn read(path: &Path) -> Result<Self> {
        let text = output::read(path)?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
    }

    /// Writes it as JSON, atomically; `-` is standard output.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        output::write(path, text.as_bytes())
    }

    /// The report as a readable table.
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
            // The reason goes to standard error, and is in the JSON.
            let kind = self.outcome.split(':').next().unwrap_or_default();
            out += &format!("NOT COMPLETE: {kind}\n");
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
        row.push(l.mean_text());
        row.extend([l.p50_us, l.p99_us, l.p99_9_us, l.max_us].map(|x| l.text(x)));
        row.push(percent(run.loss()));
        row.push(us(run.lag.p99_us));
        table.add_row(row);
    }
    finish(table)
}

fn one(run: &Run) -> String {
    let mut latency = table(&[
        "",
        "count",
        "mean",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "no answer",
    ]);
    let all = ("all".to_string(), &run.latency);
    let kinds = run.kinds.iter().map(|(name, l)| (name.clone(), l));
    let lag = ("(lag)".to_string(), &run.lag);
    let all = (run.kinds.len() > 1).then_some(all);
    for (name, l) in kinds.chain(all).chain([lag]) {
        let mut row = vec![name, l.count.to_string(), l.mean_text()];
        row.extend(
            [
                l.p50_us,
                l.p90_us,
                l.p99_us,
                l.p99_9_us,
                l.p99_99_us,
                l.max_us,
            ]
            .map(|x| l.text(x)),
        );
        row.push(match l.unanswered {
            0 => String::new(),
            n => percent(n as f64 / l.count as f64),
        });
        latency.add_row(row);
    }
    let c = &run.counters;
    if c.timeouts + c.lost > 0 {
        let mut row = vec!["(given up)".to_string(), (c.timeouts + c.lost).to_string()];
        row.push(format!("{} answered late", c.late));
        latency.add_row(row);
    }
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
        ("counted", c.counted),
        ("changed meanwhile", c.exists),
        ("not found", c.not_found),
        ("refills", c.refills),
        ("errors", c.errors),
        ("timeouts", c.timeouts),
        ("lost with their connection", c.lost),
        ("connections made anew", c.reconnects),
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
        x if x.is_nan() => "-".to_string(),
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
