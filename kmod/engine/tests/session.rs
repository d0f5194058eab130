// SPDX-License-Identifier: GPL-2.0-only
//! Scripted sessions: requests and expected replies, for any cuts.

mod common;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use common::{engine, play, say, Client, Cut, InPlaceOut, Small, TestEngine, BYTEWISE, WHOLE};
use hippos_engine::{Next, Session, Transport, REPLY_HEADER_MAX};
use hippos_store::{ClassCounter, Expiry};

/// Sessions whose replies were recorded from memcached 1.6.38, each on a new server, with the CAS values of a new
/// server.
const SCRIPTS: &[(&str, &str)] = &[
    (
        "set a 5 0 3\r\nabc\r\nget a b\r\ngets a\r\n",
        "STORED\r\nVALUE a 5 3\r\nabc\r\nEND\r\nVALUE a 5 3 1\r\nabc\r\nEND\r\n",
    ),
    (
        "add a 0 0 1\r\nx\r\nadd a 0 0 1\r\ny\r\nreplace b 0 0 1\r\nz\r\nreplace a 0 0 1\r\nw\r\nget a\r\n",
        "STORED\r\nNOT_STORED\r\nNOT_STORED\r\nSTORED\r\nVALUE a 0 1\r\nw\r\nEND\r\n",
    ),
    (
        "set a 7 0 2\r\nbc\r\nappend a 0 0 1\r\nd\r\nprepend a 0 0 1\r\na\r\nget a\r\nappend b 0 0 1\r\nx\r\n",
        "STORED\r\nSTORED\r\nSTORED\r\nVALUE a 7 4\r\nabcd\r\nEND\r\nNOT_STORED\r\n",
    ),
    (
        "cas a 0 0 1 1\r\nx\r\nset a 0 0 1\r\nx\r\ncas a 0 0 1 2\r\ny\r\ncas a 0 0 1 1\r\nz\r\nget a\r\n",
        "NOT_FOUND\r\nSTORED\r\nEXISTS\r\nSTORED\r\nVALUE a 0 1\r\nz\r\nEND\r\n",
    ),
    (
        "set n 0 0 2\r\n10\r\nincr n 5\r\ndecr n 6\r\nget n\r\ndecr n 100\r\nincr n 18446744073709551615\r\nincr n 2\r\nincr x 1\r\nset s 0 0 1\r\nx\r\nincr s 1\r\n",
        "STORED\r\n15\r\n9\r\nVALUE n 0 2\r\n9 \r\nEND\r\n0\r\n18446744073709551615\r\n1\r\nNOT_FOUND\r\nSTORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    ),
    (
        "delete a\r\nset a 0 0 1\r\nx\r\ndelete a\r\nget a\r\ntouch a 10\r\nset a 0 0 1\r\nx\r\ntouch a 10\r\ngat 0 a\r\n",
        "NOT_FOUND\r\nSTORED\r\nDELETED\r\nEND\r\nNOT_FOUND\r\nSTORED\r\nTOUCHED\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
    ),
    (
        "set a 0 0 2\r\nhixyz\r\nversion\r\nset a 0 0 2\nhi\nversion\r\n",
        "CLIENT_ERROR bad data chunk\r\nERROR\r\nVERSION 1.6.38\r\nCLIENT_ERROR bad data chunk\r\nERROR\r\n",
    ),
    (
        "set a 0 0 2 noreply\r\nhi\r\nset b x 0 2 noreply\r\ndelete c noreply\r\nincr a 1 noreply\r\nflush_all noreply\r\nget a\r\n",
        "END\r\n",
    ),
    (
        "\r\n\n  \r\nget\r\nGET a\r\nv\r\nset a\r\nset a 0 0 -1\r\n",
        "ERROR\r\nERROR\r\nERROR\r\nERROR\r\nERROR\r\nERROR\r\nERROR\r\nCLIENT_ERROR bad command line format\r\n",
    ),
    ("version\r\nquit\r\nversion\r\n", "VERSION 1.6.38\r\n<closed>"),
    ("version\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "VERSION 1.6.38\r\n<closed>"),
    (
        "ms a 2 c k O9 F5\r\nhi\r\nmg a v k f c s t O7\r\nmg b v k O1\r\nmg b v q\r\nmn\r\nmd a q\r\nmd a k O2\r\n",
        "HD c1 ka O9\r\nVA 2 ka f5 c1 s2 t-1 O7\r\nhi\r\nEN kb O1\r\nMN\r\nNF ka O2\r\n",
    ),
    (
        "ms a 1 T30\r\nx\r\nmd a I T20\r\nmg a t c\r\nmg a t\r\nms a 1 C1 I c\r\ny\r\nmg a v t\r\n",
        "HD\r\nHD\r\nHD t20 c2 X W\r\nHD t20 Z X\r\nHD c3\r\nVA 1 t20 Z X\r\ny\r\n",
    ),
    (
        "mg a v N30 t\r\nmg a v N30 t\r\nms a 1 T60\r\nx\r\nmg a R30\r\nmg a R90 t\r\nmg a R90\r\n",
        "VA 0 t30 W\r\n\r\nVA 0 t30 Z\r\n\r\nHD\r\nHD\r\nHD t60 W\r\nHD Z\r\n",
    ),
    (
        "ma n\r\nma n N0 J13 v t\r\nma n v D5 MD\r\nma n q\r\nma n C9 k\r\nma n E99 c\r\nma n C99 T30 t\r\nma n MX\r\n",
        "NF\r\nVA 2 t-1\r\n13\r\nVA 1\r\n8\r\nEX kn\r\nHD c99\r\nHD t30\r\nCLIENT_ERROR invalid mode for ma M token\r\n",
    ),
    (
        "ms Zm9v 2 b k\r\nhi\r\nmg foo k\r\nmg Zm9v b v\r\nme Zm8= b\r\n",
        "HD kZm9v b\r\nHD kZm9v b\r\nVA 2\r\nhi\r\nEN\r\n",
    ),
    (
        "ms a 1 MA\r\nx\r\nms a 1 MA N30 s\r\nx\r\nms a 2 MP s\r\nyz\r\nmg a v t\r\nms a 1 ME\r\nw\r\nms a 1 MX\r\nw\r\nmn\r\n",
        "NS\r\nHD s1\r\nHD s3\r\nVA 3 t30\r\nyzx\r\nNS\r\nCLIENT_ERROR invalid mode for ms M token\r\nMN\r\n",
    ),
    (
        "set a 0 0 1\r\nx\r\nset a 0 0 2000000\r\n",
        "STORED\r\n",
    ),
    (
        "verbosity 1\r\nverbosity\r\nshutdown\r\nslabs reassign 1 1\r\nlru tune 50 50 0.1 2\r\ncache_memlimit 7\r\nstats detail\r\nstats nope\r\n",
        "OK\r\nERROR\r\nERROR: shutdown not enabled\r\nSAME src and dst class are identical\r\nERROR hot and warm pcts must not exceed 80\r\nMEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\nCLIENT_ERROR usage: stats detail on|off|dump\r\nERROR\r\n",
    ),
];

#[test]
fn recorded_sessions_get_memcached_s_replies() {
    for (input, want) in SCRIPTS {
        for cut in [
            WHOLE,
            BYTEWISE,
            Cut {
                piece: 7,
                room: 1500,
            },
        ] {
            let engine = engine();
            let seen = play(&engine, input.as_bytes(), cut);
            let mut got = String::from_utf8(seen.output).unwrap();
            if seen.closed {
                got.push_str("<closed>");
            }
            assert_eq!(&got, want, "{input:?} {cut:?}");
        }
    }
}

#[test]
fn a_refused_set_deletes_the_old_value() {
    let engine = engine();
    let mut client = Client::new(&engine, 4096);
    client.send(b"set a 0 0 1\r\nx\r\nadd b 0 0 1\r\ny\r\nset a 0 0 1048577\r\n");
    // No reply is sent before the whole block has arrived.
    assert_eq!(client.seen.output, b"STORED\r\nSTORED\r\n");
    client.send(&vec![b'x'; 1_048_577]);
    assert_eq!(client.seen.output, b"STORED\r\nSTORED\r\n");
    client.send(b"\r\nget a b\r\n");
    assert_eq!(
        String::from_utf8_lossy(&client.seen.output),
        "STORED\r\nSTORED\r\nSERVER_ERROR object too large for cache\r\nVALUE b 0 1\r\ny\r\nEND\r\n"
    );
    assert!(say(&engine, "stats\r\n").contains("STAT store_too_large 1\r\n"));
}

/// The platform has no more blocks, and the only one cannot be drained: memcached's error, and its rule for the old
/// value. When memory is available again, stores succeed.
#[test]
fn without_memory_a_set_deletes_the_old_value() {
    let engine = engine();
    let store = &engine.store;
    assert_eq!(
        say(&engine, "set a 5 0 1\r\nx\r\nset b 0 0 1\r\ny\r\n"),
        "STORED\r\nSTORED\r\n"
    );
    let pin = {
        let guard = store.read();
        let item = store.get(&guard, b"b", store.hash(b"b")).unwrap();
        store.pin(&item).unwrap()
    };
    store.platform().allow_blocks(0);
    let large = "z".repeat(5000);
    let refused = "SERVER_ERROR out of memory storing object\r\n";
    for (request, answer) in [
        (
            format!("set a 5 0 5000\r\n{large}\r\nget a\r\n"),
            format!("{refused}END\r\n"),
        ),
        (
            format!("add c 5 0 5000\r\n{large}\r\nget c\r\n"),
            format!("{refused}END\r\n"),
        ),
        (
            format!("ms d 5000\r\n{large}\r\nmn\r\n"),
            format!("{refused}MN\r\n"),
        ),
        // As in memcached, `q` does not hide an error, but `noreply` does.
        (
            format!("ms d 5000 q\r\n{large}\r\nmn\r\n"),
            format!("{refused}MN\r\n"),
        ),
        (
            format!("set d 5 0 5000 noreply\r\n{large}\r\nmn\r\n"),
            "MN\r\n".into(),
        ),
        (
            format!("add d 5 0 5000 noreply\r\n{large}\r\nmn\r\n"),
            "MN\r\n".into(),
        ),
        (
            format!("cas d 5 0 5000 1 noreply\r\n{large}\r\nmn\r\n"),
            "MN\r\n".into(),
        ),
    ] {
        assert_eq!(say(&engine, &request), answer);
    }
    // SET, ADD, APPEND: memcached's text is not that of the status.
    for opcode in [1u8, 2, 0x0e] {
        let extras: usize = if opcode == 0x0e { 0 } else { 8 };
        let mut packet = vec![0x80, opcode, 0, 1, extras as u8, 0, 0, 0];
        packet.extend((extras as u32 + 1 + 5000).to_be_bytes());
        packet.extend([0; 12]);
        packet.extend(vec![0; extras]);
        packet.push(b'e');
        packet.extend(large.as_bytes());
        let output = play(&engine, &packet, WHOLE).output;
        assert_eq!(output[6..8], [0, 0x82], "{opcode}");
        assert_eq!(&output[24..], b"Out of memory allocating item", "{opcode}");
    }
    assert_eq!(pin.value(), b"y");
    assert!(say(&engine, "stats\r\n").contains("STAT store_no_memory 7\r\n"));
    drop(pin);
    let request = format!("set a 5 0 5000\r\n{large}\r\nget a\r\n");
    let answer = format!("STORED\r\nVALUE a 5 5000\r\n{large}\r\nEND\r\n");
    // The first request has deleted its old value: maintenance collects its slot.
    store.maintain();
    assert_eq!(say(&engine, &request), answer);
}

#[test]
fn large_values_are_received_and_sent_in_pieces() {
    let engine = engine();
    let value: Vec<u8> = (0..1_000_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let set = [b"set a 1 0 1000000\r\n", &value[..], b"\r\n"].concat();
    for piece in [1000, 4096, usize::MAX] {
        let cut = Cut { piece, room: 4096 };
        assert_eq!(play(&engine, &set, cut).output, b"STORED\r\n");
        let got = play(&engine, b"get a nope a\r\nmg a v s\r\nversion\r\n", cut).output;
        let one = [b"VALUE a 1 1000000\r\n", &value[..], b"\r\n"].concat();
        let meta = [b"VA 1000000 s1000000\r\n", &value[..], b"\r\n"].concat();
        let want = [&one[..], &one, b"END\r\n", &meta, b"VERSION 1.6.38\r\n"].concat();
        assert!(got == want, "{} bytes of {}", got.len(), want.len());
    }
}

#[test]
fn a_value_that_is_replaced_while_it_is_sent_stays_whole() {
    let engine = engine();
    let set = |byte: u8| [b"set a 0 0 500000\r\n", &vec![byte; 500_000][..], b"\r\n"].concat();
    play(&engine, &set(b'x'), WHOLE);
    let mut session = hippos_engine::Session::new(&engine, hippos_engine::Transport::Tcp);
    let mut out = common::Small::new(2048);
    let mut output = Vec::new();
    let mut input: &[u8] = b"get a\r\n";
    for turn in 0.. {
        let fed = session.feed(input, &mut out);
        input = &input[fed.consumed..];
        output.append(&mut out.waiting);
        if fed.next == hippos_engine::Next::Read {
            break;
        }
        if turn == 10 {
            play(&engine, &set(b'y'), WHOLE);
            // Memory that is free by now would be overwritten.
            for _ in 0..100 {
                engine.store.maintain();
            }
        }
    }
    let value = output.strip_prefix(b"VALUE a 0 500000\r\n").unwrap();
    let value = value.strip_suffix(b"\r\nEND\r\n").unwrap();
    assert!(value.iter().all(|&byte| byte == b'x'));
}

#[test]
fn thousands_of_keys_in_one_line_are_answered() {
    let engine = engine();
    let mut want = Vec::new();
    let mut line = b"gets".to_vec();
    for i in 0..3000 {
        let set = format!("set key{i} {i} 0 4\r\n{i:04}\r\n");
        assert_eq!(say(&engine, &set), "STORED\r\n");
        line.extend_from_slice(format!(" key{i} none{i} ").as_bytes());
        want.extend_from_slice(format!("VALUE key{i} {i} 4 {}\r\n{i:04}\r\n", i + 1).as_bytes());
    }
    want.extend_from_slice(b"END\r\nVERSION 1.6.38\r\n");
    for end in [&b"\r\n"[..], b"\n", b" \r\n", b"\0 key1 key2\r\n"] {
        let input = [&line[..], end, b"version\r\n"].concat();
        for cut in [
            WHOLE,
            BYTEWISE,
            Cut {
                piece: 1000,
                room: 1100,
            },
        ] {
            let seen = play(&engine, &input, cut);
            assert!(seen.output == want, "{cut:?} {end:?}");
        }
    }
}

#[test]
fn one_bad_key_refuses_the_whole_get() {
    let engine = engine();
    let long = "k".repeat(251);
    let bad = "CLIENT_ERROR bad command line format\r\n";
    say(&engine, "set a 0 0 1\r\nx\r\n");
    assert_eq!(say(&engine, &format!("get a {long} a\r\n")), bad);
    assert_eq!(say(&engine, &format!("get {}\r\n", &long[1..])), "END\r\n");
    // In a list that is answered while it arrives, the keys before it are answered.
    let many = "b ".repeat(1500);
    let line = format!("get a {many}{long} a\r\nversion\r\n");
    let want = format!("VALUE a 0 1\r\nx\r\n{bad}VERSION 1.6.38\r\n");
    for cut in [WHOLE, BYTEWISE] {
        let seen = play(&engine, line.as_bytes(), cut);
        assert_eq!(String::from_utf8(seen.output).unwrap(), want);
    }
    let line = format!("gat x {many}\r\nversion\r\n");
    let want = "CLIENT_ERROR invalid exptime argument\r\nVERSION 1.6.38\r\n";
    for cut in [WHOLE, BYTEWISE] {
        let seen = play(&engine, line.as_bytes(), cut);
        assert_eq!(String::from_utf8(seen.output).unwrap(), want);
    }
    let line = format!("gat 50 a {many}\r\nmg a t\r\n");
    let want = "VALUE a 0 1\r\nx\r\nEND\r\nHD t50\r\n";
    for cut in [WHOLE, BYTEWISE] {
        let seen = play(&engine, line.as_bytes(), cut);
        assert_eq!(String::from_utf8(seen.output).unwrap(), want);
    }
}

#[test]
fn a_line_without_an_end_closes_the_connection() {
    let engine = engine();
    for (start, closed) in [
        ("mg ", true),
        ("set ", true),
        ("x", true),
        ("\u{0}", true),
        ("get ", false),
        ("  gets ", false),
        ("gat 0 ", false),
    ] {
        for byte in ["a", " ", "aaaa ", "\0"] {
            let line = format!("{start}{}", byte.repeat(5000 / byte.len()));
            for cut in [WHOLE, BYTEWISE] {
                let seen = play(&engine, line.as_bytes(), cut);
                let blanks = line.find(|c| c != ' ').unwrap_or(line.len());
                assert_eq!(seen.closed, closed || blanks > 100, "{start:?} {byte:?}");
                assert_eq!(seen.output, b"");
            }
        }
    }
    // One byte less is accepted.
    let line = format!("{}\r\n", "a".repeat(2047));
    assert_eq!(
        play(&engine, line.as_bytes(), BYTEWISE).output,
        b"ERROR\r\n"
    );
}

#[test]
fn an_expired_or_flushed_item_is_a_miss() {
    let engine = engine();
    let tick = |t: u32| engine.store.tick(t, common::START + i64::from(t));
    let date = common::START + 150;
    say(
        &engine,
        &format!("set a 0 10 1\r\na\r\nset b 0 {date} 1\r\nb\r\nset c 0 -1 1\r\nc\r\nset d 0 0 1\r\nd\r\n"),
    );
    assert_eq!(
        say(&engine, "mg a t\r\nmg b t\r\nmg c t\r\nmg d t\r\n"),
        "HD t10\r\nHD t50\r\nEN\r\nHD t-1\r\n"
    );
    tick(109);
    assert_eq!(say(&engine, "mg a t\r\n"), "HD t1\r\n");
    tick(110);
    assert_eq!(say(&engine, "mg a t\r\nmg b t\r\n"), "EN\r\nHD t40\r\n");
    tick(150);
    assert_eq!(say(&engine, "mg b t\r\nmg d t\r\n"), "EN\r\nHD t-1\r\n");
    assert_eq!(
        say(&engine, "flush_all 5\r\nget d\r\n"),
        "OK\r\nVALUE d 0 1\r\nd\r\nEND\r\n"
    );
    // As in memcached, one second less.
    tick(153);
    assert_eq!(say(&engine, "mg d\r\n"), "HD\r\n");
    tick(154);
    assert_eq!(
        say(
            &engine,
            "get d\r\nset d 0 0 1\r\nd\r\nflush_all\r\nget d\r\n"
        ),
        "END\r\nSTORED\r\nOK\r\nEND\r\n"
    );
    assert_eq!(
        say(&engine, "flush_all x\r\nflush_all -1\r\n"),
        "CLIENT_ERROR invalid exptime argument\r\nOK\r\n"
    );
}

#[test]
fn statistics_are_the_same_in_pages_of_any_size() {
    let engine = engine();
    for i in 0..200 {
        say(
            &engine,
            &format!("set k{i} 0 0 {}\r\n{}\r\n", i * 40, "x".repeat(i * 40)),
        );
    }
    for what in [
        "stats",
        "stats settings",
        "stats items",
        "stats slabs",
        "lru_crawler metadump all",
    ] {
        let line = format!("{what}\r\n");
        let whole = play(&engine, line.as_bytes(), WHOLE).output;
        let small = play(&engine, line.as_bytes(), BYTEWISE).output;
        assert!(whole.ends_with(b"END\r\n"));
        let names = |output: &[u8]| -> Vec<String> {
            let lines = output.split(|&byte| byte == b'\n');
            let lines = lines.map(|line| String::from_utf8_lossy(line).into_owned());
            lines
                .map(|l| l.split(' ').take(2).collect::<String>())
                .collect()
        };
        assert_eq!(names(&whole), names(&small), "{what}");
    }
    let dump = say(&engine, "lru_crawler mgdump all\r\n");
    assert_eq!(dump.matches("mg k").count(), 200);
    assert!(dump.ends_with("\r\nEN\r\n"));
    let stats = say(&engine, "stats\r\n");
    for line in [
        "curr_items 200",
        "cmd_set 200",
        "get_hits 0",
        "version 1.6.38",
        "uptime 100",
    ] {
        assert!(
            stats.contains(&format!("STAT {line}\r\n")),
            "{line} in {stats}"
        );
    }
    assert_eq!(say(&engine, "stats reset\r\n"), "RESET\r\n");
    let stats = say(&engine, "stats\r\n");
    assert!(stats.contains("STAT cmd_set 0\r\n") && stats.contains("STAT curr_items 200\r\n"));
}

/// The reply to a command in pages of `room` bytes; `between` is called after each full one.
fn pages(
    engine: &TestEngine,
    command: &[u8],
    room: usize,
    mut between: impl FnMut(usize),
) -> String {
    let mut session = Session::new(engine, Transport::Tcp);
    let mut out = Small::new(room);
    let (mut text, mut input, mut page) = (Vec::new(), command, 0);
    loop {
        let fed = session.feed(input, &mut out);
        input = &input[fed.consumed..];
        text.append(&mut out.waiting);
        match fed.next {
            Next::Read => return String::from_utf8(text).unwrap(),
            Next::Write => {
                between(page);
                page += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// One item in each of many slab classes.
fn item_in_many_classes(engine: &TestEngine) {
    for len in [
        10, 2000, 4000, 8000, 16000, 32000, 64000, 100_000, 150_000, 200_000, 300_000,
    ] {
        say(
            engine,
            &format!("set k{len} 0 0 {len}\r\n{}\r\n", "x".repeat(len)),
        );
    }
}

#[test]
fn cmd_get_is_hits_and_misses_in_any_pages() {
    let engine = engine();
    for room in REPLY_HEADER_MAX..REPLY_HEADER_MAX + 2000 {
        let text = pages(&engine, b"stats\r\n", room, |_| {
            say(&engine, "get none\r\n");
        });
        let row = |name: &str| -> u64 {
            let start = format!("STAT {name} ");
            let mut lines = text.lines();
            lines
                .find_map(|line| line.strip_prefix(&start))
                .unwrap()
                .parse()
                .unwrap()
        };
        assert_eq!(
            row("cmd_get"),
            row("get_hits") + row("get_misses"),
            "room {room}"
        );
    }
}

#[test]
fn class_that_gets_a_slab_between_pages_repeats_no_row_of_another() {
    let engine = engine();
    item_in_many_classes(&engine);
    let text = pages(&engine, b"stats slabs\r\n", 4096, |page| {
        if page == 0 {
            say(
                &engine,
                &format!("set new 0 0 300\r\n{}\r\n", "x".repeat(300)),
            );
        }
    });
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    let all = names.len();
    assert!(all > 17 * 10, "{text}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{text}");
}

#[test]
fn class_that_empties_between_pages_hides_no_row_of_another() {
    let engine = engine();
    item_in_many_classes(&engine);
    let text = pages(&engine, b"stats items\r\n", 4096, |page| {
        if page == 0 {
            say(&engine, "delete k10\r\n");
        }
    });
    let rows = text
        .lines()
        .filter(|line| line.starts_with("STAT "))
        .count();
    assert!(rows >= 28 * 10 && rows % 28 == 0, "{rows} rows: {text}");
}

#[test]
fn commands_of_all_cpus_add_up_to_the_total() {
    let engine = engine();
    let get = common::framed(b"get none\r\n");
    for _ in 0..7 {
        say(&engine, "get none\r\n");
        common::fast(&engine, &get);
        common::slow(&engine, &get);
    }
    let commands = |text: &str, name: &str| -> u64 {
        let rows = text.lines().filter_map(|line| line.strip_prefix("STAT "));
        rows.filter_map(|row| row.split_once(' '))
            .filter(|(row, _)| row.ends_with(name))
            .map(|(_, count)| count.parse::<u64>().unwrap())
            .sum()
    };
    let shown = say(&engine, "stats hippos_cpus\r\n");
    let names = shown.lines().filter_map(|row| row.strip_prefix("STAT 0:"));
    let names: Vec<_> = names.map(|row| row.split(' ').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "hippos_udp_fast_commands",
            "hippos_udp_commands",
            "hippos_tcp_commands"
        ]
    );
    let total = say(&engine, "stats\r\n");
    for name in names {
        // The `stats` command itself.
        let asked = u64::from(name == "hippos_tcp_commands");
        let cpus = commands(&shown, &format!(":{name}"));
        assert!(cpus >= 7, "{name}: {cpus}");
        assert_eq!(commands(&total, name), cpus + asked, "{name}");
    }
}

#[test]
fn times_are_shown_by_receive_path_until_they_are_reset() {
    use hippos_engine::Interval;
    let engine = engine();
    let row = |name: &str| -> String {
        let text = say(&engine, "stats hippos_latency\r\n");
        assert_eq!(text.lines().count(), 1 + Interval::ALL.len() * 33 + 1);
        let start = format!("STAT {name} ");
        let line = text.lines().find(|line| line.starts_with(&start));
        line.expect(name)[start.len()..].to_owned()
    };
    assert_eq!(row("hippos_latency"), "off");
    for (interval, ns, requests) in [
        (Interval::XdpService, 60, 1),
        (Interval::XdpService, 81, 2),
        (Interval::XdpService, 96, 1),
        (Interval::XdpService, 3 << 30, 1),
        (Interval::TcpWorkerQueue, 1 << 30, 3),
    ] {
        engine.note_time(interval, ns, requests);
    }
    for (name, value) in [
        ("xdp:service:count", "5"),
        ("xdp:service:sum_ns", "3221225790"),
        ("xdp:service:p50_ns", "96"),
        ("xdp:service:p999_ns", "3221225472"),
        ("xdp:service:max_ns", "3221225472"),
        ("xdp:service:le_64", "1"),
        ("xdp:service:le_128", "0 3 0 0"),
        ("xdp:service:le_inf", "1"),
        ("tcp_worker:queue:count", "3"),
        ("tcp_worker:queue:le_1073741824", "0 0 0 3"),
        ("tcp_worker:service:count", "0"),
        ("prerouting:service:max_ns", "0"),
    ] {
        assert_eq!(row(name), value, "{name}");
    }
    engine.reset_times();
    assert_eq!(row("xdp:service:count"), "0");
    assert_eq!(row("tcp_worker:queue:max_ns"), "0");
    engine.note_time(Interval::UdpQueue, 100, 1);
    assert_eq!(row("udp:queue:count"), "1");
    say(&engine, "stats reset\r\n");
    assert_eq!(row("udp:queue:sum_ns"), "0");
    // `stats reset` of times resets nothing else.
    say(&engine, "get none\r\n");
    engine.reset_times();
    assert!(say(&engine, "stats\r\n").contains("STAT get_misses 1\r\n"));
}

#[test]
fn prefixes_are_counted_after_stats_detail_on() {
    let engine = common::engine_with(hippos_engine::Settings {
        prefixes: Box::leak(Box::new(hippos_engine::Prefixes::new())),
        ..Default::default()
    });
    let fast = |line: &[u8]| common::fast(&engine, &common::framed(line)).0;
    say(&engine, "set foo:1 0 0 1\r\nx\r\n");
    assert_eq!(
        say(&engine, "stats detail dump\r\nstats detail on\r\n"),
        "END\r\nOK\r\n"
    );
    // The fast path does not count by prefix, so it passes.
    assert_eq!(fast(b"get foo:1\r\n"), hippos_engine::PlanOutcome::Pass);
    say(
        &engine,
        "get foo:1 foo:2 bar:1 plain\r\nset bar:1 0 0 1\r\nx\r\ndelete bar:1\r\n",
    );
    let dump =
        "PREFIX foo get 2 hit 1 set 0 del 0\r\nPREFIX bar get 1 hit 0 set 1 del 1\r\nEND\r\n";
    assert_eq!(say(&engine, "stats detail dump\r\n"), dump);
    assert_eq!(
        say(&engine, "stats detail off\r\nget foo:1\r\n"),
        "OK\r\nVALUE foo:1 0 1\r\nx\r\nEND\r\n"
    );
    assert_eq!(say(&engine, "stats detail dump\r\n"), dump);
    assert_eq!(fast(b"get foo:1\r\n"), hippos_engine::PlanOutcome::Answer);
}

/// Counted by the first lookup that finds the item: after that memcached has removed it.
#[test]
fn expired_and_flushed_misses_are_counted_apart() {
    let engine = engine();
    say(
        &engine,
        "set a 0 -1 1\r\nx\r\nset b 0 0 1\r\nx\r\nget a none\r\nflush_all\r\nget b b\r\n",
    );
    let stats = say(&engine, "stats\r\n");
    for line in [
        "get_misses 4",
        "get_expired 1",
        "get_flushed 1",
        "cmd_get 4",
    ] {
        assert!(
            stats.contains(&format!("STAT {line}\r\n")),
            "{line} in {stats}"
        );
    }
}

/// Stores `count` small items, which then expire.
fn store_many(engine: &common::TestEngine, count: usize, exptime: i64) {
    let store = &engine.store;
    for i in 0..count {
        let key = format!("key-{i:05}");
        let hash = store.hash(key.as_bytes());
        let new = store.reserve(key.as_bytes(), hash, 0, store.expiry(exptime), 0);
        store
            .commit(new.unwrap(), &hippos_store::Commit::default())
            .unwrap();
    }
}

#[test]
fn a_dump_yields_between_matches() {
    let engine = engine();
    store_many(&engine, 40_000, -1);
    let class = engine.store.reserve(
        b"key-00000",
        engine.store.hash(b"key-00000"),
        0,
        hippos_store::Expiry::NEVER,
        0,
    );
    let class = class.unwrap().class() + 1;
    for (ask, end) in [
        ("lru_crawler metadump all\r\n".to_owned(), &b"END\r\n"[..]),
        (format!("lru_crawler mgdump {class}\r\n"), b"EN\r\n"),
        (format!("stats cachedump {class} 0\r\n"), b"END\r\n"),
    ] {
        let mut session = hippos_engine::Session::new(&engine, hippos_engine::Transport::Tcp);
        let mut out = common::Small::new(4096);
        let mut turns = 1;
        let mut fed = session.feed(ask.as_bytes(), &mut out);
        assert_eq!(fed.consumed, ask.len());
        while fed.next == hippos_engine::Next::Write {
            assert!(out.waiting.is_empty());
            turns += 1;
            fed = session.feed(b"", &mut out);
        }
        assert_eq!(
            (fed.next, &out.waiting[..]),
            (hippos_engine::Next::Read, end)
        );
        assert!(turns > 2, "{turns} turns");
    }
    // No class at all.
    assert_eq!(say(&engine, "stats cachedump 0 0\r\n"), "END\r\n");
}

/// With any number of items in other classes: over UDP too, where a reply of several turns is refused.
#[test]
fn a_dump_of_a_class_skips_other_classes() {
    let engine = engine();
    store_many(&engine, 40_000, 0);
    play(
        &engine,
        &[b"set large 0 0 9000\r\n", &[b'v'; 9000][..], b"\r\n"].concat(),
        WHOLE,
    );
    let large = engine.store.hash(b"large");
    let large = engine
        .store
        .reserve(b"large", large, 0, hippos_store::Expiry::NEVER, 9000);
    let class = large.unwrap().class() + 1;
    for (ask, end) in [
        ("lru_crawler metadump 63\r\n".to_owned(), "END\r\n"),
        ("lru_crawler mgdump 62,63\r\n".to_owned(), "EN\r\n"),
        ("stats cachedump 63 0\r\n".to_owned(), "END\r\n"),
        (
            format!("lru_crawler mgdump {class},63\r\n"),
            "mg large\r\nEN\r\n",
        ),
    ] {
        let answer = common::message(&common::slow(&engine, &common::framed(ask.as_bytes())));
        assert_eq!(String::from_utf8(answer).unwrap(), end, "{ask}");
    }
}

#[test]
fn a_reader_beyond_the_255_pins_of_an_item_gets_an_error() {
    let engine = engine();
    let set = [b"set a 0 0 40000\r\n", &[b'v'; 40_000][..], b"\r\n"].concat();
    play(&engine, &set, WHOLE);
    let ask = |input: &[u8]| {
        let mut session = hippos_engine::Session::new(&engine, hippos_engine::Transport::Tcp);
        let mut out = common::Small::new(2048);
        let next = session.feed(input, &mut out).next;
        (session, next, out.waiting)
    };
    let slow: Vec<_> = (0..255).map(|_| ask(b"get a\r\n")).collect();
    assert!(slow
        .iter()
        .all(|(_, next, _)| *next == hippos_engine::Next::Write));
    let error = b"SERVER_ERROR out of memory writing get response\r\n";
    for text in [&b"get a\r\n"[..], b"mg a v\r\n"] {
        assert_eq!(ask(text).2, error);
    }
    let mut get = vec![0x80, 0, 0, 1];
    get.extend([0; 4]);
    get.extend(1u32.to_be_bytes());
    get.extend([0; 12]);
    get.push(b'a');
    let (_, next, answer) = ask(&get);
    assert_eq!(next, hippos_engine::Next::Read);
    assert_eq!(answer[..2], [0x81, 0]);
    // Out of memory, and a body of the announced length.
    assert_eq!(answer[6..8], [0, 0x82]);
    let body = u32::from_be_bytes(answer[8..12].try_into().unwrap());
    assert_eq!(answer.len(), 24 + body as usize);
}

#[test]
fn refused_reply_gives_out_no_token_and_changes_no_expiry() {
    let engine = engine();
    let value = "v".repeat(40_000);
    let set = format!("ms k 40000 T100\r\n{value}\r\nmd k I\r\n");
    assert_eq!(say(&engine, &set), "HD\r\nHD\r\n");
    let ask = |input: &[u8]| {
        let mut session = Session::new(&engine, Transport::Tcp);
        let mut out = Small::new(2 * REPLY_HEADER_MAX);
        session.feed(input, &mut out);
        (session, out.waiting)
    };
    let slow: Vec<_> = (0..255).map(|_| ask(b"get k\r\n")).collect();
    let error = b"SERVER_ERROR out of memory writing get response\r\n";
    for command in [
        "mg k v",
        "mg k v T50",
        "mg k v R200",
        "gat 50 k",
        "gats 50 k other",
    ] {
        let (_, reply) = ask(format!("{command}\r\n").as_bytes());
        assert_eq!(reply, error, "{command}");
    }
    // GAT, of 50 seconds.
    let mut gat = vec![0x80, 0x1d, 0, 1, 4, 0, 0, 0];
    gat.extend(5u32.to_be_bytes());
    gat.extend([0; 12]);
    gat.extend([0, 0, 0, 50, b'k']);
    let (_, reply) = ask(&gat);
    assert_eq!(reply[6..8], [0, 0x82]);
    // Without the value there is nothing that has to be pinned.
    assert_eq!(say(&engine, "mg k t s\r\n"), "HD t100 s40000 X W\r\n");
    drop(slow);
    assert_eq!(say(&engine, "mg k t\r\n"), "HD t100 Z X\r\n");
}

/// As in memcached 1.6.38.
#[test]
fn command_over_an_item_counts_in_the_class_of_that_item() {
    let large = "y".repeat(5000);
    let cases = [
        (
            ClassCounter::CasHits,
            format!("cas k 0 0 5000 7\r\n{large}\r\n"),
        ),
        (
            ClassCounter::CasBadval,
            format!("cas k 0 0 5000 8\r\n{large}\r\n"),
        ),
        (
            ClassCounter::CasHits,
            format!("ms k 5000 C3 I\r\n{large}\r\n"),
        ),
    ];
    for (counter, command) in cases {
        let engine = engine();
        assert_eq!(say(&engine, "ms k 10 E7\r\n0123456789\r\n"), "HD\r\n");
        let classes = |counter| {
            let counted = |class: &usize| engine.store.class_counted(*class, counter) != 0;
            Vec::from_iter((0..64).filter(counted))
        };
        let before = classes(ClassCounter::Items);
        assert_eq!(before.len(), 1);
        say(&engine, &command);
        assert_eq!(classes(counter), before, "{command:.20}");
    }

    let engine = engine();
    let mut grown = 0;
    for len in 1..64 {
        let key = "k".repeat(len);
        let class = || {
            let guard = engine.store.read();
            let hash = engine.store.hash(key.as_bytes());
            engine
                .store
                .peek(&guard, key.as_bytes(), hash)
                .unwrap()
                .class()
        };
        for (one, digit, counter) in [
            ("incr", 9, ClassCounter::IncrHits),
            ("decr", 0, ClassCounter::DecrHits),
        ] {
            say(&engine, &format!("set {key} 0 0 1\r\n{digit}\r\n"));
            let before = class();
            let counted = engine.store.class_counted(before, counter);
            say(&engine, &format!("{one} {key} 1\r\n"));
            assert_eq!(
                engine.store.class_counted(before, counter),
                counted + 1,
                "{one} {len}"
            );
            grown += usize::from(class() != before);
        }
    }
    assert_ne!(grown, 0);
}

/// As in memcached 1.6.38: only `ms` takes the next number then.
#[test]
fn a_number_of_zero_is_the_item_s_number() {
    for (commands, replies) in [
        ("ms k 1 E0 c\r\n1\r\n", "HD c1\r\n"),
        ("mg k N30 E0 c\r\nmg k c\r\n", "HD c0 W\r\nHD c0 Z\r\n"),
        ("ma k N0 E0 c\r\nmg k c\r\n", "HD c0\r\nHD c0\r\n"),
        (
            "set k 0 0 1\r\n1\r\nma k E0 c\r\nmg k c\r\n",
            "STORED\r\nHD c0\r\nHD c0\r\n",
        ),
        (
            "set k 0 0 1\r\n1\r\nmd k I E0\r\nmg k c\r\n",
            "STORED\r\nHD\r\nHD c0 X W\r\n",
        ),
        (
            "set k 0 0 1\r\n1\r\nmd k x E0\r\nmg k c\r\n",
            "STORED\r\nHD\r\nHD c0\r\n",
        ),
        (
            "mg k N30 E0\r\ncas k 0 0 1 0\r\n1\r\nset k 0 0 1\r\n1\r\ngets k\r\n",
            "HD W\r\nEXISTS\r\nSTORED\r\nVALUE k 0 1 1\r\n1\r\nEND\r\n",
        ),
    ] {
        let engine = engine();
        assert_eq!(say(&engine, commands), replies, "{commands:?}");
    }
}

/// As in memcached 1.6.38.
#[test]
fn a_deletion_that_keeps_the_item_counts_in_the_class_of_the_empty_item() {
    let engine = engine();
    let classes = |counter| {
        let counted = |class: &usize| engine.store.class_counted(*class, counter) != 0;
        Vec::from_iter((0..64).filter(counted))
    };
    let value = "v".repeat(5000);
    say(&engine, &format!("set k 0 0 5000\r\n{value}\r\n"));
    let of_value = classes(ClassCounter::Items);
    assert_eq!(say(&engine, "md k x\r\n"), "HD\r\n");
    let of_empty = classes(ClassCounter::Items);
    assert_ne!(of_empty, of_value);
    assert_eq!(classes(ClassCounter::DeleteHits), of_empty);
}

/// The memory is full of values that are being received, and a number needs a longer item.
#[test]
fn a_number_that_cannot_grow_counts_as_found() {
    let class = |engine: &TestEngine, key: &str, len| {
        let (key, store) = (key.as_bytes(), &engine.store);
        let slot = store.reserve(key, store.hash(key), 0, Expiry::NEVER, len);
        slot.unwrap().class()
    };
    let any = engine();
    // The class of two digits is another one, of which nothing is stored.
    let key = (1..64)
        .map(|len| "k".repeat(len))
        .find(|key| class(&any, key, 1) != class(&any, key, 2))
        .unwrap();
    let error = "SERVER_ERROR out of memory\r\n";
    for (command, reply) in [
        (format!("incr {key} 1\r\n"), error),
        (format!("incr {key} 1 noreply\r\n"), ""),
        (format!("ma {key}\r\n"), error),
        (format!("ma {key} q\r\n"), error),
    ] {
        let engine = engine();
        let store = &engine.store;
        let class = class(&engine, &key, 1);
        let reserve = |len| store.reserve(b"x", store.hash(b"x"), 0, Expiry::NEVER, len);
        // The first one keeps a slab for the number.
        let mut held = vec![reserve(key.len()).unwrap()];
        held.extend(std::iter::from_fn(|| reserve(1_000_000).ok()));
        assert_eq!(held[0].class(), class);
        say(&engine, &format!("set {key} 0 0 1\r\n9\r\n"));
        assert_eq!(say(&engine, &command), reply, "{command}");
        let hits = store.class_counted(class, ClassCounter::IncrHits);
        assert_eq!(hits, 1, "{command}");
    }
}

#[test]
fn repeated_dumps_show_the_same_times_of_an_untouched_item() {
    let engine = engine();
    let tick = |ms: u64| {
        // Seconds of one clock begin 0.7 s after those of the other.
        engine
            .store
            .tick_ms(200_000 + ms, (common::START + 200) * 1000 + 300 + ms as i64);
    };
    tick(0);
    say(&engine, "set k 0 1000 1\r\nx\r\n");
    let dump = || say(&engine, "lru_crawler metadump all\r\n");
    let (exp, la) = (common::START + 1200, common::START + 200);
    let times = format!("exp={exp} la={la} ");
    for ms in (0..4000).step_by(100) {
        tick(ms);
        let dump = dump();
        assert!(dump.contains(&times), "{times} not in {dump}");
    }
    // The clock is set an hour back.
    engine
        .store
        .tick_ms(204_000, (common::START + 204 - 3600) * 1000 + 300);
    let times = format!("exp={} la={} ", exp - 3600, la - 3600);
    assert!(dump().contains(&times), "{times} not in {}", dump());
}

/// A client may lower the memory limit and raise it again, up to what the administrator set, over a stream only.
#[test]
fn a_client_stays_below_the_owner_s_memory_limit() {
    let engine = engine();
    let asked = |mib: usize| {
        let input = format!("cache_memlimit {mib}\r\n");
        String::from_utf8(play(&engine, input.as_bytes(), WHOLE).output).unwrap()
    };
    let refused = "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n";
    assert_eq!(asked(65), refused);
    assert_eq!(asked(1024), refused);
    assert_eq!(asked(32), "OK\r\n");
    assert_eq!(asked(64), "OK\r\n");
    assert!(engine.set_memory(128 << 20));
    assert_eq!(asked(129), refused);
    assert_eq!(asked(128), "OK\r\n");
    assert!(engine.set_memory(16 << 20));
    assert_eq!(asked(64), refused);
    let mut session = Session::new(&engine, Transport::Udp);
    let mut out = InPlaceOut::new(4096);
    session.feed(b"cache_memlimit 8\r\n", &mut out);
    let refused = b"CLIENT_ERROR cache_memlimit not allowed over UDP\r\n";
    assert_eq!(out.written(), refused);
    assert_eq!(engine.store.memory_limit(), 16 << 20);
}

/// Each administration command, and its name in the refusal.
const ADMINISTRATION: [(&str, &str); 18] = [
    ("flush_all", "flush_all"),
    ("flush_all 10", "flush_all"),
    ("verbosity 1", "verbosity"),
    ("cache_memlimit 64", "cache_memlimit"),
    ("slabs automove 1", "slabs"),
    ("slabs reassign 1 2", "slabs"),
    ("lru mode flat", "lru"),
    ("lru tune 10 25 0.1 2.0", "lru"),
    ("lru_crawler crawl all", "lru_crawler"),
    ("lru_crawler metadump all", "lru_crawler"),
    ("lru_crawler mgdump all", "lru_crawler"),
    ("lru_crawler disable", "lru_crawler"),
    ("refresh_certs", "refresh_certs"),
    ("stats cachedump 1 1", "stats cachedump"),
    ("stats reset", "stats reset"),
    ("stats detail on", "stats detail"),
    ("stats detail dump", "stats detail"),
    ("stats detail", "stats detail"),
];

/// Sets limits as the administrator, many times, while a client continually requests 64 MiB. The limit must never stay
/// above `most` bytes.
fn limit_stays_beside_a_client(engine: &TestEngine, times: u32, most: usize, set: impl Fn()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                say(engine, "cache_memlimit 64\r\n");
            }
        });
        let stays = (0..times).all(|_| {
            set();
            // A command in progress may still be about to lower it.
            (0..1000).any(|_| {
                thread::yield_now();
                engine.store.memory_limit() <= most
            })
        });
        stop.store(true, Relaxed);
        assert!(stays);
    });
}

#[test]
fn a_concurrent_client_leaves_no_limit_above_the_administrator_s() {
    let engine = engine();
    let (high, low) = (64 << 20, 32 << 20);
    limit_stays_beside_a_client(&engine, 100_000, low, || {
        engine.set_memory(high);
        engine.set_memory(low);
    });
}

#[test]
fn a_refused_limit_of_the_administrator_leaves_the_previous_one_for_clients() {
    let engine = engine();
    let low = 32 << 20;
    assert!(engine.set_memory(low));
    limit_stays_beside_a_client(&engine, 20_000, low, || {
        // More than the tables allow.
        assert!(!engine.set_memory(1 << 50));
    });
}

#[test]
fn administration_commands_need_permission() {
    use hippos_engine::{Administration, Session, Transport};
    let engine = engine();
    let ask = |transport, local, command: &str| {
        let mut session = Session::new(&engine, transport);
        session.set_local(local);
        let mut out = common::InPlaceOut::new(1 << 16);
        session.feed(format!("{command}\r\n").as_bytes(), &mut out);
        String::from_utf8(out.written().to_vec()).unwrap()
    };
    for who in [
        Administration::Network,
        Administration::Local,
        Administration::Off,
    ] {
        engine.set_administration(who);
        for transport in [Transport::Tcp, Transport::Udp] {
            for local in [false, true] {
                let may = match who {
                    Administration::Network => true,
                    Administration::Local => local && transport == Transport::Tcp,
                    Administration::Off => false,
                };
                for (command, name) in ADMINISTRATION {
                    let said = ask(transport, local, command);
                    let never = name == "cache_memlimit" && transport == Transport::Udp;
                    let refused = said == format!("CLIENT_ERROR {name} not allowed\r\n");
                    assert_eq!(
                        refused,
                        !may && !never,
                        "{who:?} {transport:?} {local} {said}"
                    );
                    let by_udp = "CLIENT_ERROR cache_memlimit not allowed over UDP\r\n";
                    assert_eq!(
                        said == by_udp,
                        never,
                        "{who:?} {transport:?} {local} {said}"
                    );
                }
                // All other commands are served.
                for command in ["version", "stats", "stats items", "mn", "get k"] {
                    let said = ask(transport, local, command);
                    assert!(!said.contains("not allowed"), "{said}");
                }
                if !may {
                    assert_eq!(ask(transport, local, "flush_all noreply"), "");
                }
            }
        }
    }
    engine.reset();
    ask(Transport::Tcp, true, "flush_all");
    ask(Transport::Udp, true, "cache_memlimit 64");
    assert_eq!(
        engine.engine_counted(hippos_engine::EngineCounter::AdminRefused),
        2
    );
    // The administrator is always allowed.
    let mut session = Session::owner(&engine);
    let mut out = common::InPlaceOut::new(1 << 16);
    session.feed(b"flush_all\r\n", &mut out);
    assert_eq!(out.written(), b"OK\r\n");
}

#[test]
fn administration_by_the_binary_protocol_is_refused_too() {
    use hippos_engine::Administration;
    let engine = engine();
    let request = |opcode: u8, key: &[u8]| {
        let mut packet = vec![0; 24];
        packet[0] = 0x80;
        packet[1] = opcode;
        packet[3] = key.len() as u8;
        packet[11] = key.len() as u8;
        [&packet, key].concat()
    };
    say(&engine, "set k 0 0 1\r\nx\r\n");
    engine.set_administration(Administration::Off);
    for (opcode, key) in [
        (0x08, &b""[..]),
        (0x18, b""),
        (0x10, b"reset"),
        (0x10, b"detail on"),
    ] {
        let said = play(&engine, &request(opcode, key), WHOLE).output;
        assert_eq!(&said[6..8], [0, 0x20], "{opcode:#x}");
        assert!(said.ends_with(b"Auth failure."), "{opcode:#x}");
    }
    assert_eq!(say(&engine, "get k\r\n"), "VALUE k 0 1\r\nx\r\nEND\r\n");
    let stats = play(&engine, &request(0x10, b"items"), WHOLE).output;
    assert_eq!(&stats[6..8], [0, 0]);
}

#[test]
fn feed_stops_after_the_command_that_exceeds_its_time() {
    let engine = engine();
    let mut session = Session::new(&engine, Transport::Tcp);
    let input = "set a 0 0 1\r\nx\r\nappend a 0 0 1\r\ny\r\nget a\r\nmg a s\r\n";
    let mut rest = input.as_bytes();
    let mut said = String::new();
    let mut turns = Vec::new();
    while !rest.is_empty() {
        let mut out = InPlaceOut::new(4096);
        let fed = session.feed_until(rest, &mut out, || true);
        assert_eq!(fed.next, Next::Write);
        turns.push(fed.consumed);
        rest = &rest[fed.consumed..];
        said += std::str::from_utf8(out.written()).unwrap();
    }
    assert_eq!(
        said,
        "STORED\r\nSTORED\r\nVALUE a 0 2\r\nxy\r\nEND\r\nHD s2\r\n"
    );
    assert!(turns.len() >= 4, "{turns:?}");
}
