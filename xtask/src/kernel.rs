// SPDX-License-Identifier: GPL-2.0-only
//! The stock kernels in the build root, and their source trees made ready for modules.
//!
//! Debian's header packages have no Rust metadata, so the tree comes from the
//! source package of the very same version, with the stock kernel's config and
//! symbol list, and its BTF for the module's. Old versions leave the mirror when
//! new ones come: the version is chosen when a kernel is set up.
//!
//! Each target's kernel has a folder of its own, made under another name and renamed when complete.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::target::{self, Arch, Series, Target};
use crate::{progress, shell};

/// Where the kernels lie, seen from inside the root.
pub(crate) const HOME: &str = "/usr/src/hippos-kernels";
/// The series that the mirror held for the root's own architecture at the last look, newest first.
const SERIES: &str = "series";
/// In a kernel's folder: its release and version.
const STAMP: &str = "kernel";
/// Where a root of earlier versions of xtask has its only kernel.
const ADOPTED: &str = "/usr/src/hippos";

/// A kernel of a build root: a stock one, or one made of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) target: Target,
    /// The output of `uname -r`, for example `7.2.12+deb13-cloud-amd64`.
    pub(crate) release: String,
    /// The packages' version, for example `7.2.12-1~bpo13+1`.
    pub(crate) version: String,
    /// The prepared source tree, seen from inside the root.
    pub(crate) tree: PathBuf,
    /// The folder of its modules and its boot image, seen from inside the root.
    pub(crate) modules: PathBuf,
    /// Whether it is the debug kernel.
    pub(crate) debug: bool,
}

/// A target's folder, seen from inside the root.
fn home(target: Target) -> PathBuf {
    Path::new(HOME).join(target.to_string())
}

/// A path of the root's as it is seen from outside.
pub(crate) fn outside(root: &Path, inside: &Path) -> PathBuf {
    root.join(inside.strip_prefix("/").unwrap_or(inside))
}

/// The target's kernel, if the root has it.
pub(crate) fn find(root: &Path, target: Target) -> Option<Kernel> {
    let home = home(target);
    let stamp = fs::read_to_string(outside(root, &home).join(STAMP)).ok()?;
    let mut lines = stamp.lines();
    let (release, version) = (lines.next()?, lines.next()?);
    Some(Kernel {
        target,
        release: release.to_owned(),
        version: version.to_owned(),
        tree: home.join("tree"),
        modules: home.join(format!("stock/usr/lib/modules/{release}")),
        debug: false,
    })
}

/// The file of the series that the mirror held for an architecture.
fn held(home: &Path, arch: Arch) -> PathBuf {
    match arch.is_native() {
        true => home.join(SERIES),
        false => home.join(format!("{SERIES}-{arch}")),
    }
}

/// The series that the mirror held for `arch` at the last look, and those of which the root has a
/// kernel: these last after the mirror has dropped them. `None` before the first look.
pub(crate) fn series(root: &Path, arch: Arch) -> Option<Vec<Series>> {
    let home = outside(root, Path::new(HOME));
    let held = fs::read_to_string(held(&home, arch)).ok()?;
    let mut series: Vec<Series> = held.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(home).ok()?.flatten() {
        let target = Target::of(&entry.file_name().to_string_lossy());
        series.extend(
            target
                .filter(|target| target.arch == arch && find(root, *target).is_some())
                .map(|target| target.series),
        );
    }
    Some(series)
}

/// Runs programs in the root.
pub(crate) type Runner<'a> = &'a dyn Fn(&str) -> Command;

/// Records which series the package lists of an architecture hold; returns the lists' text about kernels.
pub(crate) fn look(root: &Path, arch: Arch, command: Runner<'_>) -> Result<String> {
    let show = shell::output(command("/bin/sh").args([
        "-c",
        "apt-cache search --names-only '^linux-(source|image)-[0-9]' | cut -d' ' -f1 |
             grep -v -e '-dbg$' -e '-unsigned$' | xargs -r apt-cache show",
    ]))
    .context("cannot read the root's package lists")?;
    let home = outside(root, Path::new(HOME));
    fs::create_dir_all(&home)?;
    let series = target::offered(&show, arch);
    let series: String = series.iter().map(|series| format!("{series}\n")).collect();
    let partial = home.join("series.partial");
    fs::write(&partial, series)?;
    fs::rename(partial, held(&home, arch))?;
    Ok(show)
}

/// Takes over the kernel that an earlier version of xtask made in this root, where it is: that
/// version may still be in use.
pub(crate) fn migrate_legacy_kernel(root: &Path) -> Result<()> {
    let old = outside(root, Path::new(ADOPTED));
    let Ok(stamp) = fs::read_to_string(old.join(STAMP)) else {
        return Ok(());
    };
    let Some(target) = stamp.lines().next().and_then(Target::of) else {
        return Ok(());
    };
    let new = outside(root, &home(target));
    if new.exists() {
        return Ok(());
    }
    let partial = partial(&new);
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    for part in ["tree", "stock"] {
        // Relative, so that the link is valid outside of the root as well.
        symlink(format!("../../hippos/{part}"), partial.join(part))?;
    }
    fs::write(partial.join(STAMP), stamp)?;
    fs::rename(&partial, &new)?;
    Ok(())
}

/// A folder's name while it is being made. (A series has a dot in its name.)
fn partial(home: &Path) -> PathBuf {
    let mut name = home.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Fetches the target's kernel, as the package lists name it, into the root and prepares its tree.
pub(crate) fn install(
    root: &Path,
    target: Target,
    log: &Path,
    show: &str,
    command: Runner<'_>,
) -> Result<()> {
    let offer = target::offer(show, target).with_context(|| {
        let held = target::offered(show, target.arch);
        let held: Vec<String> = held.iter().map(Series::to_string).collect();
        format!(
            "the mirror has no kernel {target} with its source: it holds series {}",
            held.join(", ")
        )
    })?;
    let (release, version) = (&offer.release, &offer.version);
    target::check(release, target)?;
    if !target::TESTED.contains(&target.series) {
        eprintln!(
            "hippos: kernel series {} is not one that Hippos is tested for ({} to {})",
            target.series,
            target::TESTED.start(),
            target::TESTED.end()
        );
    }
    let home = home(target);
    let inside = partial(&home).display().to_string();
    let sh = |what: &str, script: &str| {
        progress::step(what, || {
            let script = format!("set -e\ncd {inside}\n{script}");
            shell::logged(command("sh").args(["-c", &script]), log)
        })
    };
    shell::logged(command("rm").args(["-rf", &inside]), log)?;
    fs::create_dir_all(outside(root, Path::new(&inside)))?;
    let source = format!("linux-source-{}", target.series);
    // Unpacked rather than installed: nothing of the kernel's installation is wanted here, neither
    // an initramfs nor libraries from backports. The image's package only names those that hold it.
    sh(
        &format!("kernel {release} and its source (apt)"),
        &format!(
            "parts=$(apt-cache show linux-image-{release}={version} | sed -n 's/^Depends: //p' |
                 tr -s ',| ' '\\n' | grep -Fx -e linux-base-{release} -e linux-binary-{release} \
                 -e linux-modules-{release})
             apt-get -q -o Acquire::Retries=3 -o APT::Sandbox::User=root download \
                 linux-headers-{release}={version} {source}={version} \
                 $(for part in $parts; do echo $part={version}; done)
             dpkg-deb -x linux-headers-*.deb headers
             dpkg-deb -x linux-source-*.deb source
             rm linux-headers-*.deb linux-source-*.deb
             for part in *.deb; do dpkg-deb -x $part stock; rm $part; done
             ln -s usr/lib stock/lib
             depmod -b {inside}/stock {release}
             tar xf source/usr/src/{source}.tar.xz; mv {source} tree; rm -r source"
        ),
    )?;
    sh(
        "prepare the kernel tree",
        &format!(
            "cd tree
             cp ../stock/lib/modules/{release}/config .config
             cp ../headers/usr/src/linux-headers-{release}/Module.symvers .
             mv ../headers/usr/src/linux-headers-{release}/vmlinux .
             release=$(make -s kernelversion)
             full={release}; printf '%s' \"${{full#\"$release\"}}\" > localversion
             make -j$(nproc) olddefconfig modules_prepare
             made=$(cat include/config/kernel.release)
             [ \"$made\" = {release} ] || {{ echo \"the tree is $made, not {release}\"; exit 1; }}
             rm -r ../headers"
        ),
    )?;
    let partial = outside(root, Path::new(&inside));
    fs::write(partial.join(STAMP), format!("{release}\n{version}\n"))?;
    fs::rename(partial, outside(root, &home))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "7.2.12+deb13-cloud-amd64";

    fn root_with(home: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let dir = outside(root.path(), Path::new(home));
        fs::create_dir_all(dir.join("tree")).unwrap();
        fs::create_dir_all(dir.join(format!("stock/usr/lib/modules/{RELEASE}"))).unwrap();
        fs::write(dir.join(STAMP), format!("{RELEASE}\n7.2.12-1\n")).unwrap();
        root
    }

    #[test]
    fn an_earlier_roots_kernel_is_taken_over() {
        let root = root_with(ADOPTED);
        let target = Target::of(RELEASE).unwrap();
        assert_eq!(find(root.path(), target), None);
        migrate_legacy_kernel(root.path()).unwrap();
        migrate_legacy_kernel(root.path()).unwrap();
        let kernel = find(root.path(), target).unwrap();
        assert_eq!(kernel.version, "7.2.12-1");
        assert!(outside(root.path(), &kernel.tree).is_dir());
        assert!(outside(root.path(), &kernel.modules).is_dir());
    }

    #[test]
    fn a_kernel_outlasts_its_series_on_the_mirror() {
        let root = root_with(&format!("{HOME}/7.2-cloud-amd64"));
        assert_eq!(series(root.path(), Arch::X86_64), None);
        let list = outside(root.path(), Path::new(HOME)).join(SERIES);
        fs::write(list, "7.3\n").unwrap();
        let found = series(root.path(), Arch::X86_64).unwrap();
        let names: Vec<String> = found.iter().map(Series::to_string).collect();
        assert_eq!(names, ["7.3", "7.2"]);
    }

    #[test]
    fn a_kernel_that_is_not_complete_is_not_found() {
        let root = root_with(&format!("{HOME}/7.2-cloud-amd64.partial"));
        assert_eq!(find(root.path(), Target::of(RELEASE).unwrap()), None);
        let list = outside(root.path(), Path::new(HOME)).join(SERIES);
        fs::write(list, "7.3\n").unwrap();
        assert_eq!(series(root.path(), Arch::X86_64).unwrap().len(), 1);
    }
}
