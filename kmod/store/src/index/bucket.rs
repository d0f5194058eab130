// SPDX-License-Identifier: GPL-2.0-only
//! A bucket: one cache line with seven entries.

use core::ptr::NonNull;

use crate::hash::Hash;
use crate::platform::REACH;
use crate::sync::{AtomicU64, Relaxed};

/// Entries of a bucket.
pub(crate) const ENTRIES: usize = 7;

/// Bytes of a bucket.
pub(crate) const BUCKET: usize = 64;

/// The part of an entry or a head that is a reference: both are aligned to 8.
pub(crate) const REFERENCE: u64 = REACH as u64 - 8;

/// The part of an entry that is `more`.
pub(super) const MORE: u64 = 7;
/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// A bucket, of 64 bytes:
///
/// ```text
///        63      48 47                      3 2    0
/// head   | filter  | overflow bucket / 8      | 0    |
/// entry  | tag     | slot / 8                 | more |   seven times; 0 is none
/// ```
///
/// - `filter`: bit `tag & 15` for each entry in the overflow buckets that follow.
/// - `overflow bucket`, `slot`: the distance from [`Platform::base`](crate::Platform::base).
/// - `tag`: the highest 16 bits of the key's hash.
/// - `more`: the cache lines that the item has beyond its first, at most 7, so that all are prefetched at once: memory
///   serves several requests in the time of one.
#[repr(C, align(64))]
pub(crate) struct Bucket {
    /// The next overflow bucket, and the filter of the tags in all that follow.
    pub(crate) head: AtomicU64,
    pub(crate) entries: [AtomicU64; ENTRIES],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == BUCKET);

impl Bucket {
    fn new() -> Self {
        Self {
            head: AtomicU64::new(0),
            entries: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Empties a bucket that no other thread sees.
    pub(super) fn clear(&self) {
        for entry in &self.entries {
            entry.store(0, Relaxed);
        }
        self.head.store(0, Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.load(Relaxed) == 0)
    }
}

/// The filter bit of a tag, in its place in a bucket's head.
#[inline]
pub(crate) fn filter(tag: u64) -> u64 {
    1 << (48 + (tag & 15))
}

/// The bucket that a hash belongs to when there are `n` of them.
#[inline]
pub(super) fn place(hash: Hash, n: usize) -> usize {
    // The result is defined for any `n`, even 0.
    let mask = usize::MAX >> (n.wrapping_sub(1) | 1).leading_zeros();
    let at = hash.0 as usize & mask;
    if at >= n {
        at & (mask >> 1)
    } else {
        at
    }
}

/// Makes empty buckets in raw memory.
///
/// # Safety
///
/// `at` is aligned to 64, and the `n` buckets there belong to the caller alone.
pub(super) unsafe fn make_buckets(at: NonNull<u8>, n: usize) {
    let first = at.cast::<Bucket>();
    for i in 0..n {
        // SAFETY: the caller's promise.
        unsafe { first.add(i).write(Bucket::new()) };
    }
}
