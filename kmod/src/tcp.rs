// SPDX-License-Identifier: GPL-2.0-only
//! The TCP door: one worker a CPU with a listener of its own, and whatever
//! connections that listener got.
//!
//! A worker owns one input and one output buffer for all its connections. An
//! idle connection keeps nothing but the bytes of a command that has not
//! arrived in full. While a peer does not take its replies nothing more is
//! read from it, so that nobody can make the kernel hold more than one
//! buffer's worth of output for a connection.

use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_engine::{Message, Next, Session, Transport};
use hippos_kapi::cpu;
use hippos_kapi::poll::Poll;
use hippos_kapi::roster::Member;
use hippos_kapi::socket::{Ends, Received, Socket};
use hippos_kapi::thread::{Context, Started};

use crate::buffer::Buffer;
use crate::platform::Kernel;
use crate::server::{Kind, Place, Server, Told, CONNECTIONS};

/// Bytes of each of a worker's two buffers.
const BUFFER: usize = 64 << 10;

/// Rounds of receiving and answering before the next connection's turn.
const ROUNDS: usize = 8;

/// How long to leave connections waiting that could not be accepted, for want
/// of memory most likely. Milliseconds.
const ACCEPT_PAUSE: u32 = 2;

/// What a worker starts with.
pub(crate) struct Worker {
    server: Arc<Server>,
    listener: Socket,
    input: KVVec<u8>,
    output: Buffer,
}

impl Worker {
    pub(crate) fn new(server: Arc<Server>, listener: Socket) -> Result<Self> {
        let mut input = KVVec::with_capacity(BUFFER, GFP_KERNEL)?;
        input.resize(BUFFER, 0, GFP_KERNEL)?;
        Ok(Self {
            server,
            listener,
            input,
            output: Buffer::new(BUFFER)?,
        })
    }

    /// The worker's life, on its own thread.
    pub(crate) fn run(mut self, context: &Context, started: Started) {
        let server = &*self.server;
        let Ok(mut poll) = Poll::new(context) else {
            return;
        };
        if poll.add(self.listener, Role::Listener).is_err() {
            return;
        }
        // Told of for as long as the worker lives.
        let Ok(_told) = server.tell(Kind::Listener, &Ends::default()) else {
            return;
        };
        started.ready();
        while !context.should_stop() {
            poll.wait(None);
            while let Some(mut ready) = poll.pop() {
                if context.should_stop() {
                    break;
                }
                let Some((socket, role)) = ready.parts() else {
                    continue;
                };
                match role {
                    Role::Listener => match socket.accept() {
                        Ok(socket) => {
                            ready.again();
                            admit(server, &mut poll, socket);
                        }
                        Err(error) if error == EAGAIN => {}
                        Err(_) => {
                            ready.again();
                            context.sleep(ACCEPT_PAUSE);
                        }
                    },
                    Role::Connection(connection) => {
                        let then = connection.serve(socket, &mut self.input, &mut self.output);
                        connection
                            .told
                            .value()
                            .served(!connection.unsent.is_empty());
                        match then {
                            Then::Wait => {}
                            Then::Again => {
                                CONNECTIONS.note_yield();
                                ready.again();
                            }
                            Then::Close => ready.close(),
                        }
                    }
                }
                cpu::resched();
            }
        }
    }
}

#[allow(clippy::large_enum_variant)] // One listener a worker: its spare bytes are nothing.
enum Role<'e> {
    Listener,
    Connection(Connection<'e>),
}

fn admit<'e>(server: &'e Server, poll: &mut Poll<Role<'e>>, socket: Socket) {
    let ends = socket.ends();
    if !server.config.allow.permits(ends.peer(), ends.is_local()) {
        return;
    }
    let Some(place) = server.take_place() else {
        // Whatever of it does not go out is not worth waiting for.
        let _ = socket.send(b"ERROR Too many open connections\r\n", false);
        return;
    };
    // Without memory for it the connection is closed.
    let Ok(told) = server.tell(Kind::Connection, &ends) else {
        return;
    };
    let connection = Connection {
        session: Session::new(&server.engine, Transport::Tcp),
        rest: KVVec::new(),
        unsent: KVVec::new(),
        next: Next::Read,
        told,
        _place: place,
    };
    let _ = poll.add(socket, Role::Connection(connection));
}

struct Connection<'e> {
    session: Session<'e, Kernel>,
    /// Received but not consumed.
    rest: KVVec<u8>,
    /// Answered but not sent.
    unsent: KVVec<u8>,
    /// What the session wants when `unsent` has gone.
    next: Next,
    told: Member<Told>,
    _place: Place,
}

/// What becomes of a connection after its turn.
enum Then {
    Wait,
    Again,
    Close,
}

impl Connection<'_> {
    /// Receives, answers and sends until the peer has nothing more to say,
    /// takes no more, or the turn is over.
    fn serve(&mut self, socket: &Socket, input: &mut [u8], output: &mut Buffer) -> Then {
        if !self.unsent.is_empty() {
            match socket.send(&self.unsent, false) {
                Ok(sent) if sent == self.unsent.len() => self.unsent = KVVec::new(),
                Ok(sent) => return keep(&mut self.unsent, sent),
                Err(_) => return Then::Close,
            }
        }
        // Bytes of input that wait for the session: start..end.
        let (mut start, mut end) = (0, self.rest.len());
        match input.get_mut(..end) {
            Some(front) => copy(front, &self.rest),
            None => return Then::Close,
        }
        self.rest = KVVec::new();
        for _ in 0..ROUNDS {
            let mut more = true;
            match self.next {
                Next::Close => return Then::Close,
                Next::Write => {}
                Next::Read => {
                    if let Some(fresh) = input.get_mut(..end) {
                        fresh.copy_within(start.min(fresh.len()).., 0);
                    }
                    (start, end) = (0, end.saturating_sub(start));
                    let Some(room) = input.get_mut(end..).filter(|room| !room.is_empty()) else {
                        return Then::Close;
                    };
                    match socket.receive(room) {
                        Ok(Received::Bytes { count, more: m }) => {
                            end = end.saturating_add(count);
                            more = m;
                        }
                        Ok(Received::Nothing) => return self.stow(input, start, end, Then::Wait),
                        Ok(Received::End) | Err(_) => return Then::Close,
                    }
                }
            }
            output.clear();
            let Some(fresh) = input.get(start..end) else {
                return Then::Close;
            };
            let fed = self.session.feed(fresh, output);
            start = start.saturating_add(fed.consumed).min(end);
            self.next = fed.next;
            let writing = matches!(self.next, Next::Write);
            match send_all(socket, output.bytes(), writing) {
                Ok(0) => {}
                Ok(unsent) => {
                    let from = output.len().saturating_sub(unsent);
                    let Some(tail) = output.bytes().get(from..) else {
                        return Then::Close;
                    };
                    if self.unsent.extend_from_slice(tail, GFP_KERNEL).is_err() {
                        return Then::Close;
                    }
                    return self.stow(input, start, end, Then::Wait);
                }
                Err(_) => return Then::Close,
            }
            if !more && matches!(self.next, Next::Read) {
                return self.stow(input, start, end, Then::Wait);
            }
        }
        match self.next {
            Next::Close => Then::Close,
            _ => self.stow(input, start, end, Then::Again),
        }
    }

    /// Keeps what the session has not consumed until the next turn.
    fn stow(&mut self, input: &[u8], start: usize, end: usize, then: Then) -> Then {
        match input.get(start..end) {
            Some([]) => then,
            Some(rest) => match self.rest.extend_from_slice(rest, GFP_KERNEL) {
                Ok(()) => then,
                Err(_) => Then::Close,
            },
            None => Then::Close,
        }
    }
}

/// Sends until the socket takes no more; how many bytes are left.
fn send_all(socket: &Socket, bytes: &[u8], more: bool) -> Result<usize> {
    let mut left = bytes;
    while !left.is_empty() {
        match socket.send(left, more)? {
            0 => break,
            sent => left = left.get(sent..).unwrap_or(&[]),
        }
    }
    Ok(left.len())
}

/// Forgets the first bytes of `unsent`, which have gone.
fn keep(unsent: &mut KVVec<u8>, sent: usize) -> Then {
    let left = unsent.len().saturating_sub(sent);
    let sent = sent.min(unsent.len());
    unsent.copy_within(sent.., 0);
    unsent.truncate(left);
    Then::Wait
}

/// Copies as much as both have.
fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
