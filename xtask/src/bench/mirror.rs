//! Builds the packet mirror (`xtask/mirror`) for the stock kernel.

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
            workspace::root().join("xtask/mirror").display()
        ))
        .arg(format!("MO={}", out.display()))
        .args(["--no-print-directory", "modules"]);
    shell::output(&mut make).context("the mirror does not build")?;
    let module = out.join("mirror.ko");
    ensure!(module.exists(), "the build left no {}", module.display());
    Ok(module)
}
