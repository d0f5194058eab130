// SPDX-License-Identifier: GPL-2.0-only
//! Files of users, checked before they are sent to the module.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{bail, ensure, Result};

/// The most bytes that the module accepts.
const MOST: usize = hippos_abi::CREDENTIALS_MAX as usize;
/// The number of colons in a line of passwd(5).
const PASSWD: usize = 6;
/// The most bytes of a name and a password that a client can send.
const LINE_MOST: usize = 1024;

/// Checks the lines of a file, each of which is a name, a colon and a password. The error does not contain passwords.
pub(crate) fn check(bytes: &[u8]) -> Result<()> {
    ensure!(
        bytes.len() <= MOST,
        "{} bytes: must be at most {MOST}",
        bytes.len()
    );
    let mut users = 0;
    let lines = bytes.split(|byte| *byte == b'\n');
    for (number, line) in (1..).zip(lines) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        users += 1;
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            bail!("line {number}: must be like user:password");
        };
        let (user, password) = (&line[..colon], &line[colon + 1..]);
        let colons = line.iter().filter(|byte| **byte == b':').count();
        ensure!(
            colons < PASSWD,
            "line {number} is like one of passwd(5): must be like user:password"
        );
        ensure!(!user.is_empty(), "line {number}: there is no name");
        ensure!(!password.is_empty(), "line {number}: there is no password");
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | 0);
        ensure!(
            !line.iter().any(blank),
            "line {number}: a client can't send a name or a password with blanks"
        );
        ensure!(
            line.len() <= LINE_MOST,
            "line {number}: a client can't send more than {LINE_MOST} bytes"
        );
    }
    ensure!(
        users > 0,
        "it has no users: must have lines like user:password"
    );
    Ok(())
}

/// Whether all users of this host may read a file.
pub(crate) fn is_readable_by_all(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_lines_are_accepted() {
        for lines in ["a:b", "a:b\n", "a:b\r\nuser:pass:word\n\n"] {
            assert!(check(lines.as_bytes()).is_ok(), "{lines:?}");
        }
    }

    #[test]
    fn malformed_files_are_refused_without_printing_passwords() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n";
        let shadow = "a:b\nroot:$y$secret:20000:0:99999:7:::\n";
        let long = format!("a:{}", "secret".repeat(200));
        let longer = "user:secret\n".repeat(200);
        for (lines, expected) in [
            (passwd, "line 1 is like one of passwd(5)"),
            (shadow, "line 2 is like one of passwd(5)"),
            ("", "it has no users"),
            ("\n\n", "it has no users"),
            ("a:b\nsecret", "line 2: must be like user:password"),
            (":secret", "line 1: there is no name"),
            ("user:", "line 1: there is no password"),
            ("user: secret", "blanks"),
            (&long, "line 1: a client can't send more than 1024 bytes"),
            (&longer, "2400 bytes: must be at most 2048"),
        ] {
            let error = check(lines.as_bytes()).expect_err(lines).to_string();
            assert!(error.contains(expected), "{lines}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
