//! Many datagrams in one system call.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::socket::{recvmmsg, sendmmsg, MsgFlags, MultiHeaders, SockaddrLike, SockaddrStorage};

/// Most datagrams in one call.
pub const BATCH: usize = 64;
/// Room for one datagram: more than any server sends in one.
const ROOM: usize = 2048;

/// Receives datagrams into buffers of its own; `A` is `()` for connected
/// sockets and [`SockaddrStorage`] where the senders matter.
#[derive(Debug)]
pub struct Inbox<A> {
    headers: MultiHeaders<A>,
    buffers: Vec<[u8; ROOM]>,
    received: Vec<(usize, Option<A>)>,
}

impl<A: SockaddrLike + Copy> Default for Inbox<A> {
    fn default() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![[0; ROOM]; BATCH],
            received: Vec::with_capacity(BATCH),
        }
    }
}

impl<A: SockaddrLike + Copy> Inbox<A> {
    /// Receives what is there, without waiting: how many datagrams.
    pub fn receive(&mut self, socket: RawFd) -> Result<usize, Errno> {
        self.received.clear();
        let mut slices: Vec<[IoSliceMut; 1]> = self
            .buffers
            .iter_mut()
            .map(|b| [IoSliceMut::new(b)])
            .collect();
        match recvmmsg(
            socket,
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        ) {
            Ok(messages) => self.received.extend(messages.map(|m| (m.bytes, m.address))),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(self.received.len())
    }

    /// The datagrams of the last call, with their senders.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], Option<A>)> {
        self.received
            .iter()
            .zip(&self.buffers)
            .map(|((len, from), buffer)| (&buffer[..*len], *from))
    }
}

/// Sends datagrams.
#[derive(Debug)]
pub struct Outbox<A> {
    headers: MultiHeaders<A>,
}

impl Outbox<()> {
    /// For connected sockets.
    pub fn connected() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Sends to where the socket is connected: how many of the datagrams went.
    pub fn send<'a>(
        &mut self,
        socket: RawFd,
        datagrams: impl Iterator<Item = &'a [u8]>,
    ) -> Result<usize, Errno> {
        let slices: Vec<[IoSlice; 1]> = datagrams.take(BATCH).map(|d| [IoSlice::new(d)]).collect();
        count(sendmmsg(
            socket,
            &mut self.headers,
            slices.iter(),
            [None; BATCH],
            [],
            MsgFlags::MSG_DONTWAIT,
        ))
    }
}

impl Outbox<SockaddrStorage> {
    /// For sockets that answer whoever asks.
    pub fn addressed() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Sends each datagram to its address: how many went.
    pub fn send_to<'a>(
        &mut self,
        socket: RawFd,
        datagrams: impl Iterator<Item = &'a [u8]>,
        to: &[Option<SockaddrStorage>],
    ) -> Result<usize, Errno> {
        let slices: Vec<[IoSlice; 1]> = datagrams.take(BATCH).map(|d| [IoSlice::new(d)]).collect();
        count(sendmmsg(
            socket,
            &mut self.headers,
            slices.iter(),
            to,
            [],
            MsgFlags::MSG_DONTWAIT,
        ))
    }
}

/// A full queue is no error: what did not go is tried again.
fn count<A: SockaddrLike + Copy>(
    sent: nix::Result<nix::sys::socket::MultiResults<'_, A>>,
) -> Result<usize, Errno> {
    match sent {
        Ok(messages) => Ok(messages.count()),
        Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => Ok(0),
        Err(errno) => Err(errno),
    }
}
