//! SVG plots of reports: latency against offered load, throughput of several
//! servers side by side, throughput over time.

use std::path::Path;

use anyhow::{anyhow, bail, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::{Report, Run};

const SIZE: (u32, u32) = (900, 540);
/// Told apart with any eyesight, and in grey.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Plotters' errors borrow the canvas; ours do not.
fn failed<E: std::error::Error>(e: E) -> anyhow::Error {
    anyhow!("cannot plot: {e}")
}

fn canvas(path: &Path) -> Result<Area<'_>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    Ok(area)
}

fn colour(i: usize) -> RGBColor {
    COLOURS[i % COLOURS.len()]
}

/// A rate on an axis.
fn kilo(x: &f64) -> String {
    match *x {
        x if x >= 1e6 => format!("{}M", short(x / 1e6)),
        x if x >= 1e3 => format!("{}k", short(x / 1e3)),
        x => short(x),
    }
}

/// Microseconds on an axis.
fn micro(x: &f64) -> String {
    match *x {
        x if x >= 1e6 => format!("{} s", short(x / 1e6)),
        x if x >= 1e3 => format!("{} ms", short(x / 1e3)),
        x => format!("{} us", short(x)),
    }
}

/// At most one digit behind the point, and none that says nothing.
fn short(x: f64) -> String {
    ((x * 10.0).round() / 10.0).to_string()
}

/// Mean (solid) and 99th percentile (thin) latency against offered load, on a
/// logarithmic scale, a colour for each report.
pub fn latency(reports: &[(String, Report)], path: &Path) -> Result<()> {
    let mut series: Vec<(&str, Vec<&Run>)> = reports
        .iter()
        .map(|(label, report)| {
            let mut runs: Vec<&Run> = report
                .runs
                .iter()
                .filter(|run| run.latency.count > 0)
                .collect();
            runs.sort_by(|a, b| a.offered_per_second.total_cmp(&b.offered_per_second));
            (label.as_str(), runs)
        })
        .collect();
    series.retain(|(_, runs)| !runs.is_empty());
    let runs = || series.iter().flat_map(|(_, runs)| runs.iter());
    let x_max = runs().map(|run| run.offered_per_second).fold(0.0, f64::max);
    let y_max = runs().map(|run| run.latency.p99_us).fold(0.0, f64::max);
    let y_min = runs()
        .map(|run| run.latency.mean_us)
        .fold(f64::MAX, f64::min);
    if x_max == 0.0 {
        bail!("cannot plot: no run has any latency");
    }
    let area = canvas(path)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Latency against offered load", (FONT, 20))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(74)
        .build_cartesian_2d(0.0..x_max * 1.05, (y_min * 0.7..y_max * 1.5).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("offered, requests a second")
        .y_desc("latency: mean, and 99th percentile (thin)")
        .x_label_formatter(&kilo)
        .y_label_formatter(&micro)
        .light_line_style(BLACK.mix(0.05))
        .label_style((FONT, 14))
        .draw()
        .map_err(failed)?;
    for (i, (label, runs)) in series.iter().enumerate() {
        let line = |value: fn(&Run) -> f64, width: u32| {
            let points = runs
                .iter()
                .map(move |run| (run.offered_per_second, value(run)));
            LineSeries::new(points, colour(i).stroke_width(width))
        };
        chart
            .draw_series(line(|run| run.latency.mean_us, 3))
            .map_err(failed)?
            .label(*label)
            .legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 20, y)], colour(i).stroke_width(3))
            });
        chart
            .draw_series(line(|run| run.latency.p99_us, 1))
            .map_err(failed)?;
        let dots = runs.iter().map(|run| {
            Circle::new(
                (run.offered_per_second, run.latency.mean_us),
                3,
                colour(i).filled(),
            )
        });
        chart.draw_series(dots).map_err(failed)?;
    }
    legend(&mut chart)?;
    area.present().map_err(failed)
}

fn legend<'a, C: CoordTranslate>(chart: &mut ChartContext<'a, SVGBackend<'a>, C>) -> Result<()> {
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .position(SeriesLabelPosition::UpperLeft)
        // No border: the width of a text is only guessed.
        .label_font((FONT, 14))
        .margin(14)
        .draw()
        .map_err(failed)
}

/// Bars side by side: for each group (a workload) one bar a series (a server).
/// `values[series][group]`; none leaves the place empty.
pub fn bars(
    title: &str,
    unit: &str,
    groups: &[String],
    series: &[String],
    values: &[Vec<Option<f64>>],
    path: &Path,
) -> Result<()> {
    let y_max = values
        .iter()
        .flatten()
        .flatten()
        .copied()
        .fold(0.0, f64::max);
    if groups.is_empty() || y_max == 0.0 {
        bail!("cannot plot: there is nothing to show");
    }
    let area = canvas(path)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 20))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(74)
        .build_cartesian_2d(0.0..groups.len() as f64, 0.0..y_max * 1.35)
        .map_err(failed)?;
    let name = |x: &f64| groups.get(*x as usize).cloned().unwrap_or_default();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_desc(unit)
        .y_label_formatter(&kilo)
        .light_line_style(BLACK.mix(0.05))
        .label_style((FONT, 14))
        .draw()
        .map_err(failed)?;
    let width = 0.8 / series.len() as f64;
    for (i, (label, values)) in series.iter().zip(values).enumerate() {
        let left = |group: usize| group as f64 + 0.1 + i as f64 * width;
        let bar = values.iter().enumerate().filter_map(|(group, value)| {
            let corners = [(left(group), 0.0), (left(group) + width * 0.92, (*value)?)];
            Some(Rectangle::new(corners, colour(i).filled()))
        });
        chart
            .draw_series(bar)
            .map_err(failed)?
            .label(label.as_str())
            .legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour(i).filled())
            });
    }
    // The names of the groups, centred under them: the axis itself would put them at their left edges.
    let plot = chart.plotting_area();
    let style = (FONT, 15)
        .into_font()
        .color(&BLACK)
        .pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Center,
            plotters::style::text_anchor::VPos::Top,
        ));
    for group in 0..groups.len() {
        let (x, y) = plot.map_coordinate(&(group as f64 + 0.5, 0.0));
        area.draw(&Text::new(
            name(&(group as f64)),
            (x, y + 10),
            style.clone(),
        ))
        .map_err(failed)?;
    }
    legend(&mut chart)?;
    area.present().map_err(failed)
}

/// Peak (or else answered) requests a second of each workload, side by side for each label.
pub fn throughput(reports: &[(String, Report)], path: &Path) -> Result<()> {
    let (mut groups, mut series): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for (label, report) in reports {
        if !groups.contains(&report.workload) {
            groups.push(report.workload.clone());
        }
        if !series.contains(label) {
            series.push(label.clone());
        }
    }
    let value = |label: &String, workload: &String| {
        let found = reports
            .iter()
            .filter(|(l, report)| l == label && report.workload == *workload);
        found
            .map(|(_, report)| match &report.peak {
                Some(peak) => peak.answered_per_second,
                None => report
                    .runs
                    .iter()
                    .map(|run| run.answered_per_second)
                    .fold(0.0, f64::max),
            })
            .next_back()
    };
    let values: Vec<Vec<_>> = series
        .iter()
        .map(|label| groups.iter().map(|group| value(label, group)).collect())
        .collect();
    bars(
        "Throughput",
        "requests a second",
        &groups,
        &series,
        &values,
        path,
    )
}

/// Requests sent and answered a second over time, with timeouts where there were any.
pub fn timeline(run: &Run, path: &Path) -> Result<()> {
    let moments = &run.timeline;
    let per_second = |value: fn(&crate::report::Moment) -> u64| {
        move |moment: &crate::report::Moment| (moment.at, value(moment) as f64 / moment.seconds)
    };
    let y_max = moments
        .iter()
        .flat_map(|m| [m.sent, m.answered].map(|n| n as f64 / m.seconds))
        .fold(0.0, f64::max);
    let Some(last) = moments.last().filter(|_| y_max > 0.0) else {
        bail!("cannot plot: nothing happened")
    };
    let area = canvas(path)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Throughput over time", (FONT, 20))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(74)
        .build_cartesian_2d(0.0..last.at + last.seconds, 0.0..y_max * 1.1)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("requests a second")
        .y_label_formatter(&kilo)
        .light_line_style(BLACK.mix(0.05))
        .label_style((FONT, 14))
        .draw()
        .map_err(failed)?;
    let lines = [
        ("sent", per_second(|m| m.sent)),
        ("answered", per_second(|m| m.answered)),
        ("given up", per_second(|m| m.timeouts)),
    ];
    for (i, (label, value)) in lines.into_iter().enumerate() {
        if i == 2 && moments.iter().all(|m| m.timeouts == 0) {
            continue;
        }
        chart
            .draw_series(LineSeries::new(
                moments.iter().map(value),
                colour(i).stroke_width(3 - i as u32),
            ))
            .map_err(failed)?
            .label(label)
            .legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 20, y)], colour(i).stroke_width(2))
            });
    }
    legend(&mut chart)?;
    area.present().map_err(failed)
}
