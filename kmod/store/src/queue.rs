// SPDX-License-Identifier: GPL-2.0-only
//! Queues of slots, for the policies that need an order of arrival.
//!
//! A slot's links are a word at the end of its slab, so that they cost 8 bytes a slot and nothing
//! where there are no queues. A link is a slot's number: its block's, shifted, and its own there.

use crate::item::Slot;
use crate::platform::RawLock;
use crate::policy::Locked;
use crate::pool::NONE;
use crate::sync::Relaxed;

/// A queue: new slots come in at the head.
#[derive(Clone, Copy)]
pub(crate) struct Queue {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) len: u32,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            len: 0,
        }
    }
}

/// A slot's neighbours, as numbers.
#[derive(Clone, Copy)]
pub(crate) struct Links {
    /// Towards the head.
    pub(crate) newer: u32,
    /// Towards the tail.
    pub(crate) older: u32,
}

impl<L: RawLock> Locked<'_, L> {
    pub(crate) fn links(&self, number: u32) -> Option<Links> {
        let word = self.slabs.link(self.pool, number)?.load(Relaxed);
        Some(Links {
            newer: (word >> 32) as u32,
            older: word as u32,
        })
    }

    fn set_links(&self, number: u32, links: Links) {
        if let Some(word) = self.slabs.link(self.pool, number) {
            word.store(
                u64::from(links.newer) << 32 | u64::from(links.older),
                Relaxed,
            );
        }
    }

    fn set_newer(&self, number: u32, newer: u32) {
        if let Some(links) = self.links(number) {
            self.set_links(number, Links { newer, ..links });
        }
    }

    fn set_older(&self, number: u32, older: u32) {
        if let Some(links) = self.links(number) {
            self.set_links(number, Links { older, ..links });
        }
    }

    pub(crate) fn number(&self, slot: Slot) -> u32 {
        self.slabs.number(self.of, slot)
    }

    pub(crate) fn slot(&self, number: u32) -> Option<Slot> {
        self.slabs.numbered(self.pool, self.of, number)
    }

    /// Adds a slot at the head.
    pub(crate) fn push(&self, queue: &mut Queue, number: u32) {
        self.set_links(
            number,
            Links {
                newer: NONE,
                older: queue.head,
            },
        );
        if queue.head == NONE {
            queue.tail = number;
        } else {
            self.set_newer(queue.head, number);
        }
        queue.head = number;
        queue.len = queue.len.wrapping_add(1);
    }

    /// Takes a slot out, wherever it is.
    pub(crate) fn remove(&self, queue: &mut Queue, number: u32) {
        let Some(Links { newer, older }) = self.links(number) else {
            return;
        };
        if newer == NONE {
            queue.head = older;
        } else {
            self.set_older(newer, older);
        }
        if older == NONE {
            queue.tail = newer;
        } else {
            self.set_newer(older, newer);
        }
        queue.len = queue.len.wrapping_sub(1);
    }
}
