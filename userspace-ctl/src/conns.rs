// SPDX-License-Identifier: GPL-2.0-only
//! `conns`: the open sockets, a line each.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::answer::Answer;
use crate::stats::Stats;

/// The columns: their titles and the statistics behind the socket's number.
const COLUMNS: [(&str, &str); 4] = [
    ("peer", "addr"),
    ("here", "listen_addr"),
    ("state", "state"),
    ("idle s", "secs_since_last_cmd"),
];

/// A line for each socket, those that wait longest first.
pub(crate) fn conns(stats: &Stats) -> Answer {
    let mut sockets: BTreeMap<u64, BTreeMap<&str, &str>> = BTreeMap::new();
    for (name, value) in stats.iter() {
        if let Some((id, field)) = name.split_once(':') {
            if let Ok(id) = id.parse() {
                sockets.entry(id).or_default().insert(field, value);
            }
        }
    }
    let mut rows: Vec<(u64, [&str; COLUMNS.len()])> = sockets
        .iter()
        .map(|(id, fields)| {
            let of = |(_, field): (&str, &str)| fields.get(field).copied().unwrap_or("-");
            (*id, COLUMNS.map(of))
        })
        .collect();
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(row[3].parse::<u64>().unwrap_or(0)));
    let mut widths = COLUMNS.map(|(title, _)| title.len());
    for (_, row) in &rows {
        for (width, value) in widths.iter_mut().zip(row) {
            *width = value.len().max(*width);
        }
    }
    let mut text = String::new();
    let titles = COLUMNS.map(|(title, _)| title);
    for (id, row) in std::iter::once(("id".to_owned(), titles))
        .chain(rows.iter().map(|(id, row)| (id.to_string(), *row)))
    {
        write!(text, "{id:>6}").expect("a String takes all");
        for (value, width) in row.iter().zip(widths) {
            write!(text, "  {value:width$}").expect("a String takes all");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    let json = rows.iter().map(|(id, row)| {
        let mut object = serde_json::Map::new();
        object.insert("id".into(), (*id).into());
        for ((_, field), value) in COLUMNS.iter().zip(row) {
            let value = value.parse::<u64>().map_or((*value).into(), Value::from);
            object.insert((*field).to_owned(), value);
        }
        Value::Object(object)
    });
    Answer::new(text, json.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_is_a_line_and_the_idlest_is_first() {
        let text = "STAT 7:addr tcp:10.0.0.1:4000\nSTAT 7:listen_addr tcp:10.0.0.9:11211\n\
                    STAT 7:state conn_read\nSTAT 7:secs_since_last_cmd 3\n\
                    STAT 9:addr tcp:10.0.0.2:4000\nSTAT 9:state conn_read\n\
                    STAT 9:secs_since_last_cmd 300\n";
        let answer = conns(&Stats::parse(text).unwrap());
        let lines: Vec<_> = answer.text.lines().collect();
        assert_eq!(lines[0].split_whitespace().next(), Some("id"));
        assert!(
            lines[1].contains("10.0.0.2:4000") && lines[1].ends_with("300"),
            "{lines:?}"
        );
        assert!(lines[2].contains("tcp:10.0.0.9:11211"), "{lines:?}");
        assert_eq!(answer.json[0]["secs_since_last_cmd"], 300);
        assert_eq!(answer.json[1]["id"], 7);
    }
}
