// SPDX-License-Identifier: MIT

//! Copies, failover, warm-up, shadows and limits, in front of real engines.

mod common;

use common::{count, http, until, Client, Engine, Script};
use hippos_process::free_address;
use hippos_proxy::config::Config;
use hippos_proxy::server::{ControlCommand, Server};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

/// A proxy with a pool of one node for each of `nodes`, named `a`, `b`, `c`.
fn proxy(nodes: &[SocketAddr], rest: &str) -> Server {
    pools(nodes, "", "", rest)
}

fn pools(nodes: &[SocketAddr], top: &str, first: &str, rest: &str) -> Server {
    let mut text = format!(
        "listen = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nthreads = 2\ntimeout_ms = 500\n\
         failures = 1\nretry_ms = 50\n{top}\n"
    );
    for (name, node) in ["a", "b", "c"].iter().zip(nodes) {
        let more = if *name == "a" { first } else { "" };
        text += &format!("[pools.{name}]\nnodes = [\"{node}\"]\n{more}\n");
    }
    text += rest;
    Server::start(Config::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))).unwrap()
}

#[test]
fn a_change_reaches_every_copy_and_any_copy_answers_reads() {
    let nodes = [Engine::start(), Engine::start()];
    let addresses = nodes.each_ref().map(|node| node.address);
    let proxy = proxy(
        &addresses,
        "[[routes]]\npools = [\"a\", \"b\"]\nwrite = \"all_sync\"\nread = \"spread\"\n",
    );
    let mut client = Client::new(&proxy);
    let mut copies = addresses.map(Client::at);
    assert_eq!(client.set("copy", "1"), "STORED");
    for copy in &mut copies {
        assert_eq!(copy.get("copy"), Ok(Some("1".into())));
    }
    assert_eq!(client.ask("incr copy 4"), "5");
    assert_eq!(client.ask("ms copy 1 q MA\r\n0\r\nmn"), "MN");
    for copy in &mut copies {
        assert_eq!(copy.get("copy"), Ok(Some("50".into())));
    }
    for _ in 0..4 {
        assert_eq!(client.get("copy"), Ok(Some("50".into())));
        assert_eq!(client.ask("mg copy s"), "HD s2");
    }
    // A CAS value is valid in one copy; the item is deleted in the other.
    let line = copies[0].ask("mg copy c");
    let cas = line.trim_start_matches("HD c");
    assert_eq!(client.ask("cas copy 0 0 1 1\r\nx"), "EXISTS");
    assert_eq!(client.ask(&format!("cas copy 0 0 1 {cas}\r\nx")), "STORED");
    assert_eq!(copies[0].get("copy"), Ok(Some("x".into())));
    assert_eq!(copies[1].get("copy"), Ok(None));
    assert_eq!(client.ask("delete copy"), "DELETED");
    assert_eq!(copies[0].get("copy"), Ok(None));
    assert_eq!(count(&proxy, "node_errors"), 0);
}

#[test]
fn a_cas_value_is_read_from_the_copy_that_it_is_compared_in() {
    let nodes = [Engine::start(), Engine::start()];
    let addresses = nodes.each_ref().map(|node| node.address);
    let near = format!(
        "listen = \"127.0.0.1:0\"\nthreads = 1\nzone = \"here\"\n[pools.a]\nnodes = [\"{}\"]\n\
         [pools.b]\nnodes = [\"{}\"]\nzone = \"here\"\n[[routes]]\npools = [\"a\", \"b\"]\n",
        addresses[0], addresses[1]
    );
    let near = Server::start(Config::parse(&near).unwrap()).unwrap();
    let spread = proxy(
        &addresses,
        "[[routes]]\npools = [\"a\", \"b\"]\nread = \"spread\"\n",
    );
    let fastest = proxy(
        &addresses,
        "[[routes]]\npools = [\"a\", \"b\"]\nread = \"fastest\"\n",
    );
    // The copies count differently.
    assert_eq!(Client::at(addresses[1]).set("pad", "x"), "STORED");
    for proxy in [&near, &spread, &fastest] {
        let mut client = Client::new(proxy);
        for _ in 0..4 {
            assert_eq!(client.set("k", "1"), "STORED");
            let line = client.ask("gets k");
            assert_eq!(client.line() + &client.line(), "1\r\nEND\r\n");
            let cas = line.rsplit(' ').next().unwrap().to_owned();
            let change = format!("cas k 0 0 1 {cas}\r\n2");
            assert_eq!(client.ask(&change), "STORED");
            let line = client.ask("mg k c");
            let cas = line.strip_prefix("HD c").unwrap();
            assert_eq!(client.ask(&format!("ms k 1 C{cas}\r\n3")), "HD");
            assert_eq!(client.ask(&change), "EXISTS");
        }
    }
}

#[test]
fn a_node_that_stands_in_for_another_copys_gets_a_change_once() {
    let node = Engine::start();
    let proxy = pools(
        &[free_address(), node.address],
        "",
        "failover = \"b\"",
        "[[routes]]\npools = [\"a\", \"b\"]\nread = \"fastest\"\n",
    );
    let mut client = Client::new(&proxy);
    until(|| client.set("n", "1") == "STORED");
    assert_eq!(client.ask("incr n 1"), "2");
    assert_eq!(client.get("n"), Ok(Some("2".into())));
    assert_eq!(client.ask("append n 0 0 1\r\nx"), "STORED");
    assert_eq!(client.get("n"), Ok(Some("2x".into())));
}

#[test]
fn a_dead_copy_fails_what_waits_for_all_and_nothing_else() {
    let nodes = [Engine::start(), Engine::start()];
    let [a, c] = nodes.each_ref().map(|node| node.address);
    let addresses = [a, free_address(), c];
    for (policy, pools, stored) in [
        ("all_sync", "\"a\", \"b\", \"c\"", false),
        ("all_majority", "\"a\", \"b\", \"c\"", true),
        ("all_majority", "\"a\", \"b\"", false),
        ("all_fastest", "\"b\", \"c\"", true),
        ("all_async", "\"a\", \"b\"", true),
        ("all_async", "\"b\", \"a\"", false),
    ] {
        let route = format!("[[routes]]\npools = [{pools}]\nwrite = \"{policy}\"\n");
        let proxy = proxy(&addresses, &route);
        let mut client = Client::new(&proxy);
        for round in 0..3 {
            let answer = client.set("dead", "x");
            let want = if stored {
                "STORED"
            } else {
                "SERVER_ERROR node is not available"
            };
            assert_eq!(answer, want, "{policy} {pools} {round}");
        }
    }
}

#[test]
fn reads_go_on_to_the_next_pool() {
    let nodes = [Engine::start(), Engine::start()];
    let [a, b] = nodes.each_ref().map(|node| node.address);
    assert_eq!(Client::at(b).set("next", "b"), "STORED");
    let read = |addresses: &[SocketAddr], policy| {
        let route = format!("[[routes]]\npools = [\"a\", \"b\"]\nread = \"{policy}\"\n");
        let proxy = proxy(addresses, &route);
        let mut client = Client::new(&proxy);
        let value = client.get("next");
        let meta = client.ask("mg next s");
        assert_eq!(meta == "HD s1", value == Ok(Some("b".into())), "{meta}");
        (value, client.get("none"))
    };
    let hit = || Ok(Some("b".into()));
    assert_eq!(read(&[a, b], "failover"), (Ok(None), Ok(None)));
    assert_eq!(read(&[a, b], "miss_failover"), (hit(), Ok(None)));
    assert_eq!(read(&[a, b], "fastest"), (hit(), Ok(None)));
    let dead = free_address();
    for policy in ["failover", "miss_failover", "fastest"] {
        assert_eq!(read(&[dead, b], policy), (hit(), Ok(None)), "{policy}");
    }
    let none = free_address();
    assert!(read(&[dead, none], "failover").0.is_err());
}

#[test]
fn a_cold_pool_is_filled_from_a_warm_one_with_the_time_that_is_left() {
    let nodes = [Engine::start(), Engine::start()];
    let addresses = nodes.each_ref().map(|node| node.address);
    let proxy = proxy(&addresses, "[[routes]]\npool = \"a\"\nwarm = \"b\"\n");
    let [mut cold, mut warm] = addresses.map(Client::at);
    for key in ["one", "two", "gone"] {
        let answer = warm.ask(&format!("set {key} 7 1000 4\r\nwarm"));
        assert_eq!(answer, "STORED");
    }
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("get one"), "VALUE one 7 4");
    assert_eq!(
        (client.line(), client.line()),
        ("warm\r\n".into(), "END\r\n".into())
    );
    until(|| cold.ask("mg one f") == "HD f7");
    let ttl = cold.ask("mg one t");
    let left: u32 = ttl.trim_start_matches("HD t").parse().unwrap();
    assert!((900..=1000).contains(&left), "{ttl}");
    // A CAS value is that of the cold pool.
    let line = client.ask("gets two");
    assert_eq!(client.line() + &client.line(), "warm\r\nEND\r\n");
    let cas = line.rsplit(' ').next().unwrap();
    assert_eq!(client.ask(&format!("cas two 0 0 3 {cas}\r\nnew")), "STORED");
    assert_eq!(client.get("two"), Ok(Some("new".into())));
    // A changed item is deleted from the warm pool, and does not return.
    assert_eq!(client.ask("delete gone"), "NOT_FOUND");
    assert_eq!(client.get("gone"), Ok(None));
    assert_eq!(client.get("never"), Ok(None));
    assert_eq!(count(&proxy, "warmed"), 2);
}

#[test]
fn a_warm_value_of_more_than_thirty_days_keeps_its_time_to_live() {
    let nodes = [Engine::start(), Engine::start()];
    let addresses = nodes.each_ref().map(|node| node.address);
    let proxy = proxy(&addresses, "[[routes]]\npool = \"a\"\nwarm = \"b\"\n");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let end = now.as_secs() + 60 * 86_400;
    let mut warm = Client::at(addresses[1]);
    for key in ["one", "two"] {
        assert_eq!(warm.ask(&format!("set {key} 0 {end} 4\r\nwarm")), "STORED");
    }
    let mut client = Client::new(&proxy);
    assert_eq!(client.get("one"), Ok(Some("warm".into())));
    let line = client.ask("gets two");
    assert!(line.starts_with("VALUE two"), "{line}");
    let mut cold = Client::at(addresses[0]);
    for key in ["one", "two"] {
        until(|| cold.get(key) == Ok(Some("warm".into())));
        let line = cold.ask(&format!("mg {key} t"));
        let left: u64 = line.strip_prefix("HD t").unwrap().parse().unwrap();
        assert!(left > 59 * 86_400 && left < 61 * 86_400, "{left}");
    }
}

#[test]
fn a_change_that_is_not_made_keeps_the_warm_value() {
    let nodes = [Engine::start(), Engine::start()];
    let addresses = nodes.each_ref().map(|node| node.address);
    let proxy = proxy(&addresses, "[[routes]]\npool = \"a\"\nwarm = \"b\"\n");
    let mut warm = Client::at(addresses[1]);
    let mut client = Client::new(&proxy);
    for (number, line) in [
        "touch KEY 1000",
        "incr KEY 1",
        "replace KEY 0 0 1\r\n7",
        "append KEY 0 0 1\r\n7",
        "cas KEY 0 0 1 1\r\n7",
        "ms KEY 1 MR\r\n7",
        "ma KEY",
    ]
    .iter()
    .enumerate()
    {
        let key = format!("k{number}");
        let line = line.replace("KEY", &key);
        assert_eq!(warm.set(&key, "5"), "STORED");
        let refusal = client.ask(&line);
        assert!(
            ["NOT_FOUND", "NOT_STORED", "NF", "NS"].contains(&&*refusal),
            "{line}: {refusal}"
        );
        assert_eq!(warm.get(&key), Ok(Some("5".into())), "{line}");
        // Once it is copied the change is made, and the older value must not come back.
        assert_eq!(client.get(&key), Ok(Some("5".into())));
        until(|| Client::at(addresses[0]).get(&key) == Ok(Some("5".into())));
        if !line.starts_with("cas") {
            client.ask(&line);
            until(|| warm.get(&key) == Ok(None));
        }
    }
}

#[test]
fn a_held_node_stays_out_when_a_reload_changes_its_settings() {
    let node = Engine::start();
    let text = |udp: bool| {
        format!(
            "listen = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nthreads = 1\ntimeout_ms = 300\n\
             udp_timeout_ms = 20\nfailures = 1\nretry_ms = 50\n[pools.default]\nreturning = \"hold\"\n\
             nodes = [{{ address = \"{}\", udp = {udp} }}]\n",
            node.address
        )
    };
    let proxy = Server::start(Config::parse(&text(true)).unwrap()).unwrap();
    let mut client = Client::new(&proxy);
    assert_eq!(client.set("old", "x"), "STORED");
    node.signal("STOP");
    until(|| client.get("old").is_err());
    node.signal("CONT");
    let held = format!("node {} held", node.address);
    until(|| http(&proxy, "GET", "/status").contains(&held));
    proxy.reload(Config::parse(&text(false)).unwrap());
    until(|| http(&proxy, "GET", "/status").contains("reloads 1"));
    for _ in 0..20 {
        assert!(client.get("old").is_err());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn concurrent_clients_of_copies_see_a_linear_history() {
    let nodes = [Engine::start(), Engine::start()];
    let addresses = nodes.each_ref().map(|node| node.address);
    let route = "[[routes]]\npools = [\"a\", \"b\"]\nwrite = \"all_sync\"\n";
    let proxy = proxy(&addresses, route);
    for seed in 20..23 {
        let plan = hippos_histories::Plan {
            server: proxy.tcp.unwrap(),
            clients: 6,
            keys: 8,
            operations: 150,
            udp: false,
            seed,
        };
        let history = hippos_histories::record(&plan).unwrap();
        assert_eq!(hippos_histories::check(&history), None, "seed {seed}");
    }
}

#[test]
fn commands_have_their_own_routes_and_shadows_send_no_replies() {
    let nodes = [Engine::start(), Engine::start(), Engine::start()];
    let addresses = nodes.each_ref().map(|node| node.address);
    let proxy = proxy(
        &addresses,
        "[[routes]]\nprefix = \"x\"\ncommands = [\"set\"]\npool = \"a\"\n\
         [[routes]]\nprefix = \"x\"\npool = \"b\"\n\
         [[routes]]\npool = \"a\"\nshadow = { pool = \"c\", share = 0.5 }\n",
    );
    let mut client = Client::new(&proxy);
    assert_eq!(client.set("x1", "1"), "STORED");
    assert_eq!(client.get("x1"), Ok(None));
    let [mut a, mut b, mut c] = addresses.map(Client::at);
    assert_eq!(a.get("x1"), Ok(Some("1".into())));
    assert_eq!(b.get("x1"), Ok(None));
    for number in 0..400 {
        assert_eq!(client.set(&format!("shadow{number}"), "1"), "STORED");
        assert_eq!(client.get(&format!("shadow{number}")), Ok(Some("1".into())));
    }
    let mut shadowed = 0;
    until(|| {
        let hits = (0..400).filter(|n| c.get(&format!("shadow{n}")).unwrap().is_some());
        let before = std::mem::replace(&mut shadowed, hits.count());
        before == shadowed && shadowed > 0
    });
    assert!((120..280).contains(&shadowed), "{shadowed}");
    assert_eq!(count(&proxy, "shadowed"), 2 * shadowed as u64);
}

#[test]
fn a_gutter_pool_keeps_values_for_its_time_to_live_only() {
    let gutter = Engine::start();
    let first = "failover = \"b\"\nfailover_ttl_s = 10";
    let rest = "[[routes]]\npool = \"a\"\n";
    let proxy = pools(&[free_address(), gutter.address], "", first, rest);
    let mut client = Client::new(&proxy);
    until(|| client.set("gutter", "x") == "STORED");
    let mut direct = Client::at(gutter.address);
    let ttl = |line: String| line.trim_start_matches("HD t").parse::<u32>().unwrap();
    assert!(ttl(direct.ask("mg gutter t")) <= 10);
    assert_eq!(client.ask("ms gutter 1 T0\r\ny"), "HD");
    assert_eq!(client.ask("touch gutter 0"), "TOUCHED");
    assert!(ttl(direct.ask("mg gutter t")) <= 10);
    assert_eq!(client.ask("gat 500 gutter"), "VALUE gutter 0 1");
    assert!(ttl(direct.ask("mg gutter t")) <= 10);
    assert!(count(&proxy, "failovers") > 3);
}

#[test]
fn a_node_that_comes_back_is_flushed_or_held_if_so_configured() {
    for returning in ["keep", "flush", "hold"] {
        let node = Engine::start();
        let first = format!("returning = \"{returning}\"");
        let rest = "[[routes]]\npool = \"a\"\n";
        let proxy = pools(&[node.address], "udp_timeout_ms = 20", &first, rest);
        let mut client = Client::new(&proxy);
        assert_eq!(client.set("old", "x"), "STORED");
        node.signal("STOP");
        until(|| client.get("old") == Err("SERVER_ERROR node is not available".into()));
        node.signal("CONT");
        if returning == "hold" {
            let held = format!("node {} held", node.address);
            until(|| http(&proxy, "GET", "/status").contains(&held));
            assert!(client.get("old").is_err());
            let admitted = http(&proxy, "POST", &format!("/admit?{}", node.address));
            assert!(admitted.contains("admitted"), "{admitted}");
        }
        until(|| client.get("old").is_ok());
        let want = (returning != "flush").then(|| "x".to_owned());
        assert_eq!(client.get("old"), Ok(want), "{returning}");
    }
}

#[test]
fn concurrent_misses_are_coalesced() {
    let node = Engine::start();
    let proxy = proxy(
        &[node.address],
        "[[routes]]\npool = \"a\"\nsingle_flight_ms = 20000\n",
    );
    let answers = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let mut client = Client::new(&proxy);
                scope.spawn(move || {
                    let value = client.get("flight").unwrap();
                    if value.is_none() {
                        std::thread::sleep(Duration::from_millis(300));
                        assert_eq!(client.set("flight", "filled"), "STORED");
                    }
                    value
                })
            })
            .collect();
        let answers = clients.into_iter().map(|client| client.join().unwrap());
        answers.collect::<Vec<_>>()
    });
    let misses = answers.iter().filter(|answer| answer.is_none()).count();
    assert_eq!(misses, 1, "{answers:?}");
    assert!(answers.iter().flatten().all(|value| value == "filled"));
    let mut client = Client::new(&proxy);
    assert_eq!(client.get("flight"), Ok(Some("filled".into())));
    // A stale value is returned to all clients but the one that has to fill it.
    assert_eq!(client.ask("md flight I T100"), "HD");
    assert_eq!(client.get("flight"), Ok(None));
    assert_eq!(client.get("flight"), Ok(Some("filled".into())));
}

#[test]
fn a_hot_value_is_kept_for_its_time_and_a_client_reads_its_own_changes() {
    let node = Engine::start();
    let rest = "[[routes]]\npool = \"a\"\n";
    let proxy = pools(&[node.address], "l1 = { ttl_ms = 100000 }", "", rest);
    let mut client = Client::new(&proxy);
    for value in ["1", "2"] {
        assert_eq!(client.set("hot", value), "STORED");
        let before = count(&proxy, "l1_hits");
        until(|| {
            assert_eq!(client.get("hot"), Ok(Some(value.into())));
            count(&proxy, "l1_hits") > before
        });
        assert_eq!(client.ask("gets none"), "END");
    }
    // A change that does not go through the proxy becomes visible after the time to live.
    assert_eq!(Client::at(node.address).set("hot", "3"), "STORED");
    assert_eq!(client.get("hot"), Ok(Some("2".into())));
    assert_eq!(client.ask("flush_all"), "OK");
    assert_eq!(client.get("hot"), Ok(None));
}

#[test]
fn flush_all_empties_the_hot_keys_of_a_worker_that_made_no_change() {
    let node = Engine::start();
    let proxy = pools(
        &[node.address],
        "l1 = { ttl_ms = 100000 }",
        "",
        "[[routes]]\npool = \"a\"\n",
    );
    assert_eq!(Client::at(node.address).set("hot", "1"), "STORED");
    let mut client = Client::new(&proxy);
    until(|| {
        assert_eq!(client.get("hot"), Ok(Some("1".into())));
        count(&proxy, "l1_hits") > 0
    });
    assert_eq!(client.ask("flush_all"), "OK");
    assert_eq!(client.get("hot"), Ok(None));
}

#[test]
fn a_value_that_is_read_during_flush_all_is_not_kept_after_it() {
    let flushed = Arc::new(AtomicBool::new(false));
    let (by_tcp, by_udp) = (flushed.clone(), flushed);
    let node = Script::start(
        move |line| match line {
            _ if line.starts_with("flush_all") => {
                std::thread::sleep(Duration::from_millis(500));
                by_tcp.store(true, Relaxed);
                b"OK\r\n".to_vec()
            }
            "mn" => b"MN\r\n".to_vec(),
            _ => b"END\r\n".to_vec(),
        },
        move |socket, peer, datagram| {
            let reply = match by_udp.load(Relaxed) {
                true => [&datagram[..8], b"END\r\n"].concat(),
                false => common::hits(datagram),
            };
            let _ = socket.send_to(&reply, peer);
        },
    );
    let text = format!(
        "listen = \"127.0.0.1:0\"\nthreads = 1\nl1 = {{ ttl_ms = 100000 }}\nudp_timeout_ms = 10000\n\
         [pools.default]\nnodes = [\"{}\"]\n",
        node.address
    );
    let proxy = Server::start(Config::parse(&text).unwrap()).unwrap();
    let mut client = Client::new(&proxy);
    let mut reader = Client::new(&proxy);
    until(|| {
        reader.get("hot").unwrap();
        count(&proxy, "l1_hits") > 0
    });
    client.send("flush_all\r\n");
    for _ in 0..20 {
        reader.get("hot").unwrap();
    }
    assert_eq!(client.line(), "OK\r\n");
    assert_eq!(client.get("hot"), Ok(None));
}

#[test]
fn a_lock_has_one_owner_and_does_not_survive_it() {
    let node = Engine::start();
    let proxy = proxy(&[node.address], "[[routes]]\npool = \"a\"\nlock_s = 100\n");
    let mut one = Client::new(&proxy);
    let mut two = Client::new(&proxy);
    let take = "add lock 0 0 1\r\nx";
    assert_eq!(one.ask(take), "STORED");
    assert_eq!(two.ask(take), "NOT_STORED");
    assert_eq!(two.ask("delete lock"), "NOT_FOUND");
    assert_eq!(two.ask("touch lock 50"), "NOT_FOUND");
    assert!(two.set("lock", "y").starts_with("CLIENT_ERROR"));
    assert_eq!(two.get("lock"), Ok(Some("x".into())));
    assert_eq!(one.ask("touch lock 50"), "TOUCHED");
    let ttl = |line: String| line.trim_start_matches("HD t").parse::<u32>().unwrap();
    assert!(ttl(two.ask("mg lock t")) <= 50);
    assert_eq!(one.ask("delete lock"), "DELETED");
    assert_eq!(one.ask("delete lock"), "NOT_FOUND");
    assert_eq!(two.ask(take), "STORED");
    assert!(ttl(one.ask("mg lock t")) <= 100);
    // A lock that was lost is not released while another client holds it.
    let mut direct = Client::at(node.address);
    assert_eq!(direct.ask("delete lock"), "DELETED");
    assert_eq!(one.ask(take), "STORED");
    assert_eq!(two.ask("delete lock"), "NOT_FOUND");
    assert_eq!(direct.get("lock"), Ok(Some("x".into())));
    drop(one);
    until(|| two.ask(take) == "STORED");
}

#[test]
fn reads_that_write_do_not_change_another_clients_lock() {
    let node = Engine::start();
    let proxy = proxy(&[node.address], "[[routes]]\npool = \"a\"\nlock_s = 100\n");
    let mut owner = Client::new(&proxy);
    let mut other = Client::new(&proxy);
    let refusal = "CLIENT_ERROR locks are taken by add, kept by touch, given back by delete";
    for (number, line) in ["gat -1 KEY", "gats -1 KEY", "gat 0 none KEY", "mg KEY T-1"]
        .iter()
        .enumerate()
    {
        let key = format!("lock{number}");
        let take = format!("add {key} 0 0 1\r\nx");
        assert_eq!(owner.ask(&take), "STORED");
        assert_eq!(other.ask(&line.replace("KEY", &key)), refusal, "{line}");
        assert_eq!(other.ask(&take), "NOT_STORED", "{line}");
        assert_ne!(other.ask(&format!("mg {key} t")), "HD t-1", "{line}");
    }
    // Nor does its owner release it by a value that is too large to be sent.
    assert_eq!(owner.ask("add large 0 0 1\r\nx"), "STORED");
    let large = format!("set large 0 0 {0}\r\n{1}", 9 << 20, "x".repeat(9 << 20));
    assert_eq!(owner.ask(&large), "SERVER_ERROR object too large for cache");
    assert_eq!(other.ask("add large 0 0 1\r\nx"), "NOT_STORED");
    // Nor may they make one that has no owner.
    assert_eq!(other.ask("mg none N0 v"), refusal);
    assert_eq!(owner.ask("add none 0 0 1\r\nx"), "STORED");
}

#[test]
fn the_end_of_a_lost_locks_owner_does_not_release_the_lock_of_another() {
    let node = Engine::start();
    let port = node.address.port();
    let proxy = proxy(&[node.address], "[[routes]]\npool = \"a\"\nlock_s = 100\n");
    let mut one = Client::new(&proxy);
    let mut two = Client::new(&proxy);
    let mut three = Client::new(&proxy);
    let take = "add lock 0 0 1\r\nx";
    assert_eq!(one.ask(take), "STORED");
    // The restarted node counts its CAS values from the start again.
    drop(node);
    until(|| two.get("none").is_err());
    let _node = Engine::at(port);
    until(|| two.ask(take) == "STORED");
    assert_eq!(one.ask("delete lock"), "NOT_FOUND");
    assert_eq!(three.ask(take), "NOT_STORED");
    // The owner can renew and release it.
    assert_eq!(two.ask("touch lock 100"), "TOUCHED");
    assert_eq!(two.ask("delete lock"), "DELETED");
}

#[test]
fn noreply_has_no_reply_of_the_proxys_own() {
    let node = Engine::start();
    let proxy = proxy(
        &[node.address, free_address()],
        "[[routes]]\npool = \"a\"\n\
         [[routes]]\nprefix = \"lock\"\npool = \"a\"\nlock_s = 9\n\
         [[routes]]\nprefix = \"split\"\npool = \"a\"\nsplit_bytes = 100000\n\
         [[routes]]\nprefix = \"few\"\npool = \"a\"\nlimit = { requests = 1 }\n\
         [[routes]]\nprefix = \"away\"\npool = \"b\"\n\
         [[routes]]\nprefix = \"copies\"\npools = [\"b\", \"a\"]\n",
    );
    let mut client = Client::new(&proxy);
    let large = format!("set away 0 0 2000000 noreply\r\n{}", "v".repeat(2_000_000));
    for line in [
        "set lock 0 0 1 noreply\r\nx",
        "incr lock 1 noreply",
        "append split 0 0 1 noreply\r\nx",
        "delete few noreply\r\ndelete few noreply\r\ndelete few noreply",
        "set away 0 0 1 noreply\r\nx",
        "set away 0 0 1 noreply\r\nx",
        "incr away 1 noreply",
        &large,
        "set copies 0 0 1 noreply\r\nx",
        "flush_all noreply",
    ] {
        let first: String = line.chars().take(40).collect();
        assert_eq!(client.ask(&format!("{line}\r\nmn")), "MN", "{first}");
    }
    assert!(count(&proxy, "limited") > 0);
}

#[test]
fn locks_are_released_when_the_proxy_drains() {
    let node = Engine::start();
    let proxy = pools(
        &[node.address],
        "window_us = 10000",
        "",
        "[[routes]]\npool = \"a\"\nlock_s = 100\n",
    );
    let mut client = Client::new(&proxy);
    assert_eq!(client.ask("add lock 0 0 1\r\nx"), "STORED");
    let mut direct = Client::at(node.address);
    assert_eq!(direct.get("lock"), Ok(Some("x".into())));
    proxy.drain();
    until(|| direct.get("lock") == Ok(None));
}

/// Keys with the prefix `few` may be asked for twice a second.
const FEW_ARE_LIMITED: &str = "[[routes]]\npool = \"a\"\n\
     [[routes]]\nprefix = \"few\"\npool = \"a\"\nlimit = { requests = 2 }\n";

#[test]
fn only_a_route_over_its_limit_is_refused() {
    let node = Engine::start();
    let proxy = proxy(&[node.address], FEW_ARE_LIMITED);
    let mut client = Client::new(&proxy);
    let mut refused = 0;
    for _ in 0..100 {
        match client.get("few") {
            Ok(None) => {}
            Err(line) => {
                assert_eq!(line, "SERVER_ERROR route is over its limit");
                refused += 1;
            }
            Ok(Some(value)) => panic!("{value}"),
        }
        assert_eq!(client.get("many"), Ok(None));
    }
    // The number depends on the duration.
    assert!(refused > 0);
    assert_eq!(count(&proxy, "limited"), refused);
}

#[test]
fn a_list_of_keys_over_a_limit_is_one_error_whichever_key_is_limited() {
    let node = Engine::start();
    let proxy = proxy(&[node.address], FEW_ARE_LIMITED);
    let mut client = Client::new(&proxy);
    let short = "many few1 few2 few3".to_owned();
    // It is sent in pieces.
    let long: Vec<_> = (0..200).map(|n| format!("few{n}")).collect();
    for keys in [short, long.join(" ")] {
        let before = count(&proxy, "limited");
        until(|| {
            client.send(&format!("get {keys}\r\nmn\r\n"));
            let first = client.line();
            assert_eq!(client.line(), "MN\r\n", "after {first}");
            first == "SERVER_ERROR route is over its limit\r\n"
        });
        assert!(count(&proxy, "limited") > before);
    }
}

#[test]
fn commands_behind_a_change_of_several_pools_are_not_forgotten() {
    let nodes = [Engine::start(), Engine::start()];
    let nodes = nodes.each_ref().map(|node| node.address);
    let proxy = proxy(&nodes, "[[routes]]\npools = [\"a\", \"b\"]\n");
    let mut client = Client::new(&proxy);
    for _ in 0..10 {
        client.send("set k 0 0 1\r\nx\r\nget k\r\ndelete k noreply\r\nget k\r\n");
        let lines: String = (0..5).map(|_| client.line()).collect();
        assert_eq!(lines, "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\nEND\r\n");
    }
}

#[test]
fn a_routes_commands_in_flight_are_bounded() {
    let frozen = common::Script::start(|_| Vec::new(), |_, _, _| {});
    let proxy = proxy(
        &[frozen.address],
        "[[routes]]\npool = \"a\"\nlimit = { in_flight = 8 }\n",
    );
    let mut client = Client::new(&proxy);
    client.send(&"delete x\r\n".repeat(10));
    let lines: Vec<_> = (0..10).map(|_| client.line()).collect();
    // Of each worker's eight commands, four wait for the node, and fail with it.
    assert_eq!(
        lines.iter().filter(|line| line.contains("limit")).count(),
        6,
        "{lines:?}"
    );
    // The slots are freed again.
    until(|| !client.ask("delete x").contains("limit"));
}

#[test]
fn the_metrics_page_has_latencies_by_route_command_and_node() {
    let node = Engine::start();
    let rest =
        "[[routes]]\nprefix = \"m\"\nname = \"mine\"\npool = \"a\"\n[[routes]]\npool = \"a\"\n";
    let proxy = proxy(&[node.address], rest);
    let mut client = Client::new(&proxy);
    assert_eq!(client.set("m", "x"), "STORED");
    for _ in 0..3 {
        assert_eq!(client.get("m"), Ok(Some("x".into())));
    }
    let page = http(&proxy, "GET", "/metrics");
    let node = node.address;
    for want in [
        "hippos_proxy_request_seconds_count{route=\"mine\",command=\"get\"} 3",
        "hippos_proxy_request_seconds_count{route=\"mine\",command=\"set\"} 1",
        &format!("hippos_proxy_node_seconds_count{{node=\"{node}\",transport=\"udp\"}} 3"),
        &format!("hippos_proxy_batch_keys_bucket{{le=\"1.0\",node=\"{node}\"}} 3"),
        &format!("hippos_proxy_node_in{{node=\"{node}\"}} 1"),
        "hippos_proxy_cmd_get_total 3",
        "# EOF",
    ] {
        assert!(page.contains(want), "{want}\n{page}");
    }
    assert!(http(&proxy, "GET", "/health").contains("200 OK"));
    assert!(http(&proxy, "GET", "/drain").contains("404"));
    let address = proxy.http.unwrap();
    for (result, want) in [
        (Ok(()), "200 OK"),
        (Err("line 3: nonsense".to_owned()), "409 Conflict"),
    ] {
        let page = std::thread::spawn(move || common::http_at(address, "POST", "/reload"));
        let Some(ControlCommand::Reload(Some(sender))) = proxy.order(Duration::from_secs(60))
        else {
            panic!("no reload is ordered");
        };
        // The reload holds up no other page.
        assert!(http(&proxy, "GET", "/health").contains("200 OK"));
        let reason = result.clone().err().unwrap_or_default();
        sender.send(result).unwrap();
        let page = page.join().unwrap();
        assert!(page.contains(want) && page.contains(&reason), "{page}");
    }
}
