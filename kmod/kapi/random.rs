// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's random numbers (`linux/random.h`).

use crate::ffi;

/// Fresh random words.
pub fn words<const N: usize>() -> [u64; N] {
    let mut words = [0; N];
    // SAFETY: that many bytes are ours to write, and any value is one of a `u64`.
    unsafe { ffi::get_random_bytes(words.as_mut_ptr().cast(), size_of_val(&words)) };
    words
}
