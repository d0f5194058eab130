// SPDX-License-Identifier: GPL-2.0-only
//! A class's slots as a policy sees them.

use crate::array_vec::ArrayVec;
use crate::capacities::PICK;
use crate::item::Slot;
use crate::sync::{AtomicU64, Relaxed};

use super::ghosts::Ghosts;

/// Slots looked at while a class's lock is held.
pub(super) const SCAN_MAX: usize = 64;

pub(crate) type Picked = ArrayVec<Slot, PICK>;

/// What the hand over a class's slabs came to.
pub(crate) enum HandStep {
    /// A slot, in use or free.
    Slot(Slot),
    /// The end of a slab.
    SlabEnd,
    /// The class has no slab.
    NoSlab,
}

/// Whether a hand passes over a live slot: it was hit since the hand last came, and is not `dead`.
/// Its hits are counted anew.
pub(super) fn gets_second_chance(slot: Slot, dead: &impl Fn(Slot) -> bool) -> bool {
    let refs = &slot.header().refs;
    if refs.load(Relaxed) == 0 || dead(slot) {
        return false;
    }
    refs.store(0, Relaxed);
    true
}

/// The slots of a class, whose lock is held.
pub(crate) trait Slots {
    /// Moves the hand over the class's slabs by one slot.
    fn advance_hand(&mut self) -> HandStep;
    /// A slot's number among all of the store.
    fn number(&self, slot: Slot) -> u32;
    /// The slot of a number.
    fn slot(&self, number: u32) -> Option<Slot>;
    /// The word for a slot's links, where the policy [needs them](super::queues).
    fn links(&self, number: u32) -> Option<&AtomicU64>;
    /// What S3-FIFO remembers for all classes.
    fn ghosts(&self) -> Option<&Ghosts>;
}
