// SPDX-License-Identifier: MIT

//! Compares the rings with the results of libmemcached and twemproxy themselves.

use hippos_ring::{Distribution, Hash, Node, Ring, RoutingKey};

struct Vectors {
    arguments: Vec<String>,
    pairs: Vec<(String, String)>,
}

fn vectors(prefix: &str) -> Vec<(String, Vectors)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with(prefix) || !name.ends_with(".txt") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, body) = text.split_once('\n').unwrap();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let pairs: Vec<_> = body
            .lines()
            .map(|line| {
                let (key, node) = line.split_once(' ').unwrap();
                (key.to_owned(), node.to_owned())
            })
            .collect();
        assert_eq!(pairs.len(), 400, "{name}");
        let arguments = words(head.strip_prefix("# ").unwrap());
        all.push((name, Vectors { arguments, pairs }));
    }
    all
}

fn check(name: &str, ring: &Ring, part: RoutingKey, shown: &[String], pairs: &[(String, String)]) {
    for (key, want) in pairs {
        let index = ring.node(part.of(key.as_bytes()));
        assert_eq!(&shown[index], want, "{name}: {key}");
    }
}

#[test]
fn rings_are_libmemcacheds() {
    let all = vectors("libmemcached-");
    assert_eq!(all.len(), 10);
    for (name, Vectors { arguments, pairs }) in all {
        let mut nodes = Vec::new();
        let mut shown = Vec::new();
        for address in &arguments[2..] {
            let parts: Vec<_> = address.split(':').collect();
            let weight = parts.get(2).map_or(1, |weight| weight.parse().unwrap());
            nodes.push(Node::address(parts[0], parts[1].parse().unwrap(), weight));
            shown.push(format!("{}:{}", parts[0], parts[1]));
        }
        let distribution = match arguments[0].as_str() {
            "modula" => Distribution::Modulo,
            "ketama" => Distribution::Ketama,
            _ => Distribution::KetamaWeighted,
        };
        let hash = match arguments[1].as_str() {
            // With ketama, the hash of keys stays the default, but not with weights.
            "-1" if distribution == Distribution::Ketama => Hash::OneAtATime,
            "0" => Hash::OneAtATime,
            "2" => Hash::Crc32,
            "3" => Hash::Fnv1_64,
            "4" => Hash::Fnv1a64,
            "5" => Hash::Fnv1_32,
            "6" => Hash::Fnv1a32,
            _ => Hash::Md5,
        };
        let ring = Ring::new(&nodes, distribution, hash).unwrap();
        check(&name, &ring, RoutingKey::default(), &shown, &pairs);
    }
}

#[test]
fn rings_map_keys_as_twemproxys_do() {
    let all = vectors("twemproxy-");
    assert_eq!(all.len(), 14);
    for (name, Vectors { arguments, pairs }) in all {
        let mut nodes = Vec::new();
        let mut shown = Vec::new();
        for server in &arguments[3..] {
            let parts: Vec<_> = server.split(':').collect();
            let weight = parts.get(1).map_or(1, |weight| weight.parse().unwrap());
            let port = parts[0].parse().unwrap();
            match parts.get(2) {
                Some(name) => {
                    let name = (*name).to_owned();
                    shown.push(name.clone());
                    nodes.push(Node { name, weight });
                }
                None => {
                    shown.push(format!("127.0.0.1:{port}"));
                    nodes.push(Node::address("127.0.0.1", port, weight));
                }
            }
        }
        let distribution = match arguments[0].as_str() {
            "modula" => Distribution::ModuloByName,
            _ => Distribution::KetamaWeighted,
        };
        let hash = Hash::named(&arguments[1]).unwrap();
        let tag = match arguments[2].as_bytes() {
            [open, close] => Some((*open, *close)),
            _ => None,
        };
        let ring = Ring::new(&nodes, distribution, hash).unwrap();
        let part = RoutingKey { tag, stop: false };
        check(&name, &ring, part, &shown, &pairs);
    }
}
