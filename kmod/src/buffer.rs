// SPDX-License-Identifier: GPL-2.0-only
//! Replies in the making.

use kernel::prelude::*;

use hippos_engine::{Message, Out};

/// A buffer that takes what fits and never allocates by itself.
pub(crate) struct Buffer {
    bytes: KVVec<u8>,
}

impl Buffer {
    pub(crate) fn new(room: usize) -> Result<Self> {
        Ok(Self {
            bytes: KVVec::with_capacity(room, GFP_KERNEL)?,
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Twice the room.
    pub(crate) fn grow(&mut self) -> Result {
        Ok(self.bytes.reserve(self.bytes.capacity(), GFP_KERNEL)?)
    }
}

impl Out for Buffer {
    #[inline]
    fn room(&self) -> usize {
        self.bytes.capacity().saturating_sub(self.bytes.len())
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        // Within the room this allocates nothing and can't fail. Whoever puts more has
        // miscounted, and no reply is better than a part of one.
        if bytes.len() <= self.room() {
            let _ = self.bytes.extend_from_slice(bytes, GFP_KERNEL);
        }
    }
}

impl Message for Buffer {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}
