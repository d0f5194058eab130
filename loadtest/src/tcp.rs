// SPDX-License-Identifier: GPL-2.0-only
//! One stream of a worker (TCP, TLS or a Unix socket): pipelined requests, replies in order.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::{self, Receiver, TryRecvError};

use anyhow::{Context, Result};

use crate::link::Link;
use crate::payload::Stream;
use crate::pending::{Outcome, Pending, Progress};
use crate::settings::{Endpoint, Protocol, Settings};
use crate::wire;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Bytes sent or received before other connections get a turn.
const TURN: usize = 4 << 20;
/// The most bytes that may wait to be sent; above that, requests are not sent.
const BACKLOG: usize = 64 << 20;

/// Why a connection cannot be used any more.
#[derive(Debug)]
pub enum Broken {
    /// A reply is wrong.
    Wrong(String),
    /// The server closed, or the network failed.
    Server(String),
}

/// Output that waits to be sent after the output buffer.
#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// A value that is too large to generate at once.
    Value(Stream),
}

/// A connection with its requests in flight.
#[derive(Debug)]
pub struct Tcp {
    /// None while the connection is down.
    stream: Option<Link>,
    peer: Endpoint,
    protocol: Protocol,
    /// A new connection, which another thread is making.
    connecting: Option<Receiver<std::io::Result<Link>>>,
    output: Vec<u8>,
    written: usize,
    /// The output after the buffer.
    later: VecDeque<Piece>,
    input: Vec<u8>,
    taken: usize,
    filled: usize,
    queue: VecDeque<Pending>,
    spare: Vec<Pending>,
    /// Ticket of the request at the head of the queue.
    head: u64,
    waiting: usize,
    /// Whether epoll reports when the socket is writable.
    writable_registered: bool,
}

impl Tcp {
    /// A connection, without delays.
    pub fn connect(server: &Endpoint, settings: &Settings) -> Result<Self> {
        let stream = Link::connect(server, settings)
            .with_context(|| format!("cannot reach TCP {server}"))?;
        stream.set_nonblocking()?;
        Ok(Self {
            stream: Some(stream),
            peer: server.clone(),
            protocol: settings.protocol,
            connecting: None,
            output: Vec::new(),
            written: 0,
            later: VecDeque::new(),
            input: vec![0; CHUNK],
            taken: 0,
            filled: 0,
            queue: VecDeque::new(),
            spare: Vec::new(),
            head: 0,
            waiting: 0,
            writable_registered: false,
        })
    }

    /// The socket, unless the connection is down.
    pub fn stream(&self) -> Option<&Link> {
        self.stream.as_ref()
    }

    /// Starts to reconnect, on another thread, after a pause.
    pub fn reconnect(&mut self, settings: &Settings, pause: std::time::Duration) {
        let (sender, receiver) = mpsc::channel();
        let (server, settings) = (self.peer.clone(), settings.clone());
        std::thread::spawn(move || {
            std::thread::sleep(pause);
            let link = Link::connect(&server, &settings).and_then(|mut link| {
                link.version(settings.protocol)?;
                link.set_nonblocking()?;
                Ok(link)
            });
            // The receiver is gone if the run is over.
            let _ = sender.send(link);
        });
        self.connecting = Some(receiver);
    }

    /// Checks the attempt to reconnect: true if there is a new connection, `None` if the attempt failed.
    pub fn reconnected(&mut self) -> Option<bool> {
        match self.connecting.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => Some(false),
            Some(Ok(Ok(link))) => {
                self.connecting = None;
                self.stream = Some(link);
                Some(true)
            }
            Some(Ok(Err(_)) | Err(TryRecvError::Disconnected)) => {
                self.connecting = None;
                None
            }
        }
    }

    /// Requests in flight.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Requests in flight and requests that were given up: the server still has the latter before the next ones.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether so many bytes wait to be sent that no more should be added.
    pub fn full(&self) -> bool {
        let later: usize = self
            .later
            .iter()
            .map(|piece| match piece {
                Piece::Bytes(bytes) => bytes.len(),
                Piece::Value(_) => 0,
            })
            .sum();
        self.output.len() - self.written + later > BACKLOG || self.later.len() > 1024
    }

    /// Whether epoll should report writability, if that has changed.
    pub fn writable_interest(&mut self) -> Option<bool> {
        let wish = self.blocked();
        (std::mem::replace(&mut self.writable_registered, wish) != wish).then_some(wish)
    }

    /// Whether bytes wait to be sent.
    fn blocked(&self) -> bool {
        self.written < self.output.len()
            || !self.later.is_empty()
            || self.stream.as_ref().is_some_and(Link::holds)
    }

    /// Encodes a request, to be sent with the next [`Self::flush`]; returns its ticket and size.
    pub fn stage(&mut self, start: impl FnOnce(&mut Pending)) -> (u64, usize) {
        let mut pending = self.spare.pop().unwrap_or_default();
        start(&mut pending);
        let output = match self.later.back_mut() {
            Some(Piece::Bytes(bytes)) => bytes,
            _ => &mut self.output,
        };
        let before = output.len();
        let value = wire::encode(&pending.request, pending.protocol, pending.version, output);
        let mut size = output.len() - before;
        if let Some(value) = value {
            let tail = wire::tail(pending.protocol);
            size += value.left() + tail.len();
            self.later.push_back(Piece::Value(value));
            self.later.push_back(Piece::Bytes(tail.to_vec()));
        }
        let ticket = self.head + self.queue.len() as u64;
        self.queue.push_back(pending);
        self.waiting += 1;
        (ticket, size)
    }

    /// Moves the next piece to the output buffer, which is empty; whether there was one.
    fn refill_output(&mut self) -> bool {
        self.output.clear();
        self.written = 0;
        match self.later.front_mut() {
            Some(Piece::Bytes(bytes)) => {
                std::mem::swap(&mut self.output, bytes);
                self.later.pop_front();
            }
            Some(Piece::Value(value)) => {
                value.append(4 * CHUNK, &mut self.output);
                if value.left() == 0 {
                    self.later.pop_front();
                }
            }
            None => return false,
        }
        true
    }

    /// Sends the staged requests, as far as the kernel accepts them.
    pub fn flush(&mut self) -> Result<(), Broken> {
        let mut sent = 0;
        let Some(stream) = self.stream.as_mut() else {
            return Ok(());
        };
        if stream.holds() {
            match stream.flush() {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                flushed => {
                    flushed.map_err(|e| Broken::Server(format!("TCP {}: {e}", self.peer)))?
                }
            }
        }
        while sent < TURN {
            while self.written == self.output.len() {
                if !self.refill_output() {
                    return Ok(());
                }
            }
            let Some(stream) = self.stream.as_mut() else {
                break;
            };
            match stream.write(&self.output[self.written..]) {
                Ok(n) => {
                    self.written += n;
                    sent += n;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Broken::Server(format!("TCP {}: {e}", self.peer))),
            }
        }
        if self.written > 4 * CHUNK {
            self.output.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Gives up a request that still waits. Its reply will be late.
    pub fn expire(&mut self, ticket: u64, now: u64, timeout: u64) -> Option<&Pending> {
        let at = usize::try_from(ticket.checked_sub(self.head)?).ok()?;
        let pending = self.queue.get_mut(at)?;
        if pending.expired() {
            return None;
        }
        pending.give_up(now, timeout);
        self.waiting -= 1;
        Some(pending)
    }

    /// Stops waiting for the replies to requests that were given up.
    pub fn forget_all(&mut self, mut forgotten: impl FnMut(&Pending)) {
        for pending in &mut self.queue {
            if pending.expired() && !pending.forgotten {
                pending.forgotten = true;
                forgotten(pending);
            }
        }
    }

    /// The connection has broken: passes every request on it to `lost`.
    pub fn lose(&mut self, mut lost: impl FnMut(&Pending)) {
        for pending in self.queue.drain(..) {
            self.head += 1;
            lost(&pending);
        }
        self.stream = None;
        self.writable_registered = false;
        self.waiting = 0;
        self.output.clear();
        self.written = 0;
        self.later.clear();
        self.taken = 0;
        self.filled = 0;
    }

    /// Reads the available bytes, and returns their number; `done` gets each request that is answered, including
    /// expired ones.
    pub fn receive(&mut self, mut done: impl FnMut(&Pending, Outcome)) -> Result<usize, Broken> {
        let mut total = 0;
        loop {
            if self.input.len() - self.filled < CHUNK {
                self.input.copy_within(self.taken..self.filled, 0);
                self.filled -= self.taken;
                self.taken = 0;
                // The value is larger than the buffer: double its size.
                if self.input.len() - self.filled < CHUNK {
                    self.input.resize(self.input.len() * 2, 0);
                }
            }
            let room = self.input.len() - self.filled;
            let Some(stream) = self.stream.as_mut() else {
                return Ok(total);
            };
            let n = match stream.read(&mut self.input[self.filled..]) {
                Ok(0) => {
                    return Err(Broken::Server(format!(
                        "TCP {}: the server closed the connection, with {} requests unanswered",
                        self.peer, self.waiting
                    )))
                }
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(total),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(Broken::Server(format!("TCP {}: {e}", self.peer))),
            };
            self.filled += n;
            total += n;
            self.replies(&mut done).map_err(Broken::Wrong)?;
            if n < room || total > TURN {
                return Ok(total);
            }
        }
    }

    fn replies(&mut self, done: &mut impl FnMut(&Pending, Outcome)) -> Result<(), String> {
        while let Some((element, len)) =
            wire::element(self.protocol, &self.input[self.taken..self.filled])
        {
            let Some(pending) = self.queue.front_mut() else {
                let shown = crate::pending::brief(&format!("{element:?}"));
                return Err(format!("TCP {}: {shown} came without a request", self.peer));
            };
            if let Progress::Done(outcome) = pending.take(element)? {
                if !pending.expired() {
                    self.waiting -= 1;
                }
                done(pending, outcome);
                self.head += 1;
                if let (Some(pending), true) = (self.queue.pop_front(), self.spare.len() < 1024) {
                    self.spare.push(pending);
                }
            }
            self.taken += len;
        }
        if self.taken == self.filled {
            self.taken = 0;
            self.filled = 0;
        }
        Ok(())
    }
}
