// SPDX-License-Identifier: GPL-2.0-only
//! The index: from a hash to a slot, by linear hashing in place.
//!
//! A bucket is one cache line: seven entries of {tag, reference, more}, where `more` is the number of the item's cache
//! lines after its first, and a head, which links to the overflow buckets and has a filter of 16 bits for the tags that
//! they hold. Buckets lie in segments of one memory block each, listed in a fixed directory. The number of buckets alone
//! determines which bucket a hash belongs to, so growing by one bucket moves the entries of one other.
//!
//! Readers take no lock. They are correct for these reasons:
//!
//! - An entry is one word. Replacing an item is one store.
//! - A reader loads a bucket's head before its entries. Entries of an overflow bucket may then be copied to the
//!   preceding bucket and the overflow bucket unchained, contents unchanged: a reader that loaded the head before still
//!   finds them there until a grace period has passed.
//! - A split copies entries to the new bucket, then publishes the new number of buckets, then clears the entries in the
//!   old one. A reader that misses loads the number again, and continues only if its hash now belongs to another
//!   bucket.
//! - A merge copies entries, then publishes the number; the bucket that was removed keeps its contents until a grace
//!   period has passed.
//!
//! Writers hold the lock of their bucket's stripe. A bucket and the one that it splits into share a stripe, which the
//! low bits of the hash select.

mod bucket;
mod chain;
mod lookup;
mod overflow;
mod resize;

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use hippos_invariant::Exact;

use crate::hash::Hash;
use crate::item::Slot;
use crate::lock::LockedData;
use crate::platform::{Cookie, LockClass, Platform, RawLock};
use crate::sync::{Acquire, AtomicU32, AtomicUsize, Relaxed, Release};
use crate::table::{Draft, Fixed, Part, Table};

#[cfg(all(test, loom))]
pub(crate) use bucket::ENTRIES;
pub(crate) use bucket::{filter, Bucket, BUCKET, REFERENCE};
use bucket::{make_buckets, LINE, MORE};
pub(crate) use chain::{Chain, EntryPosition, CHAIN, LOAD};
pub(crate) use lookup::BucketLookup;
pub(crate) use resize::{ResizeResult, Unchained};

pub(crate) struct Segment {
    pub(crate) at: AtomicUsize,
    pub(crate) block: AtomicU32,
}

#[repr(align(64))]
pub(crate) struct Stripe<L> {
    pub(crate) state: LockedData<L, StripeState>,
}

#[derive(Default)]
pub(crate) struct StripeState {
    /// Items in the stripe's buckets.
    pub(crate) items: usize,
}

/// Overflow buckets that are not in use: the freed ones, and the rest of the newest block.
#[derive(Default)]
pub(crate) struct Spare {
    pub(crate) first: u64,
    pub(crate) count: usize,
    pub(crate) fresh: usize,
    pub(crate) left: usize,
}

#[derive(Default)]
struct Growth {
    /// The grace period after the last merge: until it ends, readers may read the buckets beyond the last.
    merged: Option<Cookie>,
    /// Whether the last change was a split.
    grown: bool,
    /// The grace period after the splits before a merge: until it ends, a lookup may be running that saw the item in
    /// neither bucket, and that compares the number of buckets to notice.
    split: Option<Cookie>,
}

pub(crate) struct Index<L> {
    /// Number of buckets, at least the number of stripes.
    n: AtomicUsize,
    pub(crate) segments: Table<Segment>,
    /// log2 of a segment's buckets.
    shift: u32,
    /// A segment's buckets less one.
    mask: usize,
    base: usize,
    pub(crate) stripes: Table<Stripe<L>>,
    pub(crate) locks: Fixed<Locks<L>>,
}

pub(crate) struct Locks<L> {
    growth: LockedData<L, Growth>,
    pub(crate) overflow: LockedData<L, Spare>,
}

impl<L: RawLock> Index<L> {
    /// An index without segments; [`Index::open`] makes it usable. `buckets` is the capacity of a segment, a power of
    /// two; `segments` is the maximum number of them.
    pub(crate) fn new<P: Platform<Lock = L>>(
        platform: &P,
        segments: usize,
        buckets: usize,
        stripes: usize,
    ) -> Option<Draft<'_, P, Self>> {
        let segments = Table::new(platform, segments, || Segment {
            at: AtomicUsize::new(0),
            block: AtomicU32::new(0),
        })?;
        let stripes = Table::new(platform, stripes, || Stripe {
            state: LockedData::new(StripeState::default()),
        })?;
        let locks = Fixed::new(platform, || Locks {
            growth: LockedData::new(Growth::default()),
            overflow: LockedData::new(Spare::default()),
        })?;
        let index = Self {
            n: AtomicUsize::new(1),
            segments: segments.keep(),
            shift: buckets.trailing_zeros(),
            mask: buckets.sub_exact(1),
            base: platform.base(),
            stripes: stripes.keep(),
            locks: locks.keep(),
        };
        Some(Draft::new(platform, index))
    }

    /// Initialises the locks, once the index is at its final address.
    pub(crate) fn init(&self) {
        for stripe in self.stripes.iter() {
            stripe.state.init(LockClass::Stripe);
        }
        self.locks.growth.init(LockClass::Growth);
        self.locks.overflow.init(LockClass::Overflow);
    }

    /// Starts with `n` buckets, at least as many as stripes, in segments that were added before.
    pub(crate) fn open(&self, n: usize) {
        self.n.store(n.max(self.stripes.len()), Release);
    }

    pub(crate) fn tables(&self) -> usize {
        [self.segments.size(), self.stripes.size(), self.locks.size()]
            .iter()
            .fold(0, |sum, size| sum.add_exact(*size))
    }

    pub(crate) fn buckets(&self) -> usize {
        self.n.load(Relaxed)
    }

    #[inline]
    pub(crate) fn bucket(&self, at: usize) -> Option<&Bucket> {
        let segment = self.segments.get(at.shr_by(self.shift))?.at.load(Acquire);
        let first = NonNull::new(segment as *mut Bucket)?;
        // SAFETY: a segment in the directory is a block of so many initialised buckets, and is
        // freed only a grace period after the last bucket in it went out of use.
        Some(unsafe { first.add(at & self.mask).as_ref() })
    }

    #[inline]
    pub(crate) fn follow(&self, head: u64) -> Option<&Bucket> {
        let reference = head & REFERENCE;
        if reference == 0 {
            return None;
        }
        let at = self.base.add_exact(reference as usize) as *const Bucket;
        // SAFETY: heads hold references of overflow buckets only, which stay initialised for the
        // index's life, and are reused only a grace period after they were unchained.
        Some(unsafe { &*at })
    }

    #[inline]
    fn reference(&self, address: usize) -> u64 {
        address.sub_exact(self.base) as u64 & REFERENCE
    }

    /// The address that an entry or a head refers to.
    pub(crate) fn referred(&self, word: u64) -> usize {
        self.base.add_exact((word & REFERENCE) as usize)
    }

    #[inline]
    fn slot(&self, entry: u64) -> Option<Slot> {
        let reference = entry & REFERENCE;
        if reference == 0 {
            return None;
        }
        let at = NonNull::new(self.base.add_exact(reference as usize) as *mut u8)?;
        // SAFETY: entries refer to live slots; the reader of an entry is in a read-side section or holds the stripe's
        // lock.
        Some(unsafe { Slot::new(at) })
    }

    pub(crate) fn entry(&self, hash: Hash, slot: Slot) -> u64 {
        let address = slot.address().get();
        let more = if cfg!(loom) {
            // The slots of the loom models are addresses only.
            0
        } else {
            let end = (address % LINE).add_exact(slot.size());
            (end.sub_exact(1) / LINE) as u64
        };
        hash.tag() << 48 | self.reference(address) | more.min(MORE)
    }

    fn stripe(&self, at: usize) -> Option<&Stripe<L>> {
        self.stripes.get(at & self.stripes.len().sub_exact(1))
    }

    /// Adds a segment at the end. Its memory is `1 << shift` buckets, with arbitrary contents.
    ///
    /// # Safety
    ///
    /// `at` is the start of a block that belongs to the index until `trim` returns it.
    pub(crate) unsafe fn add_segment(&self, at: NonNull<u8>, block: u32) -> bool {
        let _growth = self.locks.growth.lock();
        let Some(segment) = self.segments.iter().find(|s| s.at.load(Relaxed) == 0) else {
            return false;
        };
        // SAFETY: the caller's promise.
        unsafe { make_buckets(at, self.mask.add_exact(1)) };
        segment.block.store(block, Relaxed);
        segment.at.store(at.as_ptr() as usize, Release);
        true
    }

    fn address(bucket: &Bucket) -> NonZeroUsize {
        NonNull::from(bucket).addr()
    }
}

impl<L: RawLock, P: Platform<Lock = L>> Part<P> for Index<L> {
    unsafe fn free(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe {
            self.segments.free(platform);
            self.stripes.free(platform);
            self.locks.free(platform);
        }
    }
}
