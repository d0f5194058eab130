// SPDX-License-Identifier: GPL-2.0-only
//! Grace periods (`linux/rcupdate.h`) beyond the `kernel` crate's guard.

use core::ffi::c_ulong;
use core::marker::PhantomData;

use crate::ffi;

/// A read-side section; ends when dropped. Nothing may sleep inside.
pub struct ReadSection {
    /// Whether this guard began the section and ends it; else the caller does both.
    own: bool,
    /// It ends on the thread that began it.
    _thread: PhantomData<*mut ()>,
}

/// Begins a read-side section.
#[inline]
pub fn read_lock() -> ReadSection {
    // SAFETY: unlocked by the guard's `Drop`.
    unsafe { ffi::hippos_read_lock() };
    ReadSection {
        own: true,
        _thread: PhantomData,
    }
}

/// The section that the caller is in already.
///
/// # Safety
///
/// It lasts until the guard is dropped.
#[inline]
pub(crate) unsafe fn within() -> ReadSection {
    ReadSection {
        own: false,
        _thread: PhantomData,
    }
}

impl Drop for ReadSection {
    #[inline]
    fn drop(&mut self) {
        if self.own {
            // SAFETY: locked when the guard was made.
            unsafe { ffi::hippos_read_unlock() }
        }
    }
}

/// Starts a grace period and returns a cookie for it. Does not wait; any
/// context.
pub fn start() -> u64 {
    // SAFETY: may be called anywhere.
    unsafe { ffi::start_poll_synchronize_rcu() as u64 }
}

/// Whether the cookie's grace period is over: no reader is left of memory that was
/// unpublished before the cookie was taken. Any context.
pub fn is_over(cookie: u64) -> bool {
    // SAFETY: may be called anywhere, with any number.
    unsafe { ffi::poll_state_synchronize_rcu(cookie as c_ulong) }
}

/// Waits for a grace period.
pub fn wait() {
    // SAFETY: called in process context.
    unsafe { ffi::synchronize_rcu() }
}

/// Waits for an expedited grace period, at the cost of an interrupt to each CPU.
pub fn wait_expedited() {
    // SAFETY: called in process context.
    unsafe { ffi::synchronize_rcu_expedited() }
}

/// Waits for all callbacks that were queued before.
pub fn barrier() {
    // SAFETY: called in process context.
    unsafe { ffi::rcu_barrier() }
}
