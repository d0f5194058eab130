// SPDX-License-Identifier: GPL-2.0-only
//! Bare spin locks (`linux/spinlock.h`) for process context. The `kernel`
//! crate's own lock brings its data with it and can't be made in an array
//! that another type owns.

use core::ffi::c_uint;
use kernel::bindings;
use kernel::types::Opaque;

use crate::ffi;

/// A spin lock without data. Never taken in softirq or by an
/// interrupt.
#[repr(transparent)]
pub struct SpinLock {
    raw: Opaque<bindings::spinlock_t>,
}

// SAFETY: a spin lock is there to be shared.
unsafe impl Send for SpinLock {}
// SAFETY: as above.
unsafe impl Sync for SpinLock {}

impl Default for SpinLock {
    fn default() -> Self {
        Self {
            // SAFETY: a `spinlock_t` is numbers and pointers that may be null; it is only
            // used after `init`.
            raw: unsafe { core::mem::zeroed() },
        }
    }
}

impl SpinLock {
    /// Initialises the lock, at its final address, with lockdep class `class`.
    pub fn init(&self, class: u32) {
        // SAFETY: the memory is a lock's, and the lock is not in use yet.
        unsafe { ffi::hippos_lock_init(self.raw.get(), class as c_uint) }
    }

    /// Spins until the lock is held.
    #[inline]
    pub fn lock(&self) {
        // SAFETY: initialised by `init`.
        unsafe { ffi::hippos_lock(self.raw.get()) }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> bool {
        // SAFETY: initialised by `init`.
        unsafe { ffi::hippos_trylock(self.raw.get()) }
    }

    /// Releases the lock.
    ///
    /// # Safety
    ///
    /// The caller holds it.
    #[inline]
    pub unsafe fn unlock(&self) {
        // SAFETY: by this function's own requirement.
        unsafe { ffi::hippos_unlock(self.raw.get()) }
    }
}
