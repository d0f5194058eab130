// SPDX-License-Identifier: MIT

//! GETs in datagrams and in TCP pipelines, and connections whose ends arrive with the last bytes.

mod common;

use common::{count, proxy, until, Client, Engine, Script};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Of a pipeline of GETs whose values have `len` bytes: how many went in datagrams, and how many by TCP, after a first
/// one by which the lengths are known.
fn ways(len: usize) -> (u64, u64) {
    const KEYS: usize = 48;
    let node = Engine::start();
    let more = "udp_timeout_ms = 60000\ntimeout_ms = 60000";
    let proxy = proxy(more, &[node.address]);
    let mut client = Client::new(&proxy);
    let value = "v".repeat(len);
    let key = |index: usize| format!("way:{len}:{index}");
    for index in 0..KEYS {
        assert_eq!(client.set(&key(index), &value), "STORED");
    }
    let mut before = (0, 0);
    for _ in 0..2 {
        let now = || (count(&proxy, "batched_keys"), count(&proxy, "piped_keys"));
        before = now();
        let requests = (0..KEYS).map(|index| format!("get {}\r\n", key(index)));
        client.send(&requests.collect::<String>());
        for index in 0..KEYS {
            assert_eq!(client.line(), format!("VALUE {} 0 {len}\r\n", key(index)));
            assert_eq!(client.line(), format!("{value}\r\n"));
            assert_eq!(client.line(), "END\r\n");
        }
        let after = now();
        before = (after.0 - before.0, after.1 - before.1);
        assert_eq!(before.0 + before.1, KEYS as u64);
    }
    // A GET alone is a datagram whatever its length is.
    let datagrams = count(&proxy, "batches");
    for _ in 0..3 {
        assert_eq!(client.get(&key(0)).unwrap().as_ref(), Some(&value));
    }
    assert_eq!(count(&proxy, "batches") - datagrams, 3);
    assert_eq!(count(&proxy, "udp_retries"), 0);
    before
}

#[test]
fn gets_of_which_few_fit_a_datagram_are_sent_in_a_tcp_pipeline() {
    let (datagrams, tcp) = ways(1000);
    assert!(tcp > datagrams, "{tcp} by TCP, {datagrams} in datagrams");
}

#[test]
fn gets_of_which_many_fit_a_datagram_are_sent_in_datagrams() {
    assert_eq!(ways(20), (48, 0));
    assert_eq!(ways(150), (48, 0));
}

#[test]
fn a_client_that_closes_its_side_behind_its_requests_gets_their_replies_and_the_end() {
    let node = Engine::start();
    let proxy = proxy("", &[node.address]);
    assert_eq!(Client::new(&proxy).set("a", "x"), "STORED");
    for _ in 0..100 {
        let mut stream = TcpStream::connect(proxy.tcp.unwrap()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream.write_all(b"get a\r\nmn\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "VALUE a 0 1\r\nx\r\nEND\r\nMN\r\n");
    }
    until(|| count(&proxy, "curr_connections") == 0);
}

#[test]
fn a_node_that_closes_behind_a_reply_is_connected_anew_for_the_next_request() {
    let asked = AtomicUsize::new(0);
    let node = Script::start(
        move |line| match line {
            // It closes its side with the last of these bytes.
            "delete a" if asked.fetch_add(1, Relaxed) == 0 => Script::closing(b"DELETED\r\n"),
            "delete a" => b"DELETED\r\n".to_vec(),
            _ => b"VERSION 1.6.38\r\n".to_vec(),
        },
        |_, _, _| {},
    );
    let proxy = proxy("failures = 1000", &[node.address]);
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("delete a"), "DELETED");
    until(|| count(&proxy, "node_disconnects") == 1);
    assert_eq!(client.ask("delete a"), "DELETED");
}
