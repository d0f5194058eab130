// SPDX-License-Identifier: GPL-2.0-only
//! The events that commands log for watchers. memcached logs one line for each lookup of a command, also for the
//! lookups of stores and deletes.
//!
//! While no client watches, this costs a command only the test of a byte that it tests anyway.

use core::net::{IpAddr, SocketAddr};

use hippos_invariant::Exact;
use hippos_store::{
    Commit, Dead, Event, Expiry, Hash, Item, Outcome, Platform, StoreError, StoreMode, StoredItem,
};

use crate::engine::DETAIL;
use crate::reply::event::{
    CloseReason, DeleteCommand, EventKind, GetStatus, StoreCommand, StoreStatus,
};
use crate::watchers::Kinds;
use crate::Engine;

/// The properties of an item that a lookup found, for its event.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// Counted from 1.
    class: u8,
    size: u32,
    ttl: i32,
}

impl Seen {
    fn of(item: &Item<'_>) -> Self {
        Self {
            class: class(item.class()),
            size: size(item.value().len()),
            ttl: 0,
        }
    }

    /// An item that was just stored.
    fn stored(item: &StoredItem, now: u32) -> Self {
        Self {
            class: class(item.class),
            size: size(item.len),
            ttl: item.expiry.ttl(now).map_or(0, |ttl| ttl as i32),
        }
    }
}

/// memcached counts classes from 1.
fn class(class: usize) -> u8 {
    class.add_exact(1) as u8
}

fn size(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// memcached's names of the store commands.
fn command(commit: &Commit) -> StoreCommand {
    match commit.mode {
        StoreMode::Set | StoreMode::Replace if commit.compare.is_some() => StoreCommand::Cas,
        StoreMode::Set => StoreCommand::Set,
        StoreMode::Add => StoreCommand::Add,
        StoreMode::Replace => StoreCommand::Replace,
        StoreMode::Append => StoreCommand::Append,
        StoreMode::Prepend => StoreCommand::Prepend,
    }
}

/// The result of a lookup: an item, or a miss with the reason if this was the first lookup to find the item dead.
pub(crate) type Looked<T> = Result<T, Option<Dead>>;

// Lookups.
impl<P: Platform> Engine<P> {
    /// Logs a get of `client`, in the statistics by prefix and for watchers.
    #[inline]
    pub(crate) fn observe_get(&self, client: u32, key: &[u8], found: Looked<&Item<'_>>) {
        if self.has_flags(DETAIL | Kinds::FETCHERS.flags()) {
            self.note_get(key, found.is_ok());
            self.log_get(client, key, found.map(Seen::of));
        }
    }

    /// Logs a lookup of `client` for watchers.
    #[inline]
    pub(crate) fn observe_lookup(&self, client: u32, key: &[u8], found: Looked<&Item<'_>>) {
        if self.watches(Kinds::FETCHERS) {
            self.log_get(client, key, found.map(Seen::of));
        }
    }

    /// Logs a get of `client` for watchers. The item has this class, counted from 0, and size.
    pub(crate) fn log_fetch(&self, client: u32, key: &[u8], found: Looked<(usize, usize)>) {
        let seen = found.map(|(of, len)| Seen {
            class: class(of),
            size: size(len),
            ttl: 0,
        });
        self.log_get(client, key, seen);
    }

    /// Looks up, for watchers, the item that a command of `client` is about to change. Does nothing while no client
    /// watches.
    #[inline]
    pub(crate) fn observe_change(&self, client: u32, key: &[u8], hash: Hash) -> Option<Seen> {
        const KINDS: Kinds = Kinds::FETCHERS.and(Kinds::DELETIONS);
        if self.watches(KINDS) {
            self.look(client, key, hash)
        } else {
            None
        }
    }

    /// The item that a command is about to change, in a later turn, when its lookup has been logged.
    pub(crate) fn seen_again(&self, key: &[u8], hash: Hash) -> Option<Seen> {
        if self.watches(Kinds::DELETIONS) {
            self.peek_seen(key, hash).ok()
        } else {
            None
        }
    }

    #[cold]
    fn look(&self, client: u32, key: &[u8], hash: Hash) -> Option<Seen> {
        let seen = self.peek_seen(key, hash);
        self.log_get(client, key, seen);
        seen.ok()
    }

    /// Looks up the item that a command is about to change.
    pub(crate) fn peek_seen(&self, key: &[u8], hash: Hash) -> Looked<Seen> {
        let guard = self.store.read();
        let Some(item) = self.store.peek(&guard, key, hash) else {
            return Err(guard.take_dead());
        };
        let ttl = self.store.snapshot_of(&item).ttl();
        Ok(Seen {
            ttl: ttl.map_or(0, |ttl| ttl as i32),
            ..Seen::of(&item)
        })
    }

    #[cold]
    pub(crate) fn log_get(&self, client: u32, key: &[u8], seen: Looked<Seen>) {
        if !self.watches(Kinds::FETCHERS) {
            return;
        }
        let status = match seen {
            Ok(_) => GetStatus::Found,
            Err(None) => GetStatus::NotFound,
            Err(Some(Dead::Flushed)) => GetStatus::Flushed,
            Err(Some(Dead::Expired)) => GetStatus::Expired,
        };
        let (class, size) = seen.map_or((0, 0), |seen| (seen.class, seen.size));
        let event = Event {
            kind: EventKind::Get as u8,
            status: status as u8,
            class,
            client,
            size,
            ..Event::default()
        };
        self.store.log_event(&event, key);
    }
}

/// A store, as logged for watchers.
pub(crate) struct Stored {
    pub(crate) commit: Commit,
    pub(crate) hash: Hash,
    /// Counted from 0.
    pub(crate) class: usize,
    pub(crate) len: usize,
    pub(crate) expiry: Expiry,
}

// Changes.
impl<P: Platform> Engine<P> {
    /// Logs a store of `client` and its `outcome`.
    #[cold]
    pub(crate) fn log_stored(
        &self,
        client: u32,
        key: &[u8],
        what: &Stored,
        outcome: &Result<Outcome, StoreError>,
    ) {
        let mut seen = Seen {
            class: class(what.class),
            size: size(what.len),
            ttl: what.expiry.relative(self.store.now()),
        };
        let status = match outcome {
            Ok(Outcome::Stored { item, .. }) => {
                // A joined value is longer than the part that was sent, and keeps its expiry.
                if matches!(what.commit.mode, StoreMode::Append | StoreMode::Prepend) {
                    seen = Seen::stored(item, self.store.now());
                }
                StoreStatus::Stored
            }
            Ok(Outcome::NotStored) => StoreStatus::NotStored,
            Ok(Outcome::Exists { .. }) => StoreStatus::Exists,
            Ok(Outcome::NotFound) => StoreStatus::NotFound,
            Err(StoreError::TooLarge) => StoreStatus::TooLarge,
            Err(StoreError::OutOfMemory) => StoreStatus::NoMemory,
        };
        self.log_store(client, key, status, command(&what.commit), seen);
    }

    /// Logs that a store of `client` got no memory.
    #[inline]
    pub(crate) fn observe_refused(
        &self,
        client: u32,
        key: &[u8],
        commit: &Commit,
        error: StoreError,
    ) {
        if self.watches(Kinds::MUTATIONS) {
            let status = match error {
                StoreError::TooLarge => StoreStatus::TooLarge,
                StoreError::OutOfMemory => StoreStatus::NoMemory,
            };
            let nothing = Seen {
                class: 0,
                size: 0,
                ttl: 0,
            };
            self.log_store(client, key, status, command(commit), nothing);
        }
    }

    /// Logs that a command of `client` created the item that it did not find.
    #[inline]
    pub(crate) fn observe_made(&self, client: u32, key: &[u8], item: &StoredItem) {
        if self.watches(Kinds::FETCHERS.and(Kinds::MUTATIONS)) {
            self.log_get(client, key, Err(None));
            let seen = Seen::stored(item, self.store.now());
            self.log_store(client, key, StoreStatus::Stored, StoreCommand::Add, seen);
        }
    }

    #[cold]
    fn log_store(
        &self,
        client: u32,
        key: &[u8],
        status: StoreStatus,
        command: StoreCommand,
        seen: Seen,
    ) {
        if !self.watches(Kinds::MUTATIONS) {
            return;
        }
        let event = Event {
            kind: EventKind::Store as u8,
            status: status as u8,
            command: command as u8,
            class: seen.class,
            client,
            size: seen.size,
            ttl: seen.ttl,
            ..Event::default()
        };
        self.store.log_event(&event, key);
    }

    /// Logs the deletion of the item that [`observe_change`](Self::observe_change) found.
    #[inline]
    pub(crate) fn observe_deleted(&self, key: &[u8], command: DeleteCommand, seen: Option<Seen>) {
        if let Some(seen) = seen.filter(|_| self.watches(Kinds::DELETIONS)) {
            let event = Event {
                kind: EventKind::Delete as u8,
                command: command as u8,
                class: seen.class,
                size: seen.size,
                ..Event::default()
            };
            self.store.log_event(&event, key);
        }
    }

    /// Logs that `md` with `x` replaced the item that was `seen` by an empty one.
    #[inline]
    pub(crate) fn observe_emptied(
        &self,
        client: u32,
        key: &[u8],
        seen: Option<Seen>,
        empty: &StoredItem,
    ) {
        const KINDS: Kinds = Kinds::FETCHERS.and(Kinds::MUTATIONS).and(Kinds::DELETIONS);
        if self.watches(KINDS) {
            self.log_get(client, key, seen.ok_or(None));
            let empty = Seen::stored(empty, self.store.now());
            let (status, command) = (StoreStatus::Stored, StoreCommand::Set);
            self.log_store(client, key, status, command, empty);
            self.observe_deleted(key, DeleteCommand::Meta, Some(empty));
        }
    }
}

// Connections.
impl<P: Platform> Engine<P> {
    /// Logs a new TCP connection of `client`, from `peer`.
    pub fn connected(&self, client: u32, peer: &SocketAddr) {
        self.log_connection(EventKind::Connect, 0, client, peer);
    }

    /// Logs the end of the connection.
    pub fn disconnected(&self, client: u32, peer: &SocketAddr, reason: CloseReason) {
        self.log_connection(EventKind::Close, reason as u8, client, peer);
    }

    fn log_connection(&self, kind: EventKind, status: u8, client: u32, peer: &SocketAddr) {
        if !self.watches(Kinds::CONNECTIONS) {
            return;
        }
        let event = Event {
            kind: kind as u8,
            status,
            client,
            size: u32::from(peer.port()),
            ..Event::default()
        };
        let ip = match peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        self.store.log_event(&event, &ip.octets());
    }
}
