// SPDX-License-Identifier: MIT

//! Values of a route with `split_bytes`: they are read as they were written, or not at all.

mod common;

use common::{count, Client, Engine};
use hippos_proxy::config::Config;
use hippos_proxy::server::Server;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const PIECE: usize = 100_000;

fn proxy(nodes: &[Engine], more: &str) -> Server {
    let nodes: Vec<_> = nodes
        .iter()
        .map(|node| format!("\"{}\"", node.address))
        .collect();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nthreads = 2\nvalue_max = 8000000\n{more}\n[pools.default]\nnodes = [{}]\n\
         [[routes]]\npool = \"default\"\nsplit_bytes = {PIECE}\n",
        nodes.join(", ")
    );
    Server::start(Config::parse(&text).unwrap()).unwrap()
}

fn engines() -> [Engine; 3] {
    [Engine::start(), Engine::start(), Engine::start()]
}

/// A value without a period that divides a piece.
fn value(len: usize) -> String {
    (0..len)
        .map(|index| char::from(b'a' + (index % 23) as u8))
        .collect()
}

/// `key` of whichever node has it.
fn at_nodes(nodes: &[Engine], key: &str) -> Option<(usize, String)> {
    let found = nodes.iter().enumerate().find_map(|(index, node)| {
        let value = Client::at(node.address).get(key).unwrap()?;
        Some((index, value))
    });
    found
}

/// The number of the value whose manifest is `key`.
fn number(nodes: &[Engine], key: &str) -> String {
    let (_, manifest) = at_nodes(nodes, key).unwrap();
    manifest.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn values_of_any_length_are_read_as_they_were_written() {
    let nodes = engines();
    let proxy = proxy(&nodes, "");
    let mut client = Client::new(&proxy);
    for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3_000_001] {
        let value = value(len);
        assert_eq!(client.set("large", &value), "STORED");
        assert!(client.get("large").unwrap() == Some(value), "{len}");
    }
    // No node has all of it.
    let number = number(&nodes, "large");
    for index in 0..31 {
        assert!(at_nodes(&nodes, &format!("hippos-split:{number}:{index}")).is_some());
    }
    assert!(at_nodes(&nodes, &format!("hippos-split:{number}:31")).is_none());
}

#[test]
fn each_command_treats_a_split_value_as_one_item() {
    let nodes = engines();
    let proxy = proxy(&nodes, "");
    let mut client = Client::new(&proxy);
    let (one, two) = (value(250_000), value(350_000));
    let store = |verb: &str, value: &str, rest: &str| {
        format!("{verb} k 7 0 {}{rest}\r\n{value}", value.len())
    };
    assert_eq!(client.ask(&store("replace", &one, "")), "NOT_STORED");
    assert_eq!(client.ask(&store("add", &one, "")), "STORED");
    assert_eq!(client.ask(&store("add", &two, "")), "NOT_STORED");
    client.send("gets k\r\n");
    let head = client.line();
    let words: Vec<_> = head.split_whitespace().collect();
    assert_eq!(words[..4], ["VALUE", "k", "7", "250000"]);
    let cas = words[4].to_owned();
    assert!(client.line().trim_end() == one);
    assert_eq!(client.line(), "END\r\n");
    let wrong = format!(" {}", cas.parse::<u64>().unwrap() + 1000);
    assert_eq!(client.ask(&store("cas", &two, &wrong)), "EXISTS");
    assert_eq!(
        client.ask(&store("cas", &two, &format!(" {cas}"))),
        "STORED"
    );
    assert!(client.get("k").unwrap().as_ref() == Some(&two));
    // No reply, and no other command overtakes it.
    client.send(&format!("{}\r\n", store("set", &one, " noreply")));
    assert!(client.get("k").unwrap().as_ref() == Some(&one));
    client.send(&format!(
        "{}\r\nset k 0 0 1\r\nx\r\n",
        store("set", &two, "")
    ));
    assert_eq!(
        (client.line(), client.line()),
        ("STORED\r\n".into(), "STORED\r\n".into())
    );
    assert_eq!(client.get("k"), Ok(Some("x".into())));
    assert_eq!(client.ask(&store("set", &one, "")), "STORED");
    assert_eq!(client.ask("touch k 100"), "TOUCHED");
    client.send("gat 200 k\r\n");
    assert_eq!(client.line(), "VALUE k 7 250000\r\n");
    assert!(client.line().trim_end() == one);
    assert_eq!(client.line(), "END\r\n");
    assert_eq!(
        client.ask("incr k 1"),
        "CLIENT_ERROR cannot increment or decrement non-numeric value"
    );
    let refused = "SERVER_ERROR not available through the proxy";
    for line in [
        "append k 0 0 1\r\nx",
        "prepend k 0 0 1\r\nx",
        "ms k 1 MA\r\nx",
        "ms k 1 MP\r\nx",
        "me k",
    ] {
        assert_eq!(client.ask(line), refused, "{line}");
    }
    assert_eq!(client.ask("delete k"), "DELETED");
    assert_eq!(client.get("k"), Ok(None));
    assert_eq!(client.ask("touch k 100"), "NOT_FOUND");
}

#[test]
fn meta_commands_treat_a_split_value_as_one_item() {
    let nodes = engines();
    let proxy = proxy(&nodes, "");
    let mut client = Client::new(&proxy);
    let (one, two) = (value(250_000), value(350_000));
    let store = |flags: &str, value: &str| format!("ms k {} {flags}\r\n{value}", value.len());
    assert_eq!(client.ask(&store("MR", &one)), "NS");
    assert_eq!(
        client.ask(&store("ME F7 T100 k Oab s", &one)),
        "HD kk Oab s250000"
    );
    assert_eq!(client.ask(&store("ME", &two)), "NS");
    assert_eq!(
        client.ask("mg k s f Oab v k"),
        "VA 250000 s250000 f7 Oab kk"
    );
    assert!(client.line().trim_end() == one);
    assert_eq!(client.ask("mg k k s"), "HD kk s250000");
    assert_eq!(client.ask("mg k f"), "HD f7");
    let head = client.ask("mg k c");
    let cas = head.strip_prefix("HD c").unwrap().to_owned();
    assert_eq!(client.ask(&store(&format!("C{cas}0"), &two)), "EX");
    assert_eq!(client.ask(&store(&format!("C{cas}"), &two)), "HD");
    assert!(client.get("k").unwrap().as_ref() == Some(&two));
    // Quiet commands have no reply on success, and on a miss.
    client.send(&format!("{}\r\nmg absent v q\r\n", store("q", &one)));
    client.send("mg k q v\r\nmn\r\n");
    assert_eq!(client.line(), "VA 250000\r\n");
    assert!(client.line().trim_end() == one);
    assert_eq!(client.line(), "MN\r\n");
    assert_eq!(client.ask(&store("ME q", &one)), "NS");
    // A key in base64: `k`.
    assert_eq!(client.ask("mg aw== b k s"), "HD kk s250000");
    let value = value(260_000);
    assert_eq!(client.ask(&format!("ms aw== 260000 b\r\n{value}")), "HD");
    assert_eq!(client.ask("mg aw== b k s"), "HD kaw== b s260000");
    assert!(client.get("k").unwrap() == Some(value));
    // Small values are items as they are.
    assert_eq!(client.ask("ms k 1 s\r\nx"), "HD s1");
    assert_eq!(client.ask("mg k s"), "HD s1");
    assert_eq!(client.ask("mg k v"), "VA 1");
    assert_eq!(client.line(), "x\r\n");
    assert_eq!(client.ask("mg absent v"), "EN");
    // A value whose pieces have gone is a miss.
    assert_eq!(client.ask(&store("", &one)), "HD");
    let key = format!("hippos-split:{}:1", number(&nodes, "k"));
    let (node, _) = at_nodes(&nodes, &key).unwrap();
    let mut direct = Client::at(nodes[node].address);
    assert_eq!(direct.ask(&format!("delete {key}")), "DELETED");
    assert_eq!(client.ask("mg k v"), "EN");
    client.send("mg k v q\r\nmn\r\n");
    assert_eq!(client.line(), "MN\r\n");
}

#[test]
fn an_incomplete_or_damaged_value_is_a_miss() {
    let nodes = engines();
    let proxy = proxy(&nodes, "");
    let mut client = Client::new(&proxy);
    let large = value(250_000);
    let other = large.replace('a', "b");
    for (index, change) in [
        (0, "delete"),
        (2, "delete"),
        (1, "other"),
        (1, "shorter"),
        (1, "longer"),
    ] {
        assert_eq!(client.set("k", &large), "STORED");
        let key = format!("hippos-split:{}:{index}", number(&nodes, "k"));
        let (node, piece) = at_nodes(&nodes, &key).unwrap();
        let mut direct = Client::at(nodes[node].address);
        let answer = match change {
            "delete" => direct.ask(&format!("delete {key}")),
            "other" => direct.set(&key, &other[..piece.len()]),
            "shorter" => direct.set(&key, &piece[1..]),
            _ => direct.set(&key, &format!("{piece}x")),
        };
        assert!(["DELETED", "STORED"].contains(&answer.as_str()), "{answer}");
        assert_eq!(client.get("k"), Ok(None), "{index} {change}");
    }
    // A manifest that the proxy did not write does not cost the proxy memory.
    assert_eq!(client.set("k", &large), "STORED");
    let (node, manifest) = at_nodes(&nodes, "k").unwrap();
    let mut direct = Client::at(nodes[node].address);
    for (from, to) in [
        (" 250000 ", " 4000000000 "),
        (" 100000 ", " 0 "),
        (" 100000 ", " 1 "),
        (" 250000 ", " "),
    ] {
        assert_eq!(direct.set("k", &manifest.replacen(from, to, 1)), "STORED");
        assert_eq!(client.get("k"), Ok(None), "{from} {to}");
    }
    assert_eq!(count(&proxy, "node_disconnects"), 0);
}

#[test]
fn a_value_that_looks_like_a_manifest_is_none() {
    let nodes = engines();
    let proxy = proxy(&nodes, "");
    let mut client = Client::new(&proxy);
    assert_eq!(client.set("victim", &value(250_000)), "STORED");
    let (_, manifest) = at_nodes(&nodes, "victim").unwrap();
    assert_eq!(client.set("forged", &manifest), "STORED");
    assert_eq!(client.get("forged"), Ok(Some(manifest)));
}

#[test]
fn readers_beside_writers_see_one_whole_value() {
    let nodes = engines();
    let proxy = proxy(&nodes, "");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u8)
            .map(|writer| {
                let mut client = Client::new(&proxy);
                scope.spawn(move || {
                    for round in 0..30 {
                        let letter = char::from(b'a' + writer).to_string();
                        // Some are not split.
                        let len = 5 + 60_000 * (round % 7);
                        assert_eq!(client.set("shared", &letter.repeat(len)), "STORED");
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            let (mut client, done) = (Client::new(&proxy), &done);
            scope.spawn(move || {
                let mut seen = 0;
                while !done.load(Relaxed) || seen == 0 {
                    let Some(value) = client.get("shared").unwrap() else {
                        continue;
                    };
                    seen += 1;
                    let first = &value[..1];
                    assert!(value.len() % 60_000 == 5 && value.replace(first, "").is_empty());
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Relaxed);
    });
}

#[test]
fn values_are_gathered_within_the_memory_limit() {
    let nodes = engines();
    let proxy = proxy(&nodes, "memory_mb = 8");
    let mut client = Client::new(&proxy);
    assert_eq!(client.set("k", &value(250_000)), "STORED");
    let (node, manifest) = at_nodes(&nodes, "k").unwrap();
    let manifest = manifest.replacen(" 250000 ", " 7000000 ", 1);
    let mut direct = Client::at(nodes[node].address);
    assert_eq!(direct.set("k", &manifest), "STORED");
    // Two workers have half of the memory each.
    assert_eq!(
        client.get("k"),
        Err("SERVER_ERROR out of memory writing get response".into())
    );
    let small = value(1_500_000);
    assert_eq!(client.set("k", &small), "STORED");
    // The memory that was held is given back.
    for _ in 0..30 {
        assert!(client.get("k").unwrap().as_ref() == Some(&small));
    }
}
