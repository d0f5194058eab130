// SPDX-License-Identifier: GPL-2.0-only
//! A connection over a stream that cuts, blocks and breaks at any position sends the same bytes as one session that is
//! fed with all input at once.

mod common;

use std::cell::Cell;
use std::collections::VecDeque;

use common::{engine, play, TestEngine, WHOLE};
use hippos_engine::connection::{
    Action, Answered, Broken, Connection, HeldBytes, NoMemory, Pages, Peek, Stream, ROUNDS,
};
use hippos_engine::{Cursor, EngineCounter, Session, Transport, REPLY_HEADER_MAX};
use hippos_store::host::Host;
use proptest::prelude::*;

/// An event of the stream between two turns.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// This many bytes of input arrive, as one piece; the flag says whether it has to be copied.
    Arrive(usize, bool),
    /// The stream accepts this many more bytes.
    Take(usize),
}

/// A stream whose other end is the test.
struct TestStream {
    /// The pieces that arrived, each with a flag if it has to be copied.
    received: VecDeque<(Vec<u8>, bool)>,
    /// No more bytes will arrive.
    ended: bool,
    sent: Vec<u8>,
    /// Bytes that it accepts before it would block.
    window: usize,
    /// Bytes that it accepts in one call.
    at_once: usize,
    /// The number of sent bytes after which it breaks.
    breaks: usize,
    /// The last bytes may be held back.
    corked: bool,
}

impl TestStream {
    fn waiting(&self) -> usize {
        self.received.iter().map(|(piece, _)| piece.len()).sum()
    }
}

impl Stream for TestStream {
    type Reply<'r> = Cursor<'r>;

    fn peek(&self) -> Peek<'_> {
        match self.received.front() {
            Some((_, true)) => Peek::Scattered,
            Some((piece, false)) => Peek::Bytes(piece),
            None if self.ended || self.sent.len() >= self.breaks => Peek::End,
            None => Peek::Nothing,
        }
    }

    fn copy(&self, to: &mut [u8]) -> usize {
        let bytes = self.received.iter().flat_map(|(piece, _)| piece);
        to.iter_mut()
            .zip(bytes)
            .map(|(to, from)| *to = *from)
            .count()
    }

    fn consume(&mut self, mut len: usize) {
        assert!(len <= self.waiting(), "consumes what has not arrived");
        while len != 0 {
            let (piece, _) = self.received.front_mut().unwrap();
            let part = len.min(piece.len());
            piece.drain(..part);
            len -= part;
            if piece.is_empty() {
                self.received.pop_front();
            }
        }
    }

    fn takes(&self) -> bool {
        self.window != 0
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        if self.sent.len() >= self.breaks {
            return Err(Broken);
        }
        let len = bytes.len().min(self.window).min(self.at_once);
        self.window -= len;
        self.sent.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn reply<'r>(&mut self, reply: Self::Reply<'r>, more: bool) -> Result<&'r [u8], Broken> {
        let bytes = reply.into_bytes();
        if bytes.is_empty() {
            return Ok(&[]);
        }
        let sent = self.send(bytes)?;
        self.corked = more && sent == bytes.len();
        Ok(&bytes[sent..])
    }
}

struct Page(Vec<u8>);

impl Pages<TestStream> for Page {
    fn open(&mut self) -> Option<Cursor<'_>> {
        Some(Cursor::new(&mut self.0))
    }
}

thread_local! {
    /// How often allocations for held bytes still succeed.
    static MEMORY: Cell<usize> = const { Cell::new(usize::MAX) };
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl HeldBytes for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        let left = MEMORY.get().checked_sub(1).ok_or(NoMemory)?;
        MEMORY.set(left);
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn append_atomic(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        self.append(bytes)
    }

    fn discard(&mut self, len: usize) {
        self.0.drain(..len);
    }
}

/// The behaviour of a stream and of its host.
#[derive(Clone, Debug)]
struct Conditions {
    events: Vec<Event>,
    at_once: usize,
    page: usize,
    /// The number of clock readings after which a turn ends.
    readings: usize,
    /// Input is offered to `serve_softirq` first.
    quick: bool,
    breaks: usize,
    memory: usize,
}

/// No limits, and no events.
impl Default for Conditions {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            at_once: usize::MAX,
            page: 32 << 10,
            readings: usize::MAX,
            quick: false,
            breaks: usize::MAX,
            memory: usize::MAX,
        }
    }
}

/// Bytes for assembling commands: a whole line must fit.
const INPUT: usize = 4096;

/// The most turns in a row without an event: this many for each byte to be moved, plus some.
const TURNS: usize = 4;

struct Run<'e> {
    connection: Connection<'e, Host, Bytes, Bytes>,
    stream: TestStream,
    input: Vec<u8>,
    page: Page,
    readings: usize,
    closed: bool,
}

impl<'e> Run<'e> {
    fn new(engine: &'e TestEngine, conditions: &Conditions) -> Self {
        MEMORY.set(conditions.memory);
        Self {
            connection: Connection::new(Session::new(engine, Transport::Tcp)),
            stream: TestStream {
                received: VecDeque::new(),
                ended: false,
                sent: Vec::new(),
                window: 0,
                at_once: conditions.at_once,
                breaks: conditions.breaks,
                corked: false,
            },
            input: vec![0; INPUT],
            page: Page(vec![0; conditions.page]),
            readings: conditions.readings,
            closed: false,
        }
    }

    /// A piece of input arrives and is offered to `serve_softirq`.
    fn arrive(&mut self, piece: &[u8], scattered: bool) -> Answered {
        self.stream.received.push_back((piece.to_vec(), scattered));
        let mut page = vec![0; self.page.0.len()];
        let reply = Cursor::new(&mut page);
        self.connection
            .serve_softirq(&mut self.stream, || Some(reply))
    }

    /// The host's action that the contract requires after an event.
    fn serve(&mut self) {
        let mut turns = 0;
        let bound = TURNS * (self.stream.waiting() + self.stream.window.min(1 << 20)) + 64;
        while !self.closed {
            let asked = Cell::new(0);
            let readings = self.readings;
            let over = || {
                asked.set(asked.get() + 1);
                asked.get() >= readings
            };
            self.stream.corked = false;
            let action =
                self.connection
                    .turn(&mut self.stream, &mut self.input, &mut self.page, over);
            match action {
                Action::Wait => {
                    let stuck = !self.connection.has_unsent() && self.stream.waiting() != 0;
                    assert!(!stuck, "waits beside input that has arrived");
                }
                Action::Again => {}
                Action::Park => panic!("it does not park"),
                Action::Close => self.closed = true,
            }
            assert!(self.closed || !self.stream.corked, "bytes are held back");
            if action == Action::Wait {
                return;
            }
            turns += 1;
            assert!(turns < bound, "{turns} turns of {ROUNDS} rounds");
        }
    }
}

/// The bytes sent in reply to `input`, and whether the connection was closed.
fn converse(engine: &TestEngine, input: &[u8], conditions: &Conditions) -> (Vec<u8>, bool) {
    let mut run = Run::new(engine, conditions);
    let mut rest = input;
    for event in &conditions.events {
        match *event {
            Event::Arrive(len, scattered) => {
                let (piece, after) = rest.split_at(len.min(rest.len()));
                rest = after;
                if piece.is_empty() {
                    continue;
                }
                if !conditions.quick || run.closed {
                    run.stream.received.push_back((piece.to_vec(), scattered));
                } else if run.arrive(piece, scattered) == Answered::All {
                    assert_eq!(run.stream.waiting(), 0);
                    continue;
                }
            }
            Event::Take(len) => run.stream.window += len,
        }
        run.serve();
    }
    // Finally all the rest arrives, and the peer accepts everything.
    if !rest.is_empty() {
        run.stream.received.push_back((rest.to_vec(), false));
    }
    // A stream that accepts little in a call is writable again after each.
    run.stream.window = usize::MAX / 2;
    let mut events = 0;
    loop {
        run.serve();
        if run.closed || !run.connection.has_unsent() {
            break;
        }
        events += 1;
        assert!(events < 1 << 16, "the rest does not go out");
    }
    let closed = run.closed;
    run.stream.ended = true;
    run.serve();
    while !run.closed {
        run.serve();
        events += 1;
        assert!(events < 1 << 16, "does not end");
    }
    (run.stream.sent, closed)
}

/// Bytes that look like a command may be the end of another one.
#[test]
fn quick_leaves_the_end_of_a_command_to_a_turn() {
    let engine = engine();
    let conditions = Conditions {
        page: REPLY_HEADER_MAX,
        quick: true,
        ..Conditions::default()
    };
    let mut run = Run::new(&engine, &conditions);
    run.stream.window = usize::MAX;
    for (piece, quick, sent) in [
        ("get a\r\nx", Answered::Some, "END\r\n"),
        ("get a\r\n", Answered::None, "END\r\nERROR\r\n"),
        ("get a\r\n", Answered::All, "END\r\nERROR\r\nEND\r\n"),
    ] {
        assert_eq!(run.arrive(piece.as_bytes(), false), quick, "{piece}");
        if quick != Answered::All {
            run.serve();
        }
        assert_eq!(
            run.stream.sent.escape_ascii().to_string(),
            sent.as_bytes().escape_ascii().to_string()
        );
    }
}

/// Like memcached's, the counter has the turns that a limit ended before all commands were served: not the turns that
/// receive a value in many pieces, send one, or serve all commands.
#[test]
fn yields_are_turns_that_leave_commands() {
    let engine = engine();
    let conditions = Conditions {
        quick: true,
        ..Conditions::default()
    };
    let counted = || engine.engine_counted(EngineCounter::Yields);
    let mut run = Run::new(&engine, &conditions);
    run.stream.window = usize::MAX;
    let gets = |count| "get a\r\n".repeat(count).into_bytes();
    // In softirq, up to its limit.
    assert_eq!(run.arrive(&gets(64), false), Answered::All);
    assert_eq!(counted(), 0, "all were answered");
    assert_eq!(run.arrive(b"get a\r\nversion\r\n", false), Answered::Some);
    run.serve();
    assert_eq!(counted(), 0, "a command that softirq does not serve");
    assert_eq!(run.arrive(&gets(65), false), Answered::Some);
    assert_eq!(counted(), 1, "softirq's limit");
    run.serve();
    assert_eq!(counted(), 1, "a turn served the last one");
    // On the worker: each piece takes a round.
    let pieces = |run: &mut Run<'_>, bytes: &[u8], len: usize| {
        for piece in bytes.chunks(len) {
            run.stream.received.push_back((piece.to_vec(), false));
        }
        run.serve();
    };
    pieces(&mut run, &gets(ROUNDS), 7);
    assert_eq!(counted(), 1, "{ROUNDS} rounds serve all");
    pieces(&mut run, &gets(2 * ROUNDS + 1), 7);
    assert_eq!(counted(), 3, "two turns left commands to a third");
    let value = "v".repeat(200_000);
    let set = format!("set big 0 0 200000\r\n{value}\r\n");
    pieces(&mut run, set.as_bytes(), 1000);
    assert_eq!(counted(), 3, "a value in pieces");
    pieces(&mut run, b"mg big v\r\n", 100);
    assert_eq!(counted(), 3, "a reply in pieces");
    // The clock ends each turn after a command.
    run.readings = 1;
    pieces(&mut run, &gets(5), 5 * 7);
    assert_eq!(counted(), 7, "the fifth turn left none");
    engine.reset();
    assert_eq!(counted(), 0, "after stats reset");
}

/// A client that takes a large value in small pieces does not time out, though none of them ends a buffer of the reply.
#[test]
fn each_piece_that_a_slow_reader_takes_is_progress() {
    const TIMEOUT: u32 = 10;
    let engine = engine();
    let mut run = Run::new(&engine, &Conditions::default());
    let set = format!(
        "set big 0 0 200000\r\n{}\r\nget big\r\n",
        "v".repeat(200_000)
    );
    run.stream.window = "STORED\r\n".len();
    run.stream.received.push_back((set.into(), false));
    run.serve();
    assert_eq!(run.connection.deadline(0, TIMEOUT), Some(TIMEOUT + 1));
    assert_eq!(run.connection.deadline(5, TIMEOUT), Some(TIMEOUT + 1));
    // 5,000 bytes a second are more than the slowest rate.
    for now in 6..20 {
        run.stream.window += 5000;
        run.serve();
        let deadline = run.connection.deadline(now, TIMEOUT);
        assert!(deadline > Some(now), "{now}: {deadline:?}");
        assert!(deadline > Some(TIMEOUT + 1), "{now}: {deadline:?}");
    }
    run.stream.window = usize::MAX;
    run.serve();
    assert_eq!(run.connection.deadline(20, TIMEOUT), None);
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let key = "[abc]";
    let set = |verb: &'static str| {
        (key, 0usize..6000).prop_map(move |(key, len)| {
            let value: Vec<u8> = (0..len).map(|i| b'0' + (i % 61) as u8).collect();
            [
                format!("{verb} {key} 0 0 {len}\r\n").as_bytes(),
                &value,
                b"\r\n",
            ]
            .concat()
        })
    };
    let line = prop_oneof![
        6 => "get [abc]\r\n",
        3 => "gets [abc] [abc] [abc]\r\n",
        2 => "mg [abc] v k c s\r\n",
        2 => "(delete [abc] noreply|mg d v q|md [abc] q)\r\n",
        2 => "(mn|version|delete [abc]|incr [abc] 1|get|\r|nonsense)\r\n",
        1 => "stats settings\r\n",
        1 => "x{2000,2200}\r\n",
    ];
    prop_oneof![
        2 => set("set"),
        1 => set("append"),
        6 => line.prop_map(String::into_bytes),
    ]
}

/// Commands; sometimes one that ends the connection, and an incomplete last one.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let commands =
        |most| proptest::collection::vec(command(), 0..most).prop_map(|commands| commands.concat());
    (
        commands(20),
        proptest::option::weighted(0.2, commands(4)),
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(mut input, after, cut, whole)| {
            if let Some(after) = after {
                input.extend_from_slice(b"quit\r\n");
                input.extend_from_slice(&after);
            }
            if !whole {
                input.truncate(cut.index(input.len() + 1));
            }
            input
        })
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let len = || prop_oneof![1usize..4, 1usize..200, 1usize..9000];
    let event = prop_oneof![
        (len(), any::<bool>()).prop_map(|(len, scattered)| Event::Arrive(len, scattered)),
        len().prop_map(Event::Take),
    ];
    (
        proptest::collection::vec(event, 0..60),
        prop_oneof![Just(usize::MAX), 1usize..3000],
        REPLY_HEADER_MAX..5000usize,
        prop_oneof![Just(usize::MAX), 1usize..8],
        any::<bool>(),
    )
        .prop_map(|(events, at_once, page, readings, quick)| Conditions {
            events,
            at_once,
            page,
            readings,
            quick,
            ..Conditions::default()
        })
}

proptest! {
    #[test]
    fn connection_sends_what_one_session_sends(
        input in conversation(),
        conditions in conditions(),
    ) {
        let want = play(&engine(), &input, WHOLE);
        let (sent, closed) = converse(&engine(), &input, &conditions);
        prop_assert_eq!(sent.escape_ascii().to_string(), want.output.escape_ascii().to_string());
        prop_assert_eq!(closed, want.closed);
    }

    #[test]
    fn broken_stream_or_want_of_memory_ends_a_connection_behind_a_prefix(
        input in conversation(),
        conditions in conditions(),
        breaks in 0usize..20_000,
        memory in prop_oneof![Just(usize::MAX), 0usize..20],
    ) {
        let want = play(&engine(), &input, WHOLE);
        let conditions = Conditions { breaks, memory, ..conditions };
        let (sent, _) = converse(&engine(), &input, &conditions);
        prop_assert!(want.output.starts_with(&sent));
    }
}
