// SPDX-License-Identifier: GPL-2.0-only
//! Grace periods (`linux/rcupdate.h`) beyond the `kernel` crate's guard.

use core::ffi::c_ulong;
use core::marker::PhantomData;

use crate::ffi;

/// A read-side section; ends when dropped. Nothing may sleep inside.
pub struct Guard {
    /// It ends on the thread that began it.
    _thread: PhantomData<*mut ()>,
}

/// Begins a read-side section.
#[inline]
pub fn read_lock() -> Guard {
    // SAFETY: unlocked by the guard's `Drop`.
    unsafe { ffi::hippos_read_lock() };
    Guard {
        _thread: PhantomData,
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: locked when the guard was made.
        unsafe { ffi::hippos_read_unlock() }
    }
}

/// Stands for a grace period that has been asked for.
#[derive(Clone, Copy, Debug)]
pub struct Cookie(c_ulong);

/// Asks for a grace period. Does not wait.
pub fn start() -> Cookie {
    // SAFETY: may be called anywhere.
    Cookie(unsafe { ffi::start_poll_synchronize_rcu() })
}

/// Whether the grace period is over: nobody reads any more what was unpublished
/// before it was asked for.
pub fn is_over(cookie: Cookie) -> bool {
    // SAFETY: may be called anywhere, with a cookie of `start`.
    unsafe { ffi::poll_state_synchronize_rcu(cookie.0) }
}

/// Waits for a grace period.
pub fn wait() {
    // SAFETY: called in process context.
    unsafe { ffi::synchronize_rcu() }
}

/// Waits for a grace period and hurries it, at the cost of an interrupt to each CPU.
pub fn wait_expedited() {
    // SAFETY: called in process context.
    unsafe { ffi::synchronize_rcu_expedited() }
}

/// Waits for all callbacks that were queued before.
pub fn barrier() {
    // SAFETY: called in process context.
    unsafe { ffi::rcu_barrier() }
}
