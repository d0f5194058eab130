// SPDX-License-Identifier: MIT

//! Commands that need the answers of several nodes, at once or one after another: copies in several pools, misses that
//! are looked up in another pool. The nodes answer the job, and the job answers the client.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hippos_proto::binary::{op, HEADER, REQUEST};
use hippos_proto::token::Words;

use crate::client::{Answer, Waiter};
use crate::connection::Pending;
use crate::dispatch::asks;
use crate::exclusion::{Flight, Lock, LockOperation};
use crate::framing::Expect;
use crate::node::Deliver;
use crate::route::{cap_ttl, Plan, Read, Write};
use crate::worker::Worker;

/// This bit in a waiter marks a job.
pub(crate) const JOB: u32 = 1 << 31;

/// A node for a key's commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeRef {
    pub(crate) node: u32,
    /// The longest time to live there; 0 for any.
    pub(crate) cap: u32,
}

/// A copy of an answer.
#[derive(Debug)]
pub(crate) enum OwnedAnswer {
    Reply(Vec<u8>),
    Error(Vec<u8>),
    Unavailable,
}

impl OwnedAnswer {
    pub(crate) fn of(answer: Answer<'_>) -> Self {
        match answer {
            Answer::Reply(bytes) => OwnedAnswer::Reply(bytes.to_vec()),
            Answer::Error(line) => OwnedAnswer::Error(line.to_vec()),
            Answer::Unavailable => OwnedAnswer::Unavailable,
        }
    }

    fn as_answer(&self) -> Answer<'_> {
        match self {
            OwnedAnswer::Reply(bytes) => Answer::Reply(bytes),
            OwnedAnswer::Error(line) => Answer::Error(line),
            OwnedAnswer::Unavailable => Answer::Unavailable,
        }
    }

    /// Whether the node did not execute the command.
    fn failed(&self) -> bool {
        match self {
            OwnedAnswer::Reply(bytes) => match bytes.as_slice() {
                // In the binary protocol: out of memory, internal error, busy.
                [0x81, _, _, _, _, _, 0, status, ..] => matches!(status, 0x82 | 0x84..=0x86),
                bytes => {
                    bytes.starts_with(b"SERVER_ERROR")
                        || bytes.starts_with(b"CLIENT_ERROR")
                        || bytes.starts_with(b"ERROR")
                }
            },
            _ => true,
        }
    }
}

/// A request to read.
#[derive(Debug)]
pub(crate) enum ReadRequest {
    /// A value, by `get` or one of its variants.
    Values { cas: bool, touch: Option<i32> },
    /// A complete request.
    Raw {
        request: Vec<u8>,
        expect: Expect,
        fence: bool,
    },
}

/// The operation of a job.
#[derive(Debug)]
pub(crate) enum JobKind {
    Read(Reading),
    Write(Writing),
    Flight(Flight),
    Lock(LockOperation),
}

#[derive(Debug)]
pub(crate) struct Reading {
    ask: ReadRequest,
    policy: Read,
    /// Whether datagrams may be used.
    udp: bool,
    /// The number of nodes that were asked.
    asked: usize,
    left: usize,
    missed: Option<OwnedAnswer>,
    failed: Option<OwnedAnswer>,
    warm: Option<NodeRef>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It asks the pools of the route.
    Pools,
    /// It asks the warm pool.
    Warm,
    /// It stores the warm pool's value.
    Fill,
    /// It reads the stored value.
    Filled,
}

#[derive(Debug)]
pub(crate) struct Writing {
    policy: Write,
    /// The number of pools that get the change.
    total: usize,
    left: usize,
    done: usize,
    first: Option<OwnedAnswer>,
    /// An answer that reports success.
    some: Option<OwnedAnswer>,
    failed: Option<OwnedAnswer>,
    /// Nodes at which the key is deleted after the first pool has made the change.
    then_clear: Vec<NodeRef>,
    binary: bool,
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    generation: u32,
    /// `None` after it is answered.
    waiter: Option<Waiter>,
    key: Vec<u8>,
    hash: u32,
    node_refs: Vec<NodeRef>,
    work: JobKind,
    /// The value is cached, if the key still has this version.
    keep: Option<u32>,
}

/// This part number marks the answer to the deletion of a key.
const CLEARED: u16 = u16::MAX;

/// All jobs of a worker.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    list: Vec<Option<Job>>,
    free: Vec<u32>,
    generation: u32,
    /// The next copy to be read.
    turn: usize,
    /// Jobs that continue at a certain time.
    timers: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl Jobs {
    /// When the next job continues.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.timers.peek().map(|&Reverse((time, ..))| time)
    }
}

impl Worker {
    /// All nodes of a plan.
    fn node_refs(&self, pools: &[usize], key: &[u8]) -> Vec<NodeRef> {
        pools.iter().map(|&pool| self.locate(pool, key)).collect()
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
        let job = Some(Job {
            generation: jobs.generation,
            waiter: Some(waiter),
            key: key.to_vec(),
            hash,
            node_refs,
            work,
            keep: None,
        });
        match jobs.free.pop() {
            Some(index) => {
                jobs.list[index as usize] = job;
                index
            }
            None => {
                jobs.list.push(job);
                (jobs.list.len() - 1) as u32
            }
        }
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
        if plan.policy == Read::Spread {
            self.jobs.turn = self.jobs.turn.wrapping_add(1);
            let turn = self.jobs.turn % node_refs.len();
            node_refs.rotate_left(turn);
        }
        let mut warm = None;
        // A warm value is used only for `get` commands that do not touch.
        if let (Some(pool), ReadRequest::Values { touch: None, .. }) = (plan.warm, &ask) {
            warm = Some(self.locate(pool, key));
            node_refs.extend(warm);
        }
        let pools = plan.read.len();
        if let ReadRequest::Values {
            touch: Some(time), ..
        } = ask
        {
            for node_ref in &node_refs[1..pools] {
                let line = [&b"touch "[..], key, format!(" {time}\r\n").as_bytes()].concat();
                self.tell(*node_ref, &line, Expect::Line);
            }
        }
        let all = plan.policy == Read::Fastest;
        let left = if all { pools } else { 1 };
        let reading = Reading {
            ask,
            policy: plan.policy,
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
        if let Some(Some(job)) = self.jobs.list.get_mut(job as usize) {
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
        clear.retain(|node_ref| !node_refs.iter().any(|other| other.node == node_ref.node));
        let total = node_refs.len();
        let writing = Writing {
            policy: if compares { Write::AllSync } else { policy },
            total,
            left: total + if compares { 0 } else { clear.len() },
            done: 0,
            first: None,
            some: None,
            failed: None,
            then_clear: if compares { clear.clone() } else { Vec::new() },
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
        if !compares {
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

    fn waiter(&self, job: u32, part: u16) -> Option<Waiter> {
        let generation = self.jobs.list[job as usize].as_ref()?.generation;
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
        let Some(Some(Job { key, .. })) = self.jobs.list.get(job as usize) else {
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
        let Some(mut job) = self.jobs.list[index as usize].take() else {
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
        self.jobs.list[index as usize] = Some(job);
    }

    /// Processes the answers that have arrived for jobs.
    pub(crate) fn run_jobs(&mut self) {
        while let Some((waiter, answer)) = self.clients.done.pop_front() {
            let index = waiter.client & !JOB;
            let Some(place) = self.jobs.list.get_mut(index as usize) else {
                continue;
            };
            if place
                .as_ref()
                .is_none_or(|job| job.generation != waiter.generation)
            {
                continue;
            }
            let Some(mut job) = place.take() else {
                continue;
            };
            let next = match &mut job.work {
                JobKind::Read(reading) => {
                    reading.take(&job.key, job.node_refs.len(), waiter.part, answer)
                }
                JobKind::Write(writing) => writing.take(waiter.part, answer),
                JobKind::Flight(flight) => flight.take(&job.key, answer, self.now),
                JobKind::Lock(locking) => locking.take(answer),
            };
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
            self.jobs.list[index as usize] = Some(job);
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
            let Some(Some(job)) = self.jobs.list.get(index as usize) else {
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
        if let Some(job) = self.jobs.list[index as usize].take() {
            for node_ref in &job.node_refs {
                self.nodes[node_ref.node as usize].job_refs -= 1;
            }
            self.jobs.free.push(index);
        }
    }
}

/// The next step of a job.
#[derive(Debug, Default)]
pub(crate) struct JobStep {
    /// The answer to the client.
    pub(crate) answer: Option<OwnedAnswer>,
    /// When it continues.
    pub(crate) wake: Option<u64>,
    /// The lock that the client holds then.
    pub(crate) lock: Option<Lock>,
    /// The node to be asked.
    pub(crate) ask: Option<usize>,
    pub(crate) warm: Option<(NodeRef, Vec<u8>)>,
    /// The item to be stored in the first pool, and whether to wait for the answer.
    pub(crate) fill: Option<(Vec<u8>, bool)>,
    /// The nodes at which the key is deleted.
    pub(crate) clear: Vec<(NodeRef, bool)>,
    pub(crate) over: bool,
}

impl JobStep {
    pub(crate) fn end(answer: OwnedAnswer) -> Self {
        JobStep {
            answer: Some(answer),
            over: true,
            ..JobStep::default()
        }
    }
}

impl Reading {
    fn is_miss(&self, answer: &OwnedAnswer) -> bool {
        let OwnedAnswer::Reply(bytes) = answer else {
            return false;
        };
        match &self.ask {
            ReadRequest::Values { .. } => bytes.is_empty(),
            ReadRequest::Raw { .. } => match bytes.as_slice() {
                [0x81, _, _, _, _, _, 0, status, ..] => *status == 1,
                bytes => matches!(bytes, b"" | b"EN\r\n"),
            },
        }
    }

    fn take(&mut self, key: &[u8], node_refs: usize, _part: u16, answer: OwnedAnswer) -> JobStep {
        self.left = self.left.saturating_sub(1);
        match self.stage {
            Stage::Pools => {}
            Stage::Warm => return self.warm(key, answer),
            Stage::Fill => {
                self.stage = Stage::Filled;
                self.left = 1;
                return JobStep {
                    ask: Some(0),
                    ..JobStep::default()
                };
            }
            Stage::Filled => return JobStep::end(answer),
        }
        let pools = node_refs - usize::from(self.warm.is_some());
        let failed = answer.failed();
        let missed = !failed && self.is_miss(&answer);
        if failed {
            self.failed.get_or_insert(answer);
        } else if missed {
            self.missed.get_or_insert(answer);
        } else if self.left > 0 {
            // The remaining answers are dropped when they arrive.
            return JobStep {
                answer: Some(answer),
                ..JobStep::default()
            };
        } else {
            return JobStep::end(answer);
        }
        if self.left > 0 {
            return JobStep::default();
        }
        let on = failed || self.policy == Read::MissFailover;
        if on && self.asked < pools {
            self.asked += 1;
            self.left = 1;
            return JobStep {
                ask: Some(self.asked - 1),
                ..JobStep::default()
            };
        }
        // A failover pool's answer counts as that of the pool it replaces.
        let Some(last) = self.missed.take() else {
            return JobStep::end(self.failed.take().unwrap_or(OwnedAnswer::Unavailable));
        };
        match self.warm {
            Some(node_ref) => {
                self.stage = Stage::Warm;
                self.left = 1;
                JobStep {
                    warm: Some((node_ref, key.to_vec())),
                    ..JobStep::default()
                }
            }
            None => JobStep::end(last),
        }
    }

    /// The warm pool's answer to `mg KEY f t v`.
    fn warm(&mut self, key: &[u8], answer: OwnedAnswer) -> JobStep {
        let miss = || JobStep::end(OwnedAnswer::Reply(Vec::new()));
        let OwnedAnswer::Reply(bytes) = answer else {
            // A miss in the warm pool is a miss.
            return miss();
        };
        let Some((len, flags, ttl, data)) = meta_value(&bytes) else {
            return miss();
        };
        let ttl = ttl.max(0);
        let key = String::from_utf8_lossy(key);
        let head = format!("add {key} {flags} {ttl} {len}\r\n");
        let fill = [head.as_bytes(), data].concat();
        match self.ask {
            ReadRequest::Values { cas: true, .. } => {
                self.stage = Stage::Fill;
                self.left = 1;
                JobStep {
                    fill: Some((fill, true)),
                    ..JobStep::default()
                }
            }
            _ => {
                let head = format!("VALUE {key} {flags} {len}\r\n");
                JobStep {
                    answer: Some(OwnedAnswer::Reply([head.as_bytes(), data].concat())),
                    fill: Some((fill, false)),
                    over: true,
                    ..JobStep::default()
                }
            }
        }
    }
}

/// Length, flags, time to live and data of `VA LEN fF tT`.
fn meta_value(bytes: &[u8]) -> Option<(usize, u32, i32, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\r')?;
    let mut words = Words::new(bytes[..end].strip_prefix(b"VA ")?);
    let len = hippos_proto::number::parse_u32(words.next()?)? as usize;
    let (mut flags, mut ttl) = (0, 0);
    for word in words {
        match word.split_first()? {
            (b'f', number) => flags = hippos_proto::number::parse_u32(number)?,
            (b't', number) => ttl = hippos_proto::number::parse_i32(number)?,
            _ => return None,
        }
    }
    let data = bytes.get(end + 2..)?;
    (data.len() == len + 2).then_some((len, flags, ttl, data))
}

impl Writing {
    fn take(&mut self, part: u16, answer: OwnedAnswer) -> JobStep {
        self.left -= 1;
        let mut step = JobStep::default();
        if part != CLEARED {
            if answer.failed() {
                self.failed.get_or_insert(answer);
            } else {
                self.done += 1;
                if part == 0 {
                    self.first = Some(answer);
                } else {
                    self.some = Some(answer);
                }
            }
            let did = self.first.as_ref().is_some_and(stored);
            if did && !self.then_clear.is_empty() {
                let clear = std::mem::take(&mut self.then_clear);
                self.left += clear.len();
                step.clear = clear
                    .into_iter()
                    .map(|node_ref| (node_ref, self.binary))
                    .collect();
            }
        }
        step.over = self.left == 0;
        let enough = match self.policy {
            Write::AllSync => false,
            Write::AllMajority => self.done * 2 > self.total,
            Write::AllFastest => self.done > 0,
            Write::AllAsync => part == 0,
        };
        // Also the last one, if no other is outstanding.
        if enough || step.over {
            let done = match self.policy {
                Write::AllSync => self.done == self.total,
                Write::AllMajority => self.done * 2 > self.total,
                Write::AllFastest => self.done > 0,
                Write::AllAsync => self.first.is_some(),
            };
            let answer = match done {
                true => self.first.take().or_else(|| self.some.take()),
                false => self.failed.take(),
            };
            step.answer = Some(answer.unwrap_or(OwnedAnswer::Unavailable));
        }
        step
    }
}

/// Whether a change was made.
fn stored(answer: &OwnedAnswer) -> bool {
    match answer {
        OwnedAnswer::Reply(bytes) => match bytes.as_slice() {
            [0x81, _, _, _, _, _, status @ ..] => status.starts_with(&[0, 0]),
            // Quiet commands have no reply on success.
            bytes => {
                bytes.is_empty()
                    || bytes.starts_with(b"HD")
                    || bytes.starts_with(b"VA")
                    || bytes.starts_with(b"STORED")
                    || bytes.starts_with(b"DELETED")
            }
        },
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

/// The start of a `get` or one of its variants.
pub(crate) fn get_command(cas: bool, touch: Option<i32>) -> String {
    match (cas, touch) {
        (false, None) => "get ".to_owned(),
        (true, None) => "gets ".to_owned(),
        (false, Some(time)) => format!("gat {time} "),
        (true, Some(time)) => format!("gats {time} "),
    }
}
