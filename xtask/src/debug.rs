// SPDX-License-Identifier: GPL-2.0-only
//! The debug kernel: the stock kernel's source with every checker for defects that tests can't observe.
//!
//! KASAN, lockdep, RCU's and the sleep checker, debug objects, kmemleak and
//! fault injection, on a configuration of the few drivers that the guest needs
//! (`debug.config`). Rust under KASAN asks for clang. It is made once for each
//! build root and each configuration, beside the stock kernel, and used like
//! that one: a tree to build the module in, and a folder of modules with the
//! boot image.
//!
//! One configuration serves every series. An option that a series does not have is one that no Kconfig file defines and
//! no source refers to: it was removed, or its choice is always on. The `defect::` tests check that each checker
//! reports, so a checker that was renamed does not go unnoticed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::kernel::{self, Kernel, HOME};
use crate::root::Root;
use crate::{cache, progress, shell, workspace};

/// The options that differ from "no" and from the default; each line must appear unchanged in the result.
const CONFIG: &str = include_str!("debug.config");
/// Raised when the steps below change.
const RECIPE: &str = "1";
/// The suffix of its release.
const SUFFIX: &str = "-debug";
/// Free space that making it asks for, in bytes.
const SPACE: u64 = 6 << 30;

impl Root {
    /// The same root, with the debug kernel in the stock one's place.
    pub(crate) fn debug(self) -> Result<Root> {
        let arch = self.kernel().target.arch;
        ensure!(arch.is_native(), "there is no debug kernel for {arch}");
        let kernel = kernel(&self)?;
        Ok(self.with_kernel(kernel))
    }
}

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

/// The host's path of a file in the root.
fn outside(root: &Root, path: &Path) -> PathBuf {
    kernel::outside(root.path(), path)
}

/// Builds it beside its final place, and renames it at the end.
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
    // Sources are shared with the stock tree by hard links; the build writes to none of them. The stock build's output
    // is removed, and so is the one file that is rewritten.
    sh(
        "configure the debug kernel",
        &format!(
            "cp -al {stock}/. tree
             cd tree
             make -s mrproper
             rm localversion; printf %s {SUFFIX} > localversion
             make -s KCONFIG_ALLCONFIG=../debug.config allnoconfig"
        ),
    )?;
    check(&there.join("tree"), CONFIG)?;
    sh(
        "build the debug kernel (ten minutes on two idle processors)",
        "cd tree; make bzImage modules",
    )?;
    // Only the part of the tree that a module's build needs is kept: its objects are gigabytes.
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

/// Compares the resulting configuration with the wanted one.
fn check(tree: &Path, wanted: &str) -> Result<()> {
    let config = fs::read_to_string(tree.join(".config"))?;
    let got: BTreeSet<&str> = config.lines().collect();
    let missing: Vec<&str> = wanted
        .lines()
        .filter(|line| line.starts_with("CONFIG_") && !got.contains(line))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut defined = BTreeSet::new();
    let mut used = BTreeSet::new();
    visit(tree, &mut |path, name| {
        if name.starts_with("Kconfig") {
            let text = fs::read(path)?;
            defined.extend(definitions(&String::from_utf8_lossy(&text)).map(str::to_owned));
        } else if is_source(name) {
            let text = fs::read(path)?;
            let text = String::from_utf8_lossy(&text);
            for option in missing.iter().map(|line| option(line)) {
                if uses(&text, option) {
                    used.insert(option);
                }
            }
        }
        Ok(())
    })?;
    for line in missing {
        let option = option(line);
        let name = option.trim_start_matches("CONFIG_");
        if defined.contains(name) || used.contains(option) {
            bail!("not to be had: {line}");
        }
        eprintln!("hippos: this kernel series has no option {option}");
    }
    Ok(())
}

/// The option's name in a line of a configuration.
fn option(line: &str) -> &str {
    line.split('=').next().unwrap_or(line)
}

/// The names that a Kconfig file defines, without `CONFIG_`.
fn definitions(kconfig: &str) -> impl Iterator<Item = &str> {
    kconfig.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("config" | "menuconfig"))
            .then(|| words.next())
            .flatten()
    })
}

/// Whether a file may test kernel options.
fn is_source(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    name.starts_with("Makefile")
        || name == "Kbuild"
        || matches!(extension, Some("c" | "h" | "S" | "rs"))
}

/// Whether the text has the option's whole name, or the name of it as a module.
fn uses(text: &str, option: &str) -> bool {
    text.match_indices(option).any(|(at, _)| {
        let rest = &text[at + option.len()..];
        let rest = rest.strip_prefix("_MODULE").unwrap_or(rest);
        !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_')
    })
}

/// Calls `see` with the path and name of each source file; generated files are skipped.
fn visit(dir: &Path, see: &mut dyn FnMut(&Path, &str) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !matches!(name.as_ref(), "generated" | "config" | "Documentation") {
                visit(&path, see)?;
            }
        } else if kind.is_file() {
            see(&path, &name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with two options, of which the configuration has one.
    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = tree.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("Kconfig", "source \"fs/Kconfig\"\nconfig NET\n\tbool\n");
        write("fs/Kconfig", "menuconfig PROC_FS\n\tbool \"proc\"\n");
        write("fs/Makefile", "obj-$(CONFIG_PROC_FS_EXTRA) += extra.o\n");
        write("fs/proc.c", "#ifdef CONFIG_RENAMED_MODULE\n#endif\n");
        write(".config", "CONFIG_NET=y\n# CONFIG_PROC_FS is not set\n");
        // A build's output.
        write("include/generated/autoconf.h", "#define CONFIG_GONE 1\n");
        tree
    }

    #[test]
    fn an_option_that_the_series_does_not_have_is_passed_over() {
        let tree = tree();
        check(tree.path(), "# comment\nCONFIG_NET=y\nCONFIG_GONE=y\n").unwrap();
        // Part of another name.
        check(tree.path(), "CONFIG_PROC=y\n").unwrap();
    }

    #[test]
    fn an_option_that_did_not_come_out_is_an_error() {
        let tree = tree();
        for line in ["CONFIG_PROC_FS=y", "CONFIG_NET=m", "CONFIG_RENAMED=y"] {
            let error = check(tree.path(), line).unwrap_err().to_string();
            assert_eq!(error, format!("not to be had: {line}"));
        }
    }
}
