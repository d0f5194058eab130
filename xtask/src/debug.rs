//! The debug kernel: the stock kernel's source with every checker that finds
//! what tests can't see.
//!
//! KASAN, lockdep, RCU's and the sleep checker, debug objects, kmemleak and
//! fault injection, on a configuration of the few drivers that the guest needs
//! (`debug.config`). Rust under KASAN asks for clang. It is made once for each
//! build root and each configuration, beside the stock kernel, and used like
//! that one: a tree to build the module in, and a folder of modules with the
//! boot image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::kernel::{self, Kernel, HOME};
use crate::root::Root;
use crate::{cache, progress, shell, workspace};

/// What differs from "no" and from the default; each line must come out as it is written.
const CONFIG: &str = include_str!("debug.config");
/// Raised when the steps below change.
const RECIPE: &str = "1";
/// What its release ends with.
const SUFFIX: &str = "-debug";
/// Free space that making it asks for, in bytes.
const SPACE: u64 = 6 << 30;

/// The debug kernel of a root, made now if need be: some ten minutes on two processors.
pub(crate) fn kernel(root: &Root) -> Result<Kernel> {
    let stock = root.kernel();
    let key = workspace::digest([CONFIG, RECIPE, &stock.release, &stock.version]);
    let home = Path::new(HOME).join(format!("debug-{key}"));
    if let Some(kernel) = find(root, &home) {
        return Ok(kernel);
    }
    let _lock = cache::lock(
        &root.path().with_extension("debug.lock"),
        "making the debug kernel",
    )?;
    // Another process may have been faster.
    if let Some(kernel) = find(root, &home) {
        return Ok(kernel);
    }
    make(root, &home)?;
    find(root, &home).context("the build root has no debug kernel after all")
}

fn find(root: &Root, home: &Path) -> Option<Kernel> {
    let release = fs::read_to_string(outside(root, &home.join("release"))).ok()?;
    Some(Kernel {
        target: root.kernel().target,
        debug: true,
        release: release.trim().to_owned(),
        version: root.kernel().version.clone(),
        tree: home.join("tree"),
        modules: home.join("modules"),
    })
}

/// The host's path of what lies in the root.
fn outside(root: &Root, path: &Path) -> PathBuf {
    kernel::outside(root.path(), path)
}

/// Builds it beside its final place; a rename at the end makes it known.
fn make(root: &Root, home: &Path) -> Result<()> {
    let space = nix::sys::statvfs::statvfs(root.path())?;
    let free = space.blocks_available() * space.fragment_size();
    ensure!(
        free >= SPACE,
        "{} has {} MB free, the debug kernel needs {} MB while it is made",
        root.path().display(),
        free >> 20,
        SPACE >> 20
    );
    let log = root.path().with_extension("debug.log");
    let partial = home.with_extension("partial");
    let stock = root.kernel().tree.display().to_string();
    let sh = |what: &str, script: &str| {
        progress::step(what, || {
            let mut command: Command = root.command("/bin/sh");
            let llvm = "LLVM=-$(clang -dumpversion | cut -d. -f1)";
            let script = format!(
                "set -e\nmake() {{ /usr/bin/make -j$(nproc) {llvm} \"$@\"; }}\n\
                 cd {}\n{script}",
                partial.display()
            );
            shell::logged(command.args(["-c", &script]), &log)
        })
    };
    let there = outside(root, &partial);
    if there.exists() {
        shell::logged(root.command("/bin/rm").arg("-rf").arg(&partial), &log)?;
    }
    fs::create_dir_all(&there)?;
    fs::write(there.join("debug.config"), CONFIG)?;
    // Sources are shared with the stock tree by hard links; the build writes none of them. What the
    // stock build left goes, and so does the one file that is written anew.
    sh(
        "configure the debug kernel",
        &format!(
            "cp -al {stock}/. tree
             cd tree
             make -s mrproper
             rm localversion; printf %s {SUFFIX} > localversion
             make -s KCONFIG_ALLCONFIG=../debug.config allnoconfig
             grep '^CONFIG_' ../debug.config | while read line; do
                 grep -qxF \"$line\" .config || {{ echo \"not to be had: $line\"; exit 1; }}
             done"
        ),
    )?;
    sh(
        "build the debug kernel (ten minutes on two idle processors)",
        "cd tree; make bzImage modules",
    )?;
    // Of the tree only what a module's build needs is kept: its objects are gigabytes.
    sh(
        "install the debug kernel",
        "cd tree
         make INSTALL_MOD_PATH=$PWD/../installed INSTALL_MOD_STRIP=1 modules_install
         release=$(cat include/config/kernel.release)
         mv ../installed/lib/modules/$release ../modules
         rm -rf ../installed ../modules/build
         cp arch/x86/boot/bzImage ../modules/vmlinuz
         llvm-strip -g vmlinux
         rm -f vmlinux.unstripped vmlinux.o vmlinux.a System.map .tmp_vmlinux* arch/x86/boot/*Image
         find . \\( -path ./scripts -o -path ./tools -o -path ./rust \\) -prune -o -type f \
             \\( -name '*.o' -o -name '*.a' -o -name '*.ko' -o -name '.*.cmd' \\) -print0 |
             xargs -0 rm
         echo $release > ../release",
    )?;
    shell::logged(root.command("/bin/mv").arg(&partial).arg(home), &log)
}
