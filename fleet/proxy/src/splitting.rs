// SPDX-License-Identifier: MIT

//! Commands of routes whose large values are split.

use std::hash::{BuildHasher, RandomState};

use hippos_proto::meta::{self, MetaVerb};
use hippos_proto::reply;
use hippos_proto::text::{self, TextRequest};
use hippos_proto::token::Tokens;
use hippos_proto::StoreMode;

use crate::answer::{Answer, Deliver, Waiter};
use crate::batch::asks;
use crate::client::{Client, ReplyShape};
use crate::framing::Expect;
use crate::job::{get_command, JobKind};
use crate::job_step::{NodeRef, NodeRequest};
use crate::route::Class;
use crate::session::{self, NOT_AVAILABLE};
use crate::split::{is_quiet, is_split, Gather, GatherForm, Nodes, SplitWrite, StoreLine};
use crate::worker::{DispatchResult, Worker};

impl Worker {
    fn split_nodes(&self, pool: usize) -> Nodes {
        let nodes = self.config.pools[pool].nodes.iter();
        let refs = nodes.map(|&node| NodeRef {
            node: self.places[node] as u32,
            cap: 0,
        });
        Nodes {
            refs: refs.collect(),
            config: self.config.clone(),
            pool,
        }
    }

    /// Reads a key of a route with split values.
    pub(crate) fn start_gather(
        &mut self,
        route: usize,
        waiter: Waiter,
        key: &[u8],
        hash: u32,
        cas: bool,
        touch: Option<i32>,
    ) {
        let nodes = self.split_nodes(self.config.routes[route].pools[0]);
        let (place, refs) = (nodes.of(key).node, nodes.refs.clone());
        let form = GatherForm::Values { cas };
        let gather = Gather::new(nodes, form, self.config.value_max as usize);
        let job = self.add_job(waiter, key, hash, refs, JobKind::Gather(gather));
        let Some(waiter) = self.waiter(job, 0) else {
            return;
        };
        let node = &self.nodes[place as usize];
        if touch.is_none() && node.spec.udp && node.is_in() && !node.is_large(hash) {
            self.on_node(place, |node, context, to| {
                node.queue(context, asks(cas), key, hash, waiter, to);
            });
            return;
        }
        let command = get_command(cas, touch);
        let sent = self.on_node(place, |node, context, _| {
            node.get(context, command.as_bytes(), key, hash, Some(waiter))
        });
        if sent.is_err() {
            self.clients.deliver(waiter, Answer::Unavailable);
        }
    }

    /// A command for a route with split values, unless it is sent to the key's node as it is: `None`.
    pub(crate) fn split_command(
        &mut self,
        index: u32,
        client: &mut Client,
        number: usize,
        (key, hash): (&[u8], u32),
        parts: &[&[u8]; 3],
        (expect, ordered, silent): (Expect, bool, bool),
    ) -> Option<DispatchResult> {
        // A change of the manifest must not overtake a change that waits for its pieces.
        if client.writes > 0 {
            return Some(DispatchResult::Ordered);
        }
        let refuse = |client: &mut Client| {
            if !silent {
                client.say(NOT_AVAILABLE);
            }
            Some(DispatchResult::Taken)
        };
        let (mode, store) = match (expect, Class::of(parts[0])) {
            (Expect::Line, _) => match text::parse(parts[0]) {
                TextRequest::Store(store) => (store.mode, StoreLine::text(&store)),
                _ => return None,
            },
            (_, Class::Delete) => return None,
            // They would show the manifest, or store a value that is too large.
            (Expect::Binary, _) => {
                client.say(&session::refused(parts[0]));
                return Some(DispatchResult::Taken);
            }
            _ => {
                let Ok(command) = meta::Command::parse(Tokens::new(parts[0])) else {
                    return refuse(client);
                };
                match command.verb {
                    MetaVerb::Set { mode, .. } => (mode, StoreLine::meta(&command)),
                    MetaVerb::Get => {
                        let key = (key, hash);
                        return self
                            .start_meta_gather(index, client, number, key, &command, ordered);
                    }
                    // A manifest is no number.
                    MetaVerb::Arith { .. } => return None,
                    _ => return refuse(client),
                }
            }
        };
        if matches!(mode, StoreMode::Append | StoreMode::Prepend) {
            return refuse(client);
        }
        let route = &self.config.routes[number];
        let (pool, piece) = (route.pools[0], route.split as usize);
        // A node refuses a data block without its line end.
        let value = parts[2].strip_suffix(reply::CRLF)?;
        if !is_split(value, piece) {
            return None;
        }
        let nodes = self.split_nodes(pool);
        let is_busy = |node_ref: &NodeRef| self.nodes[node_ref.node as usize].is_busy(false);
        if nodes.refs.iter().any(is_busy) {
            return Some(DispatchResult::Busy);
        }
        if !self.within_limits(number, 1, value.len() as u64) {
            if !silent {
                client.say(crate::dispatch::LIMITED);
            }
            return Some(DispatchResult::Taken);
        }
        self.log(number, Class::Set, key);
        self.counters.cmd_forward.add(1);
        let stamp = self.stamp(number, Class::Set, hash);
        let shape = match silent {
            true => ReplyShape::NoReply,
            false => ReplyShape::Plain,
        };
        let budget = &mut self.clients.budget;
        let waiter = Waiter {
            client: index,
            generation: client.generation,
            number: client.expect(shape, 1, true, stamp, budget),
            part: 0,
            reading: 0,
        };
        let refs = nodes.refs.clone();
        let random = RandomState::new().hash_one(key);
        let (write, send) = SplitWrite::start(nodes, store, value, random, piece);
        let job = self.add_job(waiter, key, hash, refs, JobKind::SplitWrite(write));
        for send in send {
            self.send_step(job, &send);
        }
        Some(DispatchResult::Taken)
    }

    /// `mg`, unless its reply has neither the value nor its size.
    fn start_meta_gather(
        &mut self,
        index: u32,
        client: &mut Client,
        number: usize,
        (key, hash): (&[u8], u32),
        command: &meta::Command<'_>,
        ordered: bool,
    ) -> Option<DispatchResult> {
        let has = |letter| {
            let mut words = command.words().iter();
            words.any(|word| word.first() == Some(&letter))
        };
        let form = GatherForm::Meta {
            value: has(b'v'),
            quiet: command.flags.quiet(),
        };
        if !has(b'v') && !has(b's') {
            return None;
        }
        // The manifest is seen in the value; the proxy leaves out the reply itself if the client wants none.
        let mut line = [b"mg ", command.key].concat();
        for word in command.words().iter().filter(|word| !is_quiet(word)) {
            line.push(b' ');
            line.extend_from_slice(word);
        }
        line.extend_from_slice(if has(b'v') { b"\r\n" } else { b" v\r\n" });
        let nodes = self.split_nodes(self.config.routes[number].pools[0]);
        let node_ref = nodes.of(key);
        if self.nodes[node_ref.node as usize].is_busy(false) {
            return Some(DispatchResult::Busy);
        }
        if !self.within_limits(number, 1, line.len() as u64) {
            client.say(crate::dispatch::LIMITED);
            return Some(DispatchResult::Taken);
        }
        self.log(number, Class::Get, key);
        self.counters.cmd_forward.add(1);
        let stamp = self.stamp(number, Class::Get, if ordered { hash } else { 0 });
        let budget = &mut self.clients.budget;
        let waiter = Waiter {
            client: index,
            generation: client.generation,
            number: client.expect(ReplyShape::Plain, 1, ordered, stamp, budget),
            part: 0,
            reading: hash,
        };
        client.reading.push(hash);
        let refs = nodes.refs.clone();
        let gather = Gather::new(nodes, form, self.config.value_max as usize);
        let job = self.add_job(waiter, key, hash, refs, JobKind::Gather(gather));
        self.send_for(job, 0, node_ref, &[&line], Expect::Meta, false);
        Some(DispatchResult::Taken)
    }

    /// Sends a request of a job.
    pub(crate) fn send_step(&mut self, job: u32, send: &NodeRequest) {
        let NodeRequest {
            node_ref,
            request,
            expect,
            part,
        } = send;
        match part {
            Some(part) => self.send_for(job, *part, *node_ref, &[request], *expect, false),
            None => self.tell(*node_ref, request, *expect),
        }
    }
}
