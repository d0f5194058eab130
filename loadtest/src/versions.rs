// SPDX-License-Identifier: GPL-2.0-only
//! The versions of each key's value that a reply may still contain.
//!
//! Every SET and DELETE of a key takes the next version. When the server has acknowledged one, and no other write of
//! the key was in flight meanwhile, any later reply with an older version is stale: the key's floor is raised. While
//! writes overlap, it is unknown which one took effect last, and the floor stays.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The state of one key, packed into 64 bits.
#[derive(Clone, Copy)]
struct Known {
    /// The last version that was assigned.
    last: u32,
    /// Versions older than this are stale.
    floor: u32,
    /// Writes in flight.
    writes: u32,
    /// Whether two of them overlapped.
    overlap: bool,
}

const VERSION_BITS: u32 = 28;
const VERSION_MASK: u64 = (1 << VERSION_BITS) - 1;
const WRITES_MAX: u32 = 127;

impl Known {
    fn unpack(x: u64) -> Self {
        Self {
            last: (x & VERSION_MASK) as u32,
            floor: (x >> VERSION_BITS & VERSION_MASK) as u32,
            writes: (x >> (2 * VERSION_BITS)) as u32 & WRITES_MAX,
            overlap: x >> 63 != 0,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.last)
            | u64::from(self.floor) << VERSION_BITS
            | u64::from(self.writes) << (2 * VERSION_BITS)
            | u64::from(self.overlap) << 63
    }
}

/// The versions of all keys of a workload, shared by all workers.
///
/// Versions start from a base that rises from run to run (Unix time in
/// seconds), so that values which an earlier run left are older than any of this one.
pub struct Versions {
    base: u32,
    keys: Vec<AtomicU64>,
    /// The version of keys without a number (from traces).
    other: AtomicU32,
}

impl Versions {
    /// For keys numbered from 0 to below `count`; the keys of a trace have no number.
    pub fn new(count: u64, base: u32) -> Self {
        Self {
            base,
            keys: (0..count).map(|_| AtomicU64::new(0)).collect(),
            other: AtomicU32::new(base),
        }
    }

    /// A write of the key begins; returns its version.
    pub fn begin(&self, id: u64) -> u32 {
        let Some(key) = self.key(id) else {
            return self.other.fetch_add(1, Ordering::Relaxed);
        };
        let mut version = 0;
        update(key, |known| {
            known.last = (known.last + 1) & VERSION_MASK as u32;
            version = known.last;
            // If replies are missing, the count stays above 0 and the overlap set.
            known.overlap |= known.writes > 0;
            known.writes = (known.writes + 1).min(WRITES_MAX);
        });
        self.base.wrapping_add(version)
    }

    /// The server's reply to a write has arrived; `done` if it changed or removed the value.
    pub fn end(&self, id: u64, version: u32, done: bool) {
        let Some(key) = self.key(id) else { return };
        update(key, |known| {
            if done && !known.overlap {
                known.floor = known.floor.max(version.wrapping_sub(self.base));
            }
            if known.writes < WRITES_MAX {
                known.writes = known.writes.saturating_sub(1);
            }
            known.overlap &= known.writes > 0;
        });
    }

    /// The oldest version that a GET sent now may return; 0 for any.
    pub fn floor(&self, id: u64) -> u32 {
        let floor = self
            .key(id)
            .map_or(0, |key| Known::unpack(key.load(Ordering::Acquire)).floor);
        if floor == 0 {
            0
        } else {
            self.base.wrapping_add(floor)
        }
    }

    fn key(&self, id: u64) -> Option<&AtomicU64> {
        self.keys.get(usize::try_from(id).ok()?)
    }
}

fn update(key: &AtomicU64, mut change: impl FnMut(&mut Known)) {
    // The closure always returns a value, so that the update cannot fail.
    let _ = key.fetch_update(Ordering::AcqRel, Ordering::Acquire, |x| {
        let mut known = Known::unpack(x);
        change(&mut known);
        Some(known.pack())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestKey;

    #[test]
    fn an_acknowledged_write_makes_older_values_stale() {
        let versions = Versions::new(2, 100);
        assert_eq!(versions.floor(0), 0);
        let v1 = versions.begin(0);
        assert_eq!(versions.floor(0), 0, "not acknowledged yet");
        versions.end(0, v1, true);
        assert_eq!(versions.floor(0), v1);
        let v2 = versions.begin(0);
        assert!(v2 > v1);
        assert_eq!(versions.floor(0), v1);
        versions.end(0, v2, true);
        assert_eq!(versions.floor(0), v2);
        assert_eq!(versions.floor(1), 0);
    }

    #[test]
    fn overlapping_writes_leave_the_floor() {
        let versions = Versions::new(1, 0);
        let v1 = versions.begin(0);
        let v2 = versions.begin(0);
        versions.end(0, v2, true);
        versions.end(0, v1, true);
        assert_eq!(versions.floor(0), 0, "either may have won");
        let v3 = versions.begin(0);
        versions.end(0, v3, true);
        assert_eq!(versions.floor(0), v3);
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let versions = Versions::new(1, 0);
        let v1 = versions.begin(0);
        versions.end(0, v1, false);
        assert_eq!(versions.floor(0), 0);
    }

    #[test]
    fn keys_without_a_number_have_no_floor() {
        let versions = Versions::new(1, 5);
        let v = versions.begin(RequestKey::NO_ID);
        versions.end(RequestKey::NO_ID, v, true);
        assert_eq!(versions.floor(RequestKey::NO_ID), 0);
        assert_eq!(versions.floor(3 | RequestKey::ABSENT), 0);
        assert!(versions.begin(RequestKey::NO_ID) > v);
    }
}
