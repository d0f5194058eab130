// SPDX-License-Identifier: GPL-2.0-only
//! A walk over all items, concurrent with readers and writers.

use hippos_invariant::Exact;

use crate::item::Item;
use crate::memory::class::HEAD;
use crate::memory::pool::Block;
use crate::platform::Platform;
use crate::store::{Guard, Store};
use crate::sync::Relaxed;

/// Slots that are looked at between two pauses.
const SCAN_MAX: usize = 256;

/// The result of one step of a walk.
#[derive(Clone, Copy, Debug)]
pub enum WalkStep<'g> {
    /// An item.
    Item(Item<'g>),
    /// Many slots were looked at: end the section and begin another.
    Pause,
    /// The walk is over.
    End,
}

/// A walk in the order of slabs. An item that exists for the whole walk is returned exactly once; one that is stored or
/// replaced meanwhile may be returned or not.
pub struct Walk<'s, P: Platform> {
    store: &'s Store<P>,
    /// The classes to walk, one bit each.
    classes: u64,
    block: u32,
    offset: u32,
    /// Slots left until the next pause.
    left: usize,
}

impl<P: Platform> Store<P> {
    /// Starts a walk over all items.
    pub fn walk(&self) -> Walk<'_, P> {
        self.walk_classes(u64::MAX)
    }

    /// Starts a walk over the items of some classes, bit i for class i. The slots of other classes' slabs are skipped.
    pub fn walk_classes(&self, classes: u64) -> Walk<'_, P> {
        Walk {
            store: self,
            classes,
            block: 0,
            offset: HEAD as u32,
            left: SCAN_MAX,
        }
    }
}

impl<'s, P: Platform> Walk<'s, P> {
    /// Whether a slab's class is to be walked. The caller has found in this section that the block is a slab.
    fn wants(&self, block: &Block) -> bool {
        let class = u32::from(block.class.load(Relaxed));
        self.classes
            .checked_shr(class)
            .is_some_and(|bits| bits & 1 != 0)
    }

    /// The next item. Each step may have a section of its own; the section must end at a pause.
    pub fn next<'g>(&mut self, guard: &'g Guard<'s, P>) -> WalkStep<'g> {
        let store = self.store;
        while let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            let Some(block) = store
                .pool
                .get(self.block)
                .filter(|_| self.block < store.pool.used())
            else {
                return WalkStep::End;
            };
            let of = store.slabs.class_at(block, self.offset);
            let slot = of.filter(|_| self.wants(block)).and_then(|of| {
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
                return WalkStep::Item(store.item(guard, slot));
            }
        }
        self.left = SCAN_MAX;
        WalkStep::Pause
    }
}
