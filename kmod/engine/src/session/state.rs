// SPDX-License-Identifier: GPL-2.0-only
//! What a session is, and what it is in the middle of.

use hippos_invariant::Exact;
use hippos_proto::binary::Status;
use hippos_proto::reply::Out;
use hippos_store::{Commit, Expiry, Item, Pin, Platform, Reservation};

use crate::administration::Administration;
use crate::counters::EngineCounter;
use crate::reply::binary::Request as BinaryRequest;
use crate::reply::meta::MetaSet;
use crate::reply::REPLY_HEADER_MAX;
use crate::session::listing::Listing;
use crate::session::watcher::Watcher;
use crate::uploads::Share;
use crate::Engine;

/// How the client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream.
    Tcp,
    /// One datagram: the input is all there is.
    Udp,
}

/// What the session wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More input, behind what was not consumed.
    Read,
    /// Room: send what there is, then feed again (what was not consumed, even
    /// if that is nothing).
    Write,
    /// Memory, of a session that [parks](Session::parks): send what there is,
    /// then feed again after a moment, in which others may give some back.
    Park,
    /// As [`Read`](Self::Read), but also after a moment without input, to tell what has happened meanwhile.
    Watch,
    /// The end: send what there is, then close.
    Close,
}

/// How a session took its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedResult {
    /// Bytes that are done with. The rest, less than [`LINE_MAX`] and a bit
    /// when more input is wanted, comes again with the next call.
    pub consumed: usize,
    /// What to do now.
    pub next: Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// The first byte decides.
    Unknown,
    Text,
    Binary,
}

/// What a session is in the middle of.
pub(super) enum State<'e, P: Platform> {
    /// Waiting for a command.
    Command,
    /// In a list of keys.
    Keys(Keys),
    /// In a value to be stored.
    Data(PendingStore<'e, P>),
    /// In bytes that nobody wants, so many of them.
    Swallow(u64, AfterSwallow),
    /// In a line that nobody wants; this is said when it ends.
    SkipLine(&'static [u8]),
    /// In a name and a password, so many bytes of them.
    Login(u32),
    /// In an answer of many lines.
    Listing(Listing<'e, P>),
    /// In lines about what happens.
    Watching(Watcher<'e, P>),
    /// Done.
    Closing,
}

/// What follows bytes that nobody wants. memcached says what is wrong with
/// them only when it has seen them all.
#[derive(Clone, Copy)]
pub(super) enum AfterSwallow {
    /// A reply line, or nothing.
    Say(&'static [u8]),
    /// An error of the binary protocol.
    Refuse(BinaryRequest, Status),
    /// The same, and the end of the connection.
    Close(BinaryRequest, Status),
}

/// A list of keys being answered.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub(super) cas: bool,
    pub(super) touch: Option<Expiry>,
}

/// A value being received.
pub(super) struct PendingStore<'e, P: Platform> {
    pub(super) reservation: Reservation<'e, P>,
    pub(super) _share: Share<'e>,
    pub(super) commit: Commit,
    pub(super) kind: Kind,
    /// The line end, as far as it has come.
    pub(super) end: [u8; 2],
    pub(super) ended: u8,
}

/// Who is to be answered when a value has come.
pub(super) enum Kind {
    /// A text command.
    Text {
        /// No answer is wanted.
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
        kind: Kind,
    ) -> Self {
        Self {
            reservation,
            _share: share,
            commit,
            kind,
            end: [0; 2],
            ended: 0,
        }
    }
}

/// A value that didn't fit into the output, on its way in pieces.
pub(super) struct Sending<'e, P: Platform> {
    pin: Pin<'e, P>,
    sent: usize,
    /// What follows the value.
    tail: &'static [u8],
}

impl<P: Platform> Sending<'_, P> {
    /// Writes what there is room for; `false` while there is more.
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

/// How far a step got.
pub(super) enum Step {
    /// So many bytes are done with; go on.
    Took(usize),
    /// Nothing can be done without more input.
    Read,
    /// Nothing can be done without more room.
    Write,
    /// Nothing can be done before there is memory.
    Park,
    /// Nothing can be done before something happens.
    Watch,
    /// The end.
    Close,
}

/// Where a client is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Anywhere.
    Network,
    /// On this host.
    Local,
    /// Behind the control device.
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
    /// Those since they were last [taken](Self::take_served).
    pub(super) served: u32,
    /// The client has logged in, or need not.
    pub(super) authenticated: bool,
    /// The client said `quit`, as opposed to being hung up on.
    pub(super) quit: bool,
    /// The host feeds it again when it has to wait for memory.
    pub(super) may_park: bool,
    /// Values that it was to receive so far.
    pub(super) values: u32,
    /// What it has waited for a value's memory: see `upload.rs`.
    pub(super) waited: u32,
    /// The command at hand waits.
    pub(super) park_requested: bool,
}

impl<'e, P: Platform> Session<'e, P> {
    /// The session of the host's owner, who may do anything.
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
            values: 0,
            waited: 0,
            park_requested: false,
        }
    }

    /// Leaves waits for memory to the host, which knows of others that have something to do
    /// meanwhile: see [`Next::Park`].
    pub fn with_parking(mut self) -> Self {
        self.may_park = true;
        self
    }

    /// While a value is on its way: its number among the session's, and how many bytes of it have
    /// come.
    pub fn receiving(&self) -> Option<(u32, usize)> {
        match &self.state {
            State::Data(data) => Some((self.values, data.reservation.written().len())),
            _ => None,
        }
    }

    /// Whether the session ended because its client said `quit`.
    pub fn quit(&self) -> bool {
        self.quit
    }

    /// Whether nothing is under way: no command, no value, no answer.
    pub fn idle(&self) -> bool {
        matches!(self.state, State::Command) && self.sending.is_none()
    }

    /// Whether a value that did not fit is on its way out: then the next [`feed`](Self::feed) writes
    /// something, whatever its input.
    pub fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// The commands that were served since the last call.
    pub(crate) fn take_served(&mut self) -> u32 {
        core::mem::take(&mut self.served)
    }

    /// The client wants to go.
    pub(super) fn begin_quit(&mut self) {
        self.quit = true;
        self.state = State::Closing;
    }

    /// The client is not wanted any more.
    pub(super) fn begin_close(&mut self) {
        self.state = State::Closing;
    }

    /// Skips `left` bytes of input, and then says what there is to say.
    pub(super) fn swallow(&mut self, left: u64, then: AfterSwallow) {
        self.state = State::Swallow(left, then);
    }

    /// Writes `head`, the value of `item` and `tail`, what does not fit later.
    /// `false` when that is not possible: nothing was written.
    pub(super) fn send<O: Out>(
        &mut self,
        item: &Item<'_>,
        out: &mut O,
        tail: &'static [u8],
        head: impl FnOnce(&mut O),
    ) -> bool {
        let value = item.value();
        let whole = value.len().add_exact(tail.len());
        if whole.add_exact(REPLY_HEADER_MAX) <= out.room() {
            head(out);
            out.put(value);
            out.put(tail);
            return true;
        }
        // Too many clients want this very item: 255 of them do.
        let Some(pin) = self.engine.store.pin(item) else {
            return false;
        };
        head(out);
        self.sending = Some(Sending { pin, sent: 0, tail });
        true
    }

    /// Tells the client's number, as `stats conns` has it.
    pub fn set_number(&mut self, number: u32) {
        self.number = number;
    }

    /// Says whether the client is on this host.
    pub fn set_local(&mut self, local: bool) {
        self.origin = if local {
            Origin::Local
        } else {
            Origin::Network
        };
    }

    /// Whether the client may use administration commands; counted if not.
    pub(super) fn administers(&self) -> bool {
        let may = match (self.origin, self.engine.administration()) {
            (Origin::Owner, _) | (_, Administration::Network) => true,
            // The source of a datagram is whatever its sender says.
            (Origin::Local, Administration::Local) => self.transport == Transport::Tcp,
            _ => false,
        };
        if !may {
            self.engine.tally(EngineCounter::AdminRefused, 1);
        }
        may
    }
}
