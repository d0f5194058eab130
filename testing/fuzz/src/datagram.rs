// SPDX-License-Identifier: GPL-2.0-only
//! A UDP datagram: both receive paths give the same replies, in valid frames, and no reply is a request that another
//! server would answer for ever.

use hippos_engine::PlanOutcome;
use hippos_proto::udp::{DATAGRAM_MAX, FRAME};

use crate::common::{self, fast, planned, play, slow, TestEngine, WHOLE};
use crate::engine;

pub(crate) const SEEDS: &[&[u8]] = &[
    b"\x12\x34\0\0\0\x01\0\0get a\r\n",
    b"\x12\x34\0\0\0\x01\0\0get a none big big a\r\nget none\r\n",
    b"\x12\x34\0\0\0\x01\0\0get a bb none\r\n",
    b"\x12\x34\0\0\0\x01\0\0gets a bb\r\n",
    b"\x12\x34\0\0\0\x01\0\0mg a v s t f c k O123 q\r\nmn\r\n",
    b"\x12\x34\0\0\0\x01\0\0set a 0 0 3\r\nabc\r\n",
    b"\x12\x34\0\0\0\x02\0\0get a\r\n",
    b"\x12\x34\0\0\0\x01\0\0END\r\n",
    b"\x12\x34\0\0\0\x01\0\0\x80\x0c\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\0\0\0\0\0a",
    b"\x12\x34\0\0\0\x01\0\0stats\r\n",
];

/// An engine with a few items in it.
fn filled() -> TestEngine {
    let engine = engine();
    let big = "x".repeat(5000);
    let items =
        format!("set a 0 0 1\r\nA\r\nset bb 17 0 4\r\n0123\r\nset big 1 0 5000\r\n{big}\r\n");
    play(&engine, items.as_bytes(), WHOLE);
    engine
}

pub(crate) fn datagram(payload: &[u8]) {
    let fast = [fast(&filled(), payload), planned(&filled(), payload)];
    let slow = slow(&filled(), payload);
    for (verdict, fast) in fast {
        match verdict {
            PlanOutcome::Answer => assert_eq!(fast, slow, "the receive paths differ"),
            PlanOutcome::Silent | PlanOutcome::Invalid => {
                assert!(slow.is_empty(), "{verdict:?}, but answered");
            }
            PlanOutcome::Pass => {}
        }
    }
    for (sequence, reply) in slow.iter().enumerate() {
        assert!(reply.len() >= FRAME && reply.len() <= DATAGRAM_MAX);
        assert_eq!(reply[..2], payload[..2], "the reply has another request id");
        let field = |at: usize| usize::from(u16::from_be_bytes([reply[at], reply[at + 1]]));
        // A reply that closes the session is a frame alone, of no datagrams.
        if reply.len() > FRAME {
            assert_eq!((field(2), field(4)), (sequence, slow.len()));
        }
    }
    // With a forged source address one server's reply may be another's request, but only once.
    let echo = |replies: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let again = replies
            .iter()
            .flat_map(|reply| common::slow(&filled(), reply));
        again.collect()
    };
    assert!(echo(&echo(&slow)).is_empty(), "two servers would not stop");
}
