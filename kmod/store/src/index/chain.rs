// SPDX-License-Identifier: GPL-2.0-only
//! The chain of a bucket and its overflow buckets, for writers.

use core::num::NonZeroUsize;

use hippos_invariant::Exact;

use crate::hash::Hash;
use crate::item::Slot;
use crate::lock::Held;
use crate::platform::RawLock;
use crate::sync::{planted, Acquire, AtomicU64, Bug, Relaxed, Release};

use super::bucket::{filter, place, Bucket, REFERENCE};
use super::{Index, StripeState};

/// Overflow buckets that one bucket may have.
pub(crate) const CHAIN: usize = 8;

/// Items per bucket at which the index grows.
pub(crate) const LOAD: usize = 4;

/// A place for an entry in a chain. An overflow bucket that was taken for it is lost unless it is filled.
#[must_use]
pub(crate) struct Vacancy<'i> {
    /// The bucket with the free entry, or the last one before `fresh`.
    bucket: &'i Bucket,
    entry: &'i AtomicU64,
    /// An overflow bucket that is not in the chain yet.
    fresh: Option<&'i Bucket>,
}

/// An entry that a writer found.
pub(crate) struct EntryPosition<'i> {
    pub(crate) entry: &'i AtomicU64,
    bucket: &'i Bucket,
    /// The preceding bucket, if this is an overflow bucket.
    before: Option<&'i Bucket>,
    pub(crate) slot: Slot,
}

impl<L: RawLock> Index<L> {
    /// Locks the bucket of `hash` for writing. None only if the index was never opened.
    pub(crate) fn lock(&self, hash: Hash) -> Option<Chain<'_, L>> {
        let held = self.stripe(hash.0 as usize)?.state.lock();
        // A resize that moves the hash to another bucket would need this stripe's lock.
        let first = self.bucket(place(hash, self.n.load(Acquire)))?;
        Some(Chain {
            index: self,
            held,
            hash,
            first,
        })
    }

    /// The bucket `first`, if there is one, and its overflow buckets.
    pub(super) fn chain<'i>(
        &'i self,
        first: impl Into<Option<&'i Bucket>>,
    ) -> impl Iterator<Item = &'i Bucket> {
        core::iter::successors(first.into(), |b| self.follow(b.head.load(Relaxed)))
    }

    /// Recomputes the filters of a chain. The stripe is locked, or no other thread sees the chain yet.
    pub(super) fn refilter(&self, first: &Bucket) {
        for bucket in self.chain(first) {
            let next = bucket.head.load(Relaxed) & REFERENCE;
            let mut head = next;
            for after in self.chain(self.follow(next)) {
                for entry in &after.entries {
                    let entry = entry.load(Relaxed);
                    if entry != 0 {
                        head |= filter(entry >> 48);
                    }
                }
            }
            bucket.head.store(head, Release);
        }
    }

    /// A free place of the chain. None if it needs an overflow bucket and none is left.
    fn vacancy<'i>(&'i self, first: &'i Bucket) -> Option<Vacancy<'i>> {
        let mut last = first;
        let mut length = 0usize;
        for bucket in self.chain(first) {
            if let Some(entry) = bucket.entries.iter().find(|e| e.load(Relaxed) == 0) {
                return Some(Vacancy {
                    bucket,
                    entry,
                    fresh: None,
                });
            }
            last = bucket;
            length = length.add_exact(1);
        }
        if length > CHAIN {
            return None;
        }
        let fresh = self.take_overflow()?;
        Some(Vacancy {
            bucket: last,
            entry: fresh.entries.first()?,
            fresh: Some(fresh),
        })
    }

    /// Puts an entry into a free place of the chain of `first`.
    fn fill(&self, first: &Bucket, vacancy: Vacancy<'_>, entry: u64) {
        let bit = filter(entry >> 48);
        let Vacancy { bucket, fresh, .. } = vacancy;
        vacancy.entry.store(entry, Release);
        if let Some(fresh) = fresh {
            let reference = self.reference(Self::address(fresh).get());
            bucket.head.store(reference | bit, Release);
        }
        self.set_filter_bits(first, bucket, bit);
    }

    /// Puts an entry into a free place of the chain. False if it needs an overflow bucket and none is left.
    pub(super) fn put(&self, first: &Bucket, entry: u64) -> bool {
        let vacancy = self.vacancy(first);
        vacancy
            .map(|vacancy| self.fill(first, vacancy, entry))
            .is_some()
    }

    /// Sets a filter bit in the heads of all buckets of a chain that come before `end`.
    fn set_filter_bits(&self, first: &Bucket, end: &Bucket, bit: u64) {
        for bucket in self.chain(first).take_while(|b| !core::ptr::eq(*b, end)) {
            bucket.head.store(bucket.head.load(Relaxed) | bit, Release);
        }
    }

    /// Calls `f` with each entry of a chain, with a bit that identifies it.
    pub(super) fn each<'i>(&'i self, first: &'i Bucket, mut f: impl FnMut(u64, &'i AtomicU64)) {
        let mut bit = 1u64;
        for entry in self.chain(first).flat_map(|b| &b.entries) {
            f(bit, entry);
            // A chain has at most 9 times 7 entries.
            bit <<= 1;
        }
    }

    /// Frees the overflow buckets of a chain that no other thread has seen.
    pub(super) fn release_chain(&self, first: &Bucket) {
        let mut next = first.head.load(Relaxed);
        first.clear();
        while let Some(bucket) = self.follow(next) {
            next = bucket.head.load(Relaxed);
            self.give_overflow(Self::address(bucket));
        }
    }
}

/// The bucket of a hash, with its stripe locked.
pub(crate) struct Chain<'i, L: RawLock> {
    index: &'i Index<L>,
    held: Held<'i, L, StripeState>,
    hash: Hash,
    first: &'i Bucket,
}

impl<'i, L: RawLock> Chain<'i, L> {
    /// The entry under the hash whose slot is `wanted`.
    pub(crate) fn find(&self, mut wanted: impl FnMut(Slot) -> bool) -> Option<EntryPosition<'i>> {
        let tag = self.hash.tag();
        let mut before = None;
        for bucket in self.index.chain(self.first) {
            for entry in &bucket.entries {
                let word = entry.load(Relaxed);
                if word >> 48 == tag {
                    if let Some(slot) = self.index.slot(word) {
                        if wanted(slot) {
                            return Some(EntryPosition {
                                entry,
                                bucket,
                                before,
                                slot,
                            });
                        }
                    }
                }
            }
            if bucket.head.load(Relaxed) & filter(tag) == 0 {
                break;
            }
            before = Some(bucket);
        }
        None
    }

    /// The first entry of the bucket, whatever its tag, that is `wanted`.
    pub(crate) fn any(&self, mut wanted: impl FnMut(Slot) -> bool) -> Option<EntryPosition<'i>> {
        self.first.entries.iter().find_map(|entry| {
            let slot = self.index.slot(entry.load(Relaxed))?;
            wanted(slot).then_some(EntryPosition {
                entry,
                bucket: self.first,
                before: None,
                slot,
            })
        })
    }

    /// A place for another slot. None if the bucket is full and there is no overflow bucket left.
    pub(crate) fn vacancy(&self) -> Option<Vacancy<'i>> {
        self.index.vacancy(self.first)
    }

    /// Adds a slot in a place of this chain.
    pub(crate) fn insert(&mut self, vacancy: Vacancy<'i>, slot: Slot) {
        let entry = self.index.entry(self.hash, slot);
        self.index.fill(self.first, vacancy, entry);
        self.held.items = self.held.items.add_exact(1);
    }

    /// Replaces an entry's slot by `slot`.
    pub(crate) fn replace(&mut self, place: &EntryPosition<'i>, slot: Slot) {
        let order = if planted(Bug::RelaxedEntry) {
            Relaxed
        } else {
            Release
        };
        place.entry.store(self.index.entry(self.hash, slot), order);
    }

    /// Removes an entry. Returns the overflow bucket if it is now empty: the caller frees it after a grace period.
    pub(crate) fn remove(&mut self, place: &EntryPosition<'i>) -> Option<NonZeroUsize> {
        place.entry.store(0, Release);
        self.held.items = self.held.items.sub_exact(1);
        let before = place.before?;
        let emptied = if place.bucket.is_empty() {
            // Readers inside the bucket continue by its head, which is unchanged.
            before.head.store(place.bucket.head.load(Relaxed), Release);
            Some(Index::<L>::address(place.bucket))
        } else {
            None
        };
        self.index.refilter(self.first);
        emptied
    }

    /// Whether the stripe has more items than the index should have at its size.
    pub(crate) fn crowded(&self) -> bool {
        let index = self.index;
        self.held.items.mul_exact(index.stripes.len()) > index.buckets().mul_exact(LOAD)
    }
}
