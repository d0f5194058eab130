// SPDX-License-Identifier: GPL-2.0-only
//! Lines of fields with a delimiter: the meaning of each column, and of its text.

use anyhow::{anyhow, bail, ensure, Result};

use super::format::{Columns, Format};
use super::writer::HEADER;
use crate::request::Verb;

/// A header line: the columns that it names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) format: Format,
    pub(super) columns: Columns,
}

impl Named {
    /// Parses a line as a header; `None` if it is not one.
    pub(super) fn read(line: &[u8], delimiter: u8) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?.trim_end();
        let text = text.strip_prefix('#').unwrap_or(text).to_ascii_lowercase();
        let names: Vec<&str> = text
            .split(char::from(delimiter))
            .map(|name| name.trim().trim_matches('"'))
            .collect();
        let at = |choices: &[&str]| names.iter().position(|name| choices.contains(name));
        let has = |name: &str| names.contains(&name);
        let columns = Columns {
            time: at(&[
                "time",
                "timestamp",
                "op_time",
                "clock_time",
                "relative_unix",
            ]),
            key: at(&[
                "key",
                "anonymized key",
                "anonymized_key",
                "obj_id",
                "object_id",
                "object",
                "id",
                "hashed_path_query",
                "hashed_host_path_query",
            ])?,
            op: at(&["op", "operation"]),
            size: at(&[
                "size",
                "value size",
                "value_size",
                "obj_size",
                "object_size",
                "response_size",
                "nbytes",
            ]),
            ttl: at(&["ttl"]),
            count: at(&["op_count", "count", "cnt"]),
            key_size: at(&["key_size", "key size"]),
        };
        let format = if text == HEADER {
            Format::Hippos
        } else if has("relative_unix") {
            Format::Wikimedia
        } else if has("dumpflags") {
            Format::Memtier
        } else if has("anonymized key") || (has("value size") && has("key size")) {
            Format::Twitter
        } else if columns.op.is_some() && columns.size.is_some() {
            Format::Cachelib
        } else if names.len() >= 2 && (columns.size.is_some() || columns.time.is_some()) {
            Format::LibcachesimCsv
        } else {
            return None;
        };
        // memtier's times are those of the dump, not of requests.
        let columns = match format {
            Format::Memtier => Columns {
                time: None,
                ..columns
            },
            _ => columns,
        };
        Some(Self { format, columns })
    }
}

/// A line, split into fields.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// Fields that had quotes are copied here, without them.
    bytes: Vec<u8>,
    ends: Vec<(usize, usize)>,
    copied: bool,
}

impl Fields {
    /// Splits a line without quotes, in place.
    pub(super) fn split(&mut self, line: &[u8], delimiter: u8) {
        self.copied = false;
        self.ends.clear();
        let mut start = 0;
        for end in memchr::memchr_iter(delimiter, line).chain([line.len()]) {
            self.ends.push((start, end));
            start = end + 1;
        }
    }

    /// Splits a line with quotes.
    pub(super) fn unquote(&mut self, line: &[u8], delimiter: u8) -> Result<()> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .trim(csv::Trim::None)
            .from_reader(line);
        let mut record = csv::ByteRecord::new();
        ensure!(reader.read_byte_record(&mut record)?, "it is empty");
        self.copied = true;
        self.bytes.clear();
        self.ends.clear();
        for field in &record {
            // The reader does not interpret a quote after a space.
            let trimmed = trim(field);
            let bare = trimmed
                .strip_prefix(b"\"")
                .and_then(|rest| rest.strip_suffix(b"\""))
                .unwrap_or(trimmed);
            let start = self.bytes.len();
            self.bytes.extend_from_slice(bare);
            self.ends.push((start, self.bytes.len()));
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A field, trimmed; `None` if there are fewer fields.
    pub(super) fn get<'a>(&'a self, line: &'a [u8], at: usize) -> Option<&'a [u8]> {
        let (start, end) = *self.ends.get(at)?;
        Some(trim(&self.whole(line)[start..end]))
    }

    /// Several fields with the delimiters between them.
    pub(super) fn range<'a>(&'a self, line: &'a [u8], from: usize, to: usize) -> &'a [u8] {
        match (self.ends.get(from), self.ends.get(to)) {
            (Some((start, _)), Some((_, end))) => trim(&self.whole(line)[*start..*end]),
            _ => b"",
        }
    }

    fn whole<'a>(&'a self, line: &'a [u8]) -> &'a [u8] {
        if self.copied {
            &self.bytes
        } else {
            line
        }
    }
}

fn trim(field: &[u8]) -> &[u8] {
    match field {
        [b' ', ..] | [.., b' '] | [.., b'\r'] => field.trim_ascii(),
        field => field,
    }
}

/// The operation that a word names.
pub(super) fn verb(word: &[u8]) -> Option<Verb> {
    let mut lower = [0; 16];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"get" | b"get_lease" | b"read" => Verb::Get,
        b"gets" => Verb::Gets,
        b"gat" | b"gats" => Verb::Gat,
        b"set" | b"set_lease" | b"write" | b"update" | b"insert" | b"cas" | b"append"
        | b"prepend" | b"incr" | b"decr" => Verb::Set,
        b"add" => Verb::Add,
        b"replace" => Verb::Replace,
        b"delete" => Verb::Delete,
        b"touch" => Verb::Touch,
        _ => return None,
    })
}

/// [`verb`], or an error for an unknown word.
pub(super) fn known_verb(word: &[u8]) -> Result<Verb> {
    verb(word).ok_or_else(|| {
        let shown = crate::pending::brief(&String::from_utf8_lossy(word));
        anyhow!("operation {shown:?} is not known")
    })
}

/// An integer, or a number with a fraction.
pub(super) fn number(field: &[u8], what: &str) -> Result<f64> {
    if let Some(n) = digits(field) {
        return Ok(n as f64);
    }
    let text = String::from_utf8_lossy(field);
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ => bail!("{what} is {:?}, not a number", crate::pending::brief(&text)),
    }
}

/// A number of bytes or requests.
pub(super) fn whole(field: &[u8], what: &str) -> Result<u64> {
    match digits(field) {
        Some(n) => Ok(n),
        None => match number(field, what)? {
            x if x >= 0.0 => Ok(x as u64),
            x => bail!("{what} is {x}, below 0"),
        },
    }
}

/// A time in nanoseconds.
pub(super) fn time(field: &[u8], unit: u64, what: &str) -> Result<u64> {
    match digits(field) {
        Some(n) => Ok(n.saturating_mul(unit)),
        None => match number(field, what)? {
            x if x >= 0.0 => Ok((x * unit as f64) as u64),
            x => bail!("{what} is {x}, below 0"),
        },
    }
}

fn digits(field: &[u8]) -> Option<u64> {
    if field.is_empty() || field.len() > 18 {
        return None;
    }
    field.iter().try_fold(0u64, |n, b| {
        b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0'))
    })
}
