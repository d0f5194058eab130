// SPDX-License-Identifier: GPL-2.0-only
//! Workloads as data: TOML files that define the lengths of keys and values, the popularity of each key, and the
//! operations. The files in `traces/` are built in.
//!
//! A [`Model`] converts key numbers to keys and value lengths; a [`Sampler`] draws operations. Neither depends on
//! servers or sockets, so that a simulator can use them too:
//!
//! ```
//! use hippos_load::workload::{Model, Sampler, Workload};
//! let model = Model::new(&Workload::named("etc")?)?;
//! let mut sampler = Sampler::new(&model, 42);
//! for _ in 0..10 {
//!     let op = sampler.draw();
//!     for id in &op.ids {
//!         println!("{:?} {} bytes -> {} bytes", op.verb, model.key_len(*id), model.value_len(*id));
//!     }
//! }
//! # Ok::<(), anyhow::Error>(())
//! ```

use std::collections::VecDeque;

use anyhow::{anyhow, bail, ensure, Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;

use crate::dist::{Popularity, Ranks, Sizes};
use crate::payload::{self, mix};
use crate::request::{Request, RequestKey, Verb};
use crate::settings::Part;

/// The most bytes of a key in memcached.
pub const KEY_MAX: u32 = hippos_semantics::KEY_MAX as u32;
/// The most bytes of a value here; a server may have a lower limit.
pub const VALUE_MAX: u32 = 1 << 30;

/// The workloads that are built in: the files of `traces/`.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("usr", include_str!("../../traces/usr.toml")),
    ("app", include_str!("../../traces/app.toml")),
    ("etc", include_str!("../../traces/etc.toml")),
    ("var", include_str!("../../traces/var.toml")),
    ("sys", include_str!("../../traces/sys.toml")),
    ("micro", include_str!("../../traces/micro.toml")),
];

/// A workload file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Workload {
    /// Short name.
    pub name: String,
    /// A one-line description.
    #[serde(default)]
    pub about: String,
    /// The keys.
    pub keys: Keys,
    /// The values.
    pub values: Values,
    /// Weights of the operations.
    pub mix: Mix,
    /// More about GETs.
    #[serde(default)]
    pub gets: Gets,
    /// More about DELETEs.
    #[serde(default)]
    pub deletes: Deletes,
    /// Named variants of the workload: each is a table that overrides parts of the file.
    #[serde(default)]
    pub variants: toml::Table,
}

/// The keys of a workload.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Keys {
    /// The number of keys.
    pub count: u64,
    /// The source of the count.
    #[serde(default)]
    pub count_source: String,
    /// Their lengths, 1 to 250 bytes.
    pub size: Sizes,
    /// The source of the lengths.
    #[serde(default)]
    pub size_source: String,
    /// The distribution of requests over keys.
    pub popularity: Popularity,
    /// The source of the popularity.
    #[serde(default)]
    pub popularity_source: String,
}

/// The values of a workload; every key has one length.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Values {
    /// Their lengths.
    pub size: Sizes,
    /// The source of the lengths.
    #[serde(default)]
    pub size_source: String,
    /// Seconds after which a stored or touched value expires, drawn each time; 0 is never.
    #[serde(default = "never")]
    pub ttl: Sizes,
    /// The source of these.
    #[serde(default)]
    pub ttl_source: String,
}

fn never() -> Sizes {
    Sizes::Constant(0)
}

/// Weights of the operations; only their proportions count.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mix {
    /// GETs of any number of keys.
    #[serde(default)]
    pub get: f64,
    /// SETs (the paper's UPDATE).
    #[serde(default)]
    pub set: f64,
    /// DELETEs.
    #[serde(default)]
    pub delete: f64,
    /// TOUCHes.
    #[serde(default)]
    pub touch: f64,
    /// GETs that set a new expiry time (GAT).
    #[serde(default)]
    pub gat: f64,
    /// INCRs of counters, which have their own keys.
    #[serde(default)]
    pub incr: f64,
    /// APPENDs of a sixteenth of the value's length to keys of their own; one in sixteen stores a new value.
    #[serde(default)]
    pub append: f64,
    /// GETSes whose hit is followed by a CAS.
    #[serde(default)]
    pub cas: f64,
    /// The source of the weights.
    #[serde(default)]
    pub source: String,
}

impl Mix {
    fn weights(&self) -> [(Verb, f64); 8] {
        [
            (Verb::Get, self.get),
            (Verb::Set, self.set),
            (Verb::Delete, self.delete),
            (Verb::Touch, self.touch),
            (Verb::Gat, self.gat),
            (Verb::Incr, self.incr),
            (Verb::Append, self.append),
            (Verb::Cas, self.cas),
        ]
    }

    fn total(&self) -> f64 {
        self.weights().iter().map(|(_, weight)| weight).sum()
    }
}

/// The keys of GETs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gets {
    /// Keys in a GET.
    #[serde(default = "one")]
    pub keys: Sizes,
    /// The share of keys that are never stored, so that GETs of them miss.
    #[serde(default)]
    pub absent: f64,
    /// The absent keys are among those beyond this share of the most popular ones, with the popularity of their rank; 0
    /// draws them separately, all equally likely.
    #[serde(default)]
    pub absent_beyond: f64,
    /// The source of these.
    #[serde(default)]
    pub source: String,
}

impl Default for Gets {
    fn default() -> Self {
        Self {
            keys: one(),
            absent: 0.0,
            absent_beyond: 0.0,
            source: String::new(),
        }
    }
}

fn one() -> Sizes {
    Sizes::Constant(1)
}

/// The keys of DELETEs.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Deletes {
    /// The share of DELETEs of keys that are never stored.
    #[serde(default)]
    pub absent: f64,
    /// The source of these.
    #[serde(default)]
    pub source: String,
}

impl Workload {
    /// Parses the text of a workload file; `origin` names it in errors, which carry the line.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let workload: Self = toml::from_str(text).map_err(|e| anyhow!("{origin}: {e}"))?;
        workload.check().with_context(|| origin.to_string())?;
        Ok(workload)
    }

    pub(crate) fn variant(&self, variant: &str, text: &str, origin: &str) -> Result<Self> {
        let Some(toml::Value::Table(changes)) = self.variants.get(variant) else {
            let names: Vec<&str> = self.variants.keys().map(String::as_str).collect();
            bail!(
                "{origin} has no variant {variant}: there are {}",
                names.join(", ")
            );
        };
        let mut table: toml::Table = toml::from_str(text).map_err(|e| anyhow!("{origin}: {e}"))?;
        merge_tables(&mut table, changes);
        let place = || format!("{origin}: variant {variant}");
        let mut workload: Self = table.try_into().with_context(place)?;
        workload.name = format!("{}:{variant}", self.name);
        workload.check().with_context(place)?;
        Ok(workload)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let named = |what: &'static str| move |e: String| anyhow!("{what}: {e}");
        ensure!(
            self.keys.count > 0 && self.keys.count < 1 << 36,
            "keys.count: must be 1 to 2^36 - 1"
        );
        self.keys.size.check().map_err(named("keys.size"))?;
        ensure!(
            self.keys.size.max() <= KEY_MAX,
            "keys.size: exceeds {KEY_MAX} bytes"
        );
        self.keys
            .popularity
            .check()
            .map_err(named("keys.popularity"))?;
        self.values.size.check().map_err(named("values.size"))?;
        ensure!(
            self.values.size.max() <= VALUE_MAX,
            "values.size: exceeds {VALUE_MAX} bytes"
        );
        self.gets.keys.check().map_err(named("gets.keys"))?;
        ensure!(
            (1..=1000).contains(&self.gets.keys.max()),
            "gets.keys: must be 1 to 1000"
        );
        for (name, share) in [
            ("gets.absent", self.gets.absent),
            ("deletes.absent", self.deletes.absent),
        ] {
            ensure!((0.0..=1.0).contains(&share), "{name}: must be 0 to 1");
        }
        self.values.ttl.check().map_err(named("values.ttl"))?;
        let beyond = self.gets.absent_beyond;
        ensure!(
            (0.0..1.0).contains(&beyond),
            "gets.absent-beyond: must be 0 to below 1"
        );
        ensure!(
            beyond == 0.0
                || self.gets.absent <= 1.0 - self.keys.popularity.share(beyond, self.keys.count),
            "gets.absent: more than what the popularity leaves beyond gets.absent-beyond"
        );
        ensure!(
            self.mix
                .weights()
                .iter()
                .all(|(_, w)| w.is_finite() && *w >= 0.0),
            "mix: a weight is negative"
        );
        ensure!(self.mix.total() > 0.0, "mix: no operation has a weight");
        Ok(())
    }
}

/// Merges the changes into the table, entry by entry of each section.
fn merge_tables(table: &mut toml::Table, changes: &toml::Table) {
    for (section, change) in changes {
        match (table.get_mut(section), change) {
            (Some(toml::Value::Table(section)), toml::Value::Table(change)) => {
                section.extend(change.clone())
            }
            _ => {
                table.insert(section.clone(), change.clone());
            }
        }
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn digit(x: u64) -> u8 {
    DIGITS[(x & 63) as usize]
}

/// Maps a hash to the unit interval, 1 excluded.
fn unit(x: u64) -> f64 {
    (x >> 11) as f64 / (1u64 << 53) as f64
}

/// Keys and value lengths of a workload, by key number.
///
/// A key is one letter (`k`, or `n` for keys that are never stored), two
/// characters that stand for the workload's sizes, the number in base 64, and
/// filler up to its length. Two workloads that differ in their sizes thus never
/// share a key.
#[derive(Debug, Clone)]
pub struct Model {
    /// The workload.
    pub workload: Workload,
    tag: [u8; 2],
    /// Base-64 digits of a key number.
    digits: u32,
    prefix: String,
    part: Part,
}

impl Model {
    /// Fails if the workload is inconsistent.
    pub fn new(workload: &Workload) -> Result<Self> {
        workload.check()?;
        let sizes = format!(
            "{} {:?} {:?}",
            workload.keys.count, workload.keys.size, workload.values.size
        );
        let fingerprint = payload::hash(sizes.as_bytes());
        let digits = (64 - (workload.keys.count - 1).leading_zeros())
            .div_ceil(6)
            .max(1);
        Ok(Self {
            workload: workload.clone(),
            tag: [digit(fingerprint), digit(fingerprint >> 6)],
            digits,
            prefix: String::new(),
            part: Part::default(),
        })
    }

    /// The same workload with a prefix for each key, restricted to one part of the keys.
    pub fn placed(mut self, prefix: &str, part: Part) -> Self {
        self.prefix = prefix.to_string();
        self.part = part;
        self
    }

    /// The number of keys in the part that is used.
    pub fn part_count(&self) -> u64 {
        (self.count() + self.part.of - self.part.number) / self.part.of
    }

    /// The number of the key at this position in the part.
    pub fn part_id(&self, place: u64) -> u64 {
        (place * self.part.of + self.part.number - 1).min(self.count() - 1)
    }

    /// The number of keys that can be stored.
    pub fn count(&self) -> u64 {
        self.workload.keys.count
    }

    /// The length of a key in bytes: the workload's, but long enough for the key's number.
    pub fn key_len(&self, id: u64) -> usize {
        let u = unit(mix(id.wrapping_mul(2) ^ 0x6b65_7973));
        (self.workload.keys.size.quantile(u).min(KEY_MAX) as usize)
            .max(self.prefix.len() + 3 + self.digits as usize)
    }

    /// Length of a key's value in bytes.
    pub fn value_len(&self, id: u64) -> u32 {
        self.workload
            .values
            .size
            .quantile(unit(mix(id.wrapping_mul(2) ^ 0x7661_6c73)))
    }

    /// Appends a key to `out`.
    pub fn write_key(&self, id: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let len = self.key_len(id);
        out.extend_from_slice(self.prefix.as_bytes());
        out.push(if id & RequestKey::ABSENT != 0 {
            b'n'
        } else if id & RequestKey::COUNTER != 0 {
            b'c'
        } else if id & RequestKey::GROWING != 0 {
            b'g'
        } else {
            b'k'
        });
        out.extend_from_slice(&self.tag);
        out.extend((0..self.digits).rev().map(|i| digit(id >> (6 * i))));
        let mut filler = id;
        while out.len() - start < len {
            filler = mix(filler.wrapping_add(0x5bd1_e995));
            let left = len - (out.len() - start);
            out.extend((0..10.min(left)).map(|i| digit(filler >> (6 * i))));
        }
    }

    /// The number of a key of this workload, absent ones excluded.
    pub fn find(&self, key: &[u8]) -> Option<u64> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        let rest = rest.strip_prefix(b"k")?.strip_prefix(&self.tag)?;
        let mut id = 0;
        for byte in rest.get(..self.digits as usize)? {
            id = id << 6 | DIGITS.iter().position(|d| d == byte)? as u64;
        }
        let mut right = Vec::with_capacity(KEY_MAX as usize);
        self.write_key(id, &mut right);
        (id < self.count() && right == key).then_some(id)
    }

    /// Adds key number `id` to a request.
    pub fn push(&self, id: u64, request: &mut Request) {
        request.push(id, self.value_len(id), |out| self.write_key(id, out));
    }

    /// Bytes of all keys and values together, from a sample of at most 100,000 keys.
    pub fn data_bytes(&self) -> u64 {
        let sample = self.count().min(100_000);
        let step = self.count() / sample;
        let sum: u64 = (0..sample)
            .map(|i| i * step)
            .map(|id| self.key_len(id) as u64 + u64::from(self.value_len(id)))
            .sum();
        (sum as f64 / sample as f64 * self.count() as f64) as u64
    }
}

impl Model {
    /// Describes the workload, with the source of each number.
    pub fn describe(&self) -> String {
        let w = &self.workload;
        let sample = self.count().min(100_000);
        let step = self.count() / sample;
        let percentiles = |size: &dyn Fn(u64) -> u64| {
            let mut sizes: Vec<u64> = (0..sample).map(|i| size(i * step)).collect();
            sizes.sort_unstable();
            let at = |q: f64| sizes[((q * sample as f64) as usize).min(sizes.len() - 1)];
            let mean = sizes.iter().sum::<u64>() as f64 / sample as f64;
            let (p50, p90, p99, max) = (at(0.5), at(0.9), at(0.99), at(1.0));
            format!("mean {mean:.1} B, median {p50} B, 90 % {p90} B, 99 % {p99} B, largest {max} B")
        };
        let source = |text: &str| {
            if text.is_empty() {
                String::new()
            } else {
                format!("             {text}\n")
            }
        };
        let total = w.mix.total();
        let mix: Vec<String> = w
            .mix
            .weights()
            .iter()
            .filter(|(_, weight)| *weight > 0.0)
            .map(|(verb, weight)| format!("{:.1} % {}", 100.0 * weight / total, verb.word()))
            .collect();
        let mix = mix.join(", ");
        let absent = |x: f64| format!("{:.1} % of the keys never stored", 100.0 * x);
        [
            format!("{}: {}\n", w.name, w.about),
            format!(
                "keys         {}, {:.1} MB with their values\n",
                self.count(),
                self.data_bytes() as f64 / 1e6
            ),
            source(&w.keys.count_source),
            format!(
                "key sizes    {}\n",
                percentiles(&|id| self.key_len(id) as u64)
            ),
            source(&w.keys.size_source),
            format!("popularity   {:?}\n", w.keys.popularity),
            source(&w.keys.popularity_source),
            format!(
                "value sizes  {}\n",
                percentiles(&|id| u64::from(self.value_len(id)))
            ),
            source(&w.values.size_source),
            match w.values.ttl {
                Sizes::Constant(0) => String::new(),
                ref ttl => format!("ttl          {ttl:?} s\n"),
            },
            source(&w.values.ttl_source),
            format!("mix          {mix}\n"),
            source(&w.mix.source),
            format!(
                "gets         {:?} keys, {}\n",
                w.gets.keys,
                absent(w.gets.absent)
            ),
            source(&w.gets.source),
            format!("deletes      {}\n", absent(w.deletes.absent)),
            source(&w.deletes.source),
        ]
        .concat()
    }
}

/// One operation of a workload.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Op {
    /// GET, SET or DELETE.
    pub verb: Verb,
    /// The keys' numbers: several for a multi-key GET only.
    pub ids: Vec<u64>,
    /// Seconds until the stored or touched item expires.
    pub ttl: u32,
}

/// Draws operations from a workload; the same seed gives the same operations.
#[derive(Debug)]
pub struct Sampler<'m> {
    model: &'m Model,
    ranks: Ranks,
    rng: SmallRng,
    /// Keys that were deleted and that the next SETs store again, as clients do: this keeps the number of stored keys
    /// steady.
    deleted: VecDeque<u64>,
    /// The rank from which on some keys are absent, and the share of these.
    absent_beyond: (u64, f64),
    op: Op,
}

/// The most deleted keys that a sampler remembers.
const DELETED_MAX: usize = 1 << 16;

impl<'m> Sampler<'m> {
    /// A sampler of a model's operations.
    pub fn new(model: &'m Model, seed: u64) -> Self {
        let workload = &model.workload;
        let count = model.part_count().max(1);
        let popularity = &workload.keys.popularity;
        let beyond = workload.gets.absent_beyond;
        let absent = match beyond {
            0.0 => (u64::MAX, 0.0),
            _ => (
                (beyond * count as f64).ceil() as u64,
                workload.gets.absent / (1.0 - popularity.share(beyond, count)).max(1e-9),
            ),
        };
        Self {
            model,
            ranks: popularity.sampler(count),
            absent_beyond: absent,
            rng: SmallRng::seed_from_u64(seed),
            deleted: VecDeque::new(),
            op: Op::default(),
        }
    }

    /// The next operation.
    pub fn draw(&mut self) -> &Op {
        self.draw_within(|_, _| true)
    }

    /// The next operation, whose further keys go with the first one: `together(first, other)`.
    pub fn draw_within(&mut self, together: impl Fn(u64, u64) -> bool) -> &Op {
        let workload = &self.model.workload;
        let mut left = self.rng.random::<f64>() * workload.mix.total();
        let verb = workload.mix.weights().into_iter().find(|(_, weight)| {
            left -= weight;
            left < 0.0
        });
        // Rounding may leave nothing of the last weight.
        let verb = verb.map_or(Verb::Get, |(verb, _)| verb);
        self.op.verb = verb;
        self.op.ids.clear();
        self.op.ttl = match &workload.values.ttl {
            Sizes::Constant(ttl) => *ttl,
            _ if verb == Verb::Get => 0,
            ttl => ttl.quantile(self.rng.random()),
        };
        match verb {
            Verb::Get => {
                let keys = workload.gets.keys.quantile(self.rng.random());
                self.read(keys as usize, together);
            }
            Verb::Set => {
                let id = match self.deleted.pop_front() {
                    Some(id) => id,
                    None => self.stored(),
                };
                self.op.ids.push(id);
            }
            Verb::Delete => {
                let id = self.rank_or_absent(workload.deletes.absent, false);
                self.op.ids.push(id);
                if id & RequestKey::ABSENT == 0 && self.deleted.len() < DELETED_MAX {
                    self.deleted.push_back(id);
                }
            }
            Verb::Incr => {
                let id = self.stored();
                self.op.ids.push(id | RequestKey::COUNTER);
            }
            Verb::Append => {
                if self.rng.random_range(0..16) == 0 {
                    self.op.verb = Verb::Set;
                }
                let id = self.stored();
                self.op.ids.push(id | RequestKey::GROWING);
            }
            _ => {
                let id = self.stored();
                self.op.ids.push(id);
            }
        }
        &self.op
    }

    /// A key of the part that is used, by its popularity.
    fn stored(&mut self) -> u64 {
        let rank = self.ranks.sample(&mut self.rng);
        self.model.part_id(rank)
    }

    /// Draws distinct keys of one GET; fewer than wanted if they are hard to find.
    fn read(&mut self, keys: usize, together: impl Fn(u64, u64) -> bool) {
        let absent = self.model.workload.gets.absent;
        let mut tries = keys * 64;
        while self.op.ids.len() < keys && tries > 0 {
            tries -= 1;
            let id = self.rank_or_absent(absent, true);
            let fits = self.op.ids.first().is_none_or(|first| together(*first, id));
            if fits && !self.op.ids.contains(&id) {
                self.op.ids.push(id);
            }
        }
    }

    fn rank_or_absent(&mut self, absent: f64, get: bool) -> u64 {
        let (beyond, share) = self.absent_beyond;
        if get && beyond < u64::MAX {
            let rank = self.ranks.sample(&mut self.rng);
            let id = self.model.part_id(rank);
            // Which keys are absent follows from their number.
            let away = rank >= beyond && unit(mix(id ^ 0x6162_7365)) < share;
            return if away { id | RequestKey::ABSENT } else { id };
        }
        if absent > 0.0 && self.rng.random::<f64>() < absent {
            let place = self.rng.random_range(0..self.model.part_count().max(1));
            return self.model.part_id(place) | RequestKey::ABSENT;
        }
        self.stored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_workload_and_variant_is_right() {
        for (name, _) in BUILT_IN {
            let workload = Workload::named(name).unwrap();
            assert_eq!(workload.name, name);
            for variant in workload.variants.keys() {
                let full = format!("{name}:{variant}");
                let model = Model::new(&Workload::named(&full).unwrap()).unwrap();
                assert_eq!(model.workload.name, full);
                assert!(!Sampler::new(&model, 1).draw().ids.is_empty());
            }
        }
    }

    #[test]
    fn keys_are_distinct_found_again_and_as_long_as_said() {
        for name in ["usr", "app", "etc", "var", "sys", "micro"] {
            let model = Model::new(&Workload::named(name).unwrap()).unwrap();
            let mut seen = std::collections::HashSet::new();
            for id in (0..2000).chain(model.count() - 10..model.count()) {
                let mut key = Vec::new();
                model.write_key(id, &mut key);
                assert_eq!(key.len(), model.key_len(id), "{name} {id}");
                assert!(key.iter().all(u8::is_ascii_graphic), "{name} {id}");
                assert_eq!(model.find(&key), Some(id), "{name} {id}");
                assert!(seen.insert(key.clone()), "{name} {id}: {key:?} twice");
                let mut absent = Vec::new();
                model.write_key(id | RequestKey::ABSENT, &mut absent);
                assert_eq!(model.find(&absent), None);
                key.pop();
                assert_eq!(model.find(&key), None);
            }
        }
    }

    #[test]
    fn unknown_names_and_keys_are_reported_with_their_position() {
        assert!(format!("{:#}", Workload::named("nothing").unwrap_err()).contains("usr, app"));
        assert!(
            format!("{:#}", Workload::named("micro:nothing").unwrap_err())
                .contains("no variant nothing")
        );
        let text = BUILT_IN[0].1.replace("[mix]", "[mix]\nputs = 3");
        let line = text.lines().position(|l| l == "puts = 3").unwrap() + 1;
        let error = format!("{:#}", Workload::parse(&text, "mine.toml").unwrap_err());
        assert!(error.contains("mine.toml"), "{error}");
        assert!(error.contains(&format!("line {line}")), "{error}");
        assert!(error.contains("puts"), "{error}");
    }

    #[test]
    fn absent_keys_do_not_dilute_the_popular_ones() {
        // Atikoglu: 1 % of ETC's keys get 55 % of its GETs, and 18.6 % of the GETs miss.
        let mut workload = Workload::named("etc").unwrap();
        workload.mix = Mix {
            get: 1.0,
            ..Mix::default()
        };
        let model = Model::new(&workload).unwrap();
        let mut sampler = Sampler::new(&model, 5);
        let (mut top, mut absent) = (0, 0);
        let draws = 200_000;
        for _ in 0..draws {
            let id = sampler.draw().ids[0];
            absent += usize::from(id & RequestKey::ABSENT != 0);
            top += usize::from(id < model.count() / 100);
        }
        let share = |n: usize| n as f64 / f64::from(draws);
        assert!((share(top) - 0.55).abs() < 0.01, "{}", share(top));
        assert!((share(absent) - 0.186).abs() < 0.01, "{}", share(absent));
    }

    #[test]
    fn parts_share_the_keys_without_overlap() {
        let mut workload = Workload::named("app").unwrap();
        workload.keys.count = 1001;
        let model = Model::new(&workload).unwrap();
        let mut all = std::collections::HashSet::new();
        for number in 1..=3 {
            let part = model.clone().placed("p:", Part { number, of: 3 });
            for place in 0..part.part_count() {
                let id = part.part_id(place);
                let mut key = Vec::new();
                part.write_key(id, &mut key);
                assert!(key.starts_with(b"p:k") && part.find(&key) == Some(id));
                assert!(all.insert(id), "{id} twice");
            }
            let mut sampler = Sampler::new(&part, 1);
            for _ in 0..1000 {
                for id in &sampler.draw().ids {
                    assert_eq!((id & !RequestKey::ABSENT) % 3, number - 1);
                }
            }
        }
        assert_eq!(all.len(), 1001);
    }

    #[test]
    fn every_operation_can_be_in_a_mix() {
        let mut workload = Workload::named("micro").unwrap();
        workload.values.ttl = Sizes::Uniform(10, 20);
        workload.mix = Mix {
            touch: 1.0,
            gat: 1.0,
            incr: 1.0,
            append: 1.0,
            cas: 1.0,
            ..Mix::default()
        };
        let model = Model::new(&workload).unwrap();
        let mut sampler = Sampler::new(&model, 1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let op = sampler.draw();
            assert!((10..=20).contains(&op.ttl));
            seen.insert(op.verb.word());
        }
        assert_eq!(seen.len(), 6, "with the SETs of keys that grow: {seen:?}");
    }

    #[test]
    fn sets_bring_deleted_keys_back() {
        let mut workload = Workload::named("etc").unwrap();
        workload.deletes.absent = 0.0;
        workload.mix = Mix {
            set: 1.0,
            delete: 1.0,
            ..Mix::default()
        };
        let model = Model::new(&workload).unwrap();
        let mut sampler = Sampler::new(&model, 7);
        let mut gone = VecDeque::new();
        for _ in 0..1000 {
            let op = sampler.draw();
            match op.verb {
                Verb::Delete => gone.push_back(op.ids[0]),
                _ => {
                    if let Some(id) = gone.pop_front() {
                        assert_eq!(op.ids[0], id);
                    }
                }
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_operations() {
        let model = Model::new(&Workload::named("app").unwrap()).unwrap();
        let ops = |seed| {
            let mut sampler = Sampler::new(&model, seed);
            (0..100).map(|_| sampler.draw().clone()).collect::<Vec<_>>()
        };
        assert_eq!(ops(1), ops(1));
        assert_ne!(ops(1), ops(2));
    }
}
