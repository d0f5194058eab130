// SPDX-License-Identifier: GPL-2.0-only
//! The interface between the store and what it runs on: the kernel, or [`crate::host`] in tests.

use core::ptr::NonNull;

/// How far from [`Platform::base`] a block may end, in bytes: what a reference of 48 bits tells apart.
pub const REACH: usize = 1 << 48;

/// A grace period that was asked for: `get_state_synchronize_rcu()`'s value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub u64);

/// Which of the store's locks one is, for lock checkers.
///
/// Order: `Growth` before `Stripe` before `Overflow`; all others alone. No lock is ever held over a
/// call that may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockClass {
    /// Serialises growth and shrinking of the index.
    Growth,
    /// Guards the buckets whose number has the same low bits.
    Stripe,
    /// Guards the spare overflow buckets.
    Overflow,
    /// Guards one CPU's ring of retired slots.
    Shard,
    /// Guards a slab class: free slots, slabs, hand.
    Class,
    /// Guards the table of memory blocks.
    Pool,
    /// Decides who gives a pinned slot back.
    Pins,
}

/// A spin lock of writers, taken in process context only, never by readers.
///
/// # Safety
///
/// At most one holder at a time; `lock` and a successful `try_lock` acquire, `unlock` releases.
pub unsafe trait RawLock: Default + Send + Sync {
    /// Called once at the lock's final address, before its first use.
    fn init(&self, class: LockClass) {
        let _ = class;
    }
    /// Spins until the lock is held.
    fn lock(&self);
    /// Takes the lock if nobody has it.
    fn try_lock(&self) -> bool;
    /// Gives the lock back.
    ///
    /// # Safety
    ///
    /// The caller holds the lock.
    unsafe fn unlock(&self);
}

/// What the store needs of its surroundings.
///
/// # Safety
///
/// Blocks are exclusively the store's until they are freed. A grace period ends only when every
/// [`Platform::Guard`] that lived at its start is gone, and what happened before `gp_start` is
/// then visible to every later guard.
pub unsafe trait Platform: Sync + Sized + 'static {
    /// An RCU read-side section; ends when dropped. Must not leave its thread.
    type Guard;
    /// The spin lock of writers.
    type Lock: RawLock;

    /// Starts a read-side section. Any context.
    fn read_lock(&self) -> Self::Guard;

    /// A block of `bytes` (a power of two, 1 to 4 MiB outside of tests), aligned to its size, in
    /// the direct map. Process context, may sleep. Its contents are arbitrary.
    fn slab_alloc(&self, bytes: usize) -> Option<NonNull<u8>>;
    /// Gives a block back.
    ///
    /// # Safety
    ///
    /// `block` came from `slab_alloc(bytes)` and nothing refers to it any more.
    unsafe fn slab_free(&self, block: NonNull<u8>, bytes: usize);

    /// Zeroed memory for a fixed table, aligned to 64 bytes; `bytes` is a multiple of 4096
    /// (`kvzalloc`). Process context, may sleep.
    fn table_alloc(&self, bytes: usize) -> Option<NonNull<u8>>;
    /// Gives a table back.
    ///
    /// # Safety
    ///
    /// `table` came from `table_alloc(bytes)` and nothing refers to it any more.
    unsafe fn table_free(&self, table: NonNull<u8>, bytes: usize);

    /// Asks for a grace period (`start_poll_synchronize_rcu`). May be called under a spin lock.
    fn gp_start(&self) -> Cookie;
    /// Has the grace period passed (`poll_state_synchronize_rcu`)? May be called under a spin lock.
    fn gp_done(&self, cookie: Cookie) -> bool;
    /// Sleeps for a whole (expedited) grace period. No lock and no guard is held.
    fn gp_wait(&self);

    /// The CPU this runs on, less than `cpus()`. It may be stale by the time it is used.
    fn cpu(&self) -> usize;
    /// How many CPUs there can be, at least 1 (`nr_cpu_ids`).
    fn cpus(&self) -> usize;

    /// Below every block: item references are kept as distances of less than [`REACH`] from here.
    /// Blocks that are elsewhere are given back unused.
    fn base(&self) -> usize {
        0
    }
    /// Microseconds since 1970. Any context.
    fn unix_us(&self) -> u64 {
        0
    }
    /// A long loop's chance to let others run (`cond_resched`). No lock and no guard is held.
    fn cond_resched(&self) {}
    /// Sleeps for about a tenth of a millisecond: others have to get on before this one can. No
    /// lock and no guard is held.
    fn short_sleep(&self) {
        self.cond_resched();
    }
    /// Bytes of blocks that may still be taken without harm to others; when it is negative, so many
    /// are wanted back. None: the memory limit is all that counts.
    fn memory_headroom(&self) -> Option<isize> {
        None
    }
    /// Asks that [`crate::Store::maintain`] be called soon. No lock is held; a guard may be.
    fn wake(&self) {}
    /// Overwrite slots when they become free, to show readers that come too late.
    fn poison(&self) -> bool {
        false
    }
}
