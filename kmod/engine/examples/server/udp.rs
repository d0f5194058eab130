// SPDX-License-Identifier: GPL-2.0-only
//! The UDP receive path: the fast path comes first, and works in the request's own buffer.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use hippos_engine::{DatagramRequest, Message, Out, Pass, REPLY_HEADER_MAX};

use crate::host::Server;

/// More than the bytes of one datagram.
const DATAGRAM: usize = 1 << 16;

/// A reply of any length.
#[derive(Default)]
struct Whole {
    bytes: Vec<u8>,
    most: usize,
}

impl Out for Whole {
    fn room(&self) -> usize {
        self.most - self.bytes.len()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl Message for Whole {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// Serves datagrams forever.
pub(crate) fn serve(engine: &Server, socket: &UdpSocket) {
    let mut buffer = vec![0; DATAGRAM];
    let mut whole = Whole {
        bytes: Vec::new(),
        most: engine.udp_bytes() + REPLY_HEADER_MAX,
    };
    loop {
        let (len, peer) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(_) => continue,
        };
        let packet = InPlace {
            socket,
            peer,
            buffer: &mut buffer,
            len,
        };
        if !engine.answer(&engine.store.read(), packet) {
            slow(engine, socket, peer, &buffer[..len], &mut whole);
        }
    }
}

/// A datagram in its buffer, answered as in softirq: the reply overwrites the request.
struct InPlace<'a> {
    socket: &'a UdpSocket,
    peer: SocketAddr,
    buffer: &'a mut [u8],
    len: usize,
}

impl DatagramRequest for InPlace<'_> {
    /// Whether the datagram is done and the socket's worker need not serve it.
    type Verdict = bool;

    fn payload(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn source(&self) -> IpAddr {
        self.peer.ip()
    }

    fn source_ipv4(&self) -> u32 {
        0
    }

    // This server has no allow list: all sources are allowed.
    fn is_local(&self) -> bool {
        true
    }

    fn cpu(&self) -> usize {
        0
    }

    fn limit(&self) -> usize {
        usize::MAX
    }

    fn pass(self, _: Pass) -> bool {
        false
    }

    fn discard(self) -> bool {
        true
    }

    fn consume(self) -> bool {
        true
    }

    fn reply(self, len: usize, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let wrote = write(&mut self.buffer[..len]);
        // A client that has gone is not an error.
        let _ = self.socket.send_to(&self.buffer[..wrote], self.peer);
        true
    }

    fn reply_many(
        self,
        count: u16,
        len: usize,
        mut write: impl FnMut(u16, &mut [u8]) -> usize,
    ) -> bool {
        for index in (0..count).rev() {
            let wrote = write(index, &mut self.buffer[..len]);
            let _ = self.socket.send_to(&self.buffer[..wrote], self.peer);
        }
        true
    }
}

/// Serves a datagram like the UDP socket's worker.
fn slow(engine: &Server, socket: &UdpSocket, peer: SocketAddr, request: &[u8], whole: &mut Whole) {
    whole.clear();
    let Some(reply) = engine.datagram(request, whole) else {
        return;
    };
    for index in 0..reply.datagrams() {
        let (frame, part) = reply.datagram(index, &whole.bytes);
        let _ = socket.send_to(&[&frame, part].concat(), peer);
    }
    engine.note_sent(&reply, reply.datagrams());
}
