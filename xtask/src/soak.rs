// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask soak`: load, faults at random, and memory over the hours.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use plotters::prelude::*;

use crate::target::Selection;
use crate::{single_test, workspace};

/// The figures of the plot, and by how many bytes each may be higher at the end than after a quarter.
const FIGURES: &[(&str, f64, f64)] = &[
    // Name in a sample, sign (free memory falls when something leaks), bytes.
    ("slab", 1.0, 4.0e6),
    ("free", -1.0, 24.0e6),
    ("percpu", 1.0, 1.0e6),
];

/// The interval of progress messages, in minutes.
const TELL: f64 = 5.0;

/// Put mixed load on a guest for a while, with faults at random, and see that memory stays flat.
///
/// Clients over TCP and UDP, from loopback and from a namespace, check every
/// value that they read; meanwhile cards go down, addresses and CPUs come and
/// go, the cache is resized and flushed. The report, with a plot, lies in
/// target/soak.
#[derive(clap::Args)]
pub(crate) struct SoakArgs {
    /// How long
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Where chance begins
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// On the debug kernel
    #[arg(long)]
    debug_kernel: bool,
}

/// One line of the guest's: names and numbers.
#[derive(Clone, Debug, PartialEq)]
struct Sample(Vec<(String, f64)>);

impl Sample {
    fn read(line: &str) -> Option<Self> {
        let pairs = line.strip_prefix("sample ")?.split(' ').map(|pair| {
            let (name, number) = pair.split_once('=')?;
            Some((name.to_owned(), number.parse().ok()?))
        });
        pairs.collect::<Option<_>>().map(Sample)
    }

    fn get(&self, name: &str) -> f64 {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or(f64::NAN, |(_, number)| *number)
    }
}

/// Runs it; gives our exit status.
pub(crate) fn soak(args: &SoakArgs, selection: &Selection) -> Result<u8> {
    let home = workspace::root().join("target/soak");
    fs::create_dir_all(&home)?;
    let mut kept = fs::File::create(home.join("samples"))?;
    let seconds = args.minutes * 60;
    let limit = Duration::from_secs(seconds * 2 + 900);
    let test = format!("soak::run_for {seconds} {}", args.seed);
    let mut logged = 0.0;
    let done = single_test::run(selection, args.debug_kernel, &test, limit, |line| {
        // After an interruption, the samples so far are in the file.
        let _ = writeln!(kept, "{line}");
        let minutes = Sample::read(line).map_or(0.0, |sample| sample.get("seconds") / 60.0);
        if minutes >= logged + TELL {
            logged = minutes;
            println!("{minutes:.0} minutes");
        }
    })?;
    let samples: Vec<Sample> = done
        .lines
        .iter()
        .filter_map(|line| Sample::read(line))
        .collect();
    let last = samples.last().context("no samples")?;
    draw(&samples, &home.join("memory.svg"))?;
    for line in done
        .lines
        .iter()
        .filter(|line| !line.starts_with("sample "))
    {
        println!("{line}");
    }
    println!(
        "{} minutes on {}: {} sets, {} gets, {} evictions, {} connections, {} faults; {}",
        args.minutes,
        done.release,
        last.get("cmd_set"),
        last.get("cmd_get"),
        last.get("evictions"),
        last.get("total_connections"),
        last.get("faults"),
        home.join("memory.svg").display()
    );
    flat(&samples)?;
    Ok(0)
}

/// Whether no figure is higher at the end than after warm-up, by more than noise.
fn flat(samples: &[Sample]) -> Result<()> {
    let quarter = samples.len() / 4;
    ensure!(quarter > 0, "{} samples are too few", samples.len());
    for (name, sign, most) in FIGURES {
        let median = |part: &[Sample]| {
            let mut values: Vec<f64> = part.iter().map(|sample| sample.get(name)).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let early = median(&samples[quarter..2 * quarter]);
        let late = median(&samples[samples.len() - quarter..]);
        let growth = (late - early) * sign;
        println!(
            "{name}: {:.1} MB after warm-up, {:.1} MB at the end",
            early / 1e6,
            late / 1e6
        );
        ensure!(growth < *most, "{name} grew by {:.1} MB", growth / 1e6);
    }
    Ok(())
}

/// Memory over time, a chart for each figure.
fn draw(samples: &[Sample], path: &Path) -> Result<()> {
    let end = samples.last().map_or(1.0, |sample| sample.get("seconds")) / 60.0;
    let whole = SVGBackend::new(path, (800, 540)).into_drawing_area();
    whole.fill(&WHITE)?;
    for ((name, ..), area) in FIGURES.iter().zip(whole.split_evenly((FIGURES.len(), 1))) {
        let points: Vec<_> = samples
            .iter()
            .map(|sample| (sample.get("seconds") / 60.0, sample.get(name) / 1e6))
            .collect();
        let top = points.iter().fold(1.0, |top: f64, point| top.max(point.1));
        let what = match *name {
            "slab" => "slab objects that can't be reclaimed",
            "free" => "free memory",
            "percpu" => "per-CPU memory",
            other => other,
        };
        let mut chart = ChartBuilder::on(&area)
            .caption(format!("{what}, MB"), ("sans-serif", 14))
            .margin(8)
            .x_label_area_size(30)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..end.max(0.1), 0.0..top * 1.2)?;
        chart
            .configure_mesh()
            .x_desc("minutes of load and faults")
            .y_labels(4)
            .light_line_style(WHITE)
            .draw()?;
        chart.draw_series(LineSeries::new(points, &BLUE))?;
    }
    whole.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(growth: f64) -> Vec<Sample> {
        (0..40)
            .map(|n| {
                let line = format!(
                    "sample seconds={n} slab={} free=1e8 percpu=0",
                    growth * f64::from(n)
                );
                Sample::read(&line).unwrap()
            })
            .collect()
    }

    #[test]
    fn growth_is_detected() {
        assert!(flat(&samples(1e3)).is_ok());
        assert!(flat(&samples(1e6)).is_err());
        assert!(flat(&samples(1e3)[..3]).is_err());
        assert_eq!(Sample::read("round 3"), None);
    }
}
