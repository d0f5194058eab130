// SPDX-License-Identifier: GPL-2.0-only
//! How a trace's format is detected.

use super::columns::{self, Named};
use super::format::Format;

/// Detects the format from the first line, which may be a header.
pub(super) fn detect(line: &[u8], delimiter: u8) -> Option<Format> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    if text.starts_with("ts=") && text.contains(" gid=") {
        return Some(Format::Watch);
    }
    if text.starts_with("key=") && text.contains(" exp=") {
        return Some(Format::Metadump);
    }
    let fields: Vec<&str> = text
        .split(char::from(delimiter))
        .map(|field| field.trim().trim_matches('"'))
        .collect();
    let numeric = |at: usize| fields.get(at).is_some_and(|f| f.parse::<f64>().is_ok());
    let word = |at: usize| {
        fields
            .get(at)
            .is_some_and(|f| columns::verb(f.as_bytes()).is_some())
    };
    let n = fields.len();
    if let Some(named) = Named::read(line, delimiter) {
        return Some(named.format);
    }
    match delimiter {
        b'\t' if n == 5 && numeric(0) && numeric(3) && numeric(4) => Some(Format::Wikimedia),
        b',' if n >= 7 && numeric(0) && numeric(n - 1) && word(n - 2) => Some(Format::Twitter),
        b',' if n >= 3 && word(1) && numeric(2) => Some(Format::Cachelib),
        _ if n >= 3 && (0..3).all(numeric) => Some(Format::LibcachesimCsv),
        _ if n == 1 && numeric(0) => Some(Format::LibcachesimTxt),
        _ => None,
    }
}
