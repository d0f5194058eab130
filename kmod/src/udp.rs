// SPDX-License-Identifier: GPL-2.0-only
//! The slow UDP door: a socket on the same port for what the fast one leaves
//! over, and a worker that serves it.

use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_kapi::cpu;
use hippos_kapi::poll::Poll;
use hippos_kapi::socket::{Ends, Socket};
use hippos_kapi::thread::{Context, Started};
use hippos_proto::udp::{self, Frame, DATA_MAX};

use crate::server::Server;
use crate::standin::{Next, Out, Session, Transport};

/// The longest datagram there is.
const INPUT: usize = 64 << 10;

/// Bytes of reply that there is always memory for.
const REPLY: usize = 16 << 10;

/// The most bytes of reply to one datagram: an item of the largest size with
/// its first and last line. More takes more datagrams than the frame can
/// number, and helps only those who forge their address.
const REPLY_MAX: usize = 4 << 20;

/// Datagrams before somebody else's turn on this CPU.
const TURN: usize = 64;

/// How long a send may wait for room, milliseconds.
pub(crate) const SEND_MS: u32 = 100;

/// memcached's own port: an answer there could be answered again.
const MEMCACHED_PORT: u16 = 11211;

/// What the worker starts with.
pub(crate) struct Worker {
    server: Arc<Server>,
    socket: Socket,
    input: KVVec<u8>,
    reply: Reply,
}

impl Worker {
    pub(crate) fn new(server: Arc<Server>, socket: Socket) -> Result<Self> {
        let mut input = KVVec::with_capacity(INPUT, GFP_KERNEL)?;
        input.resize(INPUT, 0, GFP_KERNEL)?;
        Ok(Self {
            server,
            socket,
            input,
            reply: Reply {
                bytes: KVVec::with_capacity(REPLY, GFP_KERNEL)?,
            },
        })
    }

    /// The worker's life, on its own thread.
    pub(crate) fn run(mut self, context: &Context, started: Started) {
        let server = &*self.server;
        let Ok(mut poll) = Poll::new(context) else {
            return;
        };
        if poll.add(self.socket, ()).is_err() {
            return;
        }
        started.ready();
        while !context.should_stop() {
            poll.wait(None);
            let Some(mut ready) = poll.next() else {
                continue;
            };
            let Some((socket, ())) = ready.parts() else {
                continue;
            };
            let mut empty = false;
            for _ in 0..TURN {
                match socket.receive_from(&mut self.input) {
                    Ok((count, ends)) => {
                        let datagram = self.input.get(..count).unwrap_or(&[]);
                        serve(server, socket, datagram, &ends, &mut self.reply);
                    }
                    Err(error) if error == EAGAIN => {
                        empty = true;
                        break;
                    }
                    // An ICMP error that somebody sent us: there may be more behind it.
                    Err(_) => {}
                }
            }
            if !empty {
                ready.again();
            }
            cpu::resched();
        }
    }
}

/// Answers one datagram, unless it is better left without an answer.
fn serve(server: &Server, socket: &Socket, datagram: &[u8], ends: &Ends, reply: &mut Reply) {
    let config = &server.config;
    if !ends.is_unicast() || !config.allow.permits(ends.peer(), ends.is_local()) {
        return;
    }
    let port = ends.peer_port();
    if port == 0 || port == MEMCACHED_PORT || port == config.port {
        return;
    }
    let Some((frame, data)) = Frame::parse(datagram) else {
        return;
    };
    if frame.total != 1 || udp::is_reply(data) {
        return;
    }
    reply.bytes.clear();
    if !answer(server, data, reply) {
        reply.bytes.clear();
        reply.put(b"SERVER_ERROR out of memory writing get response\r\n");
    }
    send(socket, frame.id, &reply.bytes, ends);
    reply.shrink();
}

/// False when there is no room for the whole reply.
fn answer(server: &Server, data: &[u8], reply: &mut Reply) -> bool {
    let mut session = Session::new(&server.engine, Transport::Udp);
    let mut data = data;
    loop {
        let fed = session.feed(data, reply);
        data = data.get(fed.consumed..).unwrap_or(&[]);
        match fed.next {
            Next::Write if !reply.grow() => return false,
            Next::Write => {}
            Next::Read | Next::Close => return true,
        }
    }
}

/// Sends a reply as one message of as many datagrams as it takes.
fn send(socket: &Socket, id: u16, reply: &[u8], ends: &Ends) {
    let Ok(total) = u16::try_from(udp::datagrams(reply.len())) else {
        return;
    };
    for (sequence, data) in (0..total).zip(reply.chunks(DATA_MAX)) {
        let frame = udp::reply_frame(id, sequence, total);
        if socket.send_to(&frame, data, ends).is_err() {
            // The client gives up on the whole message anyway.
            return;
        }
    }
}

/// A reply in the making.
struct Reply {
    bytes: KVVec<u8>,
}

impl Reply {
    /// Makes more room, within limits.
    fn grow(&mut self) -> bool {
        let room = self.bytes.capacity();
        room < REPLY_MAX && self.bytes.reserve(room, GFP_KERNEL).is_ok()
    }

    /// Gives the memory of a long reply back.
    fn shrink(&mut self) {
        if self.bytes.capacity() > REPLY {
            if let Ok(bytes) = KVVec::with_capacity(REPLY, GFP_KERNEL) {
                self.bytes = bytes;
            }
        }
    }
}

impl Out for Reply {
    fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    fn put(&mut self, bytes: &[u8]) {
        // Within the room this allocates nothing.
        if bytes.len() <= self.room() {
            let _ = self.bytes.extend_from_slice(bytes, GFP_KERNEL);
        }
    }
}
