// SPDX-License-Identifier: GPL-2.0-only
//! UDP in process context: the datagrams that the fast path passed.

use hippos_invariant::Exact;
use hippos_proto::reply::{self, Out};
use hippos_proto::udp::{self, Frame, DATA_MAX, FRAME};
use hippos_store::Platform;

use crate::counters::EngineCounter;
use crate::host_stats::Refusal;
use crate::refusals::RefusalCounter;
use crate::reply::REPLY_HEADER_MAX;
use crate::session::state::{Next, Session, Transport};
use crate::Engine;

/// Ticks of the store's clock, of a second each, after which the rest of a datagram's commands is dropped. There is one
/// worker, and a datagram of 64 KiB holds some thousand commands, of which each may wait for memory or look at many
/// items.
const SECONDS_MAX: u32 = 2;

/// A sink that holds a whole reply, because the frame of the first datagram has the number of datagrams.
pub trait Message: Out {
    /// Bytes written so far.
    fn len(&self) -> usize;

    /// Whether nothing is written.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Discards them.
    fn clear(&mut self);
}

/// The reply to a datagram: the id for the contents of the [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramReply {
    id: u16,
    len: usize,
}

impl DatagramReply {
    /// The number of datagrams of the reply. At least one: a `quit` is answered by a frame alone.
    pub fn datagrams(&self) -> u16 {
        u16::try_from(udp::datagrams(self.len).max(1)).unwrap_or(u16::MAX)
    }

    /// Bytes of the message that the first `count` datagrams contain.
    pub fn message_bytes(&self, count: u16) -> usize {
        usize::from(count).mul_exact(DATA_MAX).min(self.len)
    }

    /// Bytes of the first `count` datagrams, with their frames.
    pub fn bytes(&self, count: u16) -> usize {
        let frames = usize::from(count).mul_exact(FRAME);
        self.message_bytes(count).add_exact(frames)
    }

    /// Frame and part of the message that make up datagram `index`.
    pub fn datagram<'m>(&self, index: u16, message: &'m [u8]) -> ([u8; FRAME], &'m [u8]) {
        let total = if self.len == 0 { 0 } else { self.datagrams() };
        let start = usize::from(index).mul_exact(DATA_MAX);
        let rest = message.get(start..).unwrap_or(&[]);
        let part = rest.get(..DATA_MAX).unwrap_or(rest);
        (udp::reply_frame(self.id, index, total), part)
    }
}

/// A message with a maximum length.
struct Capped<'a, M> {
    message: &'a mut M,
    limit: usize,
}

impl<M: Message> Out for Capped<'_, M> {
    fn room(&self) -> usize {
        self.limit
            .saturating_sub(self.message.len())
            .min(self.message.room())
    }

    fn put(&mut self, bytes: &[u8]) {
        self.message.put(bytes);
    }
}

impl<P: Platform> Engine<P> {
    /// Serves a datagram, `payload` with its frame, and leaves the reply in `message`. The message is empty, and should
    /// have space for [`udp_bytes`](Self::udp_bytes) and [`REPLY_HEADER_MAX`]; with less, longer replies are refused.
    /// `None` if there is no reply to send; [`note_sent`](Self::note_sent) counts one that was. Process context; may
    /// sleep.
    pub fn datagram(&self, payload: &[u8], message: &mut impl Message) -> Option<DatagramReply> {
        let frame = Frame::parse(payload);
        let Some((frame, data)) = frame.filter(|(f, data)| f.total == 1 && !udp::is_reply(data))
        else {
            self.tally(EngineCounter::UdpInvalid, 1);
            return None;
        };
        if self.authentication() {
            self.count_refused(RefusalCounter::UdpSources);
            self.host_stats.refused(self.udp_number(), Refusal::Login);
            return None;
        }
        self.tally(EngineCounter::UdpDatagrams, 1);
        let most = self.udp_bytes();
        let mut session = Session::new(self, Transport::Udp);
        let mut out = Capped {
            limit: most.add_exact(REPLY_HEADER_MAX),
            message,
        };
        let began = self.store.now();
        let over = || self.store.now().wrapping_sub(began) >= SECONDS_MAX;
        let fed = session.feed_until(data, &mut out, over);
        // After the last command, being late makes no difference.
        let whole = fed.consumed == data.len() && session.idle();
        let refused = if message.len() > most || session.too_large_for_udp {
            Some(Refusal::ReplyTooLarge)
        } else if fed.next != Next::Write || whole {
            None
        } else if over() {
            Some(Refusal::TooSlow)
        } else {
            Some(Refusal::ReplyTooLarge)
        };
        if let Some(why) = refused {
            let (counter, line) = match why {
                Refusal::TooSlow => (EngineCounter::UdpTooSlow, reply::UDP_TOO_SLOW),
                _ => (EngineCounter::UdpTooLarge, reply::UDP_TOO_LARGE),
            };
            self.tally(counter, 1);
            self.host_stats.refused(self.udp_number(), why);
            message.clear();
            message.put(line);
        }
        let len = message.len();
        let reply = (len != 0 || session.quit()).then_some(DatagramReply { id: frame.id, len });
        // The session has counted the bytes after the frame.
        self.tally(EngineCounter::BytesRead, FRAME as u64);
        reply
    }

    /// Counts that the first `count` datagrams of a reply were sent, and no more.
    pub fn note_sent(&self, reply: &DatagramReply, count: u16) {
        self.tally(EngineCounter::BytesWritten, reply.bytes(count) as u64);
        if count < reply.datagrams() {
            self.tally(EngineCounter::UdpIncomplete, 1);
        }
    }
}
