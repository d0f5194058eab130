// SPDX-License-Identifier: GPL-2.0-only
//! The pool of memory blocks. Its count is the only one that the memory limit is enforced by.

use core::ptr::NonNull;

use hippos_invariant::{invariant, Exact};

use crate::lock::LockedData;
use crate::platform::{LockClass, Platform, RawLock, REACH};
use crate::sync::{Acquire, AtomicU32, AtomicU8, AtomicUsize, Relaxed, Release};
use crate::table::{Draft, Fixed, Part, Table};

/// No block: the link at the end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// The use of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Use {
    /// It has no memory.
    Nothing = 0,
    /// It has memory and waits for a use.
    Idle = 1,
    /// Items of a class.
    Slab = 2,
    /// Items of a class that are being evicted, so that the block can be used for something else.
    Draining = 3,
    /// Buckets of the index.
    Index = 4,
    /// Overflow buckets.
    Overflow = 5,
    /// It is between two uses.
    Taken = 6,
}

impl Use {
    /// Every use, in the order of their numbers.
    const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Idle,
        Self::Slab,
        Self::Draining,
        Self::Index,
        Self::Overflow,
        Self::Taken,
    ];

    /// The use of a number that a block's entry holds.
    #[inline]
    fn of(number: u8) -> Self {
        let found = Self::ALL.get(usize::from(number)).copied();
        invariant!(found.is_some(), "a block's use is {number}");
        found.unwrap_or(Self::Nothing)
    }
}

const _: () = {
    let mut number = 0;
    while number < Use::ALL.len() {
        assert!(Use::ALL[number] as usize == number);
        number += 1;
    }
};

/// A block's entry in the table. The data of a slab that its class needs is kept here, so that the crawler and the
/// lists do not touch the slab itself.
pub(crate) struct Block {
    at: AtomicUsize,
    /// The number of a [`Use`].
    usage: AtomicU8,
    pub(crate) class: AtomicU8,
    /// Under the pool's lock: the next block in the list of idle or of empty ones.
    pub(crate) next: AtomicU32,
    // Under the class's lock:
    /// Neighbours in the ring of the class's slabs.
    pub(crate) ring_next: AtomicU32,
    pub(crate) ring_prev: AtomicU32,
    /// Neighbours in the list of the class's partial slabs, or of its empty ones.
    pub(crate) list_next: AtomicU32,
    pub(crate) list_prev: AtomicU32,
    /// The first free slot, in units of 8 bytes from the block's start; 0 for none.
    pub(crate) free: AtomicU32,
    /// Bytes from the start up to which slots were made.
    pub(crate) carved: AtomicU32,
    /// Slots that are not free.
    pub(crate) used: AtomicU32,
    /// How often in a row the slab could not be drained, and when that was: see `Slabs::is_backing_off`.
    pub(crate) failures: AtomicU32,
    pub(crate) failed: AtomicU32,
}

impl Block {
    fn new() -> Self {
        let word = || AtomicU32::new(NONE);
        Self {
            at: AtomicUsize::new(0),
            usage: AtomicU8::new(Use::Nothing as u8),
            class: AtomicU8::new(0),
            next: word(),
            ring_next: word(),
            ring_prev: word(),
            list_next: word(),
            list_prev: word(),
            free: AtomicU32::new(0),
            carved: AtomicU32::new(0),
            used: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            failed: AtomicU32::new(0),
        }
    }

    pub(crate) fn at(&self) -> Option<NonNull<u8>> {
        NonNull::new(self.at.load(Acquire) as *mut u8)
    }

    pub(crate) fn usage(&self) -> Use {
        Use::of(self.usage.load(Acquire))
    }

    /// Whether the block holds items.
    pub(crate) fn holds_items(&self) -> bool {
        matches!(self.usage(), Use::Slab | Use::Draining)
    }
}

/// The lists under the pool's lock.
pub(crate) struct Lists {
    /// Blocks that have memory and wait for a use.
    pub(crate) idle: u32,
    /// Table entries that had memory before and have none now.
    pub(crate) empty: u32,
    /// Table entries from here on were never used.
    pub(crate) fresh: u32,
}

pub(crate) struct Pool<L> {
    blocks: Table<Block>,
    /// Bytes of a block.
    size: usize,
    /// Blocks that have memory, or are being given it.
    held: AtomicUsize,
    /// How many blocks have each use; those without memory are not counted.
    pub(crate) uses: [AtomicUsize; Use::ALL.len()],
    /// The most blocks that may be held.
    limit: AtomicUsize,
    /// The most blocks while the platform is short of memory.
    ceiling: AtomicUsize,
    /// The blocks that were held when the platform refused a further one.
    refused: AtomicUsize,
    pub(crate) lists: Fixed<LockedData<L, Lists>>,
}

impl<L: RawLock> Pool<L> {
    pub(crate) fn new<P: Platform<Lock = L>>(
        platform: &P,
        size: usize,
        capacity: usize,
        limit: usize,
    ) -> Option<Draft<'_, P, Self>> {
        let blocks = Table::new(platform, capacity, Block::new)?;
        let empty = || {
            LockedData::new(Lists {
                idle: NONE,
                empty: NONE,
                fresh: 0,
            })
        };
        let lists = Fixed::new(platform, empty)?;
        let pool = Self {
            blocks: blocks.keep(),
            size,
            held: AtomicUsize::new(0),
            uses: core::array::from_fn(|_| AtomicUsize::new(0)),
            limit: AtomicUsize::new(limit),
            ceiling: AtomicUsize::new(usize::MAX),
            refused: AtomicUsize::new(usize::MAX),
            lists: lists.keep(),
        };
        Some(Draft::new(platform, pool))
    }

    pub(crate) fn init(&self) {
        self.lists.init(LockClass::Pool);
    }

    pub(crate) fn tables(&self) -> usize {
        self.blocks.size().add_exact(self.lists.size())
    }

    /// Bytes of a block.
    #[inline]
    pub(crate) fn block_size(&self) -> usize {
        self.size
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<&Block> {
        self.blocks.get(id as usize)
    }

    /// Changes the use of a block that belongs to the caller alone, by a lock or because it is in no list.
    pub(crate) fn set_use(&self, block: &Block, new: Use) {
        let old = block.usage();
        if let Some(count) = self.uses.get(old as usize).filter(|_| old != Use::Nothing) {
            let _ = count.fetch_sub(1, Relaxed).sub_exact(1);
        }
        if let Some(count) = self.uses.get(new as usize).filter(|_| new != Use::Nothing) {
            count.fetch_add(1, Relaxed);
        }
        block.usage.store(new as u8, Release);
    }

    /// The number of blocks with this use.
    pub(crate) fn count(&self, usage: Use) -> usize {
        self.uses
            .get(usage as usize)
            .map_or(0, |count| count.load(Relaxed))
    }

    pub(crate) fn capacity(&self) -> usize {
        self.blocks.len()
    }

    /// Table entries that were ever used: loops over the table stop there.
    pub(crate) fn used(&self) -> u32 {
        self.lists.lock().fresh
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    pub(crate) fn set_limit(&self, blocks: usize) {
        self.limit.store(blocks.min(self.blocks.len()), Relaxed);
    }

    /// The limit, or less while the platform is short of memory.
    pub(crate) fn budget(&self) -> usize {
        self.limit().min(self.ceiling.load(Relaxed))
    }

    /// The most blocks that may be held now: the budget, or as many as are held while the platform refuses a further
    /// one.
    pub(crate) fn allowed(&self) -> usize {
        let refused = self.refused.load(Relaxed);
        if refused == usize::MAX {
            return self.budget();
        }
        // Another thread may have got a block, or returned one, since.
        self.budget().min(refused.max(self.held()))
    }

    /// Lets the platform be asked again for a block that it has refused. Whether it has.
    pub(crate) fn forget_refusal(&self) -> bool {
        self.refused.swap(usize::MAX, Relaxed) != usize::MAX
    }

    pub(crate) fn set_ceiling(&self, blocks: usize) {
        self.ceiling.store(blocks, Relaxed);
    }

    /// Blocks that could be allocated now without evicting anything, if the platform has memory.
    pub(crate) fn available(&self) -> usize {
        let fresh = self.allowed().saturating_sub(self.held());
        fresh.add_exact(self.count(Use::Idle))
    }

    /// Allocates a block for a use, if the limit and the platform allow it. May sleep.
    pub(crate) fn alloc_block<P: Platform<Lock = L>>(
        &self,
        platform: &P,
        usage: Use,
    ) -> Option<u32> {
        {
            let mut lists = self.lists.lock();
            if self.held() <= self.allowed() {
                if let Some(block) = self.get(lists.idle) {
                    let id = lists.idle;
                    lists.idle = block.next.load(Relaxed);
                    self.set_use(block, usage);
                    return Some(id);
                }
            }
        }
        let below = |held: usize| (held < self.allowed()).then(|| held.add_exact(1));
        self.held.fetch_update(Relaxed, Relaxed, below).ok()?;
        let Some(at) = self.alloc_memory(platform) else {
            let held = self.held.fetch_sub(1, Relaxed).sub_exact(1);
            // Until `forget_refusal`, the blocks that are held are the limit.
            self.refused.store(held, Relaxed);
            return None;
        };
        let mut lists = self.lists.lock();
        let id = if let Some(block) = self.get(lists.empty) {
            let id = lists.empty;
            lists.empty = block.next.load(Relaxed);
            id
        } else {
            // The limit is at most the table's length.
            let id = lists.fresh;
            lists.fresh = id.add_exact(1);
            id
        };
        if let Some(block) = self.get(id) {
            self.set_use(block, usage);
            block.at.store(at.as_ptr() as usize, Release);
            return Some(id);
        }
        drop(lists);
        let _ = self.held.fetch_sub(1, Relaxed).sub_exact(1);
        // SAFETY: no other thread has seen the block.
        unsafe { platform.block_free(at, self.size) };
        None
    }

    /// Memory for a block, all of it within reach of a reference.
    fn alloc_memory<P: Platform<Lock = L>>(&self, platform: &P) -> Option<NonNull<u8>> {
        let at = platform.block_alloc(self.size)?;
        // A block below the base gives a wrapped distance, which is out of reach.
        let distance = (at.as_ptr() as usize).wrapping_sub(platform.base());
        // A reference of 0 means no item, so a distance of 0 is not usable.
        if distance != 0 && distance.saturating_add(self.size) <= REACH {
            return Some(at);
        }
        // SAFETY: no other thread has seen the block.
        unsafe { platform.block_free(at, self.size) };
        None
    }

    /// Ends the use of a block: keeps it for the next use, or returns it to the platform if more blocks are held than
    /// allowed.
    ///
    /// # Safety
    ///
    /// Nothing refers to its memory any more; a grace period has passed since the last reference.
    pub(crate) unsafe fn free_block<P: Platform<Lock = L>>(&self, platform: &P, id: u32) {
        let Some(block) = self.get(id) else { return };
        let mut lists = self.lists.lock();
        if self.held() <= self.allowed() {
            self.set_use(block, Use::Idle);
            block.next.store(lists.idle, Relaxed);
            lists.idle = id;
            return;
        }
        let at = block.at();
        self.set_use(block, Use::Nothing);
        block.at.store(0, Relaxed);
        block.next.store(lists.empty, Relaxed);
        lists.empty = id;
        drop(lists);
        let _ = self.held.fetch_sub(1, Relaxed).sub_exact(1);
        if let Some(at) = at {
            // SAFETY: the caller's promise.
            unsafe { platform.block_free(at, self.size) };
        }
    }

    /// Returns an idle block to the platform while more blocks are held than allowed. False if there was nothing to
    /// return.
    pub(crate) fn release_idle<P: Platform<Lock = L>>(&self, platform: &P) -> bool {
        if self.held() <= self.allowed() {
            return false;
        }
        let mut lists = self.lists.lock();
        let id = lists.idle;
        let Some(block) = self.get(id) else {
            return false;
        };
        lists.idle = block.next.load(Relaxed);
        self.set_use(block, Use::Taken);
        drop(lists);
        // SAFETY: an idle block has no users.
        unsafe { self.free_block(platform, id) };
        true
    }
}

impl<L: RawLock, P: Platform<Lock = L>> Part<P> for Pool<L> {
    /// Nothing refers to any block any more.
    unsafe fn free(&self, platform: &P) {
        for at in self.blocks.iter().filter_map(Block::at) {
            // SAFETY: the block came from this platform; the caller promises the rest.
            unsafe { platform.block_free(at, self.size) };
        }
        // SAFETY: the caller's promise.
        unsafe {
            self.blocks.free(platform);
            self.lists.free(platform);
        }
    }
}
