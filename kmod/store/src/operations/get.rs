// SPDX-License-Identifier: GPL-2.0-only
//! Looking up items.

use crate::hash::{self, Hash, KeyWords};
use crate::index::{self, Bucket};
use crate::item::{Item, ItemSnapshot, Slot};
use crate::platform::Platform;
use crate::store::{Guard, Store};

use super::in_place::ItemChange;

/// The result of [`Store::lookup_one_line`].
pub enum OneLineLookup<'g> {
    /// The item. The hit does not have to be recorded in it.
    Hit(Item<'g>),
    /// There is none.
    Miss,
    /// Undecided: call [`Store::get`].
    Undecided,
}

/// The result of [`Store::try_inspect`].
pub enum Inspected<'g> {
    /// The item and its fields that change in place.
    Hit(Item<'g>, ItemSnapshot),
    /// There is none.
    Miss,
    /// A writer is changing the item just now.
    Changing,
}

/// A lookup in progress: see [`Store::begin_lookup`].
#[derive(Clone, Copy)]
pub struct Lookup<'g> {
    hash: Hash,
    bucket: Option<&'g Bucket>,
    /// The first slot that has the hash's tag.
    slot: Option<Slot>,
}

impl Lookup<'_> {
    /// No lookup.
    pub const NONE: Self = Self {
        hash: Hash(0),
        bucket: None,
        slot: None,
    };
}

impl<P: Platform> Store<P> {
    /// Prefetches the bucket of a hash, which should be some 100 ns before the lookup.
    #[inline]
    pub fn prefetch(&self, hash: Hash) {
        self.index.prefetch(hash);
    }

    /// Prefetches the item that the hash probably belongs to; the bucket should have been prefetched.
    #[inline]
    pub fn prefetch_item(&self, _guard: &Guard<'_, P>, hash: Hash) {
        self.index.prefetch_item(hash);
    }

    /// Begins a lookup: prefetches the bucket. Call [`Store::advance_lookup`] some 100 ns later.
    #[inline(always)]
    pub fn begin_lookup<'g>(&'g self, _guard: &'g Guard<'_, P>, hash: Hash) -> Lookup<'g> {
        Lookup {
            hash,
            bucket: self.index.prefetched_bucket(hash),
            slot: None,
        }
    }

    /// Continues a lookup: prefetches the item that it will probably find.
    #[inline(always)]
    pub fn advance_lookup<'g>(&'g self, _guard: &'g Guard<'_, P>, lookup: &mut Lookup<'g>) {
        if let Some(bucket) = lookup.bucket {
            lookup.slot = self.index.first_tagged(bucket, lookup.hash);
        }
        if let Some(slot) = lookup.slot {
            crate::sync::prefetch(slot.header());
        }
    }

    /// Ends a lookup of `key`, whose hash it began with: the item is that of [`Store::peek`]. True: a hit on it has to be
    /// recorded, by [`Store::bump`].
    #[inline(always)]
    pub fn finish_lookup<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        key: &[u8],
        lookup: &Lookup<'g>,
    ) -> Option<(Item<'g>, bool)> {
        if let Some(slot) = lookup.slot {
            // The slot was found linked in this section, so the result is as valid as one found now.
            let item = self.item(guard, slot);
            let same = match KeyWords::new(key) {
                Some(key) => slot.is(&key),
                None => hash::same(slot.key(), key),
            };
            if same && item.hit_changes_nothing(self.clock.epoch(), self.cap) {
                return Some((item, false));
            }
        }
        self.peek_anew(guard, key, lookup.hash)
            .map(|item| (item, true))
    }

    #[cold]
    #[inline(never)]
    fn peek_anew<'g>(&self, guard: &'g Guard<'_, P>, key: &[u8], hash: Hash) -> Option<Item<'g>> {
        self.peek(guard, key, hash)
    }

    /// The fastest lookup, which decides nearly always. Any context.
    #[inline(always)]
    pub fn lookup_one_line<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        key: &KeyWords,
    ) -> OneLineLookup<'g> {
        match self.index.lookup_bucket(key.hash(&self.secrets), key) {
            index::BucketLookup::Found(slot) => {
                let item = self.item(guard, slot);
                if item.hit_changes_nothing(self.clock.epoch(), self.cap) {
                    OneLineLookup::Hit(item)
                } else {
                    OneLineLookup::Undecided
                }
            }
            index::BucketLookup::Absent => OneLineLookup::Miss,
            _ => OneLineLookup::Undecided,
        }
    }

    /// The item of a key, if it exists and is neither expired nor flushed; records the hit for eviction. Any context.
    /// Counts only expired and flushed items.
    #[inline(always)]
    pub fn get<'g>(&self, guard: &'g Guard<'_, P>, key: &[u8], hash: Hash) -> Option<Item<'g>> {
        let item = self.peek(guard, key, hash)?;
        item.hit(self.cap);
        Some(item)
    }

    /// Like [`Store::get`], but does not record the hit.
    #[inline(always)]
    pub fn peek<'g>(&self, guard: &'g Guard<'_, P>, key: &[u8], hash: Hash) -> Option<Item<'g>> {
        let slot = self.index.find(hash, |slot| hash::same(slot.key(), key))?;
        if !self.is_valid(slot) {
            self.note_dead(guard, slot);
            return None;
        }
        Some(self.item(guard, slot))
    }

    /// Like [`Store::peek`], with a snapshot of the fields that change in place. Any context.
    #[inline]
    pub fn try_inspect<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        key: &[u8],
        hash: Hash,
    ) -> Inspected<'g> {
        let Some(slot) = self.index.find(hash, |slot| hash::same(slot.key(), key)) else {
            return Inspected::Miss;
        };
        let item = self.item(guard, slot);
        match item.snapshot() {
            Some(seen) if self.is_valid_snapshot(&item, &seen) => Inspected::Hit(item, seen),
            Some(_) => {
                self.note_dead(guard, slot);
                Inspected::Miss
            }
            None => Inspected::Changing,
        }
    }

    /// Like [`Store::try_inspect`], but waits while a writer changes the item. Process context.
    pub fn inspect<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        key: &[u8],
        hash: Hash,
    ) -> Option<(Item<'g>, ItemSnapshot)> {
        match self.try_inspect(guard, key, hash) {
            Inspected::Hit(item, seen) => Some((item, seen)),
            Inspected::Miss => None,
            // A writer that changes it holds the stripe's lock, which `modify` takes.
            Inspected::Changing => self.modify(guard, key, hash, |_, _| ItemChange::default()),
        }
    }

    /// A snapshot of the item's fields that change in place. Process context.
    pub fn snapshot_of(&self, item: &Item<'_>) -> ItemSnapshot {
        item.snapshot().unwrap_or_else(|| {
            // A writer that changes it holds this lock.
            let _chain = self.index.lock(self.hash_of(item.slot()));
            item.fields()
        })
    }

    /// Records a hit on an item that [`Store::peek`] found: once no receive path after this one serves the request,
    /// because that would find the marks of a read that was not answered. Any context.
    #[inline]
    pub fn bump(&self, item: &Item<'_>) {
        item.hit(self.cap);
    }
}
