// SPDX-License-Identifier: GPL-2.0-only
//! Changes by clients, as the host learns of them.

mod common;

use std::sync::Mutex;

use common::{InPlaceOut, START};
use hippos_engine::{
    Administration, Change, Engine, HostStats, Session, Settings, Transport, ENGINE_COUNTERS,
};
use hippos_store::host::Host;
use hippos_store::{Config, Store};

/// A host that notes who changed what.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl HostStats for Log {
    fn changed(&self, client: u32, change: Change) {
        self.0.lock().unwrap().push(format!("{client}: {change}"));
    }
}

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn engine() -> (Engine<Host>, &'static Log) {
    let log: &'static Log = Box::leak(Box::default());
    let config = Config {
        tallies: ENGINE_COUNTERS,
        ..Config::default()
    };
    let store = Store::new(config, Host::new()).expect("a store");
    store.tick(100, START + 100);
    (Engine::new(store, Settings::default(), log), log)
}

fn feed(session: &mut Session<'_, Host>, request: &[u8]) -> Vec<u8> {
    let mut out = InPlaceOut::new(1 << 16);
    session.feed(request, &mut out);
    out.written().to_vec()
}

/// A binary request with extras and a key.
fn binary(opcode: u8, extras: &[u8], key: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 24];
    packet[0] = 0x80;
    packet[1] = opcode;
    packet[3] = key.len() as u8;
    packet[4] = extras.len() as u8;
    packet[11] = (extras.len() + key.len()) as u8;
    [&packet, extras, key].concat()
}

#[test]
fn each_change_by_a_client_is_reported_with_its_number() {
    let (engine, log) = engine();
    for (request, reported) in [
        (&b"cache_memlimit 32\r\n"[..], "7: cache_memlimit 32"),
        (b"cache_memlimit 33 noreply\r\n", "7: cache_memlimit 33"),
        (b"flush_all\r\n", "7: flush_all"),
        (b"flush_all 10 noreply\r\n", "7: flush_all 10"),
        (b"verbosity 1\r\n", "7: verbosity 1"),
        (b"lru_crawler disable\r\n", "7: lru_crawler disable"),
        (b"lru_crawler enable\r\n", "7: lru_crawler enable"),
        (b"stats detail on\r\n", "7: stats detail on"),
        (b"stats detail off\r\n", "7: stats detail off"),
        (b"stats reset\r\n", "7: stats reset"),
        (&binary(0x08, b"", b""), "7: flush_all"),
        (&binary(0x18, &[0, 0, 0, 9], b""), "7: flush_all 9"),
        (&binary(0x10, b"", b"reset"), "7: stats reset"),
        (&binary(0x10, b"", b"detail on"), "7: stats detail on"),
    ] {
        let mut session = Session::new(&engine, Transport::Tcp);
        session.set_number(7);
        feed(&mut session, request);
        let request = String::from_utf8_lossy(request);
        assert_eq!(log.take(), [reported], "{request:?}");
    }
}

#[test]
fn commands_that_change_nothing_are_not_reported() {
    let (engine, log) = engine();
    let mut client = Session::new(&engine, Transport::Tcp);
    for request in [
        &b"cache_memlimit 1\r\n"[..],
        b"cache_memlimit 999999\r\n",
        b"flush_all x\r\n",
        b"lru_crawler enable\r\n",
        b"lru_crawler crawl all\r\n",
        b"stats detail dump\r\n",
        b"lru mode flat\r\n",
        b"slabs automove 1\r\n",
        b"set k 0 0 1\r\nx\r\n",
    ] {
        feed(&mut client, request);
        let request = String::from_utf8_lossy(request);
        assert_eq!(log.take(), [""; 0], "{request:?}");
    }
    // hippos-ctl reports its own.
    let mut owner = Session::owner(&engine);
    assert_eq!(feed(&mut owner, b"stats reset\r\n"), b"RESET\r\n");
    engine.set_administration(Administration::Off);
    feed(&mut client, b"flush_all\r\n");
    feed(&mut client, &binary(0x08, b"", b""));
    assert_eq!(log.take(), [""; 0]);
}
