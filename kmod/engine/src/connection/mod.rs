// SPDX-License-Identifier: GPL-2.0-only
//! A TCP client's connection without its socket: it moves bytes between a [`Stream`] and a session.
//!
//! # Call contract
//!
//! The host owns the sockets, the threads and the clock. A [`Connection`] has three kinds of methods:
//!
//! - A. Handlers of the stream's events, which receive, answer and send: [`turn`](Connection::turn)
//!   and [`serve_softirq`](Connection::serve_softirq).
//! - B. A poll for the next timeout: [`deadline`](Connection::deadline).
//! - C. Getters, which may be called at any time: [`has_unsent`](Connection::has_unsent) and the like.
//!
//! Calls for one connection do not overlap; the module makes them under the socket's lock. The order:
//!
//! 1. When the connection is new, and whenever the stream has become readable or writable: `turn`,
//!    in process context. Turns without an event do no harm.
//!    When bytes have arrived and no turn is due, `serve_softirq` may be called first, in any context. It serves
//!    the commands that need neither sleep nor a lock, and returns whether a turn has to follow.
//! 2. After each turn: `deadline`, with a clock that never goes back. The host closes the connection
//!    when that second has come; a later answer replaces it. `serve_softirq` changes nothing about it.
//! 3. The turn's [`Action`], which holds until the next turn.
//!
//! Only 3 depends on 2: a connection whose deadline has come is closed, whatever its action.
//!
//! A turn is bounded: at most [`ROUNDS`] of receiving and answering, and at most one command after
//! `over` returns true. It serves at least one command if a whole one is there and the
//! stream takes its reply, so that a host that repeats turns comes to an end.
//!
//! Dropping the connection ends it: a value that is being received gives its memory back.
//!
//! # Between calls
//!
//! - Replies leave in the order of their commands, and each byte once.
//! - No sent byte is still held back for bytes to follow ([`Stream::reply`]).
//! - While the stream does not take a reply nothing more is read, so that a connection holds at most
//!   one reply's pages of output.
//! - Input that the session has not consumed stays with the stream, where it counts against the
//!   peer's window; only the beginning of a command, which the session has to see in one piece, is
//!   taken off and held here. It fits into `input`, which has more than [`LINE_MAX`] bytes.
//! - An idle connection holds no memory.
//!
//! [`LINE_MAX`]: hippos_proto::LINE_MAX

mod host;
mod progress;

pub use host::{Broken, HeldBytes, NoMemory, Pages, Peek, Stream};

use hippos_invariant::Exact;
use hippos_proto::reply::{copy, Out};
use hippos_store::Platform;

use crate::connection::progress::Progress;
use crate::reply::event::CloseReason;
use crate::session::state::{Next, Session};

/// Rounds of receiving and answering in a turn.
pub const ROUNDS: usize = 8;

/// Commands that [`Connection::serve_softirq`] answers at most: in softirq it holds up all else of its CPU.
const SOFTIRQ_COMMANDS_MAX: usize = 64;

/// The host's next step for a connection after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Call another turn when the stream is readable, or writable if [`Connection::has_unsent`].
    Wait,
    /// Call another turn after a moment, in which other connections may free memory, or when the stream is readable.
    Park,
    /// Call another turn without any event, after other connections had theirs.
    Again,
    /// The end: drop the connection and close the stream.
    Close,
}

/// The result of [`Connection::serve_softirq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answered {
    /// Nothing was answered, or a reply was not sent completely: a turn has to follow.
    None,
    /// Some commands were answered; a turn has to serve the rest.
    Some,
    /// All that had arrived was answered.
    All,
}

/// The source of a round's input.
enum Intake {
    /// Bytes of the stream that are consumed once the reply is sent.
    Taken(usize),
    /// Nothing was fed: the bytes are not contiguous.
    Scattered,
    /// Nothing was fed: no bytes have arrived.
    Nothing,
    /// Nothing was fed: no more bytes will arrive, or none that form a command.
    End,
}

/// A connection: its session, and the bytes that neither the session nor the stream has accepted. `I` holds input and
/// `O` output between turns.
pub struct Connection<'e, P: Platform, I: HeldBytes, O: HeldBytes> {
    session: Session<'e, P>,
    /// Taken from the stream but not consumed: the beginning of a command.
    rest: I,
    /// Written but not sent: at most one reply's pages.
    unsent: O,
    /// The session's next need once `unsent` is sent.
    next: Next,
    /// The progress of the value that is being received.
    progress: Option<Progress>,
    /// The client has closed its side, and all it sent was served.
    ended: bool,
}

impl<'e, P: Platform, I: HeldBytes, O: HeldBytes> Connection<'e, P, I, O> {
    /// A new client's connection.
    pub fn new(session: Session<'e, P>) -> Self {
        Self {
            session,
            rest: I::default(),
            unsent: O::default(),
            next: Next::Read,
            progress: None,
            ended: false,
        }
    }

    /// Whether replies wait until the stream accepts them.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.bytes().is_empty()
    }

    /// Whether the client watches: see the `watch` command.
    pub fn is_watching(&self) -> bool {
        self.session.is_watching()
    }

    /// Whether the next byte of the stream begins a command, and does not belong to an earlier one.
    pub fn awaits_command(&self) -> bool {
        self.session.idle() && self.rest.bytes().is_empty()
    }

    /// The key of the value that is being received.
    pub fn receiving_key(&self) -> Option<&[u8]> {
        self.session.receiving_key()
    }

    /// The number of commands served since the last call, by either handler.
    pub fn take_served(&mut self) -> u32 {
        self.session.take_served()
    }

    /// Why the connection ends, after a turn that returned [`Action::Close`]: by the client's request, or not. As in
    /// memcached, the end of a watcher's connection counts as an error.
    pub fn close_reason(&self) -> CloseReason {
        if self.session.quit() || self.ended && !self.is_watching() {
            CloseReason::Normal
        } else {
            CloseReason::Error
        }
    }

    /// The second of uptime at which the value that is being received, or sent in pieces, times out. `None` without
    /// such a value, or if `timeout` is 0.
    pub fn deadline(&mut self, now: u32, timeout: u32) -> Option<u32> {
        let transfer = self.session.transfer().filter(|_| timeout != 0);
        let unsent = self.unsent.bytes().len();
        self.progress = transfer.map(|(number, moved)| {
            // Bytes of a reply have left only when the stream has taken them. Unsent bytes are more than those moved if
            // they include the reply's header or an earlier reply.
            Progress::note(self.progress, number, moved.saturating_sub(unsent), now)
        });
        self.progress.map(|progress| progress.deadline(timeout))
    }

    /// Answers plain `get`s of small values when no other operation is in progress. All other commands are left to a
    /// turn.
    ///
    /// Softirq-safe. `open` begins a reply, if there is memory for it.
    #[inline]
    pub fn serve_softirq<'r, S: Stream>(
        &mut self,
        stream: &mut S,
        open: impl FnOnce() -> Option<S::Reply<'r>>,
    ) -> Answered {
        let idle = self.next == Next::Read && self.rest.bytes().is_empty();
        if !idle || self.has_unsent() {
            return Answered::None;
        }
        let Peek::Bytes(bytes) = stream.peek() else {
            return Answered::None;
        };
        if !Session::<P>::may_feed_softirq(bytes) || !stream.takes() {
            return Answered::None;
        }
        let Some(mut reply) = open() else {
            return Answered::None;
        };
        let before = self.session.served();
        let fed = self
            .session
            .feed_softirq(bytes, SOFTIRQ_COMMANDS_MAX, &mut reply);
        let whole = fed == bytes.len();
        if fed == 0 {
            return Answered::None;
        }
        match stream.reply(reply, false) {
            Ok([]) => {}
            // The stream accepts nothing, or has an error: a turn handles both. If the reply was sent in part, its rest
            // has to follow.
            Ok(left) => {
                if self.unsent.append_atomic(left).is_err() {
                    self.next = Next::Close;
                }
                stream.consume(fed);
                return Answered::None;
            }
            // The input stays in the stream, but must not be fed again: its commands were counted.
            Err(Broken) => {
                self.next = Next::Close;
                return Answered::None;
            }
        }
        stream.consume(fed);
        if whole && matches!(stream.peek(), Peek::Nothing) {
            return Answered::All;
        }
        let served = self.session.served().wrapping_sub(before);
        if served as usize == SOFTIRQ_COMMANDS_MAX {
            self.session.note_yield();
        }
        Answered::Some
    }

    /// Receives, answers and sends until the peer has sent nothing more, accepts no more, or the turn ends: after
    /// [`ROUNDS`], or as soon as `over` returns true.
    ///
    /// Process context; may sleep. `input` is used to assemble commands that arrive in pieces. Its contents do not
    /// matter between turns, so that connections may share it.
    pub fn turn<S: Stream>(
        &mut self,
        stream: &mut S,
        input: &mut [u8],
        pages: &mut impl Pages<S>,
        over: impl Fn() -> bool,
    ) -> Action {
        if self.has_unsent() {
            let unsent = self.unsent.bytes();
            match stream.send(unsent) {
                Ok(sent) if sent == unsent.len() => self.unsent = O::default(),
                Ok(sent) => {
                    self.unsent.discard(sent);
                    return Action::Wait;
                }
                Err(Broken) => return Action::Close,
            }
        }
        // Bytes in `input` that wait for the rest of their command.
        let mut held = self.rest.bytes().len();
        if held != 0 {
            match input.get_mut(..held) {
                Some(front) => copy(front, self.rest.bytes()),
                None => return Action::Close,
            }
            self.rest = I::default();
        }
        for round in 1..=ROUNDS {
            if self.next == Next::Close {
                return Action::Close;
            }
            let Some(mut reply) = pages.open() else {
                return Action::Close;
            };
            let fed = if held == 0 {
                self.feed_in_place(stream, input, &mut held, &mut reply, &over)
            } else {
                Intake::Scattered
            };
            let fed = match fed {
                Intake::Scattered => self.feed_copied(stream, input, &mut held, &mut reply, &over),
                fed => fed,
            };
            let taken = match fed {
                Intake::Taken(taken) => taken,
                Intake::Nothing => return self.hold(input, held, Action::Wait),
                Intake::End => {
                    self.ended = true;
                    return Action::Close;
                }
                Intake::Scattered => return Action::Close,
            };
            let ends = over();
            // Bytes may be held back only for the rest of their value. After a page that is full for another reason,
            // perhaps no reply follows, and the peer would wait for TCP's timer.
            let more = self.session.is_sending() && !ends && round < ROUNDS;
            match stream.reply(reply, more) {
                Ok([]) => {
                    stream.consume(taken);
                    if matches!(self.next, Next::Park | Next::Watch) {
                        return self.hold(input, held, Action::Park);
                    }
                    if ends {
                        break;
                    }
                }
                Ok(left) => {
                    if self.unsent.append(left).is_err() {
                        return Action::Close;
                    }
                    stream.consume(taken);
                    return self.hold(input, held, Action::Wait);
                }
                Err(Broken) => return Action::Close,
            }
        }
        if self.next == Next::Close {
            return Action::Close;
        }
        let waiting = || held != 0 || matches!(stream.peek(), Peek::Bytes(_) | Peek::Scattered);
        if self.session.idle() && waiting() {
            self.session.note_yield();
        }
        self.hold(input, held, Action::Again)
    }

    /// Feeds the session with the contiguous bytes of the stream. The beginning of a command at their end is copied to
    /// `input`.
    #[inline]
    fn feed_in_place<S: Stream>(
        &mut self,
        stream: &S,
        input: &mut [u8],
        held: &mut usize,
        reply: &mut impl Out,
        over: &impl Fn() -> bool,
    ) -> Intake {
        let (reads, watches) = (self.next == Next::Read, self.next == Next::Watch);
        let bytes = match stream.peek() {
            Peek::Bytes(bytes) => bytes,
            Peek::Scattered => return Intake::Scattered,
            Peek::Nothing if reads => return Intake::Nothing,
            Peek::End if reads || watches => return Intake::End,
            Peek::Nothing | Peek::End => &[],
        };
        let fed = self.session.feed_until(bytes, reply, over);
        self.next = fed.next;
        let rest = bytes.get(fed.consumed..).unwrap_or(&[]);
        if self.next != Next::Read || rest.is_empty() {
            return Intake::Taken(fed.consumed);
        }
        // The end of its command is in the next buffer.
        let Some(front) = input.get_mut(..rest.len()) else {
            return Intake::End;
        };
        copy(front, rest);
        *held = rest.len();
        Intake::Taken(bytes.len())
    }

    /// Feeds the session with the bytes in `input`, followed by a copy of what has arrived since.
    fn feed_copied<S: Stream>(
        &mut self,
        stream: &S,
        input: &mut [u8],
        held: &mut usize,
        reply: &mut impl Out,
        over: &impl Fn() -> bool,
    ) -> Intake {
        let before = *held;
        let mut fresh = 0;
        if matches!(self.next, Next::Read | Next::Watch) {
            // A command that does not fit is longer than any valid one.
            let Some(spare) = input.get_mut(before..).filter(|spare| !spare.is_empty()) else {
                return Intake::End;
            };
            fresh = stream.copy(spare);
            if fresh == 0 {
                return match stream.peek() {
                    Peek::Nothing => Intake::Nothing,
                    _ => Intake::End,
                };
            }
        }
        let len = before.add_exact(fresh);
        let Some(bytes) = input.get_mut(..len) else {
            return Intake::End;
        };
        let fed = self.session.feed_until(bytes, reply, over);
        self.next = fed.next;
        let consumed = fed.consumed.min(len);
        bytes.copy_within(consumed.., 0);
        if self.next == Next::Read {
            *held = len.sub_exact(consumed);
            return Intake::Taken(fresh);
        }
        // Bytes that the session accepts later stay in the stream, where they count against the peer's window.
        *held = before.saturating_sub(consumed);
        Intake::Taken(consumed.saturating_sub(before))
    }

    /// Keeps the bytes that the session has not consumed until the next turn.
    fn hold(&mut self, input: &[u8], held: usize, action: Action) -> Action {
        match input.get(..held) {
            Some([]) => action,
            Some(rest) => match self.rest.append(rest) {
                Ok(()) => action,
                Err(NoMemory) => Action::Close,
            },
            None => Action::Close,
        }
    }
}
