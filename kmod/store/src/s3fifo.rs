// SPDX-License-Identifier: GPL-2.0-only
//! S3-FIFO: new items enter a small queue; those hit there more than once go on to the main queue,
//! the others are evicted but remembered for a while, and enter the main queue if they come back
//! (Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023).

use crate::hash::Hash;
use crate::item::Slot;
use crate::platform::{Platform, RawLock};
use crate::policy::{Locked, Picked, Policy, LOOK};
use crate::queue::Queue;
use crate::sync::{AtomicU32, Relaxed};
use crate::table::Table;

pub(crate) struct S3Fifo;

/// Marks beside the class in an item's header: the slot is in the main queue.
pub(crate) const MAIN: u8 = 0x40;
/// The slot is in no queue.
pub(crate) const NOWHERE: u8 = 0x80;
/// The small queue gets one slot in so many.
const SMALL: u32 = 10;
/// Hits in the small queue that lead to the main one.
const PROVEN: u8 = 2;

pub(crate) fn whereabouts(slot: Slot) -> u8 {
    slot.header().class.load(Relaxed) & (MAIN | NOWHERE)
}

fn put(slot: Slot, whereabouts: u8) {
    let class = slot.header().class.load(Relaxed) & !(MAIN | NOWHERE);
    slot.header().class.store(class | whereabouts, Relaxed);
}

impl Policy for S3Fifo {
    const CAP: u8 = 3;
    const QUEUES: bool = true;

    fn enter<L: RawLock>(class: &mut Locked<'_, L>, slot: Slot, hash: Hash) {
        let known = class.slabs.ghosts().is_some_and(|g| g.take(hash));
        enqueue(class, slot, if known { MAIN } else { 0 });
    }

    fn leave<L: RawLock>(class: &mut Locked<'_, L>, slot: Slot) {
        dequeue(class, slot);
    }

    fn pick<L: RawLock>(
        class: &mut Locked<'_, L>,
        want: usize,
        dead: impl Fn(Slot) -> bool,
        hash: impl Fn(Slot) -> Hash,
        picked: &mut Picked,
    ) -> usize {
        let mut looked = 0usize;
        while looked < LOOK && picked.len() < want && !picked.is_full() {
            let (small, main) = (class.state.small, class.state.main);
            let share = small.len.saturating_add(main.len) / SMALL;
            let from_small = small.len > share || main.len == 0;
            let Some(slot) = class.slot(if from_small { small.tail } else { main.tail }) else {
                break;
            };
            looked = looked.wrapping_add(1);
            dequeue(class, slot);
            let refs = &slot.header().refs;
            let seen = refs.load(Relaxed);
            if !slot.is_live() {
                // Being filled, or on its way out: it comes back to a queue when it is free.
                enqueue(class, slot, if from_small { 0 } else { MAIN });
            } else if dead(slot) {
                picked.push(slot);
            } else if from_small && seen >= PROVEN {
                refs.store(0, Relaxed);
                enqueue(class, slot, MAIN);
            } else if !from_small && seen != 0 {
                refs.store(seen.wrapping_sub(1), Relaxed);
                enqueue(class, slot, MAIN);
            } else {
                if from_small {
                    if let Some(ghosts) = class.slabs.ghosts() {
                        ghosts.add(hash(slot));
                    }
                }
                picked.push(slot);
            }
        }
        looked
    }
}

fn enqueue<L: RawLock>(class: &mut Locked<'_, L>, slot: Slot, whereabouts: u8) {
    put(slot, whereabouts);
    let number = class.number(slot);
    let mut queue = *queue(class, whereabouts);
    class.push(&mut queue, number);
    *self::queue(class, whereabouts) = queue;
}

fn dequeue<L: RawLock>(class: &mut Locked<'_, L>, slot: Slot) {
    let whereabouts = whereabouts(slot);
    if whereabouts & NOWHERE == 0 {
        let number = class.number(slot);
        let mut queue = *queue(class, whereabouts);
        class.remove(&mut queue, number);
        *self::queue(class, whereabouts) = queue;
        put(slot, NOWHERE);
    }
}

fn queue<'a, L>(class: &'a mut Locked<'_, L>, whereabouts: u8) -> &'a mut Queue {
    if whereabouts & MAIN != 0 {
        &mut class.state.main
    } else {
        &mut class.state.small
    }
}

/// Ways of a set of ghosts.
const WAYS: usize = 8;

/// Fingerprints of what was evicted from small queues, in sets, the newest first.
pub(crate) struct Ghosts {
    sets: Table<Set>,
}

#[repr(C, align(32))]
struct Set([AtomicU32; WAYS]);

impl Ghosts {
    /// A table for about `items` items.
    pub(crate) fn new<P: Platform>(platform: &P, items: usize) -> Option<Self> {
        let sets = (items / WAYS).checked_next_power_of_two()?;
        let set = || Set(core::array::from_fn(|_| AtomicU32::new(0)));
        Some(Self {
            sets: Table::new(platform, sets, set)?,
        })
    }

    /// # Safety
    ///
    /// As for [`Table::free`].
    pub(crate) unsafe fn free<P: Platform>(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe { self.sets.free(platform) };
    }

    pub(crate) fn tables(&self) -> usize {
        self.sets.size()
    }

    /// The set of a hash, and its fingerprint there: 0 is no fingerprint.
    fn set(&self, hash: Hash) -> Option<(&Set, u32)> {
        let at = hash.get() as usize & self.sets.len().wrapping_sub(1);
        Some((self.sets.get(at)?, (hash.get() >> 32) as u32 | 1))
    }

    /// Remembers a hash. The oldest of its set is forgotten. Two at the same time may lose one.
    fn add(&self, hash: Hash) {
        let Some((set, mut print)) = self.set(hash) else {
            return;
        };
        for way in &set.0 {
            let older = way.load(Relaxed);
            way.store(print, Relaxed);
            print = older;
            if older == 0 {
                break;
            }
        }
    }

    /// Is a hash remembered? Forgets it.
    fn take(&self, hash: Hash) -> bool {
        let Some((set, print)) = self.set(hash) else {
            return false;
        };
        for way in &set.0 {
            if way.load(Relaxed) == print {
                way.store(0, Relaxed);
                return true;
            }
        }
        false
    }
}
