//! One TCP connection of a worker: pipelined requests, replies in their order.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::pending::{Outcome, Pending, Progress};
use crate::wire;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Bytes that may wait to be sent; beyond, requests are not sent at all.
const BACKLOG: usize = 64 << 20;
/// Limit of a connection attempt.
const CONNECT: Duration = Duration::from_secs(5);

/// Why a connection can be used no more.
#[derive(Debug)]
pub enum Broken {
    /// A reply is wrong.
    Wrong(String),
    /// The server closed, or the network failed.
    Server(String),
}

/// A connection with the requests that wait on it.
#[derive(Debug)]
pub struct Tcp {
    stream: TcpStream,
    peer: SocketAddr,
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    taken: usize,
    filled: usize,
    queue: VecDeque<Pending>,
    spare: Vec<Pending>,
    /// Ticket of the request at the head of the queue.
    head: u64,
    waiting: usize,
}

impl Tcp {
    /// A connection, without delays.
    pub fn connect(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, CONNECT)
            .with_context(|| format!("cannot reach TCP {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            peer: server,
            output: Vec::new(),
            written: 0,
            input: vec![0; CHUNK],
            taken: 0,
            filled: 0,
            queue: VecDeque::new(),
            spare: Vec::new(),
            head: 0,
            waiting: 0,
        })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Requests that wait for their reply.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// So much waits to be sent that no more should come.
    pub fn full(&self) -> bool {
        self.output.len() - self.written > BACKLOG
    }

    /// Bytes wait to be sent.
    pub fn blocked(&self) -> bool {
        self.written < self.output.len()
    }

    /// Encodes a request, to go with the next [`Self::flush`]: its ticket and size.
    pub fn stage(&mut self, start: impl FnOnce(&mut Pending)) -> (u64, usize) {
        let mut pending = self.spare.pop().unwrap_or_default();
        start(&mut pending);
        let before = self.output.len();
        wire::encode(
            &pending.request,
            pending.meta,
            pending.version,
            &mut self.output,
        );
        let ticket = self.head + self.queue.len() as u64;
        self.queue.push_back(pending);
        self.waiting += 1;
        (ticket, self.output.len() - before)
    }

    /// Sends what is staged, as far as the kernel takes it.
    pub fn flush(&mut self) -> Result<(), Broken> {
        while self.blocked() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Broken::Server(format!("TCP {}: {e}", self.peer))),
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        } else if self.written > 4 * CHUNK {
            self.output.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Gives up on a request that still waits: its due time. Its reply will be late.
    pub fn expire(&mut self, ticket: u64) -> Option<u64> {
        let at = usize::try_from(ticket.checked_sub(self.head)?).ok()?;
        let pending = self.queue.get_mut(at)?;
        if std::mem::replace(&mut pending.expired, true) {
            return None;
        }
        self.waiting -= 1;
        Some(pending.due)
    }

    /// Reads what is there; `done` gets each request that is answered, expired
    /// ones included. How many bytes came.
    pub fn receive(&mut self, mut done: impl FnMut(&Pending, Outcome)) -> Result<usize, Broken> {
        let mut total = 0;
        loop {
            if self.input.len() - self.filled < CHUNK {
                self.input.copy_within(self.taken..self.filled, 0);
                self.filled -= self.taken;
                self.taken = 0;
                // A value larger than the buffer: room for as much again.
                if self.input.len() - self.filled < CHUNK {
                    self.input.resize(self.input.len() * 2, 0);
                }
            }
            let room = self.input.len() - self.filled;
            let n = match self.stream.read(&mut self.input[self.filled..]) {
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
            if n < room {
                return Ok(total);
            }
        }
    }

    fn replies(&mut self, done: &mut impl FnMut(&Pending, Outcome)) -> Result<(), String> {
        while let Some((element, len)) = wire::element(&self.input[self.taken..self.filled]) {
            let Some(pending) = self.queue.front_mut() else {
                return Err(format!(
                    "TCP {}: {element:?} came without a request",
                    self.peer
                ));
            };
            if let Progress::Done(outcome) = pending.take(element)? {
                if !pending.expired {
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
