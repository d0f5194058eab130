// SPDX-License-Identifier: MIT

//! A worker's cache of hot keys' values, for a short time.
//!
//! A value is cached if its key occurs often among the sampled GETs, for a limited time, and until this worker forwards
//! a change of the key. Changes by other workers and proxies become visible when the time has passed.

use std::collections::HashMap;

/// Its settings in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a value is cached, in microseconds.
    pub ttl: u64,
    /// The most values.
    pub keys: usize,
}

/// One GET in this many is sampled.
const SAMPLE: u32 = 16;

/// A key is hot after this many recent samples.
const HOT: u16 = 8;

/// After this many samples all counts are halved.
const HALF_LIFE: u32 = 4096;

/// The largest value that is cached.
const VALUE_MAX: usize = 64 << 10;

/// Counts by hash.
const SEEN: usize = 1024;

/// Versions by hash: a change of a key also changes the version of all keys in the same entry.
const VERSIONS: usize = 4096;

/// Versions of keys, so that a value read before a change is not cached after it.
#[derive(Debug, Default)]
pub(crate) struct Versions(Vec<u32>);

impl Versions {
    pub(crate) fn of(&self, hash: u32) -> u32 {
        self.0.get(hash as usize % VERSIONS).copied().unwrap_or(0)
    }

    /// The key is being changed, or was changed.
    pub(crate) fn change(&mut self, hash: u32) {
        let version = &mut self.all()[hash as usize % VERSIONS];
        *version = version.wrapping_add(1);
    }

    /// Every key is being changed, or was changed.
    pub(crate) fn change_all(&mut self) {
        for version in self.all() {
            *version = version.wrapping_add(1);
        }
    }

    fn all(&mut self) -> &mut [u32] {
        if self.0.is_empty() {
            self.0 = vec![0; VERSIONS];
        }
        &mut self.0
    }
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    version: u32,
    until: u64,
}

/// The values.
#[derive(Debug)]
pub(crate) struct L1 {
    settings: Settings,
    entries: HashMap<Vec<u8>, Entry>,
    seen: Vec<(u32, u16)>,
    gets: u32,
    samples: u32,
}

impl L1 {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            entries: HashMap::new(),
            seen: vec![(0, 0); SEEN],
            gets: 0,
            samples: 0,
        }
    }

    /// The cached value of a key, in the format of a node's reply.
    pub(crate) fn get(&self, key: &[u8], version: u32, now: u64) -> Option<&[u8]> {
        let entry = self.entries.get(key)?;
        (entry.version == version && now < entry.until).then_some(&entry.value)
    }

    /// Records a GET; returns whether its value should be cached.
    pub(crate) fn is_hot(&mut self, hash: u32) -> bool {
        self.gets = self.gets.wrapping_add(1);
        let (known, count) = &mut self.seen[hash as usize % SEEN];
        if self.gets % SAMPLE == 0 {
            match (*known == hash, *count) {
                (true, _) => *count = count.saturating_add(1),
                (false, 0) => (*known, *count) = (hash, 1),
                // A more frequent key replaces this one.
                (false, _) => *count -= 1,
            }
            let hot = *known == hash && *count >= HOT;
            self.samples += 1;
            if self.samples == HALF_LIFE {
                self.samples = 0;
                self.seen.iter_mut().for_each(|(_, count)| *count /= 2);
            }
            return hot;
        }
        *known == hash && *count >= HOT
    }

    /// Caches a value that was read when the key had this version.
    pub(crate) fn keep(&mut self, key: &[u8], value: &[u8], version: u32, now: u64) {
        if value.len() > VALUE_MAX {
            return;
        }
        if self.entries.len() >= self.settings.keys && !self.entries.contains_key(key) {
            self.entries.retain(|_, entry| now < entry.until);
            if self.entries.len() >= self.settings.keys {
                return;
            }
        }
        let entry = Entry {
            value: value.to_vec(),
            version,
            until: now + self.settings.ttl,
        };
        self.entries.insert(key.to_vec(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_value_is_kept_until_it_expires_or_changes() {
        let settings = Settings { ttl: 100, keys: 2 };
        let mut l1 = L1::new(settings);
        let gets = (0..100 * SAMPLE).filter(|_| l1.is_hot(7)).count();
        assert!(gets > 0 && !l1.is_hot(8));
        let mut versions = Versions::default();
        l1.keep(b"a", b"1", versions.of(7), 1000);
        assert_eq!(l1.get(b"a", versions.of(7), 1099), Some(&b"1"[..]));
        assert_eq!(l1.get(b"a", versions.of(7), 1100), None);
        versions.change(7);
        assert_eq!(l1.get(b"a", versions.of(7), 1000), None);
        // Only expired values are removed for new ones.
        l1.keep(b"b", b"2", 0, 1000);
        l1.keep(b"c", b"3", 0, 1050);
        assert_eq!(l1.get(b"c", 0, 1050), None);
        l1.keep(b"c", b"3", 0, 1100);
        assert_eq!(l1.get(b"c", 0, 1100), Some(&b"3"[..]));
    }
}
