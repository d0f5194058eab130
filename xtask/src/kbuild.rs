// SPDX-License-Identifier: GPL-2.0-only
//! The module's build: registry sources for Kbuild, then the kernel's own make.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{bail, Context, Result};

use crate::kernel::{self, Kernel};
use crate::root::Root;
use crate::target::Selection;
use crate::{cache, root, shell, workspace};

/// Build target/kmod/hippos.ko for the build root's stock kernel (another series' or flavour's
/// in target/kmod-SERIES-FLAVOUR).
///
/// Only changed files are compiled anew: a second run after touching one file
/// takes seconds. The build runs inside the build root with Debian's own rustc
/// and gcc, which the kernel's Rust symbols require. (Plain `make KDIR=DIR` does the
/// same with this machine's tools.)
#[derive(clap::Args, Default)]
pub(crate) struct KmodArgs {
    /// Build for another kernel tree (after its `make modules_prepare`), into target/kmod-NAME
    #[arg(long, value_name = "DIR")]
    pub(crate) kdir: Option<PathBuf>,
    /// Build for the debug kernel, into target/kmod-debug
    #[arg(long, conflicts_with = "kdir")]
    pub(crate) debug_kernel: bool,
    /// Build one that allocates each reply anew, for measurements, into target/kmod-fresh
    #[arg(long, hide = true)]
    pub(crate) fresh_replies: bool,
    /// Show each command of the build
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// The folder where the module for a kernel is built; the default kernel's has no suffix.
pub(crate) fn output_dir(kernel: &Kernel) -> Result<PathBuf> {
    let mut name = "kmod".to_owned();
    if root::target(&Selection::default())? != kernel.target {
        name += &format!("-{}", kernel.target);
    }
    if kernel.debug {
        name += "-debug";
    }
    Ok(workspace::root().join("target").join(name))
}

/// Builds the module and gives its path.
pub(crate) fn build(args: &KmodArgs, selection: &Selection) -> Result<PathBuf> {
    let root = root::ready(selection)?;
    if args.debug_kernel {
        build_for(&root.debug()?, args)
    } else {
        build_for(&root, args)
    }
}

/// Builds the module for the root's kernel, or the one that the arguments name.
pub(crate) fn build_for(root: &Root, args: &KmodArgs) -> Result<PathBuf> {
    let (mut make, out, release) = match &args.kdir {
        None => {
            let tree = &root.kernel().tree;
            let mut make = root.command("/usr/bin/make");
            make.arg(format!("KDIR={}", tree.display()));
            make.args(compiler(&kernel::outside(root.path(), tree))?);
            (
                make,
                output_dir(root.kernel())?,
                root.kernel().release.clone(),
            )
        }
        Some(kdir) => {
            let kdir = fs::canonicalize(kdir)
                .with_context(|| format!("no kernel tree at {}", kdir.display()))?;
            let mut make = root.command_with("/usr/bin/make", &[&kdir]);
            make.arg(format!("KDIR={}", kdir.display()));
            make.args(compiler(&kdir)?);
            let name = kdir
                .file_name()
                .context("the kernel tree's folder has no name")?;
            let out = workspace::root().join(format!("target/kmod-{}", name.to_string_lossy()));
            let release = fs::read_to_string(kdir.join("include/config/kernel.release"))
                .with_context(|| format!("{} is not prepared", kdir.display()))?;
            (make, out, release.trim().to_owned())
        }
    };
    let start = Instant::now();
    let out = if args.fresh_replies {
        make.arg("HIPPOS_FRESH_REPLIES=1");
        suffixed(&out, "-fresh")
    } else {
        out
    };
    fs::create_dir_all(&out)?;
    let _lock = cache::lock(&out.with_extension("lock"), "building the module")?;
    vendor()?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    make.arg(format!("MO={}", out.display()));
    make.arg(format!("KREL={release}"));
    make.arg(format!("-j{jobs}"))
        .args(["--no-print-directory", "modules"]);
    if args.verbose {
        make.arg("V=1");
    }
    // Standard output is for the command's own answer.
    shell::run(make.stdout(std::io::stderr())).context("the module does not build")?;
    let module = out.join("hippos.ko");
    if !module.exists() {
        bail!("the build left no {}", module.display());
    }
    eprintln!("hippos: module: {:.1} s", start.elapsed().as_secs_f32());
    Ok(module)
}

/// A folder beside another one.
fn suffixed(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The compiler that make must use when a tree was built with clang: the same version.
fn compiler(kdir: &Path) -> Result<Option<String>> {
    let config = fs::read_to_string(kdir.join(".config"))
        .with_context(|| format!("{} has no .config", kdir.display()))?;
    if !config.lines().any(|line| line == "CONFIG_CC_IS_CLANG=y") {
        return Ok(None);
    }
    let version = config
        .lines()
        .find_map(|line| line.strip_prefix("CONFIG_CLANG_VERSION="));
    let version: u32 = version.context("a clang without a version")?.parse()?;
    Ok(Some(format!("LLVM=-{}", version / 10_000)))
}

/// Lays the sources of the pure crates' dependencies, at the versions of Cargo.lock, into
/// target/vendor/NAME, where Kbuild finds them.
pub(crate) fn vendor() -> Result<()> {
    let vendor = workspace::root().join("target/vendor");
    let lock = workspace::root().join("Cargo.lock");
    let stamp = vendor.join("Cargo.lock");
    if fs::read(&stamp).ok() == Some(fs::read(&lock)?) {
        // The Makefile compares times.
        fs::copy(&lock, &stamp)?;
        return Ok(());
    }
    for (name, krate) in workspace::kernel_crates()? {
        if krate.foreign {
            let target = vendor.join(&name);
            // The manifest has the version. An unchanged file is not written again, or make would compile it again.
            let manifest = |dir: &Path| fs::read(dir.join("Cargo.toml")).ok();
            if manifest(&target) == manifest(&krate.dir) {
                continue;
            }
            let partial = vendor.join(format!("{name}.partial"));
            for old in [&target, &partial] {
                if old.exists() {
                    fs::remove_dir_all(old)?;
                }
            }
            copy_tree(&krate.dir, &partial)
                .with_context(|| format!("cannot lay {name} into {}", target.display()))?;
            fs::rename(&partial, &target)?;
        }
    }
    fs::copy(&lock, &stamp)?;
    Ok(())
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The output of the make of the kernel tree.
    const BUILT: &str = "the kernel's make was called";

    /// A kernel tree whose `make modules` builds nothing; of that release, or not prepared.
    fn tree(release: Option<&str>) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let rule = format!("modules:\n\t@echo \"{BUILT}\"\n");
        fs::write(tree.path().join("Makefile"), rule).unwrap();
        if let Some(release) = release {
            let config = tree.path().join("include/config");
            fs::create_dir_all(&config).unwrap();
            fs::write(config.join("kernel.release"), format!("{release}\n")).unwrap();
        }
        tree
    }

    /// Runs plain `make` with a tree and further arguments: whether it ended well, and all that it said. None, after a
    /// message, on a machine without make.
    fn make(tree: &Path, arguments: &[&str]) -> Option<(bool, String)> {
        let out = tree.join("out");
        let mut make = Command::new("make");
        // The crates from outside are not needed, and not laid out here.
        make.args(["--no-print-directory", "-o", "target/vendor/Cargo.lock"])
            .arg(format!("KDIR={}", tree.display()))
            .arg(format!("MO={}", out.display()))
            .args(arguments)
            .current_dir(workspace::root());
        for name in ["KREL", "KDIR", "MO", "MAKEFLAGS", "MAKELEVEL"] {
            make.env_remove(name);
        }
        let Ok(output) = make.output() else {
            eprintln!("skipped: there is no make");
            return None;
        };
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Some((output.status.success(), said))
    }

    #[test]
    fn make_refuses_a_tree_of_another_kernel() {
        let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let other = format!("{}-other", running.trim());
        let tree = tree(Some(&other));
        let Some((well, said)) = make(tree.path(), &[]) else {
            return;
        };
        assert!(!well && !said.contains(BUILT), "{said}");
        let message = format!(
            "the tree in {} is of kernel {other}, but the module is for {}: take that kernel's source, or name the \
             kernel by KREL",
            tree.path().display(),
            running.trim()
        );
        assert!(said.contains(&message), "{said}\nwithout\n{message}");
    }

    #[test]
    fn make_builds_for_the_kernel_of_the_tree() {
        let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        // The running kernel, and one that is named.
        for (release, arguments) in [
            (running.trim(), &[][..]),
            ("1.2.3-named", &["KREL=1.2.3-named"]),
        ] {
            let tree = tree(Some(release));
            let Some((well, said)) = make(tree.path(), arguments) else {
                return;
            };
            assert!(well && said.contains(BUILT), "{release}: {said}");
        }
    }

    #[test]
    fn make_refuses_a_tree_that_is_not_prepared() {
        let tree = tree(None);
        let Some((well, said)) = make(tree.path(), &[]) else {
            return;
        };
        assert!(!well && !said.contains(BUILT), "{said}");
        assert!(said.contains("is no prepared kernel tree"), "{said}");
    }
}
