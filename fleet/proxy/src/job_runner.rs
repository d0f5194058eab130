// SPDX-License-Identifier: MIT

//! Runs jobs: sends their requests, and takes the answers.

use std::cmp::Reverse;

use hippos_proto::binary::{non_quiet, op, HEADER, REQUEST};
use hippos_proto::token::Words;

use crate::answer::{Answer, Deliver, OwnedAnswer, Waiter, JOB};
use crate::batch::asks;
use crate::connection::Pending;
use crate::framing::Expect;
use crate::job::{
    get_command, Job, JobKind, ReadRequest, Reading, ShowsCas, Stage, Writing, CLEARED,
};
use crate::job_step::{JobStep, NodeRef};
use crate::route::{cap_ttl, Plan, Read, Write};
use crate::worker::Worker;

impl Worker {
    /// The key's nodes in these pools, each once.
    fn node_refs(&self, pools: &[usize], key: &[u8]) -> Vec<NodeRef> {
        let mut node_refs: Vec<NodeRef> = Vec::with_capacity(pools.len());
        for &pool in pools {
            let node_ref = self.locate(pool, key);
            let known = node_refs
                .iter_mut()
                .find(|known| known.node == node_ref.node);
            match known {
                // One pool's node stands in for another's: it keeps its own copy for its whole time to live.
                Some(known) => known.cap = known.cap.min(node_ref.cap),
                None => node_refs.push(node_ref),
            }
        }
        node_refs
    }

    /// Whether any node of the plan is busy.
    pub(crate) fn plan_is_busy(&self, plan: &Plan, key: &[u8], binary: bool, write: bool) -> bool {
        let pools = if write { &plan.write } else { &plan.read };
        let warm = plan.warm.iter();
        pools
            .iter()
            .chain(&plan.clear)
            .chain(warm)
            .any(|&pool| self.nodes[self.locate(pool, key).node as usize].is_busy(binary))
    }

    pub(crate) fn add_job(
        &mut self,
        waiter: Waiter,
        key: &[u8],
        hash: u32,
        node_refs: Vec<NodeRef>,
        work: JobKind,
    ) -> u32 {
        for node_ref in &node_refs {
            self.nodes[node_ref.node as usize].job_refs += 1;
        }
        let jobs = &mut self.jobs;
        jobs.generation = jobs.generation.wrapping_add(1);
        jobs.list.add(Job {
            generation: jobs.generation,
            waiter: Some(waiter),
            key: key.to_vec(),
            hash,
            node_refs,
            work,
            keep: None,
            held: 0,
        })
    }

    /// Reads a key from the pools of `plan`.
    pub(crate) fn start_read(
        &mut self,
        plan: &Plan,
        waiter: Waiter,
        key: &[u8],
        hash: u32,
        ask: ReadRequest,
        udp: bool,
    ) -> u32 {
        let mut node_refs = self.node_refs(&plan.read, key);
        let shows_cas = ask.shows_cas();
        let mut policy = plan.policy;
        if shows_cas != ShowsCas::No {
            // Changes compare it in the first pool.
            let compared = self.locate(plan.write[0], key);
            let known = |node_ref: &NodeRef| node_ref.node == compared.node;
            match node_refs.iter().position(known) {
                Some(at) => node_refs[..=at].rotate_right(1),
                None => node_refs.insert(0, compared),
            }
            if policy != Read::MissFailover {
                policy = Read::Failover;
            }
        } else if policy == Read::Spread {
            self.jobs.turn = self.jobs.turn.wrapping_add(1);
            let turn = self.jobs.turn % node_refs.len();
            node_refs.rotate_left(turn);
        }
        if let ReadRequest::Values {
            touch: Some(time), ..
        } = ask
        {
            for node_ref in &node_refs[1..] {
                let line = [&b"touch "[..], key, format!(" {time}\r\n").as_bytes()].concat();
                self.tell(*node_ref, &line, Expect::Line);
            }
        }
        if shows_cas == ShowsCas::Asked {
            node_refs.truncate(1);
        }
        let pools = node_refs.len();
        let mut warm = None;
        // A warm value is used only for `get` commands that do not touch.
        if let (Some(pool), ReadRequest::Values { touch: None, .. }) = (plan.warm, &ask) {
            warm = Some(self.locate(pool, key));
            node_refs.extend(warm);
        }
        let all = policy == Read::Fastest;
        let left = if all { pools } else { 1 };
        let reading = Reading {
            ask,
            policy,
            udp,
            asked: left,
            left,
            missed: None,
            failed: None,
            warm,
            stage: Stage::Pools,
        };
        let job = self.add_job(waiter, key, hash, node_refs, JobKind::Read(reading));
        for place in 0..left {
            self.ask(job, place);
        }
        job
    }

    /// The value that the job reads is hot.
    pub(crate) fn keep_answer(&mut self, job: u32, version: u32) {
        if let Some(job) = self.jobs.list.get_mut(job) {
            job.keep = Some(version);
        }
    }

    /// Sends a change to the pools of `plan`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn start_write(
        &mut self,
        plan: &Plan,
        policy: Write,
        waiter: Waiter,
        key: &[u8],
        hash: u32,
        parts: &[&[u8]; 3],
        expect: Expect,
        fence: bool,
    ) {
        let mut node_refs = self.node_refs(&plan.write, key);
        let mut clear = self.node_refs(&plan.clear, key);
        let binary = expect == Expect::Binary;
        // A CAS value is valid in one pool only.
        let compares = compares(parts[0]);
        if compares {
            clear.extend(node_refs.drain(1..));
        }
        // The key is deleted at once only if a change that is not made may delete it too.
        let later = compares || needs_item(parts[0]);
        clear.retain(|node_ref| !node_refs.iter().any(|other| other.node == node_ref.node));
        let total = node_refs.len();
        let writing = Writing {
            policy: if compares { Write::AllSync } else { policy },
            total,
            left: total + if later { 0 } else { clear.len() },
            done: 0,
            first: None,
            some: None,
            failed: None,
            compares,
            then_clear: if later { clear.clone() } else { Vec::new() },
            binary,
        };
        let all = [&node_refs[..], &clear[..]].concat();
        let job = self.add_job(waiter, key, hash, all, JobKind::Write(writing));
        for (place, node_ref) in node_refs.iter().enumerate() {
            let capped;
            let parts: &[&[u8]] = match self.capped(*node_ref, parts) {
                Some(request) => {
                    capped = request;
                    &[&capped]
                }
                None => parts,
            };
            self.send_for(job, place as u16, *node_ref, parts, expect, fence);
        }
        if !later {
            for node_ref in clear {
                self.clear(job, node_ref, binary);
            }
        }
    }

    /// The request with its time to live limited for the node, if that changes it.
    pub(crate) fn capped(&self, node_ref: NodeRef, parts: &[&[u8]; 3]) -> Option<Vec<u8>> {
        if node_ref.cap == 0 {
            return None;
        }
        cap_ttl(parts, node_ref.cap, self.unix())
    }

    pub(crate) fn waiter(&self, job: u32, part: u16) -> Option<Waiter> {
        let generation = self.jobs.list.get(job)?.generation;
        Some(Waiter {
            client: job | JOB,
            generation,
            number: 0,
            part,
            reading: 0,
        })
    }

    /// Sends a request whose answer goes to the job.
    pub(crate) fn send_for(
        &mut self,
        job: u32,
        part: u16,
        node_ref: NodeRef,
        parts: &[&[u8]],
        expect: Expect,
        fence: bool,
    ) {
        let Some(waiter) = self.waiter(job, part) else {
            return;
        };
        let pending = Pending::new(Some(waiter), expect, fence);
        let binary = expect == Expect::Binary;
        let sent = self.on_node(node_ref.node, |node, context, _| {
            node.request(context, binary, parts, pending)
        });
        if sent.is_err() {
            self.clients.deliver(waiter, Answer::Unavailable);
        }
    }

    /// Sends a request whose answer is ignored, unless the node is busy.
    pub(crate) fn tell(&mut self, node_ref: NodeRef, request: &[u8], expect: Expect) {
        let binary = expect == Expect::Binary;
        if self.nodes[node_ref.node as usize].is_busy(binary) {
            return;
        }
        let pending = Pending::new(None, expect, false);
        let _ = self.on_node(node_ref.node, |node, context, _| {
            node.request(context, binary, &[request], pending)
        });
    }

    /// Deletes the job's key.
    fn clear(&mut self, job: u32, node_ref: NodeRef, binary: bool) {
        let Some(Job { key, .. }) = self.jobs.list.get(job) else {
            return;
        };
        let plain = key.iter().all(|&byte| byte > b' ' && byte != 0x7f);
        let (request, expect) = if plain && !binary {
            ([&b"delete "[..], key, b"\r\n"].concat(), Expect::Line)
        } else {
            let mut head = [0; HEADER];
            (head[0], head[1], head[3], head[11]) =
                (REQUEST, op::DELETE, key.len() as u8, key.len() as u8);
            ([&head[..], key].concat(), Expect::Binary)
        };
        self.send_for(job, CLEARED, node_ref, &[&request], expect, false);
    }

    /// Sends the request to the job's node number `place`.
    fn ask(&mut self, index: u32, place: usize) {
        let Some(waiter) = self.waiter(index, place as u16) else {
            return;
        };
        let Some(mut job) = self.jobs.list.take(index) else {
            return;
        };
        let node_ref = job.node_refs[place];
        if let JobKind::Read(reading) = &mut job.work {
            let node = &self.nodes[node_ref.node as usize];
            let (key, hash) = (&job.key, job.hash);
            let sent = match &reading.ask {
                ReadRequest::Values { cas, touch: None }
                    if reading.udp && node.spec.udp && node.is_in() && !node.is_large(hash) =>
                {
                    let cas = *cas;
                    self.on_node(node_ref.node, |node, context, to| {
                        node.queue(context, asks(cas), key, hash, waiter, to);
                    });
                    Ok(())
                }
                ReadRequest::Values { cas, touch } => {
                    let touch = touch.map(|time| match node_ref.cap {
                        0 => time,
                        cap => crate::route::capped(time, cap, self.unix()),
                    });
                    let command = get_command(*cas, touch);
                    self.on_node(node_ref.node, |node, context, _| {
                        node.get(context, command.as_bytes(), key, hash, Some(waiter))
                    })
                }
                ReadRequest::Raw {
                    request,
                    expect,
                    fence,
                } => {
                    let pending = Pending::new(Some(waiter), *expect, *fence);
                    let binary = *expect == Expect::Binary;
                    self.on_node(node_ref.node, |node, context, _| {
                        node.request(context, binary, &[request], pending)
                    })
                }
            };
            if sent.is_err() {
                self.clients.deliver(waiter, Answer::Unavailable);
            }
        }
        self.jobs.list.put_back(index, job);
    }

    /// Processes the answers that have arrived for jobs.
    pub(crate) fn run_jobs(&mut self) {
        while let Some((waiter, answer)) = self.clients.done.pop_front() {
            let index = waiter.client & !JOB;
            let awaits = |job: &Job| job.generation == waiter.generation;
            if !self.jobs.list.get(index).is_some_and(awaits) {
                continue;
            }
            let Some(mut job) = self.jobs.list.take(index) else {
                continue;
            };
            let unix = self.unix();
            let mut next = match &mut job.work {
                JobKind::Read(reading) => reading.take(&job.key, job.node_refs.len(), unix, answer),
                JobKind::Write(writing) => writing.take(waiter.part, answer),
                JobKind::Flight(flight) => flight.take(&job.key, answer, self.now),
                JobKind::Lock(locking) => locking.take(answer),
                JobKind::Gather(gather) => gather.take(&job.key, waiter.part, answer),
                JobKind::SplitWrite(write) => write.take(&job.key, answer),
            };
            let budget = &mut self.clients.budget;
            if next.hold > budget.limit.saturating_sub(budget.held) {
                let line = hippos_proto::reply::GET_OUT_OF_MEMORY;
                next = JobStep::end(OwnedAnswer::Error(line.to_vec()));
            }
            budget.held += next.hold;
            job.held += next.hold;
            if next.over {
                // The answer is the client's from here on.
                budget.held = budget.held.saturating_sub(std::mem::take(&mut job.held));
            }
            let (first, client) = (job.node_refs[0], job.waiter);
            if let (Some(answer), Some(waiter)) = (next.answer, job.waiter) {
                job.waiter = None;
                if let (Some(version), OwnedAnswer::Reply(value), Some(l1)) =
                    (job.keep, &answer, &mut self.l1)
                {
                    let same = self.clients.budget.versions.of(job.hash) == version;
                    if same && !value.is_empty() {
                        l1.keep(&job.key, value, version, self.now);
                    }
                }
                self.clients.deliver(waiter, answer.as_answer());
            }
            if let Some(time) = next.wake {
                let timer = (time, index, job.generation);
                self.jobs.timers.push(Reverse(timer));
            }
            self.jobs.list.put_back(index, job);
            if let (Some(lock), Some(client)) = (next.lock, client) {
                self.hand_over(&client, lock);
            }
            if let Some(place) = next.ask {
                self.ask(index, place);
            }
            if let Some((node_ref, key)) = next.warm {
                let line = [&b"mg "[..], &key, b" f t v\r\n"].concat();
                self.send_for(index, 0, node_ref, &[&line], Expect::Meta, false);
            }
            if let Some((request, wait)) = next.fill {
                self.counters.warmed.add(1);
                let request = self.capped_line(first, request);
                if wait {
                    self.send_for(index, 0, first, &[&request], Expect::Line, false);
                } else {
                    self.tell(first, &request, Expect::Line);
                }
            }
            for (node_ref, binary) in next.clear {
                self.clear(index, node_ref, binary);
            }
            for send in next.send {
                self.send_step(index, &send);
            }
            if next.over {
                self.end_job(index);
            }
        }
    }

    /// Continues the jobs that are due.
    pub(crate) fn wake_jobs(&mut self) {
        while let Some(&Reverse((time, index, generation))) = self.jobs.timers.peek() {
            if time > self.now {
                return;
            }
            self.jobs.timers.pop();
            let Some(job) = self.jobs.list.get(index) else {
                continue;
            };
            if let (JobKind::Flight(flight), true) = (&job.work, job.generation == generation) {
                let (node_ref, request) = (job.node_refs[0], flight.request(&job.key));
                self.send_for(index, 0, node_ref, &[&request], Expect::Meta, false);
            }
        }
    }

    fn capped_line(&self, node_ref: NodeRef, request: Vec<u8>) -> Vec<u8> {
        let end = request.iter().position(|&byte| byte == b'\r').unwrap_or(0);
        let (line, rest) = request.split_at(end);
        self.capped(node_ref, &[line, rest, b""]).unwrap_or(request)
    }

    fn end_job(&mut self, index: u32) {
        if let Some(job) = self.jobs.list.remove(index) {
            let budget = &mut self.clients.budget;
            budget.held = budget.held.saturating_sub(job.held);
            for node_ref in &job.node_refs {
                self.nodes[node_ref.node as usize].job_refs -= 1;
            }
        }
    }
}

/// Whether the request changes nothing if there is no item.
fn needs_item(request: &[u8]) -> bool {
    if let [REQUEST, opcode, ..] = request {
        return matches!(
            non_quiet(*opcode).unwrap_or(*opcode),
            op::REPLACE | op::APPEND | op::PREPEND | op::TOUCH | op::INCREMENT | op::DECREMENT
        );
    }
    let mut words = Words::new(request);
    match words.next() {
        Some(b"replace" | b"append" | b"prepend" | b"incr" | b"decr" | b"touch" | b"ma") => true,
        Some(b"ms") => words
            .skip(2)
            .any(|word| matches!(word, [b'M', mode, ..] if b"APRapr".contains(mode))),
        _ => false,
    }
}

/// Whether the request is conditional on the item's CAS value.
fn compares(request: &[u8]) -> bool {
    if request.first() == Some(&REQUEST) {
        return request.get(16..HEADER).is_some_and(|cas| cas != [0; 8]);
    }
    let mut words = Words::new(request);
    match words.next() {
        Some(b"cas") => true,
        Some([b'm', _]) => words.skip(1).any(|word| word.first() == Some(&b'C')),
        _ => false,
    }
}
