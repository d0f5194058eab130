// SPDX-License-Identifier: GPL-2.0-only
//! Start and stop of the guest.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{bail, Context, Result};
use nix::mount::{mount, MsFlags};
use nix::sys::reboot::{reboot, RebootMode};

use crate::{control, modules, net};

/// Loaded before anything else; what tests need besides, they load themselves.
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
    // Comes back only with an error; PID 1 then ends, which stops the machine all the same.
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("hippos-guest: cannot power off: {error}");
}

/// Runs a program to its end; its output is in the error when it fails.
pub(crate) fn run(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{line}` ended with {}: {}{}",
            output.status,
            text.trim(),
            error.trim()
        );
    }
    Ok(text)
}

/// A shell on a serial port, until it ends.
pub(crate) fn shell(tty: &str) -> Result<()> {
    let path = Path::new("/dev").join(tty);
    let open = || File::options().read(true).write(true).open(&path);
    Command::new("/bin/busybox")
        .args(["setsid", "-c", "/bin/sh", "-l"])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/")
        .env("PS1", "guest:\\w# ")
        .stdin(open()?)
        .stdout(open()?)
        .stderr(open()?)
        .status()
        .context("cannot start a shell")?;
    Ok(())
}

/// A line of /proc/meminfo, in bytes.
pub(crate) fn memory(name: &str) -> Result<u64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let line = info.lines().find(|line| line.starts_with(name));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kilobytes.with_context(|| name.to_owned())?.parse::<u64>()? << 10)
}
