//! The stock kernel in the build root, and its source tree made ready for modules.
//!
//! Debian's header packages have no Rust metadata, so the tree comes from the
//! source package of the very same version, with the stock kernel's config and
//! symbol list, and its BTF for the module's. Old versions leave the mirror when
//! new ones come: which one to take is asked from the metapackage at set-up.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use crate::{progress, root, shell};

/// The kernel series that Hippos is built and tested for; the only place that names them.
pub(crate) const SERIES: RangeInclusive<(u32, u32)> = (7, 2)..=(7, 3);
/// Debian's flavour of the kernel that runs in the virtual machine.
pub(crate) const FLAVOUR: &str = "cloud-amd64";

/// Where the kernels lie, seen from inside the root.
pub(crate) const HOME: &str = "/usr/src/hippos";
/// Written last: names the kernel of a finished root.
const STAMP: &str = "usr/src/hippos/kernel";

/// A kernel of a build root: the stock one, or one made of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// What `uname -r` says, for example `7.2.12+deb13-cloud-amd64`.
    pub(crate) release: String,
    /// The packages' version, for example `7.2.12-1~bpo13+1`.
    pub(crate) version: String,
    /// The prepared source tree, seen from inside the root.
    pub(crate) tree: PathBuf,
    /// The folder of its modules and its boot image, seen from inside the root.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    fn stock(release: &str, version: &str) -> Self {
        let home = Path::new(HOME);
        Kernel {
            release: release.to_owned(),
            version: version.to_owned(),
            tree: home.join("tree"),
            modules: home.join(format!("stock/usr/lib/modules/{release}")),
        }
    }

    /// Major and minor number.
    fn series(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.split(['.', '+', '-']);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// The kernel of a root that is complete.
pub(crate) fn find(root: &Path) -> Option<Kernel> {
    let stamp = fs::read_to_string(root.join(STAMP)).ok()?;
    let mut lines = stamp.lines();
    Some(Kernel::stock(lines.next()?, lines.next()?))
}

/// Fetches the newest supported kernel into the root and prepares its tree.
pub(crate) fn install(root: &Path, log: &Path, command: &dyn Fn(&str) -> Command) -> Result<()> {
    let meta = format!("linux-image-{FLAVOUR}/{}", root::BACKPORTS);
    let show = shell::output(command("apt-cache").args(["show", "--no-all-versions", &meta]))
        .with_context(|| format!("{} has no {FLAVOUR} kernel", root::BACKPORTS))?;
    let kernel = resolve(&show).context("the kernel's metapackage names no kernel")?;
    let series = kernel
        .series()
        .with_context(|| format!("what series is {}?", kernel.release))?;
    if !SERIES.contains(&series) {
        let (from, to) = (SERIES.start(), SERIES.end());
        bail!(
            "{} offers kernel {}, but Hippos supports {}.{} to {}.{}: update Hippos, or widen SERIES \
             in xtask/src/kernel.rs and see whether it still builds",
            root::BACKPORTS, kernel.release, from.0, from.1, to.0, to.1
        );
    }
    let home = root.join(&HOME[1..]);
    let sh = |what: &str, script: &str| {
        progress::step(what, || {
            let script = format!("set -e\ncd {HOME}\n{script}");
            shell::logged(command("sh").args(["-c", &script]), log)
        })
    };
    shell::logged(command("rm").args(["-rf", HOME]), log)?;
    fs::create_dir_all(&home)?;
    let (release, version) = (&kernel.release, &kernel.version);
    let source = format!("linux-source-{}.{}", series.0, series.1);
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
             depmod -b {HOME}/stock {release}
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
    let partial = root.join(format!("{STAMP}.partial"));
    fs::write(&partial, format!("{release}\n{version}\n"))?;
    fs::rename(partial, root.join(STAMP))?;
    Ok(())
}

/// The kernel package among the metapackage's dependencies (not always the first of them).
fn resolve(show: &str) -> Option<Kernel> {
    let depends = show
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))?;
    depends.split(',').find_map(|dependency| {
        let (name, rest) = dependency.trim().split_once(' ')?;
        let release = name.strip_prefix("linux-image-")?;
        let version = rest.strip_prefix("(= ")?.strip_suffix(')')?;
        release
            .starts_with(|first: char| first.is_ascii_digit())
            .then(|| Kernel::stock(release, version))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOW: &str = "Package: linux-image-cloud-amd64\nVersion: 7.2.12-1~bpo13+1\n\
        Depends: linux-base-cloud-amd64 (= 7.2.12-1~bpo13+1), linux-image-7.2.12+deb13-cloud-amd64 \
        (= 7.2.12-1~bpo13+1)\n";

    #[test]
    fn the_kernel_need_not_be_the_first_dependency() {
        let kernel = resolve(SHOW).unwrap();
        assert_eq!(kernel.release, "7.2.12+deb13-cloud-amd64");
        assert_eq!(kernel.version, "7.2.12-1~bpo13+1");
        assert_eq!(kernel.series(), Some((7, 2)));
        assert_eq!(resolve("Package: x\nDepends: linux-base (= 1)\n"), None);
    }
}
