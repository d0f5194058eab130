// SPDX-License-Identifier: GPL-2.0-only
//! Which slot goes next: the seam between a class's slots and the rules for evicting them.
//!
//! All is called under the class's lock, by those who hand slots out, take them back, or need
//! room. A hit only writes the item's reference count, which any rule reads when it decides.

use crate::config::Eviction;
use crate::few::Few;
use crate::hash::Hash;
use crate::item::Slot;
use crate::platform::RawLock;
use crate::pool::{Pool, NONE};
use crate::s3fifo::S3Fifo;
use crate::sieve::Sieve;
use crate::slab::{Class, Hand, Slabs, State, HEAD};
use crate::sync::Relaxed;

/// Slots picked at a time.
pub(crate) const PICK: usize = 16;
/// Slots looked at while a class's lock is held.
pub(crate) const LOOK: usize = 64;

pub(crate) type Picked = Few<Slot, PICK>;

/// A class under its lock, for a policy.
pub(crate) struct Locked<'a, L> {
    pub(crate) slabs: &'a Slabs<L>,
    pub(crate) pool: &'a Pool<L>,
    pub(crate) of: &'a Class<L>,
    pub(crate) state: &'a mut State,
}

/// A rule for evicting.
pub(crate) trait Policy {
    /// The most that an item's reference count goes to.
    const CAP: u8;
    /// Does it keep slots in queues?
    const QUEUES: bool;
    /// A slot was handed out for a key of this hash.
    fn enter<L: RawLock>(class: &mut Locked<'_, L>, slot: Slot, hash: Hash);
    /// A slot became free.
    fn leave<L: RawLock>(class: &mut Locked<'_, L>, slot: Slot);
    /// Picks up to `want` live slots, those that are `dead` first if it meets them, and returns
    /// how many it looked at, 0 if there is nothing to look at. `hash` gives a live slot's hash.
    fn pick<L: RawLock>(
        class: &mut Locked<'_, L>,
        want: usize,
        dead: impl Fn(Slot) -> bool,
        hash: impl Fn(Slot) -> Hash,
        picked: &mut Picked,
    ) -> usize;
}

/// The most that an item's reference count goes to.
pub(crate) fn cap(eviction: Eviction) -> u8 {
    match eviction {
        Eviction::Clock => Clock::CAP,
        Eviction::Sieve => Sieve::CAP,
        Eviction::S3Fifo => S3Fifo::CAP,
    }
}

/// Are slots kept in queues?
pub(crate) fn queues(eviction: Eviction) -> bool {
    match eviction {
        Eviction::Clock => Clock::QUEUES,
        Eviction::Sieve => Sieve::QUEUES,
        Eviction::S3Fifo => S3Fifo::QUEUES,
    }
}

impl<L: RawLock> Locked<'_, L> {
    /// See [`Policy::enter`].
    #[inline]
    pub(crate) fn enter(&mut self, slot: Slot, hash: Hash) {
        match self.slabs.eviction() {
            Eviction::Clock => Clock::enter(self, slot, hash),
            Eviction::Sieve => Sieve::enter(self, slot, hash),
            Eviction::S3Fifo => S3Fifo::enter(self, slot, hash),
        }
    }

    /// See [`Policy::leave`].
    #[inline]
    pub(crate) fn leave(&mut self, slot: Slot) {
        match self.slabs.eviction() {
            Eviction::Clock => Clock::leave(self, slot),
            Eviction::Sieve => Sieve::leave(self, slot),
            Eviction::S3Fifo => S3Fifo::leave(self, slot),
        }
    }

    /// See [`Policy::pick`].
    pub(crate) fn pick(
        &mut self,
        want: usize,
        dead: impl Fn(Slot) -> bool,
        hash: impl Fn(Slot) -> Hash,
        picked: &mut Picked,
    ) -> usize {
        match self.slabs.eviction() {
            Eviction::Clock => Clock::pick(self, want, dead, hash, picked),
            Eviction::Sieve => Sieve::pick(self, want, dead, hash, picked),
            Eviction::S3Fifo => S3Fifo::pick(self, want, dead, hash, picked),
        }
    }
}

/// CLOCK: a hand goes over the class's slots as they lie; what was hit since it last came gets a
/// second chance.
pub(crate) struct Clock;

impl Policy for Clock {
    const CAP: u8 = 1;
    const QUEUES: bool = false;

    #[inline]
    fn enter<L: RawLock>(_: &mut Locked<'_, L>, _: Slot, _: Hash) {}

    #[inline]
    fn leave<L: RawLock>(_: &mut Locked<'_, L>, _: Slot) {}

    fn pick<L: RawLock>(
        class: &mut Locked<'_, L>,
        want: usize,
        dead: impl Fn(Slot) -> bool,
        _: impl Fn(Slot) -> Hash,
        picked: &mut Picked,
    ) -> usize {
        let Locked {
            slabs,
            pool,
            of,
            state,
        } = class;
        let mut looked = 0usize;
        while looked < LOOK && picked.len() < want && !picked.is_full() {
            let hand = state.hand;
            let Some(block) = pool.get(hand.block) else {
                if state.ring == NONE {
                    break;
                }
                state.hand = Hand {
                    block: state.ring,
                    offset: HEAD as u32,
                };
                continue;
            };
            looked = looked.wrapping_add(1);
            let Some(slot) = slabs.slot_at(block, hand.offset) else {
                state.hand = Hand {
                    block: block.after.load(Relaxed),
                    offset: HEAD as u32,
                };
                continue;
            };
            state.hand.offset = hand.offset.wrapping_add(of.size());
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
