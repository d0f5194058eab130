// SPDX-License-Identifier: GPL-2.0-only
//! Faults on purpose (`linux/bug.h`).

use crate::ffi;

/// Kills the calling task with an oops, for tests that want to see one noticed.
pub fn oops() {
    // SAFETY: does what it says and touches no memory.
    unsafe { ffi::hippos_oops() }
}
