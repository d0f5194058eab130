// SPDX-License-Identifier: GPL-2.0-only
//! kmemleak's findings, on kernels that have it (Documentation/dev-tools/kmemleak.rst).

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

const FILE: &str = "/sys/kernel/debug/kmemleak";
/// What is younger is not reported.
const AGE: Duration = Duration::from_secs(6);

/// Whether this kernel can tell. KASAN holds freed memory back on such a one, so that counting what
/// is free says nothing there.
pub(crate) fn kmemleak_is_on() -> bool {
    Path::new(FILE).exists()
}

/// What is allocated and not referred to from anywhere, with the call that allocated it; empty
/// when there is nothing. `None` on kernels that can't tell.
pub(crate) fn find() -> Result<Option<String>> {
    if !kmemleak_is_on() {
        return Ok(None);
    }
    thread::sleep(AGE);
    // Something that changed since the last scan is taken for used.
    for _ in 0..2 {
        fs::write(FILE, "scan").context("kmemleak does not scan")?;
    }
    let found = fs::read_to_string(FILE).context("kmemleak does not tell")?;
    if !found.is_empty() {
        fs::write(FILE, "clear")?;
    }
    Ok(Some(found))
}
