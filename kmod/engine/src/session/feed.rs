// SPDX-License-Identifier: GPL-2.0-only
//! Feeds a session with input, and dispatches it by the session's state.

use hippos_invariant::Exact;
use hippos_proto::binary::{self, Status};
use hippos_proto::reply::Out;
use hippos_proto::token::{self, memchr};
use hippos_proto::LINE_MAX;
use hippos_store::Platform;

use crate::counters::EngineCounter;
use crate::reply::REPLY_HEADER_MAX;
use crate::session::get::plain_get;
use crate::session::state::{
    AfterSwallow, FeedResult, FeedStep, Keys, Next, Protocol, Session, State, Transport,
};

impl<P: Platform> Session<'_, P> {
    /// Consumes input and writes replies until the input or the space for replies is used up.
    ///
    /// `out` has space for at least [`REPLY_HEADER_MAX`] bytes whenever it is empty.
    /// Process context; may sleep.
    pub fn feed(&mut self, input: &[u8], out: &mut impl Out) -> FeedResult {
        self.feed_until(input, out, || false)
    }

    /// Like [`feed`](Self::feed), but stops with [`Next::Write`] after the first command after which `over` returns
    /// true, so that other clients get a turn.
    pub fn feed_until(
        &mut self,
        input: &[u8],
        out: &mut impl Out,
        mut over: impl FnMut() -> bool,
    ) -> FeedResult {
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
                FeedStep::Took(n) => {
                    rest = rest.get(n..).unwrap_or(&[]);
                    if over() {
                        break Next::Write;
                    }
                }
                FeedStep::Read => break Next::Read,
                FeedStep::Write => break Next::Write,
                FeedStep::Park => break Next::Park,
                FeedStep::Watch => break Next::Watch,
                FeedStep::Close => break Next::Close,
            }
        };
        let consumed = input.len().sub_exact(rest.len());
        let engine = self.engine;
        engine.tally(EngineCounter::BytesRead, consumed as u64);
        // The reply to a datagram is counted once it is sent: `note_sent`.
        if self.transport == Transport::Tcp {
            engine.tally(
                EngineCounter::BytesWritten,
                room.sub_exact(out.room()) as u64,
            );
        }
        if self.commands != 0 {
            let counter = match self.transport {
                Transport::Tcp => EngineCounter::TcpCommands,
                Transport::Udp => EngineCounter::UdpCommands,
            };
            engine.tally(counter, u64::from(self.commands));
            self.served = self.served.wrapping_add(self.commands);
            self.commands = 0;
        }
        FeedResult { consumed, next }
    }

    /// Whether [`feed_softirq`](Self::feed_softirq) may be able to answer.
    #[inline]
    pub fn may_feed_softirq(input: &[u8]) -> bool {
        input.first() == Some(&b'g')
    }

    /// Answers the plain `get`s and `gets` of one key at the start of `input`, at most `most` of them, and returns how
    /// many bytes they had. Stops before any other command, and before a reply that does not fit into `out`.
    ///
    /// Softirq-safe. Consumes nothing while another operation is in progress.
    pub fn feed_softirq(&mut self, input: &[u8], most: usize, out: &mut impl Out) -> usize {
        if self.protocol == Protocol::Binary || !self.idle() || !self.authenticated {
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
            commands = commands.add_exact(1);
            rest = after;
        }
        if commands == 0 {
            return 0;
        }
        self.protocol = Protocol::Text;
        let taken = input.len().sub_exact(rest.len());
        let engine = self.engine;
        engine.tally(EngineCounter::BytesRead, taken as u64);
        engine.tally(
            EngineCounter::BytesWritten,
            room.sub_exact(out.room()) as u64,
        );
        engine.tally(EngineCounter::TcpCommands, u64::from(commands));
        self.served = self.served.wrapping_add(commands);
        taken
    }

    #[inline]
    fn step(&mut self, input: &[u8], out: &mut impl Out) -> FeedStep {
        match self.state {
            State::Command => self.command(input, out),
            State::Keys(keys) => self.keys(keys, input, out),
            State::Data(_) => self.data(input, out),
            State::Swallow(left, then) => self.skip(left, then, input, out),
            State::SkipLine(line) => match memchr(b'\n', input) {
                Some(_) if out.room() < REPLY_HEADER_MAX => FeedStep::Write,
                Some(end) => {
                    out.put(line);
                    self.state = State::Command;
                    FeedStep::Took(end.add_exact(1))
                }
                None if input.is_empty() => FeedStep::Read,
                None => FeedStep::Took(input.len()),
            },
            State::Login(len) => self.login(len, input, out),
            State::Listing(_) => self.list(out),
            State::Watching(_) => self.watch(input, out),
            State::Closing => FeedStep::Close,
        }
    }

    fn command(&mut self, input: &[u8], out: &mut impl Out) -> FeedStep {
        let Some(&first) = input.first() else {
            return FeedStep::Read;
        };
        if out.room() < REPLY_HEADER_MAX {
            return FeedStep::Write;
        }
        if !self.authenticated {
            if self.engine.authentication() {
                return self.login_line(input, out);
            }
            // Authentication is not required any more.
            self.authenticated = true;
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
            if core::mem::take(&mut self.park_requested) {
                return FeedStep::Park;
            }
            if matches!(step, FeedStep::Took(_)) {
                self.waited = 0;
                self.commands = self.commands.add_exact(1);
            }
            return step;
        }
        if let Some(step) = self.fast_command(input, out) {
            self.commands = self.commands.add_exact(1);
            return step;
        }
        // A longer line is not read further, with or without a newline, so that the result does not depend on how the
        // input is cut.
        let window = match self.transport {
            Transport::Tcp => input.get(..=LINE_MAX).unwrap_or(input),
            Transport::Udp => input,
        };
        let Some(line) = token::line(window) else {
            // No more bytes of a datagram will arrive.
            if window.len() <= LINE_MAX || self.transport == Transport::Udp {
                return FeedStep::Read;
            }
            return self.long_line(window);
        };
        let consumed = self.line(line.text, line.consumed, out);
        if core::mem::take(&mut self.park_requested) {
            return FeedStep::Park;
        }
        self.waited = 0;
        self.commands = self.commands.add_exact(1);
        FeedStep::Took(consumed)
    }

    /// Serves the most frequent commands, if they are complete and plain: `get` and `gets` of one key, `set` with a
    /// short value. `None` leaves the input to the general parser.
    #[inline]
    fn fast_command(&mut self, input: &[u8], out: &mut impl Out) -> Option<FeedStep> {
        match input {
            [b'g', ..] => {
                let (cas, key, rest) = plain_get(input)?;
                let taken = input.len().sub_exact(rest.len());
                self.get_key(Keys { cas, touch: None }, key, true, out);
                Some(FeedStep::Took(taken))
            }
            [b's', b'e', b't', b' ', rest @ ..] => self.fast_set(input, rest, out),
            _ => None,
        }
    }

    fn skip(
        &mut self,
        left: u64,
        then: AfterSwallow,
        input: &[u8],
        out: &mut impl Out,
    ) -> FeedStep {
        let n = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let left = left.sub_exact(n as u64);
        if left != 0 {
            if n == 0 {
                return FeedStep::Read;
            }
            self.state = State::Swallow(left, then);
            return FeedStep::Took(n);
        }
        if out.room() < REPLY_HEADER_MAX {
            return FeedStep::Write;
        }
        self.state = State::Command;
        match then {
            AfterSwallow::Say(line) => out.put(line),
            AfterSwallow::Refuse(request, status) => request.error(out, status),
            AfterSwallow::NoMemory(request) => {
                let text = b"Out of memory allocating item";
                request.error_text(out, Status::OutOfMemory, text);
            }
            AfterSwallow::Close(request, status) => {
                request.error(out, status);
                self.begin_close();
            }
        }
        FeedStep::Took(n)
    }

    /// Continues a reply of many lines.
    fn list(&mut self, out: &mut impl Out) -> FeedStep {
        let engine = self.engine;
        if out.room() < REPLY_HEADER_MAX {
            return FeedStep::Write;
        }
        if let State::Listing(listing) = &mut self.state {
            if !listing.run(engine, out) {
                return FeedStep::Write;
            }
            self.state = State::Command;
        }
        FeedStep::Took(0)
    }
}
