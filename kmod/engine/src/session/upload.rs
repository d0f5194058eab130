// SPDX-License-Identifier: GPL-2.0-only
//! Waiting for memory, and the share of the memory limit of values that are being received.

use hippos_invariant::Exact;
use hippos_store::{AllocError, Attempts, Expiry, Hash, Item, Platform, Reservation, StoreError};

use crate::refusals::RefusalCounter;
use crate::session::state::Session;
use crate::uploads::Share;
use crate::Engine;

/// Values up to this many bytes may use [`SMALL`] quarters of the memory, larger ones [`LARGE`]: large values that do
/// not arrive leave memory for small ones.
const SMALL_MAX: usize = 16 << 10;
/// Items up to this many bytes are always pinned: which of them do not fit into a reply's buffer is up to chance, and a
/// client holds one.
const PIN_FREE: usize = 64 << 10;
/// In quarters of the memory.
const SMALL: usize = 3;
const LARGE: usize = 2;

/// A session's budget for waiting for one command's memory. Each turn costs one of the amounts below.
const WAIT: u32 = 512;
/// Other values in transit use all memory that such values may have.
const FULL: u32 = 1;
/// No slot is free yet.
const SOON: u32 = 4;
/// The store expects no slot to become free.
const NOTHING: u32 = 32;

fn cost(short: AllocError) -> u32 {
    match short {
        AllocError::TooLarge => WAIT,
        AllocError::Retry => SOON,
        AllocError::Exhausted => NOTHING,
    }
}

impl<P: Platform> Engine<P> {
    /// Whether another value may be received. One alone is always accepted.
    fn may_upload(&self, len: usize) -> bool {
        let quarters = if len <= SMALL_MAX { SMALL } else { LARGE };
        let most = (self.store.allowed() / 4).mul_exact(quarters);
        let now = self.uploads.bytes();
        now == 0 || now.add_exact(len as u64) <= most as u64
    }
}

impl<P: Platform> Engine<P> {
    /// Whether another item may be pinned for a slow reader; a refusal is counted. Pinned items have at most half of the
    /// memory, since they stay there when they are deleted or evicted, and three quarters together with values that are
    /// being received. One alone is always accepted, and so are items of up to [`PIN_FREE`].
    pub(super) fn may_pin(&self, item: &Item<'_>) -> bool {
        let quarter = self.store.allowed() / 4;
        let now = self.store.pinned_bytes();
        let pinned = now.add_exact(item.size());
        let held = (pinned as u64).add_exact(self.uploads.bytes());
        let may = item.size() <= PIN_FREE
            || now == 0
            || item.is_pinned()
            || pinned <= quarter.mul_exact(2) && held <= quarter.mul_exact(3) as u64;
        if !may {
            self.count_refused(RefusalCounter::Reads);
        }
        may
    }
}

impl<'e, P: Platform> Session<'e, P> {
    /// The attempts of this turn of a command that makes an item from another one, or creates one: `append`, `incr` and
    /// the like.
    pub(super) fn attempts(&self) -> Attempts {
        if self.may_park {
            Attempts::one_turn(self.waited.add_exact(NOTHING) >= WAIT)
        } else {
            Attempts::new()
        }
    }

    /// Whether the session has to wait for memory after these attempts. Then the command has no effect yet, and is
    /// served again.
    pub(super) fn parks(&mut self, attempts: &Attempts) -> bool {
        let Some(short) = attempts.short() else {
            return false;
        };
        self.waited = self.waited.add_exact(cost(short));
        self.park_requested = true;
        true
    }

    /// Whether the command is served for the first time, and not again after it had to wait.
    pub(super) fn is_first_turn(&self) -> bool {
        self.waited == 0
    }

    /// Memory for a value that will be received. `None` if the session has to wait for it: then the command has no
    /// effect yet.
    pub(super) fn reserve_upload(
        &mut self,
        key: &[u8],
        hash: Hash,
        flags: u32,
        expiry: Expiry,
        len: usize,
    ) -> Option<Result<(Reservation<'e, P>, Share<'e>), StoreError>> {
        let engine = self.engine;
        let store = &engine.store;
        let full = !store.too_large(key.len(), len, flags) && !engine.may_upload(len);
        let (short, cost) = if full {
            (AllocError::Retry, FULL)
        } else if self.may_park {
            match store.try_reserve(key, hash, flags, expiry, len) {
                Ok(new) => return Some(Ok(self.begin(new))),
                Err(short) => (short, cost(short)),
            }
        } else {
            let new = store.reserve(key, hash, flags, expiry, len);
            return Some(new.map(|new| self.begin(new)));
        };
        self.waited = self.waited.add_exact(cost);
        if self.may_park && self.waited < WAIT {
            self.park_requested = true;
            return None;
        }
        Some(Err(store.refused(short, key.len(), len)))
    }

    fn begin(&mut self, new: Reservation<'e, P>) -> (Reservation<'e, P>, Share<'e>) {
        self.transfers = self.transfers.wrapping_add(1);
        let share = self.engine.uploads.share(new.footprint());
        (new, share)
    }
}
