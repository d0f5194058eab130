// SPDX-License-Identifier: MIT

//! The proxy as a whole: its threads, and its control commands.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use prometheus_client::registry::Registry;
use rustix::event::{eventfd, EventfdFlags};
use socket2::{Domain, Socket, Type};

use crate::config::Config;
use crate::metrics::{self, Counters, Meters};
use crate::metrics_page::Collector;
use crate::shared::Shared;
use crate::worker::{Listeners, Worker};

/// How long a client of `/reload` waits for the result.
const RELOAD_LIMIT: Duration = Duration::from_secs(20);

/// The most HTTP clients that are answered at a time, each by a thread.
const HTTP_CLIENTS_MAX: usize = 64;

/// A control command, given over HTTP or by a signal.
#[derive(Clone, Debug)]
pub enum ControlCommand {
    /// Load the configuration again, and send the result there: `Err` is why the old one is kept.
    Reload(Option<Sender<Result<(), String>>>),
    /// Accept no new clients, and end.
    Drain,
}

/// A running proxy.
pub struct Server {
    shared: Arc<Shared>,
    wakes: Vec<Arc<OwnedFd>>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    control_commands: (Sender<ControlCommand>, Receiver<ControlCommand>),
    /// The address for TCP clients, with the actual port.
    pub tcp: Option<SocketAddr>,
    /// The address for TLS clients.
    pub tls: Option<SocketAddr>,
    /// The address for UDP clients.
    pub udp: Option<SocketAddr>,
    /// The address of the metrics page.
    pub http: Option<SocketAddr>,
}

impl Server {
    /// Binds all sockets and starts the workers.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        let workers = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let mut tcp_address = config.listen;
        let mut tls_address = config.tls.as_ref().map(|(address, _)| *address);
        let mut udp_address = config.udp;
        let unix = match &config.unix {
            Some(path) => {
                // The socket file of a process that has ended.
                if std::os::unix::net::UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                let listener =
                    UnixListener::bind(path).with_context(|| path.display().to_string())?;
                listener.set_nonblocking(true)?;
                Some(listener)
            }
            None => None,
        };
        let mut all = Vec::new();
        for _ in 0..workers {
            let tcp = listen(&mut tcp_address)?;
            let tls = listen(&mut tls_address)?;
            let udp = match &mut udp_address {
                Some(address) => {
                    let socket: UdpSocket = bind(*address, Type::DGRAM)
                        .with_context(|| format!("UDP {address}"))?
                        .into();
                    *address = socket.local_addr()?;
                    Some(socket)
                }
                None => None,
            };
            let unix = unix.as_ref().map(UnixListener::try_clone).transpose()?;
            all.push(Listeners {
                tcp,
                tls,
                unix,
                udp,
            });
        }
        let http = config
            .http
            .map(|address| TcpListener::bind(address).with_context(|| format!("HTTP {address}")))
            .transpose()?;
        let mut config = config;
        (config.listen, config.udp) = (tcp_address, udp_address);
        if let (Some((address, _)), Some(taken)) = (&mut config.tls, tls_address) {
            *address = taken;
        }
        let counters: Vec<_> = (0..workers).map(|_| Arc::<Counters>::default()).collect();
        let (log, lines) = sync_channel::<String>(1024);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let shared = Arc::new(Shared {
            config: Mutex::new(Arc::new(config)),
            generation: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            counters,
            routes: Meters::default(),
            node_meters: Meters::default(),
            health: Mutex::default(),
            start: Instant::now(),
            unix_start: unix.map_or(0, |unix| unix.as_secs()),
            log,
        });
        std::thread::spawn(move || {
            // Workers do not wait for the reader of this log.
            for line in lines {
                eprintln!("{line}");
            }
        });
        let mut wakes = Vec::new();
        let mut threads = Vec::new();
        for (number, listeners) in all.into_iter().enumerate() {
            let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
            let wake = Arc::new(eventfd(0, flags)?);
            let mut worker = Worker::new(shared.clone(), number, listeners, &*wake)?;
            wakes.push(wake);
            threads.push(std::thread::spawn(move || worker.run()));
        }
        let http_address = http.as_ref().map(TcpListener::local_addr).transpose()?;
        let control_commands = channel();
        if let Some(listener) = http {
            let mut registry = Registry::with_prefix("hippos_proxy");
            registry.register_collector(Box::new(Collector(shared.clone())));
            let pages = Pages {
                shared: shared.clone(),
                registry,
                control_commands: control_commands.0.clone(),
            };
            let pages = Arc::new(pages);
            std::thread::spawn(move || Pages::serve(&pages, &listener));
        }
        Ok(Self {
            shared,
            wakes,
            threads,
            control_commands,
            tcp: tcp_address,
            tls: tls_address,
            udp: udp_address,
            http: http_address,
        })
    }

    fn wake(&self) {
        for wake in &self.wakes {
            // If the counter is full, the worker is awake already.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }

    /// Loads the pools, routes and limits of another configuration. The sockets for clients, and the threads, stay as
    /// they are; so do connections and requests in flight.
    pub fn reload(&self, mut config: Config) {
        let old = self.shared.config();
        config.listen = old.listen;
        config.udp = old.udp;
        let mut place = self
            .shared
            .config
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(config);
        drop(place);
        self.shared.generation.fetch_add(1, Relaxed);
        self.wake();
    }

    /// Accepts no new clients, and ends when the present ones have their replies, or after the configured time.
    pub fn drain(self) {
        self.shared.draining.store(true, Relaxed);
        self.wake();
        for thread in self.threads {
            let _ = thread.join();
        }
    }

    /// The next control command within `limit`, from HTTP or from [`control_commands`](Self::control_commands).
    pub fn order(&self, limit: Duration) -> Option<ControlCommand> {
        self.control_commands.1.recv_timeout(limit).ok()
    }

    /// A sender for control commands.
    pub fn control_commands(&self) -> Sender<ControlCommand> {
        self.control_commands.0.clone()
    }

    /// The counters of all workers: name, help text, value.
    pub fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        metrics::sum(&self.shared.counters)
    }
}

/// A listener at `address`, in which the actual port is set.
fn listen(address: &mut Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let socket = bind(*address, Type::STREAM).with_context(|| format!("TCP {address}"))?;
    let listener: TcpListener = socket.into();
    *address = listener.local_addr()?;
    Ok(Some(listener))
}

fn bind(address: SocketAddr, kind: Type) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(1024)?;
    }
    Ok(socket)
}

/// The HTTP pages: `/metrics` for Prometheus, `/health` for load balancers (200 while new clients are accepted),
/// `/status`; and, for this host only, `POST` to `/drain`, `/reload` and `/admit?NODE`.
struct Pages {
    shared: Arc<Shared>,
    registry: Registry,
    control_commands: Sender<ControlCommand>,
}

impl Pages {
    fn serve(pages: &Arc<Self>, listener: &TcpListener) {
        let count = Arc::new(());
        for stream in listener.incoming().flatten() {
            // Clients that send nothing do not hold up the others. Those beyond the limit are closed.
            if Arc::strong_count(&count) > HTTP_CLIENTS_MAX {
                continue;
            }
            let (pages, count) = (pages.clone(), count.clone());
            let _ = std::thread::Builder::new().spawn(move || {
                let _ = pages.answer(stream);
                drop(count);
            });
        }
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        // The number of clients is limited, so that none may take long.
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        let own = stream.peer_addr()?.ip().to_canonical().is_loopback();
        let mut request = [0; 1024];
        let (mut len, start) = (0, Instant::now());
        while !request[..len].ends_with(b"\r\n\r\n") && start.elapsed() < Duration::from_secs(1) {
            match stream.read(&mut request[len..])? {
                0 => break,
                n => len += n,
            }
        }
        let request = String::from_utf8_lossy(&request[..len]);
        let mut words = request.split(' ');
        let (verb, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let mut kind = "text/plain; charset=utf-8";
        let (status, body) = match (verb, path) {
            ("GET", "/metrics") => {
                kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                let mut page = String::new();
                match prometheus_client::encoding::text::encode(&mut page, &self.registry) {
                    Ok(()) => ("200 OK", page),
                    Err(_) => ("500 Internal Server Error", String::new()),
                }
            }
            ("GET", "/health") if self.shared.draining.load(Relaxed) => {
                ("503 Service Unavailable", "draining\n".into())
            }
            ("GET", "/health") => ("200 OK", "ok\n".into()),
            ("GET", "/status") => ("200 OK", self.status()),
            ("POST", _) if !own => ("403 Forbidden", "not from here\n".into()),
            ("POST", "/reload") => {
                let (sender, result) = channel();
                let _ = self
                    .control_commands
                    .send(ControlCommand::Reload(Some(sender)));
                // Names are looked up for it, which may take long; other requests are answered meanwhile.
                std::thread::spawn(move || {
                    let (status, body) = match result.recv_timeout(RELOAD_LIMIT) {
                        Ok(Ok(())) => ("200 OK", "configuration taken\n".into()),
                        Ok(Err(why)) => ("409 Conflict", format!("configuration kept: {why}\n")),
                        Err(_) => ("202 Accepted", "ordered\n".into()),
                    };
                    respond(&mut stream, status, kind, &body)
                });
                return Ok(());
            }
            ("POST", "/drain") => {
                let _ = self.control_commands.send(ControlCommand::Drain);
                ("202 Accepted", "ordered\n".into())
            }
            ("POST", path) if path.starts_with("/admit?") => {
                let name = &path["/admit?".len()..];
                let nodes = self.shared.nodes();
                match nodes.iter().find(|(known, _)| known == name) {
                    Some((_, health)) if health.admit() => ("202 Accepted", "admitted\n".into()),
                    Some(_) => ("200 OK", "it is in\n".into()),
                    None => ("404 Not Found", "no such node\n".into()),
                }
            }
            _ => ("404 Not Found", "/metrics, /health, /status\n".into()),
        };
        respond(&mut stream, status, kind, &body)
    }

    /// The state, counters and nodes.
    fn status(&self) -> String {
        use std::fmt::Write;
        let shared = &self.shared;
        let draining = shared.draining.load(Relaxed);
        let mut page = format!("state {}\n", if draining { "draining" } else { "serving" });
        let _ = writeln!(page, "uptime {}", shared.start.elapsed().as_secs());
        let _ = writeln!(page, "reloads {}", shared.generation.load(Relaxed));
        for (name, _, value) in metrics::sum(&shared.counters) {
            let _ = writeln!(page, "{name} {value}");
        }
        for (name, health) in shared.nodes() {
            let _ = writeln!(page, "node {name} {}", health.name());
        }
        page
    }
}

fn respond(stream: &mut TcpStream, status: &str, kind: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
