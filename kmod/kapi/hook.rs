// SPDX-License-Identifier: GPL-2.0-only
//! The PRE_ROUTING hook of one network namespace (`linux/netfilter.h`).

use core::ffi::{c_uint, c_void};
use core::mem::MaybeUninit;
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
        // SAFETY: the callbacks are made for `T`, and door and namespace are kept by the
        // value until the hooks are gone.
        let hooks = from_err_ptr(unsafe {
            ffi::hippos_hooks_register(
                namespace.as_ptr(),
                on_packet::<T, Ipv4>,
                on_packet::<T, Ipv6>,
                private,
            )
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

/// One of the two families.
trait Family {
    /// Looks at a packet; true when `packet` was filled in.
    ///
    /// # Safety
    ///
    /// `skb` and `state` are what a hook of this family got.
    unsafe fn look(
        skb: *mut ffi::sk_buff,
        state: *const ffi::nf_hook_state,
        port: u16,
        packet: *mut ffi::hippos_packet,
    ) -> bool;
}

struct Ipv4;

impl Family for Ipv4 {
    #[inline(always)]
    unsafe fn look(
        skb: *mut ffi::sk_buff,
        state: *const ffi::nf_hook_state,
        port: u16,
        packet: *mut ffi::hippos_packet,
    ) -> bool {
        // SAFETY: by this function's own requirement.
        unsafe { ffi::hippos_packet_ipv4(skb, state, port, packet) }
    }
}

struct Ipv6;

impl Family for Ipv6 {
    #[inline(always)]
    unsafe fn look(
        skb: *mut ffi::sk_buff,
        state: *const ffi::nf_hook_state,
        port: u16,
        packet: *mut ffi::hippos_packet,
    ) -> bool {
        // SAFETY: by this function's own requirement.
        unsafe { ffi::hippos_packet_ipv6(skb, state, port, packet) }
    }
}

/// # Safety
///
/// Called by netfilter, with the door's address as registered.
unsafe extern "C" fn on_packet<T: Door, F: Family>(
    private: *mut c_void,
    skb: *mut ffi::sk_buff,
    state: *const ffi::nf_hook_state,
) -> c_uint {
    // SAFETY: the `Hook` keeps the door until netfilter calls no more.
    let door = unsafe { &*private.cast::<T>() };
    let mut raw = MaybeUninit::<ffi::hippos_packet>::uninit();
    // SAFETY: netfilter's own arguments, passed on.
    if !unsafe { F::look(skb, state, door.port(), raw.as_mut_ptr()) } {
        return Fate::PASSED.0;
    }
    // SAFETY: the answer was yes, so `raw` is filled in and describes `skb`, which is the
    // hook's until it returns.
    let packet = unsafe { Packet::new(NonNull::new_unchecked(skb), raw.assume_init()) };
    door.receive(packet).0
}
