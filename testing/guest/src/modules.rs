// SPDX-License-Identifier: GPL-2.0-only
//! Loading and unloading kernel modules.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::leaks;
use crate::receive_path;
use crate::system::run;
use anyhow::{Context, Result};
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};

/// The module under test.
pub(crate) const HIPPOS: &str = "/hippos.ko";
/// The kernel unpacks the file itself (`MODULE_INIT_COMPRESSED_FILE`, linux/module.h).
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// Loads one of the stock kernel's modules, and first its dependencies, unless it is loaded or
/// built in.
pub(crate) fn load(name: &str) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let dir = Path::new("/lib/modules").join(release.trim());
    let depends = fs::read_to_string(dir.join("modules.dep"))?;
    let Some((path, needs)) = depends
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(path, _)| module_name(path) == name)
    else {
        let builtin = fs::read_to_string(dir.join("modules.builtin"))?;
        return builtin
            .lines()
            .any(|path| module_name(path) == name)
            .then_some(())
            .with_context(|| {
                format!("the guest has no module {name}: see xtask/src/initramfs.rs")
            });
    };
    // modules.dep has the nearest first.
    for file in needs.split_whitespace().rev().chain([path]) {
        if !loaded(&module_name(file)) {
            insert(&dir.join(file), "").with_context(|| format!("cannot load {file}"))?;
        }
    }
    Ok(())
}

/// Whether a module of that name is loaded.
pub(crate) fn loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).join("refcnt").exists()
}

/// Loads the module file with these parameters; the error is the kernel's.
pub(crate) fn insert(file: &Path, parameters: &str) -> nix::Result<()> {
    let flags = if file.extension().is_some_and(|extension| extension == "xz") {
        COMPRESSED
    } else {
        ModuleInitFlags::empty()
    };
    let open = File::open(file).map_err(|_| nix::errno::Errno::ENOENT)?;
    let parameters = CString::new(parameters).map_err(|_| nix::errno::Errno::EINVAL)?;
    finit_module(open, &parameters, flags)
}

/// Unloads a module; waits for nothing.
pub(crate) fn remove(name: &str) -> nix::Result<()> {
    let name = CString::new(name).map_err(|_| nix::errno::Errno::EINVAL)?;
    delete_module(&name, DeleteModuleFlags::O_NONBLOCK)
}

/// hippos.ko while it is loaded: unloaded again when dropped.
pub(crate) struct Hippos(());

impl Hippos {
    /// Loads it with these parameters, for example `port=11211 memory_mb=64`.
    pub(crate) fn load(parameters: &str) -> Result<Self> {
        let parameters = format!("{parameters}{}", receive_path::chosen().parameter());
        insert(&PathBuf::from(HIPPOS), &parameters)
            .with_context(|| format!("insmod hippos.ko {parameters}"))?;
        let hippos = Hippos(());
        if receive_path::is_xdp() {
            receive_path::attach_all()?;
        }
        Ok(hippos)
    }

    /// Unloads it, and returns an error if that fails (a drop only prints it).
    pub(crate) fn unload(self) -> Result<()> {
        if receive_path::is_xdp() {
            return self.unload_all();
        }
        std::mem::forget(self);
        remove("hippos").context("rmmod hippos")
    }

    /// On the debug kernel, whether the store's lists and counts agree with its memory. No client
    /// writes any more.
    pub(crate) fn verify(&self) -> Result<()> {
        if leaks::kmemleak_is_on() {
            run("hippos-ctl debug verify")?;
        }
        Ok(())
    }

    /// Unloads it with its programs, of which the kernel frees a detached one a grace period later.
    pub(crate) fn unload_all(self) -> Result<()> {
        std::mem::forget(self);
        run("hippos-ctl unload").map(drop)
    }
}

impl Drop for Hippos {
    fn drop(&mut self) {
        if let Err(error) = run("hippos-ctl unload") {
            eprintln!("{error:#}");
        }
    }
}

/// `kernel/net/foo-bar.ko.xz` is the module `foo_bar`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}
