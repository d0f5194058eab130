// SPDX-License-Identifier: MIT

//! The proxy as a whole: its threads, and what they are told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{eventfd, EventfdFlags};
use socket2::{Domain, Socket, Type};

use crate::config::Config;
use crate::metrics::{self, Counters};
use crate::worker::{Doors, Worker};

/// What all threads see.
pub(crate) struct Shared {
    config: Mutex<Arc<Config>>,
    pub(crate) generation: AtomicU64,
    pub(crate) draining: AtomicBool,
    pub(crate) connections: AtomicUsize,
    pub(crate) counters: Vec<Arc<Counters>>,
}

impl Shared {
    pub(crate) fn config(&self) -> Arc<Config> {
        let config = self.config.lock();
        config.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running proxy.
pub struct Server {
    shared: Arc<Shared>,
    wakes: Vec<Arc<OwnedFd>>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    /// Where TCP clients come, with the port that was taken.
    pub tcp: Option<SocketAddr>,
    /// Where UDP clients come.
    pub udp: Option<SocketAddr>,
    /// Where the metrics page is.
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
        let mut udp_address = config.udp;
        let unix = match &config.unix {
            Some(path) => {
                // What another process left behind.
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
            let tcp = match &mut tcp_address {
                Some(address) => {
                    let listener: TcpListener = bind(*address, Type::STREAM)
                        .with_context(|| format!("TCP {address}"))?
                        .into();
                    *address = listener.local_addr()?;
                    Some(listener)
                }
                None => None,
            };
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
            all.push(Doors { tcp, unix, udp });
        }
        let http = config
            .http
            .map(|address| TcpListener::bind(address).with_context(|| format!("HTTP {address}")))
            .transpose()?;
        let mut config = config;
        (config.listen, config.udp) = (tcp_address, udp_address);
        let counters: Vec<_> = (0..workers).map(|_| Arc::<Counters>::default()).collect();
        let shared = Arc::new(Shared {
            config: Mutex::new(Arc::new(config)),
            generation: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            counters: counters.clone(),
        });
        let mut wakes = Vec::new();
        let mut threads = Vec::new();
        for (doors, counters) in all.into_iter().zip(counters) {
            let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
            let wake = Arc::new(eventfd(0, flags)?);
            let mut worker = Worker::new(shared.clone(), counters, doors, &*wake, workers)?;
            wakes.push(wake);
            threads.push(std::thread::spawn(move || worker.run()));
        }
        let http_address = http.as_ref().map(TcpListener::local_addr).transpose()?;
        if let Some(listener) = http {
            let shared = shared.clone();
            std::thread::spawn(move || serve_http(&listener, &shared));
        }
        Ok(Self {
            shared,
            wakes,
            threads,
            tcp: tcp_address,
            udp: udp_address,
            http: http_address,
        })
    }

    fn wake(&self) {
        for wake in &self.wakes {
            // Full means that it is awake.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }

    /// Takes pools, routes and limits of another configuration. Sockets that
    /// clients come to, and threads, stay as they are; connections and what is
    /// under way too.
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

    /// Takes no new clients, and ends when those that are there have their
    /// answers, or after the configured time.
    pub fn drain(self) {
        self.shared.draining.store(true, Relaxed);
        self.wake();
        for thread in self.threads {
            let _ = thread.join();
        }
    }

    /// The counts of all workers: name, help text, value.
    pub fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        metrics::sum(&self.shared.counters)
    }
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

/// `/metrics` for Prometheus, `/health` for load balancers: 200 while clients
/// are welcome.
fn serve_http(listener: &TcpListener, shared: &Shared) {
    for stream in listener.incoming().flatten() {
        let _ = answer_http(stream, shared);
    }
}

fn answer_http(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    // One at a time: none may take long.
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 1024];
    let len = stream.read(&mut request)?;
    let request = String::from_utf8_lossy(&request[..len]);
    let path = request.split(' ').nth(1).unwrap_or("");
    let (status, body) = match path {
        "/metrics" => ("200 OK", page(shared)),
        "/health" if shared.draining.load(Relaxed) => {
            ("503 Service Unavailable", "draining\n".into())
        }
        "/health" => ("200 OK", "ok\n".into()),
        _ => ("404 Not Found", "/metrics, /health\n".into()),
    };
    let kind = "text/plain; version=0.0.4";
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn page(shared: &Shared) -> String {
    use std::fmt::Write;
    let mut page = String::new();
    for (name, help, value) in metrics::sum(&shared.counters) {
        let (kind, suffix) = match name {
            "curr_connections" => ("gauge", ""),
            _ => ("counter", "_total"),
        };
        let name = format!("hippos_proxy_{}{suffix}", name.trim_start_matches("total_"));
        let _ = writeln!(
            page,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    }
    page
}
