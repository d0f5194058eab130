// SPDX-License-Identifier: GPL-2.0-only
//! The control device: ioctls on a misc device (`linux/miscdevice.h`).

use core::ffi::{c_long, c_uint, c_ulong, c_void};
use core::ptr::NonNull;
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::str::CStr;
use kernel::sync::Arc;

use crate::ffi;

/// Serves a device's calls, many at once.
pub trait Calls: Send + Sync + 'static {
    /// Serves call `number`; `argument` is the caller's, unchecked, mostly an
    /// address in its memory.
    fn call(&self, number: u32, argument: usize) -> Result<isize>;
}

/// A registered device, mode 0600. Once dropped no call runs any more: an open
/// file keeps the module loaded.
///
/// # Invariants
///
/// `raw` is registered with `calls`' address, which stays valid meanwhile.
pub struct Device<T: Calls> {
    raw: NonNull<ffi::hippos_device>,
    /// Dropped after [`Drop::drop`] has run.
    _calls: Arc<T>,
}

// SAFETY: registration belongs to no thread, and `T` is `Send` and `Sync`.
unsafe impl<T: Calls> Send for Device<T> {}
// SAFETY: a shared device has no methods.
unsafe impl<T: Calls> Sync for Device<T> {}

impl<T: Calls> Device<T> {
    /// Makes `/dev/name`.
    pub fn new(name: &'static CStr, calls: Arc<T>) -> Result<Self> {
        let private = (&raw const *calls).cast_mut().cast::<c_void>();
        // SAFETY: the callback is made for `T`, which the value keeps until the device is
        // unregistered; the name is static.
        let raw = from_err_ptr(unsafe {
            ffi::hippos_device_register(name.as_char_ptr(), on_call::<T>, private)
        })?;
        // INVARIANT: just registered.
        Ok(Self {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
            _calls: calls,
        })
    }
}

impl<T: Calls> Drop for Device<T> {
    fn drop(&mut self) {
        // SAFETY: by the invariant registered, and never unregistered before.
        unsafe { ffi::hippos_device_unregister(self.raw.as_ptr()) }
    }
}

/// # Safety
///
/// Called by the device, with the address as registered.
unsafe extern "C" fn on_call<T: Calls>(
    private: *mut c_void,
    number: c_uint,
    argument: c_ulong,
) -> c_long {
    // SAFETY: the `Device` keeps it until no call runs any more.
    let calls = unsafe { &*private.cast::<T>() };
    match calls.call(number, argument as usize) {
        Ok(value) => value as c_long,
        Err(error) => c_long::from(error.to_errno()),
    }
}
