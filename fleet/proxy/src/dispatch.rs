// SPDX-License-Identifier: MIT

//! Dispatches a client's command to the nodes.

use crate::answer::{Answer, Waiter};
use crate::batch::{asks, hash_of, Asks};
use crate::client::{header_of, Client, CommandMetrics, ReplyShape};
use crate::connection::Pending;
use crate::framing::Expect;
use crate::job::{get_command, ReadRequest};
use crate::job_step::NodeRef;
use crate::metrics;
use crate::route::{cap_ttl, Class, Write};
use crate::session::{Command, Forward, NOT_AVAILABLE};
use crate::worker::{DispatchResult, Worker};
use hippos_proto::reply;

/// The reply to a command that exceeds its route's limit.
pub(crate) const LIMITED: &[u8] = b"SERVER_ERROR route is over its limit\r\n";

/// The longest `mg` that is sent by datagram.
const META_LINE_MAX: usize = 512;

impl Worker {
    /// The node of `pool` that has `key`; a node of the failover pool while that node is ejected.
    pub(crate) fn locate(&self, pool: usize, key: &[u8]) -> NodeRef {
        let node_of = |pool: &crate::config::Pool| {
            let node = pool.ring.node(pool.part.of(key));
            self.places[pool.nodes[node]]
        };
        let pool = &self.config.pools[pool];
        let node = node_of(pool);
        match pool.failover {
            Some((other, cap)) if !self.nodes[node].is_in() => {
                self.counters.failovers.add(1);
                let node = node_of(&self.config.pools[other]) as u32;
                NodeRef { node, cap }
            }
            _ => NodeRef {
                node: node as u32,
                cap: 0,
            },
        }
    }

    /// Whether the route's limits admit a command with this many keys and bytes.
    pub(crate) fn within_limits(&mut self, route: usize, keys: u64, bytes: u64) -> bool {
        let limit = &self.config.routes[route].limit;
        if !limit.is_some() {
            return true;
        }
        let workers = self.shared.counters.len() as u64;
        let in_flight = u64::from(self.clients.budget.in_flight[self.meter_of[route] as usize]);
        let most = u64::from(limit.in_flight).div_ceil(workers);
        let few = limit.in_flight == 0 || in_flight < most;
        let well = few && self.buckets[route].take(limit, workers, self.now, keys, bytes);
        if !well {
            self.counters.limited.add(1);
        }
        well
    }

    /// Whether the limits of all keys' routes admit them.
    fn list_within_limits(&mut self, keys: &[RoutedKey]) -> bool {
        for (at, &RoutedKey { route, .. }) in keys.iter().enumerate() {
            let is_same = |key: &&RoutedKey| key.route == route;
            if !self.config.routes[route].limit.is_some()
                || keys[..at].iter().any(|key| is_same(&key))
            {
                continue;
            }
            let lens = keys.iter().filter(is_same).map(|key| u64::from(key.len));
            let (count, bytes) = lens.fold((0, 0), |(count, bytes), len| (count + 1, bytes + len));
            if !self.within_limits(route, count, bytes) {
                return false;
            }
        }
        true
    }

    pub(crate) fn stamp(&self, route: usize, class: Class, changes: u32) -> CommandMetrics {
        CommandMetrics {
            changes: if self.l1.is_some() { changes } else { 0 },
            since: self.now,
            meter: self.meter_of[route],
            class: class as u8,
        }
    }

    /// The node of the shadow pool that gets a copy of commands about this key.
    fn shadow(&self, route: usize, key: &[u8], hash: u32) -> Option<NodeRef> {
        let (pool, share) = self.config.routes[route].shadow?;
        // A different hash than that which selects nodes.
        let mixed = hash.wrapping_mul(0x9e37_79b1);
        let node_ref = self.locate(pool, key);
        let is_in = self.nodes[node_ref.node as usize].is_in();
        (u64::from(mixed) < share && is_in).then_some(node_ref)
    }

    /// Logs a sample of the commands.
    pub(crate) fn log(&mut self, route: usize, class: Class, key: &[u8]) {
        self.unlogged += 1;
        if self.config.log_one_in == 0 || self.unlogged < self.config.log_one_in {
            return;
        }
        self.unlogged = 0;
        let line = format!(
            "{{\"time\":{},\"command\":\"{}\",\"route\":{:?},\"key\":\"{}\"}}",
            self.unix(),
            class.name(),
            self.config.routes[route].name,
            key.escape_ascii()
                .to_string()
                .replace("\\x", "\\\\x")
                .replace("\\'", "'"),
        );
        // A line that cannot be queued at once is dropped.
        let _ = self.shared.log.try_send(line);
    }

    pub(crate) fn dispatch(
        &mut self,
        index: u32,
        client: &mut Client,
        command: Command<'_>,
    ) -> DispatchResult {
        match command {
            Command::Say(line) => client.say(line),
            Command::Packet(packet) => client.say(&packet),
            Command::EndOfKeys(line) => client.end_of_keys(line),
            Command::Close => client.closing = true,
            Command::Get {
                cas,
                touch,
                keys,
                end,
            } => {
                let class = match touch {
                    Some(_) => Class::Touch,
                    None => Class::Get,
                };
                // All keys' nodes are located first, so that all or none are sent.
                let mut node_refs = [RoutedKey::default(); crate::session::KEYS_MAX];
                let mut count = 0;
                for (key, found) in keys.zip(&mut node_refs) {
                    let number = self.config.route(key, class);
                    let route = &self.config.routes[number];
                    let hash = hash_of(key);
                    if touch.is_some() && client.reading.contains(&hash) {
                        return DispatchResult::Ordered;
                    }
                    if touch.is_some() && route.lock != 0 {
                        client.refuse_keys(end, crate::exclusion::NO_LOCK);
                        return DispatchResult::Taken;
                    }
                    let mut node_ref = NodeRef::default();
                    let busy = if route.is_plain() {
                        node_ref = self.locate(route.pools[0], key);
                        self.nodes[node_ref.node as usize].is_busy(false)
                    } else if client.writes > 0 {
                        return DispatchResult::Ordered;
                    } else {
                        let plan = route.plan(self.unix());
                        self.plan_is_busy(&plan, key, false, false)
                    };
                    if busy {
                        return DispatchResult::Busy;
                    }
                    *found = RoutedKey {
                        node_ref,
                        hash,
                        route: number,
                        len: key.len() as u8,
                    };
                    count += 1;
                }
                if !self.list_within_limits(&node_refs[..count]) {
                    client.refuse_keys(end, LIMITED);
                    return DispatchResult::Taken;
                }
                self.counters.cmd_get.add(count as u64);
                let values = vec![Vec::new(); count];
                let shape = ReplyShape::Values { end, values };
                let stamp = self.stamp(node_refs[0].route, class, 0);
                let number = client.expect(
                    shape,
                    count as u16,
                    touch.is_some(),
                    stamp,
                    &mut self.clients.budget,
                );
                let udp = touch.is_none() && client.writes == 0;
                let command = get_command(cas, touch);
                for (
                    part,
                    (
                        key,
                        RoutedKey {
                            node_ref,
                            hash,
                            route,
                            ..
                        },
                    ),
                ) in (0u16..).zip(keys.zip(node_refs))
                {
                    self.log(route, class, key);
                    let mut waiter = Waiter {
                        client: index,
                        generation: client.generation,
                        number,
                        part,
                        reading: 0,
                    };
                    if let Some(shadow) = self.shadow(route, key, hash) {
                        let line = [command.as_bytes(), key, b"\r\n"].concat();
                        self.counters.shadowed.add(1);
                        self.tell(shadow, &line, Expect::Values);
                    }
                    if self.config.routes[route].split != 0 {
                        waiter.reading = hash;
                        client.reading.push(hash);
                        self.start_gather(route, waiter, key, hash, cas, touch);
                        continue;
                    }
                    if !self.config.routes[route].is_plain() {
                        let route = &self.config.routes[route];
                        let plan = route.plan(self.unix());
                        // A command that is answered before all pools have it must not be overtaken.
                        let udp = udp && route.write == Write::AllSync;
                        waiter.reading = hash;
                        client.reading.push(hash);
                        if route.single_flight > 0 && touch.is_none() {
                            let number = node_refs[usize::from(part)].route;
                            self.start_flight(number, waiter, key, hash, cas);
                            continue;
                        }
                        let ask = ReadRequest::Values { cas, touch };
                        self.start_read(&plan, waiter, key, hash, ask, udp);
                        continue;
                    }
                    if udp && !cas && self.l1.is_some() {
                        let version = self.clients.budget.versions.of(hash);
                        if let Some(l1) = &mut self.l1 {
                            if let Some(value) = l1.get(key, version, self.now) {
                                self.counters.l1_hits.add(1);
                                let answer = Answer::Reply(value);
                                client.answered(&waiter, answer, &mut self.clients.budget);
                                continue;
                            }
                            if l1.is_hot(hash) {
                                let plan = self.config.routes[route].plan(0);
                                waiter.reading = hash;
                                client.reading.push(hash);
                                let ask = ReadRequest::Values { cas, touch };
                                let job = self.start_read(&plan, waiter, key, hash, ask, true);
                                self.keep_answer(job, version);
                                continue;
                            }
                        }
                    }
                    let node = &self.nodes[node_ref.node as usize];
                    if udp && node.spec.udp && node.is_in() && !node.is_large(hash) {
                        waiter.reading = hash;
                        client.reading.push(hash);
                        self.on_node(node_ref.node, |node, context, to| {
                            node.queue(context, asks(cas), key, hash, waiter, to);
                        });
                        continue;
                    }
                    let capped;
                    let command = match touch {
                        Some(time) if node_ref.cap > 0 => {
                            let time = crate::route::capped(time, node_ref.cap, self.unix());
                            capped = get_command(cas, Some(time));
                            &capped
                        }
                        _ => &command,
                    };
                    let sent = self.on_node(node_ref.node, |node, context, _| {
                        node.get(context, command.as_bytes(), key, hash, Some(waiter))
                    });
                    if sent.is_err() {
                        self.counters.node_errors.add(1);
                        client.answered(&waiter, Answer::Unavailable, &mut self.clients.budget);
                    }
                }
            }
            Command::Forward(forward) => return self.forward(index, client, forward),
            Command::Broadcast {
                request,
                expect,
                quiet,
            } => {
                let binary = expect == Expect::Binary;
                let header = binary.then(|| header_of(&request));
                let shape = ReplyShape::Broadcast { quiet, header };
                return self.broadcast(index, client, &[&request], expect, shape, true);
            }
            Command::Stats(b"proxy") => {
                let mut text = Vec::new();
                for (name, _, value) in metrics::sum(&self.shared.counters) {
                    text.extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
                }
                for node in self.places.iter().map(|&place| &self.nodes[place]) {
                    let state = node.health.name();
                    let name = &node.spec.name;
                    text.extend_from_slice(format!("STAT node:{name} {state}\r\n").as_bytes());
                }
                text.extend_from_slice(reply::END);
                client.say(&text);
            }
            Command::Stats(argument) => {
                let single = self.places.len() == 1;
                let shape = match argument {
                    _ if single => ReplyShape::Plain,
                    b"" => ReplyShape::Statistics(Vec::new()),
                    _ => {
                        client.say(NOT_AVAILABLE);
                        return DispatchResult::Taken;
                    }
                };
                let parts = [&b"stats "[..], argument, b"\r\n"];
                return self.broadcast(index, client, &parts, Expect::Listing, shape, false);
            }
            Command::BinaryStats { request, refusal } => {
                if self.places.len() != 1 {
                    client.say(&refusal);
                    return DispatchResult::Taken;
                }
                let shape = ReplyShape::Binary(header_of(request));
                let expect = Expect::BinaryListing;
                return self.broadcast(index, client, &[request], expect, shape, false);
            }
        }
        DispatchResult::Taken
    }

    /// Sends a command about one key to its node.
    fn forward(&mut self, index: u32, client: &mut Client, forward: Forward<'_>) -> DispatchResult {
        let silent = forward.is_silent();
        let Forward {
            key,
            parts,
            expect,
            fence,
            write,
            shows_reads,
            reply_override,
        } = forward;
        let binary = expect == Expect::Binary;
        let key = key.bytes();
        let class = Class::of(parts[0]);
        let number = self.config.route(key, class);
        let route = &self.config.routes[number];
        let hash = hash_of(key);
        // In order with the client's reads, some of which are datagrams.
        let ordered = write || shows_reads;
        if ordered && client.reading.contains(&hash) {
            return DispatchResult::Ordered;
        }
        if let (true, Some(refusal)) = (route.lock != 0, &reply_override) {
            // A lock's value that is too large does not delete it.
            client.say(refusal);
            return DispatchResult::Taken;
        }
        if route.lock != 0 && (write || class != Class::Get) {
            return self.lock_command(index, client, number, key, &parts, (expect, silent));
        }
        if route.split != 0 {
            let how = (expect, ordered, silent);
            let done = self.split_command(index, client, number, (key, hash), &parts, how);
            if let Some(done) = done {
                return done;
            }
        }
        let route = &self.config.routes[number];
        let plan = (!route.is_plain()).then(|| route.plan(self.unix()));
        let changes = class != Class::Get && class != Class::Touch || plan.is_none();
        let policy = route.write;
        let mut node_ref = NodeRef::default();
        let busy = match &plan {
            None => {
                node_ref = self.locate(route.pools[0], key);
                self.nodes[node_ref.node as usize].is_busy(binary)
            }
            Some(_) if !write && client.writes > 0 => return DispatchResult::Ordered,
            Some(plan) => self.plan_is_busy(plan, key, binary, changes),
        };
        if busy {
            return DispatchResult::Busy;
        }
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if !self.within_limits(number, 1, bytes as u64) {
            if binary {
                client.say(&crate::session::limited(parts[0]));
            } else if !silent {
                client.say(LIMITED);
            }
            return DispatchResult::Taken;
        }
        self.log(number, class, key);
        let shape = match reply_override {
            Some(bytes) => ReplyShape::Instead(bytes),
            None if binary => ReplyShape::Binary(header_of(parts[0])),
            None if silent => ReplyShape::NoReply,
            None => ReplyShape::Plain,
        };
        self.counters.cmd_forward.add(1);
        let stamp = self.stamp(number, class, if write { hash } else { 0 });
        let mut waiter = Waiter {
            client: index,
            generation: client.generation,
            number: client.expect(shape, 1, ordered, stamp, &mut self.clients.budget),
            part: 0,
            reading: 0,
        };
        if let Some(shadow) = self.shadow(number, key, hash) {
            // Commands that may have no reply need their fence there too.
            self.counters.shadowed.add(1);
            let pending = Pending::new(None, expect, fence);
            if !self.nodes[shadow.node as usize].is_busy(binary) {
                let _ = self.on_node(shadow.node, |node, context, _| {
                    node.request(context, binary, &parts, pending)
                });
            }
        }
        let Some(plan) = plan else {
            let capped = match node_ref.cap {
                0 => None,
                cap => cap_ttl(&parts, cap, self.unix()),
            };
            let node = &self.nodes[node_ref.node as usize];
            // A lost datagram's line is sent again, and a second read must not differ from the first.
            let datagram = expect == Expect::Meta && class == Class::Get && !ordered && !fence;
            if datagram
                && parts[0].starts_with(b"mg ")
                && parts[0].len() < META_LINE_MAX
                && client.writes == 0
                && node.spec.udp
                && node.is_in()
                && !node.is_large(hash)
            {
                waiter.reading = hash;
                client.reading.push(hash);
                self.on_node(node_ref.node, |node, context, to| {
                    node.queue(context, Asks::Meta, parts[0], hash, waiter, to);
                });
                return DispatchResult::Taken;
            }
            let pending = Pending::new(Some(waiter), expect, fence);
            let sent = self.on_node(node_ref.node, |node, context, _| match &capped {
                Some(request) => node.request(context, binary, &[request], pending),
                None => node.request(context, binary, &parts, pending),
            });
            if sent.is_err() {
                self.counters.node_errors.add(1);
                client.answered(&waiter, Answer::Unavailable, &mut self.clients.budget);
            }
            return DispatchResult::Taken;
        };
        if class == Class::Get || class == Class::Touch && !is_touch(parts[0]) {
            waiter.reading = hash;
            client.reading.push(hash);
            let request = parts.concat();
            let ask = ReadRequest::Raw {
                request,
                expect,
                fence,
            };
            self.start_read(&plan, waiter, key, hash, ask, false);
        } else {
            self.start_write(&plan, policy, waiter, key, hash, &parts, expect, fence);
        }
        DispatchResult::Taken
    }

    /// Sends a command to all nodes.
    fn broadcast(
        &mut self,
        index: u32,
        client: &mut Client,
        parts: &[&[u8]],
        expect: Expect,
        shape: ReplyShape,
        write: bool,
    ) -> DispatchResult {
        let binary = matches!(expect, Expect::Binary | Expect::BinaryListing);
        if write && !client.reading.is_empty() {
            return DispatchResult::Ordered;
        }
        if self
            .places
            .iter()
            .any(|&place| self.nodes[place].is_busy(binary))
        {
            return DispatchResult::Busy;
        }
        let left = self.places.len() as u16;
        let stamp = CommandMetrics::default();
        let number = client.expect(shape, left, write, stamp, &mut self.clients.budget);
        if write {
            self.clients.budget.versions.change_all();
        }
        for place in self.places.clone() {
            let waiter = Waiter {
                client: index,
                generation: client.generation,
                number,
                part: 0,
                reading: 0,
            };
            // Some of these commands can ask for no reply.
            let fence = expect == Expect::Line;
            let pending = Pending::new(Some(waiter), expect, fence);
            let sent = self.on_node(place as u32, |node, context, _| {
                node.request(context, binary, parts, pending)
            });
            if sent.is_err() {
                client.answered(&waiter, Answer::Unavailable, &mut self.clients.budget);
            }
        }
        DispatchResult::Taken
    }
}

/// A key and its node.
#[derive(Clone, Copy, Default)]
struct RoutedKey {
    node_ref: NodeRef,
    hash: u32,
    route: usize,
    len: u8,
}

/// Whether a command of that class has no value.
fn is_touch(request: &[u8]) -> bool {
    use hippos_proto::binary::{op, REQUEST};
    matches!(request, [b't', ..] | [REQUEST, op::TOUCH, ..])
}
