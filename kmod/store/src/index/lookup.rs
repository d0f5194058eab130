// SPDX-License-Identifier: GPL-2.0-only
//! Lookups without a lock: [the index](super) describes why they are correct.

use hippos_invariant::Exact;

use crate::hash::{Hash, KeyWords};
use crate::item::Slot;
use crate::platform::RawLock;
use crate::sync::{planted, Acquire, Bug, Relaxed};

use super::bucket::{filter, place, Bucket, LINE, MORE};
use super::Index;

/// The result of a lookup in one cache line.
pub(crate) enum BucketLookup {
    /// It has the key's slot.
    Found(Slot),
    /// The key is not there.
    Absent,
    /// One line does not decide: call [`Index::find`].
    Undecided,
}

impl<L: RawLock> Index<L> {
    /// Prefetches the cache lines of an entry's item, except the first.
    #[inline]
    fn prefetch_more(entry: u64, slot: Slot) {
        let mut at = slot.address().get().add_exact(LINE);
        // Nearly all items have a second line: a branch would take longer.
        crate::sync::prefetch(at as *const u8);
        for _ in 1..entry & MORE {
            at = at.add_exact(LINE);
            crate::sync::prefetch(at as *const u8);
        }
    }

    /// Prefetches a bucket's cache line.
    #[inline]
    pub(crate) fn prefetch(&self, hash: Hash) {
        if let Some(bucket) = self.bucket(place(hash, self.n.load(Relaxed))) {
            crate::sync::prefetch(bucket);
        }
    }

    /// The bucket of a hash, prefetched.
    #[inline(always)]
    pub(crate) fn prefetched_bucket(&self, hash: Hash) -> Option<&Bucket> {
        let bucket = self.bucket(place(hash, self.n.load(Acquire)))?;
        crate::sync::prefetch(bucket);
        Some(bucket)
    }

    /// The first slot of a bucket that has `hash`'s tag. The caller is in a read-side section.
    #[inline(always)]
    pub(crate) fn first_tagged(&self, bucket: &Bucket, hash: Hash) -> Option<Slot> {
        for entry in &bucket.entries {
            let entry = entry.load(Acquire);
            if (entry ^ hash.0) >> 48 == 0 {
                let slot = self.slot(entry)?;
                Self::prefetch_more(entry, slot);
                return Some(slot);
            }
        }
        None
    }

    /// Prefetches the lines that a writer needs: the bucket's and the stripe's.
    #[inline]
    pub(crate) fn prefetch_for_writing(&self, hash: Hash) {
        self.prefetch(hash);
        if let Some(stripe) = self.stripe(hash.0 as usize) {
            crate::sync::prefetch(stripe);
        }
    }

    /// Prefetches the first item that has `hash`'s tag, ahead of a lookup.
    #[inline]
    pub(crate) fn prefetch_item(&self, hash: Hash) {
        let Some(bucket) = self.bucket(place(hash, self.n.load(Acquire))) else {
            return;
        };
        let mut entries = bucket.entries.iter().map(|entry| entry.load(Relaxed));
        let found = entries.find(|entry| entry >> 48 == hash.tag() && *entry != 0);
        if let Some((entry, slot)) = found.and_then(|entry| Some((entry, self.slot(entry)?))) {
            crate::sync::prefetch(slot.address().get() as *const u8);
            Self::prefetch_more(entry, slot);
        }
    }

    /// Looks the key up in its bucket's cache line alone, which is nearly always enough. The caller is in a read-side
    /// section.
    #[inline(always)]
    pub(crate) fn lookup_bucket(&self, hash: Hash, key: &KeyWords) -> BucketLookup {
        let n = self.n.load(Acquire);
        let Some(bucket) = self.bucket(place(hash, n)) else {
            return BucketLookup::Undecided;
        };
        // The head is read before the entries: see the rules in the index's module.
        let head = bucket.head.load(Acquire);
        for entry in &bucket.entries {
            let entry = entry.load(Acquire);
            if (entry ^ hash.0) >> 48 == 0 {
                return match self.slot(entry) {
                    Some(slot) => {
                        Self::prefetch_more(entry, slot);
                        if slot.is(key) {
                            BucketLookup::Found(slot)
                        } else {
                            BucketLookup::Undecided
                        }
                    }
                    None => BucketLookup::Undecided,
                };
            }
        }
        if head & filter(hash.tag()) == 0 && self.n.load(Acquire) == n {
            BucketLookup::Absent
        } else {
            BucketLookup::Undecided
        }
    }

    /// The slot under `hash` that is `wanted`. The caller is in a read-side section.
    #[inline(always)]
    pub(crate) fn find(&self, hash: Hash, mut wanted: impl FnMut(Slot) -> bool) -> Option<Slot> {
        let n = self.n.load(Acquire);
        let bucket = self.bucket(place(hash, n))?;
        // The head is read before the entries: see the rules in the index's module.
        let mut head = bucket.head.load(Acquire);
        if let Some(slot) = self.scan(bucket, hash, &mut wanted) {
            return Some(slot);
        }
        if planted(Bug::LateHead) {
            head = bucket.head.load(Acquire);
        }
        // Nearly always one cache line is enough.
        let alone = head & filter(hash.tag()) == 0;
        if alone && (self.n.load(Acquire) == n || planted(Bug::NoRetry)) {
            return None;
        }
        self.find_far(hash, wanted)
    }

    /// [`Index::find`] for a bucket that has overflow buckets or is moving.
    #[cold]
    #[inline(never)]
    fn find_far(&self, hash: Hash, mut wanted: impl FnMut(Slot) -> bool) -> Option<Slot> {
        let tag = hash.tag();
        let mut n = self.n.load(Acquire);
        loop {
            let at = place(hash, n);
            let mut bucket = self.bucket(at)?;
            loop {
                // The head is read before the entries: see the rules in the index's module.
                let mut head = bucket.head.load(Acquire);
                if let Some(slot) = self.scan(bucket, hash, &mut wanted) {
                    return Some(slot);
                }
                if planted(Bug::LateHead) {
                    head = bucket.head.load(Acquire);
                }
                if head & filter(tag) == 0 {
                    break;
                }
                match self.follow(head) {
                    Some(next) => bucket = next,
                    None => break,
                }
            }
            let again = self.n.load(Acquire);
            if place(hash, again) == at || planted(Bug::NoRetry) {
                return None;
            }
            n = again;
        }
    }

    /// Whether a miss of this hash reads one cache line only.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn one_line(&self, hash: Hash) -> bool {
        let bucket = self.bucket(place(hash, self.n.load(Acquire)));
        bucket.is_some_and(|bucket| {
            let none = bucket
                .entries
                .iter()
                .all(|entry| entry.load(Relaxed) >> 48 != hash.tag());
            none && bucket.head.load(Relaxed) & filter(hash.tag()) == 0
        })
    }

    /// The first slot among a bucket's own entries that is `wanted`.
    #[inline(always)]
    fn scan(
        &self,
        bucket: &Bucket,
        hash: Hash,
        wanted: &mut impl FnMut(Slot) -> bool,
    ) -> Option<Slot> {
        for entry in &bucket.entries {
            let entry = entry.load(Acquire);
            if entry >> 48 == hash.tag() {
                if let Some(slot) = self.slot(entry) {
                    Self::prefetch_more(entry, slot);
                    if wanted(slot) {
                        return Some(slot);
                    }
                }
            }
        }
        None
    }
}
