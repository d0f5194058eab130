// SPDX-License-Identifier: GPL-2.0-only
//! Checks that the cache is one register a key, by all receive paths and cores.
//!
//! [`record()`] lets concurrent clients operate on few keys, over TCP and UDP, and records each reply with its time.
//! [`check()`] looks for a key whose operations no single order explains: a stale read, a lost update, a write undone.
//! The cache must be large enough for all keys: a miss always counts as an error.

mod check;
mod client;
mod model;
mod record;

pub use check::{linearizable, Operation};
pub use model::{Action, Answer, Ttl};
pub use record::{record, History, Plan};

/// The first key, if any, whose operations are not linearizable.
pub fn check(history: &History) -> Option<&str> {
    history
        .iter()
        .find(|(_, operations)| !linearizable(operations))
        .map(|(key, _)| key.as_str())
}
