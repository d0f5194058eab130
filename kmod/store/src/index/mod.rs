// SPDX-License-Identifier: GPL-2.0-only
//! The index: from a hash to a slot, by linear hashing in place.
//!
//! A bucket is one cache line: seven entries of {tag, reference} and a head that leads to overflow
//! buckets and says, by a filter of 16 bits, which tags are to be looked for there. Buckets lie in
//! segments, one memory block each, that a fixed directory finds; the number of buckets alone
//! tells which bucket a hash belongs to, so growing by one bucket moves the entries of one other.
//!
//! Readers take no lock. What makes that right:
//!
//! - An entry is one word. Replacing an item is one store.
//! - A reader loads a bucket's head before its entries. Entries of an overflow bucket may then be
//!   copied to the bucket in front of it and the overflow bucket unchained, contents as they are:
//!   who loaded the head before still finds them there until a grace period has passed.
//! - A split copies entries to the new bucket, then publishes the new number of buckets, then
//!   clears them in the old one. A reader that misses loads the number again and goes on only if
//!   its hash now belongs elsewhere.
//! - A merge copies entries, then publishes the number; the bucket that is gone keeps its contents
//!   until a grace period has passed.
//!
//! Writers hold the stripe of their bucket. A bucket and the one that it splits into share a
//! stripe, which is chosen by the low bits of the hash.

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use crate::few::Few;
use crate::hash::{Hash, Key};
use crate::item::Slot;
use crate::lock::{Held, Locked};
use crate::platform::{Cookie, Platform, RawLock, Role, REACH};
use crate::sync::{planted, Acquire, AtomicU32, AtomicU64, AtomicUsize, Bug, Relaxed, Release};
use crate::table::{Fixed, Table};

/// Entries of a bucket.
pub(crate) const ENTRIES: usize = 7;
/// Bytes of a bucket.
pub(crate) const BUCKET: usize = 64;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Items per bucket at which the index grows.
pub(crate) const LOAD: usize = 4;
/// Overflow buckets that one bucket may have.
pub(crate) const CHAIN: usize = 8;
/// The part of an entry or a head that is a reference: both are aligned to 8.
pub(crate) const REFERENCE: u64 = REACH as u64 - 8;
/// The part of an entry that tells how many cache lines the item has beyond its first, so that all
/// are fetched at once: memory answers many requests in the time of one.
const MORE: u64 = 7;

/// References of overflow buckets that were unchained and wait for a grace period.
pub(crate) type Unchained = Few<NonZeroUsize, 16>;

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

    /// Nobody else sees the bucket.
    fn clear(&self) {
        for entry in &self.entries {
            entry.store(0, Relaxed);
        }
        self.head.store(0, Relaxed);
    }

    fn is_empty(&self) -> bool {
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
fn place(hash: Hash, n: usize) -> usize {
    let mask = usize::MAX >> (n.wrapping_sub(1) | 1).leading_zeros();
    let at = hash.0 as usize & mask;
    if at >= n {
        at & (mask >> 1)
    } else {
        at
    }
}

/// The highest power of two that is at most `n`.
fn floor_power(n: usize) -> usize {
    n.checked_ilog2()
        .map_or(0, |bits| 1usize.wrapping_shl(bits))
}

pub(crate) struct Segment {
    pub(crate) at: AtomicUsize,
    pub(crate) block: AtomicU32,
}

#[repr(align(64))]
pub(crate) struct Stripe<L> {
    pub(crate) state: Locked<L, StripeState>,
}

#[derive(Default)]
pub(crate) struct StripeState {
    /// Items in the stripe's buckets.
    pub(crate) items: usize,
}

/// Overflow buckets that are not in use: those given back, and the rest of the newest block.
#[derive(Default)]
pub(crate) struct Spare {
    pub(crate) first: u64,
    pub(crate) count: usize,
    pub(crate) fresh: usize,
    pub(crate) left: usize,
}

#[derive(Default)]
struct Growth {
    /// The grace period after the last merge: until then the buckets beyond the last may be read.
    merged: Option<Cookie>,
    /// The last change was a split.
    grown: bool,
    /// The grace period after the splits before a merge: until then a lookup may be under way that
    /// saw an item in neither place, and tells by the number of buckets.
    split: Option<Cookie>,
}

/// Whether no grace period is waited for, any more: `done` says if one has passed.
fn passed(awaited: &mut Option<Cookie>, done: impl Fn(Cookie) -> bool) -> bool {
    if awaited.is_some_and(|cookie| !done(cookie)) {
        return false;
    }
    *awaited = None;
    true
}

/// What became of an attempt to grow or shrink by a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Done,
    /// The new bucket lies in a segment that is not there yet.
    NoSegment,
    /// No overflow bucket is left.
    NoOverflow,
    /// Somebody else is at it, or a grace period is not over, or the end is reached.
    NotNow,
}

/// What a look at one cache line found.
pub(crate) enum Look {
    /// The key's slot.
    Found(Slot),
    /// There is none.
    Absent,
    /// [`Index::find`] has to see.
    Unsure,
}

pub(crate) struct Index<L> {
    /// Number of buckets, at least that of the stripes.
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
    growth: Locked<L, Growth>,
    pub(crate) overflow: Locked<L, Spare>,
}

/// An entry that a writer found.
pub(crate) struct Place<'i> {
    pub(crate) entry: &'i AtomicU64,
    bucket: &'i Bucket,
    /// The bucket in front, if this is an overflow bucket.
    before: Option<&'i Bucket>,
    pub(crate) slot: Slot,
}

impl<L: RawLock> Index<L> {
    /// An index of no segments yet: [`Index::open`] makes it usable. `buckets` is what a segment
    /// holds, a power of two; `segments` the most there can be.
    pub(crate) fn new<P: Platform<Lock = L>>(
        platform: &P,
        segments: usize,
        buckets: usize,
        stripes: usize,
    ) -> Option<Self> {
        let segments = Table::new(platform, segments, || Segment {
            at: AtomicUsize::new(0),
            block: AtomicU32::new(0),
        })?;
        let stripes = Table::new(platform, stripes, || Stripe {
            state: Locked::new(StripeState::default()),
        });
        let locks = Fixed::new(platform, || Locks {
            growth: Locked::new(Growth::default()),
            overflow: Locked::new(Spare::default()),
        });
        let (stripes, locks) = match (stripes, locks) {
            (Some(stripes), Some(locks)) => (stripes, locks),
            (stripes, locks) => {
                // SAFETY: the tables came from this platform and are not used again.
                unsafe {
                    segments.free(platform);
                    stripes.inspect(|t| t.free(platform));
                    locks.inspect(|t| t.free(platform));
                }
                return None;
            }
        };
        Some(Self {
            n: AtomicUsize::new(1),
            segments,
            shift: buckets.trailing_zeros(),
            mask: buckets.saturating_sub(1),
            base: platform.base(),
            stripes,
            locks,
        })
    }

    /// # Safety
    ///
    /// The index is not used again and `platform` is that of `new`.
    pub(crate) unsafe fn free<P: Platform<Lock = L>>(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe {
            self.segments.free(platform);
            self.stripes.free(platform);
            self.locks.free(platform);
        }
    }

    /// Readies the locks, the index being where it stays.
    pub(crate) fn init(&self) {
        for stripe in self.stripes.iter() {
            stripe.state.init(Role::Stripe);
        }
        self.locks.growth.init(Role::Growth);
        self.locks.overflow.init(Role::Overflow);
    }

    /// Starts with `n` buckets, in segments that are there, at least as many as stripes.
    pub(crate) fn open(&self, n: usize) {
        self.n.store(n.max(self.stripes.len()), Release);
    }

    pub(crate) fn tables(&self) -> usize {
        [self.segments.size(), self.stripes.size(), self.locks.size()]
            .iter()
            .fold(0, |sum, size| sum.saturating_add(*size))
    }

    pub(crate) fn buckets(&self) -> usize {
        self.n.load(Relaxed)
    }

    #[inline]
    pub(crate) fn bucket(&self, at: usize) -> Option<&Bucket> {
        let segment = self
            .segments
            .get(at.wrapping_shr(self.shift))?
            .at
            .load(Acquire);
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
        let at = self.base.wrapping_add(reference as usize) as *const Bucket;
        // SAFETY: heads hold references of overflow buckets only, which stay initialised for the
        // index's life, and are reused only a grace period after they were unchained.
        Some(unsafe { &*at })
    }

    #[inline]
    fn reference(&self, address: usize) -> u64 {
        address.wrapping_sub(self.base) as u64 & REFERENCE
    }

    /// The address that an entry or a head refers to.
    pub(crate) fn referred(&self, word: u64) -> usize {
        self.base.wrapping_add((word & REFERENCE) as usize)
    }

    #[inline]
    fn slot(&self, entry: u64) -> Option<Slot> {
        let reference = entry & REFERENCE;
        if reference == 0 {
            return None;
        }
        let at = NonNull::new(self.base.wrapping_add(reference as usize) as *mut u8)?;
        // SAFETY: entries refer to live slots; who reads them is in a read-side section or holds
        // the stripe.
        Some(unsafe { Slot::new(at) })
    }

    pub(crate) fn entry(&self, hash: Hash, slot: Slot) -> u64 {
        let address = slot.address().get();
        let more = if cfg!(loom) {
            // The slots of models are nothing but addresses.
            0
        } else {
            let end = (address % LINE).saturating_add(slot.size());
            (end.saturating_sub(1) / LINE) as u64
        };
        hash.tag() << 48 | self.reference(address) | more.min(MORE)
    }

    /// Brings the lines of an entry's item near, the first one excepted.
    #[inline]
    fn prefetch_more(entry: u64, slot: Slot) {
        let mut at = slot.address().get().wrapping_add(LINE);
        // Nearly all have a second one: to ask would take longer.
        crate::sync::prefetch(at as *const u8);
        for _ in 1..entry & MORE {
            at = at.wrapping_add(LINE);
            crate::sync::prefetch(at as *const u8);
        }
    }

    /// Brings a bucket's cache line near.
    #[inline]
    pub(crate) fn prefetch(&self, hash: Hash) {
        if let Some(bucket) = self.bucket(place(hash, self.n.load(Relaxed))) {
            crate::sync::prefetch(bucket);
        }
    }

    /// The bucket of a hash, brought near.
    #[inline(always)]
    pub(crate) fn near(&self, hash: Hash) -> Option<&Bucket> {
        let bucket = self.bucket(place(hash, self.n.load(Acquire)))?;
        crate::sync::prefetch(bucket);
        Some(bucket)
    }

    /// The first slot of a bucket under `hash`'s tag. The caller is in a read-side section.
    #[inline(always)]
    pub(crate) fn first(&self, bucket: &Bucket, hash: Hash) -> Option<Slot> {
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

    /// Brings near what a writer needs: the bucket's line and the stripe's.
    #[inline]
    pub(crate) fn prefetch_for_writing(&self, hash: Hash) {
        self.prefetch(hash);
        if let Some(stripe) = self.stripe(hash.0 as usize) {
            crate::sync::prefetch(stripe);
        }
    }

    /// Brings the first item under `hash`'s tag near, in front of a lookup.
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

    /// What the one cache line that nearly always decides has to say. The caller is in a read-side
    /// section.
    #[inline(always)]
    pub(crate) fn look(&self, hash: Hash, key: &Key) -> Look {
        let n = self.n.load(Acquire);
        let Some(bucket) = self.bucket(place(hash, n)) else {
            return Look::Unsure;
        };
        // Before the entries: see the head of this file.
        let head = bucket.head.load(Acquire);
        for entry in &bucket.entries {
            let entry = entry.load(Acquire);
            if (entry ^ hash.0) >> 48 == 0 {
                return match self.slot(entry) {
                    Some(slot) => {
                        Self::prefetch_more(entry, slot);
                        if slot.is(key) {
                            Look::Found(slot)
                        } else {
                            Look::Unsure
                        }
                    }
                    None => Look::Unsure,
                };
            }
        }
        if head & filter(hash.tag()) == 0 && self.n.load(Acquire) == n {
            Look::Absent
        } else {
            Look::Unsure
        }
    }

    /// The slot under `hash` that is `wanted`. The caller is in a read-side section.
    #[inline(always)]
    pub(crate) fn find(&self, hash: Hash, mut wanted: impl FnMut(Slot) -> bool) -> Option<Slot> {
        let n = self.n.load(Acquire);
        let bucket = self.bucket(place(hash, n))?;
        // Before the entries: see the head of this file.
        let mut head = bucket.head.load(Acquire);
        if let Some(slot) = self.scan(bucket, hash, &mut wanted) {
            return Some(slot);
        }
        if planted(Bug::LateHead) {
            head = bucket.head.load(Acquire);
        }
        // Nearly always one cache line decides.
        let alone = head & filter(hash.tag()) == 0;
        if alone && (self.n.load(Acquire) == n || planted(Bug::NoRetry)) {
            return None;
        }
        self.find_far(hash, wanted)
    }

    /// As [`Index::find`], where a bucket has others behind it, or moves.
    #[cold]
    #[inline(never)]
    fn find_far(&self, hash: Hash, mut wanted: impl FnMut(Slot) -> bool) -> Option<Slot> {
        let tag = hash.tag();
        let mut n = self.n.load(Acquire);
        loop {
            let at = place(hash, n);
            let mut bucket = self.bucket(at)?;
            loop {
                // Before the entries: see the head of this file.
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

    /// Does a miss of this hash read one cache line only?
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

    /// The slot among a bucket's own entries that is `wanted`.
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

    fn stripe(&self, at: usize) -> Option<&Stripe<L>> {
        self.stripes.get(at & self.stripes.len().wrapping_sub(1))
    }

    /// Locks the bucket of `hash` for writing. None only if the index was never opened.
    pub(crate) fn lock(&self, hash: Hash) -> Option<Chain<'_, L>> {
        let held = self.stripe(hash.0 as usize)?.state.lock();
        // Who could change what bucket the hash belongs to would need this stripe.
        let first = self.bucket(place(hash, self.n.load(Acquire)))?;
        Some(Chain {
            index: self,
            held,
            hash,
            first,
        })
    }

    /// Adds a segment at the end. Its memory is `1 << shift` buckets, arbitrary.
    ///
    /// # Safety
    ///
    /// `at` is the start of a block that is the index's until `trim` returns it.
    pub(crate) unsafe fn add_segment(&self, at: NonNull<u8>, block: u32) -> bool {
        let _growth = self.locks.growth.lock();
        let Some(segment) = self.segments.iter().find(|s| s.at.load(Relaxed) == 0) else {
            return false;
        };
        // SAFETY: the caller's promise.
        unsafe { make_buckets(at, self.mask.saturating_add(1)) };
        segment.block.store(block, Relaxed);
        segment.at.store(at.as_ptr() as usize, Release);
        true
    }

    /// Takes the last segment out of use if no bucket in it is, and returns its block.
    pub(crate) fn trim(&self, done: impl Fn(Cookie) -> bool) -> Option<u32> {
        let mut growth = self.locks.growth.try_lock()?;
        // The first segment that no bucket is in, counted from the last bucket's.
        let last = self
            .n
            .load(Relaxed)
            .saturating_sub(1)
            .wrapping_shr(self.shift);
        let mut empty = self.segments.get(last.saturating_add(1)..)?.iter();
        let mut segment = empty.next().filter(|s| s.at.load(Relaxed) != 0)?;
        for next in empty.take_while(|s| s.at.load(Relaxed) != 0) {
            segment = next;
        }
        if !passed(&mut growth.merged, &done) {
            return None;
        }
        segment.at.store(0, Release);
        Some(segment.block.load(Relaxed))
    }

    /// Spare overflow buckets.
    pub(crate) fn spare(&self) -> usize {
        let spare = self.locks.overflow.lock();
        spare.count.saturating_add(spare.left)
    }

    /// Adds a block of `buckets` overflow buckets. False if the last one is not used up yet.
    ///
    /// # Safety
    ///
    /// `at` is the start of a block that is the index's until it is freed.
    pub(crate) unsafe fn add_overflow(&self, at: NonNull<u8>, buckets: usize) -> bool {
        let mut spare = self.locks.overflow.lock();
        if spare.left != 0 {
            return false;
        }
        spare.fresh = at.as_ptr() as usize;
        spare.left = buckets;
        true
    }

    fn take_overflow(&self) -> Option<&Bucket> {
        let mut spare = self.locks.overflow.lock();
        if let Some(bucket) = self.follow(spare.first) {
            spare.first = bucket.head.load(Relaxed) & REFERENCE;
            spare.count = spare.count.saturating_sub(1);
            bucket.clear();
            return Some(bucket);
        }
        let at = NonNull::new(spare.fresh as *mut u8)?;
        spare.left = spare.left.checked_sub(1)?;
        spare.fresh = spare.fresh.wrapping_add(size_of::<Bucket>());
        // SAFETY: the bucket is one of those of the block that `add_overflow` brought which were
        // never used.
        unsafe { make_buckets(at, 1) };
        // SAFETY: it was just made.
        Some(unsafe { at.cast::<Bucket>().as_ref() })
    }

    /// An unchained overflow bucket may be used again: its grace period has passed.
    pub(crate) fn give_overflow(&self, address: NonZeroUsize) {
        let mut spare = self.locks.overflow.lock();
        let reference = self.reference(address.get());
        if let Some(bucket) = self.follow(reference) {
            bucket.head.store(spare.first, Relaxed);
            spare.first = reference;
            spare.count = spare.count.wrapping_add(1);
        }
    }

    fn address(bucket: &Bucket) -> NonZeroUsize {
        NonNull::from(bucket).addr()
    }

    /// The bucket `first` and its overflow buckets.
    fn chain<'i>(&'i self, first: &'i Bucket) -> impl Iterator<Item = &'i Bucket> {
        core::iter::successors(Some(first), |b| self.follow(b.head.load(Relaxed)))
    }

    /// Makes the filters of a chain right. The stripe is held, or nobody sees the chain yet.
    fn refilter(&self, first: &Bucket) {
        for bucket in self.chain(first) {
            let next = bucket.head.load(Relaxed) & REFERENCE;
            let mut head = next;
            for after in self
                .follow(next)
                .into_iter()
                .flat_map(|next| self.chain(next))
            {
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

    /// Puts an entry into a free place of the chain. False if no overflow bucket could be had.
    fn put(&self, first: &Bucket, entry: u64) -> bool {
        let bit = filter(entry >> 48);
        let mut last = first;
        let mut length = 0usize;
        for bucket in self.chain(first) {
            if let Some(free) = bucket.entries.iter().find(|e| e.load(Relaxed) == 0) {
                free.store(entry, Release);
                self.announce(first, bucket, bit);
                return true;
            }
            last = bucket;
            length = length.wrapping_add(1);
        }
        if length > CHAIN {
            return false;
        }
        let Some(fresh) = self.take_overflow() else {
            return false;
        };
        if let Some(place) = fresh.entries.first() {
            place.store(entry, Relaxed);
        }
        last.head
            .store(self.reference(Self::address(fresh).get()) | bit, Release);
        self.announce(first, last, bit);
        true
    }

    /// Sets a filter bit in all buckets of a chain that come before `end`.
    fn announce(&self, first: &Bucket, end: &Bucket, bit: u64) {
        for bucket in self.chain(first).take_while(|b| !core::ptr::eq(*b, end)) {
            bucket.head.store(bucket.head.load(Relaxed) | bit, Release);
        }
    }

    /// Calls `f` with the entries of a chain and a bit of its own for each.
    fn each<'i>(&'i self, first: &'i Bucket, mut f: impl FnMut(u64, &'i AtomicU64)) {
        let mut bit = 1u64;
        for entry in self.chain(first).flat_map(|b| &b.entries) {
            f(bit, entry);
            // A chain has at most 9 times 7 entries.
            bit = bit.wrapping_shl(1);
        }
    }

    /// Gives the overflow buckets of a chain that nobody else has seen back.
    fn unmake(&self, first: &Bucket) {
        let mut next = first.head.load(Relaxed);
        first.clear();
        while let Some(bucket) = self.follow(next) {
            next = bucket.head.load(Relaxed);
            self.give_overflow(Self::address(bucket));
        }
    }

    /// Grows by a bucket. `hash_of` gives a linked slot's hash; `done` says if a grace period has
    /// passed; overflow buckets that were emptied come out in `unchained`.
    pub(crate) fn split(
        &self,
        hash_of: impl Fn(Slot) -> Hash,
        done: impl Fn(Cookie) -> bool,
        unchained: &mut Unchained,
    ) -> Step {
        let Some(mut growth) = self.locks.growth.try_lock() else {
            return Step::NotNow;
        };
        if !passed(&mut growth.merged, &done) {
            return Step::NotNow;
        }
        let n = self.n.load(Relaxed);
        let half = floor_power(n);
        let at = n.wrapping_sub(half);
        let (Some(old), Some(stripe)) = (self.bucket(at), self.stripe(at)) else {
            return Step::NotNow;
        };
        let Some(new) = self.bucket(n) else {
            return Step::NoSegment;
        };
        let _held = stripe.state.lock();
        new.clear();

        let mut movers = 0u64;
        let mut stay = 0usize;
        let mut short = false;
        self.each(old, |bit, entry| {
            let entry = entry.load(Relaxed);
            let Some(slot) = self.slot(entry) else { return };
            if hash_of(slot).0 as usize & half == 0 {
                stay = stay.wrapping_add(1);
                return;
            }
            movers |= bit;
            if !planted(Bug::LateCopy) {
                short |= !self.put(new, entry);
            }
        });
        if short {
            self.unmake(new);
            return Step::NoOverflow;
        }

        if planted(Bug::EarlyClear) {
            self.each(old, |bit, entry| {
                if movers & bit != 0 {
                    entry.store(0, Release);
                }
            });
        }
        self.n.store(n.wrapping_add(1), Release);
        if planted(Bug::LateCopy) {
            self.each(old, |bit, entry| {
                if movers & bit != 0 {
                    self.put(new, entry.load(Relaxed));
                }
            });
        }

        let head = old.head.load(Relaxed);
        match self.follow(head) {
            Some(overflow) if stay <= ENTRIES => {
                // All that stays fits into the bucket itself: move it there, unchain the rest.
                let mut after = self
                    .chain(overflow)
                    .flat_map(|b| &b.entries)
                    .map(|e| e.load(Relaxed))
                    .zip((ENTRIES as u32..64).map(|i| 1u64.wrapping_shl(i)))
                    .filter(|(entry, bit)| *entry != 0 && movers & bit == 0);
                let mut bit = 1u64;
                for entry in &old.entries {
                    if movers & bit != 0 || entry.load(Relaxed) == 0 {
                        entry.store(after.next().map_or(0, |(stayer, _)| stayer), Release);
                    }
                    bit = bit.wrapping_shl(1);
                }
                old.head.store(0, Release);
                for bucket in self.chain(overflow) {
                    // There are at most CHAIN of them.
                    unchained.push(Self::address(bucket));
                }
            }
            _ => {
                self.each(old, |bit, entry| {
                    if movers & bit != 0 {
                        entry.store(0, Release);
                    }
                });
                self.refilter(old);
            }
        }
        growth.grown = true;
        Step::Done
    }

    /// Shrinks by a bucket; `start` asks for a grace period and `done` says if one has passed.
    pub(crate) fn merge(
        &self,
        hash_of: impl Fn(Slot) -> Hash,
        start: impl Fn() -> Cookie,
        done: impl Fn(Cookie) -> bool,
        unchained: &mut Unchained,
    ) -> Step {
        let Some(mut growth) = self.locks.growth.try_lock() else {
            return Step::NotNow;
        };
        if growth.grown {
            growth.grown = false;
            growth.split = Some(start());
        }
        if !passed(&mut growth.split, &done) {
            return Step::NotNow;
        }
        let last = self.n.load(Relaxed).wrapping_sub(1);
        let half = floor_power(last);
        if last < self.stripes.len() || last == 0 {
            return Step::NotNow;
        }
        let at = last.wrapping_sub(half);
        let (Some(into), Some(from), Some(stripe)) =
            (self.bucket(at), self.bucket(last), self.stripe(at))
        else {
            return Step::NotNow;
        };
        let _held = stripe.state.lock();
        if planted(Bug::LateMerge) {
            self.n.store(last, Release);
        }
        for entry in self.chain(from).flat_map(|b| &b.entries) {
            let entry = entry.load(Relaxed);
            if entry != 0 && !self.put(into, entry) {
                // Take back those that were copied: nobody looks for them there yet.
                for entry in self.chain(into).flat_map(|b| &b.entries) {
                    if let Some(slot) = self.slot(entry.load(Relaxed)) {
                        if hash_of(slot).0 as usize & half != 0 {
                            entry.store(0, Relaxed);
                        }
                    }
                }
                self.refilter(into);
                return Step::NoOverflow;
            }
        }
        self.n.store(last, Release);
        let head = from.head.load(Relaxed);
        for bucket in self
            .follow(head)
            .into_iter()
            .flat_map(|next| self.chain(next))
        {
            unchained.push(Self::address(bucket));
        }
        growth.merged = Some(start());
        Step::Done
    }
}

/// Makes empty buckets in raw memory.
///
/// # Safety
///
/// `at` is aligned to 64, with room for `n` buckets that nobody else uses.
unsafe fn make_buckets(at: NonNull<u8>, n: usize) {
    let first = at.cast::<Bucket>();
    for i in 0..n {
        // SAFETY: the caller's promise.
        unsafe { first.add(i).write(Bucket::new()) };
    }
}

/// The bucket of a hash, its stripe held.
pub(crate) struct Chain<'i, L: RawLock> {
    index: &'i Index<L>,
    held: Held<'i, L, StripeState>,
    hash: Hash,
    first: &'i Bucket,
}

impl<'i, L: RawLock> Chain<'i, L> {
    /// The entry under the hash whose slot is `wanted`.
    pub(crate) fn find(&self, mut wanted: impl FnMut(Slot) -> bool) -> Option<Place<'i>> {
        let tag = self.hash.tag();
        let mut before = None;
        for bucket in self.index.chain(self.first) {
            for entry in &bucket.entries {
                let word = entry.load(Relaxed);
                if word >> 48 == tag {
                    if let Some(slot) = self.index.slot(word) {
                        if wanted(slot) {
                            return Some(Place {
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

    /// Any entry at all of the bucket, of the tag or not, that is `wanted`.
    pub(crate) fn any(&self, mut wanted: impl FnMut(Slot) -> bool) -> Option<Place<'i>> {
        self.first.entries.iter().find_map(|entry| {
            let slot = self.index.slot(entry.load(Relaxed))?;
            wanted(slot).then_some(Place {
                entry,
                bucket: self.first,
                before: None,
                slot,
            })
        })
    }

    /// Adds a slot. False if the bucket is full and there is no overflow bucket.
    pub(crate) fn insert(&mut self, slot: Slot) -> bool {
        let put = self
            .index
            .put(self.first, self.index.entry(self.hash, slot));
        if put {
            self.held.items = self.held.items.wrapping_add(1);
        }
        put
    }

    /// Puts `slot` in the place of another.
    pub(crate) fn replace(&mut self, place: &Place<'i>, slot: Slot) {
        let order = if planted(Bug::RelaxedEntry) {
            Relaxed
        } else {
            Release
        };
        place.entry.store(self.index.entry(self.hash, slot), order);
    }

    /// Removes an entry. Returns the overflow bucket that it emptied, to be given back after a
    /// grace period.
    pub(crate) fn remove(&mut self, place: &Place<'i>) -> Option<NonZeroUsize> {
        place.entry.store(0, Release);
        self.held.items = self.held.items.saturating_sub(1);
        let before = place.before?;
        let emptied = if place.bucket.is_empty() {
            // Readers inside go on by its head, which stays.
            before.head.store(place.bucket.head.load(Relaxed), Release);
            Some(Index::<L>::address(place.bucket))
        } else {
            None
        };
        self.index.refilter(self.first);
        emptied
    }

    /// Has the stripe more items than the index should have at its size?
    pub(crate) fn crowded(&self) -> bool {
        let index = self.index;
        self.held.items.saturating_mul(index.stripes.len()) > index.buckets().saturating_mul(LOAD)
    }
}
