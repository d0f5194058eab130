// SPDX-License-Identifier: GPL-2.0-only
//! The packages' version and date, from git.

use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::{shell, workspace};

/// The version data that all packages of one build share.
pub(crate) struct Version {
    /// Debian's version number.
    pub(crate) number: String,
    /// When the commit was made, in seconds since 1970: the time of all that is packed.
    pub(crate) epoch: u64,
}

impl Version {
    /// The work tree's.
    pub(crate) fn of_work_tree() -> Result<Version> {
        // A shallow clone has fewer commits, and so an older version.
        ensure!(
            git(&["rev-parse", "--is-shallow-repository"])?.trim() == "false",
            "this clone is shallow, and the version counts commits: git fetch --unshallow --tags"
        );
        let tag = format!("v{}", env!("CARGO_PKG_VERSION"));
        let tagged = git(&["tag", "--list", &tag])?;
        let range = match tagged.trim() {
            "" => "HEAD".to_owned(),
            tag => format!("{tag}..HEAD"),
        };
        let commits: u32 = git(&["rev-list", "--count", &range])?.trim().parse()?;
        // Git's own short name is longer where another object begins alike.
        let hash = git(&["rev-parse", "HEAD"])?;
        let hash = hash.get(..7).context("a commit without a name")?;
        let dirty = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => git(&["log", "-1", "--format=%ct"])?,
        };
        Ok(Version {
            number: number(!tagged.trim().is_empty(), commits, hash, dirty),
            epoch: epoch
                .trim()
                .parse()
                .context("SOURCE_DATE_EPOCH is no number of seconds")?,
        })
    }

    /// One that an upgrade takes in this one's place, for trying upgrades.
    pub(crate) fn later(&self) -> Version {
        Version {
            number: format!("{}+later", self.number),
            epoch: self.epoch,
        }
    }
}

fn git(args: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    shell::output(git.args(args).current_dir(workspace::root()))
        .context("the version comes from git")
}

/// The version after so many commits: before the release of the workspace's version (`~` sorts
/// before it), at it or after it. It grows with every commit.
fn number(released: bool, commits: u32, hash: &str, dirty: bool) -> String {
    let release = env!("CARGO_PKG_VERSION");
    let dirty = if dirty { ".dirty" } else { "" };
    match (released, commits) {
        (true, 0) => format!("{release}{}-1", dirty.replace('.', "+")),
        (true, _) => format!("{release}+git{commits}.{hash}{dirty}-1"),
        (false, _) => format!("{release}~git{commits}.{hash}{dirty}-1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_commits_before_and_after_the_release() {
        let release = env!("CARGO_PKG_VERSION");
        let before = number(false, 304, "343c328", false);
        assert_eq!(before, format!("{release}~git304.343c328-1"));
        assert_eq!(number(true, 0, "343c328", false), format!("{release}-1"));
        let after = number(true, 2, "343c328", true);
        assert_eq!(after, format!("{release}+git2.343c328.dirty-1"));
    }
}
