// SPDX-License-Identifier: GPL-2.0-only
//! `stats conns` of many connections.

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{Small, START};
use hippos_engine::{
    Address, Engine, Facts, Next, Session, Settings, SocketInfo, Transport, HEAD_ROOM, TALLIES,
};
use hippos_store::host::Host;
use hippos_store::{Config, Store};

const MANY: usize = 5_000;

/// A host of [`MANY`] connections that counts how often it is asked for one.
struct Crowd {
    asked: AtomicUsize,
}

impl Facts for Crowd {
    fn socket(&self, index: usize) -> Option<SocketInfo> {
        self.asked.fetch_add(1, Relaxed);
        let address = Address {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 1,
        };
        (index < MANY).then_some(SocketInfo {
            id: index as u32,
            address,
            listen: Some(address),
            state: "conn_read",
            udp: false,
            idle: 0,
        })
    }
}

#[test]
fn conns_lists_each_connection_once_and_asks_for_it_once_or_twice() {
    static CROWD: Crowd = Crowd {
        asked: AtomicUsize::new(0),
    };
    let config = Config {
        tallies: TALLIES,
        ..Config::default()
    };
    let store = Store::new(config, Host::new()).expect("a store");
    store.tick(100, START + 100);
    let engine = Engine::new(store, Settings::default(), &CROWD);
    let mut session = Session::new(&engine, Transport::Tcp);
    let mut out = Small::new(2 * HEAD_ROOM);
    let (mut text, mut pages) = (Vec::new(), 0);
    let mut input: &[u8] = b"stats conns\r\n";
    loop {
        let fed = session.feed(input, &mut out);
        input = &input[fed.consumed..];
        text.append(&mut out.waiting);
        pages += 1;
        if fed.next != Next::Write {
            break;
        }
    }
    let mut expected = String::new();
    for id in 0..MANY {
        for (name, value) in [
            ("addr", "tcp:127.0.0.1:1"),
            ("listen_addr", "tcp:127.0.0.1:1"),
            ("state", "conn_read"),
            ("secs_since_last_cmd", "0"),
        ] {
            expected += &format!("STAT {id}:{name} {value}\r\n");
        }
    }
    expected += "END\r\n";
    assert!(text == expected.as_bytes(), "another listing");
    let asked = CROWD.asked.load(Relaxed);
    assert!(
        asked <= MANY + pages + 1,
        "{asked} looks at {MANY} connections in {pages} pages"
    );
}
