// SPDX-License-Identifier: GPL-2.0-only
//! A Rust file as the rules see it: tokens with their lines, comments and test code left out.

use anyhow::{anyhow, Result};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A flat list of tokens; groups appear as their opening, their tokens and their closing.
pub(crate) struct File {
    pub(crate) tokens: Vec<Token>,
    /// `mod NAME;` declarations that belong to the crate as the kernel builds it.
    pub(crate) modules: Vec<String>,
}

/// One token and its line.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) float: bool,
}

/// Which code of a file counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// Without the code for tests.
    Product,
    /// Without the code for tests and for the host only.
    Kernel,
}

/// Reads a file's text.
pub(crate) fn read(text: &str, part: Part) -> Result<File> {
    let stream: TokenStream = text
        .parse()
        .map_err(|error| anyhow!("this is no Rust: {error}"))?;
    let mut file = File {
        tokens: Vec::new(),
        modules: Vec::new(),
    };
    walk(stream, part, &mut file);
    Ok(file)
}

fn walk(stream: TokenStream, part: Part, file: &mut File) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while let Some(tree) = trees.get(at) {
        if is_left_out(part, &trees[at..]) {
            at += item_length(&trees[at..]);
            continue;
        }
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = brackets(group);
                file.push(open, group.span_open().start().line);
                walk(group.stream(), part, file);
                file.push(close, group.span_close().start().line);
            }
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let float = is_float(&text);
                file.tokens.push(Token {
                    text,
                    line: literal.span().start().line,
                    float,
                });
            }
            other => file.push(&other.to_string(), other.span().start().line),
        }
        if let [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(end), ..] =
            &trees[at..]
        {
            if word == "mod" && end.as_char() == ';' {
                file.modules.push(name.to_string());
            }
        }
        at += 1;
    }
}

impl File {
    fn push(&mut self, text: &str, line: usize) {
        self.tokens.push(Token {
            text: text.to_owned(),
            line,
            float: false,
        });
    }
}

fn brackets(group: &Group) -> (&'static str, &'static str) {
    match group.delimiter() {
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::None => ("", ""),
    }
}

/// Whether an attribute stands here that excludes code from this part: `#[test]`, or a `#[cfg(…)]` of tests, of loom or,
/// for the kernel, of a feature (Kbuild sets none), without `not`.
fn is_left_out(part: Part, trees: &[TokenTree]) -> bool {
    if part == Part::Whole {
        return false;
    }
    let [TokenTree::Punct(hash), TokenTree::Group(group), ..] = trees else {
        return false;
    };
    if hash.as_char() != '#' || group.delimiter() != Delimiter::Bracket {
        return false;
    }
    let words = flat(group.stream());
    let has = |word: &str| words.iter().any(|other| other == word);
    match words.first().map(String::as_str) {
        Some("test") => true,
        Some("cfg") => {
            let has_feature = part == Part::Kernel && has("feature");
            (has("test") || has_feature || has("loom")) && !has("not")
        }
        _ => false,
    }
}

fn flat(stream: TokenStream) -> Vec<String> {
    let mut words = Vec::new();
    for tree in stream {
        match tree {
            TokenTree::Group(group) => words.extend(flat(group.stream())),
            other => words.push(other.to_string()),
        }
    }
    words
}

/// How many trees the item that begins here has: to its `;`, its `,` or its braces.
fn item_length(trees: &[TokenTree]) -> usize {
    for (at, tree) in trees.iter().enumerate() {
        match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                // `use a::{b, c};` goes on to its semicolon.
                return match trees.get(at + 1) {
                    Some(TokenTree::Punct(end)) if end.as_char() == ';' => at + 2,
                    _ => at + 1,
                };
            }
            TokenTree::Punct(end) if matches!(end.as_char(), ';' | ',') => return at + 1,
            _ => {}
        }
    }
    trees.len()
}

/// `1.5`, `1e3`, `2f32`; not `0xf32`, `"1.5"` or `b'.'`.
fn is_float(literal: &str) -> bool {
    let decimal = literal.starts_with(|first: char| first.is_ascii_digit())
        && !["0x", "0b", "0o"]
            .iter()
            .any(|prefix| literal.starts_with(prefix));
    let suffix = literal.ends_with("f32") || literal.ends_with("f64");
    let exponent = |text: &str| text.trim_end_matches("usize").contains('e');
    decimal && (suffix || literal.contains('.') || exponent(literal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let file = read(text, Part::Kernel).unwrap();
        file.tokens.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn code_for_tests_and_for_the_host_is_left_out() {
        assert!(
            !texts("#[cfg(test)] mod tests { fn f() { g() } } fn h() {}").contains(&"g".into())
        );
        assert!(
            !texts("#[cfg(feature = \"host\")] use std::{a, g}; fn h() {}").contains(&"g".into())
        );
        let product = "#[cfg(feature = \"host\")] mod a; #[cfg(test)] mod b;";
        assert_eq!(read(product, Part::Product).unwrap().modules, ["a"]);
        assert!(texts("#[cfg(not(test))] fn f() { g() }").contains(&"g".into()));
        assert!(texts("#[cfg(test)] mod tests { f() } fn h() {}").contains(&"h".into()));
    }

    #[test]
    fn modules_are_listed_unless_for_tests() {
        let file = read(
            "mod a; #[cfg(test)] mod b; pub(crate) mod c; mod d { mod e; }",
            Part::Kernel,
        );
        assert_eq!(file.unwrap().modules, ["a", "c", "e"]);
    }

    #[test]
    fn floats_are_distinguished_from_integers() {
        for float in ["1.5", "1e3", "2f32", "1_000.0"] {
            assert!(is_float(float), "{float}");
        }
        for other in ["15", "0xf32", "0x1e3", "\"1.5\"", "1usize", "b'.'"] {
            assert!(!is_float(other), "{other}");
        }
    }
}
