// SPDX-License-Identifier: GPL-2.0-only
//! The slow UDP receive path: a socket on the same port for the datagrams that the fast path passes on, and a worker
//! that serves it.

use core::ffi::CStr;

use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_engine::{Access, Interval, Message, RefusalCounter, Summary, REPLY_HEADER_MAX};
use hippos_invariant::Exact;
use hippos_kapi::cpu;
use hippos_kapi::poll::Poll;
use hippos_kapi::socket::{Socket, SocketAddresses};
use hippos_kapi::thread::{Context, Started};
use hippos_kapi::{latency, trace};
use hippos_proto::udp::{may_answer_port, FRAME, MEMCACHED_PORT};

use crate::buffer::Buffer;
use crate::refusal::refused;
use crate::server::{Activity, Server, SocketKind, CONNECTIONS};
use crate::traced::{Replied, TracedRequest, UDP_SOCKET};

/// The largest datagram.
const INPUT: usize = 64 << 10;

/// Datagrams before the worker yields this CPU.
const TURN: usize = 64;

/// More datagrams than the socket's buffer holds.
const QUEUED_MAX: usize = 8192;

/// How long a send may wait for buffer space, in milliseconds.
pub(crate) const SEND_MS: u32 = 100;

/// How long the datagrams of one reply may take, in ticks: 1 to 10 s. A slow link must not keep the worker from other
/// clients, nor an unload waiting.
const REPLY_TICKS: u32 = 1000;

// C has the same rule for the fast path: `hippos_source_port_ok`.
const _: () = assert!(MEMCACHED_PORT == hippos_kapi::hook::MEMCACHED_PORT);

/// The arguments of the worker's thread.
pub(crate) struct UdpWorker {
    server: Arc<Server>,
    socket: Socket,
    input: KVVec<u8>,
    message: Buffer,
}

impl UdpWorker {
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
        let Ok(record) =
            server.register_socket(SocketKind::Datagrams, &SocketAddresses::default(), None)
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
                let only = server.config.interface;
                match socket.receive_from(&mut self.input) {
                    // A send may have taken the abort's error.
                    Ok((_, ends))
                        if only.is_some_and(|only| only.get() != ends.interface())
                            && socket.rebind_datagram(only) =>
                    {
                        drop_queue(socket, &mut self.input);
                    }
                    Ok((count, ends)) => {
                        let began = latency::begin();
                        let queued = began.and_then(|_| socket.queued());
                        let mut datagram = Datagram {
                            server,
                            socket,
                            payload: self.input.get(..count).unwrap_or(&[]),
                            ends: &ends,
                            message: &mut self.message,
                        };
                        let sent = if trace::requests_on() {
                            datagram.serve_traced()
                        } else {
                            datagram.serve()
                        };
                        if let Some(began) = began.filter(|_| sent.is_some()) {
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
                    // An ICMP error on the socket, or an operator's abort: more datagrams may follow.
                    Err(_) => {
                        if socket.rebind_datagram(only) {
                            drop_queue(socket, &mut self.input);
                        }
                    }
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

/// Drops the datagrams that arrived while the socket was bound to no interface.
fn drop_queue(socket: &Socket, input: &mut [u8]) {
    for _ in 0..QUEUED_MAX {
        if socket
            .receive_from(input)
            .is_err_and(|error| error == EAGAIN)
        {
            break;
        }
    }
}

/// A datagram that was received.
struct Datagram<'a> {
    server: &'a Server,
    socket: &'a Socket,
    payload: &'a [u8],
    ends: &'a SocketAddresses,
    /// The buffer for its reply.
    message: &'a mut Buffer,
}

impl Datagram<'_> {
    fn refused(&self, reason: &'static CStr) {
        refused(UDP_SOCKET, reason, self.ends.peer_address());
    }

    /// Serves it and, if its source is allowed, traces it.
    #[cold]
    #[inline(never)]
    fn serve_traced(&mut self) -> Option<usize> {
        let summary = Summary::of(self.payload.get(FRAME..).unwrap_or(&[]));
        let request = TracedRequest::new(UDP_SOCKET, self.ends.peer_address(), summary);
        let began = latency::now();
        let sent = self.serve()?;
        let mut replied = Replied::default();
        replied.note(self.message.bytes().get(..sent).unwrap_or(&[]));
        request.trace(&replied, 1, began.elapsed());
        Some(sent)
    }

    /// Answers it, unless it must not be answered. Returns how many bytes of `message` were sent; `None` if its source
    /// is not allowed.
    fn serve(&mut self) -> Option<usize> {
        let ends = self.ends;
        let config = &self.server.config;
        let engine = &*self.server.engine;
        if !ends.is_unicast() {
            return None;
        }
        let access = engine.access(&engine.store.read(), ends.peer_ip(), ends.is_local());
        if access == Access::Refused {
            engine.count_refused(RefusalCounter::UdpSources);
            self.refused(c"source");
            return None;
        }
        if !may_answer_port(ends.peer_port(), config.port) {
            self.refused(c"source_port");
            return None;
        }
        self.message.clear();
        CONNECTIONS.set_datagram_peer(ends.peer_address());
        let Some(reply) = engine.datagram(self.payload, self.message) else {
            return Some(0);
        };
        let message = &*self.message;
        if !engine.may_reply(access, ends.peer_ip(), reply.bytes(reply.datagrams())) {
            self.refused(c"rate");
            return Some(0);
        }
        let began = cpu::ticks();
        let mut count = 0u16;
        while count < reply.datagrams() && cpu::ticks().wrapping_sub(began) <= REPLY_TICKS {
            let (frame, data) = reply.datagram(count, message.bytes());
            if self.socket.send_to(&frame, data, ends).is_err() {
                // The client discards an incomplete message anyway.
                break;
            }
            count = count.add_exact(1);
        }
        engine.note_sent(&reply, count);
        Some(reply.message_bytes(count))
    }
}
