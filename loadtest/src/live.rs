//! The line that lives while a run goes on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::{rate, us, Moment};
use crate::session::Watch;

/// Shows each moment on one line of the terminal; nothing where there is no terminal.
#[derive(Debug)]
pub struct Line {
    bar: ProgressBar,
}

impl Line {
    /// A line that begins with `title`.
    pub fn new(title: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {elapsed:>4} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(title.to_string());
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar }
    }

    /// Another title, as the next part begins.
    pub fn title(&self, title: &str) {
        self.bar.set_prefix(title.to_string());
        self.bar.set_message("");
        self.bar.reset_elapsed();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A moment in words.
pub fn describe(moment: &Moment) -> String {
    let per_second = |n: u64| rate(n as f64 / moment.seconds);
    let mut text = format!(
        "sent {}/s  answered {}/s  mean {}  p99 {}",
        per_second(moment.sent),
        per_second(moment.answered),
        us(moment.mean_us),
        us(moment.p99_us),
    );
    for (name, n) in [("timeouts", moment.timeouts), ("errors", moment.errors)] {
        if n > 0 {
            text += &format!("  {n} {name}");
        }
    }
    text
}

/// Without a line nothing is shown.
impl Watch for Option<Line> {
    fn moment(&mut self, moment: &Moment) {
        if let Some(line) = self {
            line.bar.set_message(describe(moment));
        }
    }
}
