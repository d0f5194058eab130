// SPDX-License-Identifier: GPL-2.0-only
//! The module's parameters, as insmod left them (`kmod/c/params.c`).

use kernel::ffi::c_char;
use kernel::str::{CStr, CStrExt as _};

use crate::ffi;

/// All parameters. Their meaning is told by `modinfo`.
#[allow(missing_docs)]
#[derive(Clone, Copy)]
pub struct Params {
    pub port: u32,
    pub memory_mb: u32,
    pub maxconns: u32,
    pub factor: u32,
    pub item_min: u32,
    pub threads: u32,
    pub backlog: u32,
    pub selftest: u32,
    pub steer: u32,
    pub upload_timeout: u32,
    pub udp_bytes: u32,
    pub udp_rate: u32,
    pub udp: bool,
    pub selftest_oops: bool,
    pub item_max: &'static [u8],
    pub eviction: &'static [u8],
    pub allow: &'static [u8],
    pub admin: &'static [u8],
    /// Empty for every interface.
    pub dev: &'static CStr,
    pub udp_fast: &'static [u8],
}

impl Params {
    /// Reads them.
    pub fn get() -> Self {
        // SAFETY: written before the module's init runs, and shown read-only in sysfs.
        let raw = unsafe { &ffi::hippos_params };
        Self {
            port: raw.port,
            memory_mb: raw.memory_mb,
            maxconns: raw.maxconns,
            factor: raw.factor,
            item_min: raw.item_min,
            threads: raw.threads,
            backlog: raw.backlog,
            selftest: raw.selftest,
            steer: raw.steer,
            upload_timeout: raw.upload_timeout,
            udp_bytes: raw.udp_bytes,
            udp_rate: raw.udp_rate,
            udp: raw.udp,
            selftest_oops: raw.selftest_oops,
            item_max: text(raw.item_max).to_bytes(),
            eviction: text(raw.eviction).to_bytes(),
            allow: text(raw.allow).to_bytes(),
            admin: text(raw.admin).to_bytes(),
            dev: text(raw.dev),
            udp_fast: text(raw.udp_fast).to_bytes(),
        }
    }
}

fn text(raw: *const c_char) -> &'static CStr {
    if raw.is_null() {
        return c"";
    }
    // SAFETY: a string of the module's own, as a default or as insmod gave it; it lives as
    // long as the module.
    unsafe { CStr::from_char_ptr(raw) }
}
