// SPDX-License-Identifier: GPL-2.0-only
//! Kbuild's crates and the edges between them are cargo's.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{read, Finding};
use crate::workspace;

const KBUILD: &str = "Kbuild";

/// Every finding in the work tree.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut pure, mut foreign) = (Vec::new(), Vec::new());
    for (name, krate) in workspace::kernel_crates()? {
        if krate.foreign {
            &mut foreign
        } else {
            &mut pure
        }
        .push(name.clone());
        wanted.insert(name, krate.uses);
    }
    Ok(compare(&read(KBUILD)?, &pure, &foreign, &wanted))
}

fn compare(
    kbuild: &str,
    pure: &[String],
    foreign: &[String],
    wanted: &BTreeMap<String, Vec<String>>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lists = lists(kbuild);
    let empty = (0, Vec::new());
    let mut hold = |variable: &str, wanted: &[String]| {
        let (line, found) = lists.get(variable).unwrap_or(&empty);
        let mut wanted = wanted.to_vec();
        wanted.sort();
        if *found != wanted {
            let what = format!(
                "{variable} is [{}], but cargo's is [{}]",
                found.join(" "),
                wanted.join(" ")
            );
            findings.push(Finding::new(KBUILD, *line, what));
        }
    };
    hold("pure", pure);
    hold("foreign", foreign);
    for (name, uses) in wanted {
        hold(&format!("uses-{name}"), uses);
    }
    findings
}

/// The simple variables of a Makefile: each with its line and its words, sorted.
fn lists(makefile: &str) -> BTreeMap<String, (usize, Vec<String>)> {
    let mut lists = BTreeMap::new();
    for (number, line) in makefile.lines().enumerate() {
        if let Some((name, words)) = line.split_once(" := ") {
            let mut words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            words.sort();
            lists.insert(name.trim().to_owned(), (number + 1, words));
        }
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_edge_is_found() {
        let strings = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let wanted = BTreeMap::from([
            ("a".to_owned(), strings(&["b", "m"])),
            ("b".to_owned(), Vec::new()),
            ("m".to_owned(), Vec::new()),
        ]);
        let (pure, foreign) = (strings(&["a", "b"]), strings(&["m"]));
        let right = "pure := b a\nforeign := m\nuses-a := m b\n";
        assert!(compare(right, &pure, &foreign, &wanted).is_empty());
        let missing = "pure := b a\nforeign := m\nuses-a := m\n";
        assert_eq!(compare(missing, &pure, &foreign, &wanted)[0].line, 3);
        let more = "pure := b a\nforeign := m\nuses-a := m b\nuses-b := m\n";
        assert_eq!(compare(more, &pure, &foreign, &wanted)[0].line, 4);
    }
}
