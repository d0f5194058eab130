// SPDX-License-Identifier: GPL-2.0-only
//! The `STAT name value` texts, formatted as a table and as JSON.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

/// How the names of seconds since something begin.
pub(crate) const AGES: &str = "hippos_age_";

/// The receive paths before the socket: their titles and their statistics (docs/fast-path.md).
pub(crate) const RECEIVE_PATHS: [(&str, &str); 4] = [
    ("PRE_ROUTING, IPv4", "hippos_hook_ipv4"),
    ("PRE_ROUTING, IPv6", "hippos_hook_ipv6"),
    ("XDP, IPv4", "hippos_xdp_ipv4"),
    ("XDP, IPv6", "hippos_xdp_ipv6"),
];

/// Names and values, in the server's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats(Vec<(String, String)>);

impl Stats {
    /// The names and values of a text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let stat = |line: &str| {
            let rest = line.strip_prefix("STAT ");
            let (name, value) = rest
                .and_then(|rest| rest.split_once(' '))
                .with_context(|| format!("not a statistic: {line:?}"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        text.lines().map(stat).collect::<Result<_>>().map(Stats)
    }

    /// Made from `name value` rows, for tests.
    #[cfg(test)]
    pub(crate) fn of(rows: &[&str]) -> Self {
        let text: String = rows.iter().map(|row| format!("STAT {row}\n")).collect();
        Self::parse(&text).unwrap()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&name[..], &value[..]))
    }

    /// The value of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(have, _)| *have == name)
            .map(|(_, value)| value)
    }

    /// The value as a number; 0 if there is none.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.get(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(0)
    }

    /// Two aligned columns.
    pub(crate) fn table(&self) -> String {
        let width = self.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut out = String::new();
        for (name, value) in self.iter() {
            writeln!(out, "{name:width$}  {value}").expect("a String takes all");
        }
        out
    }

    /// One JSON object; integers as numbers, everything else as strings.
    pub(crate) fn json(&self) -> Value {
        let row = |(name, value): (&str, &str)| {
            let value = match value.parse::<u64>() {
                Ok(number) => number.into(),
                Err(_) => value.into(),
            };
            (name.to_owned(), value)
        };
        Value::Object(self.iter().map(row).collect())
    }

    /// The increase per second since `before`; other changed values as they are now.
    pub(crate) fn rates(&self, before: &Stats, seconds: f64) -> Stats {
        let mut rates = Vec::new();
        for (name, value) in self.iter() {
            let was = before.get(name);
            if was == Some(value) || name == "time" || name == "uptime" || name.starts_with(AGES) {
                continue;
            }
            let number = |text: &str| text.parse::<f64>().ok();
            let shown = match (was.and_then(number), number(value)) {
                (Some(was), Some(now)) => format!("{:+.1}/s", (now - was) / seconds),
                _ => value.to_owned(),
            };
            rates.push((name.to_owned(), shown));
        }
        Stats(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_columns_and_json() {
        let stats = Stats::parse("STAT pid 0\r\nSTAT version 1.6.38\r\n").unwrap();
        assert_eq!(stats.table(), "pid      0\nversion  1.6.38\n");
        assert_eq!(stats.json().to_string(), r#"{"pid":0,"version":"1.6.38"}"#);
        assert_eq!((stats.number("pid"), stats.number("none")), (0, 0));
    }

    #[test]
    fn values_may_hold_spaces_or_nothing() {
        let of = |text| Stats::parse(text).unwrap();
        assert_eq!(of("STAT a b c\r\n").get("a"), Some("b c"));
        assert_eq!(of("STAT a \r\n").get("a"), Some(""));
    }

    #[test]
    fn another_line_is_an_error_that_shows_it() {
        let error = Stats::parse("STAT a 1\r\nEND\r\n").unwrap_err();
        assert!(error.to_string().contains("END"), "{error}");
    }

    #[test]
    fn rates_are_of_what_changed() {
        let before =
            Stats::parse("STAT uptime 1\nSTAT gets 10\nSTAT sets 5\nSTAT way open\n").unwrap();
        let now = Stats::parse("STAT uptime 3\nSTAT gets 30\nSTAT sets 5\nSTAT way nat\n").unwrap();
        let rates = now.rates(&before, 2.0);
        assert_eq!(rates.table(), "gets  +10.0/s\nway   nat\n");
    }
}
