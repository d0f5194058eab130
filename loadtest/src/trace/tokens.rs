// SPDX-License-Identifier: GPL-2.0-only
//! Lines of words with `=` in them, as memcached prints them: its `watch` log and its metadump.

use anyhow::{anyhow, Result};

use super::columns::{known_verb, number, whole};
use crate::request::Verb;

/// Bytes of an item besides its key and value: header, CAS value, end of the key, end of the value.
const ITEM: u64 = 48 + 8 + 1 + 2;
/// Client flags, if they are not 0.
const FLAGS: u64 = 4;

/// The contents of a line.
#[derive(Debug, PartialEq)]
pub(super) struct Item {
    /// In microseconds.
    pub(super) time: u64,
    pub(super) verb: Verb,
    pub(super) key: Vec<u8>,
    pub(super) size: u64,
    pub(super) ttl: f64,
}

fn value<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    line.split(|b| *b == b' ')
        .find_map(|word| word.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn wanted<'a>(line: &'a [u8], name: &str) -> Result<&'a [u8]> {
    value(line, name).ok_or_else(|| anyhow!("it has no {name}="))
}

/// Parses a line of the `watch` log; `None` if it is not a request.
pub(super) fn watch(line: &[u8]) -> Result<Option<Item>> {
    if line == b"OK" {
        return Ok(None);
    }
    let ts = wanted(line, "ts")?;
    // Microseconds after the point, without leading zeros.
    let mut parts = ts.splitn(2, |b| *b == b'.');
    let seconds = whole(parts.next().unwrap_or_default(), "ts")?;
    let micros = parts.next().map_or(Ok(0), |part| whole(part, "ts"))?;
    let verb = match wanted(line, "type")? {
        b"item_get" => Verb::Get,
        b"item_store" => known_verb(value(line, "cmd").unwrap_or(b"set"))?,
        b"deleted" => Verb::Delete,
        // Evictions and connections are not requests.
        _ => return Ok(None),
    };
    Ok(Some(Item {
        time: seconds * 1_000_000 + micros,
        verb,
        key: decode(wanted(line, "key")?),
        size: value(line, "size").map_or(Ok(0), |size| whole(size, "size"))?,
        ttl: value(line, "ttl").map_or(Ok(0.0), |ttl| number(ttl, "ttl"))?,
    }))
}

/// Parses a line of a metadump as a SET of the item; `None` for the end line.
pub(super) fn metadump(line: &[u8]) -> Result<Option<Item>> {
    if line == b"END" {
        return Ok(None);
    }
    let key = decode(wanted(line, "key")?);
    let flags = value(line, "flags").is_some_and(|flags| flags != b"0");
    let overhead = ITEM + key.len() as u64 + if flags { FLAGS } else { 0 };
    let size = whole(wanted(line, "size")?, "size")?.saturating_sub(overhead);
    let (exp, la) = (
        number(wanted(line, "exp")?, "exp")?,
        value(line, "la").map_or(Ok(0.0), |la| number(la, "la"))?,
    );
    Ok(Some(Item {
        time: 0,
        verb: Verb::Set,
        key,
        size,
        ttl: if exp < 0.0 { 0.0 } else { (exp - la).max(1.0) },
    }))
}

/// Decodes `%25` to `%`.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let hex = more.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                out.push(byte);
                rest = &more[2..];
            }
            _ => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watch_lines_of_memcached_1_6_38_are_parsed() {
        let item = watch(b"ts=1795871189.56177 gid=3 type=item_store key=a%25b status=stored cmd=set ttl=100 clsid=1 cfd=29 size=3");
        let expected = Item {
            time: 1_795_871_189_056_177,
            verb: Verb::Set,
            key: b"a%b".to_vec(),
            size: 3,
            ttl: 100.0,
        };
        assert_eq!(item.unwrap(), Some(expected));
        let item = metadump(
            b"key=a%25b exp=1795871193 la=1795871188 cas=4 fetch=no cls=1 size=65 flags=0",
        );
        let item = item.unwrap().unwrap();
        assert_eq!((item.size, item.ttl), (3, 5.0));
        assert_eq!(metadump(b"END").unwrap(), None);
        assert_eq!(watch(b"OK").unwrap(), None);
    }
}
