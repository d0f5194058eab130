// SPDX-License-Identifier: GPL-2.0-only
//! The path of this work tree, and the package metadata of cargo.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand, PackageId};
use sha2::{Digest, Sha256};

/// The crates that are built for the kernel as well as for the host.
pub(crate) const PURE_CRATES: &[&str] = &[
    "hippos_abi",
    "hippos_invariant",
    "hippos_semantics",
    "hippos_proto",
    "hippos_store",
    "hippos_engine",
];

/// The work tree's top folder.
pub(crate) fn root() -> &'static Path {
    // xtask lies directly under it.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// The cargo that runs us, or the one on the PATH.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A crate that Kbuild compiles, as cargo sees it.
pub(crate) struct KernelCrate {
    /// The folder of its manifest.
    pub(crate) dir: PathBuf,
    /// Whether it comes from the registry.
    pub(crate) foreign: bool,
    /// The names of the crates that it uses, without those for tests and build scripts.
    pub(crate) uses: Vec<String>,
}

/// The pure crates and everything below them, by crate name.
pub(crate) fn kernel_crates() -> Result<BTreeMap<String, KernelCrate>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec![
            "--locked".into(),
            "--filter-platform".into(),
            "x86_64-unknown-linux-gnu".into(),
        ])
        .exec()
        .context("cargo metadata: is Cargo.lock up to date?")?;
    let resolve = metadata
        .resolve
        .as_ref()
        .context("cargo metadata gave no graph")?;
    let mut todo: Vec<&PackageId> = metadata
        .packages
        .iter()
        .filter(|package| PURE_CRATES.contains(&package.name.as_str()))
        .map(|package| &package.id)
        .collect();
    let mut crates = BTreeMap::new();
    while let Some(id) = todo.pop() {
        let package = &metadata[id];
        if crates.contains_key(&package.name) {
            continue;
        }
        let node = resolve
            .nodes
            .iter()
            .find(|node| &node.id == id)
            .context("no such node")?;
        let mut uses = Vec::new();
        for dependency in &node.deps {
            let used = &metadata[&dependency.pkg];
            // Kbuild turns no feature on, so cargo's optional dependencies are not used.
            let needed = package.dependencies.iter().any(|declared| {
                declared.name == used.name
                    && declared.kind == DependencyKind::Normal
                    && !declared.optional
            });
            if needed {
                uses.push(used.name.clone());
                todo.push(&used.id);
            }
        }
        uses.sort();
        let dir = package
            .manifest_path
            .parent()
            .context("a manifest has a folder")?;
        crates.insert(
            package.name.clone(),
            KernelCrate {
                dir: dir.into(),
                foreign: package.source.is_some(),
                uses,
            },
        );
    }
    Ok(crates)
}

/// A short digest of `parts`, as hexadecimal digits.
pub(crate) fn digest<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
        digest.update([0]);
    }
    digest
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
