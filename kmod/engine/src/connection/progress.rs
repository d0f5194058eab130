// SPDX-License-Identifier: GPL-2.0-only
//! The timeout of a value that is being moved, or sent in pieces.

use hippos_semantics::VALUE_RATE_MIN;

/// The progress of a value, in seconds of uptime.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    /// The number of the value in its session.
    number: u32,
    began: u32,
    /// When the last byte arrived or left.
    last: u32,
    /// Bytes.
    moved: usize,
}

impl Progress {
    /// The progress at `now`, after `moved` bytes of the session's value `number`. `before` is the progress that was
    /// recorded last.
    pub(super) fn note(before: Option<Self>, number: u32, moved: usize, now: u32) -> Self {
        match before {
            Some(progress) if progress.number == number && progress.moved == moved => progress,
            Some(progress) if progress.number == number => Self {
                last: now,
                moved,
                ..progress
            },
            _ => Self {
                number,
                began: now,
                last: now,
                moved,
            },
        }
    }

    /// When it times out: after `timeout` seconds without a byte, or with fewer than [`VALUE_RATE_MIN`] bytes per second over a
    /// longer time.
    pub(super) fn deadline(&self, timeout: u32) -> u32 {
        let idle = self.last.saturating_add(timeout);
        let slow = self.began.saturating_add(timeout);
        let slow = slow.saturating_add((self.moved / VALUE_RATE_MIN) as u32);
        // The clock has a resolution of seconds.
        idle.min(slow).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_upload_times_out() {
        let first = Progress::note(None, 1, 0, 100);
        assert_eq!(first.deadline(10), 111);
        assert_eq!(Progress::note(Some(first), 1, 0, 109).deadline(10), 111);
    }

    #[test]
    fn deadline_extends_with_each_byte() {
        let first = Progress::note(None, 1, 0, 100);
        let slow = Progress::note(Some(first), 1, 2 * VALUE_RATE_MIN, 109);
        assert_eq!(slow.deadline(10), 113);
        let fast = Progress::note(Some(first), 1, 100 * VALUE_RATE_MIN, 109);
        assert_eq!(fast.deadline(10), 120);
    }

    #[test]
    fn the_next_value_begins_anew() {
        let first = Progress::note(None, 1, 5, 100);
        assert_eq!(Progress::note(Some(first), 2, 5, 109).deadline(10), 120);
    }
}
