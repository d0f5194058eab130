// SPDX-License-Identifier: GPL-2.0-only
//! Storing and deleting.
//!
//! Process context. Memory is allocated and bytes are copied before a stripe is locked, so that locks are held for a
//! few hundred instructions at most.

use hippos_semantics::{StoreMode, KEY_MAX};

use crate::counters::Counter;
use crate::hash::{self, Hash};
use crate::index::{Chain, EntryPosition};
use crate::item::{Slot, BINARY_KEY, HEADER, STALE, TOKEN_SENT};
use crate::maintenance::evict::Charge;
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;
use crate::time::Expiry;

use super::attempts::Attempts;
use super::commit::{Commit, Deleted, Outcome, StoreError, StoredItem};
use super::reservation::Reservation;

/// The result of an attempt to link a slot.
pub(super) enum Linked {
    /// It is linked. `old` is the slot that it replaced, or that was removed to make space in the chain: the caller
    /// retires it.
    Done { old: Option<Slot> },
    /// The bucket is full and there is no overflow bucket.
    Full,
}

impl<P: Platform> Store<P> {
    /// The class of an item, if it is not too large.
    #[inline]
    pub(crate) fn class_of(&self, key_len: usize, value_len: usize) -> Result<usize, StoreError> {
        if key_len > KEY_MAX {
            return Err(StoreError::TooLarge);
        }
        let size = HEADER.saturating_add(key_len).saturating_add(value_len);
        self.slabs.class_for(size).ok_or(StoreError::TooLarge)
    }

    /// Whether the item that a writer found, under its stripe's lock, is valid. An invalid one is counted.
    pub(crate) fn check_valid(&self, slot: Slot) -> bool {
        self.check_valid_in(slot, self.clock.epoch())
    }

    /// Like [`check_valid`](Self::check_valid), for a writer that links an item of this epoch in its place.
    fn check_valid_in(&self, slot: Slot, epoch: u32) -> bool {
        let alive = self.is_valid_in(slot, epoch);
        if !alive {
            self.count_expired_hit(slot);
        }
        alive
    }

    pub(crate) fn next_cas(&self, wanted: Option<u64>) -> u64 {
        // CAS numbers may wrap.
        let next = || self.cas.0.fetch_add(1, Relaxed).wrapping_add(1);
        wanted.unwrap_or_else(next)
    }

    /// Stores a reservation. The part of its value that was not written is zeroed. Process context, may sleep.
    pub fn commit(
        &self,
        reservation: Reservation<'_, P>,
        commit: &Commit,
    ) -> Result<Outcome, StoreError> {
        self.commit_within(reservation, commit, &mut Attempts::new())
            .0
    }

    /// Like [`commit`](Self::commit), within these attempts. A reservation that was not stored is returned; `Append` and
    /// `Prepend` return it if they joined it to another one, too.
    #[inline(always)]
    pub fn commit_within<'s>(
        &'s self,
        reservation: Reservation<'s, P>,
        commit: &Commit,
        attempts: &mut Attempts,
    ) -> (Result<Outcome, StoreError>, Option<Reservation<'s, P>>) {
        let mut new = reservation;
        if new.remaining() != 0 {
            new.pad(0);
        }
        match commit.mode {
            StoreMode::Append | StoreMode::Prepend => self.join(new, commit, attempts),
            StoreMode::Set | StoreMode::Add | StoreMode::Replace => {
                self.store_reservation(new, commit)
            }
        }
    }

    /// Set, add, replace and compare-and-swap. A reservation that was not stored is returned.
    pub(super) fn store_reservation<'s>(
        &'s self,
        new: Reservation<'s, P>,
        commit: &Commit,
    ) -> (Result<Outcome, StoreError>, Option<Reservation<'s, P>>) {
        let (slot, hash) = (new.slot, new.hash);
        let mut born = 0;
        for (mark, on) in [
            (STALE, commit.stale),
            (TOKEN_SENT, commit.token_sent),
            (BINARY_KEY, commit.binary_key),
        ] {
            born |= if on { mark } else { 0 };
        }
        let expiry = slot.header().expiry.load(Relaxed);
        let charge = Charge::of(slot);
        let (mut force, mut tried) = (false, false);
        while let Some(mut chain) = self.index.lock(hash) {
            // One epoch for both the item that is found and the one that is stored over it: a flush that comes between
            // them flushes both. Read under the lock, so that it is not older than that of any item in the chain.
            let epoch = self.clock.epoch();
            let found = chain.find(|s| hash::same(s.key(), slot.key()));
            let live = found
                .as_ref()
                .map(|p| p.slot)
                .filter(|s| self.check_valid_in(*s, epoch));
            // The marks that are kept of the old item are read again in each try.
            let mut marks = born;
            slot.header().expiry.store(expiry, Relaxed);
            let refused = match (commit.mode, commit.compare, live) {
                (StoreMode::Add, _, Some(old)) => {
                    old.refer(self.cap, self.now());
                    Some(Outcome::NotStored)
                }
                (StoreMode::Replace, None, None) => Some(Outcome::NotStored),
                (StoreMode::Set | StoreMode::Replace, Some(_), None) => Some(Outcome::NotFound),
                (StoreMode::Set | StoreMode::Replace, Some(cas), Some(old)) => {
                    let present = old.header().cas.load(Relaxed);
                    if cas != 0 && commit.invalidate && cas < present {
                        marks |= STALE | old.marks() & TOKEN_SENT;
                        let expiry = old.header().expiry.load(Relaxed);
                        slot.header().expiry.store(expiry, Relaxed);
                        None
                    } else {
                        let class = old.class();
                        (cas == 0 || cas != present).then_some(Outcome::Exists { class })
                    }
                }
                _ => None,
            };
            if let Some(refused) = refused {
                drop(chain);
                return (Ok(refused), Some(new));
            }
            let kept = live.filter(|_| commit.keep_cas).map(|old| old.cas());
            let cas = self.next_cas(commit.new_cas.or(kept));
            let item = StoredItem {
                class: charge.class(),
                len: slot.value_len(),
                expiry: Expiry(slot.header().expiry.load(Relaxed)),
            };
            // Read before the stripe is unlocked: after that the slots can hold other items.
            let replaced = live.map(|old| old.class());
            match self.link(&mut chain, found.as_ref(), slot, (cas, epoch), marks, force) {
                Linked::Done { old } => {
                    let crowded = chain.crowded();
                    drop(chain);
                    new.into_published();
                    self.count(Counter::TotalItems, 1);
                    self.account_and_retire(old, Some(charge), found.is_some() && live.is_none());
                    if crowded {
                        self.grow_index();
                    }
                    let outcome = Outcome::Stored {
                        cas,
                        item,
                        replaced,
                    };
                    return (Ok(outcome), None);
                }
                Linked::Full => {
                    drop(chain);
                    // A chain can have its maximum length while overflow buckets are spare.
                    force = tried || !self.add_overflow();
                    tried = true;
                }
            }
        }
        (Err(StoreError::OutOfMemory), Some(new))
    }

    /// Publishes a slot that is complete except for marks, times, CAS number and epoch: in place of `found`, or in a
    /// new entry. With `force` it replaces any other item if there is no free entry.
    ///
    /// Its place is found first: a walk or an eviction could use a slot that was live for a moment although it was not
    /// linked, and is then freed without a grace period.
    pub(super) fn link<'i>(
        &self,
        chain: &mut Chain<'i, P::Lock>,
        found: Option<&EntryPosition<'i>>,
        slot: Slot,
        (cas, epoch): (u64, u32),
        marks: u8,
        force: bool,
    ) -> Linked {
        let (mut vacancy, mut victim) = (None, None);
        if found.is_none() {
            vacancy = chain.vacancy();
            if vacancy.is_none() {
                let cold = |s: Slot| s.header().refs.load(Relaxed) == 0;
                victim = match force {
                    true => chain.any(cold).or_else(|| chain.any(|_| true)),
                    false => None,
                };
                if victim.is_none() {
                    return Linked::Full;
                }
            }
        }
        let header = slot.header();
        header.cas.store(cas, Relaxed);
        header.epoch.store(epoch, Relaxed);
        header.atime.store(self.clock.now(), Relaxed);
        if let Some(place) = found {
            // Storing over an item counts as a use of it.
            let refs = place.slot.header().refs.load(Relaxed);
            header
                .refs
                .store(refs.saturating_add(1).min(self.cap), Relaxed);
        }
        slot.publish(marks);
        if let Some(place) = found {
            chain.replace(place, slot);
            return Linked::Done {
                old: Some(place.slot),
            };
        }
        if let Some(vacancy) = vacancy {
            chain.insert(vacancy, slot);
        }
        if let Some(place) = &victim {
            chain.replace(place, slot);
            self.count_eviction(place.slot);
        }
        Linked::Done {
            old: victim.map(|place| place.slot),
        }
    }

    /// Removes an item, only of this CAS number if one is given. Process context, may sleep.
    pub fn delete(&self, key: &[u8], hash: Hash, compare: Option<u64>) -> Deleted {
        let Some(mut chain) = self.index.lock(hash) else {
            return Deleted::NotFound;
        };
        let Some(place) = chain.find(|s| hash::same(s.key(), key)) else {
            return Deleted::NotFound;
        };
        let alive = self.check_valid(place.slot);
        let header = place.slot.header();
        let class = place.slot.class();
        if alive && compare.is_some_and(|cas| cas != header.cas.load(Relaxed)) {
            return Deleted::Exists { class };
        }
        let emptied = chain.remove(&place);
        drop(chain);
        self.account_and_retire(Some(place.slot), None, !alive);
        self.retire_overflow(emptied);
        if alive {
            Deleted::Deleted { class }
        } else {
            Deleted::NotFound
        }
    }
}
