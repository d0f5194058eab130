// SPDX-License-Identifier: GPL-2.0-only
//! Departure times of requests in an open loop: constant gaps, a Poisson process, or a Poisson process with bursts (the
//! paper's section 2.1: short stretches at two to three times the mean rate).

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

const SECOND: f64 = 1e9;

/// The arrival process of one run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// Equal gaps.
    Constant,
    /// Exponentially distributed gaps: independent clients.
    Poisson,
    /// A Poisson process whose rate is `factor` times the mean during the
    /// first `length` seconds of every `period` seconds, and lower in between
    /// so that the mean is kept.
    Burst {
        /// Rate within a burst over the mean rate, above 1.
        factor: f64,
        /// Length of a burst in seconds.
        length: f64,
        /// Seconds from the start of one burst to the next.
        period: f64,
    },
}

impl Arrival {
    /// An error in the parameters, if there is one.
    pub fn check(&self) -> Result<(), String> {
        match *self {
            Arrival::Burst {
                factor,
                length,
                period,
            } => {
                if !(factor > 1.0 && length > 0.0 && period > length) {
                    return Err("bursts want a factor above 1 and a length below the period".into());
                }
                if factor * length > period {
                    return Err(format!(
                        "bursts of {factor} times the rate for {length} s of every {period} s exceed the mean rate"
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The departure times of one worker's requests.
#[derive(Debug)]
pub struct Schedule {
    arrival: Arrival,
    /// Mean gap of this worker's requests, in nanoseconds.
    gap: f64,
    /// The number of requests so far, in units of mean gaps: operational time.
    elapsed: f64,
    rng: SmallRng,
}

impl Schedule {
    /// A share of `1 / workers` of `rate` requests per second, for worker number `worker`.
    pub fn new(arrival: Arrival, rate: f64, worker: usize, workers: usize, seed: u64) -> Self {
        let elapsed = match arrival {
            // Workers alternate, so that together their requests are evenly spaced.
            Arrival::Constant => worker as f64 / workers as f64 - 1.0,
            _ => 0.0,
        };
        let rng = SmallRng::seed_from_u64(seed ^ crate::payload::mix(worker as u64 + 1));
        Self {
            arrival,
            gap: SECOND * workers as f64 / rate,
            elapsed,
            rng,
        }
    }

    /// The next departure, in nanoseconds since the start of the run.
    pub fn departure(&mut self) -> u64 {
        self.elapsed += match self.arrival {
            Arrival::Constant => 1.0,
            _ => {
                let u: f64 = self.rng.random();
                -(1.0 - u).ln()
            }
        };
        let even = self.elapsed * self.gap;
        match self.arrival {
            Arrival::Burst {
                factor,
                length,
                period,
            } => burst_time(even, factor, length * SECOND, period * SECOND) as u64,
            _ => even as u64,
        }
    }
}

impl Schedule {
    /// Continues at `time`, without the departures before it; returns how many these are at the mean rate.
    pub fn jump(&mut self, time: u64) -> u64 {
        let even = match self.arrival {
            Arrival::Burst {
                factor,
                length,
                period,
            } => even_time(time as f64, factor, length * SECOND, period * SECOND),
            _ => time as f64,
        };
        let passed = even / self.gap - self.elapsed;
        if passed < 1.0 {
            return 0;
        }
        self.elapsed += passed.floor();
        passed as u64
    }
}

/// The inverse of [`burst_time`].
fn even_time(bent: f64, factor: f64, length: f64, period: f64) -> f64 {
    let whole = (bent / period).floor() * period;
    let within = bent - whole;
    if within <= length {
        return whole + within * factor;
    }
    let in_burst = factor * length;
    let rest = (period - in_burst) / (period - length);
    whole + in_burst + (within - length) * rest
}

/// Maps a time of the even process to the bursty one's: within each period the
/// first `length` carry `factor` times the mean rate.
fn burst_time(even: f64, factor: f64, length: f64, period: f64) -> f64 {
    let whole = (even / period).floor() * period;
    let within = even - whole;
    let in_burst = factor * length;
    if within <= in_burst {
        return whole + within / factor;
    }
    let rest = (period - in_burst) / (period - length);
    whole + length + (within - in_burst) / rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrival: Arrival, rate: f64, n: usize) -> Vec<u64> {
        let mut schedule = Schedule::new(arrival, rate, 0, 1, 42);
        (0..n).map(|_| schedule.departure()).collect()
    }

    #[test]
    fn a_jump_passes_over_the_mean_number() {
        let bursts = Arrival::Burst {
            factor: 2.5,
            length: 0.1,
            period: 1.0,
        };
        for arrival in [Arrival::Constant, Arrival::Poisson, bursts] {
            let mut schedule = Schedule::new(arrival, 1000.0, 0, 1, 1);
            let passed = schedule.jump(7_000_000_000);
            assert!(passed.abs_diff(7000) <= 1, "{arrival:?}: {passed}");
            let next = schedule.departure();
            assert!(
                next.abs_diff(7_000_000_000) < 50_000_000,
                "{arrival:?}: {next}"
            );
        }
        for time in [0.0, 0.05, 0.1, 0.3, 0.99, 4.2] {
            let there = even_time(time, 2.5, 0.1, 1.0);
            assert!(
                (burst_time(there, 2.5, 0.1, 1.0) - time).abs() < 1e-9,
                "{time}"
            );
        }
    }

    #[test]
    fn constant_gaps_interleave_over_workers() {
        let mut all: Vec<u64> = (0..4)
            .flat_map(|worker| {
                let mut schedule = Schedule::new(Arrival::Constant, 1000.0, worker, 4, 1);
                (0..10)
                    .map(move |_| schedule.departure())
                    .collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable();
        assert!(
            all.windows(2)
                .all(|w| (w[1] - w[0]).abs_diff(1_000_000) <= 1),
            "{all:?}"
        );
    }

    #[test]
    fn poisson_keeps_the_mean_and_the_variance() {
        let n = 200_000;
        let t = times(Arrival::Poisson, 50_000.0, n);
        let mean = *t.last().unwrap() as f64 / n as f64;
        assert!((mean / 20_000.0 - 1.0).abs() < 0.01, "mean gap {mean} ns");
        let gaps: Vec<f64> = t.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!(
            (variance.sqrt() / mean - 1.0).abs() < 0.02,
            "deviation over mean {}",
            variance.sqrt() / mean
        );
    }

    #[test]
    fn bursts_have_their_rate_and_keep_the_mean() {
        let arrival = Arrival::Burst {
            factor: 3.0,
            length: 0.1,
            period: 1.0,
        };
        arrival.check().unwrap();
        let n = 400_000;
        let t = times(arrival, 20_000.0, n);
        let seconds = *t.last().unwrap() as f64 / SECOND;
        assert!((n as f64 / seconds / 20_000.0 - 1.0).abs() < 0.01);
        let inside = t
            .iter()
            .filter(|t| **t % 1_000_000_000 < 100_000_000)
            .count();
        let share = inside as f64 / n as f64;
        assert!(
            (share - 0.3).abs() < 0.01,
            "{share} of the requests in a tenth of the time"
        );
        assert!(t.windows(2).all(|w| w[0] <= w[1]));
    }

    #[test]
    fn impossible_bursts_are_refused() {
        assert!(Arrival::Burst {
            factor: 3.0,
            length: 0.5,
            period: 1.0
        }
        .check()
        .is_err());
        assert!(Arrival::Burst {
            factor: 0.5,
            length: 0.1,
            period: 1.0
        }
        .check()
        .is_err());
    }
}
