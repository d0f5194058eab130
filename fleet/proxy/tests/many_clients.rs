// SPDX-License-Identifier: MIT

//! Many clients, and the memory that they need. The proxy runs in a process of its own, so that only its memory is
//! measured.

mod common;

use common::{until, Client, Engine, Proxy, Script};
use std::io::{Read, Write};
use std::net::TcpStream;

/// As many clients as the descriptor limit allows, at most 10,000.
fn clients_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.unwrap().split_whitespace().nth(3).unwrap();
    soft.parse()
        .map_or(10_000, |soft: usize| (soft - 300).min(10_000))
}

#[test]
fn ten_thousand_clients_of_a_frozen_node_cost_bounded_memory() {
    let frozen = Script::start(|_| Vec::new(), |_, _, _| {});
    let well = Engine::start();
    let proxy = Proxy::start(&format!(
        "listen = \"127.0.0.1:0\"\nthreads = 2\nmax_connections = 20000\ntimeout_ms = 600000\n\
         udp_timeout_ms = 60000\n[pools.default]\nnodes = [\"{}\"]\n[pools.well]\nnodes = [\"{}\"]\n\
         [[routes]]\nprefix = \"well\"\npool = \"well\"\n",
        frozen.address, well.address
    ));
    let mut first = Client::at(proxy.tcp);
    assert_eq!(first.set("well", "x"), "STORED");
    let before = proxy.memory("VmRSS");
    let count = clients_max();
    let mut clients: Vec<TcpStream> = (0..count)
        .map(|_| TcpStream::connect(proxy.tcp).unwrap())
        .collect();
    for client in &mut clients {
        client.write_all(b"get well\r\n").unwrap();
    }
    for client in &mut clients {
        let want = b"VALUE well 0 1\r\nx\r\nEND\r\n";
        let mut answer = vec![0; want.len()];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, want);
    }
    let idle = (proxy.memory("VmRSS") - before.min(proxy.memory("VmRSS"))) * 1024 / count;
    println!("{idle} bytes for each of {count} idle clients");
    assert!(idle <= 8 << 10, "{idle}");

    // Each sends a thousand requests, of which none is answered.
    let requests: String = (0..1000)
        .map(|number| format!("get f{number:03}\r\n"))
        .collect();
    for client in &mut clients {
        client.set_nonblocking(true).unwrap();
        let mut at = 0;
        while let Ok(sent) = client.write(&requests.as_bytes()[at..]) {
            at += sent;
            if at == requests.len() {
                break;
            }
        }
    }
    // Until it does not read any more.
    let mut last = 0;
    let mut same = 0;
    until(|| {
        let now = proxy.memory("VmRSS");
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same > 20
    });
    let most = proxy.memory("VmHWM");
    println!("{most} KiB at the most");
    assert!(most <= 128 << 10, "{most} KiB");
    assert_eq!(first.get("well"), Ok(Some("x".into())));
}
