// SPDX-License-Identifier: GPL-2.0-only
//! Clocks (`linux/timekeeping.h`), exact to the timer tick unless documented otherwise.

use crate::ffi;

/// Milliseconds since boot.
pub fn uptime_ms() -> u64 {
    // SAFETY: reads a clock.
    unsafe { ffi::hippos_uptime_ms() }
}

/// Seconds since boot.
pub fn uptime() -> u32 {
    (uptime_ms() / 1000) as u32
}

/// Milliseconds since 1970.
pub fn unix_ms() -> i64 {
    // SAFETY: reads a clock.
    unsafe { ffi::hippos_unix_ms() }
}

/// Microseconds since 1970, exactly. Any context.
pub fn unix_us() -> u64 {
    // SAFETY: reads a clock.
    unsafe { ffi::hippos_unix_us() }
}
