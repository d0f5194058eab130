// SPDX-License-Identifier: GPL-2.0-only
//! A build of all packages, with the inputs that they share.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Result};

use super::version::Version;
use crate::root::Root;
use crate::shell;

/// One making of all packages.
pub(super) struct Build<'a> {
    pub(super) root: &'a Root,
    pub(super) version: &'a Version,
    /// The values of placeholders, apart from the libraries.
    pub(super) values: Vec<(&'static str, String)>,
    /// Where the packages' files are laid out.
    pub(super) stage: PathBuf,
    pub(super) out: PathBuf,
}

impl Build<'_> {
    /// Debian's name of the architecture of the programs and the module.
    pub(super) fn arch(&self) -> &'static str {
        self.root.kernel().target.arch.debian()
    }

    /// Fills placeholders in.
    pub(super) fn fill(&self, text: &str) -> Result<String> {
        let values: Vec<(&str, &str)> = self
            .values
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        fill(text, &values)
    }

    /// The version's date as changelogs have it.
    pub(super) fn date(&self) -> Result<String> {
        let mut date = Command::new("date");
        date.env("LC_ALL", "C").args(["-u", "-R", "-d"]);
        let text = shell::output(date.arg(format!("@{}", self.version.epoch)))?;
        Ok(text.trim().to_owned())
    }
}

/// Fills `@NAME@` in; a name that has no value is an error.
fn fill(text: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut text = text.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("@{name}@"), value);
    }
    let open =
        text.split('@').skip(1).step_by(2).find(|word| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        });
    ensure!(open.is_none(), "nothing fills in @{}@", open.unwrap_or(""));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_filled_in() {
        let values = [("VERSION", "1"), ("RELEASE", "7.3")];
        assert_eq!(fill("a @VERSION@ @RELEASE@", &values).unwrap(), "a 1 7.3");
        assert!(fill("a @SERIES@", &values).is_err());
        assert_eq!(fill("@…@ x@y", &values).unwrap(), "@…@ x@y");
    }
}
