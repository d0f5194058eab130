// SPDX-License-Identifier: GPL-2.0-only
//! kmemleak's findings, on kernels that have it (Documentation/dev-tools/kmemleak.rst).

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

const FILE: &str = "/sys/kernel/debug/kmemleak";
/// kmemleak does not report younger objects.
const AGE: Duration = Duration::from_secs(6);

/// Whether this kernel has kmemleak. Such a kernel has KASAN too, which holds freed memory back, so that
/// the amount of free memory does not show leaks.
pub(crate) fn kmemleak_is_on() -> bool {
    Path::new(FILE).exists()
}

/// The allocated objects that nothing refers to, with the calls that allocated them; empty if
/// there are none. `None` on kernels without kmemleak.
pub(crate) fn find() -> Result<Option<String>> {
    if !kmemleak_is_on() {
        return Ok(None);
    }
    thread::sleep(AGE);
    // An object that changed since the last scan counts as used.
    for _ in 0..2 {
        fs::write(FILE, "scan").context("kmemleak does not scan")?;
    }
    let found = fs::read_to_string(FILE).context("kmemleak does not tell")?;
    if !found.is_empty() {
        fs::write(FILE, "clear")?;
    }
    Ok(Some(found))
}
