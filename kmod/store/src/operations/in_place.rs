// SPDX-License-Identifier: GPL-2.0-only
//! All writes to the header of an item that readers can find, except the marks of a hit.
//!
//! Each writer holds the stripe's lock. An update, which copies the header to a new item, therefore neither loses a
//! write nor copies half of one, and a decision (is the token free, does the item still exist) and the write that
//! follows from it are one step. This needs process context: no reader in softirq changes an item.
//!
//! The marks of a hit (reference count, access time, [`FETCHED`](crate::item::FETCHED)) are written by readers without
//! the lock, and may be lost.

use crate::hash::{self, Hash};
use crate::index::{Chain, EntryPosition};
use crate::item::{Fields, Item, ItemSnapshot, STALE, TOKEN_SENT};
use crate::operations::commit::{Deleted, Invalidate};
use crate::platform::{Platform, RawLock};
use crate::store::{Guard, Store};
use crate::time::Expiry;

/// The changes that a client makes to an item that it reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemChange {
    /// A new expiry; None keeps the item's.
    pub expiry: Option<Expiry>,
    /// Whether the win token is given out.
    pub token: bool,
}

impl<L: RawLock> Chain<'_, L> {
    /// Changes an item of this chain, whose stripe is locked.
    fn change(&self, place: &EntryPosition<'_>, fields: &Fields) {
        place.slot.change(fields);
    }
}

impl<P: Platform> Store<P> {
    /// Sets an item's expiry. Returns its class. Process context.
    pub fn touch(&self, key: &[u8], hash: Hash, expiry: Expiry) -> Option<usize> {
        let chain = self.index.lock(hash)?;
        let place = chain.find(|s| hash::same(s.key(), key))?;
        if !self.check_valid(place.slot) {
            return None;
        }
        place.slot.hit(self.cap, self.now());
        let fields = Fields {
            expiry: Some(expiry),
            ..Fields::default()
        };
        chain.change(&place, &fields);
        Some(place.slot.class())
    }

    /// Finds an item and changes it by the result of `decide`, which sees the item, in one step. Returns the item as it
    /// was before. The token is given out only if it is free, which `decide` can see. Process context; `decide` is
    /// called with a spin lock held. Counts only expired and flushed items.
    pub fn modify<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        key: &[u8],
        hash: Hash,
        decide: impl FnOnce(&Item<'g>, &ItemSnapshot) -> ItemChange,
    ) -> Option<(Item<'g>, ItemSnapshot)> {
        let chain = self.index.lock(hash)?;
        let place = chain.find(|s| hash::same(s.key(), key))?;
        let item = self.item(guard, place.slot);
        // No other thread writes to it now.
        let seen = item.fields();
        if !self.is_valid_snapshot(&item, &seen) {
            self.note_dead(guard, place.slot);
            return None;
        }
        let change = decide(&item, &seen);
        let fields = Fields {
            cas: None,
            expiry: change.expiry,
            set: if change.token { TOKEN_SENT } else { 0 },
            clear: 0,
        };
        chain.change(&place, &fields);
        Some((item, seen))
    }

    /// Marks an item stale under a new CAS number and takes back its win token. Process context.
    pub fn invalidate(&self, key: &[u8], hash: Hash, how: &Invalidate) -> Deleted {
        let Some(chain) = self.index.lock(hash) else {
            return Deleted::NotFound;
        };
        let found = chain
            .find(|s| hash::same(s.key(), key))
            .filter(|p| self.check_valid(p.slot));
        let Some(place) = found else {
            return Deleted::NotFound;
        };
        let class = place.slot.class();
        if how.compare.is_some_and(|cas| cas != place.slot.cas()) {
            return Deleted::Exists { class };
        }
        let fields = Fields {
            cas: Some(self.next_cas(how.new_cas)),
            expiry: how.expiry,
            set: STALE,
            clear: TOKEN_SENT,
        };
        chain.change(&place, &fields);
        Deleted::Deleted { class }
    }
}

#[cfg(all(test, not(loom), feature = "host"))]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::counters::Counter;
    use crate::host::Host;
    use crate::operations::commit::{Arith, Commit};

    /// A command that sets the item's expiry.
    type Extend = dyn Fn(&Store<Host>, Expiry);

    const KEY: &[u8] = b"key";

    /// A reader whose clock is a second ahead has counted the item as expired when another client extends its life.
    #[test]
    fn expiry_of_an_extended_item_is_counted() {
        let touch = |store: &Store<Host>, expiry| {
            store.touch(KEY, store.hash(KEY), expiry).unwrap();
        };
        let modify = |store: &Store<Host>, expiry| {
            let change = ItemChange {
                expiry: Some(expiry),
                token: true,
            };
            let guard = store.read();
            let found = store.modify(&guard, KEY, store.hash(KEY), |_, _| change);
            assert!(found.is_some());
        };
        let increment = |store: &Store<Host>, expiry| {
            let how = Arith {
                expiry: Some(expiry),
                ..Arith::default()
            };
            store.arith(KEY, store.hash(KEY), &how).unwrap();
        };
        let extend: [&Extend; 3] = [&touch, &modify, &increment];
        for (i, extend) in extend.iter().enumerate() {
            let store = Store::new(Config::default(), Host::new()).unwrap();
            store.tick(100, 1_700_000_000);
            let hash = store.hash(KEY);
            let mut new = store.reserve(KEY, hash, 0, store.expiry(5), 1).unwrap();
            new.write(b"1");
            store.commit(new, &Commit::default()).unwrap();
            let look = || {
                let guard = store.read();
                let found = store.peek(&guard, KEY, hash);
                found.map(|item| item.slot())
            };
            assert!(look().unwrap().mark_counted_expired());
            extend(&store, store.expiry(10));
            store.tick(109, 1_700_000_009);
            assert!(look().is_some());
            for _ in 0..2 {
                store.tick(120, 1_700_000_020);
                assert!(look().is_none());
                assert_eq!(store.counted(Counter::GetExpired), 1, "{i}");
            }
        }
    }
}
