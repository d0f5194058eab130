// SPDX-License-Identifier: GPL-2.0-only
//! Percentiles of a run in the format of HdrHistogram's own tools and plotter (`.hgrm`).

use std::fmt::Write;

use anyhow::Result;

use crate::report::{unpack, Run};

/// The percentile distribution of all of a run's latencies, in microseconds.
pub fn percentiles(run: &Run) -> Result<String> {
    let histogram = unpack(&run.latency.histogram)?;
    let mut out = String::new();
    // Writing to memory does not fail.
    let _ = writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in histogram.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (
            step.value_iterated_to() as f64 / 1e3,
            step.quantile_iterated_to(),
        );
        let _ = if quantile < 1.0 {
            writeln!(
                out,
                "{value:>12.3} {quantile:>2.12} {total:>10} {:>14.2}",
                1.0 / (1.0 - quantile)
            )
        } else {
            writeln!(out, "{value:>12.3} {quantile:>2.12} {total:>10}")
        };
    }
    let _ = write!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n\
         #[Max     = {:>12.3}, Total count    = {:>12}]\n\
         #[Buckets = {:>12}, SubBuckets     = {:>12}]\n",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3,
        histogram.max() as f64 / 1e3,
        histogram.len(),
        histogram.buckets(),
        2048
    );
    Ok(out)
}
