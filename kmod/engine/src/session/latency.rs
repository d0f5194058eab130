// SPDX-License-Identifier: GPL-2.0-only
//! `stats hippos_latency`.

use hippos_invariant::Exact;
use hippos_proto::reply::Out;
use hippos_store::Platform;

use crate::histogram::{self, BUCKETS, POWERS, STEPS};
use crate::interval::Interval;
use crate::session::lines::Lines;
use crate::Engine;

impl<P: Platform> Engine<P> {
    /// `stats hippos_latency`. The rows are always the same, so that the pages are consistent.
    pub(super) fn stats_latency(&self, lines: &mut Lines<'_, impl Out>) {
        let word = if self.host_stats.measures_latency() {
            "on"
        } else {
            "off"
        };
        lines.words(&[("hippos_latency", word)]);
        for interval in Interval::ALL {
            self.interval(interval, lines);
        }
    }

    /// Not inlined: a histogram needs space on the stack.
    #[inline(never)]
    fn interval(&self, interval: Interval, lines: &mut Lines<'_, impl Out>) {
        let (path, what) = interval.names();
        let histogram = self.measured(interval);
        let sum = self.time_spent(interval);
        for (name, value) in [
            ("count", histogram.count()),
            ("sum_ns", sum),
            ("p50_ns", histogram.quantile(500)),
            ("p90_ns", histogram.quantile(900)),
            ("p99_ns", histogram.quantile(990)),
            ("p999_ns", histogram.quantile(999)),
            ("max_ns", histogram.max()),
        ] {
            lines.put(
                format_args!("{path}:{what}:{name}"),
                format_args!("{value}"),
            );
        }
        lines.put(
            format_args!("{path}:{what}:le_64"),
            format_args!("{}", histogram.times(0)),
        );
        for power in 0..POWERS {
            let first = power.mul_exact(STEPS).add_exact(1);
            let last = first.add_exact(STEPS - 1);
            let [a, b, c, d] = [0, 1, 2, 3].map(|step| histogram.times(first.add_exact(step)));
            lines.put(
                format_args!("{path}:{what}:le_{}", histogram::bound(last).unwrap_or(0)),
                format_args!("{a} {b} {c} {d}"),
            );
        }
        lines.put(
            format_args!("{path}:{what}:le_inf"),
            format_args!("{}", histogram.times(BUCKETS - 1)),
        );
    }
}
