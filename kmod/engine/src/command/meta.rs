// SPDX-License-Identifier: GPL-2.0-only
//! Operations that only the meta commands have, and the effects of their flags.

use hippos_proto::meta::Command;
use hippos_proto::number::Decimal;
use hippos_store::{
    Arith, Attempts, ClassCounter, Commit, Deleted, Expiry, Guard, Hash, Invalidate, Item,
    ItemChange, ItemSnapshot, Outcome, Platform, StoreError, StoreMode, StoredItem,
};

use crate::reply::meta::{MetaHit, Times};
use crate::Engine;

/// The outcome of `md`.
pub(crate) enum MetaDeleted {
    /// The item, of this class, was removed.
    Removed { class: usize },
    /// It stays without its value.
    Emptied { empty: StoredItem },
    /// It stays, stale; without its value if that was to be removed.
    Invalidated { empty: Option<StoredItem> },
    /// It has another CAS number.
    Exists,
    /// There is none.
    NotFound,
}

/// Whether a missing item was created.
pub(crate) enum Creation {
    /// The command has no `N`.
    NotAsked,
    Created {
        cas: u64,
        item: StoredItem,
        /// The seconds that `t` of an `ma` shows.
        ttl: Option<u32>,
    },
    /// Another client created it first: it can be looked up again.
    Overtaken,
    NoMemory,
}

impl<P: Platform> Engine<P> {
    /// The expiry times in `command`, on the store's clock.
    pub(crate) fn times(&self, command: &Command<'_>) -> Times {
        let flags = &command.flags;
        // Read once: a tick between two reads would show in the reply.
        let now = self.store.now();
        let expiry = |ttl: i32| self.store.expiry_from(now, i64::from(ttl));
        // 0 for never and for the past.
        let seconds = |ttl: i32| expiry(ttl).ttl(now).unwrap_or(0);
        Times {
            now,
            touch: flags.ttl.map(expiry),
            vivify: flags.vivify.map(expiry),
            recache: flags.recache.map(seconds),
        }
    }

    /// Looks an item up for `mg`, and changes its expiry and gives the client its token as the flags request. Calls
    /// `can_reply` once with the item that it found and what the reply shows of it: if it returns false, nothing changes.
    /// Process context.
    pub(crate) fn meta_modify<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        command: &Command<'_>,
        hash: Hash,
        times: &Times,
        mut can_reply: impl FnMut(&Item<'g>, &MetaHit<'g>) -> bool,
    ) -> Option<(Item<'g>, MetaHit<'g>)> {
        let store = &self.store;
        let key = command.key();
        let found = if command.flags.writes() {
            None
        } else {
            Some(store.inspect(guard, key, hash)?)
        };
        let hit = |item: &Item<'g>, seen: ItemSnapshot, won| MetaHit {
            won,
            times: *times,
            ..MetaHit::of(command, item, seen)
        };
        let (mut won, mut replied) = (false, false);
        let (item, seen) = match found {
            Some((item, seen)) if !wants_token(times, command, &seen) => {
                replied = can_reply(&item, &hit(&item, seen, false));
                (item, seen)
            }
            _ => store.modify(guard, key, hash, |item, seen| {
                won = wants_token(times, command, seen);
                replied = can_reply(item, &hit(item, *seen, won));
                if !replied {
                    return ItemChange::default();
                }
                ItemChange {
                    expiry: times.touch,
                    token: won,
                }
            })?,
        };
        if replied && !command.flags.has(b'u') {
            store.bump(&item);
        }
        Some((item, hit(&item, seen, won)))
    }

    /// Creates the item that `mg` did not find, if it has `N`: empty, and the client gets its token.
    pub(crate) fn meta_create(
        &self,
        command: &Command<'_>,
        hash: Hash,
        now: u32,
        attempts: &mut Attempts,
    ) -> Creation {
        let Some(vivify) = command.flags.vivify else {
            return Creation::NotAsked;
        };
        // Stored with its final time to live, because other clients may change it from now on.
        let (last, _) = ttls(command, vivify);
        let expiry = self.store.expiry_from(now, i64::from(last));
        let (cas, item) = match self.vivify(command, hash, b"", expiry, true, attempts) {
            Ok(Some(made)) => made,
            Ok(None) => return Creation::Overtaken,
            Err(_) => return Creation::NoMemory,
        };
        // An item that is created expired is not found, and not counted.
        if !command.flags.has(b'u') && expiry.ttl(now) != Some(0) {
            let guard = self.store.read();
            if let Some(item) = self.store.peek(&guard, command.key(), hash) {
                self.store.bump(&item);
            }
        }
        let ttl = None;
        Creation::Created { cas, item, ttl }
    }

    /// Creates the number that `ma` did not find, if it has `N`.
    pub(crate) fn meta_create_number(
        &self,
        command: &Command<'_>,
        hash: Hash,
        now: u32,
        attempts: &mut Attempts,
    ) -> Creation {
        let Some(vivify) = command.flags.vivify else {
            return Creation::NotAsked;
        };
        let initial = Decimal::new(command.flags.initial);
        let (last, shown) = ttls(command, vivify);
        let expiry = |ttl: i32| self.store.expiry_from(now, i64::from(ttl));
        let (expiry, shown) = (expiry(last), expiry(shown));
        let value = initial.as_bytes();
        let (cas, item) = match self.vivify(command, hash, value, expiry, false, attempts) {
            Ok(Some(made)) => made,
            Ok(None) => return Creation::Overtaken,
            Err(_) => return Creation::NoMemory,
        };
        let ttl = shown.ttl(now);
        Creation::Created { cas, item, ttl }
    }

    /// Stores an item that is missing. `None` if another client stored it first.
    fn vivify(
        &self,
        command: &Command<'_>,
        hash: Hash,
        value: &[u8],
        expiry: Expiry,
        token_sent: bool,
        attempts: &mut Attempts,
    ) -> Result<Option<(u64, StoredItem)>, StoreError> {
        let (key, len) = (command.key(), value.len());
        let new = self
            .store
            .reserve_within(key, hash, 0, expiry, len, attempts);
        let mut reservation = new?;
        reservation.write(value);
        let commit = Commit {
            mode: StoreMode::Add,
            new_cas: command.flags.cas,
            token_sent,
            ..Commit::default()
        };
        Ok(match self.store.commit(reservation, &commit)? {
            Outcome::Stored { cas, item, .. } => Some((cas, item)),
            _ => None,
        })
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

    /// How `ms` stores its value, and when the item expires.
    pub(crate) fn meta_commit(&self, command: &Command<'_>, mode: StoreMode) -> (Commit, Expiry) {
        let flags = &command.flags;
        let vivify =
            matches!(mode, StoreMode::Append | StoreMode::Prepend) && flags.vivify.is_some();
        let exptime = match flags.vivify {
            Some(ttl) if vivify => ttl,
            _ => flags.ttl.unwrap_or(0),
        };
        let commit = Commit {
            mode,
            compare: flags.compare,
            // As in memcached, `E0` of `ms` alone is no `E`.
            new_cas: flags.cas.filter(|&cas| cas != 0),
            invalidate: flags.has(b'I'),
            vivify,
            binary_key: flags.has(b'b'),
            ..Commit::default()
        };
        (commit, self.store.expiry(i64::from(exptime)))
    }

    /// How `ma` changes a number, at `now` of the store's clock.
    pub(crate) fn meta_arith(&self, command: &Command<'_>, decrement: bool, now: u32) -> Arith {
        let flags = &command.flags;
        Arith {
            decrement,
            by: flags.delta.unwrap_or(1),
            // 0 means no comparison.
            compare: flags.compare.filter(|&cas| cas != 0),
            new_cas: flags.cas,
            expiry: flags
                .ttl
                .map(|ttl| self.store.expiry_from(now, i64::from(ttl))),
        }
    }

    /// `md`: deletes the item, or with `I` marks it stale, or with `x` empties it.
    pub(crate) fn meta_delete(
        &self,
        command: &Command<'_>,
        hash: Hash,
        attempts: &mut Attempts,
    ) -> Result<MetaDeleted, StoreError> {
        let flags = &command.flags;
        if flags.has(b'x') {
            return self.meta_tombstone(command, hash, attempts);
        }
        let stale = flags.has(b'I');
        let deleted = if stale {
            let how = Invalidate {
                compare: flags.compare,
                new_cas: flags.cas,
                expiry: flags.ttl.map(|ttl| self.store.expiry(i64::from(ttl))),
            };
            self.store.invalidate(command.key(), hash, &how)
        } else {
            self.store.delete(command.key(), hash, flags.compare)
        };
        Ok(match deleted {
            Deleted::Deleted { .. } if stale => MetaDeleted::Invalidated { empty: None },
            Deleted::Deleted { class } => MetaDeleted::Removed { class },
            Deleted::Exists { .. } => MetaDeleted::Exists,
            Deleted::NotFound => MetaDeleted::NotFound,
        })
    }

    /// `md` with `x`: deletes the value, but keeps the item.
    fn meta_tombstone(
        &self,
        command: &Command<'_>,
        hash: Hash,
        attempts: &mut Attempts,
    ) -> Result<MetaDeleted, StoreError> {
        let flags = &command.flags;
        let key = command.key();
        {
            // No memory is needed for these replies.
            let guard = self.store.read();
            let Some(item) = self.store.peek(&guard, key, hash) else {
                return Ok(MetaDeleted::NotFound);
            };
            if flags.compare.is_some_and(|compare| compare != item.cas()) {
                return Ok(MetaDeleted::Exists);
            }
        }
        let stale = flags.has(b'I');
        let expiry = self.store.expiry(i64::from(flags.ttl.unwrap_or(0)));
        let new = self
            .store
            .reserve_within(key, hash, flags.client, expiry, 0, attempts);
        let reservation = new?;
        let commit = Commit {
            mode: StoreMode::Replace,
            compare: flags.compare,
            new_cas: flags.cas,
            keep_cas: !stale,
            stale,
            ..Commit::default()
        };
        let outcome = self.store.commit(reservation, &commit)?;
        Ok(match outcome {
            Outcome::Stored { item, .. } => {
                if stale {
                    MetaDeleted::Invalidated { empty: Some(item) }
                } else {
                    MetaDeleted::Emptied { empty: item }
                }
            }
            Outcome::Exists { .. } => MetaDeleted::Exists,
            Outcome::NotStored | Outcome::NotFound => MetaDeleted::NotFound,
        })
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

/// The final time to live of an item that `ma` creates, and the one that `t` shows: flags are evaluated in order.
fn ttls(command: &Command<'_>, vivify: i32) -> (i32, i32) {
    let (mut last, mut shown) = (0, 0);
    for word in command.words() {
        match word.first() {
            Some(b'T') => last = command.flags.ttl.unwrap_or(0),
            Some(b'N') => last = vivify,
            Some(b't') => shown = last,
            _ => {}
        }
    }
    (last, shown)
}

/// Whether `t` comes before `T`, so that it shows the old time to live.
pub(crate) fn shows_old_ttl(command: &Command<'_>) -> bool {
    let letters = command.words().iter().filter_map(|word| word.first());
    let mut first = letters.skip_while(|&&letter| letter != b't' && letter != b'T');
    first.next() == Some(&b't') && command.flags.ttl.is_some()
}
