// SPDX-License-Identifier: GPL-2.0-only
//! SVG plots of reports: latency against offered load, throughput of several servers side by side, throughput, latency
//! and lag over time, latency by percentile. Legends are beside the data.

use std::path::Path;

use anyhow::{anyhow, bail, ensure, Context, Result};
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::output;
use crate::report::{unpack, IntervalReport, Report, Run};

const SIZE: (u32, u32) = (900, 480);
/// The minimum and maximum width of the legend, and the width of a letter in it.
const LEGEND: (u32, u32) = (150, 330);
const LETTER: u32 = 7;
/// Letters of a title or name that fit.
const TITLE: usize = 80;
/// Distinguishable with any colour vision, and in grey.
const COLOURS: [RGBColor; 10] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(136, 34, 85),
    RGBColor(51, 34, 136),
];
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A plot: the name of its file without `.svg`, and its text.
pub type Plot = (String, String);

/// Plotters' errors borrow the canvas; this crate's do not.
fn failed<E: std::error::Error>(e: E) -> anyhow::Error {
    anyhow!("cannot plot: {e}")
}

fn colour(i: usize) -> RGBColor {
    COLOURS[i % COLOURS.len()]
}

/// A rate on an axis.
fn format_rate(x: &f64) -> String {
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

/// At most one decimal, and no trailing zero.
fn short(x: f64) -> String {
    ((x * 10.0).round() / 10.0).to_string()
}

/// A text of limited length: the middle is left out, because both ends distinguish it from others.
fn shortened(text: &str, most: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= most {
        return text.to_string();
    }
    let tail = most / 2;
    let head = &letters[..most - tail - 1];
    let tail = &letters[letters.len() - tail..];
    head.iter().chain(&['…']).chain(tail).collect()
}

/// One line of a plot.
struct Series {
    label: String,
    colour: usize,
    width: u32,
    points: Vec<(f64, f64)>,
}

/// The common parts of all line plots.
struct Frame<'a> {
    title: String,
    x: &'a str,
    y: &'a str,
    x_text: &'a dyn Fn(&f64) -> String,
    y_text: &'a dyn Fn(&f64) -> String,
    logarithmic: bool,
    /// The end of the warm-up.
    warmup: Option<f64>,
}

/// Draws on a canvas with a place for the legend beside it.
fn draw(
    labels: &[(String, usize, u32)],
    paint: impl FnOnce(&Area) -> Result<()>,
) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let longest = labels.iter().map(|(label, ..)| label.chars().count());
        let longest = longest.max().unwrap_or(0) as u32;
        let room = (42 + LETTER * longest).clamp(LEGEND.0, LEGEND.1);
        let (data, legend) = area.split_horizontally(SIZE.0 - room);
        paint(&data)?;
        for (i, (label, colour_of, width)) in labels.iter().enumerate() {
            let y = 60 + 22 * i as i32;
            let line = PathElement::new([(4, y), (26, y)], colour(*colour_of).stroke_width(*width));
            legend.draw(&line).map_err(failed)?;
            let style = (FONT, 13)
                .into_font()
                .color(&BLACK)
                .pos(Pos::new(HPos::Left, VPos::Center));
            let shown = shortened(label, ((room - 42) / LETTER) as usize);
            legend
                .draw(&Text::new(shown, (32, y), style))
                .map_err(failed)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(text)
}

fn lines(frame: &Frame, series: &[Series]) -> Result<String> {
    let points = || {
        series
            .iter()
            .flat_map(|s| s.points.iter().copied())
            .filter(|(x, y)| x.is_finite() && y.is_finite())
    };
    let x_max = points().map(|(x, _)| x).fold(0.0, f64::max);
    let y_max = points().map(|(_, y)| y).fold(0.0, f64::max);
    let y_min = points()
        .map(|(_, y)| y)
        .filter(|y| *y > 0.0)
        .fold(f64::MAX, f64::min);
    if y_max <= 0.0 || x_max <= 0.0 {
        bail!("cannot plot: nothing happened");
    }
    let labels: Vec<_> = series
        .iter()
        .map(|s| (s.label.clone(), s.colour, s.width))
        .collect();
    draw(&labels, |area| {
        let mut chart = ChartBuilder::on(area);
        chart
            .caption(shortened(&frame.title, TITLE), (FONT, 18))
            .margin(16)
            .x_label_area_size(46)
            .y_label_area_size(74);
        if frame.logarithmic {
            let y = (y_min * 0.7..y_max * 1.5).log_scale();
            let chart = chart
                .build_cartesian_2d(0.0..x_max * 1.02, y)
                .map_err(failed)?;
            plot_lines(frame, series, chart, y_min)
        } else {
            let chart = chart
                .build_cartesian_2d(0.0..x_max * 1.02, 0.0..y_max * 1.1)
                .map_err(failed)?;
            plot_lines(frame, series, chart, 0.0)
        }
    })
}

fn plot_lines<'a, X, Y>(
    frame: &Frame,
    series: &[Series],
    mut chart: ChartContext<'a, SVGBackend<'_>, Cartesian2d<X, Y>>,
    least: f64,
) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(frame.x)
        .y_desc(frame.y)
        .x_label_formatter(frame.x_text)
        .y_label_formatter(frame.y_text)
        .light_line_style(BLACK.mix(0.05))
        .label_style((FONT, 13))
        .draw()
        .map_err(failed)?;
    if let Some(end) = frame.warmup.filter(|end| *end > 0.0) {
        let range = chart.y_range();
        let shade = Rectangle::new(
            [(0.0, range.start), (end, range.end)],
            BLACK.mix(0.08).filled(),
        );
        chart.draw_series([shade]).map_err(failed)?;
        let style = (FONT, 12).into_font().color(&BLACK.mix(0.6));
        chart
            .draw_series([
                // Below the frame.
                EmptyElement::at((0.0, range.end)) + Text::new("warm-up", (4, 4), style),
            ])
            .map_err(failed)?;
    }
    for s in series {
        // An interval without requests leaves a gap.
        let whole = |point: &(f64, f64)| point.1.is_finite() && point.1 >= least;
        for part in s.points.split(|point| !whole(point)) {
            let style = colour(s.colour).stroke_width(s.width);
            chart
                .draw_series(LineSeries::new(part.iter().copied(), style))
                .map_err(failed)?;
            if part.len() == 1 || s.width > 2 {
                let dots = part
                    .iter()
                    .map(|point| Circle::new(*point, s.width.max(2), colour(s.colour).filled()));
                chart.draw_series(dots).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// All plots that the reports have data for. Labels distinguish the reports.
pub fn all(reports: &[(String, Report)]) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    let many = reports.len() > 1;
    if reports.iter().any(|(_, report)| report.runs.len() > 1) {
        plots.push(("latency".to_string(), latency(reports)?));
    }
    if many || reports.iter().any(|(_, report)| report.peak.is_some()) {
        plots.push(("throughput".to_string(), throughput(reports)?));
    }
    let single = reports.iter().filter(|(_, report)| report.runs.len() == 1);
    for (label, report) in single {
        let run = &report.runs[0];
        if run.timeline.iter().all(|m| m.sent == 0) {
            continue;
        }
        let (title, suffix) = match many {
            true => (
                format!("{} ({label})", report.workload),
                format!("-{}", label.replace(['/', ' '], "_")),
            ),
            false => (report.workload.clone(), String::new()),
        };
        let mut add = |name: &str, svg: String| plots.push((format!("{name}{suffix}"), svg));
        add("timeline", timeline(&title, run)?);
        if run.latency.count > 0 {
            add("timeline-latency", latency_over_time(&title, run)?);
            add("timeline-lag", lag_over_time(&title, run)?);
            add("percentiles", percentiles(&title, run)?);
        }
        if run.timeline.iter().any(|m| m.hits + m.misses > 0) {
            add("timeline-hits", hits_over_time(&title, run)?);
        }
    }
    ensure!(!plots.is_empty(), "cannot plot: there is nothing to show");
    Ok(plots)
}

/// Names of the plots that [`all`] makes of one report.
const NAMES: [&str; 7] = [
    "latency",
    "throughput",
    "timeline",
    "timeline-latency",
    "timeline-lag",
    "timeline-hits",
    "percentiles",
];

/// Fails if a folder already holds plots.
pub fn free(dir: &Path) -> Result<()> {
    for name in NAMES {
        let path = dir.join(format!("{name}.svg"));
        ensure!(
            !path.exists(),
            "{} is there already; --force writes over it",
            path.display()
        );
    }
    Ok(())
}

/// Writes plots into a folder; `force` overwrites existing ones.
pub fn save(plots: &[Plot], dir: &Path, force: bool) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = |name: &str| dir.join(format!("{name}.svg"));
    // All or none.
    for (name, _) in plots {
        ensure!(
            force || !path(name).exists(),
            "{} is there already; --force writes over it",
            path(name).display()
        );
    }
    for (name, svg) in plots {
        output::write(&path(name), svg.as_bytes())?;
    }
    Ok(())
}

/// Mean (solid) and 99th percentile (thin) latency against offered load, on a
/// logarithmic scale, a colour for each report.
pub fn latency(reports: &[(String, Report)]) -> Result<String> {
    let mut series = Vec::new();
    for (i, (label, report)) in reports.iter().enumerate() {
        let mut runs: Vec<&Run> = report
            .runs
            .iter()
            .filter(|run| run.latency.count > 0)
            .collect();
        runs.sort_by(|a, b| a.offered_per_second.total_cmp(&b.offered_per_second));
        let line = |what: &str, width: u32, value: fn(&Run) -> f64| Series {
            label: format!("{label} {what}"),
            colour: i,
            width,
            points: runs
                .iter()
                .map(|run| (run.offered_per_second, value(run)))
                .collect(),
        };
        series.push(line("mean", 3, |run| run.latency.mean_us));
        series.push(line("p99", 1, |run| run.latency.p99_us));
    }
    let frame = Frame {
        title: format!("Latency against offered load: {}", workloads(reports)),
        x: "offered, requests a second",
        y: "latency",
        x_text: &format_rate,
        y_text: &micro,
        logarithmic: true,
        warmup: None,
    };
    lines(&frame, &series)
}

/// The workloads' names, each once.
fn workloads(reports: &[(String, Report)]) -> String {
    let mut names: Vec<&str> = reports.iter().map(|(_, r)| r.workload.as_str()).collect();
    names.dedup();
    names.join(", ")
}

/// Bars side by side: for each group (a workload) one bar per series (a server). `values[series][group]`; `None` leaves
/// a gap.
pub fn bars(
    title: &str,
    unit: &str,
    groups: &[String],
    series: &[String],
    values: &[Vec<Option<f64>>],
) -> Result<String> {
    let y_max = values
        .iter()
        .flatten()
        .flatten()
        .copied()
        .fold(0.0, f64::max);
    if groups.is_empty() || y_max == 0.0 {
        bail!("cannot plot: there is nothing to show");
    }
    let labels: Vec<_> = series
        .iter()
        .enumerate()
        .map(|(i, label)| (label.clone(), i, 8))
        .collect();
    draw(&labels, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(shortened(title, TITLE), (FONT, 18))
            .margin(16)
            .x_label_area_size(46)
            .y_label_area_size(74)
            .build_cartesian_2d(0.0..groups.len() as f64, 0.0..y_max * 1.1)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_desc(unit)
            .y_label_formatter(&format_rate)
            .light_line_style(BLACK.mix(0.05))
            .label_style((FONT, 13))
            .draw()
            .map_err(failed)?;
        let width = 0.8 / series.len() as f64;
        for (i, values) in values.iter().enumerate() {
            let left = |group: usize| group as f64 + 0.1 + i as f64 * width;
            let bar = values.iter().enumerate().filter_map(|(group, value)| {
                let corners = [(left(group), 0.0), (left(group) + width * 0.92, (*value)?)];
                Some(Rectangle::new(corners, colour(i).filled()))
            });
            chart.draw_series(bar).map_err(failed)?;
        }
        // The names of the groups, centred under them: the axis itself would put them at their left edges.
        let plot = chart.plotting_area();
        let style = (FONT, 14)
            .into_font()
            .color(&BLACK)
            .pos(Pos::new(HPos::Center, VPos::Top));
        // If there are many names, every other one is placed lower, and long ones are shortened.
        let room = plot.dim_in_pixel().0 as usize / groups.len();
        let rows = if groups.iter().all(|name| 8 * name.chars().count() <= room) {
            1
        } else {
            2
        };
        for (group, name) in groups.iter().enumerate() {
            let (x, y) = plot.map_coordinate(&(group as f64 + 0.5, 0.0));
            let name = shortened(name, (rows * room / 8).max(3));
            let y = y + 6 + 18 * (group % rows) as i32;
            area.draw(&Text::new(name, (x, y), style.clone()))
                .map_err(failed)?;
        }
        Ok(())
    })
}

/// Peak (or else answered) requests a second of each workload, side by side for each label.
pub fn throughput(reports: &[(String, Report)]) -> Result<String> {
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
    let title = format!("Throughput: {}", workloads(reports));
    bars(&title, "requests a second", &groups, &series, &values)
}

/// A run's intervals up to the last one with any requests.
fn active_intervals(run: &Run) -> &[IntervalReport] {
    let idle = |m: &IntervalReport| m.sent + m.answered + m.timeouts == 0;
    let end = run.timeline.iter().rposition(|m| !idle(m));
    &run.timeline[..end.map_or(0, |at| at + 1)]
}

/// A line over a run's intervals; each point stands at its interval's end.
fn over_time(
    run: &Run,
    label: &str,
    colour: usize,
    width: u32,
    value: impl Fn(&IntervalReport) -> f64,
) -> Series {
    Series {
        label: label.to_string(),
        colour,
        width,
        points: active_intervals(run)
            .iter()
            .map(|moment| (moment.at + moment.seconds, value(moment)))
            .collect(),
    }
}

fn time_frame<'a>(
    title: String,
    y: &'a str,
    y_text: &'a dyn Fn(&f64) -> String,
    run: &Run,
) -> Frame<'a> {
    Frame {
        title,
        x: "seconds",
        y,
        x_text: &|x| short(*x),
        y_text,
        logarithmic: false,
        warmup: run
            .timeline
            .iter()
            .filter(|m| m.warmup)
            .map(|m| m.at + m.seconds)
            .reduce(f64::max),
    }
}

/// Requests sent and answered a second over time, with timeouts where there were any.
pub fn timeline(workload: &str, run: &Run) -> Result<String> {
    let title = format!("Throughput over time: {workload}");
    let frame = time_frame(title, "requests a second", &format_rate, run);
    let rate = |n: u64, m: &IntervalReport| n as f64 / m.seconds;
    let mut series = vec![
        over_time(run, "sent", 0, 3, |m| rate(m.sent, m)),
        over_time(run, "answered", 1, 2, |m| rate(m.answered, m)),
    ];
    if run.timeline.iter().any(|m| m.timeouts > 0) {
        series.push(over_time(run, "given up or lost", 2, 1, |m| {
            rate(m.timeouts, m)
        }));
    }
    lines(&frame, &series)
}

/// Median, 99th and 99.9th percentile over time.
pub fn latency_over_time(workload: &str, run: &Run) -> Result<String> {
    let title = format!("Latency over time: {workload}");
    let frame = Frame {
        logarithmic: true,
        ..time_frame(title, "latency", &micro, run)
    };
    let series = [
        over_time(run, "p50", 0, 2, |m| m.p50_us),
        over_time(run, "p99", 1, 2, |m| m.p99_us),
        over_time(run, "p99.9", 2, 1, |m| m.p99_9_us),
    ];
    lines(&frame, &series)
}

/// The generator's own delay over time.
pub fn lag_over_time(workload: &str, run: &Run) -> Result<String> {
    let title = format!("Lag of the generator over time: {workload}");
    let frame = time_frame(title, "lag, 99th percentile", &micro, run);
    // A lag of zero everywhere is plotted too.
    let series = [over_time(run, "lag p99", 5, 2, |m| {
        if m.lag_p99_us.is_nan() {
            f64::NAN
        } else {
            m.lag_p99_us.max(0.001)
        }
    })];
    lines(&frame, &series)
}

/// The share of hits over time.
pub fn hits_over_time(workload: &str, run: &Run) -> Result<String> {
    let title = format!("Hits over time: {workload}");
    let percent = |x: &f64| format!("{} %", short(*x));
    let frame = time_frame(title, "keys found", &percent, run);
    let ratio = |m: &IntervalReport| match m.hits + m.misses {
        0 => f64::NAN,
        // No hit at all is plotted too.
        n => (100.0 * m.hits as f64 / n as f64).max(0.001),
    };
    lines(&frame, &[over_time(run, "hits", 2, 2, ratio)])
}

/// Latency by percentile: the axis runs 90 %, 99 %, 99.9 % in equal steps.
pub fn percentiles(workload: &str, run: &Run) -> Result<String> {
    let mut series = Vec::new();
    let kinds = run.kinds.iter().map(|(name, l)| (name.as_str(), l));
    for (i, (name, latency)) in kinds.chain([("(lag)", &run.lag)]).enumerate() {
        let histogram = unpack(&latency.histogram)?;
        let points = histogram
            .iter_quantiles(5)
            .filter(|step| step.quantile_iterated_to() < 1.0)
            .map(|step| {
                let nines = -(1.0 - step.quantile_iterated_to()).log10();
                (nines, (step.value_iterated_to() as f64 / 1e3).max(0.1))
            });
        series.push(Series {
            label: name.to_string(),
            colour: i,
            width: 2,
            points: points.collect(),
        });
    }
    let nines = |x: &f64| match *x {
        x if x <= 0.0 => "0 %".to_string(),
        x if (x - x.round()).abs() > 0.01 => String::new(),
        x => {
            let percent = 100.0 * (1.0 - 10f64.powf(-x));
            let text = format!("{percent:.*}", (x.round() as usize).clamp(1, 8));
            format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
        }
    };
    let frame = Frame {
        title: format!("Latency by percentile: {workload}"),
        x: "percentile",
        y: "latency",
        x_text: &nines,
        y_text: &micro,
        logarithmic: true,
        warmup: None,
    };
    lines(&frame, &series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_labels_keep_both_ends() {
        assert_eq!(shortened("hippos mean", 11), "hippos mean");
        assert_eq!(shortened("hippos-on-seven mean", 11), "hippo… mean");
        assert_eq!(shortened("äöüäöüäöü", 5), "äö…öü");
    }
}
