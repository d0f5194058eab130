// SPDX-License-Identifier: MIT

//! A worker's sockets to one node: two TCP pipelines (text and binary) and the UDP channels.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use hippos_proto::udp::{Frame, FRAME};
use rustix::event::epoll;

use crate::answer::{Answer, Deliver, Waiter};
use crate::batch::{is_due, Asks, Batch, Ids};
use crate::config;
use crate::connection::{Connection, Measured, Over, Pending, OUTPUT_MAX};
use crate::event::{Context, Token};
use crate::framing::{self, Expect};
use crate::health::{Health, Probe};
use crate::lengths::Lengths;
use crate::metrics::NodeMeter;
use crate::stream::Stream;

/// UDP channels to a node, each with its own source port, so that the node's network card spreads them over its queues.
pub(crate) const CHANNELS: usize = 4;

/// The most requests in flight on one connection to a node.
const PENDING_MAX: usize = 16 << 10;

/// The most datagrams of a reply.
const DATAGRAMS_MAX: u16 = 64;

/// The node is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Down;

/// A socket for datagrams.
#[derive(Debug)]
struct UdpChannel {
    socket: UdpSocket,
    ids: Ids<InFlight>,
    /// Request ids in sending order.
    order: VecDeque<(u16, u64)>,
}

#[derive(Debug)]
struct InFlight {
    batch: Batch<Waiter>,
    since: u64,
    /// The datagrams received of a reply of several.
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
}

/// One worker's view of a node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) spec: config::Node,
    text: Connection,
    binary: Connection,
    channels: Vec<Option<UdpChannel>>,
    turn: usize,
    /// Keys in batches that are not answered yet.
    waiting: usize,
    /// Batches being collected, one of each kind.
    open: [Option<Batch<Waiter>>; 3],
    lengths: Lengths,
    failures: u32,
    pub(crate) health: Arc<Health>,
    meter: Arc<NodeMeter>,
    /// The index of the address that is tried.
    turn_of_address: usize,
    /// Jobs that may still send it requests.
    pub(crate) job_refs: u32,
    /// It is not in the configuration any more.
    pub(crate) retired: bool,
}

impl Node {
    pub(crate) fn new(spec: config::Node, health: Arc<Health>, meter: Arc<NodeMeter>) -> Self {
        Self {
            spec,
            text: Connection::default(),
            binary: Connection::default(),
            channels: Vec::new(),
            turn: 0,
            waiting: 0,
            open: [None, None, None],
            lengths: Lengths::default(),
            failures: 0,
            health,
            meter,
            turn_of_address: 0,
            job_refs: 0,
            retired: false,
        }
    }

    /// Whether the node is in use.
    pub(crate) fn is_in(&self) -> bool {
        self.health.is_in()
    }

    /// The address that is currently tried.
    fn address(&self) -> SocketAddr {
        self.spec.addresses[self.turn_of_address % self.spec.addresses.len()]
    }

    /// Whether so many requests are in flight that no further one should be sent.
    pub(crate) fn is_busy(&self, binary: bool) -> bool {
        let connection = if binary { &self.binary } else { &self.text };
        let waiting = connection.output.len() - connection.sent;
        connection.pending.len() + self.waiting >= PENDING_MAX || waiting >= OUTPUT_MAX
    }

    /// Whether no request is in flight.
    pub(crate) fn idle(&self) -> bool {
        self.text.pending.is_empty()
            && self.binary.pending.is_empty()
            && self.open.iter().all(Option::is_none)
            && self.in_flight() == 0
            && self.job_refs == 0
    }

    /// Closes all sockets.
    pub(crate) fn close(&mut self, to: &mut impl Deliver) {
        self.text.fail(to);
        self.binary.fail(to);
        self.channels.clear();
    }

    fn in_flight(&self) -> usize {
        let channels = self.channels.iter().flatten();
        channels.map(|channel| channel.ids.in_flight()).sum()
    }

    /// Whether the value of the key with `hash` is expected to be too large for a datagram.
    pub(crate) fn is_large(&self, hash: u32) -> bool {
        self.lengths.is_large(hash)
    }

    fn failed(&mut self, context: &Context<'_>) {
        self.failures = self.failures.saturating_add(1);
        // The next attempt uses the next address, also for datagrams.
        self.turn_of_address = self.turn_of_address.wrapping_add(1);
        if self.spec.addresses.len() > 1 {
            for channel in &mut self.channels {
                if channel
                    .as_ref()
                    .is_some_and(|channel| channel.ids.in_flight() == 0)
                {
                    *channel = None;
                }
            }
        }
        if self.failures >= context.config.failures
            && self.health.eject(context.now + context.config.retry)
        {
            context.counters.ejections.add(1);
            self.meter.ejections.add(1);
        }
    }

    /// Sends a request over TCP: the bytes of `parts`, concatenated.
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
        let address = self.address();
        let tls = self.spec.tls.as_ref();
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
            if connection.connect(context, address, tls, token).is_err() {
                self.failed(context);
                return Err(Down);
            }
        }
        if !connection.has_output() {
            connection.since = context.now;
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
        if !context.config.batch {
            // Errors are noticed when the connection is next served.
            let _ = connection.send();
        }
        Ok(())
    }

    /// Requests one key's value over TCP.
    pub(crate) fn get(
        &mut self,
        context: &Context<'_>,
        command: &[u8],
        key: &[u8],
        hash: u32,
        waiter: Option<Waiter>,
    ) -> Result<(), Down> {
        let mut pending = Pending::new(waiter, Expect::Values, false);
        pending.value_of = Some(hash);
        self.request(context, false, &[command, key, b"\r\n"], pending)
    }

    /// Adds a key, or a line of `mg`, to the next datagram.
    pub(crate) fn queue(
        &mut self,
        context: &mut Context<'_>,
        asks: Asks,
        key: &[u8],
        hash: u32,
        waiter: Waiter,
        to: &mut impl Deliver,
    ) {
        let place = asks as usize;
        self.waiting += 1;
        let now = context.now;
        let reply = self.lengths.expected(hash);
        let batch = self.open[place].get_or_insert_with(|| Batch::new(asks, now));
        let before = batch.len();
        if let Err(waiter) = batch.push(key, hash, reply, waiter) {
            // A segment of several requests costs less than several datagrams of few.
            if batch.is_sparse() && self.text.is_clear() {
                self.pipe(context, place, to);
            } else {
                self.flush(context, place, to);
            }
            let batch = self.open[place].insert(Batch::new(asks, now));
            if batch.push(key, hash, reply, waiter).is_err() {
                self.waiting -= 1;
                to.deliver(waiter, Answer::Unavailable);
            }
        } else if batch.len() == before {
            context.counters.collapsed_keys.add(1);
        }
        let batch = self.open[place].as_ref();
        if batch.is_some_and(|batch| batch.is_full() || !context.config.batch) {
            self.flush(context, place, to);
        }
    }

    /// Sends the batches that are due; returns when the next one is.
    pub(crate) fn flush_due(
        &mut self,
        context: &mut Context<'_>,
        to: &mut impl Deliver,
    ) -> Option<u64> {
        let mut next = None;
        for place in 0..Asks::ALL.len() {
            let Some(batch) = &self.open[place] else {
                continue;
            };
            let window = context.config.window;
            let since = batch.since;
            let in_flight = (!context.config.fixed_window).then(|| self.in_flight());
            if batch.is_sparse() && self.text.has_output() && self.text.is_clear() {
                // It costs little beside the requests that go to the node by TCP now.
                self.pipe(context, place, to);
            } else if window == 0 || is_due(context.now, since, window, in_flight) {
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
        let (now, turn) = (context.now, self.turn % CHANNELS);
        self.turn = self.turn.wrapping_add(1);
        let meter = self.meter.clone();
        if let Some(channel) = self.channel(context, turn, to) {
            if let Some(id) = channel.ids.take() {
                if channel.socket.send(batch.finish(id)).is_ok() {
                    context.counters.batches.add(1);
                    meter.batch.size(batch.len() as u64);
                    context.counters.batched_keys.add(batch.len() as u64);
                    let in_flight = InFlight {
                        batch,
                        since: now,
                        parts: Vec::new(),
                        missing: 0,
                    };
                    channel.ids.put(id, in_flight);
                    channel.order.push_back((id, now));
                    return;
                }
            }
        }
        self.retry(context, batch, false, to);
    }

    /// Requests the keys of the open batch over TCP.
    fn pipe(&mut self, context: &Context<'_>, place: usize, to: &mut impl Deliver) {
        if let Some(batch) = self.open[place].take() {
            context.counters.piped_keys.add(batch.len() as u64);
            self.by_tcp(context, batch, to);
        }
    }

    /// The channel, with an open socket.
    fn channel(
        &mut self,
        context: &Context<'_>,
        turn: usize,
        _to: &mut impl Deliver,
    ) -> Option<&mut UdpChannel> {
        if self.channels.is_empty() {
            self.channels = (0..CHANNELS).map(|_| None).collect();
        }
        let worn =
            |channel: &UdpChannel| channel.ids.is_exhausted() && channel.ids.in_flight() == 0;
        // Its port is given up, so that late replies find no socket.
        if self.channels[turn].as_ref().is_some_and(worn) {
            self.channels[turn] = None;
        }
        if self.channels[turn].is_none() {
            let token = Token::UdpChannel(context.index as u32, turn as u8);
            self.channels[turn] = UdpChannel::new(context, self.address(), token).ok();
        }
        let channel = self.channels[turn].as_mut()?;
        (!channel.ids.is_exhausted()).then_some(channel)
    }

    /// Requests the keys of a batch again, over TCP.
    fn retry(
        &mut self,
        context: &Context<'_>,
        batch: Batch<Waiter>,
        large: bool,
        to: &mut impl Deliver,
    ) {
        if large {
            for index in 0..batch.len() {
                let (_, hash) = batch.key(index);
                self.lengths.note_large(hash);
            }
        }
        let keys = batch.waiting() as u64;
        context.counters.udp_retries.add(keys);
        self.meter.retries.add(keys);
        self.by_tcp(context, batch, to);
    }

    fn by_tcp(&mut self, context: &Context<'_>, mut batch: Batch<Waiter>, to: &mut impl Deliver) {
        let asks = batch.asks();
        let waiters: Vec<_> = batch.waiters().collect();
        for (index, waiter) in waiters {
            self.waiting -= 1;
            let (key, hash) = batch.key(index);
            let sent = match asks {
                Asks::Get => self.get(context, b"get ", key, hash, Some(waiter)),
                Asks::Gets => self.get(context, b"gets ", key, hash, Some(waiter)),
                Asks::Meta => {
                    let pending = Pending::new(Some(waiter), Expect::Meta, false);
                    self.request(context, false, &[key, b"\r\n"], pending)
                }
            };
            if sent.is_err() {
                context.counters.node_errors.add(1);
                to.deliver(waiter, Answer::Unavailable);
            }
        }
    }

    /// A channel's socket is readable.
    pub(crate) fn receive(
        &mut self,
        context: &mut Context<'_>,
        channel: u8,
        to: &mut impl Deliver,
    ) {
        let place = usize::from(channel);
        loop {
            let Some(Some(channel)) = self.channels.get_mut(place) else {
                return;
            };
            let len = match channel.socket.recv(context.scratch) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // The node's host reports that the port is closed: the timeout handles it.
                Err(_) => continue,
            };
            let datagram = &context.scratch[..len];
            let Some((id, done)) = channel.take(datagram) else {
                context.counters.udp_late.add(1);
                continue;
            };
            let Some(reply) = done else { continue };
            let Some(in_flight) = channel.ids.done(id) else {
                continue;
            };
            // Nothing is read in vain: late replies, if any, are read with the next one that is expected.
            let last = channel.ids.in_flight() == 0;
            self.failures = 0;
            let InFlight {
                mut batch,
                parts,
                since,
                ..
            } = in_flight;
            self.meter.udp.latency(context.now.saturating_sub(since));
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
                        let Some(value @ [b'V', ..]) = value else {
                            continue;
                        };
                        let (_, hash) = batch.key(index);
                        self.lengths.note(hash, value.len());
                    }
                    for (index, waiter) in batch.waiters() {
                        self.waiting -= 1;
                        to.deliver(waiter, Answer::Reply(values[index].unwrap_or(b"")));
                    }
                }
                None => {
                    let large = reply.starts_with(b"SERVER_ERROR");
                    self.retry(context, batch, large, to);
                }
            }
            if last {
                return;
            }
        }
    }

    /// A connection is readable or writable.
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
        connection.hung_up |= flags.intersects(epoll::EventFlags::RDHUP | wrong);
        if connection.hung_up || flags.contains(epoll::EventFlags::IN) {
            connection.readable = true;
            // Output that a handshake has held back continues when bytes arrive.
            connection.writable |= connection.stream.as_ref().is_some_and(Stream::is_tls);
        }
        let mut measured = Measured {
            meter: &self.meter,
            lengths: &mut self.lengths,
        };
        match connection.read(context, &mut measured, to) {
            Ok(heard) => {
                if heard.replies > 0 {
                    self.failures = 0;
                }
                if let Some(reply) = heard.probed {
                    self.health.probed(&reply, self.spec.returning);
                }
            }
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
        self.meter.failures.add(failed);
        self.failed(context);
    }

    /// Sends waiting bytes, and fails requests that have timed out. Returns when to call it again.
    pub(crate) fn tick(&mut self, context: &mut Context<'_>, to: &mut impl Deliver) -> Option<u64> {
        let config = context.config;
        let mut next: Option<u64> = None;
        let mut at = |time: u64| next = Some(next.map_or(time, |next| next.min(time)));
        for place in 0..self.channels.len() {
            while let Some(Some(channel)) = self.channels.get_mut(place) {
                let Some(&(id, since)) = channel.order.front() else {
                    break;
                };
                match channel.ids.get(id) {
                    // Answered, and perhaps reused since.
                    None => {}
                    Some(in_flight) if in_flight.since != since => {}
                    Some(_) if context.now < since + config.udp_timeout => {
                        at(since + config.udp_timeout);
                        break;
                    }
                    Some(_) => {
                        if let Some(lost) = channel.ids.lose(id) {
                            channel.order.pop_front();
                            context.counters.udp_lost.add(1);
                            self.retry(context, lost.batch, false, to);
                            continue;
                        }
                    }
                }
                channel.order.pop_front();
            }
        }
        if !self.retired && !self.is_in() {
            let again = context.now + config.retry;
            let returning = self.spec.returning;
            if let Some(probe) = self.health.claim(context.now, again, returning) {
                let line: &[u8] = match probe {
                    Probe::Version => b"version\r\n",
                    Probe::Flush => b"flush_all\r\n",
                };
                let mut pending = Pending::new(None, Expect::Line, false);
                pending.probe = true;
                let _ = self.push(context, false, &[line], pending);
            }
            if let Some(time) = self.health.probe_at() {
                // Another worker may have claimed this probe.
                at(time.max(context.now + 1000));
            }
        }
        for binary in [false, true] {
            let connection = if binary {
                &mut self.binary
            } else {
                &mut self.text
            };
            let (since, window) = (connection.since, config.window);
            if config.fixed_window
                && connection.has_output()
                && connection.is_clear()
                && !is_due(context.now, since, window, None)
            {
                at(since + window);
            } else if connection.send().is_err() {
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

enum Complete {
    Single,
    Several,
}

impl UdpChannel {
    fn new(context: &Context<'_>, address: SocketAddr, token: Token) -> std::io::Result<Self> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(address)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(context.epoll, &socket, token.pack(), flags)?;
        Ok(Self {
            socket,
            ids: Ids::new(context.now as u16),
            order: VecDeque::new(),
        })
    }

    /// Adds a datagram of a reply: returns its id, and the reply if it is complete. `None` if no request waits for it.
    fn take(&mut self, datagram: &[u8]) -> Option<(u16, Option<Complete>)> {
        let (Frame { id, total }, data) = Frame::parse(datagram)?;
        let in_flight = self.ids.get(id)?;
        if total == 1 {
            return Some((id, Some(Complete::Single)));
        }
        let sequence = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
        if total == 0 || total > DATAGRAMS_MAX || sequence >= usize::from(total) {
            return None;
        }
        if in_flight.parts.is_empty() {
            in_flight.parts = vec![None; usize::from(total)];
            in_flight.missing = usize::from(total);
        }
        let part = in_flight.parts.get_mut(sequence)?;
        if part.is_none() {
            in_flight.missing -= 1;
        }
        *part = Some(data.to_vec());
        let whole = in_flight.missing == 0;
        Some((id, whole.then_some(Complete::Several)))
    }
}
