// SPDX-License-Identifier: GPL-2.0-only
//! Which slot goes next: policies over the slots of a class, which they see as [`Slots`].
//!
//! All is called under the class's lock, by those who hand slots out, take them back, or evict. A
//! hit only writes the item's reference count, which each policy reads when it decides.

mod clock;
mod ghosts;
pub(crate) mod queue;
pub(crate) mod s3fifo;
pub(crate) mod sieve;
mod slots;

use crate::config::Eviction;
use crate::hash::Hash;
use crate::item::Slot;

pub(crate) use ghosts::Ghosts;
use s3fifo::S3Fifo;
use sieve::Sieve;
pub(crate) use slots::{HandStep, Picked, Slots};

/// The policy of a class, and what it keeps of the class's slots.
pub(crate) enum Policy {
    Clock,
    Sieve(Sieve),
    S3Fifo(S3Fifo),
}

impl Policy {
    pub(crate) fn new(eviction: Eviction) -> Self {
        match eviction {
            Eviction::Clock => Self::Clock,
            Eviction::Sieve => Self::Sieve(Sieve::new()),
            Eviction::S3Fifo => Self::S3Fifo(S3Fifo::new()),
        }
    }

    /// A slot was handed out for a key of this hash.
    #[inline]
    pub(crate) fn enter(&mut self, class: &impl Slots, slot: Slot, hash: Hash) {
        match self {
            Self::Clock => {}
            Self::Sieve(sieve) => sieve.enter(class, slot),
            Self::S3Fifo(s3fifo) => s3fifo.enter(class, slot, hash),
        }
    }

    /// A slot became free.
    #[inline]
    pub(crate) fn leave(&mut self, class: &impl Slots, slot: Slot) {
        match self {
            Self::Clock => {}
            Self::Sieve(sieve) => sieve.leave(class, slot),
            Self::S3Fifo(s3fifo) => s3fifo.leave(class, slot),
        }
    }

    /// Picks up to `want` live slots, those that are `dead` first if it meets them, and returns
    /// how many it looked at, 0 if there is nothing to look at. `hash` gives a live slot's hash.
    pub(crate) fn pick(
        &mut self,
        class: &mut impl Slots,
        want: usize,
        dead: impl Fn(Slot) -> bool,
        hash: impl Fn(Slot) -> Hash,
        picked: &mut Picked,
    ) -> usize {
        match self {
            Self::Clock => clock::pick(class, want, dead, picked),
            Self::Sieve(sieve) => sieve.pick(class, want, dead, picked),
            Self::S3Fifo(s3fifo) => s3fifo.pick(class, want, dead, hash, picked),
        }
    }
}

/// The most that an item's reference count goes to.
pub(crate) fn cap(eviction: Eviction) -> u8 {
    match eviction {
        Eviction::Clock => clock::CAP,
        Eviction::Sieve => sieve::CAP,
        Eviction::S3Fifo => s3fifo::CAP,
    }
}

/// Whether slots are kept in queues, and need links.
pub(crate) fn queues(eviction: Eviction) -> bool {
    match eviction {
        Eviction::Clock => false,
        Eviction::Sieve | Eviction::S3Fifo => true,
    }
}
