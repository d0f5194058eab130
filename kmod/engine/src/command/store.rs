// SPDX-License-Identifier: GPL-2.0-only
//! Stores.

use hippos_proto::reply;
use hippos_store::{
    Attempts, ClassCounter, Commit, Counter, Outcome, Platform, Reservation, StoreError, StoreMode,
};

use crate::command::events::Stored;
use crate::counters::EngineCounter;
use crate::host_stats::Refusal;
use crate::refusals::RefusalCounter;
use crate::reply::meta::KeyBuffer;
use crate::watchers::Kinds;
use crate::Engine;

/// The outcome of a store, and a reservation that was not stored.
pub(crate) type Committed<'e, P> = (Result<Outcome, StoreError>, Option<Reservation<'e, P>>);

impl<P: Platform> Engine<P> {
    /// Reports to the host that a store of `client` was refused.
    fn tell_refused(&self, client: u32, error: StoreError) {
        let why = match error {
            StoreError::TooLarge => Refusal::ItemTooLarge,
            StoreError::OutOfMemory => Refusal::NoMemory,
        };
        self.host_stats.refused(client, why);
    }

    /// Counts and reports that a request of `client` was refused for lack of memory which is no store of the text
    /// protocol: memcached counts those alone in `store_no_memory`.
    #[cold]
    pub(crate) fn refused_memory(&self, client: u32) {
        self.host_stats.refused(client, Refusal::NoMemory);
        self.count_refused(RefusalCounter::OtherMemory);
    }

    /// Counts a refused store of the binary protocol; memcached counts neither error.
    pub(crate) fn refused_binary(&self, client: u32, error: StoreError) {
        match error {
            StoreError::TooLarge => self.tell_refused(client, error),
            StoreError::OutOfMemory => self.refused_memory(client),
        }
    }

    /// Counts a refused store of `client` and returns its error line.
    pub(crate) fn refused(&self, client: u32, error: StoreError) -> &'static [u8] {
        self.tell_refused(client, error);
        match error {
            StoreError::TooLarge => {
                self.tally(EngineCounter::TooLarge, 1);
                reply::TOO_LARGE
            }
            StoreError::OutOfMemory => {
                self.count_refused(RefusalCounter::Memory);
                reply::OUT_OF_MEMORY
            }
        }
    }

    /// Stores for `client`, and counts the outcome of a compare-and-swap. A join whose result does not fit is not
    /// stored. The reservation is returned as by [`Store::commit_within`](hippos_store::Store::commit_within).
    pub(crate) fn commit<'e>(
        &'e self,
        client: u32,
        reservation: Reservation<'e, P>,
        commit: &Commit,
        attempts: &mut Attempts,
    ) -> Committed<'e, P> {
        if self.watches(Kinds::FETCHERS.and(Kinds::MUTATIONS)) {
            return self.commit_watched(client, reservation, commit, attempts);
        }
        self.commit_unwatched(client, reservation, commit, attempts)
    }

    #[cold]
    fn commit_watched<'e>(
        &'e self,
        client: u32,
        reservation: Reservation<'e, P>,
        commit: &Commit,
        attempts: &mut Attempts,
    ) -> Committed<'e, P> {
        let mut key = KeyBuffer::new();
        let _ = key.extend_from_slice(reservation.key());
        let stored = Stored {
            commit: *commit,
            hash: reservation.hash(),
            class: reservation.class(),
            len: reservation.value_len(),
            expiry: reservation.expiry(),
        };
        let watched = self.watches(Kinds::FETCHERS);
        let found = watched.then(|| self.peek_seen(&key, stored.hash));
        let committed = self.commit_unwatched(client, reservation, commit, attempts);
        if attempts.short().is_none() {
            if let Some(found) = found {
                self.log_get(client, &key, found);
            }
            self.log_stored(client, &key, &stored, &committed.0);
        }
        committed
    }

    fn commit_unwatched<'e>(
        &'e self,
        client: u32,
        reservation: Reservation<'e, P>,
        commit: &Commit,
        attempts: &mut Attempts,
    ) -> Committed<'e, P> {
        let (mut outcome, back) = self.store.commit_within(reservation, commit, attempts);
        if attempts.short().is_some() {
            return (outcome, back);
        }
        if let (Err(error), StoreMode::Append | StoreMode::Prepend) = (&outcome, commit.mode) {
            // memcached says NOT_STORED, and counts nothing.
            if *error == StoreError::OutOfMemory {
                self.refused_memory(client);
            }
            outcome = Ok(Outcome::NotStored);
        }
        // For memcached, an `append` or `add` that compares is not a compare-and-swap.
        if commit.compare.is_some() && matches!(commit.mode, StoreMode::Set | StoreMode::Replace) {
            match outcome {
                // memcached counts it in the class of the item that was there.
                Ok(Outcome::Stored { item, replaced, .. }) => {
                    let class = replaced.unwrap_or(item.class);
                    self.store.count_class(class, ClassCounter::CasHits, 1);
                }
                Ok(Outcome::Exists { class }) => {
                    self.store.count_class(class, ClassCounter::CasBadval, 1);
                }
                Ok(Outcome::NotFound) => self.store.count(Counter::CasMisses, 1),
                _ => {}
            }
        }
        (outcome, back)
    }
}
