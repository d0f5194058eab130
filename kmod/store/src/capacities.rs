// SPDX-License-Identifier: GPL-2.0-only
//! Capacities of the store's fixed containers. They are small in tests, so that the tests reach the overflow cases.

/// A host build with debug assertions is a test build; benches and simulations are release builds.
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
/// Slots that a policy picks, and that are evicted, in one read-side section.
pub(crate) const PICK: usize = choose(16, 3);

const _: () = assert!(RING.is_power_of_two());
