// SPDX-License-Identifier: GPL-2.0-only
//! The UDP door: the fast path first, in the request's own buffer.

use std::net::{SocketAddr, UdpSocket};

use hippos_engine::{Message, Out, Plan, Verdict, HEAD_ROOM};

use crate::Server;

/// A datagram's worth of bytes, and then some.
const DATAGRAM: usize = 1 << 16;

/// A reply as long as it takes.
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

/// Serves datagrams for ever.
pub(crate) fn serve(engine: &Server, socket: &UdpSocket) {
    let mut buffer = vec![0; DATAGRAM];
    let mut whole = Whole {
        bytes: Vec::new(),
        most: engine.udp_bytes() + HEAD_ROOM,
    };
    loop {
        let (len, peer) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(_) => continue,
        };
        if !fast(engine, socket, peer, &mut buffer, len) {
            slow(engine, socket, peer, &buffer[..len], &mut whole);
        }
    }
}

/// As softirq does it: the reply is written over the request. `false` when
/// the datagram is passed on.
fn fast(
    engine: &Server,
    socket: &UdpSocket,
    peer: SocketAddr,
    buffer: &mut [u8],
    len: usize,
) -> bool {
    let guard = engine.store.read();
    if let Some(single) = engine.single(&guard, &buffer[..len], usize::MAX) {
        engine.count_single(&single);
        let wrote = single.write(buffer);
        assert_eq!(wrote, single.len(), "a datagram's length");
        let _ = socket.send_to(&buffer[..wrote], peer);
        return true;
    }
    if let Some(many) = engine.many(&guard, &buffer[..len], usize::MAX) {
        engine.count_many(&many);
        let wrote = many.write(buffer);
        assert!(wrote <= many.bound(), "a datagram's length");
        let _ = socket.send_to(&buffer[..wrote], peer);
        return true;
    }
    Plan::with(|plan| {
        let verdict = engine.plan(&guard, &buffer[..len], usize::MAX, plan);
        if matches!(verdict, Verdict::Answer | Verdict::Silent) {
            engine.count_plan(plan);
        }
        if verdict == Verdict::Answer {
            for index in 0..plan.datagrams() {
                let want = plan.datagram_len(index);
                let wrote = plan.write(index, buffer);
                assert_eq!(wrote, want, "a datagram's length");
                // A client that is gone is nobody's fault.
                let _ = socket.send_to(&buffer[..wrote], peer);
            }
        }
        verdict != Verdict::Pass
    })
}

/// As the UDP socket's worker does it.
fn slow(engine: &Server, socket: &UdpSocket, peer: SocketAddr, request: &[u8], whole: &mut Whole) {
    whole.clear();
    let Some(reply) = engine.datagram(request, whole) else {
        return;
    };
    for index in 0..reply.datagrams() {
        let (frame, part) = reply.datagram(index, &whole.bytes);
        let _ = socket.send_to(&[&frame, part].concat(), peer);
    }
}
