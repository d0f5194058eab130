// SPDX-License-Identifier: GPL-2.0-only
//! What changes the table: storing, deleting, counting up and down.
//!
//! Process context. Memory is found and bytes are copied before a stripe is
//! locked, so that locks are held for a few hundred instructions at most.

use crate::commit::{Arith, Arithmetic, Commit, Deleted, Outcome, StoreError, Verb};
use crate::counters::{ClassCounter, Counter};
use crate::hash::{self, Hash};
use crate::index::{Chain, Place};
use crate::item::{Item, Slot, BINARY_KEY, HEADER, KEY_MAX, STALE, TOKEN_SENT};
use crate::number;
use crate::platform::Platform;
use crate::reservation::Reservation;
use crate::room::Effort;
use crate::store::Store;
use crate::sync::Relaxed;
use crate::time::Expiry;

/// What became of an attempt to link a slot.
enum Linked {
    /// It is linked; the slot that it replaced, or that had to make room, is to be retired.
    Done { old: Option<Slot> },
    /// The bucket is full and there was no overflow bucket.
    Full,
}

/// What an item counts for. Noted while its slot is the caller's.
#[derive(Clone, Copy)]
pub(crate) struct Weight {
    class: usize,
    bytes: u64,
}

impl Weight {
    fn of(slot: Slot) -> Self {
        Self {
            class: slot.class(),
            bytes: slot.size() as u64,
        }
    }
}

/// The marks of an item that is changed in place, as far as anybody can tell: all.
const KEPT: u8 = !0;

/// An item that an update made.
struct Made {
    cas: u64,
    class: usize,
    expiry: u32,
    /// The expiry of the item that it replaced.
    before: u32,
}

/// How an update of an item in place of the old one ended, if not by success.
enum Refused<R> {
    Missing,
    Exists { class: usize },
    Error(StoreError),
    By(R),
}

impl<P: Platform> Store<P> {
    /// The class of an item, if it is not too large.
    pub(crate) fn class_of(&self, key_len: usize, value_len: usize) -> Result<usize, StoreError> {
        if key_len > KEY_MAX {
            return Err(StoreError::TooLarge);
        }
        let size = HEADER.saturating_add(key_len).saturating_add(value_len);
        self.slabs.class_for(size).ok_or(StoreError::TooLarge)
    }

    /// Whether the item that a writer found, under its stripe's lock, is alive; counted if not.
    pub(crate) fn found(&self, slot: Slot) -> bool {
        let alive = self.alive(slot);
        if !alive {
            self.missed(slot);
        }
        alive
    }

    pub(crate) fn next_cas(&self, wanted: Option<u64>) -> u64 {
        match wanted {
            Some(cas) if cas != 0 => cas,
            _ => self.cas.0.fetch_add(1, Relaxed).wrapping_add(1),
        }
    }

    /// Stores a reservation. What of its value was not written is zeroes. Process context, may
    /// sleep.
    pub fn commit(
        &self,
        reservation: Reservation<'_, P>,
        commit: &Commit,
    ) -> Result<Outcome, StoreError> {
        let mut new = reservation;
        if new.remaining() != 0 {
            new.pad(0);
        }
        match commit.verb {
            Verb::Append | Verb::Prepend => self.join(new, commit),
            Verb::Set | Verb::Add | Verb::Replace => self.place(new, commit).0,
        }
    }

    /// Set, add, replace and compare-and-swap. What was not stored comes back.
    fn place<'s>(
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
        let weight = Weight::of(slot);
        let mut force = false;
        while let Some(mut chain) = self.index.lock(hash) {
            let found = chain.find(|s| hash::same(s.key(), slot.key()));
            let live = found.as_ref().map(|p| p.slot).filter(|s| self.found(*s));
            // What is kept of the old item is read anew with each try.
            let mut marks = born;
            slot.header().expiry.store(expiry, Relaxed);
            let refused = match (commit.verb, commit.compare, live) {
                (Verb::Add, _, Some(old)) => {
                    old.refer(self.cap, self.now());
                    Some(Outcome::NotStored)
                }
                (Verb::Replace, None, None) => Some(Outcome::NotStored),
                (Verb::Set | Verb::Replace, Some(_), None) => Some(Outcome::NotFound),
                (Verb::Set | Verb::Replace, Some(cas), Some(old)) => {
                    let present = old.header().cas.load(Relaxed);
                    if cas != 0 && commit.invalidate && cas < present {
                        marks |= STALE | old.marks() & TOKEN_SENT;
                        let expiry = old.header().expiry.load(Relaxed);
                        slot.header().expiry.store(expiry, Relaxed);
                        None
                    } else {
                        (cas == 0 || cas != present).then_some(Outcome::Exists)
                    }
                }
                _ => None,
            };
            if let Some(refused) = refused {
                drop(chain);
                return (Ok(refused), Some(new));
            }
            let cas = self.next_cas(commit.new_cas);
            let epoch = self.clock.epoch();
            match self.link(&mut chain, found.as_ref(), slot, (cas, epoch), marks, force) {
                Linked::Done { old } => {
                    let crowded = chain.crowded();
                    drop(chain);
                    new.keep();
                    self.count(Counter::TotalItems, 1);
                    self.unlinked(old, Some(weight), found.is_some() && live.is_none());
                    if crowded {
                        self.grow_index();
                    }
                    return (Ok(Outcome::Stored { cas }), None);
                }
                Linked::Full => {
                    drop(chain);
                    force = !self.add_overflow();
                }
            }
        }
        (Err(StoreError::OutOfMemory), Some(new))
    }

    /// Publishes a slot, complete but for marks, times, CAS number and epoch: in the place of
    /// `found` or in a new one. With `force` it takes another item's place if there is no other.
    fn link<'i>(
        &self,
        chain: &mut Chain<'i, P::Lock>,
        found: Option<&Place<'i>>,
        slot: Slot,
        (cas, epoch): (u64, u32),
        marks: u8,
        force: bool,
    ) -> Linked {
        let header = slot.header();
        header.cas.store(cas, Relaxed);
        header.epoch.store(epoch, Relaxed);
        header.atime.store(self.clock.now(), Relaxed);
        if let Some(place) = found {
            // Storing over an item counts as use of it.
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
        if chain.insert(slot) {
            return Linked::Done { old: None };
        }
        if force {
            let cold = |s: Slot| s.header().refs.load(Relaxed) == 0;
            if let Some(place) = chain.any(cold).or_else(|| chain.any(|_| true)) {
                chain.replace(&place, slot);
                self.note_eviction(place.slot);
                return Linked::Done {
                    old: Some(place.slot),
                };
            }
        }
        slot.unpublish();
        Linked::Full
    }

    /// Keeps the books after a change and retires the slot that was unlinked. `new`: what the item
    /// that was linked counts for; nobody may look at its slot any more, which can be another item's
    /// by now. `reclaimed`: because the old one had expired or was flushed. No lock or section is
    /// held.
    pub(crate) fn unlinked(&self, old: Option<Slot>, new: Option<Weight>, reclaimed: bool) {
        let cpu = self.platform.cpu();
        let book = |class, items, bytes| {
            for (counter, n) in [(ClassCounter::Items, items), (ClassCounter::Bytes, bytes)] {
                if n != 0 {
                    self.counters.count_class(cpu, class, counter, n);
                }
            }
        };
        match (new, old.map(Weight::of)) {
            // Most often an item takes the place of its like.
            (Some(new), Some(old)) if new.class == old.class => {
                book(new.class, 0, new.bytes.wrapping_sub(old.bytes));
            }
            (new, old) => {
                if let Some(new) = new {
                    book(new.class, 1, new.bytes);
                }
                if let Some(old) = old {
                    book(old.class, 1u64.wrapping_neg(), old.bytes.wrapping_neg());
                }
            }
        }
        if let Some(slot) = old {
            if reclaimed {
                self.note_reclaim(slot);
            }
            self.retire_slot(slot);
        }
    }

    /// Removes an item, of this CAS number if one is given. Process context, may sleep.
    pub fn delete(&self, key: &[u8], hash: Hash, compare: Option<u64>) -> Deleted {
        let Some(mut chain) = self.index.lock(hash) else {
            return Deleted::NotFound;
        };
        let Some(place) = chain.find(|s| hash::same(s.key(), key)) else {
            return Deleted::NotFound;
        };
        let alive = self.found(place.slot);
        let header = place.slot.header();
        let class = place.slot.class();
        if alive && compare.is_some_and(|cas| cas != header.cas.load(Relaxed)) {
            return Deleted::Exists { class };
        }
        let emptied = chain.remove(&place);
        drop(chain);
        self.unlinked(Some(place.slot), None, !alive);
        self.retire_overflow(emptied);
        if alive {
            Deleted::Deleted { class }
        } else {
            Deleted::NotFound
        }
    }

    /// Replaces an item by one that is made from it, losing no change in between. `make` tells the
    /// value's length and which marks stay and, given a reservation, fills it; it may be called
    /// several times.
    fn update<R>(
        &self,
        key: &[u8],
        hash: Hash,
        compare: Option<u64>,
        new_cas: Option<u64>,
        expiry: Option<Expiry>,
        mut make: impl FnMut(&Item<'_>, Option<&mut Reservation<'_, P>>) -> Result<(usize, u8), R>,
    ) -> Result<Made, Refused<R>> {
        let mut spare: Option<Reservation<'_, P>> = None;
        loop {
            let guard = self.read();
            let Some(old) = self.peek(&guard, key, hash) else {
                return Err(Refused::Missing);
            };
            // Values never change, so this guards the number alone.
            let seen = old.cas();
            if compare.is_some_and(|cas| cas != seen) {
                return Err(Refused::Exists { class: old.class() });
            }
            let (len, kept) = make(&old, None).map_err(Refused::By)?;
            let flags = old.flags();
            if self.too_large(key.len(), len, flags) {
                return Err(Refused::Error(StoreError::TooLarge));
            }
            let class = self.class_of(key.len(), len).map_err(Refused::Error)?;
            let mut new = match spare.take().filter(|r| r.class() == class) {
                Some(mut new) => {
                    new.shape(key, len);
                    new
                }
                None => {
                    let Some(slot) = self.alloc_ready(class, hash) else {
                        drop(guard);
                        let slot = self.alloc(class, hash, Effort::WHOLE);
                        let refused = |short| self.refused(short, key.len(), len);
                        let slot = slot.map_err(refused).map_err(Refused::Error)?;
                        spare = Some(Reservation::new(self, slot, key, hash, len));
                        continue;
                    };
                    Reservation::new(self, slot, key, hash, len)
                }
            };
            new.set_flags(flags);
            make(&old, Some(&mut new)).map_err(Refused::By)?;

            let Some(mut chain) = self.index.lock(hash) else {
                return Err(Refused::Missing);
            };
            // The section keeps the slot from being reused: the same slot is the same item.
            let place = chain.find(|s| s == old.slot());
            // An item whose time a touch has ended is not brought back.
            let same = |p: &Place<'_>| old.cas() == seen && self.alive(p.slot);
            let Some(place) = place.filter(same) else {
                drop(chain);
                spare = Some(new);
                continue;
            };
            // Under the lock: who changed them in place until now is not lost.
            let before = old.slot().header().expiry.load(Relaxed);
            let expiry = expiry.map_or(before, |e| e.0);
            new.set_expiry(Expiry(expiry));
            let marks = old.slot().marks() & kept;
            let cas = self.next_cas(new_cas);
            let slot = new.slot;
            let weight = Weight::of(slot);
            // In the old one's place, so it is never full.
            slot.header()
                .refs
                .store(old.slot().header().refs.load(Relaxed), Relaxed);
            // Of the old one's epoch: if all was flushed meanwhile, what is made from it is gone too.
            let epoch = old.slot().header().epoch.load(Relaxed);
            self.link(&mut chain, Some(&place), slot, (cas, epoch), marks, false);
            drop(chain);
            new.keep();
            drop(guard);
            // With all marks kept it passes for the same item.
            if kept != KEPT {
                self.count(Counter::TotalItems, 1);
            }
            self.unlinked(Some(place.slot), Some(weight), false);
            self.tend(class);
            return Ok(Made {
                cas,
                class,
                expiry,
                before,
            });
        }
    }

    /// Append and prepend.
    fn join(&self, part: Reservation<'_, P>, commit: &Commit) -> Result<Outcome, StoreError> {
        let store = part.store;
        let mut part = part;
        loop {
            let made = store.update(
                part.key(),
                part.hash,
                commit.compare.filter(|cas| *cas != 0),
                commit.new_cas,
                None,
                |old, new| {
                    if let Some(new) = new {
                        let (first, second) = match commit.verb {
                            Verb::Prepend => (part.written(), old.value()),
                            _ => (old.value(), part.written()),
                        };
                        new.write(first);
                        new.write(second);
                    }
                    let len = old.value().len().saturating_add(part.written().len());
                    // It is an item made anew.
                    Ok::<_, ()>((len, BINARY_KEY))
                },
            );
            return match made {
                Ok(Made { cas, .. }) => Ok(Outcome::Stored { cas }),
                Err(Refused::Exists { .. }) => Ok(Outcome::Exists),
                Err(Refused::Error(error)) => Err(error),
                Err(Refused::By(())) => Ok(Outcome::NotStored),
                Err(Refused::Missing) if commit.vivify => {
                    // If it is there by now, join after all.
                    let add = Commit {
                        verb: Verb::Add,
                        ..*commit
                    };
                    match store.place(part, &add) {
                        (Ok(Outcome::NotStored), Some(back)) => {
                            part = back;
                            continue;
                        }
                        (result, _) => result,
                    }
                }
                Err(Refused::Missing) => Ok(Outcome::NotStored),
            };
        }
    }

    /// Adds to or subtracts from a decimal number. A shorter number than before is padded with
    /// spaces to the old length. Process context, may sleep.
    pub fn arith(&self, key: &[u8], hash: Hash, how: &Arith) -> Result<Arithmetic, StoreError> {
        let mut value = 0;
        let made = self.update(
            key,
            hash,
            how.compare,
            how.new_cas,
            how.expiry,
            |old, new| {
                let text = old.value();
                let number = number::parse(text).ok_or(())?;
                value = if how.decrement {
                    number.saturating_sub(how.by)
                } else {
                    number.wrapping_add(how.by)
                };
                let mut digits = [0; number::DIGITS];
                let digits = number::format(value, &mut digits);
                if let Some(new) = new {
                    new.write(digits);
                    new.pad(b' ');
                }
                // What fits is changed in place, as far as memcached tells.
                if digits.len() <= text.len() {
                    Ok::<_, ()>((text.len(), KEPT))
                } else {
                    Ok((digits.len(), BINARY_KEY))
                }
            },
        );
        match made {
            Ok(made) => {
                let ttl = |at: u32| (at != 0).then(|| at.saturating_sub(self.now()));
                Ok(Arithmetic::Value {
                    value,
                    cas: made.cas,
                    ttl: ttl(made.expiry),
                    ttl_before: ttl(made.before),
                    class: made.class,
                })
            }
            Err(Refused::Missing) => Ok(Arithmetic::NotFound),
            Err(Refused::Exists { class }) => Ok(Arithmetic::Exists { class }),
            Err(Refused::By(())) => Ok(Arithmetic::NonNumeric),
            Err(Refused::Error(error)) => Err(error),
        }
    }
}
