// SPDX-License-Identifier: GPL-2.0-only
//! Increment and decrement.

use hippos_proto::number::Decimal;
use hippos_store::{
    Arith, ArithError, Arithmetic, Attempts, ClassCounter, Commit, Counter, Hash, Outcome,
    Platform, StoreError, StoreMode,
};

use crate::Engine;

impl<P: Platform> Engine<P> {
    /// Counts an `incr` or `decr` that found no item and created none.
    pub(crate) fn arith_miss(&self, decrement: bool) {
        let counter = if decrement {
            Counter::DecrMisses
        } else {
            Counter::IncrMisses
        };
        self.store.count(counter, 1);
    }

    /// Adds or subtracts, and counts all outcomes except misses, once the command is not served again. As in memcached, a number for whose new item there is no
    /// memory was found.
    pub(crate) fn arith(
        &self,
        key: &[u8],
        hash: Hash,
        how: &Arith,
        attempts: &mut Attempts,
    ) -> Result<Arithmetic, StoreError> {
        let result = self.store.arith_within(key, hash, how, attempts);
        if attempts.short().is_some() {
            return result.map_err(|refused| refused.error);
        }
        if let Ok(Arithmetic::Value { class, .. }) | Err(ArithError { class, .. }) = result {
            let counter = if how.decrement {
                ClassCounter::DecrHits
            } else {
                ClassCounter::IncrHits
            };
            self.store.count_class(class, counter, 1);
        }
        result.map_err(|refused| refused.error)
    }

    /// Creates an item with the initial number.
    pub(crate) fn begin(
        &self,
        key: &[u8],
        initial: u64,
        exptime: u32,
        attempts: &mut Attempts,
    ) -> Result<Outcome, StoreError> {
        let digits = Decimal::new(initial);
        let digits = digits.as_bytes();
        let expiry = self.store.expiry(i64::from(exptime));
        let hash = self.store.hash(key);
        let len = digits.len();
        let new = self
            .store
            .reserve_within(key, hash, 0, expiry, len, attempts);
        let mut reservation = new?;
        reservation.write(digits);
        let add = Commit {
            mode: StoreMode::Add,
            ..Commit::default()
        };
        self.store.commit(reservation, &add)
    }
}
