// SPDX-License-Identifier: GPL-2.0-only
//! What S3-FIFO remembers of evicted items.

use hippos_invariant::Exact;

use crate::hash::Hash;
use crate::platform::Platform;
use crate::sync::{AtomicU32, Relaxed};
use crate::table::{Draft, Part, Table};

/// Ways of a set of ghosts.
const WAYS: usize = 8;

/// Fingerprints of what was evicted from small queues, in sets, the newest first.
pub(crate) struct Ghosts {
    sets: Table<Set>,
}

#[repr(C, align(32))]
struct Set([AtomicU32; WAYS]);

impl Ghosts {
    /// A table for about `items` items.
    pub(crate) fn new<P: Platform>(platform: &P, items: usize) -> Option<Draft<'_, P, Self>> {
        let sets = (items / WAYS).checked_next_power_of_two()?;
        let set = || Set(core::array::from_fn(|_| AtomicU32::new(0)));
        let sets = Table::new(platform, sets, set)?.keep();
        Some(Draft::new(platform, Self { sets }))
    }

    pub(crate) fn tables(&self) -> usize {
        self.sets.size()
    }

    /// The set of a hash, and its fingerprint there: 0 is no fingerprint.
    fn set(&self, hash: Hash) -> Option<(&Set, u32)> {
        let at = hash.get() as usize & self.sets.len().sub_exact(1);
        Some((self.sets.get(at)?, (hash.get() >> 32) as u32 | 1))
    }

    /// Remembers a hash. The oldest of its set is forgotten. Two at the same time may lose one.
    pub(super) fn add(&self, hash: Hash) {
        let Some((set, mut print)) = self.set(hash) else {
            return;
        };
        for way in &set.0 {
            let older = way.load(Relaxed);
            way.store(print, Relaxed);
            print = older;
            if older == 0 {
                break;
            }
        }
    }

    /// Is a hash remembered? Forgets it.
    pub(super) fn take(&self, hash: Hash) -> bool {
        let Some((set, print)) = self.set(hash) else {
            return false;
        };
        for way in &set.0 {
            if way.load(Relaxed) == print {
                way.store(0, Relaxed);
                return true;
            }
        }
        false
    }
}

impl<P: Platform> Part<P> for Ghosts {
    unsafe fn free(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe { self.sets.free(platform) };
    }
}
