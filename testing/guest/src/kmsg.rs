// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's log: whether it complained since the last look.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;

/// The beginnings of the kernel's reports: no line may contain one.
const KERNEL_WARNINGS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "general protection fault",
    "Kernel panic",
    "Call Trace:",
    "rust_kernel: panicked",
    "UBSAN:",
    "INFO: task ",
    "rcu: INFO:",
    "self-detected stall",
    "possible recursive locking",
    "possible circular locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "sleeping function called",
    "scheduling while atomic",
    "held lock freed",
    "ODEBUG:",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "Bad page state",
    "unregister_netdevice: waiting",
    "suspected memory leaks",
    "soft lockup",
    "hung_task",
    "nf_hook",
    "skb_over_panic",
    "DEBUG_LOCKS_WARN_ON",
];

/// Taint bits that a test must not set (Documentation/admin-guide/tainted-kernels.rst): machine
/// check, bad page, died, warned, soft lockup. The module itself sets out-of-tree and unsigned.
const BAD_TAINT: u32 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14;

/// A reader of the kernel's log, from where it was opened.
pub(crate) struct Log {
    file: File,
}

impl Log {
    /// From the first line that the kernel still has.
    pub(crate) fn open() -> Result<Self> {
        let file = File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open("/dev/kmsg")
            .context("cannot read the kernel's log")?;
        Ok(Log { file })
    }

    /// The lines since the last call.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.file.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    // level,sequence,time,flags;text, then lines of device fields
                    let text = text.split_once(';').map_or("", |(_, text)| text);
                    lines.extend(text.lines().take(1).map(str::to_owned));
                }
                // The ring has overwritten lines; the next read continues behind them.
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {
                    lines.push("(lines lost)".into());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        lines
    }
}

/// The complaints among `lines`, and the taint if it is a bad one.
pub(crate) fn kernel_warnings(lines: &[String]) -> Vec<String> {
    let mut found: Vec<String> = lines
        .iter()
        .filter(|line| is_kernel_warning(line))
        .cloned()
        .collect();
    let taint = std::fs::read_to_string("/proc/sys/kernel/tainted").unwrap_or_default();
    let taint: u32 = taint.trim().parse().unwrap_or(0);
    if taint & BAD_TAINT != 0 {
        found.push(format!("the kernel is tainted: {taint:#x}"));
    }
    found
}

fn is_kernel_warning(line: &str) -> bool {
    KERNEL_WARNINGS
        .iter()
        .any(|complaint| line.contains(complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_distinguished_from_other_lines() {
        assert!(is_kernel_warning(
            "WARNING: CPU: 0 PID: 1 at net/core/dev.c:1"
        ));
        assert!(is_kernel_warning(
            "BUG: kernel NULL pointer dereference, address: 0"
        ));
        assert!(is_kernel_warning(
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks"
        ));
        assert!(!is_kernel_warning(
            "hippos: module verification failed: signature missing"
        ));
        assert!(!is_kernel_warning("hippos: port 11211 is in use"));
    }
}
