// SPDX-License-Identifier: GPL-2.0-only
//! Growing and shrinking by one bucket: [the index](super) describes what readers see of it.

use core::num::NonZeroUsize;

use hippos_invariant::Exact;

use crate::array_vec::ArrayVec;
use crate::hash::Hash;
use crate::item::Slot;
use crate::platform::{Cookie, RawLock};
use crate::sync::{planted, Bug, Relaxed, Release};

use super::bucket::ENTRIES;
use super::Index;

/// Addresses of overflow buckets that were unchained and wait for a grace period.
pub(crate) type Unchained = ArrayVec<NonZeroUsize, 16>;

/// The result of an attempt to grow or shrink by one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResizeResult {
    Done,
    /// The new bucket lies in a segment that is not there yet.
    NoSegment,
    /// No overflow bucket is left.
    NoOverflow,
    /// Another caller is resizing, a grace period is not over, or the limit is reached.
    NotNow,
}

/// Whether no grace period is awaited any more; `done` returns whether one has passed.
fn passed(awaited: &mut Option<Cookie>, done: impl Fn(Cookie) -> bool) -> bool {
    if awaited.is_some_and(|cookie| !done(cookie)) {
        return false;
    }
    *awaited = None;
    true
}

/// The highest power of two that is at most `n`.
fn floor_power(n: usize) -> usize {
    n.checked_ilog2().map_or(0, |bits| 1usize.shl_by(bits))
}

impl<L: RawLock> Index<L> {
    /// Removes the last segment if no bucket in use lies in it, and returns its block.
    pub(crate) fn trim(&self, done: impl Fn(Cookie) -> bool) -> Option<u32> {
        let mut growth = self.locks.growth.try_lock()?;
        // The first segment that holds no bucket, counted from the last bucket's.
        let last = self.n.load(Relaxed).sub_exact(1).shr_by(self.shift);
        let mut empty = self.segments.get(last.add_exact(1)..)?.iter();
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

    /// Grows by one bucket. `hash_of` returns a linked slot's hash, `done` whether a grace period has passed; overflow
    /// buckets that became empty are added to `unchained`.
    pub(crate) fn split(
        &self,
        hash_of: impl Fn(Slot) -> Hash,
        done: impl Fn(Cookie) -> bool,
        unchained: &mut Unchained,
    ) -> ResizeResult {
        let Some(mut growth) = self.locks.growth.try_lock() else {
            return ResizeResult::NotNow;
        };
        if !passed(&mut growth.merged, &done) {
            return ResizeResult::NotNow;
        }
        let n = self.n.load(Relaxed);
        let half = floor_power(n);
        let at = n.sub_exact(half);
        let (Some(old), Some(stripe)) = (self.bucket(at), self.stripe(at)) else {
            return ResizeResult::NotNow;
        };
        let Some(new) = self.bucket(n) else {
            return ResizeResult::NoSegment;
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
                stay = stay.add_exact(1);
                return;
            }
            movers |= bit;
            if !planted(Bug::LateCopy) {
                short |= !self.put(new, entry);
            }
        });
        if short {
            self.release_chain(new);
            return ResizeResult::NoOverflow;
        }

        if planted(Bug::EarlyClear) {
            self.each(old, |bit, entry| {
                if movers & bit != 0 {
                    entry.store(0, Release);
                }
            });
        }
        self.n.store(n.add_exact(1), Release);
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
                // All entries that stay fit into the bucket itself: move them there, and unchain the rest.
                let mut after = self
                    .chain(overflow)
                    .flat_map(|b| &b.entries)
                    .map(|e| e.load(Relaxed))
                    .zip((ENTRIES as u32..64).map(|i| 1u64.shl_by(i)))
                    .filter(|(entry, bit)| *entry != 0 && movers & bit == 0);
                let mut bit = 1u64;
                for entry in &old.entries {
                    if movers & bit != 0 || entry.load(Relaxed) == 0 {
                        entry.store(after.next().map_or(0, |(stayer, _)| stayer), Release);
                    }
                    bit <<= 1;
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
        ResizeResult::Done
    }

    /// Shrinks by one bucket. `start` starts a grace period, `done` returns whether one has passed.
    pub(crate) fn merge(
        &self,
        hash_of: impl Fn(Slot) -> Hash,
        start: impl Fn() -> Cookie,
        done: impl Fn(Cookie) -> bool,
        unchained: &mut Unchained,
    ) -> ResizeResult {
        let Some(mut growth) = self.locks.growth.try_lock() else {
            return ResizeResult::NotNow;
        };
        if growth.grown {
            growth.grown = false;
            growth.split = Some(start());
        }
        if !passed(&mut growth.split, &done) {
            return ResizeResult::NotNow;
        }
        let last = self.n.load(Relaxed).sub_exact(1);
        let half = floor_power(last);
        if last < self.stripes.len() || last == 0 {
            return ResizeResult::NotNow;
        }
        let at = last.sub_exact(half);
        let (Some(into), Some(from), Some(stripe)) =
            (self.bucket(at), self.bucket(last), self.stripe(at))
        else {
            return ResizeResult::NotNow;
        };
        let _held = stripe.state.lock();
        if planted(Bug::LateMerge) {
            self.n.store(last, Release);
        }
        for entry in self.chain(from).flat_map(|b| &b.entries) {
            let entry = entry.load(Relaxed);
            if entry != 0 && !self.put(into, entry) {
                // Undo the copies: no reader looks for them there yet.
                for entry in self.chain(into).flat_map(|b| &b.entries) {
                    if let Some(slot) = self.slot(entry.load(Relaxed)) {
                        if hash_of(slot).0 as usize & half != 0 {
                            entry.store(0, Relaxed);
                        }
                    }
                }
                self.refilter(into);
                return ResizeResult::NoOverflow;
            }
        }
        self.n.store(last, Release);
        let head = from.head.load(Relaxed);
        for bucket in self.chain(self.follow(head)) {
            unchained.push(Self::address(bucket));
        }
        growth.merged = Some(start());
        ResizeResult::Done
    }
}
