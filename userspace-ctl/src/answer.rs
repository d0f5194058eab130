// SPDX-License-Identifier: GPL-2.0-only
//! What a command tells: for people, and with `--json` for programs.

use serde_json::{json, Value};

use crate::exit::Status;

#[derive(Debug)]
pub(crate) struct Answer {
    /// Whole lines, or nothing.
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

    /// Something is done, and there is nothing to tell.
    pub(crate) fn done() -> Self {
        Self::new("", json!({"done": true}))
    }

    /// All is told already.
    pub(crate) fn silent() -> Self {
        Self::new("", Value::Null)
    }

    pub(crate) fn ending(mut self, status: Status) -> Self {
        self.status = status;
        self
    }
}
