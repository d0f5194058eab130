// SPDX-License-Identifier: GPL-2.0-only
//! Slab classes: slots of one size, carved from blocks.
//!
//! A slab starts with a head of 24 bytes, which leads from a slot back to the block's entry in the pool's table; slots
//! follow, all of one size. Free slots of a slab are linked through their expiry field; a class links its slabs that
//! have free slots.

use core::num::NonZeroU32;
use core::ptr::NonNull;

use hippos_invariant::Exact;

use crate::config::Eviction;
use crate::eviction::{self, Ghosts, HandStep, Policy, Slots};
use crate::hash::Hash;
use crate::item::{Slot, HEADER};
use crate::lock::Held;
use crate::platform::{LockClass, Platform, RawLock};
use crate::sync::{Acquire, AtomicU32, AtomicU64, Relaxed, Release};
use crate::table::{Draft, Part, Table};

use super::class::{Class, ClassState, Hand, SlabRing, CLASSES, HEAD};
use super::pool::{Block, Pool, Use, NONE};
use super::sizes::sizes;

/// The start of a slab.
#[repr(C)]
struct SlabHead {
    block: AtomicU32,
    /// Bytes of a slot.
    size: AtomicU32,
    unused: u64,
    /// The first slot's links: see [`Slabs::link`].
    link: AtomicU64,
}

/// Sizes up to 8 times this are mapped to their class by a table.
const DIRECT: usize = 4096;
/// How many slabs a drain victim is chosen from, and how many are looked at to find them.
const VICTIMS_MAX: u32 = 8;
const VICTIM_SCAN_MAX: u32 = 64;
/// For how many further attempts a slab that could not be drained is left alone, and how often that doubles.
const BACKOFF: u32 = 256;
const BACKOFF_DOUBLINGS: u32 = 8;
/// Bytes of a slab before `SlabHead::link`.
const LINK: usize = 16;

#[cfg(not(loom))]
const _: () = assert!(size_of::<SlabHead>() == HEAD);

pub(crate) struct Slabs<L> {
    classes: Table<Class<L>>,
    /// The class of each size up to 8 times the table's length.
    direct: Table<u8>,
    /// Bytes of a slab.
    slab: usize,
    eviction: Eviction,
    /// The bits of a slot's number that identify it within its slab.
    bits: u32,
    ghosts: Option<Ghosts>,
    /// The sum of the classes' spare slabs.
    pub(crate) spare: AtomicU32,
}

impl<L: RawLock> Slabs<L> {
    pub(crate) fn new<P: Platform<Lock = L>>(
        platform: &P,
        slab: usize,
        item_min: usize,
        factor: u32,
        eviction: Eviction,
        memory: usize,
    ) -> Option<Draft<'_, P, Self>> {
        let smallest = HEADER.saturating_add(item_min);
        let extra = if eviction::queues(eviction) {
            size_of::<u64>()
        } else {
            0
        };
        let all = || sizes(slab, smallest, factor, extra as u64);
        let count = all().fold(0usize, |n, _| n.add_exact(1));
        let room = slab.sub_exact(HEAD).add_exact(extra);
        let slots = |size: u32| {
            room.checked_div((size as usize).add_exact(extra))
                .unwrap_or(0) as u32
        };
        let ghosts = match eviction {
            // Sized for items of about 256 bytes.
            Eviction::S3Fifo => Some(Ghosts::new(platform, memory / 256)?),
            _ => None,
        };
        let mut sizes = all();
        let classes = Table::new(platform, count, || {
            let size = sizes
                .next()
                .and_then(NonZeroU32::new)
                .unwrap_or(NonZeroU32::MAX);
            Class::new(size, slots(size.get()), eviction)
        })?;
        let mut sizes = all().zip(0..CLASSES as u8).peekable();
        let mut bytes = 0u32;
        let direct = Table::new(platform, DIRECT, || {
            while sizes.next_if(|(size, _)| *size < bytes).is_some() {}
            bytes = bytes.add_exact(8);
            sizes.peek().map_or(u8::MAX, |(_, class)| *class)
        })?;
        let most = all().next().map_or(0, slots);
        let bits = u32::BITS.sub_exact(most.leading_zeros());
        let slabs = Self {
            classes: classes.keep(),
            direct: direct.keep(),
            slab,
            eviction,
            bits,
            ghosts: ghosts.map(Draft::keep),
            spare: AtomicU32::new(0),
        };
        Some(Draft::new(platform, slabs))
    }

    /// The number of blocks that slot numbers can distinguish.
    pub(crate) fn max_blocks(&self) -> usize {
        if eviction::queues(self.eviction) {
            1usize.shl_by(u32::BITS.sub_exact(self.bits)).sub_exact(1)
        } else {
            usize::MAX
        }
    }

    #[inline]
    pub(crate) fn eviction(&self) -> Eviction {
        self.eviction
    }

    /// A slot's number, unique in the store.
    pub(crate) fn number(&self, of: &Class<L>, slot: Slot) -> u32 {
        let offset = slot.address().get() & self.slab.sub_exact(1);
        let at = (offset as u32).sub_exact(HEAD as u32) / of.size;
        self.block_of(slot).shl_by(self.bits) | at
    }

    /// The slot with this number. The class's lock is held.
    pub(crate) fn numbered(&self, pool: &Pool<L>, of: &Class<L>, number: u32) -> Option<Slot> {
        let block = pool.get(number.shr_by(self.bits))?;
        let at = number & 1u32.shl_by(self.bits).sub_exact(1);
        self.slot_at(block, at.mul_exact(of.size()).add_exact(HEAD as u32))
    }

    /// A class's slots as its policy sees them, and the policy.
    #[inline]
    pub(crate) fn class_slots<'a>(
        &'a self,
        pool: &'a Pool<L>,
        of: &'a Class<L>,
        state: &'a mut ClassState,
    ) -> (ClassSlots<'a, L>, &'a mut Policy) {
        let members = ClassSlots {
            slabs: self,
            pool,
            of,
            ring: &mut state.ring,
        };
        (members, &mut state.policy)
    }

    /// The links of the slot with this number: a word in the slab's head for the first slot, and words from the slab's
    /// end downward for the others.
    pub(crate) fn link<'a>(&self, pool: &'a Pool<L>, number: u32) -> Option<&'a AtomicU64> {
        let at = pool.get(number.shr_by(self.bits))?.at()?;
        let offset = match number & 1u32.shl_by(self.bits).sub_exact(1) {
            0 => LINK,
            i => self
                .slab
                .checked_sub((i as usize).mul_exact(size_of::<AtomicU64>()))?,
        };
        // SAFETY: with a policy that uses queues, classes leave a word for each slot at the slab's end. Any bits are a
        // valid word, and a slot's links are written when it enters a queue.
        Some(unsafe { at.add(offset).cast::<AtomicU64>().as_ref() })
    }

    pub(crate) fn init(&self) {
        for class in self.classes.iter() {
            class.state.init(LockClass::Class);
        }
    }

    pub(crate) fn tables(&self) -> usize {
        let ghosts = self.ghosts.as_ref().map_or(0, Ghosts::tables);
        [self.classes.size(), self.direct.size()]
            .iter()
            .fold(ghosts, |sum, size| sum.add_exact(*size))
    }

    #[inline]
    pub(crate) fn classes(&self) -> &[Class<L>] {
        &self.classes
    }

    #[inline]
    pub(crate) fn get(&self, class: usize) -> Option<&Class<L>> {
        self.classes.get(class)
    }

    /// The class whose slots hold items of `bytes`, header included.
    #[inline]
    pub(crate) fn class_for(&self, bytes: usize) -> Option<usize> {
        let at = match self.direct.get(bytes.div_ceil(8)) {
            Some(class) => usize::from(*class),
            None => self
                .classes
                .partition_point(|c| (c.size() as usize) < bytes),
        };
        (at < self.classes.len()).then_some(at)
    }

    /// The block that a slot lies in.
    #[inline]
    pub(crate) fn block_of(&self, slot: Slot) -> u32 {
        let head = (slot.address().get() & !self.slab.sub_exact(1)) as *const SlabHead;
        // SAFETY: slots lie in slabs, which are aligned to their size and start with a head.
        unsafe { &*head }.block.load(Relaxed)
    }

    /// Makes a block a slab of the class.
    ///
    /// # Safety
    ///
    /// The block was taken from the pool for this, and nothing else refers to it.
    pub(crate) unsafe fn make_slab(&self, pool: &Pool<L>, class: usize, id: u32) {
        let (Some(of), Some(block)) = (self.get(class), pool.get(id)) else {
            return;
        };
        let Some(at) = block.at() else { return };
        let head = SlabHead {
            block: AtomicU32::new(id),
            size: AtomicU32::new(of.size()),
            unused: 0,
            link: AtomicU64::new(0),
        };
        // SAFETY: the block belongs to the caller, is aligned and larger than a head.
        unsafe { at.cast::<SlabHead>().write(head) };
        block.class.store(class as u8, Relaxed);
        block.free.store(0, Relaxed);
        block.used.store(0, Relaxed);
        block.carved.store(HEAD as u32, Release);
        self.attach(pool, of, id, block);
    }

    /// Adds a slab to its class.
    fn attach(&self, pool: &Pool<L>, of: &Class<L>, id: u32, block: &Block) {
        let mut state = of.state.lock();
        if block.usage() == Use::Draining {
            state.draining = state.draining.sub_exact(1);
            let failures = block.failures.load(Relaxed);
            block.failures.store(failures.saturating_add(1), Relaxed);
            if failures == 0 {
                state.failed = state.failed.add_exact(1);
            }
            if block.used.load(Relaxed) == 0 {
                Self::clear_drain_failures(&mut state, block);
            }
        }
        pool.set_use(block, Use::Slab);
        // Insert it into the ring behind the hand: the hand reaches it last.
        let at = state.ring.current();
        match pool.get(at) {
            None => {
                block.ring_next.store(id, Relaxed);
                block.ring_prev.store(id, Relaxed);
                state.ring = SlabRing {
                    first: id,
                    hand: Hand::at(id),
                };
            }
            Some(next) => {
                let before = next.ring_prev.load(Relaxed);
                block.ring_next.store(at, Relaxed);
                block.ring_prev.store(before, Relaxed);
                next.ring_prev.store(id, Relaxed);
                if let Some(before) = pool.get(before) {
                    before.ring_next.store(id, Relaxed);
                }
            }
        }
        if self.has_free(of, block) {
            Self::list_slab(pool, &mut state, id, block);
        }
        of.slabs.fetch_add(1, Relaxed);
        let free = of.slots.sub_exact(block.used.load(Relaxed));
        of.free.fetch_add(u64::from(free), Relaxed);
    }

    /// Returns a slab that could not be drained to use; `now` is a count of attempts.
    pub(crate) fn abort_drain(&self, pool: &Pool<L>, id: u32, now: u32) {
        let Some(block) = pool.get(id) else { return };
        block.failed.store(now, Relaxed);
        if let Some(of) = self.get(usize::from(block.class.load(Relaxed))) {
            if block.usage() == Use::Draining {
                self.attach(pool, of, id, block);
            }
        }
    }

    /// Adds a slab that has free slots to the front of its list: that of the partial slabs or of the empty ones.
    fn list_slab(pool: &Pool<L>, state: &mut ClassState, id: u32, block: &Block) {
        let list = if block.used.load(Relaxed) == 0 {
            state.empties = state.empties.add_exact(1);
            &mut state.empty
        } else {
            &mut state.partial
        };
        block.list_prev.store(NONE, Relaxed);
        block.list_next.store(*list, Relaxed);
        if let Some(next) = pool.get(*list) {
            next.list_prev.store(id, Relaxed);
        }
        *list = id;
    }

    /// Removes a slab from its list. Called before its number of used slots changes.
    fn unlist_slab(&self, pool: &Pool<L>, of: &Class<L>, state: &mut ClassState, block: &Block) {
        let list = if block.used.load(Relaxed) == 0 {
            state.empties = state.empties.sub_exact(1);
            state.least_empties = state.least_empties.min(state.empties);
            self.set_spare(of, of.spare.load(Relaxed).min(state.empties));
            &mut state.empty
        } else {
            &mut state.partial
        };
        let (before, after) = (block.list_prev.load(Relaxed), block.list_next.load(Relaxed));
        match pool.get(before) {
            Some(before) => before.list_next.store(after, Relaxed),
            None => *list = after,
        }
        if let Some(after) = pool.get(after) {
            after.list_prev.store(before, Relaxed);
        }
        block.list_prev.store(NONE, Relaxed);
        block.list_next.store(NONE, Relaxed);
    }

    /// Whether the slab has a free slot.
    pub(crate) fn has_free(&self, of: &Class<L>, block: &Block) -> bool {
        block.free.load(Relaxed) != 0 || self.uncarved(of, block)
    }

    fn uncarved(&self, of: &Class<L>, block: &Block) -> bool {
        let carved = block.carved.load(Relaxed).sub_exact(HEAD as u32);
        carved < of.slots.mul_exact(of.size())
    }

    /// Allocates a free slot of the class, which becomes reserved. Never sleeps.
    #[inline]
    pub(crate) fn alloc_slot(
        &self,
        pool: &Pool<L>,
        class: usize,
        hash: impl FnOnce() -> Hash,
    ) -> Option<Slot> {
        let of = self.get(class)?;
        if of.free() == 0 {
            return None;
        }
        let mut held = of.state.lock();
        let state = &mut *held;
        let slot = match state.magazine.pop() {
            Some(slot) => slot,
            None => self.alloc_from_slab(pool, of, state)?,
        };
        slot.reserve(class as u8);
        of.free.store(of.free().sub_exact(1), Relaxed);
        let (members, policy) = self.class_slots(pool, of, state);
        policy.enter(&members, slot, hash);
        Some(slot)
    }

    /// Takes a slot of the first partial slab, or of an empty one, which then counts it as used.
    fn alloc_from_slab(
        &self,
        pool: &Pool<L>,
        of: &Class<L>,
        state: &mut ClassState,
    ) -> Option<Slot> {
        let (id, block) = [state.partial, state.empty]
            .into_iter()
            .find_map(|id| Some((id, pool.get(id)?)))?;
        let at = block.at()?;
        let free = block.free.load(Relaxed);
        let slot = if free != 0 {
            // SAFETY: free slots' links are offsets of free slots in the slab.
            let slot = unsafe { Slot::new(at.add((free as usize).mul_exact(8))) };
            block
                .free
                .store(slot.header().expiry.load(Relaxed), Relaxed);
            slot
        } else {
            let carved = block.carved.load(Relaxed);
            // SAFETY: a listed slab has a free slot or space for one more, and no slot was carved there before.
            let slot = unsafe { Slot::carve(at.add(carved as usize)) };
            // Loops over the slab's slots stop at this offset.
            block.carved.store(carved.add_exact(of.size()), Release);
            slot
        };
        let used = block.used.load(Relaxed);
        let has_free = self.has_free(of, block);
        if used == 0 || !has_free {
            self.unlist_slab(pool, of, state, block);
        }
        block.used.store(used.add_exact(1), Relaxed);
        if used == 0 && has_free {
            Self::list_slab(pool, state, id, block);
        }
        Some(slot)
    }

    /// Returns a free slot to its slab; true if the slab is in use, not draining.
    fn free_to_slab(
        &self,
        pool: &Pool<L>,
        of: &Class<L>,
        state: &mut ClassState,
        slot: Slot,
    ) -> bool {
        let id = self.block_of(slot);
        let Some(block) = pool.get(id) else {
            return false;
        };
        let had = self.has_free(of, block);
        let offset = slot.address().get() & self.slab.sub_exact(1);
        slot.header()
            .expiry
            .store(block.free.load(Relaxed), Relaxed);
        block.free.store((offset >> 3) as u32, Relaxed);
        let used = block.used.load(Relaxed).sub_exact(1);
        let in_use = block.usage() == Use::Slab;
        if in_use && had && used == 0 {
            self.unlist_slab(pool, of, state, block);
        }
        block.used.store(used, Relaxed);
        if !in_use {
            return false;
        }
        if used == 0 {
            Self::clear_drain_failures(state, block);
        }
        if !had || used == 0 {
            Self::list_slab(pool, state, id, block);
        }
        true
    }

    /// A slab that could not be drained has become empty.
    fn clear_drain_failures(state: &mut ClassState, block: &Block) {
        if block.failures.load(Relaxed) != 0 {
            block.failures.store(0, Relaxed);
            state.failed = state.failed.sub_exact(1);
        }
    }

    /// Returns the magazine's slots to their slabs.
    pub(crate) fn flush_magazine(&self, pool: &Pool<L>, of: &Class<L>, state: &mut ClassState) {
        while let Some(slot) = state.magazine.pop() {
            self.free_to_slab(pool, of, state, slot);
        }
    }

    /// Frees slots that no reader can refer to any more.
    ///
    /// # Safety
    ///
    /// Each slot was reserved and never published, or retired for longer than a grace period and
    /// is not pinned; the caller gives up its own reference.
    pub(crate) unsafe fn free_slots(
        &self,
        pool: &Pool<L>,
        slots: impl Iterator<Item = Slot>,
        poison: bool,
    ) {
        let mut held: Option<FreeGuard<'_, L>> = None;
        for slot in slots {
            let class = slot.class();
            let Some(of) = self.get(class) else { continue };
            if !matches!(&held, Some(h) if h.class == class) {
                // Hold one class's lock at a time.
                drop(held.take());
                held = Some(FreeGuard {
                    class,
                    of,
                    retired: 0,
                    state: of.state.lock(),
                });
            }
            let Some(held) = &mut held else {
                continue;
            };
            if slot.is_awaited() {
                held.retired = held.retired.add_exact(1);
            }
            let state = &mut *held.state;
            let (members, policy) = self.class_slots(pool, of, state);
            policy.leave(&members, slot);
            slot.free();
            if poison {
                // SAFETY: the slot is free, the lock is held.
                unsafe { slot.poison(of.size() as usize) };
            }
            let keep = state.draining == 0 && state.failed == 0 && !state.magazine.is_full();
            let usable = if keep {
                state.magazine.push(slot);
                true
            } else {
                self.free_to_slab(pool, of, state, slot)
            };
            if usable {
                of.free.store(of.free().add_exact(1), Relaxed);
            }
        }
    }

    /// Stops allocating slots of a slab, so that it becomes empty. False if the slab was not in use.
    pub(crate) fn drain(&self, pool: &Pool<L>, id: u32) -> bool {
        let Some(block) = pool.get(id) else {
            return false;
        };
        let class = block.class.load(Relaxed);
        let Some(of) = self.get(usize::from(class)) else {
            return false;
        };
        let mut state = of.state.lock();
        // A writer may have taken it from this class meanwhile.
        if block.usage() != Use::Slab || block.class.load(Relaxed) != class {
            return false;
        }
        // From here on freed slots return to their slabs at once, until this one is empty.
        self.flush_magazine(pool, of, &mut state);
        state.draining = state.draining.add_exact(1);
        self.detach(pool, of, &mut state, id, block);
        pool.set_use(block, Use::Draining);
        true
    }

    /// Removes a slab from its class: from the counts, the lists and the ring.
    fn detach(
        &self,
        pool: &Pool<L>,
        of: &Class<L>,
        state: &mut ClassState,
        id: u32,
        block: &Block,
    ) {
        let free = of.slots.sub_exact(block.used.load(Relaxed));
        of.free.store(of.free().sub_exact(u64::from(free)), Relaxed);
        let _ = of.slabs.fetch_sub(1, Relaxed).sub_exact(1);
        if self.has_free(of, block) {
            self.unlist_slab(pool, of, state, block);
        }
        let (before, after) = (block.ring_prev.load(Relaxed), block.ring_next.load(Relaxed));
        if let (Some(b), Some(a)) = (pool.get(before), pool.get(after)) {
            b.ring_next.store(after, Relaxed);
            a.ring_prev.store(before, Relaxed);
        }
        let next = if after == id { NONE } else { after };
        if state.ring.first == id {
            state.ring.first = next;
        }
        if state.ring.hand.block == id {
            state.ring.hand = Hand::at(next);
        }
    }

    /// Changes the number of a class's spare slabs. Its lock is held.
    fn set_spare(&self, of: &Class<L>, spare: u32) {
        let before = of.spare.swap(spare, Relaxed);
        if spare >= before {
            self.spare.fetch_add(spare.sub_exact(before), Relaxed);
        } else {
            self.spare.fetch_sub(before.sub_exact(spare), Relaxed);
        }
    }

    /// Counts the spare slabs of a class: those without slots in use that it has not used since the last call, and needs
    /// for no reserve.
    pub(crate) fn count_spare(&self, pool: &Pool<L>, of: &Class<L>) {
        let beyond_reserve = of
            .free()
            .saturating_sub(u64::from(of.reserve.load(Relaxed)));
        let most = beyond_reserve.checked_div(u64::from(of.slots)).unwrap_or(0) as u32;
        let mut state = of.state.lock();
        if most != 0 {
            // Slabs whose free slots are in the magazine count as used.
            self.flush_magazine(pool, of, &mut state);
        }
        self.set_spare(of, state.least_empties.min(most));
        state.least_empties = state.empties;
    }

    /// The number of slabs that a class may take from the others.
    #[inline]
    pub(crate) fn spare_for(&self, of: &Class<L>) -> u32 {
        self.spare
            .load(Relaxed)
            .saturating_sub(of.spare.load(Relaxed))
    }

    /// Takes a spare slab from a class other than `class`. Sections that begin from here on do not look into it.
    pub(crate) fn take_spare(&self, pool: &Pool<L>, class: usize) -> Option<u32> {
        let others = self.classes.iter().enumerate();
        others
            .filter(|(other, of)| *other != class && of.spare.load(Relaxed) != 0)
            .find_map(|(_, of)| {
                let mut state = of.state.lock();
                // Since it was loaded, the class may have used it.
                let spare = of.spare.load(Relaxed).checked_sub(1)?;
                let id = state.empty;
                let block = pool.get(id)?;
                self.set_spare(of, spare);
                self.detach(pool, of, &mut state, id, block);
                Self::clear_drain_failures(&mut state, block);
                pool.set_use(block, Use::Taken);
                Some(id)
            })
    }

    /// Whether a slab is left alone because it could not be drained a short while ago. The time doubles with each
    /// failure in a row.
    fn is_backing_off(block: &Block, now: u32) -> bool {
        let failures = block.failures.load(Relaxed);
        // Attempts are a sequence number, which wraps.
        let rest = BACKOFF.wrapping_shl(failures.saturating_sub(1).min(BACKOFF_DOUBLINGS));
        failures != 0 && now.wrapping_sub(block.failed.load(Relaxed)) < rest
    }

    /// The slab whose loss costs least: an empty one, or of the next slabs in front of the hand that are not backing
    /// off, the one with the fewest slots in use. NONE if there is none within the first slabs looked at. `now` is a
    /// count of attempts.
    pub(crate) fn pick_drain_victim(&self, pool: &Pool<L>, of: &Class<L>, now: u32) -> u32 {
        let mut state = of.state.lock();
        if state.empty != NONE {
            return state.empty;
        }
        let start = state.ring.current();
        let mut at = start;
        let mut best = NONE;
        let mut least = u32::MAX;
        let mut seen = 0u32;
        for _ in 0..VICTIM_SCAN_MAX {
            let Some(block) = pool.get(at) else { break };
            if !Self::is_backing_off(block, now) {
                let used = block.used.load(Relaxed);
                if used < least {
                    (best, least) = (at, used);
                }
                seen = seen.add_exact(1);
            }
            at = block.ring_next.load(Relaxed);
            if seen == VICTIMS_MAX || at == start {
                break;
            }
        }
        if best == NONE && at != NONE {
            // The slabs looked at hold hardly anything that could be evicted: the next search begins behind them.
            state.ring.hand = Hand::at(at);
        }
        best
    }

    /// Whether every slot of a draining slab is free. If so, sections that begin from here on do not look into the
    /// slab.
    pub(crate) fn try_finish_drain(&self, pool: &Pool<L>, id: u32) -> bool {
        let Some(block) = pool.get(id) else {
            return false;
        };
        let Some(of) = self.get(usize::from(block.class.load(Relaxed))) else {
            return false;
        };
        let mut state = of.state.lock();
        let empty = block.usage() == Use::Draining && block.used.load(Relaxed) == 0;
        if empty {
            state.draining = state.draining.sub_exact(1);
            Self::clear_drain_failures(&mut state, block);
            pool.set_use(block, Use::Taken);
        }
        empty
    }

    /// The class of a slab, if `offset` can be the offset of one of its slots. An offset that was noted in an earlier
    /// section may be invalid: the block can have become another class's slab meanwhile, with a part of a value at that
    /// offset.
    ///
    /// The caller is in a read-side section, during which the block keeps the use that is found here.
    pub(crate) fn class_at(&self, block: &Block, offset: u32) -> Option<&Class<L>> {
        // Load the use first (acquire): the class was stored before it.
        if !block.holds_items() {
            return None;
        }
        let of = self.get(usize::from(block.class.load(Relaxed)))?;
        // An offset noted in another class's slab is arbitrary.
        (offset.wrapping_sub(HEAD as u32) % of.size == 0).then_some(of)
    }

    /// The slot at an offset of a slab, None if none is carved there yet.
    ///
    /// The caller is in a read-side section in which it has called [`Slabs::class_at`], or holds the class's lock and
    /// has checked that the block holds items.
    #[inline]
    pub(crate) fn slot_at(&self, block: &Block, offset: u32) -> Option<Slot> {
        if offset >= block.carved.load(Acquire) {
            return None;
        }
        let at: NonNull<u8> = block.at()?;
        // SAFETY: below `carved` there are headers at the multiples of the slot size, and callers pass only such
        // offsets; the slab keeps its use while they are in their section.
        Some(unsafe { Slot::new(at.add(offset as usize)) })
    }
}

impl<L: RawLock, P: Platform<Lock = L>> Part<P> for Slabs<L> {
    unsafe fn free(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe {
            self.classes.free(platform);
            self.direct.free(platform);
            if let Some(ghosts) = &self.ghosts {
                ghosts.free(platform);
            }
        }
    }
}

/// The slots of a class, whose lock is held.
pub(crate) struct ClassSlots<'a, L> {
    slabs: &'a Slabs<L>,
    pool: &'a Pool<L>,
    of: &'a Class<L>,
    ring: &'a mut SlabRing,
}

impl<L: RawLock> Slots for ClassSlots<'_, L> {
    fn advance_hand(&mut self) -> HandStep {
        let block = self.ring.current();
        let Some(slab) = self.pool.get(block) else {
            return HandStep::NoSlab;
        };
        let offset = self.ring.hand.offset;
        let slot = self.slabs.slot_at(slab, offset);
        self.ring.hand = match slot {
            Some(_) => Hand {
                block,
                offset: offset.add_exact(self.of.size()),
            },
            None => Hand::at(slab.ring_next.load(Relaxed)),
        };
        slot.map_or(HandStep::SlabEnd, HandStep::Slot)
    }

    fn look_ahead(&mut self, most: usize, see: &mut dyn FnMut(Slot)) {
        let hand = self.ring.hand;
        for _ in 0..most {
            match self.advance_hand() {
                HandStep::Slot(slot) => see(slot),
                HandStep::SlabEnd => {}
                HandStep::NoSlab => break,
            }
        }
        self.ring.hand = hand;
    }

    #[inline]
    fn number(&self, slot: Slot) -> u32 {
        self.slabs.number(self.of, slot)
    }

    #[inline]
    fn slot(&self, number: u32) -> Option<Slot> {
        self.slabs.numbered(self.pool, self.of, number)
    }

    #[inline]
    fn links(&self, number: u32) -> Option<&AtomicU64> {
        self.slabs.link(self.pool, number)
    }

    #[inline]
    fn ghosts(&self) -> Option<&Ghosts> {
        self.slabs.ghosts.as_ref()
    }
}

/// A class, locked to free slots into it. The slots that are no longer retired are accounted for when it is unlocked.
struct FreeGuard<'a, L: RawLock> {
    class: usize,
    of: &'a Class<L>,
    retired: u32,
    state: Held<'a, L, ClassState>,
}

impl<L: RawLock> Drop for FreeGuard<'_, L> {
    fn drop(&mut self) {
        if self.retired != 0 {
            let _ = self
                .of
                .retired
                .fetch_sub(self.retired, Relaxed)
                .sub_exact(self.retired);
        }
    }
}
