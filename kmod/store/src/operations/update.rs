// SPDX-License-Identifier: GPL-2.0-only
//! Items that are made from others: append, prepend, count up and down.

use hippos_invariant::Exact;

use crate::counters::Counter;
use crate::hash::Hash;
use crate::index::EntryPosition;
use crate::item::{Item, BINARY_KEY};
use crate::maintenance::evict::Charge;
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;
use crate::time::Expiry;

use super::allocate::RetryBudget;
use super::commit::{Arith, Arithmetic, Commit, Outcome, StoreError, Verb};
use super::number;
use super::reservation::Reservation;

/// The marks that stay when the new item passes for the old one, changed in place: all.
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
                    new.init_item(key, len);
                    new
                }
                None => {
                    let Some(slot) = self.alloc_fast(class, hash) else {
                        drop(guard);
                        let slot = self.alloc(class, hash, RetryBudget::FULL);
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
            let same = |p: &EntryPosition<'_>| old.cas() == seen && self.is_valid(p.slot);
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
            let charge = Charge::of(slot);
            // In the old one's place, so it is never full.
            slot.header()
                .refs
                .store(old.slot().header().refs.load(Relaxed), Relaxed);
            // Of the old one's epoch: if all was flushed meanwhile, what is made from it is gone too.
            let epoch = old.slot().header().epoch.load(Relaxed);
            self.link(&mut chain, Some(&place), slot, (cas, epoch), marks, false);
            drop(chain);
            new.into_published();
            drop(guard);
            // With all marks kept it passes for the same item.
            if kept != KEPT {
                self.count(Counter::TotalItems, 1);
            }
            self.account_and_retire(Some(place.slot), Some(charge), false);
            self.refill_reserve(class);
            return Ok(Made {
                cas,
                class,
                expiry,
                before,
            });
        }
    }

    /// Append and prepend.
    pub(super) fn join(
        &self,
        part: Reservation<'_, P>,
        commit: &Commit,
    ) -> Result<Outcome, StoreError> {
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
                    let len = old.value().len().add_exact(part.written().len());
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
                    match store.store_reservation(part, &add) {
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
