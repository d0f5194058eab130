// SPDX-License-Identifier: MIT

//! A client: its session, and the replies that it waits for, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use hippos_proto::binary::{Header, HEADER};
use hippos_proto::reply;

use crate::answer::{Answer, Waiter};
use crate::l1::Versions;
use crate::metrics::RouteMeter;
use crate::session::{self, Session};
use crate::stream::Stream;

/// The reply when a command's node cannot be reached, or does not answer.
pub(crate) const UNAVAILABLE: &[u8] = b"SERVER_ERROR node is not available\r\n";

/// The most outstanding replies of a client; above that, its input is not read.
pub(crate) const SLOTS_MAX: usize = 1024;

/// The most bytes of unsent replies of a client; above that, its input is not read.
pub(crate) const OUTPUT_MAX: usize = 256 << 10;

/// The most bytes of a reply to a datagram, as in the module.
pub(crate) const DATAGRAM_REPLY_MAX: usize = (1 << 20) + (64 << 10);

/// The most bytes of replies that a client's reads are expected to have in flight; above that, its input is not read, so
/// that other clients' requests do not wait behind them on a node's connection. One read may be in flight in any case.
pub(crate) const EXPECTED_MAX: usize = 256 << 10;

/// The length of a reply that is expected before any has arrived.
const EXPECTED_FIRST: usize = 4096;

/// The mean length of the replies to reads, in which larger replies count more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyLength(usize);

impl Default for ReplyLength {
    fn default() -> Self {
        Self(EXPECTED_FIRST)
    }
}

impl ReplyLength {
    fn note(&mut self, len: usize) {
        self.0 = if len > self.0 {
            self.0 / 2 + len / 2
        } else {
            (self.0 * 15 + len) / 16
        };
    }
}

/// The connection to a client.
#[derive(Debug)]
pub(crate) enum Link {
    Stream(Stream),
    /// One datagram, which has one reply.
    Datagram {
        peer: SocketAddr,
        id: u16,
    },
}

/// How a reply is composed.
#[derive(Debug)]
pub(crate) enum ReplyShape {
    /// The node's reply, unchanged.
    Plain,
    /// The same for `noreply`: no line of the proxy's own.
    NoReply,
    /// The same in the binary protocol. The request's header is kept for an error reply.
    Binary([u8; HEADER]),
    /// Values of several keys.
    Values { end: bool, values: Vec<Vec<u8>> },
    /// The end of a list of keys that was sent in several pieces.
    EndOfKeys(&'static [u8]),
    /// The replies of several nodes, of which one is forwarded.
    Broadcast {
        quiet: bool,
        header: Option<[u8; HEADER]>,
    },
    /// A fixed reply, once the node has answered.
    Instead(Vec<u8>),
    /// The statistics of several nodes.
    Statistics(Vec<(Vec<u8>, Vec<u8>)>),
}

/// How a command is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandMetrics {
    pub(crate) since: u64,
    /// The index of the route's meter; [`CommandMetrics::NONE`] if it is not measured.
    pub(crate) meter: u16,
    pub(crate) class: u8,
    /// The hash of the key that it changes; 0 if it does not change one.
    pub(crate) changes: u32,
}

impl CommandMetrics {
    pub(crate) const NONE: u16 = u16::MAX;
}

impl Default for CommandMetrics {
    fn default() -> Self {
        Self {
            since: 0,
            meter: Self::NONE,
            class: 0,
            changes: 0,
        }
    }
}

/// A lock that a client holds.
#[derive(Clone, Debug)]
pub(crate) struct Lock {
    pub(crate) key: Vec<u8>,
    pub(crate) cas: u64,
    pub(crate) flags: u32,
    pub(crate) data: Vec<u8>,
}

#[derive(Debug)]
struct Slot {
    stamp: CommandMetrics,
    shape: ReplyShape,
    /// Answers that have not arrived yet.
    left: u16,
    failed: bool,
    bytes: Vec<u8>,
    /// Whether it may have changed an item.
    write: bool,
}

/// The totals of all clients of a worker: bytes held, with their limit, and commands in flight by route.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    pub(crate) held: usize,
    pub(crate) limit: usize,
    /// The time, in microseconds.
    pub(crate) now: u64,
    pub(crate) meters: Vec<Arc<RouteMeter>>,
    pub(crate) in_flight: Vec<u32>,
    pub(crate) versions: Versions,
    /// The length that is expected of a new client's replies: that of all clients.
    pub(crate) reply_length: ReplyLength,
}

impl Budget {
    fn begin(&mut self, stamp: &CommandMetrics) {
        if stamp.changes != 0 {
            self.versions.change(stamp.changes);
        }
        if let Some(count) = self.in_flight.get_mut(usize::from(stamp.meter)) {
            *count += 1;
        }
    }

    fn end(&mut self, stamp: &CommandMetrics) {
        if stamp.changes != 0 {
            self.versions.change(stamp.changes);
        }
        if let Some(count) = self.in_flight.get_mut(usize::from(stamp.meter)) {
            *count -= 1;
        }
    }

    fn measure(&self, stamp: &CommandMetrics) {
        if let Some(meter) = self.meters.get(usize::from(stamp.meter)) {
            let past = self.now.saturating_sub(stamp.since);
            meter.latency[usize::from(stamp.class)].latency(past);
        }
    }
}

/// A client. Replies are sent in the order of the commands.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) link: Link,
    pub(crate) generation: u32,
    pub(crate) session: Session,
    /// Input that was read and not served yet.
    pub(crate) input: Vec<u8>,
    /// Replies to be sent, of which `sent` bytes are sent.
    pub(crate) output: Vec<u8>,
    pub(crate) sent: usize,
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u32,
    /// Writes, and commands whose replies show reads, that are not answered yet.
    pub(crate) writes: u32,
    /// Hashes of keys that are being read by datagrams, which are not ordered with those.
    pub(crate) reading: Vec<u32>,
    /// Replies to reads that are outstanding, one for each key, and the length that is expected of each.
    reads: usize,
    reply_length: Option<ReplyLength>,
    /// The locks that it holds.
    pub(crate) locks: Vec<Lock>,
    /// Whether a piece of a list of keys failed.
    broken_list: bool,
    held: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The end of its input has arrived, perhaps behind bytes to be read.
    pub(crate) hung_up: bool,
    /// The client has closed its side.
    pub(crate) ended: bool,
    /// The session has ended.
    pub(crate) closing: bool,
    /// The connection cannot be used any more: replies that are outstanding are not waited for.
    pub(crate) broken: bool,
    /// It is in the list of clients to be served in this round.
    pub(crate) listed: bool,
    /// It is in the list of clients that wait for a node.
    pub(crate) stalled: bool,
    /// Its input was not read further because too many replies are outstanding.
    pub(crate) full: bool,
    /// Its next command must not overtake an outstanding reply.
    pub(crate) ordered: bool,
    /// That reply has arrived: the command can be tried again.
    pub(crate) retry: bool,
}

impl Client {
    /// Takes the answer of a node, or of a job.
    pub(crate) fn answered(&mut self, waiter: &Waiter, answer: Answer<'_>, budget: &mut Budget) {
        if waiter.reading != 0 {
            let found = self.reading.iter().position(|&hash| hash == waiter.reading);
            if let Some(found) = found {
                self.reading.swap_remove(found);
            }
        }
        self.answer(waiter.number, waiter.part, answer, budget);
    }

    pub(crate) fn new(link: Link, generation: u32, session: Session) -> Self {
        Self {
            link,
            generation,
            session,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            slots: VecDeque::new(),
            first: 0,
            writes: 0,
            reading: Vec::new(),
            reads: 0,
            reply_length: None,
            locks: Vec::new(),
            broken_list: false,
            held: 0,
            readable: true,
            writable: true,
            hung_up: false,
            ended: false,
            closing: false,
            broken: false,
            listed: false,
            stalled: false,
            full: false,
            ordered: false,
            retry: false,
        }
    }

    /// Whether replies are outstanding.
    pub(crate) fn waits(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Whether no further command may be accepted now.
    pub(crate) fn is_full(&self) -> bool {
        let expected = self.reads * self.reply_length.unwrap_or_default().0;
        let full = self.output.len() - self.sent >= OUTPUT_MAX
            || self.reads > 0 && expected >= EXPECTED_MAX;
        self.slots.len() >= SLOTS_MAX || full && self.is_stream()
    }

    /// Whether its replies are more than a datagram's reply may be: then the rest of its commands is not done.
    pub(crate) fn is_too_large(&self) -> bool {
        self.output.len() > DATAGRAM_REPLY_MAX && !self.is_stream()
    }

    /// A datagram's commands are sent together: its output is not sent before its last reply.
    fn is_stream(&self) -> bool {
        matches!(self.link, Link::Stream(_))
    }

    /// Updates the budget to the bytes that are held now.
    pub(crate) fn account(&mut self, budget: &mut Budget) {
        let held = self.input.capacity() + self.output.capacity();
        budget.held = budget.held.saturating_sub(self.held) + held;
        self.held = held;
    }

    /// Returns everything that is held to the budget.
    pub(crate) fn release(&mut self, budget: &mut Budget) {
        for slot in self.slots.iter().filter(|slot| slot.left > 0) {
            slot.end(budget);
        }
        let slots: usize = self.slots.iter().map(Slot::weight).sum();
        budget.held = budget.held.saturating_sub(self.held + slots);
        self.held = 0;
    }

    /// Sends `bytes` after all earlier replies.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.slots.back_mut() {
            None => self.output.extend_from_slice(bytes),
            Some(_) => {
                self.place(ReplyShape::Plain, 0, false, CommandMetrics::default());
                if let Some(slot) = self.slots.back_mut() {
                    slot.bytes = bytes.to_vec();
                }
            }
        }
    }

    /// The end of a list that was sent in several pieces.
    pub(crate) fn end_of_keys(&mut self, line: &'static [u8]) {
        self.place(
            ReplyShape::EndOfKeys(line),
            0,
            false,
            CommandMetrics::default(),
        );
        self.settle(None);
    }

    /// Refuses a list of keys, or a piece of one: the whole list has one reply.
    pub(crate) fn refuse_keys(&mut self, end: bool, line: &[u8]) {
        let values = Vec::new();
        let shape = ReplyShape::Values { end, values };
        self.place(shape, 0, false, CommandMetrics::default());
        if let Some(slot) = self.slots.back_mut() {
            slot.fail(line);
        }
        self.settle(None);
    }

    /// Adds a command that `left` nodes answer. Returns its number.
    pub(crate) fn expect(
        &mut self,
        shape: ReplyShape,
        left: u16,
        write: bool,
        stamp: CommandMetrics,
        budget: &mut Budget,
    ) -> u32 {
        budget.begin(&stamp);
        self.reply_length.get_or_insert(budget.reply_length);
        self.place(shape, left, write, stamp)
    }

    fn place(&mut self, shape: ReplyShape, left: u16, write: bool, stamp: CommandMetrics) -> u32 {
        self.slots.push_back(Slot {
            stamp,
            shape,
            left,
            failed: false,
            bytes: Vec::new(),
            write,
        });
        self.writes += u32::from(write && left > 0);
        if self.slots.back().is_some_and(Slot::is_read) {
            self.reads += usize::from(left);
        }
        self.first.wrapping_add(self.slots.len() as u32 - 1)
    }

    /// A node's answer to the command `number` has arrived.
    pub(crate) fn answer(
        &mut self,
        number: u32,
        part: u16,
        answer: Answer<'_>,
        budget: &mut Budget,
    ) {
        let index = number.wrapping_sub(self.first) as usize;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if slot.left == 0 {
            return;
        }
        slot.left -= 1;
        if slot.is_read() {
            self.reads -= 1;
            if let Answer::Reply(bytes) = answer {
                budget.reply_length.note(bytes.len());
                if let Some(length) = &mut self.reply_length {
                    length.note(bytes.len());
                }
            }
        }
        let before = slot.weight();
        slot.take(part, answer, budget);
        let after = slot.weight();
        budget.held = (budget.held + after).saturating_sub(before);
        if slot.left == 0 {
            slot.end(budget);
            budget.measure(&slot.stamp);
            self.writes -= u32::from(slot.write);
            self.retry |= self.ordered;
        }
        if index == 0 {
            self.settle(Some(budget));
        }
    }

    /// Moves the complete replies to the output.
    fn settle(&mut self, budget: Option<&mut Budget>) {
        let mut gone = 0;
        while let Some(slot) = self.slots.front() {
            if slot.left > 0 {
                break;
            }
            let Some(slot) = self.slots.pop_front() else {
                break;
            };
            self.first = self.first.wrapping_add(1);
            gone += slot.weight();
            slot.put(&mut self.output, &mut self.broken_list);
        }
        if self.slots.is_empty() && self.slots.capacity() > 16 {
            self.slots.shrink_to(4);
        }
        if let Some(budget) = budget {
            budget.held = budget.held.saturating_sub(gone);
            self.account(budget);
        }
    }

    /// Whether all replies are sent.
    pub(crate) fn all_sent(&self) -> bool {
        let waits = matches!(&self.link, Link::Stream(stream) if stream.waits());
        self.unsent().is_empty() && !waits
    }

    /// The bytes that are still to be sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// Marks `n` more bytes as sent.
    pub(crate) fn advance(&mut self, n: usize, budget: &mut Budget) {
        self.sent += n;
        if self.sent == self.output.len() {
            self.sent = 0;
            self.output.clear();
            // An idle client should hold little memory.
            if self.output.capacity() > 1024 {
                self.output = Vec::new();
            }
            self.account(budget);
        } else if self.sent > OUTPUT_MAX {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }
}

impl Slot {
    /// Whether the reply may be large.
    fn is_read(&self) -> bool {
        !self.write || matches!(self.shape, ReplyShape::Values { .. })
    }

    fn weight(&self) -> usize {
        let values = match &self.shape {
            ReplyShape::Values { values, .. } => values.iter().map(Vec::capacity).sum(),
            _ => 0,
        };
        self.bytes.capacity() + values
    }

    /// No more answers are waited for.
    fn end(&self, budget: &mut Budget) {
        budget.end(&self.stamp);
        if self.write && matches!(self.shape, ReplyShape::Broadcast { .. }) {
            budget.versions.change_all();
        }
    }

    fn fail(&mut self, line: &[u8]) {
        if !self.failed {
            self.failed = true;
            self.bytes = line.to_vec();
        }
    }

    fn take(&mut self, part: u16, answer: Answer<'_>, budget: &Budget) {
        let answer = match answer {
            Answer::Reply(bytes)
                if bytes.len() > 4096 && budget.held + bytes.len() > budget.limit =>
            {
                match self.shape {
                    ReplyShape::Values { .. } => Answer::Error(reply::GET_OUT_OF_MEMORY),
                    _ => Answer::Unavailable,
                }
            }
            answer => answer,
        };
        match (&mut self.shape, answer) {
            (
                ReplyShape::Plain | ReplyShape::Binary(_),
                Answer::Reply(bytes) | Answer::Error(bytes),
            )
            | (ReplyShape::NoReply, Answer::Reply(bytes)) => {
                self.bytes = bytes.to_vec();
            }
            (ReplyShape::NoReply, _) => {}
            // Nothing stands for a reply that the client does not expect.
            (ReplyShape::Instead(bytes), _) if bytes.is_empty() => {}
            (
                ReplyShape::Broadcast {
                    quiet: true,
                    header: None,
                },
                Answer::Unavailable,
            ) => {}
            (ReplyShape::Binary(header), Answer::Unavailable) => {
                self.bytes = session::unavailable(header);
            }
            (ReplyShape::Values { values, .. }, Answer::Reply(bytes)) => {
                if let (Some(value), false) = (values.get_mut(usize::from(part)), bytes.is_empty())
                {
                    *value = bytes.to_vec();
                }
            }
            (ReplyShape::Broadcast { quiet, header }, answer) => {
                let unavailable = header.map(|header| session::unavailable(&header));
                let (bytes, error) = match (answer, header.is_some()) {
                    (Answer::Unavailable, true) => (unavailable.as_deref().unwrap_or(b""), true),
                    (Answer::Unavailable, false) => (UNAVAILABLE, true),
                    (Answer::Reply(bytes) | Answer::Error(bytes), true) => {
                        (bytes, bytes.get(6..8) != Some(&[0, 0]))
                    }
                    (Answer::Reply(bytes) | Answer::Error(bytes), false) => {
                        (bytes, !matches!(bytes, b"" | b"OK\r\n"))
                    }
                };
                if error {
                    let line = bytes.to_vec();
                    self.fail(&line);
                } else if !self.failed && !*quiet {
                    self.bytes = bytes.to_vec();
                }
            }
            (ReplyShape::Statistics(sum), Answer::Reply(bytes)) => {
                if !add_statistics(sum, bytes) {
                    let line = bytes.to_vec();
                    self.fail(&line);
                }
            }
            (ReplyShape::Instead(bytes), Answer::Reply(_)) => self.bytes = std::mem::take(bytes),
            (_, Answer::Error(line)) => self.fail(line),
            (_, Answer::Unavailable) => self.fail(UNAVAILABLE),
            (ReplyShape::EndOfKeys(_), _) => {}
        }
    }

    fn put(self, out: &mut Vec<u8>, broken_list: &mut bool) {
        match self.shape {
            ReplyShape::Values { end, values } => {
                if self.failed {
                    if !*broken_list {
                        out.extend_from_slice(&self.bytes);
                    }
                    *broken_list = !end;
                    return;
                }
                if *broken_list {
                    return;
                }
                for value in &values {
                    out.extend_from_slice(value);
                }
                if end {
                    out.extend_from_slice(reply::END);
                }
            }
            ReplyShape::EndOfKeys(line) => {
                if !std::mem::take(broken_list) {
                    out.extend_from_slice(line);
                }
            }
            ReplyShape::Statistics(sum) if !self.failed => {
                for (name, value) in &sum {
                    out.extend_from_slice(b"STAT ");
                    out.extend_from_slice(name);
                    out.extend_from_slice(b" ");
                    out.extend_from_slice(value);
                    out.extend_from_slice(reply::CRLF);
                }
                out.extend_from_slice(reply::END);
            }
            _ => out.extend_from_slice(&self.bytes),
        }
    }
}

/// Adds a node's statistics to the sums: integers are added, other values are those of the first node. `false` if the
/// bytes are not statistics.
fn add_statistics(sum: &mut Vec<(Vec<u8>, Vec<u8>)>, bytes: &[u8]) -> bool {
    /// Statistics that are the same on all nodes, or are not amounts.
    const FIRST: [&[u8]; 5] = [b"pid", b"uptime", b"time", b"pointer_size", b"threads"];
    let Some(lines) = bytes.strip_suffix(reply::END) else {
        return false;
    };
    let first = sum.is_empty();
    for line in lines.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(rest) = line.strip_prefix(b"STAT ") else {
            continue;
        };
        let space = rest.iter().position(|&byte| byte == b' ');
        let (name, value) = match space {
            Some(space) => (&rest[..space], &rest[space + 1..]),
            None => (rest, &b""[..]),
        };
        if first {
            sum.push((name.to_vec(), value.to_vec()));
            continue;
        }
        let Some((_, total)) = sum.iter_mut().find(|(known, _)| known == name) else {
            continue;
        };
        let number = hippos_proto::number::parse_u64;
        if let (Some(a), Some(b), false) = (number(total), number(value), FIRST.contains(&name)) {
            *total = a.wrapping_add(b).to_string().into_bytes();
        }
    }
    true
}

/// The header at the start of a packet.
pub(crate) fn header_of(packet: &[u8]) -> [u8; HEADER] {
    debug_assert!(Header::parse(packet).is_some());
    packet.first_chunk().copied().unwrap_or([0; HEADER])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Transport;

    fn client() -> (Client, Budget) {
        let id = 1;
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let session = Session::new(Transport::Datagram, 1 << 20);
        let client = Client::new(Link::Datagram { peer, id }, 0, session);
        let limit = 1 << 20;
        (
            client,
            Budget {
                limit,
                ..Budget::default()
            },
        )
    }

    fn values(count: usize, end: bool) -> ReplyShape {
        let values = vec![Vec::new(); count];
        ReplyShape::Values { end, values }
    }

    #[test]
    fn answers_go_out_in_the_order_of_commands() {
        let (mut client, mut budget) = client();
        let a = client.expect(
            ReplyShape::Plain,
            1,
            true,
            CommandMetrics::default(),
            &mut budget,
        );
        client.say(b"VERSION\r\n");
        let b = client.expect(
            values(2, true),
            2,
            false,
            CommandMetrics::default(),
            &mut budget,
        );
        client.answer(b, 1, Answer::Reply(b"two "), &mut budget);
        client.answer(b, 0, Answer::Reply(b"one "), &mut budget);
        assert_eq!((client.unsent(), client.writes), (&b""[..], 1));
        client.answer(a, 0, Answer::Reply(b"STORED\r\n"), &mut budget);
        assert_eq!(client.unsent(), b"STORED\r\nVERSION\r\none two END\r\n");
        assert_eq!((client.waits(), client.writes), (false, 0));
        // An answer that arrives twice, or for an unknown command, changes nothing.
        client.answer(a, 0, Answer::Reply(b"STORED\r\n"), &mut budget);
        client.answer(b.wrapping_add(5), 0, Answer::Unavailable, &mut budget);
        let len = client.unsent().len();
        client.advance(len, &mut budget);
        assert!(client.unsent().is_empty());
        client.release(&mut budget);
        assert_eq!(budget.held, 0);
    }

    #[test]
    fn a_get_that_fails_has_one_error_and_no_end() {
        let (mut client, mut budget) = client();
        let b = client.expect(
            values(2, true),
            2,
            false,
            CommandMetrics::default(),
            &mut budget,
        );
        client.answer(b, 0, Answer::Reply(b"one "), &mut budget);
        client.answer(b, 1, Answer::Unavailable, &mut budget);
        assert_eq!(client.unsent(), UNAVAILABLE);
        // The same in several pieces; the next list is complete again.
        client.output.clear();
        let a = client.expect(
            values(1, false),
            1,
            false,
            CommandMetrics::default(),
            &mut budget,
        );
        let b = client.expect(
            values(1, false),
            1,
            false,
            CommandMetrics::default(),
            &mut budget,
        );
        client.end_of_keys(reply::END);
        let c = client.expect(
            values(1, true),
            1,
            false,
            CommandMetrics::default(),
            &mut budget,
        );
        client.answer(b, 0, Answer::Reply(b"two "), &mut budget);
        client.answer(a, 0, Answer::Error(b"SERVER_ERROR x\r\n"), &mut budget);
        client.answer(c, 0, Answer::Reply(b"three "), &mut budget);
        assert_eq!(client.unsent(), b"SERVER_ERROR x\r\nthree END\r\n");
    }

    #[test]
    fn a_broadcast_returns_the_first_error() {
        let (mut client, mut budget) = client();
        let (quiet, header) = (false, None);
        let a = client.expect(
            ReplyShape::Broadcast { quiet, header },
            3,
            true,
            CommandMetrics::default(),
            &mut budget,
        );
        for answer in [
            Answer::Reply(b"OK\r\n"),
            Answer::Unavailable,
            Answer::Reply(b"OK\r\n"),
        ] {
            client.answer(a, 0, answer, &mut budget);
        }
        assert_eq!(client.unsent(), UNAVAILABLE);
        client.output.clear();
        // `noreply`: not even that of the proxy itself.
        let quiet = true;
        let a = client.expect(
            ReplyShape::Broadcast { quiet, header },
            3,
            true,
            CommandMetrics::default(),
            &mut budget,
        );
        client.answer(a, 0, Answer::Reply(b"OK\r\n"), &mut budget);
        client.answer(a, 0, Answer::Reply(b"OK\r\n"), &mut budget);
        client.answer(a, 0, Answer::Unavailable, &mut budget);
        assert_eq!(client.unsent(), b"");
    }

    #[test]
    fn statistics_of_all_nodes_are_summed() {
        let (mut client, mut budget) = client();
        let a = client.expect(
            ReplyShape::Statistics(Vec::new()),
            2,
            false,
            CommandMetrics::default(),
            &mut budget,
        );
        let one = b"STAT pid 5\r\nSTAT cmd_get 7\r\nSTAT version 1.6.38\r\nEND\r\n";
        let two = b"STAT pid 6\r\nSTAT cmd_get 8\r\nSTAT version 1.6.38\r\nSTAT x 1\r\nEND\r\n";
        client.answer(a, 0, Answer::Reply(one), &mut budget);
        client.answer(a, 0, Answer::Reply(two), &mut budget);
        let want = b"STAT pid 5\r\nSTAT cmd_get 15\r\nSTAT version 1.6.38\r\nEND\r\n";
        assert_eq!(client.unsent(), want);
    }
}
