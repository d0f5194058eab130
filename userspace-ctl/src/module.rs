// SPDX-License-Identifier: GPL-2.0-only
//! Unloads the module.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use nix::errno::Errno;
use nix::kmod::{delete_module, DeleteModuleFlags};

use crate::exit::{end, Status};
use crate::{xdp, XdpMode};

/// How long a detached program, of this call or an earlier one, may keep the module in use: the kernel frees it later.
const PROGRAM_GOES: Duration = Duration::from_secs(10);

/// Detaches the XDP program from all interfaces, then unloads the module.
///
/// # Errors
///
/// The module is still in use, or cannot be unloaded: the programs are attached again, as far as possible.
pub(crate) fn stop() -> Result<()> {
    let attached = match xdp::interfaces()? {
        interfaces if interfaces.is_empty() => Vec::new(),
        _ => xdp::status()?,
    };
    for (interface, _) in &attached {
        xdp::detach(interface)?;
    }
    let unloaded = unload(PROGRAM_GOES);
    match &unloaded {
        Err(error) if Status::of(error) != Status::NotLoaded => {}
        _ => return unloaded,
    }
    for (interface, mode) in &attached {
        let mode = match *mode {
            "native" => XdpMode::Native,
            "generic" => XdpMode::Generic,
            _ => continue,
        };
        if let Err(error) = xdp::attach(interface, mode) {
            eprintln!("hippos-ctl: {interface} stays without XDP: {error:#}");
        }
    }
    unloaded
}

/// Unloads the module; waits up to `timeout` while it is in use.
fn unload(timeout: Duration) -> Result<()> {
    let end = Instant::now() + timeout;
    let remove = || delete_module(c"hippos", DeleteModuleFlags::O_NONBLOCK);
    let mut removed = remove();
    while removed == Err(Errno::EWOULDBLOCK) && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
        removed = remove();
    }
    match removed {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT) => end!(NotLoaded, "the module is not loaded"),
        Err(Errno::EWOULDBLOCK) => end!(
            Refused,
            "the module is in use: another XDP program calls it, or /dev/hippos is open"
        ),
        Err(Errno::EPERM) => end!(NoPermission, "only root may unload the module"),
        Err(error) => bail!("the module can't be unloaded: {error}"),
    }
}
