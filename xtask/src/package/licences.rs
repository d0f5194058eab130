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
/// The licences that other programs of the workspace, which are not under the GPL, may be linked with besides.
const PERMISSIVE: &[&str] = &["Apache-2.0"];
/// The programs of the packages.
pub(crate) const PROGRAMS: &[&str] = &["hippos-ctl", "hippos-load"];
/// Crates that hold a C library which is linked as well, and its folder in them.
pub(crate) const LIBRARIES: &[(&str, &str)] = &[("libbpf-sys", "libbpf")];
/// How the names of licence files begin.
const TEXTS: &[&str] = &[
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
];

/// The crates of the workspace, as they are built for a package.
pub(crate) fn metadata() -> Result<Metadata> {
    MetadataCommand::new()
        .manifest_path(workspace::root().join("Cargo.toml"))
        .features(CargoOpt::SomeFeatures(vec!["hippos-ctl/xdp".into()]))
        .other_options(vec![
            "--locked".into(),
            "--filter-platform".into(),
            "x86_64-unknown-linux-gnu".into(),
        ])
        .exec()
        .context("cargo metadata: is Cargo.lock up to date?")
}

/// Checks every crate of the workspace and below it: those that the module or a packaged program is linked with must go
/// with GPL-2.0-only; all others, of tests and other programs, need a known free licence.
///
/// # Errors
///
/// Names each crate that does not.
pub(crate) fn check(metadata: &Metadata) -> Result<()> {
    let released = [PROGRAMS, workspace::PURE_CRATES].concat();
    let strict = linked(metadata, &released)?;
    let mut refused = Vec::new();
    for package in &metadata.packages {
        let (name, version) = (package.name.to_string(), package.version.to_string());
        let licence = package.license.as_deref().unwrap_or("");
        let is_strict = strict.contains_key(&(name.clone(), version.clone()));
        if let Some(why) = refusal(licence, is_strict) {
            refused.push(format!("{name} {version}: {why}"));
        }
    }
    ensure!(refused.is_empty(), "licences:\n{}", refused.join("\n"));
    Ok(())
}

/// Why a crate may not be used; `is_strict` for one that is linked with code under the GPL.
fn refusal(licence: &str, is_strict: bool) -> Option<String> {
    let allowed = match is_strict {
        true => COMPATIBLE.to_vec(),
        false => [COMPATIBLE, PERMISSIVE].concat(),
    };
    match is_allowed(licence, &allowed) {
        Ok(true) => None,
        Ok(false) if is_strict => Some(format!("{licence} does not go with GPL-2.0-only")),
        Ok(false) => Some(format!("{licence} is not among the known licences")),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// The licence texts that must be distributed with programs made from these packages of the workspace.
///
/// # Errors
///
/// When a crate's licence is not compatible with theirs.
pub(crate) fn notices(programs: &[&str]) -> Result<String> {
    let metadata = metadata()?;
    let mut text = "This package contains the following crates, whose licences ask\n\
                    for their texts to go along.\n"
        .to_owned();
    for package in linked(&metadata, programs)?.values() {
        let licence = package.license.as_deref().unwrap_or("");
        if let Some(why) = refusal(licence, true) {
            bail!("{} {}: {why}", package.name, package.version);
        }
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
pub(crate) fn linked<'a>(
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

/// Whether an SPDX expression leaves a choice that is allowed.
fn is_allowed(expression: &str, allowed: &[&str]) -> Result<bool> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut expression = Expression {
        words: spaced.split_whitespace().collect(),
        at: 0,
        allowed,
    };
    let answer = expression.either()?;
    ensure!(
        expression.at == expression.words.len(),
        "not a licence: {spaced}"
    );
    Ok(answer)
}

/// An SPDX expression being read.
struct Expression<'a> {
    words: Vec<&'a str>,
    at: usize,
    allowed: &'a [&'a str],
}

impl Expression<'_> {
    /// Takes the next word if it is this one.
    fn take(&mut self, word: &str) -> bool {
        let is_next = self.words.get(self.at) == Some(&word);
        self.at += usize::from(is_next);
        is_next
    }

    fn either(&mut self) -> Result<bool> {
        let mut answer = self.both()?;
        while self.take("OR") {
            answer |= self.both()?;
        }
        Ok(answer)
    }

    fn both(&mut self) -> Result<bool> {
        let mut answer = self.one()?;
        while self.take("AND") {
            answer &= self.one()?;
        }
        Ok(answer)
    }

    fn one(&mut self) -> Result<bool> {
        if self.take("(") {
            let answer = self.either()?;
            ensure!(self.take(")"), "a bracket is missing");
            return Ok(answer);
        }
        let Some(word) = self.words.get(self.at) else {
            bail!("a licence is missing");
        };
        let mut name = (*word).to_owned();
        self.at += 1;
        if self.take("WITH") {
            name += &format!(" WITH {}", self.words.get(self.at).unwrap_or(&""));
            self.at += 1;
        }
        Ok(self.allowed.contains(&name.as_str()))
    }
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
            assert!(is_allowed(good, COMPATIBLE).unwrap(), "{good}");
        }
        for bad in [
            "Apache-2.0",
            "GPL-3.0-only",
            "MIT AND Apache-2.0",
            "MIT AND (Apache-2.0 OR GPL-3.0-only)",
        ] {
            assert!(!is_allowed(bad, COMPATIBLE).unwrap(), "{bad}");
        }
        for wrong in ["", "MIT OR", "(MIT", "MIT MIT"] {
            assert!(is_allowed(wrong, COMPATIBLE).is_err(), "{wrong}");
        }
    }

    #[test]
    fn apache_alone_is_refused_only_where_it_meets_the_gpl() {
        assert!(refusal("Apache-2.0", true).is_some());
        assert!(refusal("Apache-2.0", false).is_none());
        for is_strict in [true, false] {
            assert!(refusal("AGPL-3.0-only", is_strict).is_some());
            assert!(refusal("", is_strict).is_some());
        }
    }

    #[test]
    fn a_crate_with_a_forbidden_licence_is_refused_by_name() {
        let mut metadata = metadata().unwrap();
        check(&metadata).unwrap();
        // One of the module's, and one of the tests'.
        for (name, licence) in [("memchr", "Apache-2.0"), ("proptest", "AGPL-3.0-only")] {
            let mut packages = metadata.packages.iter_mut();
            let package = packages
                .find(|package| package.name.as_str() == name)
                .unwrap();
            let kept = package.license.replace(licence.into());
            let error = check(&metadata).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(licence), "{error}");
            let mut packages = metadata.packages.iter_mut();
            let package = packages.find(|package| package.name.as_str() == name);
            package.unwrap().license = kept;
        }
    }
}
