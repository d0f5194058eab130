// SPDX-License-Identifier: GPL-2.0-only
//! Comments and documents name files and folders that exist: each path from the repository's top that they mention, and
//! each relative link of a document. CHANGELOG.md describes the past, and is left out.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use super::words::Prose;
use super::{read, tracked, Finding};

const PAST: &str = "CHANGELOG.md";

/// Every finding in the work tree.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let files = tracked()?;
    let existing = Existing::of(&files);
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| *file != PAST) {
        if let Some(prose) = Prose::of(file) {
            findings.extend(existing.search(file, &read(file)?, prose));
        }
    }
    Ok(findings)
}

/// The tracked files, and the folders that they lie in.
struct Existing {
    paths: BTreeSet<String>,
    /// The folders at the top.
    tops: BTreeSet<String>,
}

impl Existing {
    fn of(files: &[String]) -> Self {
        let (mut paths, mut tops) = (BTreeSet::new(), BTreeSet::new());
        for file in files {
            if let Some((top, _)) = file.split_once('/') {
                tops.insert(top.to_owned());
            }
            let folders = file.match_indices('/').map(|(at, _)| &file[..at]);
            paths.extend(folders.map(str::to_owned));
            paths.insert(file.clone());
        }
        Self { paths, tops }
    }

    fn search(&self, file: &str, text: &str, prose: Prose) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = prose.in_line(line);
            let mut missing: BTreeSet<&str> = mentioned(line)
                .filter(|path| self.is_whole(path) && !self.has(path))
                .collect();
            if file.ends_with(".md") {
                missing.extend(links(line).filter(|link| !self.has(&beside(file, link))));
            }
            for path in missing {
                findings.push(Finding::new(
                    file,
                    index + 1,
                    format!("{path} does not exist"),
                ));
            }
        }
        findings
    }

    /// Whether a path begins at the repository's top.
    fn is_whole(&self, path: &str) -> bool {
        path.split_once('/')
            .is_some_and(|(top, _)| self.tops.contains(top))
    }

    fn has(&self, path: &str) -> bool {
        self.paths.contains(path.trim_end_matches('/'))
    }
}

/// The paths in a line: a whole word in backticks, or a word that ends as a file's name.
fn mentioned(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let quoted = quoted.filter(|word| !word.is_empty() && word.chars().all(of_path));
    let words = line.split(|letter| !of_path(letter));
    let words = words.map(|word| word.trim_end_matches('.'));
    quoted.chain(words.filter(|word| {
        let suffixes = [".rs", ".c", ".h", ".md", ".toml", ".sh", ".py", ".config"];
        suffixes.iter().any(|suffix| word.ends_with(suffix))
    }))
}

fn of_path(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "_./-".contains(letter)
}

/// The targets of a line's Markdown links to other files, without the section.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1);
    let targets = targets.filter_map(|rest| Some(rest.split_once(')')?.0));
    let targets = targets.map(|target| target.split('#').next().unwrap_or(target));
    targets.filter(|target| !target.is_empty() && target.chars().all(of_path))
}

/// The paths, from the top, of the files that a line of `file` links to.
#[cfg(test)]
pub(crate) fn linked<'a>(file: &'a str, line: &'a str) -> impl Iterator<Item = String> + 'a {
    links(line).map(move |link| beside(file, link))
}

/// The path, from the top, of a link in `file`.
fn beside(file: &str, link: &str) -> String {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut path = PathBuf::new();
    for part in folder.join(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Vec<usize> {
        let files = ["kmod/c/poll.c", "kmod/README.md", "docs/adr/0001-one.md"];
        let existing = Existing::of(&files.map(str::to_owned));
        let findings = existing.search(file, text, Prose::of(file).unwrap());
        findings.into_iter().map(|one| one.line).collect()
    }

    #[test]
    fn paths_that_exist_are_allowed() {
        let text = "`kmod/c/poll.c`, `kmod/c/`, kmod/README.md. `kmod`, `src/a.rs`, kmod/or/not, `docs/x y`\n\
             [0001](adr/0001-one.md#context), [up](../kmod/README.md), [web](https://kernel.org/doc.md)\n";
        assert!(found("docs/a.md", text).is_empty());
    }

    #[test]
    fn a_path_that_does_not_exist_is_found() {
        assert_eq!(found("docs/a.md", "\n`kmod/d/`\nkmod/c/pool.c.\n"), [2, 3]);
        assert_eq!(found("docs/a.md", "[0002](adr/0002-two.md)\n"), [1]);
        assert_eq!(
            found(
                "a.rs",
                "// See kmod/c/pool.c.\nlet a = \"kmod/c/pool.c\";\n"
            ),
            [1]
        );
    }
}
