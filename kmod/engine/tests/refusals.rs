// SPDX-License-Identifier: GPL-2.0-only
//! The statistics say when clients were last refused something.

mod common;

use std::collections::HashMap;

use common::{engine, play, Small, TestEngine, WHOLE};
use hippos_engine::{Next, RefusalCounter, Session, Transport, REPLY_HEADER_MAX};

fn stats(engine: &TestEngine) -> HashMap<String, String> {
    let text = String::from_utf8(play(engine, b"stats\r\n", WHOLE).output).unwrap();
    let row = |line: &str| {
        let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
        Some((name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

fn ages(engine: &TestEngine) -> Vec<(String, String)> {
    let is_age = |(name, _): &(String, String)| name.starts_with("hippos_age_");
    stats(engine).into_iter().filter(is_age).collect()
}

#[test]
fn the_age_of_a_refusal_grows_until_the_next_one_and_a_reset_removes_it() {
    let engine = engine();
    assert_eq!(ages(&engine), []);
    let age = |seconds: &str| vec![("hippos_age_auth_errors".to_owned(), seconds.to_owned())];
    engine.count_refused(RefusalCounter::Logins);
    assert_eq!(ages(&engine), age("0"));
    let (now, unix) = (engine.store.now(), engine.store.unix());
    // A tick is of the uptime, which is 2 behind the store's clock.
    engine.store.tick(now - 2 + 65, unix + 65);
    assert_eq!(ages(&engine), age("65"));
    engine.count_refused(RefusalCounter::Logins);
    assert_eq!(ages(&engine), age("0"));
    engine.reset();
    assert_eq!(ages(&engine), []);
}

/// `hippos-ctl` finds the age by the name of the counter.
#[test]
fn each_refusal_has_its_counter_and_its_age() {
    use RefusalCounter::{
        Admin, Connections, Logins, Memory, OtherMemory, Reads, TcpSources, UdpRate, UdpSources,
    };
    let engine = engine();
    for (refused, counter) in [
        (Connections, "rejected_connections"),
        (TcpSources, "hippos_tcp_refused"),
        (UdpSources, "hippos_udp_refused"),
        (UdpRate, "hippos_udp_limited"),
        (Logins, "auth_errors"),
        (Memory, "store_no_memory"),
        (OtherMemory, "hippos_no_memory"),
        (Admin, "hippos_admin_refused"),
        (Reads, "hippos_reads_refused"),
    ] {
        engine.reset();
        engine.count_refused(refused);
        let rows = stats(&engine);
        // The host counts connections.
        let count = if refused == Connections { "0" } else { "1" };
        assert_eq!(rows[counter], count, "{counter}");
        let age = format!("hippos_age_{}", counter.trim_start_matches("hippos_"));
        assert_eq!(ages(&engine), [(age, "0".to_owned())]);
    }
}

/// The rows of `stats`, read one at a time, with `between` called before the page of this number; and the number of pages.
fn paged(engine: &TestEngine, number: usize, between: impl Fn()) -> (Vec<String>, usize) {
    let mut session = Session::new(engine, Transport::Tcp);
    let mut input: &[u8] = b"stats\r\n";
    let (mut text, mut pages) = (Vec::new(), 0);
    loop {
        if pages == number {
            between();
        }
        let mut out = Small::new(REPLY_HEADER_MAX);
        let fed = session.feed(input, &mut out);
        input = &input[fed.consumed..];
        text.append(&mut out.waiting);
        pages += 1;
        if fed.next == Next::Read {
            break;
        }
    }
    let text = String::from_utf8(text).unwrap();
    let names = text.lines().filter_map(|line| line.split(' ').nth(1));
    (names.map(String::from).collect(), pages)
}

#[test]
fn rows_that_appear_or_vanish_between_two_pages_shift_no_other_rows() {
    let engine = engine();
    let last = || {
        engine.reset();
        engine.count_refused(RefusalCounter::Admin);
        engine.count_refused(RefusalCounter::Reads);
    };
    last();
    let (rows, pages) = paged(&engine, usize::MAX, || ());
    assert!(pages > 100, "{pages}");
    let others = |rows: Vec<String>| {
        let is_other = |name: &String| {
            !["hippos_age_auth_errors", "hippos_age_store_no_memory"].contains(&&**name)
        };
        rows.into_iter().filter(is_other).collect::<Vec<_>>()
    };
    for number in pages - 12..pages {
        let refuse = || {
            engine.count_refused(RefusalCounter::Logins);
            engine.count_refused(RefusalCounter::Memory);
        };
        last();
        assert_eq!(others(paged(&engine, number, refuse).0), rows, "{number}");
        // Now these rows vanish, or have been written already.
        assert_eq!(others(paged(&engine, number, last).0), rows, "{number}");
    }
}

/// A request of the binary protocol.
fn binary(opcode: u8, key: &[u8], extras: &[u8], value: &[u8]) -> Vec<u8> {
    let mut request = vec![0x80, opcode];
    request.extend((key.len() as u16).to_be_bytes());
    request.extend([extras.len() as u8, 0, 0, 0]);
    let body = extras.len() + key.len() + value.len();
    request.extend((body as u32).to_be_bytes());
    request.extend([0; 12]);
    [&request, extras, key, value].concat()
}

/// There is one block, for the smallest items, and it cannot be drained: items of larger slots are refused. memcached
/// counts stores of the text protocol alone.
#[test]
fn requests_refused_for_memory_are_counted_whatever_they_are() {
    let engine = engine();
    let value = "v".repeat(40);
    let said = play(
        &engine,
        format!("set a 0 0 40\r\n{value}\r\nset b 0 0 40\r\n{value}\r\n").as_bytes(),
        WHOLE,
    );
    assert_eq!(said.output, b"STORED\r\nSTORED\r\n");
    let store = &engine.store;
    let pin = {
        let guard = store.read();
        let item = store.get(&guard, b"b", store.hash(b"b")).unwrap();
        store.pin(&item).unwrap()
    };
    store.platform().allow_blocks(0);
    let long = "k".repeat(250);
    let text = |request: String| play(&engine, request.as_bytes(), WHOLE).output;
    let status = |request: &[u8]| {
        let reply = play(&engine, request, WHOLE).output;
        u16::from_be_bytes([reply[6], reply[7]])
    };
    const OUT_OF_MEMORY: u16 = 0x82;
    let mut counted = 0;
    let mut counts = |kind: &str, is_refused: bool| {
        counted += 1;
        assert!(is_refused, "{kind}");
        let rows = stats(&engine);
        assert_eq!(rows["hippos_no_memory"], counted.to_string(), "{kind}");
        assert_eq!(rows["store_no_memory"], "0", "{kind}");
        assert_eq!(rows["hippos_age_no_memory"], "0", "{kind}");
    };
    let said = text(format!("ma {long} N0 J5\r\n"));
    counts("ma", said.starts_with(b"SERVER_ERROR "));
    let said = text(format!("mg {long} N0 v\r\n"));
    counts("mg", said == b"EN\r\n");
    // It was evicted in the attempt to empty the block.
    let said = text(format!(
        "set a 0 0 40\r\n{value}\r\nappend a 0 0 40\r\n{value}\r\n"
    ));
    counts("append", said == b"STORED\r\nNOT_STORED\r\n");
    let by = [[0; 8], [0; 8]].concat();
    let increment = binary(5, long.as_bytes(), &[&by[..], &[0; 4]].concat(), b"");
    counts("binary increment", status(&increment) == OUT_OF_MEMORY);
    let set = binary(1, long.as_bytes(), &[0; 8], b"value");
    counts("binary set", status(&set) == OUT_OF_MEMORY);
    assert_eq!(pin.value(), value.as_bytes());
}
