// SPDX-License-Identifier: GPL-2.0-only
//! Data behind one of the platform's spin locks.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

use crate::platform::{LockClass, RawLock};

/// A value that only the holder of its lock can reach.
#[derive(Default)]
pub(crate) struct LockedData<L, T> {
    raw: L,
    data: UnsafeCell<T>,
}

// SAFETY: `data` is reached only through `Held`, of which `RawLock` allows one at a time.
unsafe impl<L: RawLock, T: Send> Sync for LockedData<L, T> {}

impl<L: RawLock, T> LockedData<L, T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            raw: L::default(),
            data: UnsafeCell::new(value),
        }
    }

    /// Initialises the lock at its final address.
    pub(crate) fn init(&self, class: LockClass) {
        self.raw.init(class);
    }

    #[inline]
    pub(crate) fn lock(&self) -> Held<'_, L, T> {
        self.raw.lock();
        Held { of: self }
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Held<'_, L, T>> {
        self.raw.try_lock().then(|| Held { of: self })
    }
}

/// Access to the value while its lock is held.
pub(crate) struct Held<'a, L: RawLock, T> {
    of: &'a LockedData<L, T>,
}

impl<L: RawLock, T> Deref for Held<'_, L, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this is the lock's only holder.
        unsafe { &*self.of.data.get() }
    }
}

impl<L: RawLock, T> DerefMut for Held<'_, L, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the lock's only holder, and it is borrowed mutably.
        unsafe { &mut *self.of.data.get() }
    }
}

impl<L: RawLock, T> Drop for Held<'_, L, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the lock was taken when this value was made.
        unsafe { self.of.raw.unlock() }
    }
}
