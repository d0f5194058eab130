// SPDX-License-Identifier: GPL-2.0-only
//! `stats detail`: statistics by key prefix.
//!
//! A key's prefix is the part before its first colon. The table is small, and only a reset empties it; a prefix for
//! which there is no free entry, or that is longer than a name, is not counted. Counting takes no lock: a request that
//! is counted during a reset may be counted for another prefix.

use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Prefixes that are counted.
const PREFIXES: usize = 32;
/// Words of a prefix's name.
const WORDS: usize = 4;

const DELIMITER: u8 = b':';

/// The counters of a prefix.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum PrefixCounter {
    /// Keys requested.
    Gets,
    /// Keys found.
    Hits,
    /// Stores.
    Sets,
    /// Deletes.
    Deletes,
}

const COUNTERS: usize = 4;

const FREE: u32 = 0;
const CLAIMED: u32 = 1;
/// The name is complete; its length is in the higher bits.
const NAMED: u32 = 2;
const LEN_SHIFT: u32 = 8;

struct Prefix {
    state: AtomicU32,
    name: [AtomicU64; WORDS],
    counts: [AtomicU64; COUNTERS],
}

/// Prefixes and their counters: too large to pass over a kernel's stack.
pub struct Prefixes([Prefix; PREFIXES]);

/// A prefix as it is listed.
pub(crate) struct PrefixCounts {
    name: [u8; WORDS * 8],
    len: usize,
    /// Gets, hits, sets and deletes.
    pub(crate) counts: [u64; COUNTERS],
}

impl PrefixCounts {
    pub(crate) fn name(&self) -> &[u8] {
        self.name.get(..self.len).unwrap_or(&[])
    }
}

impl Prefixes {
    /// An empty table.
    #[allow(clippy::new_without_default, reason = "made at compile time")]
    pub const fn new() -> Self {
        Self(
            [const {
                Prefix {
                    state: AtomicU32::new(FREE),
                    name: [const { AtomicU64::new(0) }; WORDS],
                    counts: [const { AtomicU64::new(0) }; COUNTERS],
                }
            }; PREFIXES],
        )
    }

    /// Counts one request for `key`.
    pub(crate) fn count(&self, key: &[u8], what: PrefixCounter) {
        let mut parts = key.splitn(2, |&byte| byte == DELIMITER);
        let (Some(name), Some(_)) = (parts.next(), parts.next()) else {
            return;
        };
        let Some(words) = words(name) else { return };
        let named = NAMED | (name.len() as u32) << LEN_SHIFT;
        for prefix in &self.0 {
            if prefix.state.load(Acquire) == FREE {
                let claim = prefix
                    .state
                    .compare_exchange(FREE, CLAIMED, Acquire, Relaxed);
                if claim.is_ok() {
                    prefix.clear();
                    for (place, word) in prefix.name.iter().zip(words) {
                        place.store(word, Relaxed);
                    }
                    prefix.state.store(named, Release);
                }
            }
            // If two callers claim entries for the same name at the same time, both use the first of them from then on.
            if prefix.is(named, &words) {
                if let Some(count) = prefix.counts.get(what as usize) {
                    count.fetch_add(1, Relaxed);
                }
                return;
            }
        }
    }

    /// The prefixes with their counts.
    pub(crate) fn all(&self) -> impl Iterator<Item = PrefixCounts> + '_ {
        self.0.iter().filter_map(Prefix::counts_of)
    }

    /// Removes all prefixes.
    pub(crate) fn reset(&self) {
        for prefix in &self.0 {
            prefix.state.store(FREE, Release);
        }
    }
}

impl Prefix {
    fn clear(&self) {
        for count in &self.counts {
            count.store(0, Relaxed);
        }
    }

    fn counts_of(&self) -> Option<PrefixCounts> {
        let state = self.state.load(Acquire);
        if state & NAMED == 0 {
            return None;
        }
        let mut shown = PrefixCounts {
            name: [0; WORDS * 8],
            len: (state >> LEN_SHIFT) as usize,
            counts: [0; COUNTERS],
        };
        for (place, word) in shown.name.chunks_mut(8).zip(&self.name) {
            for (place, byte) in place.iter_mut().zip(word.load(Relaxed).to_le_bytes()) {
                *place = byte;
            }
        }
        for (place, count) in shown.counts.iter_mut().zip(&self.counts) {
            *place = count.load(Relaxed);
        }
        Some(shown)
    }

    fn is(&self, named: u32, words: &[u64; WORDS]) -> bool {
        self.state.load(Acquire) == named
            && self
                .name
                .iter()
                .zip(words)
                .all(|(have, want)| have.load(Relaxed) == *want)
    }
}

/// A name in words, if it is short enough.
fn words(name: &[u8]) -> Option<[u64; WORDS]> {
    let mut words = [0; WORDS];
    if name.len() > WORDS * 8 {
        return None;
    }
    for (word, bytes) in words.iter_mut().zip(name.chunks(8)) {
        let mut eight = [0; 8];
        for (place, byte) in eight.iter_mut().zip(bytes) {
            *place = *byte;
        }
        *word = u64::from_le_bytes(eight);
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn requests_are_counted_by_prefix() {
        let prefixes = Prefixes::new();
        for key in ["foo:1", "foo:2:3", "bar:1", "foo:", "none", ":x"] {
            prefixes.count(key.as_bytes(), PrefixCounter::Gets);
        }
        prefixes.count(b"foo:1", PrefixCounter::Hits);
        prefixes.count(b"bar:1", PrefixCounter::Deletes);
        let nth = |i| {
            let prefix = prefixes.all().nth(i);
            prefix.map(|prefix| (prefix.name().to_vec(), prefix.counts))
        };
        assert_eq!(nth(0), Some((b"foo".to_vec(), [3, 1, 0, 0])));
        assert_eq!(nth(1), Some((b"bar".to_vec(), [1, 0, 0, 1])));
        assert_eq!(nth(2), Some((b"".to_vec(), [1, 0, 0, 0])));
        assert_eq!(nth(3), None);
        prefixes.reset();
        assert_eq!(nth(0), None);
        prefixes.count(b"new:1", PrefixCounter::Sets);
        assert_eq!(nth(0), Some((b"new".to_vec(), [0, 0, 1, 0])));
    }

    #[test]
    fn prefixes_are_bounded_in_count_and_length() {
        let prefixes = Prefixes::new();
        for i in 0..100 {
            prefixes.count(format!("p{i}:x").as_bytes(), PrefixCounter::Sets);
        }
        prefixes.count(
            format!("{}:x", "l".repeat(33)).as_bytes(),
            PrefixCounter::Sets,
        );
        assert_eq!(prefixes.all().count(), PREFIXES);
        let other = Prefixes::new();
        let name = "n".repeat(32);
        other.count(format!("{name}:x").as_bytes(), PrefixCounter::Sets);
        assert_eq!(
            other.all().next().map(|t| t.name().to_vec()),
            Some(name.into())
        );
    }
}
