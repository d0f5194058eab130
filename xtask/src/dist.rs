// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask dist`: the sources that an appliance builds Hippos from, without a registry.
//!
//! The archive holds the module's sources with those of its registry crates,
//! where the Makefile looks for them, and hippos-ctl with every crate that it
//! needs, in cargo's own vendored form. Crates keep their licence files. They are
//! not checked in: Cargo.lock names them and their digests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{kbuild, shell, workspace};

/// The parts of the work tree that the archive contains.
const PARTS: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Kbuild",
    "LICENSE",
    "Makefile",
    "README.md",
    "docs/",
    "kmod/",
    "testing/process/",
    "userspace-ctl/",
];
/// The workspace members in the archive: those that cargo builds on the appliance, and those that their tests are built
/// with, whose manifests cargo reads in any case.
const MEMBERS: &[&str] = &[
    "kmod/abi",
    "kmod/semantics",
    "testing/process",
    "userspace-ctl",
];
/// Has cargo take crates from the archive.
const CONFIG: &str = "[source.crates-io]\nreplace-with = \"vendored-sources\"\n\n\
     [source.vendored-sources]\ndirectory = \"vendor\"\n";

/// Makes target/hippos-VERSION.tar.xz and gives its path.
pub(crate) fn dist() -> Result<PathBuf> {
    let top = workspace::root();
    let name = format!("hippos-{}", env!("CARGO_PKG_VERSION"));
    let stage = top.join("target/dist");
    let tree = stage.join(&name);
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    fs::create_dir_all(&tree)?;
    for file in files()? {
        copy(&top.join(&file), &tree.join(&file))?;
    }
    let manifest = fs::read_to_string(top.join("Cargo.toml"))?;
    fs::write(tree.join("Cargo.toml"), with_members(&manifest)?)?;
    let mut vendor = Command::new(workspace::cargo());
    vendor.args(["vendor", "--quiet", "vendor"]);
    shell::output(vendor.current_dir(&tree)).context("the crates of hippos-ctl cannot be had")?;
    fs::create_dir_all(tree.join(".cargo"))?;
    fs::write(tree.join(".cargo/config.toml"), CONFIG)?;
    kbuild::vendor()?;
    kbuild::copy_tree(&top.join("target/vendor"), &tree.join("target/vendor"))?;
    let archive = top.join(format!("target/{name}.tar.xz"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--xz", "--sort=name", "--owner=0", "--group=0"])
        .args(["--numeric-owner", "--mtime=@0", "--format=gnu"])
        // Those of the files depend on a umask.
        .args(["--mode=u+rw,go=u,go-w", "--file"])
        .arg(&archive)
        .arg("-C")
        .args([&stage, Path::new(&name)]);
    // With more than one thread xz splits its input into blocks.
    tar.env("XZ_OPT", "-T1");
    shell::output(&mut tar)?;
    Ok(archive)
}

/// The files of the work tree that go in.
fn files() -> Result<Vec<String>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let list = shell::output(list.args(PARTS).current_dir(workspace::root()))
        .context("the list of files comes from git")?;
    let here = |file: &&str| workspace::root().join(file).is_file();
    Ok(list.lines().filter(here).map(str::to_owned).collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// The workspace's manifest with [`MEMBERS`] alone.
fn with_members(manifest: &str) -> Result<String> {
    let start = manifest
        .find("members = [")
        .context("the workspace lists no members")?;
    let length = manifest[start..]
        .find(']')
        .context("the list of members does not end")?;
    let mut text = manifest.to_owned();
    text.replace_range(start..=start + length, &format!("members = {MEMBERS:?}"));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_appliance_builds_is_a_member() {
        let manifest = "[workspace]\nmembers = [\n    \"xtask\",\n]\n[profile.release]\n";
        assert_eq!(
            with_members(manifest).unwrap(),
            "[workspace]\nmembers = [\"kmod/abi\", \"kmod/semantics\", \"testing/process\", \"userspace-ctl\"]\n[profile.release]\n"
        );
    }

    #[test]
    fn crates_of_the_workspace_that_a_member_asks_for_are_members() {
        let manifest = |dir: &str| {
            let path = workspace::root().join(dir).join("Cargo.toml");
            fs::read_to_string(path).unwrap()
        };
        let workspace = manifest("");
        for line in MEMBERS.iter().flat_map(|dir| {
            let own = manifest(dir);
            own.lines().map(str::to_owned).collect::<Vec<_>>()
        }) {
            let Some((name, _)) = line.split_once(".workspace = true") else {
                continue;
            };
            let place = workspace
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name} = {{ path = \"")));
            let Some(place) = place else { continue };
            let dir = place.split('"').next().unwrap();
            assert!(MEMBERS.contains(&dir), "{dir}");
        }
    }
}
