// SPDX-License-Identifier: GPL-2.0-only
//! Operations that only the meta commands have.

use hippos_proto::meta::Command;
use hippos_store::{
    ClassCounter, Commit, Deleted, Expiry, Guard, Hash, Item, ItemChange, ItemSnapshot, Outcome,
    Platform, StoreMode, StoredItem,
};

use crate::command::TRIES;
use crate::reply::meta::{wants_value, MetaHit, Times};
use crate::Engine;

impl<P: Platform> Engine<P> {
    /// The expiry times in `command`, on the store's clock.
    pub(crate) fn times(&self, command: &Command<'_>) -> Times {
        let flags = &command.flags;
        // Read once: a tick between two reads would show in the reply.
        let now = self.store.now();
        let expiry = |ttl: i32| self.store.expiry_from(now, i64::from(ttl));
        Times {
            now,
            touch: flags.ttl.map(expiry),
            vivify: flags.vivify.map(expiry),
            recache: flags.recache.map(|ttl| self.seconds_until(ttl)),
        }
    }

    /// Looks an item up for `mg`, and changes its expiry and gives the client its token as the flags request. Calls
    /// `can_reply` once with the item that it found and whether the client gets its value: if it returns false, nothing
    /// changes. Process context.
    pub(crate) fn meta_modify<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        command: &Command<'_>,
        hash: Hash,
        times: &Times,
        mut can_reply: impl FnMut(&Item<'g>, bool) -> bool,
    ) -> Option<(Item<'g>, MetaHit<'g>)> {
        let store = &self.store;
        let key = command.key();
        let mut won = false;
        let found = if command.flags.writes() {
            None
        } else {
            Some(store.inspect(guard, key, hash)?)
        };
        let (item, seen) = match found {
            Some((item, seen)) if !wants_token(times, command, &seen) => {
                can_reply(&item, wants_value(command, &seen));
                (item, seen)
            }
            _ => store.modify(guard, key, hash, |item, seen| {
                if !can_reply(item, wants_value(command, seen)) {
                    return ItemChange::default();
                }
                won = wants_token(times, command, seen);
                ItemChange {
                    expiry: times.touch,
                    token: won,
                }
            })?,
        };
        if !command.flags.has(b'u') {
            store.bump(&item);
        }
        let hit = MetaHit {
            won,
            times: *times,
            ..MetaHit::of(command, &item, seen)
        };
        Some((item, hit))
    }

    /// Seconds from now until an expiry time in a client's notation; 0 for never and for the past.
    pub(crate) fn seconds_until(&self, exptime: i32) -> u32 {
        u32::try_from(self.until(i64::from(exptime))).unwrap_or(0)
    }

    /// Creates the item that `mg` or `ma` with `N` did not find. Returns its CAS value and the item, or `None` if another
    /// client created it first or there is no memory.
    pub(crate) fn vivify(
        &self,
        command: &Command<'_>,
        hash: Hash,
        value: &[u8],
        expiry: Expiry,
        token_sent: bool,
    ) -> Option<(u64, StoredItem)> {
        let mut reservation = self
            .store
            .reserve(command.key(), hash, 0, expiry, value.len())
            .ok()?;
        reservation.write(value);
        let commit = Commit {
            mode: StoreMode::Add,
            new_cas: command.flags.cas,
            token_sent,
            ..Commit::default()
        };
        match self.store.commit(reservation, &commit) {
            Ok(Outcome::Stored { cas, item, .. }) => Some((cas, item)),
            _ => None,
        }
    }

    /// Counts a hit of `mg`.
    pub(crate) fn meta_hit(&self, command: &Command<'_>, class: usize) {
        let counter = if command.flags.ttl.is_some() {
            ClassCounter::TouchHits
        } else {
            ClassCounter::GetHits
        };
        self.store.count_class(class, counter, 1);
    }

    pub(crate) fn meta_absent(&self, command: &Command<'_>, hash: Hash) -> bool {
        let guard = self.store.read();
        self.store.peek(&guard, command.key(), hash).is_none()
    }

    /// `md` with `x`: deletes the value, but keeps the item. `None` if there is no memory for it. Also returns the item
    /// without its value.
    pub(crate) fn meta_tombstone(
        &self,
        command: &Command<'_>,
        hash: Hash,
    ) -> Option<(Deleted, Option<StoredItem>)> {
        let flags = &command.flags;
        let key = command.key();
        for _ in 0..TRIES {
            let (cas, class) = {
                let guard = self.store.read();
                let Some(item) = self.store.peek(&guard, key, hash) else {
                    return Some((Deleted::NotFound, None));
                };
                (item.cas(), item.class())
            };
            if flags.compare.is_some_and(|compare| compare != cas) {
                return Some((Deleted::Exists { class }, None));
            }
            let stale = flags.has(b'I');
            let kept = if stale { None } else { Some(cas) };
            let expiry = self.store.expiry(i64::from(flags.ttl.unwrap_or(0)));
            let reservation = self
                .store
                .reserve(key, hash, flags.client, expiry, 0)
                .ok()?;
            let commit = Commit {
                mode: StoreMode::Replace,
                compare: Some(cas),
                new_cas: flags.cas.or(kept),
                stale,
                ..Commit::default()
            };
            match self.store.commit(reservation, &commit) {
                Ok(Outcome::Stored { item, .. }) => {
                    return Some((Deleted::Deleted { class }, Some(item)));
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// Whether the client should store the item anew, by its state: the first such client gets the token.
fn wants_token(times: &Times, command: &Command<'_>, seen: &ItemSnapshot) -> bool {
    if seen.token_sent() {
        return false;
    }
    let Some(recache) = times.recache else {
        return seen.stale();
    };
    // Flags are evaluated in order.
    let mut ttl = seen.ttl();
    let mut early = false;
    for word in command.words() {
        match (word.first(), times.touch, ttl) {
            (Some(b'T'), Some(expiry), _) => ttl = expiry.ttl(times.now),
            (Some(b'R'), _, Some(left)) => early = left < recache,
            _ => {}
        }
    }
    seen.stale() || early
}
