// SPDX-License-Identifier: GPL-2.0-only
//! A server without a store: it answers any GET with the correct value, which it derives from the key, so that the load
//! generator can be measured alone. With [`Contents::Kept`] it does store values, and [`Faults`] make it misbehave, for
//! the generator's own tests.

mod packets;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Protocol, Socket, Type};

use crate::binary;
use crate::mmsg::{self, RecvBatch, SendBatch, BATCH};
use crate::payload;
use crate::wire::{Frame, FRAME};
use crate::workload::Model;

/// Bytes of a reply that fit into one datagram.
const REPLY_DATA_MAX: usize = 1400 - FRAME;
/// Replies that are made before they are sent.
const REPLIES: usize = 8 * BATCH;
/// The version that the server reports.
const VERSION: &str = concat!("hippos-load-echo-", env!("CARGO_PKG_VERSION"));
/// How often a waiting thread checks whether it should stop.
const TIMEOUT: Duration = Duration::from_millis(50);

/// The values with which the server answers GETs.
#[derive(Debug)]
pub enum Contents {
    /// The values of a workload's keys; other keys miss.
    Model(Box<Model>),
    /// A value of this length for any key.
    Any(usize),
    /// Stored values: flags and value by key.
    Kept(Mutex<Store>),
}

/// Flags and value by key.
pub type Store = HashMap<Vec<u8>, (u32, Vec<u8>)>;

/// Faults, each at every n-th GET or request; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Faults {
    /// A bit of the value is flipped.
    pub corrupt: u64,
    /// UDP requests are dropped.
    pub drop: u64,
    /// The first datagram of a reply of several is dropped.
    pub tear: u64,
    /// SETs are acknowledged, but not stored.
    pub forget: u64,
    /// GETs are answered with SERVER_ERROR.
    pub refuse: u64,
    /// The connection is closed at this request.
    pub close: u64,
    /// Replies over UDP are delayed by this time (all of them).
    pub delay: Duration,
    /// The server pauses for this time, once, at its request number `stall_at`.
    pub stall: Duration,
    pub stall_at: u64,
    /// Requests are answered with a long line that is not a reply.
    pub garbage: bool,
    /// Multi-key GETs over UDP get one message per hit, preceded by an empty one if the first key misses, as in
    /// memcached.
    pub message_per_hit: bool,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    answered: Arc<AtomicU64>,
}

struct Server {
    gso: bool,
    contents: Contents,
    faults: Faults,
    stop: Arc<AtomicBool>,
    gets: AtomicU64,
    sets: AtomicU64,
    requests: AtomicU64,
    /// The number of requests until it pauses, and the end of the pause.
    before_stall: AtomicU64,
    stalled: Mutex<Option<Instant>>,
    answered: Arc<AtomicU64>,
}

impl Echo {
    /// Starts a server, TCP and UDP on one port, with `threads` threads for UDP (with `gso`, datagrams are received and
    /// sent as [`crate::settings::Settings::gso`] describes).
    pub fn start(
        address: SocketAddr,
        threads: usize,
        gso: bool,
        contents: Contents,
        faults: Faults,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on TCP {address}"))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let server = Arc::new(Server {
            gso,
            contents,
            faults,
            stop: stop.clone(),
            gets: AtomicU64::new(0),
            sets: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            before_stall: AtomicU64::new(0),
            stalled: Mutex::new(None),
            answered: answered.clone(),
        });
        let mut handles = Vec::new();
        for _ in 0..threads {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::DGRAM,
                Some(Protocol::UDP),
            )?;
            socket.set_reuse_port(true)?;
            if gso {
                mmsg::enable_gro(&socket)?;
            }
            socket.set_recv_buffer_size(8 << 20)?;
            socket.set_send_buffer_size(8 << 20)?;
            socket
                .bind(&address.into())
                .with_context(|| format!("cannot listen on UDP {address}"))?;
            let server = server.clone();
            handles.push(std::thread::spawn(move || server.serve_udp(&socket)));
        }
        handles.push(std::thread::spawn(move || server.serve_tcp(&listener)));
        Ok(Self {
            address,
            stop,
            threads: handles,
            answered,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A server thread that panicked has reported it already.
            let _ = thread.join();
        }
    }
}

/// The result of handling the input.
enum Taken {
    /// A request of this many bytes was answered.
    Answered(usize),
    /// More bytes are needed.
    More,
    /// The request is unknown.
    Close,
}

impl Server {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Pauses, if a pause is due.
    fn stall(&self) {
        if self.faults.stall.is_zero() {
            return;
        }
        if self.before_stall.fetch_add(1, Ordering::Relaxed) + 1 == self.faults.stall_at {
            if let Ok(mut until) = self.stalled.lock() {
                *until = Instant::now().checked_add(self.faults.stall);
            }
        }
        let until = self.stalled.lock().ok().and_then(|until| *until);
        if let Some(until) = until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    fn serve_udp(&self, socket: &Socket) {
        let mut recv_batch: RecvBatch<SockaddrStorage> = RecvBatch::new(self.gso);
        let mut send_batch = SendBatch::addressed(self.gso);
        let mut replies = Replies::default();
        let mut answer = Answer::default();
        while !self.stopped() {
            let fd = socket.as_raw_fd();
            let received = match recv_batch.receive(fd) {
                Ok(received) => received,
                // The kernel reports a client that has gone; the others stay.
                Err(Errno::ECONNREFUSED) => continue,
                Err(errno) => panic!("UDP receive: {errno}"),
            };
            if received == 0 {
                let timeout = PollTimeout::try_from(TIMEOUT).unwrap_or(PollTimeout::ZERO);
                let _ = poll(
                    &mut [PollFd::new(
                        std::os::fd::AsFd::as_fd(socket),
                        PollFlags::POLLIN,
                    )],
                    timeout,
                );
                continue;
            }
            if !self.faults.delay.is_zero() {
                std::thread::sleep(self.faults.delay);
            }
            for (datagram, from) in recv_batch.datagrams() {
                let Some((frame, body)) =
                    Frame::split(datagram).filter(|(frame, _)| frame.total == 1)
                else {
                    continue;
                };
                if every(self.faults.drop, &self.requests) {
                    continue;
                }
                answer.clear();
                let mut rest = body;
                while let Taken::Answered(len) = self.answer(rest, &mut answer) {
                    rest = &rest[len..];
                }
                if self.faults.message_per_hit && answer.first_misses {
                    let empty = Frame {
                        id: frame.id,
                        sequence: 0,
                        total: 0,
                    };
                    replies.push(empty, &[], from);
                }
                let whole = [0, answer.bytes.len()];
                let ends = if self.faults.message_per_hit {
                    &answer.ends[..]
                } else {
                    &whole[1..]
                };
                let mut start = 0;
                for end in ends {
                    let message = &answer.bytes[start..*end];
                    start = *end;
                    let total = message.len().div_ceil(REPLY_DATA_MAX);
                    let torn = total > 1 && every(self.faults.tear, &self.gets);
                    for (sequence, body) in message.chunks(REPLY_DATA_MAX).enumerate() {
                        if torn && sequence == 0 {
                            continue;
                        }
                        replies.push(
                            Frame {
                                id: frame.id,
                                sequence: sequence as u16,
                                total: total as u16,
                            },
                            body,
                            from,
                        );
                        if replies.used == REPLIES {
                            replies.flush(&mut send_batch, fd);
                        }
                    }
                }
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            replies.flush(&mut send_batch, fd);
        }
    }

    fn serve_tcp(self: &Arc<Self>, listener: &TcpListener) {
        let mut threads = Vec::new();
        while !self.stopped() {
            match listener.accept() {
                Ok((stream, _)) => {
                    let server = self.clone();
                    threads.push(std::thread::spawn(move || server.serve_connection(stream)));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(2))
                }
                Err(e) => panic!("TCP accept: {e}"),
            }
        }
        for thread in threads {
            let _ = thread.join();
        }
    }

    fn serve_connection(&self, mut stream: TcpStream) {
        let ready = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(TIMEOUT)));
        if ready.is_err() {
            return;
        }
        let mut input = Vec::new();
        let mut chunk = vec![0; 256 << 10];
        let mut answer = Answer::default();
        while !self.stopped() {
            match stream.read(&mut chunk) {
                Ok(0) => return,
                Ok(n) => input.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    continue
                }
                Err(_) => return,
            }
            answer.clear();
            let mut taken = 0;
            loop {
                match self.answer(&input[taken..], &mut answer) {
                    Taken::Answered(len) => taken += len,
                    Taken::More => break,
                    Taken::Close => return,
                }
                self.answered.fetch_add(1, Ordering::Relaxed);
                if every(self.faults.close, &self.requests) {
                    return;
                }
            }
            input.drain(..taken);
            if stream.write_all(&answer.bytes).is_err() {
                return;
            }
        }
    }

    /// Answers the first request of the input.
    fn answer(&self, input: &[u8], out: &mut Answer) -> Taken {
        if input.first() == Some(&binary::REQUEST) {
            return self.packet(input, out);
        }
        let Some(end) = memchr::memchr(b'\n', input) else {
            return Taken::More;
        };
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        let mut words = line.split(|b| *b == b' ').filter(|word| !word.is_empty());
        let verb = words.next().unwrap_or_default();
        let meta = verb.len() == 2 && verb.starts_with(b"m");
        let mut length = end + 1;
        if verb != b"version" {
            self.stall();
            if self.faults.garbage {
                out.line(&[b'?'; 2000]);
                return Taken::Answered(length);
            }
        }
        match verb {
            b"get" | b"gets" if every(self.faults.refuse, &self.gets) => {
                out.line(b"SERVER_ERROR refused")
            }
            b"get" | b"gets" | b"gat" => {
                if verb == b"gat" {
                    words.next();
                }
                for (at, key) in words.enumerate() {
                    let hit = self.value(key, |flags, value| {
                        out.parts(&[
                            b"VALUE ",
                            key,
                            format!(" {flags} {}", value.len()).as_bytes(),
                        ]);
                        out.parts(&[
                            if verb == b"gets" { b" 1\r\n" } else { b"\r\n" },
                            value,
                            b"\r\n",
                        ]);
                        out.ends.push(out.bytes.len());
                    });
                    out.first_misses |= at == 0 && !hit;
                }
                out.ends.pop();
                out.line(b"END");
            }
            b"mg" => {
                let key = words.next().unwrap_or_default();
                let (mut wanted, mut cas) = (false, "");
                for word in words {
                    wanted |= word == b"v";
                    if word == b"c" {
                        cas = " c1";
                    }
                }
                let hit = self.value(key, |flags, value| {
                    if wanted {
                        out.parts(&[format!("VA {} k", value.len()).as_bytes(), key]);
                        out.parts(&[format!(" f{flags}{cas}\r\n").as_bytes(), value, b"\r\n"]);
                        out.ends.push(out.bytes.len());
                    } else {
                        out.line(b"HD");
                    }
                });
                if !hit {
                    out.line(b"EN");
                }
            }
            b"incr" => {
                let key = words.next().unwrap_or_default();
                match self.count(key) {
                    Some(n) => out.line(n.to_string().as_bytes()),
                    None => out.line(b"NOT_FOUND"),
                }
            }
            b"ma" => out.line(b"HD"),
            b"set" | b"add" | b"replace" | b"append" | b"cas" | b"ms" => {
                let key = words.next().unwrap_or_default();
                let number =
                    |word: Option<&[u8]>| std::str::from_utf8(word?).ok()?.parse::<usize>().ok();
                let (flags, len) = if meta {
                    let len = number(words.next());
                    let flags = words.find_map(|word| number(Some(word.strip_prefix(b"F")?)));
                    (flags, len)
                } else {
                    let flags = number(words.next());
                    (flags, number(words.nth(1)))
                };
                let (Some(flags), Some(len)) = (flags, len) else {
                    return Taken::Close;
                };
                let Some(value) = input.get(length..length + len + 2) else {
                    return Taken::More;
                };
                length += len + 2;
                let stored = self.store(verb, key, flags as u32, &value[..len]);
                out.line(match (stored, meta) {
                    (true, false) => b"STORED",
                    (true, true) => b"HD",
                    (false, false) => b"NOT_STORED",
                    (false, true) => b"NS",
                });
            }
            b"delete" | b"md" => {
                let key = words.next().unwrap_or_default();
                let found = match &self.contents {
                    Contents::Kept(store) => store
                        .lock()
                        .is_ok_and(|mut store| store.remove(key).is_some()),
                    _ => true,
                };
                out.line(match (found, meta) {
                    (true, false) => b"DELETED",
                    (true, true) => b"HD",
                    (false, false) => b"NOT_FOUND",
                    (false, true) => b"NF",
                });
            }
            b"touch" => {
                let hit = self.value(words.next().unwrap_or_default(), |_, _| {});
                out.line(if hit { b"TOUCHED" } else { b"NOT_FOUND" });
            }
            b"version" => out.line(format!("VERSION {VERSION}").as_bytes()),
            _ => out.line(b"ERROR"),
        }
        Taken::Answered(length)
    }

    /// Passes the value of a key to `hit`, if there is one.
    fn value(&self, key: &[u8], hit: impl FnOnce(u32, &[u8])) -> bool {
        let hash = payload::hash(key);
        let derived = |len: usize| {
            let mut value = vec![0; len];
            payload::fill(&mut value, hash, payload::NEWEST);
            (payload::flags(hash), value)
        };
        let found = match &self.contents {
            Contents::Model(model) => model
                .find(key)
                .map(|id| derived(model.value_len(id) as usize)),
            Contents::Any(len) => Some(derived(*len)),
            Contents::Kept(store) => store.lock().ok().and_then(|store| store.get(key).cloned()),
        };
        let Some((flags, mut value)) = found else {
            return false;
        };
        if every(self.faults.corrupt, &self.gets) {
            if let Some(last) = value.last_mut() {
                *last ^= 1;
            }
        }
        hit(flags, &value);
        true
    }

    /// Adds one to a counter.
    fn count(&self, key: &[u8]) -> Option<u64> {
        let Contents::Kept(store) = &self.contents else {
            return Some(1);
        };
        let mut store = store.lock().ok()?;
        let (_, value) = store.get_mut(key)?;
        let n = std::str::from_utf8(value).ok()?.parse::<u64>().ok()? + 1;
        *value = n.to_string().into_bytes();
        Some(n)
    }

    fn store(&self, verb: &[u8], key: &[u8], flags: u32, value: &[u8]) -> bool {
        let Contents::Kept(store) = &self.contents else {
            return true;
        };
        let Ok(mut store) = store.lock() else {
            return false;
        };
        match verb {
            b"add" if store.contains_key(key) => return false,
            b"replace" if !store.contains_key(key) => return false,
            b"append" => {
                let Some((_, old)) = store.get_mut(key) else {
                    return false;
                };
                old.extend_from_slice(value);
                return true;
            }
            _ => {}
        }
        if !every(self.faults.forget, &self.sets) {
            store.insert(key.to_vec(), (flags, value.to_vec()));
        }
        true
    }
}

/// Counts, and returns true every `n`th time.
fn every(n: u64, counter: &AtomicU64) -> bool {
    n > 0 && (counter.fetch_add(1, Ordering::Relaxed) + 1) % n == 0
}

/// A reply, and the ends of its messages if every hit has its own.
#[derive(Debug, Default)]
struct Answer {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    first_misses: bool,
}

impl Answer {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.first_misses = false;
    }

    fn parts(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }

    fn line(&mut self, line: &[u8]) {
        self.parts(&[line, b"\r\n"]);
        self.ends.push(self.bytes.len());
    }
}

/// Datagrams to be sent, with their addresses; the buffers are reused.
#[derive(Debug, Default)]
struct Replies {
    datagrams: Vec<(Vec<u8>, Option<SockaddrStorage>)>,
    used: usize,
}

impl Replies {
    fn push(&mut self, frame: Frame, body: &[u8], to: Option<SockaddrStorage>) {
        if self.used == self.datagrams.len() {
            self.datagrams.push((Vec::new(), None));
        }
        let (datagram, address) = &mut self.datagrams[self.used];
        datagram.clear();
        datagram.extend_from_slice(&frame.bytes());
        datagram.extend_from_slice(body);
        *address = to;
        self.used += 1;
    }

    fn flush(&mut self, send_batch: &mut SendBatch<SockaddrStorage>, socket: i32) {
        let mut left = &mut self.datagrams[..self.used];
        for client in left.chunk_by_mut(|a, b| a.1 == b.1) {
            send_batch.sort(client, |(datagram, _)| datagram.len());
        }
        while !left.is_empty() {
            let datagrams = left.iter().map(|(datagram, to)| (datagram.as_slice(), *to));
            let sent = match send_batch.send_to(socket, datagrams) {
                Ok(0) => {
                    std::thread::yield_now();
                    0
                }
                Ok(n) => n,
                // One client may have gone: skip its datagram.
                Err(_) => 1,
            };
            left = &mut left[sent..];
        }
        self.used = 0;
    }
}
