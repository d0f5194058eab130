// SPDX-License-Identifier: GPL-2.0-only
//! Safe wrappers over the kernel's interfaces that the `kernel` crate lacks:
//! packets and their hook, sockets and the list of the ready ones, threads,
//! grace periods, pages, the control device and the module's parameters.
//!
//! Nothing here depends on memcached. All foreign functions are declared in
//! [`ffi`]; their C side is `kmod/c`.
#![deny(unsafe_op_in_unsafe_fn)]
#![deny(missing_docs)]

pub mod counters;
pub mod cpu;
pub mod device;
pub mod fault;
mod ffi;
pub mod hook;
pub mod latency;
pub mod lock;
pub mod log;
pub mod namespace;
pub mod packet;
pub mod pages;
pub mod params;
pub mod pass;
pub mod poll;
pub mod random;
pub mod rcu;
pub mod registry;
pub mod socket;
pub mod steer;
pub mod stream;
pub mod thread;
pub mod time;
pub mod trace;
pub mod version;
pub mod xdp;
