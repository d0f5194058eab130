// SPDX-License-Identifier: GPL-2.0-only
//! The interface between the store and its environment: the kernel, or [`crate::host`] in tests.

use core::ptr::NonNull;

/// The largest distance from [`Platform::base`] to the end of a block, in bytes: a reference has 48 bits.
pub const REACH: usize = 1 << 48;

/// A grace period that was started: `get_state_synchronize_rcu()`'s value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub u64);

/// The class of a lock, for lock checkers.
///
/// Order: `Growth` before `Stripe` before `Overflow`; each of the others is held alone. No lock is held over a call
/// that may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockClass {
    /// Serialises growing and shrinking the index.
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
    /// Decides who frees a pinned slot.
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
    /// Takes the lock if it is free.
    fn try_lock(&self) -> bool;
    /// Releases the lock.
    ///
    /// # Safety
    ///
    /// The caller holds the lock.
    unsafe fn unlock(&self);
}

/// An item removed by eviction, expiry or flush, not by a command for its key.
#[derive(Clone, Copy, Debug)]
pub struct Removed<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its slab class, counted from 1.
    pub class: u8,
    /// Its bytes, header included.
    pub size: u32,
    /// Seconds since it was last read or stored.
    pub idle: u32,
    /// It was read since it was stored.
    pub fetched: bool,
    /// It was flushed. A dead item that was not flushed had expired.
    pub flushed: bool,
}

/// The services that the store needs from its environment.
///
/// # Safety
///
/// Blocks belong to the store alone until they are freed. A grace period ends only when every [`Platform::Guard`] that
/// existed at its start is gone, and writes before `gp_start` are then visible to every later guard.
pub unsafe trait Platform: Sync + Sized + 'static {
    /// An RCU read-side section, which ends when it is dropped. It must stay on its thread.
    type Guard;
    /// The spin lock of writers.
    type Lock: RawLock;

    /// Starts a read-side section. Any context.
    fn read_lock(&self) -> Self::Guard;

    /// A block of `bytes` (a power of two, 1 to 4 MiB outside of tests), aligned to its size, in
    /// the direct map. Process context, may sleep. Its contents are arbitrary.
    fn block_alloc(&self, bytes: usize) -> Option<NonNull<u8>>;
    /// Frees a block.
    ///
    /// # Safety
    ///
    /// `block` came from `block_alloc(bytes)` and nothing refers to it any more.
    unsafe fn block_free(&self, block: NonNull<u8>, bytes: usize);

    /// Zeroed memory for a fixed table, aligned to 64 bytes; `bytes` is a multiple of 4096
    /// (`kvzalloc`). Process context, may sleep.
    fn table_alloc(&self, bytes: usize) -> Option<NonNull<u8>>;
    /// Frees a table.
    ///
    /// # Safety
    ///
    /// `table` came from `table_alloc(bytes)` and nothing refers to it any more.
    unsafe fn table_free(&self, table: NonNull<u8>, bytes: usize);

    /// Starts a grace period (`start_poll_synchronize_rcu`). May be called under a spin lock.
    fn gp_start(&self) -> Cookie;
    /// Whether the grace period has passed (`poll_state_synchronize_rcu`). May be called under a spin lock.
    fn gp_done(&self, cookie: Cookie) -> bool;
    /// Sleeps for a whole (expedited) grace period. No lock and no guard is held.
    fn gp_wait(&self);

    /// The CPU this runs on, less than `cpus()`. It may be outdated by the time it is used.
    fn cpu(&self) -> usize;
    /// The number of possible CPUs, at least 1 (`nr_cpu_ids`).
    fn cpus(&self) -> usize;

    /// An address below every block: item references are distances of less than [`REACH`] from it. The store frees
    /// blocks at other addresses without using them.
    fn base(&self) -> usize {
        0
    }
    /// Microseconds since 1970. Any context.
    fn unix_us(&self) -> u64 {
        0
    }
    /// Called in long loops to yield the CPU (`cond_resched`). No lock and no guard is held.
    fn cond_resched(&self) {}
    /// Sleeps for about a tenth of a millisecond, so that other threads can make progress. No lock and no guard is
    /// held.
    fn short_sleep(&self) {
        self.cond_resched();
    }
    /// Bytes that may still be taken for blocks without putting the system under memory pressure; a negative number is
    /// how many to give back. None: only the memory limit counts.
    fn memory_headroom(&self) -> Option<isize> {
        None
    }
    /// Asks that [`crate::Store::maintain`] be called soon. No lock is held; a guard may be.
    fn wake(&self) {}
    /// Traces an item that is evicted, if tracers are on. A stripe's lock may be held.
    #[inline(always)]
    fn trace_evicted<'a>(&self, item: impl FnOnce() -> Removed<'a>) {
        let _ = item;
    }
    /// Traces an item that was found dead and is reclaimed. No lock is held.
    #[inline(always)]
    fn trace_dead<'a>(&self, item: impl FnOnce() -> Removed<'a>) {
        let _ = item;
    }
    /// Traces that a slab of a class was emptied for another one. Both are counted from 1; 0 stands for
    /// the index or the platform.
    #[inline]
    fn trace_slab_moved(&self, from: u32, to: u32) {
        let _ = (from, to);
    }
    /// Whether to overwrite slots when they are freed, so that readers that come too late are noticed.
    fn poison(&self) -> bool {
        false
    }
}
