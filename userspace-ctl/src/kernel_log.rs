// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's log: the module's messages during the load, and a record of changes.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use hippos_abi::log_line::each_part;
use nix::libc;

const DEVICE: &str = "/dev/kmsg";
/// The longest record (`PRINTK_MESSAGE_MAX`, linux/printk.h).
const RECORD_MOST: usize = 8192;

/// The log from a certain time on.
pub(crate) struct Log(Option<File>);

impl Log {
    /// The log from now on. Without permission to read it, it is empty.
    pub(crate) fn from_now() -> Self {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(DEVICE).ok();
        Log(file.filter(|mut file| file.seek(SeekFrom::End(0)).is_ok()))
    }

    /// The module's lines since then.
    pub(crate) fn of_module(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let Some(file) = &mut self.0 else {
            return lines;
        };
        let mut record = [0; RECORD_MOST];
        loop {
            match file.read(&mut record) {
                Ok(0) => return lines,
                Ok(len) => lines.extend(message(&String::from_utf8_lossy(&record[..len]))),
                // Records were overwritten before they were read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(_) => return lines,
            }
        }
    }
}

/// The message of a record that the module wrote.
fn message(record: &str) -> Option<String> {
    let (_, text) = record.split_once(';')?;
    let text = text.lines().next()?.strip_prefix("hippos: ")?;
    Some(text.to_owned())
}

/// Logs a change and its user. Without permission, nothing is logged.
pub(crate) fn note(what: &str) {
    let login = fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    let lines = noted(what, nix::unistd::getuid().as_raw(), login.trim());
    if let Ok(mut file) = OpenOptions::new().write(true).open(DEVICE) {
        for line in lines {
            // The kernel logs each write as one line.
            drop(file.write_all(line.as_bytes()));
        }
    }
}

/// The lines, more than one if the text is long, each with the user.
fn noted(what: &str, user: u32, login: &str) -> Vec<String> {
    // Lines of its own must not look like the kernel's.
    let what = what.replace(char::is_control, " ");
    let by = match login.parse::<u32>() {
        Ok(login) if login != u32::MAX => format!("by user {user}, who logged in as {login}"),
        _ => format!("by user {user}"),
    };
    let mut lines = Vec::new();
    each_part(&what, |part| {
        lines.push(format!("hippos-ctl: {part} ({by})\n"));
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_other_modules_are_skipped() {
        let record = "3,12,345,-;hippos: port 11211 is in use\n SUBSYSTEM=x\n";
        assert_eq!(message(record).as_deref(), Some("port 11211 is in use"));
        assert_eq!(message("3,12,345,-;other: x\n"), None);
        assert_eq!(message("nothing"), None);
    }

    #[test]
    fn a_note_names_the_user_and_is_one_line() {
        assert_eq!(
            noted("memory 64\nfaked", 0, "1000"),
            ["hippos-ctl: memory 64 faked (by user 0, who logged in as 1000)\n"]
        );
        assert_eq!(
            noted("flush", 0, "4294967295"),
            ["hippos-ctl: flush (by user 0)\n"]
        );
    }

    #[test]
    fn a_long_note_is_several_lines_that_the_kernel_accepts() {
        /// `PRINTKRB_RECORD_MAX`, kernel/printk/printk.c
        const ACCEPTED: usize = 1024;
        let networks: Vec<_> = (0..99).map(|n| format!("10.100.{n}.0/24")).collect();
        let lines = noted(
            &format!("allow set {}", networks.join(",")),
            u32::MAX,
            "1000",
        );
        assert!(lines.len() > 1);
        for line in &lines {
            assert!(line.len() <= ACCEPTED, "{} bytes", line.len());
            assert!(
                line.ends_with("(by user 4294967295, who logged in as 1000)\n"),
                "{line}"
            );
        }
        for network in networks {
            assert!(
                lines.iter().any(|line| line.contains(&network)),
                "{network}"
            );
        }
    }
}
