// SPDX-License-Identifier: GPL-2.0-only
//! Names and passwords, in the format of memcached's authentication file.
//!
//! As with the allow list, there are two texts, and a writer fills the one that is not current.

use hippos_invariant::Exact;

use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// The maximum length of all lines together.
pub const CREDENTIALS_MAX: usize = 2048;

struct Text {
    len: AtomicUsize,
    bytes: [AtomicU8; CREDENTIALS_MAX],
}

impl Text {
    const fn new() -> Self {
        Self {
            len: AtomicUsize::new(0),
            bytes: [const { AtomicU8::new(0) }; CREDENTIALS_MAX],
        }
    }

    fn bytes(&self) -> &[AtomicU8] {
        self.bytes.get(..self.len.load(Relaxed)).unwrap_or(&[])
    }
}

/// Lines of `user:password`: too large to pass over a kernel's stack.
pub struct Credentials {
    texts: [Text; 2],
    current: AtomicUsize,
    pub(crate) changing: AtomicBool,
}

/// The error of a list of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsError {
    /// A line has no colon.
    Line,
    /// They are too long.
    TooLong,
    /// Another caller is changing them.
    Busy,
}

impl Credentials {
    /// No credentials.
    #[allow(clippy::new_without_default, reason = "made at compile time")]
    pub const fn new() -> Self {
        Self {
            texts: [const { Text::new() }; 2],
            current: AtomicUsize::new(0),
            changing: AtomicBool::new(false),
        }
    }

    /// Whether a line equals these. The time that this takes reveals at most the lengths: every byte of a line of the
    /// right length is compared.
    pub(crate) fn verify(&self, user: &[u8], password: &[u8]) -> bool {
        let Some(text) = self.texts.get(self.current.load(Acquire)) else {
            return false;
        };
        let wanted = user.len().add_exact(1).add_exact(password.len());
        let is_end = |byte: &AtomicU8| matches!(byte.load(Relaxed), b'\n' | b'\r');
        let mut known = false;
        for line in text.bytes().split(is_end) {
            let colon = line.iter().position(|byte| byte.load(Relaxed) == b':');
            if colon != Some(user.len()) || line.len() != wanted {
                continue;
            }
            let differs = line
                .iter()
                .zip(user.iter().chain(b":").chain(password))
                .fold(0, |differs, (a, b)| differs | (a.load(Relaxed) ^ b));
            known |= differs == 0;
        }
        known
    }

    /// Whether there is no user.
    pub(crate) fn is_empty(&self) -> bool {
        let text = self.texts.get(self.current.load(Acquire));
        text.is_none_or(|text| text.len.load(Relaxed) == 0)
    }

    pub(crate) fn replace(&self, lines: &[u8], wait: impl FnOnce()) {
        let other = self.current.load(Relaxed) ^ 1;
        let Some(text) = self.texts.get(other) else {
            return;
        };
        for (place, byte) in text.bytes.iter().zip(lines) {
            place.store(*byte, Relaxed);
        }
        text.len.store(lines.len().min(CREDENTIALS_MAX), Relaxed);
        self.current.store(other, Release);
        wait();
    }
}
