// SPDX-License-Identifier: GPL-2.0-only
//! A session's state, and the operation that it is in the middle of.

use hippos_invariant::Exact;
use hippos_proto::binary::Status;
use hippos_proto::reply::Out;
use hippos_semantics::Administration;
use hippos_store::{Commit, Expiry, Item, Pin, Platform, Reservation};

use crate::counters::EngineCounter;
use crate::host_stats::{Change, Refusal};
use crate::refusals::RefusalCounter;
use crate::reply::binary::BinaryRequest;
use crate::reply::meta::MetaSet;
use crate::reply::REPLY_HEADER_MAX;
use crate::session::listing::Listing;
use crate::session::watcher::Watcher;
use crate::uploads::Share;
use crate::Engine;

/// The client's transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream.
    Tcp,
    /// One datagram: no more input follows.
    Udp,
}

/// The session's next need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More input, after the bytes that were not consumed.
    Read,
    /// Space for replies: send the written bytes, then feed again (the bytes that were not consumed, even if there are
    /// none).
    Write,
    /// Memory, for a session that [parks](Session::with_parking): send the written bytes, then feed again after a
    /// moment, in which other clients may free some.
    Park,
    /// Like [`Read`](Self::Read), but also after a moment without input, to write new events.
    Watch,
    /// The end: send the written bytes, then close.
    Close,
}

/// The result of feeding a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedResult {
    /// Bytes that were consumed. The rest, which is shorter than [`LINE_MAX`] plus a line end if more input is needed,
    /// has to be fed again with the next call.
    pub consumed: usize,
    /// The next step.
    pub next: Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// The first byte decides.
    Unknown,
    Text,
    Binary,
}

/// The operation that a session is in the middle of.
pub(super) enum State<'e, P: Platform> {
    /// Waiting for a command.
    Command,
    /// In a list of keys.
    Keys(Keys),
    /// In a value to be stored.
    Data(PendingStore<'e, P>),
    /// Skipping this many bytes.
    Swallow(u64, AfterSwallow),
    /// Skipping a line; this is the reply when it ends.
    SkipLine(&'static [u8]),
    /// Receiving a name and a password, of this many bytes.
    Login(u32),
    /// Sending a reply of many lines.
    Listing(Listing<'e, P>),
    /// Sending events to a watcher.
    Watching(Watcher<'e, P>),
    /// Done.
    Closing,
}

/// The reply after skipped bytes. Like memcached, the session reports the error only when it has received them all.
#[derive(Clone, Copy)]
pub(super) enum AfterSwallow {
    /// A reply line, or nothing.
    Say(&'static [u8]),
    /// An error of the binary protocol.
    Refuse(BinaryRequest, Status),
    /// Like `Refuse`, and the connection ends.
    Close(BinaryRequest, Status),
    /// There is no memory for the value.
    NoMemory(BinaryRequest),
}

/// A list of keys that is being answered.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub(super) cas: bool,
    pub(super) touch: Option<Expiry>,
}

/// A value being received.
pub(super) struct PendingStore<'e, P: Platform> {
    pub(super) reservation: Reservation<'e, P>,
    /// Held until the value is stored or given up.
    _share: Share<'e>,
    pub(super) commit: Commit,
    pub(super) reply: StoreReply,
    /// The bytes of the line end that have arrived.
    pub(super) end: [u8; 2],
    pub(super) ended: u8,
}

/// How the command is answered whose value is received.
pub(super) enum StoreReply {
    /// A text command.
    Text {
        /// The client asked for no reply.
        noreply: bool,
    },
    /// `ms`.
    Meta(MetaSet),
    /// A binary command.
    Binary(BinaryRequest),
}

impl<'e, P: Platform> PendingStore<'e, P> {
    pub(super) fn new(
        (reservation, share): (Reservation<'e, P>, Share<'e>),
        commit: Commit,
        reply: StoreReply,
    ) -> Self {
        Self {
            reservation,
            _share: share,
            commit,
            reply,
            end: [0; 2],
            ended: 0,
        }
    }
}

/// A value that did not fit into the output, and is sent in pieces.
pub(super) struct Sending<'e, P: Platform> {
    pin: Pin<'e, P>,
    sent: usize,
    /// The bytes after the value.
    tail: &'static [u8],
}

impl<P: Platform> Sending<'_, P> {
    /// Writes as much as fits; `false` if there is more.
    pub(super) fn push(&mut self, out: &mut impl Out) -> bool {
        let rest = self.pin.value().get(self.sent..).unwrap_or(&[]);
        let part = rest.get(..out.room()).unwrap_or(rest);
        out.put(part);
        self.sent = self.sent.add_exact(part.len());
        if part.len() < rest.len() || out.room() < self.tail.len() {
            return false;
        }
        out.put(self.tail);
        true
    }
}

/// How the value of a reply is sent. Decided before the command changes anything, so that no change is made, and no token
/// given out, by a command whose reply cannot be sent.
pub(super) enum SendMode<'e, P: Platform> {
    /// It fits, or there is no value.
    Whole,
    /// In pieces.
    Pieces(Pin<'e, P>),
}

/// The result of one step.
pub(super) enum FeedStep {
    /// It consumed this many bytes; continue.
    Took(usize),
    /// It needs more input.
    Read,
    /// It needs more space for replies.
    Write,
    /// It needs memory.
    Park,
    /// It waits for an event.
    Watch,
    /// The connection ends.
    Close,
}

/// Where a client is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// On any host.
    Network,
    /// On this host.
    Local,
    /// It uses the control device.
    Owner,
}

/// A client's session. See [`feed`](Self::feed).
pub struct Session<'e, P: Platform> {
    pub(super) engine: &'e Engine<P>,
    pub(super) transport: Transport,
    /// The client's number, for events.
    pub(super) number: u32,
    pub(super) origin: Origin,
    pub(super) protocol: Protocol,
    pub(super) state: State<'e, P>,
    pub(super) sending: Option<Sending<'e, P>>,
    pub(super) commands: u32,
    /// The commands since the last [`take_served`](Self::take_served).
    pub(super) served: u32,
    /// The client has authenticated, or does not have to.
    pub(super) authenticated: bool,
    /// The client sent `quit`, as opposed to a connection that the server closes.
    pub(super) quit: bool,
    /// The host feeds it again after it had to wait for memory.
    pub(super) may_park: bool,
    /// Number of values that it has begun to receive, or to send in pieces.
    pub(super) transfers: u32,
    /// How long the current command has waited for memory: see `upload.rs`.
    pub(super) waited: u32,
    /// The current command waits for memory.
    pub(super) park_requested: bool,
    /// A value was found that does not fit into the reply to a datagram.
    pub(crate) too_large_for_udp: bool,
}

impl<'e, P: Platform> Session<'e, P> {
    /// The session of the administrator, who may use all commands.
    pub fn owner(engine: &'e Engine<P>) -> Self {
        Self {
            authenticated: true,
            origin: Origin::Owner,
            ..Self::new(engine, Transport::Tcp)
        }
    }

    /// A new client's session.
    pub fn new(engine: &'e Engine<P>, transport: Transport) -> Self {
        Self {
            authenticated: !engine.authentication(),
            engine,
            transport,
            number: engine.udp_number(),
            origin: Origin::Network,
            protocol: Protocol::Unknown,
            state: State::Command,
            sending: None,
            commands: 0,
            served: 0,
            quit: false,
            may_park: false,
            transfers: 0,
            waited: 0,
            park_requested: false,
            too_large_for_udp: false,
        }
    }

    /// Leaves waiting for memory to the host, which can serve other clients meanwhile: see [`Next::Park`].
    pub fn with_parking(mut self) -> Self {
        self.may_park = true;
        self
    }

    /// While a value is being received, or sent in pieces: its number in the session, and how many of its bytes have
    /// arrived or were taken.
    pub fn transfer(&self) -> Option<(u32, usize)> {
        let moved = match (&self.sending, &self.state) {
            (Some(sending), _) => sending.sent,
            // A value that waits to be joined has arrived.
            (None, State::Data(data)) if self.waited == 0 => data.reservation.written().len(),
            _ => return None,
        };
        Some((self.transfers, moved))
    }

    /// The key of the value that is being received.
    pub fn receiving_key(&self) -> Option<&[u8]> {
        match &self.state {
            State::Data(data) => Some(data.reservation.key()),
            _ => None,
        }
    }

    /// Whether the session ended because its client sent `quit`.
    pub fn quit(&self) -> bool {
        self.quit
    }

    /// Whether no command, value or reply is in progress.
    pub fn idle(&self) -> bool {
        matches!(self.state, State::Command) && self.sending.is_none()
    }

    /// Whether a value that did not fit is being sent: then the next [`feed`](Self::feed) writes something, for any
    /// input.
    pub fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Counts that commands were left to a later turn. As in memcached the limit of a turn is meant: the rest of a
    /// value or of a reply, or a wait for memory, is none.
    pub(crate) fn note_yield(&self) {
        self.engine.tally(EngineCounter::Yields, 1);
    }

    /// The number of commands served since the last [`take_served`](Self::take_served).
    pub(crate) fn served(&self) -> u32 {
        self.served
    }

    /// The number of commands served since the last call.
    pub(crate) fn take_served(&mut self) -> u32 {
        core::mem::take(&mut self.served)
    }

    /// The client asked to end the connection.
    pub(super) fn begin_quit(&mut self) {
        self.quit = true;
        self.state = State::Closing;
    }

    /// The server ends the connection.
    pub(super) fn begin_close(&mut self) {
        self.state = State::Closing;
    }

    /// Skips `left` bytes of input, and then does `then`.
    pub(super) fn swallow(&mut self, left: u64, then: AfterSwallow) {
        self.state = State::Swallow(left, then);
    }

    /// Whether a reply of `len` bytes can be sent, with this much space. Only the whole reply to a datagram has a maximum:
    /// the space is [`REPLY_HEADER_MAX`] more than that, so that replies whose length is not known before can be written.
    pub(super) fn may_reply(&self, len: impl FnOnce() -> usize, room: usize) -> bool {
        self.transport == Transport::Tcp || len().add_exact(REPLY_HEADER_MAX) <= room
    }

    /// How to send the value of `item` and `tail` behind a header, whose exact length is `head`, with this much space.
    /// None if the item has 255 pins already, or pinned items too much memory: too many clients are reading. Over UDP
    /// also if it does not fit.
    pub(super) fn send_mode(
        &self,
        item: &Item<'_>,
        head: impl FnOnce() -> usize,
        tail: &[u8],
        room: usize,
    ) -> Option<SendMode<'e, P>> {
        let whole = item.value().len().add_exact(tail.len());
        if self.transport == Transport::Udp {
            let may = self.may_reply(|| head().add_exact(whole), room);
            return may.then_some(SendMode::Whole);
        }
        if whole.add_exact(REPLY_HEADER_MAX) <= room {
            return Some(SendMode::Whole);
        }
        let may_pin = self.engine.may_pin(item);
        let pin = may_pin.then(|| self.engine.store.pin(item)).flatten();
        pin.map(SendMode::Pieces)
    }

    /// Called when [`send_mode`](Self::send_mode) returned None: true if that is because of UDP. Then the datagram gets
    /// no other reply, and no command after this one is served.
    pub(super) fn refuse_datagram(&mut self) -> bool {
        let udp = self.transport == Transport::Udp;
        if udp {
            self.too_large_for_udp = true;
            self.begin_close();
        }
        udp
    }

    /// Writes the value of `item` and `tail`, whose header was written; the rest that does not fit is written later.
    pub(super) fn send(
        &mut self,
        item: &Item<'_>,
        mode: SendMode<'e, P>,
        tail: &'static [u8],
        out: &mut impl Out,
    ) {
        match mode {
            SendMode::Whole => {
                out.put(item.value());
                out.put(tail);
            }
            SendMode::Pieces(pin) => {
                self.transfers = self.transfers.wrapping_add(1);
                self.sending = Some(Sending { pin, sent: 0, tail });
            }
        }
    }

    /// Sets the client's number, as in `stats conns`.
    pub fn set_number(&mut self, number: u32) {
        self.number = number;
    }

    /// Sets whether the client is on this host.
    pub fn set_local(&mut self, local: bool) {
        self.origin = if local {
            Origin::Local
        } else {
            Origin::Network
        };
    }

    /// Reports a change to the host, unless the administrator made it, whose tool does that.
    pub(super) fn report(&self, change: Change) {
        if self.origin != Origin::Owner {
            self.engine.host_stats.changed(self.number, change);
        }
    }

    /// Whether the client may use administration commands; a refusal is counted.
    pub(super) fn administers(&self) -> bool {
        let may = match (self.origin, self.engine.administration()) {
            (Origin::Owner, _) | (_, Administration::Network) => true,
            // The source of a datagram may be forged.
            (Origin::Local, Administration::Local) => self.transport == Transport::Tcp,
            _ => false,
        };
        if !may {
            self.engine.count_refused(RefusalCounter::Admin);
            self.engine.host_stats.refused(self.number, Refusal::Admin);
        }
        may
    }
}
