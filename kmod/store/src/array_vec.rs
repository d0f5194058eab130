// SPDX-License-Identifier: GPL-2.0-only
//! A short list on the stack.
//!
//! heapless has these too, but with the kernel's overflow checks its `push` can panic.

use hippos_invariant::Exact;

/// Up to `N` values. Types with a niche take no more than their own bytes.
#[derive(Clone, Copy)]
pub(crate) struct ArrayVec<T, const N: usize> {
    items: [Option<T>; N],
    len: usize,
}

impl<T: Copy, const N: usize> ArrayVec<T, N> {
    pub(crate) fn new() -> Self {
        Self {
            items: [None; N],
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len >= N
    }

    /// Adds a value; the value is dropped if the list is full.
    pub(crate) fn push(&mut self, value: T) {
        if let Some(place) = self.items.get_mut(self.len) {
            *place = Some(value);
            self.len = self.len.add_exact(1);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.items.iter().map_while(|item| *item)
    }
}
