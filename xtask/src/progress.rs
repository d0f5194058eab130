// SPDX-License-Identifier: GPL-2.0-only
//! One line for each long step: its name, and how long it took.

use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Does `work`, with a spinner while it lasts and `what` with its seconds when it is done.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let bar = ProgressBar::new_spinner();
    if bar.is_hidden() {
        eprintln!("hippos: {what} ...");
    } else if let Ok(style) = ProgressStyle::with_template("hippos: {msg} {spinner} {elapsed}") {
        bar.set_style(style);
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
    }
    let result = work();
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) => eprintln!("hippos: {what}: {seconds:.1} s"),
        Err(_) => eprintln!("hippos: {what}: failed after {seconds:.1} s"),
    }
    result
}
