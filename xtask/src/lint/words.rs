// SPDX-License-Identifier: GPL-2.0-only
//! Comments and documents name the noun of the code (caller, reader, owner, client) in place of the
//! words listed in [`WORDS`]; comments also in place of a clause that begins with one of [`PRONOUNS`].

use anyhow::Result;

use super::{read, tracked, Finding};

/// Words that hide the subject of a sentence, and spoken style.
const WORDS: &[&str] = &[
    "somebody",
    "someone",
    "anybody",
    "everybody",
    "whoever",
    "nobody",
    "those who",
    "knows of",
    "knows nothing",
    "tells",
    "told",
    "so be it",
    "as it should be",
];

/// At the beginning of a clause these take the place of a noun.
const PRONOUNS: &[&str] = &["What", "Whatever", "Who"];

/// The suffixes of files whose comments begin with a slash or an asterisk.
const SLASHES: &[&str] = &[".rs", ".c", ".h"];
/// The suffixes of files whose comments begin with a hash sign.
const HASHES: &[&str] = &[".toml", ".sh", ".py", "Makefile", "Kbuild"];

/// Every finding in the work tree.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in tracked()? {
        let Some(prose) = Prose::of(&file) else {
            continue;
        };
        findings.extend(search(&file, &read(&file)?, prose));
    }
    Ok(findings)
}

/// The part of a file that is prose.
#[derive(Clone, Copy)]
pub(super) enum Prose {
    /// All of it.
    Whole,
    /// Comments that begin with one of these marks, at the start of a line or after code.
    Comments(&'static [&'static str]),
}

impl Prose {
    pub(super) fn of(file: &str) -> Option<Self> {
        let ends = |suffixes: &[&str]| suffixes.iter().any(|end| file.ends_with(end));
        if file.ends_with(".md") {
            Some(Prose::Whole)
        } else if ends(SLASHES) {
            Some(Prose::Comments(&["//", "/*"]))
        } else if ends(HASHES) {
            Some(Prose::Comments(&["#"]))
        } else {
            None
        }
    }

    /// The prose of a line.
    pub(super) fn in_line(self, line: &str) -> &str {
        let Prose::Comments(marks) = self else {
            return line;
        };
        let text = line.trim_start();
        // The second and further lines of a block comment.
        if marks.contains(&"/*") && text.starts_with('*') {
            return text;
        }
        let start = marks
            .iter()
            .filter_map(|mark| match text.starts_with(mark) {
                true => Some(0),
                false => text.find(&format!(" {mark} ")),
            })
            .min();
        start.map_or("", |start| &text[start..])
    }
}

/// The listed words in a file's prose.
fn search(file: &str, text: &str, prose: Prose) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let original = prose.in_line(line);
        let line = original.to_lowercase();
        for word in WORDS.iter().filter(|word| contains(&line, word)) {
            let what = format!("\"{word}\": name the caller, reader, owner or client instead");
            findings.push(Finding::new(file, index + 1, what));
        }
        if let Prose::Comments(_) = prose {
            let pronoun = PRONOUNS.iter().find(|word| begins_clause(original, word));
            findings.extend(pronoun.map(|word| {
                let what = format!("\"{word} …\" in place of a noun: name the thing instead");
                Finding::new(file, index + 1, what)
            }));
        }
    }
    findings
}

/// Whether a clause of the line begins with the pronoun, and is no question. A line that begins with it in lower case
/// may continue a sentence.
fn begins_clause(line: &str, pronoun: &str) -> bool {
    let lower = pronoun.to_lowercase();
    let mut clauses = line.split_inclusive(['.', ':', ';']).skip(1);
    let later = clauses.any(|clause| clause.trim_start().split(' ').next() == Some(lower.as_str()));
    !line.contains('?') && (contains(line, pronoun) || later)
}

/// Whether a line has the word, not as a part of a longer word or name.
fn contains(line: &str, word: &str) -> bool {
    let part = |letter: Option<char>| letter.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !part(before) && !part(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(file: &str, text: &str) -> Vec<usize> {
        let prose = Prose::of(file).unwrap();
        let found = search(file, text, prose).into_iter();
        found.map(|finding| finding.line).collect()
    }

    #[test]
    fn a_listed_word_in_a_comment_is_found() {
        let mark = "//";
        let text = format!("{mark}! Nobody.\nlet nobody = 1;\nlet x = 1; {mark} Whoever asks.\n");
        assert_eq!(lines("a.rs", &text), [1, 3]);
        assert_eq!(
            lines("a.c", "/* It\n * knows of pages.\n */\nit tells;\n"),
            [2]
        );
        assert_eq!(lines("a.toml", "# It tells.\na = \"nobody\"\n"), [1]);
        assert_eq!(lines("a.md", "whoever\n\nNobody's\n"), [1, 3]);
        assert_eq!(
            lines(
                "a.h",
                "/* The name it is told. */\nint told;\n/* For those who ask. */\n"
            ),
            [1, 3]
        );
    }

    #[test]
    fn a_pronoun_at_the_beginning_of_a_clause_in_a_comment_is_found() {
        let found = "// What was read.\n/// The line: what was read.\n// It waits; who asked.\n// Whatever comes.\n";
        assert_eq!(lines("a.rs", found), [1, 2, 3, 4]);
        assert_eq!(lines("a.c", "\t/* Who asked. */\n"), [1]);
        let allowed = "// what was read\n// Decides what to do, and who may.\n// What is read? Lines.\nWhat\n";
        assert!(lines("a.rs", allowed).is_empty());
        assert!(lines("a.md", "What works\n").is_empty());
    }

    #[test]
    fn longer_words_and_names_are_allowed() {
        let text = "// nobody_else, a teller, antinobody, knows often, `told_apart`, those whose\n";
        assert!(lines("a.rs", text).is_empty());
    }

    #[test]
    fn other_files_have_no_prose() {
        assert!(Prose::of("cases/text.txt").is_none());
    }
}
