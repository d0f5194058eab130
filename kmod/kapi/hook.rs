// SPDX-License-Identifier: GPL-2.0-only
//! The PRE_ROUTING hook of one network namespace (`linux/netfilter.h`).

use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::ffi;
use crate::namespace::Namespace;
use crate::packet::{Fate, Packet};

/// Gets the packets of a [`Hook`], in softirq under RCU, on many CPUs at once.
pub trait Door: Send + Sync + 'static {
    /// The UDP port whose packets are wanted.
    fn port(&self) -> u16;

    /// Decides about one packet.
    fn receive(&self, packet: Packet<'_>) -> Fate;
}

/// A registered hook for IPv4 and IPv6. Dropping it waits until no packet is
/// inside any more.
///
/// # Invariants
///
/// `hooks` is registered with `door`'s address, which stays valid meanwhile.
pub struct Hook<T: Door> {
    hooks: NonNull<ffi::hippos_hooks>,
    /// Fields are dropped after [`Drop::drop`]: the door outlives the hook,
    _door: Arc<T>,
    /// and so does the namespace.
    _namespace: Arc<Namespace>,
}

// SAFETY: registration belongs to no thread, and the door is `Send` and `Sync`.
unsafe impl<T: Door> Send for Hook<T> {}
// SAFETY: a shared hook has no methods.
unsafe impl<T: Door> Sync for Hook<T> {}

impl<T: Door> Hook<T> {
    /// Sends `door`'s packets in `namespace` to it.
    pub fn new(namespace: Arc<Namespace>, door: Arc<T>) -> Result<Self> {
        let private = (&raw const *door).cast_mut().cast::<c_void>();
        // SAFETY: the callback is made for `T`, and door and namespace are kept by the
        // value until the hooks are gone.
        let hooks = from_err_ptr(unsafe {
            ffi::hippos_hooks_register(namespace.as_ptr(), door.port(), receive::<T>, private)
        })?;
        // INVARIANT: just registered.
        Ok(Self {
            hooks: NonNull::new(hooks).ok_or(ENOMEM)?,
            _door: door,
            _namespace: namespace,
        })
    }
}

impl<T: Door> Drop for Hook<T> {
    fn drop(&mut self) {
        // SAFETY: by the invariant registered, and never unregistered before.
        unsafe { ffi::hippos_hooks_unregister(self.hooks.as_ptr()) }
    }
}

/// # Safety
///
/// Called in softirq under RCU with the door's address as registered, an sk_buff
/// that is the caller's or null, and what describes it or a frame of the caller's.
pub(crate) unsafe extern "C" fn receive<T: Door>(
    private: *mut c_void,
    skb: *mut ffi::sk_buff,
    raw: *mut ffi::hippos_packet,
) -> u32 {
    // SAFETY: who registered it keeps the door until there are no more calls.
    let door = unsafe { &*private.cast::<T>() };
    // SAFETY: the caller's promise: `raw` is filled in, describes `skb`, and is ours until we
    // return, as `skb` is.
    let packet = unsafe { Packet::new(NonNull::new(skb), &mut *raw) };
    door.receive(packet).0
}
