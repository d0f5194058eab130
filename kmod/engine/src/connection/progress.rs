// SPDX-License-Identifier: GPL-2.0-only
//! When a value has been on its way for too long.

/// Bytes a second that a value which takes longer than its time-out has to come with.
const RATE: usize = 4096;

/// How a value has got on, in seconds of uptime.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    /// Which of the session's it is.
    number: u32,
    began: u32,
    /// When the last byte came.
    last: u32,
    /// Bytes.
    received: usize,
}

impl Progress {
    /// The progress at `now`, when `received` bytes of the session's value `number` have come.
    /// `before` is the progress noted last.
    pub(super) fn note(before: Option<Self>, number: u32, received: usize, now: u32) -> Self {
        match before {
            Some(progress) if progress.number == number && progress.received == received => {
                progress
            }
            Some(progress) if progress.number == number => Self {
                last: now,
                received,
                ..progress
            },
            _ => Self {
                number,
                began: now,
                last: now,
                received,
            },
        }
    }

    /// When it will have taken too long: without a byte for `timeout` seconds, or with fewer than
    /// [`RATE`] a second over a longer time.
    pub(super) fn deadline(&self, timeout: u32) -> u32 {
        let idle = self.last.saturating_add(timeout);
        let slow = self.began.saturating_add(timeout);
        let slow = slow.saturating_add((self.received / RATE) as u32);
        // The clock goes by whole seconds.
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
    fn upload_deadline_extends_with_received_bytes() {
        let first = Progress::note(None, 1, 0, 100);
        let slow = Progress::note(Some(first), 1, 2 * RATE, 109);
        assert_eq!(slow.deadline(10), 113);
        let fast = Progress::note(Some(first), 1, 100 * RATE, 109);
        assert_eq!(fast.deadline(10), 120);
    }

    #[test]
    fn the_next_value_begins_anew() {
        let first = Progress::note(None, 1, 5, 100);
        assert_eq!(Progress::note(Some(first), 2, 5, 109).deadline(10), 120);
    }
}
