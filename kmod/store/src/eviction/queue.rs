// SPDX-License-Identifier: GPL-2.0-only
//! Queues of slots, for the policies that need an order of arrival.
//!
//! A slot's links are a word at the end of its slab: 8 bytes for each slot, and nothing for policies without queues. A
//! link is a slot's number: its block's number, shifted, and its own number in the block.

use hippos_invariant::{invariant, Exact};

use crate::item::Slot;
use crate::sync::Relaxed;

use super::slots::Slots;

/// No slot: the link at either end of a queue.
pub(crate) const NONE: u32 = u32::MAX;

/// A queue. New slots are added at the head.
#[derive(Clone, Copy)]
pub(crate) struct Queue {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) len: u32,
}

/// Shows up to `most` slots of a queue, from the one with this number to newer ones.
pub(super) fn look_from(
    class: &impl Slots,
    mut number: u32,
    most: usize,
    see: &mut dyn FnMut(Slot),
) {
    for _ in 0..most {
        let (Some(slot), Some(links)) = (class.slot(number), links(class, number)) else {
            return;
        };
        see(slot);
        number = links.newer;
    }
}

/// The numbers of a slot's neighbours.
#[derive(Clone, Copy)]
pub(crate) struct Links {
    /// Towards the head.
    pub(crate) newer: u32,
    /// Towards the tail.
    pub(crate) older: u32,
}

pub(crate) fn links(class: &impl Slots, number: u32) -> Option<Links> {
    let word = class.links(number)?.load(Relaxed);
    Some(Links {
        newer: (word >> 32) as u32,
        older: word as u32,
    })
}

fn set_links(class: &impl Slots, number: u32, links: Links) {
    if let Some(word) = class.links(number) {
        word.store(
            u64::from(links.newer) << 32 | u64::from(links.older),
            Relaxed,
        );
    }
}

fn set_newer(class: &impl Slots, number: u32, newer: u32) {
    if let Some(links) = links(class, number) {
        set_links(class, number, Links { newer, ..links });
    }
}

fn set_older(class: &impl Slots, number: u32, older: u32) {
    if let Some(links) = links(class, number) {
        set_links(class, number, Links { older, ..links });
    }
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            len: 0,
        }
    }

    /// Adds a slot at the head.
    pub(crate) fn push(&mut self, class: &impl Slots, number: u32) {
        set_links(
            class,
            number,
            Links {
                newer: NONE,
                older: self.head,
            },
        );
        if self.head == NONE {
            self.tail = number;
        } else {
            set_newer(class, self.head, number);
        }
        self.head = number;
        self.len = self.len.add_exact(1);
    }

    /// Removes a slot from any position.
    pub(crate) fn remove(&mut self, class: &impl Slots, number: u32) {
        let Some(Links { newer, older }) = links(class, number) else {
            return;
        };
        if newer == NONE {
            self.head = older;
        } else {
            set_older(class, newer, older);
        }
        if older == NONE {
            self.tail = newer;
        } else {
            set_newer(class, older, newer);
        }
        invariant!(self.len != 0, "slot {number} taken out of an empty queue");
        self.len = self.len.sub_exact(1);
    }
}
