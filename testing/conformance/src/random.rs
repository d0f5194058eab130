// SPDX-License-Identifier: GPL-2.0-only
//! Random streams of commands, which must get the same replies from two servers.
//!
//! A stream is a few dozen commands over a handful of keys. Both servers get it, each command
//! only after the last was answered (memcached changes a number in place only while no reply still
//! refers to it), and must answer the same. CAS numbers are compared by which are equal, times left
//! aside. A stream that is answered differently is made as short as it can be.

use anyhow::{anyhow, bail, ensure, Context, Result};
use hippos_proto::{Argument, Flag, FLAGS};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::fresh_key::fresh_key;
use crate::packet::{self, HEADER, REQUEST};
use crate::show::brief;
use crate::template::show;

/// Placeholder for the stream's own eight bytes in commands.
const KEY: &str = "<key>";

/// The protocol of the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamProtocol {
    /// Text and meta commands.
    Text,
    /// The binary protocol.
    Binary,
}

/// Plays `streams` random streams against both servers. Fails with the shortest stream that
/// they answer differently.
pub fn compare(
    reference: SocketAddr,
    target: SocketAddr,
    protocol: StreamProtocol,
    streams: u32,
    seed: u64,
) -> Result<()> {
    let mut bytes = [protocol as u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases: streams,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let command = match protocol {
        StreamProtocol::Text => text_command().boxed(),
        StreamProtocol::Binary => binary_command().boxed(),
    };
    let result = runner.run(&vec(command, 1..40), |stream| {
        play(reference, target, protocol, &stream)
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    result.map_err(|error| match error {
        TestError::Fail(reason, stream) => {
            let lines: Vec<String> = stream.iter().map(|c| format!("  > {}", show(c))).collect();
            anyhow!("seed {seed}, {protocol:?}: {reason}\n{}", lines.join("\n"))
        }
        TestError::Abort(reason) => anyhow!("seed {seed}, {protocol:?}: {reason}"),
    })
}

fn play(
    reference: SocketAddr,
    target: SocketAddr,
    protocol: StreamProtocol,
    stream: &[Vec<u8>],
) -> Result<()> {
    let key = fresh_key();
    let mut left = Peer::new(reference, protocol)?;
    let mut right = Peer::new(target, protocol)?;
    for command in stream {
        let command = with_key(command, &key);
        let expected = left.ask(&command).context("the reference")?;
        let got = right.ask(&command).context("the target")?;
        ensure!(
            expected == got,
            "to {} the answers differ\n  reference: {}\n     target: {}",
            brief(&command),
            brief(&expected),
            brief(&got)
        );
    }
    Ok(())
}

/// Replaces [`KEY`] in a command by the stream's own bytes.
fn with_key(command: &[u8], key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = command;
    while let Some(at) = rest.windows(KEY.len()).position(|w| w == KEY.as_bytes()) {
        out.extend(&rest[..at]);
        out.extend(key);
        rest = &rest[at + KEY.len()..];
    }
    out.extend(rest);
    out
}

/// One server of the two.
struct Peer {
    stream: TcpStream,
    protocol: StreamProtocol,
    /// The CAS numbers seen, in their order.
    seen: Vec<u64>,
    got: Vec<u8>,
}

impl Peer {
    fn new(address: SocketAddr, protocol: StreamProtocol) -> Result<Self> {
        Ok(Peer {
            stream: hippos_client::stream(address, Duration::from_secs(2))?,
            protocol,
            seen: Vec::new(),
            got: Vec::new(),
        })
    }

    /// Sends a command and one with a known reply, and reads up to that reply.
    fn ask(&mut self, command: &[u8]) -> Result<Vec<u8>> {
        let mut noop = vec![0; HEADER];
        noop[0] = REQUEST;
        noop[1] = 0x0a;
        let sync = match self.protocol {
            StreamProtocol::Text => b"mn\r\n".as_slice(),
            StreamProtocol::Binary => &noop,
        };
        self.stream.write_all(&[command, sync].concat())?;
        let mut out = Vec::new();
        loop {
            while let Some(len) = self.reply() {
                let reply: Vec<u8> = self.got.drain(..len).collect();
                match self.protocol {
                    StreamProtocol::Text if reply == b"MN\r\n" => return Ok(out),
                    StreamProtocol::Binary if reply[1] == 0x0a => return Ok(out),
                    StreamProtocol::Text => out.extend(self.general_text(&reply)),
                    StreamProtocol::Binary => out.extend(self.general_packet(reply)),
                }
            }
            let mut buffer = [0; 1 << 14];
            match self.stream.read(&mut buffer)? {
                0 => bail!("the connection was closed after {}", brief(&out)),
                n => self.got.extend(&buffer[..n]),
            }
        }
    }

    /// Length of the first complete reply: a line, with its data if it announces some.
    fn reply(&self) -> Option<usize> {
        if self.protocol == StreamProtocol::Binary {
            let head = self.got.get(..HEADER)?;
            let len = HEADER + u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
            return (self.got.len() >= len).then_some(len);
        }
        let line = self.got.windows(2).position(|w| w == b"\r\n")?;
        let text = String::from_utf8_lossy(&self.got[..line]);
        let mut words = text.split(' ');
        let data = match words.next() {
            Some("VALUE") => words.nth(2),
            Some("VA") => words.next(),
            _ => None,
        };
        let len = match data.and_then(|n| n.parse::<usize>().ok()) {
            Some(data) => line + 2 + data + 2,
            None => line + 2,
        };
        (self.got.len() >= len).then_some(len)
    }

    /// A reply with its CAS as the number of its first appearance, and without times.
    fn general_text(&mut self, reply: &[u8]) -> Vec<u8> {
        let end = reply
            .windows(2)
            .position(|w| w == b"\r\n")
            .unwrap_or(reply.len());
        let line = String::from_utf8_lossy(&reply[..end]).into_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let meta = matches!(words[0], "HD" | "VA" | "ME");
        let mut out = Vec::new();
        for (i, word) in words.iter().enumerate() {
            let digits = |head: &str| match word.strip_prefix(head) {
                Some(rest) if !rest.is_empty() => rest.parse::<u64>().ok(),
                _ => None,
            };
            out.push(match (words[0], i) {
                ("VALUE", 4) => match word.parse() {
                    Ok(cas) => format!("#{}", self.order(cas)),
                    Err(_) => (*word).to_owned(),
                },
                _ if meta && digits("c").is_some() => {
                    format!("c#{}", self.order(digits("c").unwrap_or(0)))
                }
                _ if meta && (digits("t").is_some() || digits("l").is_some()) => {
                    word[..1].to_owned()
                }
                _ => (*word).to_owned(),
            });
        }
        [out.join(" ").as_bytes(), &reply[end..]].concat()
    }

    fn general_packet(&mut self, mut reply: Vec<u8>) -> Vec<u8> {
        if let Some(cas) = reply.get(16..24).and_then(<[u8]>::first_chunk::<8>) {
            let order = self.order(u64::from_be_bytes(*cas));
            reply[16..24].copy_from_slice(&order.to_be_bytes());
        }
        reply
    }

    /// Numbers chosen by commands stay as they are; a server's own become 1, 2, 3…
    fn order(&mut self, cas: u64) -> u64 {
        if cas == 0 || CHOSEN.contains(&cas) {
            return cas;
        }
        let known = self.seen.iter().position(|&c| c == cas);
        let at = known.unwrap_or_else(|| {
            self.seen.push(cas);
            self.seen.len() - 1
        });
        at as u64 + 1
    }
}

/// CAS numbers that commands set: larger than any that a server assigns in a test.
const CHOSEN: [u64; 3] = [1 << 62, (1 << 62) + 1, (1 << 62) + 2];

fn cas() -> impl Strategy<Value = u64> {
    select(&CHOSEN[..])
}

/// Keys of words, that are marked stale and such, and keys of numbers, that are counted.
fn key() -> impl Strategy<Value = String> {
    select(&["a", "b", "c"][..]).prop_map(|k| format!("{KEY}{k}"))
}

fn counter() -> impl Strategy<Value = String> {
    select(&["n", "m"][..]).prop_map(|k| format!("{KEY}{k}"))
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![3 => key(), 1 => counter()]
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => select(&["", "v", "vw", "vwx\r\n", "v w"][..]).prop_map(|v| v.as_bytes().to_vec()),
        1 => (0usize..3000).prop_map(|n| vec![b'v'; n]),
    ]
}

fn number() -> impl Strategy<Value = Vec<u8>> {
    let numbers = [
        "0",
        "1",
        "9",
        "10",
        "99",
        "100",
        "18446744073709551615",
        "007",
        "x",
    ];
    select(numbers.to_vec()).prop_map(|v| v.as_bytes().to_vec())
}

/// A key with a value of its kind.
fn pair() -> impl Strategy<Value = (String, Vec<u8>)> {
    prop_oneof![3 => (key(), word()), 2 => (counter(), number())]
}

fn expiry() -> impl Strategy<Value = i32> {
    prop_oneof![6 => Just(0), 2 => Just(1000), 1 => Just(-1)]
}

fn noreply() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 1 => Just(" noreply")]
}

fn text_command() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => store(),
        2 => compare_and_store(),
        4 => retrieve(),
        3 => count(),
        2 => (any_key(), noreply()).prop_map(|(k, n)| format!("delete {k}{n}\r\n").into_bytes()),
        1 => (any_key(), expiry(), noreply())
            .prop_map(|(k, e, n)| format!("touch {k} {e}{n}\r\n").into_bytes()),
        4 => meta_get(),
        4 => meta_set(),
        2 => meta_delete(),
        2 => meta_count(),
        1 => mistake(),
    ]
}

fn store() -> impl Strategy<Value = Vec<u8>> {
    let verb = select(&["set", "set", "add", "replace", "append", "prepend"][..]);
    let off = prop_oneof![9 => Just(0), 1 => Just(1)];
    (verb, pair(), 0u32..9, expiry(), noreply(), off).prop_map(|(verb, (k, v), f, e, n, off)| {
        let mut line = format!("{verb} {k} {f} {e} {}{n}\r\n", v.len()).into_bytes();
        line.extend(v);
        line.extend(std::iter::repeat_n(b'v', off));
        line.extend(b"\r\n");
        line
    })
}

fn compare_and_store() -> impl Strategy<Value = Vec<u8>> {
    (key(), word(), cas(), noreply()).prop_map(|(k, v, c, n)| {
        let head = format!("cas {k} 5 0 {} {c}{n}\r\n", v.len());
        [head.as_bytes(), &v, b"\r\n"].concat()
    })
}

fn retrieve() -> impl Strategy<Value = Vec<u8>> {
    let verb = prop_oneof![
        4 => Just("get".to_owned()),
        3 => Just("gets".to_owned()),
        1 => expiry().prop_map(|e| format!("gat {e}")),
        1 => expiry().prop_map(|e| format!("gats {e}")),
    ];
    (verb, vec(any_key(), 1..5))
        .prop_map(|(verb, keys)| format!("{verb} {}\r\n", keys.join(" ")).into_bytes())
}

fn delta() -> impl Strategy<Value = &'static str> {
    select(&["0", "1", "5", "90", "18446744073709551615", "-1", "x"][..])
}

fn count() -> impl Strategy<Value = Vec<u8>> {
    (select(&["incr", "decr"][..]), any_key(), delta(), noreply())
        .prop_map(|(verb, k, d, n)| format!("{verb} {k} {d}{n}\r\n").into_bytes())
}

/// Flags that are not drawn for a command.
const NOT_DRAWN: &[(&str, u8)] = &[
    // memcached 1.6.38 ignores it, Hippos does as newer ones (docs/protocol.md).
    ("mg", b'C'),
    // memcached forgets them when the count grows by a digit.
    ("ma", b'E'),
    ("ma", b'T'),
];

/// The arguments of a flag of `command` to draw from.
fn arguments(command: &str, flag: &Flag) -> &'static [&'static str] {
    match (flag.letter, flag.argument) {
        // A number is drawn later.
        (b'C' | b'E', _) => &[""],
        // No mode that is an error: with one, memcached assigns the number of `E` to the item that is stored next.
        (_, Argument::Mode) if command == "ms" => &["E", "A", "P", "R", "S"],
        (_, Argument::Mode) => &["I", "D", "+", "-", "X"],
        (_, Argument::None | Argument::Ignored) => &[""],
        (_, Argument::Opaque) => &["1", "abc"],
        (_, Argument::TimeToLive) => &["0", "1000", "-1"],
        // None of those: the second decides whether less of it is left.
        (_, Argument::Seconds) => &["30", "2000"],
        (_, Argument::Word) => &["0", "5"],
        (_, Argument::Number) => &["0", "2", "13", "x"],
    }
}

/// Some of the flags of a command and of `others`, in some order, but none of `except`. `b` needs the key in base64, and
/// is not among them.
fn flags(
    command: &'static str,
    except: &[u8],
    others: &[&'static str],
) -> impl Strategy<Value = String> {
    let drawn = |flag: &&Flag| {
        let not_drawn = NOT_DRAWN.contains(&(command, flag.letter));
        flag.commands.split(' ').any(|word| word == command)
            && flag.letter != b'b'
            && !not_drawn
            && !except.contains(&flag.letter)
    };
    let words = FLAGS.iter().filter(drawn).flat_map(|flag| {
        let letter = char::from(flag.letter);
        let arguments = arguments(command, flag).iter();
        arguments.map(move |argument| format!("{letter}{argument}"))
    });
    let others = others.iter().map(|word| (*word).to_owned());
    let words: Vec<String> = words.chain(others).collect();
    let cas_flag = |word: String| match word.as_str() {
        "C" | "E" => cas().prop_map(move |c| format!(" {word}{c}")).boxed(),
        _ => Just(format!(" {word}")).boxed(),
    };
    let most = words.len().min(7);
    subsequence(words, 0..most)
        .prop_shuffle()
        .prop_flat_map(move |flags| flags.into_iter().map(cas_flag).collect::<Vec<_>>())
        .prop_map(|flags| flags.concat())
}

fn meta_get() -> impl Strategy<Value = Vec<u8>> {
    let others = &["P", "L", "x", "I", "z"];
    (any_key(), flags("mg", b"", others)).prop_map(|(k, f)| format!("mg {k}{f}\r\n").into_bytes())
}

fn meta_set() -> impl Strategy<Value = Vec<u8>> {
    // Twice, so that more items have numbers that are known.
    let others = &["E", "v", "t"];
    (pair(), flags("ms", b"", others)).prop_map(|((k, v), f)| {
        let head = format!("ms {k} {}{f}\r\n", v.len());
        [head.as_bytes(), &v, b"\r\n"].concat()
    })
}

fn meta_delete() -> impl Strategy<Value = Vec<u8>> {
    let command = |(k, f): (String, String)| format!("md {k}{f}\r\n").into_bytes();
    prop_oneof![
        3 => (key(), flags("md", b"", &["v", "t"])).prop_map(command),
        // Counters are never marked stale: the result of arithmetic on a stale item depends on chance.
        1 => (counter(), flags("md", b"ITx", &["v"])).prop_map(command),
    ]
}

fn meta_count() -> impl Strategy<Value = Vec<u8>> {
    (counter(), flags("ma", b"", &[])).prop_map(|(k, f)| format!("ma {k}{f}\r\n").into_bytes())
}

fn mistake() -> impl Strategy<Value = Vec<u8>> {
    let lines = [
        "",
        "x",
        "get",
        "gets",
        "set <key>a",
        "set <key>a 0 0",
        "incr <key>n",
        "touch <key>a",
        "delete",
        "delete <key>a 0",
        "delete <key>a 1",
        "mg",
        "ms <key>a",
        "ms <key>a x",
        "md",
        "ma",
        "me",
        "gat 0",
        "gat x <key>a",
        "cas <key>a 0 0 1",
        "verbosity",
        "version",
        "  ",
        "mn x",
        "GET <key>a",
        "set <key>a x 0 1",
        "set <key>a 0 0 -1",
        "incr <key>a 1 2 3",
    ];
    select(lines.to_vec()).prop_map(|line| format!("{line}\r\n").into_bytes())
}

/// One request of the binary protocol.
fn binary_command() -> impl Strategy<Value = Vec<u8>> {
    let cas = || prop_oneof![4 => Just(0u64), 1 => cas()];
    let exp = || select(&[0u32, 0, 0, 1000, u32::MAX][..]);
    let storing = (
        select(&[1u8, 2, 3, 0x11, 0x12, 0x13][..]),
        pair(),
        0u32..9,
        exp(),
        cas(),
    )
        .prop_map(|(op, (k, v), f, e, c)| {
            binary(op, &[f.to_be_bytes(), e.to_be_bytes()].concat(), &k, &v, c)
        });
    let joining = (
        select(&[0x0eu8, 0x0f, 0x19, 0x1a][..]),
        key(),
        word(),
        cas(),
    )
        .prop_map(|(op, k, v, c)| binary(op, &[], &k, &v, c));
    let getting = (select(&[0u8, 9, 0x0c, 0x0d][..]), any_key())
        .prop_map(|(op, k)| binary(op, &[], &k, &[], 0));
    let touching = (
        select(&[0x1cu8, 0x1d, 0x1e, 0x23, 0x24][..]),
        any_key(),
        exp(),
    )
        .prop_map(|(op, k, e)| binary(op, &e.to_be_bytes(), &k, &[], 0));
    let deleting = (select(&[4u8, 0x14][..]), any_key(), cas())
        .prop_map(|(op, k, c)| binary(op, &[], &k, &[], c));
    let by = || select(&[0u64, 1, 5, 90, u64::MAX][..]);
    let counting = (
        select(&[5u8, 6, 0x15, 0x16][..]),
        counter(),
        by(),
        by(),
        exp(),
        cas(),
    )
        .prop_map(|(op, k, d, i, e, c)| {
            let extras = [&d.to_be_bytes()[..], &i.to_be_bytes(), &e.to_be_bytes()].concat();
            binary(op, &extras, &k, &[], c)
        });
    let other = select(&[0x0bu8, 0x60, 0x20][..]).prop_map(|op| binary(op, &[], "", &[], 0));
    prop_oneof![
        5 => storing,
        2 => joining,
        5 => getting,
        2 => touching,
        2 => deleting,
        3 => counting,
        1 => other,
    ]
}

fn binary(opcode: u8, extras: &[u8], key: &str, value: &[u8], cas: u64) -> Vec<u8> {
    // The length is that of the eight bytes that replace `KEY`.
    let key_len = with_key(key.as_bytes(), &[0; 8]).len();
    let body = extras.len() + key_len + value.len();
    let mut out = vec![packet::REQUEST, opcode];
    out.extend((key_len as u16).to_be_bytes());
    out.extend([extras.len() as u8, 0, 0, 0]);
    out.extend((body as u32).to_be_bytes());
    out.extend([0, 0, 0, 7]);
    out.extend(cas.to_be_bytes());
    out.extend(extras);
    out.extend(key.as_bytes());
    out.extend(value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_cut_and_made_general() {
        let stream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut side = Peer::new(stream.local_addr().unwrap(), StreamProtocol::Text).unwrap();
        side.got = b"VALUE k 0 4 9\r\na\r\nb\r\nVALUE".to_vec();
        assert_eq!(side.reply(), Some(21));
        assert_eq!(
            side.general_text(b"VALUE k 0 1 9\r\na\r\n"),
            b"VALUE k 0 1 #1\r\na\r\n"
        );
        assert_eq!(side.general_text(b"HD c8 t100 h0\r\n"), b"HD c#2 t h0\r\n");
        assert_eq!(side.general_text(b"HD c9 O1 t-1\r\n"), b"HD c#1 O1 t-1\r\n");
        let chosen = format!("HD c{}\r\n", CHOSEN[1]);
        let kept = format!("HD c#{}\r\n", CHOSEN[1]);
        assert_eq!(side.general_text(chosen.as_bytes()), kept.as_bytes());
    }

    #[test]
    fn each_flag_is_drawn_for_the_commands_that_use_it() {
        let mut runner = TestRunner::deterministic();
        let mut draw = |command: BoxedStrategy<Vec<u8>>| {
            let tree = command.new_tree(&mut runner).expect("a command");
            String::from_utf8_lossy(&tree.current()).into_owned()
        };
        let mut drawn = std::collections::BTreeSet::new();
        for _ in 0..300 {
            for command in [
                meta_get().boxed(),
                meta_set().boxed(),
                meta_delete().boxed(),
                meta_count().boxed(),
            ] {
                let line = draw(command);
                let line = line.lines().next().unwrap_or_default();
                let mut words = line.split(' ');
                let command = words.next().unwrap_or_default().to_owned();
                let flags = words.filter_map(|word| word.bytes().next());
                drawn.extend(flags.map(|letter| (command.clone(), letter)));
            }
        }
        for flag in FLAGS.iter().filter(|flag| flag.letter != b'b') {
            for command in ["mg", "ms", "md", "ma"] {
                let uses = flag.commands.split(' ').any(|word| word == command);
                if uses && !NOT_DRAWN.contains(&(command, flag.letter)) {
                    let pair = (command.to_owned(), flag.letter);
                    assert!(drawn.contains(&pair), "{command} {}", flag.letter as char);
                }
            }
        }
    }
}
