// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask lint`: the compilers' lints, and the repository's own rules.

mod cycles;
mod edges;
mod ffi;
mod licences;
mod mirrors;
mod panics;
mod paths;
mod sources;
mod stacks;
mod tables;
mod tokens;
mod words;

#[cfg(test)]
pub(crate) use paths::linked;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{bail, Context, Result};

use crate::target::Selection;
use crate::{kbuild, root, shell, workspace};

/// Check formatting, clippy's opinion and the repository's own rules.
///
/// The rules: `unsafe` only where it is listed, each with its `SAFETY:`;
/// `extern "C"` declarations in one file; no `alloc`, `kernel` or floats in the
/// pure crates; no panic in their release objects beyond a listed, explained
/// allowance (xtask/src/lint/panics.rs); no function of the module with a large
/// stack frame; no package mirror's address in the repository; each source file's
/// licence in its first line; Kbuild's crate edges equal to cargo's; no cycle of imports among
/// a crate's or an example's files; the documentation's tables equal to those of the code; comments and
/// documents without the words of xtask/src/lint/words.rs, and with paths that exist; the store's loom models compile; and
/// Debian's own cargo builds all of it as well.
#[derive(clap::Args)]
pub(crate) struct LintArgs {
    /// Leave out the checks that need the build root: the module's objects and Debian's cargo
    #[arg(long)]
    host: bool,
    /// Write the documentation's tables anew from those of the code
    #[arg(long)]
    write: bool,
    /// Only checks whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the work tree.
    file: String,
    /// 0 when it is not about a line.
    line: usize,
    what: String,
}

impl Finding {
    fn new(file: &str, line: usize, what: impl Into<String>) -> Self {
        Finding {
            file: file.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}: {}", self.file, self.what),
            line => write!(out, "{}:{line}: {}", self.file, self.what),
        }
    }
}

/// A check's name, whether it needs the build root, and the check.
type Check = (&'static str, bool, fn(&Selection) -> Result<()>);

const CHECKS: &[Check] = &[
    ("format", false, |_| format()),
    ("sources", false, |_| report(sources::check()?)),
    ("ffi", false, |_| report(ffi::check()?)),
    ("mirrors", false, |_| report(mirrors::check()?)),
    ("licences", false, |_| report(licences::check()?)),
    ("edges", false, |_| report(edges::check()?)),
    ("cycles", false, |_| report(cycles::check()?)),
    ("tables", false, |_| report(tables::check()?)),
    ("words", false, |_| report(words::check()?)),
    ("paths", false, |_| report(paths::check()?)),
    ("clippy", false, |_| clippy()),
    ("clippy-loom", false, |_| clippy_loom()),
    ("clippy-kernel", true, clippy_kernel),
    ("panics", true, |kernel| report(panics::check(kernel)?)),
    ("stacks", true, |kernel| report(stacks::check(kernel)?)),
    ("debian-cargo", true, debian_cargo),
];

/// Runs every check to its end; gives our exit status.
pub(crate) fn lint(args: &LintArgs, selection: &Selection) -> Result<u8> {
    let wanted = |name: &str| {
        args.filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter.as_str()))
    };
    if args.write {
        tables::write()?;
    }
    let mut failed = 0;
    for (name, needs_root, check) in CHECKS {
        if !wanted(name) || (args.host && *needs_root) {
            continue;
        }
        let start = Instant::now();
        let result = check(selection);
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => println!("lint {name} ... ok ({seconds:.1} s)"),
            Err(error) => {
                failed += 1;
                println!("lint {name} ... FAILED ({seconds:.1} s)\n{error:#}");
            }
        }
    }
    Ok(u8::from(failed > 0))
}

fn report(findings: Vec<Finding>) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let sorted: BTreeSet<String> = findings.iter().map(Finding::to_string).collect();
    bail!("{}", sorted.into_iter().collect::<Vec<_>>().join("\n"))
}

/// The tracked files, relative to the work tree, and the new ones that git does not ignore.
fn tracked() -> Result<Vec<String>> {
    let list = shell::output(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(workspace::root()),
    )
    .context("the list of files comes from git")?;
    let here = |file: &&str| workspace::root().join(file).is_file();
    Ok(list.lines().filter(here).map(str::to_owned).collect())
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(workspace::root().join(file)).with_context(|| format!("cannot read {file}"))
}

/// A hint for a failure of formatting or clippy: cargo may lack the component.
const COMPONENTS: &str =
    "to be mended, or missing (`rustup component add rustfmt clippy`, `apt install rustfmt rust-clippy`)";

/// rustfmt over the workspace and over the crates that only the kernel's make builds.
fn format() -> Result<()> {
    let mut fmt = Command::new(workspace::cargo());
    shell::run(
        fmt.args(["fmt", "--all", "--check"])
            .current_dir(workspace::root()),
    )
    .context(COMPONENTS)?;
    let mut fmt = Command::new("rustfmt");
    fmt.args(["--check", "--edition", "2021"])
        .args(["kmod/kapi/lib.rs", "kmod/src/hippos.rs"]);
    shell::run(fmt.current_dir(workspace::root())).context(COMPONENTS)
}

fn clippy() -> Result<()> {
    let mut clippy = Command::new(workspace::cargo());
    clippy.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
    ]);
    clippy
        .args(["-D", "warnings"])
        .current_dir(workspace::root());
    shell::run(&mut clippy).context(COMPONENTS)
}

/// The store with its loom models, which no other build compiles. Their tests run in the same folder.
fn clippy_loom() -> Result<()> {
    let mut clippy = Command::new(workspace::cargo());
    clippy
        .args(["clippy", "--quiet", "--locked"])
        .args(["--package", "hippos_store", "--lib", "--profile", "test"])
        .args(["--target-dir", "target/loom", "--", "-D", "warnings"])
        .env("RUSTFLAGS", "--cfg loom")
        .current_dir(workspace::root());
    shell::run(&mut clippy).context(COMPONENTS)
}

/// The kernel's own clippy settings over the module and the kernel-only crates.
fn clippy_kernel(selection: &Selection) -> Result<()> {
    let root = root::ready(selection)?;
    let name = format!("target/kmod-clippy-{}", root.kernel().target);
    let out = workspace::root().join(name);
    fs::create_dir_all(&out)?;
    kbuild::vendor()?;
    let mut make = root.command("/usr/bin/make");
    make.arg(format!("KDIR={}", root.kernel().tree.display()))
        .arg(format!("MO={}", out.display()))
        .arg(format!("KREL={}", root.kernel().release));
    make.args([
        "--no-print-directory",
        "-s",
        "CLIPPY=1",
        "HIPPOS_STRICT=1",
        "modules",
    ]);
    shell::run(&mut make)
}

/// The tools must build with the release's cargo as well, which is older than ours.
fn debian_cargo(selection: &Selection) -> Result<()> {
    let root = root::ready(selection)?;
    let mut check = root.cargo()?;
    check.args(["check", "--quiet", "--workspace", "--locked", "--offline"]);
    check.args(["--features", "hippos-ctl/xdp"]);
    check
        .arg("--target-dir")
        .arg(workspace::root().join("target/debian"));
    shell::run(&mut check)
}
