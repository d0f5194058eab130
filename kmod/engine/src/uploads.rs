// SPDX-License-Identifier: GPL-2.0-only
//! Memory of values that are still on their way: what they have together.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Memory of the values that are on their way, in bytes.
#[derive(Default)]
pub(crate) struct Uploads(AtomicU64);

/// A value's part of it, given back when dropped.
pub(crate) struct Share<'e> {
    of: &'e Uploads,
    bytes: u64,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Relaxed);
    }
}

impl Uploads {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn share(&self, bytes: usize) -> Share<'_> {
        let bytes = bytes as u64;
        self.0.fetch_add(bytes, Relaxed);
        Share { of: self, bytes }
    }
}
