// SPDX-License-Identifier: GPL-2.0-only
//! A slab class: its slabs and slots, and the lock that guards each field.

use core::num::NonZeroU32;

use hippos_invariant::Exact;

use crate::config::Eviction;
use crate::eviction::Policy;
use crate::lock::LockedData;
use crate::platform::RawLock;
use crate::sync::{AtomicU32, AtomicU64, Relaxed};

use super::magazine::Magazine;
use super::pool::NONE;

/// Bytes of a slab before its first slot.
pub(crate) const HEAD: usize = 24;
/// The most classes there can be: an item's header has six bits for it.
pub(crate) const CLASSES: usize = 64;

#[repr(align(64))]
pub(crate) struct Class<L> {
    /// Bytes of a slot.
    pub(super) size: NonZeroU32,
    /// Slots of a slab.
    pub(super) slots: u32,
    /// Free slots, carved or not; in a large cache more than 32 bits count. Written under the lock.
    pub(crate) free: AtomicU64,
    /// Slabs. Written under the lock.
    pub(crate) slabs: AtomicU32,
    /// Slabs without slots in use that other classes may take. Written under the lock.
    pub(crate) spare: AtomicU32,
    /// Slots that wait for a grace period, except those that wait only for their pins.
    pub(crate) retired: AtomicU32,
    /// The number of slots that the store tries to keep free, or about to be freed.
    pub(crate) reserve: AtomicU32,
    /// The fewest slots that were free while no block was available.
    pub(crate) low_water: AtomicU32,
    /// Slots that had to be evicted for new items; compared between classes.
    pub(crate) pressure: AtomicU32,
    /// How many seconds the last evicted item had been idle.
    pub(crate) evicted_age: AtomicU32,
    pub(crate) state: LockedData<L, ClassState>,
}

/// The fields under a class's lock.
pub(crate) struct ClassState {
    pub(crate) ring: SlabRing,
    /// The first slab with free slots, and slots in use.
    pub(crate) partial: u32,
    /// The first slab without slots in use.
    pub(crate) empty: u32,
    /// How many there are of these, and how few there have been since [`Slabs::count_spare`](super::slab::Slabs::count_spare).
    pub(crate) empties: u32,
    pub(crate) least_empties: u32,
    /// The slots that were freed last. Their slabs count them as used, so that freeing does not touch the slabs' heads,
    /// all of which map to the same sets of the CPU's caches.
    pub(crate) magazine: Magazine,
    /// Slabs that are being drained; while there are any, the magazine is empty.
    pub(crate) draining: u32,
    /// Slabs that could not be drained recently. While there are any, nothing goes into the magazine either, so that
    /// the store notices when such a slab becomes empty.
    pub(crate) failed: u32,
    pub(crate) policy: Policy,
}

/// All slabs of a class, in a ring, and CLOCK's hand over their slots.
pub(crate) struct SlabRing {
    /// A slab of it, NONE if the class has none.
    pub(crate) first: u32,
    pub(crate) hand: Hand,
}

/// A position in a class's slabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hand {
    pub(crate) block: u32,
    /// Bytes from the start of the slab.
    pub(crate) offset: u32,
}

impl Hand {
    /// The position of the first slot of a slab.
    pub(crate) fn at(block: u32) -> Self {
        Self {
            block,
            offset: HEAD as u32,
        }
    }
}

impl SlabRing {
    /// The slab that the hand is in.
    pub(crate) fn current(&self) -> u32 {
        match self.hand.block {
            NONE => self.first,
            block => block,
        }
    }
}

impl<L: RawLock> Class<L> {
    pub(super) fn new(size: NonZeroU32, slots: u32, eviction: Eviction) -> Self {
        Self {
            size,
            slots,
            free: AtomicU64::new(0),
            slabs: AtomicU32::new(0),
            spare: AtomicU32::new(0),
            retired: AtomicU32::new(0),
            reserve: AtomicU32::new(0),
            low_water: AtomicU32::new(u32::MAX),
            pressure: AtomicU32::new(0),
            evicted_age: AtomicU32::new(0),
            state: LockedData::new(ClassState {
                ring: SlabRing {
                    first: NONE,
                    hand: Hand::at(NONE),
                },
                partial: NONE,
                empty: NONE,
                empties: 0,
                least_empties: 0,
                magazine: Magazine::new(),
                draining: 0,
                failed: 0,
                policy: Policy::new(eviction),
            }),
        }
    }

    #[inline]
    pub(crate) fn size(&self) -> u32 {
        self.size.get()
    }

    pub(crate) fn slots_per_slab(&self) -> u32 {
        self.slots
    }

    #[inline]
    pub(crate) fn free(&self) -> u64 {
        self.free.load(Relaxed)
    }

    pub(crate) fn slabs(&self) -> u32 {
        self.slabs.load(Relaxed)
    }

    /// The product needs more than 32 bits in a large cache of small items.
    pub(crate) fn slots(&self) -> u64 {
        u64::from(self.slabs()).mul_exact(u64::from(self.slots))
    }
}
