// SPDX-License-Identifier: GPL-2.0-only
//! Requests and replies as trace points show them. Used only while trace points are on.

use core::ffi::CStr;
use core::net::SocketAddr;

use hippos_engine::{outcome, PrintableKey, Summary};
use hippos_invariant::Exact;
use hippos_kapi::trace;

const _: () = assert!(PrintableKey::MAX == trace::KEY_TEXT_MAX);

/// Receive paths, as trace points name them.
pub(crate) const UDP_SOCKET: &CStr = c"udp";
pub(crate) const TCP_WORKER: &CStr = c"tcp_worker";
pub(crate) const TCP_CALLBACK: &CStr = c"tcp_callback";

/// A request that is being served.
pub(crate) struct TracedRequest {
    path: &'static CStr,
    client: SocketAddr,
    command: &'static str,
    key: PrintableKey,
}

impl TracedRequest {
    /// That came by `path` from `client`.
    pub(crate) fn new(path: &'static CStr, client: SocketAddr, summary: Summary<'_>) -> Self {
        Self {
            path,
            client,
            command: summary.command,
            key: PrintableKey::new(summary.key),
        }
    }

    /// Traces it: so many commands were served with it, in so many nanoseconds.
    pub(crate) fn trace(&self, replied: &Replied, commands: u32, ns: u64) {
        trace::RequestEvent {
            path: self.path,
            client: self.client,
            command: self.command,
            key: trace::TracedKey {
                text: self.key.text(),
                len: self.key.key_len(),
            },
            outcome: replied.outcome(self.command),
            commands,
            bytes: replied.bytes,
            ns,
        }
        .emit();
    }
}

/// The traced properties of replies: their bytes without frames, and the start of the first one.
#[derive(Default)]
pub(crate) struct Replied {
    bytes: usize,
    /// The first bytes of the first reply: as many as a binary response's header has.
    first: [u8; 24],
    noted: usize,
}

impl Replied {
    /// Adds a reply, or a part of one.
    pub(crate) fn note(&mut self, reply: &[u8]) {
        if self.bytes == 0 {
            for (to, from) in self.first.iter_mut().zip(reply) {
                *to = *from;
            }
            self.noted = reply.len().min(self.first.len());
        }
        self.bytes = self.bytes.add_exact(reply.len());
    }

    /// Records a reply with values, of `bytes` bytes, whose contents are not at hand.
    pub(crate) fn note_values(&mut self, bytes: usize) {
        self.note(b"VALUE");
        self.bytes = bytes;
    }

    /// Bytes of all replies.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn outcome(&self, command: &str) -> &'static str {
        outcome(command, self.first.get(..self.noted).unwrap_or(&[]))
    }
}
