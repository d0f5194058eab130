// SPDX-License-Identifier: GPL-2.0-only
//! Atomics. Only this module imports them, so that loom can replace them.
//!
//! `core::sync::atomic` follows the C++ memory model, the kernel its own. The operations used here (acquire loads,
//! release stores, relaxed counters, full read-modify-writes) mean the same in both on the machines that Hippos
//! supports.

pub(crate) use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, AtomicUsize};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, AtomicUsize};

/// Separates a value that is written often from the cache lines of values that are only read.
#[repr(align(64))]
pub(crate) struct Padded<T>(pub(crate) T);

/// Bugs that the loom tests plant, to check that the tests find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// An entry is written without release.
    RelaxedEntry,
    /// A split publishes the new number of buckets before it copies.
    LateCopy,
    /// A split clears the old bucket before it publishes the new number.
    EarlyClear,
    /// A merge publishes the new number of buckets before it copies.
    LateMerge,
    /// A reader that misses does not look at the number of buckets again.
    NoRetry,
    /// A reader loads a bucket's head after its entries.
    LateHead,
    /// A hit sets a mark by a load and a store.
    TornMark,
    /// A change of several fields is not marked while it is in progress.
    UnmarkedChange,
    /// A reader of events does not check again that the event is still the one that it wanted.
    OneLook,
    /// A writer treats an event's number as taken although it only failed to claim the slot.
    BlindHelp,
}

/// Whether this bug is planted. Never outside of loom.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(all(loom, test))]
pub(crate) use planting::plant;
#[cfg(loom)]
pub(crate) use planting::planted;

#[cfg(loom)]
mod planting {
    use super::Bug;
    use core::cell::Cell;

    // All threads of a model run on one thread of the system.
    std::thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug on this thread.
    #[cfg(test)]
    pub(crate) fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is planted.
    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

/// Prefetches a cache line; only a hint.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch has no visible effect and does not fault, for any address.
    unsafe {
        core::arch::asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
    };
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
    };
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
    let _ = at;
}
