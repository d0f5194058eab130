// SPDX-License-Identifier: GPL-2.0-only
//! Items that are made from existing ones: append, prepend, increment and decrement.

use hippos_invariant::Exact;
use hippos_semantics::{Decimal, StoreMode};

use crate::counters::Counter;
use crate::hash::{self, Hash};
use crate::item::{Item, BINARY_KEY, COUNTED_EXPIRED};
use crate::maintenance::evict::Charge;
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;
use crate::time::Expiry;

use super::allocate::OwnItem;
use super::attempts::Attempts;
use super::commit::{Arith, ArithError, Arithmetic, Commit, Outcome, StoreError, StoredItem};
use super::number;
use super::reservation::Reservation;

/// The marks that the new item keeps if it counts as the old one, changed in place. It has a life of its own, whose end
/// is counted.
const KEPT: u8 = !COUNTED_EXPIRED;

/// A client's condition for an update, and its wishes for the new item.
struct Change {
    /// Only if the item has this CAS number.
    compare: Option<u64>,
    /// The new CAS number; None for the next one.
    new_cas: Option<u64>,
    /// A new expiry; None keeps the item's.
    expiry: Option<Expiry>,
}

/// An item that an update stored.
struct Made {
    cas: u64,
    item: StoredItem,
    /// The class of the item that it replaced.
    replaced: usize,
    /// The expiry of the item that it replaced.
    before: Expiry,
}

/// Why an update did not replace the old item.
enum UpdateError<R> {
    Missing,
    /// The item has another CAS number.
    Exists {
        class: usize,
        empty: bool,
    },
    Error(StoreError),
    /// Other clients stored the key in each attempt.
    Contended,
    By(R),
}

impl<P: Platform> Store<P> {
    /// Replaces an item by one that is made from it, without losing a concurrent change. `make` returns the value's
    /// length and the marks to keep, and fills a reservation if it is given one; it may be called several times.
    ///
    /// The value is copied before the stripe is locked. Changes by other clients meanwhile are noticed under the lock:
    /// - Values never change in place: a store, a join or an increment puts another slot in the item's place. Then the
    ///   update starts again.
    /// - A deletion, an expiry or a flush leaves no valid item: the update ends.
    /// - CAS number, expiry and marks change in place. They are read, and compared, under the lock.
    fn update<R>(
        &self,
        key: &[u8],
        hash: Hash,
        change: &Change,
        attempts: &mut Attempts,
        mut make: impl FnMut(&Item<'_>, Option<&mut Reservation<'_, P>>) -> Result<(usize, u8), R>,
    ) -> Result<Made, UpdateError<R>> {
        let mut spare: Option<Reservation<'_, P>> = None;
        let differs = |cas| change.compare.is_some_and(|compare| compare != cas);
        while attempts.take() {
            let guard = self.read();
            let Some(old) = self.peek(&guard, key, hash) else {
                return Err(UpdateError::Missing);
            };
            let exists = || UpdateError::Exists {
                class: old.class(),
                empty: old.value().is_empty(),
            };
            if differs(old.cas()) {
                return Err(exists());
            }
            let (len, kept) = make(&old, None).map_err(UpdateError::By)?;
            let flags = old.flags();
            if self.too_large(key.len(), len, flags) {
                return Err(UpdateError::Error(StoreError::TooLarge));
            }
            let class = self.class_of(key.len(), len).map_err(UpdateError::Error)?;
            let mut new = match spare.take().filter(|r| r.class() == class) {
                Some(mut new) => {
                    new.init_item(old.key(), len);
                    new
                }
                None => {
                    let Some(slot) = self.alloc_fast(class, || hash) else {
                        drop(guard);
                        let slot =
                            self.alloc_slow(class, hash, OwnItem::Kept, &mut attempts.budget);
                        let refused = |short| self.short_of(short, key.len(), len, attempts);
                        let slot = slot.map_err(refused).map_err(UpdateError::Error)?;
                        spare = Some(Reservation::new(self, slot, key, len));
                        continue;
                    };
                    Reservation::new(self, slot, old.key(), len)
                }
            };
            new.set_flags(flags);
            make(&old, Some(&mut new)).map_err(UpdateError::By)?;

            let Some(mut chain) = self.index.lock(hash) else {
                return Err(UpdateError::Missing);
            };
            let found = chain.find(|s| hash::same(s.key(), key));
            // An item that a touch has made expire is not revived.
            let Some(place) = found.filter(|p| self.check_valid(p.slot)) else {
                return Err(UpdateError::Missing);
            };
            // The section keeps the slot from being reused: the same slot is still the same item.
            if place.slot != old.slot() {
                drop(chain);
                drop(guard);
                spare = Some(new);
                self.platform.cond_resched();
                continue;
            }
            if differs(old.cas()) {
                return Err(exists());
            }
            // Read under the lock, so that no concurrent change is lost.
            let before = Expiry(old.slot().header().expiry.load(Relaxed));
            let expiry = change.expiry.unwrap_or(before);
            new.set_expiry(expiry);
            let marks = old.slot().marks() & kept;
            let cas = self.next_cas(change.new_cas);
            let slot = new.slot;
            let charge = Charge::of(slot);
            // It takes the old item's entry, so the chain cannot be full.
            slot.header()
                .refs
                .store(old.slot().header().refs.load(Relaxed), Relaxed);
            // The new item gets the old one's epoch: if all items were flushed meanwhile, it is flushed too.
            let epoch = old.slot().header().epoch.load(Relaxed);
            self.link(&mut chain, Some(&place), slot, (cas, epoch), marks, false);
            drop(chain);
            // The section keeps the old slot from being reused.
            let replaced = old.class();
            new.into_published();
            drop(guard);
            // If these marks are kept, it counts as the same item.
            if kept != KEPT {
                self.count(Counter::TotalItems, 1);
            }
            self.account_and_retire(Some(place.slot), Some(charge), false);
            self.refill_reserve(class, || hash);
            return Ok(Made {
                cas,
                item: StoredItem { class, len, expiry },
                replaced,
                before,
            });
        }
        Err(UpdateError::Contended)
    }

    /// Append and prepend. A part that was not stored is returned.
    pub(super) fn join<'s>(
        &'s self,
        part: Reservation<'s, P>,
        commit: &Commit,
        attempts: &mut Attempts,
    ) -> (Result<Outcome, StoreError>, Option<Reservation<'s, P>>) {
        let mut part = part;
        let change = Change {
            compare: commit.compare.filter(|cas| *cas != 0),
            new_cas: commit.new_cas,
            expiry: None,
        };
        // Each round takes an attempt.
        loop {
            let made = self.update(part.key(), part.hash, &change, attempts, |old, new| {
                if let Some(new) = new {
                    let (first, second) = match commit.mode {
                        StoreMode::Prepend => (part.written(), old.value()),
                        _ => (old.value(), part.written()),
                    };
                    new.write(first);
                    new.write(second);
                }
                let len = old.value().len().add_exact(part.written().len());
                // It counts as a new item.
                Ok::<_, ()>((len, BINARY_KEY))
            });
            let outcome = match made {
                Ok(made) => Ok(Outcome::Stored {
                    cas: made.cas,
                    item: made.item,
                    replaced: Some(made.replaced),
                }),
                Err(UpdateError::Exists { class, .. }) => Ok(Outcome::Exists { class }),
                Err(UpdateError::Error(error)) => Err(error),
                Err(UpdateError::Contended | UpdateError::By(())) => Ok(Outcome::NotStored),
                Err(UpdateError::Missing) if commit.vivify => {
                    // If the key exists by now, join after all.
                    let add = Commit {
                        mode: StoreMode::Add,
                        ..*commit
                    };
                    match self.store_reservation(part, &add) {
                        (Ok(Outcome::NotStored), Some(back)) => {
                            part = back;
                            self.platform.cond_resched();
                            continue;
                        }
                        result => return result,
                    }
                }
                Err(UpdateError::Missing) => Ok(Outcome::NotStored),
            };
            return (outcome, Some(part));
        }
    }

    /// Adds to or subtracts from a decimal number. A number with fewer digits than before is padded with spaces to the
    /// old length. As in memcached, an empty value is not a number whatever its CAS number. Process context, may sleep.
    pub fn arith(&self, key: &[u8], hash: Hash, how: &Arith) -> Result<Arithmetic, ArithError> {
        self.arith_within(key, hash, how, &mut Attempts::new())
    }

    /// Like [`Store::arith`], for a command that makes several updates or stores.
    pub fn arith_within(
        &self,
        key: &[u8],
        hash: Hash,
        how: &Arith,
        attempts: &mut Attempts,
    ) -> Result<Arithmetic, ArithError> {
        let (mut value, mut class) = (0, 0);
        let change = Change {
            compare: how.compare,
            new_cas: how.new_cas,
            expiry: how.expiry,
        };
        let made = self.update(key, hash, &change, attempts, |old, new| {
            let text = old.value();
            let number = number::parse(text).ok_or(())?;
            class = old.class();
            value = if how.decrement {
                number.saturating_sub(how.by)
            } else {
                number.wrapping_add(how.by)
            };
            let digits = Decimal::new(value);
            let digits = digits.as_bytes();
            if let Some(new) = new {
                new.write(digits);
                new.pad(b' ');
            }
            // memcached changes the value in place if it fits: keep all marks then.
            if digits.len() <= text.len() {
                Ok::<_, ()>((text.len(), KEPT))
            } else {
                Ok((digits.len(), BINARY_KEY))
            }
        });
        match made {
            Ok(made) => Ok(Arithmetic::Value {
                value,
                cas: made.cas,
                expiry: made.item.expiry,
                expiry_before: made.before,
                class: made.replaced,
            }),
            Err(UpdateError::Missing) => Ok(Arithmetic::NotFound),
            Err(UpdateError::Exists { empty: true, .. } | UpdateError::By(())) => {
                Ok(Arithmetic::NonNumeric)
            }
            Err(UpdateError::Exists { class, .. }) => Ok(Arithmetic::Exists { class }),
            Err(UpdateError::Contended) => Ok(Arithmetic::Contended),
            Err(UpdateError::Error(error)) => Err(ArithError { error, class }),
        }
    }
}
