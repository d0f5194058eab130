// SPDX-License-Identifier: GPL-2.0-only
//! Writes a trace from a workload.

use std::path::Path;

use anyhow::{Context, Result};

use crate::arrival::{Arrival, Schedule};
use crate::request::Request;
use crate::source::{Next, Source};
use crate::trace::Writer;
use crate::workload::{Model, Sampler};

/// Writes `requests` requests of a workload at a mean rate; the same seed gives the same file.
pub fn generate(
    model: &Model,
    arrival: Arrival,
    rate: f64,
    requests: u64,
    seed: u64,
    path: &Path,
    mut progress: impl FnMut(u64),
) -> Result<()> {
    let mut source = Source::Sample {
        sampler: Box::new(Sampler::new(model, seed)),
        model,
        schedule: Some(Schedule::new(arrival, rate, 0, 1, seed)),
        left: requests,
        end: u64::MAX,
    };
    let mut writer = Writer::create(path)?;
    let mut request = Request::default();
    let context = || format!("cannot write {}", path.display());
    let mut written = 0;
    while let Next::At(at) = source.next(1, &mut request) {
        writer.add(at, &request).with_context(context)?;
        written += 1;
        if written % 10_000 == 0 {
            progress(written);
        }
    }
    writer.finish().with_context(context)
}
