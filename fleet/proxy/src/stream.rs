// SPDX-License-Identifier: MIT

//! A stream of bytes to a client or a node.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::tls::Tls;

/// A stream of bytes to a client or a node.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Tls>),
}

impl Stream {
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Whether a read of `len` bytes, of `room`, has taken everything that had arrived.
    pub(crate) fn is_drained(&self, len: usize, room: usize) -> bool {
        !self.is_tls() && (1..room).contains(&len)
    }

    /// Whether written bytes wait to be sent.
    pub(crate) fn waits(&self) -> bool {
        matches!(self, Stream::Tls(tls) if tls.waits())
    }

    /// Sends the waiting bytes.
    pub(crate) fn push(&mut self) -> io::Result<()> {
        match self {
            Stream::Tls(tls) => tls.push(),
            _ => Ok(()),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tls(tls) => tls.stream().as_fd(),
        }
    }
}
