// SPDX-License-Identifier: GPL-2.0-only
//! Overflow buckets that are not in use.

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use hippos_invariant::Exact;

use crate::platform::RawLock;
use crate::sync::Relaxed;

use super::bucket::{make_buckets, Bucket, REFERENCE};
use super::Index;

impl<L: RawLock> Index<L> {
    /// Number of spare overflow buckets.
    pub(crate) fn spare(&self) -> usize {
        let spare = self.locks.overflow.lock();
        spare.count.add_exact(spare.left)
    }

    /// Adds a block of `buckets` overflow buckets. False if the previous block is not used up yet.
    ///
    /// # Safety
    ///
    /// `at` is the start of a block that belongs to the index until it is freed.
    pub(crate) unsafe fn add_overflow(&self, at: NonNull<u8>, buckets: usize) -> bool {
        let mut spare = self.locks.overflow.lock();
        if spare.left != 0 {
            return false;
        }
        spare.fresh = at.as_ptr() as usize;
        spare.left = buckets;
        true
    }

    pub(super) fn take_overflow(&self) -> Option<&Bucket> {
        let mut spare = self.locks.overflow.lock();
        if let Some(bucket) = self.follow(spare.first) {
            spare.first = bucket.head.load(Relaxed) & REFERENCE;
            spare.count = spare.count.sub_exact(1);
            bucket.clear();
            return Some(bucket);
        }
        let at = NonNull::new(spare.fresh as *mut u8)?;
        spare.left = spare.left.checked_sub(1)?;
        spare.fresh = spare.fresh.add_exact(size_of::<Bucket>());
        // SAFETY: the bucket lies in the block that `add_overflow` brought, and was never used.
        unsafe { make_buckets(at, 1) };
        // SAFETY: it was just made.
        Some(unsafe { at.cast::<Bucket>().as_ref() })
    }

    /// Returns an unchained overflow bucket to the spare ones. Its grace period has passed.
    pub(crate) fn give_overflow(&self, address: NonZeroUsize) {
        let mut spare = self.locks.overflow.lock();
        let reference = self.reference(address.get());
        if let Some(bucket) = self.follow(reference) {
            bucket.head.store(spare.first, Relaxed);
            spare.first = reference;
            spare.count = spare.count.add_exact(1);
        }
    }
}
