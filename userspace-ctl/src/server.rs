// SPDX-License-Identifier: GPL-2.0-only
//! A server that is queried over TCP, by memcached's text protocol.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::connect::connect;
use crate::exit::end;
use crate::terminal_text::shown;
use crate::timed::Timed;

/// How long a server may take to send a line.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take for all its statistics.
const STATS_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest line.
const LINE_MOST: usize = 64 << 10;
/// The longest statistics: those of a million connections.
const STATS_MOST: usize = 512 << 20;
/// The whole line with which a server refuses a client that has not logged in.
pub(crate) const UNAUTHENTICATED: &str = "CLIENT_ERROR unauthenticated";

/// A connection.
#[derive(Debug)]
pub(crate) struct Server {
    stream: BufReader<Timed>,
    address: String,
    /// When the last reply must be complete, if the whole connection has a limit.
    end: Option<Instant>,
}

impl Server {
    /// Connects to `HOST:PORT`, and authenticates with the first of these `user:password` lines.
    pub(crate) fn connect(address: &str, users: &[u8]) -> Result<Self> {
        Self::connect_for(address, users, None)
    }

    /// Like `connect`; after `time`, if given, the server is taken for one that does not answer.
    pub(crate) fn connect_for(address: &str, users: &[u8], time: Option<Duration>) -> Result<Self> {
        let end = time.map(|time| Instant::now() + time);
        let most = time.map_or(TIMEOUT, |time| time.min(TIMEOUT));
        let stream = Timed::new(connect(address, most)?, TIMEOUT);
        Self::open(stream, address, users, end)
    }

    fn open(stream: Timed, address: &str, users: &[u8], end: Option<Instant>) -> Result<Self> {
        let mut server = Server {
            stream: BufReader::new(stream),
            address: address.to_owned(),
            end,
        };
        server.stream.get_mut().limit(None, end);
        server.log_in(users)?;
        Ok(server)
    }

    /// The connection alone; all requests have been answered.
    pub(crate) fn into_stream(self) -> Result<TcpStream> {
        Ok(self.stream.into_inner().into_stream()?)
    }

    fn log_in(&mut self, users: &[u8]) -> Result<()> {
        let mut lines = users.split(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(line) = lines.find(|line| line.contains(&b':')) else {
            return Ok(());
        };
        let mut token = line.to_vec();
        if let Some(colon) = token.iter_mut().find(|byte| **byte == b':') {
            *colon = b' ';
        }
        let mut request = format!("set auth 0 0 {}\r\n", token.len()).into_bytes();
        request.extend_from_slice(&token);
        request.extend_from_slice(b"\r\n");
        self.send(&request)?;
        let reply = self.line()?;
        if reply != "STORED" {
            end!(
                NoPermission,
                "{}: the login was refused: {reply}",
                self.address
            );
        }
        Ok(())
    }

    fn send(&mut self, request: &[u8]) -> Result<()> {
        match self.stream.get_mut().write_all(request) {
            Ok(()) => Ok(()),
            Err(error) => self.stopped(&error),
        }
    }

    fn stopped<T>(&self, error: &io::Error) -> Result<T> {
        end!(NotLoaded, "{} stopped answering: {error}", self.address)
    }

    /// The next line, with its control characters escaped.
    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            let bytes = match self.stream.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.stopped(&error),
            };
            if bytes.is_empty() {
                end!(NotLoaded, "{} closed the connection", self.address);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let len = end.map_or(bytes.len(), |end| end + 1);
            line.extend_from_slice(&bytes[..len]);
            self.stream.consume(len);
            if line.len() > LINE_MOST {
                end!(Failed, "{}: a line without an end", self.address);
            }
            if end.is_some() {
                let text = line.trim_ascii_end();
                return Ok(shown(text));
            }
        }
    }

    /// Sends a command, and passes on each line of the reply until one of `ends`, which it returns.
    pub(crate) fn ask(
        &mut self,
        command: &str,
        ends: &[&str],
        mut each: impl FnMut(&str) -> Result<()>,
    ) -> Result<String> {
        let request = format!("{command}\r\n");
        self.send(request.as_bytes())?;
        loop {
            let line = self.line()?;
            if ends.contains(&line.as_str()) {
                return Ok(line);
            }
            if line == UNAUTHENTICATED {
                end!(
                    NoPermission,
                    "{}: clients have to log in: --auth-file FILE",
                    self.address
                );
            }
            for error in ["ERROR", "CLIENT_ERROR ", "SERVER_ERROR "] {
                if line.starts_with(error) {
                    end!(Refused, "{}: {command}: {line}", self.address);
                }
            }
            each(&line)?;
        }
    }

    /// One of the `stats` texts, without its last line.
    pub(crate) fn stats(&mut self, argument: &str) -> Result<String> {
        let command = format!("stats {argument}");
        let mut text = String::new();
        let address = self.address.clone();
        let end = self.end;
        self.stream.get_mut().limit(Some(STATS_TIMEOUT), end);
        let asked = self.ask(command.trim_end(), &["END", "RESET", "OK"], |line| {
            if text.len() + line.len() > STATS_MOST {
                end!(Failed, "{address}: statistics without an end");
            }
            text.push_str(line);
            text.push_str("\r\n");
            Ok(())
        });
        self.stream.get_mut().limit(None, end);
        asked.map(|_| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;
    use crate::timed::tests::clock;
    use std::net::TcpListener;
    use std::thread;

    /// A server that answers the first line with these bytes, as far as they are read, and closes the connection.
    fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            drop(stream.get_mut().write_all(answer.as_bytes()));
        });
        address
    }

    #[test]
    fn statistics_come_without_their_last_line() {
        let mut server =
            Server::connect(&answering("STAT a 1\r\nSTAT b 2\r\nEND\r\n"), b"").unwrap();
        assert_eq!(server.stats("").unwrap(), "STAT a 1\r\nSTAT b 2\r\n");
    }

    #[test]
    fn statistics_that_take_too_long_end_at_their_deadline_and_at_the_connections() {
        // Far more reads, which each take a second of this clock, than a minute has seconds.
        let rows: &str = "STAT a 1\r\n".repeat(400_000).leak();
        for end in [None, Some(clock() + Duration::from_secs(5))] {
            let address = answering(rows);
            let stream = connect(&address, TIMEOUT).unwrap();
            let stream = Timed::with_clock(stream, TIMEOUT, clock);
            let mut server = Server::open(stream, &address, b"", end).unwrap();
            let error = server.stats("").unwrap_err();
            assert!(error.to_string().contains("takes too long"), "{error}");
            assert_eq!(Status::of(&error), Status::NotLoaded);
        }
    }

    #[test]
    fn lines_of_the_server_have_a_limit_and_no_control_characters() {
        let long: &str = "x".repeat(LINE_MOST + 2).leak();
        let mut server = Server::connect(&answering(long), b"").unwrap();
        let error = server.stats("").unwrap_err();
        assert!(error.to_string().contains("without an end"), "{error}");
        let answer = "STAT a \u{1b}[2Junauthenticated\r\nEND\r\n";
        let mut server = Server::connect(&answering(answer), b"").unwrap();
        assert_eq!(
            server.stats("").unwrap(),
            "STAT a \\u{1b}[2Junauthenticated\r\n"
        );
    }

    #[test]
    fn address_without_a_port_and_unknown_host_are_told_apart() {
        for (address, status) in [
            ("localhost", Status::Usage),
            ("localhost:x", Status::Usage),
            ("host.invalid:1", Status::NotLoaded),
        ] {
            let error = Server::connect(address, b"").unwrap_err();
            assert_eq!(Status::of(&error), status, "{address}: {error}");
        }
    }

    #[test]
    fn refusals_of_the_server_have_a_status() {
        for (answer, status) in [
            ("CLIENT_ERROR unauthenticated\r\n", Status::NoPermission),
            ("CLIENT_ERROR stats not allowed\r\n", Status::Refused),
            ("ERROR\r\n", Status::Refused),
            ("STAT a 1\r\n", Status::NotLoaded),
        ] {
            let mut server = Server::connect(&answering(answer), b"").unwrap();
            let error = server.stats("reset").unwrap_err();
            assert_eq!(Status::of(&error), status, "{answer}");
        }
        let error = Server::connect(&answering("CLIENT_ERROR no\r\n"), b"user:pass").unwrap_err();
        assert_eq!(Status::of(&error), Status::NoPermission);
    }
}
