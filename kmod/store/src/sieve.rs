// SPDX-License-Identifier: GPL-2.0-only
//! SIEVE: a queue in order of arrival, over which a hand goes from old to new. What was hit since
//! the hand last came stays where it is, so that new items have to prove themselves early (Zhang
//! and others, "SIEVE is simpler than LRU", NSDI 2024).

use crate::hash::Hash;
use crate::item::Slot;
use crate::platform::RawLock;
use crate::policy::{Locked, Picked, Policy, LOOK};
use crate::pool::NONE;
use crate::sync::Relaxed;

pub(crate) struct Sieve;

impl Policy for Sieve {
    const CAP: u8 = 1;
    const QUEUES: bool = true;

    fn enter<L: RawLock>(class: &mut Locked<'_, L>, slot: Slot, _: Hash) {
        let mut queue = class.state.main;
        class.push(&mut queue, class.number(slot));
        class.state.main = queue;
    }

    fn leave<L: RawLock>(class: &mut Locked<'_, L>, slot: Slot) {
        let number = class.number(slot);
        if class.state.needle == number {
            class.state.needle = class.links(number).map_or(NONE, |links| links.newer);
        }
        let mut queue = class.state.main;
        class.remove(&mut queue, number);
        class.state.main = queue;
    }

    fn pick<L: RawLock>(
        class: &mut Locked<'_, L>,
        want: usize,
        dead: impl Fn(Slot) -> bool,
        _: impl Fn(Slot) -> Hash,
        picked: &mut Picked,
    ) -> usize {
        let mut looked = 0usize;
        while looked < LOOK && picked.len() < want && !picked.is_full() {
            let at = match class.state.needle {
                NONE => class.state.main.tail,
                at => at,
            };
            let (Some(slot), Some(links)) = (class.slot(at), class.links(at)) else {
                break;
            };
            looked = looked.wrapping_add(1);
            class.state.needle = links.newer;
            if !slot.is_live() {
                continue;
            }
            let refs = &slot.header().refs;
            if refs.load(Relaxed) != 0 && !dead(slot) {
                refs.store(0, Relaxed);
                continue;
            }
            picked.push(slot);
        }
        looked
    }
}
