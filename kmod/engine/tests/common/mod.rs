// SPDX-License-Identifier: GPL-2.0-only
//! An engine to test, and ways to send it requests (`testing/fuzz` uses it too).
#![allow(dead_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;

use hippos_engine::{
    DatagramRequest, Engine, Message, Next, Out, Pass, Plan, PlanOutcome, Session, Settings,
    Transport, ENGINE_COUNTERS, REPLY_HEADER_MAX,
};
use hippos_store::host::Host;
use hippos_store::{Config, Store};

/// An engine whose store is verified at the end of the test.
pub(crate) struct TestEngine(Engine<Host>);

impl Deref for TestEngine {
    type Target = Engine<Host>;
    fn deref(&self) -> &Engine<Host> {
        &self.0
    }
}

impl Drop for TestEngine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let census = self.store.verify().expect("a sound store");
        let lost = (census.reserved, census.pinned);
        assert_eq!(lost, (0, 0), "reserved and pinned after all sessions");
    }
}

/// The Unix time at which tests begin.
pub(crate) const START: i64 = 1_700_000_000;

/// An engine of 64 MiB that overwrites freed memory, so that late readers are detected.
pub(crate) fn engine() -> TestEngine {
    engine_with(Settings::default())
}

pub(crate) fn engine_with(settings: Settings) -> TestEngine {
    engine_of(Config::default().memory, settings)
}

/// An engine with a memory limit.
pub(crate) fn engine_of(memory: usize, settings: Settings) -> TestEngine {
    let config = Config {
        memory,
        ..Config::default()
    };
    engine_from(config, settings)
}

/// An engine whose store has this configuration.
pub(crate) fn engine_from(config: Config, settings: Settings) -> TestEngine {
    let config = Config {
        seed: [1, 2, 3, 4],
        tallies: ENGINE_COUNTERS,
        ..config
    };
    let store = Store::new(config, Host::new().poison()).expect("a store");
    store.tick(100, START + 100);
    TestEngine(Engine::new(store, settings, &()))
}

/// A sink that holds only a limited number of reply bytes until they are sent.
pub(crate) struct Small {
    pub(crate) waiting: Vec<u8>,
    pub(crate) most: usize,
}

impl Small {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            waiting: Vec::new(),
            most,
        }
    }
}

impl Out for Small {
    fn room(&self) -> usize {
        self.most - self.waiting.len()
    }

    fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "more than there is room for");
        self.waiting.extend_from_slice(bytes);
    }
}

impl Message for Small {
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// A sink that has its free space in memory.
pub(crate) struct InPlaceOut {
    bytes: Vec<u8>,
    len: usize,
}

impl InPlaceOut {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            bytes: vec![0; room],
            len: 0,
        }
    }

    pub(crate) fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Out for InPlaceOut {
    fn room(&self) -> usize {
        self.bytes.len() - self.len
    }

    fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.len..]
    }

    fn advance(&mut self, n: usize) {
        assert!(n <= self.room(), "more than there is room for");
        self.len += n;
    }
}

/// The bytes that a client received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) output: Vec<u8>,
    pub(crate) closed: bool,
}

/// A client of a session.
pub(crate) struct Client<'e> {
    session: Session<'e, Host>,
    unread: Vec<u8>,
    out: Small,
    pub(crate) seen: Seen,
}

impl<'e> Client<'e> {
    pub(crate) fn new(engine: &'e TestEngine, room: usize) -> Self {
        Self {
            session: Session::new(engine, Transport::Tcp),
            unread: Vec::new(),
            out: Small::new(room),
            seen: Seen {
                output: Vec::new(),
                closed: false,
            },
        }
    }

    /// Sends `input` in one piece, and reads the replies as they arrive.
    pub(crate) fn send(&mut self, input: &[u8]) {
        if self.seen.closed {
            return;
        }
        self.unread.extend_from_slice(input);
        loop {
            let fed = self.session.feed(&self.unread, &mut self.out);
            self.unread.drain(..fed.consumed);
            let stuck = self.out.waiting.is_empty() && fed.consumed == 0;
            assert!(
                fed.next != Next::Write || !stuck,
                "wants room and has it all"
            );
            self.seen.output.append(&mut self.out.waiting);
            match fed.next {
                Next::Read => break,
                Next::Write => {}
                Next::Park | Next::Watch => unreachable!("it does not park"),
                Next::Close => {
                    self.seen.closed = true;
                    return;
                }
            }
        }
        assert!(self.unread.len() <= 2049, "{} unread", self.unread.len());
    }
}

/// How input and output are cut into pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Bytes of one piece of input.
    pub(crate) piece: usize,
    /// Bytes of replies that are held at a time.
    pub(crate) room: usize,
}

pub(crate) const WHOLE: Cut = Cut {
    piece: usize::MAX,
    room: 1 << 16,
};
pub(crate) const BYTEWISE: Cut = Cut {
    piece: 1,
    room: REPLY_HEADER_MAX,
};

pub(crate) fn play(engine: &TestEngine, input: &[u8], cut: Cut) -> Seen {
    let mut client = Client::new(engine, cut.room);
    for piece in input.chunks(cut.piece.min(input.len().max(1))) {
        client.send(piece);
    }
    client.seen
}

/// A text client's replies, as text.
pub(crate) fn say(engine: &TestEngine, input: &str) -> String {
    let seen = play(engine, input.as_bytes(), WHOLE);
    let mut text = String::from_utf8(seen.output).expect("text");
    if seen.closed {
        text.push_str("<closed>");
    }
    text
}

/// A datagram's payload: a frame and `data`.
pub(crate) fn framed(data: &[u8]) -> Vec<u8> {
    [b"\x12\x34\0\0\0\x01\0\0", data].concat()
}

/// A datagram, answered as in softirq: the reply overwrites the request.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) payload: Vec<u8>,
    pub(crate) source: IpAddr,
    pub(crate) local: bool,
    pub(crate) limit: usize,
    /// Whether there is memory for a reply.
    pub(crate) memory: bool,
}

impl Packet {
    /// A packet from this host.
    pub(crate) fn new(payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            source: Ipv4Addr::LOCALHOST.into(),
            local: true,
            limit: usize::MAX,
            memory: true,
        }
    }
}

/// The result for a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// `Invalid` for a packet that was discarded.
    pub(crate) verdict: PlanOutcome,
    pub(crate) datagrams: Vec<Vec<u8>>,
    /// Bytes requested for each reply.
    pub(crate) asked: usize,
}

impl Verdict {
    fn without_reply(verdict: PlanOutcome) -> Self {
        Self {
            verdict,
            datagrams: Vec::new(),
            asked: 0,
        }
    }
}

impl DatagramRequest for Packet {
    type Verdict = Verdict;

    fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn source(&self) -> IpAddr {
        self.source
    }

    fn source_ipv4(&self) -> u32 {
        match self.source {
            IpAddr::V4(source) => source.to_bits(),
            IpAddr::V6(_) => 0,
        }
    }

    fn is_local(&self) -> bool {
        self.local
    }

    fn cpu(&self) -> usize {
        0
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn pass(self, _: Pass) -> Verdict {
        Verdict::without_reply(PlanOutcome::Pass)
    }

    fn discard(self) -> Verdict {
        Verdict::without_reply(PlanOutcome::Invalid)
    }

    fn consume(self) -> Verdict {
        Verdict::without_reply(PlanOutcome::Silent)
    }

    fn reply(self, len: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Verdict {
        let mut write = Some(write);
        self.reply_many(1, len, |_, buffer| {
            write.take().map_or(0, |write| write(buffer))
        })
    }

    fn reply_many(
        mut self,
        count: u16,
        len: usize,
        mut write: impl FnMut(u16, &mut [u8]) -> usize,
    ) -> Verdict {
        if !self.memory {
            return Verdict::without_reply(PlanOutcome::Pass);
        }
        self.payload.resize(len, 0xaa);
        let mut datagrams = Vec::new();
        for index in (0..count).rev() {
            let used = write(index, &mut self.payload);
            datagrams.insert(0, self.payload[..used].to_vec());
        }
        Verdict {
            verdict: PlanOutcome::Answer,
            datagrams,
            asked: len,
        }
    }
}

/// The result for a datagram from this host where it arrives, and the datagrams of the reply.
pub(crate) fn fast(engine: &TestEngine, payload: &[u8]) -> (PlanOutcome, Vec<Vec<u8>>) {
    let answered = engine.answer(&engine.store.read(), Packet::new(payload));
    (answered.verdict, answered.datagrams)
}

/// The same by a plan, for any request.
pub(crate) fn planned(engine: &TestEngine, payload: &[u8]) -> (PlanOutcome, Vec<Vec<u8>>) {
    let guard = engine.store.read();
    Plan::with(|plan| {
        // The reply overwrites the request, as in a packet.
        let mut packet = payload.to_vec();
        let verdict = engine.plan(&guard, &packet, usize::MAX, plan);
        let mut datagrams = Vec::new();
        packet.resize(2048, 0xaa);
        if matches!(verdict, PlanOutcome::Answer | PlanOutcome::Silent) {
            engine.count_plan(plan);
        }
        if verdict == PlanOutcome::Answer {
            for index in 0..plan.datagrams() {
                let len = plan.write(index, &mut packet);
                assert_eq!(len, plan.datagram_len(index));
                datagrams.push(packet[..len].to_vec());
            }
        }
        (verdict, datagrams)
    })
}

/// The datagrams of the worker's reply.
pub(crate) fn slow(engine: &TestEngine, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut message = Small::new(engine.udp_bytes() + REPLY_HEADER_MAX);
    let Some(reply) = engine.datagram(payload, &mut message) else {
        return Vec::new();
    };
    (0..reply.datagrams())
        .map(|index| {
            let (frame, part) = reply.datagram(index, &message.waiting);
            [&frame, part].concat()
        })
        .collect()
}

/// The message that the datagrams form. Their frames are checked.
pub(crate) fn message(datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = Vec::new();
    for (sequence, datagram) in datagrams.iter().enumerate() {
        let (frame, data) = datagram.split_at(8);
        assert_eq!(&frame[..2], b"\x12\x34", "id");
        let field = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]) as usize;
        assert_eq!(
            (field(2), field(4), field(6)),
            (sequence, datagrams.len(), 0)
        );
        let last = sequence + 1 == datagrams.len();
        assert!(data.len() == 1392 || last && !data.is_empty() && data.len() < 1392);
        whole.extend_from_slice(data);
    }
    whole
}
