// SPDX-License-Identifier: GPL-2.0-only
//! The UDP receive paths before the socket, XDP and the PRE_ROUTING hook: GETs answered in softirq.
//!
//! A request that the engine does not answer is passed, untouched: from XDP to the hook, from the hook to the UDP
//! socket.

use core::ffi::CStr;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU32;

use kernel::sync::Arc;

use hippos_engine::{Access, DatagramRequest, Engine, Interval, Pass, Summary};
use hippos_kapi::hook::PacketHandler;
use hippos_kapi::packet::{Packet, Served, Verdict, DATAGRAMS_MAX};
use hippos_kapi::pass::Reason;
use hippos_kapi::{latency, rcu, trace};

use hippos_proto::udp::{DATAGRAM_MAX, DATA_MAX, FRAME};

use crate::platform::Kernel;
use crate::refusal::refused;
use crate::server::Server;
use crate::traced::{Replied, TracedRequest};

pub(crate) struct FastPath {
    server: Arc<Server>,
}

impl FastPath {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server }
    }
}

impl PacketHandler for FastPath {
    #[inline]
    fn port(&self) -> u16 {
        self.server.config.port
    }

    fn interface(&self) -> u32 {
        self.server.config.interface.map_or(0, NonZeroU32::get)
    }

    fn is_allowed(&self, section: rcu::ReadSection, source: IpAddr, local: bool) -> bool {
        let engine = &*self.server.engine;
        let guard = engine.store.read_in(section);
        engine.access(&guard, source, local) != Access::Refused
    }

    #[inline]
    fn receive(&self, packet: Packet<'_>) -> Verdict {
        let server = &*self.server;
        let engine = &*server.engine;
        let interface = server.config.interface;
        if interface.is_some_and(|only| only.get() != packet.interface()) {
            return packet.pass(Reason::INTERFACE);
        }
        if trace::requests_on() {
            return receive_traced(engine, packet);
        }
        let guard = engine.store.read_in(packet.section());
        engine.answer(&guard, PacketRequest(packet))
    }

    fn record(&self, xdp: bool, service: u64, queued: Option<u64>) {
        let engine = &*self.server.engine;
        let interval = if xdp {
            Interval::XdpService
        } else {
            Interval::HookService
        };
        engine.note_time(interval, service, 1);
        if let Some(queued) = queued {
            engine.note_time(Interval::HookQueue, queued, 1);
        }
    }
}

/// Where a packet is.
fn path(packet: &Packet<'_>) -> &'static CStr {
    if packet.is_frame() {
        c"xdp"
    } else {
        c"prerouting"
    }
}

fn client(packet: &Packet<'_>) -> SocketAddr {
    SocketAddr::new(packet.source(), packet.source_port())
}

/// Answers a packet and, unless it passes, traces the request. The request's summary is read before the reply is
/// written over it.
#[cold]
#[inline(never)]
fn receive_traced(engine: &Engine<Kernel>, packet: Packet<'_>) -> Verdict {
    let request = packet.payload().get(FRAME..).unwrap_or(&[]);
    let request = TracedRequest::new(path(&packet), client(&packet), Summary::of(request));
    let began = latency::now();
    let serve = |packet: Packet<'_>| {
        let guard = engine.store.read_in(packet.section());
        engine.answer_observed(&guard, PacketRequest(packet))
    };
    packet.observed(serve, |served| {
        let ns = began.elapsed();
        let mut replied = Replied::default();
        match served {
            Served::Silently => {}
            Served::Reply(reply) => {
                replied.note(reply.get(FRAME..).unwrap_or(&[]));
            }
            // So long a reply has a value.
            Served::Replies(bytes) => replied.note_values(bytes),
        }
        request.trace(&replied, 1, ns);
    })
}

/// The capacity of an sk_buff and the further reply sk_buffs, each with its own frame, which replies count once.
const SKB_MOST: usize = FRAME + DATAGRAMS_MAX as usize * DATA_MAX;

/// A packet as the engine's request.
struct PacketRequest<'p>(Packet<'p>);

impl DatagramRequest for PacketRequest<'_> {
    type Verdict = Verdict;

    #[inline]
    fn payload(&self) -> &[u8] {
        self.0.payload()
    }

    #[inline]
    fn source(&self) -> IpAddr {
        self.0.source()
    }

    #[inline]
    fn source_ipv4(&self) -> u32 {
        self.0.source_ipv4()
    }

    #[inline]
    fn is_local(&self) -> bool {
        self.0.is_local()
    }

    #[inline]
    fn cpu(&self) -> usize {
        self.0.cpu()
    }

    #[inline]
    fn limit(&self) -> usize {
        let room = self.0.most();
        room.map_or(SKB_MOST, |room| room.min(DATAGRAM_MAX))
    }

    #[inline]
    fn pass(self, why: Pass) -> Verdict {
        self.0.pass(match why {
            Pass::Source => Reason::SOURCE,
            Pass::Invalid => Reason::INVALID,
            Pass::Unserved => Reason::UNSERVED,
        })
    }

    #[inline]
    fn discard(self) -> Verdict {
        refused(path(&self.0), c"rate", client(&self.0));
        self.0.discard()
    }

    #[inline]
    fn consume(self) -> Verdict {
        self.0.consume()
    }

    #[inline]
    fn reply(self, len: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Verdict {
        self.0.reply(len, write)
    }

    #[inline]
    fn reply_many(
        self,
        count: u16,
        len: usize,
        write: impl FnMut(u16, &mut [u8]) -> usize,
    ) -> Verdict {
        self.0.reply_many(count, len, write)
    }
}
