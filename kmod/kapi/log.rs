// SPDX-License-Identifier: GPL-2.0-only
//! Lines in the kernel's log that clients can cause (`linux/ratelimit.h`).

use crate::ffi;

/// Whether one more such line may be written: ten a minute for connections, and ten for datagrams, whose sources may be
/// forged.
pub fn permits(datagram: bool) -> bool {
    // SAFETY: takes a spin lock by trying; any context.
    unsafe { ffi::hippos_log_permits(datagram) }
}
