// SPDX-License-Identifier: GPL-2.0-only
//! The total memory of values that are being received.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The memory of the values that are being received, in bytes.
#[derive(Default)]
pub(crate) struct Uploads(AtomicU64);

/// One value's part of the total, subtracted when it is dropped.
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
