// SPDX-License-Identifier: GPL-2.0-only
//! The PRE_ROUTING hook of one network namespace (`linux/netfilter.h`).

use core::ffi::{c_uint, c_void};
use core::net::IpAddr;
use core::ptr::NonNull;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::ffi;
use crate::latency;
use crate::namespace::Namespace;
use crate::packet::{source, Packet, Verdict};
use crate::rcu;

/// Handles the packets of a [`Hook`], in softirq under RCU, on many CPUs at once.
pub trait PacketHandler: Send + Sync + 'static {
    /// The UDP port whose packets it handles.
    fn port(&self) -> u16;

    /// The number of the interface that the socket behind is bound to; 0 for none.
    fn interface(&self) -> u32;

    /// Whether a source is allowed, over a loopback device if `local`. Called before the
    /// return path of its replies is looked up; under RCU, too.
    fn is_allowed(&self, section: rcu::ReadSection, source: IpAddr, local: bool) -> bool;

    /// Decides about one packet.
    fn receive(&self, packet: Packet<'_>) -> Verdict;

    /// Records, while times are [measured](crate::latency), the service time of a packet that was not
    /// passed, and the time that it had waited, in nanoseconds. In the same context.
    fn record(&self, xdp: bool, service: u64, queued: Option<u64>);
}

/// The port of other servers, to which C sends no reply, beside those to our own port and to 0.
pub const MEMCACHED_PORT: u16 = ffi::HIPPOS_MEMCACHED_PORT;

/// When packets are answered before the socket.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Fast {
    /// While neither NAT nor rules for outgoing packets could affect a reply.
    Auto = ffi::HIPPOS_AUTO,
    /// Independently of the firewall.
    Always = ffi::HIPPOS_ALWAYS,
    /// Behind destination NAT, while rules for outgoing packets could not affect a reply.
    Late = ffi::HIPPOS_LATE,
}

/// Whether the receive paths before the socket are open, a word for IPv4 and one for IPv6 each.
#[derive(Clone, Copy)]
pub struct FastPathState {
    /// Of the hook.
    pub hook: [&'static str; 2],
    /// Of XDP.
    pub xdp: [&'static str; 2],
}

/// Tests the sending of replies with devices that it makes, before there is a [`Hook`]. `EIO` when replies are lost.
pub fn test_transmit() -> Result {
    // SAFETY: process context, and no handler sends yet.
    to_result(unsafe { ffi::hippos_transmit_test() })
}

/// The present state of the receive paths.
pub fn fast_path_state() -> FastPathState {
    // SAFETY: has no requirements.
    let raw = unsafe { ffi::hippos_fast_path_state() };
    let word = |why: u8| match why.into() {
        ffi::HIPPOS_OPEN => "open",
        ffi::HIPPOS_CLOSED_NAT => "nat",
        ffi::HIPPOS_CLOSED_OUTPUT => "output",
        ffi::HIPPOS_CLOSED_POSTROUTING => "postrouting",
        _ => "off",
    };
    let [hook, xdp] = raw.why.map(|[ipv6, ipv4]| [word(ipv4), word(ipv6)]);
    FastPathState { hook, xdp }
}

/// The C structure of `handler`, with its address.
pub(crate) fn describe<T: PacketHandler>(handler: &Arc<T>) -> ffi::hippos_handler {
    ffi::hippos_handler {
        receive: receive::<T>,
        allow: allow::<T>,
        record: record::<T>,
        private: (&raw const **handler).cast_mut().cast::<c_void>(),
        interface: handler.interface(),
        port: handler.port(),
        kind: ffi::HIPPOS_HOOK,
    }
}

/// A registered hook for IPv4 and IPv6. Dropping it waits until no packet is
/// inside any more.
///
/// # Invariants
///
/// `hooks` is registered with `handler`'s address, which stays valid meanwhile.
pub struct Hook<T: PacketHandler> {
    hooks: NonNull<ffi::hippos_hooks>,
    /// Fields are dropped after [`Drop::drop`]: the handler outlives the hook,
    _handler: Arc<T>,
    /// and so does the namespace.
    _namespace: Arc<Namespace>,
}

// SAFETY: registration belongs to no thread, and the handler is `Send` and `Sync`.
unsafe impl<T: PacketHandler> Send for Hook<T> {}
// SAFETY: a shared hook has no methods.
unsafe impl<T: PacketHandler> Sync for Hook<T> {}

impl<T: PacketHandler> Hook<T> {
    /// Sends `handler`'s packets in `namespace` to it.
    pub fn new(namespace: Arc<Namespace>, handler: Arc<T>, fast: Fast) -> Result<Self> {
        let raw = describe(&handler);
        // SAFETY: the callbacks are made for `T`, and handler and namespace are kept by the
        // value until the hooks are unregistered; the description is copied.
        let hooks = from_err_ptr(unsafe {
            ffi::hippos_hooks_register(namespace.as_ptr(), &raw, fast as c_uint)
        })?;
        // INVARIANT: just registered.
        Ok(Self {
            hooks: NonNull::new(hooks).ok_or(ENOMEM)?,
            _handler: handler,
            _namespace: namespace,
        })
    }
}

impl<T: PacketHandler> Drop for Hook<T> {
    fn drop(&mut self) {
        // SAFETY: by the invariant registered, and never unregistered before.
        unsafe { ffi::hippos_hooks_unregister(self.hooks.as_ptr()) }
    }
}

/// # Safety
///
/// Called in softirq under RCU with the handler's address as registered, and a description
/// with the sender's address.
unsafe extern "C" fn allow<T: PacketHandler>(
    private: *mut c_void,
    raw: *const ffi::hippos_packet,
) -> bool {
    // SAFETY: the registrar keeps the handler until there are no more calls.
    let handler = unsafe { &*private.cast::<T>() };
    // SAFETY: by this function's own requirement; fields that are not filled in are numbers as well.
    let (source, local) = unsafe { (source(&*raw), (*raw).local) };
    // SAFETY: we are inside a section, which the caller ends.
    handler.is_allowed(unsafe { rcu::within() }, source, local)
}

/// # Safety
///
/// Called in softirq under RCU with the handler's address as registered.
#[cold]
unsafe extern "C" fn record<T: PacketHandler>(
    private: *mut c_void,
    kind: u32,
    service: u64,
    queued: u64,
) {
    // SAFETY: the registrar keeps the handler until there are no more calls.
    let handler = unsafe { &*private.cast::<T>() };
    handler.record(kind == ffi::HIPPOS_XDP, service, latency::queued(queued));
}

/// # Safety
///
/// Called in softirq under RCU with the handler's address as registered, an sk_buff
/// that is the caller's or null, and the description of it or of a frame of the caller's.
pub(crate) unsafe extern "C" fn receive<T: PacketHandler>(
    private: *mut c_void,
    skb: *mut ffi::sk_buff,
    raw: *mut ffi::hippos_packet,
) -> u32 {
    // SAFETY: the registrar keeps the handler until there are no more calls.
    let handler = unsafe { &*private.cast::<T>() };
    // SAFETY: by this function's own requirement `raw` is filled in, describes `skb`, and is ours until we
    // return, as `skb` is.
    let packet = unsafe { Packet::new(NonNull::new(skb), &mut *raw) };
    handler.receive(packet).0
}
