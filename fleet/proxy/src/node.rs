// SPDX-License-Identifier: MIT

//! A worker's sockets to one node: two TCP pipelines (text and binary) and the
//! lanes of datagrams.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use hippos_proto::udp::{Frame, DATA_MAX, FRAME};
use rustix::event::epoll;
use socket2::{Domain, Protocol, Socket, Type};

use crate::batch::{is_due, Batch, Ids};
use crate::client::{Answer, Stream, Waiter};
use crate::config;
use crate::framing::{self, frame, Expect, Framed};
use crate::metrics::Counters;

/// Lanes of datagrams to a node: as many source ports, so that the node's
/// network card spreads them over its queues.
pub(crate) const LANES: usize = 4;

/// The most bytes that wait to be sent to a node over one connection, and the
/// most requests that wait for its answers.
const OUTPUT_MAX: usize = 1 << 20;
const PENDING_MAX: usize = 16 << 10;

/// The most datagrams of a reply.
const DATAGRAMS_MAX: u16 = 64;

/// The largest reply of a node that is no list of values.
const LISTING_MAX: usize = 4 << 20;

/// What an answer is handed to.
pub(crate) trait Deliver {
    fn deliver(&mut self, waiter: Waiter, answer: Answer<'_>);
}

/// What sockets are registered with.
pub(crate) struct Context<'a> {
    pub(crate) epoll: BorrowedFd<'a>,
    pub(crate) index: usize,
    pub(crate) now: u64,
    pub(crate) config: &'a config::Config,
    pub(crate) counters: &'a Arc<Counters>,
    pub(crate) scratch: &'a mut [u8],
}

/// What an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Wake,
    Listener,
    Local,
    Udp,
    Client(u32),
    Text(u32),
    Binary(u32),
    Lane(u32, u8),
}

impl Token {
    pub(crate) fn pack(self) -> epoll::EventData {
        let (kind, low, lane) = match self {
            Token::Wake => (0, 0, 0),
            Token::Listener => (1, 0, 0),
            Token::Local => (2, 0, 0),
            Token::Udp => (3, 0, 0),
            Token::Client(index) => (4, index, 0),
            Token::Text(index) => (5, index, 0),
            Token::Binary(index) => (6, index, 0),
            Token::Lane(index, lane) => (7, index, lane),
        };
        epoll::EventData::new_u64(kind << 56 | u64::from(lane) << 32 | u64::from(low))
    }

    pub(crate) fn unpack(data: epoll::EventData) -> Self {
        let data = data.u64();
        let low = data as u32;
        match data >> 56 {
            0 => Token::Wake,
            1 => Token::Listener,
            2 => Token::Local,
            3 => Token::Udp,
            4 => Token::Client(low),
            5 => Token::Text(low),
            6 => Token::Binary(low),
            _ => Token::Lane(low, (data >> 32) as u8),
        }
    }
}

/// Edge-triggered: each socket is registered once.
pub(crate) fn events() -> epoll::EventFlags {
    epoll::EventFlags::IN
        | epoll::EventFlags::OUT
        | epoll::EventFlags::RDHUP
        | epoll::EventFlags::ET
}

/// The node is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Down;

/// What is waited for on a connection.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Nobody waits for the answer to a probe.
    pub(crate) waiter: Option<Waiter>,
    pub(crate) expect: Expect,
    pub(crate) fence: bool,
    /// The hash of the key whose value it must be.
    pub(crate) value_of: Option<u32>,
    since: u64,
}

impl Pending {
    pub(crate) fn new(waiter: Waiter, expect: Expect, fence: bool) -> Self {
        Self {
            waiter: Some(waiter),
            expect,
            fence,
            value_of: None,
            since: 0,
        }
    }
}

/// A TCP pipeline.
#[derive(Debug, Default)]
struct Connection {
    stream: Option<Stream>,
    connecting: bool,
    readable: bool,
    writable: bool,
    output: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    pending: VecDeque<Pending>,
}

/// A socket for datagrams.
#[derive(Debug)]
struct Lane {
    socket: UdpSocket,
    ids: Ids<UnderWay>,
    /// Numbers in the order of their sending.
    order: VecDeque<(u16, u64)>,
}

#[derive(Debug)]
struct UnderWay {
    batch: Batch<Waiter>,
    since: u64,
    /// The datagrams of a reply of several.
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
}

/// A node, as one worker sees it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) spec: config::Node,
    text: Connection,
    binary: Connection,
    lanes: Vec<Option<Lane>>,
    turn: usize,
    /// Batches being collected, of `get` and of `gets`.
    open: [Option<Batch<Waiter>>; 2],
    /// Hashes of keys with values too large for a datagram.
    large: Vec<u32>,
    /// The mean size of a value's bytes.
    mean: usize,
    failures: u32,
    /// The node is out and is probed at this time.
    probe_at: Option<u64>,
    /// Not in the configuration any more.
    pub(crate) retired: bool,
}

impl Node {
    pub(crate) fn new(spec: config::Node) -> Self {
        Self {
            spec,
            text: Connection::default(),
            binary: Connection::default(),
            lanes: Vec::new(),
            turn: 0,
            open: [None, None],
            large: Vec::new(),
            mean: 64,
            failures: 0,
            probe_at: None,
            retired: false,
        }
    }

    /// Whether the node is in use.
    pub(crate) fn is_in(&self) -> bool {
        self.probe_at.is_none()
    }

    /// Whether so much is under way that no further command should be sent.
    pub(crate) fn is_busy(&self, binary: bool) -> bool {
        let connection = if binary { &self.binary } else { &self.text };
        let waiting = connection.output.len() - connection.sent;
        connection.pending.len() >= PENDING_MAX || waiting >= OUTPUT_MAX
    }

    /// Whether nothing is under way.
    pub(crate) fn idle(&self) -> bool {
        self.text.pending.is_empty()
            && self.binary.pending.is_empty()
            && self.open.iter().all(Option::is_none)
            && self.under_way() == 0
    }

    /// Closes everything.
    pub(crate) fn close(&mut self, to: &mut impl Deliver) {
        self.text.fail(to);
        self.binary.fail(to);
        self.lanes.clear();
    }

    fn under_way(&self) -> usize {
        let lanes = self.lanes.iter().flatten();
        lanes.map(|lane| lane.ids.under_way()).sum()
    }

    /// Whether a value of the key with `hash` is known to pass a datagram.
    pub(crate) fn is_large(&self, hash: u32) -> bool {
        !self.large.is_empty() && self.large[hash as usize % self.large.len()] == hash
    }

    fn note_large(&mut self, hash: u32) {
        if self.large.is_empty() {
            self.large = vec![0; 4096];
        }
        let len = self.large.len();
        self.large[hash as usize % len] = hash;
    }

    fn failed(&mut self, context: &Context<'_>) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= context.config.failures {
            if self.probe_at.is_none() {
                context.counters.ejections.add(1);
            }
            self.probe_at = Some(context.now + context.config.retry);
        }
    }

    fn answered(&mut self) {
        self.failures = 0;
        self.probe_at = None;
    }

    /// Sends a request over TCP. The bytes of `parts` go one after the other.
    pub(crate) fn request(
        &mut self,
        context: &Context<'_>,
        binary: bool,
        parts: &[&[u8]],
        pending: Pending,
    ) -> Result<(), Down> {
        if !self.is_in() {
            return Err(Down);
        }
        self.push(context, binary, parts, pending)
    }

    fn push(
        &mut self,
        context: &Context<'_>,
        binary: bool,
        parts: &[&[u8]],
        mut pending: Pending,
    ) -> Result<(), Down> {
        let connection = if binary {
            &mut self.binary
        } else {
            &mut self.text
        };
        if connection.stream.is_none() {
            let index = context.index as u32;
            let token = if binary {
                Token::Binary(index)
            } else {
                Token::Text(index)
            };
            if connection.connect(context, &self.spec, token).is_err() {
                self.failed(context);
                return Err(Down);
            }
        }
        for part in parts {
            connection.output.extend_from_slice(part);
        }
        if pending.fence {
            let fence = if binary {
                &framing::BINARY_FENCE
            } else {
                framing::FENCE
            };
            connection.output.extend_from_slice(fence);
        }
        pending.since = context.now;
        connection.pending.push_back(pending);
        Ok(())
    }

    /// Asks for one key's value over TCP.
    pub(crate) fn get(
        &mut self,
        context: &Context<'_>,
        command: &[u8],
        key: &[u8],
        hash: u32,
        waiter: Waiter,
    ) -> Result<(), Down> {
        let mut pending = Pending::new(waiter, Expect::Values, false);
        pending.value_of = Some(hash);
        self.request(context, false, &[command, key, b"\r\n"], pending)
    }

    /// Puts a key into the next datagram.
    pub(crate) fn queue(
        &mut self,
        context: &mut Context<'_>,
        cas: bool,
        key: &[u8],
        hash: u32,
        waiter: Waiter,
        to: &mut impl Deliver,
    ) {
        let place = usize::from(cas);
        let now = context.now;
        let mean = self.mean;
        let batch = self.open[place].get_or_insert_with(|| Batch::new(cas, now));
        let before = batch.len();
        if let Err(waiter) = batch.push(key, hash, mean, waiter) {
            self.flush(context, place, to);
            let batch = self.open[place].insert(Batch::new(cas, now));
            if batch.push(key, hash, mean, waiter).is_err() {
                to.deliver(waiter, Answer::Unavailable);
            }
        } else if batch.len() == before {
            context.counters.collapsed_keys.add(1);
        }
        if self.open[place].as_ref().is_some_and(Batch::is_full) {
            self.flush(context, place, to);
        }
    }

    /// Sends the batches that are due; tells when the next one is.
    pub(crate) fn flush_due(
        &mut self,
        context: &mut Context<'_>,
        to: &mut impl Deliver,
    ) -> Option<u64> {
        let mut next = None;
        for place in 0..2 {
            let Some(batch) = &self.open[place] else {
                continue;
            };
            let window = context.config.window;
            let since = batch.since;
            if window == 0 || is_due(context.now, since, window, self.under_way()) {
                self.flush(context, place, to);
            } else {
                let at = since + window;
                next = Some(next.map_or(at, |next: u64| next.min(at)));
            }
        }
        next
    }

    fn flush(&mut self, context: &mut Context<'_>, place: usize, to: &mut impl Deliver) {
        let Some(mut batch) = self.open[place].take() else {
            return;
        };
        let (now, turn) = (context.now, self.turn % LANES);
        self.turn = self.turn.wrapping_add(1);
        if let Some(lane) = self.lane(context, turn, to) {
            if let Some(id) = lane.ids.take() {
                if lane.socket.send(batch.seal(id)).is_ok() {
                    context.counters.batches.add(1);
                    context.counters.batched_keys.add(batch.len() as u64);
                    let under_way = UnderWay {
                        batch,
                        since: now,
                        parts: Vec::new(),
                        missing: 0,
                    };
                    lane.ids.put(id, under_way);
                    lane.order.push_back((id, now));
                    return;
                }
            }
        }
        self.retry(context, batch, place == 1, false, to);
    }

    /// The lane, with a socket.
    fn lane(
        &mut self,
        context: &Context<'_>,
        turn: usize,
        _to: &mut impl Deliver,
    ) -> Option<&mut Lane> {
        if self.lanes.is_empty() {
            self.lanes = (0..LANES).map(|_| None).collect();
        }
        let worn = |lane: &Lane| lane.ids.is_worn() && lane.ids.under_way() == 0;
        // Its port is given up: what comes late finds nobody.
        if self.lanes[turn].as_ref().is_some_and(worn) {
            self.lanes[turn] = None;
        }
        if self.lanes[turn].is_none() {
            let token = Token::Lane(context.index as u32, turn as u8);
            self.lanes[turn] = Lane::new(context, &self.spec, token).ok();
        }
        let lane = self.lanes[turn].as_mut()?;
        (!lane.ids.is_worn()).then_some(lane)
    }

    /// Asks for the keys of a batch again, over TCP.
    fn retry(
        &mut self,
        context: &Context<'_>,
        mut batch: Batch<Waiter>,
        cas: bool,
        large: bool,
        to: &mut impl Deliver,
    ) {
        let command: &[u8] = if cas { b"gets " } else { b"get " };
        let waiters: Vec<_> = batch.waiters().collect();
        for (index, waiter) in waiters {
            let (key, hash) = batch.key(index);
            if large {
                self.note_large(hash);
            }
            context.counters.udp_retries.add(1);
            if self.get(context, command, key, hash, waiter).is_err() {
                context.counters.node_errors.add(1);
                to.deliver(waiter, Answer::Unavailable);
            }
        }
    }

    /// A lane's socket has something.
    pub(crate) fn receive(&mut self, context: &mut Context<'_>, lane: u8, to: &mut impl Deliver) {
        let place = usize::from(lane);
        loop {
            let Some(Some(lane)) = self.lanes.get_mut(place) else {
                return;
            };
            let len = match lane.socket.recv(context.scratch) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // The node's host says that nobody is there: time tells.
                Err(_) => continue,
            };
            let datagram = &context.scratch[..len];
            let Some((id, done)) = lane.take(datagram) else {
                context.counters.udp_late.add(1);
                continue;
            };
            let Some(reply) = done else { continue };
            let Some(under_way) = lane.ids.done(id) else {
                continue;
            };
            self.answered();
            let UnderWay {
                mut batch, parts, ..
            } = under_way;
            let whole;
            let reply = match reply {
                Complete::Single => &datagram[FRAME..],
                Complete::Several => {
                    whole = parts.into_iter().flatten().flatten().collect::<Vec<u8>>();
                    &whole[..]
                }
            };
            match batch.values(reply) {
                Some(values) => {
                    for (index, value) in values.iter().enumerate() {
                        let Some(value) = value else { continue };
                        self.mean = (self.mean * 15 + value.len()).div_ceil(16);
                        if value.len() > DATA_MAX {
                            let (_, hash) = batch.key(index);
                            self.note_large(hash);
                        }
                    }
                    for (index, waiter) in batch.waiters() {
                        to.deliver(waiter, Answer::Reply(values[index].unwrap_or(b"")));
                    }
                }
                None => {
                    let large = reply.starts_with(b"SERVER_ERROR");
                    let cas = batch.seal(0)[FRAME..].starts_with(b"gets");
                    self.retry(context, batch, cas, large, to);
                }
            }
        }
    }

    /// A connection has something, or takes something.
    pub(crate) fn ready(
        &mut self,
        context: &mut Context<'_>,
        binary: bool,
        flags: epoll::EventFlags,
        to: &mut impl Deliver,
    ) {
        let connection = if binary {
            &mut self.binary
        } else {
            &mut self.text
        };
        let wrong = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
        if flags.intersects(epoll::EventFlags::OUT | wrong) {
            connection.writable = true;
            connection.connecting = false;
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP | wrong) {
            connection.readable = true;
        }
        let largest = (context.config.value_max as usize).saturating_add(64 << 10);
        match connection.read(context, largest, to) {
            Ok(0) => {}
            Ok(_) => self.answered(),
            Err(Over) => self.broken(context, binary, to),
        }
    }

    fn broken(&mut self, context: &Context<'_>, binary: bool, to: &mut impl Deliver) {
        let connection = if binary {
            &mut self.binary
        } else {
            &mut self.text
        };
        context.counters.node_disconnects.add(1);
        let failed = connection.fail(to);
        context.counters.node_errors.add(failed);
        self.failed(context);
    }

    /// Sends what waits, and gives up what has taken too long. Tells when to
    /// come again.
    pub(crate) fn tick(&mut self, context: &mut Context<'_>, to: &mut impl Deliver) -> Option<u64> {
        let config = context.config;
        let mut next: Option<u64> = None;
        let mut at = |time: u64| next = Some(next.map_or(time, |next| next.min(time)));
        for place in 0..self.lanes.len() {
            while let Some(Some(lane)) = self.lanes.get_mut(place) {
                let Some(&(id, since)) = lane.order.front() else {
                    break;
                };
                match lane.ids.get(id) {
                    // Answered, and perhaps used again since.
                    None => {}
                    Some(under_way) if under_way.since != since => {}
                    Some(_) if context.now < since + config.udp_timeout => {
                        at(since + config.udp_timeout);
                        break;
                    }
                    Some(_) => {
                        if let Some(mut lost) = lane.ids.lose(id) {
                            lane.order.pop_front();
                            context.counters.udp_lost.add(1);
                            let cas = lost.batch.seal(0)[FRAME..].starts_with(b"gets");
                            self.retry(context, lost.batch, cas, false, to);
                            continue;
                        }
                    }
                }
                lane.order.pop_front();
            }
        }
        if let Some(time) = self.probe_at {
            if context.now >= time && !self.retired {
                self.probe_at = Some(context.now + config.retry);
                let probe = Pending {
                    waiter: None,
                    expect: Expect::Line,
                    fence: false,
                    value_of: None,
                    since: 0,
                };
                let _ = self.push(context, false, &[b"version\r\n"], probe);
            }
            if let (Some(time), false) = (self.probe_at, self.retired) {
                at(time);
            }
        }
        for binary in [false, true] {
            let connection = if binary {
                &mut self.binary
            } else {
                &mut self.text
            };
            if connection.send().is_err() {
                self.broken(context, binary, to);
                continue;
            }
            let Some(head) = connection.pending.front() else {
                continue;
            };
            let end = head.since + config.timeout;
            if context.now >= end {
                self.broken(context, binary, to);
            } else {
                at(end);
            }
        }
        next
    }
}

struct Over;

impl Connection {
    fn connect(
        &mut self,
        context: &Context<'_>,
        spec: &config::Node,
        token: Token,
    ) -> std::io::Result<()> {
        let socket = Socket::new(
            Domain::for_address(spec.address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&spec.address.into()) {
            Ok(()) => {}
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        epoll::add(context.epoll, &socket, token.pack(), events())?;
        self.stream = Some(Stream::Tcp(socket.into()));
        (self.connecting, self.readable, self.writable) = (true, false, false);
        Ok(())
    }

    /// Gives the connection up, and all that waits for its answers. Tells how
    /// many those are.
    fn fail(&mut self, to: &mut impl Deliver) -> u64 {
        self.stream = None;
        self.output = Vec::new();
        self.input = Vec::new();
        self.sent = 0;
        let mut failed = 0;
        for pending in std::mem::take(&mut self.pending) {
            if let Some(waiter) = pending.waiter {
                failed += 1;
                to.deliver(waiter, Answer::Unavailable);
            }
        }
        failed
    }

    fn send(&mut self) -> Result<(), Over> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        while self.writable && self.sent < self.output.len() {
            match stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(Over),
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Over),
            }
        }
        if self.sent == self.output.len() {
            self.sent = 0;
            self.output.clear();
            self.output.shrink_to(64 << 10);
        } else if self.sent > OUTPUT_MAX {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads all that has come. Tells how many replies there were.
    fn read(
        &mut self,
        context: &mut Context<'_>,
        largest: usize,
        to: &mut impl Deliver,
    ) -> Result<usize, Over> {
        let mut replies = 0;
        while self.readable {
            let Some(stream) = &mut self.stream else {
                return Ok(replies);
            };
            let len = match stream.read(context.scratch) {
                Ok(0) => return Err(Over),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(Over),
            };
            // Most reads are whole replies, which need no copy.
            if self.input.is_empty() {
                let taken = self.take(&context.scratch[..len], largest, &mut replies, to)?;
                self.input.extend_from_slice(&context.scratch[taken..len]);
            } else {
                self.input.extend_from_slice(&context.scratch[..len]);
                let input = std::mem::take(&mut self.input);
                let taken = self.take(&input, largest, &mut replies, to)?;
                self.input = input;
                self.input.drain(..taken);
            }
            if self.input.is_empty() && self.input.capacity() > 64 << 10 {
                self.input = Vec::new();
            }
        }
        Ok(replies)
    }

    /// Hands out the replies in `input`; tells how many bytes they took.
    fn take(
        &mut self,
        input: &[u8],
        largest: usize,
        replies: &mut usize,
        to: &mut impl Deliver,
    ) -> Result<usize, Over> {
        let mut at = 0;
        while at < input.len() {
            // A node that talks unasked is not understood.
            let pending = self.pending.front().ok_or(Over)?;
            let limit = match pending.expect {
                Expect::Listing | Expect::BinaryListing => LISTING_MAX,
                _ => largest,
            };
            let rest = &input[at..];
            let (len, taken) = match frame(rest, pending.expect, pending.fence, limit) {
                Framed::More => break,
                Framed::Broken => return Err(Over),
                Framed::Reply { reply, taken } => (reply, taken),
            };
            let reply = &rest[..len];
            let answer = match pending.value_of {
                None => Answer::Reply(reply),
                Some(_) if !reply.starts_with(b"VALUE ") && reply != hippos_proto::reply::END => {
                    Answer::Error(reply)
                }
                Some(hash) => {
                    let values = reply
                        .strip_suffix(hippos_proto::reply::END)
                        .unwrap_or(reply);
                    // Another key's value is the end of all trust.
                    if let Some(value) = framing::value(values) {
                        if hash_of(value.key) != hash || value.whole.len() != values.len() {
                            return Err(Over);
                        }
                    }
                    Answer::Reply(values)
                }
            };
            if let Some(waiter) = pending.waiter {
                to.deliver(waiter, answer);
            }
            self.pending.pop_front();
            *replies += 1;
            at += taken;
        }
        Ok(at)
    }
}

/// How keys are told apart in batches and on connections.
pub(crate) fn hash_of(key: &[u8]) -> u32 {
    hippos_ring::Hash::Fnv1a32.of(key)
}

enum Complete {
    Single,
    Several,
}

impl Lane {
    fn new(context: &Context<'_>, spec: &config::Node, token: Token) -> std::io::Result<Self> {
        let any: std::net::SocketAddr = match spec.address {
            std::net::SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            std::net::SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(spec.address)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(context.epoll, &socket, token.pack(), flags)?;
        Ok(Self {
            socket,
            ids: Ids::new(context.now as u16),
            order: VecDeque::new(),
        })
    }

    /// Takes a datagram of a reply: whose it is, and whether the reply is whole.
    /// Nothing if nobody waits for it.
    fn take(&mut self, datagram: &[u8]) -> Option<(u16, Option<Complete>)> {
        let (Frame { id, total }, data) = Frame::parse(datagram)?;
        let under_way = self.ids.get(id)?;
        if total == 1 {
            return Some((id, Some(Complete::Single)));
        }
        let sequence = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
        if total == 0 || total > DATAGRAMS_MAX || sequence >= usize::from(total) {
            return None;
        }
        if under_way.parts.is_empty() {
            under_way.parts = vec![None; usize::from(total)];
            under_way.missing = usize::from(total);
        }
        let part = under_way.parts.get_mut(sequence)?;
        if part.is_none() {
            under_way.missing -= 1;
        }
        *part = Some(data.to_vec());
        let whole = under_way.missing == 0;
        Some((id, whole.then_some(Complete::Several)))
    }
}
