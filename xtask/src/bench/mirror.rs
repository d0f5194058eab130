// SPDX-License-Identifier: GPL-2.0-only
//! Builds the packet mirrors (`bench/mirror`): the module for the stock kernel, and the XDP program.

use std::fs;
use std::path::PathBuf;

use anyhow::{ensure, Context, Result};

use crate::root::Root;
use crate::{shell, workspace};

/// The module's path.
pub(crate) fn build(root: &Root) -> Result<PathBuf> {
    let out = workspace::root().join("target/mirror");
    fs::create_dir_all(&out)?;
    let mut make = root.command("/usr/bin/make");
    make.arg("-C")
        .arg(&root.kernel().tree)
        .arg(format!(
            "M={}",
            workspace::root().join("bench/mirror").display()
        ))
        .arg(format!("MO={}", out.display()))
        .args(["--no-print-directory", "modules"]);
    shell::output(&mut make).context("the mirror does not build")?;
    let module = out.join("mirror.ko");
    ensure!(module.exists(), "the build left no {}", module.display());
    Ok(module)
}

/// The XDP program's path.
pub(crate) fn build_xdp(root: &Root) -> Result<PathBuf> {
    let program = workspace::root().join("target/mirror/mirror.bpf.o");
    let mut clang = root.command("/usr/bin/clang");
    clang
        .args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-c"])
        .arg(workspace::root().join("bench/mirror/xdp.bpf.c"))
        .arg("-o")
        .arg(&program);
    shell::output(&mut clang).context("the XDP mirror does not build")?;
    Ok(program)
}
