// SPDX-License-Identifier: GPL-2.0-only
//! Many runs of one workload: the search for peak throughput, and sweeps over rates.

use std::time::Duration;

use crate::arrival::Arrival;
use crate::report::{Pace, Peak, Run};
use crate::session::{Load, Session, Watch};
use crate::settings::Failure;

/// The bounds of a search for the highest rate.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// Bound on the mean latency (the paper's measure: 1 ms).
    pub bound: Duration,
    /// Bound on the share of requests that are lost or answered with errors.
    pub loss: f64,
    /// First rate that is tried, requests a second.
    pub start: f64,
    /// Highest rate that is tried.
    pub max: f64,
    /// Factor between rates until one passes and one fails; more than 1.
    pub stride: f64,
    /// The search ends when the lowest failing rate is this close to the highest passing rate, as a share of the
    /// latter.
    pub precision: f64,
    /// The distribution of requests over time.
    pub arrival: Arrival,
    /// Warm-up of each step.
    pub warmup: Duration,
    /// Length of each step.
    pub step: Duration,
}

impl Search {
    /// Whether a run is within the bounds and reached the offered rate.
    pub fn passes(&self, run: &Run) -> bool {
        run.latency.count > 0
            && run.latency.mean_answered_us <= self.bound.as_secs_f64() * 1e6
            && run.loss() <= self.loss
            && run.answered_per_second >= 0.95 * run.offered_per_second
    }

    fn load(&self, rate: f64) -> Load {
        Load {
            pace: Pace::Open {
                rate,
                arrival: self.arrival,
            },
            warmup: self.warmup,
            duration: Some(self.step),
            requests: None,
            interval: Duration::from_secs(1),
        }
    }

    fn outcome(&self, best: Option<&Run>) -> Peak {
        Peak {
            bound_us: self.bound.as_secs_f64() * 1e6,
            bound_loss: self.loss,
            offered_per_second: best.map_or(0.0, |run| run.offered_per_second),
            answered_per_second: best.map_or(0.0, |run| run.answered_per_second),
            mean_us: best.map_or(0.0, |run| run.latency.mean_answered_us),
        }
    }
}

/// The most steps of one search: doubling from any start over three decades, then halving the gap.
const STEPS: usize = 40;

/// Attempts at one rate before it counts as failed.
const ATTEMPTS: u64 = 4;

/// Searches for peak throughput; returns every step in order, and the peak.
pub fn peak(
    session: &mut Session,
    search: &Search,
    seed: u64,
    watch: &mut dyn Watch,
) -> (Vec<Run>, Peak, Option<Failure>) {
    let mut runs: Vec<Run> = Vec::new();
    let mut best: Option<usize> = None;
    let failure = bisect(search, |rate| {
        // One bad second is not decisive: a rate fails after two failures, which do not count while the generator
        // itself is late.
        let mut failed = 0;
        for attempt in 0..ATTEMPTS {
            let (run, failure) = session.run(
                &search.load(rate),
                seed ^ runs.len() as u64 ^ attempt << 48,
                watch,
            );
            let passes = search.passes(&run);
            runs.push(run);
            match failure {
                Some(failure @ (Failure::Wrong(_) | Failure::Input(_) | Failure::Interrupted)) => {
                    return Err(failure)
                }
                // No reply at this rate: it is too high, but the server may still work.
                Some(failure) if runs.len() == 1 => return Err(failure),
                _ => {}
            }
            if passes {
                best = Some(runs.len() - 1);
                return Ok(true);
            }
            let Some(run) = runs.last() else { break };
            if run.lag.mean_us < search.bound.as_secs_f64() * 5e5 {
                failed += if is_far_beyond(run, search) { 2 } else { 1 };
            }
            if failed >= 2 {
                break;
            }
        }
        Ok(false)
    })
    .err();
    let peak = search.outcome(best.map(|at| &runs[at]));
    (runs, peak, failure)
}

/// So far beyond the bounds that a second attempt is useless.
fn is_far_beyond(run: &Run, search: &Search) -> bool {
    run.latency.mean_answered_us > 10.0 * search.bound.as_secs_f64() * 1e6
        || run.loss() > 10.0 * search.loss.max(0.005)
}

/// Finds the highest passing rate: increases by the stride, or decreases by its square, until there is a passing and a
/// failing rate, then narrows the gap.
fn bisect<E>(
    search: &Search,
    mut passes: impl FnMut(f64) -> Result<bool, E>,
) -> Result<Option<f64>, E> {
    let (mut low, mut high): (Option<f64>, Option<f64>) = (None, None);
    let mut rate = search.start.min(search.max);
    for _ in 0..STEPS {
        if passes(rate)? {
            low = Some(rate);
        } else {
            high = Some(rate);
        }
        rate = match (low, high) {
            (Some(low), Some(high)) if high / low <= 1.0 + search.precision => break,
            (Some(low), Some(high)) => (low * high).sqrt(),
            (Some(low), None) if low >= search.max => break,
            (Some(low), None) => (low * search.stride).min(search.max),
            (None, Some(high)) if high < 1.0 => break,
            (None, Some(high)) => high / search.stride.powi(2),
            (None, None) => break,
        };
    }
    Ok(low)
}

/// Runs the workload at each of the rates in turn.
pub fn sweep(
    session: &mut Session,
    search: &Search,
    rates: &[f64],
    seed: u64,
    watch: &mut dyn Watch,
) -> (Vec<Run>, Option<Failure>) {
    let mut runs = Vec::new();
    for (i, rate) in rates.iter().enumerate() {
        let (run, failure) = session.run(&search.load(*rate), seed ^ i as u64, watch);
        runs.push(run);
        if failure.is_some() {
            return (runs, failure);
        }
    }
    (runs, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(start: f64, max: f64) -> Search {
        Search {
            bound: Duration::from_millis(1),
            loss: 0.001,
            start,
            max,
            stride: 2.0,
            precision: 0.05,
            arrival: Arrival::Poisson,
            warmup: Duration::ZERO,
            step: Duration::ZERO,
        }
    }

    fn found(start: f64, max: f64, limit: f64) -> (Option<f64>, usize) {
        let mut steps = 0;
        let best = bisect::<()>(&search(start, max), |rate| {
            steps += 1;
            Ok(rate <= limit)
        });
        (best.unwrap(), steps)
    }

    #[test]
    fn the_highest_passing_rate_is_found_from_below_and_above() {
        for limit in [1_500.0, 10_000.0, 123_456.0, 5_000_000.0] {
            let (best, steps) = found(10_000.0, 1e9, limit);
            let best = best.unwrap();
            assert!(best <= limit && best >= limit / 1.05, "{best} for {limit}");
            assert!(steps < 20, "{steps} steps");
        }
    }

    #[test]
    fn a_good_guess_and_a_short_stride_save_steps() {
        let near = Search {
            stride: 1.2,
            ..search(9_000.0, 1e9)
        };
        let mut steps = 0;
        let best = bisect::<()>(&near, |rate| {
            steps += 1;
            Ok(rate <= 10_000.0)
        });
        assert!(best.unwrap().unwrap() >= 10_000.0 / 1.05);
        assert!(steps < found(1_000.0, 1e9, 10_000.0).1, "{steps} steps");
    }

    #[test]
    fn the_search_ends_at_the_maximum_and_with_nothing() {
        assert_eq!(found(1000.0, 50_000.0, 1e9).0, Some(50_000.0));
        assert_eq!(found(1000.0, 1e6, 0.0).0, None);
    }
}
