// SPDX-License-Identifier: MIT

//! One thread: its epoll instance, its clients, its sockets to every node.
//!
//! A round reads the sockets, serves the clients that can continue, sends to the nodes, then to the clients. Batches
//! are sent once per round, so that they fill up under load.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use hippos_proto::reply;
use hippos_proto::udp::{self, reply_frame, Frame, DATA_MAX};
use rustix::event::{epoll, Timespec};

use crate::answer::{Answer, Deliver, OwnedAnswer, Waiter, JOB};
use crate::bucket::Bucket;
use crate::client::{Budget, Client, Link, Lock, DATAGRAM_REPLY_MAX};
use crate::config::{self, Config};
use crate::event::{events, Context, Token};
use crate::job::Jobs;
use crate::l1::L1;
use crate::metrics::Counters;
use crate::node::Node;
use crate::numbered_list::NumberedList;
use crate::session::{Next, Session, Transport};
use crate::shared::Shared;
use crate::stream::Stream;
use crate::tls::Tls;

/// Bytes read at a time.
const READ: usize = 64 << 10;

/// The most reads of one client in a round.
const READS: usize = 4;

/// How often connections are accepted when the proxy drains, 64 at a time: more than the listeners' queues hold.
const DRAIN_ACCEPTS: usize = 64;

/// The most datagrams of clients that are in progress at a time.
const DATAGRAMS_MAX: usize = 4096;

/// The result of dispatching a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DispatchResult {
    Taken,
    /// It must not overtake an outstanding reply.
    Ordered,
    /// Its node is busy.
    Busy,
}

/// The sockets that clients connect to.
pub(crate) struct Listeners {
    pub(crate) tcp: Option<TcpListener>,
    pub(crate) tls: Option<TcpListener>,
    pub(crate) unix: Option<UnixListener>,
    pub(crate) udp: Option<UdpSocket>,
}

pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Arc<Config>,
    generation: u64,
    /// The worker's number.
    number: usize,
    pub(crate) counters: Arc<Counters>,
    epoll: OwnedFd,
    listeners: Listeners,
    pub(crate) clients: Clients,
    pub(crate) jobs: Jobs,
    pub(crate) l1: Option<L1>,
    pub(crate) nodes: Vec<Node>,
    /// The positions of the configuration's nodes in `nodes`.
    pub(crate) places: Vec<usize>,
    /// The meters' numbers and the state of the limits of the configuration's routes.
    pub(crate) meter_of: Vec<u16>,
    pub(crate) buckets: Vec<Bucket>,
    /// The meters' names.
    meters: Vec<String>,
    scratch: Vec<u8>,
    /// Clients that wait for a busy node.
    stalled: VecDeque<u32>,
    pub(crate) now: u64,
    pub(crate) unlogged: u64,
    /// Bytes wait to be sent to a node.
    pub(crate) again: bool,
    /// From this time on, connections may wait to be accepted.
    accept_at: Option<u64>,
    /// When the remaining clients are closed.
    deadline: Option<u64>,
}

/// The clients, to which answers are delivered.
pub(crate) struct Clients {
    list: NumberedList<Box<Client>>,
    /// Clients to be served in this round.
    dirty: Vec<u32>,
    /// Replies for the client that is being served.
    ready_answers: Vec<Waiter>,
    /// The client that is being served, which is not in the list meanwhile.
    served: Option<u32>,
    /// Replies for jobs.
    pub(crate) done: VecDeque<(Waiter, OwnedAnswer)>,
    generation: u32,
    datagrams: usize,
    pub(crate) budget: Budget,
}

impl Clients {
    fn add(&mut self, link: Link, session: Session) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        if matches!(link, Link::Datagram { .. }) {
            self.datagrams += 1;
        }
        let client = Client::new(link, self.generation, session);
        self.list.add(Box::new(client))
    }

    pub(crate) fn get(&mut self, index: u32) -> Option<&mut Client> {
        self.list.get_mut(index).map(Box::as_mut)
    }

    fn touch(&mut self, index: u32) {
        if let Some(client) = self.list.get_mut(index) {
            if !std::mem::replace(&mut client.listed, true) {
                self.dirty.push(index);
            }
        }
    }

    /// Removes a client from the list.
    fn remove(&mut self, index: u32) -> Option<(Link, Vec<Lock>)> {
        let mut client = self.list.remove(index)?;
        client.release(&mut self.budget);
        if matches!(client.link, Link::Datagram { .. }) {
            self.datagrams -= 1;
        }
        Some((client.link, client.locks))
    }
}

impl Deliver for Clients {
    fn deliver(&mut self, waiter: Waiter, answer: Answer<'_>) {
        if waiter.client & JOB != 0 {
            self.done.push_back((waiter, OwnedAnswer::of(answer)));
            return;
        }
        match self.list.get_mut(waiter.client) {
            Some(client) if client.generation == waiter.generation => {
                client.answered(&waiter, answer, &mut self.budget);
                self.touch(waiter.client);
            }
            Some(_) => {}
            None if self.served == Some(waiter.client) => self.ready_answers.push(waiter),
            // It has gone.
            None => {}
        }
    }
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        number: usize,
        listeners: Listeners,
        wake: impl AsFd,
    ) -> std::io::Result<Self> {
        let counters = shared.counters[number].clone();
        let config = shared.config();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, wake, Token::Wake.pack(), edge)?;
        for tcp in listeners.tcp.iter().chain(&listeners.tls) {
            epoll::add(&epoll, tcp, Token::Listener.pack(), edge)?;
        }
        if let Some(unix) = &listeners.unix {
            epoll::add(&epoll, unix, Token::Local.pack(), edge)?;
        }
        if let Some(udp) = &listeners.udp {
            epoll::add(&epoll, udp, Token::Udp.pack(), epoll::EventFlags::IN)?;
        }
        let limit = config.memory / shared.counters.len();
        let mut worker = Self {
            generation: 0,
            number,
            counters,
            epoll,
            listeners,
            clients: Clients {
                list: NumberedList::default(),
                dirty: Vec::new(),
                ready_answers: Vec::new(),
                served: None,
                done: VecDeque::new(),
                generation: 0,
                datagrams: 0,
                budget: Budget {
                    limit,
                    ..Budget::default()
                },
            },
            jobs: Jobs::default(),
            l1: None,
            nodes: Vec::new(),
            places: Vec::new(),
            meter_of: Vec::new(),
            buckets: Vec::new(),
            meters: Vec::new(),
            scratch: vec![0; READ],
            stalled: VecDeque::new(),
            now: 0,
            unlogged: 0,
            again: false,
            accept_at: Some(0),
            deadline: None,
            config: config.clone(),
            shared,
        };
        worker.take_config(config);
        Ok(worker)
    }

    /// Switches to the nodes of a configuration; existing nodes stay as they are, with all requests in flight.
    fn take_config(&mut self, config: Arc<Config>) {
        for node in &mut self.nodes {
            node.retired = true;
        }
        self.places.clear();
        for spec in &config.nodes {
            let known = self.nodes.iter().position(|node| node.spec == *spec);
            let place = known.unwrap_or_else(|| self.place_for(spec));
            self.nodes[place].retired = false;
            self.places.push(place);
        }
        let budget = &mut self.clients.budget;
        self.meter_of.clear();
        for route in &config.routes {
            let known = self.meters.iter().position(|name| *name == route.name);
            let meter = known.unwrap_or(self.meters.len());
            if known.is_none() {
                self.meters.push(route.name.clone());
                budget
                    .meters
                    .push(self.shared.routes.of(self.number, &route.name));
                budget.in_flight.push(0);
            }
            self.meter_of.push(meter as u16);
        }
        let workers = self.shared.counters.len() as u64;
        let limits = config.routes.iter().map(|route| &route.limit);
        self.buckets = limits
            .map(|limit| Bucket::new(limit, workers, self.now))
            .collect();
        // The nodes of keys may have changed.
        self.l1 = config.l1.map(L1::new);
        self.config = config;
    }

    fn new_node(&self, spec: &config::Node) -> Node {
        let meter = self.shared.node_meters.of(self.number, &spec.name);
        Node::new(spec.clone(), self.shared.health(spec), meter)
    }

    /// The time, in seconds since 1970.
    pub(crate) fn unix(&self) -> u64 {
        self.shared.unix_start + self.now / 1_000_000
    }

    fn place_for(&mut self, spec: &config::Node) -> usize {
        // Nodes that are in the new configuration keep their positions.
        let vacant =
            self.nodes.iter().enumerate().position(|(place, node)| {
                node.retired && node.idle() && !self.places.contains(&place)
            });
        match vacant {
            Some(place) if !self.config.nodes.contains(&self.nodes[place].spec) => {
                self.nodes[place].close(&mut self.clients);
                self.nodes[place] = self.new_node(spec);
                place
            }
            _ => {
                let node = self.new_node(spec);
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }

    /// Serves until the proxy ends.
    pub(crate) fn run(&mut self) -> std::io::Result<()> {
        // Otherwise the kernel adds 50 us to every window.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let mut ready = Vec::with_capacity(512);
        let mut next = None;
        loop {
            ready.clear();
            let timeout = self.timeout(next);
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut ready),
                timeout.as_ref(),
            ) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            self.now = self.shared.start.elapsed().as_micros() as u64;
            self.clients.budget.now = self.now;
            for event in &ready {
                self.event(Token::unpack(event.data), event.flags);
            }
            if self.accept_at.is_some_and(|at| at <= self.now) {
                self.accept();
            }
            self.wake_jobs();
            self.serve_touched();
            self.run_jobs();
            next = self.flush_nodes();
            // Requests that jobs send then go out in the same round.
            for _ in 0..4 {
                if self.clients.done.is_empty() {
                    break;
                }
                self.run_jobs();
                next = self.flush_nodes();
            }
            self.send_touched();
            next = [next, self.jobs.wake_at()].into_iter().flatten().min();
            if std::mem::take(&mut self.again) {
                next = Some(self.now);
            }
            if let Some(deadline) = self.deadline {
                if self.clients.datagrams == 0 {
                    self.listeners.udp = None;
                }
                if self.clients.list.is_empty() || self.now >= deadline {
                    // Releases of locks, which wait for no window.
                    self.now += self.config.window;
                    self.flush_nodes();
                    return Ok(());
                }
                next = Some(next.map_or(deadline, |next: u64| next.min(deadline)));
            }
        }
    }

    fn timeout(&self, next: Option<u64>) -> Option<Timespec> {
        let wait = if self.clients.dirty.is_empty() && self.clients.done.is_empty() {
            let next = next.into_iter().chain(self.accept_at).min()?;
            next.saturating_sub(self.shared.start.elapsed().as_micros() as u64)
        } else {
            0
        };
        Some(Timespec {
            tv_sec: (wait / 1_000_000) as i64,
            tv_nsec: (wait % 1_000_000 * 1000) as _,
        })
    }

    fn event(&mut self, token: Token, flags: epoll::EventFlags) {
        match token {
            Token::Wake => self.woken(),
            Token::Listener | Token::Local => self.accept_at = Some(self.now),
            Token::Udp => self.receive(),
            Token::Client(index) => {
                if let Some(client) = self.clients.get(index) {
                    let wrong = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
                    if flags.intersects(epoll::EventFlags::OUT | wrong) {
                        client.writable = true;
                    }
                    client.hung_up |= flags.intersects(epoll::EventFlags::RDHUP | wrong);
                    client.readable |= client.hung_up || flags.contains(epoll::EventFlags::IN);
                    if let Link::Stream(stream) = &client.link {
                        client.writable |= stream.is_tls();
                    }
                    self.clients.touch(index);
                }
            }
            Token::Text(index) => self.on_node(index, |node, context, to| {
                node.ready(context, false, flags, to);
            }),
            Token::Binary(index) => self.on_node(index, |node, context, to| {
                node.ready(context, true, flags, to);
            }),
            Token::UdpChannel(index, channel) => self.on_node(index, |node, context, to| {
                node.receive(context, channel, to);
            }),
        }
    }

    /// Calls `f` with a node and its environment.
    pub(crate) fn on_node<T>(
        &mut self,
        index: u32,
        f: impl FnOnce(&mut Node, &mut Context<'_>, &mut Clients) -> T,
    ) -> T {
        let index = index as usize;
        let mut context = Context {
            epoll: self.epoll.as_fd(),
            index,
            now: self.now,
            config: &self.config,
            counters: &self.counters,
            scratch: &mut self.scratch,
        };
        f(&mut self.nodes[index], &mut context, &mut self.clients)
    }

    fn woken(&mut self) {
        let generation = self.shared.generation.load(Relaxed);
        if generation != self.generation {
            self.generation = generation;
            self.take_config(self.shared.config());
        }
        if self.shared.draining.load(Relaxed) && self.deadline.is_none() {
            self.deadline = Some(self.now + self.config.drain);
            // These connections and datagrams have arrived already.
            for _ in 0..DRAIN_ACCEPTS {
                self.accept();
                if self.accept_at != Some(self.now) {
                    break;
                }
            }
            self.receive();
            self.accept_at = None;
            // The socket for datagrams sends the replies that are outstanding.
            if let Some(udp) = &self.listeners.udp {
                let _ = epoll::delete(&self.epoll, udp);
            }
            self.listeners = Listeners {
                tcp: None,
                tls: None,
                unix: None,
                udp: self.listeners.udp.take(),
            };
            for index in self.clients.list.numbers() {
                self.clients.touch(index);
            }
        }
    }

    /// The next connection that waits at a listener.
    fn next_stream(&self) -> std::io::Result<Stream> {
        let tcp = |listener: &Option<TcpListener>| match listener {
            Some(tcp) => tcp.accept().map(|(stream, _)| {
                let _ = stream.set_nodelay(true);
                let _ = stream.set_nonblocking(true);
                stream
            }),
            None => Err(ErrorKind::WouldBlock.into()),
        };
        match tcp(&self.listeners.tcp) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => return other.map(Stream::Tcp),
        }
        match (tcp(&self.listeners.tls), &self.config.tls) {
            (Ok(stream), Some((_, config))) => {
                return Tls::accept(config, stream).map(|tls| Stream::Tls(Box::new(tls)));
            }
            (Err(error), _) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        let Some(unix) = &self.listeners.unix else {
            return Err(ErrorKind::WouldBlock.into());
        };
        unix.accept().map(|(stream, _)| {
            let _ = stream.set_nonblocking(true);
            Stream::Unix(stream)
        })
    }

    fn accept(&mut self) {
        self.accept_at = None;
        for _ in 0..64 {
            let accepted = match self.next_stream() {
                // The TLS handshake failed at once: this connection ends here.
                Err(error) if error.kind() == ErrorKind::InvalidData => continue,
                accepted => accepted,
            };
            let mut stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    // No descriptor is free; some may be later.
                    if error.kind() != ErrorKind::WouldBlock {
                        self.accept_at = Some(self.now + 100_000);
                    }
                    return;
                }
            };
            if self.shared.connections.fetch_add(1, Relaxed) >= self.config.max_connections {
                self.shared.connections.fetch_sub(1, Relaxed);
                self.counters.rejected_connections.add(1);
                let _ = stream.write(b"ERROR Too many open connections\r\n");
                continue;
            }
            self.counters.curr_connections.add(1);
            self.counters.total_connections.add(1);
            let session = Session::new(Transport::Stream, self.config.value_max);
            let index = self.clients.add(Link::Stream(stream), session);
            let added = match self.clients.get(index).map(|client| &client.link) {
                Some(Link::Stream(stream)) => {
                    epoll::add(&self.epoll, stream, Token::Client(index).pack(), events()).is_ok()
                }
                _ => false,
            };
            if added {
                self.clients.touch(index);
            } else {
                self.remove(index);
            }
        }
        // More connections may wait; the clients are served first.
        self.accept_at = Some(self.now);
    }

    fn remove(&mut self, index: u32) {
        let Some((link, locks)) = self.clients.remove(index) else {
            return;
        };
        for lock in locks {
            self.give_back(lock);
        }
        if let Link::Stream(_) = link {
            self.shared.connections.fetch_sub(1, Relaxed);
            self.counters.curr_connections.decrease();
        }
    }

    /// Receives datagrams of clients.
    fn receive(&mut self) {
        for _ in 0..64 {
            let Some(udp) = &self.listeners.udp else {
                return;
            };
            let (len, peer) = match udp.recv_from(&mut self.scratch) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            self.counters.udp_requests.add(1);
            let own = self.config.udp.map_or(0, |address| address.port());
            let frame = Frame::parse(&self.scratch[..len]);
            let frame = frame.filter(|(frame, data)| frame.total == 1 && !udp::is_reply(data));
            let allowed = udp::may_answer_port(peer.port(), own)
                && self
                    .config
                    .allow
                    .iter()
                    .any(|network| network.contains(peer.ip()));
            let (Some((frame, data)), true) =
                (frame, allowed && self.clients.datagrams < DATAGRAMS_MAX)
            else {
                self.counters.udp_refused.add(1);
                continue;
            };
            let input = data.to_vec();
            let id = frame.id;
            let session = Session::new(Transport::Datagram, self.config.value_max);
            let index = self.clients.add(Link::Datagram { peer, id }, session);
            if let Some(client) = self.clients.get(index) {
                client.input = input;
                client.ended = true;
                client.readable = false;
            }
            self.clients.touch(index);
        }
    }

    /// Serves the clients that can continue.
    fn serve_touched(&mut self) {
        for _ in 0..self.stalled.len().min(256) {
            let Some(index) = self.stalled.pop_front() else {
                break;
            };
            if let Some(client) = self.clients.get(index) {
                client.stalled = false;
            }
            self.clients.touch(index);
        }
        let mut at = 0;
        while let Some(&index) = self.clients.dirty.get(at) {
            at += 1;
            self.serve(index);
        }
    }

    fn serve(&mut self, index: u32) {
        let Some(mut client) = self.clients.list.take(index) else {
            return;
        };
        self.clients.served = Some(index);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut reads = 0;
        let mut needs_input = client.input.is_empty() || self.parse_own(index, &mut client);
        // If many clients are stalled, each may hold little memory.
        let most = if self.stalled.len() > 64 { 2048 } else { READ };
        while needs_input && client.readable && !client.closing && reads < READS {
            let Link::Stream(stream) = &mut client.link else {
                break;
            };
            reads += 1;
            let read = stream.read(&mut scratch[..most]);
            if let Ok(len) = read {
                // More bytes, or the end, have an event of their own.
                client.readable = client.hung_up || !stream.is_drained(len, most);
            }
            match read {
                Ok(0) => {
                    client.ended = true;
                    client.readable = false;
                }
                Ok(len) if client.input.is_empty() => {
                    let (taken, more) = self.parse(index, &mut client, &scratch[..len]);
                    needs_input = more;
                    client.input.extend_from_slice(&scratch[taken..len]);
                }
                Ok(len) => {
                    client.input.extend_from_slice(&scratch[..len]);
                    needs_input = self.parse_own(index, &mut client);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => client.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    client.readable = false;
                    client.closing = true;
                    client.broken = true;
                }
            }
        }
        if needs_input && client.ended {
            client.closing = true;
        }
        if client.input.is_empty() && client.input.capacity() > 0 {
            client.input = Vec::new();
        }
        client.account(&mut self.clients.budget);
        // A client that sends more than can be held is closed.
        let budget = &self.clients.budget;
        if client.input.capacity() > READ && budget.held > budget.limit {
            client.closing = true;
            client.input = Vec::new();
        }
        self.scratch = scratch;
        self.clients.list.put_back(index, client);
        self.clients.served = None;
        for waiter in std::mem::take(&mut self.clients.ready_answers) {
            self.clients.deliver(waiter, Answer::Unavailable);
        }
    }

    /// Serves the commands in the client's input buffer. `true` if more input is needed.
    fn parse_own(&mut self, index: u32, client: &mut Client) -> bool {
        let mut input = std::mem::take(&mut client.input);
        let (taken, more) = self.parse(index, client, &input);
        input.drain(..taken);
        client.input = input;
        more
    }

    /// Serves the commands in `input`: returns how many bytes they had, and whether more input is needed.
    fn parse(&mut self, index: u32, client: &mut Client, input: &[u8]) -> (usize, bool) {
        let mut at = 0;
        client.full = false;
        client.ordered = false;
        client.retry = false;
        while !client.closing {
            if client.is_full() {
                client.full = true;
                return (at, false);
            }
            if client.is_too_large() {
                client.closing = true;
                break;
            }
            let before = client.session.clone();
            match client.session.next(&input[at..]) {
                Next::More(_) => return (at, true),
                Next::Took(n, None) => at += n,
                Next::Took(n, Some(command)) => {
                    let flow = self.dispatch(index, client, command);
                    if flow != DispatchResult::Taken {
                        client.session = before;
                        client.ordered = flow == DispatchResult::Ordered;
                        if flow == DispatchResult::Busy
                            && !std::mem::replace(&mut client.stalled, true)
                        {
                            self.stalled.push_back(index);
                        }
                        return (at, false);
                    }
                    at += n;
                }
            }
        }
        (input.len(), false)
    }

    /// Sends waiting bytes to the nodes; returns when to call it again.
    fn flush_nodes(&mut self) -> Option<u64> {
        let mut next: Option<u64> = None;
        for index in 0..self.nodes.len() as u32 {
            let (flush, tick) = self.on_node(index, |node, context, to| {
                let flush = node.flush_due(context, to);
                (flush, node.tick(context, to))
            });
            for time in [flush, tick].into_iter().flatten() {
                next = Some(next.map_or(time, |next| next.min(time)));
            }
            let node = &mut self.nodes[index as usize];
            if node.retired && node.idle() {
                node.close(&mut self.clients);
            }
        }
        next
    }

    /// Sends waiting bytes to the clients of this round.
    fn send_touched(&mut self) {
        let mut again = Vec::new();
        for index in std::mem::take(&mut self.clients.dirty) {
            let Some(client) = self.clients.list.get_mut(index) else {
                continue;
            };
            client.listed = false;
            let over = match client.link {
                Link::Stream(_) => !client.send(&mut self.clients.budget),
                Link::Datagram { peer, id } => {
                    let done = client.closing && !client.waits();
                    if let (true, Some(udp)) = (done, &self.listeners.udp) {
                        reply_to(udp, peer, id, client);
                    }
                    done
                }
            };
            let quiet = !client.waits() && client.all_sent();
            let drained =
                self.deadline.is_some() && quiet && client.input.is_empty() && !client.readable;
            if over || drained || client.closing && quiet {
                self.remove(index);
                continue;
            }
            let freed = client.full && !client.is_full();
            let more = client.readable && !client.full && !client.stalled && !client.closing;
            // A command that must not overtake another is retried when it can be sent.
            let held = client.ordered && !client.input.is_empty();
            // The answers of jobs arrive after the clients have been served.
            if freed || client.retry || more && !held {
                again.push(index);
            }
        }
        for index in again {
            self.clients.touch(index);
        }
    }
}

impl Client {
    /// Sends waiting bytes; `false` when the connection has ended.
    fn send(&mut self, budget: &mut Budget) -> bool {
        if self.broken {
            return false;
        }
        if let (Link::Stream(stream), true) = (&mut self.link, self.writable) {
            match stream.push() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(_) => return false,
                Ok(()) => {}
            }
        }
        while self.writable && !self.unsent().is_empty() {
            let Link::Stream(stream) = &mut self.link else {
                break;
            };
            match stream.write(&self.output[self.sent..]) {
                Ok(0) => return false,
                Ok(n) => self.advance(n, budget),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Sends the reply to a datagram.
fn reply_to(udp: &UdpSocket, peer: SocketAddr, id: u16, client: &Client) {
    let mut message = client.unsent();
    if message.len() > DATAGRAM_REPLY_MAX {
        message = reply::UDP_TOO_LARGE;
    }
    if message.is_empty() {
        if client.session.quit_requested() {
            let _ = udp.send_to(&reply_frame(id, 0, 0), peer);
        }
        return;
    }
    let total = message.len().div_ceil(DATA_MAX) as u16;
    for (sequence, part) in (0..total).zip(message.chunks(DATA_MAX)) {
        let datagram = [&reply_frame(id, sequence, total)[..], part].concat();
        let _ = udp.send_to(&datagram, peer);
    }
}
