// SPDX-License-Identifier: GPL-2.0-only
//! Eviction policies: they choose which slot of a class is evicted next. A policy sees the slots as [`Slots`].
//!
//! All functions are called under the class's lock, when slots are allocated, freed or evicted. A hit only writes the
//! item's reference count, which a policy reads when it chooses.

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
use slots::SCAN_MAX;
pub(crate) use slots::{HandStep, Picked, Slots};

/// The policy of a class, and its data about the class's slots.
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

    /// A slot was allocated for a key of this hash.
    #[inline]
    pub(crate) fn enter(&mut self, class: &impl Slots, slot: Slot, hash: impl FnOnce() -> Hash) {
        match self {
            Self::Clock => {}
            Self::Sieve(sieve) => sieve.enter(class, slot),
            Self::S3Fifo(s3fifo) => s3fifo.enter(class, slot, hash()),
        }
    }

    /// A slot was freed.
    #[inline]
    pub(crate) fn leave(&mut self, class: &impl Slots, slot: Slot) {
        match self {
            Self::Clock => {}
            Self::Sieve(sieve) => sieve.leave(class, slot),
            Self::S3Fifo(s3fifo) => s3fifo.leave(class, slot),
        }
    }

    /// Puts back a picked slot that is not to be evicted, and was not freed since it was picked. For S3-FIFO it is like a
    /// new one again.
    pub(crate) fn put_back(&mut self, class: &impl Slots, slot: Slot) {
        match self {
            Self::Clock | Self::Sieve(_) => {}
            Self::S3Fifo(s3fifo) => s3fifo.put_back(class, slot),
        }
    }

    /// Shows up to [`SCAN_MAX`] slots of those that [`pick`](Self::pick) will look at next; changes nothing.
    pub(crate) fn look_ahead(&self, class: &mut impl Slots, see: &mut dyn FnMut(Slot)) {
        match self {
            Self::Clock => class.look_ahead(SCAN_MAX, see),
            Self::Sieve(sieve) => sieve.look_ahead(class, SCAN_MAX, see),
            Self::S3Fifo(s3fifo) => s3fifo.look_ahead(class, SCAN_MAX, see),
        }
    }

    /// Picks up to `want` live slots, preferring those for which `dead` is true if it meets any, and returns how many
    /// slots it looked at: 0 if there are none. `hash` returns a live slot's hash.
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

/// The highest value of an item's reference count.
pub(crate) fn cap(eviction: Eviction) -> u8 {
    match eviction {
        Eviction::Clock => clock::CAP,
        Eviction::Sieve => sieve::CAP,
        Eviction::S3Fifo => s3fifo::CAP,
    }
}

/// Whether the policy keeps slots in queues, which need links.
pub(crate) fn queues(eviction: Eviction) -> bool {
    match eviction {
        Eviction::Clock => false,
        Eviction::Sieve | Eviction::S3Fifo => true,
    }
}
