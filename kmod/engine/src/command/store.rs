// SPDX-License-Identifier: GPL-2.0-only
//! Stores.

use hippos_proto::{reply, Mode};
use hippos_store::{
    ClassCounter, Commit, Counter, Outcome, Platform, Reservation, StoreError, Verb,
};

use crate::counters::EngineCounter;
use crate::Engine;

/// The store's word for it.
pub(crate) fn verb(mode: Mode) -> Verb {
    match mode {
        Mode::Set => Verb::Set,
        Mode::Add => Verb::Add,
        Mode::Replace => Verb::Replace,
        Mode::Append => Verb::Append,
        Mode::Prepend => Verb::Prepend,
    }
}

impl<P: Platform> Engine<P> {
    /// Counts a refused store and tells its error line.
    pub(crate) fn refused(&self, error: StoreError) -> &'static [u8] {
        match error {
            StoreError::TooLarge => {
                self.tally(EngineCounter::TooLarge, 1);
                reply::TOO_LARGE
            }
            StoreError::OutOfMemory => {
                self.tally(EngineCounter::NoMemory, 1);
                reply::OUT_OF_MEMORY
            }
        }
    }

    /// Stores and counts what a compare-and-swap came to. An item that can't be
    /// joined with its new part is one that was not stored.
    pub(crate) fn commit(
        &self,
        reservation: Reservation<'_, P>,
        commit: &Commit,
    ) -> Result<Outcome, StoreError> {
        let class = reservation.class();
        let mut outcome = self.store.commit(reservation, commit);
        if outcome.is_err() && matches!(commit.verb, Verb::Append | Verb::Prepend) {
            outcome = Ok(Outcome::NotStored);
        }
        // To memcached an `append` or `add` that compares is no compare-and-swap.
        if commit.compare.is_some() && matches!(commit.verb, Verb::Set | Verb::Replace) {
            match outcome {
                Ok(Outcome::Stored { .. }) => {
                    self.store.count_class(class, ClassCounter::CasHits, 1);
                }
                Ok(Outcome::Exists) => self.store.count_class(class, ClassCounter::CasBadval, 1),
                Ok(Outcome::NotFound) => self.store.count(Counter::CasMisses, 1),
                _ => {}
            }
        }
        outcome
    }
}
