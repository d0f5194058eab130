// SPDX-License-Identifier: GPL-2.0-only
//! Answers a datagram where it arrives, in softirq, in the first of four ways that serves it.
//!
//! In order, from the most frequent request: one key whose lookup is one cache line ([`Engine::inline_get`]), any one
//! key ([`Engine::single_get`]), several keys ([`Engine::multi_get`]), and all other requests that only read
//! ([`Engine::plan`]). A datagram that none of them serves passes to the next receive path, untouched and not counted:
//! from XDP to the hook, from the hook to the UDP socket.

use core::net::IpAddr;

use hippos_proto::udp::DATAGRAM_MAX;
use hippos_store::{Guard, Platform};

use crate::access::Access;
use crate::datagram::plan::{Plan, PlanOutcome};
use crate::watchers::Kinds;
use crate::Engine;

/// Why a datagram passes to the next receive path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Its source is not allowed.
    Source,
    /// It is not a valid request.
    Invalid,
    /// Only the socket's worker serves it.
    Unserved,
}

/// A datagram that can be replied to in its own memory.
///
/// [`Engine::answer`] reads it and calls exactly one of the methods that take it.
pub trait DatagramRequest: Sized {
    /// The result of handling the datagram.
    type Verdict;

    /// The UDP payload, with memcached's frame.
    fn payload(&self) -> &[u8];

    /// The sender's address.
    fn source(&self) -> IpAddr;

    /// The sender's IPv4 address as a number; 0 when it has none.
    fn source_ipv4(&self) -> u32;

    /// Whether the sender is this host.
    fn is_local(&self) -> bool;

    /// The current CPU.
    fn cpu(&self) -> usize;

    /// The most bytes that a reply may have, its frame counted once.
    fn limit(&self) -> usize;

    /// Leaves it to the next receive path.
    fn pass(self, why: Pass) -> Self::Verdict;

    /// Drops it: its source has used up its rate limit.
    fn discard(self) -> Self::Verdict;

    /// It was served, and needs no reply.
    fn consume(self) -> Self::Verdict;

    /// Replies with one datagram: `write` gets a buffer of `len` bytes, in the request's own memory, and returns how
    /// many it used. If no such buffer is available the request passes, and `write` is not called.
    fn reply(self, len: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Self::Verdict;

    /// Replies with `count` datagrams of at most `len` bytes each: `write` gets the number of each and its buffer, the
    /// first datagram last, because that overwrites the request. If the buffers are not available the request passes,
    /// and `write` is not called.
    fn reply_many(
        self,
        count: u16,
        len: usize,
        write: impl FnMut(u16, &mut [u8]) -> usize,
    ) -> Self::Verdict;
}

impl<P: Platform> Engine<P> {
    /// Answers a datagram, or passes it to the next receive path: see [`DatagramRequest`]. Softirq-safe.
    #[inline(always)]
    pub fn answer<R: DatagramRequest>(&self, guard: &Guard<'_, P>, request: R) -> R::Verdict {
        // A single call of `inline_get`, because two would not be inlined.
        if self.is_allowed(guard, request.source_ipv4())
            || self.is_allowed_any(guard, request.source(), request.is_local())
        {
            if let Some(found) = self.inline_get(guard, request.payload()) {
                let cpu = request.cpu();
                return request.reply(found.bound(), |buffer| {
                    self.count_inline_get(&found, cpu);
                    found.write(buffer)
                });
            }
        }
        self.answer_single_get(guard, request)
    }

    /// Like [`answer`](Self::answer), without the inline get: for callers that trace requests. A second call of `answer`
    /// would slow the first one down.
    pub fn answer_observed<R: DatagramRequest>(
        &self,
        guard: &Guard<'_, P>,
        request: R,
    ) -> R::Verdict {
        self.answer_single_get(guard, request)
    }

    /// Like [`is_allowed`](Self::is_allowed), for any source.
    #[inline(never)]
    fn is_allowed_any(&self, guard: &Guard<'_, P>, source: IpAddr, local: bool) -> bool {
        !self.settings.limiter.limited() && self.access(guard, source, local) != Access::Refused
    }

    /// One key. Not inlined, so that the most frequent request does not pay for its stack and code.
    #[inline(never)]
    fn answer_single_get<R: DatagramRequest>(
        &self,
        guard: &Guard<'_, P>,
        request: R,
    ) -> R::Verdict {
        let access = self.access(guard, request.source(), request.is_local());
        if access == Access::Refused {
            return request.pass(Pass::Source);
        }
        if let Some(single) = self.single_get(guard, request.payload(), request.limit()) {
            let Some(mut charge) = self.charge(access, request.source(), single.len()) else {
                self.count_single_get(&single);
                return request.discard();
            };
            if self.watches(Kinds::FETCHERS) {
                // Logged before the reply overwrites the request. If the reply then gets no buffer, the socket's worker
                // logs the lookup again.
                self.log_single_get(guard, &single, request.payload());
            }
            return request.reply(single.len(), move |buffer| {
                charge.spend(single.len());
                self.count_single_get(&single);
                single.write(buffer)
            });
        }
        self.answer_multi_get(guard, request, access)
    }

    #[inline(never)]
    fn answer_multi_get<R: DatagramRequest>(
        &self,
        guard: &Guard<'_, P>,
        request: R,
        access: Access,
    ) -> R::Verdict {
        if let Some(many) = self.multi_get(guard, request.payload(), request.limit()) {
            let Some(mut charge) = self.charge(access, request.source(), many.bound()) else {
                self.count_multi_get(&many);
                return request.discard();
            };
            return request.reply(many.bound(), move |buffer| {
                self.count_multi_get(&many);
                let len = many.write(buffer);
                charge.spend(len);
                len
            });
        }
        self.answer_by_plan(guard, request, access)
    }

    #[inline(never)]
    fn answer_by_plan<R: DatagramRequest>(
        &self,
        guard: &Guard<'_, P>,
        request: R,
        access: Access,
    ) -> R::Verdict {
        Plan::with(|plan| {
            match self.plan(guard, request.payload(), request.limit(), plan) {
                PlanOutcome::Answer => {
                    let Some(mut charge) =
                        self.charge(access, request.source(), plan.datagrams_len())
                    else {
                        self.count_plan(plan);
                        return request.discard();
                    };
                    // Counted once all buffers are available; of several datagrams the first is written last.
                    let mut write = |number, buffer: &mut [u8]| {
                        if number == 0 {
                            charge.spend(plan.datagrams_len());
                            self.count_plan(plan);
                        }
                        plan.write(number, buffer)
                    };
                    match plan.datagrams() {
                        1 => request.reply(plan.datagram_len(0), |buffer| write(0, buffer)),
                        count => request.reply_many(count, DATAGRAM_MAX, write),
                    }
                }
                PlanOutcome::Silent => {
                    self.count_plan(plan);
                    request.consume()
                }
                // Passed, not dropped: a datagram that is no valid request to Hippos may be meant for another server, to
                // which this host forwards it.
                PlanOutcome::Invalid => request.pass(Pass::Invalid),
                PlanOutcome::Pass => request.pass(Pass::Unserved),
            }
        })
    }
}
