// SPDX-License-Identifier: GPL-2.0-only
//! Commands that make an item from another one, or create one, while no memory is free: each turn waits for at most one
//! grace period, then the session parks and other sessions are served.

mod common;

use common::{engine_of, say, InPlaceOut, TestEngine};
use hippos_engine::{EngineCounter, Next, Session, Settings, Transport};
use hippos_store::host::Host;
use hippos_store::{ClassCounter, Commit, Counter, Expiry, Pin, Reservation};

const MEMORY: usize = 8 << 20;
/// Any length that has a block of its own.
const LARGE: usize = 900_000;
/// How often a command waits in vain, at least.
const WAITS: usize = 10;
const TURNS_MAX: usize = 1000;
/// The key of an item that exists, and one without an item: as long as the keys of the other items.
const N: &str = "number-000";
const K: &str = "absent-000";

/// An engine without free memory.
struct Full<'e> {
    engine: &'e TestEngine,
    /// All blocks but those of small items.
    blocks: Vec<Reservation<'e, Host>>,
    /// The items of the class, and so its slots.
    pins: Vec<Pin<'e, Host>>,
}

impl<'e> Full<'e> {
    /// No slot is free for an item with a key of ten bytes and a value of `len`. All items there may be evicted but
    /// not freed; that of `N`, which has the value `text`, was used more often than the others. Shorter items have free
    /// slots.
    fn new(engine: &'e TestEngine, text: &str, len: usize) -> Self {
        let set = |key: &str, value: &str| {
            let line = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
            assert_eq!(say(engine, &line), "STORED\r\n");
        };
        set("other", "v");
        set(N, text);
        let mut full = Self {
            engine,
            blocks: Vec::new(),
            pins: Vec::new(),
        };
        let store = &engine.store;
        full.add(&format!("{:010}", 0), len);
        while store.snapshot().held + store.block_size() <= store.allowed() {
            let hash = store.hash(b"held");
            let new = store.try_reserve(b"held", hash, 0, Expiry::NEVER, LARGE);
            full.blocks.extend(new.ok());
        }
        for number in 1.. {
            if !full.add(&format!("{number:010}"), len) {
                break;
            }
        }
        for _ in 0..4 {
            let found = say(engine, &format!("get {N} other\r\n"));
            assert!(found.contains(text), "{found}");
        }
        full
    }

    /// Stores and pins an item if there is a free slot.
    fn add(&mut self, key: &str, len: usize) -> bool {
        let store = &self.engine.store;
        let (key, hash) = (key.as_bytes(), store.hash(key.as_bytes()));
        let new = match self.pins.is_empty() {
            true => store.reserve(key, hash, 0, Expiry::NEVER, len).ok(),
            false => store.reserve_nowait(key, 0, Expiry::NEVER, len),
        };
        let Some(new) = new else {
            return false;
        };
        store.commit(new, &Commit::default()).unwrap();
        let guard = store.read();
        let item = store.peek(&guard, key, hash).unwrap();
        self.pins.extend(store.pin(&item));
        true
    }
}

fn feed(session: &mut Session<'_, Host>, input: &[u8]) -> (usize, Next, Vec<u8>) {
    let mut out = InPlaceOut::new(8192);
    let fed = session.feed(input, &mut out);
    (fed.consumed, fed.next, out.written().to_vec())
}

/// One binary request.
fn binary(opcode: u8, extras: &[u8], key: &str, value: &str) -> Vec<u8> {
    let mut packet = vec![0; 24];
    packet[0] = 0x80;
    packet[1] = opcode;
    packet[3] = key.len() as u8;
    packet[4] = extras.len() as u8;
    let body = extras.len() + key.len() + value.len();
    packet[8..12].copy_from_slice(&(body as u32).to_be_bytes());
    [&packet, extras, key.as_bytes(), value.as_bytes()].concat()
}

/// Extras of a binary increment by one, with an initial value of 5 that never expires.
const ONE: [u8; 20] = {
    let mut extras = [0; 20];
    extras[7] = 1;
    extras[15] = 5;
    extras
};

/// Stands for the reply to a binary request that succeeded.
const BINARY: &str = "binary";

struct Case {
    /// The value of `N` before.
    text: &'static str,
    /// The length of the value that the command makes.
    len: usize,
    request: Vec<u8>,
    /// The beginning of the reply.
    reply: Vec<u8>,
    /// The value of its key afterwards.
    key: &'static str,
    value: String,
}

fn cases() -> Vec<Case> {
    let hundred: &'static str = "0123456789".repeat(10).leak();
    let joined = |before: bool| match before {
        true => format!("x{hundred}"),
        false => format!("{hundred}x"),
    };
    let case = |text, request: Vec<u8>, reply: &str, key, value: &str| Case {
        text,
        len: value.len(),
        request,
        reply: reply.as_bytes().to_vec(),
        key,
        value: value.to_owned(),
    };
    let line = |text: &str| text.replace('N', N).replace('K', K).into_bytes();
    let mut cases = vec![
        case("99", line("incr N 1\r\n"), "100\r\n", N, "100"),
        case("99", line("incr N 1 noreply\r\n"), "", N, "100"),
        case("100", line("decr N 1\r\n"), "99\r\n", N, "99 "),
        case("99", line("ma N v\r\n"), "VA 3\r\n100\r\n", N, "100"),
        case("99", line("ma N q\r\n"), "", N, "100"),
        case(
            "99",
            format!("ma {K} N0 J500 v\r\n").into(),
            "VA 3\r\n500\r\n",
            K,
            "500",
        ),
        case(
            "99",
            format!("mg {K} N0 v\r\n").into(),
            "VA 0 W\r\n\r\n",
            K,
            "",
        ),
        case("99", line("md N x\r\n"), "HD\r\n", N, ""),
        case("99", binary(5, &ONE, N, ""), BINARY, N, "100"),
        case("99", binary(0x15, &ONE, N, ""), "", N, "100"),
        case("99", binary(5, &ONE, K, ""), BINARY, K, "5"),
    ];
    for (text, meta, mode, opcode) in [("append", "A", false, 0x0e), ("prepend", "P", true, 0x0f)] {
        let value = joined(mode);
        for (request, reply) in [
            (line(&format!("{text} N 0 0 1\r\nx\r\n")), "STORED\r\n"),
            (line(&format!("{text} N 0 0 1 noreply\r\nx\r\n")), ""),
            (format!("ms {N} 1 M{meta}\r\nx\r\n").into(), "HD\r\n"),
            (binary(opcode, b"", N, "x"), BINARY),
            // The quiet one.
            (binary(opcode + 0x0b, b"", N, "x"), ""),
        ] {
            cases.push(case(hundred, request, reply, N, &value));
        }
    }
    cases
}

/// In each protocol, behind and before other commands of a pipeline: the session parks, others are served, and once there
/// is memory the command has its effect and its reply once.
#[test]
fn commands_park_until_there_is_memory() {
    for case in cases() {
        let shown = case.request.escape_ascii().to_string();
        let engine = engine_of(MEMORY, Settings::default());
        let full = Full::new(&engine, case.text, case.len);
        let waits = || engine.store.counted(Counter::Waits);
        let counted = || engine.engine_counted(EngineCounter::TcpCommands);
        let sets = || engine.store.classes_counted(ClassCounter::CmdSet);
        let mut late = Session::new(&engine, Transport::Tcp).with_parking();
        let is_binary = case.request[0] == 0x80;
        let (noop, ended) = match is_binary {
            true => (
                binary(0x0a, b"", "", ""),
                [&[0x81, 0x0a][..], &[0; 22]].concat(),
            ),
            false => (b"mn\r\n".to_vec(), b"MN\r\n".to_vec()),
        };
        let (served, stored) = (counted(), sets());
        let pipeline = [&noop[..], &case.request, &noop].concat();
        let mut rest = &pipeline[..];
        let mut output = Vec::new();
        for turn in 0..WAITS {
            let earlier = waits();
            let (consumed, next, said) = feed(&mut late, rest);
            assert_eq!(next, Next::Park, "{shown}: turn {turn}");
            assert!(waits() - earlier <= 1, "{shown}: turn {turn}");
            assert_eq!(late.transfer(), None, "{shown}: no timeout");
            rest = &rest[consumed..];
            output.extend(said);
            // Another session of the same worker has its turn.
            assert!(say(&engine, "get other\r\n").starts_with("VALUE other"));
        }
        assert_eq!(output, ended, "{shown}: only the command before it");
        drop(full);
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "{shown}: no end");
            let (consumed, next, said) = feed(&mut late, rest);
            rest = &rest[consumed..];
            output.extend(said);
            if next != Next::Park {
                assert_eq!(next, Next::Read, "{shown}");
                break;
            }
        }
        assert_eq!(rest, b"", "{shown}");
        let reply = output.strip_prefix(&ended[..]);
        let reply = reply.and_then(|reply| reply.strip_suffix(&ended[..]));
        let reply = reply.unwrap_or_else(|| panic!("{shown}: {}", output.escape_ascii()));
        if case.reply == BINARY.as_bytes() {
            // Status 0.
            assert_eq!((reply[0], &reply[6..8]), (0x81, &[0, 0][..]), "{shown}");
        } else {
            assert_eq!(reply, case.reply, "{shown}: {}", reply.escape_ascii());
        }
        let found = say(&engine, &format!("get {}\r\n", case.key));
        let (key, value) = (case.key, &case.value);
        let want = format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len());
        assert_eq!(found, want, "{shown}");
        // The lookups beside it, and the last one.
        let lookups = WAITS as u64 + 1;
        assert_eq!(counted() - served, 3 + lookups, "{shown}");
        let stored = sets() - stored;
        assert_eq!(stored, u64::from(case.text.len() == 100), "{shown}");
    }
}

/// Where memory does not become free the command gets its error, which is counted once.
#[test]
fn parked_commands_are_refused_after_their_limit() {
    for case in cases() {
        let shown = case.request.escape_ascii().to_string();
        let engine = engine_of(MEMORY, Settings::default());
        let _full = Full::new(&engine, case.text, case.len);
        let mut late = Session::new(&engine, Transport::Tcp).with_parking();
        let mut rest = &case.request[..];
        let refused = engine.store.classes_counted(ClassCounter::OutOfMemory);
        let mut turns = 0;
        loop {
            let earlier = engine.store.counted(Counter::Waits);
            let (consumed, next, _) = feed(&mut late, rest);
            assert!(
                engine.store.counted(Counter::Waits) - earlier <= 1,
                "{shown}"
            );
            rest = &rest[consumed..];
            if next != Next::Park {
                break;
            }
            turns += 1;
            assert!(turns < TURNS_MAX, "{shown}: no end");
        }
        assert!(turns >= WAITS, "{shown}: {turns} turns");
        assert_eq!(rest, b"", "{shown}");
        let refused = engine.store.classes_counted(ClassCounter::OutOfMemory) - refused;
        assert!(refused <= 1, "{shown}: {refused} refusals");
        // The next command has a limit of its own.
        assert!(late.idle(), "{shown}");
    }
}

/// A watcher sees the lookup of a command that waits for memory once, not in each of its turns. A command that creates
/// an item has a second one, as in memcached.
#[test]
fn a_parked_command_is_logged_once() {
    for case in cases() {
        let shown = case.request.escape_ascii().to_string();
        let engine = engine_of(MEMORY, Settings::default());
        let mut full = Some(Full::new(&engine, case.text, case.len));
        let mut watcher = Session::new(&engine, Transport::Tcp);
        let (_, _, said) = feed(&mut watcher, b"watch fetchers mutations deletions\r\n");
        assert_eq!(said, b"OK\r\n");
        let mut late = Session::new(&engine, Transport::Tcp).with_parking();
        let mut rest = &case.request[..];
        let mut turns = 0;
        loop {
            let (consumed, next, _) = feed(&mut late, rest);
            rest = &rest[consumed..];
            if next != Next::Park {
                break;
            }
            turns += 1;
            assert!(turns < TURNS_MAX, "{shown}");
            if turns == WAITS {
                full = None;
            }
        }
        assert!(full.is_none(), "{shown}: {turns} turns");
        let mut log = String::new();
        for _ in 0..TURNS_MAX {
            let (_, next, said) = feed(&mut watcher, b"");
            log += &String::from_utf8(said).unwrap();
            if next == Next::Watch {
                break;
            }
        }
        let lookups = log.matches("type=item_get").count();
        assert!(lookups <= 2, "{shown}: {lookups} lookups\n{log}");
    }
}
