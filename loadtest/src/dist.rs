// SPDX-License-Identifier: GPL-2.0-only
//! Distributions of the lengths of keys and values, and of the popularity of keys.
//!
//! Sizes are given by their quantile function, so that a key's length and its value's length follow from the key alone
//! (see [`crate::workload::Model`]): the workload determines every correct reply.

use rand::distr::Distribution;
use rand::Rng;
use rand_distr::Zipf;
use serde::Deserialize;

/// A distribution of sizes, in bytes (or of keys in a multi-key GET).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sizes {
    /// Always the same size.
    Constant(u32),
    /// Every size from the first to the second, both included.
    Uniform(u32, u32),
    /// One of these `[size, weight]` pairs.
    Choice(Vec<(u32, f64)>),
    /// Generalised extreme value distribution.
    Gev(Shape),
    /// Generalised Pareto distribution.
    Pareto(Shape),
    /// Powers spread evenly: the logarithm of the size is uniform.
    LogUniform(u32, u32),
    /// The quantile function itself, as `[probability, size]` points with
    /// straight lines between them; the first probability is 0, the last 1.
    Quantiles(Vec<(f64, f64)>),
    /// A weighted sum of other distributions.
    Mixture(Vec<Part>),
}

/// Parameters of [`Sizes::Gev`] and [`Sizes::Pareto`], in the usual notation:
/// location mu (or theta), scale sigma, shape xi (or k, not zero), and the
/// bounds to which samples are cut.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Shape {
    pub location: f64,
    pub scale: f64,
    pub shape: f64,
    #[serde(default)]
    pub min: u32,
    pub max: u32,
}

/// One component of a [`Sizes::Mixture`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Relative to the sum of all weights.
    pub weight: f64,
    /// The component.
    pub size: Sizes,
}

impl Sizes {
    /// The size below which a share `u` (0 up to but not including 1) of all samples lies.
    pub fn quantile(&self, u: f64) -> u32 {
        match self {
            Sizes::Constant(size) => *size,
            Sizes::Uniform(min, max) => min + (u * f64::from(max - min + 1)) as u32,
            Sizes::Choice(sizes) => pick(sizes.iter().map(|(size, weight)| (size, *weight)), u)
                .map_or(0, |(size, _)| *size),
            Sizes::Gev(s) => {
                // The open interval: at 0 the logarithm has no value.
                let x = (-(u.max(1e-12)).ln()).powf(-s.shape);
                s.cut(s.location + s.scale * (x - 1.0) / s.shape)
            }
            Sizes::Pareto(s) => {
                let x = (1.0 - u).powf(-s.shape);
                s.cut(s.location + s.scale * (x - 1.0) / s.shape)
            }
            Sizes::LogUniform(min, max) => {
                let (min, max) = (f64::from(*min), f64::from(*max));
                (min * (max / min).powf(u)) as u32
            }
            Sizes::Quantiles(points) => {
                let above = points
                    .partition_point(|(p, _)| *p <= u)
                    .clamp(1, points.len() - 1);
                let ((p0, x0), (p1, x1)) = (points[above - 1], points[above]);
                let along = if p1 > p0 { (u - p0) / (p1 - p0) } else { 0.0 };
                (x0 + (x1 - x0) * along).round() as u32
            }
            Sizes::Mixture(parts) => {
                match pick(parts.iter().map(|part| (&part.size, part.weight)), u) {
                    Some((size, rest)) => size.quantile(rest),
                    None => 0,
                }
            }
        }
    }

    /// The largest size that a sample can have.
    pub fn max(&self) -> u32 {
        match self {
            Sizes::Constant(size) => *size,
            Sizes::Uniform(_, max) | Sizes::LogUniform(_, max) => *max,
            Sizes::Choice(sizes) => sizes.iter().map(|(size, _)| *size).max().unwrap_or(0),
            Sizes::Gev(s) | Sizes::Pareto(s) => s.max,
            Sizes::Quantiles(points) => points
                .iter()
                .map(|(_, size)| size.round() as u32)
                .max()
                .unwrap_or(0),
            Sizes::Mixture(parts) => parts.iter().map(|part| part.size.max()).max().unwrap_or(0),
        }
    }

    /// An error in the parameters, if there is one.
    pub fn check(&self) -> Result<(), String> {
        let fail = |what: &str| Err(what.to_string());
        match self {
            Sizes::Constant(_) => Ok(()),
            Sizes::Uniform(min, max) if min > max => {
                fail("uniform: the minimum is above the maximum")
            }
            Sizes::Uniform(..) => Ok(()),
            Sizes::LogUniform(min, max) if *min == 0 || min > max => {
                fail("log-uniform: wants 0 < minimum <= maximum")
            }
            Sizes::LogUniform(..) => Ok(()),
            Sizes::Choice(sizes) => check_weights("choice", sizes.iter().map(|(_, w)| *w)),
            Sizes::Gev(s) | Sizes::Pareto(s) => {
                if s.shape == 0.0 || s.scale <= 0.0 || s.min > s.max {
                    return fail(
                        "gev, pareto: want a shape other than 0, a positive scale and min <= max",
                    );
                }
                Ok(())
            }
            Sizes::Quantiles(points) => {
                let ends = (points.first().map(|p| p.0), points.last().map(|p| p.0));
                if points.len() < 2 || ends != (Some(0.0), Some(1.0)) {
                    return fail("quantiles: want at least two points, from probability 0 to 1");
                }
                if points
                    .windows(2)
                    .any(|w| w[0].0 > w[1].0 || w[0].1 > w[1].1)
                    || points[0].1 < 0.0
                {
                    return fail("quantiles: the points must not fall");
                }
                Ok(())
            }
            Sizes::Mixture(parts) => {
                check_weights("mixture", parts.iter().map(|part| part.weight))?;
                parts.iter().try_for_each(|part| part.size.check())
            }
        }
    }
}

impl Shape {
    fn cut(&self, x: f64) -> u32 {
        x.clamp(f64::from(self.min), f64::from(self.max)) as u32
    }
}

/// The component in which the share `u` of the total weight ends, and the position of `u` within it.
fn pick<T>(parts: impl Iterator<Item = (T, f64)> + Clone, u: f64) -> Option<(T, f64)> {
    let total: f64 = parts.clone().map(|(_, weight)| weight).sum();
    let mut left = u * total;
    let mut last = None;
    for (part, weight) in parts {
        if left < weight {
            return Some((part, left / weight));
        }
        left -= weight;
        last = Some((part, 1.0 - f64::EPSILON));
    }
    last
}

fn check_weights(kind: &str, weights: impl Iterator<Item = f64>) -> Result<(), String> {
    let mut total = 0.0;
    for weight in weights {
        if weight.is_nan() || weight < 0.0 {
            return Err(format!("{kind}: a weight is negative"));
        }
        total += weight;
    }
    if total > 0.0 {
        Ok(())
    } else {
        Err(format!("{kind}: the weights sum to nothing"))
    }
}

/// The distribution of requests over keys; rank 0 is the most popular key.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Popularity {
    /// All keys equally.
    Uniform,
    /// Zipf's law with this exponent.
    Zipf(f64),
    /// Cumulative shares: `[share of keys, share of requests]`, most popular
    /// first, both rising to 1; within a segment a key's share falls with the
    /// inverse of its rank.
    Curve(Vec<(f64, f64)>),
}

impl Popularity {
    /// An error in the parameters, if there is one.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Popularity::Uniform => Ok(()),
            Popularity::Zipf(s) if *s > 0.0 && s.is_finite() => Ok(()),
            Popularity::Zipf(_) => Err("zipf: the exponent must be positive".into()),
            Popularity::Curve(points) => {
                let rises = points
                    .windows(2)
                    .all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1);
                let starts = points.first().is_some_and(|p| p.0 > 0.0 && p.1 > 0.0);
                if rises && starts && points.last() == Some(&(1.0, 1.0)) {
                    Ok(())
                } else {
                    Err("curve: the points must rise from above [0, 0] to [1, 1]".into())
                }
            }
        }
    }

    /// The share of the requests for the most popular `keys` of all `count` keys.
    pub fn share(&self, keys: f64, count: u64) -> f64 {
        match self {
            Popularity::Uniform => keys,
            Popularity::Zipf(s) => {
                // The harmonic numbers are approximated by their integral, exact enough beyond the first hundred ranks.
                let harmonic = |n: f64| {
                    let head = (n as u64).min(100);
                    let sum: f64 = (1..=head).map(|k| (k as f64).powf(-s)).sum();
                    let (a, b) = (head as f64 + 0.5, n + 0.5);
                    match b > a {
                        false => sum,
                        true if (s - 1.0).abs() < 1e-9 => sum + (b / a).ln(),
                        true => sum + (b.powf(1.0 - s) - a.powf(1.0 - s)) / (1.0 - s),
                    }
                };
                harmonic(keys * count as f64) / harmonic(count as f64)
            }
            Popularity::Curve(points) => {
                let mut before = (0.0, 0.0);
                for point in points {
                    if keys <= point.0 {
                        let (r0, r1) =
                            (before.0 * count as f64 + 1.0, point.0 * count as f64 + 1.0);
                        let along = ((keys * count as f64 + 1.0) / r0).ln() / (r1 / r0).ln();
                        return before.1 + (point.1 - before.1) * along;
                    }
                    before = *point;
                }
                1.0
            }
        }
    }

    /// A sampler of ranks below `count`, which must not be 0.
    pub fn sampler(&self, count: u64) -> Ranks {
        match self {
            Popularity::Uniform => Ranks::Uniform(count),
            Popularity::Zipf(exponent) => match Zipf::new(count as f64, *exponent) {
                Ok(zipf) => Ranks::Zipf(zipf, count),
                Err(_) => Ranks::Uniform(count),
            },
            Popularity::Curve(points) => {
                let mut segments = vec![(1.0, 0.0)];
                segments.extend(
                    points
                        .iter()
                        .map(|(keys, share)| (keys * count as f64 + 1.0, *share)),
                );
                Ranks::Curve(segments, count)
            }
        }
    }
}

/// Draws key ranks; made by [`Popularity::sampler`].
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Ranks {
    Uniform(u64),
    Zipf(Zipf<f64>, u64),
    /// `(rank + 1, cumulative share)` at the ends of the segments.
    Curve(Vec<(f64, f64)>, u64),
}

impl Ranks {
    /// The next rank.
    pub fn sample(&self, rng: &mut impl Rng) -> u64 {
        match self {
            Ranks::Uniform(count) => rng.random_range(0..*count),
            Ranks::Zipf(zipf, count) => (zipf.sample(rng) as u64).clamp(1, *count) - 1,
            Ranks::Curve(segments, count) => {
                let u: f64 = rng.random();
                let above = segments
                    .partition_point(|(_, share)| *share <= u)
                    .clamp(1, segments.len() - 1);
                let ((r0, s0), (r1, s1)) = (segments[above - 1], segments[above]);
                let rank = r0 * (r1 / r0).powf((u - s0) / (s1 - s0));
                (rank as u64).clamp(1, *count) - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::SeedableRng;

    #[test]
    fn quantiles_interpolate() {
        let sizes = Sizes::Quantiles(vec![(0.0, 10.0), (0.5, 20.0), (1.0, 100.0)]);
        sizes.check().unwrap();
        assert_eq!(sizes.quantile(0.0), 10);
        assert_eq!(sizes.quantile(0.25), 15);
        assert_eq!(sizes.quantile(0.5), 20);
        assert_eq!(sizes.quantile(0.75), 60);
        assert_eq!(sizes.quantile(0.999_999), 100);
        assert_eq!(sizes.max(), 100);
    }

    #[test]
    fn uniform_reaches_both_ends_and_no_further() {
        let sizes = Sizes::Uniform(3, 5);
        assert_eq!(sizes.quantile(0.0), 3);
        assert_eq!(sizes.quantile(0.999_999_9), 5);
    }

    #[test]
    fn gev_and_pareto_match_closed_forms() {
        // Median of GEV: mu + sigma ((ln 2)^-xi - 1) / xi.
        let gev = Sizes::Gev(Shape {
            location: 30.7984,
            scale: 8.20449,
            shape: 0.078688,
            min: 1,
            max: 250,
        });
        assert_eq!(gev.quantile(0.5), 33);
        assert_eq!(gev.quantile(0.99), 76);
        let pareto = Sizes::Pareto(Shape {
            location: 0.0,
            scale: 214.476,
            shape: 0.348238,
            min: 0,
            max: 1 << 20,
        });
        // sigma (2^xi - 1) / xi
        assert_eq!(pareto.quantile(0.5), 168);
        assert_eq!(pareto.quantile(0.0), 0);
        assert!(pareto.quantile(1.0 - 1e-16) <= 1 << 20);
    }

    #[test]
    fn mixture_keeps_its_weights() {
        let sizes = Sizes::Mixture(vec![
            Part {
                weight: 1.0,
                size: Sizes::Constant(1),
            },
            Part {
                weight: 3.0,
                size: Sizes::Uniform(10, 19),
            },
        ]);
        let n = 10_000;
        let ones = (0..n)
            .filter(|i| sizes.quantile(f64::from(*i) / f64::from(n)) == 1)
            .count();
        assert_eq!(ones, 2500);
        assert_eq!(sizes.quantile(0.25), 10);
        assert_eq!(sizes.quantile(0.9999), 19);
    }

    #[test]
    fn bad_parameters_are_refused() {
        assert!(Sizes::Uniform(5, 3).check().is_err());
        assert!(Sizes::Quantiles(vec![(0.0, 1.0)]).check().is_err());
        assert!(Sizes::Quantiles(vec![(0.0, 9.0), (1.0, 1.0)])
            .check()
            .is_err());
        assert!(Sizes::Choice(vec![(1, 0.0)]).check().is_err());
        assert!(Popularity::Zipf(0.0).check().is_err());
        assert!(Popularity::Curve(vec![(0.5, 0.9)]).check().is_err());
        assert!(Popularity::Curve(vec![(0.5, 0.9), (1.0, 1.0)])
            .check()
            .is_ok());
    }

    #[test]
    fn curve_gives_the_shares_that_it_names() {
        let points = vec![(0.01, 0.55), (0.10, 0.90), (0.50, 0.99), (1.0, 1.0)];
        let count = 100_000;
        let ranks = Popularity::Curve(points.clone()).sampler(count);
        let mut rng = SmallRng::seed_from_u64(1);
        let draws = 200_000;
        let drawn: Vec<u64> = (0..draws).map(|_| ranks.sample(&mut rng)).collect();
        for (keys, share) in points {
            let below = (keys * count as f64) as u64;
            let got = drawn.iter().filter(|rank| **rank < below).count() as f64 / f64::from(draws);
            assert!(
                (got - share).abs() < 0.005,
                "{keys} of the keys got {got}, not {share}"
            );
        }
        assert!(drawn.iter().all(|rank| *rank < count));
    }

    #[test]
    fn zipf_and_uniform_have_the_right_head() {
        let mut rng = SmallRng::seed_from_u64(2);
        let count = 1000;
        let harmonic: f64 = (1..=count).map(|k| (k as f64).powf(-0.99)).sum();
        let zipf = Popularity::Zipf(0.99).sampler(count);
        let uniform = Popularity::Uniform.sampler(count);
        let draws = 100_000;
        let head = |ranks: &Ranks, rng: &mut SmallRng| {
            (0..draws).filter(|_| ranks.sample(rng) == 0).count() as f64 / f64::from(draws)
        };
        assert!((head(&zipf, &mut rng) - 1.0 / harmonic).abs() < 0.005);
        assert!((head(&uniform, &mut rng) - 0.001).abs() < 0.0005);
    }
}
