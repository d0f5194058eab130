// SPDX-License-Identifier: GPL-2.0-only
//! The counters that C keeps: the list of `kmod/c/counters.h`.

use crate::ffi;

/// The sum over all CPUs since the load of the counter with this number in the list.
pub fn sum(number: u32) -> u64 {
    // SAFETY: takes any number.
    unsafe { ffi::hippos_counter_sum(number) }
}
