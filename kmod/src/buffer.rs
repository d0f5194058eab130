// SPDX-License-Identifier: GPL-2.0-only
//! Buffers that replies are written to.

use kernel::prelude::*;

use hippos_engine::{Message, Out};
use hippos_invariant::{invariant, Exact};
use hippos_kapi::stream::Reply;

/// A buffer of a fixed capacity, which cuts off the rest; only `grow` allocates.
pub(crate) struct Buffer {
    /// The whole buffer; bytes beyond `len` are meaningless.
    whole: KVVec<u8>,
    len: usize,
}

impl Buffer {
    pub(crate) fn new(capacity: usize) -> Result<Self> {
        Ok(Self {
            whole: KVVec::from_elem(0, capacity, GFP_KERNEL)?,
            len: 0,
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.whole.get(..self.len).unwrap_or_default()
    }

    /// Doubles the capacity.
    pub(crate) fn grow(&mut self) -> Result {
        Ok(self.whole.extend_with(self.whole.len(), 0, GFP_KERNEL)?)
    }
}

impl Out for Buffer {
    #[inline]
    fn room(&self) -> usize {
        self.whole.len().sub_exact(self.len)
    }

    #[inline]
    fn spare(&mut self) -> &mut [u8] {
        self.whole.get_mut(self.len..).unwrap_or_default()
    }

    #[inline]
    fn advance(&mut self, n: usize) {
        invariant!(n <= self.room(), "{n} bytes beyond {}", self.room());
        self.len = self.len.add_exact(n.min(self.room()));
    }
}

impl Message for Buffer {
    fn len(&self) -> usize {
        self.len
    }

    fn clear(&mut self) {
        self.len = 0;
    }
}

/// A TCP reply, written into the pages that are sent.
pub(crate) struct ReplyOut<'r>(pub(crate) Reply<'r>);

impl Out for ReplyOut<'_> {
    #[inline]
    fn room(&self) -> usize {
        self.0.spare_len()
    }

    #[inline]
    fn spare(&mut self) -> &mut [u8] {
        self.0.spare()
    }

    #[inline]
    fn advance(&mut self, n: usize) {
        self.0.advance(n);
    }
}
