// SPDX-License-Identifier: GPL-2.0-only
//! The licences of the crates that programs are made of: whether they go with ours, and their texts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, Package};

use crate::workspace;

/// Licences that may be combined with GPL-2.0-only in one program. Apache-2.0 alone is none of them.
const COMPATIBLE: &[&str] = &[
    "0BSD",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "ISC",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Crates that hold a C library which is linked as well, and its folder in them.
const LIBRARIES: &[(&str, &str)] = &[("libbpf-sys", "libbpf")];
/// How the names of licence files begin.
const TEXTS: &[&str] = &[
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
];

/// The licence texts that must be distributed with programs made from these packages of the workspace.
///
/// # Errors
///
/// When a crate's licence is not compatible with theirs.
pub(crate) fn notices(programs: &[&str]) -> Result<String> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace::root().join("Cargo.toml"))
        .features(CargoOpt::SomeFeatures(vec!["hippos-ctl/xdp".into()]))
        .other_options(vec![
            "--locked".into(),
            "--filter-platform".into(),
            "x86_64-unknown-linux-gnu".into(),
        ])
        .exec()
        .context("cargo metadata: is Cargo.lock up to date?")?;
    let mut text = "This package contains the following crates, whose licences ask\n\
                    for their texts to go along.\n"
        .to_owned();
    for package in linked(&metadata, programs)?.values() {
        let licence = package.license.as_deref().unwrap_or("");
        ensure!(
            is_compatible(licence)?,
            "{} {} is under {licence:?}, which does not go with GPL-2.0-only",
            package.name,
            package.version
        );
        text += &format!(
            "\n{:=<80}\n{} {}: {licence}\n",
            "", package.name, package.version
        );
        if !package.authors.is_empty() {
            text += &format!("Authors: {}\n", package.authors.join(", "));
        }
        let dir = package.manifest_path.parent();
        let dir = dir.context("a manifest has a folder")?.as_std_path();
        text += &texts(dir, licence)?;
        for (_, library) in LIBRARIES
            .iter()
            .filter(|(of, _)| *of == package.name.as_str())
        {
            text += &format!("\n{library}, which is in it:\n");
            text += &texts(&dir.join(library), licence)?;
        }
    }
    Ok(text)
}

/// The external crates that the programs are linked with, by name and version.
fn linked<'a>(
    metadata: &'a Metadata,
    programs: &[&str],
) -> Result<BTreeMap<(String, String), &'a Package>> {
    let resolve = metadata
        .resolve
        .as_ref()
        .context("cargo metadata gave no graph")?;
    let mut todo: Vec<_> = metadata
        .workspace_packages()
        .iter()
        .filter(|package| programs.contains(&package.name.as_str()))
        .map(|package| package.id.clone())
        .collect();
    ensure!(
        todo.len() == programs.len(),
        "no such package: {programs:?}"
    );
    let mut seen = Vec::new();
    let mut crates = BTreeMap::new();
    while let Some(id) = todo.pop() {
        if seen.contains(&id) {
            continue;
        }
        let package = &metadata[&id];
        let node = resolve.nodes.iter().find(|node| node.id == id);
        for dependency in &node.context("no such node")?.deps {
            let linked = |kind: &cargo_metadata::DepKindInfo| kind.kind == DependencyKind::Normal;
            if dependency.dep_kinds.iter().any(linked) {
                todo.push(dependency.pkg.clone());
            }
        }
        if package.source.is_some() {
            crates.insert(
                (package.name.to_string(), package.version.to_string()),
                package,
            );
        }
        seen.push(id);
    }
    Ok(crates)
}

/// The licence files of a folder. The Apache licence's long text is not required where there is a choice.
fn texts(dir: &Path, licence: &str) -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let upper = name.to_uppercase();
        let chosen = !upper.contains("APACHE") || !licence.contains("MIT");
        if entry.file_type()?.is_file()
            && chosen
            && TEXTS.iter().any(|text| upper.starts_with(text))
        {
            names.push(name);
        }
    }
    names.sort();
    let mut all = String::new();
    for name in names {
        let text = fs::read(dir.join(&name))?;
        all += &format!("\n--- {name}\n{}\n", String::from_utf8_lossy(&text).trim());
    }
    Ok(all)
}

/// Whether an SPDX expression leaves a choice that is compatible.
fn is_compatible(expression: &str) -> Result<bool> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let answer = either(&words, &mut at)?;
    ensure!(at == words.len(), "not a licence: {expression}");
    Ok(answer)
}

fn either(words: &[&str], at: &mut usize) -> Result<bool> {
    let mut answer = both(words, at)?;
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        answer |= both(words, at)?;
    }
    Ok(answer)
}

fn both(words: &[&str], at: &mut usize) -> Result<bool> {
    let mut answer = one(words, at)?;
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        answer &= one(words, at)?;
    }
    Ok(answer)
}

fn one(words: &[&str], at: &mut usize) -> Result<bool> {
    let Some(word) = words.get(*at) else {
        bail!("a licence is missing");
    };
    *at += 1;
    if *word == "(" {
        let answer = either(words, at)?;
        ensure!(words.get(*at) == Some(&")"), "a bracket is missing");
        *at += 1;
        return Ok(answer);
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name += &format!(" WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    Ok(COMPATIBLE.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_with_a_compatible_choice_is_taken() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "Apache-2.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
            "LGPL-2.1-only OR BSD-2-Clause",
        ] {
            assert!(is_compatible(good).unwrap(), "{good}");
        }
        for bad in [
            "Apache-2.0",
            "GPL-3.0-only",
            "MIT AND Apache-2.0",
            "MIT AND (Apache-2.0 OR GPL-3.0-only)",
        ] {
            assert!(!is_compatible(bad).unwrap(), "{bad}");
        }
        for wrong in ["", "MIT OR", "(MIT", "MIT MIT"] {
            assert!(is_compatible(wrong).is_err(), "{wrong}");
        }
    }
}
