// SPDX-License-Identifier: GPL-2.0-only
//! No files of a crate import each other in a cycle, nor do its folders: a file lies above those that it uses. This
//! holds for all crates and for examples of several files, with the code of all features, but not that for tests.
//!
//! An import is a path from `crate`, `super` or `self`, in a `use` or in the code; a name that a
//! file only re-exports counts as an import of the file that has it. Methods are not followed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::{Context, Result};

use super::tokens::{self, Part, Token};
use super::{read, sources, tracked, Finding};

/// Cycles that there are: the files, and why. Files that leave one are to leave its list.
const KNOWN: &[(&[&str], &str)] = &[];

/// The roots of the crates that only Kbuild compiles.
const KERNEL_ROOTS: &[&str] = &["kmod/kapi/lib.rs", "kmod/src/hippos.rs"];

/// Every finding in the work tree.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let mut cycles = Vec::new();
    for root in tracked()?.iter().filter(|file| is_root(file)) {
        let mut files = BTreeMap::new();
        for file in sources::files_of(Path::new(root), Part::Product)? {
            let tokens = tokens::read(&read(&file)?, Part::Product)
                .with_context(|| file.clone())?
                .tokens;
            files.insert(file, tokens);
        }
        let imports = imports(root, &files);
        cycles.extend(find(&imports));
        cycles.extend(layers(folder(root), &imports));
    }
    Ok(compare(&cycles, KNOWN))
}

/// Whether a file is the root of a crate, or of an example of several files.
fn is_root(file: &str) -> bool {
    file.ends_with("src/lib.rs")
        || file.ends_with("src/main.rs")
        || file.contains("/examples/") && file.ends_with("/main.rs")
        || KERNEL_ROOTS.contains(&file)
}

/// A file's folder, with its `/`.
fn folder(file: &str) -> &str {
    file.rfind('/').map_or("", |at| &file[..=at])
}

/// The cycles that a crate's folders are in, as wholes.
fn layers(source: &str, imports: &Imports) -> Vec<Vec<String>> {
    let layer = |file: &String| match file[source.len()..].split_once('/') {
        Some((folder, _)) => format!("{source}{folder}/"),
        // A folder's file beside it is of the folder.
        None => match file.strip_suffix(".rs") {
            Some(stem) if imports.keys().any(|f| f.starts_with(&format!("{stem}/"))) => {
                format!("{stem}/")
            }
            _ => file.clone(),
        },
    };
    let mut among = Imports::new();
    for (file, uses) in imports {
        let others = uses.iter().map(layer).filter(|other| *other != layer(file));
        among.entry(layer(file)).or_default().extend(others);
    }
    let mut cycles = find(&among);
    cycles.retain(|cycle| cycle.iter().any(|layer| layer.ends_with('/')));
    cycles
}

/// The cycles that are not in the list of known ones, and the entries of that list that are no cycles.
fn compare(cycles: &[Vec<String>], known: &[(&[&str], &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for cycle in cycles {
        if !known.iter().any(|(files, _)| cycle == files) {
            let (first, files) = (&cycle[0], cycle.join(", "));
            findings.push(Finding::new(
                first,
                0,
                format!("imports in a cycle: {files}"),
            ));
        }
    }
    for (files, _) in known {
        if !cycles.iter().any(|cycle| cycle == files) {
            let what = "this is not a cycle any more: change KNOWN in xtask/src/lint/cycles.rs";
            findings.push(Finding::new(files[0], 0, what));
        }
    }
    findings
}

/// Each file with the files that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Where modules lie, and which names they give on.
struct Crate<'a> {
    /// The file of each module, by its path from the root.
    files: BTreeMap<Vec<String>, &'a str>,
    /// The path from the root that a module's imported name stands for: its submodules can use it too.
    exports: BTreeMap<(Vec<String>, String), Vec<String>>,
}

impl Crate<'_> {
    /// The file with the item that `path`, from the root, names.
    fn file_of(&self, path: &[String]) -> Option<&str> {
        let mut path = path.to_vec();
        // A re-export may lead to another; a bound in case they lead to each other.
        for _ in 0..8 {
            let depth = (0..=path.len())
                .rev()
                .find(|&depth| self.files.contains_key(&path[..depth]))?;
            let (module, rest) = path.split_at(depth);
            let export = rest
                .first()
                .and_then(|name| self.exports.get(&(module.to_vec(), name.clone())));
            match export {
                Some(target) => path = [target.as_slice(), &rest[1..]].concat(),
                None => return self.files.get(module).copied(),
            }
        }
        None
    }
}

/// The imports of a crate's files.
fn imports(root: &str, files: &BTreeMap<String, Vec<Token>>) -> Imports {
    let mut of = Crate {
        files: BTreeMap::new(),
        exports: BTreeMap::new(),
    };
    let mut paths = Vec::new();
    for file in files.keys() {
        of.files.insert(module(root, file), file);
    }
    for (file, tokens) in files {
        let module = module(root, file);
        for found in paths_in(tokens) {
            let Some(path) = absolute(&module, &found.path, &of) else {
                continue;
            };
            if let Some(name) = found.name {
                of.exports.insert((module.clone(), name), path.clone());
            }
            if !found.exported {
                paths.push((file, path));
            }
        }
    }
    let mut imports: Imports = files
        .keys()
        .map(|file| (file.clone(), BTreeSet::new()))
        .collect();
    for (file, path) in paths {
        let target = of.file_of(&path).filter(|target| target != file);
        if let (Some(target), Some(uses)) = (target, imports.get_mut(file)) {
            uses.insert(target.to_owned());
        }
    }
    imports
}

/// A file's module: its path from the root.
fn module(root: &str, file: &str) -> Vec<String> {
    if file == root {
        return Vec::new();
    }
    let path = file.strip_prefix(folder(root)).unwrap_or(file);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// `path`, as written in `module`, from the root; `None` when it leads to another crate.
fn absolute(module: &[String], path: &[String], of: &Crate<'_>) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let parent = module.get(..module.len().saturating_sub(1));
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => Some([parent?, rest].concat()),
        // A module that is declared here.
        _ => {
            let path = [module, path].concat();
            let child = &path[..=module.len()];
            of.files.contains_key(child).then_some(path)
        }
    }
}

/// A path in a file.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    path: Vec<String>,
    /// It is of a `pub use`.
    exported: bool,
    /// The name that a `use` imports it as.
    name: Option<String>,
}

/// The paths of a file's `use` items, and those in its code that begin with `crate`, `super` or
/// `self`.
fn paths_in(tokens: &[Token]) -> Vec<Found> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if text(at) == "use" {
            let exported = at > 0 && matches!(text(at - 1), "pub" | ")");
            let mut paths = Vec::new();
            at = tree(tokens, at + 1, &[], &mut paths);
            found.extend(paths.into_iter().map(|(path, name)| Found {
                path,
                exported,
                name,
            }));
        } else if matches!(text(at), "crate" | "super" | "self")
            && text(at + 1) == ":"
            && text(at + 2) == ":"
        {
            let mut path = vec![text(at).to_owned()];
            while text(at + 1) == ":" && text(at + 2) == ":" && is_name(text(at + 3)) {
                path.push(text(at + 3).to_owned());
                at += 3;
            }
            found.push(Found {
                path,
                exported: false,
                name: None,
            });
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

/// Reads the tree of a `use` from `at` on; gives where it ends.
fn tree(
    tokens: &[Token],
    mut at: usize,
    before: &[String],
    found: &mut Vec<(Vec<String>, Option<String>)>,
) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            ":" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = tree(tokens, at, &path, found);
                    if tokens.get(at).is_some_and(|token| token.text == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => {
                let name = tokens.get(at + 1).map(|token| token.text.clone());
                found.push((path, name));
                return at + 2;
            }
            // `a::{self, b}` is `a` and `a::b`.
            "self" if !path.is_empty() => at += 1,
            "*" => at += 1,
            word if is_name(word) => {
                path.push(word.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    let name = path.last().cloned();
    found.push((path, name));
    at
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic())
}

/// The largest sets of files that all reach each other.
fn find(imports: &Imports) -> Vec<Vec<String>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> = imports
        .keys()
        .map(|file| (file.as_str(), reachable(imports, file)))
        .collect();
    let mut cycles = BTreeSet::new();
    for (file, reached) in &reach {
        if reached.contains(file) {
            let both = reached.iter().filter(|other| reach[*other].contains(file));
            cycles.insert(both.map(|file| (*file).to_owned()).collect::<Vec<_>>());
        }
    }
    cycles.into_iter().collect()
}

fn reachable<'a>(imports: &'a Imports, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut todo = VecDeque::from([from]);
    while let Some(file) = todo.pop_front() {
        for next in imports.get(file).into_iter().flatten() {
            if reached.insert(next.as_str()) {
                todo.push_back(next);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let imports = imports_of(files);
        let strip = |file: &String| file["x/src/".len()..].to_owned();
        [find(&imports), layers("x/src/", &imports)]
            .concat()
            .iter()
            .map(|cycle| cycle.iter().map(strip).collect())
            .collect()
    }

    fn imports_of(files: &[(&str, &str)]) -> Imports {
        let files = files
            .iter()
            .map(|(file, text)| {
                let tokens = tokens::read(text, Part::Product).unwrap().tokens;
                (format!("x/src/{file}"), tokens)
            })
            .collect();
        imports("x/src/lib.rs", &files)
    }

    const LIB: (&str, &str) = (
        "lib.rs",
        "mod a; mod b; pub use a::A; pub(crate) use b::inner::{B as C, D};",
    );

    #[test]
    fn a_cycle_of_imports_is_found() {
        let found = cycles(&[
            LIB,
            ("a.rs", "use crate::b::{inner::B, E};"),
            ("b/mod.rs", "mod inner;"),
            ("b/inner.rs", "fn f() { crate::a::f() }"),
        ]);
        assert_eq!(found, [["a.rs", "b/inner.rs"], ["a.rs", "b/"]]);
    }

    #[test]
    fn a_cycle_by_a_re_export_is_found() {
        let found = cycles(&[
            LIB,
            ("a.rs", "use crate::C;"),
            ("b/mod.rs", "mod inner;"),
            ("b/inner.rs", "use super::super::x; use crate::{A, y};"),
        ]);
        assert_eq!(found, [["a.rs", "b/inner.rs"], ["a.rs", "b/"]]);
    }

    #[test]
    fn a_name_that_the_root_imports_is_of_the_file_that_has_it() {
        let found = cycles(&[
            ("lib.rs", "mod a; mod b; use a::A;"),
            ("a.rs", ""),
            ("b.rs", "use crate::A;"),
        ]);
        assert_eq!(found, Vec::<Vec<String>>::new());
    }

    #[test]
    fn a_cycle_by_super_is_found() {
        let found = cycles(&[
            LIB,
            ("b/mod.rs", "mod inner; mod other; use inner::B;"),
            ("b/inner.rs", "use super::other::f;"),
            ("b/other.rs", "fn f() { super::g() }"),
        ]);
        assert_eq!(found, [["b/inner.rs", "b/mod.rs", "b/other.rs"]]);
    }

    #[test]
    fn a_cycle_of_folders_is_found_though_no_file_is_in_one() {
        let found = cycles(&[
            LIB,
            ("a.rs", "use self::low::A; mod low; mod high;"),
            ("a/low.rs", ""),
            ("a/high.rs", "use crate::b::low::B;"),
            ("b/mod.rs", "mod low; mod high;"),
            ("b/low.rs", ""),
            ("b/high.rs", "use crate::a::low::A;"),
        ]);
        assert_eq!(found, [["a/", "b/"]]);
    }

    #[test]
    fn imports_of_tests_and_in_one_direction_are_no_cycle() {
        let found = cycles(&[
            LIB,
            (
                "a.rs",
                "use crate::b::E; use crate::D; #[cfg(test)] mod tests { use crate::b; }",
            ),
            (
                "b/mod.rs",
                "mod inner; pub use inner::E; #[cfg(test)] mod tests { use crate::A; }",
            ),
            (
                "b/inner.rs",
                "use core::fmt; use std::{a, b}; #[cfg(test)] use crate::A;",
            ),
        ]);
        assert_eq!(found, Vec::<Vec<String>>::new());
    }

    #[test]
    fn a_cycle_in_the_code_of_a_feature_is_found() {
        let found = cycles(&[
            ("lib.rs", "mod a; #[cfg(feature = \"f\")] mod b;"),
            ("a.rs", "#[cfg(feature = \"f\")] use crate::b::B;"),
            ("b.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found, [["a.rs", "b.rs"]]);
    }

    #[test]
    fn examples_of_several_files_are_searched() {
        assert!(is_root("kmod/engine/examples/server/main.rs"));
        assert!(!is_root("kmod/engine/examples/server/tcp.rs"));
    }

    #[test]
    fn a_known_cycle_is_let_pass_until_it_changes() {
        let cycle = |files: &[&str]| files.iter().map(|file| (*file).to_owned()).collect();
        let known: &[(&[&str], &str)] = &[(&["a", "b"], "because")];
        assert_eq!(compare(&[cycle(&["a", "b"])], known), []);
        assert_eq!(compare(&[cycle(&["a", "b", "c"])], known).len(), 2);
        assert_eq!(compare(&[], known).len(), 1);
    }
}
