// SPDX-License-Identifier: GPL-2.0-only
//! S3-FIFO: new items enter a small queue. Items that are hit there more than once move to the main queue; the rest are
//! evicted, but their hashes are remembered for a while, and such an item enters the main queue when it is stored again
//! (Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023).

use hippos_invariant::Exact;

use crate::hash::Hash;
use crate::item::Slot;
use crate::sync::Relaxed;

use super::queue::{look_from, Queue};
use super::slots::{Picked, Slots, SCAN_MAX};

pub(super) const CAP: u8 = 3;
/// Flag beside the class in an item's header: the slot is in the main queue.
pub(crate) const MAIN: u8 = 0x40;
/// The slot is in no queue.
pub(crate) const NOWHERE: u8 = 0x80;
/// The small queue holds one slot in this many.
const SMALL: u32 = 10;
/// Hits in the small queue that move an item to the main queue.
const PROVEN: u8 = 2;

/// The queues of a class.
pub(crate) struct S3Fifo {
    pub(crate) main: Queue,
    /// New items.
    pub(crate) small: Queue,
}

/// The queue that a slot is in.
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

    pub(super) fn put_back(&mut self, class: &impl Slots, slot: Slot) {
        if whereabouts(slot) & NOWHERE != 0 {
            self.enqueue(class, slot, 0);
        }
    }

    /// Shows up to `most` slots that will be looked at next: the oldest of each queue.
    pub(super) fn look_ahead(&self, class: &impl Slots, most: usize, see: &mut dyn FnMut(Slot)) {
        for queue in [&self.small, &self.main] {
            look_from(class, queue.tail, most / 2, see);
        }
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
                // It is being filled, or already unlinked: it leaves the queue when it is freed.
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
