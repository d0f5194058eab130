// SPDX-License-Identifier: GPL-2.0-only
//! Another architecture than the build root's own: tools that build and emulate it, and its packages.
//!
//! The tools are installed in the root. The architecture's own packages (guest programs, libraries,
//! Rust's standard library) are unpacked beside, in a folder that compilers take for the file
//! system's top; they come by package lists of their own, so that the root's stay as they are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Result};

use crate::target::Arch;
use crate::{chroot, kernel, progress, shell};

/// The packages installed in the root.
const TOOLS: &[&str] = &["gcc-aarch64-linux-gnu", "qemu-system-arm"];
/// The packages unpacked beside the root, with their dependencies.
const PACKAGES: &[&str] = &[
    // For programs of ours: the root's rustc and this library are of one version.
    "libstd-rust-dev",
    "libc6-dev",
    "libelf-dev",
    "zlib1g-dev",
    // The programs of the guest, as in the root itself.
    "busybox-static",
    "iproute2",
    "ethtool",
    "nftables",
    "memcached",
    "libgcc-s1",
];
/// Incremented when the steps below change but the lists above do not.
const RECIPE: &str = "1";

/// Where all of an architecture's things lie, seen from inside the root.
fn home(arch: Arch) -> PathBuf {
    Path::new(kernel::HOME).join(format!("foreign-{arch}"))
}

/// The top of its file system, seen from inside the root; the root's own for its own architecture.
pub(crate) fn top(arch: Arch) -> PathBuf {
    match arch.is_native() {
        true => "/".into(),
        false => home(arch).join("top"),
    }
}

/// A root's program that handles the files of an architecture, for example `objdump`.
pub(crate) fn tool(arch: Arch, name: &str) -> PathBuf {
    match arch.is_native() {
        true => Path::new("/usr/bin").join(name),
        false => Path::new("/usr/bin").join(format!("{}-{name}", arch.triplet())),
    }
}

/// Makes a program of the root's work for `arch`: apt with its package lists, make for its kernel.
pub(crate) fn turn(command: &mut Command, arch: Arch) {
    if !arch.is_native() {
        command.env("APT_CONFIG", home(arch).join("apt.conf"));
        command.envs(arch.environment().iter().copied());
    }
}

/// Whether a root has all that `arch` asks for.
pub(crate) fn is_ready(path: &Path, arch: Arch) -> bool {
    let stamp = kernel::outside(path, &top(arch)).join("stamp");
    arch.is_native() || fs::read_to_string(stamp).is_ok_and(|stamp| stamp == wanted())
}

/// The expected content of a finished architecture's stamp.
fn wanted() -> String {
    format!("{RECIPE} {TOOLS:?} {PACKAGES:?}")
}

/// Adds the tools for `arch` to a root, unless it has them. The root's lock is held.
pub(crate) fn ready(path: &Path, arch: Arch, log: &Path) -> Result<()> {
    if is_ready(path, arch) {
        return Ok(());
    }
    progress::step(&format!("cross tools for {arch} (apt)"), || {
        shell::logged(&mut chroot::apt(path, &["update"]), log)?;
        // No package of the root may be removed: other work trees build with it.
        let install = ["--no-remove", "--no-install-recommends", "install"];
        shell::logged(chroot::apt(path, &install).args(TOOLS), log)?;
        shell::logged(&mut chroot::apt(path, &["clean"]), log)
    })?;
    progress::step(&format!("programs and libraries for {arch} (apt)"), || {
        unpack(path, arch, log)
    })
}

fn unpack(path: &Path, arch: Arch, log: &Path) -> Result<()> {
    let home = home(arch);
    let there = kernel::outside(path, &home);
    fs::create_dir_all(&there)?;
    // Claims that no package is installed, so that apt fetches a package with all its dependencies.
    fs::write(there.join("installed"), "")?;
    fs::write(
        there.join("apt.conf"),
        format!(
            "APT::Architecture \"{arch}\";\nAPT::Architectures {{ \"{arch}\"; }};\n\
             Dir::State \"{home}/state\";\nDir::State::status \"{home}/installed\";\n\
             Dir::Cache \"{home}/cache\";\nAcquire::Languages \"none\";\n",
            home = home.display()
        ),
    )?;
    for dir in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(there.join(dir))?;
    }
    let apt = |args: &[&str]| {
        let mut apt = chroot::apt(path, args);
        turn(&mut apt, arch);
        apt
    };
    shell::logged(&mut apt(&["update"]), log)?;
    let download = ["--no-install-recommends", "--download-only", "install"];
    shell::logged(apt(&download).args(PACKAGES), log)?;
    let script = format!(
        "set -e
         cd {home}
         rm -rf top top.partial
         mkdir -p top.partial/usr/lib
         ln -s usr/lib top.partial/lib
         for package in cache/archives/*.deb; do dpkg-deb -x $package top.partial; done
         rm -r cache/archives/*.deb top.partial/usr/share/doc top.partial/usr/share/man",
        home = home.display()
    );
    let mut sh = chroot::program(path, "/bin/sh");
    shell::logged(sh.args(["-c", &script]).current_dir("/"), log)?;
    // Where the root's rustc looks for it.
    let library = format!("usr/lib/rustlib/{}", arch.rust());
    let link = path.join(&library);
    ensure!(
        there.join("top.partial").join(&library).is_dir(),
        "{arch} has no Rust library of its own"
    );
    if !link.is_symlink() {
        symlink(top(arch).join(&library), link)?;
    }
    fs::write(there.join("top.partial/stamp"), wanted())?;
    Ok(fs::rename(there.join("top.partial"), there.join("top"))?)
}
