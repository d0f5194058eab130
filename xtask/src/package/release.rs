// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask release`: checks before a version is published, and the files of the release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use cargo_metadata::Metadata;
use sha2::{Digest, Sha256};

use super::version::Version;
use super::{licences, make, sbom};
use crate::target::Selection;
use crate::{dist, progress, root, shell, workspace};

/// The heading in CHANGELOG.md of changes that are not released yet.
const UNRELEASED: &str = "Unreleased";

/// Check that the tagged commit can be released, and make the release's files.
///
/// The version in Cargo.toml, the newest heading of CHANGELOG.md, the tag and the packages must agree, and every crate's
/// licence must be an allowed one. In target/release-VERSION are then the packages with their index, the source archive,
/// the SBOM (CycloneDX), and SHA256SUMS.
#[derive(clap::Args)]
pub(crate) struct ReleaseArgs {
    /// Only check
    #[arg(long)]
    check: bool,
    /// Make the files of a commit that is not a release: its version is the packages', and neither the tag nor
    /// CHANGELOG.md is checked
    #[arg(long)]
    snapshot: bool,
}

/// Checks, then makes all files; prints their folder.
pub(crate) fn release(args: &ReleaseArgs, selection: &Selection) -> Result<()> {
    let top = workspace::root();
    let metadata = licences::metadata()?;
    let version = Version::of_work_tree()?;
    let changes = fs::read_to_string(top.join("CHANGELOG.md"))?;
    let released = own_version(&metadata)?;
    if !args.snapshot {
        is_noted(&changes, released)?;
        is_tagged(&version, released)?;
    }
    licences::check(&metadata)?;
    if args.check {
        return Ok(());
    }
    let name = if args.snapshot {
        &version.number
    } else {
        released
    };
    let out = top.join(format!("target/release-{name}"));
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    let packages = make(&out, None, selection, &version)?;
    let root = root::ready(selection)?;
    for package in &packages {
        let mut field = root.command_with("/usr/bin/dpkg-deb", &[&out]);
        let have = shell::output(field.arg("--field").arg(package).arg("Version"))?;
        ensure!(
            have.trim() == version.number,
            "{} has version {have}",
            package.display()
        );
    }
    let archive = progress::step("source archive", dist::dist)?;
    let file = archive.file_name().context("an archive has a name")?;
    fs::copy(&archive, out.join(file))?;
    let lock = fs::read_to_string(top.join("Cargo.lock"))?;
    let list = sbom::document(&metadata, &lock, name, &time(version.epoch)?)?;
    fs::write(out.join(format!("hippos-{name}.cdx.json")), list)?;
    fs::write(out.join("SHA256SUMS"), sums(&out)?)?;
    println!("{}", out.display());
    Ok(())
}

/// The version that all of the workspace's packages have.
fn own_version(metadata: &Metadata) -> Result<&'static str> {
    let version = env!("CARGO_PKG_VERSION");
    for package in metadata.workspace_packages() {
        ensure!(
            package.version.to_string() == version,
            "{} has version {}, the workspace {version}",
            package.name,
            package.version
        );
    }
    Ok(version)
}

/// Fails unless the newest changes in CHANGELOG.md are those of this version, and there are some.
fn is_noted(changes: &str, version: &str) -> Result<()> {
    for part in changes.split("\n## ").skip(1) {
        let (heading, text) = part.split_once('\n').unwrap_or((part, ""));
        let has_entry = text.lines().any(|line| line.starts_with("- "));
        let name = heading.split_whitespace().next().unwrap_or("");
        if name == UNRELEASED && !has_entry {
            continue;
        }
        ensure!(
            name == version,
            "CHANGELOG.md begins with {name:?}, and the version is {version}"
        );
        ensure!(has_entry, "CHANGELOG.md has no entry under {version}");
        return Ok(());
    }
    bail!("CHANGELOG.md has no version")
}

/// Fails unless the packages have the very version: the commit has the tag, and the work tree no changes.
fn is_tagged(version: &Version, released: &str) -> Result<()> {
    ensure!(
        version.number == format!("{released}-1"),
        "packages of this work tree have version {}, not {released}-1: commit all changes, then git tag v{released}",
        version.number
    );
    Ok(())
}

/// A time as CycloneDX has it.
fn time(epoch: u64) -> Result<String> {
    let mut date = Command::new("date");
    let date = date.args(["-u", "-d", &format!("@{epoch}"), "+%Y-%m-%dT%H:%M:%SZ"]);
    Ok(shell::output(date)?.trim().to_owned())
}

/// The digests of a folder's files, as sha256sum prints them.
fn sums(dir: &Path) -> Result<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir)? {
        files.push(entry?.path());
    }
    files.sort();
    let mut text = String::new();
    for file in files {
        let name = file.file_name().context("a file has a name")?;
        for byte in Sha256::digest(fs::read(&file)?) {
            text += &format!("{byte:02x}");
        }
        text += &format!("  {}\n", name.to_string_lossy());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_needs_its_own_heading_with_an_entry() {
        let changes =
            |heading: &str| format!("# Changes\n\n{heading}## 0.1.0 (2026-01-01)\n\n- One.\n");
        assert!(is_noted(&changes(""), "0.1.0").is_ok());
        assert!(is_noted(&changes("## Unreleased\n\n"), "0.1.0").is_ok());
        for (heading, version) in [
            ("", "0.2.0"),
            ("## Unreleased\n\n- Two.\n\n", "0.1.0"),
            ("## 0.2.0\n\n", "0.2.0"),
        ] {
            assert!(
                is_noted(&changes(heading), version).is_err(),
                "{heading:?} {version}"
            );
        }
        assert!(is_noted("# Changes\n", "0.1.0").is_err());
    }

    #[test]
    fn a_work_tree_without_the_tag_is_refused() {
        let version = |number: &str| Version {
            number: number.to_owned(),
            epoch: 0,
        };
        assert!(is_tagged(&version("0.1.0-1"), "0.1.0").is_ok());
        for other in ["0.1.0~git3.343c328-1", "0.1.0+dirty-1", "0.2.0-1"] {
            assert!(is_tagged(&version(other), "0.1.0").is_err(), "{other}");
        }
    }

    #[test]
    fn a_package_of_another_version_is_refused() {
        let mut metadata = licences::metadata().unwrap();
        assert_eq!(own_version(&metadata).unwrap(), env!("CARGO_PKG_VERSION"));
        let mut packages = metadata.packages.iter_mut();
        let package = packages
            .find(|package| package.name.as_str() == "hippos-ctl")
            .unwrap();
        package.version.patch += 1;
        let error = own_version(&metadata).unwrap_err().to_string();
        assert!(error.contains("hippos-ctl"), "{error}");
    }

    #[test]
    fn sums_are_those_of_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let text = sums(dir.path()).unwrap();
        fs::write(dir.path().join("SHA256SUMS"), &text).unwrap();
        let mut check = Command::new("sha256sum");
        check
            .args(["--check", "SHA256SUMS"])
            .current_dir(dir.path());
        assert_eq!(shell::output(&mut check).unwrap(), "a: OK\nb: OK\n");
        assert_eq!(time(1_000_000_000).unwrap(), "2001-09-09T01:46:40Z");
    }
}
