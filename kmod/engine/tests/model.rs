// SPDX-License-Identifier: GPL-2.0-only
//! Random streams of commands: compared with a simple model, and cut at random positions.

mod common;

use std::collections::HashMap;

use common::{engine, play, Cut, InPlaceOut, WHOLE};
use hippos_engine::{EngineCounter, Next, Session, Transport};
use proptest::prelude::*;

/// A minimal memcached: text commands on a map, without expiry and eviction.
#[derive(Default)]
struct Model {
    items: HashMap<String, (u32, Vec<u8>, u64)>,
    cas: u64,
}

impl Model {
    fn put(&mut self, key: &str, flags: u32, value: Vec<u8>) {
        self.cas += 1;
        self.items.insert(key.into(), (flags, value, self.cas));
    }

    fn store(&mut self, verb: &str, key: &str, flags: u32, value: &[u8], unique: u64) -> &str {
        let old = self.items.get(key).cloned();
        match (verb, old) {
            ("add", Some(_)) | ("replace" | "append" | "prepend", None) => return "NOT_STORED",
            ("cas", None) => return "NOT_FOUND",
            ("cas", Some((_, _, cas))) if cas != unique => return "EXISTS",
            ("append", Some((flags, old, _))) => self.put(key, flags, [&old, value].concat()),
            ("prepend", Some((flags, old, _))) => self.put(key, flags, [value, &old].concat()),
            _ => self.put(key, flags, value.to_vec()),
        }
        "STORED"
    }

    fn count(&mut self, key: &str, decrement: bool, by: u64) -> String {
        let Some((flags, value, _)) = self.items.get(key).cloned() else {
            return "NOT_FOUND".into();
        };
        let text = String::from_utf8_lossy(&value);
        // As strtoull() parses it: bytes after the padding, after any other blank or after a NUL are ignored.
        let blank = |c: char| matches!(c, ' ' | '\t'..='\r');
        let mut words = text
            .trim_start_matches(blank)
            .split(|c| blank(c) || c == '\0');
        let Ok(number) = words.next().unwrap_or("").parse::<u64>() else {
            return "CLIENT_ERROR cannot increment or decrement non-numeric value".into();
        };
        let number = match decrement {
            true => number.saturating_sub(by),
            false => number.wrapping_add(by),
        };
        // A shorter number is padded.
        let new = format!("{number:<width$}", width = value.len());
        self.put(key, flags, new.into_bytes());
        number.to_string()
    }

    fn get(&self, keys: &[String], cas: bool, out: &mut Vec<u8>) {
        for key in keys {
            if let Some((flags, value, unique)) = self.items.get(key) {
                let unique = if cas {
                    format!(" {unique}")
                } else {
                    String::new()
                };
                let head = format!("VALUE {key} {flags} {}{unique}\r\n", value.len());
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(b"END\r\n");
    }
}

#[derive(Clone, Debug)]
enum Command {
    Store(&'static str, String, u32, Vec<u8>, u64, bool),
    Count(String, bool, u64, bool),
    Get(Vec<String>, bool),
    Delete(String, bool),
    Flush(bool),
    Junk(&'static str),
}

impl Command {
    fn line(&self) -> Vec<u8> {
        let quiet = |noreply: &bool| if *noreply { " noreply" } else { "" };
        let text = match self {
            Command::Store(verb, key, flags, value, unique, noreply) => {
                let unique = if *verb == "cas" {
                    format!(" {unique}")
                } else {
                    String::new()
                };
                let head = format!(
                    "{verb} {key} {flags} 0 {}{unique}{}\r\n",
                    value.len(),
                    quiet(noreply)
                );
                return [head.as_bytes(), value, b"\r\n"].concat();
            }
            Command::Count(key, decrement, by, noreply) => {
                let verb = if *decrement { "decr" } else { "incr" };
                format!("{verb} {key} {by}{}", quiet(noreply))
            }
            Command::Get(keys, cas) => {
                format!("{} {}", if *cas { "gets" } else { "get" }, keys.join(" "))
            }
            Command::Delete(key, noreply) => format!("delete {key}{}", quiet(noreply)),
            Command::Flush(noreply) => format!("flush_all{}", quiet(noreply)),
            Command::Junk(line) => (*line).into(),
        };
        format!("{text}\r\n").into_bytes()
    }

    fn run(&self, model: &mut Model, out: &mut Vec<u8>) {
        let (answer, noreply) = match self {
            Command::Store(verb, key, flags, value, unique, noreply) => (
                model.store(verb, key, *flags, value, *unique).to_string(),
                *noreply,
            ),
            Command::Count(key, decrement, by, noreply) => {
                (model.count(key, *decrement, *by), *noreply)
            }
            Command::Get(keys, cas) => return model.get(keys, *cas, out),
            Command::Delete(key, noreply) => {
                let found = model.items.remove(key).is_some();
                (if found { "DELETED" } else { "NOT_FOUND" }.into(), *noreply)
            }
            Command::Flush(noreply) => {
                model.items.clear();
                ("OK".into(), *noreply)
            }
            Command::Junk(_) => ("ERROR".into(), false),
        };
        if !noreply {
            out.extend_from_slice(answer.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-d]", 1 => "[a-c]{240,250}"]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[0-9]{1,20}".prop_map(String::into_bytes),
        4 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec(any::<u8>(), 0..6000),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let verb = prop::sample::select(vec!["set", "add", "replace", "append", "prepend", "cas"]);
    prop_oneof![
        6 => (verb, key(), any::<u32>(), value(), 0u64..12, prop::bool::weighted(0.2))
            .prop_map(|(v, k, f, d, u, n)| Command::Store(v, k, f, d, u, n)),
        2 => (key(), any::<bool>(), any::<u64>(), 0u32..64, any::<bool>())
            .prop_map(|(k, d, by, shift, n)| Command::Count(k, d, by >> shift, n)),
        5 => (proptest::collection::vec(key(), 1..20), any::<bool>())
            .prop_map(|(keys, cas)| Command::Get(keys, cas)),
        1 => (key(), any::<bool>()).prop_map(|(k, n)| Command::Delete(k, n)),
        1 => prop::bool::weighted(0.3).prop_map(Command::Flush),
        1 => prop::sample::select(vec!["", "bogus", "get", "set a", "  "]).prop_map(Command::Junk),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn replies_are_those_of_the_model(commands in proptest::collection::vec(command(), 1..40), piece in 1usize..3000, room in 1024usize..5000) {
        let mut model = Model::default();
        let (mut input, mut want) = (Vec::new(), Vec::new());
        for command in &commands {
            input.extend(command.line());
            command.run(&mut model, &mut want);
        }
        for cut in [WHOLE, Cut { piece, room }] {
            let seen = play(&engine(), &input, cut);
            prop_assert!(!seen.closed);
            prop_assert_eq!(
                String::from_utf8_lossy(&seen.output),
                String::from_utf8_lossy(&want)
            );
        }
    }

    /// Commands answered before the session is fed get the same replies, and are counted once.
    #[test]
    fn quick_replies_are_those_of_the_session(
        lines in proptest::collection::vec(
            "(get|gets) [a-c]{1,2}\r\n|set [a-c]{1,2} 7 0 3\r\nxyz\r\n|(get|gets|mg|delete|x) [a-c ]{0,5}\r?\n",
            1..30,
        ),
        piece in 1usize..100,
        most in 1usize..8,
    ) {
        let input = lines.concat();
        let (plain, quick) = (engine(), engine());
        let want = play(&plain, input.as_bytes(), WHOLE);
        let mut session = Session::new(&quick, Transport::Tcp);
        let (mut unread, mut output) = (Vec::new(), Vec::new());
        for piece in input.as_bytes().chunks(piece) {
            unread.extend_from_slice(piece);
            loop {
                let mut out_pages = InPlaceOut::new(2000);
                let taken = session.feed_softirq(&unread, most, &mut out_pages);
                prop_assert_eq!(taken == 0, out_pages.written().is_empty());
                let fed = session.feed(unread.get(taken..).unwrap(), &mut out_pages);
                unread.drain(..taken + fed.consumed);
                output.extend_from_slice(out_pages.written());
                if fed.next == Next::Read {
                    break;
                }
            }
        }
        prop_assert_eq!(
            String::from_utf8_lossy(&output),
            String::from_utf8_lossy(&want.output)
        );
        for tally in [EngineCounter::TcpCommands, EngineCounter::BytesRead, EngineCounter::BytesWritten] {
            prop_assert_eq!(quick.engine_counted(tally), plain.engine_counted(tally));
        }
    }

    /// Lines of any kind, valid or not: the positions of the cuts make no difference.
    #[test]
    fn cuts_make_no_difference(
        lines in proptest::collection::vec(
            "(get|gets|gat 0|gat|set|cas|ms|mg|md|ma|me|mn|incr|delete|touch|stats sizes|version|lru_crawler|verbosity|x)( [a-c]{1,3}| [0-9]{1,2}| v| k| q| s| t| c| N9| T9| I| O12| b| noreply| [a-b]{1,300}){0,8} ?\r?\n",
            1..20,
        ),
        piece in 1usize..200,
    ) {
        let input = lines.concat();
        let whole = play(&engine(), input.as_bytes(), WHOLE);
        let cut = play(&engine(), input.as_bytes(), Cut { piece, room: 1024 });
        prop_assert_eq!(String::from_utf8_lossy(&whole.output), String::from_utf8_lossy(&cut.output));
        prop_assert_eq!(whole.closed, cut.closed);
    }

    /// Binary requests, with lengths that may lie.
    #[test]
    fn binary_cuts_make_no_difference(
        requests in proptest::collection::vec(
            (0u8..0x26, 0u16..6, prop::sample::select(vec![0u8, 4, 8, 20]), 0u32..40, "[0-9a-c]{0,40}"),
            1..12,
        ),
        piece in 1usize..60,
    ) {
        let mut input = Vec::new();
        for (opcode, key, extras, body, rest) in &requests {
            // Statistics contain the number of bytes read so far.
            let opcode = if *opcode == 0x10 { &0x0a } else { opcode };
            input.extend_from_slice(&[0x80, *opcode]);
            input.extend_from_slice(&key.to_be_bytes());
            input.extend_from_slice(&[*extras, 0, 0, 0]);
            let least = u32::from(*key) + u32::from(*extras);
            let body = if *body < 35 { least + body % 9 } else { *body };
            input.extend_from_slice(&body.to_be_bytes());
            input.extend_from_slice(&[1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
            let mut rest = rest.clone().into_bytes();
            rest.resize(body as usize, b'0');
            input.extend(rest);
        }
        let whole = play(&engine(), &input, WHOLE);
        let cut = play(&engine(), &input, Cut { piece, room: 1024 });
        prop_assert_eq!(whole, cut);
    }
}
