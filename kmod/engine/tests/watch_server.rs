// SPDX-License-Identifier: GPL-2.0-only
//! `watch` over sockets: the example server, TCP and UDP, and watchers that do not read.

use std::net::SocketAddr;
use std::time::Duration;

use hippos_client::{Tcp, Udp};
use hippos_process::Process;

const LIMIT: Duration = Duration::from_secs(60);

struct Client(Tcp);

impl Client {
    fn new(server: SocketAddr) -> Self {
        Self(Tcp::to(server, LIMIT).unwrap())
    }

    fn watching(server: SocketAddr, words: &str) -> Self {
        let mut client = Self::new(server);
        assert_eq!(client.ask(&format!("watch {words}\r\n")), "OK\r\n");
        client
    }

    fn send(&mut self, request: &str) {
        self.0.send(request.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        self.0.line().unwrap()
    }

    fn ask(&mut self, request: &str) -> String {
        self.0.ask(request).unwrap()
    }

    /// The next event of a kind, without its time and number.
    fn event(&mut self, kind: &str) -> String {
        loop {
            let line = self.line();
            if let Some((_, rest)) = line.split_once(&format!(" type={kind} ")) {
                return rest.trim_end_matches('\n').to_owned();
            }
            assert!(line.starts_with("ts="), "{line:?}");
        }
    }

    fn stat(&mut self, name: &str) -> u64 {
        self.0.stat(name).unwrap()
    }
}

#[test]
fn each_kind_of_event_is_logged() {
    let process = Process::engine(&["--port", "0", "--memory-mb", "8", "--threads", "1"]);
    let server = process.address();
    let words = "fetchers mutations deletions evictions connevents proxyevents";
    let mut watcher = Client::watching(server, words);
    let mut client = Client::new(server);
    let port = client.0.reader().get_ref().local_addr().unwrap().port();
    let came = watcher.event("conn_new");
    let number = came
        .strip_prefix(&format!("rip=127.0.0.1 rport={port} transport=tcp cfd="))
        .expect(&came)
        .to_owned();
    assert_eq!(client.ask("set a 0 0 1\r\nx\r\n"), "STORED\r\n");
    let lookup = format!("key=a status=not_found clsid=0 cfd={number} size=0");
    assert_eq!(watcher.event("item_get"), lookup);
    let store = format!("key=a status=stored cmd=set ttl=0 clsid=1 cfd={number} size=1");
    assert_eq!(watcher.event("item_store"), store);
    assert_eq!(client.ask("delete a\r\n"), "DELETED\r\n");
    assert_eq!(watcher.event("deleted"), "key=a cmd=delete clsid=1 size=1");
    // Of the fast path, and of the UDP socket's worker.
    let mut udp = Udp::to(server, LIMIT).unwrap();
    for (request, keys) in [
        ("get eight_or_more\r\n", &["eight_or_more"][..]),
        ("get b\r\n", &["b"]),
        ("get c d\r\n", &["c", "d"]),
        ("mg e v\r\n", &["e"]),
    ] {
        udp.ask(request.as_bytes()).unwrap();
        for key in keys {
            let lookup = format!("key={key} status=not_found clsid=0 cfd=1 size=0");
            assert_eq!(watcher.event("item_get"), lookup, "{request:?}");
        }
    }
    let value = "B".repeat(11_000);
    for number in 0..1_500 {
        let set = format!("set foo{number} 0 0 11000 noreply\r\n{value}\r\n");
        client.send(&set);
    }
    assert_eq!(client.ask("version\r\n"), "VERSION 1.6.38\r\n");
    let evicted = watcher.event("eviction");
    assert!(evicted.starts_with("key=foo"), "{evicted}");
    assert!(evicted.contains(" fetch=no ttl=-1 la="), "{evicted}");
    assert!(evicted.ends_with(" size=11000"), "{evicted}");
    client.send("quit\r\n");
    let went = format!("rip=127.0.0.1 rport={port} transport=tcp reason=normal cfd={number}");
    assert_eq!(watcher.event("conn_close"), went);
    let mut other = Client::watching(server, "evictions");
    let stream = other.0.reader().get_ref();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(watcher.event("conn_close").contains(" reason=error "));
    assert_eq!(other.line(), "", "the end");
    assert_eq!(Client::new(server).stat("log_watchers"), 1);
}

#[test]
fn the_server_goes_on_beside_a_watcher_that_does_not_read() {
    const GETS: u64 = 60_000;
    let process = Process::engine(&["--port", "0", "--threads", "1"]);
    let server = process.address();
    let mut slow = Client::watching(server, "");
    let mut client = Client::new(server);
    let request = format!("get {}\r\n", "n".repeat(200)).repeat(100);
    for _ in 0..GETS / 100 {
        client.send(&request);
        let mut answers = [0; 500];
        client.0.read(&mut answers).unwrap();
        assert_eq!(answers, *b"END\r\n".repeat(100));
    }
    assert_eq!(client.stat("log_worker_written"), GETS);
    let (mut received, mut skipped) = (0, 0);
    while received + skipped < GETS {
        let line = slow.line();
        match line.strip_prefix("skipped=") {
            Some(number) => skipped += number.trim_end().parse::<u64>().unwrap(),
            None => {
                assert!(line.contains(" type=item_get key=nnn"), "{line:?}");
                received += 1;
            }
        }
    }
    assert_eq!(received + skipped, GETS);
    assert!(
        skipped > 0 && received > 0,
        "{received} received, {skipped} skipped"
    );
    assert_eq!(client.stat("log_watcher_sent"), received);
    assert_eq!(client.stat("log_watcher_skipped"), skipped);
}
