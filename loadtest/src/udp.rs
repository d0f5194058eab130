// SPDX-License-Identifier: GPL-2.0-only
//! One UDP socket of a worker: requests with ids, and replies reassembled.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::element::Element;
use crate::mmsg::{self, SendBatch};
use crate::pending::{Outcome, Pending, Progress};
use crate::wire::{self, Frame};

/// The most requests in flight on one socket; a power of two of at most 2^16.
const SLOTS: usize = 4096;
/// Socket buffers, as far as the system allows.
const BUFFER: usize = 8 << 20;

/// A connected socket with its requests in flight.
#[derive(Debug)]
pub struct Udp {
    socket: Socket,
    slots: Vec<Slot>,
    next: u64,
    waiting: usize,
    /// Tickets that are encoded but not sent yet.
    staged: Vec<u64>,
    /// The peer sends every datagram back unchanged.
    mirror: bool,
}

#[derive(Debug, Default)]
struct Slot {
    ticket: u64,
    state: State,
    pending: Pending,
    /// The request's datagram.
    datagram: Vec<u8>,
    message: Message,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    Waiting,
    /// The client has given it up; the reply would be late.
    Expired,
}

/// The kind of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Part of a reply, or a complete one.
    Reply,
    /// It belongs to no request.
    Stray,
}

impl Udp {
    /// Makes a socket, with its own source port.
    pub fn connect(server: SocketAddr, mirror: bool, gso: bool) -> Result<Self> {
        let socket = Socket::new(
            Domain::for_address(server),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        // Both are capped by the system's limits; large replies come in bursts of datagrams.
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
        socket.set_nonblocking(true)?;
        if gso {
            mmsg::enable_gro(&socket)?;
        }
        socket
            .connect(&server.into())
            .with_context(|| format!("cannot reach UDP {server}"))?;
        Ok(Self {
            socket,
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            next: 0,
            waiting: 0,
            staged: Vec::new(),
            mirror,
        })
    }

    /// The socket's descriptor.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The socket.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Requests in flight.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Requests that are encoded but not sent.
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// The ticket of the request in the next request's slot, if it still waits or was given up.
    pub fn reused(&self) -> Option<u64> {
        let slot = &self.slots[self.next as usize % SLOTS];
        (slot.state != State::Free).then_some(slot.ticket)
    }

    /// Encodes a request, to be sent with the next [`Self::flush`]; returns its ticket.
    pub fn stage(&mut self, start: impl FnOnce(&mut Pending)) -> u64 {
        let ticket = self.next;
        self.next += 1;
        let slot = &mut self.slots[ticket as usize % SLOTS];
        start(&mut slot.pending);
        slot.ticket = ticket;
        slot.state = State::Waiting;
        slot.message.clear();
        slot.datagram.clear();
        slot.datagram.extend_from_slice(
            &Frame {
                id: ticket as u16,
                sequence: 0,
                total: 1,
            }
            .bytes(),
        );
        let pending = &slot.pending;
        // Only GETs go over UDP: no value follows.
        let _ = wire::encode(
            &pending.request,
            pending.protocol,
            pending.version,
            &mut slot.datagram,
        );
        self.waiting += 1;
        self.staged.push(ticket);
        ticket
    }

    /// Sends the staged requests, as far as the kernel accepts them; `sent` gets the due time and size of each.
    pub fn flush(
        &mut self,
        send_batch: &mut SendBatch<()>,
        mut sent: impl FnMut(u64, usize),
    ) -> Result<(), Errno> {
        let slots = &self.slots;
        let slot = |ticket: &u64| &slots[*ticket as usize % SLOTS];
        send_batch.sort(&mut self.staged, |ticket| slot(ticket).datagram.len());
        while !self.staged.is_empty() {
            let datagrams = self
                .staged
                .iter()
                .map(|ticket| slot(ticket).datagram.as_slice());
            let count = send_batch.send(self.socket.as_raw_fd(), datagrams)?;
            if count == 0 {
                break;
            }
            for ticket in self.staged.drain(..count) {
                let slot = slot(&ticket);
                sent(slot.pending.due, slot.datagram.len());
            }
        }
        Ok(())
    }

    /// Gives up a request that still waits; returns it, and whether a part of its reply was received.
    pub fn expire(&mut self, ticket: u64, now: u64, timeout: u64) -> Option<(&Pending, bool)> {
        let slot = &mut self.slots[ticket as usize % SLOTS];
        if slot.ticket != ticket || slot.state != State::Waiting {
            return None;
        }
        slot.state = State::Expired;
        self.waiting -= 1;
        slot.pending.give_up(now, timeout);
        let partial = slot.pending.hits > 0 || slot.message.begun();
        Some((&slot.pending, partial))
    }

    /// Returns a request that was given up, and stops waiting for its reply.
    pub fn forget(&mut self, ticket: u64) -> Option<&Pending> {
        let slot = &mut self.slots[ticket as usize % SLOTS];
        if slot.ticket != ticket || slot.state != State::Expired || slot.pending.forgotten {
            return None;
        }
        slot.pending.forgotten = true;
        Some(&slot.pending)
    }

    /// [`Self::forget`]s all requests that were given up.
    pub fn forget_all(&mut self, mut forgotten: impl FnMut(&Pending)) {
        for slot in &mut self.slots {
            if slot.state == State::Expired && !slot.pending.forgotten {
                slot.pending.forgotten = true;
                forgotten(&slot.pending);
            }
        }
    }

    /// Processes a datagram; `done` gets the request that it answers, if any, even one that was given up. Fails if the
    /// reply is wrong.
    pub fn deliver(
        &mut self,
        datagram: &[u8],
        done: impl FnOnce(&Pending, Outcome),
    ) -> Result<Seen, String> {
        let Some((frame, body)) = Frame::split(datagram) else {
            return Ok(Seen::Stray);
        };
        let slot = &mut self.slots[frame.id as usize % SLOTS];
        if slot.state == State::Free || slot.ticket as u16 != frame.id {
            return Ok(Seen::Stray);
        }
        let Slot {
            pending, message, ..
        } = slot;
        let outcome = if self.mirror {
            if slot.datagram != datagram {
                return Err("the mirror sent other bytes back than it was sent".into());
            }
            pending.hits = pending.request.keys.len() as u32;
            Outcome::Got
        } else {
            let body = match frame.total {
                0 => return Ok(Seen::Reply),
                1 => body,
                _ => match message.add(frame, body) {
                    Some(body) => body,
                    None => return Ok(Seen::Reply),
                },
            };
            match elements(pending, body)? {
                Some(outcome) => outcome,
                None => return Ok(Seen::Reply),
            }
        };
        if slot.state == State::Waiting {
            self.waiting -= 1;
        }
        slot.state = State::Free;
        done(pending, outcome);
        Ok(Seen::Reply)
    }
}

/// Parses the elements of one complete message: a message is the whole reply, or, in memcached's replies to multi-key
/// GETs, the reply to one key.
fn elements<'a>(pending: &mut Pending, mut body: &'a [u8]) -> Result<Option<Outcome<'a>>, String> {
    while !body.is_empty() {
        let (element, len) = wire::element(pending.protocol, body).unwrap_or((
            Element::Malformed("a message that ends within a reply"),
            body.len(),
        ));
        if let Progress::Done(outcome) = pending.take(element)? {
            return Ok(Some(outcome));
        }
        body = &body[len..];
    }
    Ok(None)
}

/// A message of several datagrams that is being reassembled.
#[derive(Debug, Default)]
struct Message {
    parts: Vec<Option<Box<[u8]>>>,
    missing: usize,
    whole: Vec<u8>,
}

impl Message {
    fn clear(&mut self) {
        self.parts.clear();
        self.whole.clear();
    }

    /// Whether some parts have arrived, but not all.
    fn begun(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Adds a datagram; returns the message when it is complete.
    fn add(&mut self, frame: Frame, body: &[u8]) -> Option<&[u8]> {
        let (at, total) = (frame.sequence as usize, frame.total as usize);
        // Another total, or a part that has arrived already: another message of the same request, so the rest of this
        // one was lost.
        if self.parts.len() != total || self.parts[at].is_some() {
            self.parts.clear();
            self.parts.resize(total, None);
            self.missing = total;
        }
        self.parts[at] = Some(body.into());
        self.missing -= 1;
        if self.missing > 0 {
            return None;
        }
        self.whole.clear();
        for part in self.parts.drain(..).flatten() {
            self.whole.extend_from_slice(&part);
        }
        Some(&self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u16, total: u16) -> Frame {
        Frame {
            id: 1,
            sequence,
            total,
        }
    }

    #[test]
    fn messages_come_together_in_any_order() {
        let mut message = Message::default();
        assert_eq!(message.add(frame(2, 3), b"c"), None);
        assert!(message.begun());
        assert_eq!(message.add(frame(0, 3), b"a"), None);
        assert_eq!(message.add(frame(1, 3), b"b"), Some(&b"abc"[..]));
        assert!(!message.begun());
        assert_eq!(message.add(frame(1, 2), b"y"), None);
        assert_eq!(message.add(frame(0, 2), b"x"), Some(&b"xy"[..]));
    }

    #[test]
    fn a_message_with_a_loss_does_not_spoil_the_next() {
        let mut message = Message::default();
        assert_eq!(message.add(frame(0, 2), b"lost"), None);
        assert_eq!(message.add(frame(0, 2), b"a"), None);
        assert_eq!(message.add(frame(1, 2), b"b"), Some(&b"ab"[..]));
        assert_eq!(message.add(frame(0, 3), b"lost"), None);
        assert_eq!(message.add(frame(1, 2), b"d"), None);
        assert_eq!(message.add(frame(0, 2), b"c"), Some(&b"cd"[..]));
    }
}
