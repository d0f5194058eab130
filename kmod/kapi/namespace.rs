// SPDX-License-Identifier: GPL-2.0-only
//! A network namespace (`net/net_namespace.h`).

use core::num::NonZeroU32;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::str::CStr;
use kernel::sync::Arc;

use crate::ffi;

/// A network namespace, which exists at least as long as this.
///
/// # Invariants
///
/// `net` is valid and this owns a reference to it.
pub struct Namespace {
    net: NonNull<ffi::net>,
}

// SAFETY: a `struct net` belongs to no thread; its reference may be dropped anywhere.
unsafe impl Send for Namespace {}
// SAFETY: a shared one only gives its pointer to functions that lock for themselves.
unsafe impl Sync for Namespace {}

impl Namespace {
    /// The calling task's: that of the process which loads the module.
    pub fn current() -> Result<Arc<Self>> {
        // SAFETY: called by a task that has namespaces, as insmod has.
        let net = NonNull::new(unsafe { ffi::hippos_net_get() }).ok_or(EINVAL)?;
        // INVARIANT: the reference was taken for us; it is dropped with the value if the
        // allocation fails.
        Ok(Arc::new(Self { net }, GFP_KERNEL)?)
    }

    /// The number of the interface of that name, if there is one.
    pub fn interface(&self, name: &CStr) -> Option<NonZeroU32> {
        // SAFETY: by the invariant a namespace; the name ends with a zero byte.
        NonZeroU32::new(unsafe { ffi::hippos_interface(self.as_ptr(), name.as_char_ptr()) })
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::net {
        self.net.as_ptr()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // SAFETY: by the invariant the reference is ours to drop.
        unsafe { ffi::hippos_net_put(self.net.as_ptr()) }
    }
}
