// SPDX-License-Identifier: GPL-2.0-only
//! The measurements' results, as JSON, as Markdown tables and as a plot.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;
use serde::Serialize;

/// A figure with its spread over the boots.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReportRow {
    pub(crate) server: String,
    pub(crate) workload: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) runs: usize,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

/// The server that all other servers are compared with.
const OURS: &str = "hippos";

/// Figures as they come, by server, workload and metric.
#[derive(Default)]
pub(crate) struct Figures {
    order: Vec<FigureKey>,
    values: BTreeMap<FigureKey, Vec<f64>>,
}

type FigureKey = (&'static str, &'static str, Metric);

/// The metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    Instructions,
    Peak,
    Overload,
    Latency25,
    Latency50,
    Latency75,
    Cpu,
}

impl Metric {
    const ALL: [Metric; 7] = [
        Metric::Instructions,
        Metric::Peak,
        Metric::Overload,
        Metric::Latency25,
        Metric::Latency50,
        Metric::Latency75,
        Metric::Cpu,
    ];

    fn name(self) -> &'static str {
        match self {
            Metric::Instructions => "instructions_per_request",
            Metric::Peak => "peak_requests_per_second",
            Metric::Overload => "requests_per_second_at_twice_the_peak",
            Metric::Latency25 => "latency_mean_us_at_25_percent",
            Metric::Latency50 => "latency_mean_us",
            Metric::Latency75 => "latency_mean_us_at_75_percent",
            Metric::Cpu => "cpu_seconds_per_million",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Metric::Instructions => "guest instructions",
            Metric::Peak | Metric::Overload => "requests/s",
            Metric::Latency25 | Metric::Latency50 | Metric::Latency75 => "us",
            Metric::Cpu => "s",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Metric::Instructions => "Guest instructions per request, idle excluded",
            Metric::Peak => "Peak throughput with a mean latency under 1 ms, wall clock",
            Metric::Overload => "Answered when twice its own peak is offered, wall clock",
            Metric::Latency25 => "Mean latency at 25 % of memcached's peak, wall clock",
            Metric::Latency50 => "Mean latency at 50 % of memcached's peak, wall clock",
            Metric::Latency75 => "Mean latency at 75 % of memcached's peak, wall clock",
            Metric::Cpu => {
                "CPU seconds of the virtual machine per million requests at half of memcached's \
                 peak: the stand-in for watts"
            }
        }
    }

    /// Whether more is better.
    fn rises(self) -> bool {
        matches!(self, Metric::Peak | Metric::Overload)
    }
}

impl Figures {
    pub(crate) fn add(
        &mut self,
        server: &'static str,
        workload: &'static str,
        metric: Metric,
        value: f64,
    ) {
        let key = (server, workload, metric);
        let values = self.values.entry(key).or_default();
        if values.is_empty() {
            self.order.push(key);
        }
        values.push(value);
    }

    /// The median so far.
    pub(crate) fn median(&self, server: &str, workload: &str, metric: Metric) -> Option<f64> {
        self.rows()
            .into_iter()
            .find(|row| {
                row.server == server && row.workload == workload && row.metric == metric.name()
            })
            .map(|row| row.median)
    }

    /// All figures, in the order in which they first came.
    pub(crate) fn rows(&self) -> Vec<ReportRow> {
        let row = |key: &FigureKey| {
            let values = self.values.get(key)?;
            let spread = Spread::of(values.clone())?;
            Some(ReportRow {
                server: key.0.into(),
                workload: key.1.into(),
                metric: key.2.name().into(),
                unit: key.2.unit().into(),
                runs: values.len(),
                min: spread.min,
                median: spread.median,
                max: spread.max,
            })
        };
        self.order.iter().filter_map(row).collect()
    }

    /// How many times better Hippos is than `server`, boot by boot.
    fn ratios(&self, server: &'static str, workload: &'static str, metric: Metric) -> Vec<f64> {
        let of = |server| self.values.get(&(server, workload, metric));
        let (Some(theirs), Some(ours)) = (of(server), of(OURS)) else {
            return Vec::new();
        };
        let pairs = theirs.iter().zip(ours);
        pairs
            .map(|(theirs, ours)| {
                if metric.rises() {
                    ours / theirs
                } else {
                    theirs / ours
                }
            })
            .collect()
    }

    /// Two tables for each metric, with a line for each workload and a column for each server: the figures, and the
    /// ratio of Hippos to each other server.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        for metric in Metric::ALL {
            let of = || self.order.iter().filter(move |key| key.2 == metric);
            let boots = of()
                .filter_map(|key| self.values.get(key))
                .map(Vec::len)
                .max();
            let Some(boots) = boots else { continue };
            let servers = names(of().map(|key| key.0));
            let workloads = names(of().map(|key| key.1));
            let _ = writeln!(out, "### {}\n", metric.title());
            let _ = writeln!(out, "{}.\n", spread_of(boots));
            table(
                &mut out,
                "workload",
                &workloads,
                &servers,
                |server, workload| self.values.get(&(server, workload, metric)).cloned(),
            );
            let others: Vec<_> = servers.into_iter().filter(|name| *name != OURS).collect();
            if of().any(|key| key.0 == OURS) && !others.is_empty() {
                let _ = writeln!(out, "How many times better `{OURS}` is, boot by boot:\n");
                table(
                    &mut out,
                    "workload",
                    &workloads,
                    &others,
                    |server, workload| Some(self.ratios(server, workload, metric)),
                );
            }
        }
        out
    }

    /// Bars for one metric.
    fn plot(&self, metric: Metric, path: &Path) -> Result<()> {
        let rows = self.rows();
        let of: Vec<&ReportRow> = rows.iter().filter(|r| r.metric == metric.name()).collect();
        if of.is_empty() {
            return Ok(());
        }
        let servers = names(of.iter().map(|row| row.server.as_str()));
        let workloads = names(of.iter().map(|row| row.workload.as_str()));
        let most = of.iter().map(|row| row.max).fold(0.0, f64::max);
        let area = SVGBackend::new(path, (1000, 500)).into_drawing_area();
        area.fill(&WHITE)?;
        let width = servers.len() + 1;
        let mut chart = ChartBuilder::on(&area)
            .caption(metric.title(), ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(80)
            .build_cartesian_2d(0..workloads.len() * width, 0.0..most * 1.05)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(workloads.len() * width)
            .x_label_formatter(&|x| {
                if x % width == servers.len() / 2 {
                    workloads.get(x / width).map_or("", |w| w).to_owned()
                } else {
                    String::new()
                }
            })
            .y_desc(metric.unit())
            .draw()?;
        for (index, server) in servers.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            let bars = of.iter().filter(|row| row.server == *server).map(|row| {
                let group = workloads.iter().position(|w| *w == row.workload);
                let x = group.unwrap_or(0) * width + index;
                Rectangle::new([(x, 0.0), (x + 1, row.median)], color.filled())
            });
            chart
                .draw_series(bars)?
                .label(*server)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 10, y + 5)], color.filled())
                });
        }
        chart
            .configure_series_labels()
            .border_style(BLACK)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        area.present()?;
        Ok(())
    }

    /// Writes `report.json`, `report.md` (after `head`) and the plots.
    pub(crate) fn write(&self, dir: &Path, head: &str) -> Result<()> {
        fs::create_dir_all(dir)?;
        let json = serde_json::to_string_pretty(&self.rows())?;
        fs::write(dir.join("report.json"), json + "\n")?;
        fs::write(
            dir.join("report.md"),
            format!("{head}\n\n{}", self.markdown()),
        )?;
        self.plot(Metric::Instructions, &dir.join("instructions.svg"))?;
        self.plot(Metric::Peak, &dir.join("peak.svg"))
    }
}

/// The minimum, the median and the maximum of some values.
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Some(Spread { min, median, max })
    }
}

fn spread_of(boots: usize) -> String {
    match boots {
        1 => "One boot".into(),
        _ => format!("Median of {boots} boots (least to most)"),
    }
}

/// A table of medians and spreads, of which `values` gets a column and a line.
pub(super) fn table(
    out: &mut String,
    head: &str,
    lines: &[&'static str],
    columns: &[&'static str],
    values: impl Fn(&'static str, &'static str) -> Option<Vec<f64>>,
) {
    let _ = writeln!(out, "| {head} | {} |", columns.join(" | "));
    let _ = writeln!(out, "|---|{}", "---:|".repeat(columns.len()));
    for &line in lines {
        let _ = write!(out, "| {line} |");
        for &column in columns {
            let runs = values(column, line).unwrap_or_default();
            let several = runs.len() > 1;
            if let Some(spread) = Spread::of(runs) {
                let _ = write!(out, " {}", short(spread.median));
                if several {
                    let _ = write!(out, " ({} to {})", short(spread.min), short(spread.max));
                }
            }
            out.push_str(" |");
        }
        out.push('\n');
    }
    out.push('\n');
}

/// Each once, in the order of their first coming.
fn names<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Three digits or more.
fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::default();
        for (server, values) in [("memcached", [200.0, 260.0, 220.0]), ("hippos", [50.0; 3])] {
            for value in values {
                figures.add(server, "get-hit", Metric::Instructions, value);
            }
        }
        figures
    }

    #[test]
    fn a_row_is_median_and_spread() {
        let rows = figures().rows();
        let row = &rows[0];
        assert_eq!((row.min, row.median, row.max), (200.0, 220.0, 260.0));
        assert_eq!(
            (row.server.as_str(), row.metric.as_str(), row.runs),
            ("memcached", "instructions_per_request", 3)
        );
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn the_tables_have_figures_and_ratios() {
        let table = figures().markdown();
        for line in [
            "| get-hit | 220 (200 to 260) | 50.0 (50.0 to 50.0) |",
            "| get-hit | 4.40 (4.00 to 5.20) |",
        ] {
            assert!(table.contains(line), "{table}");
        }
        let mut peaks = Figures::default();
        peaks.add("memcached", "usr", Metric::Peak, 10.0);
        peaks.add("hippos", "usr", Metric::Peak, 80.0);
        let table = peaks.markdown();
        assert!(table.contains("| usr | 8.00 |"), "{table}");
    }

    #[test]
    fn a_report_has_every_result() {
        let dir = tempfile::tempdir().unwrap();
        figures().write(dir.path(), "# Head").unwrap();
        let json = fs::read_to_string(dir.path().join("report.json")).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(rows[1]["server"], "hippos");
        let plot = fs::read_to_string(dir.path().join("instructions.svg")).unwrap();
        assert!(plot.contains("get-hit"));
    }
}
