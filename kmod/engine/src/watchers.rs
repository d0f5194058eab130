// SPDX-License-Identifier: GPL-2.0-only
//! The kinds of events that are watched, and by how many clients.

use hippos_invariant::Exact;

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The most watchers at a time, as in memcached.
const WATCHERS_MAX: u64 = 20;

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    /// No kind: memcached's kinds of which Hippos has no events.
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const FETCHERS: Self = Self(1 << 0);
    pub(crate) const MUTATIONS: Self = Self(1 << 1);
    pub(crate) const DELETIONS: Self = Self(1 << 2);
    pub(crate) const EVICTIONS: Self = Self(1 << 3);
    pub(crate) const CONNECTIONS: Self = Self(1 << 4);
    /// The number of kinds.
    const COUNT: u32 = 5;

    /// The kinds with memcached's name for them.
    pub(crate) fn named(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"fetchers" => Self::FETCHERS,
            b"mutations" => Self::MUTATIONS,
            b"deletions" => Self::DELETIONS,
            b"evictions" => Self::EVICTIONS,
            b"connevents" => Self::CONNECTIONS,
            // memcached 1.6.38 has no lines for raw commands either.
            b"rawcmds" | b"sysevents" | b"proxyreqs" | b"proxyevents" | b"proxyuser" => Self::NONE,
            _ => return None,
        })
    }

    /// The kinds of both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether both have a kind in common.
    pub(crate) const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// As bits above those that a byte of flags uses for other purposes.
    pub(crate) const fn flags(self) -> u8 {
        self.0 << Self::SHIFT
    }

    /// The position of the lowest of these bits.
    pub(crate) const SHIFT: u32 = 8 - Self::COUNT;

    /// One in the byte of a [`Counts`] for each kind, and in the last byte for the watcher.
    fn one(self) -> u64 {
        let byte = |kind| u64::from(self.0 >> kind & 1) << (8 * kind);
        (0..Self::COUNT).fold(1 << (8 * Self::COUNT), |sum, kind| sum | byte(kind))
    }
}

/// The number of watchers of each kind, a byte each, and of all watchers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts(u64);

impl Counts {
    /// The number of watchers.
    pub(crate) fn watchers(self) -> u64 {
        self.0 >> (8 * Kinds::COUNT)
    }

    /// The kinds that are watched.
    pub(crate) fn kinds(self) -> Kinds {
        let bit = |kind: u32| u8::from(self.0 >> (8 * kind) & 0xff != 0) << kind;
        Kinds((0..Kinds::COUNT).fold(0, |kinds, kind| kinds | bit(kind)))
    }
}

/// All watchers.
#[derive(Default)]
pub(crate) struct Watchers(AtomicU64);

impl Watchers {
    pub(crate) fn counts(&self) -> Counts {
        Counts(self.0.load(SeqCst))
    }

    /// Adds a watcher, unless there are too many.
    pub(crate) fn add(&self, kinds: Kinds) -> bool {
        let added = self.0.fetch_update(SeqCst, SeqCst, |counts| {
            (Counts(counts).watchers() < WATCHERS_MAX).then(|| counts.add_exact(kinds.one()))
        });
        added.is_ok()
    }

    /// Removes a watcher.
    pub(crate) fn remove(&self, kinds: Kinds) {
        self.0.fetch_sub(kinds.one(), SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_watched_while_one_of_its_watchers_is_there() {
        let watchers = Watchers::default();
        let both = Kinds::FETCHERS.and(Kinds::CONNECTIONS);
        assert!(watchers.add(both) && watchers.add(Kinds::FETCHERS) && watchers.add(Kinds::NONE));
        assert_eq!(watchers.counts().kinds(), both);
        watchers.remove(both);
        assert_eq!(watchers.counts().kinds(), Kinds::FETCHERS);
        watchers.remove(Kinds::FETCHERS);
        assert_eq!(watchers.counts().kinds(), Kinds::NONE);
        assert_eq!(watchers.counts().watchers(), 1);
    }

    #[test]
    fn there_are_at_most_twenty() {
        let watchers = Watchers::default();
        let all = (0..30).filter(|_| watchers.add(Kinds::EVICTIONS));
        assert_eq!(all.count(), 20);
        watchers.remove(Kinds::EVICTIONS);
        assert!(watchers.add(Kinds::NONE) && !watchers.add(Kinds::NONE));
    }
}
