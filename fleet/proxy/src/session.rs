// SPDX-License-Identifier: MIT

//! Parses a client's bytes into commands.
//!
//! `hippos_proto` parses single lines; this module handles the stream, with a Hippos node's answers to all special
//! cases: lines without an end, lists of keys of any length, data blocks to be skipped, packets whose lengths
//! contradict each other. Replies that do not depend on the node's contents are given here.

use hippos_proto::binary::{self, non_quiet, op, Header, Response, Status, FRONT_MAX, HEADER};
use hippos_proto::number::parse_i32;
use hippos_proto::reply;
use hippos_proto::text::{self, Get, TextRequest};
use hippos_proto::token::{self, memchr, memchr3, Tokens, Words};
use hippos_proto::{meta, StoreMode, BLANKS_MAX, KEY_MAX, LINE_MAX, VERSION};

use crate::framing::Expect;

/// The most keys of a [`Command::Get`].
pub const KEYS_MAX: usize = 64;

/// The reply to commands that are not possible for a fleet.
pub const NOT_AVAILABLE: &[u8] = b"SERVER_ERROR not available through the proxy\r\n";

/// The reply to a datagram whose line is longer than allowed in a stream.
pub const LONG_LINE: &[u8] = b"SERVER_ERROR line too long\r\n";

/// A client's next command.
#[derive(Debug)]
pub enum Command<'a> {
    /// A reply that needs no node.
    Say(&'a [u8]),
    /// The same in the binary protocol.
    Packet(Vec<u8>),
    /// The end of a list of keys that was split into several [`Command::Get`]s: sent unless one of them failed.
    EndOfKeys(&'static [u8]),
    /// `get`, `gets`, `gat`, `gats`: the values of at most [`KEYS_MAX`] keys.
    Get {
        /// Whether the values have their CAS value.
        cas: bool,
        /// The items' new time to live.
        touch: Option<i32>,
        /// The keys, of valid lengths.
        keys: Words<'a>,
        /// `END` follows.
        end: bool,
    },
    /// A command about one key, to be sent to its node.
    Forward(Forward<'a>),
    /// A command for all nodes, of which one node's answer is the reply.
    Broadcast {
        /// The bytes to send.
        request: Vec<u8>,
        /// The kind of reply.
        expect: Expect,
        /// No reply is needed unless it is an error.
        quiet: bool,
    },
    /// `stats` with its argument.
    Stats(&'a [u8]),
    /// `stat` of the binary protocol, for a pool of one node.
    BinaryStats {
        /// The complete packet.
        request: &'a [u8],
        /// The reply if there are several nodes.
        refusal: Vec<u8>,
    },
    /// The end of the connection, after all replies.
    Close,
}

/// A command about one key.
#[derive(Debug)]
pub struct Forward<'a> {
    /// The key's bytes.
    pub key: KeyBytes<'a>,
    /// The bytes to send, concatenated.
    pub parts: [&'a [u8]; 3],
    /// The kind of reply.
    pub expect: Expect,
    /// There may be no reply: a command with a reply must follow.
    pub fence: bool,
    /// Whether the item may change.
    pub write: bool,
    /// Whether the reply shows earlier reads of the item: it must follow the client's own reads, and be requested only
    /// once.
    pub shows_reads: bool,
    /// Sent instead of the node's reply.
    pub reply_override: Option<Vec<u8>>,
}

impl Forward<'_> {
    /// Whether the client expects no line at all, not even an error.
    pub fn is_silent(&self) -> bool {
        let noreply = self.expect == Expect::Line && self.fence;
        noreply || self.reply_override.as_ref().is_some_and(Vec::is_empty)
    }
}

/// A key's bytes.
#[derive(Debug)]
pub enum KeyBytes<'a> {
    /// As it was sent.
    Plain(&'a [u8]),
    /// Decoded from base64.
    Decoded(Vec<u8>),
}

impl KeyBytes<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            KeyBytes::Plain(key) => key,
            KeyBytes::Decoded(key) => key,
        }
    }
}

/// A client's transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream.
    Stream,
    /// One datagram: no more input follows.
    Datagram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Unknown,
    Text,
    Binary,
}

#[derive(Clone, Debug)]
enum State {
    Command,
    /// In a list of keys.
    Keys {
        cas: bool,
        touch: Option<i32>,
    },
    /// Skipping this many bytes.
    Swallow(u64, AfterSwallow),
    /// Skipping a line; this is the reply when it ends.
    SkipLine(&'static [u8]),
    /// The end, because the client or the server closed the session.
    Closed {
        goodbye: bool,
    },
}

#[derive(Clone, Debug)]
enum AfterSwallow {
    Say(&'static [u8]),
    Packet(Vec<u8>),
    Close(Vec<u8>),
}

/// The result of parsing the input.
#[derive(Debug)]
pub enum Next<'a> {
    /// A command, or none, and the number of bytes it had.
    Took(usize, Option<Command<'a>>),
    /// More input is needed: this many bytes of the command in total, if known.
    More(usize),
}

/// A client's session. See the [module's page](self).
#[derive(Clone, Debug)]
pub struct Session {
    transport: Transport,
    protocol: Protocol,
    state: State,
    value_max: u32,
}

impl Session {
    /// A new client's session, which accepts values of up to `value_max` bytes.
    pub fn new(transport: Transport, value_max: u32) -> Self {
        Self {
            transport,
            protocol: Protocol::Unknown,
            state: State::Command,
            value_max,
        }
    }

    /// Whether the client uses the binary protocol.
    pub fn is_binary(&self) -> bool {
        self.protocol == Protocol::Binary
    }

    /// Whether the client has sent `quit`.
    pub fn quit_requested(&self) -> bool {
        matches!(self.state, State::Closed { goodbye: true })
    }

    /// Whether the session waits for a command and none is in progress.
    pub fn idle(&self) -> bool {
        matches!(self.state, State::Command)
    }

    /// Parses the command at the start of `input`.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Next<'a> {
        match &mut self.state {
            State::Command => self.command(input),
            State::Keys { cas, touch } => {
                let (cas, touch) = (*cas, *touch);
                self.keys(cas, touch, input)
            }
            State::Swallow(left, _) => {
                let n = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= n as u64;
                if *left != 0 {
                    return if n == 0 {
                        Next::More(0)
                    } else {
                        Next::Took(n, None)
                    };
                }
                let command = match std::mem::replace(&mut self.state, State::Command) {
                    State::Swallow(_, AfterSwallow::Say(line)) => Command::Say(line),
                    State::Swallow(_, AfterSwallow::Packet(packet)) => Command::Packet(packet),
                    State::Swallow(_, AfterSwallow::Close(packet)) => {
                        self.state = State::Closed { goodbye: false };
                        Command::Packet(packet)
                    }
                    _ => return Next::Took(n, None),
                };
                Next::Took(n, Some(command))
            }
            State::SkipLine(line) => match memchr(b'\n', input) {
                Some(end) => {
                    let line = *line;
                    self.state = State::Command;
                    Next::Took(end + 1, Some(Command::EndOfKeys(line)))
                }
                None if input.is_empty() => Next::More(0),
                None => Next::Took(input.len(), None),
            },
            State::Closed { .. } => Next::Took(0, Some(Command::Close)),
        }
    }

    fn command<'a>(&mut self, input: &'a [u8]) -> Next<'a> {
        let Some(&first) = input.first() else {
            return Next::More(0);
        };
        if self.protocol == Protocol::Unknown {
            self.protocol = match first {
                binary::REQUEST => Protocol::Binary,
                _ => Protocol::Text,
            };
        }
        if self.protocol == Protocol::Binary {
            return self.packet(input);
        }
        // A longer line is not read further, with or without a newline, so that the result does not depend on how the
        // input is cut.
        let window = match self.transport {
            Transport::Stream => input.get(..=LINE_MAX).unwrap_or(input),
            Transport::Datagram => input,
        };
        match token::line(window) {
            Some(line) => self.line(input, line.text, line.consumed),
            None if window.len() <= LINE_MAX => Next::More(0),
            None => self.long_line(window),
        }
    }

    fn line<'a>(&mut self, input: &'a [u8], line: &'a [u8], taken: usize) -> Next<'a> {
        // A node reads no more of a line than this, and closes the connection.
        let ending: &[u8] = match line.len() {
            len if len < LINE_MAX => b"\r\n",
            _ => b"\n",
        };
        let say = |line, noreply: bool| Some(Command::Say(if noreply { b"" } else { line }));
        let forward = |key, expect, fence, write| Forward {
            key: KeyBytes::Plain(key),
            parts: [line, ending, b""],
            expect,
            fence,
            write,
            shows_reads: false,
            reply_override: None,
        };
        let request = text::parse(line);
        if line.len() > LINE_MAX && !matches!(request, TextRequest::Get(_)) {
            return Next::Took(input.len(), Some(Command::Say(LONG_LINE)));
        }
        let command = match request {
            TextRequest::Get(get) => return self.get(&get, line, taken),
            TextRequest::Store(store) => {
                let rest = taken + store.len as usize + 2;
                let mut whole = forward(store.key, Expect::Line, store.noreply, true);
                if store.len > self.value_max {
                    let line: &[u8] = if store.noreply { b"" } else { reply::TOO_LARGE };
                    // As in memcached, a set that fails deletes the old value.
                    let mut gone = None;
                    if store.mode == StoreMode::Set && store.compare.is_none() {
                        self.state =
                            State::Swallow(u64::from(store.len) + 2, AfterSwallow::Say(b""));
                        whole.parts = [b"delete ", store.key, b"\r\n"];
                        whole.fence = false;
                        whole.reply_override = Some(line.to_vec());
                        gone = Some(Command::Forward(whole));
                    } else if store.noreply {
                        self.state =
                            State::Swallow(u64::from(store.len) + 2, AfterSwallow::Say(b""));
                    } else {
                        let after = AfterSwallow::Say(reply::TOO_LARGE);
                        self.state = State::Swallow(u64::from(store.len) + 2, after);
                    }
                    return Next::Took(taken, gone);
                }
                let Some(data) = input.get(taken..rest) else {
                    return Next::More(rest);
                };
                whole.parts[2] = data;
                return Next::Took(rest, Some(Command::Forward(whole)));
            }
            TextRequest::Meta(tokens) => match meta::Command::parse(tokens) {
                Err(refused) if refused.swallow == 0 => say(refused.line, false),
                Err(refused) => {
                    let after = AfterSwallow::Say(refused.line);
                    self.state = State::Swallow(u64::from(refused.swallow), after);
                    None
                }
                Ok(command) => {
                    let write = match command.verb {
                        meta::MetaVerb::Get => command.flags.writes(),
                        meta::MetaVerb::Debug => false,
                        _ => true,
                    };
                    let mut whole =
                        forward(command.key, Expect::Meta, command.flags.quiet(), write);
                    whole.shows_reads = match command.verb {
                        meta::MetaVerb::Debug => true,
                        _ => command.flags.shows_reads(),
                    };
                    if let Some(decoded) = &command.decoded {
                        whole.key = KeyBytes::Decoded(decoded.as_bytes().to_vec());
                    }
                    let meta::MetaVerb::Set { len, .. } = command.verb else {
                        return Next::Took(taken, Some(Command::Forward(whole)));
                    };
                    if len > self.value_max {
                        let after = AfterSwallow::Say(reply::TOO_LARGE);
                        self.state = State::Swallow(u64::from(len) + 2, after);
                        return Next::Took(taken, None);
                    }
                    let rest = taken + len as usize + 2;
                    let Some(data) = input.get(taken..rest) else {
                        return Next::More(rest);
                    };
                    whole.parts[2] = data;
                    return Next::Took(rest, Some(Command::Forward(whole)));
                }
            },
            TextRequest::Noop => say(reply::MN, false),
            TextRequest::Delete { key, noreply }
            | TextRequest::Arith { key, noreply, .. }
            | TextRequest::Touch { key, noreply, .. } => {
                Some(Command::Forward(forward(key, Expect::Line, noreply, true)))
            }
            TextRequest::FlushAll { delay, noreply } => match delay {
                Some(delay) => Some(Command::Broadcast {
                    request: format!("flush_all {delay}\r\n").into_bytes(),
                    expect: Expect::Line,
                    quiet: noreply,
                }),
                None => say(reply::BAD_EXPTIME, noreply),
            },
            TextRequest::Verbosity { noreply, .. } => say(reply::OK, noreply),
            TextRequest::Version => say(reply::VERSION, false),
            end @ (TextRequest::Quit | TextRequest::Hangup) => {
                let goodbye = matches!(end, TextRequest::Quit);
                self.state = State::Closed { goodbye };
                Some(Command::Close)
            }
            TextRequest::Admin(tokens) => Some(admin(&tokens, line)),
            TextRequest::Reply { line, noreply } => say(line, noreply),
        };
        Next::Took(taken, command)
    }

    /// `get` and its variants with a complete line.
    fn get<'a>(&mut self, get: &Get<'a>, line: &'a [u8], taken: usize) -> Next<'a> {
        let mut keys = get.keys;
        let mut count = 0;
        let mut first_part = 0;
        // One bad key refuses the whole command.
        while let Some(key) = keys.next() {
            if key.len() > KEY_MAX {
                return Next::Took(taken, Some(Command::Say(reply::BAD_FORMAT)));
            }
            count += 1;
            if count == KEYS_MAX {
                first_part = keys.rest().len();
            }
        }
        let (cas, touch) = (get.cas, get.touch);
        if count == 0 {
            return Next::Took(taken, Some(Command::Say(reply::END)));
        }
        if count <= KEYS_MAX {
            let (keys, end) = (get.keys, true);
            return Next::Took(
                taken,
                Some(Command::Get {
                    cas,
                    touch,
                    keys,
                    end,
                }),
            );
        }
        self.state = State::Keys { cas, touch };
        let all = get.keys.rest();
        let part = &all[..all.len() - first_part];
        let command = Command::Get {
            cas,
            touch,
            keys: Words::new(part),
            end: false,
        };
        Next::Took(line.len() - first_part, Some(command))
    }

    /// A long line without an end so far: a list of keys is served as it arrives, any other line ends the connection.
    fn long_line<'a>(&mut self, window: &'a [u8]) -> Next<'a> {
        let blanks = window.iter().take_while(|&&byte| byte == b' ').count();
        let text = token::trim(window);
        let mut words = Words::new(text);
        let (cas, timed) = match words.next() {
            Some(b"get") if blanks <= BLANKS_MAX => (false, false),
            Some(b"gets") if blanks <= BLANKS_MAX => (true, false),
            Some(b"gat") if blanks <= BLANKS_MAX => (false, true),
            Some(b"gats") if blanks <= BLANKS_MAX => (true, true),
            _ => {
                self.state = State::Closed { goodbye: false };
                return Next::Took(0, Some(Command::Close));
            }
        };
        let mut touch = None;
        if timed {
            let exptime = words.next().and_then(parse_i32);
            let (Some(exptime), false) = (exptime, words.rest().is_empty()) else {
                self.state = State::SkipLine(reply::BAD_EXPTIME);
                return Next::Took(0, None);
            };
            touch = Some(exptime);
        }
        self.state = State::Keys { cas, touch };
        Next::Took(text.len() - words.rest().len(), None)
    }

    /// The keys that have arrived.
    fn keys<'a>(&mut self, cas: bool, touch: Option<i32>, input: &'a [u8]) -> Next<'a> {
        let mut at = 0;
        let mut end = 0;
        let mut count = 0;
        let bad = loop {
            while input.get(at) == Some(&b' ') {
                at += 1;
            }
            if count == KEYS_MAX {
                break false;
            }
            let rest = &input[at..];
            let stop = memchr3(b' ', b'\n', 0, rest);
            let word = &rest[..stop.unwrap_or(rest.len())];
            let key = match word {
                // A carriage return at the end is not part of the key.
                [key @ .., b'\r'] if stop.is_none_or(|stop| rest[stop] == b'\n') => key,
                key => key,
            };
            if key.len() > KEY_MAX {
                break true;
            }
            let Some(stop) = stop else {
                if at == 0 {
                    return Next::More(0);
                }
                break false;
            };
            if key.is_empty() {
                // The end of the line, or of the part that memcached parses.
                if count == 0 {
                    self.state = State::SkipLine(reply::END);
                    return Next::Took(at + stop, None);
                }
                break false;
            }
            count += 1;
            at += key.len();
            end = at;
        };
        if bad && count == 0 {
            self.state = State::SkipLine(reply::BAD_FORMAT);
            return Next::Took(at, None);
        }
        let keys = Words::new(&input[..end]);
        let get = Command::Get {
            cas,
            touch,
            keys,
            end: false,
        };
        Next::Took(at.max(end), (count != 0).then_some(get))
    }

    /// The request of the binary protocol at the start of `input`.
    fn packet<'a>(&mut self, input: &'a [u8]) -> Next<'a> {
        let Some(head) = Header::parse(input) else {
            return Next::More(HEADER);
        };
        if head.magic != binary::REQUEST {
            self.state = State::Closed { goodbye: false };
            return Next::Took(0, Some(Command::Close));
        }
        let front = HEADER + usize::from(head.key) + usize::from(head.extras);
        let value = match head.value() {
            Some(len) if usize::from(head.key) <= KEY_MAX => len,
            value => {
                if front > FRONT_MAX {
                    self.state = State::Closed { goodbye: false };
                    return Next::Took(HEADER, Some(Command::Close));
                }
                let status = match value {
                    None => Status::UnknownCommand,
                    Some(_) => Status::Invalid,
                };
                let after = AfterSwallow::Close(error(&head, status));
                self.state = State::Swallow((front - HEADER) as u64, after);
                return Next::Took(HEADER, None);
            }
        };
        let Some(key) = input.get(HEADER + usize::from(head.extras)..front) else {
            return Next::More(front);
        };
        let extras = usize::from(head.extras);
        let keyed = |len: usize| extras == len && !key.is_empty();
        let full = value == 0;
        let bare = extras == 0 && key.is_empty() && full;
        let quiet = non_quiet(head.opcode).is_some();
        let write = match non_quiet(head.opcode).unwrap_or(head.opcode) {
            op::GET | op::GETK if keyed(0) && full => false,
            op::TOUCH | op::GAT | op::GATK if keyed(4) => true,
            op::SET | op::ADD | op::REPLACE if keyed(8) => true,
            op::APPEND | op::PREPEND if keyed(0) => true,
            op::DELETE if keyed(0) && full => true,
            op::INCREMENT | op::DECREMENT if keyed(20) && full => true,
            op::VERSION if bare => {
                let packet = success(&head, VERSION.as_bytes());
                return Next::Took(front, Some(Command::Packet(packet)));
            }
            op::NOOP if bare => {
                return Next::Took(front, Some(Command::Packet(success(&head, b""))));
            }
            op::FLUSH if matches!(extras, 0 | 4) && key.is_empty() && full => {
                let mut request = input[..front].to_vec();
                request[1] = op::FLUSH;
                let expect = Expect::Binary;
                let command = Command::Broadcast {
                    request,
                    expect,
                    quiet,
                };
                return Next::Took(front, Some(command));
            }
            op::QUIT if bare => {
                self.state = State::Closed { goodbye: true };
                let packet = if quiet {
                    Vec::new()
                } else {
                    success(&head, b"")
                };
                return Next::Took(front, Some(Command::Packet(packet)));
            }
            op::STAT if extras == 0 && full => {
                let command = Command::BinaryStats {
                    request: &input[..front],
                    refusal: error(&head, Status::UnknownCommand),
                };
                return Next::Took(front, Some(command));
            }
            op::SASL_LIST_MECHS if bare => {
                let packet = error(&head, Status::UnknownCommand);
                return Next::Took(front, Some(Command::Packet(packet)));
            }
            known @ (op::GET..=op::QUIT
            | op::FLUSH
            | op::NOOP..=op::STAT
            | op::TOUCH
            | op::GAT
            | op::GATK
            | op::SASL_LIST_MECHS..=op::SASL_STEP)
                if !(matches!(known, op::SASL_AUTH | op::SASL_STEP) && keyed(0)) =>
            {
                self.state = State::Closed { goodbye: false };
                let packet = error(&head, Status::Invalid);
                return Next::Took(front, Some(Command::Packet(packet)));
            }
            _ => {
                let after = AfterSwallow::Packet(error(&head, Status::UnknownCommand));
                self.state = State::Swallow(u64::from(value), after);
                return Next::Took(front, None);
            }
        };
        if value > self.value_max {
            let after = AfterSwallow::Packet(error(&head, Status::TooLarge));
            self.state = State::Swallow(u64::from(value), after);
            return Next::Took(front, None);
        }
        let whole = front + value as usize;
        let Some(packet) = input.get(..whole) else {
            return Next::More(whole);
        };
        let forward = Forward {
            key: KeyBytes::Plain(key),
            parts: [packet, b"", b""],
            expect: Expect::Binary,
            fence: quiet,
            write,
            shows_reads: false,
            reply_override: None,
        };
        Next::Took(whole, Some(Command::Forward(forward)))
    }
}

/// The meaning of the rare commands for a fleet.
fn admin<'a>(tokens: &Tokens<'a>, line: &'a [u8]) -> Command<'a> {
    let broadcast = || Command::Broadcast {
        request: [line, b"\r\n"].concat(),
        expect: Expect::Line,
        quiet: false,
    };
    match (tokens.at(0), tokens.at(1)) {
        (b"stats", _) => {
            let mut words = Words::new(line);
            words.next();
            Command::Stats(words.rest().trim_ascii())
        }
        (b"lru_crawler", b"metadump" | b"mgdump") => Command::Say(NOT_AVAILABLE),
        (b"slabs" | b"lru" | b"lru_crawler" | b"cache_memlimit", _) => broadcast(),
        _ => Command::Say(NOT_AVAILABLE),
    }
}

fn response(head: &Header, status: Status, body: &[u8]) -> Vec<u8> {
    let response = Response {
        opcode: head.opcode,
        status,
        key: 0,
        extras: 0,
        body: body.len() as u32,
        opaque: head.opaque,
        cas: 0,
    };
    [&response.to_bytes(), body].concat()
}

fn success(head: &Header, body: &[u8]) -> Vec<u8> {
    response(head, Status::Success, body)
}

/// The error packet for the request whose header is `head`.
pub fn error(head: &Header, status: Status) -> Vec<u8> {
    response(head, status, status.text())
}

/// The packet for a node that cannot be reached.
pub fn unavailable(request: &[u8]) -> Vec<u8> {
    match Header::parse(request) {
        Some(head) => response(&head, Status::OutOfMemory, b"Node is not available"),
        None => Vec::new(),
    }
}

/// The packet for a route over its limit.
pub fn limited(request: &[u8]) -> Vec<u8> {
    match Header::parse(request) {
        Some(head) => response(&head, Status::OutOfMemory, b"Route is over its limit"),
        None => Vec::new(),
    }
}

/// The packet for a command that is not possible for its key.
pub fn refused(request: &[u8]) -> Vec<u8> {
    Header::parse(request).map_or_else(Vec::new, |head| error(&head, Status::UnknownCommand))
}
