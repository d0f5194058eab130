// SPDX-License-Identifier: GPL-2.0-only
//! Clocks (`linux/timekeeping.h`), to the second.

use crate::ffi;

/// Seconds since boot.
pub fn uptime() -> u32 {
    // SAFETY: reads a clock.
    unsafe { ffi::hippos_uptime() }
}

/// Seconds since 1970.
pub fn unix() -> i64 {
    // SAFETY: reads a clock.
    unsafe { ffi::hippos_unix() }
}
