// SPDX-License-Identifier: GPL-2.0-only
//! Slots that a caller holds: reserved ones to be filled, and pinned ones to be read outside a section.

use core::mem::ManuallyDrop;

use hippos_invariant::Exact;

use crate::counters::ClassCounter;
use crate::hash::Hash;
use crate::item::{Item, Slot};
use crate::operations::allocate::{AllocError, RetryBudget};
use crate::operations::attempts::Attempts;
use crate::operations::commit::{Commit, Outcome, StoreError};
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;
use crate::time::Expiry;

/// A slot with its key, to be filled with the value and committed. It is not linked; dropping it frees the slot.
pub struct Reservation<'s, P: Platform> {
    pub(crate) store: &'s Store<P>,
    pub(crate) slot: Slot,
    pub(crate) hash: Hash,
    written: usize,
}

// SAFETY: the slot is the reservation's own, and a store may be shared.
unsafe impl<P: Platform> Send for Reservation<'_, P> {}

impl<'s, P: Platform> Reservation<'s, P> {
    /// Takes over a slot of a sufficient class that `Slabs::alloc_slot` reserved.
    pub(crate) fn new(store: &'s Store<P>, slot: Slot, key: &[u8], value_len: usize) -> Self {
        let hash = Self::init(store, slot, key, value_len);
        Self {
            store,
            slot,
            hash,
            written: 0,
        }
    }

    /// Initialises the slot for an item with this key and value length; the value is not written yet.
    pub(crate) fn init_item(&mut self, key: &[u8], value_len: usize) {
        self.hash = Self::init(self.store, self.slot, key, value_len);
        self.written = 0;
    }

    /// Returns the hash of the slot's key: of the copy, because a sender on this machine may change the bytes of a
    /// segment while they are read, and an item must be linked by the hash of the key that it has.
    fn init(store: &Store<P>, slot: Slot, key: &[u8], value_len: usize) -> Hash {
        // SAFETY: the slot is the reservation's, and its class was chosen for key and value.
        unsafe { slot.init_item(key, value_len) };
        store.hash_of(slot)
    }

    pub(crate) fn set_flags(&self, flags: u32) {
        self.slot.header().flags.store(flags, Relaxed);
    }

    pub(crate) fn set_expiry(&self, expiry: Expiry) {
        self.slot.header().expiry.store(expiry.0, Relaxed);
    }

    /// When the item will expire.
    pub fn expiry(&self) -> Expiry {
        Expiry(self.slot.header().expiry.load(Relaxed))
    }

    /// Bytes of the value.
    pub fn value_len(&self) -> usize {
        self.slot.value_len()
    }

    /// The hash of its key.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Bytes of memory that it occupies.
    pub fn footprint(&self) -> usize {
        self.store.slot_size(self.slot)
    }

    /// The slab class, from 0.
    pub fn class(&self) -> usize {
        self.slot.class()
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.slot.key()
    }

    /// Bytes of the value that are not written yet.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.slot.value_len().sub_exact(self.written)
    }

    /// Writes the next bytes of the value. Returns how many were accepted: fewer than offered if the value is full.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        // SAFETY: the slot is this reservation's and was initialised.
        let n = unsafe { self.slot.write_value(self.written, bytes) };
        self.written = self.written.add_exact(n);
        n
    }

    /// Fills the rest of the value with a byte.
    pub(crate) fn pad(&mut self, byte: u8) {
        // SAFETY: the slot is this reservation's and was initialised.
        unsafe { self.slot.pad(self.written, byte) };
        self.written = self.slot.value_len();
    }

    /// The part of the value that was written.
    pub fn written(&self) -> &[u8] {
        self.slot.value().get(..self.written).unwrap_or(&[])
    }

    /// Publishes the item: see [`Store::commit`].
    pub fn commit(self, commit: &Commit) -> Result<Outcome, StoreError> {
        self.store.commit(self, commit)
    }

    /// Gives up the slot without freeing it, because it was published.
    pub(crate) fn into_published(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl<P: Platform> Drop for Reservation<'_, P> {
    fn drop(&mut self) {
        let store = self.store;
        let poison = store.platform.poison();
        // SAFETY: the slot was reserved and never published, and this is its only reference.
        unsafe {
            store
                .slabs
                .free_slots(&store.pool, core::iter::once(self.slot), poison)
        };
    }
}

/// An item whose bytes stay readable after the section that it was found in, for sending a large value without a copy.
/// Its memory cannot be reused meanwhile, so hold it briefly.
pub struct Pin<'s, P: Platform> {
    slot: Slot,
    store: &'s Store<P>,
}

// SAFETY: the pinned item does not change.
unsafe impl<P: Platform> Send for Pin<'_, P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for Pin<'_, P> {}

impl<P: Platform> Pin<'_, P> {
    /// The value.
    pub fn value(&self) -> &[u8] {
        self.slot.value()
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.slot.key()
    }

    /// The store that the item belongs to.
    pub fn store(&self) -> &Store<P> {
        self.store
    }
}

impl<P: Platform> Drop for Pin<'_, P> {
    fn drop(&mut self) {
        self.store.unpin(self.slot);
    }
}

impl<P: Platform> Store<P> {
    /// Pins an item of this store. None if it has 255 pins already: copy it then.
    pub fn pin(&self, item: &Item<'_>) -> Option<Pin<'_, P>> {
        let slot = item.slot();
        // Check that the item belongs to this store, or the pin could outlive it.
        let block = self.pool.get(self.slabs.block_of(slot))?.at()?.as_ptr() as usize;
        if slot.address().get() & !self.pool.block_size().sub_exact(1) != block {
            return None;
        }
        let (slot, is_first) = item.pin()?;
        if is_first {
            self.retire.note_pinned(self.slot_size(slot));
        }
        Some(Pin { slot, store: self })
    }

    /// Allocates a slot for an item, to be filled and committed. `hash` is the key's. Process context; may sleep to evict
    /// others.
    pub fn reserve(
        &self,
        key: &[u8],
        hash: Hash,
        flags: u32,
        expiry: Expiry,
        value_len: usize,
    ) -> Result<Reservation<'_, P>, StoreError> {
        self.reserve_within(key, hash, flags, expiry, value_len, &mut Attempts::new())
    }

    /// Like [`Store::reserve`], for a command that makes several stores or updates.
    pub fn reserve_within(
        &self,
        key: &[u8],
        hash: Hash,
        flags: u32,
        expiry: Expiry,
        value_len: usize,
        attempts: &mut Attempts,
    ) -> Result<Reservation<'_, P>, StoreError> {
        let new = self.reserve_by(key, flags, expiry, value_len, |class| {
            self.alloc(class, hash, &mut attempts.budget)
        });
        new.map_err(|short| self.short_of(short, key.len(), value_len, attempts))
    }

    /// Like [`Store::reserve`], as one turn among others: it sleeps for at most one grace period. When the error is not
    /// final, the caller may retry a little later; if it gives up, it calls [`Store::refused`].
    pub fn try_reserve(
        &self,
        key: &[u8],
        hash: Hash,
        flags: u32,
        expiry: Expiry,
        value_len: usize,
    ) -> Result<Reservation<'_, P>, AllocError> {
        self.reserve_by(key, flags, expiry, value_len, |class| {
            self.alloc(class, hash, &mut { RetryBudget::ONE_TURN })
        })
    }

    /// Like [`Store::reserve`], but only if there is a free slot. It does not wait for one. Process context: it may evict
    /// others to keep the class's reserve, and then waits for a grace period if too much memory is retired already.
    #[inline]
    pub fn reserve_nowait(
        &self,
        key: &[u8],
        flags: u32,
        expiry: Expiry,
        value_len: usize,
    ) -> Option<Reservation<'_, P>> {
        let hash = || self.hash(key);
        let new = self.reserve_by(key, flags, expiry, value_len, |class| {
            let slot = self.alloc_fast(class, hash).ok_or(AllocError::Retry)?;
            self.refill_reserve(class, hash);
            Ok(slot)
        });
        new.ok()
    }

    /// The error of a command that got no slot, counted if it is final.
    pub(super) fn short_of(
        &self,
        short: AllocError,
        key_len: usize,
        value_len: usize,
        attempts: &mut Attempts,
    ) -> StoreError {
        if attempts.end(short) {
            self.refused(short, key_len, value_len)
        } else {
            short.into()
        }
    }

    /// Counts that an item was refused, and returns the error for the reason.
    pub fn refused(&self, short: AllocError, key_len: usize, value_len: usize) -> StoreError {
        let error = StoreError::from(short);
        if error == StoreError::OutOfMemory {
            if let Ok(class) = self.class_of(key_len, value_len) {
                self.count_class(class, ClassCounter::OutOfMemory, 1);
            }
        }
        error
    }

    #[inline(always)]
    fn reserve_by(
        &self,
        key: &[u8],
        flags: u32,
        expiry: Expiry,
        value_len: usize,
        alloc: impl FnOnce(usize) -> Result<Slot, AllocError>,
    ) -> Result<Reservation<'_, P>, AllocError> {
        if self.too_large(key.len(), value_len, flags) {
            return Err(AllocError::TooLarge);
        }
        let class = self.class_of(key.len(), value_len);
        let class = class.map_err(|_| AllocError::TooLarge)?;
        let slot = alloc(class)?;
        let new = Reservation::new(self, slot, key, value_len);
        // The commit will need these lines once the value has been written.
        self.index.prefetch_for_writing(new.hash);
        new.set_flags(flags);
        new.set_expiry(expiry);
        Ok(new)
    }
}
