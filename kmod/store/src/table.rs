// SPDX-License-Identifier: GPL-2.0-only
//! Fixed tables in memory that the platform lends.

use core::ops::Deref;
use core::ptr::NonNull;

use crate::platform::Platform;

/// A slice whose memory is the platform's. It does not free itself, since it does not know the
/// platform: its owner calls [`Table::free`].
pub(crate) struct Table<T> {
    at: NonNull<T>,
    len: usize,
}

// SAFETY: a table owns its elements as a Vec does.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: a shared table gives shared elements only.
unsafe impl<T: Sync> Sync for Table<T> {}

impl<T> Table<T> {
    fn bytes(len: usize) -> Option<usize> {
        len.checked_mul(size_of::<T>())?
            .max(1)
            .checked_next_multiple_of(4096)
    }

    /// `len` elements, each made by `make`.
    pub(crate) fn new<P: Platform>(
        platform: &P,
        len: usize,
        mut make: impl FnMut() -> T,
    ) -> Option<Self> {
        const { assert!(align_of::<T>() <= 64) };
        let at = platform.table_alloc(Self::bytes(len)?)?.cast::<T>();
        for i in 0..len {
            // SAFETY: `i < len`, and the block has room for `len` elements and suits their
            // alignment.
            unsafe { at.add(i).write(make()) };
        }
        Some(Self { at, len })
    }

    /// Bytes taken from the platform.
    pub(crate) fn size(&self) -> usize {
        Self::bytes(self.len).unwrap_or(0)
    }

    /// Gives the memory back. Elements are not dropped: they hold nothing of their own.
    ///
    /// # Safety
    ///
    /// `platform` is the one that `new` was given, and the table is not used again.
    pub(crate) unsafe fn free<P: Platform>(&self, platform: &P) {
        // SAFETY: the block and its size are those of `new`; the caller promises the rest.
        unsafe { platform.table_free(self.at.cast(), self.size()) }
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` initialised `len` elements, which live as long as the table.
        unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

/// One value at a fixed address, for locks, which must not move.
pub(crate) struct Fixed<T>(Table<T>);

impl<T> Fixed<T> {
    pub(crate) fn new<P: Platform>(platform: &P, make: impl FnMut() -> T) -> Option<Self> {
        Some(Self(Table::new(platform, 1, make)?))
    }

    pub(crate) fn size(&self) -> usize {
        self.0.size()
    }

    /// # Safety
    ///
    /// As for [`Table::free`].
    pub(crate) unsafe fn free<P: Platform>(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe { self.0.free(platform) }
    }
}

impl<T> Deref for Fixed<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `new` initialised one element.
        unsafe { self.0.at.as_ref() }
    }
}
