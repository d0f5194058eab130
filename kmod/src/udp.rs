// SPDX-License-Identifier: GPL-2.0-only
//! The slow UDP receive path: a socket on the same port for the datagrams that the fast path passes on, and a worker
//! that serves it.

use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_engine::{Access, EngineCounter, Interval, Message, REPLY_HEADER_MAX};
use hippos_invariant::Exact;
use hippos_kapi::cpu;
use hippos_kapi::latency;
use hippos_kapi::poll::Poll;
use hippos_kapi::socket::{Socket, SocketAddresses};
use hippos_kapi::thread::{Context, Started};
use hippos_proto::udp::FRAME;

use crate::buffer::Buffer;
use crate::server::{Activity, Kind, Server};

/// The largest datagram.
const INPUT: usize = 64 << 10;

/// Datagrams before the worker yields this CPU.
const TURN: usize = 64;

/// How long a send may wait for buffer space, in milliseconds.
pub(crate) const SEND_MS: u32 = 100;

/// How long the datagrams of one reply may take, in ticks: 1 to 10 s. A slow link must not keep the worker from other
/// clients, nor an unload waiting.
const REPLY_TICKS: u32 = 1000;

/// memcached's own port: a server there could answer our reply.
const MEMCACHED_PORT: u16 = 11211;

/// The arguments of the worker's thread.
pub(crate) struct Worker {
    server: Arc<Server>,
    socket: Socket,
    input: KVVec<u8>,
    message: Buffer,
}

impl Worker {
    pub(crate) fn new(server: Arc<Server>, socket: Socket) -> Result<Self> {
        let mut input = KVVec::with_capacity(INPUT, GFP_KERNEL)?;
        input.resize(INPUT, 0, GFP_KERNEL)?;
        let message = Buffer::new(server.engine.udp_bytes() + REPLY_HEADER_MAX)?;
        Ok(Self {
            server,
            socket,
            input,
            message,
        })
    }

    /// The worker's main loop, on its own thread.
    pub(crate) fn run(mut self, context: &Context, started: Started) {
        let server = &*self.server;
        let Ok(mut poll) = Poll::<()>::new(context) else {
            return;
        };
        if poll.add(self.socket).is_err() {
            return;
        }
        let Ok(record) = server.register_socket(Kind::Datagrams, &SocketAddresses::default(), None)
        else {
            return;
        };
        server.engine.set_udp_number(record.value().id());
        started.ready();
        while !context.should_stop() {
            poll.wait(None);
            let Some(ready) = poll.pop() else {
                continue;
            };
            let Some(socket) = ready.socket() else {
                continue;
            };
            let mut empty = false;
            for _ in 0..TURN {
                if context.should_stop() {
                    break;
                }
                match socket.receive_from(&mut self.input) {
                    Ok((count, ends)) => {
                        let began = latency::begin();
                        let queued = began.and_then(|_| socket.queued());
                        let datagram = self.input.get(..count).unwrap_or(&[]);
                        let was_served = serve(server, socket, datagram, &ends, &mut self.message);
                        if let Some(began) = began.filter(|_| was_served) {
                            let engine = &server.engine;
                            engine.note_time(Interval::UdpService, began.elapsed(), 1);
                            if let Some(queued) = queued {
                                engine.note_time(Interval::UdpQueue, queued, 1);
                            }
                        }
                    }
                    Err(error) if error == EAGAIN => {
                        empty = true;
                        break;
                    }
                    // An ICMP error on the socket: more datagrams may follow.
                    Err(_) => {}
                }
            }
            record.value().served(Activity::Read);
            if !empty {
                ready.again();
            }
            cpu::resched();
        }
    }
}

/// Answers one datagram, unless it must not be answered. Returns whether its source is allowed.
fn serve(
    server: &Server,
    socket: &Socket,
    datagram: &[u8],
    ends: &SocketAddresses,
    message: &mut Buffer,
) -> bool {
    let config = &server.config;
    let engine = &*server.engine;
    if !ends.is_unicast() {
        return false;
    }
    let access = engine.access(&engine.store.read(), ends.peer_ip(), ends.is_local());
    if access == Access::Refused {
        engine.tally(EngineCounter::UdpRefused, 1);
        return false;
    }
    let port = ends.peer_port();
    if port == 0 || port == MEMCACHED_PORT || port == config.port {
        return false;
    }
    message.clear();
    let Some(reply) = engine.datagram(datagram, message) else {
        return true;
    };
    let frames = usize::from(reply.datagrams()).mul_exact(FRAME);
    let bytes = message.len().add_exact(frames);
    if !engine.may_reply(access, ends.peer_ip(), bytes) {
        return true;
    }
    let began = cpu::ticks();
    for index in 0..reply.datagrams() {
        if cpu::ticks().wrapping_sub(began) > REPLY_TICKS {
            return true;
        }
        let (frame, data) = reply.datagram(index, message.bytes());
        if socket.send_to(&frame, data, ends).is_err() {
            // The client discards an incomplete message anyway.
            return true;
        }
    }
    true
}
