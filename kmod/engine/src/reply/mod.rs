// SPDX-License-Identifier: GPL-2.0-only
//! Replies as bytes: each protocol's format of a result. This module does not use the engine.

pub(crate) mod binary;
pub(crate) mod event;
pub(crate) mod inline;
pub(crate) mod meta;
pub(crate) mod text;
pub(crate) mod uri;

use hippos_invariant::{invariant, CHECKED};

/// Checks that a reply, or a part of one, is as long as its length was announced: to the caller that got its buffer, or
/// to the client in a header. `announced` is called only where invariants are checked.
#[inline(always)]
#[track_caller]
pub(crate) fn check_len(written: usize, announced: impl FnOnce() -> usize) {
    if CHECKED {
        let announced = announced();
        invariant!(
            written == announced,
            "{written} bytes of a reply of {announced}"
        );
    }
}

/// The least space that a session needs for a reply without a value's bytes. An empty sink has at least this much.
pub const REPLY_HEADER_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::check_len;

    #[test]
    fn a_reply_of_the_announced_length_passes() {
        check_len(5, || 5);
    }

    #[test]
    #[should_panic(expected = "broken invariant: 4 bytes of a reply of 5")]
    fn a_reply_of_another_length_panics() {
        check_len(4, || 5);
    }
}
