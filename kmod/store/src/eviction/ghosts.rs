// SPDX-License-Identifier: GPL-2.0-only
//! Ghosts: the hashes of evicted items that S3-FIFO remembers.

use hippos_invariant::Exact;

use crate::hash::Hash;
use crate::platform::Platform;
use crate::sync::{AtomicU32, Relaxed};
use crate::table::{Draft, Part, Table};

/// Ways of a set of ghosts.
const WAYS: usize = 8;
/// The most sets, 1 GiB of them: the kernel has no tables of 2 GiB. A larger cache remembers a smaller
/// part of what it evicts.
const SETS_MAX: usize = 1 << 25;

/// How many sets there are for about `items` items: a power of two.
fn sets(items: usize) -> Option<usize> {
    Some((items / WAYS).checked_next_power_of_two()?.min(SETS_MAX))
}

/// Fingerprints of items that were evicted from small queues, in sets, the newest first.
pub(crate) struct Ghosts {
    sets: Table<GhostSet>,
}

#[repr(C, align(32))]
struct GhostSet([AtomicU32; WAYS]);

impl Ghosts {
    /// A table for about `items` items.
    pub(crate) fn new<P: Platform>(platform: &P, items: usize) -> Option<Draft<'_, P, Self>> {
        let sets = sets(items)?;
        let set = || GhostSet(core::array::from_fn(|_| AtomicU32::new(0)));
        let sets = Table::new(platform, sets, set)?.keep();
        Some(Draft::new(platform, Self { sets }))
    }

    pub(crate) fn tables(&self) -> usize {
        self.sets.size()
    }

    /// The set of a hash, and its fingerprint there. 0 means no fingerprint.
    fn set(&self, hash: Hash) -> Option<(&GhostSet, u32)> {
        let at = hash.get() as usize & self.sets.len().sub_exact(1);
        Some((self.sets.get(at)?, (hash.get() >> 32) as u32 | 1))
    }

    /// Remembers a hash in place of the oldest of its set. Of two concurrent calls, one may be lost.
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

    /// Whether a hash is remembered; if it is, forgets it.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `kvmalloc()` refuses more than `INT_MAX` bytes, and a store is not made then.
    #[test]
    fn the_table_of_the_largest_cache_is_one_that_the_kernel_has() {
        for memory_mb in [64, 1 << 16, (1 << 16) + 1, 1 << 20, 1 << 24] {
            let sets = sets((memory_mb << 20) / 256).unwrap();
            let bytes = sets * size_of::<GhostSet>();
            assert!(
                sets.is_power_of_two() && bytes <= i32::MAX as usize,
                "{memory_mb} MiB: {bytes}"
            );
        }
    }
}
