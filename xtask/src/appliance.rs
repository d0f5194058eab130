// SPDX-License-Identifier: GPL-2.0-only
//! The README's way to a real machine, followed to the letter.
//!
//! A fresh Debian root stands for the machine. The lines come from the README's
//! code blocks, which are named (```` ```sh build ````). Only two things differ
//! from a machine's: `uname -r` answers as after the reboot into the kernel that
//! the lines installed, and the module is loaded in a guest of that kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::kernel::{self, Kernel};
use crate::root::{self, Root};
use crate::target::{Selection, Target};
use crate::vm::{Machine, Vm};
use crate::{chroot, dist, progress, shell, workspace};

/// Free disk space that the appliance needs, in bytes.
const SPACE: u64 = 8 << 30;
/// How long one line may take in the guest.
const LINE_LIMIT: Duration = Duration::from_secs(300);
/// Where the guest's kernel lies in the build root.
const MODULES: &str = "appliance";

/// Follows the README in a fresh root; `selection` is only for finding QEMU and the guest's programs.
pub(crate) fn follow(selection: &Selection) -> Result<()> {
    let readme = fs::read_to_string(workspace::root().join("README.md"))?;
    let lines = |name: &str| {
        block(&readme, name).with_context(|| format!("README.md has no block `sh {name}`"))
    };
    let build_root = root::ready(selection)?;
    root::check_host("an appliance's root", SPACE)?;
    let fresh = root::fresh("appliance")?;
    let log = workspace::root().join("target/appliance.log");
    let _ = fs::remove_file(&log);
    let sh = |what: &str, script: &str| {
        progress::step(what, || {
            let mut shell = chroot::command(&fresh.path, Path::new("/bin/sh"), &[]);
            // A package installation on a real machine is not interactive either.
            shell.env("DEBIAN_FRONTEND", "noninteractive");
            let script = format!("cd\n{script}");
            shell::logged(shell.args(["-exc", &script]), &log)
        })
    };
    sh("README: the kernel", &lines("kernel")?)?;
    let release = installed(&fresh.path)?;
    after_reboot(&fresh.path, &release)?;
    let archive = dist::dist()?;
    let name = archive.file_name().context("an archive without a name")?;
    fs::copy(&archive, fresh.path.join("root").join(name))?;
    let start = Instant::now();
    sh("README: the build", &lines("build")?)?;
    let used = shell::output(
        std::process::Command::new("du")
            .args(["-sm"])
            .arg(&fresh.path),
    )?;
    println!(
        "appliance: {release} built in {:.0} s, {} MB of disk in all",
        start.elapsed().as_secs_f32(),
        used.split_whitespace().next().unwrap_or("?")
    );
    load(build_root, &fresh.path, &release, &lines("load")?)
}

/// Builds the module in a guest that runs the installed kernel, and loads it there.
fn load(build_root: Root, fresh: &Path, release: &str, lines: &str) -> Result<()> {
    let home = Path::new(kernel::HOME).join(MODULES);
    let outside = kernel::outside(build_root.path(), &home);
    let mut copy = chroot::privileged("sh");
    copy.args([
        "-ec",
        "rm -rf \"$2\"; mkdir -p \"$2\"; cp -a \"$1\" \"$2\"",
        "sh",
    ]);
    copy.arg(fresh.join("usr/lib/modules").join(release))
        .arg(&outside);
    shell::output(&mut copy)?;
    let kernel = Kernel {
        target: Target::of(release).with_context(|| format!("what kernel is {release}?"))?,
        release: release.to_owned(),
        version: String::new(),
        tree: home.clone(),
        modules: home.join(release),
        debug: false,
    };
    let root = build_root.with_kernel(kernel);
    let tree = fs::read_dir(fresh.join("usr/src"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("target/kmod/hippos.ko").exists())
        .context("the README's lines left no hippos.ko")?;
    let machine = Machine {
        memory: 2048,
        module: Some(tree.join("target/kmod/hippos.ko")),
        files: vec![fresh.join("usr/local/sbin/hippos-ctl")],
        ..Machine::default()
    };
    let mut vm = Vm::boot_clean(&root, &machine)?;
    vm.ask("exec mkdir -p target/kmod && mv hippos.ko target/kmod/ && mv hippos-ctl usr/bin/")?;
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        vm.ask_within(&format!("exec {line}"), LINE_LIMIT)
            .with_context(|| format!("the README's line `{line}`"))?;
    }
    vm.ask("log")?;
    vm.off()?;
    let mut remove = chroot::privileged("rm");
    shell::output(remove.arg("-rf").arg(&outside)).map(drop)
}

/// The release of the kernel from backports in a root: the newest that is there.
fn installed(root: &Path) -> Result<String> {
    let mut releases = Vec::new();
    for entry in fs::read_dir(root.join("usr/lib/modules"))?.flatten() {
        releases.push(entry.file_name().to_string_lossy().into_owned());
    }
    releases.sort_by_key(|release| Target::of(release).map(|target| target.series));
    releases.pop().context("the lines installed no kernel")
}

/// Has `uname -r` answer with the release.
fn after_reboot(root: &Path, release: &str) -> Result<()> {
    let uname = root.join("usr/local/bin/uname");
    fs::write(
        &uname,
        format!("#!/bin/sh\n[ \"$*\" = -r ] && exec echo {release}\nexec /usr/bin/uname \"$@\"\n"),
    )?;
    fs::set_permissions(&uname, fs::Permissions::from_mode(0o755))?;
    let mut ask = chroot::command(root, Path::new("/bin/sh"), &[]);
    let answer = shell::output(ask.args(["-c", "uname -r"]))?;
    ensure!(answer.trim() == release, "uname -r says {answer}");
    Ok(())
}

/// The code block whose first line is ```` ```sh NAME ````.
fn block(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines();
    lines.find(|line| *line == format!("```sh {name}"))?;
    let lines: Vec<&str> = lines.take_while(|line| *line != "```").collect();
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_by_its_name() {
        let text = "```\nno\n```\n```sh build\none\ntwo\n```\n```sh load\nthree\n```\n";
        assert_eq!(block(text, "build").as_deref(), Some("one\ntwo"));
        assert_eq!(block(text, "load").as_deref(), Some("three"));
        assert_eq!(block(text, "kernel"), None);
    }

    #[test]
    fn the_readme_has_every_block() {
        let readme = fs::read_to_string(workspace::root().join("README.md")).unwrap();
        for name in ["kernel", "build", "load"] {
            assert!(block(&readme, name).is_some(), "{name}");
        }
        assert!(readme.contains("\ncargo xtask dist"));
    }
}
