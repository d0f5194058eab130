// SPDX-License-Identifier: MIT

//! Clients and nodes that mean harm: all others are served, memory stays bounded, and no reply reaches the wrong
//! client.

mod common;

use common::{count, datagram, proxy, udp, until, Client, Engine, Proxy, Script};
use hippos_proxy::config::Config;
use hippos_proxy::server::Server;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A node without datagrams.
fn tcp_only(more: &str, node: SocketAddr) -> Server {
    let text = format!(
        "listen = \"127.0.0.1:0\"\nthreads = 1\n{more}\n[pools.default]\n\
         nodes = [{{ address = \"{node}\", udp = false }}]\n"
    );
    Server::start(Config::parse(&text).unwrap()).unwrap()
}

#[test]
fn clients_that_do_not_read_are_not_read_from() {
    const VALUE: usize = 200_000;
    let node = Engine::start();
    let proxy = Proxy::start(&format!(
        "listen = \"127.0.0.1:0\"\nthreads = 1\nmemory_mb = 32\ntimeout_ms = 60000\n\
         [pools.default]\nnodes = [\"{}\"]\n",
        node.address
    ));
    let mut well = Client::at(proxy.tcp);
    assert_eq!(well.set("big", &"v".repeat(VALUE)), "STORED");
    let request = b"get big\r\n".repeat(200);
    let mut slow: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(proxy.tcp).unwrap())
        .collect();
    for client in &mut slow {
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.write(&request).unwrap(), request.len());
    }
    // 20 x 200 x 200 kB are asked for.
    for number in 0..20 {
        let value = number.to_string();
        assert_eq!(well.set("small", &value), "STORED");
        assert_eq!(well.get("small"), Ok(Some(value)));
    }
    let most = proxy.memory("VmHWM");
    println!("{most} KiB at the most");
    assert!(most <= 160 << 10, "{most} KiB");
    // A client that reads gets replies, in order: the value, or the error that there is no memory for it.
    let client = &mut slow[0];
    client.set_nonblocking(false).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let value = format!("VALUE big 0 {VALUE}\r\n{}\r\nEND\r\n", "v".repeat(VALUE));
    let error = "SERVER_ERROR out of memory writing get response\r\n";
    for _ in 0..20 {
        let mut start = vec![0; error.len()];
        client.read_exact(&mut start).unwrap();
        if start != error.as_bytes() {
            let mut rest = vec![0; value.len() - start.len()];
            client.read_exact(&mut rest).unwrap();
            assert!([start, rest].concat() == value.as_bytes(), "another reply");
        }
    }
}

#[test]
fn unfinished_commands_do_nothing_and_hold_up_no_other_client() {
    let node = Engine::start();
    let proxy = proxy("", &[node.address]);
    let mut well = Client::new(&proxy);
    let tcp = proxy.tcp.unwrap();
    let parts: [&[u8]; 6] = [
        b"get hal",
        b"set half 0 0 10\r\nhalf",
        b"set half 0 0 4\r\nhalf\r",
        b"ms half 4\r\nha",
        b"\x80\x01\x00\x04\x08\x00\x00\x00\x00\x00\x00\x10",
        b"delete ha",
    ];
    let mut halves = Vec::new();
    for round in 0..50 {
        for part in parts {
            let mut stream = TcpStream::connect(tcp).unwrap();
            stream.write_all(part).unwrap();
            // Some go at once.
            if round % 2 == 0 {
                halves.push(stream);
            }
        }
    }
    assert_eq!(well.set("well", "x"), "STORED");
    assert_eq!(well.get("well"), Ok(Some("x".into())));
    drop(halves);
    until(|| count(&proxy, "curr_connections") == 1);
    assert_eq!(well.get("half"), Ok(None));
    assert_eq!(count(&proxy, "node_disconnects"), 0);
}

#[test]
fn a_datagram_is_answered_whatever_the_size_of_its_reply() {
    let node = Engine::start();
    let proxy = proxy("", &[node.address]);
    let mut client = Client::new(&proxy);
    assert_eq!(client.set("k", &"v".repeat(100_000)), "STORED");
    // More output waits than a stream may have when the second command is its turn.
    let reply = datagram(&udp(&proxy), "get k k k\r\ntouch k 0\r\n").unwrap();
    assert!(reply.starts_with("VALUE k 0 100000\r\n"), "{reply}");
    let reply = datagram(&udp(&proxy), &"stats proxy\r\n".repeat(300)).unwrap();
    assert!(reply.starts_with("STAT "), "{reply}");
    let all = "get k k k k k k\r\n".repeat(3);
    let reply = datagram(&udp(&proxy), &all).unwrap();
    assert_eq!(reply, "SERVER_ERROR reply too large for UDP\r\n");
}

#[test]
fn http_clients_that_send_nothing_do_not_hold_up_the_others() {
    let node = Engine::start();
    let proxy = proxy("http = \"127.0.0.1:0\"", &[node.address]);
    let address = proxy.http.unwrap();
    let idle: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    // Each of them is given up after a second.
    let page = common::http_at(address, "GET", "/health");
    assert!(page.ends_with("ok\n"), "{page}");
    let last = idle.last().unwrap();
    last.set_nonblocking(true).unwrap();
    let waits = (&*last).read(&mut [0]).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn giant_keys_and_lines_cost_the_node_nothing() {
    let node = Engine::start();
    let proxy = Proxy::start(&format!(
        "listen = \"127.0.0.1:0\"\nthreads = 1\n[pools.default]\nnodes = [\"{}\"]\n",
        node.address
    ));
    let mut well = Client::at(proxy.tcp);
    assert_eq!(well.set("well", "x"), "STORED");
    let before = proxy.memory("VmRSS");
    let giant = "k".repeat(8 << 20);
    let long = "k".repeat(251);
    for line in [
        format!("get {giant}\r\n"),
        format!("get a {giant}\r\n"),
        format!("set {giant} 0 0 1\r\nx\r\n"),
        format!("{giant}\r\n"),
        format!("mg {giant} v\r\n"),
        format!("get {long}\r\n"),
        format!("set {long} 0 0 1\r\nx\r\n"),
        format!("ms {long} 1\r\nx\r\n"),
    ] {
        let stream = TcpStream::connect(proxy.tcp).unwrap();
        let mut reader = stream.try_clone().unwrap();
        reader
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let sender = std::thread::spawn(move || {
            let mut stream = stream;
            // The proxy may close the connection meanwhile.
            let _ = stream.write_all(line.as_bytes());
            let _ = stream.write_all(b"quit\r\n");
        });
        let mut reply = Vec::new();
        let _ = reader.read_to_end(&mut reply);
        sender.join().unwrap();
        let reply = String::from_utf8(reply).unwrap();
        // No line is taken for a value or a success.
        for reply in reply.lines() {
            assert!(reply.contains("ERROR"), "{reply}");
        }
        assert_eq!(well.get("well"), Ok(Some("x".into())));
    }
    let grown = proxy.memory("VmHWM").saturating_sub(before);
    assert!(grown <= 8 << 10, "{grown} KiB more");
    let mut stats = String::new();
    well.send("stats proxy\r\n");
    loop {
        let line = well.line();
        if line == "END\r\n" {
            break;
        }
        stats += &line;
    }
    assert!(stats.contains("STAT node_disconnects 0\r\n"), "{stats}");
}

#[test]
fn packets_whose_lengths_lie_are_refused_without_their_bytes() {
    let node = Engine::start();
    let proxy = proxy("", &[node.address]);
    let mut well = Client::new(&proxy);
    let packet = |opcode: u8, key: u16, extras: u8, body: u32| {
        let mut head = [0; 24];
        (head[0], head[1], head[4]) = (0x80, opcode, extras);
        head[2..4].copy_from_slice(&key.to_be_bytes());
        head[8..12].copy_from_slice(&body.to_be_bytes());
        head
    };
    for head in [
        packet(0x01, 1, 8, u32::MAX),
        packet(0x01, 1, 8, 3),
        packet(0x01, u16::MAX, 8, u32::from(u16::MAX) + 8),
        packet(0x00, 0, 0, 1 << 30),
        packet(0x0a, 9, 255, 1),
        packet(0xff, 1, 0, u32::MAX),
    ] {
        let mut stream = TcpStream::connect(proxy.tcp.unwrap()).unwrap();
        stream.write_all(&head).unwrap();
        stream.write_all(&[b'x'; 64]).unwrap();
        assert_eq!(well.set("well", "x"), "STORED");
        assert_eq!(well.get("well"), Ok(Some("x".into())));
    }
    assert_eq!(count(&proxy, "node_disconnects"), 0);
    until(|| count(&proxy, "curr_connections") == 1);
}

#[test]
fn replies_for_a_client_that_has_gone_reach_no_other() {
    let slowly = |line: &str| {
        std::thread::sleep(Duration::from_millis(2));
        let key = line.strip_prefix("get ").unwrap_or_default();
        format!("VALUE {key} 0 {}\r\n{key}\r\nEND\r\n", key.len()).into_bytes()
    };
    let node = Script::start(slowly, |_, _, _| {});
    let proxy = tcp_only("timeout_ms = 60000", node.address);
    for round in 0..40 {
        let mut gone = TcpStream::connect(proxy.tcp.unwrap()).unwrap();
        gone.write_all(format!("get secret{round}\r\n").repeat(5).as_bytes())
            .unwrap();
        until(|| count(&proxy, "cmd_get") == 6 * round + 5);
        drop(gone);
        until(|| count(&proxy, "curr_connections") == 0);
        // It gets the place of the one that has gone.
        let mut client = Client::new(&proxy);
        let key = format!("own{round}");
        assert_eq!(client.get(&key), Ok(Some(key.clone())));
        drop(client);
        until(|| count(&proxy, "curr_connections") == 0);
    }
}

#[test]
fn connections_over_the_limit_are_refused_until_one_ends() {
    let node = Engine::start();
    let proxy = proxy("max_connections = 4", &[node.address]);
    let mut clients: Vec<_> = (0..4).map(|_| Client::new(&proxy)).collect();
    for client in &mut clients {
        assert_eq!(client.ask("mn"), "MN");
    }
    let mut fifth = Client::new(&proxy);
    assert_eq!(fifth.line(), "ERROR Too many open connections\r\n");
    assert!(fifth.closed());
    assert_eq!(count(&proxy, "rejected_connections"), 1);
    clients.pop();
    until(|| count(&proxy, "curr_connections") == 3);
    assert_eq!(Client::new(&proxy).ask("mn"), "MN");
}

#[test]
fn wrong_replies_over_tcp_fail_their_own_request_alone() {
    let wrong = |key: &str| -> Option<Vec<u8>> {
        Some(match key {
            "endless" => [&b"VALUE endless 0 4000000000\r\n"[..], &[b'x'; 1 << 20]].concat(),
            "line" => vec![b'A'; 64 << 10],
            "list" => b"VALUE list 0 1\r\nx\r\n".repeat(1 << 20),
            "packet" => vec![0x81; 100],
            "other" => b"VALUE another 0 1\r\nx\r\nEND\r\n".to_vec(),
            "twice" => b"VALUE twice 0 1\r\nx\r\nVALUE twice 0 1\r\ny\r\nEND\r\n".to_vec(),
            "longer" => b"VALUE longer 0 1\r\nxy\r\nEND\r\n".to_vec(),
            "never" => b"VALUE never 0 1\r\nx\r\n".to_vec(),
            "nothing" => Vec::new(),
            "late" => {
                std::thread::sleep(Duration::from_millis(800));
                b"VALUE late 0 4\r\nlate\r\nEND\r\n".to_vec()
            }
            _ => return None,
        })
    };
    let node = Script::start(
        move |line| {
            let key = line.strip_prefix("get ").unwrap_or_default();
            wrong(key).unwrap_or_else(|| {
                format!("VALUE {key} 0 {}\r\n{key}\r\nEND\r\n", key.len()).into_bytes()
            })
        },
        |_, _, _| {},
    );
    let more = "timeout_ms = 300\nfailures = 1000\nvalue_max = 1000000";
    let proxy = tcp_only(more, node.address);
    let mut client = Client::new(&proxy);
    for key in [
        "endless", "line", "list", "packet", "other", "twice", "longer", "never", "nothing", "late",
    ] {
        let answer = client.get(key);
        let want = Err("SERVER_ERROR node is not available".to_owned());
        assert_eq!(answer, want, "{key}");
        for index in 0..10 {
            let key = format!("fine{index}");
            assert_eq!(client.get(&key), Ok(Some(key.clone())));
        }
    }
    // The reply that came too late went to no client.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(client.get("fine"), Ok(Some("fine".into())));
    assert!(count(&proxy, "node_disconnects") >= 10);
}

/// Sends a request, and expects these bytes.
fn exchange(address: SocketAddr, request: &[u8], want: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).unwrap();
    stream.write_all(request).unwrap();
    let mut reply = vec![0; want.len()];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply, want, "{}", reply.escape_ascii());
}

#[test]
fn a_key_whose_hash_is_zero_is_a_key_like_others() {
    const KEY: &[u8] = b"zero1541635Is";
    assert_eq!(hippos_ring::Hash::Fnv1a32.of(KEY), 0);
    let node = Engine::start();
    let proxy = tcp_only("", node.address);
    let address = proxy.tcp.unwrap();
    let set = [b"set ", KEY, b" 0 0 1\r\nx\r\n"].concat();
    exchange(address, &set, b"STORED\r\n");
    let get = [b"get ", KEY, b"\r\n"].concat();
    let value = [b"VALUE ", KEY, b" 0 1\r\nx\r\nEND\r\n"].concat();
    exchange(address, &get, &value);
    assert_eq!(count(&proxy, "node_disconnects"), 0);
}

#[test]
fn keys_of_any_bytes_are_kept_by_every_kind_of_route() {
    let nodes = [Engine::start(), Engine::start()];
    let [first, second] = nodes.each_ref().map(|node| node.address);
    let text = format!(
        "listen = \"127.0.0.1:0\"\nthreads = 1\n[pools.a]\nnodes = [\"{first}\"]\n\
         [pools.b]\nnodes = [\"{second}\"]\n\
         [[routes]]\npool = \"a\"\n\
         [[routes]]\nprefix = \"flight\"\npool = \"a\"\nsingle_flight_ms = 50\n\
         [[routes]]\nprefix = \"warm\"\npool = \"a\"\nwarm = \"b\"\n\
         [[routes]]\nprefix = \"lock\"\npool = \"a\"\nlock_s = 60\n\
         [[routes]]\nprefix = \"split\"\npool = \"a\"\nsplit_bytes = 2000\n"
    );
    let proxy = Server::start(Config::parse(&text).unwrap()).unwrap();
    let address = proxy.tcp.unwrap();
    let key = |kind: &str| [kind.as_bytes(), b"\xff\xfe\xc3"].concat();
    let with = |before: &str, kind: &str, after: &str| {
        [before.as_bytes(), &key(kind), after.as_bytes()].concat()
    };
    let get = |kind| with("get ", kind, "\r\n");
    let value = |kind| with("VALUE ", kind, " 0 1\r\nx\r\nEND\r\n");
    let set = |kind| with("set ", kind, " 0 0 1\r\nx\r\n");

    exchange(address, &get("flight"), b"END\r\n");
    exchange(address, &set("flight"), b"STORED\r\n");
    exchange(address, &get("flight"), &value("flight"));

    exchange(second, &set("warm"), b"STORED\r\n");
    exchange(address, &get("warm"), &value("warm"));
    // The value is stored after the client has it.
    until(|| {
        let mut stream = TcpStream::connect(first).unwrap();
        stream
            .write_all(&[&get("warm")[..], b"quit\r\n"].concat())
            .unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        reply == value("warm")
    });

    let mut owner = TcpStream::connect(address).unwrap();
    owner
        .write_all(&with("add ", "lock", " 0 0 1\r\nx\r\n"))
        .unwrap();
    owner.read_exact(&mut [0; 8]).unwrap();
    exchange(first, &get("lock"), &value("lock"));
    drop(owner);
    // Its owner has gone, and with it the lock.
    until(|| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(&with("add ", "lock", " 0 0 1\r\nx\r\nquit\r\n"))
            .unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        reply == b"STORED\r\n"
    });

    let large = "v".repeat(5000);
    let request = with("set ", "split", &format!(" 0 0 5000\r\n{large}\r\n"));
    exchange(address, &request, b"STORED\r\n");
    let want = with("VALUE ", "split", &format!(" 0 5000\r\n{large}\r\nEND\r\n"));
    exchange(address, &get("split"), &want);
}
