//! Slab classes: slots of a size, cut from blocks.
//!
//! A slab starts with a head of 24 bytes that leads from a slot back to the block's entry in the
//! pool's table; slots follow, all of one size. Free slots of a slab are linked through their
//! expiry field; a class links those of its slabs that have any.

use core::ptr::NonNull;

use crate::item::{Slot, HEADER};
use crate::lock::Locked;
use crate::platform::{Platform, RawLock, Role};
use crate::pool::{Block, Pool, Use, NONE};
use crate::sync::{Acquire, AtomicU32, Relaxed, Release};
use crate::table::Table;

/// Bytes of a slab before its first slot.
pub(crate) const HEAD: usize = 24;
/// The most classes there can be.
pub(crate) const CLASSES: usize = 255;

/// The start of a slab.
#[repr(C)]
struct Head {
    block: AtomicU32,
    /// Bytes of a slot.
    size: AtomicU32,
    unused: [u64; 2],
}

const _: () = assert!(size_of::<Head>() == HEAD);

#[repr(align(64))]
pub(crate) struct Class<L> {
    /// Bytes of a slot.
    size: u32,
    /// Slots of a slab.
    slots: u32,
    /// Free slots, carved or not. Written under the lock.
    free: AtomicU32,
    /// Slabs. Written under the lock.
    slabs: AtomicU32,
    /// Slots that wait for a grace period.
    pub(crate) retired: AtomicU32,
    /// How many slots the store tries to keep free or on the way to it.
    pub(crate) reserve: AtomicU32,
    /// The fewest slots that were free while no block was to be had.
    pub(crate) low_water: AtomicU32,
    /// How many seconds the last evicted item had been idle.
    pub(crate) evicted_age: AtomicU32,
    pub(crate) state: Locked<L, State>,
}

/// Under a class's lock.
pub(crate) struct State {
    /// A slab of the ring of all.
    pub(crate) ring: u32,
    /// The first slab with free slots.
    open: u32,
    /// Where the hand is.
    pub(crate) hand: Hand,
}

/// A place in a class's slabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hand {
    pub(crate) block: u32,
    /// Bytes from the start of the slab.
    pub(crate) offset: u32,
}

impl<L: RawLock> Class<L> {
    fn new(size: u32, slots: u32) -> Self {
        let hand = Hand {
            block: NONE,
            offset: HEAD as u32,
        };
        Self {
            size,
            slots,
            free: AtomicU32::new(0),
            slabs: AtomicU32::new(0),
            retired: AtomicU32::new(0),
            reserve: AtomicU32::new(0),
            low_water: AtomicU32::new(u32::MAX),
            evicted_age: AtomicU32::new(0),
            state: Locked::new(State {
                ring: NONE,
                open: NONE,
                hand,
            }),
        }
    }

    #[inline]
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn slots_per_slab(&self) -> u32 {
        self.slots
    }

    #[inline]
    pub(crate) fn free(&self) -> u32 {
        self.free.load(Relaxed)
    }

    pub(crate) fn slabs(&self) -> u32 {
        self.slabs.load(Relaxed)
    }

    pub(crate) fn slots(&self) -> u32 {
        self.slabs().saturating_mul(self.slots)
    }
}

pub(crate) struct Slabs<L> {
    classes: Table<Class<L>>,
    /// Bytes of a slab.
    slab: usize,
}

/// The sizes of the classes' slots, growing by `factor` hundredths, each adjusted upward so that
/// the slots fill a slab.
fn sizes(slab: usize, smallest: usize, factor: u32) -> impl Iterator<Item = u32> {
    let room = slab.saturating_sub(HEAD) as u64;
    let mut next = (smallest as u64).checked_next_multiple_of(8);
    let fit = move |size: u64| {
        let slots = room.checked_div(size).filter(|n| *n > 0)?;
        Some(room.checked_div(slots)? & !7)
    };
    core::iter::from_fn(move || {
        let size = fit(next?)?;
        let grown = (size.saturating_mul(u64::from(factor)) / 100).max(size.wrapping_add(8));
        // The last class holds the largest item, whatever the factor.
        let last = fit(room)?;
        next = if size >= last {
            None
        } else {
            grown.min(last).checked_next_multiple_of(8)
        };
        u32::try_from(size).ok()
    })
}

impl<L: RawLock> Slabs<L> {
    pub(crate) fn new<P: Platform<Lock = L>>(
        platform: &P,
        slab: usize,
        item_min: usize,
        factor: u32,
    ) -> Option<Self> {
        let smallest = HEADER.saturating_add(item_min);
        let count = sizes(slab, smallest, factor).count();
        if count == 0 || count > CLASSES {
            return None;
        }
        let room = slab.saturating_sub(HEAD);
        let mut sizes = sizes(slab, smallest, factor);
        let classes = Table::new(platform, count, || {
            let size = sizes.next().unwrap_or(u32::MAX);
            let slots = room.checked_div(size as usize).unwrap_or(0);
            Class::new(size, slots as u32)
        })?;
        Some(Self { classes, slab })
    }

    pub(crate) fn init(&self) {
        for class in self.classes.iter() {
            class.state.init(Role::Class);
        }
    }

    /// # Safety
    ///
    /// As for [`Table::free`].
    pub(crate) unsafe fn free<P: Platform<Lock = L>>(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe { self.classes.free(platform) };
    }

    pub(crate) fn tables(&self) -> usize {
        self.classes.size()
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
        let at = self.classes.partition_point(|c| (c.size as usize) < bytes);
        (at < self.classes.len()).then_some(at)
    }

    /// The block that a slot lies in.
    #[inline]
    pub(crate) fn block_of(&self, slot: Slot) -> u32 {
        let head = (slot.address() & !self.slab.wrapping_sub(1)) as *const Head;
        // SAFETY: slots lie in slabs, which are aligned to their size and start with a head.
        unsafe { &*head }.block.load(Relaxed)
    }

    /// Makes a block a slab of the class.
    ///
    /// # Safety
    ///
    /// The block was taken from the pool for this, and nobody else refers to it.
    pub(crate) unsafe fn add(&self, pool: &Pool<L>, class: usize, id: u32) {
        let (Some(of), Some(block)) = (self.get(class), pool.get(id)) else {
            return;
        };
        let Some(at) = block.at() else { return };
        let head = Head {
            block: AtomicU32::new(id),
            size: AtomicU32::new(of.size),
            unused: [0; 2],
        };
        // SAFETY: the block is the caller's, larger than a head and aligned.
        unsafe { at.cast::<Head>().write(head) };
        let mut state = of.state.lock();
        block.class.store(class as u8, Relaxed);
        block.free.store(0, Relaxed);
        block.used.store(0, Relaxed);
        block.carved.store(HEAD as u32, Release);
        // Into the ring, behind the hand: the slab is the last to be swept.
        match pool.get(state.ring) {
            None => {
                block.after.store(id, Relaxed);
                block.before.store(id, Relaxed);
                state.ring = id;
                state.hand = Hand {
                    block: id,
                    offset: HEAD as u32,
                };
            }
            Some(_) => {
                let at = if state.hand.block == NONE {
                    state.ring
                } else {
                    state.hand.block
                };
                if let Some(next) = pool.get(at) {
                    let before = next.before.load(Relaxed);
                    block.after.store(at, Relaxed);
                    block.before.store(before, Relaxed);
                    next.before.store(id, Relaxed);
                    if let Some(before) = pool.get(before) {
                        before.after.store(id, Relaxed);
                    }
                }
            }
        }
        self.open(pool, &mut state, id, block);
        of.slabs.fetch_add(1, Relaxed);
        of.free.fetch_add(of.slots, Relaxed);
    }

    /// Adds a slab to the front of those with free slots.
    fn open(&self, pool: &Pool<L>, state: &mut State, id: u32, block: &Block) {
        block.open_before.store(NONE, Relaxed);
        block.open_after.store(state.open, Relaxed);
        if let Some(next) = pool.get(state.open) {
            next.open_before.store(id, Relaxed);
        }
        state.open = id;
    }

    fn close(&self, pool: &Pool<L>, state: &mut State, block: &Block) {
        let (before, after) = (
            block.open_before.load(Relaxed),
            block.open_after.load(Relaxed),
        );
        match pool.get(before) {
            Some(before) => before.open_after.store(after, Relaxed),
            None => state.open = after,
        }
        if let Some(after) = pool.get(after) {
            after.open_before.store(before, Relaxed);
        }
        block.open_before.store(NONE, Relaxed);
        block.open_after.store(NONE, Relaxed);
    }

    /// Has the slab a slot to give?
    fn has_free(&self, of: &Class<L>, block: &Block) -> bool {
        block.free.load(Relaxed) != 0 || self.uncarved(of, block)
    }

    fn uncarved(&self, of: &Class<L>, block: &Block) -> bool {
        (block.carved.load(Relaxed) as usize).saturating_add(of.size as usize) <= self.slab
    }

    /// A free slot of the class, reserved. Never sleeps.
    #[inline]
    pub(crate) fn take(&self, pool: &Pool<L>, class: usize) -> Option<Slot> {
        let of = self.get(class)?;
        if of.free() == 0 {
            return None;
        }
        let mut state = of.state.lock();
        let block = pool.get(state.open)?;
        let at = block.at()?;
        let free = block.free.load(Relaxed);
        let slot = if free != 0 {
            // SAFETY: free slots' links are offsets of free slots in the slab.
            let slot = unsafe { Slot::new(at.add((free as usize).wrapping_mul(8))) };
            block
                .free
                .store(slot.header().expiry.load(Relaxed), Relaxed);
            slot
        } else {
            let carved = block.carved.load(Relaxed);
            // SAFETY: slabs in the open list have a free slot or room for one more, and nobody
            // has used what is not carved.
            let slot = unsafe { Slot::carve(at.add(carved as usize)) };
            // Sweeps look at slots below this only.
            block.carved.store(carved.wrapping_add(of.size), Release);
            slot
        };
        slot.reserve(class as u8);
        block
            .used
            .store(block.used.load(Relaxed).wrapping_add(1), Relaxed);
        of.free.store(of.free().wrapping_sub(1), Relaxed);
        if !self.has_free(of, block) {
            self.close(pool, &mut state, block);
        }
        Some(slot)
    }

    /// Makes slots free: those for which nobody can have a reference any more.
    ///
    /// # Safety
    ///
    /// Each slot was reserved and never published, or retired for longer than a grace period and
    /// is not pinned; the caller gives up its own reference.
    pub(crate) unsafe fn give(
        &self,
        pool: &Pool<L>,
        slots: impl Iterator<Item = Slot>,
        poison: bool,
    ) {
        let mut held = None;
        for slot in slots {
            let class = usize::from(slot.header().class.load(Relaxed));
            let Some(of) = self.get(class) else { continue };
            if !matches!(held, Some((c, _)) if c == class) {
                drop(held.take());
                held = Some((class, of.state.lock()));
            }
            let Some((_, state)) = &mut held else {
                continue;
            };
            let id = self.block_of(slot);
            let Some(block) = pool.get(id) else { continue };
            slot.free();
            if poison {
                // SAFETY: the slot is free, the lock is held.
                unsafe { slot.poison(of.size as usize) };
            }
            let had = self.has_free(of, block);
            let offset = slot.address() & self.slab.wrapping_sub(1);
            slot.header()
                .expiry
                .store(block.free.load(Relaxed), Relaxed);
            block.free.store((offset >> 3) as u32, Relaxed);
            block
                .used
                .store(block.used.load(Relaxed).wrapping_sub(1), Relaxed);
            if block.what() == Use::Slab {
                of.free.store(of.free().wrapping_add(1), Relaxed);
                if !had {
                    self.open(pool, state, id, block);
                }
            }
        }
    }

    /// Stops giving slots of a slab out, so that it empties. False if it was not a slab in use.
    pub(crate) fn drain(&self, pool: &Pool<L>, id: u32) -> bool {
        let Some(block) = pool.get(id) else {
            return false;
        };
        let Some(of) = self.get(usize::from(block.class.load(Relaxed))) else {
            return false;
        };
        let mut state = of.state.lock();
        if block.what() != Use::Slab {
            return false;
        }
        block.set_use(Use::Draining);
        let free = of.slots.wrapping_sub(block.used.load(Relaxed));
        of.free.store(of.free().wrapping_sub(free), Relaxed);
        of.slabs.fetch_sub(1, Relaxed);
        if self.has_free(of, block) {
            self.close(pool, &mut state, block);
        }
        // Out of the ring.
        let (before, after) = (block.before.load(Relaxed), block.after.load(Relaxed));
        if let (Some(b), Some(a)) = (pool.get(before), pool.get(after)) {
            b.after.store(after, Relaxed);
            a.before.store(before, Relaxed);
        }
        let next = if after == id { NONE } else { after };
        if state.ring == id {
            state.ring = next;
        }
        if state.hand.block == id {
            state.hand = Hand {
                block: next,
                offset: HEAD as u32,
            };
        }
        true
    }

    /// Is every slot of a draining slab free?
    pub(crate) fn drained(&self, pool: &Pool<L>, id: u32) -> bool {
        let Some(block) = pool.get(id) else {
            return false;
        };
        let Some(of) = self.get(usize::from(block.class.load(Relaxed))) else {
            return false;
        };
        let _state = of.state.lock();
        block.what() == Use::Draining && block.used.load(Relaxed) == 0
    }

    /// The slot at an offset of a slab, None if there is none yet.
    ///
    /// The caller is in a read-side section or holds the class's lock, and has seen that the block
    /// holds items since.
    #[inline]
    pub(crate) fn slot_at(&self, block: &Block, offset: u32) -> Option<Slot> {
        if offset >= block.carved.load(Acquire) {
            return None;
        }
        let at: NonNull<u8> = block.at()?;
        // SAFETY: below `carved` there are headers at the multiples of the slot size, which is
        // where callers look; the slab is not given away while they are in their section.
        Some(unsafe { Slot::new(at.add(offset as usize)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    #[test]
    fn classes_grow_to_a_whole_slab_and_waste_little() {
        for factor in [102, 110, 125, 200, 1000] {
            for slab in [4096, 1 << 20, 4 << 20] {
                let sizes: Vec<u32> = sizes(slab, 48, factor).collect();
                assert!(
                    sizes.windows(2).all(|w| w[0] < w[1] && w[1] % 8 == 0),
                    "{sizes:?}"
                );
                assert_eq!(*sizes.last().unwrap() as usize, slab - HEAD);
                for s in &sizes {
                    let slots = (slab - HEAD) / *s as usize;
                    assert!(
                        slab - HEAD - slots * (*s as usize) < 8 * slots,
                        "{s} of {slab}"
                    );
                }
            }
        }
    }
}
