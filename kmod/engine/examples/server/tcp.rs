// SPDX-License-Identifier: GPL-2.0-only
//! TCP: a poll loop over connections.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use anyhow::Context;
use hippos_engine::connection::{
    Action, Broken, Connection, HeldBytes, NoMemory, Pages, Peek, Stream,
};
use hippos_engine::{Cursor, RefusalCounter, Session, Transport, REPLY_HEADER_MAX};
use hippos_store::host::Host;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::host::{Process, Server};

const LISTENER: Token = Token(0);

/// Bytes of a reply page: small, so that sessions often fill it.
const PAGE: usize = 16 << 10;

/// How long parked connections wait.
const PARK: Duration = Duration::from_millis(1);

/// Bytes that one read takes, and that are available to assemble a command.
const INPUT: usize = 16 << 10;

/// A socket, and the input that was read from it but not consumed. If that is empty, the last read would have blocked.
struct Socket {
    stream: TcpStream,
    received: Vec<u8>,
    ended: bool,
    /// Returns one byte at a time.
    bytewise: bool,
}

impl Socket {
    /// Reads if the buffer is empty.
    fn fill(&mut self) {
        while self.received.is_empty() && !self.ended {
            self.received.resize(INPUT, 0);
            let read = self.stream.read(&mut self.received);
            self.received.truncate(*read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.ended = true,
            }
        }
    }

    fn shown(&self) -> &[u8] {
        let most = if self.bytewise { 1 } else { INPUT };
        &self.received[..self.received.len().min(most)]
    }
}

impl Stream for Socket {
    type Reply<'r> = Cursor<'r>;

    fn peek(&self) -> Peek<'_> {
        match self.shown() {
            [] if self.ended => Peek::End,
            [] => Peek::Nothing,
            bytes => Peek::Bytes(bytes),
        }
    }

    fn copy(&self, to: &mut [u8]) -> usize {
        let len = self.shown().len().min(to.len());
        to[..len].copy_from_slice(&self.shown()[..len]);
        len
    }

    fn consume(&mut self, len: usize) {
        self.received.drain(..len);
        self.fill();
    }

    fn takes(&self) -> bool {
        true
    }

    /// Sends until the socket would block: only then does poll report when it is writable.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(0) => return Err(Broken),
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken),
            }
        }
        Ok(sent)
    }

    fn reply<'r>(&mut self, reply: Self::Reply<'r>, _more: bool) -> Result<&'r [u8], Broken> {
        let bytes = reply.into_bytes();
        let sent = self.send(bytes)?;
        Ok(&bytes[sent..])
    }
}

/// The page that all replies of a thread are written to.
struct Page(Vec<u8>);

impl Pages<Socket> for Page {
    fn open(&mut self) -> Option<Cursor<'_>> {
        Some(Cursor::new(&mut self.0))
    }
}

/// Bytes that a connection holds between turns.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl HeldBytes for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn append_atomic(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        self.append(bytes)
    }

    fn discard(&mut self, len: usize) {
        self.0.drain(..len);
    }
}

struct Client {
    id: u32,
    peer: SocketAddr,
    /// When it is to get another turn, if not with the next event.
    again: Option<Duration>,
    /// It has ended.
    over: bool,
    socket: Socket,
    connection: Connection<'static, Host, Bytes, Bytes>,
}

/// Serves connections forever.
pub(crate) fn serve(
    engine: &'static Server,
    host_stats: &'static Process,
    listener: StdListener,
    bytewise: bool,
) -> anyhow::Result<()> {
    const _: () = assert!(PAGE >= REPLY_HEADER_MAX);
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new().context("poll")?;
    let registry = poll.registry().try_clone()?;
    registry.register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(256);
    let mut clients: HashMap<Token, Client> = HashMap::new();
    let mut next = 1usize;
    let most = engine.settings().max_connections;
    let mut input = vec![0; INPUT];
    let mut page = Page(vec![0; PAGE]);
    loop {
        let soonest = clients.values().filter_map(|client| client.again).min();
        match poll.poll(&mut events, soonest) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled.context("poll")?,
        }
        for client in clients.values_mut().filter(|client| client.again.is_some()) {
            client.over = !client.serve(&mut input, &mut page);
        }
        for event in &events {
            if event.token() != LISTENER {
                if let Some(client) = clients.get_mut(&event.token()) {
                    host_stats.active(client.id);
                    client.over |= !client.serve(&mut input, &mut page);
                }
                continue;
            }
            while let Ok((mut stream, peer)) = listener.accept() {
                let Some(id) = host_stats.enter(peer, most) else {
                    engine.count_refused(RefusalCounter::Connections);
                    let _ = stream.write_all(b"ERROR Too many open connections\r\n");
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let token = Token(next);
                next += 1;
                let both = Interest::READABLE | Interest::WRITABLE;
                registry.register(&mut stream, token, both)?;
                let mut session = Session::new(engine, Transport::Tcp).with_parking();
                session.set_local(peer.ip().is_loopback());
                session.set_number(id);
                engine.connected(id, &peer);
                let client = Client {
                    id,
                    peer,
                    again: None,
                    over: false,
                    socket: Socket {
                        stream,
                        received: Vec::new(),
                        ended: false,
                        bytewise,
                    },
                    connection: Connection::new(session),
                };
                clients.insert(token, client);
            }
        }
        clients.retain(|_, client| {
            if client.over {
                let reason = client.connection.close_reason();
                engine.disconnected(client.id, &client.peer, reason);
                host_stats.leave(client.id);
            }
            !client.over
        });
    }
}

impl Client {
    /// One turn, after which other connections have theirs; `false` when the connection has ended.
    fn serve(&mut self, input: &mut [u8], page: &mut Page) -> bool {
        self.socket.fill();
        let action = self
            .connection
            .turn(&mut self.socket, input, page, || false);
        self.again = match action {
            Action::Wait | Action::Close => None,
            Action::Again => Some(Duration::ZERO),
            Action::Park => Some(PARK),
        };
        action != Action::Close
    }
}
