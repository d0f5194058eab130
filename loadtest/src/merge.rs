// SPDX-License-Identifier: GPL-2.0-only
//! One report of several generators that ran at the same time.

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};

use crate::report::{unpack, IntervalReport, Latency, Report, Run};
use crate::stats::{histogram, Counters};

/// Merges reports of runs of the same kind: rates and counts are sums, percentiles are those of all requests together.
pub fn merge(reports: &[Report]) -> Result<Report> {
    let first = reports.first().context("no report is named")?;
    let start = reports
        .iter()
        .map(|report| report.started)
        .fold(f64::MAX, f64::min);
    for report in reports {
        ensure!(
            report.runs.len() == first.runs.len() && report.command == first.command,
            "reports of {} and {} are incompatible",
            first.command,
            report.command
        );
    }
    for (i, report) in reports.iter().enumerate() {
        let part = report.settings.part;
        ensure!(
            part.of == first.settings.part.of,
            "parts of {} and of {} are incompatible",
            first.settings.part.of,
            part.of
        );
        ensure!(
            part.of == 1 || reports[..i].iter().all(|other| other.settings.part != part),
            "part {}/{} is there twice",
            part.number,
            part.of
        );
    }
    let mut whole = first.clone();
    whole.started = start;
    whole.processors = reports.iter().map(|report| report.processors).sum();
    whole.peak = None;
    whole.fill = None;
    whole.settings.part = Default::default();
    whole.settings.threads = reports.iter().map(|report| report.settings.threads).sum();
    if let Some(bad) = reports.iter().find(|report| report.outcome != "complete") {
        whole.outcome = bad.outcome.clone();
    }
    whole.runs = (0..first.runs.len())
        .map(|at| {
            let runs: Vec<(f64, &Run)> = reports
                .iter()
                .map(|report| (report.started - start, &report.runs[at]))
                .collect();
            merge_runs(&runs)
        })
        .collect::<Result<_>>()?;
    Ok(whole)
}

fn merge_runs(runs: &[(f64, &Run)]) -> Result<Run> {
    let mut whole = runs.first().context("no run")?.1.clone();
    let sum = |value: fn(&Run) -> f64| runs.iter().map(|(_, run)| value(run)).sum::<f64>();
    whole.seconds = runs.iter().map(|(_, run)| run.seconds).fold(0.0, f64::max);
    whole.offered_per_second = sum(|run| run.offered_per_second);
    whole.answered_per_second = sum(|run| run.answered_per_second);
    whole.cpu_seconds = sum(|run| run.cpu_seconds);
    whole.counters = Counters::default();
    whole.errors = BTreeMap::new();
    let mut names: Vec<&String> = Vec::new();
    for (_, run) in runs {
        whole.counters.add(&run.counters);
        for (text, n) in &run.errors {
            *whole.errors.entry(text.clone()).or_default() += n;
        }
        names.extend(run.kinds.keys());
    }
    let asked = whole.counters.hits + whole.counters.misses;
    whole.hit_ratio = (asked > 0).then(|| whole.counters.hits as f64 / asked as f64);
    whole.latency = latency(runs.iter().map(|(_, run)| &run.latency))?;
    whole.lag = latency(runs.iter().map(|(_, run)| &run.lag))?;
    names.sort();
    names.dedup();
    whole.kinds = names
        .into_iter()
        .map(|name| {
            let kinds = runs.iter().filter_map(|(_, run)| run.kinds.get(name));
            Ok((name.clone(), latency(kinds)?))
        })
        .collect::<Result<_>>()?;
    whole.timeline = timeline(runs)?;
    Ok(whole)
}

fn latency<'a>(parts: impl Iterator<Item = &'a Latency>) -> Result<Latency> {
    let (mut all, mut unanswered) = (histogram(), histogram());
    for part in parts {
        let histogram = unpack(&part.histogram)?;
        ensure!(
            histogram.len() == part.count,
            "a report holds no histograms: it was written by an older hippos-load"
        );
        all.add(histogram)?;
        unanswered.add(unpack(&part.unanswered_histogram)?)?;
    }
    Ok(Latency::bounded(&all, &unanswered))
}

/// The intervals of all runs, matched by their time.
fn timeline(runs: &[(f64, &Run)]) -> Result<Vec<IntervalReport>> {
    let mut at: BTreeMap<i64, Vec<&IntervalReport>> = BTreeMap::new();
    let mut length = 1.0;
    for (shift, run) in runs {
        for moment in &run.timeline {
            length = moment.seconds;
            let index = ((shift + moment.at) / length).round() as i64;
            at.entry(index).or_default().push(moment);
        }
    }
    at.into_iter()
        .map(|(index, parts)| {
            let sum = |value: fn(&IntervalReport) -> u64| parts.iter().map(|m| value(m)).sum();
            let mut all = histogram();
            for part in &parts {
                all.add(unpack(&part.histogram)?)?;
            }
            let latency = Latency::of(&all);
            Ok(IntervalReport {
                at: index as f64 * length,
                seconds: length,
                warmup: parts.iter().all(|m| m.warmup),
                sent: sum(|m| m.sent),
                answered: sum(|m| m.answered),
                errors: sum(|m| m.errors),
                timeouts: sum(|m| m.timeouts),
                hits: sum(|m| m.hits),
                misses: sum(|m| m.misses),
                mean_us: latency.mean_us,
                p50_us: latency.p50_us,
                p99_us: latency.p99_us,
                p99_9_us: latency.p99_9_us,
                lag_p99_us: parts.iter().map(|m| m.lag_p99_us).fold(f64::NAN, f64::max),
                histogram: latency.histogram,
            })
        })
        .collect()
}
