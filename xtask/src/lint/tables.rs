// SPDX-License-Identifier: GPL-2.0-only
//! Tables in the documentation that are generated from tables in the code: each stands between `<!-- table NAME -->`
//! and `<!-- end -->`. `cargo xtask lint --write` updates them.

use std::fs;

use anyhow::{Context, Result};
use hippos_abi::parameters::PARAMETERS;
use hippos_proto::{Argument, FLAGS};

use super::{read, Finding};
use crate::workspace;

/// A table's file, its name there, and the function that writes it.
type Table = (&'static str, &'static str, fn() -> String);

const TABLES: &[Table] = &[
    ("docs/parameters.md", "parameters", parameters),
    ("docs/protocol.md", "flags", flags),
];

/// Every finding in the work tree.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (file, name, table) in TABLES {
        let text = read(file)?;
        let (_, found, _) = split(&text, name).with_context(|| (*file).to_owned())?;
        if found != table() {
            let line = text.split(&mark(name)).next().unwrap_or("").lines().count() + 1;
            let what = format!("table {name} is not the code's: cargo xtask lint --write");
            findings.push(Finding::new(file, line, what));
        }
    }
    Ok(findings)
}

/// Writes all of them anew.
pub(crate) fn write() -> Result<()> {
    for (file, name, table) in TABLES {
        let text = read(file)?;
        let (before, _, after) = split(&text, name).with_context(|| (*file).to_owned())?;
        let text = format!("{before}{}{after}", table());
        fs::write(workspace::root().join(file), text)?;
    }
    Ok(())
}

fn mark(name: &str) -> String {
    format!("<!-- table {name} -->\n")
}

/// The text before a table, the table, and the text behind it.
fn split<'t>(text: &'t str, name: &str) -> Result<(&'t str, &'t str, &'t str)> {
    let mark = mark(name);
    let start = text
        .find(&mark)
        .with_context(|| format!("no table {name}"))?
        + mark.len();
    let (before, rest) = text.split_at(start);
    let end = rest
        .find("<!-- end -->")
        .context("a table without an end")?;
    let (table, after) = rest.split_at(end);
    Ok((before, table, after))
}

fn parameters() -> String {
    let mut table = "\n| Parameter | Values | Default | `stats settings` | Meaning |\n\
                     |---|---|---|---|---|\n"
        .to_owned();
    for parameter in PARAMETERS {
        let default = match parameter.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        table += &format!(
            "| `{}` | {} | {default} | `{}` | {} |\n",
            parameter.name,
            parameter.kind,
            parameter.row.name(),
            parameter.text
        );
    }
    table + "\n"
}

fn flags() -> String {
    let mut table = "\n| Flag | Argument | Commands | Meaning |\n|---|---|---|---|\n".to_owned();
    for flag in FLAGS {
        let argument = match flag.argument {
            Argument::None => "",
            Argument::Opaque => "up to 31 bytes",
            Argument::TimeToLive | Argument::Seconds => "seconds",
            Argument::Word => "number of 32 bits",
            Argument::Number => "number of 64 bits",
            Argument::Mode => "a letter",
            Argument::Ignored => "ignored",
        };
        let commands: Vec<_> = flag.commands.split_whitespace().collect();
        let commands: Vec<_> = commands.iter().map(|name| format!("`{name}`")).collect();
        table += &format!(
            "| `{}` | {argument} | {} | {} |\n",
            char::from(flag.letter),
            commands.join(" "),
            flag.text
        );
    }
    table + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_what_stands_between_its_marks() {
        let text = "a\n<!-- table b -->\nc\n<!-- end -->\nd\n";
        let (before, table, after) = split(text, "b").unwrap();
        assert_eq!((before, table), ("a\n<!-- table b -->\n", "c\n"));
        assert_eq!(after, "<!-- end -->\nd\n");
        assert!(split(text, "c").is_err());
        assert!(split("<!-- table b -->\n", "b").is_err());
    }

    #[test]
    fn the_parameters_table_has_a_row_for_each() {
        let table = parameters();
        assert_eq!(table.matches("\n| `").count(), PARAMETERS.len());
        assert!(table.contains("| `factor` | from 102 to 1000 | `125` | `growth_factor` |"));
    }
}
