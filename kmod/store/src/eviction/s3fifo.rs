// SPDX-License-Identifier: GPL-2.0-only
//! S3-FIFO: new items enter a small queue; those hit there more than once go on to the main queue,
//! the others are evicted but remembered for a while, and enter the main queue if they come back
//! (Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023).

use hippos_invariant::Exact;

use crate::hash::Hash;
use crate::item::Slot;
use crate::sync::Relaxed;

use super::queue::Queue;
use super::slots::{Picked, Slots, SCAN_MAX};

pub(super) const CAP: u8 = 3;
/// Marks beside the class in an item's header: the slot is in the main queue.
pub(crate) const MAIN: u8 = 0x40;
/// The slot is in no queue.
pub(crate) const NOWHERE: u8 = 0x80;
/// The small queue gets one slot in so many.
const SMALL: u32 = 10;
/// Hits in the small queue that lead to the main one.
const PROVEN: u8 = 2;

/// The queues of a class.
pub(crate) struct S3Fifo {
    pub(crate) main: Queue,
    /// New items.
    pub(crate) small: Queue,
}

/// In which queue a slot is.
pub(crate) fn whereabouts(slot: Slot) -> u8 {
    slot.header().class.load(Relaxed) & (MAIN | NOWHERE)
}

fn put(slot: Slot, whereabouts: u8) {
    let class = slot.header().class.load(Relaxed) & !(MAIN | NOWHERE);
    slot.header().class.store(class | whereabouts, Relaxed);
}

impl S3Fifo {
    pub(super) fn new() -> Self {
        Self {
            main: Queue::new(),
            small: Queue::new(),
        }
    }

    pub(super) fn enter(&mut self, class: &impl Slots, slot: Slot, hash: Hash) {
        let known = class.ghosts().is_some_and(|g| g.take(hash));
        self.enqueue(class, slot, if known { MAIN } else { 0 });
    }

    pub(super) fn leave(&mut self, class: &impl Slots, slot: Slot) {
        self.dequeue(class, slot);
    }

    pub(super) fn pick(
        &mut self,
        class: &mut impl Slots,
        want: usize,
        dead: impl Fn(Slot) -> bool,
        hash: impl Fn(Slot) -> Hash,
        picked: &mut Picked,
    ) -> usize {
        let mut scanned = 0usize;
        while scanned < SCAN_MAX && picked.len() < want && !picked.is_full() {
            let (small, main) = (&self.small, &self.main);
            let share = small.len.add_exact(main.len) / SMALL;
            let from_small = small.len > share || main.len == 0;
            let Some(slot) = class.slot(if from_small { small.tail } else { main.tail }) else {
                break;
            };
            scanned = scanned.add_exact(1);
            self.dequeue(class, slot);
            let refs = &slot.header().refs;
            let seen = refs.load(Relaxed);
            if !slot.is_live() {
                // Being filled, or on its way out: it comes back to a queue when it is free.
                self.enqueue(class, slot, if from_small { 0 } else { MAIN });
            } else if dead(slot) {
                picked.push(slot);
            } else if from_small && seen >= PROVEN {
                refs.store(0, Relaxed);
                self.enqueue(class, slot, MAIN);
            } else if !from_small && seen != 0 {
                refs.store(seen.sub_exact(1), Relaxed);
                self.enqueue(class, slot, MAIN);
            } else {
                if from_small {
                    if let Some(ghosts) = class.ghosts() {
                        ghosts.add(hash(slot));
                    }
                }
                picked.push(slot);
            }
        }
        scanned
    }

    fn enqueue(&mut self, class: &impl Slots, slot: Slot, whereabouts: u8) {
        put(slot, whereabouts);
        self.queue(whereabouts).push(class, class.number(slot));
    }

    fn dequeue(&mut self, class: &impl Slots, slot: Slot) {
        let whereabouts = whereabouts(slot);
        if whereabouts & NOWHERE == 0 {
            self.queue(whereabouts).remove(class, class.number(slot));
            put(slot, NOWHERE);
        }
    }

    fn queue(&mut self, whereabouts: u8) -> &mut Queue {
        if whereabouts & MAIN != 0 {
            &mut self.main
        } else {
            &mut self.small
        }
    }
}
