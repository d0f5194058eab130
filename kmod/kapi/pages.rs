// SPDX-License-Identifier: GPL-2.0-only
//! Blocks of the direct map and big tables (`linux/gfp.h`, `linux/mm.h`).

use core::ptr::NonNull;

use crate::ffi;

/// A block of `bytes` bytes, a power of two of pages, aligned to its size. May sleep.
pub fn alloc(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: called in process context, as everything that may sleep.
    NonNull::new(unsafe { ffi::hippos_pages_alloc(bytes) }.cast())
}

/// Gives a block back.
///
/// # Safety
///
/// `block` is from [`alloc`] with the same `bytes`, and nobody uses it any more.
pub unsafe fn free(block: NonNull<u8>, bytes: usize) {
    // SAFETY: by this function's own requirement.
    unsafe { ffi::hippos_pages_free(block.as_ptr().cast(), bytes) }
}

/// A zeroed table of `bytes` bytes, where memory of any kind will do. May sleep.
pub fn alloc_table(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: called in process context, as everything that may sleep.
    NonNull::new(unsafe { ffi::hippos_table_alloc(bytes) }.cast())
}

/// Gives a table back. May sleep.
///
/// # Safety
///
/// `table` is from [`alloc_table`], and nobody uses it any more.
pub unsafe fn free_table(table: NonNull<u8>) {
    // SAFETY: by this function's own requirement.
    unsafe { ffi::hippos_table_free(table.as_ptr().cast()) }
}

/// Bytes of memory that the machine has.
pub fn total() -> u64 {
    // SAFETY: reads a number.
    unsafe { ffi::hippos_memory() }
}

/// What blocks are above of by their physical address and a page; it differs from boot to boot.
pub fn direct_map() -> usize {
    // SAFETY: reads a number that is fixed at boot.
    unsafe { ffi::hippos_direct_map() as usize }
}
