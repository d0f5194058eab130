// SPDX-License-Identifier: GPL-2.0-only
//! The fast UDP receive path: GETs answered in softirq.
//!
//! A request that the engine does not answer is passed to the UDP socket, untouched.

use core::net::IpAddr;
use core::num::NonZeroU32;

use kernel::sync::Arc;

use hippos_engine::{Access, Interval, Pass, Request};
use hippos_kapi::hook::PacketHandler;
use hippos_kapi::packet::{Packet, Verdict, DATAGRAMS_MAX};
use hippos_kapi::pass::Reason;
use hippos_kapi::rcu;

use hippos_proto::udp::{DATAGRAM_MAX, DATA_MAX, FRAME};

use crate::server::Server;

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

    fn is_allowed(&self, section: rcu::Guard, source: IpAddr, local: bool) -> bool {
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

/// The capacity of an sk_buff and the further reply sk_buffs, each with its own frame, which replies count once.
const SKB_MOST: usize = FRAME + DATAGRAMS_MAX as usize * DATA_MAX;

/// A packet as the engine's request.
struct PacketRequest<'p>(Packet<'p>);

impl Request for PacketRequest<'_> {
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
