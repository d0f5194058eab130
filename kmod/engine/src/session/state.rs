// SPDX-License-Identifier: GPL-2.0-only
//! A client's session without its socket: bytes in, bytes out.
//!
//! The host feeds whatever has arrived and sends whatever comes out. How the
//! bytes are cut into pieces makes no difference to the answers. Values
//! stream straight into the store's memory, and large ones leave it without
//! ever being copied as a whole.

use hippos_invariant::invariant;
use hippos_proto::binary::{self, Status};
use hippos_proto::meta;
use hippos_proto::number::{parse_i32, parse_plain};
use hippos_proto::reply::{self, Cursor, Out};
use hippos_proto::text::{self, Get, Request, Store, Verb};
use hippos_proto::token::{self, memchr, memchr3, plain_len, Words};
use hippos_proto::{KEY_MAX, LINE_MAX};
use hippos_store::{
    Arith, Arithmetic, ClassCounter, Commit, Counter, Deleted, Expiry, Item, Outcome, Pin,
    Platform, Reservation, StoreError,
};

use crate::administration::Origin;
use crate::counters::Tally;
use crate::datagram::plan::{put_value_line, value_len};
use crate::session::admin;
use crate::session::binary::Request as BinaryRequest;
use crate::session::listing::Listing;
use crate::session::meta::{Key, MetaSet};
use crate::session::upload::Share;
use crate::Engine;

/// The least room that a session wants for a reply other than a value's
/// bytes. A sink that is empty has at least this.
pub const HEAD_ROOM: usize = 1024;

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
    Later,
    /// The end: send what there is, then close.
    Close,
}

/// How a session took its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that are done with. The rest, less than [`LINE_MAX`] and a bit
    /// when more input is wanted, comes again with the next call.
    pub consumed: usize,
    /// What to do now.
    pub next: Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// The first byte decides.
    Unknown,
    Text,
    Binary,
}

/// What a session is in the middle of.
pub(crate) enum State<'e, P: Platform> {
    /// Waiting for a command.
    Command,
    /// In a list of keys.
    Keys(Keys),
    /// In a value to be stored.
    Data(Data<'e, P>),
    /// In bytes that nobody wants, so many of them.
    Swallow(u64, Then),
    /// In a line that nobody wants; this is said when it ends.
    SkipLine(&'static [u8]),
    /// In a name and a password, so many bytes of them.
    Login(u32),
    /// In an answer of many lines.
    Listing(Listing<'e, P>),
    /// Done.
    Closing,
}

/// What follows bytes that nobody wants. memcached says what is wrong with
/// them only when it has seen them all.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    /// A reply line, or nothing.
    Say(&'static [u8]),
    /// An error of the binary protocol.
    Refuse(BinaryRequest, Status),
    /// The same, and the end of the connection.
    Close(BinaryRequest, Status),
}

/// A list of keys being answered.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    cas: bool,
    touch: Option<Expiry>,
}

/// A value being received.
pub(crate) struct Data<'e, P: Platform> {
    reservation: Reservation<'e, P>,
    _share: Share<'e>,
    commit: Commit,
    kind: Kind,
    /// The line end, as far as it has come.
    end: [u8; 2],
    ended: u8,
}

/// Who is to be answered when a value has come.
pub(crate) enum Kind {
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

impl<'e, P: Platform> Data<'e, P> {
    pub(crate) fn new(
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
struct Sending<'e, P: Platform> {
    pin: Pin<'e, P>,
    sent: usize,
    /// What follows the value.
    tail: &'static [u8],
}

impl<P: Platform> Sending<'_, P> {
    /// Writes what there is room for; `false` while there is more.
    fn push(&mut self, out: &mut impl Out) -> bool {
        let rest = self.pin.value().get(self.sent..).unwrap_or(&[]);
        let part = rest.get(..out.room()).unwrap_or(rest);
        out.put(part);
        self.sent = self.sent.saturating_add(part.len());
        if part.len() < rest.len() || out.room() < self.tail.len() {
            return false;
        }
        out.put(self.tail);
        true
    }
}

/// How many bytes an item takes in an answer to `get`, with a tail that has the value's line end.
#[inline]
fn whole_len(item: &Item<'_>, cas: Option<u64>, tail: &[u8]) -> usize {
    let after = tail.len().wrapping_sub(reply::CRLF.len());
    value_len(item, cas).wrapping_add(after)
}

/// How far a step got.
pub(crate) enum Step {
    /// So many bytes are done with; go on.
    Took(usize),
    /// Nothing can be done without more input.
    Read,
    /// Nothing can be done without more room.
    Write,
    /// Nothing can be done before there is memory.
    Later,
    /// The end.
    Close,
}

/// A client's session. See the [module's page](self).
pub struct Session<'e, P: Platform> {
    pub(crate) engine: &'e Engine<P>,
    pub(crate) transport: Transport,
    pub(crate) origin: Origin,
    protocol: Protocol,
    pub(crate) state: State<'e, P>,
    sending: Option<Sending<'e, P>>,
    commands: u32,
    /// The client has logged in, or need not.
    pub(crate) trusted: bool,
    /// The client said goodbye, as opposed to being hung up on.
    quit: bool,
    /// The host feeds it again when it has to wait for memory.
    pub(crate) parks: bool,
    /// Values that it was to receive so far.
    pub(crate) values: u32,
    /// What it has waited for a value's memory: see `upload.rs`.
    pub(crate) waited: u32,
    /// The command at hand waits.
    pub(crate) later: bool,
}

impl<'e, P: Platform> Session<'e, P> {
    /// The session of the host's owner, who may do anything.
    pub fn trusted(engine: &'e Engine<P>) -> Self {
        Self {
            trusted: true,
            origin: Origin::Owner,
            ..Self::new(engine, Transport::Tcp)
        }
    }

    /// A new client's session.
    pub fn new(engine: &'e Engine<P>, transport: Transport) -> Self {
        Self {
            trusted: !engine.authentication(),
            engine,
            transport,
            origin: Origin::Network,
            protocol: Protocol::Unknown,
            state: State::Command,
            sending: None,
            commands: 0,
            quit: false,
            parks: false,
            values: 0,
            waited: 0,
            later: false,
        }
    }

    /// Leaves waits for memory to the host, which knows of others that have something to do
    /// meanwhile: see [`Next::Later`].
    pub fn parks(mut self) -> Self {
        self.parks = true;
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

    /// Takes input and writes answers until it runs out of either.
    ///
    /// `out` has at least [`HEAD_ROOM`] bytes of room whenever it is empty.
    /// Process context; may sleep.
    pub fn feed(&mut self, input: &[u8], out: &mut impl Out) -> Fed {
        let room = out.room();
        let mut rest = input;
        let next = loop {
            if let Some(sending) = &mut self.sending {
                if !sending.push(out) {
                    break Next::Write;
                }
                self.sending = None;
            }
            match self.step(rest, out) {
                Step::Took(n) => rest = rest.get(n..).unwrap_or(&[]),
                Step::Read => break Next::Read,
                Step::Write => break Next::Write,
                Step::Later => break Next::Later,
                Step::Close => break Next::Close,
            }
        };
        let consumed = input.len().saturating_sub(rest.len());
        let engine = self.engine;
        engine.tally(Tally::BytesRead, consumed as u64);
        engine.tally(Tally::BytesWritten, room.saturating_sub(out.room()) as u64);
        if self.commands != 0 {
            let door = match self.transport {
                Transport::Tcp => Tally::TcpCommands,
                Transport::Udp => Tally::UdpCommands,
            };
            engine.tally(door, u64::from(self.commands));
            self.commands = 0;
        }
        Fed { consumed, next }
    }

    /// Whether [`feed_quick`](Self::feed_quick) may have something to answer.
    #[inline]
    pub fn is_quick(input: &[u8]) -> bool {
        input.first() == Some(&b'g')
    }

    /// Answers the plain `get`s and `gets` of one key that `input` begins with,
    /// `most` of them at most, and tells how many bytes they took. Stops before
    /// any other command, and before a reply that does not fit into `out`.
    ///
    /// Softirq-safe. Takes nothing while something is under way.
    pub fn feed_quick(&mut self, input: &[u8], most: usize, out: &mut impl Out) -> usize {
        if self.protocol == Protocol::Binary || !self.idle() || !self.trusted {
            return 0;
        }
        let room = out.room();
        let mut rest = input;
        let mut commands = 0u32;
        while (commands as usize) < most {
            let Some((cas, key, after)) = plain_get(rest) else {
                break;
            };
            if !self.try_get(Keys { cas, touch: None }, key, true, out) {
                break;
            }
            commands = commands.wrapping_add(1);
            rest = after;
        }
        if commands == 0 {
            return 0;
        }
        self.protocol = Protocol::Text;
        let taken = input.len().saturating_sub(rest.len());
        let engine = self.engine;
        engine.tally(Tally::BytesRead, taken as u64);
        engine.tally(Tally::BytesWritten, room.saturating_sub(out.room()) as u64);
        engine.tally(Tally::TcpCommands, u64::from(commands));
        taken
    }

    /// Whether the session ended because its client said goodbye.
    pub fn quit(&self) -> bool {
        self.quit
    }

    /// Whether nothing is under way: no command, no value, no answer.
    pub fn idle(&self) -> bool {
        matches!(self.state, State::Command) && self.sending.is_none()
    }

    #[inline]
    fn step(&mut self, input: &[u8], out: &mut impl Out) -> Step {
        match self.state {
            State::Command => self.command(input, out),
            State::Keys(keys) => self.keys(keys, input, out),
            State::Data(_) => self.data(input, out),
            State::Swallow(left, then) => self.skip(left, then, input, out),
            State::SkipLine(line) => match memchr(b'\n', input) {
                Some(_) if out.room() < HEAD_ROOM => Step::Write,
                Some(end) => {
                    out.put(line);
                    self.state = State::Command;
                    Step::Took(end.saturating_add(1))
                }
                None if input.is_empty() => Step::Read,
                None => Step::Took(input.len()),
            },
            State::Login(len) => self.login(len, input, out),
            State::Listing(_) => self.list(out),
            State::Closing => Step::Close,
        }
    }

    fn command(&mut self, input: &[u8], out: &mut impl Out) -> Step {
        let Some(&first) = input.first() else {
            return Step::Read;
        };
        if out.room() < HEAD_ROOM {
            return Step::Write;
        }
        if !self.trusted {
            return self.login_line(input, out);
        }
        if self.protocol == Protocol::Unknown {
            self.protocol = if first == binary::REQUEST {
                Protocol::Binary
            } else {
                Protocol::Text
            };
        }
        if self.protocol == Protocol::Binary {
            let step = self.binary(input, out);
            if core::mem::take(&mut self.later) {
                return Step::Later;
            }
            if matches!(step, Step::Took(_)) {
                self.commands = self.commands.wrapping_add(1);
            }
            return step;
        }
        if let Some(step) = self.quick(input, out) {
            self.commands = self.commands.wrapping_add(1);
            return step;
        }
        // A longer line is looked at no further, newline or not, so that it
        // makes no difference how it is cut.
        let window = match self.transport {
            Transport::Tcp => input.get(..=LINE_MAX).unwrap_or(input),
            Transport::Udp => input,
        };
        let Some(line) = token::line(window) else {
            if window.len() <= LINE_MAX {
                return Step::Read;
            }
            return self.long_line(window);
        };
        let consumed = self.line(line.text, line.consumed, out);
        if core::mem::take(&mut self.later) {
            return Step::Later;
        }
        self.commands = self.commands.wrapping_add(1);
        Step::Took(consumed)
    }

    /// Serves the commonest commands, if they are whole and plain: `get` and
    /// `gets` of one key, `set` with a short value. `None` leaves everything to
    /// those who look closely.
    #[inline]
    fn quick(&mut self, input: &[u8], out: &mut impl Out) -> Option<Step> {
        match input {
            [b'g', ..] => {
                let (cas, key, rest) = plain_get(input)?;
                let taken = input.len().saturating_sub(rest.len());
                self.get_key(Keys { cas, touch: None }, key, true, out);
                Some(Step::Took(taken))
            }
            [b's', b'e', b't', b' ', rest @ ..] => self.quick_set(input, rest, out),
            _ => None,
        }
    }

    /// `set` without a state in between.
    fn quick_set(&mut self, input: &[u8], words: &[u8], out: &mut impl Out) -> Option<Step> {
        /// The longest value that is worth it.
        const VALUE_MAX: usize = 16 << 10;
        let (key, rest) = plain_word(words)?;
        let (flags, rest) = plain_word(rest.strip_prefix(b" ")?)?;
        let (exptime, rest) = plain_word(rest.strip_prefix(b" ")?)?;
        let (len, rest) = plain_word(rest.strip_prefix(b" ")?)?;
        let (noreply, rest) = match rest.strip_prefix(b" noreply") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.strip_prefix(b"\r\n")?;
        let (flags, exptime) = (parse_plain(flags)?, parse_plain(exptime)?);
        let len = parse_plain(len)? as usize;
        let line = input.len().saturating_sub(rest.len());
        if key.is_empty() || key.len() > KEY_MAX || len > VALUE_MAX || line > LINE_MAX {
            return None;
        }
        let (value, rest) = rest.split_at_checked(len)?;
        let rest = rest.strip_prefix(b"\r\n")?;
        let engine = self.engine;
        let store = &engine.store;
        let hash = store.hash(key);
        let expiry = store.expiry(i64::from(exptime));
        // Refusals are for those who have more to do about them.
        let mut reservation = store.reserve_ready(key, hash, flags, expiry, len)?;
        engine.note_set(key);
        reservation.write(value);
        store.count_class(reservation.class(), ClassCounter::CmdSet, 1);
        let line = match store.commit(reservation, &Commit::default()) {
            Ok(outcome) => stored(outcome),
            Err(error) => engine.refused(error),
        };
        if !noreply {
            out.put(line);
        }
        Some(Step::Took(input.len().saturating_sub(rest.len())))
    }

    /// Serves a line, which took `consumed` bytes with its ending. Returns how
    /// many bytes are done with.
    fn line(&mut self, line: &[u8], consumed: usize, out: &mut impl Out) -> usize {
        let say = |out: &mut _, line: &[u8], noreply: bool| {
            if !noreply {
                Out::put(out, line);
            }
        };
        match text::parse(line) {
            Request::Get(get) => {
                let rest = self.get(&get, out);
                // The keys that are left, and the line's ending.
                return consumed.saturating_sub(match rest {
                    0 => 0,
                    rest => rest.saturating_add(consumed.saturating_sub(line.len())),
                });
            }
            Request::Store(store) => self.store(&store),
            Request::Meta(tokens) => match meta::Command::parse(tokens) {
                Ok(command) => self.meta(&command, out),
                Err(refused) => {
                    self.swallow(u64::from(refused.swallow), Then::Say(refused.line));
                }
            },
            Request::Noop => out.put(reply::MN),
            Request::Delete { key, noreply } => {
                let engine = self.engine;
                engine.note_delete(key);
                let store = &engine.store;
                let line = match store.delete(key, store.hash(key), None) {
                    Deleted::Deleted { class } => {
                        store.count_class(class, ClassCounter::DeleteHits, 1);
                        reply::DELETED
                    }
                    Deleted::Exists { .. } | Deleted::NotFound => {
                        store.count(Counter::DeleteMisses, 1);
                        reply::NOT_FOUND
                    }
                };
                say(out, line, noreply);
            }
            Request::Arith {
                key,
                decrement,
                by,
                noreply,
            } => {
                let how = Arith {
                    decrement,
                    by,
                    ..Arith::default()
                };
                let hash = self.engine.store.hash(key);
                match self.engine.arith(key, hash, &how) {
                    Ok(Arithmetic::Value { value, .. }) if !noreply => {
                        out.put_decimal(value);
                        out.put(reply::CRLF);
                    }
                    Ok(Arithmetic::Value { .. }) => {}
                    Ok(Arithmetic::NotFound | Arithmetic::Exists { .. }) => {
                        self.engine.arith_miss(decrement);
                        say(out, reply::NOT_FOUND, noreply);
                    }
                    Ok(Arithmetic::NonNumeric) => say(out, reply::NON_NUMERIC, noreply),
                    Err(_) => out.put(reply::ARITH_OUT_OF_MEMORY),
                }
            }
            Request::Touch {
                key,
                exptime,
                noreply,
            } => {
                let touched = self.engine.touch(key, i64::from(exptime));
                let line = if touched {
                    reply::TOUCHED
                } else {
                    reply::NOT_FOUND
                };
                say(out, line, noreply);
            }
            Request::FlushAll { delay, noreply } => {
                self.engine.store.count(Counter::CmdFlush, 1);
                let line = match delay {
                    _ if !self.administers() => admin::FLUSH_REFUSED,
                    Some(delay) => {
                        self.engine.flush(i64::from(delay));
                        reply::OK
                    }
                    None => reply::BAD_EXPTIME,
                };
                say(out, line, noreply);
            }
            Request::Verbosity { level, noreply } => {
                let line = if self.administers() {
                    self.engine.set_verbosity(level);
                    reply::OK
                } else {
                    admin::VERBOSITY_REFUSED
                };
                say(out, line, noreply);
            }
            Request::Version => out.put(reply::VERSION),
            Request::Quit => self.goodbye(),
            Request::Admin(tokens) => self.admin(&tokens, out),
            Request::Reply { line, noreply } => say(out, line, noreply),
            Request::Hangup => self.hangup(),
        }
        consumed
    }

    /// The client wants to go.
    pub(crate) fn goodbye(&mut self) {
        self.quit = true;
        self.state = State::Closing;
    }

    /// The client is not wanted any more.
    pub(crate) fn hangup(&mut self) {
        self.state = State::Closing;
    }

    /// Skips `left` bytes of input, and then says what there is to say.
    pub(crate) fn swallow(&mut self, left: u64, then: Then) {
        self.state = State::Swallow(left, then);
    }

    fn skip(&mut self, left: u64, then: Then, input: &[u8], out: &mut impl Out) -> Step {
        let n = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let left = left.saturating_sub(n as u64);
        if left != 0 {
            if n == 0 {
                return Step::Read;
            }
            self.state = State::Swallow(left, then);
            return Step::Took(n);
        }
        if out.room() < HEAD_ROOM {
            return Step::Write;
        }
        self.state = State::Command;
        match then {
            Then::Say(line) => out.put(line),
            Then::Refuse(request, status) => request.error(out, status),
            Then::Close(request, status) => {
                request.error(out, status);
                self.hangup();
            }
        }
        Step::Took(n)
    }

    /// A line without an end in sight: a list of keys is served as it comes,
    /// anything else is the end of the connection.
    fn long_line(&mut self, window: &[u8]) -> Step {
        const BLANKS_MAX: usize = 100;
        let blanks = window.iter().take_while(|&&byte| byte == b' ').count();
        let mut words = Words::new(token::trim(window));
        let (cas, touch) = match words.next() {
            _ if blanks > BLANKS_MAX => return self.cut(),
            Some(b"get") => (false, false),
            Some(b"gets") => (true, false),
            Some(b"gat") => (false, true),
            Some(b"gats") => (true, true),
            _ => return self.cut(),
        };
        let mut keys = Keys { cas, touch: None };
        self.commands = self.commands.wrapping_add(1);
        let mut start = words.rest();
        if touch {
            let exptime = words.next().and_then(parse_i32);
            // Nor is there an end of the first word in sight, or of the line.
            let (Some(exptime), false) = (exptime, words.rest().is_empty()) else {
                self.state = State::SkipLine(reply::BAD_EXPTIME);
                return Step::Took(0);
            };
            keys.touch = Some(self.engine.store.expiry(i64::from(exptime)));
            start = words.rest();
        }
        self.state = State::Keys(keys);
        // What a carriage return or a NUL hid from the words is still there.
        let hidden = window.len().saturating_sub(token::trim(window).len());
        Step::Took(
            window
                .len()
                .saturating_sub(hidden)
                .saturating_sub(start.len()),
        )
    }

    /// The end of a connection whose line never ends.
    fn cut(&mut self) -> Step {
        self.hangup();
        Step::Took(0)
    }

    fn keys_of(&self, get: &Get<'_>) -> Keys {
        Keys {
            cas: get.cas,
            touch: get
                .touch
                .map(|exptime| self.engine.store.expiry(i64::from(exptime))),
        }
    }

    /// `get` and its kin with a whole line. Returns how many bytes of keys are
    /// left.
    fn get(&mut self, get: &Get<'_>, out: &mut impl Out) -> usize {
        let mut keys = get.keys;
        // One bad key, and none is answered.
        if keys.any(|key| key.len() > KEY_MAX) {
            out.put(reply::BAD_FORMAT);
            return 0;
        }
        let wanted = self.keys_of(get);
        let mut keys = get.keys;
        let Some(key) = keys.next() else {
            out.put(reply::END);
            return 0;
        };
        if keys.next().is_none() {
            self.get_key(wanted, key, true, out);
            return 0;
        }
        self.state = State::Keys(wanted);
        get.keys.rest().len()
    }

    /// Answers the keys that are there.
    fn keys(&mut self, keys: Keys, input: &[u8], out: &mut impl Out) -> Step {
        self.prefetch(input);
        let mut rest = input;
        loop {
            while let [b' ', more @ ..] = rest {
                rest = more;
            }
            // Most keys are plain, and end where they are seen to.
            if let Some((key @ [_, ..], more @ ([b' ', ..] | [b'\r', b'\n', ..]))) =
                plain_word(rest)
            {
                if key.len() <= KEY_MAX && out.room() >= HEAD_ROOM {
                    self.get_key(keys, key, false, out);
                    rest = more;
                    if self.sending.is_some() || !matches!(self.state, State::Keys(_)) {
                        return Step::Took(input.len().saturating_sub(rest.len()));
                    }
                    continue;
                }
            }
            let taken = input.len().saturating_sub(rest.len());
            if out.room() < HEAD_ROOM {
                return if taken == 0 {
                    Step::Write
                } else {
                    Step::Took(taken)
                };
            }
            let Some(end) = memchr3(b' ', b'\n', 0, rest) else {
                // A carriage return at the end is no part of the key.
                let key = match rest {
                    [key @ .., b'\r'] => key,
                    key => key,
                };
                if key.len() > KEY_MAX {
                    return self.bad_key(taken);
                }
                return if taken == 0 {
                    Step::Read
                } else {
                    Step::Took(taken)
                };
            };
            let (Some(word), Some(&stop)) = (rest.get(..end), rest.get(end)) else {
                return Step::Read;
            };
            let key = match word {
                [key @ .., b'\r'] if stop == b'\n' => key,
                key => key,
            };
            if key.len() > KEY_MAX {
                return self.bad_key(taken);
            }
            if !key.is_empty() {
                rest = rest.get(key.len()..).unwrap_or(&[]);
                self.get_key(keys, key, false, out);
                if self.sending.is_some() || !matches!(self.state, State::Keys(_)) {
                    return Step::Took(input.len().saturating_sub(rest.len()));
                }
                continue;
            }
            // The end of the line, or of what memcached sees of it.
            let taken = taken.saturating_add(word.len());
            self.state = State::SkipLine(reply::END);
            return Step::Took(taken);
        }
    }

    /// A key that is too long, in a list that is served as it comes.
    fn bad_key(&mut self, taken: usize) -> Step {
        self.state = State::SkipLine(reply::BAD_FORMAT);
        Step::Took(taken)
    }

    /// Brings the buckets of the next keys near, then their items.
    fn prefetch(&self, input: &[u8]) {
        const AHEAD: usize = 8;
        let store = &self.engine.store;
        let mut hashes = [None; AHEAD];
        let line = match memchr3(b'\n', 0, b'\r', input.get(..LINE_MAX).unwrap_or(input)) {
            Some(end) => input.get(..end).unwrap_or(&[]),
            None => &[],
        };
        for (place, key) in hashes.iter_mut().zip(Words::new(line)) {
            let hash = store.hash(key);
            store.prefetch(hash);
            *place = Some(hash);
        }
        let guard = store.read();
        for hash in hashes.iter().flatten() {
            store.prefetch_item(&guard, *hash);
        }
    }

    /// Answers one key; `last` if nothing but `END` follows.
    #[inline]
    fn get_key(&mut self, keys: Keys, key: &[u8], last: bool, out: &mut impl Out) {
        if !self.try_get(keys, key, last, out) {
            self.get_large(keys, key, last, out);
        }
    }

    /// Answers one key, unless the reply does not fit: then it is as if nobody
    /// had asked. Softirq-safe.
    fn try_get(&self, keys: Keys, key: &[u8], last: bool, out: &mut impl Out) -> bool {
        let engine = self.engine;
        let store = &engine.store;
        let hash = store.hash(key);
        let guard = store.read();
        let tail: &[u8] = if last { b"\r\nEND\r\n" } else { reply::CRLF };
        let room = out.spare().len();
        let found = match keys.touch {
            // It keeps its time when the reply does not fit.
            Some(expiry) => engine.get_and_touch(&guard, key, hash, |item, cas| {
                (whole_len(item, keys.cas.then_some(cas), tail) <= room).then_some(expiry)
            }),
            None => store.get(&guard, key, hash).map(|item| (item, item.cas())),
        };
        let Some((item, cas)) = found else {
            if last && out.room() < reply::END.len() {
                return false;
            }
            engine.note_get(key, false);
            if keys.touch.is_some() {
                store.count(Counter::TouchMisses, 1);
            } else {
                engine.miss(1);
            }
            if last {
                out.put(reply::END);
            }
            return true;
        };
        let cas = keys.cas.then_some(cas);
        // All of it goes straight to where it is sent from.
        let whole = whole_len(&item, cas, tail);
        let Some(place) = out.spare().get_mut(..whole) else {
            return false;
        };
        self.found(keys, key, &item);
        let mut place = Cursor::new(place);
        put_value_line(&mut place, &item, cas);
        place.put(item.value());
        place.put(tail);
        let written = place.len();
        invariant!(written == whole, "{written} bytes of a reply of {whole}");
        out.advance(written);
        true
    }

    /// Answers one key whose value does not fit, or did not a moment ago.
    #[inline(never)]
    fn get_large(&mut self, keys: Keys, key: &[u8], last: bool, out: &mut impl Out) {
        let engine = self.engine;
        let store = &engine.store;
        let guard = store.read();
        let hash = store.hash(key);
        let found = match keys.touch {
            Some(expiry) => engine.get_and_touch(&guard, key, hash, |_, _| Some(expiry)),
            None => store.get(&guard, key, hash).map(|item| (item, item.cas())),
        };
        let Some((item, cas)) = found else {
            // Gone meanwhile; now anything fits.
            drop(guard);
            self.try_get(keys, key, last, out);
            return;
        };
        self.found(keys, key, &item);
        let tail: &[u8] = if last { b"\r\nEND\r\n" } else { reply::CRLF };
        let head = |out: &mut _| put_value_line(out, &item, keys.cas.then_some(cas));
        if !self.send(&item, out, tail, head) {
            out.put(reply::GET_OUT_OF_MEMORY);
            if !last {
                self.state = State::SkipLine(b"");
            }
        }
    }

    /// Counts a key that was found.
    #[inline]
    fn found(&self, keys: Keys, key: &[u8], item: &Item<'_>) {
        let engine = self.engine;
        engine.note_get(key, true);
        match keys.touch {
            Some(_) => {
                let class = item.class();
                engine.store.count_class(class, ClassCounter::TouchHits, 1);
            }
            None => engine.hit(item),
        }
    }

    /// Writes `head`, the value of `item` and `tail`, what does not fit later.
    /// `false` when that is not possible: nothing was written.
    pub(crate) fn send<O: Out>(
        &mut self,
        item: &Item<'_>,
        out: &mut O,
        tail: &'static [u8],
        head: impl FnOnce(&mut O),
    ) -> bool {
        let value = item.value();
        let whole = value.len().saturating_add(tail.len());
        if whole.saturating_add(HEAD_ROOM) <= out.room() {
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

    /// `set` and its kin: makes room for the value that follows.
    fn store(&mut self, request: &Store<'_>) {
        use hippos_store::Verb as How;
        let engine = self.engine;
        let store = &engine.store;
        let key = request.key;
        let mut commit = Commit::default();
        commit.verb = match request.verb {
            Verb::Set => How::Set,
            Verb::Add => How::Add,
            Verb::Replace => How::Replace,
            Verb::Append => How::Append,
            Verb::Prepend => How::Prepend,
            Verb::Cas(unique) => {
                commit.compare = Some(unique);
                How::Set
            }
        };
        let hash = store.hash(key);
        let expiry = store.expiry(i64::from(request.exptime));
        let Some(room) = self.room_for(key, hash, request.flags, expiry, request.len as usize)
        else {
            return;
        };
        engine.note_set(key);
        match room {
            Ok(room) => {
                let kind = Kind::Text {
                    noreply: request.noreply,
                };
                self.state = State::Data(Data::new(room, commit, kind));
            }
            Err(error) => {
                if request.verb == Verb::Set {
                    store.delete(key, hash, None);
                }
                let mut line = engine.refused(error);
                if request.noreply && error == StoreError::TooLarge {
                    line = b"";
                }
                let left = u64::from(request.len).saturating_add(2);
                self.swallow(left, Then::Say(line));
            }
        }
    }

    /// Takes a value's bytes and, when all have come, stores it.
    fn data(&mut self, input: &[u8], out: &mut impl Out) -> Step {
        if out.room() < HEAD_ROOM {
            return Step::Write;
        }
        let State::Data(data) = &mut self.state else {
            return Step::Took(0);
        };
        let mut taken = data.reservation.write(input);
        let mut whole = data.reservation.remaining() == 0;
        if whole && !matches!(data.kind, Kind::Binary(_)) {
            while let (Some(place), Some(&byte)) =
                (data.end.get_mut(usize::from(data.ended)), input.get(taken))
            {
                *place = byte;
                data.ended = data.ended.saturating_add(1);
                taken = taken.saturating_add(1);
            }
            whole = data.ended == 2;
        }
        if !whole {
            return if taken == 0 {
                Step::Read
            } else {
                Step::Took(taken)
            };
        }
        if let State::Data(data) = core::mem::replace(&mut self.state, State::Command) {
            self.complete(data, out);
        }
        Step::Took(taken)
    }

    /// Stores a value that has come.
    fn complete(&mut self, data: Data<'e, P>, out: &mut impl Out) {
        use hippos_store::Verb as How;
        let Data {
            reservation,
            commit,
            kind,
            end,
            ..
        } = data;
        let store = &self.engine.store;
        store.count_class(reservation.class(), ClassCounter::CmdSet, 1);
        match kind {
            Kind::Text { noreply } => {
                let line = if end == *b"\r\n" {
                    match self.engine.commit(reservation, &commit) {
                        Ok(outcome) => stored(outcome),
                        Err(error) => self.engine.refused(error),
                    }
                } else {
                    reply::BAD_CHUNK
                };
                if !noreply {
                    out.put(line);
                }
            }
            Kind::Meta(set) => {
                if end != *b"\r\n" {
                    out.put(reply::BAD_CHUNK);
                    return;
                }
                let mut key = Key::new();
                if set.wants_key() || set.wants_len() {
                    let _ = key.extend_from_slice(reservation.key());
                }
                let joins = matches!(commit.verb, How::Append | How::Prepend);
                let hash = store.hash(reservation.key());
                match self.engine.commit(reservation, &commit) {
                    Ok(outcome) => {
                        // Joined, it is longer than what came.
                        let guard = store.read();
                        let joined = match outcome {
                            Outcome::Stored { .. } if joins && set.wants_len() => {
                                store.peek(&guard, &key, hash)
                            }
                            _ => None,
                        };
                        set.put(out, outcome, &key, joined.map(|item| item.value().len()));
                    }
                    Err(error) => out.put(self.engine.refused(error)),
                }
            }
            Kind::Binary(request) => {
                let outcome = self.engine.commit(reservation, &commit);
                request.stored(outcome, out);
            }
        }
    }
}

/// A `get` or `gets` of one key, if `input` begins with one that is whole and
/// plain: whether it wants the unique number, the key, and what follows.
#[inline]
fn plain_get(input: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (cas, words) = match input {
        [b'g', b'e', b't', b' ', rest @ ..] => (false, rest),
        [b'g', b'e', b't', b's', b' ', rest @ ..] => (true, rest),
        _ => return None,
    };
    let (key, rest) = plain_word(words)?;
    let rest = rest.strip_prefix(b"\r\n")?;
    (1..=KEY_MAX)
        .contains(&key.len())
        .then_some((cas, key, rest))
}

/// The plain bytes at the start of `text`, and the rest.
#[inline]
fn plain_word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    text.split_at_checked(plain_len(text))
}

/// The line that tells what became of a store.
fn stored(outcome: Outcome) -> &'static [u8] {
    match outcome {
        Outcome::Stored { .. } => reply::STORED,
        Outcome::NotStored => reply::NOT_STORED,
        Outcome::Exists => reply::EXISTS,
        Outcome::NotFound => reply::NOT_FOUND,
    }
}
