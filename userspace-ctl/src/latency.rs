// SPDX-License-Identifier: GPL-2.0-only
//! `latency`: how long requests take and wait, by receive path, from `stats hippos_latency`.

use std::fmt::Write as _;
use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use hippos_abi::Section;
use serde_json::{json, Value};

use crate::answer::Answer;
use crate::source::Source;
use crate::stats::Stats;

/// The quantiles in the table and in JSON, in thousandths of the requests.
const QUANTILES: [(&str, u64); 4] = [
    ("p50_ns", 500),
    ("p90_ns", 900),
    ("p99_ns", 990),
    ("p999_ns", 999),
];

/// The times of one receive path: of serving, or of waiting before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// The receive path.
    pub(crate) path: String,
    /// `service` or `queue`.
    pub(crate) measure: String,
    pub(crate) sum_ns: u64,
    max_ns: u64,
    /// The upper bound of each bucket (`None` for the last) and its count.
    buckets: Vec<(Option<u64>, u64)>,
}

impl Times {
    /// All times in the statistics.
    pub(crate) fn read(stats: &Stats) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (name, value) in stats.iter() {
            let words: Vec<_> = name.split(':').collect();
            let [path, measure, field] = words[..] else {
                continue;
            };
            if !all
                .last()
                .is_some_and(|last| last.path == path && last.measure == measure)
            {
                all.push(Self {
                    path: path.to_owned(),
                    measure: measure.to_owned(),
                    ..Self::default()
                });
            }
            let Some(times) = all.last_mut() else {
                continue;
            };
            let number = || value.parse().unwrap_or(0);
            match field.strip_prefix("le_") {
                Some(bound) => times.add(bound.parse().ok(), value),
                None if field == "sum_ns" => times.sum_ns = number(),
                None if field == "max_ns" => times.max_ns = number(),
                None => {}
            }
        }
        all
    }

    /// Adds the buckets of a row: those up to `bound`, from half of it on if there are several.
    fn add(&mut self, bound: Option<u64>, counts: &str) {
        let counts: Vec<u64> = counts
            .split(' ')
            .map(|count| count.parse().unwrap_or(0))
            .collect();
        let steps = counts.len() as u64;
        for (step, count) in (1..).zip(counts) {
            let bound = bound.map(|bound| match steps {
                1 => bound,
                _ => bound / 2 + bound / 2 * step / steps,
            });
            self.buckets.push((bound, count));
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The counts up to each power of two, and beyond the last; bounds in nanoseconds.
    pub(crate) fn powers(&self) -> Vec<(Option<u64>, u64)> {
        let (mut powers, mut below) = (Vec::new(), 0);
        for (bound, count) in &self.buckets {
            below += count;
            if bound.is_none_or(u64::is_power_of_two) {
                powers.push((*bound, below));
                below = 0;
            }
        }
        powers
    }

    /// The time that `of_thousand` of every thousand requests do not exceed, in nanoseconds.
    pub(crate) fn quantile(&self, of_thousand: u64) -> u64 {
        let rank = (u128::from(self.count()) * u128::from(of_thousand)).div_ceil(1000);
        let mut below = 0u128;
        for (bound, count) in &self.buckets {
            below += u128::from(*count);
            if *count != 0 && below >= rank {
                return bound.map_or(self.max_ns, |bound| bound.min(self.max_ns));
            }
        }
        0
    }

    /// The requests since `before`; all of them if the results were reset meanwhile.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for ((_, now), (_, was)) in since.buckets.iter_mut().zip(&before.buckets) {
            match now.checked_sub(*was) {
                Some(grown) => *now = grown,
                None => return self.clone(),
            }
        }
        since.sum_ns = self.sum_ns.saturating_sub(before.sum_ns);
        // The maximum may be from before, but the last bucket has no other bound.
        since.max_ns = match since.quantile(1000) {
            0 => 0,
            _ if self.max_ns > before.max_ns => self.max_ns,
            longest => longest,
        };
        since
    }

    fn json(&self) -> Value {
        let mut json = json!({
            "path": self.path, "measure": self.measure, "count": self.count(), "sum_ns": self.sum_ns,
            "max_ns": self.max_ns,
        });
        for (name, of_thousand) in QUANTILES {
            json[name] = self.quantile(of_thousand).into();
        }
        json
    }
}

/// A time in a readable unit.
pub(crate) fn shown(ns: u64) -> String {
    let of = |unit: u64| ns as f64 / unit as f64;
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} us", of(1_000)),
        _ => format!("{:.1} ms", of(1_000_000)),
    }
}

fn answer(is_on: bool, all: &[Times]) -> Answer {
    let mut text = String::new();
    if !is_on {
        text.push_str("latency is not measured: hippos-ctl latency on\n");
    }
    let rows = all.iter().filter(|times| times.count() != 0);
    let mut is_first = true;
    for times in rows {
        if std::mem::take(&mut is_first) {
            text.push_str(
                "path          measure       count        p50        p90        p99      p99.9        max\n",
            );
        }
        write!(
            text,
            "{:12}  {:7}  {:>10}",
            times.path,
            times.measure,
            times.count()
        )
        .expect("a String takes all");
        let quantiles = QUANTILES.map(|(_, of_thousand)| times.quantile(of_thousand));
        for ns in quantiles.into_iter().chain([times.max_ns]) {
            write!(text, " {:>10}", shown(ns)).expect("a String takes all");
        }
        text.push('\n');
    }
    if is_first && is_on {
        text.push_str("no request was measured yet\n");
    }
    let paths: Vec<_> = all.iter().map(Times::json).collect();
    Answer::new(text, json!({"on": is_on, "paths": paths}))
}

fn ask(source: &Source) -> Result<(bool, Vec<Times>)> {
    let stats = source.stats(Section::Latency)?;
    let is_on = stats.get("hippos_latency") == Some("on");
    Ok((is_on, Times::read(&stats)))
}

/// The results so far.
pub(crate) fn latency(source: &Source) -> Result<Answer> {
    let (is_on, all) = ask(source)?;
    Ok(answer(is_on, &all))
}

/// Prints the results of each interval; ends when its output is closed.
pub(crate) fn watch(
    source: &Source,
    every: Duration,
    is_json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let (_, mut before) = ask(source)?;
    loop {
        thread::sleep(every);
        let (is_on, now) = ask(source)?;
        let since: Vec<_> = now
            .iter()
            .zip(&before)
            .map(|(now, before)| now.since(before))
            .collect();
        let answer = answer(is_on, &since);
        if is_json {
            writeln!(out, "{}", answer.json)?;
        } else {
            writeln!(out, "{}", answer.text)?;
        }
        out.flush()?;
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(counts: &str, above: u64, max: u64) -> Stats {
        Stats::of(&[
            "hippos_latency on",
            "xdp:service:count 9",
            "xdp:service:sum_ns 1000",
            &format!("xdp:service:max_ns {max}"),
            "xdp:service:le_64 1",
            &format!("xdp:service:le_128 {counts}"),
            &format!("xdp:service:le_inf {above}"),
            "udp:queue:sum_ns 0",
            "udp:queue:le_64 0",
        ])
    }

    fn xdp(counts: &str, above: u64, max: u64) -> Times {
        Times::read(&stats(counts, above, max)).remove(0)
    }

    #[test]
    fn rows_become_buckets_with_their_bounds() {
        let all = Times::read(&stats("2 3 0 4", 1, 500));
        assert_eq!(all.len(), 2);
        let times = &all[0];
        assert_eq!(
            (&*times.path, &*times.measure, times.sum_ns, times.count()),
            ("xdp", "service", 1000, 11)
        );
        let (bounds, counts): (Vec<_>, Vec<_>) = times.buckets.iter().copied().unzip();
        let wanted = [Some(64), Some(80), Some(96), Some(112), Some(128), None];
        assert_eq!(bounds, wanted);
        assert_eq!(counts, [1, 2, 3, 0, 4, 1]);
        assert_eq!(times.powers(), [(Some(64), 1), (Some(128), 9), (None, 1)]);
        assert_eq!(all[1].measure, "queue");
    }

    #[test]
    fn quantiles_are_the_bounds_of_their_buckets_and_no_more_than_the_longest() {
        let times = xdp("2 3 0 4", 0, 120);
        assert_eq!(times.quantile(500), 96);
        assert_eq!(times.quantile(990), 120);
        assert_eq!(xdp("0 0 0 0", 1, 5000).quantile(999), 5000);
    }

    #[test]
    fn a_span_of_time_has_only_what_came_in_it() {
        let (before, now) = (xdp("2 3 0 4", 1, 9000), xdp("2 5 0 4", 1, 9000));
        let since = now.since(&before);
        assert_eq!(
            (since.count(), since.quantile(500), since.max_ns),
            (2, 96, 96)
        );
        let longer = xdp("2 3 0 4", 2, 9500).since(&before);
        assert_eq!((longer.count(), longer.max_ns), (1, 9500));
        let forgotten = xdp("0 1 0 0", 0, 90);
        assert_eq!(forgotten.since(&before), forgotten);
    }

    #[test]
    fn an_interval_without_requests_has_no_line() {
        let answer = answer(true, &Times::read(&stats("2 3 0 4", 0, 15_000)));
        let lines: Vec<_> = answer.text.lines().collect();
        assert_eq!(lines.len(), 2, "{}", answer.text);
        assert!(
            lines[1].starts_with("xdp           service          10      96 ns"),
            "{}",
            lines[1]
        );
        assert!(lines[1].ends_with("    15.0 us"), "{}", lines[1]);
        assert_eq!(answer.json["paths"][0]["p50_ns"], 96);
        assert_eq!(answer.json["paths"][1]["count"], 0);
        assert!(super::answer(false, &[]).text.contains("latency on"));
    }
}
