// SPDX-License-Identifier: GPL-2.0-only
//! A progress line on the terminal for a dump or a load.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// The interval between two updates.
const EVERY: Duration = Duration::from_millis(200);

/// The progress.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    shown: Instant,
    is_shown: bool,
}

impl Progress {
    /// Shown only on a terminal.
    pub(crate) fn new(is_quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            shown: now,
            is_shown: !is_quiet && io::stderr().is_terminal(),
        }
    }

    /// Shows the number of items, and the part of the whole that is done, if known.
    pub(crate) fn show(&mut self, items: u64, part: Option<f64>) {
        let now = Instant::now();
        if self.is_shown && now - self.shown >= EVERY {
            self.shown = now;
            let line = line(items, part, now - self.begun);
            // The terminal may be closed.
            let _ = write!(io::stderr(), "\r{line}\x1b[K");
        }
    }

    /// Removes the line; returns the seconds since the start.
    pub(crate) fn end(self) -> f64 {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        self.begun.elapsed().as_secs_f64()
    }
}

fn line(items: u64, part: Option<f64>, since: Duration) -> String {
    let seconds = since.as_secs_f64();
    let mut line = format!("{items} items, {:.0}/s", items as f64 / seconds);
    if let Some(part) = part.filter(|part| *part > 0.0) {
        let part = part.min(1.0);
        let left = seconds * (1.0 - part) / part;
        line.push_str(&format!(", {:.0} %, {left:.0} s left", part * 100.0));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_remaining_time_are_shown() {
        let since = Duration::from_secs(10);
        assert_eq!(
            line(2_000_000, Some(0.25), since),
            "2000000 items, 200000/s, 25 %, 30 s left"
        );
        assert_eq!(line(50, None, since), "50 items, 5/s");
        assert_eq!(line(50, Some(7.0), since), "50 items, 5/s, 100 %, 0 s left");
    }
}
