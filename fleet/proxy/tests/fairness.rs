// SPDX-License-Identifier: MIT

//! Clients that read large values, and another client that uses the same connection to their node.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use common::{until, Client};
use hippos_proxy::config::Config;
use hippos_proxy::server::Server;

const LARGE: usize = 100_000;

/// A node over TCP that answers nothing but `get large`. Returns its address and the lines that it got.
fn node() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = lines.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = seen.clone();
            std::thread::spawn(move || serve(stream, &seen));
        }
    });
    (address, lines)
}

fn serve(stream: TcpStream, lines: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if !matches!(reader.read_line(&mut line), Ok(1..)) {
            return;
        }
        if line == "get large\r\n" {
            let value = "v".repeat(LARGE);
            let reply = format!("VALUE large 0 {LARGE}\r\n{value}\r\nEND\r\n");
            if reader.get_mut().write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
        lines.lock().unwrap().push(line);
    }
}

/// The lines of `lines` that begin with `start`.
fn count(lines: &Mutex<Vec<String>>, start: &str) -> usize {
    let lines = lines.lock().unwrap();
    lines.iter().filter(|line| line.starts_with(start)).count()
}

#[test]
fn clients_with_large_values_leave_a_connection_to_the_others() {
    const CLIENTS: usize = 40;
    const REQUESTS: usize = 60;
    let (node, lines) = node();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nthreads = 1\ntimeout_ms = 600000\n[pools.default]\n\
         nodes = [{{ address = \"{node}\", udp = false }}]\n"
    );
    let proxy = Server::start(Config::parse(&text).unwrap()).unwrap();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::new(&proxy)).collect();
    for client in &mut clients {
        assert_eq!(client.get("large").unwrap().unwrap().len(), LARGE);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let requests = (0..REQUESTS).map(|index| format!("get other:{number}:{index}\r\n"));
        client.send(&requests.collect::<String>());
        // The proxy has read the whole pipeline.
        until(|| count(&lines, &format!("get other:{number}:")) > 0);
    }
    let mut small = Client::new(&proxy);
    small.send("get small\r\n");
    until(|| count(&lines, "get small") > 0);
    let before = count(&lines, "get other:");
    // 256 KiB of expected replies for each.
    assert!(before <= CLIENTS * 6, "{before} requests are before it");
}

#[test]
fn a_read_is_sent_whatever_its_reply_is_expected_to_be() {
    let (node, lines) = node();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nthreads = 1\n[pools.default]\n\
         nodes = [{{ address = \"{node}\", udp = false }}]\n"
    );
    let proxy = Server::start(Config::parse(&text).unwrap()).unwrap();
    let mut client = Client::new(&proxy);
    // More in a pipeline than may be in flight: the rest is sent as replies arrive.
    client.send(&"get large\r\n".repeat(100));
    for _ in 0..100 {
        assert_eq!(client.line(), format!("VALUE large 0 {LARGE}\r\n"));
        assert_eq!(client.line().len(), LARGE + 2);
        assert_eq!(client.line(), "END\r\n");
    }
    assert_eq!(count(&lines, "get large"), 100);
}
