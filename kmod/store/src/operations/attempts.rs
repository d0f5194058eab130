// SPDX-License-Identifier: GPL-2.0-only
//! The tries and waits of a command that stores, before it gives up.

use super::allocate::RetryBudget;

/// How often one command begins an update: once, and again whenever another client has stored the key since the value
/// was read, or the memory for the copy had to be waited for.
const MAX_TRIES: u32 = 128;

/// The tries and waits that a command has left, for all of its stores and updates. They bound the command's time: to
/// [`MAX_TRIES`] copies of a value, and the waits for memory of one write.
pub struct Attempts {
    left: u32,
    pub(super) budget: RetryBudget,
}

impl Attempts {
    /// Those of a new command.
    #[allow(clippy::new_without_default, reason = "it is no neutral value")]
    pub const fn new() -> Self {
        Self {
            left: MAX_TRIES,
            budget: RetryBudget::FULL,
        }
    }

    /// Takes one, if any is left.
    pub(super) fn take(&mut self) -> bool {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}
