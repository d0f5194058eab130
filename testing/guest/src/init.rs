// SPDX-License-Identifier: GPL-2.0-only
//! Start and stop of the guest.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::mount::{mount, MsFlags};
use nix::sys::reboot::{reboot, RebootMode};

use crate::{control, modules, net};

/// The modules that are loaded at boot; tests load further ones themselves.
const BOOT_MODULES: &[&str] = &["virtio_net", "virtio_rng"];

/// The life of PID 1. Comes back only when the start failed, which panics the kernel and so ends
/// the virtual machine: the host sees why on the console.
pub(crate) fn init() -> ExitCode {
    match start().and_then(|()| control::serve()) {
        Ok(()) => power_off(),
        Err(error) => eprintln!("hippos-guest: {error:#}"),
    }
    ExitCode::FAILURE
}

fn start() -> Result<()> {
    let mounts = [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("debugfs", "/sys/kernel/debug"),
        ("bpf", "/sys/fs/bpf"),
    ];
    for (kind, target) in mounts {
        fs::create_dir_all(target)?;
        mount(
            Some(kind),
            target,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("cannot mount {target}"))?;
    }
    fs::create_dir_all("/run/netns")?;
    stop_deadline_servers();
    for module in BOOT_MODULES {
        modules::load(module)?;
    }
    net::up()
}

/// Turns the scheduler's deadline servers off: on an emulated CPU that falls far behind, the stock
/// kernel now and then finds a server's timer queued that it is about to queue, and warns of it.
fn stop_deadline_servers() {
    for server in ["fair_server", "ext_server"] {
        let cpus = fs::read_dir(Path::new("/sys/kernel/debug/sched").join(server));
        for cpu in cpus.into_iter().flatten().flatten() {
            // A kernel without them has nothing to turn off.
            let _ = fs::write(cpu.path().join("runtime"), "0");
        }
    }
}

fn power_off() {
    nix::unistd::sync();
    // Returns only with an error; PID 1 then ends, which stops the machine too.
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("hippos-guest: cannot power off: {error}");
}
