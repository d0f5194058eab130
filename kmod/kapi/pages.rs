// SPDX-License-Identifier: GPL-2.0-only
//! Blocks of the direct map and big tables (`linux/gfp.h`, `linux/mm.h`).

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::ffi;
use crate::thread::Waker;

/// A block of `bytes` bytes, a power of two of pages, aligned to its size. May sleep.
pub fn alloc(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: called in process context, as everything that may sleep.
    NonNull::new(unsafe { ffi::hippos_pages_alloc(bytes) }.cast())
}

/// Frees a block.
///
/// # Safety
///
/// `block` is from [`alloc`] with the same `bytes`, and is not in use any more.
pub unsafe fn free(block: NonNull<u8>, bytes: usize) {
    // SAFETY: by this function's own requirement.
    unsafe { ffi::hippos_pages_free(block.as_ptr().cast(), bytes) }
}

/// A zeroed table of `bytes` bytes, in memory of any kind. May sleep.
pub fn alloc_table(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: called in process context, as everything that may sleep.
    NonNull::new(unsafe { ffi::hippos_table_alloc(bytes) }.cast())
}

/// Frees a table. May sleep.
///
/// # Safety
///
/// `table` is from [`alloc_table`], and is not in use any more.
pub unsafe fn free_table(table: NonNull<u8>) {
    // SAFETY: by this function's own requirement.
    unsafe { ffi::hippos_table_free(table.as_ptr().cast()) }
}

/// Bytes of memory that the machine has.
pub fn total() -> u64 {
    // SAFETY: reads a number.
    unsafe { ffi::hippos_memory() }
}

/// Bytes that can be allocated without swapping. Process context.
pub fn available() -> u64 {
    // SAFETY: sums up counters.
    unsafe { ffi::hippos_memory_available() }
}

/// Wakes a waker when the kernel reclaims memory and little is available (`linux/shrinker.h`). There
/// is one at a time.
///
/// # Invariants
///
/// `raw` is registered, with `waker`.
pub struct ShrinkerWatch<'a> {
    raw: NonNull<ffi::shrinker>,
    _waker: PhantomData<&'a Waker>,
}

impl<'a> ShrinkerWatch<'a> {
    /// Wakes `waker` when less than `bytes` are available.
    pub fn new(waker: &'a Waker, bytes: u64) -> Option<Self> {
        // SAFETY: the waker stays where it is until the shrinker is unregistered, at the latest by `Drop`.
        let raw = unsafe { ffi::hippos_shrinker_register(waker.as_ptr(), bytes) };
        // INVARIANT: just registered.
        Some(Self {
            raw: NonNull::new(raw)?,
            _waker: PhantomData,
        })
    }
}

impl Drop for ShrinkerWatch<'_> {
    fn drop(&mut self) {
        // SAFETY: registered, by the invariant, and forgotten once.
        unsafe { ffi::hippos_shrinker_unregister(self.raw.as_ptr()) }
    }
}

/// The direct map's address of physical 0, less a page; it differs from boot to boot. A block is at this, plus a page,
/// plus its physical address.
pub fn direct_map() -> usize {
    // SAFETY: reads a number that is fixed at boot.
    unsafe { ffi::hippos_direct_map() as usize }
}
