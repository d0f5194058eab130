// SPDX-License-Identifier: GPL-2.0-only
//! A walk over all items, beside readers and writers.

use hippos_invariant::Exact;

use crate::item::Item;
use crate::memory::class::HEAD;
use crate::platform::Platform;
use crate::store::{Guard, Store};

/// Slots that are looked at between two pauses.
const SCAN_MAX: usize = 256;

/// What a step of a walk came to.
#[derive(Clone, Copy, Debug)]
pub enum Step<'g> {
    /// An item.
    Item(Item<'g>),
    /// Much was looked at: time to end the section and begin another.
    Pause,
    /// The walk is over.
    End,
}

/// A walk in the order of slabs. An item that stays for the whole walk comes exactly once; one
/// that is stored or replaced meanwhile may come or not.
pub struct Walk<'s, P: Platform> {
    store: &'s Store<P>,
    block: u32,
    offset: u32,
    /// Slots until the next pause.
    left: usize,
}

impl<P: Platform> Store<P> {
    /// Starts a walk.
    pub fn walk(&self) -> Walk<'_, P> {
        Walk {
            store: self,
            block: 0,
            offset: HEAD as u32,
            left: SCAN_MAX,
        }
    }
}

impl<'s, P: Platform> Walk<'s, P> {
    /// The next item. Sections may change from step to step, and are to end at a pause.
    pub fn next<'g>(&mut self, guard: &'g Guard<'s, P>) -> Step<'g> {
        let store = self.store;
        while let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            let Some(block) = store
                .pool
                .get(self.block)
                .filter(|_| self.block < store.pool.used())
            else {
                return Step::End;
            };
            let slot = store.slabs.class_at(block, self.offset).and_then(|of| {
                let slot = store.slabs.slot_at(block, self.offset);
                self.offset = self.offset.add_exact(of.size());
                slot
            });
            let Some(slot) = slot else {
                self.block = self.block.add_exact(1);
                self.offset = HEAD as u32;
                continue;
            };
            if slot.is_live() && store.is_valid(slot) {
                return Step::Item(store.item(guard, slot));
            }
        }
        self.left = SCAN_MAX;
        Step::Pause
    }
}
