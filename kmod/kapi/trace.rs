// SPDX-License-Identifier: GPL-2.0-only
//! Trace points (`linux/tracepoint.h`): `kmod/c/hippos_trace.h` defines them. Each `…_on` is a patched
//! branch, a no-op while it is off; the other functions are called while it is on. Any context.

use core::ffi::CStr;
use core::net::{IpAddr, SocketAddr};
use kernel::ffi::c_char;
use kernel::str::CStrExt as _;

use crate::ffi;

/// A name in C's form.
fn text(name: &'static CStr) -> *const c_char {
    name.as_char_ptr()
}

fn word(name: &'static str) -> ffi::hippos_traced_word {
    ffi::hippos_traced_word {
        text: name.as_ptr().cast(),
        len: name.len() as u32,
    }
}

macro_rules! enabled {
    ($($(#[$doc:meta])* $name:ident = $point:ident;)+) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name() -> bool {
            #[cfg(CONFIG_TRACEPOINTS)]
            // SAFETY: a trace point that C defines; the field is its static key.
            unsafe {
                kernel::jump_label::static_branch_unlikely!(
                    ffi::$point,
                    kernel::bindings::tracepoint,
                    key
                )
            }
            #[cfg(not(CONFIG_TRACEPOINTS))]
            false
        }
    )+};
}

enabled! {
    /// Whether requests are traced.
    requests_on = __tracepoint_request;
    /// Whether refusals are.
    refusals_on = __tracepoint_refuse;
    /// Whether evictions are.
    evictions_on = __tracepoint_evict;
    /// Whether expired and flushed items are.
    expiries_on = __tracepoint_expire;
    /// Whether slabs that move to another class are.
    reclaims_on = __tracepoint_reclaim;
    /// Whether steering is.
    steering_on = __tracepoint_steer;
}

/// The most bytes of a key's text that an event holds: a zero ends it.
pub const KEY_TEXT_MAX: usize = ffi::HIPPOS_TRACED_KEY - 1;

/// A key as it is shown, and the bytes of the whole key.
#[derive(Clone, Copy)]
pub struct TracedKey<'a> {
    /// Encoded, so that it can be printed to a terminal.
    pub text: &'a [u8],
    /// The whole key's length.
    pub len: usize,
}

impl TracedKey<'_> {
    fn raw(&self) -> ffi::hippos_traced_key {
        ffi::hippos_traced_key {
            text: self.text.as_ptr().cast(),
            shown: self.text.len() as u32,
            len: self.len as u32,
        }
    }
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// A request that was served, or several together.
pub struct RequestEvent<'a> {
    /// Where it was served.
    pub path: &'static CStr,
    /// The client.
    pub client: SocketAddr,
    /// The command's name.
    pub command: &'static str,
    /// The key that it is about.
    pub key: TracedKey<'a>,
    /// The outcome's name.
    pub outcome: &'static str,
    /// How many were served together.
    pub commands: u32,
    /// Bytes of the reply.
    pub bytes: usize,
    /// How long it took, nanoseconds.
    pub ns: u64,
}

impl RequestEvent<'_> {
    /// Traces it.
    #[cold]
    pub fn emit(&self) {
        let raw = ffi::hippos_traced_request {
            ns: self.ns,
            path: text(self.path),
            command: word(self.command),
            outcome: word(self.outcome),
            key: self.key.raw(),
            client: mapped(self.client.ip()),
            commands: self.commands,
            bytes: u32::try_from(self.bytes).unwrap_or(u32::MAX),
            port: self.client.port(),
        };
        // SAFETY: only reads the structure and its texts, which outlive the call.
        unsafe { ffi::hippos_trace_request(&raw) }
    }
}

/// Traces that a client was refused.
#[cold]
pub fn refuse(path: &'static CStr, reason: &'static CStr, client: SocketAddr) {
    let (ip, port) = (mapped(client.ip()), client.port());
    // SAFETY: only reads the structure and its texts, which outlive the call.
    unsafe { ffi::hippos_trace_refuse(text(path), text(reason), &ip, port) }
}

/// An item that is removed without a request.
pub struct TracedItem<'a> {
    /// Its key.
    pub key: TracedKey<'a>,
    /// The reason's name.
    pub reason: &'static CStr,
    /// Its slab class, counted from 1.
    pub slab_class: u8,
    /// Its bytes, header included.
    pub size: u32,
    /// Seconds since it was read or stored.
    pub idle: u32,
    /// Whether it was read since it was stored.
    pub fetched: bool,
}

impl TracedItem<'_> {
    fn raw(&self) -> ffi::hippos_traced_item {
        ffi::hippos_traced_item {
            key: self.key.raw(),
            reason: text(self.reason),
            size: self.size,
            idle: self.idle,
            slab_class: self.slab_class,
            fetched: self.fetched,
        }
    }

    /// Traces that it was evicted.
    #[cold]
    pub fn evict(&self) {
        // SAFETY: only reads the structure and its texts, which outlive the call.
        unsafe { ffi::hippos_trace_evict(&self.raw()) }
    }

    /// Traces that it was found dead and reclaimed.
    #[cold]
    pub fn expire(&self) {
        // SAFETY: as for `evict`.
        unsafe { ffi::hippos_trace_expire(&self.raw()) }
    }
}

/// Traces that a slab of a class was emptied for another one, 0 for none.
#[cold]
pub fn reclaim(from_class: u32, to_class: u32) {
    // SAFETY: takes numbers.
    unsafe { ffi::hippos_trace_reclaim(from_class, to_class) }
}

/// Traces that packets or a worker move from one CPU to another; `None` stands for all others.
#[cold]
pub fn steer(what: &'static CStr, from: Option<u32>, to: Option<u32>, load: u32) {
    let number = |cpu: Option<u32>| cpu.map_or(-1, |cpu| cpu as i32);
    // SAFETY: only reads its arguments.
    unsafe { ffi::hippos_trace_steer(text(what), number(from), number(to), load) }
}
