// SPDX-License-Identifier: GPL-2.0-only
//! Planted faults, each of which must make a run fail.

use std::fs;

use anyhow::{bail, Result};

/// A crash by the kernel's SysRq key, which follows a null pointer.
pub(super) fn crash() -> Result<()> {
    fs::write("/proc/sys/kernel/sysrq", "1")?;
    fs::write("/proc/sysrq-trigger", "c")?;
    bail!("still alive")
}

/// The test succeeds, but the kernel's log has a warning.
pub(super) fn warning() -> Result<()> {
    fs::write(
        "/dev/kmsg",
        "<4>WARNING: CPU: 0 PID: 1 at planted.c:1 planted\n",
    )?;
    Ok(())
}

/// The test returns an error.
pub(super) fn failure() -> Result<()> {
    bail!("planted")
}
