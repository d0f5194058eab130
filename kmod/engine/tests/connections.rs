// SPDX-License-Identifier: GPL-2.0-only
//! `stats conns` of many connections.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{Small, START};
use hippos_engine::{
    Engine, HostStats, Next, Session, Settings, SocketInfo, Transport, ENGINE_COUNTERS,
    REPLY_HEADER_MAX,
};
use hippos_store::host::Host;
use hippos_store::{Config, Store};

const CONNECTIONS: usize = 5_000;

/// A host of [`CONNECTIONS`] connections that counts the calls for them.
struct Crowd {
    asked: AtomicUsize,
    /// The connection at this place is closed.
    closed: AtomicUsize,
}

impl Crowd {
    const fn new() -> Self {
        Self {
            asked: AtomicUsize::new(0),
            closed: AtomicUsize::new(usize::MAX),
        }
    }
}

impl HostStats for Crowd {
    fn socket(&self, index: usize) -> Option<(usize, SocketInfo)> {
        self.asked.fetch_add(1, Relaxed);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let closed = self.closed.load(Relaxed);
        let at = if index == closed { index + 1 } else { index };
        let info = SocketInfo {
            id: at as u32,
            address,
            listen: Some(address),
            state: "conn_read",
            udp: false,
            idle: 0,
            bytes: Some((1, 2)),
        };
        (at < CONNECTIONS).then_some((at, info))
    }
}

/// The lines of `stats conns`, and the number of pages; `between` is called after each page.
fn listing(crowd: &'static Crowd, between: impl Fn(&str)) -> (String, usize) {
    let config = Config {
        tallies: ENGINE_COUNTERS,
        ..Config::default()
    };
    let store = Store::new(config, Host::new()).expect("a store");
    store.tick(100, START + 100);
    let engine = Engine::new(store, Settings::default(), crowd);
    let mut session = Session::new(&engine, Transport::Tcp);
    let mut out = Small::new(2 * REPLY_HEADER_MAX);
    let (mut text, mut pages) = (Vec::new(), 0);
    let mut input: &[u8] = b"stats conns\r\n";
    loop {
        let fed = session.feed(input, &mut out);
        input = &input[fed.consumed..];
        text.append(&mut out.waiting);
        between(std::str::from_utf8(&text).unwrap());
        pages += 1;
        if fed.next != Next::Write {
            break;
        }
    }
    (String::from_utf8(text).unwrap(), pages)
}

/// The lines of one connection.
fn lines(id: usize) -> String {
    let rows = [
        ("addr", "tcp:127.0.0.1:1"),
        ("listen_addr", "tcp:127.0.0.1:1"),
        ("state", "conn_read"),
        ("secs_since_last_cmd", "0"),
        ("hippos_bytes_read", "1"),
        ("hippos_bytes_written", "2"),
    ];
    let line = |(name, value)| format!("STAT {id}:{name} {value}\r\n");
    rows.map(line).concat()
}

#[test]
fn conns_lists_each_connection_once_and_asks_for_it_once_or_twice() {
    static CROWD: Crowd = Crowd::new();
    let (text, pages) = listing(&CROWD, |_| ());
    let mut expected: String = (0..CONNECTIONS).map(lines).collect();
    expected += "END\r\n";
    assert!(text == expected, "another listing");
    let asked = CROWD.asked.load(Relaxed);
    assert!(
        asked <= CONNECTIONS + pages + 1,
        "{asked} looks at {CONNECTIONS} connections in {pages} pages"
    );
}

#[test]
fn conns_shows_all_lines_of_the_connection_after_one_that_closes_meanwhile() {
    static CROWD: Crowd = Crowd::new();
    // The first connection that is divided between two pages.
    let close = |text: &str| {
        let last = text.lines().last().unwrap();
        let partly = last
            .split([' ', ':'])
            .nth(1)
            .filter(|_| !last.contains("written"));
        if let (Some(id), usize::MAX) = (partly, CROWD.closed.load(Relaxed)) {
            CROWD.closed.store(id.parse().unwrap(), Relaxed);
        }
    };
    let (text, _) = listing(&CROWD, close);
    let closed = CROWD.closed.load(Relaxed);
    assert!(closed < CONNECTIONS, "each page ends with a connection");
    for id in (0..CONNECTIONS).filter(|&id| id != closed) {
        assert!(text.contains(&lines(id)), "{id} beside {closed}");
    }
}
