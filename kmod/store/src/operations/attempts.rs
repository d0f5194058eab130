// SPDX-License-Identifier: GPL-2.0-only
//! The tries and waits of a command that stores, before it gives up.

use super::allocate::{AllocError, RetryBudget};

/// How often one command begins an update: once, and again whenever another client has stored the key since the value
/// was read, or the memory for the copy had to be waited for.
const MAX_TRIES: u32 = 128;

/// The tries and waits that a command has left, for all of its stores and updates. They bound the command's time: to
/// [`MAX_TRIES`] copies of a value, and the waits for memory of one write.
pub struct Attempts {
    left: u32,
    pub(super) budget: RetryBudget,
    /// The caller serves the command again if it gets no memory.
    again: bool,
    short: Option<AllocError>,
}

impl Attempts {
    /// Those of a command whose error is final.
    #[allow(clippy::new_without_default, reason = "it is no neutral value")]
    pub const fn new() -> Self {
        Self {
            left: MAX_TRIES,
            budget: RetryBudget::FULL,
            again: false,
            short: None,
        }
    }

    /// Those of one turn of a command among others: it waits for at most one grace period. Unless this is its `last` turn
    /// it is served again later if [`short`](Self::short) returns a reason.
    pub const fn one_turn(last: bool) -> Self {
        Self {
            left: MAX_TRIES,
            budget: RetryBudget::ONE_TURN,
            again: !last,
            short: None,
        }
    }

    /// Why the command got no memory. It had no effect, its error is not counted, and it is to be served again.
    #[inline]
    pub const fn short(&self) -> Option<AllocError> {
        self.short
    }

    /// Takes one, if any is left.
    pub(super) fn take(&mut self) -> bool {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Notes that there was no slot. Whether that is final.
    pub(super) fn end(&mut self, short: AllocError) -> bool {
        if self.again && short != AllocError::TooLarge {
            self.short = Some(short);
        }
        self.short.is_none()
    }
}
