// SPDX-License-Identifier: GPL-2.0-only
//! Processes that tests start, among them the engine's example server. Any failure panics, which ends the test.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
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

    /// Starts memcached on a free port of TCP and UDP, and waits until it listens. `None`, with a line that tells so,
    /// unless `HIPPOS_MEMCACHED` contains the command that starts it.
    pub fn memcached(arguments: &[&str]) -> Option<(Self, SocketAddr)> {
        let Ok(command) = std::env::var("HIPPOS_MEMCACHED") else {
            println!("skipped: HIPPOS_MEMCACHED is not set");
            return None;
        };
        let mut words = command.split_whitespace();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let port = address.port().to_string();
        let child = Command::new(words.next().unwrap())
            .args(words)
            .args(["-l", "127.0.0.1", "-p", &port, "-U", &port, "-u", "root"])
            .args(arguments)
            .stderr(Stdio::null())
            .spawn();
        let process = Self::from(child.unwrap());
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return Some((process, address));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{command:?} does not listen");
    }

    /// The address in the example server's first line.
    pub fn address(&self) -> SocketAddr {
        self.line.split(' ').nth(3).unwrap().parse().unwrap()
    }

    /// Sends it a signal, by a name that kill(1) knows.
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
