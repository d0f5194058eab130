// SPDX-License-Identifier: GPL-2.0-only
//! A class's magazine: the slots that were freed last, which are reused first because they are still in the CPU's
//! caches.

use hippos_invariant::{invariant, Exact};

use crate::capacities::MAGAZINE;
use crate::item::Slot;

/// A stack of free slots, linked by address through their CAS numbers. Under the class's lock.
pub(crate) struct Magazine {
    pub(crate) first: Option<Slot>,
    pub(crate) len: u32,
}

impl Magazine {
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.len >= MAGAZINE as u32
    }

    /// Adds a free slot.
    #[inline]
    pub(crate) fn push(&mut self, slot: Slot) {
        slot.link_free(self.first);
        self.first = Some(slot);
        self.len = self.len.add_exact(1);
    }

    /// Takes the slot that was added last.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Slot> {
        let slot = self.first?;
        self.first = slot.next_free();
        invariant!(self.len != 0, "a magazine of no slots has one");
        self.len = self.len.sub_exact(1);
        Some(slot)
    }
}
