// SPDX-License-Identifier: GPL-2.0-only
//! How much the store's fixed containers hold: little in tests, so that they fill up and run over.

/// A host's build with debug assertions is for tests; benches and simulations are released ones.
const TESTED: bool = cfg!(all(feature = "host", debug_assertions));

const fn choose(full: usize, tested: usize) -> usize {
    if TESTED {
        tested
    } else {
        full
    }
}

/// Slots of a class's magazine.
pub(crate) const MAGAZINE: usize = choose(256, 7);
/// References of a batch of retired memory.
pub(crate) const BATCH: usize = choose(62, 5);
/// Batches of a CPU's ring, a power of two.
pub(crate) const RING: usize = choose(128, 8);
/// Slots that a policy picks, and that are evicted, in one section.
pub(crate) const PICK: usize = choose(16, 3);

const _: () = assert!(RING.is_power_of_two());
