// SPDX-License-Identifier: GPL-2.0-only
//! A command's output: text, and with `--json` JSON.

use serde_json::{json, Value};

use crate::exit::Status;

#[derive(Debug)]
pub(crate) struct Answer {
    /// Complete lines, or empty.
    pub(crate) text: String,
    pub(crate) json: Value,
    pub(crate) status: Status,
}

impl Answer {
    pub(crate) fn new(text: impl Into<String>, json: Value) -> Self {
        Answer {
            text: text.into(),
            json,
            status: Status::Done,
        }
    }

    /// Success without output.
    pub(crate) fn done() -> Self {
        Self::new("", json!({"done": true}))
    }

    /// All output has been written already.
    pub(crate) fn silent() -> Self {
        Self::new("", Value::Null)
    }

    pub(crate) fn ending(mut self, status: Status) -> Self {
        self.status = status;
        self
    }
}

/// A time in seconds in one or two units.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}
