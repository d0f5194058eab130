// SPDX-License-Identifier: GPL-2.0-only
//! Programs and files of the guest.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};

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
