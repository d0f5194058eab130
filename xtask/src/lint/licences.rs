// SPDX-License-Identifier: GPL-2.0-only
//! Every source file names its licence in its first line, and it is its crate's.

use std::path::Path;

use anyhow::{Context, Result};

use super::{read, tracked, Finding};
use crate::workspace;

/// The suffixes of source files' names.
const SOURCES: &[&str] = &[".rs", ".c", ".h"];
/// The text before the licence's name.
const TAG: &str = "SPDX-License-Identifier: ";

/// Every finding in the work tree.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in tracked()? {
        if !SOURCES.iter().any(|end| file.ends_with(end)) {
            continue;
        }
        let wanted = of_crate(Path::new(&file))?;
        if let Some(what) = mismatch(&read(&file)?, &wanted) {
            findings.push(Finding::new(&file, 1, what));
        }
    }
    Ok(findings)
}

/// The difference between a file's licence line and its crate's licence.
fn mismatch(text: &str, wanted: &str) -> Option<String> {
    let line = text.lines().next().unwrap_or("");
    let Some((_, named)) = line.split_once(TAG) else {
        return Some(format!("the first line is not `// {TAG}{wanted}`"));
    };
    let named = named.trim_end_matches("*/").trim();
    (named != wanted).then(|| format!("the file says {named}, its crate {wanted}"))
}

/// The licence of the crate that a file belongs to: that of the nearest Cargo.toml, or the
/// workspace's where that file inherits it.
fn of_crate(file: &Path) -> Result<String> {
    let mut dir = file.parent();
    while let Some(folder) = dir.filter(|folder| !folder.as_os_str().is_empty()) {
        let manifest = folder.join("Cargo.toml");
        if workspace::root().join(&manifest).is_file() {
            if let Some(licence) = licence(&read(&manifest.to_string_lossy())?) {
                return Ok(licence);
            }
            break;
        }
        dir = folder.parent();
    }
    licence(&read("Cargo.toml")?).context("the workspace's Cargo.toml names no licence")
}

/// The licence field of a manifest.
fn licence(manifest: &str) -> Option<String> {
    let line = manifest
        .lines()
        .find_map(|line| line.strip_prefix("license = \""))?;
    Some(line.strip_suffix('"')?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_line_must_be_first_and_match_the_crate() {
        let gpl = "GPL-2.0-only";
        assert_eq!(
            mismatch("// SPDX-License-Identifier: GPL-2.0-only\n//! Head\n", gpl),
            None
        );
        assert_eq!(
            mismatch("/* SPDX-License-Identifier: GPL-2.0-only */\n", gpl),
            None
        );
        assert!(mismatch("//! Head\n// SPDX-License-Identifier: GPL-2.0-only\n", gpl).is_some());
        assert!(mismatch("// SPDX-License-Identifier: MIT\n", gpl).is_some());
        assert!(mismatch("", gpl).is_some());
    }

    #[test]
    fn manifest_without_a_licence_of_its_own_inherits() {
        assert_eq!(licence("[package]\nlicense.workspace = true\n"), None);
        assert_eq!(
            licence("[package]\nlicense = \"MIT OR GPL-2.0-only\"\n").as_deref(),
            Some("MIT OR GPL-2.0-only")
        );
    }
}
