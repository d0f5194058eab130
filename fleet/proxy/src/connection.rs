// SPDX-License-Identifier: MIT

//! A TCP pipeline to a node: requests are sent, and replies arrive in the same order.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use rustix::event::epoll;
use socket2::{Domain, Protocol, Socket, Type};

use crate::answer::{Answer, Deliver, Waiter};
use crate::batch::hash_of;
use crate::config::NodeTls;
use crate::event::{events, Context, Token};
use crate::framing::{self, frame, Expect, Framed};
use crate::lengths::Lengths;
use crate::metrics::NodeMeter;
use crate::stream::Stream;
use crate::tls::Tls;

/// The most unsent bytes of one connection to a node.
pub(crate) const OUTPUT_MAX: usize = 1 << 20;

/// Bytes behind which a GET that could be a datagram does not wait.
const BACKLOG: usize = 16 << 10;

/// The largest reply of a node that is not a list of values.
const LISTING_MAX: usize = 4 << 20;

/// A request in flight on a connection.
#[derive(Debug)]
pub(crate) struct Pending {
    /// `None` for replies that no client needs: those to probes, and those of shadows.
    pub(crate) waiter: Option<Waiter>,
    pub(crate) expect: Expect,
    pub(crate) fence: bool,
    /// The hash of the key of the expected value.
    pub(crate) value_of: Option<u32>,
    /// Whether the reply decides if the node is readmitted.
    pub(crate) probe: bool,
    pub(super) since: u64,
}

impl Pending {
    pub(crate) fn new(waiter: Option<Waiter>, expect: Expect, fence: bool) -> Self {
        Self {
            waiter,
            expect,
            fence,
            value_of: None,
            probe: false,
            since: 0,
        }
    }
}

/// A TCP pipeline.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) stream: Option<Stream>,
    pub(crate) connecting: bool,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The end of its replies has arrived, perhaps behind bytes to be read.
    pub(crate) hung_up: bool,
    pub(crate) output: Vec<u8>,
    /// When the first byte was added to an empty `output`.
    pub(crate) since: u64,
    pub(crate) sent: usize,
    pub(crate) input: Vec<u8>,
    pub(crate) pending: VecDeque<Pending>,
}

/// The measurements of a node to which replies are added.
pub(crate) struct Measured<'a> {
    pub(crate) meter: &'a NodeMeter,
    pub(crate) lengths: &'a mut Lengths,
}

/// The connection has ended.
pub(crate) struct Over;

/// The result of reading.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) replies: usize,
    /// The reply to a probe.
    pub(crate) probed: Option<Vec<u8>>,
}

impl Connection {
    pub(crate) fn connect(
        &mut self,
        context: &Context<'_>,
        address: SocketAddr,
        tls: Option<&NodeTls>,
        token: Token,
    ) -> std::io::Result<()> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        epoll::add(context.epoll, &socket, token.pack(), events())?;
        self.stream = Some(match tls {
            None => Stream::Tcp(socket.into()),
            Some(tls) => Stream::Tls(Box::new(Tls::connect(
                &tls.client,
                &tls.name,
                socket.into(),
            )?)),
        });
        (self.connecting, self.readable) = (true, false);
        (self.writable, self.hung_up) = (false, false);
        Ok(())
    }

    /// Closes the connection, and fails all requests in flight. Returns their number.
    pub(crate) fn fail(&mut self, to: &mut impl Deliver) -> u64 {
        self.stream = None;
        self.output = Vec::new();
        self.input = Vec::new();
        self.sent = 0;
        let mut failed = 0;
        for pending in std::mem::take(&mut self.pending) {
            if let Some(waiter) = pending.waiter {
                failed += 1;
                to.deliver(waiter, Answer::Unavailable);
            }
        }
        failed
    }

    /// Whether bytes wait to be sent.
    pub(crate) fn has_output(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Whether a further request waits neither behind unsent bytes of earlier rounds nor behind a large reply.
    pub(crate) fn is_clear(&self) -> bool {
        self.sent == 0 && self.output.len() < BACKLOG && self.input.len() < BACKLOG
    }

    pub(crate) fn send(&mut self) -> Result<(), Over> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        if self.writable && stream.waits() {
            match stream.push() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(_) => return Err(Over),
                Ok(()) => {}
            }
        }
        while self.writable && self.sent < self.output.len() {
            match stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(Over),
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Over),
            }
        }
        if self.sent == self.output.len() {
            self.sent = 0;
            self.output.clear();
            self.output.shrink_to(64 << 10);
        } else if self.sent > OUTPUT_MAX {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads all bytes that have arrived.
    pub(crate) fn read(
        &mut self,
        context: &mut Context<'_>,
        measured: &mut Measured<'_>,
        to: &mut impl Deliver,
    ) -> Result<Received, Over> {
        let now = context.now;
        let largest = (context.config.value_max as usize).saturating_add(64 << 10);
        let mut heard = Received::default();
        while self.readable {
            let Some(stream) = &mut self.stream else {
                return Ok(heard);
            };
            let len = match stream.read(context.scratch) {
                Ok(0) => return Err(Over),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(Over),
            };
            // More bytes, or the end, have an event of their own.
            self.readable = self.hung_up || !stream.is_drained(len, context.scratch.len());
            // Most reads are complete replies, which need no copy.
            if self.input.is_empty() {
                let read = &context.scratch[..len];
                let taken = self.take(read, largest, now, measured, &mut heard, to)?;
                self.input.extend_from_slice(&context.scratch[taken..len]);
            } else {
                self.input.extend_from_slice(&context.scratch[..len]);
                let input = std::mem::take(&mut self.input);
                let taken = self.take(&input, largest, now, measured, &mut heard, to)?;
                self.input = input;
                self.input.drain(..taken);
            }
            if self.input.is_empty() && self.input.capacity() > 64 << 10 {
                self.input = Vec::new();
            }
        }
        Ok(heard)
    }

    /// Delivers the replies in `input`; returns how many bytes they had.
    fn take(
        &mut self,
        input: &[u8],
        largest: usize,
        now: u64,
        measured: &mut Measured<'_>,
        heard: &mut Received,
        to: &mut impl Deliver,
    ) -> Result<usize, Over> {
        let mut at = 0;
        while at < input.len() {
            // A reply without a request is a protocol error.
            let pending = self.pending.front().ok_or(Over)?;
            let limit = match pending.expect {
                Expect::Listing | Expect::BinaryListing => LISTING_MAX,
                _ => largest,
            };
            let rest = &input[at..];
            let (len, taken) = match frame(rest, pending.expect, pending.fence, limit) {
                Framed::More => break,
                Framed::Broken => return Err(Over),
                Framed::Reply { reply, taken } => (reply, taken),
            };
            let reply = &rest[..len];
            let answer = match pending.value_of {
                None => Answer::Reply(reply),
                Some(_) if !reply.starts_with(b"VALUE ") && reply != hippos_proto::reply::END => {
                    Answer::Error(reply)
                }
                Some(hash) => {
                    let values = reply
                        .strip_suffix(hippos_proto::reply::END)
                        .unwrap_or(reply);
                    // The value of another key is a protocol error.
                    if let Some(value) = framing::value(values) {
                        if hash_of(value.key) != hash || value.whole.len() != values.len() {
                            return Err(Over);
                        }
                        measured.lengths.note(hash, values.len());
                    }
                    Answer::Reply(values)
                }
            };
            measured
                .meter
                .tcp
                .latency(now.saturating_sub(pending.since));
            match pending.waiter {
                Some(waiter) => to.deliver(waiter, answer),
                None if pending.probe => heard.probed = Some(reply.to_vec()),
                None => {}
            }
            self.pending.pop_front();
            heard.replies += 1;
            at += taken;
        }
        Ok(at)
    }
}
