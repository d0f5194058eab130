// SPDX-License-Identifier: GPL-2.0-only
//! Checks the slabs of a class: each slot, and the lists and counts that it should be in. Differences wrap, because a
//! wrong count is to be reported and must not end the check.

use super::{broken, count, equal, Rule, SetDigest, SlotSets, Violation};
use crate::config::Eviction;
use crate::counters::ClassCounter;
use crate::eviction::queue::{self, Queue};
use crate::eviction::s3fifo::{whereabouts, MAIN, NOWHERE};
use crate::eviction::Policy;
use crate::item::{Phase, Slot};
use crate::memory::class::{Class, HEAD};
use crate::memory::pool::{Block, Use, NONE};
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;

/// The contents of the slabs of a class.
#[derive(Default)]
struct Tally {
    slots: SlotSets,
    /// The slabs in use, those of them that have free and used slots, and those without used ones.
    slabs: SetDigest,
    partial: SetDigest,
    empty: SetDigest,
    draining: u64,
    failed: u64,
    /// Free slots of slabs in use, carved or not.
    free: u64,
    /// Slots in the free state, and those in slabs' lists.
    freed: SetDigest,
    listed: SetDigest,
    /// Slots that the policy's queues should hold.
    main: SetDigest,
    small: SetDigest,
    bytes: u64,
}

/// The starts of a class's lists.
struct ListHeads {
    ring: u32,
    partial: u32,
    empty: u32,
    empties: u32,
    least_empties: u32,
    hand: u32,
    magazine: Option<Slot>,
    magazine_len: u32,
    draining: u32,
    failed: u32,
    main: Option<Queue>,
    small: Option<Queue>,
}

impl<P: Platform> Store<P> {
    pub(super) fn verify_class(&self, class: usize, all: &mut SlotSets) -> Result<(), Violation> {
        let Some(of) = self.slabs.get(class) else {
            return Ok(());
        };
        let mut seen = Tally::default();
        self.each_slab(class, |id, block| {
            self.verify_slab(class, of, (id, block), &mut seen)
        })?;
        let lists = {
            let state = of.state.lock();
            let (main, small) = match &state.policy {
                Policy::Clock => (None, None),
                Policy::Sieve(sieve) => (Some(sieve.queue), None),
                Policy::S3Fifo(queues) => (Some(queues.main), Some(queues.small)),
            };
            ListHeads {
                ring: state.ring.first,
                partial: state.partial,
                empty: state.empty,
                empties: state.empties,
                least_empties: state.least_empties,
                hand: state.ring.hand.block,
                magazine: state.magazine.first,
                magazine_len: state.magazine.len,
                draining: state.draining,
                failed: state.failed,
                main,
                small,
            }
        };
        let this = Some(class);
        let is = |rule, expected, found: u32| equal(rule, this, expected, u64::from(found));
        is(Rule::SlabCount, seen.slabs.count, of.slabs())?;
        is(Rule::DrainingCount, seen.draining, lists.draining)?;
        is(Rule::FailedCount, seen.failed, lists.failed)?;
        self.verify_ring(class, &lists, &seen)?;
        self.verify_list(class, lists.partial, &seen.partial)?;
        self.verify_list(class, lists.empty, &seen.empty)?;
        is(Rule::EmptyCount, seen.empty.count, lists.empties)?;
        let spare = of.spare.load(Relaxed);
        let most = lists.least_empties.min(lists.empties);
        is(Rule::SpareCount, u64::from(spare.min(most)), spare)?;

        let mut free = self.verify_magazine(class, of, &lists)?;
        free.join(seen.listed);
        seen.freed.is(free, Rule::FreeSlots, this)?;
        let free = seen.free.wrapping_add(u64::from(lists.magazine_len));
        equal(Rule::FreeCount, this, free, of.free())?;

        let slots = &seen.slots;
        is(
            Rule::RetiredCount,
            slots.retired.count,
            of.retired.load(Relaxed),
        )?;
        for (queue, expected) in [(&lists.main, seen.main), (&lists.small, seen.small)] {
            if let Some(queue) = queue {
                self.verify_queue(class, of, queue, expected)?;
            }
        }
        for (rule, counter, expected) in [
            (Rule::Items, ClassCounter::Items, slots.live.count),
            (Rule::Bytes, ClassCounter::Bytes, seen.bytes),
        ] {
            let counted = self.counters.class_counted(class, counter);
            equal(rule, this, expected, counted)?;
        }
        all.live.join(slots.live);
        all.retired.join(slots.retired);
        all.spare = all.spare.wrapping_add(u64::from(spare));
        let (sum, of) = (&mut all.census, &slots.census);
        for (sum, n) in [
            (&mut sum.carved, of.carved),
            (&mut sum.free, of.free),
            (&mut sum.reserved, of.reserved),
            (&mut sum.live, of.live),
            (&mut sum.retired, of.retired),
            (&mut sum.pinned, of.pinned),
        ] {
            *sum = sum.wrapping_add(n);
        }
        Ok(())
    }

    /// Calls `f` with each slab of a class, each in a section of its own.
    fn each_slab(
        &self,
        class: usize,
        mut f: impl FnMut(u32, &Block) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        for id in 0..self.pool.used() {
            let guard = self.read();
            match self.pool.get(id) {
                Some(block) if self.is_slab_of(class, block) => f(id, block)?,
                _ => continue,
            }
            drop(guard);
            self.platform.cond_resched();
        }
        Ok(())
    }

    fn is_slab_of(&self, class: usize, block: &Block) -> bool {
        block.holds_items() && usize::from(block.class.load(Relaxed)) == class
    }

    /// Calls `f` with each carved slot of a slab. The caller is in a section in which the block is a slab of the class.
    fn each_slot(
        &self,
        of: &Class<P::Lock>,
        block: &Block,
        mut f: impl FnMut(Slot) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let mut offset = HEAD as u32;
        while let Some(slot) = self.slabs.slot_at(block, offset) {
            f(slot)?;
            offset = offset.wrapping_add(of.size());
        }
        Ok(())
    }

    fn verify_slab(
        &self,
        class: usize,
        of: &Class<P::Lock>,
        (id, block): (u32, &Block),
        seen: &mut Tally,
    ) -> Result<(), Violation> {
        let this = Some(class);
        let is = |rule, expected: u32, found: u32| {
            equal(rule, this, u64::from(expected), u64::from(found))
        };
        let carved = block.carved.load(Relaxed).wrapping_sub(HEAD as u32);
        let slots = carved.checked_div(of.size()).unwrap_or(0);
        is(Rule::Carved, slots.wrapping_mul(of.size()), carved)?;
        is(Rule::Carved, slots.min(of.slots_per_slab()), slots)?;
        if let Some(first) = self.slabs.slot_at(block, HEAD as u32) {
            is(Rule::SlabHead, id, self.slabs.block_of(first))?;
        }
        self.each_slot(of, block, |slot| self.verify_slot(class, of, slot, seen))?;

        let mut listed = 0;
        let mut at = block.free.load(Relaxed);
        while at != 0 {
            listed = u32::wrapping_add(listed, 1);
            let offset = at.saturating_mul(8);
            let slot = self.slot_in(class, of, block, offset);
            let slot = slot.filter(|slot| slot.phase() == Phase::Free && listed <= slots);
            let Some(slot) = slot else {
                return broken(
                    Rule::SlabFreeList,
                    this,
                    u64::from(slots),
                    u64::from(listed),
                );
            };
            seen.listed.add(slot.address().get());
            at = slot.header().expiry.load(Relaxed);
        }
        let used = block.used.load(Relaxed);
        is(Rule::SlabUsed, slots.wrapping_sub(listed), used)?;

        if block.failures.load(Relaxed) != 0 {
            count(&mut seen.failed);
        }
        if block.usage() == Use::Draining {
            count(&mut seen.draining);
            return Ok(());
        }
        seen.slabs.add(id as usize);
        let free = of.slots_per_slab().wrapping_sub(used);
        seen.free = seen.free.wrapping_add(u64::from(free));
        if used == 0 {
            seen.empty.add(id as usize);
        } else if self.slabs.has_free(of, block) {
            seen.partial.add(id as usize);
        }
        Ok(())
    }

    fn verify_slot(
        &self,
        class: usize,
        of: &Class<P::Lock>,
        slot: Slot,
        seen: &mut Tally,
    ) -> Result<(), Violation> {
        let address = slot.address().get();
        let phase = slot.phase();
        let census = &mut seen.slots.census;
        count(&mut census.carved);
        if phase == Phase::Free {
            count(&mut census.free);
            seen.freed.add(address);
            return Ok(());
        }
        let of_class = slot.class() as u64;
        equal(Rule::SlotClass, Some(class), class as u64, of_class)?;
        let queue = match self.slabs.eviction() {
            Eviction::S3Fifo => whereabouts(slot),
            _ => MAIN,
        };
        if queue & NOWHERE != 0 {
            // It was picked to be evicted.
        } else if queue & MAIN != 0 {
            seen.main.add(address);
        } else {
            seen.small.add(address);
        }
        match phase {
            Phase::Free => {}
            Phase::Reserved => count(&mut census.reserved),
            Phase::Live => {
                count(&mut census.live);
                let (bytes, most) = (slot.size() as u64, u64::from(of.size()));
                equal(Rule::ItemSize, Some(class), bytes.min(most), bytes)?;
                seen.slots.live.add(address);
                seen.bytes = seen.bytes.wrapping_add(bytes);
            }
            Phase::Retired => {
                count(&mut census.retired);
                seen.slots.retired.add(address);
            }
            Phase::Pinned => count(&mut census.pinned),
        }
        Ok(())
    }

    /// The slot at an offset of a block, if it is one of this class. The caller is in a section.
    fn slot_in(
        &self,
        class: usize,
        of: &Class<P::Lock>,
        block: &Block,
        offset: u32,
    ) -> Option<Slot> {
        let inside = offset.checked_sub(HEAD as u32)?;
        let begins = inside.checked_rem(of.size()) == Some(0);
        if !begins || !self.is_slab_of(class, block) {
            return None;
        }
        self.slabs.slot_at(block, offset)
    }

    fn verify_ring(&self, class: usize, lists: &ListHeads, seen: &Tally) -> Result<(), Violation> {
        let mut ring = SetDigest::default();
        let mut at = lists.ring;
        while let Some(block) = self.pool.get(at).filter(|_| ring.count <= seen.slabs.count) {
            let after = block.ring_next.load(Relaxed);
            let back = self
                .pool
                .get(after)
                .map(|next| next.ring_prev.load(Relaxed));
            if back == Some(at) && block.usage() == Use::Slab {
                ring.add(at as usize);
            } else {
                break;
            }
            at = after;
            if at == lists.ring {
                break;
            }
        }
        seen.slabs.is(ring, Rule::SlabRing, Some(class))?;
        // The hand must be in the ring.
        let hand = self.pool.get(lists.hand);
        let there = hand.is_none_or(|at| at.usage() == Use::Slab && self.is_slab_of(class, at));
        equal(Rule::SlabRing, Some(class), 1, u64::from(there))
    }

    /// Whether the list of slabs that starts at `first` holds those of `expected`.
    fn verify_list(&self, class: usize, first: u32, expected: &SetDigest) -> Result<(), Violation> {
        let mut listed = SetDigest::default();
        let (mut before, mut at) = (NONE, first);
        while let Some(block) = self.pool.get(at).filter(|_| listed.count <= expected.count) {
            if block.list_prev.load(Relaxed) != before {
                break;
            }
            listed.add(at as usize);
            before = at;
            at = block.list_next.load(Relaxed);
        }
        expected.is(listed, Rule::SlabLists, Some(class))
    }

    /// The slots of a class's magazine.
    fn verify_magazine(
        &self,
        class: usize,
        of: &Class<P::Lock>,
        lists: &ListHeads,
    ) -> Result<SetDigest, Violation> {
        let mut slots = SetDigest::default();
        let wanted = match (lists.draining, lists.failed) {
            (0, 0) => u64::from(lists.magazine_len),
            _ => 0,
        };
        let mut next = lists.magazine;
        while let Some(at) = next.filter(|_| slots.count <= wanted) {
            let guard = self.read();
            let address = at.address().get();
            // The address is followed only if it is a slot's.
            let slot = self.block_at(address);
            let slot = slot.and_then(|(block, at)| self.slot_in(class, of, block, at));
            let slot = slot.filter(|slot| slot.phase() == Phase::Free);
            slots.add(address);
            next = match slot {
                Some(slot) => slot.next_free(),
                None => return broken(Rule::Magazine, Some(class), wanted, slots.count),
            };
            drop(guard);
        }
        if slots.count == wanted && u64::from(lists.magazine_len) == wanted {
            return Ok(slots);
        }
        broken(Rule::Magazine, Some(class), wanted, slots.count)
    }

    fn verify_queue(
        &self,
        class: usize,
        of: &Class<P::Lock>,
        queue: &Queue,
        expected: SetDigest,
    ) -> Result<(), Violation> {
        let guard = self.read();
        let mut slots = SetDigest::default();
        let (mut newer, mut at) = (queue::NONE, queue.head);
        while at != queue::NONE && slots.count <= expected.count {
            let slot = self.slabs.numbered(&self.pool, of, at);
            let slot = slot.filter(|slot| {
                let found = self.block_at(slot.address().get());
                found.is_some_and(|(block, _)| self.is_slab_of(class, block))
            });
            let links = self
                .slabs
                .link(&self.pool, at)
                .map(|link| link.load(Relaxed));
            let (Some(slot), Some(links)) = (slot, links) else {
                break;
            };
            if (links >> 32) as u32 != newer {
                break;
            }
            slots.add(slot.address().get());
            newer = at;
            at = links as u32;
        }
        drop(guard);
        expected.is(slots, Rule::Queue, Some(class))?;
        let ends = [(newer, queue.tail), (slots.count as u32, queue.len)];
        ends.iter().try_for_each(|(expected, found)| {
            let (expected, found) = (u64::from(*expected), u64::from(*found));
            equal(Rule::Queue, Some(class), expected, found)
        })
    }

    /// Checks that each item of a class is found under its key, and no other.
    pub(super) fn verify_lookups(&self, class: usize) -> Result<(), Violation> {
        let Some(of) = self.slabs.get(class) else {
            return Ok(());
        };
        self.each_slab(class, |_, block| {
            self.each_slot(of, block, |slot| match slot.phase() {
                Phase::Live => self.verify_lookup(class, slot),
                _ => Ok(()),
            })
        })
    }
}
