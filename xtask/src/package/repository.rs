// SPDX-License-Identifier: GPL-2.0-only
//! The index that makes a folder of packages an apt repository.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::root::Root;
use crate::shell;

/// Writes the index of a folder's packages into it.
pub(crate) fn index(root: &Root, dir: &Path, packages: &[PathBuf]) -> Result<()> {
    let mut text = String::new();
    for package in packages {
        let mut field = root.command_with("/usr/bin/dpkg-deb", &[dir]);
        let control = shell::output(field.arg("--field").arg(package))?;
        let bytes = fs::read(package)?;
        let name = package.file_name().context("a package has a name")?;
        text += &stanza(&control, &name.to_string_lossy(), &bytes);
    }
    fs::write(dir.join("Packages"), text).with_context(|| format!("cannot write {}", dir.display()))
}

/// The index's entry for a package.
fn stanza(control: &str, name: &str, bytes: &[u8]) -> String {
    let digest: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "{}\nFilename: ./{name}\nSize: {}\nSHA256: {digest}\n\n",
        control.trim_end(),
        bytes.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_names_size_and_digest_of_a_package() {
        let text = stanza("Package: a\nVersion: 1\n", "a_1.deb", b"abc");
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let wanted =
            format!("Package: a\nVersion: 1\nFilename: ./a_1.deb\nSize: 3\nSHA256: {digest}\n\n");
        assert_eq!(text, wanted);
    }
}
