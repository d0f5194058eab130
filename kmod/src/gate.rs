// SPDX-License-Identifier: GPL-2.0-only
//! The fast UDP door: GETs answered where the packet arrives.
//!
//! Runs in softirq. Whatever it does not serve goes on to the UDP socket,
//! untouched.

use core::net::IpAddr;
use core::num::NonZeroU32;

use kernel::sync::Arc;

use hippos_engine::{Access, Plan, Verdict};
use hippos_kapi::hook::Door;
use hippos_kapi::packet::{Fate, Packet, DATAGRAMS_MAX};
use hippos_kapi::rcu;

use hippos_proto::udp::{DATAGRAM_MAX, DATA_MAX, FRAME};
use hippos_store::Guard;

use crate::platform::Kernel;
use crate::server::Server;

pub(crate) struct Gate {
    server: Arc<Server>,
}

impl Gate {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server }
    }
}

impl Door for Gate {
    #[inline]
    fn port(&self) -> u16 {
        self.server.config.port
    }

    fn interface(&self) -> u32 {
        self.server.config.interface.map_or(0, NonZeroU32::get)
    }

    fn welcomes(&self, section: rcu::Guard, source: IpAddr, local: bool) -> bool {
        let engine = &*self.server.engine;
        let guard = engine.store.read_in(section);
        engine.access(&guard, source, local) != Access::Refused
    }

    #[inline]
    fn receive(&self, packet: Packet<'_>) -> Fate {
        let server = &*self.server;
        let engine = &*server.engine;
        let interface = server.config.interface;
        if interface.is_some_and(|only| only.get() != packet.interface()) {
            return packet.pass();
        }
        let guard = engine.store.read_in(packet.section());
        // Sources without an IPv4 address are not quite as quick.
        if engine.welcomes(&guard, packet.source_ipv4()) {
            if let Some(quick) = engine.quick(&guard, packet.payload()) {
                let cpu = packet.cpu();
                return packet.reply(quick.room(), |buffer| {
                    engine.count_quick(&quick, cpu);
                    quick.write(buffer)
                });
            }
        }
        self.single(&guard, packet)
    }
}

impl Gate {
    /// What is not the commonest request. Kept apart, so that it takes no stack
    /// and no time of that.
    #[inline(never)]
    fn single(&self, guard: &Guard<'_, Kernel>, packet: Packet<'_>) -> Fate {
        let engine = &*self.server.engine;
        let access = engine.access(guard, packet.source(), packet.is_local());
        if access == Access::Refused {
            return packet.pass();
        }
        if let Some(single) = engine.single(guard, packet.payload(), most(&packet)) {
            if !engine.may_reply(access, packet.source(), single.len()) {
                engine.count_single(&single);
                return packet.discard();
            }
            return packet.reply(single.len(), |buffer| {
                engine.count_single(&single);
                single.write(buffer)
            });
        }
        self.plan(guard, access, packet)
    }

    #[inline(never)]
    fn plan(&self, guard: &Guard<'_, Kernel>, access: Access, packet: Packet<'_>) -> Fate {
        let server = &*self.server;
        let engine = &server.engine;
        if let Some(many) = engine.many(guard, packet.payload(), most(&packet)) {
            if !engine.may_reply(access, packet.source(), many.bound()) {
                engine.count_many(&many);
                return packet.discard();
            }
            return packet.reply(many.bound(), |buffer| {
                engine.count_many(&many);
                many.write(buffer)
            });
        }
        Self::plan_any(server, guard, access, packet)
    }

    #[inline(never)]
    fn plan_any(
        server: &Server,
        guard: &Guard<'_, Kernel>,
        access: Access,
        packet: Packet<'_>,
    ) -> Fate {
        let engine = &server.engine;
        Plan::with(|plan| {
            match engine.plan(guard, packet.payload(), most(&packet), plan) {
                Verdict::Answer if !engine.may_reply(access, packet.source(), plan.len()) => {
                    engine.count_plan(plan);
                    packet.discard()
                }
                Verdict::Answer => {
                    // Once all room is there; of several datagrams the first is written last.
                    let write = |number, buffer: &mut [u8]| {
                        if number == 0 {
                            engine.count_plan(plan);
                        }
                        plan.write(number, buffer)
                    };
                    match plan.datagrams() {
                        1 => packet.reply(plan.datagram_len(0), |buffer| write(0, buffer)),
                        count => packet.reply_many(count, DATAGRAM_MAX, write),
                    }
                }
                Verdict::Silent => {
                    engine.count_plan(plan);
                    packet.consume()
                }
                // No request of ours: it may be on its way to somebody behind this host.
                Verdict::Drop | Verdict::Pass => packet.pass(),
            }
        })
    }
}

/// What an sk_buff and its twins carry, each with its own frame, which replies count once.
const SKB_MOST: usize = FRAME + DATAGRAMS_MAX as usize * DATA_MAX;

/// The most bytes that a reply may have.
#[inline]
fn most(packet: &Packet<'_>) -> usize {
    packet
        .most()
        .map_or(SKB_MOST, |room| room.min(DATAGRAM_MAX))
}
