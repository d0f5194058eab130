// SPDX-License-Identifier: GPL-2.0-only
//! Values that are being received: their share of memory, and sessions that wait for memory.

mod common;

use common::{engine, say, InPlaceOut, TestEngine};
use hippos_engine::{EngineCounter, Next, Session, Transport};
use hippos_store::host::Host;

const LEN: usize = 1_000_000;

type Parked<'e> = Session<'e, Host>;

fn session(engine: &TestEngine) -> Parked<'_> {
    Session::new(engine, Transport::Tcp).with_parking()
}

fn feed(session: &mut Parked<'_>, input: &[u8]) -> (usize, Next, String) {
    let mut out = InPlaceOut::new(4096);
    let fed = session.feed(input, &mut out);
    let written = String::from_utf8(out.written().to_vec()).unwrap();
    (fed.consumed, fed.next, written)
}

/// Announces values of `LEN` bytes by `count` clients, and returns those that may send.
fn announce(engine: &TestEngine, count: usize) -> Vec<Parked<'_>> {
    let all = (0..count).map(|i| {
        let mut session = session(engine);
        let line = format!("set big{i} 0 0 {LEN}\r\n");
        let (consumed, next, _) = feed(&mut session, line.as_bytes());
        assert!(matches!(
            (consumed == line.len(), next),
            (true, Next::Read) | (false, Next::Park)
        ));
        (session, next == Next::Read)
    });
    all.filter_map(|(session, may)| may.then_some(session))
        .collect()
}

/// Any number of clients announce values and send no data: other clients can still store.
#[test]
fn unfinished_uploads_are_bounded() {
    let engine = engine();
    let held = announce(&engine, 70);
    assert_eq!(held.len(), 32, "half of 64 MiB");
    let value = "v".repeat(5000);
    for i in 0..400 {
        let stored = say(&engine, &format!("set key{i} 0 0 5000\r\n{value}\r\n"));
        assert_eq!(stored, "STORED\r\n", "{i}");
    }
    // A smaller value that arrives in pieces.
    let mut small = session(&engine);
    assert_eq!(feed(&mut small, b"set s 0 0 9000\r\n").1, Next::Read);
}

/// In each protocol: a waiting session continues as if the command had arrived then, and is counted once.
#[test]
fn parked_session_resumes_when_memory_is_free() {
    let mut binary = vec![0x80, 1, 0, 3, 8, 0, 0, 0];
    binary.extend((8 + 3 + LEN as u32).to_be_bytes());
    binary.extend([0; 12 + 8]);
    binary.extend(b"key");
    for (line, end, stored) in [
        (
            format!("set key 0 0 {LEN}\r\n").into_bytes(),
            "\r\n",
            &b"STORED\r\n"[..],
        ),
        (format!("ms key {LEN} c\r\n").into_bytes(), "\r\n", b"HD c"),
        (binary, "", &[0x81]),
    ] {
        let engine = engine();
        let mut held = announce(&engine, 70);
        let before = engine.store.tallied(EngineCounter::TcpCommands as usize);
        let mut late = session(&engine);
        for _ in 0..20 {
            let (consumed, next, said) = feed(&mut late, &line);
            assert_eq!((consumed, next, &said[..]), (0, Next::Park, ""));
        }
        held.truncate(10);
        let (consumed, next, _) = feed(&mut late, &line);
        assert_eq!((consumed, next), (line.len(), Next::Read));
        assert_eq!(late.transfer().map(|(_, come)| come), Some(0));
        // The binary reply is not text.
        let mut out = InPlaceOut::new(4096);
        late.feed(&vec![b'x'; LEN], &mut out);
        late.feed(end.as_bytes(), &mut out);
        assert!(out.written().starts_with(stored), "{:?}", out.written());
        assert_eq!(
            engine.store.tallied(EngineCounter::TcpCommands as usize),
            before + 1
        );
        assert_eq!(late.transfer(), None);
    }
}

/// Each command has its own limit, however the one before it ended its wait.
#[test]
fn waits_of_commands_that_were_served_do_not_add_up() {
    const LINE: &str = "set key 0 0 10\r\n";
    let engine = engine();
    let whole = format!("{LINE}0123456789\r\n");
    // Now there is memory for values of this size.
    assert_eq!(say(&engine, &whole), "STORED\r\n");
    let _large = announce(&engine, 70);
    // Small values may have three quarters of the memory, and wait then.
    let mut small = Vec::new();
    for len in [16_000, 1000, 100, 10] {
        loop {
            let mut session = session(&engine);
            let line = format!("set small{} 0 0 {len}\r\n", small.len());
            if feed(&mut session, line.as_bytes()).1 == Next::Park {
                break;
            }
            small.push(session);
        }
    }
    let mut session = session(&engine);
    for i in 0..600 {
        let waiting = (0, Next::Park, String::new());
        assert_eq!(feed(&mut session, LINE.as_bytes()), waiting, "{i}");
        let stored = (whole.len(), Next::Read, "STORED\r\n".into());
        assert_eq!(feed(&mut session, whole.as_bytes()), stored, "{i}");
    }
}

/// The wait ends with an error, after which the connection continues.
#[test]
fn parked_session_is_refused_after_its_limit() {
    let engine = engine();
    let _held = announce(&engine, 70);
    let mut late = session(&engine);
    let line = format!("set key 0 0 {LEN}\r\n");
    let mut waits = 0;
    while feed(&mut late, line.as_bytes()).1 == Next::Park {
        waits += 1;
        assert!(waits < 1000, "no end");
    }
    assert!(waits > 100, "{waits}");
    let (_, next, said) = feed(
        &mut late,
        &[&vec![b'x'; LEN][..], b"\r\nversion\r\n"].concat(),
    );
    assert_eq!(next, Next::Read);
    let want = "SERVER_ERROR out of memory storing object\r\nVERSION 1.6.38\r\n";
    assert_eq!(said, want);
}

/// A session that does not wait is refused at once.
#[test]
fn a_session_that_does_not_park_is_refused() {
    let engine = engine();
    let _held = announce(&engine, 70);
    let mut other = Session::new(&engine, Transport::Tcp);
    let line = format!("set key 0 0 {LEN}\r\n");
    let (consumed, next, _) = feed(&mut other, line.as_bytes());
    assert_eq!((consumed, next), (line.len(), Next::Read));
    assert_eq!(other.transfer(), None);
}

/// A client that reads nothing of a large value's reply, of which `written` is the part that it could take at once.
fn read_slowly<'e>(engine: &'e TestEngine, key: &str) -> (Parked<'e>, String) {
    let mut session = session(engine);
    let (_, _, written) = feed(&mut session, format!("get {key}\r\n").as_bytes());
    (session, written)
}

/// Any number of clients begin to read large values, which are then deleted: other clients can still store, and a hot
/// value has any number of readers.
#[test]
fn values_held_by_slow_readers_are_bounded() {
    const REFUSED: &str = "SERVER_ERROR out of memory writing get response\r\n";
    let engine = engine();
    let large = "v".repeat(LEN);
    let mut readers = Vec::new();
    for i in 0..70 {
        let set = format!("set big{i} 0 0 {LEN}\r\n{large}\r\n");
        assert_eq!(say(&engine, &set), "STORED\r\n", "{i}");
        let (session, written) = read_slowly(&engine, &format!("big{i}"));
        assert_eq!(written == REFUSED, !session.is_sending(), "{written}");
        readers.extend(session.is_sending().then_some(session));
        let (again, _) = read_slowly(&engine, "big0");
        assert!(again.is_sending(), "a value that is held already");
        assert_eq!(
            say(&engine, &format!("delete big{}\r\n", i.max(1))),
            if i == 0 {
                "NOT_FOUND\r\n"
            } else {
                "DELETED\r\n"
            }
        );
    }
    assert_eq!(readers.len(), 32, "half of 64 MiB");
    assert_eq!(engine.engine_counted(EngineCounter::ReadsRefused), 38);
    // A value that would fit into an empty buffer is never refused.
    say(
        &engine,
        &format!("set small 0 0 20000\r\n{}\r\n", &large[..20_000]),
    );
    let (small, _) = read_slowly(&engine, "small");
    assert!(small.is_sending());
    drop(small);
    let value = "v".repeat(5000);
    for i in 0..400 {
        let stored = say(&engine, &format!("set key{i} 0 0 5000\r\n{value}\r\n"));
        assert_eq!(stored, "STORED\r\n", "{i}");
    }
    assert!(engine.store.pinned_bytes() > 31 * LEN);
    readers.clear();
    assert_eq!(engine.store.pinned_bytes(), 0);
    let (session, _) = read_slowly(&engine, "big0");
    assert!(session.is_sending());
}

/// Each piece that a slow reader takes is progress of its transfer.
#[test]
fn a_value_that_is_sent_in_pieces_is_a_transfer() {
    let engine = engine();
    let large = "v".repeat(20_000);
    say(&engine, &format!("set big 0 0 20000\r\n{large}\r\n"));
    let (mut session, _) = read_slowly(&engine, "big");
    let mut moved = Vec::new();
    while let Some((number, bytes)) = session.transfer() {
        moved.push((number, bytes));
        feed(&mut session, b"");
    }
    assert!(moved.len() > 3, "{moved:?}");
    assert!(
        moved
            .windows(2)
            .all(|two| two[0].0 == two[1].0 && two[0].1 < two[1].1),
        "{moved:?}"
    );
}
