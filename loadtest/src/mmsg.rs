// SPDX-License-Identifier: GPL-2.0-only
//! Many datagrams in one system call; with segmentation offload (`gso`), many in one pass through the kernel.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    recvmmsg, recvmsg, sendmmsg, sendmsg, setsockopt, sockopt, ControlMessage, ControlMessageOwned,
    MsgFlags, MultiHeaders, SockaddrLike, SockaddrStorage,
};

/// Most datagrams in one call.
pub const BATCH: usize = 64;
/// Bytes for one datagram: more than any server sends in one.
const ROOM: usize = 2048;
/// Bytes for datagrams that are received as one: more than IP carries.
const WHOLE: usize = 64 << 10;
/// The most such buffers that are received in one call.
const GRO_BUFFERS: usize = 8;
/// The most bytes that are sent as one: with their headers they fit an IP packet.
const MOST: usize = 65_000;

/// Asks the kernel to deliver datagrams of the same length together (UDP_GRO), as a [`RecvBatch`] with `gso` expects
/// them.
pub fn enable_gro(socket: &impl AsFd) -> Result<(), Errno> {
    setsockopt(socket, sockopt::UdpGroSegment, &true)
}

/// Receives datagrams into its own buffers; `A` is `()` for connected sockets and [`SockaddrStorage`] if the senders
/// matter.
#[derive(Debug)]
pub struct RecvBatch<A> {
    headers: MultiHeaders<A>,
    buffer: Vec<u8>,
    /// The position of each datagram in the buffer.
    received: Vec<(usize, usize, Option<A>)>,
    gso: bool,
}

impl<A: SockaddrLike + Copy> RecvBatch<A> {
    /// With `gso`, for sockets that [`gather`].
    pub fn new(gso: bool) -> Self {
        let room = if gso {
            WHOLE * GRO_BUFFERS
        } else {
            ROOM * BATCH
        };
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            buffer: vec![0; room],
            received: Vec::with_capacity(BATCH),
            gso,
        }
    }

    /// Receives the available datagrams, without waiting; returns their number.
    pub fn receive(&mut self, socket: RawFd) -> Result<usize, Errno> {
        self.received.clear();
        let received = if self.gso {
            self.receive_whole(socket)
        } else {
            self.receive_each(socket)
        };
        match received {
            // Datagrams received before the error count first; a server that has gone refuses the next request too.
            Err(errno)
                if self.received.is_empty() && !matches!(errno, Errno::EAGAIN | Errno::EINTR) =>
            {
                Err(errno)
            }
            _ => Ok(self.received.len()),
        }
    }

    fn receive_each(&mut self, socket: RawFd) -> Result<(), Errno> {
        let mut slices: Vec<[IoSliceMut; 1]> = self
            .buffer
            .chunks_exact_mut(ROOM)
            .map(|b| [IoSliceMut::new(b)])
            .collect();
        let messages = recvmmsg(
            socket,
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        self.received.extend(
            messages
                .enumerate()
                .map(|(i, m)| (i * ROOM, m.bytes, m.address)),
        );
        Ok(())
    }

    /// Datagrams received as one have the same length, except the last, which may be shorter.
    fn receive_whole(&mut self, socket: RawFd) -> Result<(), Errno> {
        for (i, buffer) in self.buffer.chunks_exact_mut(WHOLE).enumerate() {
            let mut control = nix::cmsg_space!(i32);
            let mut slices = [IoSliceMut::new(buffer)];
            let message = recvmsg::<A>(
                socket,
                &mut slices,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let each = message
                .cmsgs()?
                .find_map(|c| match c {
                    ControlMessageOwned::UdpGroSegments(len) => usize::try_from(len).ok(),
                    _ => None,
                })
                .unwrap_or(message.bytes);
            let datagrams = (0..message.bytes).step_by(each.max(1)).map(|at| {
                let len = each.min(message.bytes - at);
                (i * WHOLE + at, len, message.address)
            });
            self.received.extend(datagrams);
        }
        Ok(())
    }

    /// The datagrams of the last call, with their senders.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], Option<A>)> {
        self.received
            .iter()
            .map(|(at, len, from)| (&self.buffer[*at..at + len], *from))
    }
}

/// Sends the first datagrams as one, which the network card, or the kernel just before it, segments again
/// (UDP_SEGMENT); returns how many they were. All have the length of the first, except the last, which may be shorter.
fn send_whole<'a, A: SockaddrLike>(
    socket: RawFd,
    datagrams: impl Iterator<Item = &'a [u8]>,
    to: Option<&A>,
) -> Result<usize, Errno> {
    let mut slices: Vec<IoSlice> = Vec::with_capacity(BATCH);
    let (mut each, mut total) = (0, 0);
    for datagram in datagrams.take(BATCH) {
        if slices.is_empty() {
            each = datagram.len();
        }
        if datagram.len() > each || total + datagram.len() > MOST {
            break;
        }
        total += datagram.len();
        slices.push(IoSlice::new(datagram));
        if datagram.len() < each {
            break;
        }
    }
    let size = each as u16;
    let control = [ControlMessage::UdpGsoSegments(&size)];
    let control = if slices.len() > 1 { &control[..] } else { &[] };
    let sent = sendmsg(socket, &slices, control, MsgFlags::MSG_DONTWAIT, to);
    went(sent.map(|_| slices.len()))
}

/// Sends datagrams.
#[derive(Debug)]
pub struct SendBatch<A> {
    headers: MultiHeaders<A>,
    gso: bool,
}

impl<A> SendBatch<A> {
    /// Groups datagrams of the same length, if they can then be sent as one.
    pub fn sort<T>(&self, datagrams: &mut [T], length: impl Fn(&T) -> usize) {
        if self.gso {
            datagrams.sort_by_key(|datagram| std::cmp::Reverse(length(datagram)));
        }
    }
}

impl SendBatch<()> {
    /// For connected sockets.
    pub fn connected(gso: bool) -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            gso,
        }
    }

    /// Sends to the connected address; returns how many datagrams were sent.
    pub fn send<'a>(
        &mut self,
        socket: RawFd,
        datagrams: impl Iterator<Item = &'a [u8]>,
    ) -> Result<usize, Errno> {
        if self.gso {
            return send_whole::<()>(socket, datagrams, None);
        }
        let slices: Vec<[IoSlice; 1]> = datagrams.take(BATCH).map(|d| [IoSlice::new(d)]).collect();
        let sent = sendmmsg(
            socket,
            &mut self.headers,
            slices.iter(),
            [None; BATCH],
            [],
            MsgFlags::MSG_DONTWAIT,
        );
        went(sent.map(Iterator::count))
    }
}

impl SendBatch<SockaddrStorage> {
    /// For sockets that answer many clients.
    pub fn addressed(gso: bool) -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            gso,
        }
    }

    /// Sends each datagram to its address; returns how many were sent.
    pub fn send_to<'a>(
        &mut self,
        socket: RawFd,
        datagrams: impl Iterator<Item = (&'a [u8], Option<SockaddrStorage>)>,
    ) -> Result<usize, Errno> {
        let mut datagrams = datagrams.take(BATCH).peekable();
        if self.gso {
            let to = datagrams.peek().and_then(|(_, to)| *to);
            let same = datagrams.take_while(|datagram| datagram.1 == to);
            return send_whole(socket, same.map(|(datagram, _)| datagram), to.as_ref());
        }
        let (slices, to): (Vec<_>, Vec<_>) = datagrams
            .map(|(datagram, to)| ([IoSlice::new(datagram)], to))
            .unzip();
        let sent = sendmmsg(
            socket,
            &mut self.headers,
            slices.iter(),
            to,
            [],
            MsgFlags::MSG_DONTWAIT,
        );
        went(sent.map(Iterator::count))
    }
}

/// A full queue is not an error: the rest is retried.
fn went(sent: nix::Result<usize>) -> Result<usize, Errno> {
    match sent {
        Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => Ok(0),
        sent => sent,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn datagrams_sent_together_arrive_unchanged() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        enable_gro(&receiver).unwrap();
        let mut send_batch = SendBatch::connected(true);
        let mut sent: Vec<Vec<u8>> = (0..BATCH as u8)
            .map(|i| vec![i; 30 + 5 * (i as usize % 3)])
            .collect();
        send_batch.sort(&mut sent, Vec::len);
        let mut left = &sent[..];
        let mut calls = 0;
        while !left.is_empty() {
            let datagrams = left.iter().map(Vec::as_slice);
            left = &left[send_batch.send(sender.as_raw_fd(), datagrams).unwrap()..];
            calls += 1;
        }
        // The first datagram of each shorter length ends the group before it.
        assert_eq!(calls, 3);
        let mut recv_batch: RecvBatch<SockaddrStorage> = RecvBatch::new(true);
        assert_eq!(recv_batch.receive(receiver.as_raw_fd()), Ok(BATCH));
        let received: Vec<&[u8]> = recv_batch
            .datagrams()
            .map(|(datagram, _)| datagram)
            .collect();
        assert_eq!(received, sent);
        assert_eq!(recv_batch.receive(receiver.as_raw_fd()), Ok(0));
    }
}
