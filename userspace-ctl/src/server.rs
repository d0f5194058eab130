// SPDX-License-Identifier: GPL-2.0-only
//! A server that is queried over TCP, by memcached's text protocol.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::exit::end;

/// How long a server may take to send a line.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub(crate) struct Server {
    stream: BufReader<TcpStream>,
    address: String,
}

impl Server {
    /// Connects to `HOST:PORT`, and authenticates with the first of these `user:password` lines.
    pub(crate) fn connect(address: &str, users: &[u8]) -> Result<Self> {
        let resolved = address
            .to_socket_addrs()
            .with_context(|| format!("{address}: must be HOST:PORT"))?;
        let mut refused = None;
        for one in resolved {
            match TcpStream::connect_timeout(&one, TIMEOUT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(TIMEOUT))?;
                    stream.set_write_timeout(Some(TIMEOUT))?;
                    let mut server = Server {
                        stream: BufReader::new(stream),
                        address: address.to_owned(),
                    };
                    server.log_in(users)?;
                    return Ok(server);
                }
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) => end!(NotLoaded, "{address} does not answer: {error}"),
            None => end!(Usage, "{address}: no such host"),
        }
    }

    /// The connection alone; all requests have been answered.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
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
        self.stream.get_mut().write_all(&request)?;
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

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line);
        let len = read.with_context(|| format!("{} stopped answering", self.address))?;
        if len == 0 {
            end!(NotLoaded, "{} closed the connection", self.address);
        }
        let line = String::from_utf8_lossy(&line);
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Sends a command, and passes on each line of the reply until one of `ends`.
    pub(crate) fn ask(
        &mut self,
        command: &str,
        ends: &[&str],
        mut each: impl FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let request = format!("{command}\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        loop {
            let line = self.line()?;
            if ends.contains(&line.as_str()) {
                return Ok(());
            }
            if line.contains("unauthenticated") {
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
        self.ask(command.trim_end(), &["END", "RESET", "OK"], |line| {
            text.push_str(line);
            text.push_str("\r\n");
            Ok(())
        })?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;
    use std::net::TcpListener;
    use std::thread;

    /// A server that answers the first line with these bytes, and closes the connection.
    fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
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
