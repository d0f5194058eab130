// SPDX-License-Identifier: GPL-2.0-only
//! A stream to a server: TCP, TLS over TCP, or a Unix socket. It is connected and authenticated, and the server's
//! version is read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::binary;
use crate::settings::{Endpoint, Protocol, Settings};
#[cfg(feature = "tls")]
use crate::tls::{self, Encrypted};

/// Timeout of a connection attempt and of each reply while connecting.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A connected stream.
#[derive(Debug)]
pub enum Link {
    /// Plain.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// Encrypted.
    #[cfg(feature = "tls")]
    Tls(Box<Encrypted>),
}

impl Link {
    /// Connects, and authenticates if a password is set. The stream blocks, with a timeout.
    pub fn connect(server: &Endpoint, settings: &Settings) -> io::Result<Self> {
        let mut link = match server {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                Link::Unix(stream)
            }
            Endpoint::Net(address) => {
                let stream = TcpStream::connect_timeout(address, TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                match &settings.tls {
                    None => Link::Tcp(stream),
                    #[cfg(feature = "tls")]
                    Some(how) => Link::Tls(Box::new(tls::connect(how, *address, stream)?)),
                    #[cfg(not(feature = "tls"))]
                    Some(_) => {
                        return Err(io::Error::other(
                            "this hippos-load has no TLS: build it with --features tls",
                        ))
                    }
                }
            }
        };
        if let Some(password) = &settings.password {
            let token = password.as_str();
            let line = format!("set hippos-load 0 0 {}\r\n{token}\r\n", token.len());
            let reply = link.ask(line.as_bytes())?;
            if reply != "STORED" {
                return Err(io::Error::other(format!(
                    "the password is refused: {reply}"
                )));
            }
        }
        Ok(link)
    }

    /// The version that the server reports.
    pub fn version(&mut self, protocol: Protocol) -> io::Result<String> {
        if protocol == Protocol::Binary {
            return self.binary_version();
        }
        let line = self.ask(b"version\r\n")?;
        match line.strip_prefix("VERSION ") {
            Some(version) => Ok(version.to_string()),
            None => Err(io::Error::other(format!(
                "no memcached: it answers version with {line:?}"
            ))),
        }
    }

    fn binary_version(&mut self) -> io::Result<String> {
        self.write_all(&binary::version()).map_err(name_timeout)?;
        self.flush().map_err(name_timeout)?;
        let mut head = [0; binary::HEADER];
        self.read_exact(&mut head).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => {
                io::Error::other("it closes the connection: has it the binary protocol?")
            }
            _ => name_timeout(e),
        })?;
        let mut body = vec![0; binary::version_len(&head)?];
        self.read_exact(&mut body).map_err(name_timeout)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Sends a command and reads the line of its reply, cut at 80 bytes.
    fn ask(&mut self, command: &[u8]) -> io::Result<String> {
        self.write_all(command).map_err(name_timeout)?;
        self.flush().map_err(name_timeout)?;
        let mut line = Vec::new();
        let mut byte = [0];
        while line.len() < 80 {
            match self.read(&mut byte).map_err(name_timeout)? {
                0 => return Err(io::Error::other("it closes the connection")),
                _ if byte[0] == b'\n' => break,
                _ => line.push(byte[0]),
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_string())
    }

    /// Makes reading and writing non-blocking.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Link::Tcp(stream) => stream.set_nonblocking(true),
            Link::Unix(stream) => stream.set_nonblocking(true),
            #[cfg(feature = "tls")]
            Link::Tls(stream) => stream.sock.set_nonblocking(true),
        }
    }

    /// Whether it holds encrypted bytes that are not sent yet.
    pub fn holds(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Link::Tls(stream) = self {
            return stream.conn.wants_write();
        }
        false
    }
}

/// The error message for a link that timed out.
fn name_timeout(e: io::Error) -> io::Error {
    match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => io::Error::other(format!(
            "it accepts connections, but does not answer within {} s",
            TIMEOUT.as_secs()
        )),
        _ => e,
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Link::Tcp(stream) => stream.read(buffer),
            Link::Unix(stream) => stream.read(buffer),
            #[cfg(feature = "tls")]
            Link::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Link {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Link::Tcp(stream) => stream.write(buffer),
            Link::Unix(stream) => stream.write(buffer),
            #[cfg(feature = "tls")]
            Link::Tls(stream) => match stream.write(buffer) {
                // Its buffer is full until the network accepts some bytes.
                Ok(0) => Err(ErrorKind::WouldBlock.into()),
                written => written,
            },
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Link::Tcp(_) | Link::Unix(_) => Ok(()),
            #[cfg(feature = "tls")]
            Link::Tls(stream) => stream.flush(),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Link::Tcp(stream) => stream.as_fd(),
            Link::Unix(stream) => stream.as_fd(),
            #[cfg(feature = "tls")]
            Link::Tls(stream) => stream.sock.as_fd(),
        }
    }
}
