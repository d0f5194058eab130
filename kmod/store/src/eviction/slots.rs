// SPDX-License-Identifier: GPL-2.0-only
//! A class's slots, as a policy sees them.

use crate::array_vec::ArrayVec;
use crate::capacities::PICK;
use crate::item::Slot;
use crate::sync::{AtomicU64, Relaxed};

use super::ghosts::Ghosts;

/// Slots looked at while a class's lock is held.
pub(super) const SCAN_MAX: usize = 64;

pub(crate) type Picked = ArrayVec<Slot, PICK>;

/// One step of the hand over a class's slabs.
pub(crate) enum HandStep {
    /// It is at a slot, in use or free.
    Slot(Slot),
    /// It reached the end of a slab.
    SlabEnd,
    /// The class has no slab.
    NoSlab,
}

/// Whether the hand passes over a live slot, which was hit since the hand last passed and is not `dead`. Its hits are
/// then counted from zero.
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
    /// Shows up to `most` slots that the hand will be at, without moving it.
    fn look_ahead(&mut self, most: usize, see: &mut dyn FnMut(Slot));
    /// A slot's number, unique in the store.
    fn number(&self, slot: Slot) -> u32;
    /// The slot with this number.
    fn slot(&self, number: u32) -> Option<Slot>;
    /// The word for a slot's links, where the policy [needs them](super::queues).
    fn links(&self, number: u32) -> Option<&AtomicU64>;
    /// The hashes that S3-FIFO remembers for all classes.
    fn ghosts(&self) -> Option<&Ghosts>;
}
