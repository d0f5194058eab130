// SPDX-License-Identifier: GPL-2.0-only
//! SIEVE: a queue in order of arrival, over which a hand moves from old to new. An item that was hit since the hand
//! last passed keeps its place, so that new items are tested for hits early (Zhang and others, "SIEVE is simpler than
//! LRU", NSDI 2024).

use hippos_invariant::Exact;

use crate::item::Slot;

use super::queue::{links, look_from, Queue, NONE};
use super::slots::{gets_second_chance, Picked, Slots, SCAN_MAX};

pub(super) const CAP: u8 = 1;

/// The queue of a class.
pub(crate) struct Sieve {
    pub(crate) queue: Queue,
    /// The number of the slot that the hand looks at next; NONE for the oldest.
    hand: u32,
}

impl Sieve {
    pub(super) fn new() -> Self {
        Self {
            queue: Queue::new(),
            hand: NONE,
        }
    }

    pub(super) fn enter(&mut self, class: &impl Slots, slot: Slot) {
        self.queue.push(class, class.number(slot));
    }

    pub(super) fn leave(&mut self, class: &impl Slots, slot: Slot) {
        let number = class.number(slot);
        if self.hand == number {
            self.hand = links(class, number).map_or(NONE, |links| links.newer);
        }
        self.queue.remove(class, number);
    }

    /// The number of the slot that the hand looks at next.
    fn next(&self) -> u32 {
        match self.hand {
            NONE => self.queue.tail,
            at => at,
        }
    }

    /// Shows up to `most` slots that will be looked at next.
    pub(super) fn look_ahead(&self, class: &impl Slots, most: usize, see: &mut dyn FnMut(Slot)) {
        look_from(class, self.next(), most, see);
    }

    pub(super) fn pick(
        &mut self,
        class: &mut impl Slots,
        want: usize,
        dead: impl Fn(Slot) -> bool,
        picked: &mut Picked,
    ) -> usize {
        let mut scanned = 0usize;
        while scanned < SCAN_MAX && picked.len() < want && !picked.is_full() {
            let at = self.next();
            let (Some(slot), Some(links)) = (class.slot(at), links(class, at)) else {
                break;
            };
            scanned = scanned.add_exact(1);
            self.hand = links.newer;
            if slot.is_live() && !gets_second_chance(slot, &dead) {
                picked.push(slot);
            }
        }
        scanned
    }
}
