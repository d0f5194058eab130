// SPDX-License-Identifier: GPL-2.0-only
//! Sequences of commands against a memcached of a page, with time that passes.

use std::collections::HashMap;

use hippos_store::ClassCounter;

use crate::common::{play, Seen, START, WHOLE};
use crate::engine;

/// Each command takes a few bytes: its kind, its key, and its arguments.
pub(crate) const SEEDS: &[&[u8]] = &[
    b"\x00\x01\x03abc\x06\x01\x07\x01",
    b"\x00\x01\x011\x08\x01\x05\x09\x01\x03\x06\x01\x02\x01\x02\x00\x03\x00\x04\x01\x06\x01",
    b"\x00\x02\x05hello\x0a\x02\x03\x0c\x05\x06\x02\x0b\x06\x02",
    b"\x00\x00\x02\x0a3\x08\x00\x01\x06\x00",
    b"\x01\x01\x02ab\x05\x01\x01\x02xy\x07\x01\x0d\x01\x04\x0c\x02\x06\x01",
];

/// The item of a key.
#[derive(Clone)]
struct Item {
    flags: u32,
    value: Vec<u8>,
    cas: u64,
    /// The second in which it expires.
    until: Option<u32>,
}

#[derive(Default)]
struct Model {
    items: HashMap<u8, Item>,
    cas: u64,
    now: u32,
}

impl Model {
    fn get(&self, key: u8) -> Option<&Item> {
        let now = self.now;
        self.items
            .get(&key)
            .filter(|item| item.until.is_none_or(|until| until > now))
    }

    fn put(&mut self, key: u8, flags: u32, value: Vec<u8>, until: Option<u32>) {
        self.cas += 1;
        let cas = self.cas;
        self.items.insert(
            key,
            Item {
                flags,
                value,
                cas,
                until,
            },
        );
    }
}

/// Takes bytes off the input; an exhausted input yields zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next()).collect()
    }
}

const UPTIME: u32 = 100;

pub(crate) fn model(data: &[u8]) {
    let engine = engine();
    let mut model = Model {
        now: UPTIME,
        ..Model::default()
    };
    let mut bytes = Bytes(data);
    let mut steps = 0;
    while !bytes.0.is_empty() && steps < 300 {
        steps += 1;
        let what = bytes.next() % 14;
        if what == 12 {
            model.now += u32::from(bytes.next());
            engine.store.tick(model.now, START + i64::from(model.now));
            continue;
        }
        let key = bytes.next() % 16;
        let (request, answer) = command(&mut model, what, key, &mut bytes);
        let seen = play(&engine, &request, WHOLE);
        // Values that keep growing need slabs of more and more classes: the model can't predict which items the store
        // evicts for them, or which it refuses.
        let counted = |counter| engine.store.classes_counted(counter);
        if counted(ClassCounter::Evicted) + counted(ClassCounter::OutOfMemory) > 0 {
            return;
        }
        let right = Seen {
            output: answer,
            closed: false,
        };
        assert!(
            seen == right,
            "step {steps}, {:?}: {:?}, not {:?}",
            String::from_utf8_lossy(&request),
            String::from_utf8_lossy(&seen.output),
            String::from_utf8_lossy(&right.output)
        );
    }
}

/// A command, and the model's reply to it.
fn command(model: &mut Model, what: u8, key: u8, bytes: &mut Bytes<'_>) -> (Vec<u8>, Vec<u8>) {
    let name = name(key);
    let old = model.get(key).cloned();
    let line = |text: &str| [text.as_bytes(), b"\r\n"].concat();
    match what {
        0..=5 => {
            let verb = ["set", "add", "replace", "append", "prepend", "cas"][usize::from(what)];
            let more = bytes.next();
            let length = usize::from(more & 63) * if more & 64 == 0 { 1 } else { 150 };
            let value = bytes.take(length);
            let flags = u32::from(more);
            let expiry = u32::from(more >> 7) * 5;
            let until = (expiry != 0).then(|| model.now + expiry);
            let unique = old.as_ref().map_or(1, |old| old.cas + u64::from(more & 1));
            let unique = if verb == "cas" {
                format!(" {unique}")
            } else {
                String::new()
            };
            let mut request = line(&format!("{verb} {name} {flags} {expiry} {length}{unique}"));
            request.extend_from_slice(&value);
            request.extend_from_slice(b"\r\n");
            let answer = match (verb, old) {
                ("add", Some(_)) | ("replace" | "append" | "prepend", None) => "NOT_STORED",
                ("cas", None) => "NOT_FOUND",
                ("cas", Some(_)) if more & 1 == 1 => "EXISTS",
                ("append", Some(old)) => {
                    model.put(key, old.flags, [old.value, value].concat(), old.until);
                    "STORED"
                }
                ("prepend", Some(old)) => {
                    model.put(key, old.flags, [value, old.value].concat(), old.until);
                    "STORED"
                }
                _ => {
                    model.put(key, flags, value, until);
                    "STORED"
                }
            };
            (request, line(answer))
        }
        6 | 7 => {
            let verb = if what == 6 { "get" } else { "gets" };
            let answer = found(&name, old.as_ref(), what == 7);
            (line(&format!("{verb} {name}")), answer)
        }
        8 | 9 => {
            let verb = if what == 8 { "incr" } else { "decr" };
            let by = u64::from(bytes.next()).pow(4);
            let answer = match old {
                None => "NOT_FOUND".into(),
                Some(old) => match number(&old.value) {
                    None => "CLIENT_ERROR cannot increment or decrement non-numeric value".into(),
                    Some(number) => {
                        let number = if what == 8 {
                            number.wrapping_add(by)
                        } else {
                            number.saturating_sub(by)
                        };
                        // A shorter number is padded.
                        let text = format!("{number:<width$}", width = old.value.len());
                        model.put(key, old.flags, text.into_bytes(), old.until);
                        number.to_string()
                    }
                },
            };
            (line(&format!("{verb} {name} {by}")), line(&answer))
        }
        10 => {
            let answer = if old.is_some() {
                "DELETED"
            } else {
                "NOT_FOUND"
            };
            model.items.remove(&key);
            (line(&format!("delete {name}")), line(answer))
        }
        11 => {
            model.items.clear();
            (line("flush_all"), line("OK"))
        }
        _ => {
            let expiry = bytes.next() % 8;
            let answer = match old {
                None => "NOT_FOUND",
                Some(_) => {
                    let until = (expiry != 0).then(|| model.now + u32::from(expiry));
                    if let Some(item) = model.items.get_mut(&key) {
                        item.until = until;
                    }
                    "TOUCHED"
                }
            };
            (line(&format!("touch {name} {expiry}")), line(answer))
        }
    }
}

fn name(key: u8) -> String {
    match key {
        0 => "k".repeat(250),
        _ => format!("key{key}"),
    }
}

fn found(name: &str, item: Option<&Item>, cas: bool) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Some(item) = item {
        let unique = if cas {
            format!(" {}", item.cas)
        } else {
            String::new()
        };
        let head = format!(
            "VALUE {name} {} {}{unique}\r\n",
            item.flags,
            item.value.len()
        );
        answer.extend_from_slice(head.as_bytes());
        answer.extend_from_slice(&item.value);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"END\r\n");
    answer
}

/// A value that arithmetic accepts, as strtoull does: digits, perhaps with a sign; white space may stand before them,
/// and anything behind white space or a zero byte.
fn number(value: &[u8]) -> Option<u64> {
    let space = |byte: &u8| matches!(byte, b' ' | 9..=13);
    let start = value.iter().position(|byte| !space(byte))?;
    let word = value[start..]
        .split(|byte| space(byte) || *byte == 0)
        .next()?;
    let digits = word.strip_prefix(b"+").or(word.strip_prefix(b"-"));
    let digits = digits.unwrap_or(word);
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let number = match word.first() {
        Some(b'-') => number.wrapping_neg(),
        _ => number,
    };
    // memcached treats a number that large as negative if there is a minus anywhere.
    (number >> 63 == 0 || !value.contains(&b'-')).then_some(number)
}
