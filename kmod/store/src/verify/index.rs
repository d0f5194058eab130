// SPDX-License-Identifier: GPL-2.0-only
//! Checks the index: its chains, and the entry of each item.

use super::{broken, count, equal, Rule, SetDigest, Violation};
use crate::hash;
use crate::index::{filter, BUCKET, CHAIN, REFERENCE};
use crate::item::Slot;
use crate::memory::pool::{Block, Use};
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;

/// The part of a bucket's head that is a filter.
const FILTER: u64 = 0xffff << 48;

/// Buckets between two calls of `cond_resched`.
const RELAX: usize = 4096;

/// The contents of the index.
#[derive(Default)]
struct Visited {
    entries: SetDigest,
    overflow: SetDigest,
}

impl<P: Platform> Store<P> {
    /// `live`: the slots of all items; `retired`: overflow buckets that wait for a grace period.
    pub(super) fn verify_index(
        &self,
        live: &SetDigest,
        retired: &SetDigest,
    ) -> Result<(), Violation> {
        let mut visited = Visited::default();
        let stripes = self.index.stripes.len();
        let buckets = self.index.buckets();
        let mut seen_buckets = 0usize;
        for (first, stripe) in (0..stripes).zip(self.index.stripes.iter()) {
            let items = stripe.state.lock().items as u64;
            let mut found = 0;
            let guard = self.read();
            // A stripe's buckets are those of the same low bits.
            let mut at = first;
            while at < buckets {
                self.verify_chain(at, &mut visited, &mut found)?;
                at = at.wrapping_add(stripes);
                seen_buckets = seen_buckets.wrapping_add(1);
            }
            drop(guard);
            equal(Rule::StripeItems, None, found, items)?;
            if seen_buckets >= RELAX {
                seen_buckets = 0;
                self.platform.cond_resched();
            }
        }
        live.is(visited.entries, Rule::Entries, None)?;
        visited.overflow.join(*retired);
        self.verify_overflow(visited.overflow)
    }

    /// A bucket and its overflow buckets, whose entries are added to `found`. The caller is in a
    /// section.
    fn verify_chain(
        &self,
        at: usize,
        visited: &mut Visited,
        found: &mut u64,
    ) -> Result<(), Violation> {
        let Some(mut bucket) = self.index.bucket(at) else {
            return broken(Rule::Bucket, None, 1, 0);
        };
        // The tags that the filters of all heads so far let pass.
        let mut passed = FILTER;
        let mut length = 0;
        loop {
            for entry in &bucket.entries {
                let entry = entry.load(Relaxed);
                if entry != 0 {
                    count(found);
                    visited.entries.add(self.index.referred(entry));
                    let bit = filter(entry >> 48);
                    equal(Rule::Filter, None, bit, bit & passed)?;
                }
            }
            let head = bucket.head.load(Relaxed);
            if head & REFERENCE == 0 {
                return Ok(());
            }
            passed &= head;
            count(&mut length);
            let address = self.index.referred(head);
            let most = CHAIN as u64;
            equal(Rule::Chain, None, length.min(most), length)?;
            let next = || self.index.follow(head);
            let Some(next) = self.is_overflow(address).then(next).flatten() else {
                return broken(Rule::Chain, None, most, length);
            };
            visited.overflow.add(address);
            bucket = next;
        }
    }

    /// Whether an overflow bucket may lie at this address.
    fn is_overflow(&self, address: usize) -> bool {
        let block = self.block_at(address);
        block.is_some_and(|(block, _)| block.usage() == Use::Overflow) && address % BUCKET == 0
    }

    /// `used`: the overflow buckets in chains and rings.
    fn verify_overflow(&self, used: SetDigest) -> Result<(), Violation> {
        let (mut first, spare, fresh, left) = {
            let spare = self.index.locks.overflow.lock();
            (spare.first, spare.count as u64, spare.fresh, spare.left)
        };
        let unused = fresh..fresh.wrapping_add(left.wrapping_mul(BUCKET));
        let mut all = SetDigest::default();
        for (_, block) in self.blocks_of(Use::Overflow) {
            let start = Block::at(block).map_or(0, |at| at.as_ptr() as usize);
            (0..self.pool.block_size() / BUCKET)
                .map(|bucket| start.wrapping_add(bucket.wrapping_mul(BUCKET)))
                .filter(|address| !unused.contains(address))
                .for_each(|address| all.add(address));
        }
        let mut listed = SetDigest::default();
        while first & REFERENCE != 0 && listed.count <= spare {
            let address = self.index.referred(first);
            let next = || self.index.follow(first);
            let Some(bucket) = self.is_overflow(address).then(next).flatten() else {
                return broken(Rule::OverflowBuckets, None, spare, listed.count);
            };
            listed.add(address);
            first = bucket.head.load(Relaxed);
        }
        equal(Rule::OverflowBuckets, None, listed.count, spare)?;
        listed.join(used);
        all.is(listed, Rule::OverflowBuckets, None)
    }

    /// Whether an item's key finds the item.
    pub(super) fn verify_lookup(&self, class: usize, slot: Slot) -> Result<(), Violation> {
        let this = Some(class);
        let hash = self.hash_of(slot);
        let expected = self.index.entry(hash, slot);
        let found = self.index.lock(hash).and_then(|chain| {
            let place = chain.find(|other| other == slot)?;
            Some(place.entry.load(Relaxed))
        });
        equal(Rule::Lookup, this, expected, found.unwrap_or(0))?;
        let other = self
            .index
            .find(hash, |other| hash::same(other.key(), slot.key()));
        let address = |slot: Slot| slot.address().get() as u64;
        equal(Rule::Key, this, address(slot), other.map_or(0, address))
    }
}
