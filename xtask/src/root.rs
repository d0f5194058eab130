// SPDX-License-Identifier: GPL-2.0-only
//! The build root: a Debian tree with every tool and the kernels, made once per machine.
//!
//! The host gives cargo, apt and mmdebstrap; compiler, kernel sources, QEMU and
//! the guest's programs come from the root, at the versions of one Debian
//! release. A program runs in it under chroot, in a mount namespace of its own
//! where the work tree and the temporary folder lie at the paths that they have
//! outside. Without root's rights the same is done in a user namespace.
//!
//! It is made in stages. The first ends with a rename, each later one with a
//! stamp, and the next run begins with the first stage without one: an interruption
//! costs at most the current stage. A kernel is added when a command first needs it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use crate::chroot::{apt, command, privileged, program};
use crate::target::{Arch, Selection, Target};
use crate::{cache, cross, kernel, progress, shell, workspace};

/// The Debian release that the root is made of.
pub(crate) const SUITE: &str = "trixie";
/// Where its newer kernels are.
pub(crate) const BACKPORTS: &str = "trixie-backports";
/// The packages installed besides the kernel. Recommended packages are left out.
const PACKAGES: &[&str] = &[
    // For the kernel's build: compilers first, then the programs that its Makefiles call.
    "rustc",
    "rust-src",
    "rustfmt",
    "rust-clippy",
    "bindgen",
    "libclang-dev",
    "clang",
    "lld",
    "llvm",
    "gcc",
    "libc6-dev",
    "make",
    "bc",
    "bison",
    "flex",
    "dwarves",
    "xz-utils",
    "kmod",
    "cpio",
    "rsync",
    "libssl-dev",
    "libelf-dev",
    "libdw-dev",
    "python3",
    // Our own host tools with Debian's cargo.
    "cargo",
    // hippos-ctl's XDP loader asks it for libelf and zlib.
    "pkgconf",
    // The virtual machine, and the programs in it.
    "qemu-system-x86",
    "busybox-static",
    "iproute2",
    "ethtool",
    "nftables",
    "memcached",
];
/// Incremented when the steps below change but the lists above do not.
const RECIPE: &str = "1";
/// A former part of a root's name; kept, so that existing roots stay in use.
const LEGACY_SUFFIX: &str = "cloud-amd64";
/// Free space that making a root asks for, in bytes.
const SPACE: u64 = 5 << 30;
/// The same for another kernel in it.
const KERNEL_SPACE: u64 = 3 << 30;

/// A finished build root.
pub(crate) struct Root {
    path: PathBuf,
    kernel: kernel::Kernel,
}

impl Root {
    /// Its folder, as seen from outside.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same root, with another kernel in the stock one's place.
    pub(crate) fn with_kernel(self, kernel: kernel::Kernel) -> Root {
        Root { kernel, ..self }
    }

    /// The kernel in it, the stock one unless [`debug`](Self::debug) was called.
    pub(crate) fn kernel(&self) -> &kernel::Kernel {
        &self.kernel
    }

    /// A program that runs inside, in the work tree's folder, and works for the kernel's
    /// architecture.
    pub(crate) fn command(&self, program: impl Into<PathBuf>) -> Command {
        self.command_with(program, &[])
    }

    /// The same, with more folders of the host at their own paths.
    pub(crate) fn command_with(&self, program: impl Into<PathBuf>, binds: &[&Path]) -> Command {
        let mut command = command(&self.path, &program.into(), binds);
        cross::turn(&mut command, self.kernel.target.arch);
        command
    }

    /// A program for the files of the kernel's architecture, for example `objdump`.
    pub(crate) fn tool(&self, name: &str) -> Command {
        self.command(cross::tool(self.kernel.target.arch, name))
    }
}

impl Root {
    /// The release's own cargo, which can read our cargo's registry but not the network: the
    /// crates of the workspace are fetched first.
    pub(crate) fn cargo(&self) -> Result<Command> {
        let mut fetch = Command::new(workspace::cargo());
        fetch.args(["fetch", "--quiet", "--locked"]);
        // Build scripts' dependencies are always for this machine.
        let arch = self.kernel.target.arch;
        for target in BTreeSet::from([Arch::default().rust(), arch.rust()]) {
            fetch.args(["--target", target]);
        }
        shell::run(fetch.current_dir(workspace::root()))?;
        let home = cargo_home()?;
        let mut cargo = self.command_with("/usr/bin/cargo", &[&home.join("registry")]);
        cargo.env("CARGO_HOME", home);
        Ok(cargo)
    }

    /// The release's own cargo (see [`cargo`](Self::cargo)), building for the architecture of the root's
    /// kernel: the programs are in the target folder, below the architecture's name.
    pub(crate) fn cargo_for_target(&self, flags: &str) -> Result<Command> {
        let arch = self.kernel().target.arch;
        let mut cargo = self.cargo()?;
        if arch.is_native() {
            cargo.env("RUSTFLAGS", flags);
            return Ok(cargo);
        }
        let (top, compiler) = (cross::top(arch), cross::tool(arch, "gcc"));
        let sysroot = format!("--sysroot={}", top.display());
        let variable = |name: &str| format!("{name}_{}", arch.rust().replace('-', "_"));
        cargo
            .env("CARGO_BUILD_TARGET", arch.rust())
            .env(
                format!(
                    "CARGO_TARGET_{}_LINKER",
                    arch.rust().replace('-', "_").to_uppercase()
                ),
                &compiler,
            )
            .env("RUSTFLAGS", format!("{flags} -Clink-arg={sysroot}"))
            // For crates with C code, and the libraries that they link.
            .env(variable("CC"), &compiler)
            .env(variable("CFLAGS"), &sysroot)
            .env("PKG_CONFIG_ALLOW_CROSS", "1")
            .env("PKG_CONFIG_SYSROOT_DIR", &top)
            .env(
                "PKG_CONFIG_LIBDIR",
                top.join(format!("usr/lib/{}/pkgconfig", arch.triplet())),
            );
        Ok(cargo)
    }
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// The build root with the kernel that was selected, made now if need be.
pub(crate) fn ready(selection: &Selection) -> Result<Root> {
    let path = path()?;
    if let Some(kernel) = found(&path, selection) {
        return Ok(Root { path, kernel });
    }
    let _lock = cache::lock(&path.with_extension("lock"), "making the build root")?;
    if !path.join(stamp("tools")).exists() {
        check_host("the build root", SPACE)?;
        tools(&path)?;
    }
    kernel::migrate_legacy_kernel(&path)?;
    if kernel::series(&path, Arch::default()).is_none() {
        kernel::look(&path, Arch::default(), &|name| program(&path, name))?;
    }
    // Another process may have been faster.
    if let Some(kernel) = found(&path, selection) {
        return Ok(Root { path, kernel });
    }
    check_host("a kernel", KERNEL_SPACE)?;
    cross::ready(&path, selection.arch(), &path.with_extension("log"))?;
    let kernel = add_kernel(&path, selection)?;
    Ok(Root { path, kernel })
}

/// The build root with any kernel, if there is one already.
pub(crate) fn made() -> Result<Option<PathBuf>> {
    let path = path()?;
    Ok(path.join(stamp("tools")).exists().then_some(path))
}

/// A program in a root as the words of a command line, with spaces between them.
pub(crate) fn line(root: &Path, program: &str) -> String {
    let command = command(root, Path::new(program), &[]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// The target of a selection in the build root, which is made if need be, or why there is none.
pub(crate) fn target(selection: &Selection) -> Result<Target> {
    let path = path()?;
    if kernel::series(&path, selection.arch()).is_none() {
        ready(selection)?;
    }
    selection.target(&kernel::series(&path, selection.arch()).unwrap_or_default())
}

/// The selected kernel, if the root has it.
fn found(path: &Path, selection: &Selection) -> Option<kernel::Kernel> {
    let target = selection
        .target(&kernel::series(path, selection.arch())?)
        .ok()?;
    kernel::find(path, target).filter(|_| cross::is_ready(path, target.arch))
}

/// Adds the selected kernel to a root with tools, from the mirror's present packages.
fn add_kernel(path: &Path, selection: &Selection) -> Result<kernel::Kernel> {
    let log = path.with_extension("log");
    let arch = selection.arch();
    let run = |name: &str| {
        let mut command = program(path, name);
        cross::turn(&mut command, arch);
        command
    };
    progress::step("package lists (apt)", || {
        let mut update = apt(path, &["update"]);
        cross::turn(&mut update, arch);
        shell::logged(&mut update, &log)
    })?;
    let show = kernel::look(path, arch, &run)?;
    let target = selection.target(&kernel::series(path, arch).unwrap_or_default())?;
    if kernel::find(path, target).is_none() {
        kernel::install(path, target, &log, &show, &run)?;
    }
    kernel::find(path, target).context("the build root has no such kernel after all")
}

/// Removes the build root, so that the next use makes a new one.
pub(crate) fn remove() -> Result<()> {
    let path = path()?;
    let _lock = cache::lock(&path.with_extension("lock"), "making the build root")?;
    progress::step("remove the build root", || delete(&path))
}

/// The root's folder: its name is a digest of its inputs.
fn path() -> Result<PathBuf> {
    let key = workspace::digest(
        [SUITE, BACKPORTS, RECIPE, LEGACY_SUFFIX]
            .iter()
            .chain(PACKAGES),
    );
    Ok(cache::dir()?.join(format!("root-{key}")))
}

/// Makes the root, or adds the missing tools.
fn tools(path: &Path) -> Result<()> {
    let log = path.with_extension("log");
    if !path.exists() {
        progress::step("base system (mmdebstrap)", || bootstrap(path, &log))?;
    }
    stage(path, "tools", "compilers, QEMU and tools (apt)", || {
        let backports = backports_line(path)?;
        fs::write(
            path.join("etc/apt/sources.list.d/backports.list"),
            backports,
        )?;
        // Manuals and translations are a third of the files, and are not read here.
        fs::write(
            path.join("etc/dpkg/dpkg.cfg.d/hippos"),
            "force-unsafe-io\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n\
             path-exclude=/usr/share/doc/*\n",
        )?;
        shell::logged(&mut apt(path, &["update"]), &log)?;
        shell::logged(
            command(path, Path::new("/usr/bin/dpkg"), &[]).args(["--configure", "-a"]),
            &log,
        )?;
        let install = ["install", "--no-install-recommends"];
        shell::logged(apt(path, &install).args(PACKAGES), &log)?;
        shell::logged(&mut apt(path, &["clean"]), &log)
    })
}

/// Where a stage's stamp lies in a root.
fn stamp(stage: &str) -> PathBuf {
    format!("var/lib/hippos-{stage}").into()
}

/// Does `work` unless its stamp is there, then stamps it.
fn stage(path: &Path, name: &str, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = path.join(stamp(name));
    if stamp.exists() {
        return Ok(());
    }
    progress::step(what, work)?;
    fs::write(&stamp, RECIPE).with_context(|| format!("cannot write {}", stamp.display()))
}

fn bootstrap(path: &Path, log: &Path) -> Result<()> {
    let partial = path.with_extension("partial");
    delete(&partial)?;
    let mut command = privileged("unshare");
    // A mount namespace of its own: no mount is left behind, however mmdebstrap ends.
    command
        .args([
            "--mount",
            "mmdebstrap",
            "--mode=root",
            "--variant=apt",
            SUITE,
        ])
        .arg(&partial);
    if let Some(mirror) = std::env::var_os("HIPPOS_MIRROR") {
        command.arg(mirror);
    }
    shell::logged(&mut command, log).context(
        "cannot make a Debian tree: is a mirror reachable? mmdebstrap uses its own default, \
         or the one in HIPPOS_MIRROR",
    )?;
    fs::rename(&partial, path)?;
    Ok(())
}

/// A Debian tree with nothing but apt. Dropped, it is removed.
pub(crate) struct Fresh {
    pub(crate) path: PathBuf,
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Err(error) = delete(&self.path) {
            eprintln!("hippos: {} is left: {error:#}", self.path.display());
        }
    }
}

/// Makes a tree of that name beside the build root; a former one goes first.
pub(crate) fn fresh(name: &str) -> Result<Fresh> {
    let path = cache::dir()?.join(name);
    delete(&path)?;
    progress::step("a fresh Debian (mmdebstrap)", || {
        bootstrap(&path, &path.with_extension("log"))
    })?;
    // Syncing is not under test, and takes most of the time.
    fs::write(path.join("etc/dpkg/dpkg.cfg.d/hippos"), "force-unsafe-io\n")?;
    Ok(Fresh { path })
}

/// The apt line for the backports, from the one that mmdebstrap wrote for the release.
pub(crate) fn backports_line(path: &Path) -> Result<String> {
    let apt = path.join("etc/apt");
    let mut lists = vec![apt.join("sources.list")];
    for entry in fs::read_dir(apt.join("sources.list.d"))? {
        lists.push(entry?.path());
    }
    for list in lists {
        let text = fs::read_to_string(&list).unwrap_or_default();
        if let Some(line) = derive_backports(&text) {
            return Ok(line);
        }
    }
    bail!(
        "no line for {SUITE} in {}: HIPPOS_MIRROR may name a mirror",
        apt.display()
    )
}

/// The first `deb` line for the release, with the backports' name in its place.
fn derive_backports(list: &str) -> Option<String> {
    let line = list.lines().find(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("deb") && words.any(|word| word == SUITE)
    })?;
    let words: Vec<&str> = line
        .split_whitespace()
        .map(|word| if word == SUITE { BACKPORTS } else { word })
        .collect();
    Some(words.join(" ") + "\n")
}

/// Checks that this machine has the programs, rights and disk space for making `what`, which needs `needed` bytes; the
/// error names the remedy. Installs mmdebstrap when it can.
pub(crate) fn check_host(what: &str, needed: u64) -> Result<()> {
    let is_root = nix::unistd::geteuid().is_root();
    if !shell::has("mmdebstrap") {
        if !is_root || !shell::has("apt-get") {
            bail!(
                "mmdebstrap is missing: sudo apt install mmdebstrap{}",
                if is_root { "" } else { " uidmap" }
            );
        }
        progress::step("install mmdebstrap on this machine (apt)", || {
            let log = cache::dir()?.join("host.log");
            let apt = |args: &[&str]| {
                let mut command = Command::new("apt-get");
                command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
                shell::logged(&mut command, &log)
            };
            apt(&["-q", "update"])?;
            apt(&[
                "-q",
                "-y",
                "install",
                "--no-install-recommends",
                "mmdebstrap",
            ])
        })
        .context("cannot install mmdebstrap: try `apt install mmdebstrap` by hand")?;
    }
    if !is_root {
        shell::output(privileged("unshare").args(["--mount", "true"])).context(
            "you are not root, and no user namespace with a range of ids can be had. Remedy: run as \
             root, or `sudo apt install uidmap`, give your user a range of 65536 in /etc/subuid and \
             /etc/subgid, and allow kernel.unprivileged_userns_clone",
        )?;
    }
    let dir = cache::dir()?;
    let space = nix::sys::statvfs::statvfs(&dir)?;
    let free = space.blocks_available() * space.fragment_size();
    if free < needed {
        bail!(
            "{} has {} MB free, {what} needs {} MB while it is made: make room, or set \
             HIPPOS_CACHE to a folder on another disk",
            dir.display(),
            free >> 20,
            needed >> 20
        );
    }
    Ok(())
}

/// Removes a tree that may belong to a user namespace's ids; never crosses into another mount.
fn delete(path: &Path) -> Result<()> {
    // Out of the way first: a tree that is half removed must not pass for a whole one.
    let trash = path.with_extension("trash");
    let remove = || {
        let mut rm = privileged("rm");
        shell::output(rm.args(["-rf", "--one-file-system", "--"]).arg(&trash)).map(drop)
    };
    remove()?;
    if path.exists() {
        fs::rename(path, &trash)?;
        remove()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backports_come_from_the_line_of_the_release() {
        let list = "# made\ndeb http://mirror.test/debian trixie main\ndeb http://mirror.test/debian trixie-updates main\n";
        let line = derive_backports(list);
        assert_eq!(
            line.as_deref(),
            Some("deb http://mirror.test/debian trixie-backports main\n")
        );
        let signed = "deb [signed-by=/k.gpg] http://mirror.test/d trixie main contrib\n";
        assert_eq!(
            derive_backports(signed).as_deref(),
            Some("deb [signed-by=/k.gpg] http://mirror.test/d trixie-backports main contrib\n")
        );
        assert_eq!(
            derive_backports("deb http://mirror.test/d bookworm main\n"),
            None
        );
    }
}
