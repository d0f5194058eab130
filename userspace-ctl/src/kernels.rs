// SPDX-License-Identifier: GPL-2.0-only
//! The installed kernels, and the module that each of them has.

use hippos_abi::TESTED_SERIES;

use crate::system::System;

/// The folder of the installed kernels' modules.
const MODULES: &str = "/usr/lib/modules";
/// The places of the module below a kernel's folder, with the package that puts it there.
const PLACES: [(&str, &str); 2] = [("extra", "prebuilt"), ("updates/dkms", "DKMS")];

/// A kernel that may be booted without the module, and the remedy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WithoutModule {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

/// Whether a kernel's release is of a tested series; none if it names no series.
pub(crate) fn is_tested(release: &str) -> Option<bool> {
    let mut numbers = release.split(['.', '-', '+']);
    let mut next = || numbers.next()?.parse::<u32>().ok();
    let series = (next()?, next()?);
    let [oldest, newest] = TESTED_SERIES;
    Some((oldest..=newest).contains(&series))
}

/// The installed kernels without a module; none where no kernel has one, since the module is then loaded from another
/// place.
pub(crate) fn without_module(system: &System) -> Vec<WithoutModule> {
    let mut having = Vec::new();
    let mut lacking = Vec::new();
    for release in system.names(MODULES) {
        let folder = format!("{MODULES}/{release}");
        // A removed kernel may leave a folder without its own modules.
        if !system.path(&folder).join("kernel").exists() {
            continue;
        }
        let place = PLACES.iter().find(|(place, _)| {
            let names = system.names(&format!("{folder}/{place}"));
            names.iter().any(|name| name.starts_with("hippos.ko"))
        });
        match place {
            Some((_, origin)) => having.push(format!("{release}: {origin}")),
            None => lacking.push(release),
        }
    }
    if having.is_empty() {
        return Vec::new();
    }
    let without = |release: String| {
        let is_supported = is_tested(&release) != Some(false);
        let (series, remedy) = match is_supported {
            true => (
                "",
                format!("apt install hippos-modules-{release}, or mend the build that `dkms status` and its log report"),
            ),
            false => (
                ", and its series is not supported",
                format!("boot another kernel, or wait for a version of Hippos that supports it; apt remove linux-image-{release}"),
            ),
        };
        WithoutModule {
            what: format!(
                "the installed kernel {release} has no module{series}: the service would fail after a reboot into it \
                 (with a module: {})",
                having.join(", ")
            ),
            remedy,
        }
    };
    lacking.into_iter().map(without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::Folder;

    #[test]
    fn kernels_without_a_module_are_found_beside_those_with_one() {
        let [_, newest] = TESTED_SERIES;
        let (major, minor) = newest;
        let release = |patch: u32| format!("{major}.{minor}.{patch}+deb13-amd64");
        let later = format!("{major}.{}.1+deb13-amd64", minor + 1);
        let file = |release: &str, name: &str| format!("{MODULES}/{release}/{name}");
        let paths = [
            file(&release(1), "extra/hippos.ko"),
            file(&release(1), "kernel/x"),
            file(&release(2), "updates/dkms/hippos.ko.xz"),
            file(&release(2), "kernel/x"),
            file(&release(3), "updates/dkms/other.ko"),
            file(&release(3), "kernel/x"),
            // Removed.
            file(&release(4), "modules.dep"),
            file(&later, "kernel/x"),
        ];
        let files: Vec<_> = paths.iter().map(|path| (path.as_str(), "")).collect();
        let folder = Folder::new("kernels", &files);
        let found = without_module(&folder.system());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0]
            .what
            .contains(&format!("kernel {} has no module:", release(3))));
        assert!(found[0]
            .what
            .contains(&format!("{}: prebuilt, {}: DKMS", release(1), release(2))));
        assert!(
            found[1].what.contains("series is not supported"),
            "{found:?}"
        );
        let none = Folder::new("kernels-none", &files[4..]);
        assert_eq!(without_module(&none.system()), []);
    }
}
