// SPDX-License-Identifier: MIT

//! Nodes that die, freeze, or answer late or wrongly.

mod common;

use common::{count, hits, proxy, until, Client, Engine, Script};
use hippos_proxy::server::Server;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Answers `get` over TCP with the key as the value, and writes with success.
fn echo(line: &str) -> Vec<u8> {
    let mut words = line.split(' ');
    match words.next() {
        Some("get") => {
            let key = words.next().unwrap_or_default();
            format!("VALUE {key} 0 {}\r\n{key}\r\nEND\r\n", key.len()).into_bytes()
        }
        Some("delete") => b"DELETED\r\n".to_vec(),
        Some("version") => b"VERSION 1.6.38\r\n".to_vec(),
        _ => Vec::new(),
    }
}

/// Requests 60 absent keys while one of two nodes does not answer: its keys fail, the other's miss, and the node is
/// ejected.
fn fails_for_one_of_two(proxy: &Server, client: &mut Client, prefix: &str) {
    let mut failed = 0;
    for index in 0..60 {
        match client.get(&format!("{prefix}{index}")) {
            Ok(value) => assert_eq!(value, None),
            Err(line) => {
                assert_eq!(line, "SERVER_ERROR node is not available");
                failed += 1;
            }
        }
    }
    assert!(failed > 5 && failed < 55, "{failed}");
    assert!(count(proxy, "ejections") >= 1);
}

#[test]
fn a_lost_datagram_is_asked_again_and_is_no_miss() {
    let node = Script::start(echo, |_, _, _| {});
    let proxy = proxy("udp_timeout_ms = 20", &[node.address]);
    let mut client = Client::new(&proxy);
    for index in 0..20 {
        let key = format!("lost{index}");
        assert_eq!(client.get(&key), Ok(Some(key.clone())));
    }
    assert_eq!(count(&proxy, "udp_lost"), 20);
    assert_eq!(count(&proxy, "node_errors"), 0);
    // The replies, if any, are spread over the node's queues.
    let mut ports = node.ports.lock().unwrap().clone();
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() >= 4, "{ports:?}");
}

#[test]
fn a_late_end_does_not_turn_another_batchs_hits_into_misses() {
    // Every datagram is answered by an END for the previous one, by one for every id around it, and only then
    // correctly.
    let before = Mutex::new(Vec::<Vec<u8>>::new());
    let node = Script::start(echo, move |socket, peer, datagram| {
        let mut before = before.lock().unwrap();
        for old in before.iter() {
            let _ = socket.send_to(&[&old[..8], b"END\r\n"].concat(), peer);
        }
        before.push(datagram.to_vec());
        // Half of the replies are lost.
        if before.len() % 2 == 0 {
            let _ = socket.send_to(&hits(datagram), peer);
        }
    });
    let proxy = proxy("udp_timeout_ms = 5", &[node.address]);
    let mut client = Client::new(&proxy);
    for index in 0..200 {
        let key = format!("late{index}");
        assert_eq!(client.get(&key), Ok(Some(key.clone())));
    }
    assert!(count(&proxy, "udp_lost") > 0 && count(&proxy, "udp_late") > 0);
}

#[test]
fn garbage_over_udp_is_asked_again_over_tcp() {
    let turn = AtomicUsize::new(0);
    let node = Script::start(echo, move |socket, peer, datagram| {
        let head = &datagram[..8];
        let body: &[u8] = match turn.fetch_add(1, Relaxed) % 5 {
            0 => b"VALUE other 0 1\r\nx\r\nEND\r\n",
            1 => b"SERVER_ERROR reply too large for UDP\r\n",
            2 => b"\xff\xfe",
            3 => b"END\r\nEND\r\n",
            _ => b"VALUE",
        };
        let _ = socket.send_to(&[head, body].concat(), peer);
    });
    let proxy = proxy("udp_timeout_ms = 1000", &[node.address]);
    let mut client = Client::new(&proxy);
    for index in 0..25 {
        let key = format!("garbage{index}");
        assert_eq!(client.get(&key), Ok(Some(key.clone())));
    }
    assert_eq!(count(&proxy, "udp_lost"), 0);
}

#[test]
fn client_reads_its_own_writes_across_transports() {
    // TCP is slow, and a datagram never shows what TCP has not done yet.
    let deleted = Arc::new(AtomicBool::new(false));
    let done = deleted.clone();
    let tcp = move |line: &str| {
        if line.starts_with("delete") {
            std::thread::sleep(Duration::from_millis(200));
            done.store(true, Relaxed);
            return b"DELETED\r\n".to_vec();
        }
        if done.load(Relaxed) && line.starts_with("get") {
            return b"END\r\n".to_vec();
        }
        echo(line)
    };
    let gone = deleted.clone();
    let node = Script::start(tcp, move |socket, peer, datagram| {
        std::thread::sleep(Duration::from_millis(100));
        let reply = match gone.load(Relaxed) {
            true => [&datagram[..8], b"END\r\n"].concat(),
            false => hits(datagram),
        };
        let _ = socket.send_to(&reply, peer);
    });
    let proxy = proxy(
        "udp_timeout_ms = 10000\ntimeout_ms = 20000",
        &[node.address],
    );
    let mut client = Client::new(&proxy);
    // The read before the write sees the value, the one after it does not.
    client.send("get own\r\ndelete own\r\nget own\r\n");
    let mut lines = String::new();
    for _ in 0..5 {
        lines += &client.line();
    }
    assert_eq!(lines, "VALUE own 0 3\r\nown\r\nEND\r\nDELETED\r\nEND\r\n");
}

#[test]
fn a_frozen_node_fails_its_keys_alone_and_is_taken_out() {
    let frozen = Script::start(|_| Vec::new(), |_, _, _| {});
    let well = Engine::start();
    let more = "timeout_ms = 200\nudp_timeout_ms = 20\nfailures = 2\nretry_ms = 100000";
    let proxy = proxy(more, &[frozen.address, well.address]);
    let mut client = Client::new(&proxy);
    fails_for_one_of_two(&proxy, &mut client, "frozen");
}

#[test]
fn a_node_that_dies_comes_back_by_itself() {
    let node = Engine::start();
    let proxy = proxy(
        "timeout_ms = 300\nudp_timeout_ms = 20\nfailures = 1\nretry_ms = 50",
        &[node.address],
    );
    let mut client = Client::new(&proxy);
    assert_eq!(client.set("dead", "x"), "STORED");
    let port = node.address.port();
    drop(node);
    until(|| client.get("dead").is_err());
    let answer = client.set("dead", "y");
    assert_eq!(answer, "SERVER_ERROR node is not available");
    let _node = Engine::at(port);
    until(|| client.set("dead", "z") == "STORED");
    assert_eq!(client.get("dead"), Ok(Some("z".into())));
}

#[test]
fn keys_of_a_node_that_is_out_go_to_the_failover_pool() {
    let spare = Engine::start();
    let address = hippos_process::free_address();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nfailures = 1\nretry_ms = 100000\n\
         [pools.default]\nnodes = [\"{address}\"]\nfailover = \"spare\"\n\
         [pools.spare]\nnodes = [\"{}\"]\n",
        spare.address
    );
    let config = hippos_proxy::config::Config::parse(&text).unwrap();
    let proxy = hippos_proxy::server::Server::start(config).unwrap();
    let mut client = Client::new(&proxy);
    until(|| client.set("spare", "x") == "STORED");
    assert_eq!(client.get("spare"), Ok(Some("x".into())));
}

#[test]
fn unsolicited_reply_closes_the_node_connection() {
    let node = Script::start(
        |line| match line.split(' ').next() {
            Some("get") => b"VALUE b 0 1\r\nx\r\nEND\r\n".to_vec(),
            Some("delete") => b"DELETED\r\nDELETED\r\n".to_vec(),
            _ => echo(line),
        },
        |_, _, _| {},
    );
    let proxy = proxy("udp_timeout_ms = 10\nfailures = 1000", &[node.address]);
    let mut client = Client::new(&proxy);
    // Another key's value is not accepted.
    assert!(client.get("a").is_err());
    for _ in 0..5 {
        let answer = client.ask("delete x");
        assert!(["DELETED", "SERVER_ERROR node is not available"].contains(&answer.as_str()));
    }
    until(|| count(&proxy, "node_disconnects") > 1);
}

#[test]
fn a_node_that_takes_no_connection_is_given_up_in_time() {
    use socket2::{Domain, Socket, Type};
    // Its queue is full, so that connection attempts get no answer.
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let full = socket();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    full.bind(&any.into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _queue: Vec<_> = (0..4)
        .map(|_| {
            let one = socket();
            one.set_nonblocking(true).unwrap();
            let _ = one.connect(&address.into());
            one
        })
        .collect();
    let well = Engine::start();
    let more = "timeout_ms = 300\nudp_timeout_ms = 20\nfailures = 1\nretry_ms = 100000";
    let proxy = proxy(more, &[address, well.address]);
    let mut client = Client::new(&proxy);
    fails_for_one_of_two(&proxy, &mut client, "deaf");
}

#[test]
fn a_slow_node_answers_late_and_rightly() {
    let slowly = |line: &str| {
        std::thread::sleep(Duration::from_millis(10));
        echo(line)
    };
    let node = Script::start(slowly, |socket, peer, datagram| {
        std::thread::sleep(Duration::from_millis(30));
        let _ = socket.send_to(&hits(datagram), peer);
    });
    let proxy = proxy("udp_timeout_ms = 20\ntimeout_ms = 60000", &[node.address]);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let mut client = Client::new(&proxy);
            scope.spawn(move || {
                for index in 0..20 {
                    let key = format!("slow{number}:{index}");
                    assert_eq!(client.get(&key), Ok(Some(key)));
                }
            });
        }
    });
    assert!(count(&proxy, "udp_lost") > 0 && count(&proxy, "udp_late") > 0);
    assert_eq!(count(&proxy, "node_errors"), 0);
}

#[test]
fn lines_of_mg_travel_in_datagrams_and_a_reply_too_few_is_no_answer() {
    let node = Script::start(
        |line| match line {
            "mg one v" => b"VA 1\r\n1\r\n".to_vec(),
            _ => b"EN\r\n".to_vec(),
        },
        |socket, peer, datagram| {
            let lines = datagram[8..].split(|&byte| byte == b'\n').count() - 1;
            // No reply to the last line.
            let reply = b"EN\r\n".repeat(lines - 1);
            let _ = socket.send_to(&[&datagram[..8], &reply].concat(), peer);
        },
    );
    let proxy = proxy("udp_timeout_ms = 10000", &[node.address]);
    let mut client = Client::new(&proxy);
    client.send("mg one v\r\nmg two v\r\n");
    let lines = client.line() + &client.line() + &client.line();
    assert_eq!(lines, "VA 1\r\n1\r\nEN\r\n");
    assert!(count(&proxy, "batched_keys") == 2 && count(&proxy, "udp_retries") == 2);
}

#[test]
fn a_line_that_shows_reads_is_sent_once_and_after_the_clients_own_reads() {
    let reads = Arc::new(AtomicU32::new(0));
    let (by_tcp, by_udp) = (reads.clone(), reads);
    let node = Script::start(
        move |line| match line {
            "me one" => format!("ME reads={}\r\n", by_tcp.load(Relaxed)).into_bytes(),
            "get one" => echo(line),
            _ => format!("HD h{}\r\n", by_tcp.fetch_add(1, Relaxed)).into_bytes(),
        },
        // The node has read the item when the reply is lost.
        move |_, _, _| {
            by_udp.fetch_add(1, Relaxed);
        },
    );
    let proxy = proxy("udp_timeout_ms = 20", &[node.address]);
    let mut client = Client::new(&proxy);
    for (line, reply) in [
        ("mg one h", "HD h0\r\n"),
        ("mg one l", "HD h1\r\n"),
        ("me one", "ME reads=2\r\n"),
    ] {
        client.send(&format!("{line}\r\n"));
        assert_eq!(client.line(), reply, "{line}");
    }
    assert_eq!(count(&proxy, "batched_keys"), 0);
    client.send("get one\r\nmg one h\r\nget one\r\nme one\r\n");
    let mut lines = String::new();
    for _ in 0..8 {
        lines += &client.line();
    }
    let value = "VALUE one 0 3\r\none\r\nEND\r\n";
    assert_eq!(lines, format!("{value}HD h3\r\n{value}ME reads=4\r\n"));
}
