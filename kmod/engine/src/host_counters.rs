// SPDX-License-Identifier: GPL-2.0-only
//! The counters that the host keeps: the list of `kmod/c/counters.h`, which the C code of the module counts by. It is
//! read when this file is compiled, so that a counter's name and meaning stand there alone.

const LIST: &[u8] = include_bytes!("../../c/counters.h");
/// The beginning of a row of the list.
const ROW: &[u8] = b"\tX(";

/// An associated constant would not do: rustc makes code of the functions that it is computed by, and these panic.
const ROWS: [HostCounter; count()] = rows();

/// A counter of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCounter {
    number: u32,
    name: &'static str,
    doc: &'static str,
}

impl HostCounter {
    /// All of them, in the order of the list.
    pub(crate) fn all() -> &'static [Self] {
        &ROWS
    }

    /// The counter with this name.
    pub(crate) const fn named(name: &str) -> &'static Self {
        let mut i = 0;
        while i < ROWS.len() {
            let found = ROWS[i].name;
            if found.len() == name.len() && is_at(found.as_bytes(), 0, name.as_bytes()) {
                return &ROWS[i];
            }
            i += 1;
        }
        panic!("kmod/c/counters.h has no such counter");
    }

    /// Its number in the list, as C has it.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Its name in `stats`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its meaning.
    pub const fn doc(&self) -> &'static str {
        self.doc
    }
}

const fn rows() -> [HostCounter; count()] {
    let mut rows = [HostCounter {
        number: 0,
        name: "",
        doc: "",
    }; count()];
    let (mut number, mut at) = (0, 0);
    while number < rows.len() {
        let (name, behind) = quoted(find(at, ROW));
        let (doc, behind) = quoted(behind);
        rows[number] = HostCounter {
            number: number as u32,
            name,
            doc,
        };
        number += 1;
        at = behind;
    }
    rows
}

const fn count() -> usize {
    let (mut count, mut at) = (0, 0);
    while at < LIST.len() {
        if is_at(LIST, at, ROW) {
            count += 1;
        }
        at += 1;
    }
    count
}

/// The text between the next two quotes from a place on, and the place behind them.
const fn quoted(at: usize) -> (&'static str, usize) {
    let start = find(at, b"\"") + 1;
    let end = find(start, b"\"");
    let text = LIST.split_at(end).0.split_at(start).1;
    match core::str::from_utf8(text) {
        Ok(text) => (text, end + 1),
        Err(_) => panic!("kmod/c/counters.h is not UTF-8"),
    }
}

/// Where the list has these bytes next.
const fn find(mut at: usize, bytes: &[u8]) -> usize {
    while !is_at(LIST, at, bytes) {
        at += 1;
        assert!(at < LIST.len(), "a row of kmod/c/counters.h is incomplete");
    }
    at
}

/// Whether a text has these bytes there.
const fn is_at(text: &[u8], at: usize, bytes: &[u8]) -> bool {
    let mut i = 0;
    while i < bytes.len() {
        if at + i >= text.len() || text[at + i] != bytes[i] {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C counts by the enumerator, which it makes of the row's first word.
    #[test]
    fn each_line_of_the_list_is_a_counter_with_its_enumerator() {
        let list = core::str::from_utf8(LIST).unwrap();
        let lines = list.lines().filter(|line| line.starts_with("\tX("));
        let lines: std::vec::Vec<_> = lines.collect();
        assert!(!lines.is_empty());
        assert_eq!(lines.len(), ROWS.len());
        for (i, (line, counter)) in lines.iter().zip(&ROWS).enumerate() {
            let (name, doc) = (counter.name(), counter.doc());
            let enumerator = name.trim_start_matches("hippos_").to_ascii_uppercase();
            let row = std::format!("\tX({enumerator}, \"{name}\", \"{doc}\")");
            assert_eq!(line.trim_end_matches(" \\"), row);
            assert_eq!(counter.number() as usize, i);
            assert_eq!(HostCounter::named(name), counter);
        }
    }
}
