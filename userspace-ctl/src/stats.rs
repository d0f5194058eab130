// SPDX-License-Identifier: GPL-2.0-only
//! The module's `STAT name value` texts, for people and for programs.

use anyhow::{Context, Result};
use std::fmt::Write;

/// The names and values of a `stats` text, in its order.
pub(crate) fn parse(text: &str) -> Result<Vec<(&str, &str)>> {
    text.lines()
        .map(|line| {
            let rest = line.strip_prefix("STAT ");
            rest.and_then(|rest| rest.split_once(' '))
                .with_context(|| format!("not a statistic: {line:?}"))
        })
        .collect()
}

/// Two aligned columns.
pub(crate) fn table(stats: &[(&str, &str)]) -> String {
    let width = stats.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in stats {
        writeln!(out, "{name:width$}  {value}").expect("a String takes all");
    }
    out
}

/// One JSON object; whole numbers as numbers, all else as strings.
pub(crate) fn json(stats: &[(&str, &str)]) -> String {
    let object: serde_json::Map<_, _> = stats
        .iter()
        .map(|&(name, value)| {
            let value = match value.parse::<u64>() {
                Ok(number) => number.into(),
                Err(_) => value.into(),
            };
            (name.to_owned(), value)
        })
        .collect();
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_columns_and_json() {
        let stats = parse("STAT pid 0\r\nSTAT version 1.6.38\r\n").unwrap();
        assert_eq!(stats, [("pid", "0"), ("version", "1.6.38")]);
        assert_eq!(table(&stats), "pid      0\nversion  1.6.38\n");
        assert_eq!(json(&stats), r#"{"pid":0,"version":"1.6.38"}"#);
    }

    #[test]
    fn values_may_hold_spaces_or_nothing() {
        assert_eq!(parse("STAT a b c\r\n").unwrap(), [("a", "b c")]);
        assert_eq!(parse("STAT a \r\n").unwrap(), [("a", "")]);
    }

    #[test]
    fn another_line_is_an_error_that_shows_it() {
        let error = parse("STAT a 1\r\nEND\r\n").unwrap_err();
        assert!(error.to_string().contains("END"), "{error}");
    }
}
