//! What was measured, as JSON, as Markdown tables and as a plot.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;
use serde::Serialize;

/// A figure with its spread over the boots.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) server: String,
    pub(crate) workload: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) runs: usize,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

/// Figures as they come, by server, workload and metric.
#[derive(Default)]
pub(crate) struct Figures {
    order: Vec<Key>,
    values: BTreeMap<Key, Vec<f64>>,
}

type Key = (&'static str, &'static str, Metric);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    Instructions,
    Peak,
    Latency25,
    Latency50,
    Latency75,
    Cpu,
}

impl Metric {
    const ALL: [Metric; 6] = [
        Metric::Instructions,
        Metric::Peak,
        Metric::Latency25,
        Metric::Latency50,
        Metric::Latency75,
        Metric::Cpu,
    ];

    fn name(self) -> &'static str {
        match self {
            Metric::Instructions => "instructions_per_request",
            Metric::Peak => "peak_requests_per_second",
            Metric::Latency25 => "latency_mean_us_at_25_percent",
            Metric::Latency50 => "latency_mean_us",
            Metric::Latency75 => "latency_mean_us_at_75_percent",
            Metric::Cpu => "cpu_seconds_per_million",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Metric::Instructions => "guest instructions",
            Metric::Peak => "requests/s",
            Metric::Latency25 | Metric::Latency50 | Metric::Latency75 => "us",
            Metric::Cpu => "s",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Metric::Instructions => "Guest instructions per request, idle excluded",
            Metric::Peak => "Peak throughput with a mean latency under 1 ms, wall clock",
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
        self == Metric::Peak
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
    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |key: &Key| {
            let mut values = self.values.get(key)?.clone();
            values.sort_by(f64::total_cmp);
            let (first, last) = (*values.first()?, *values.last()?);
            let middle = values.len() / 2;
            let median = if values.len() % 2 == 1 {
                values[middle]
            } else {
                (values[middle - 1] + values[middle]) / 2.0
            };
            Some(Row {
                server: key.0.into(),
                workload: key.1.into(),
                metric: key.2.name().into(),
                unit: key.2.unit().into(),
                runs: values.len(),
                min: first,
                median,
                max: last,
            })
        };
        self.order.iter().filter_map(row).collect()
    }

    /// A table for each metric: a line for each workload, a column for each server, and how Hippos
    /// stands to each of the others.
    pub(crate) fn markdown(&self) -> String {
        let rows = self.rows();
        let mut out = String::new();
        for metric in Metric::ALL {
            let of: Vec<&Row> = rows.iter().filter(|r| r.metric == metric.name()).collect();
            if of.is_empty() {
                continue;
            }
            let servers = names(of.iter().map(|row| row.server.as_str()));
            let workloads = names(of.iter().map(|row| row.workload.as_str()));
            let at = |server: &str, workload: &str| {
                of.iter()
                    .find(|row| row.server == server && row.workload == workload)
            };
            let _ = writeln!(
                out,
                "### {}\n\nMedian of {} boots (least to most); in brackets how many times better \
                 Hippos is.\n",
                metric.title(),
                of.iter().map(|row| row.runs).max().unwrap_or(0)
            );
            let _ = writeln!(out, "| workload | {} |", servers.join(" | "));
            let _ = writeln!(out, "|---|{}", "---:|".repeat(servers.len()));
            for workload in workloads {
                let _ = write!(out, "| {workload} |");
                let ours = at("hippos", workload).map(|row| row.median);
                for server in &servers {
                    match at(server, workload) {
                        None => out.push_str(" |"),
                        Some(row) => {
                            let _ = write!(
                                out,
                                " {} ({} to {})",
                                short(row.median),
                                short(row.min),
                                short(row.max)
                            );
                            if let Some(ours) = ours.filter(|_| *server != "hippos") {
                                let ratio = if metric.rises() {
                                    ours / row.median
                                } else {
                                    row.median / ours
                                };
                                let _ = write!(out, " [{ratio:.2}]");
                            }
                            out.push_str(" |");
                        }
                    }
                }
                out.push('\n');
            }
            out.push('\n');
        }
        out
    }

    /// Bars for one metric.
    fn plot(&self, metric: Metric, path: &Path) -> Result<()> {
        let rows = self.rows();
        let of: Vec<&Row> = rows.iter().filter(|r| r.metric == metric.name()).collect();
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
    fn the_table_has_the_ratio_to_each_other_server() {
        let table = figures().markdown();
        assert!(
            table.contains("| get-hit | 220 (200 to 260) [4.40] | 50.0 (50.0 to 50.0) |"),
            "{table}"
        );
    }

    #[test]
    fn reports_are_written() {
        let dir = tempfile::tempdir().unwrap();
        figures().write(dir.path(), "# Head").unwrap();
        let json = fs::read_to_string(dir.path().join("report.json")).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(rows[1]["server"], "hippos");
        let plot = fs::read_to_string(dir.path().join("instructions.svg")).unwrap();
        assert!(plot.contains("get-hit"));
    }
}
