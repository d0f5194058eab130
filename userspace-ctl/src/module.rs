// SPDX-License-Identifier: GPL-2.0-only
//! The module itself, as the kernel's loader knows it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use nix::errno::Errno;
use nix::kmod::{delete_module, DeleteModuleFlags};

/// Takes the module out of the kernel; waits so long for its users to go.
pub(crate) fn unload(patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    let remove = || delete_module(c"hippos", DeleteModuleFlags::O_NONBLOCK);
    let mut removed = remove();
    while removed == Err(Errno::EWOULDBLOCK) && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
        removed = remove();
    }
    match removed {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT) => bail!("the module is not loaded"),
        Err(Errno::EWOULDBLOCK) => bail!(
            "the module is in use: an XDP program of somebody's calls it, or /dev/hippos is open"
        ),
        Err(Errno::EPERM) => bail!("only root may unload the module"),
        Err(error) => bail!("the module can't be unloaded: {error}"),
    }
}
