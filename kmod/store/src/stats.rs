// SPDX-License-Identifier: GPL-2.0-only
//! The store's statistics.

use hippos_invariant::Exact;

use crate::counters::ClassCounter;
use crate::memory::pool::Use;
use crate::platform::Platform;
use crate::store::Store;

/// The state of the store, approximate because it changes meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The memory limit in bytes.
    pub limit: usize,
    /// The most bytes that may be held now: less than the limit while the platform is short of memory.
    pub allowed: usize,
    /// Bytes of memory blocks held.
    pub held: usize,
    /// Bytes of fixed tables, beside the limit.
    pub tables: usize,
    /// Bytes of a memory block.
    pub block: usize,
    /// Blocks of item slabs.
    pub slabs: usize,
    /// Blocks of the index.
    pub index: usize,
    /// Blocks of overflow buckets.
    pub overflow: usize,
    /// Blocks that wait for a use.
    pub idle: usize,
    /// Buckets of the index.
    pub buckets: usize,
    /// Overflow buckets that are not in use.
    pub spare: usize,
    /// Items, including those that are expired or flushed but not reclaimed yet.
    pub items: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
    /// Slots that wait for a grace period.
    pub retired: usize,
    /// Their bytes.
    pub retired_bytes: u64,
    /// Slots of removed items that are kept only by pins.
    pub pinned: usize,
    /// Bytes of pinned slots, of linked items too.
    pub pinned_bytes: u64,
    /// Slab classes.
    pub classes: usize,
}

/// The state of a slab class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassSnapshot {
    /// Bytes of a slot.
    pub size: usize,
    /// Slots of a slab.
    pub per_slab: u32,
    /// Slabs.
    pub slabs: u32,
    /// Slots.
    pub slots: u64,
    /// Free slots.
    pub free: u64,
    /// Slots that wait for a grace period.
    pub retired: u32,
    /// Slots that the store tries to keep free.
    pub reserve: u32,
    /// The fewest slots that were free while no block was available; None if a block always was.
    pub low_water: Option<u32>,
    /// How many seconds the last evicted item had been idle.
    pub evicted_age: u32,
    /// Items.
    pub items: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
}

impl<P: Platform> Store<P> {
    /// The largest limit that [`Store::resize`] accepts, in bytes.
    pub fn memory_max_settable(&self) -> usize {
        self.pool.capacity().mul_exact(self.pool.block_size())
    }

    /// Bytes of a memory block.
    pub fn block_size(&self) -> usize {
        self.pool.block_size()
    }

    /// How many slab classes there are.
    pub fn classes(&self) -> usize {
        self.slabs.classes().len()
    }

    /// The store's statistics.
    pub fn snapshot(&self) -> Snapshot {
        let size = self.pool.block_size();
        let slabs = self.pool.count(Use::Slab);
        Snapshot {
            limit: self.memory_limit(),
            allowed: self.allowed(),
            held: self.pool.held().mul_exact(size),
            tables: [
                self.index.tables(),
                self.pool.tables(),
                self.slabs.tables(),
                self.retire.tables(),
                self.counters.tables(),
                self.maintenance.size(),
                self.events.size(),
            ]
            .iter()
            .fold(0, |sum, n| sum.add_exact(*n)),
            block: size,
            slabs: slabs.add_exact(self.pool.count(Use::Draining)),
            index: self.pool.count(Use::Index),
            overflow: self.pool.count(Use::Overflow),
            idle: self.pool.count(Use::Idle),
            buckets: self.index.buckets(),
            spare: self.index.spare(),
            items: self.classes_counted(ClassCounter::Items),
            bytes: self.classes_counted(ClassCounter::Bytes),
            retired: self.retire.count(),
            retired_bytes: self.retire.bytes(),
            pinned: self.retire.pinned(),
            pinned_bytes: self.retire.pinned_bytes() as u64,
            classes: self.classes(),
        }
    }

    /// A class's statistics; None for a number that is not a class.
    pub fn class(&self, class: usize) -> Option<ClassSnapshot> {
        let of = self.slabs.get(class)?;
        let low = of.low_water.load(crate::sync::Relaxed);
        Some(ClassSnapshot {
            size: of.size() as usize,
            per_slab: of.slots_per_slab(),
            slabs: of.slabs(),
            slots: of.slots(),
            free: of.free(),
            retired: of.retired.load(crate::sync::Relaxed),
            reserve: of.reserve.load(crate::sync::Relaxed),
            low_water: (low != u32::MAX).then_some(low),
            evicted_age: of.evicted_age.load(crate::sync::Relaxed),
            items: self.class_counted(class, ClassCounter::Items),
            bytes: self.class_counted(class, ClassCounter::Bytes),
        })
    }
}
