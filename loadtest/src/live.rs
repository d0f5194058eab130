// SPDX-License-Identifier: GPL-2.0-only
//! The progress line during a run.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::{rate, IntervalReport};
use crate::session::Watch;

/// Shows each interval on one line of the terminal; nothing if there is no terminal.
#[derive(Debug)]
pub struct Line {
    bar: ProgressBar,
    /// When the part will end, if known.
    ends: Option<Instant>,
}

impl Line {
    /// A line that begins with `title`.
    pub fn new(title: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(title.to_string());
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, ends: None }
    }

    /// Changes the title, when the next part begins.
    pub fn title(&mut self, title: &str, length: Option<Duration>) {
        self.bar.set_prefix(title.to_string());
        self.bar.set_message("");
        self.ends = length.and_then(|length| Instant::now().checked_add(length));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// An interval in at most 41 characters: replies, hits, 99th percentiles of latency and lag, and the requests that were
/// given up or failed.
pub fn describe(moment: &IntervalReport) -> String {
    let mut text = format!("{}/s", rate(moment.answered as f64 / moment.seconds));
    let keys = moment.hits + moment.misses;
    if keys > 0 {
        text += &format!(" {:.0}%hit", 100.0 * moment.hits as f64 / keys as f64);
    }
    let narrow = |x: f64| match x {
        x if x.is_nan() => "-".to_string(),
        x if x >= 1e6 => format!("{:.1}s", x / 1e6),
        x if x >= 1e4 => format!("{:.0}ms", x / 1e3),
        x if x >= 1e3 => format!("{:.1}ms", x / 1e3),
        x => format!("{x:.0}us"),
    };
    text += &format!(" p99 {}", narrow(moment.p99_us));
    text += &format!(" lag {}", narrow(moment.lag_p99_us));
    let lost = moment.timeouts + moment.errors;
    if lost > 0 {
        text += &format!(" -{}", rate(lost as f64));
    }
    text
}

/// A time in at most three characters, and a space.
fn time_left(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds}s "),
        100..6000 => format!("{}m ", seconds / 60),
        _ => format!("{}h ", seconds / 3600),
    }
}

impl Watch for Option<Line> {
    fn moment(&mut self, moment: &IntervalReport) {
        if let Some(line) = self {
            let left = line.ends.map_or(String::new(), |ends| {
                let left = ends.saturating_duration_since(Instant::now());
                time_left(left.as_secs())
            });
            line.bar.set_message(left + &describe(moment));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_line_fits_into_50_columns() {
        let moment = IntervalReport {
            seconds: 1.0,
            answered: 1_234_567,
            hits: 100,
            misses: 0,
            p99_us: 12_345.0,
            lag_p99_us: 99_900.0,
            timeouts: 54_321,
            ..IntervalReport::default()
        };
        let text = describe(&moment);
        // Before it: the share of the trace and the time that is left, "100% 59m ", or a title.
        assert!(text.len() <= 50 - 9, "{text}: {}", text.len());
        for (seconds, left) in [(99, "99s "), (100, "1m "), (5999, "99m "), (86_400, "24h ")] {
            assert_eq!(time_left(seconds), left);
        }
        assert!(text.contains("hit") && text.contains("lag"), "{text}");
    }
}
