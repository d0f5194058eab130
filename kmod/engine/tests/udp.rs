// SPDX-License-Identifier: GPL-2.0-only
//! UDP: the fast path gives the worker's replies, in valid frames.

mod common;

use common::{
    engine, engine_from, engine_with, fast, framed, message, planned, say, slow, Packet, Small,
    TestEngine,
};
use hippos_engine::{
    EngineCounter, Limiter, Message, Out, PlanOutcome, Session, Settings, Sources, SourcesChange,
    Transport, REPLY_HEADER_MAX,
};
use hippos_proto::{Argument, Flag, GetEffect, FLAGS};
use hippos_store::{Config, Eviction};
use proptest::prelude::*;

/// An engine with a few items in it.
fn filled() -> TestEngine {
    let engine = engine();
    say(
        &engine,
        "set a 0 0 1\r\nA\r\nset bb 17 0 20\r\n01234567890123456789\r\nset e 4294967295 0 0\r\n\r\n\
         ms Zm9v 2 b\r\nhi\r\nset t 0 50 3\r\nttl\r\n",
    );
    let big = "x".repeat(5000);
    say(&engine, &format!("set big 1 0 5000\r\n{big}\r\n"));
    engine
}

/// A binary request of a key alone.
fn binary(opcode: u8, key: &[u8], opaque: u32) -> Vec<u8> {
    let mut packet = vec![0x80, opcode, 0, key.len() as u8, 0, 0, 0, 0, 0, 0, 0];
    packet.push(key.len() as u8);
    packet.extend_from_slice(&opaque.to_be_bytes());
    packet.extend_from_slice(&[0; 8]);
    packet.extend_from_slice(key);
    packet
}

#[test]
fn the_fast_path_answers_as_the_worker_does() {
    let long = "k".repeat(250);
    let binaries = [
        binary(0x00, b"a", 1),
        binary(0x09, b"a", 2),
        binary(0x0c, b"bb", 4),
        binary(0x0c, b"none", 5),
        [
            binary(0x0d, b"a", 6),
            binary(0x0d, b"none", 7),
            binary(0x0d, b"e", 8),
            binary(0x0a, b"", 9),
        ]
        .concat(),
    ];
    let mut cases: Vec<Vec<u8>> = binaries.to_vec();
    for line in [
        "get a\r\n",
        "get a\n",
        "get bb\r\n",
        "get e\r\n",
        "get big\r\n",
        "get none\r\n",
        "get a bb none e a\r\n",
        "gets a bb none\r\n",
        "  get   a  bb \r\n",
        "bget a\r\n",
        "get a\0bb\r\n",
        "get a\tbb\r\n",
        "get a\r\nget bb\r\nget",
        "get a\r\nmn\r\nmg a v\r\n",
        "mg a\r\n",
        "mg a v s t f c k O123 q\r\n",
        "mg none k O5\r\n",
        "mg none\r\nmn\r\n",
        "mg bb k v q\r\nmg none k v q\r\nmg a k v q\r\nmn\r\n",
        "mg Zm9v b k v\r\n",
        "mg YmFy b k\r\n",
        "mg foo k\r\n",
        "mg big v\r\n",
        "mg t t u\r\n",
        "mn\r\n",
    ] {
        cases.push(line.into());
    }
    cases.push(format!("get {long}\r\n").into());
    for case in cases {
        let (one, other) = (filled(), filled());
        let (verdict, datagrams) = fast(&one, &framed(&case));
        assert_eq!(
            verdict,
            PlanOutcome::Answer,
            "{:?}",
            String::from_utf8_lossy(&case)
        );
        let want = slow(&other, &framed(&case));
        assert_eq!(datagrams, want, "{:?}", String::from_utf8_lossy(&case));
        assert_eq!(message(&datagrams), message(&want));
        for line in ["get_hits", "get_misses", "cmd_get"] {
            let count = |engine| {
                let stats = say(engine, "stats\r\n");
                let from = stats.find(line).unwrap();
                stats[from..].lines().next().unwrap().to_string()
            };
            assert_eq!(
                count(&one),
                count(&other),
                "{:?}",
                String::from_utf8_lossy(&case)
            );
        }
        assert_eq!(one.engine_counted(EngineCounter::FastDatagrams), 1);
        assert_eq!(other.engine_counted(EngineCounter::UdpDatagrams), 1);
        assert_eq!(
            one.engine_counted(EngineCounter::FastCommands),
            other.engine_counted(EngineCounter::UdpCommands)
        );
    }
}

#[test]
fn fast_path_passes_each_flag_that_changes_the_item() {
    let uses = |flag: &&Flag| flag.commands.split(' ').any(|command| command == "mg");
    for flag in FLAGS.iter().filter(uses) {
        let letter = char::from(flag.letter);
        let argument = match flag.argument {
            Argument::None | Argument::Ignored => "",
            Argument::Mode => "S",
            _ => "99",
        };
        let writes = flag.effect == GetEffect::Writes;
        let mut changed = false;
        // An item that expires sooner than that, and none.
        let keys = match letter {
            'b' => ["Zm9v", "YmFy"],
            _ => ["t", "none"],
        };
        for key in keys {
            let line = format!("mg {key} {letter}{argument}\r\n");
            let (verdict, _) = fast(&filled(), &framed(line.as_bytes()));
            let passes = verdict == PlanOutcome::Pass;
            assert_eq!(passes, writes, "{line:?}: {verdict:?}");
            let look = format!("mg {key} t c v\r\n");
            let (before, after) = (say(&filled(), &look), say(&filled(), &(line + &look)));
            changed |= !after.ends_with(&before);
        }
        assert_eq!(changed, writes, "{letter}");
    }
}

#[test]
fn fast_path_passes_these_requests() {
    let engine = filled();
    for (line, answer) in [
        ("set a 0 0 1\r\nB\r\n", "STORED\r\n"),
        ("set a 0 0 1\r\nB", ""),
        ("set a 0 0 1 noreply\r\nB\r\n", ""),
        ("delete e\r\n", "DELETED\r\n"),
        ("gat 0 a\r\n", "VALUE a 0 1\r\nB\r\nEND\r\n"),
        ("mg a T30 t\r\n", "HD t30\r\n"),
        ("mg new N30 t\r\n", "HD t30 W\r\n"),
        ("mg a v v\r\n", "CLIENT_ERROR duplicate flag\r\n"),
        ("version\r\n", "VERSION 1.6.38\r\n"),
        ("bogus\r\n", "ERROR\r\n"),
        ("\r\n", "ERROR\r\n"),
        ("get\r\n", "ERROR\r\n"),
        (
            "get a\r\nversion\r\n",
            "VALUE a 0 1\r\nB\r\nEND\r\nVERSION 1.6.38\r\n",
        ),
        ("GET / HTTP/1.1\r\n", ""),
        ("version\r\nquit\r\nversion\r\n", "VERSION 1.6.38\r\n"),
    ] {
        let payload = framed(line.as_bytes());
        assert_eq!(
            fast(&engine, &payload),
            (PlanOutcome::Pass, vec![]),
            "{line:?}"
        );
        let got = message(&slow(&engine, &payload));
        assert_eq!(String::from_utf8_lossy(&got), answer, "{line:?}");
    }
    let key = "k".repeat(251);
    let payload = framed(format!("get a {key}\r\n").as_bytes());
    assert_eq!(fast(&engine, &payload).0, PlanOutcome::Pass);
    assert_eq!(
        message(&slow(&engine, &payload)),
        b"CLIENT_ERROR bad command line format\r\n"
    );
    // A `quit` is answered by a frame without data.
    assert_eq!(
        slow(&engine, &framed(b"quit\r\n")),
        [b"\x12\x34\0\0\0\0\0\0"]
    );
    // A line as long as the datagram is valid.
    let line = format!("version {}\r\n", "x".repeat(3000));
    assert_eq!(
        message(&slow(&engine, &framed(line.as_bytes()))),
        b"VERSION 1.6.38\r\n"
    );
}

#[test]
fn invalid_datagram_gets_no_reply() {
    let engine = filled();
    let requests = [
        b"".to_vec(),
        b"1234567".to_vec(),
        b"\x12\x34\0\0\0\x01\0\0".to_vec(),
        b"\x12\x34\0\0\0\x02\0\0get a\r\n".to_vec(),
        b"\x12\x34\0\0\0\0\0\0get a\r\n".to_vec(),
        b"\x12\x34\0\x01\0\x02\0\0get a\r\n".to_vec(),
    ];
    let replies = [
        "ERROR\r\n",
        "CLIENT_ERROR bad command line format\r\n",
        "SERVER_ERROR object too large for cache\r\n",
        "VALUE a 0 1\r\nA\r\nEND\r\n",
        "END\r\n",
        "STORED\r\n",
        "EN\r\n",
        "HD\r\n",
        "VA 1\r\nA\r\n",
        "12\r\n",
        "OK\r\n",
        "VERSION 1.6.38\r\n",
        "STAT pid 1\r\nEND\r\n",
        "\u{81}",
    ];
    let mut all = requests.to_vec();
    all.extend(replies.map(|line| framed(&line.chars().map(|c| c as u8).collect::<Vec<_>>())));
    for payload in &all {
        assert_eq!(fast(&engine, payload).0, PlanOutcome::Pass, "{payload:?}");
        assert_eq!(
            planned(&engine, payload).0,
            PlanOutcome::Invalid,
            "{payload:?}"
        );
        assert_eq!(slow(&engine, payload), Vec::<Vec<u8>>::new(), "{payload:?}");
    }
    // Counted by the last receive path.
    assert_eq!(
        engine.engine_counted(EngineCounter::UdpInvalid),
        all.len() as u64
    );
    // Without a line end there is no reply.
    assert_eq!(fast(&engine, &framed(b"get a")).0, PlanOutcome::Pass);
    assert!(slow(&engine, &framed(b"get a")).is_empty());
    // For a list of any length; over TCP more of it could follow.
    let list = framed(format!("get{}", " a".repeat(2000)).as_bytes());
    assert_eq!(fast(&engine, &list).0, PlanOutcome::Pass);
    assert_eq!(slow(&engine, &list), Vec::<Vec<u8>>::new());
    // Sequence number and reserved field are ignored.
    let payload = b"\x12\x34\0\x07\0\x01\0\x09get a\r\n";
    assert_eq!(
        message(&fast(&engine, payload).1),
        b"VALUE a 0 1\r\nA\r\nEND\r\n"
    );
}

#[test]
fn quiet_misses_get_no_reply() {
    let engine = filled();
    for case in [
        b"mg none q\r\n".to_vec(),
        binary(0x09, b"none", 1),
        binary(0x0d, b"none", 1),
    ] {
        assert_eq!(fast(&engine, &framed(&case)), (PlanOutcome::Silent, vec![]));
        assert!(slow(&engine, &framed(&case)).is_empty());
    }
}

/// A sink in which each reply takes a second.
struct Slow<'e>(&'e TestEngine, Vec<u8>);

impl Out for Slow<'_> {
    fn room(&self) -> usize {
        usize::MAX
    }
    fn put(&mut self, bytes: &[u8]) {
        let now = self.0.store.now();
        self.0.store.tick(now - 1, 1_700_000_000 + i64::from(now));
        self.1.extend_from_slice(bytes);
    }
}

impl Message for Slow<'_> {
    fn len(&self) -> usize {
        self.1.len()
    }
    fn clear(&mut self) {
        self.1.clear();
    }
}

#[test]
fn commands_of_a_datagram_end_when_they_take_too_long() {
    let engine = engine();
    let ask = |count: usize| {
        let mut out = Slow(&engine, Vec::new());
        let request = framed("verbosity 1\r\n".repeat(count).as_bytes());
        assert!(engine.datagram(&request, &mut out).is_some());
        String::from_utf8(out.1).unwrap()
    };
    assert_eq!(ask(1), "OK\r\n");
    // The time is over, but no command is left.
    assert_eq!(ask(2), "OK\r\nOK\r\n");
    for count in [3, 4000] {
        let before = engine.engine_counted(EngineCounter::UdpCommands);
        assert_eq!(
            ask(count),
            "SERVER_ERROR request takes too long for UDP\r\n"
        );
        assert_eq!(
            engine.engine_counted(EngineCounter::UdpCommands),
            before + 2
        );
    }
    assert_eq!(engine.engine_counted(EngineCounter::UdpTooSlow), 2);
    assert_eq!(engine.engine_counted(EngineCounter::UdpTooLarge), 0);
}

#[test]
fn of_a_reply_only_sent_datagrams_count() {
    let engine = engine();
    say(
        &engine,
        &format!("set key 0 0 3000\r\n{}\r\n", "v".repeat(3000)),
    );
    let text = 3000 + "VALUE key 0 3000\r\n\r\nEND\r\n".len();
    let written = || engine.engine_counted(EngineCounter::BytesWritten) as usize;
    for (sent, bytes, incomplete) in [(0, 0, 1), (1, 1400, 2), (2, 2800, 3), (3, text + 3 * 8, 3)] {
        let before = written();
        let mut out = Small::new(engine.udp_bytes() + REPLY_HEADER_MAX);
        let reply = engine.datagram(&framed(b"get key\r\n"), &mut out).unwrap();
        assert_eq!((reply.datagrams(), written()), (3, before));
        engine.note_sent(&reply, sent);
        assert_eq!(reply.message_bytes(sent), bytes - 8 * usize::from(sent));
        assert_eq!(written() - before, bytes);
        assert_eq!(
            engine.engine_counted(EngineCounter::UdpIncomplete),
            incomplete
        );
    }
}

#[test]
fn reply_is_capped_by_udp_limits() {
    let engine = engine_with(Settings {
        fast_bytes: 8000,
        udp_bytes: 20_000,
        ..Settings::default()
    });
    let big = "x".repeat(5000);
    say(&engine, &format!("set big 1 0 5000\r\n{big}\r\n"));
    let one = framed(b"get big\r\n");
    assert_eq!(fast(&engine, &one).0, PlanOutcome::Answer);
    assert_eq!(fast(&engine, &one).1.len(), 4);
    // Repeated keys count each time.
    let two = framed(b"get big big\r\n");
    assert_eq!(fast(&engine, &two), (PlanOutcome::Pass, vec![]));
    assert_eq!(slow(&engine, &two).len(), 8);
    let many = framed(format!("get{}\r\n", " big".repeat(100)).as_bytes());
    assert_eq!(fast(&engine, &many), (PlanOutcome::Pass, vec![]));
    let error = b"SERVER_ERROR reply too large for UDP\r\n";
    assert_eq!(message(&slow(&engine, &many)), error);
    let dump = framed(b"lru_crawler metadump all\r\n");
    assert_eq!(message(&slow(&engine, &dump)).last(), Some(&b'\n'));
    // A limit that is set applies to both.
    assert!(
        !engine.set_udp_limits(1391, 8),
        "less than a datagram holds"
    );
    assert!(
        !engine.set_udp_limits(20_001, 8),
        "more than was made room for"
    );
    assert!(!engine.set_udp_limits(20_000, 0));
    assert!(engine.set_udp_limits(20_000, 1));
    assert_eq!(engine.udp_bytes(), 1392);
    assert_eq!(fast(&engine, &one), (PlanOutcome::Pass, vec![]));
    assert_eq!(message(&slow(&engine, &one)), error);
    assert_eq!(message(&slow(&engine, &framed(b"stats\r\n"))), error);
    assert_eq!(
        message(&slow(&engine, &framed(b"version\r\n"))),
        b"VERSION 1.6.38\r\n"
    );
    assert_eq!(engine.engine_counted(EngineCounter::UdpTooLarge), 3);
    assert!(engine.set_udp_limits(20_000, 15));
    // One of them alone leaves the other as it is; a wrong one changes none.
    assert!(engine.change_udp_limits(None, Some(14)));
    assert_eq!(engine.udp_limits(), (20_000, 14));
    assert!(engine.change_udp_limits(Some(19_999), None));
    assert!(!engine.change_udp_limits(Some(1392), Some(0)));
    assert_eq!(engine.udp_limits(), (19_999, 14));
    engine.set_udp_rates(5000, 6000);
    engine.change_udp_rates(Some(7000), None);
    assert_eq!(engine.udp_rates(), (7000, 6000));
    engine.change_udp_rates(None, Some(8000));
    assert_eq!(engine.udp_rates(), (7000, 8000));
    engine.set_udp_rates(0, 0);
    assert!(engine.set_udp_limits(20_000, 15));
    assert_eq!(fast(&engine, &one).1.len(), 4);
    // Except for the marks of a hit, nothing is counted twice.
    assert!(say(&engine, "stats\r\n").contains("STAT get_hits "));
}

#[test]
fn a_token_is_won_once() {
    let engine = filled();
    say(&engine, "md a I T30\r\n");
    // The token would be lost if the receive path could not send the reply, so the worker serves it.
    for first in [&b"mg a\r\nmn\r\n"[..], b"mg a t\r\n"] {
        assert_eq!(fast(&engine, &framed(first)).0, PlanOutcome::Pass);
    }
    assert_eq!(
        message(&slow(&engine, &framed(b"mg a t\r\n"))),
        b"HD t30 X W\r\n"
    );
    assert_eq!(
        message(&fast(&engine, &framed(b"mg a t\r\nmn\r\n")).1),
        b"HD t30 Z X\r\nMN\r\n"
    );
}

#[test]
fn a_reply_with_more_keys_than_a_plan_holds_passes() {
    let engine = filled();
    let keys = |n| framed(format!("get{}\r\n", " a".repeat(n)).as_bytes());
    let want = |n| format!("{}END\r\n", "VALUE a 0 1\r\nA\r\n".repeat(n)).into_bytes();
    for n in [1, 15, 16, 17, 32, 63] {
        assert_eq!(message(&fast(&engine, &keys(n)).1), want(n), "{n}");
        assert_eq!(message(&planned(&engine, &keys(n)).1), want(n), "{n}");
    }
    for n in [64, 65, 100] {
        assert_eq!(fast(&engine, &keys(n)).0, PlanOutcome::Pass, "{n}");
        assert_eq!(message(&slow(&engine, &keys(n))), want(n), "{n}");
    }
    // Misses take no space.
    let misses = framed(format!("get a{}\r\n", " none".repeat(200)).as_bytes());
    assert_eq!(message(&fast(&engine, &misses).1), want(1));
}

proptest! {
    /// For any payload, the fast path and the worker give the same reply if both reply.
    #[test]
    fn the_fast_path_agrees_with_the_worker_for_any_payload(data: Vec<u8>) {
        let engine = filled();
        let payload = framed(&data);
        if let (PlanOutcome::Answer, datagrams) = fast(&engine, &payload) {
            prop_assert_eq!(datagrams, slow(&engine, &payload));
        }
    }

    /// For any combination of words.
    #[test]
    fn the_fast_path_agrees_with_the_worker_for_any_words(words in proptest::collection::vec("get|gets|mg|a|bb|big|none|v|k|q|s|t|Zm9v|b|O1|\r\n|mn\r\n", 1..12)) {
        let engine = filled();
        let payload = framed(format!("{}\r\n", words.join(" ")).as_bytes());
        let (verdict, datagrams) = fast(&engine, &payload);
        let other = slow(&engine, &payload);
        match verdict {
            PlanOutcome::Answer => prop_assert_eq!(datagrams, other),
            PlanOutcome::Silent | PlanOutcome::Invalid => prop_assert!(other.is_empty()),
            PlanOutcome::Pass => {}
        }
    }
}

/// The fast path has a reply but no buffer for it: the socket's worker serves the datagram.
#[test]
fn a_reply_without_a_buffer_is_counted_once() {
    use hippos_store::{ClassCounter, Counter};
    let engine = engine();
    say(
        &engine,
        "set key_number_one 0 0 1\r\nx\r\nset two 0 0 1\r\nx\r\n",
    );
    let hits = || engine.store.classes_counted(ClassCounter::GetHits);
    let misses = || engine.store.counted(Counter::GetMisses);
    for (request, hit, missed) in [
        ("get key_number_one\r\n", 1, 0),
        ("get two\r\n", 1, 0),
        ("get none\r\n", 0, 1),
        ("get two none key_number_one\r\n", 2, 1),
        ("gets two\r\n", 1, 0),
        ("mg two v\r\nmg none v\r\n", 1, 1),
    ] {
        let payload = framed(request.as_bytes());
        let before = (
            hits(),
            misses(),
            engine.engine_counted(EngineCounter::FastDatagrams),
        );
        let packet = Packet {
            memory: false,
            ..Packet::new(&payload)
        };
        let answered = engine.answer(&engine.store.read(), packet);
        assert_eq!(answered.verdict, PlanOutcome::Pass, "{request}");
        slow(&engine, &payload);
        let after = (
            hits(),
            misses(),
            engine.engine_counted(EngineCounter::FastDatagrams),
        );
        assert_eq!(
            after,
            (before.0 + hit, before.1 + missed, before.2),
            "{request}"
        );
    }
}

/// The worker knows the length of a reply with a value before the command changes anything.
#[test]
fn a_miss_whose_reply_is_too_large_for_udp_creates_no_item() {
    let engine = engine_with(Settings {
        fast_bytes: 1392,
        udp_bytes: 1392,
        ..Settings::default()
    });
    let mut refused = 0;
    for len in 1300..=1392 {
        let value = "v".repeat(len);
        say(&engine, &format!("set filler 0 0 {len}\r\n{value}\r\n"));
        let got = message(&slow(&engine, &framed(b"get filler\r\nmg k N30 v c\r\n")));
        let state = say(&engine, "mg k t\r\n");
        if got == b"SERVER_ERROR reply too large for UDP\r\n" {
            assert_eq!(state, "EN\r\n", "{len}");
            refused += 1;
        } else {
            assert_eq!(state, "HD t30 Z\r\n", "{len}");
            say(&engine, "md k\r\n");
        }
    }
    assert!((30..90).contains(&refused), "{refused}");
}

#[test]
fn a_value_too_large_for_udp_gives_out_no_token_and_changes_no_expiry() {
    const ERROR: &[u8] = b"SERVER_ERROR reply too large for UDP\r\n";
    // GATK, of 50 seconds.
    let mut gatk = vec![0x80, 0x23, 0, 1, 4, 0, 0, 0, 0, 0, 0, 5];
    gatk.extend([0; 12]);
    gatk.extend([0, 0, 0, 50, b'k']);
    let mut commands = vec![gatk];
    for line in [
        "mg k v\r\n",
        "mg k v s t c f O123 k T50\r\n",
        "mg k v R200\r\n",
        "gat 50 k\r\n",
        "gats 50 k\r\n",
        "gats 50 k none\r\n",
        "mn\r\ngat 50 k\r\n",
        "get filler\r\nmg k s t T50\r\n",
    ] {
        commands.push(line.into());
    }
    let engine = engine_with(Settings {
        fast_bytes: 1392,
        udp_bytes: 1392,
        ..Settings::default()
    });
    for command in commands {
        let name = String::from_utf8_lossy(&command);
        let mut longest = 0;
        let mut refused = 0;
        for len in (1300..=1392).chain([5000]) {
            let value = "v".repeat(len);
            let stale = format!(
                "set filler 0 0 {len}\r\n{value}\r\nms k {len} T100\r\n{value}\r\nmd k I\r\n"
            );
            assert_eq!(say(&engine, &stale), "STORED\r\nHD\r\nHD\r\n");
            let got = message(&slow(&engine, &framed(&command)));
            let state = say(&engine, "mg k t h u\r\n");
            if got == ERROR {
                assert_eq!(state, "HD t100 h0 X W\r\n", "{name:?} {len}");
                refused += 1;
            } else {
                assert_ne!(state, "HD t100 h0 X W\r\n", "{name:?} {len}");
                assert!(got.len() <= 1392);
                longest = longest.max(got.len());
            }
        }
        assert_eq!(longest, 1392, "{name:?}");
        assert!(refused > 1, "{name:?}");
    }
    // No command behind it is served, not even behind a GATK that has a value where none belongs.
    let mut gatk = vec![0x80, 0x23, 0, 1, 4, 0, 0, 0, 0, 0, 0, 6];
    gatk.extend([0; 12]);
    gatk.extend([0, 0, 0, 50, b'k', b'z']);
    let delete = binary(4, b"filler", 0);
    let then = framed(&[&gatk[..], &delete].concat());
    assert_eq!(message(&slow(&engine, &then)), ERROR);
    assert_ne!(say(&engine, "get filler\r\n"), "END\r\n");
    let before = engine.engine_counted(EngineCounter::UdpTooLarge);
    let then = framed(b"mg k v\r\nset k 0 0 1\r\nx\r\n");
    assert_eq!(message(&slow(&engine, &then)), ERROR);
    assert_eq!(
        say(&engine, "mg k s\r\n"),
        "HD s5000 X Z\r\n".replace("X Z", "Z X")
    );
    assert_eq!(
        engine.engine_counted(EngineCounter::UdpTooLarge),
        before + 1
    );
}

/// The next receive path answers the datagram, and shows the item as it was: no client has received a reply yet.
#[test]
fn a_datagram_that_passes_leaves_no_mark_of_a_read() {
    const XDP: usize = 1400;
    const ANY: usize = usize::MAX;
    let value = "v".repeat(2000);
    for (request, limit, memory) in [
        ("mg key_of_it h l\r\nset x 0 0 1\r\n1\r\n", ANY, true),
        ("get key_of_it\r\nset x 0 0 1\r\n1\r\n", ANY, true),
        ("mg key_of_it h v\r\n", XDP, true),
        ("get key_of_it\r\n", XDP, true),
        ("get key_of_it none\r\n", XDP, true),
        ("gets key_of_it\r\n", XDP, true),
        ("  get key_of_it\r\n", XDP, true),
        ("mg key_of_it h\r\n", ANY, false),
        ("get key_of_it\r\n", ANY, false),
        ("get short_one\r\n", ANY, false),
        ("get short_one none\r\n", ANY, false),
        ("gets short_one\r\n", ANY, false),
    ] {
        let engine = engine();
        say(&engine, &format!("set key_of_it 0 0 2000\r\n{value}\r\n"));
        say(&engine, "set short_one 0 0 1\r\nx\r\n");
        let packet = Packet {
            limit,
            memory,
            ..Packet::new(&framed(request.as_bytes()))
        };
        let answered = engine.answer(&engine.store.read(), packet);
        assert_eq!(answered.verdict, PlanOutcome::Pass, "{request}");
        for key in ["key_of_it", "short_one"] {
            let seen = say(&engine, &format!("mg {key} h u\r\n"));
            assert_eq!(seen, "HD h0\r\n", "{request} {limit} {memory}");
        }
    }
    for key in [&b"key_of_it"[..], b"short_one"] {
        let engine = engine();
        say(&engine, &format!("set key_of_it 0 0 2000\r\n{value}\r\n"));
        say(&engine, "set short_one 0 0 1\r\nx\r\n");
        let packet = Packet {
            memory: false,
            ..Packet::new(&framed(&binary(0, key, 1)))
        };
        engine.answer(&engine.store.read(), packet);
        let key = String::from_utf8_lossy(key);
        assert_eq!(say(&engine, &format!("mg {key} h u\r\n")), "HD h0\r\n");
    }
}

#[test]
fn a_read_shows_in_later_commands_of_its_datagram() {
    for (request, verdict, answer) in [
        (
            "mg a h\r\nmg a h\r\n",
            PlanOutcome::Pass,
            "HD h0\r\nHD h1\r\n",
        ),
        (
            "get a\r\nmg a h\r\n",
            PlanOutcome::Pass,
            "VALUE a 0 1\r\nA\r\nEND\r\nHD h1\r\n",
        ),
        (
            "mg a h u\r\nmg bb h\r\nmg a h\r\n",
            PlanOutcome::Answer,
            "HD h0\r\nHD h0\r\nHD h0\r\n",
        ),
        (
            "mg a s\r\nmg a s\r\n",
            PlanOutcome::Answer,
            "HD s1\r\nHD s1\r\n",
        ),
    ] {
        let engine = filled();
        let (done, datagrams) = fast(&engine, &framed(request.as_bytes()));
        assert_eq!(done, verdict, "{request}");
        let got = match done {
            PlanOutcome::Pass => message(&slow(&engine, &framed(request.as_bytes()))),
            _ => message(&datagrams),
        };
        assert_eq!(String::from_utf8_lossy(&got), answer, "{request}");
        assert_eq!(say(&engine, "mg a h\r\n"), "HD h1\r\n", "{request}");
    }
}

/// S3-FIFO counts hits: an item that was read once is evicted before it reaches the main queue.
#[test]
fn a_reply_that_takes_several_attempts_is_one_hit() {
    type Read = fn(&TestEngine, &[u8]);
    let over_udp: Read = |engine, line| {
        assert_eq!(fast(engine, &framed(line)).0, PlanOutcome::Answer);
    };
    let over_tcp: Read = |engine, line| {
        let mut session = Session::new(engine, Transport::Tcp);
        let mut out = Small::new(REPLY_HEADER_MAX);
        let mut line = line;
        while !line.is_empty() || session.is_sending() {
            let fed = session.feed(line, &mut out);
            line = &line[fed.consumed..];
            out.clear();
        }
    };
    let value = "v".repeat(3000);
    for (line, read) in [
        ("get key_of_it\r\n", over_udp),
        ("get key_of_it none\r\n", over_udp),
        ("gets key_of_it\r\n", over_udp),
        ("mg key_of_it v\r\n", over_udp),
        ("get key_of_it\r\n", over_tcp),
        ("gat 0 key_of_it\r\n", over_tcp),
        ("mg key_of_it v\r\n", over_tcp),
    ] {
        for (times, left) in [(1, "END\r\n"), (2, "VALUE")] {
            let config = Config {
                memory: 8 << 20,
                eviction: Eviction::S3Fifo,
                ..Config::default()
            };
            let engine = engine_from(config, Settings::default());
            say(&engine, &format!("set key_of_it 0 0 3000\r\n{value}\r\n"));
            for _ in 0..times {
                read(&engine, line.as_bytes());
            }
            for i in 0..6000 {
                let set = format!("set other{i} 0 0 3000 noreply\r\n{value}\r\n");
                assert_eq!(say(&engine, &set), "");
            }
            let got = say(&engine, "get key_of_it\r\n");
            assert!(got.starts_with(left), "{line} {times}: {got:.20}");
        }
    }
}

/// A packet from another host.
fn from(source: &str, request: &[u8]) -> Packet {
    Packet {
        source: source.parse().unwrap(),
        local: false,
        ..Packet::new(&framed(request))
    }
}

fn listed() -> TestEngine {
    let engine = engine_with(Settings {
        sources: Box::leak(Box::new(Sources::new())),
        limiter: Box::leak(Box::new(Limiter::new())),
        ..Settings::default()
    });
    let list = b"10.0.0.0/8,fd00::/8";
    engine.change_sources(SourcesChange::Set, list).unwrap();
    say(
        &engine,
        "set key_number_one 0 0 1\r\nx\r\nset two 0 0 1\r\nx\r\nget key_number_one two\r\n",
    );
    engine
}

const REQUESTS: [&[u8]; 4] = [
    b"get key_number_one\r\n",
    b"get two\r\n",
    b"get key_number_one two\r\n",
    b"mg two v\r\n",
];

#[test]
fn each_form_of_request_from_an_unlisted_source_passes() {
    let engine = listed();
    for request in REQUESTS {
        for (source, verdict) in [
            ("10.1.2.3", PlanOutcome::Answer),
            ("fd00::1", PlanOutcome::Answer),
            ("11.1.2.3", PlanOutcome::Pass),
            ("fe00::1", PlanOutcome::Pass),
        ] {
            let answered = engine.answer(&engine.store.read(), from(source, request));
            assert_eq!(
                answered.verdict,
                verdict,
                "{source}: {}",
                request.escape_ascii()
            );
        }
    }
}

#[test]
fn sources_of_both_address_families_get_the_same_replies() {
    let engine = listed();
    let answer = |source, request| engine.answer(&engine.store.read(), from(source, request));
    for request in REQUESTS {
        assert_eq!(answer("10.1.2.3", request), answer("fd00::1", request));
    }
    // A request for whole words is answered by the inline get.
    assert_eq!(answer("fd00::1", REQUESTS[0]).asked, 64);
}

#[test]
fn each_form_of_request_from_a_source_over_its_rate_limit_is_discarded() {
    let engine = listed();
    engine.set_udp_rates(0, 5);
    for request in REQUESTS {
        for source in ["10.1.2.3", "fd00::1"] {
            let before = engine.engine_counted(EngineCounter::UdpLimited);
            let answered = engine.answer(&engine.store.read(), from(source, request));
            assert_eq!(answered.verdict, PlanOutcome::Invalid, "{source}");
            assert_eq!(
                engine.engine_counted(EngineCounter::UdpLimited),
                before + 1,
                "{source}"
            );
        }
    }
}

#[test]
fn a_reply_without_a_buffer_is_not_charged() {
    let engine = listed();
    // Enough for each reply once, but not for a hundred.
    engine.set_udp_rates(0, 500);
    for (number, request) in REQUESTS.iter().enumerate() {
        let source = format!("10.1.3.{number}");
        let without_room = Packet {
            memory: false,
            ..from(&source, request)
        };
        for _ in 0..100 {
            let passed = engine.answer(&engine.store.read(), without_room.clone());
            assert_eq!(passed.verdict, PlanOutcome::Pass, "{request:?}");
        }
        let answered = engine.answer(&engine.store.read(), from(&source, request));
        assert_eq!(answered.verdict, PlanOutcome::Answer, "{request:?}");
    }
}

#[test]
fn each_form_of_reply_charges_the_bytes_that_it_sends() {
    const RATE: u32 = 1400;
    for request in [
        "get nothing\r\n",
        "get a b\r\n",
        "mg nothing v\r\n",
        "mn\r\n",
    ] {
        let engine = listed();
        engine.change_sources(SourcesChange::Set, b"any").unwrap();
        engine.set_udp_rates(RATE, RATE);
        let mut sent = 0;
        let sent = loop {
            let answer = engine.answer(&engine.store.read(), from("8.8.8.8", request.as_bytes()));
            if answer.verdict != PlanOutcome::Answer {
                break sent;
            }
            sent += answer.datagrams.iter().map(Vec::len).sum::<usize>();
        };
        let rate = RATE as usize;
        assert!(
            (rate - 100..=rate).contains(&sent),
            "{request:?}: {sent} bytes"
        );
    }
}

#[test]
fn a_reply_above_a_packet_s_limit_passes() {
    let engine = listed();
    for request in &REQUESTS[1..] {
        let packet = Packet {
            limit: 12,
            ..from("10.1.2.3", request)
        };
        let answered = engine.answer(&engine.store.read(), packet);
        assert_eq!(
            answered.verdict,
            PlanOutcome::Pass,
            "{}",
            request.escape_ascii()
        );
    }
}
