// SPDX-License-Identifier: GPL-2.0-only
//! Processes that tests start, among them the engine's example server. Any failure panics, which ends the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::Duration;

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The first line of its standard output, by which it reports that it is ready.
    pub line: String,
}

impl Process {
    /// Starts a program and waits for its first line.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        Self { child, line }
    }

    /// Starts the engine's example server, which cargo builds first if need be.
    pub fn engine(arguments: &[&str]) -> Self {
        static BUILT: Once = Once::new();
        BUILT.call_once(|| {
            // Only `--all-targets` builds it beforehand.
            let built = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--locked", "--package", "hippos_engine"])
                .args(["--example", "server"])
                .status();
            assert!(
                built.unwrap().success(),
                "the example server does not build"
            );
        });
        let tests = std::env::current_exe().unwrap();
        let folder = tests.ancestors().nth(2).unwrap();
        Self::start(Command::new(folder.join("examples/server")).args(arguments))
    }

    /// Starts memcached on a free port of TCP and UDP, and waits until it answers. `None`, after
    /// printing the reason, without [`memcached_command`].
    pub fn memcached(arguments: &[&str]) -> Option<(Self, SocketAddr)> {
        const TRIES: usize = 5;
        const ASKED: usize = 200;
        for _ in 0..TRIES {
            let address = free_address();
            let port = address.port().to_string();
            let child = memcached_command()?
                .args(["-l", "127.0.0.1", "-p", &port, "-U", &port, "-u", "root"])
                .args(arguments)
                .spawn();
            let mut process = Self::from(child.unwrap());
            // Another process may have taken the port meanwhile: then this one ends.
            for _ in 0..ASKED {
                if !process.is_running() {
                    break;
                }
                if has_version(address) {
                    return Some((process, address));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        panic!("memcached ends at once, or does not answer");
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The address in the example server's first line.
    pub fn address(&self) -> SocketAddr {
        self.line.split(' ').nth(3).unwrap().parse().unwrap()
    }

    /// Sends it a signal, by its name for kill(1).
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }
}

impl From<Child> for Process {
    /// A process that reports nothing when it is ready.
    fn from(child: Child) -> Self {
        Self {
            child,
            line: String::new(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that starts memcached, which `HIPPOS_MEMCACHED` contains: one of the version that our records are of.
/// `None`, after printing the reason, without it.
pub fn memcached_command() -> Option<Command> {
    let Ok(line) = std::env::var("HIPPOS_MEMCACHED") else {
        println!("skipped: HIPPOS_MEMCACHED is not set");
        return None;
    };
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    Some(command)
}

/// An address of this machine with a port that neither TCP nor UDP use. A UDP socket chooses it: a process that another
/// thread starts has copies of our sockets until it executes its program, and a copied TCP listener would go on taking
/// connections.
pub fn free_address() -> SocketAddr {
    loop {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        if TcpStream::connect(address).is_err() {
            return address;
        }
    }
}

/// Whether a server answers there. A connection alone does not show that: it is accepted before the server has its UDP
/// port.
fn has_version(server: SocketAddr) -> bool {
    let answer = || -> std::io::Result<[u8; 8]> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"version\r\n")?;
        let mut start = [0; 8];
        stream.read_exact(&mut start)?;
        Ok(start)
    };
    answer().is_ok_and(|start| start == *b"VERSION ")
}
