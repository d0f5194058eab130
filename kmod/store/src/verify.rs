// SPDX-License-Identifier: GPL-2.0-only
//! Checks that the store's lists and counts match its memory.
//!
//! Everything is counted twice: by a walk over all slabs and blocks, and by the lists, rings, queues and counters that
//! should hold the same. Nothing is written and nothing allocated, so sets are compared by their number of members and
//! a sum over their mixed addresses. An address is followed only after it was found in the table of blocks: a broken
//! link results in a [`Violation`].
//!
//! For tests, the self-test and debug builds: it takes as long as a walk over all items.

mod index;
mod slabs;
#[cfg(all(test, not(loom), feature = "host"))]
mod tests;

use core::fmt;

use crate::capacities::RING;
use crate::memory::pool::{Block, Use};
use crate::memory::retire::Retired;
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;

/// The first inconsistency that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule that is broken.
    pub rule: Rule,
    /// The slab class, if the rule is about one.
    pub class: Option<usize>,
    /// The value according to memory, most often a number of slots. If both numbers are equal, the members differ.
    pub expected: u64,
    /// The value according to the list or counter.
    pub found: u64,
}

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Blocks that have memory are counted as held.
    HeldBlocks,
    /// The list of idle blocks holds the blocks without a use, and no others.
    IdleBlocks,
    /// The list of empty table entries holds the entries without memory, and no others.
    EmptyBlocks,
    /// The pool's counts of blocks by use are right.
    BlockUses,
    /// Blocks of the index are those of its segments.
    IndexBlocks,
    /// A slab's head refers to the slab's entry in the table of blocks.
    SlabHead,
    /// The carved part of a slab is whole slots, no more than the slab has.
    Carved,
    /// A slot in use has the class of its slab.
    SlotClass,
    /// An item fits into its slot.
    ItemSize,
    /// A slab's list of free slots ends, and contains only free slots of this slab.
    SlabFreeList,
    /// A slab counts as used the carved slots that are not in its list of free slots.
    SlabUsed,
    /// A class's magazine holds as many slots as it counts, all of them free slots of the class, and none while a slab
    /// of the class is being drained.
    Magazine,
    /// Each free slot is in one list of free slots, once.
    FreeSlots,
    /// A class counts its free slots.
    FreeCount,
    /// The ring of a class's slabs holds each slab in use once.
    SlabRing,
    /// The list of partial slabs holds each of them once, and so does that of empty slabs.
    SlabLists,
    /// A class counts its slabs.
    SlabCount,
    /// A class counts its slabs without slots in use.
    EmptyCount,
    /// A class has spare slabs only as far as it has left slabs without slots in use, and their sum is right.
    SpareCount,
    /// A class counts the slabs that are being drained.
    DrainingCount,
    /// A class counts the slabs that could not be drained.
    FailedCount,
    /// The eviction policy's queues hold each slot in use once.
    Queue,
    /// A class counts its items.
    Items,
    /// A class counts the bytes of its items.
    Bytes,
    /// A class counts the slots that wait for a grace period.
    RetiredCount,
    /// Each retired slot is in one CPU's ring, once.
    RetiredSlots,
    /// A CPU's ring counts its slots and overflow buckets right.
    RingCount,
    /// The bytes of closed batches are counted.
    RingBytes,
    /// Slots that are left to their pins are counted.
    PinnedCount,
    /// Each bucket lies in a segment.
    Bucket,
    /// A chain of overflow buckets ends, and contains overflow buckets only.
    Chain,
    /// A bucket's filter covers the tags of all entries behind it.
    Filter,
    /// A stripe counts the entries of its buckets.
    StripeItems,
    /// Each live slot has one entry in the index, and there are no others.
    Entries,
    /// Each overflow bucket is in one chain, retired, or spare.
    OverflowBuckets,
    /// The lookup of a live slot's key finds its entry, which has the item's tag and lines.
    Lookup,
    /// No key exists twice.
    Key,
}

/// The number of slots by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Slots that were ever used: the sum of all others.
    pub carved: u64,
    /// Free ones.
    pub free: u64,
    /// Reserved slots. If there are more than the caller has reservations, some were lost.
    pub reserved: u64,
    /// Those of items.
    pub live: u64,
    /// Those that wait for a grace period.
    pub retired: u64,
    /// Retired slots that wait for their last pin.
    pub pinned: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "violation {:?}", self.rule)?;
        if let Some(class) = self.class {
            write!(f, " class {class}")?;
        }
        write!(f, " expected {} found {}", self.expected, self.found)
    }
}

/// One line for each state, with the number of slots.
impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            carved,
            free,
            reserved,
            live,
            retired,
            pinned,
        } = self;
        write!(
            f,
            "carved {carved}\nfree {free}\nreserved {reserved}\nlive {live}\n\
             retired {retired}\npinned {pinned}"
        )
    }
}

/// A set of addresses or numbers, represented by their count and a sum over them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct SetDigest {
    count: u64,
    sum: u64,
}

impl SetDigest {
    fn add(&mut self, member: usize) {
        // The mixer of splitmix64: sums of plain addresses would collide too often.
        // The hash and the sum of hashes wrap.
        let mut word = (member as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(word ^ word >> 31);
    }

    fn join(&mut self, other: Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Compares the set found in a list with this one, which was found in memory.
    fn is(self, found: Self, rule: Rule, class: Option<usize>) -> Result<(), Violation> {
        if self == found {
            return Ok(());
        }
        broken(rule, class, self.count, found.count)
    }
}

fn count(n: &mut u64) {
    *n = n.wrapping_add(1);
}

/// Compares a counter with the value found in memory.
fn equal(rule: Rule, class: Option<usize>, expected: u64, found: u64) -> Result<(), Violation> {
    if expected == found {
        return Ok(());
    }
    broken(rule, class, expected, found)
}

fn broken<T>(rule: Rule, class: Option<usize>, expected: u64, found: u64) -> Result<T, Violation> {
    Err(Violation {
        rule,
        class,
        expected,
        found,
    })
}

/// The contents of all slabs.
#[derive(Default)]
struct SlotSets {
    census: Census,
    live: SetDigest,
    /// Slots that the rings should hold.
    retired: SetDigest,
    /// The classes' spare slabs.
    spare: u64,
}

/// The contents of the rings of retired memory.
#[derive(Default)]
struct Rings {
    slots: SetDigest,
    overflow: SetDigest,
}

impl<P: Platform> Store<P> {
    /// Compares all lists and counts with memory. No writer and no maintenance may run meanwhile, or the result is
    /// meaningless. Reservations and pins may be held. Process context, may sleep; takes as long as a walk over all
    /// items.
    pub fn verify(&self) -> Result<Census, Violation> {
        self.verify_blocks()?;
        let mut slots = SlotSets::default();
        for class in 0..self.slabs.classes().len() {
            self.verify_class(class, &mut slots)?;
        }
        let counted = u64::from(self.slabs.spare.load(Relaxed));
        equal(Rule::SpareCount, None, slots.spare, counted)?;
        let rings = self.verify_rings()?;
        slots.retired.is(rings.slots, Rule::RetiredSlots, None)?;
        let pinned = self.retire.pinned() as u64;
        equal(Rule::PinnedCount, None, slots.census.pinned, pinned)?;
        self.verify_index(&slots.live, &rings.overflow)?;
        // From here on entries lead to live slots only.
        for class in 0..self.slabs.classes().len() {
            self.verify_lookups(class)?;
        }
        Ok(slots.census)
    }

    /// Blocks of a use that have memory.
    fn blocks_of(&self, what: Use) -> impl Iterator<Item = (u32, &Block)> {
        (0..self.pool.used())
            .filter_map(|id| Some((id, self.pool.get(id)?)))
            .filter(move |(_, block)| block.usage() == what)
    }

    /// The block that an address lies in, and its offset there.
    fn block_at(&self, address: usize) -> Option<(&Block, u32)> {
        let offset = address & self.pool.block_size().wrapping_sub(1);
        let start = address.wrapping_sub(offset);
        let mut blocks = (0..self.pool.used()).filter_map(|id| self.pool.get(id));
        let here = |block: &&Block| block.at().is_some_and(|at| at.as_ptr() as usize == start);
        Some((blocks.find(here)?, offset as u32))
    }

    fn verify_blocks(&self) -> Result<(), Violation> {
        let (idle, empty, used) = {
            let lists = self.pool.lists.lock();
            (lists.idle, lists.empty, lists.fresh)
        };
        let mut held = 0;
        let (mut unused, mut without) = (SetDigest::default(), SetDigest::default());
        for id in 0..used {
            let Some(block) = self.pool.get(id) else {
                let most = self.pool.capacity() as u64;
                return broken(Rule::HeldBlocks, None, most, u64::from(used));
            };
            match block.at() {
                Some(_) => count(&mut held),
                None => without.add(id as usize),
            }
            if block.usage() == Use::Idle {
                unused.add(id as usize);
            }
        }
        equal(Rule::HeldBlocks, None, held, self.pool.held() as u64)?;
        let counted = self.pool.count(Use::Idle) as u64;
        equal(Rule::IdleBlocks, None, unused.count, counted)?;
        for what in [
            Use::Slab,
            Use::Draining,
            Use::Index,
            Use::Overflow,
            Use::Taken,
        ] {
            let found = self.blocks_of(what).count() as u64;
            equal(Rule::BlockUses, None, found, self.pool.count(what) as u64)?;
        }
        for (first, set, rule) in [
            (idle, unused, Rule::IdleBlocks),
            (empty, without, Rule::EmptyBlocks),
        ] {
            let mut listed = SetDigest::default();
            let mut at = first;
            while let Some(block) = self.pool.get(at).filter(|_| listed.count <= set.count) {
                listed.add(at as usize);
                at = block.next.load(Relaxed);
            }
            set.is(listed, rule, None)?;
        }
        let mut index = SetDigest::default();
        let mut segments = SetDigest::default();
        for (id, _) in self.blocks_of(Use::Index) {
            index.add(id as usize);
        }
        for segment in self.index.segments.iter() {
            let id = segment.block.load(Relaxed);
            let at = segment.at.load(Relaxed);
            let block = self.pool.get(id).and_then(Block::at);
            if at != 0 && block.is_some_and(|block| block.as_ptr() as usize == at) {
                segments.add(id as usize);
            }
        }
        index.is(segments, Rule::IndexBlocks, None)
    }

    fn verify_rings(&self) -> Result<Rings, Violation> {
        let mut rings = Rings::default();
        let mut bytes = 0u64;
        for (at, shard) in (0..self.retire.shards()).zip(self.retire.shards.iter()) {
            let ring = shard.ring.lock();
            // Sequence numbers wrap.
            let closed = ring.head.wrapping_sub(ring.tail).min(RING);
            let mut held = 0;
            for batch in 0..=closed {
                let Some(place) = self.retire.batch(at, ring.tail.wrapping_add(batch)) else {
                    continue;
                };
                let most = if batch == closed {
                    ring.filled
                } else {
                    bytes = bytes.wrapping_add(place.bytes.load(Relaxed));
                    place.references.len()
                };
                let references = place.references.iter().take(most);
                for what in references.map_while(|word| Retired::from_word(word.load(Relaxed))) {
                    count(&mut held);
                    let (slot, overflow) = (what.as_slot_address(), what.as_overflow());
                    slot.inspect(|at| rings.slots.add(at.get()));
                    overflow.inspect(|at| rings.overflow.add(at.get()));
                }
            }
            equal(
                Rule::RingCount,
                None,
                held,
                shard.count.load(Relaxed) as u64,
            )?;
        }
        equal(Rule::RingBytes, None, bytes, self.retire.bytes())?;
        Ok(rings)
    }
}
