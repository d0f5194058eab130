// SPDX-License-Identifier: GPL-2.0-only
//! The module's version (`linux/module.h`).

use kernel::str::{CStr, CStrExt as _};

use crate::ffi;

/// The package's version and a digest of the module's sources, as in `/sys/module/hippos/version`.
pub fn version() -> &'static str {
    // SAFETY: a string constant of the module's.
    let version: &'static CStr = unsafe { CStr::from_char_ptr(ffi::hippos_version()) };
    version.to_str().unwrap_or_default()
}
