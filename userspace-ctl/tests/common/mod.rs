// SPDX-License-Identifier: GPL-2.0-only
//! The program under test.

use std::process::Command;

/// Runs hippos-ctl; returns its status, standard output and standard error.
pub(crate) fn ctl(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hippos-ctl"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap();
    (status, text(output.stdout), text(output.stderr))
}
