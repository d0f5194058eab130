// SPDX-License-Identifier: MIT

//! The proxy in front of real engines.

mod common;

use common::{config, count, proxy, udp, until, Client, Engine, Script};
use hippos_conformance::{Options, Target};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// On a machine with other work a node's reply may take seconds.
const PATIENT: &str = "timeout_ms = 60000\nudp_timeout_ms = 2000\nfailures = 1000000\n";

/// Replies that differ from a node's: see docs/fleet.md.
const DIFFERENCES: [&str; 10] = [
    "lru_crawler metadump alone",
    "lru_crawler metadump with a bad class",
    "lru_crawler dumps",
    "watch",
    "watch with an unknown word",
    "watch with an unknown word behind another command",
    "extstore",
    "extstore with an unknown word",
    "refresh_certs",
    "a datagram of 60000 bytes",
];

#[test]
fn one_node_behind_the_proxy_answers_as_it_does_alone() {
    let node = Engine::start();
    let proxy = proxy(PATIENT, &[node.address]);
    let run = |tcp, udp, filter: &str| {
        let options = Options {
            splits: false,
            filter: filter.to_owned(),
            timeout: Duration::from_secs(30),
            ..Options::default()
        };
        let target = Target { tcp, udp };
        hippos_conformance::run(&target, &options).unwrap()
    };
    let report = run(proxy.tcp.unwrap(), proxy.udp, "");
    assert!(report.passed > 1200, "{report}");
    for failure in &report.failures {
        // "FILE:LINE NAME (Steps): ..."
        let head = failure.split(" (Steps)").next().unwrap_or_default();
        let name = head.split_once(' ').map_or("", |(_, name)| name);
        if DIFFERENCES.contains(&name) {
            continue;
        }
        // A difference of the node itself is not the proxy's error.
        let alone = run(node.address, Some(node.address), name);
        assert!(!alone.failures.is_empty(), "{failure}");
    }
    assert!(count(&proxy, "batched_keys") > 0);
}

#[test]
fn concurrent_clients_see_a_linear_history() {
    let nodes = [Engine::start(), Engine::start(), Engine::start()];
    let nodes = nodes.each_ref().map(|node| node.address);
    for (more, first) in [
        ("window_us = 0", 0),
        ("window_us = 200", 10),
        ("window_us = 200\nfixed_window = false", 20),
    ] {
        let proxy = proxy(&format!("{PATIENT}{more}"), &nodes);
        let server = proxy.tcp.unwrap();
        for seed in first..first + 3 {
            let plan = hippos_histories::Plan {
                server,
                clients: 6,
                keys: 8,
                operations: 200,
                udp: false,
                seed,
            };
            let history = hippos_histories::record(&plan).unwrap();
            let wrong = hippos_histories::check(&history);
            assert_eq!(wrong, None, "{more}, seed {seed}");
        }
        assert!(count(&proxy, "batched_keys") > 0);
    }
}

#[test]
fn keys_of_all_nodes_come_in_the_order_asked_for() {
    let nodes = [Engine::start(), Engine::start(), Engine::start()];
    let proxy = proxy("", &nodes.each_ref().map(|node| node.address));
    let mut client = Client::new(&proxy);
    let keys: Vec<_> = (0..200).map(|index| format!("order:{index}")).collect();
    for key in keys.iter().step_by(2) {
        assert_eq!(client.set(key, key), "STORED");
    }
    client.send(&format!("get {}\r\nmn\r\n", keys.join(" ")));
    for key in keys.iter().step_by(2) {
        assert_eq!(client.line(), format!("VALUE {key} 0 {}\r\n", key.len()));
        assert_eq!(client.line(), format!("{key}\r\n"));
    }
    assert_eq!(
        (client.line(), client.line()),
        ("END\r\n".into(), "MN\r\n".into())
    );
    // Each node has some of the keys.
    for node in &nodes {
        let mut stream = std::net::TcpStream::connect(node.address).unwrap();
        use std::io::{Read, Write};
        stream.write_all(b"stats\r\nquit\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(!text.contains("STAT curr_items 0\r\n"));
    }
    let mut statistics = |command: &str| {
        client.send(&format!("{command}\r\n"));
        let lines = std::iter::from_fn(|| Some(client.line()).filter(|line| line != "END\r\n"));
        lines.collect::<String>()
    };
    let sum = statistics("stats");
    assert!(sum.contains("STAT curr_items 100\r\n"), "{sum}");
    let own = statistics("stats  proxy ");
    assert!(own.contains("STAT cmd_get 200\r\n"), "{own}");
    assert_eq!(own.matches(" in\r\n").count(), 3, "{own}");
    assert_eq!(client.ask("flush_all"), "OK");
    assert_eq!(client.get(&keys[0]), Ok(None));
}

#[test]
fn large_values_are_read_whole() {
    let node = Engine::start();
    let proxy = proxy("", &[node.address]);
    let mut client = Client::new(&proxy);
    for len in [1000, 1392, 5000, 60_000, 900_000] {
        let value = "v".repeat(len);
        assert_eq!(client.set("large", &value), "STORED");
        for _ in 0..3 {
            assert_eq!(client.get("large").unwrap().as_ref(), Some(&value));
        }
    }
}

#[test]
fn a_reload_keeps_connections_and_fails_no_request() {
    let nodes = [Engine::start(), Engine::start()];
    let [a, b] = nodes.each_ref().map(|node| node.address);
    let proxy = proxy("", &[a]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let mut client = Client::new(&proxy);
                let done = &done;
                scope.spawn(move || {
                    let mut rounds = 0;
                    while !done.load(Relaxed) || rounds == 0 {
                        let key = format!("reload:{number}:{}", rounds % 10);
                        assert_eq!(client.set(&key, "x"), "STORED");
                        assert!(client.get(&key).is_ok());
                        rounds += 1;
                    }
                })
            })
            .collect();
        for round in 0..20 {
            let nodes: &[_] = if round % 2 == 0 { &[a, b] } else { &[b] };
            proxy.reload(config("", nodes));
            std::thread::sleep(Duration::from_millis(20));
        }
        done.store(true, Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
    assert_eq!(count(&proxy, "node_errors"), 0);
    assert_eq!(count(&proxy, "total_connections"), 4);
}

#[test]
fn a_drained_proxy_answers_what_it_was_asked() {
    let node = Engine::start();
    let proxy = proxy("drain_s = 30", &[node.address]);
    let mut client = Client::new(&proxy);
    let mut idle = Client::new(&proxy);
    assert_eq!(idle.ask("mn"), "MN");
    client.send("set drain 0 0 5\r\nhe");
    until(|| count(&proxy, "curr_connections") == 2);
    std::thread::sleep(Duration::from_millis(100));
    std::thread::scope(|scope| {
        scope.spawn(move || proxy.drain());
        assert!(idle.closed());
        client.send("llo\r\n");
        assert_eq!(client.line(), "STORED\r\n");
        assert!(client.closed());
    });
}

#[test]
fn a_drained_proxy_answers_the_datagrams_that_it_has_taken() {
    let node = Script::start(
        |line| {
            std::thread::sleep(std::time::Duration::from_millis(500));
            match line.starts_with("delete") {
                true => b"DELETED\r\n".to_vec(),
                false => Vec::new(),
            }
        },
        |_, _, _| {},
    );
    let proxy = proxy("drain_s = 30\ntimeout_ms = 20000", &[node.address]);
    let socket = udp(&proxy);
    socket.send(b"\0\x07\0\0\0\x01\0\0delete k\r\n").unwrap();
    until(|| count(&proxy, "cmd_forward") == 1);
    std::thread::scope(|scope| {
        scope.spawn(move || proxy.drain());
        let mut buffer = [0; 100];
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[8..len], b"DELETED\r\n");
    });
}

#[test]
fn clients_that_connected_before_sigterm_are_answered() {
    let node = Engine::start();
    let name = format!("hippos-proxy-sigterm-{}.toml", std::process::id());
    let file = std::env::temp_dir().join(name);
    let text = format!(
        "listen = \"127.0.0.1:0\"\nthreads = 1\n[pools.default]\nnodes = [\"{}\"]\n",
        node.address
    );
    std::fs::write(&file, text).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hippos-proxy"));
    let process = hippos_process::Process::start(command.arg(&file));
    let address = process.line.split("tcp ").nth(1).unwrap();
    let address = address.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(Client::at(address).set("k", "x"), "STORED");
    // They wait to be accepted when the signal comes.
    process.signal("STOP");
    let mut clients: Vec<_> = (0..600).map(|_| Client::at(address)).collect();
    for client in &mut clients {
        client.send("get k\r\n");
    }
    process.signal("TERM");
    process.signal("CONT");
    for client in &mut clients {
        assert_eq!(client.line(), "VALUE k 0 1\r\n");
    }
    let _ = std::fs::remove_file(file);
}
