// SPDX-License-Identifier: GPL-2.0-only
//! The programs of hippos-tools, built with the release's own compiler, and the packages of their
//! libraries.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::root::Root;
use crate::{shell, workspace};

/// Builds hippos-ctl, with XDP, and hippos-load in `target`; gives the folder that they are in.
pub(crate) fn build(root: &Root, target: &Path) -> Result<PathBuf> {
    let home = root.cargo()?;
    let registry = home
        .get_envs()
        .find(|(name, _)| *name == "CARGO_HOME")
        .and_then(|(_, home)| Some(PathBuf::from(home?).join("registry/src")))
        .context("cargo has no home")?;
    // The programs must not contain this machine's source paths.
    let maps = [
        (registry.as_path(), "crates"),
        (target, "target"),
        (workspace::root(), "hippos"),
    ];
    let mut flags = "-Cstrip=symbols".to_owned();
    let mut c_flags = String::new();
    // The last one that fits counts.
    for (from, to) in maps.iter().rev() {
        flags += &format!(" --remap-path-prefix={}={to}", from.display());
        c_flags += &format!(" -ffile-prefix-map={}={to}", from.display());
    }
    let mut build = root.cargo_for_target(&flags)?;
    build
        .args(["build", "--quiet", "--locked", "--offline", "--release"])
        .args(["--package", "hippos-ctl", "--package", "hippos-load"])
        .args(["--features", "hippos-ctl/xdp", "--target-dir"])
        .arg(target)
        .env("CFLAGS", c_flags.trim())
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    // Standard output is for the command's own answer.
    shell::run(build.stdout(std::io::stderr())).context("the programs do not build")?;
    let arch = root.kernel().target.arch;
    Ok(match arch.is_native() {
        true => target.join("release"),
        false => target.join(arch.rust()).join("release"),
    })
}

/// The dependencies of a package with these programs, from the metadata of the libraries' packages.
pub(crate) fn libraries(root: &Root, programs: &[PathBuf]) -> Result<String> {
    let mut depends = BTreeSet::new();
    for program in programs {
        let mut readelf = root.command("/usr/bin/readelf");
        let list = shell::output(readelf.args(["-dW"]).arg(program))?;
        for library in needed(&list) {
            depends.insert(package(root, library)?);
        }
    }
    ensure!(!depends.is_empty(), "programs without libraries");
    Ok(depends.into_iter().collect::<Vec<_>>().join(", "))
}

/// The libraries in the output of `readelf -d`, without the loader, which is part of libc.
fn needed(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| {
        let (_, name) = line.split_once("Shared library: [")?;
        name.strip_suffix(']')
            .filter(|name| !name.starts_with("ld-"))
    })
}

/// The dependency that stands for a library in the root's package database.
fn package(root: &Root, library: &str) -> Result<String> {
    let (name, version) = library
        .split_once(".so.")
        .with_context(|| format!("{library} has no version"))?;
    for entry in fs::read_dir(root.path().join("var/lib/dpkg/info"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "shlibs") {
            if let Some(depends) = shlib(&fs::read_to_string(path)?, name, version) {
                return Ok(depends.to_owned());
            }
        }
    }
    anyhow::bail!("no package of the build root has {library}")
}

/// The dependency for a library in a package's `shlibs` file; none in those of cross compilers, whose
/// dependencies name another architecture.
fn shlib<'a>(list: &'a str, name: &str, version: &str) -> Option<&'a str> {
    list.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(' ')?;
        let depends = rest.strip_prefix(version)?.strip_prefix(' ')?;
        // An epoch has a colon as well.
        let name = depends.split(' ').next()?;
        (!name.contains(':')).then_some(depends)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_leads_to_its_package() {
        let list = "udeb: libelf 1 libelf1-udeb\nlibelf 1 libelf1t64 (>= 0.142)\n";
        assert_eq!(shlib(list, "libelf", "1"), Some("libelf1t64 (>= 0.142)"));
        assert_eq!(shlib(list, "libelf", "2"), None);
        assert_eq!(shlib(list, "libel", "1"), None);
        assert_eq!(shlib("libc 6 libc6:arm64 (>= 2.41)\n", "libc", "6"), None);
        let list = "libz 1 zlib1g (>= 1:1.2.3.3)\n";
        assert_eq!(shlib(list, "libz", "1"), Some("zlib1g (>= 1:1.2.3.3)"));
        let list = " (NEEDED) Shared library: [libc.so.6]\n (NEEDED) Shared library: [ld-linux-x86-64.so.2]\n";
        assert_eq!(needed(list).collect::<Vec<_>>(), ["libc.so.6"]);
    }
}
