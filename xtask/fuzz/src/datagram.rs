//! A UDP datagram: both doors answer alike, in right frames, and no answer is
//! one that another server would answer for ever.

use hippos_engine::{Engine, Plan, Verdict, HEAD_ROOM};
use hippos_proto::udp::{DATAGRAM_MAX, FRAME};
use hippos_store::host::Host;

use crate::client::{engine, play, Small};

pub(crate) const SEEDS: &[&[u8]] = &[
    b"\x12\x34\0\0\0\x01\0\0get a\r\n",
    b"\x12\x34\0\0\0\x01\0\0get a none big big a\r\nget none\r\n",
    b"\x12\x34\0\0\0\x01\0\0gets a bb\r\n",
    b"\x12\x34\0\0\0\x01\0\0mg a v s t f c k O123 q\r\nmn\r\n",
    b"\x12\x34\0\0\0\x01\0\0set a 0 0 3\r\nabc\r\n",
    b"\x12\x34\0\0\0\x02\0\0get a\r\n",
    b"\x12\x34\0\0\0\x01\0\0END\r\n",
    b"\x12\x34\0\0\0\x01\0\0\x80\x0c\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\0\0\0\0\0a",
    b"\x12\x34\0\0\0\x01\0\0stats\r\n",
];

/// An engine with a few items in it.
fn filled() -> Engine<Host> {
    let engine = engine();
    let big = "x".repeat(5000);
    let items =
        format!("set a 0 0 1\r\nA\r\nset bb 17 0 4\r\n0123\r\nset big 1 0 5000\r\n{big}\r\n");
    play(&engine, items.as_bytes(), usize::MAX, 1 << 16);
    engine
}

pub(crate) fn datagram(payload: &[u8]) {
    let (one, other) = (filled(), filled());
    let (verdict, fast) = fast(&one, payload);
    let slow = slow(&other, payload);
    match verdict {
        Verdict::Answer => assert_eq!(fast, slow, "the doors differ"),
        Verdict::Silent | Verdict::Drop => assert!(slow.is_empty(), "{verdict:?}, but answered"),
        Verdict::Pass => {}
    }
    for (sequence, reply) in slow.iter().enumerate() {
        assert!(reply.len() >= FRAME && reply.len() <= DATAGRAM_MAX);
        assert_eq!(reply[..2], payload[..2], "somebody else's number");
        let field = |at: usize| usize::from(u16::from_be_bytes([reply[at], reply[at + 1]]));
        // A goodbye is a frame alone, of no datagrams.
        if reply.len() > FRAME {
            assert_eq!((field(2), field(4)), (sequence, slow.len()));
        }
    }
    // A forged source may make one server's answer another's question, once.
    let echo = |replies: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let again = replies
            .iter()
            .flat_map(|reply| self::slow(&filled(), reply));
        again.collect()
    };
    assert!(echo(&echo(&slow)).is_empty(), "two servers would not stop");
}

/// The datagrams that the hook answers with.
fn fast(engine: &Engine<Host>, payload: &[u8]) -> (Verdict, Vec<Vec<u8>>) {
    let guard = engine.store.read();
    if let Some(single) = engine.single(&guard, payload, usize::MAX) {
        let mut packet = vec![0xaa; single.len()];
        assert_eq!(single.write(&mut packet), packet.len());
        return (Verdict::Answer, vec![packet]);
    }
    Plan::with(|plan| {
        let verdict = engine.plan(&guard, payload, usize::MAX, plan);
        let mut datagrams = Vec::new();
        if verdict == Verdict::Answer {
            for index in 0..plan.datagrams() {
                let mut packet = vec![0xaa; plan.datagram_len(index)];
                assert_eq!(plan.write(index, &mut packet), packet.len());
                datagrams.push(packet);
            }
        }
        (verdict, datagrams)
    })
}

/// The datagrams that the socket's worker answers with.
fn slow(engine: &Engine<Host>, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut message = Small {
        waiting: Vec::new(),
        most: engine.udp_bytes() + HEAD_ROOM,
    };
    let Some(reply) = engine.datagram(payload, &mut message) else {
        return Vec::new();
    };
    (0..reply.datagrams())
        .map(|index| {
            let (frame, part) = reply.datagram(index, &message.waiting);
            [&frame, part].concat()
        })
        .collect()
}
