// SPDX-License-Identifier: GPL-2.0-only
//! The XDP handler of one network namespace (`net/xdp.h`, `linux/btf.h`): frames
//! come through a kfunc that an XDP program calls. `hippos-ctl` attaches such
//! programs to interfaces; without a program no frame comes.

use core::ptr::NonNull;
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::ffi;
use crate::hook::{describe, PacketHandler};
use crate::namespace::Namespace;

/// An open handler. Dropping it waits until no frame is inside any more.
///
/// # Invariants
///
/// `raw` is open with `handler`'s address, which stays valid meanwhile.
pub struct Xdp<T: PacketHandler> {
    raw: NonNull<ffi::hippos_xdp>,
    /// Fields are dropped after [`Drop::drop`]: the handler outlives the kfunc's calls,
    _handler: Arc<T>,
    /// and so does the namespace.
    _namespace: Arc<Namespace>,
}

// SAFETY: an open handler belongs to no thread, and the Rust handler is `Send` and `Sync`.
unsafe impl<T: PacketHandler> Send for Xdp<T> {}
// SAFETY: a shared one has no methods.
unsafe impl<T: PacketHandler> Sync for Xdp<T> {}

impl<T: PacketHandler> Xdp<T> {
    /// Sends frames for `handler`'s port on `namespace`'s interfaces to it. There is one at a time.
    pub fn new(namespace: Arc<Namespace>, handler: Arc<T>) -> Result<Self> {
        let raw = describe(&handler);
        // SAFETY: the callbacks are made for `T`, and handler and namespace are kept by the
        // value until it is closed; the description is copied.
        let raw = from_err_ptr(unsafe { ffi::hippos_xdp_open(namespace.as_ptr(), &raw) })?;
        // INVARIANT: just opened.
        Ok(Self {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
            _handler: handler,
            _namespace: namespace,
        })
    }
}

impl<T: PacketHandler> Drop for Xdp<T> {
    fn drop(&mut self) {
        // SAFETY: by the invariant open, and never closed before.
        unsafe { ffi::hippos_xdp_close(self.raw.as_ptr()) }
    }
}
