// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the table of `stats`, and of the table in the documentation.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::class_statistics::{self, ITEMS, SLABS};

/// Each row's name, kind and meaning.
fn rows() -> Vec<(&'static str, StatisticKind, &'static str)> {
    let mut rows = Vec::new();
    each(|row| rows.push((row.name, row.kind, row.doc)));
    rows
}

#[test]
fn each_statistic_has_one_row_and_a_meaning() {
    let mut names = HashSet::new();
    for (name, kind, doc) in rows() {
        assert!(names.insert(name), "{name} twice");
        assert!(name.len() < 64, "{name}: longer than a line has room for");
        assert_eq!(
            doc.is_empty(),
            kind == StatisticKind::Zero,
            "{name}: {doc:?}"
        );
    }
    for name in EngineCounter::ALL.iter().map(|tally| tally.name()) {
        assert!(names.contains(name), "{name} is not shown");
    }
    for name in Counter::ALL.iter().map(|counter| counter.name()) {
        assert!(names.contains(name), "{name} is not shown");
    }
    for name in HostCounter::all().iter().map(|counter| counter.name()) {
        assert!(names.contains(name), "{name} is not shown");
    }
}

/// New rows come last, so that clients of another version find the rows in the same order.
#[test]
fn counters_without_a_place_come_last() {
    let names: Vec<_> = rows().iter().map(|(name, ..)| *name).collect();
    let placed: Vec<_> = PLACED.iter().map(|row| row.name).collect();
    assert_eq!(names[..placed.len()], placed);
}

const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/statistics.md");
/// The reasons for passing datagrams to the socket.
const REASONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../c/pass.h");

fn statistics() -> String {
    let mut table = String::from("\n| Name | Kind | Meaning |\n|---|---|---|\n");
    for (name, kind, doc) in rows() {
        let kind = match kind {
            StatisticKind::Counter => "counter",
            StatisticKind::Gauge => "gauge",
            StatisticKind::Zero => continue,
        };
        let doc = doc.trim().trim_end_matches('.');
        writeln!(table, "| `{name}` | {kind} | {doc} |").unwrap();
    }
    table + "\n"
}

fn per_cpu() -> String {
    let mut table = String::from("\n| Name | Meaning |\n|---|---|\n");
    for counter in counters_per_cpu() {
        let doc = counter.doc().trim().trim_end_matches('.');
        writeln!(table, "| `N:{}` | {doc} |", counter.name()).unwrap();
    }
    table + "\n"
}

fn reasons() -> String {
    let list = fs::read_to_string(REASONS).unwrap();
    let mut table = String::from("\n| `hippos_pass_…` | Reason |\n|---|---|\n");
    let mut names = HashSet::new();
    for row in list.lines().filter(|line| line.starts_with("\tX(")) {
        let texts: Vec<_> = row.split('"').collect();
        let [start, name, _, doc, _] = texts[..] else {
            panic!("{row}");
        };
        let enumerator = std::format!("\tX({}, ", name.to_ascii_uppercase());
        assert_eq!(start, enumerator, "{row}");
        assert!(names.insert(String::from(name)), "{name} twice");
        writeln!(table, "| `{name}` | {doc} |").unwrap();
    }
    assert!(!names.is_empty());
    table + "\n"
}

/// With `HIPPOS_WRITE=1` it writes the tables.
#[test]
fn the_documentation_has_the_tables() {
    let mut text = fs::read_to_string(DOC).unwrap();
    for (name, table) in [
        ("statistics", statistics()),
        ("items", class_statistics::documented(ITEMS, "items:N:")),
        ("slabs", class_statistics::documented(SLABS, "N:")),
        ("hippos_cpus", per_cpu()),
        ("hippos_pass", reasons()),
    ] {
        let start = std::format!("<!-- table {name} -->\n");
        let (before, rest) = text.split_once(&start).expect("a table");
        let (found, after) = rest.split_once("<!-- end -->").expect("its end");
        if std::env::var_os("HIPPOS_WRITE").is_some() {
            text = std::format!("{before}{start}{table}<!-- end -->{after}");
            fs::write(DOC, &text).unwrap();
        } else {
            assert!(
                found == table,
                "{name} is not the code's: HIPPOS_WRITE=1 cargo test -p hippos_engine statistics"
            );
        }
    }
}
