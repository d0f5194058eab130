// SPDX-License-Identifier: GPL-2.0-only
//! The TCP door: one worker a CPU with a listener of its own, and whatever
//! connections that listener got.
//!
//! A worker owns one input and one output buffer for all its connections. An
//! idle connection keeps nothing but the bytes of a command that has not
//! arrived in full. While a peer does not take its replies nothing more is
//! read from it, so that nobody can make the kernel hold more than one
//! buffer's worth of output for a connection.

use kernel::alloc::flags::__GFP_NOWARN;
use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_engine::{Access, Next, Session, Tally, Transport};
use hippos_kapi::cpu;
use hippos_kapi::poll::{Poll, Serve};
use hippos_kapi::roster::Member;
use hippos_kapi::socket::{Ends, Socket};
use hippos_kapi::stream::{Here, Locked, Peek, Room, Stream};
use hippos_kapi::thread::{Context, Started};

use crate::buffer::Sheet;
use crate::platform::Kernel;
use crate::server::{Kind, Place, Server, Told, CONNECTIONS};
use crate::steer::Seat;

/// Bytes of a worker's buffer for commands that arrive in pieces.
const INPUT: usize = 64 << 10;

/// Commands that a callback answers at most: it holds up whatever else this
/// CPU has to do.
const QUICK: usize = 64;

/// Rounds of receiving and answering before the next connection's turn.
const ROUNDS: usize = 8;

/// How long a turn may take as well, in ticks of the kernel's clock (1 to 10 ms each): some commands
/// copy a large value, or wait for memory.
const TURN: u32 = 2;

/// Sockets that are served before the worker looks at those that were put aside.
const READY: usize = 64;

/// How long connections that need memory are left waiting, milliseconds.
const PARK: u32 = 1;

/// How often those are looked at whose value does not come, milliseconds.
const LOOK_EVERY: u32 = 1000;

/// Bytes a second that a value which takes longer than its time-out has to come with.
const UPLOAD_RATE: usize = 4096;

/// How long to leave connections waiting that could not be accepted, for want
/// of memory most likely. Milliseconds.
const ACCEPT_PAUSE: u32 = 2;

/// What a worker starts with.
pub(crate) struct Worker {
    server: Arc<Server>,
    listener: Socket,
    input: KVVec<u8>,
    room: Room,
    seat: Seat,
}

impl Worker {
    pub(crate) fn new(server: Arc<Server>, listener: Socket, cpu: u32) -> Result<Self> {
        Ok(Self {
            server,
            listener,
            input: KVVec::from_elem(0, INPUT, GFP_KERNEL)?,
            room: Room::new()?,
            seat: Seat::new(cpu),
        })
    }

    /// The worker's life, on its own thread.
    pub(crate) fn run(mut self, context: &Context, started: Started) {
        let server = &*self.server;
        let Ok(mut poll) = Poll::new(context) else {
            return;
        };
        if poll.add(self.listener).is_err() {
            return;
        }
        // Told of for as long as the worker lives.
        let Ok(_told) = server.tell(Kind::Listener, &Ends::default()) else {
            return;
        };
        started.ready();
        let timeout = server.config.params.upload_timeout;
        let mut looked = 0;
        while !context.should_stop() {
            poll.wait(match (poll.has_parked(), poll.has_deadlines()) {
                (true, _) => Some(PARK),
                (false, true) => Some(LOOK_EVERY),
                (false, false) => None,
            });
            poll.unpark();
            let now = CONNECTIONS.uptime();
            if now != looked {
                looked = now;
                poll.expire(now);
            }
            self.seat.take(context);
            for _ in 0..READY {
                let Some(mut ready) = poll.pop() else {
                    break;
                };
                if context.should_stop() {
                    break;
                }
                let turn = ready.connection(|stream, connection: &mut Connection<'_>| {
                    let then = connection.turn(stream, &mut self.input, &mut self.room);
                    let waits = !connection.unsent.is_empty();
                    connection.told.value().served(waits);
                    let deadline = connection.progress(timeout);
                    if deadline.is_some_and(|at| at <= now) {
                        server.engine.tally(Tally::UploadsTimedOut, 1);
                        return (Then::Close, None);
                    }
                    (then, deadline)
                });
                let then = turn.map(|(then, deadline)| {
                    ready.set_deadline(deadline);
                    then
                });
                match then {
                    Some(Then::Wait) => {}
                    Some(Then::Park) => ready.park(),
                    Some(Then::Again) => {
                        CONNECTIONS.note_yield();
                        ready.again();
                    }
                    Some(Then::Close) => ready.close(),
                    None => match ready.socket().map(Socket::accept) {
                        Some(Ok(socket)) => {
                            ready.again();
                            admit(server, &mut poll, socket);
                        }
                        Some(Err(error)) if error == EAGAIN => {}
                        Some(Err(_)) => {
                            ready.again();
                            context.sleep(ACCEPT_PAUSE);
                        }
                        None => {}
                    },
                }
                cpu::resched();
            }
        }
    }
}

fn admit<'e>(server: &'e Server, poll: &mut Poll<Connection<'e>>, socket: Socket) {
    let ends = socket.ends();
    let engine = &*server.engine;
    let access = engine.access(&engine.store.read(), ends.peer_ip(), ends.is_local());
    if access == Access::Refused {
        engine.tally(Tally::TcpRefused, 1);
        return;
    }
    let Some(place) = server.take_place() else {
        // Whatever of it does not go out is not worth waiting for.
        let mut locked = Locked::new(&socket);
        let _ = locked.stream().send(b"ERROR Too many open connections\r\n");
        return;
    };
    // Without memory for it the connection is closed.
    let Ok(told) = server.tell(Kind::Connection, &ends) else {
        return;
    };
    let mut session = Session::new(engine, Transport::Tcp).parks();
    session.set_local(ends.is_local());
    let connection = Connection {
        session,
        rest: KVVec::new(),
        unsent: KVec::new(),
        next: Next::Read,
        upload: None,
        told,
        _place: place,
    };
    let _ = poll.add_connection(socket, connection);
}

/// Touched by whoever holds the socket's lock: the worker in its turn, or a
/// callback in softirq.
struct Connection<'e> {
    session: Session<'e, Kernel>,
    /// Received but not consumed: the beginning of a command.
    rest: KVVec<u8>,
    /// Answered but not sent.
    ///
    /// At most a room's bytes, and never `vmalloc`'s: a callback may add to it.
    unsent: KVec<u8>,
    /// What the session wants when `unsent` has gone.
    next: Next,
    /// The value that is on its way.
    upload: Option<Upload>,
    told: Member<Told>,
    _place: Place,
}

/// How a value has got on, in seconds of uptime.
#[derive(Clone, Copy)]
struct Upload {
    /// Which of the session's it is.
    number: u32,
    began: u32,
    /// When the last byte came.
    last: u32,
    /// Bytes.
    come: usize,
}

/// What becomes of a connection after its turn.
enum Then {
    Wait,
    /// It waits for memory, of which others may give some back.
    Park,
    Again,
    Close,
}

impl Serve for Connection<'_> {
    /// Answers plain `get`s of small values where their packet arrives, when
    /// nothing else is under way. All other commands are the worker's.
    fn serve(&mut self, stream: &mut Stream<'_>, here: Here<'_>) -> bool {
        if self.next != Next::Read || !self.rest.is_empty() || !self.unsent.is_empty() {
            return false;
        }
        let Peek::Bytes(bytes) = stream.peek() else {
            return false;
        };
        if !Session::<Kernel>::is_quick(bytes) || !stream.takes() {
            return false;
        }
        let Some(reply) = here.open() else {
            return false;
        };
        let mut sheet = Sheet(reply);
        let fed = self.session.feed_quick(bytes, QUICK, &mut sheet);
        let whole = fed == bytes.len();
        if fed == 0 {
            return false;
        }
        match stream.reply(sheet.0, false) {
            Ok([]) => {}
            // It takes nothing or an error waits: the worker sees to both. What did go out in part
            // has to be followed by the rest.
            Ok(left) => {
                let flags = GFP_ATOMIC | __GFP_NOWARN;
                if self.unsent.extend_from_slice(left, flags).is_err() {
                    self.next = Next::Close;
                }
                stream.consume(fed);
                return false;
            }
            // What was served must not be served again: it was counted.
            Err(_) => {
                self.next = Next::Close;
                return false;
            }
        }
        stream.consume(fed);
        self.told.value().served(false);
        whole && matches!(stream.peek(), Peek::Nothing)
    }
}

impl Connection<'_> {
    /// Notes how the value that is on its way has got on, and tells when it will have taken too long:
    /// without a byte for `timeout` seconds, or with fewer than [`UPLOAD_RATE`] a second over a longer
    /// time. `None` for no value, or no limit.
    fn progress(&mut self, timeout: u32) -> Option<u32> {
        let Some((number, come)) = self.session.receiving().filter(|_| timeout != 0) else {
            self.upload = None;
            return None;
        };
        let now = CONNECTIONS.uptime();
        let upload = match self.upload {
            Some(upload) if upload.number == number && upload.come == come => upload,
            Some(upload) if upload.number == number => Upload {
                last: now,
                come,
                ..upload
            },
            _ => Upload {
                number,
                began: now,
                last: now,
                come,
            },
        };
        self.upload = Some(upload);
        let idle = upload.last.saturating_add(timeout);
        let slow = upload.began.saturating_add(timeout);
        let slow = slow.saturating_add((come / UPLOAD_RATE) as u32);
        // The clock goes by whole seconds.
        Some(idle.min(slow).saturating_add(1))
    }

    /// Receives, answers and sends until the peer has nothing more to say,
    /// takes no more, or the turn is over.
    fn turn(&mut self, stream: &mut Stream<'_>, input: &mut [u8], room: &mut Room) -> Then {
        if !self.unsent.is_empty() {
            match stream.send(&self.unsent) {
                Ok(sent) if sent == self.unsent.len() => self.unsent = KVec::new(),
                Ok(sent) => return keep(&mut self.unsent, sent),
                Err(_) => return Then::Close,
            }
        }
        let began = cpu::ticks();
        let over = || cpu::ticks().wrapping_sub(began) >= TURN;
        // Bytes in the buffer that wait for the rest of their command.
        let mut held = 0;
        if !self.rest.is_empty() {
            held = self.rest.len();
            match input.get_mut(..held) {
                Some(front) => copy(front, &self.rest),
                None => return Then::Close,
            }
            self.rest = KVVec::new();
        }
        for round in 1..=ROUNDS {
            if self.next == Next::Close {
                return Then::Close;
            }
            let Some(reply) = room.open() else {
                return Then::Close;
            };
            let mut sheet = Sheet(reply);
            // What of the received bytes is done with when the answers have left.
            let mut taken = 0;
            let reads = self.next == Next::Read;
            let mut whole = None;
            if held == 0 {
                match stream.peek() {
                    Peek::Bytes(bytes) => {
                        let fed = self.session.feed_until(bytes, &mut sheet, over);
                        self.next = fed.next;
                        taken = fed.consumed;
                        let rest = bytes.get(fed.consumed..).unwrap_or(&[]);
                        if self.next == Next::Read && !rest.is_empty() {
                            // The end of its command lies in the next buffer.
                            let Some(front) = input.get_mut(..rest.len()) else {
                                return Then::Close;
                            };
                            copy(front, rest);
                            held = rest.len();
                            taken = bytes.len();
                        }
                        whole = Some(taken);
                    }
                    Peek::Scattered => {}
                    Peek::Nothing if reads => return Then::Wait,
                    Peek::End if reads => return Then::Close,
                    Peek::Nothing | Peek::End => {
                        self.next = self.session.feed_until(&[], &mut sheet, over).next;
                        whole = Some(0);
                    }
                }
            }
            if whole.is_none() {
                let mut fresh = 0;
                if reads {
                    let Some(spare) = input.get_mut(held..).filter(|spare| !spare.is_empty())
                    else {
                        return Then::Close;
                    };
                    fresh = stream.copy(spare);
                    if fresh == 0 {
                        return match stream.peek() {
                            Peek::Nothing => self.stow(input, held, Then::Wait),
                            _ => Then::Close,
                        };
                    }
                }
                let before = held;
                held = held.saturating_add(fresh);
                let Some(bytes) = input.get_mut(..held) else {
                    return Then::Close;
                };
                let fed = self.session.feed_until(bytes, &mut sheet, over);
                self.next = fed.next;
                let consumed = fed.consumed.min(held);
                bytes.copy_within(consumed.., 0);
                held = held.saturating_sub(consumed);
                taken = fresh;
                if self.next != Next::Read {
                    // What the session takes later stays with the socket, which counts it.
                    held = before.saturating_sub(consumed);
                    taken = consumed.saturating_sub(before);
                }
            }
            let ends = over();
            // Bytes are held back for the rest of their value alone. What else a full page keeps
            // from being served may get no reply, and the peer would wait for TCP's timer.
            let more = self.session.is_sending() && !ends && round < ROUNDS;
            match stream.reply(sheet.0, more) {
                Ok([]) => {
                    stream.consume(taken);
                    if self.next == Next::Later {
                        return self.stow(input, held, Then::Park);
                    }
                    if ends {
                        break;
                    }
                }
                Ok(left) => {
                    if self.unsent.extend_from_slice(left, GFP_KERNEL).is_err() {
                        return Then::Close;
                    }
                    stream.consume(taken);
                    return self.stow(input, held, Then::Wait);
                }
                Err(_) => return Then::Close,
            }
        }
        match self.next {
            Next::Close => Then::Close,
            _ => self.stow(input, held, Then::Again),
        }
    }

    /// Keeps what the session has not consumed until the next turn.
    fn stow(&mut self, input: &[u8], held: usize, then: Then) -> Then {
        match input.get(..held) {
            Some([]) => then,
            Some(rest) => match self.rest.extend_from_slice(rest, GFP_KERNEL) {
                Ok(()) => then,
                Err(_) => Then::Close,
            },
            None => Then::Close,
        }
    }
}

/// Forgets the first bytes of `unsent`, which have gone.
fn keep(unsent: &mut KVec<u8>, sent: usize) -> Then {
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
