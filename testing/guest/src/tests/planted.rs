// SPDX-License-Identifier: GPL-2.0-only
//! Planted faults: what must make a run fail, so that one sees that it does.

use std::fs;

use anyhow::{bail, Result};

/// The kernel's own crash key: a null pointer is followed.
pub(super) fn crash() -> Result<()> {
    fs::write("/proc/sys/kernel/sysrq", "1")?;
    fs::write("/proc/sysrq-trigger", "c")?;
    bail!("still alive")
}

/// The test is content, but the kernel's log is not clean.
pub(super) fn warning() -> Result<()> {
    fs::write(
        "/dev/kmsg",
        "<4>WARNING: CPU: 0 PID: 1 at planted.c:1 planted\n",
    )?;
    Ok(())
}

/// The plainest.
pub(super) fn failure() -> Result<()> {
    bail!("planted")
}
