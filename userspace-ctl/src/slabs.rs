// SPDX-License-Identifier: GPL-2.0-only
//! `slabs`: the memory of each slab class as a bar.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;

use crate::answer::Answer;
use crate::stats::Stats;

/// Characters of the widest bar.
const WIDTH: u64 = 40;

/// One bar for each class, as long as its share of the memory; its free part is lighter.
pub(crate) fn slabs(slabs: &Stats, items: &Stats) -> Answer {
    let mut classes: BTreeMap<u64, BTreeMap<&str, u64>> = BTreeMap::new();
    let items = items
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("items:")?, value)));
    for (name, value) in slabs.iter().chain(items) {
        if let Some((id, field)) = name.split_once(':') {
            if let (Ok(id), Ok(value)) = (id.parse(), value.parse()) {
                classes.entry(id).or_default().insert(field, value);
            }
        }
    }
    let of = |class: &BTreeMap<&str, u64>, field: &str| class.get(field).copied().unwrap_or(0);
    let bytes = |class: &BTreeMap<&str, u64>| {
        of(class, "chunk_size").saturating_mul(of(class, "total_chunks"))
    };
    let most = classes.values().map(bytes).max().unwrap_or(0).max(1);
    let mut text = String::from(
        "class  chunk bytes        MiB      items    evicted  out of memory  used # and free .\n",
    );
    let mut json = Vec::new();
    for (id, class) in &classes {
        let (size, slots) = (of(class, "chunk_size"), of(class, "total_chunks"));
        let (bytes, free) = (bytes(class), of(class, "free_chunks"));
        let bar = (bytes.saturating_mul(WIDTH)).div_ceil(most);
        let light = bar.saturating_mul(free) / slots.max(1);
        let (dark, light) = ((bar - light) as usize, light as usize);
        let (number, evicted) = (of(class, "number"), of(class, "evicted"));
        let failed = of(class, "outofmemory");
        let mib = bytes as f64 / f64::from(1 << 20);
        writeln!(
            text,
            "{id:>5}  {size:>11}  {mib:>9.1}  {number:>9}  {evicted:>9}  {failed:>13}  {}{}",
            "#".repeat(dark),
            ".".repeat(light)
        )
        .expect("a String takes all");
        json.push(json!({
            "class": id, "chunk_size": size, "chunks": slots, "free_chunks": free, "bytes": bytes,
            "items": number, "evicted": evicted, "out_of_memory": failed,
        }));
    }
    Answer::new(text, json.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_the_shares() {
        let all = Stats::parse(
            "STAT 1:chunk_size 1048576\nSTAT 1:total_chunks 8\nSTAT 1:free_chunks 4\n\
             STAT 3:chunk_size 1048576\nSTAT 3:total_chunks 2\nSTAT 3:free_chunks 0\n\
             STAT active_slabs 2\n",
        )
        .unwrap();
        let items = Stats::parse("STAT items:3:number 7\nSTAT items:3:outofmemory 9\n").unwrap();
        let answer = slabs(&all, &items);
        let lines: Vec<_> = answer.text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].ends_with(&format!(" {}{}", "#".repeat(20), ".".repeat(20))),
            "{}",
            lines[1]
        );
        assert!(
            lines[2].ends_with(&format!(" {}", "#".repeat(10))),
            "{}",
            lines[2]
        );
        assert_eq!(answer.json[1]["items"], 7);
        assert_eq!(answer.json[1]["out_of_memory"], 9);
        assert_eq!(slabs(&Stats::default(), &Stats::default()).json, json!([]));
    }
}
