// SPDX-License-Identifier: GPL-2.0-only
//! `conns`: the open sockets, one line each; and closing connections.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use anyhow::Result;
use hippos_abi::{CloseConnections, Connections};
use serde_json::{json, Value};

use crate::answer::Answer;
use crate::arguments::Kill;
use crate::device::Device;
use crate::stats::Stats;

/// The columns: their titles, and the statistic's name after the socket's number.
const COLUMNS: [(&str, &str); 4] = [
    ("peer", "addr"),
    ("here", "listen_addr"),
    ("state", "state"),
    ("idle s", "secs_since_last_cmd"),
];

/// One line for each socket, the longest idle first.
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

/// Closes connections, and prints their number.
pub(crate) fn kill(device: &Device, given: &Kill) -> Result<Answer> {
    let (address, port) = given.peer.map_or(([0; 16], 0), |(address, port)| {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        (address.octets(), port)
    });
    let wanted = Connections {
        address,
        port,
        by_address: given.peer.is_some().into(),
        idle: given.idle.unwrap_or(0),
        ..Connections::default()
    };
    let count = device.call::<CloseConnections>(&wanted)?.count;
    let text = format!("closed connections: {count}\n");
    Ok(Answer::new(text, json!({"closed": count})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::peer;

    #[test]
    fn a_client_is_an_address_with_or_without_a_port() {
        let of = |text| peer(text).map(|(address, port)| (address.to_string(), port));
        for (text, address, port) in [
            ("10.0.0.7", "10.0.0.7", 0),
            ("10.0.0.7:40312", "10.0.0.7", 40312),
            ("fd00::1", "fd00::1", 0),
            ("[fd00::1]", "fd00::1", 0),
            ("[fd00::1]:5", "fd00::1", 5),
        ] {
            assert_eq!(of(text), Ok((address.to_owned(), port)));
        }
        for text in ["", "host", "10.0.0.7:", "10.0.0.7:70000"] {
            assert!(of(text).is_err(), "{text}");
        }
    }

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
