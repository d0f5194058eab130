// SPDX-License-Identifier: GPL-2.0-only
//! `touch`, and gets that change an item's expiry.

use hippos_store::{ClassCounter, Counter, Expiry, Guard, Hash, Item, ItemChange, Platform};

use crate::Engine;

impl<P: Platform> Engine<P> {
    /// Finds an item and changes its expiry in one step, if `expiry` returns one for the item and its CAS value. Counts
    /// nothing, and leaves it to the caller to record the hit. Process context.
    pub(crate) fn get_and_touch<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        key: &[u8],
        hash: Hash,
        expiry: impl FnOnce(&Item<'g>, u64) -> Option<Expiry>,
    ) -> Option<(Item<'g>, u64)> {
        let (item, seen) = self
            .store
            .modify(guard, key, hash, |item, seen| ItemChange {
                expiry: expiry(item, seen.cas()),
                token: false,
            })?;
        Some((item, seen.cas()))
    }

    /// `touch`, counted; whether the item exists.
    pub(crate) fn touch(&self, key: &[u8], hash: Hash, exptime: i64) -> bool {
        let expiry = self.store.expiry(exptime);
        match self.store.touch(key, hash, expiry) {
            Some(class) => {
                self.store.count_class(class, ClassCounter::TouchHits, 1);
                true
            }
            None => {
                self.store.count(Counter::TouchMisses, 1);
                false
            }
        }
    }
}
