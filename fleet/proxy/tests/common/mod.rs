// SPDX-License-Identifier: MIT

//! Nodes and clients for tests. The nodes are the engine's example server, or scripted nodes that misbehave.
#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hippos_client::Tcp;
use hippos_process::Process;
use hippos_proxy::config::Config;
use hippos_proxy::server::Server;

/// The engine's example server in its own process.
pub struct Engine {
    process: Process,
    pub address: SocketAddr,
}

impl Engine {
    pub fn start() -> Self {
        Self::at(0)
    }

    pub fn at(port: u16) -> Self {
        let process = Process::engine(&["--port", &port.to_string()]);
        let address = process.address();
        Self { process, address }
    }

    /// Sends the process a signal.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }
}

/// The configuration of one pool, preceded by `more`.
pub fn config(more: &str, nodes: &[SocketAddr]) -> Config {
    let nodes: Vec<_> = nodes.iter().map(|node| format!("\"{node}\"")).collect();
    let listen = "listen = \"127.0.0.1:0\"\nudp = \"127.0.0.1:0\"\nthreads = 2\n";
    let text = format!(
        "{listen}{more}\n[pools.default]\nnodes = [{}]\n",
        nodes.join(", ")
    );
    Config::parse(&text).unwrap()
}

/// A proxy in front of `nodes`.
pub fn proxy(more: &str, nodes: &[SocketAddr]) -> Server {
    Server::start(config(more, nodes)).unwrap()
}

/// A proxy in a process of its own, so that only its memory is measured.
pub struct Proxy {
    child: Child,
    pub tcp: SocketAddr,
    file: PathBuf,
}

impl Proxy {
    /// Starts it with this configuration.
    pub fn start(text: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("hippos-proxy-{}-{number}.toml", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hippos-proxy"))
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let tcp = line.split("tcp ").nth(1).unwrap();
        let tcp = tcp.split_whitespace().next().unwrap().parse().unwrap();
        Self { child, tcp, file }
    }

    /// The process's memory in KiB: now (`VmRSS`), or at its maximum (`VmHWM`).
    pub fn memory(&self, field: &str) -> usize {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A text client.
pub struct Client {
    tcp: Tcp,
}

impl Client {
    pub fn new(server: &Server) -> Self {
        Self::at(server.tcp.unwrap())
    }

    pub fn at(address: SocketAddr) -> Self {
        // A test that hangs reports where.
        let tcp = Tcp::to(address, Duration::from_secs(60)).unwrap();
        Self { tcp }
    }

    pub fn send(&mut self, text: &str) {
        self.tcp.send(text.as_bytes()).unwrap();
    }

    pub fn line(&mut self) -> String {
        self.tcp.line().unwrap()
    }

    /// Sends a command whose reply is one line, and returns it.
    pub fn ask(&mut self, text: &str) -> String {
        self.send(&format!("{text}\r\n"));
        self.line().trim_end().to_owned()
    }

    /// `get`: the value, or `None`; errors are returned unchanged.
    pub fn get(&mut self, key: &str) -> Result<Option<String>, String> {
        let line = self.ask(&format!("get {key}"));
        if line == "END" {
            return Ok(None);
        }
        if !line.starts_with("VALUE ") {
            return Err(line);
        }
        let value = self.line().trim_end().to_owned();
        assert_eq!(self.line(), "END\r\n");
        Ok(Some(value))
    }

    pub fn set(&mut self, key: &str, value: &str) -> String {
        self.ask(&format!("set {key} 0 0 {}\r\n{value}", value.len()))
    }

    /// Whether the server has closed the connection.
    pub fn closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(self.tcp.reader().read(&mut byte), Ok(0) | Err(_))
    }
}

/// A socket for datagrams to the proxy.
pub fn udp(server: &Server) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.udp.unwrap()).unwrap();
    // Only a reply that never comes takes that long.
    let most = Duration::from_secs(10);
    socket.set_read_timeout(Some(most)).unwrap();
    socket
}

/// The first datagram of the reply to a datagram, without its frame; `None` if there is no reply.
pub fn datagram(socket: &UdpSocket, body: &str) -> Option<String> {
    let request = [&b"\0\x07\0\0\0\x01\0\0"[..], body.as_bytes()].concat();
    socket.send(&request).unwrap();
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[8..len]).into_owned())
}

/// Calls `f` until it is true.
pub fn until(mut f: impl FnMut() -> bool) {
    for _ in 0..600 {
        if f() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it never became true");
}

/// The proxy's HTTP response, with its header.
pub fn http(server: &Server, verb: &str, path: &str) -> String {
    http_at(server.http.unwrap(), verb, path)
}

pub fn http_at(address: SocketAddr, verb: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    // In pieces, as it may arrive.
    for part in [
        verb,
        &format!(" {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ] {
        stream.write_all(part.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of a counter.
pub fn count(server: &Server, name: &str) -> u64 {
    let counters = server.counters();
    counters
        .iter()
        .find(|(known, ..)| *known == name)
        .unwrap()
        .2
}

/// The reply to a datagram, with every key found.
pub fn hits(datagram: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(&datagram[8..]).unwrap().trim_end();
    let mut reply = datagram[..8].to_vec();
    for key in text.split(' ').skip(1) {
        reply.extend_from_slice(format!("VALUE {key} 0 {}\r\n{key}\r\n", key.len()).as_bytes());
    }
    reply.extend_from_slice(b"END\r\n");
    reply
}

/// A scripted node: a function for lines over TCP, and one for datagrams over UDP.
pub struct Script {
    pub address: SocketAddr,
    /// Source ports of datagrams, in order.
    pub ports: Arc<Mutex<Vec<u16>>>,
}

/// The end of a reply behind which a scripted node closes the connection.
const CLOSES: &[u8] = b"\0close";

impl Script {
    /// A reply of `tcp` behind which the connection is closed.
    pub fn closing(reply: &[u8]) -> Vec<u8> {
        [reply, CLOSES].concat()
    }

    /// `tcp` answers a line; `udp` gets the socket, the sender and a datagram.
    pub fn start(
        tcp: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
        mut udp: impl FnMut(&UdpSocket, SocketAddr, &[u8]) + Send + 'static,
    ) -> Self {
        let (listener, socket) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
                break (listener, socket);
            }
        };
        let address = listener.local_addr().unwrap();
        let tcp = Arc::new(tcp);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tcp = tcp.clone();
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    let mut line = String::new();
                    while matches!(reader.read_line(&mut line), Ok(n) if n > 0) {
                        let reply = tcp(line.trim_end());
                        let (reply, closes) = match reply.strip_suffix(CLOSES) {
                            Some(reply) => (reply, true),
                            None => (&reply[..], false),
                        };
                        if reader.get_mut().write_all(reply).is_err() || closes {
                            return;
                        }
                        line.clear();
                    }
                });
            }
        });
        let ports = Arc::new(Mutex::new(Vec::new()));
        let seen = ports.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                seen.lock().unwrap().push(peer.port());
                udp(&socket, peer, &buffer[..len]);
            }
        });
        Self { address, ports }
    }
}
