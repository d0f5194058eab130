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
