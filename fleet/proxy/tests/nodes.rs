// SPDX-License-Identifier: MIT

//! Three nodes: those of `HIPPOS_NODES` (addresses with commas between them), or engines' example servers.
//! `cargo xtask test --guest --filter clients::proxy` runs it in front of modules, each in a guest of its own.

mod common;

use common::{config, count, Client, Engine};
use hippos_proxy::server::Server;
use std::net::SocketAddr;

/// The value of a statistic of a node.
fn stat(node: SocketAddr, name: &str) -> u64 {
    let mut client = Client::at(node);
    client.send("stats\r\n");
    let mut found = 0;
    loop {
        let line = client.line();
        if line == "END\r\n" {
            return found;
        }
        let mut words = line.split_whitespace().skip(1);
        if words.next() == Some(name) {
            found = words.next().unwrap().parse().unwrap();
        }
    }
}

#[test]
fn three_nodes_are_one_cache() {
    let given = std::env::var("HIPPOS_NODES").ok();
    let mut own = Vec::new();
    let nodes: Vec<SocketAddr> = match &given {
        Some(list) => list.split(',').map(|node| node.parse().unwrap()).collect(),
        None => {
            own.extend((0..3).map(|_| Engine::start()));
            own.iter().map(|node| node.address).collect()
        }
    };
    assert_eq!(nodes.len(), 3);
    // A guest that shares its processor with others is slow.
    let more = "udp_timeout_ms = 2000\ntimeout_ms = 30000";
    let proxy = Server::start(config(more, &nodes)).unwrap();
    let names = [
        "hippos_udp_fast_commands",
        "hippos_udp_fast_datagrams",
        "get_hits",
    ];
    let before: Vec<_> = nodes
        .iter()
        .map(|&node| names.map(|name| stat(node, name)))
        .collect();

    const CLIENTS: usize = 8;
    const KEYS: usize = 100;
    let key = |client: usize, index: usize| format!("three:{client}:{index}");
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mut client = Client::new(&proxy);
            scope.spawn(move || {
                for index in 0..KEYS {
                    let key = key(number, index);
                    assert_eq!(client.set(&key, &key), "STORED");
                }
                // All at once: many keys of one node come together.
                let all: Vec<_> = (0..KEYS).map(|index| key(number, index)).collect();
                for key in &all {
                    client.send(&format!("get {key}\r\n"));
                }
                for key in &all {
                    assert_eq!(client.line(), format!("VALUE {key} 0 {}\r\n", key.len()));
                    assert_eq!(client.line(), format!("{key}\r\n"));
                    assert_eq!(client.line(), "END\r\n");
                }
                let large = "v".repeat(300_000);
                let name = format!("three:large:{number}");
                assert_eq!(client.set(&name, &large), "STORED");
                for _ in 0..2 {
                    assert_eq!(client.get(&name), Ok(Some(large.clone())));
                }
            });
        }
    });
    assert_eq!(count(&proxy, "node_errors"), 0);

    for (node, before) in nodes.iter().zip(before) {
        let after = names.map(|name| stat(*node, name));
        let [commands, datagrams, hits] = [0, 1, 2].map(|index| after[index] - before[index]);
        println!("{node}: {commands} commands in {datagrams} datagrams, {hits} hits");
        assert!(hits > (CLIENTS * KEYS / 10) as u64, "{node} has few keys");
        assert!(datagrams > 0, "{node} got no datagram on its fast path");
        assert!(hits > datagrams, "{node} got no datagram of several keys");
    }
    let (batches, keys) = (count(&proxy, "batches"), count(&proxy, "batched_keys"));
    println!("{keys} keys in {batches} datagrams");
    assert!(keys > batches);

    for seed in 0..2 {
        let plan = hippos_histories::Plan {
            server: proxy.tcp.unwrap(),
            clients: 6,
            keys: 8,
            operations: 100,
            udp: false,
            seed,
        };
        let history = hippos_histories::record(&plan).unwrap();
        let wrong = hippos_histories::check(&history);
        assert_eq!(wrong, None, "seed {seed}");
    }
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("flush_all"), "OK");
    assert_eq!(client.get(&key(0, 0)), Ok(None));
}
