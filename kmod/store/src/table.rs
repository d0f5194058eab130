// SPDX-License-Identifier: GPL-2.0-only
//! Fixed tables in memory of the platform.

use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::platform::Platform;

/// A part of the store that has memory of the platform. It cannot free itself, because it has no reference to the
/// platform: a [`Draft`] frees it while the store is being made, and the store afterwards.
pub(crate) trait Part<P: Platform> {
    /// Frees the memory. Elements are not dropped: they own nothing.
    ///
    /// # Safety
    ///
    /// `platform` is the one that the part was made with, and the part is not used again.
    unsafe fn free(&self, platform: &P);
}

/// A part that is freed when it is dropped, unless it is kept.
pub(crate) struct Draft<'p, P: Platform, T: Part<P>> {
    platform: &'p P,
    part: ManuallyDrop<T>,
}

impl<'p, P: Platform, T: Part<P>> Draft<'p, P, T> {
    /// `part` was made with this platform.
    pub(crate) fn new(platform: &'p P, part: T) -> Self {
        Self {
            platform,
            part: ManuallyDrop::new(part),
        }
    }

    /// Returns the part, which the caller then has to free.
    pub(crate) fn keep(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the part is taken once: `this` is neither used again nor dropped.
        unsafe { ManuallyDrop::take(&mut this.part) }
    }
}

impl<P: Platform, T: Part<P>> Deref for Draft<'_, P, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.part
    }
}

impl<P: Platform, T: Part<P>> Drop for Draft<'_, P, T> {
    fn drop(&mut self) {
        // SAFETY: the part was made with this platform, and belongs to the draft alone.
        unsafe { self.part.free(self.platform) };
    }
}

/// A slice whose memory is the platform's.
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
    ) -> Option<Draft<'_, P, Self>> {
        const { assert!(align_of::<T>() <= 64) };
        let at = platform.table_alloc(Self::bytes(len)?)?.cast::<T>();
        for i in 0..len {
            // SAFETY: `i < len`, and the block has room for `len` elements and suits their
            // alignment.
            unsafe { at.add(i).write(make()) };
        }
        Some(Draft::new(platform, Self { at, len }))
    }

    /// Bytes allocated from the platform.
    pub(crate) fn size(&self) -> usize {
        Self::bytes(self.len).unwrap_or(0)
    }
}

impl<P: Platform, T> Part<P> for Table<T> {
    unsafe fn free(&self, platform: &P) {
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

/// A table whose memory is allocated at its first use.
pub(crate) struct LateTable<T> {
    at: AtomicPtr<T>,
    len: usize,
}

impl<T: Sync + Send> LateTable<T> {
    /// A table of `len` elements without memory.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            at: AtomicPtr::new(core::ptr::null_mut()),
            len,
        }
    }

    /// Its elements, if the memory is allocated.
    #[inline]
    pub(crate) fn get(&self) -> Option<&[T]> {
        let at = NonNull::new(self.at.load(Ordering::Acquire))?;
        // SAFETY: `get_or_make` initialised so many elements before it stored where they are, and
        // they stay until the table is freed.
        Some(unsafe { core::slice::from_raw_parts(at.as_ptr(), self.len) })
    }

    /// Its elements; allocates them if that has not been done, each made by `make`. May sleep.
    pub(crate) fn get_or_make<P: Platform>(
        &self,
        platform: &P,
        make: impl FnMut() -> T,
    ) -> Option<&[T]> {
        if self.get().is_none() {
            let draft = Table::new(platform, self.len, make)?;
            let (none, at) = (core::ptr::null_mut(), draft.at.as_ptr());
            let (done, lost) = (Ordering::AcqRel, Ordering::Relaxed);
            if self.at.compare_exchange(none, at, done, lost).is_ok() {
                draft.keep();
            }
        }
        self.get()
    }

    /// Bytes allocated from the platform.
    pub(crate) fn size(&self) -> usize {
        match self.get() {
            Some(_) => Table::<T>::bytes(self.len).unwrap_or(0),
            None => 0,
        }
    }
}

impl<P: Platform, T> Part<P> for LateTable<T> {
    unsafe fn free(&self, platform: &P) {
        if let Some(at) = NonNull::new(self.at.load(Ordering::Acquire)) {
            let table = Table { at, len: self.len };
            // SAFETY: a table of `get_or_make`'s; the caller promises the rest.
            unsafe { table.free(platform) }
        }
    }
}

/// One value at a fixed address, for locks, which must not move.
pub(crate) struct Fixed<T>(Table<T>);

impl<T> Fixed<T> {
    pub(crate) fn new<P: Platform>(
        platform: &P,
        make: impl FnMut() -> T,
    ) -> Option<Draft<'_, P, Self>> {
        let table = Table::new(platform, 1, make)?;
        Some(Draft::new(platform, Self(table.keep())))
    }

    pub(crate) fn size(&self) -> usize {
        self.0.size()
    }
}

impl<P: Platform, T> Part<P> for Fixed<T> {
    unsafe fn free(&self, platform: &P) {
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
