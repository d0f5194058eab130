// SPDX-License-Identifier: GPL-2.0-only
//! One thread of load: sends requests that are due, receives replies, gives up requests without one.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::Sender;
use nix::errno::Errno;
use nix::poll::{ppoll, PollFd, PollFlags};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{getrusage, UsageWho};
use nix::sys::time::TimeSpec;

use crate::binary;
use crate::mmsg::{RecvBatch, SendBatch, BATCH};
use crate::order::KeyOrdering;
use crate::pending::{Outcome, Pending};
use crate::request::{Request, Verb};
use crate::settings::{Endpoint, Failure, Protocol, Settings, Transport};
use crate::source::{self, Next, Source};
use crate::stats::{Interval, Recorder};
use crate::tcp::{Broken, Tcp};
use crate::udp::{Seen, Udp};
use crate::versions::Versions;
use crate::wire;

/// Requests staged before replies are read again.
const TURN: usize = 4 * BATCH;
/// The longest sleep, so that neither the timeline nor a stop is missed.
const SLEEP_MAX: u64 = 50_000_000;
/// The lag from which the generator itself is the bottleneck, if replies arrive: more requests are due than it can
/// send.
const LAG_LIMIT: u64 = 10_000_000;
/// Requests in flight on each socket or connection while the generator is behind, so that no queue overflows: the
/// highest rate of a closed loop.
const BEHIND_WINDOW: usize = 64;
/// The time without any reply after which the server counts as stalled, not busy.
const QUIET: u64 = 100_000_000;
/// The time between two attempts to reconnect.
const PAUSE: Duration = Duration::from_millis(100);
/// The flag of TCP connections in epoll's tokens.
const TCP: u64 = 1 << 32;

/// The sockets of one worker; several runs use them.
#[derive(Debug)]
pub struct Channels {
    udp: Vec<Udp>,
    tcp: Vec<Tcp>,
    epoll: Epoll,
    servers: usize,
}

impl Channels {
    /// Connects to every server.
    pub fn connect(settings: &Settings) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        let each = |n: usize| {
            settings
                .servers
                .iter()
                .flat_map(move |server| std::iter::repeat_n(server.clone(), n))
        };
        if settings.get == Transport::Udp {
            for server in each(settings.sockets) {
                let Endpoint::Net(address) = server else {
                    continue;
                };
                let channel = Udp::connect(address, settings.mirror, settings.gso)?;
                epoll.add(
                    channel.socket(),
                    EpollEvent::new(EpollFlags::EPOLLIN, udp.len() as u64),
                )?;
                udp.push(channel);
            }
        }
        if !settings.mirror {
            for server in each(settings.connections) {
                let channel = Tcp::connect(&server, settings)?;
                if let Some(stream) = channel.stream() {
                    epoll.add(
                        stream,
                        EpollEvent::new(EpollFlags::EPOLLIN, TCP | tcp.len() as u64),
                    )?;
                }
                tcp.push(channel);
            }
        }
        Ok(Self {
            udp,
            tcp,
            epoll,
            servers: settings.servers.len(),
        })
    }

    fn waiting(&self) -> usize {
        self.udp.iter().map(Udp::waiting).sum::<usize>()
            + self.tcp.iter().map(Tcp::waiting).sum::<usize>()
    }
}

/// The state that workers share.
#[derive(Debug, Clone, Copy)]
pub struct Shared<'a> {
    /// The connections to the servers.
    pub settings: &'a Settings,
    /// Versions of the keys.
    pub versions: &'a VersionsRef,
    /// Ends the run early.
    pub stop: &'a AtomicBool,
}

/// [`Versions`], without `Debug` output.
pub struct VersionsRef(pub Versions);

impl std::fmt::Debug for VersionsRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Versions")
    }
}

/// The end of a run and its measured part, in nanoseconds since the start.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Requests due before this are not measured.
    pub from: u64,
    /// No request is sent after this.
    pub end: u64,
    /// Length of an interval of the timeline.
    pub interval: u64,
    /// Requests in flight on each socket or connection; `None` in an open loop.
    pub window: Option<usize>,
    /// The requests of one key keep their order.
    pub ordered: bool,
}

/// The result of a worker.
#[derive(Debug)]
pub struct Done {
    /// Its measurements.
    pub recorder: Recorder,
    /// The reason for stopping early, if any.
    pub failure: Option<Failure>,
    /// When it sent its last request, in nanoseconds since the start.
    pub sent_until: u64,
    /// Processor time that it used.
    pub cpu: Duration,
}

/// The state except the sockets, so that both can be borrowed at once.
struct WorkerState<'a> {
    shared: Shared<'a>,
    recorder: Recorder,
    /// SETs to be made after misses, and other follow-up requests.
    refills: Vec<Request>,
    order: Option<KeyOrdering>,
    end: u64,
}

impl WorkerState<'_> {
    /// A request was answered.
    fn finish(&mut self, pending: &Pending, outcome: Outcome, now: u64) {
        let due = pending.due;
        let request = &pending.request;
        let verb = request.verb;
        if verb.writes() {
            let done = matches!(outcome, Outcome::Stored | Outcome::Deleted)
                || (verb == Verb::Delete && outcome == Outcome::NotFound);
            for key in &request.keys {
                self.shared.versions.0.end(key.id, pending.version, done);
            }
        }
        if pending.expired() {
            if !pending.forgotten {
                self.recorder.late(pending.kind(), due, now);
            }
            return;
        }
        let in_time = now <= self.end;
        self.recorder.answered(pending.kind(), due, now, in_time);
        if let Outcome::Error(text) = outcome {
            self.recorder.error(due, text);
        }
        let misses = request.keys.len() as u64 - u64::from(pending.hits);
        if outcome == Outcome::Got {
            self.recorder.got(due, u64::from(pending.hits), misses);
        }
        if let Some(counters) = self.recorder.counted(due) {
            match outcome {
                Outcome::Got => {}
                Outcome::Counted => counters.counted += 1,
                Outcome::Exists => counters.exists += 1,
                Outcome::Stored => counters.stored += 1,
                Outcome::NotStored => counters.not_stored += 1,
                Outcome::Deleted => counters.deleted += 1,
                Outcome::Touched => counters.touched += 1,
                Outcome::NotFound => counters.not_found += 1,
                Outcome::Error(_) => {}
            }
        }
        if in_time {
            match outcome {
                Outcome::Got if misses > 0 && self.shared.settings.fill_on_miss => {
                    self.refill(pending)
                }
                Outcome::Got if request.then_cas && pending.hits > 0 => {
                    let mut cas = request.clone();
                    (cas.verb, cas.cas, cas.then_cas) = (Verb::Cas, pending.cas, false);
                    self.refills.push(cas);
                }
                // The first request to a counter, or to a growing value.
                Outcome::NotFound | Outcome::NotStored
                    if matches!(verb, Verb::Incr | Verb::Append) =>
                {
                    let mut first = request.clone();
                    first.verb = Verb::Add;
                    if verb == Verb::Incr {
                        first.value_len = 1;
                    }
                    self.refills.push(first);
                }
                _ => {}
            }
        }
        if let Some(order) = &mut self.order {
            let present = match outcome {
                Outcome::Got => None,
                Outcome::Stored | Outcome::NotStored | Outcome::Touched => Some(true),
                _ => Some(false),
            };
            order.done(request, |at| present.unwrap_or_else(|| pending.found(at)));
        }
    }

    fn refill(&mut self, pending: &Pending) {
        for key in pending.missed().filter(|key| !key.absent()) {
            if self
                .order
                .as_mut()
                .is_some_and(|order| !order.refill(key.hash))
            {
                continue;
            }
            let mut request = Request::default();
            request.reset(Verb::Set);
            request.push_from(&pending.request, key);
            request.ttl = pending.request.ttl;
            request.value_len = match key.value_len {
                crate::request::RequestKey::UNKNOWN => pending.request.value_len,
                len => len,
            };
            self.refills.push(request);
        }
    }

    /// A request was given up.
    fn timeout(&mut self, pending: &Pending, partial: bool) {
        self.recorder.timeout(pending.due, pending.gave_up, partial);
        self.release(&pending.request);
    }

    /// A request was lost with its connection.
    fn lost(&mut self, pending: &Pending, now: u64) {
        if pending.request.verb.writes() {
            for key in &pending.request.keys {
                self.shared.versions.0.end(key.id, pending.version, false);
            }
        }
        if pending.expired() {
            if !pending.forgotten {
                self.recorder
                    .unanswered(pending.kind(), pending.due, pending.gave_up);
            }
            return;
        }
        let least = now.saturating_sub(pending.due);
        let least = least.max(self.shared.settings.timeout);
        self.recorder.lost(pending.kind(), pending.due, least);
        self.release(&pending.request);
    }

    /// A request ended without a reply.
    fn release(&mut self, request: &Request) {
        if let Some(order) = &mut self.order {
            order.done(request, |_| false);
        }
    }
}

/// A worker during a run.
pub struct Worker<'a> {
    channels: &'a mut Channels,
    state: WorkerState<'a>,
    source: Source<'a>,
    span: Span,
    start: Instant,
    request: Request,
    ahead: Option<Next>,
    recv_batch: RecvBatch<()>,
    send_batch: SendBatch<()>,
    /// Deadlines of all requests in sending order: time, token, ticket.
    deadlines: VecDeque<(u64, u64, u64)>,
    udp_cursor: Vec<usize>,
    tcp_cursor: usize,
    /// Connections with something to send.
    dirty: Vec<usize>,
    /// Connections that are down.
    down: Vec<usize>,
    /// A request that is due, but for which there was no free slot.
    parked: Option<(Request, u64)>,
    /// The request ahead has been admitted to the order.
    admitted: bool,
    /// There was no free slot for a request that is due.
    blocked: bool,
    /// The delay of a trace that is replayed too fast.
    slip: u64,
    last_reply: u64,
    sent_until: u64,
}

impl<'a> Worker<'a> {
    /// A worker whose clock starts at `start`.
    pub fn new(
        channels: &'a mut Channels,
        shared: Shared<'a>,
        source: Source<'a>,
        span: Span,
        start: Instant,
        timeline: Sender<Interval>,
    ) -> Self {
        let udp_cursor = vec![0; channels.servers];
        let mut down = Vec::new();
        for (at, channel) in channels.tcp.iter_mut().enumerate() {
            if channel.stream().is_none() {
                channel.reconnect(shared.settings, Duration::ZERO);
                down.push(at);
            }
        }
        Self {
            channels,
            state: WorkerState {
                shared,
                recorder: Recorder::new(span.from, span.interval, timeline),
                refills: Vec::new(),
                order: span
                    .ordered
                    .then(|| KeyOrdering::new(shared.settings.fill_on_miss)),
                end: span.end,
            },
            source,
            span,
            start,
            request: Request::default(),
            ahead: None,
            recv_batch: RecvBatch::new(shared.settings.gso),
            send_batch: SendBatch::connected(shared.settings.gso),
            deadlines: VecDeque::new(),
            udp_cursor,
            tcp_cursor: 0,
            dirty: Vec::new(),
            down,
            parked: None,
            admitted: false,
            blocked: false,
            slip: 0,
            last_reply: 0,
            sent_until: 0,
        }
    }

    /// Runs until the source ends and all requests are answered or given up, or until a failure.
    pub fn run(mut self) -> Done {
        // By default the kernel wakes sleepers up to 50 us late. If it refuses to change that, the lag shows it.
        let _ = nix::sys::prctl::set_timerslack(1);
        let failure = self.work().err();
        if failure.is_some() {
            self.state.shared.stop.store(true, Ordering::Relaxed);
        }
        // Requests that were given up and not answered count with the time that they had taken.
        let recorder = &mut self.state.recorder;
        let mut forgotten =
            |pending: &Pending| recorder.unanswered(pending.kind(), pending.due, pending.gave_up);
        for channel in &mut self.channels.udp {
            channel.forget_all(&mut forgotten);
        }
        for channel in &mut self.channels.tcp {
            channel.forget_all(&mut forgotten);
        }
        self.state.recorder.finish();
        let cpu = getrusage(UsageWho::RUSAGE_THREAD).map_or(Duration::ZERO, |usage| {
            let time = |t: nix::sys::time::TimeVal| {
                Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()) as u64)
            };
            time(usage.user_time()) + time(usage.system_time())
        });
        Done {
            recorder: self.state.recorder,
            failure,
            sent_until: self.sent_until,
            cpu,
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn work(&mut self) -> Result<(), Failure> {
        loop {
            let now = self.now();
            if self.state.shared.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.state.recorder.tick(now);
            if !self.down.is_empty() {
                self.reconnect()?;
            }
            let sent = self.send(now)?;
            let received = self.receive()?;
            let now = self.now();
            self.expire(now);
            if received {
                self.last_reply = now;
            }
            if sent || received {
                continue;
            }
            if self.ahead == Some(Next::End)
                && self.channels.waiting() == 0
                && self.state.refills.is_empty()
                && self.parked.is_none()
                && self
                    .state
                    .order
                    .as_ref()
                    .is_none_or(|order| order.parked() == 0)
            {
                return Ok(());
            }
            self.sleep(now)?;
        }
    }

    /// Sends the requests that are due; whether there were any.
    fn send(&mut self, now: u64) -> Result<bool, Failure> {
        let mut staged = 0;
        self.blocked = false;
        while let Some(refill) = self.state.refills.pop() {
            if matches!(refill.verb, Verb::Set) {
                if let Some(counters) = self.state.recorder.counted(now) {
                    counters.refills += 1;
                }
            }
            self.over_tcp(&refill, now, now, usize::MAX);
            staged += 1;
        }
        while staged < TURN {
            let Some((request, due)) = self
                .parked
                .take()
                .or_else(|| self.state.order.as_mut().and_then(KeyOrdering::pop_ready))
            else {
                break;
            };
            // In a closed loop no request is due before it can be sent.
            let due = if self.span.window.is_some() { now } else { due };
            if !self.dispatch(&request, due, now)? {
                self.parked = Some((request, due));
                self.blocked = true;
                break;
            }
            staged += 1;
        }
        while staged < TURN && self.parked.is_none() {
            let due = match self.ahead {
                None | Some(Next::Later) => {
                    self.ahead = Some(self.source.next(self.channels.servers, &mut self.request));
                    match &mut self.ahead {
                        Some(Next::Later) => break,
                        Some(Next::At(due)) => *due += self.slip,
                        _ => {}
                    }
                    continue;
                }
                Some(Next::At(due)) if due <= now => due,
                Some(Next::Now) if now < self.span.end => now,
                Some(Next::Now) => {
                    self.ahead = Some(Next::End);
                    break;
                }
                Some(_) => break,
            };
            // More requests are due than can be sent: those that are late by more than the timeout are skipped, so that
            // the rest of the run is measured too. Nothing of a trace is skipped; it continues later.
            let timeout = self.state.shared.settings.timeout;
            if matches!(self.ahead, Some(Next::At(_))) && now.saturating_sub(due) > timeout {
                let late = now - timeout;
                match self.source.skip(late, self.span.from) {
                    Some(unsent) if !self.admitted => {
                        if due >= self.span.from {
                            self.state.recorder.counters.unsent += 1;
                        }
                        self.state.recorder.counters.unsent += unsent;
                        self.ahead = None;
                        continue;
                    }
                    Some(unsent) => self.state.recorder.counters.unsent += unsent,
                    None => {
                        self.slip += late - due;
                        self.ahead = Some(Next::At(late));
                        continue;
                    }
                }
            }
            if now > self.span.end.saturating_add(timeout) {
                // Its reply would not be measured any more.
                if let Some(counters) = self.state.recorder.counted(due) {
                    counters.unsent += 1;
                }
                if self.admitted {
                    let request = std::mem::take(&mut self.request);
                    self.state.release(&request);
                    self.request = request;
                    self.admitted = false;
                }
                self.ahead = match self.source {
                    Source::Trace { .. } => Some(Next::End),
                    _ => None,
                };
                continue;
            }
            if let (Some(order), false) = (&mut self.state.order, self.admitted) {
                if order.full() {
                    self.blocked = true;
                    break;
                }
                if !order.admit(&self.request, due) {
                    self.ahead = None;
                    // Counts as work, so that a key that blocks does not make this loop endless.
                    staged += 1;
                    continue;
                }
                self.admitted = true;
            }
            let request = std::mem::take(&mut self.request);
            let went = self.dispatch(&request, due, now)?;
            self.request = request;
            if !went {
                self.blocked = true;
                break;
            }
            self.ahead = None;
            self.admitted = false;
            staged += 1;
        }
        if staged > 0 {
            self.sent_until = now;
        }
        self.flush()?;
        Ok(staged > 0)
    }

    /// Stages a request on a socket or connection with a free slot; whether there was one.
    fn dispatch(&mut self, request: &Request, due: u64, now: u64) -> Result<bool, Failure> {
        let window = match self.span.window {
            Some(window) => window,
            None if now.saturating_sub(due) > LAG_LIMIT
                && now.saturating_sub(self.last_reply) < QUIET =>
            {
                BEHIND_WINDOW
            }
            None => usize::MAX,
        };
        if self.fits_udp(request) {
            self.over_udp(request, due, now, window)
        } else {
            Ok(self.over_tcp(request, due, now, window))
        }
    }

    /// Whether a GET's request and expected reply fit into datagrams.
    fn fits_udp(&self, request: &Request) -> bool {
        let settings = self.state.shared.settings;
        if settings.get != Transport::Udp || !matches!(request.verb, Verb::Get | Verb::Gets) {
            return false;
        }
        let (each, ends) = match settings.protocol {
            Protocol::Classic => (1, 7),
            Protocol::Meta => (15, 0),
            Protocol::Binary => (binary::HEADER, binary::HEADER),
        };
        let len = wire::FRAME + ends + request.key_bytes() + each * request.keys.len();
        let known = |len: u32| {
            if len == crate::request::RequestKey::UNKNOWN {
                0
            } else {
                u64::from(len)
            }
        };
        let reply: u64 = request.keys.iter().map(|key| known(key.value_len)).sum();
        len <= wire::REQUEST_MAX && (reply <= u64::from(settings.udp_max) || settings.mirror)
    }

    fn over_udp(
        &mut self,
        request: &Request,
        due: u64,
        now: u64,
        window: usize,
    ) -> Result<bool, Failure> {
        let settings = self.state.shared.settings;
        let server = self.server(request);
        let base = server * settings.sockets;
        let mut tries = 0;
        let at = loop {
            let at = base + self.udp_cursor[server];
            if self.channels.udp[at].staged() >= BATCH {
                self.flush_udp(at)?;
            }
            if self.channels.udp[at].waiting() < window && self.channels.udp[at].staged() < BATCH {
                break at;
            }
            self.udp_cursor[server] = (self.udp_cursor[server] + 1) % settings.sockets;
            tries += 1;
            if tries > settings.sockets {
                return Ok(false);
            }
        };
        let channel = &mut self.channels.udp[at];
        if let Some(old) = channel.reused() {
            if let Some((pending, partial)) = channel.expire(old, now, settings.timeout) {
                self.state.timeout(pending, partial);
            }
            if let Some(pending) = channel.forget(old) {
                let recorder = &mut self.state.recorder;
                recorder.unanswered(pending.kind(), pending.due, pending.gave_up);
            }
        }
        let versions = &self.state.shared.versions.0;
        let ticket = channel.stage(|pending| {
            pending.start(request, due, 0, versions, settings.protocol);
            pending.lenient = !settings.check;
        });
        self.deadlines
            .push_back((now + settings.timeout, at as u64, ticket));
        Ok(true)
    }

    fn over_tcp(&mut self, request: &Request, due: u64, now: u64, window: usize) -> bool {
        let settings = self.state.shared.settings;
        let base = self.server(request) * settings.connections;
        let connections = base..base + settings.connections;
        let at = match (self.span.ordered, request.keys.first()) {
            // The requests of one key use one connection; the window is that of all together.
            (true, Some(key)) => {
                let waiting: usize = self.channels.tcp[connections.clone()]
                    .iter()
                    .map(Tcp::queued)
                    .sum();
                if window != usize::MAX && waiting >= window * settings.connections {
                    return false;
                }
                base + (key.hash >> 40) as usize % settings.connections
            }
            _ => {
                let free = (0..settings.connections)
                    .map(|i| base + (self.tcp_cursor + i) % settings.connections)
                    .find(|at| self.channels.tcp[*at].queued() < window);
                let Some(at) = free else { return false };
                self.tcp_cursor = (at - base + 1) % settings.connections;
                at
            }
        };
        let channel = &mut self.channels.tcp[at];
        if channel.stream().is_none() {
            let mut pending = Pending::default();
            let versions = &self.state.shared.versions.0;
            pending.start(request, due, 0, versions, settings.protocol);
            let least = now.saturating_sub(due).max(settings.timeout);
            self.state.recorder.lost(pending.kind(), due, least);
            self.state.release(request);
            return true;
        }
        if channel.full() {
            if let Some(counters) = self.state.recorder.counted(due) {
                counters.unsent += 1;
            }
            self.state.release(request);
            return true;
        }
        let versions = &self.state.shared.versions.0;
        let version = match request.keys.first() {
            Some(key) if request.verb.writes() => versions.begin(key.id),
            _ => 0,
        };
        let (ticket, bytes) = channel.stage(|pending| {
            pending.start(request, due, version, versions, settings.protocol);
            pending.lenient = !settings.check;
        });
        self.state.recorder.sent(due, now, bytes);
        self.deadlines
            .push_back((now + settings.timeout, TCP | at as u64, ticket));
        if self.dirty.last() != Some(&at) {
            self.dirty.push(at);
        }
        true
    }

    fn server(&self, request: &Request) -> usize {
        request
            .keys
            .first()
            .map_or(0, |key| source::server(key.hash, self.channels.servers))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let sockets = self.state.shared.settings.sockets;
        for at in 0..self.channels.udp.len() {
            if self.channels.udp[at].staged() > 0 {
                self.flush_udp(at)?;
                // The next requests use another source port.
                let server = at / sockets;
                self.udp_cursor[server] = (self.udp_cursor[server] + 1) % sockets;
            }
        }
        while let Some(at) = self.dirty.pop() {
            self.flush_tcp(at)?;
        }
        Ok(())
    }

    fn flush_udp(&mut self, at: usize) -> Result<(), Failure> {
        let now = self.now();
        // The kernel reports an error of an earlier datagram only once.
        for attempt in 0.. {
            let recorder = &mut self.state.recorder;
            let flushed = self.channels.udp[at].flush(&mut self.send_batch, |due, bytes| {
                recorder.sent(due, now, bytes)
            });
            match flushed {
                Ok(()) => break,
                Err(Errno::ECONNREFUSED) if self.reconnects() && attempt < BATCH => {}
                Err(errno) => return Err(self.udp_failure(at, errno)),
            }
        }
        Ok(())
    }

    fn reconnects(&self) -> bool {
        self.state.shared.settings.reconnect
    }

    /// A connection broke: the run fails, or the requests on it are lost.
    fn broken(&mut self, at: usize, broken: Broken) -> Result<(), Failure> {
        match broken {
            Broken::Server(_) if self.reconnects() => {
                let now = self.now();
                let state = &mut self.state;
                let channel = &mut self.channels.tcp[at];
                channel.lose(|pending| state.lost(pending, now));
                channel.reconnect(state.shared.settings, Duration::ZERO);
                self.down.push(at);
                Ok(())
            }
            broken => Err(failure(broken)),
        }
    }

    /// Uses connections that were made again.
    fn reconnect(&mut self) -> Result<(), Failure> {
        let settings = self.state.shared.settings;
        let mut down = std::mem::take(&mut self.down);
        let mut failed = None;
        down.retain(|at| {
            let channel = &mut self.channels.tcp[*at];
            match channel.reconnected() {
                Some(false) => true,
                None => {
                    channel.reconnect(settings, PAUSE);
                    true
                }
                Some(true) => {
                    self.state.recorder.counters.reconnects += 1;
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, TCP | *at as u64);
                    if let Some(stream) = channel.stream() {
                        failed = self.channels.epoll.add(stream, event).err().or(failed);
                    }
                    false
                }
            }
        });
        self.down = down;
        failed.map_or(Ok(()), |errno| Err(system(errno)))
    }

    fn flush_tcp(&mut self, at: usize) -> Result<(), Failure> {
        let channel = &mut self.channels.tcp[at];
        if let Err(broken) = channel.flush() {
            return self.broken(at, broken);
        }
        if let (Some(room), Some(stream)) = (channel.writable_interest(), channel.stream()) {
            let mut interest = EpollFlags::EPOLLIN;
            interest.set(EpollFlags::EPOLLOUT, room);
            let mut event = EpollEvent::new(interest, TCP | at as u64);
            self.channels
                .epoll
                .modify(stream, &mut event)
                .map_err(system)?;
        }
        Ok(())
    }

    fn udp_failure(&self, at: usize, errno: Errno) -> Failure {
        let settings = self.state.shared.settings;
        let server = &settings.servers[at / settings.sockets];
        match errno {
            Errno::ECONNREFUSED => Failure::Server(format!(
                "UDP {server}: nothing listens there (port unreachable)"
            )),
            errno => Failure::Server(format!("UDP {server}: {}", errno.desc())),
        }
    }

    /// Receives the available replies; whether there were any.
    fn receive(&mut self) -> Result<bool, Failure> {
        let mut events = [EpollEvent::empty(); 64];
        let count = match self.channels.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(system(errno)),
        };
        for event in &events[..count] {
            let at = (event.data() & (TCP - 1)) as usize;
            if event.data() & TCP == 0 {
                self.receive_udp(at)?;
            } else {
                if event.events().contains(EpollFlags::EPOLLOUT) {
                    self.flush_tcp(at)?;
                }
                self.receive_tcp(at)?;
            }
        }
        Ok(count > 0)
    }

    fn receive_udp(&mut self, at: usize) -> Result<(), Failure> {
        // Bounded, so that one busy socket does not delay the others.
        for _ in 0..4 {
            let socket = self.channels.udp[at].fd();
            let count = match self.recv_batch.receive(socket) {
                Ok(count) => count,
                Err(Errno::ECONNREFUSED) if self.reconnects() => 0,
                Err(errno) => return Err(self.udp_failure(at, errno)),
            };
            let now = self.now();
            let (channel, state) = (&mut self.channels.udp[at], &mut self.state);
            for (datagram, _) in self.recv_batch.datagrams() {
                state.recorder.counters.bytes_received += datagram.len() as u64;
                let seen = channel
                    .deliver(datagram, |pending, outcome| {
                        state.finish(pending, outcome, now)
                    })
                    .map_err(Failure::Wrong)?;
                match seen {
                    Seen::Reply => {}
                    Seen::Stray => state.recorder.counters.strays += 1,
                }
            }
            if count < BATCH {
                break;
            }
        }
        Ok(())
    }

    fn receive_tcp(&mut self, at: usize) -> Result<(), Failure> {
        let now = self.now();
        let state = &mut self.state;
        let received =
            self.channels.tcp[at].receive(|pending, outcome| state.finish(pending, outcome, now));
        match received {
            Ok(bytes) => state.recorder.counters.bytes_received += bytes as u64,
            Err(broken) => self.broken(at, broken)?,
        }
        Ok(())
    }

    /// Gives up requests that have waited too long.
    fn expire(&mut self, now: u64) {
        while let Some((deadline, token, ticket)) = self.deadlines.front().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_front();
            let at = (token & (TCP - 1)) as usize;
            let timeout = self.state.shared.settings.timeout;
            let gone = if token & TCP == 0 {
                self.channels.udp[at].expire(ticket, now, timeout)
            } else {
                let gone = self.channels.tcp[at].expire(ticket, now, timeout);
                gone.map(|pending| (pending, false))
            };
            if let Some((pending, partial)) = gone {
                self.state.timeout(pending, partial);
            }
        }
    }

    /// Sleeps until a reply arrives or a request is due.
    fn sleep(&self, now: u64) -> Result<(), Failure> {
        let mut until = (now + SLEEP_MAX).min(self.state.recorder.interval_end());
        match self.ahead {
            Some(Next::At(_)) if self.blocked => until = until.min(now + 100_000),
            Some(Next::At(due)) => until = until.min(due),
            Some(Next::Later) => until = until.min(now + 200_000),
            _ => {}
        }
        if self.channels.udp.iter().any(|channel| channel.staged() > 0) {
            until = until.min(now + 50_000);
        }
        if !self.down.is_empty() {
            until = until.min(now + 5_000_000);
        }
        if let Some((deadline, ..)) = self.deadlines.front() {
            until = until.min(*deadline);
        }
        let timeout = TimeSpec::from_duration(Duration::from_nanos(until.saturating_sub(now)));
        let epoll: BorrowedFd = self.channels.epoll.0.as_fd();
        match ppoll(
            &mut [PollFd::new(epoll, PollFlags::POLLIN)],
            Some(timeout),
            None,
        ) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(system(errno)),
        }
    }
}

fn failure(broken: Broken) -> Failure {
    match broken {
        Broken::Wrong(what) => Failure::Wrong(what),
        Broken::Server(what) => Failure::Server(what),
    }
}

fn system(errno: Errno) -> Failure {
    Failure::Server(format!("system call failed: {}", errno.desc()))
}
