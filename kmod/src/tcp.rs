// SPDX-License-Identifier: GPL-2.0-only
//! TCP: one worker a CPU with a listener of its own, and the connections that this listener accepted.
//!
//! A connection's turn is in `engine/src/connection`, whose contract this file keeps. A worker owns one input buffer
//! and one set of pages for all its connections.

use core::ffi::CStr;
use core::net::SocketAddr;

use kernel::alloc::flags::__GFP_NOWARN;
use kernel::alloc::{Allocator, Flags, Vec};
use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_engine::connection::{
    self, Action, Answered, Broken, Connection, HeldBytes, NoMemory, Pages, Peek,
};
use hippos_engine::{
    Access, CloseReason, Engine, EngineCounter, Interval, RefusalCounter, Session, Summary,
    Transport,
};
use hippos_invariant::{invariant, Exact};
use hippos_kapi::cpu;
use hippos_kapi::poll::{Poll, Ready, Serve};
use hippos_kapi::registry::Registration;
use hippos_kapi::socket::{Socket, SocketAddresses};
use hippos_kapi::stream::{LockedStream, ReceivedBytes, ReplyPages, SocketStream, SoftirqPages};
use hippos_kapi::thread::{Context, Started};
use hippos_kapi::{latency, trace};

use crate::buffer::ReplyOut;
use crate::platform::Kernel;
use crate::refusal::refused;
use crate::server::{Activity, ConnectionPermit, Server, SocketKind, SocketRecord, CONNECTIONS};
use crate::steer::WorkerCpu;
use crate::traced::{Replied, TracedRequest, TCP_CALLBACK, TCP_WORKER};

/// Bytes of a worker's buffer for commands that arrive in pieces.
const INPUT: usize = 64 << 10;

/// How long a turn may take, in ticks of the kernel's clock (1 to 10 ms each): some commands copy a
/// large value, or wait for memory.
const TURN_TICKS: u32 = 2;

/// Sockets that are served before the worker resumes parked connections.
const READY_BATCH: usize = 64;

/// How long connections that need memory stay parked, in milliseconds.
const PARK_MS: u32 = 1;

/// How often connections with a stalled value are checked, in milliseconds.
const DEADLINE_CHECK_MS: u32 = 1000;

/// The wait before accepting again after a failure, most likely by lack of memory. Milliseconds.
const ACCEPT_BACKOFF_MS: u32 = 2;

/// The arguments of a worker's thread.
pub(crate) struct TcpWorker {
    server: Arc<Server>,
    listener: Socket,
    input: KVVec<u8>,
    pages: ReplyPages,
    worker_cpu: WorkerCpu,
}

impl TcpWorker {
    pub(crate) fn new(server: Arc<Server>, listener: Socket, cpu: u32) -> Result<Self> {
        Ok(Self {
            server,
            listener,
            input: KVVec::from_elem(0, INPUT, GFP_KERNEL)?,
            pages: ReplyPages::new()?,
            worker_cpu: WorkerCpu::new(cpu),
        })
    }

    /// The worker's main loop, on its own thread.
    pub(crate) fn run(mut self, context: &Context, started: Started) {
        let server = &*self.server;
        let Ok(mut poll) = Poll::new(context) else {
            return;
        };
        if poll.add(self.listener).is_err() {
            return;
        }
        // Registered as long as the worker lives.
        let Ok(_record) =
            server.register_socket(SocketKind::Listener, &SocketAddresses::default(), None)
        else {
            return;
        };
        started.ready();
        let mut looked = 0;
        while !context.should_stop() {
            poll.wait(match (poll.has_parked(), poll.has_deadlines()) {
                (true, _) => Some(PARK_MS),
                (false, true) => Some(DEADLINE_CHECK_MS),
                (false, false) => None,
            });
            poll.unpark();
            let now = CONNECTIONS.uptime();
            if now != looked {
                looked = now;
                poll.expire(now);
            }
            self.worker_cpu.migrate(context);
            for _ in 0..READY_BATCH {
                let Some(mut ready) = poll.pop() else {
                    break;
                };
                if context.should_stop() {
                    break;
                }
                match turn(server, &mut ready, &mut self.input, &mut self.pages, now) {
                    Some(Action::Wait) => {}
                    Some(Action::Park) => ready.park(),
                    Some(Action::Again) => ready.again(),
                    Some(Action::Close) => ready.close(),
                    None => {
                        if let Some(socket) = accept(context, ready) {
                            admit(server, &mut poll, socket);
                        }
                    }
                }
                cpu::resched();
            }
        }
    }
}

/// A turn of a ready connection, at this uptime in seconds; `None` for a listener.
#[inline]
fn turn<'e>(
    server: &'e Server,
    ready: &mut Ready<'_, Client<'e>>,
    input: &mut [u8],
    pages: &mut ReplyPages,
    now: u32,
) -> Option<Action> {
    let timed = latency::begin();
    let queued = timed.and_then(|_| ready.queued());
    let (action, deadline) = ready.connection(|stream, client: &mut Client<'e>| {
        let mut traced = TracedTurn::begin(TCP_WORKER, stream, client);
        if timed.is_some() {
            client.connection.take_served();
        }
        let began = cpu::ticks();
        let over = || cpu::ticks().wrapping_sub(began) >= TURN_TICKS;
        let connection = &mut client.connection;
        let watched = connection.is_watching();
        let replied = traced.as_mut().map(|turn| &mut turn.replied);
        let stream = &mut SessionStream { stream, replied };
        let action = connection.turn(stream, input, &mut WorkerPages(pages), over);
        if timed.is_some() || traced.is_some() {
            let served = connection.take_served();
            if let Some(timed) = timed {
                note_turn(&server.engine, timed.elapsed(), queued, served);
            }
            if let Some(turn) = traced {
                turn.end(served);
            }
        }
        // Input of a watching client is ignored.
        if !watched {
            client.record.value().served(if connection.is_watching() {
                Activity::Watch
            } else if connection.has_unsent() {
                Activity::Send
            } else {
                Activity::Read
            });
        }
        if action == Action::Close {
            client.end.reason = connection.close_reason();
        }
        let timeout = server.config.params.upload_timeout;
        let deadline = connection.deadline(CONNECTIONS.uptime(), timeout);
        if deadline.is_some_and(|at| at <= now) {
            server.engine.tally(EngineCounter::UploadsTimedOut, 1);
            client.end.reason = CloseReason::IdleTimeout;
            refused(TCP_WORKER, c"timeout", client.end.peer);
            return (Action::Close, None);
        }
        (action, deadline)
    })?;
    ready.set_deadline(deadline);
    Some(action)
}

/// Accepts a connection of a ready listener.
fn accept(context: &Context, ready: Ready<'_, Client<'_>>) -> Option<Socket> {
    match ready.socket()?.accept() {
        Ok(socket) => {
            ready.again();
            Some(socket)
        }
        Err(error) if error == EAGAIN => None,
        Err(_) => {
            ready.again();
            context.sleep(ACCEPT_BACKOFF_MS);
            None
        }
    }
}

/// Records the time of a turn and its queue time, for each of its commands.
#[cold]
fn note_turn(engine: &Engine<Kernel>, ns: u64, queued: Option<u64>, commands: u32) {
    if commands == 0 {
        return;
    }
    engine.note_time(Interval::TcpWorkerService, ns, commands);
    if let Some(queued) = queued {
        engine.note_time(Interval::TcpWorkerQueue, queued, commands);
    }
}

/// A turn of a connection, or a call of its callback, that is traced.
struct TracedTurn {
    request: TracedRequest,
    replied: Replied,
    began: latency::Moment,
}

impl TracedTurn {
    /// While requests are traced. The lines that a watcher gets are no reply.
    #[inline(always)]
    fn begin(
        path: &'static CStr,
        stream: &SocketStream<'_>,
        client: &mut Client<'_>,
    ) -> Option<Self> {
        if !trace::requests_on() || client.connection.is_watching() {
            return None;
        }
        Some(Self::new(path, stream, client))
    }

    #[cold]
    #[inline(never)]
    fn new(path: &'static CStr, stream: &SocketStream<'_>, client: &mut Client<'_>) -> Self {
        let connection = &mut client.connection;
        connection.take_served();
        let summary = match stream.peek() {
            ReceivedBytes::Bytes(bytes) if connection.awaits_command() => Summary::of(bytes),
            // Bytes of a value, for example, which must not be read as a command.
            _ => Summary::of_data(connection.receiving_key()),
        };
        Self {
            request: TracedRequest::new(path, client.end.peer, summary),
            replied: Replied::default(),
            began: latency::now(),
        }
    }

    /// Traces it, if anything was served: so many commands, or the rest of one.
    #[cold]
    #[inline(never)]
    fn end(self, served: u32) {
        if served != 0 || self.replied.bytes() != 0 {
            let ns = self.began.elapsed();
            self.request.trace(&self.replied, served, ns);
        }
    }
}

fn admit<'e>(server: &'e Server, poll: &mut Poll<Client<'e>>, socket: Socket) {
    let ends = socket.ends();
    let engine = &*server.engine;
    let access = engine.access(&engine.store.read(), ends.peer_ip(), ends.is_local());
    if access == Access::Refused {
        engine.count_refused(RefusalCounter::TcpSources);
        refused(TCP_WORKER, c"source", ends.peer_address());
        return;
    }
    let Some(permit) = server.acquire_connection() else {
        refused(TCP_WORKER, c"connections", ends.peer_address());
        // Best effort: bytes that the socket does not accept are dropped.
        let mut locked = LockedStream::new(&socket);
        let _ = locked.stream().send(b"ERROR Too many open connections\r\n");
        return;
    };
    // Without memory for a record the connection is closed.
    let Ok(record) = server.register_socket(SocketKind::Connection, &ends, socket.connection())
    else {
        return;
    };
    let mut session = Session::new(engine, Transport::Tcp).with_parking();
    session.set_local(ends.is_local());
    let (number, peer) = (record.value().id(), record.value().peer());
    session.set_number(number);
    engine.connected(number, &peer);
    let client = Client {
        connection: Connection::new(session),
        end: End {
            engine,
            number,
            peer,
            reason: CloseReason::Shutdown,
        },
        record,
        _permit: permit,
    };
    let _ = poll.add_connection(socket, client);
}

/// Used only by the holder of the socket's lock: the worker in its turn, or a callback in softirq.
struct Client<'e> {
    connection: Connection<'e, Kernel, Input, Output>,
    end: End<'e>,
    record: Registration<SocketRecord>,
    _permit: ConnectionPermit,
}

/// Reports a connection's end to watchers when it is dropped.
struct End<'e> {
    engine: &'e Engine<Kernel>,
    number: u32,
    peer: SocketAddr,
    reason: CloseReason,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.engine
            .disconnected(self.number, &self.peer, self.reason);
    }
}

impl Serve for Client<'_> {
    fn serve(&mut self, stream: &mut SocketStream<'_>, pages: SoftirqPages<'_>) -> bool {
        let open = || pages.open().map(ReplyOut);
        let mut traced = TracedTurn::begin(TCP_CALLBACK, stream, self);
        let timed = latency::begin();
        if timed.is_some() {
            self.connection.take_served();
        }
        let replied = traced.as_mut().map(|turn| &mut turn.replied);
        let stream = &mut SessionStream { stream, replied };
        let quick = self.connection.serve_softirq(stream, open);
        if quick != Answered::None {
            self.record.value().served(Activity::Read);
        }
        if timed.is_some() || traced.is_some() {
            let served = self.connection.take_served();
            if let Some(timed) = timed.filter(|_| served != 0) {
                let (engine, ns) = (self.end.engine, timed.elapsed());
                engine.note_time(Interval::TcpCallbackService, ns, served);
            }
            if let Some(turn) = traced {
                turn.end(served);
            }
        }
        quick == Answered::All
    }
}

/// A locked socket as the engine's stream.
struct SessionStream<'s, 'a> {
    stream: &'s mut SocketStream<'a>,
    /// The traced properties of replies, while requests are traced.
    replied: Option<&'s mut Replied>,
}

impl connection::Stream for SessionStream<'_, '_> {
    type Reply<'r> = ReplyOut<'r>;

    #[inline(always)]
    fn peek(&self) -> Peek<'_> {
        match self.stream.peek() {
            ReceivedBytes::Bytes(bytes) => Peek::Bytes(bytes),
            ReceivedBytes::Scattered => Peek::Scattered,
            ReceivedBytes::Nothing => Peek::Nothing,
            ReceivedBytes::End => Peek::End,
        }
    }

    #[inline]
    fn copy(&self, to: &mut [u8]) -> usize {
        self.stream.copy(to)
    }

    #[inline]
    fn consume(&mut self, len: usize) {
        self.stream.consume(len);
    }

    #[inline]
    fn takes(&self) -> bool {
        self.stream.takes()
    }

    #[inline]
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        self.stream.send(bytes).map_err(|_| Broken)
    }

    #[inline(always)]
    fn reply<'r>(&mut self, reply: Self::Reply<'r>, more: bool) -> Result<&'r [u8], Broken> {
        if trace::requests_on() {
            if let Some(replied) = &mut self.replied {
                replied.note(reply.0.bytes());
            }
        }
        self.stream.reply(reply.0, more).map_err(|_| Broken)
    }
}

/// The worker's pages.
struct WorkerPages<'w>(&'w mut ReplyPages);

impl<'s, 'a> Pages<SessionStream<'s, 'a>> for WorkerPages<'_> {
    #[inline]
    fn open(&mut self) -> Option<ReplyOut<'_>> {
        self.0.open().map(ReplyOut)
    }
}

/// Input that a connection holds: up to [`INPUT`] bytes.
#[derive(Default)]
struct Input(KVVec<u8>);

/// Output that a connection holds: at most a reply's pages, and never `vmalloc`'s, since a callback
/// may add to it.
#[derive(Default)]
struct Output(KVec<u8>);

impl HeldBytes for Input {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        append(&mut self.0, bytes, GFP_KERNEL)
    }

    /// A callback consumes only whole commands.
    fn append_atomic(&mut self, _bytes: &[u8]) -> Result<(), NoMemory> {
        Err(NoMemory)
    }

    fn discard(&mut self, len: usize) {
        discard(&mut self.0, len);
    }
}

impl HeldBytes for Output {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        append(&mut self.0, bytes, GFP_KERNEL)
    }

    fn append_atomic(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        append(&mut self.0, bytes, GFP_ATOMIC | __GFP_NOWARN)
    }

    fn discard(&mut self, len: usize) {
        discard(&mut self.0, len);
    }
}

fn append<A: Allocator>(to: &mut Vec<u8, A>, bytes: &[u8], flags: Flags) -> Result<(), NoMemory> {
    to.extend_from_slice(bytes, flags).map_err(|_| NoMemory)
}

fn discard<A: Allocator>(from: &mut Vec<u8, A>, len: usize) {
    invariant!(len <= from.len(), "{len} bytes discarded of {}", from.len());
    let len = len.min(from.len());
    let left = from.len().sub_exact(len);
    from.copy_within(len.., 0);
    from.truncate(left);
}
