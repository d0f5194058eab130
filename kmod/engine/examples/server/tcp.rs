// SPDX-License-Identifier: GPL-2.0-only
//! The TCP door: a poll loop over sessions.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener as StdListener;

use anyhow::Context;
use hippos_engine::{Next, Out, Session, Transport, HEAD_ROOM};
use hippos_store::host::Host;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::host::Process;
use crate::Server;

const LISTENER: Token = Token(0);

/// Replies that wait to be sent: small, so that sessions have to do with
/// little room.
const OUTPUT: usize = 16 << 10;

/// Input that is read at a time.
const INPUT: usize = 16 << 10;

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
}

impl Out for Output {
    fn room(&self) -> usize {
        OUTPUT - self.bytes.len()
    }

    fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "more than there is room for");
        self.bytes.extend_from_slice(bytes);
    }
}

struct Client {
    id: u32,
    stream: TcpStream,
    session: Session<'static, Host>,
    input: Vec<u8>,
    output: Output,
    /// The client has said all it has to say.
    ended: bool,
    /// The session is over.
    closing: bool,
}

/// Serves connections for ever.
pub(crate) fn serve(
    engine: &'static Server,
    facts: &'static Process,
    listener: StdListener,
    bytewise: bool,
) -> anyhow::Result<()> {
    const _: () = assert!(OUTPUT >= HEAD_ROOM);
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new().context("poll")?;
    let registry = poll.registry().try_clone()?;
    registry.register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(256);
    let mut clients: HashMap<Token, Client> = HashMap::new();
    let mut next = 1usize;
    let most = engine.settings().max_connections;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled.context("poll")?,
        }
        for event in &events {
            if event.token() != LISTENER {
                if let Some(client) = clients.get_mut(&event.token()) {
                    facts.active(client.id);
                    if client.turn(bytewise).is_err() {
                        facts.leave(client.id);
                        clients.remove(&event.token());
                    }
                }
                continue;
            }
            while let Ok((mut stream, peer)) = listener.accept() {
                let Some(id) = facts.enter(peer, most) else {
                    let _ = stream.write_all(b"ERROR Too many open connections\r\n");
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let token = Token(next);
                next += 1;
                let both = Interest::READABLE | Interest::WRITABLE;
                registry.register(&mut stream, token, both)?;
                let mut session = Session::new(engine, Transport::Tcp);
                session.set_local(peer.ip().is_loopback());
                let client = Client {
                    id,
                    stream,
                    session,
                    input: Vec::new(),
                    output: Output::default(),
                    ended: false,
                    closing: false,
                };
                clients.insert(token, client);
            }
        }
    }
}

/// The connection is over.
struct Over;

impl Client {
    /// Goes on until the socket has nothing more to give or to take.
    fn turn(&mut self, bytewise: bool) -> Result<(), Over> {
        loop {
            let sent = self.send()?;
            if self.closing && self.output.bytes.is_empty() {
                return Err(Over);
            }
            if !sent {
                return Ok(());
            }
            if !self.serve(bytewise) {
                continue;
            }
            if !self.output.bytes.is_empty() {
                continue;
            }
            if self.ended {
                return Err(Over);
            }
            let old = self.input.len();
            self.input.resize(old + INPUT, 0);
            let read = self.stream.read(&mut self.input[old..]);
            self.input.truncate(old + *read.as_ref().unwrap_or(&0));
            match read {
                // What came before the end is still to be answered.
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Over),
            }
        }
    }

    /// Feeds the session; `true` when it wants more input.
    fn serve(&mut self, bytewise: bool) -> bool {
        let mut done = 0;
        let mut shown = if bytewise { 1 } else { usize::MAX };
        let next = loop {
            let rest = &self.input[done..];
            let fed = self
                .session
                .feed(&rest[..rest.len().min(shown)], &mut self.output);
            done += fed.consumed;
            let left = self.input.len() - done;
            match fed.next {
                Next::Read if bytewise && fed.consumed > 0 && left > 0 => shown = 1,
                Next::Read if shown < left => shown += 1,
                next => break next,
            }
        };
        self.input.drain(..done);
        self.closing = next == Next::Close;
        next == Next::Read
    }

    /// Sends what there is; `false` when the socket takes no more.
    fn send(&mut self) -> Result<bool, Over> {
        while !self.output.bytes.is_empty() {
            match self.stream.write(&self.output.bytes) {
                Ok(0) => return Err(Over),
                Ok(n) => {
                    self.output.bytes.drain(..n);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Over),
            }
        }
        Ok(true)
    }
}
