// SPDX-License-Identifier: GPL-2.0-only
//! Describes a trace, without a server.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::request::{Request, Verb};
use crate::trace::Reader;

/// Ranks that are used to fit Zipf's law.
const FIT: usize = 10_000;

/// The statistics of a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stat {
    /// Its format.
    pub format: String,
    /// Requests.
    pub requests: u64,
    /// From the first request to the last, in seconds.
    pub seconds: f64,
    /// Requests of each kind.
    pub operations: BTreeMap<&'static str, u64>,
    /// Keys in all requests.
    pub keys_asked: u64,
    /// Distinct keys.
    pub keys: u64,
    /// Keys that are requested once.
    pub once: u64,
    /// Bytes of the distinct keys with their largest values.
    pub footprint: u64,
    /// Share of the GETs' keys that an infinite cache would hit, if misses are stored.
    pub hits_filling: Option<f64>,
    /// The same with only the trace's own stores.
    pub hits_plain: Option<f64>,
    /// Exponent of Zipf's law that fits the popular keys best, and the quality of the fit (R squared).
    pub zipf: Option<(f64, f64)>,
    /// Share of the requests to the most popular 1 % and 10 % of the keys.
    pub top: [f64; 2],
    /// Key sizes: mean, median, 99th percentile, largest.
    pub key_size: Sizes,
    /// Value sizes, of requests that name one.
    pub value_size: Sizes,
    /// Expiry times in seconds, of requests that name one.
    pub ttl: Sizes,
    /// Requests to other keys between two to the same.
    pub reuse: Sizes,
    /// Lines that could not be read.
    pub skipped: u64,
    /// Keys that were cut.
    pub cut_keys: u64,
    /// The last line was incomplete.
    pub truncated: bool,
}

/// A distribution, summarised.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[allow(missing_docs)]
pub struct Sizes {
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

impl Sizes {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        }
    }

    fn text(&self) -> String {
        match self.count {
            0 => "none".to_string(),
            _ => format!(
                "mean {:.1}, median {}, 99 % {}, largest {}",
                self.mean, self.p50, self.p99, self.max
            ),
        }
    }
}

#[derive(Default)]
struct Seen {
    count: u64,
    last: u64,
    bytes: u32,
    /// Whether a cache that stores misses has it, and one that does not.
    filled: bool,
    stored: bool,
}

/// Reads a trace to its end, or at most `requests` requests.
pub fn stat(reader: &mut Reader, requests: u64, skip_bad: u64) -> Result<Stat> {
    let sizes = || Histogram::<u64>::new_with_max(u64::MAX / 2, 3);
    let (mut key_size, mut value_size) = (sizes()?, sizes()?);
    let (mut ttl, mut reuse) = (sizes()?, sizes()?);
    let mut seen: HashMap<u64, Seen> = HashMap::new();
    let mut operations = BTreeMap::new();
    let (mut total, mut asked, mut latest, mut skipped) = (0, 0, 0, 0);
    let (mut gets, mut filled, mut plain) = (0u64, 0u64, 0u64);
    while total < requests {
        let (at, request) = match reader.read() {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(_) if skipped < skip_bad => {
                skipped += 1;
                continue;
            }
            Err(e) => return Err(e),
        };
        total += 1;
        latest = latest.max(at);
        *operations.entry(request.verb.word()).or_default() += 1;
        if request.value_len > 0 {
            value_size.saturating_record(u64::from(request.value_len));
        }
        if request.ttl > 0 {
            ttl.saturating_record(u64::from(request.ttl));
        }
        for key in &request.keys {
            asked += 1;
            let bytes = request.key(key).len() as u32;
            key_size.saturating_record(u64::from(bytes));
            let entry = seen.entry(key.hash).or_default();
            if entry.count > 0 {
                reuse.saturating_record(asked - entry.last - 1);
            }
            entry.count += 1;
            entry.last = asked;
            entry.bytes = entry.bytes.max(bytes + request.value_len);
            if request.verb.reads() {
                gets += 1;
                filled += u64::from(entry.filled);
                plain += u64::from(entry.stored);
            }
            change(entry, &request);
        }
    }
    let mut counts: Vec<u64> = seen.values().map(|entry| entry.count).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let top = |share: f64| {
        let n = (counts.len() as f64 * share).ceil() as usize;
        counts[..n.min(counts.len())].iter().sum::<u64>() as f64 / asked.max(1) as f64
    };
    let ratio = |hits: u64| (gets > 0).then(|| hits as f64 / gets as f64);
    let met = reader.counts();
    Ok(Stat {
        format: reader.format().name(),
        requests: total,
        seconds: latest as f64 / 1e9,
        operations,
        keys_asked: asked,
        keys: counts.len() as u64,
        once: counts.iter().filter(|n| **n == 1).count() as u64,
        footprint: seen.values().map(|entry| u64::from(entry.bytes)).sum(),
        hits_filling: ratio(filled),
        hits_plain: ratio(plain),
        zipf: zipf(&counts),
        top: [top(0.01), top(0.10)],
        key_size: Sizes::of(&key_size),
        value_size: Sizes::of(&value_size),
        ttl: Sizes::of(&ttl),
        reuse: Sizes::of(&reuse),
        skipped,
        cut_keys: met.cut_keys,
        truncated: met.truncated,
    })
}

/// The effect of a request on its key in the two caches.
fn change(entry: &mut Seen, request: &Request) {
    match request.verb {
        Verb::Delete => (entry.filled, entry.stored) = (false, false),
        Verb::Touch => {}
        Verb::Replace => {}
        verb if verb.stores() => (entry.filled, entry.stored) = (true, true),
        _ => entry.filled = true,
    }
}

/// Fits a straight line to the logarithms of rank and count.
fn zipf(counts: &[u64]) -> Option<(f64, f64)> {
    let n = counts.iter().take(FIT).take_while(|n| **n > 1).count();
    if n < 10 {
        return None;
    }
    let points = || {
        counts[..n]
            .iter()
            .enumerate()
            .map(|(rank, n)| (((rank + 1) as f64).ln(), (*n as f64).ln()))
    };
    let (mut sx, mut sy, mut sxx, mut sxy, mut syy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y) in points() {
        sx += x;
        sy += y;
        sxx += x * x;
        sxy += x * y;
        syy += y * y;
    }
    let n = n as f64;
    let (vx, vy, cov) = (n * sxx - sx * sx, n * syy - sy * sy, n * sxy - sx * sy);
    (vx > 0.0 && vy > 0.0).then(|| (-cov / vx, cov * cov / (vx * vy)))
}

impl Stat {
    /// The statistics as text.
    pub fn text(&self) -> String {
        let percent = |x: f64| format!("{:.1} %", 100.0 * x);
        let optional = |x: Option<f64>| x.map_or("-".to_string(), percent);
        let operations: Vec<String> = self
            .operations
            .iter()
            .map(|(word, n)| {
                let share = percent(*n as f64 / self.requests.max(1) as f64);
                format!("{share} {word}")
            })
            .collect();
        let mut out = format!(
            "format        {}\n\
             requests      {} in {:.1} s: {}\n\
             keys          {} distinct of {} asked for, {} of them once\n\
             popularity    1 % of the keys get {}, 10 % get {}\n",
            self.format,
            self.requests,
            self.seconds,
            operations.join(", "),
            self.keys,
            self.keys_asked,
            self.once,
            percent(self.top[0]),
            percent(self.top[1]),
        );
        if let Some((exponent, fit)) = self.zipf {
            out += &format!("zipf          exponent {exponent:.3} (R2 {fit:.3})\n");
        }
        out += &format!(
            "key sizes     {}\n\
             value sizes   {}\n\
             ttl (s)       {}\n\
             reuse         {} requests between\n\
             footprint     {:.3} MB\n\
             hits          {} in an infinite cache, {} if clients store what they miss\n",
            self.key_size.text(),
            self.value_size.text(),
            self.ttl.text(),
            self.reuse.text(),
            self.footprint as f64 / 1e6,
            optional(self.hits_plain),
            optional(self.hits_filling),
        );
        if self.skipped > 0 || self.cut_keys > 0 || self.truncated {
            out += &format!(
                "passed over   {} lines; {} keys cut; last line {}\n",
                self.skipped,
                self.cut_keys,
                if self.truncated {
                    "incomplete"
                } else {
                    "complete"
                }
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Options;

    #[test]
    fn sizes_and_distances_are_right_however_large() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        let mut text = "time,op,key,size,ttl\n0,set,first,1000000,2000000000\n".to_string();
        for i in 0..5000 {
            text += &format!("1,get,key{i},0,0\n");
        }
        std::fs::write(&path, text + "2,get,first,0,0\n").unwrap();
        let mut reader = Reader::open(&[path], &Options::default()).unwrap();
        let stat = stat(&mut reader, u64::MAX, 0).unwrap();
        let near = |found: u64, right: u64| found.abs_diff(right) <= right / 1000;
        for sizes in [stat.value_size, stat.ttl, stat.reuse] {
            assert_eq!(sizes.count, 1);
            assert!(near(sizes.p50, sizes.max), "{sizes:?}");
        }
        assert!(
            near(stat.value_size.max, 1_000_000),
            "{:?}",
            stat.value_size
        );
        assert!(near(stat.ttl.max, 2_000_000_000), "{:?}", stat.ttl);
        assert!(near(stat.reuse.max, 5000), "{:?}", stat.reuse);
        assert_eq!((stat.keys, stat.once), (5001, 5000));
    }
}
