// SPDX-License-Identifier: MIT

//! The configuration: a TOML file, checked as a whole before it is taken.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::path::PathBuf;

use hippos_ring::{Distribution, Hash, Node as RingNode, Ring, RoutingKey};
use serde::Deserialize;
use toml::Spanned;

/// What is wrong with a file, each with its line.
#[derive(Debug)]
pub struct Errors(Vec<(usize, String)>);

impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (line, text)) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}line {line}: {text}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Spanned<String>>,
    udp: Option<Spanned<String>>,
    unix: Option<PathBuf>,
    http: Option<Spanned<String>>,
    #[serde(default)]
    threads: usize,
    #[serde(default = "defaults::connections")]
    max_connections: usize,
    #[serde(default = "defaults::value_max")]
    value_max: u32,
    #[serde(default = "defaults::memory_mb")]
    memory_mb: usize,
    #[serde(default = "defaults::window_us")]
    window_us: u64,
    #[serde(default = "defaults::timeout_ms")]
    timeout_ms: u64,
    #[serde(default = "defaults::udp_timeout_ms")]
    udp_timeout_ms: u64,
    #[serde(default = "defaults::failures")]
    failures: u32,
    #[serde(default = "defaults::retry_ms")]
    retry_ms: u64,
    #[serde(default = "defaults::drain_s")]
    drain_s: u64,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    pools: BTreeMap<String, Spanned<PoolFile>>,
    #[serde(default)]
    routes: Vec<Spanned<RouteFile>>,
}

mod defaults {
    pub(super) fn connections() -> usize {
        10_000
    }
    pub(super) fn value_max() -> u32 {
        8 << 20
    }
    pub(super) fn memory_mb() -> usize {
        128
    }
    pub(super) fn window_us() -> u64 {
        0
    }
    pub(super) fn timeout_ms() -> u64 {
        1000
    }
    pub(super) fn udp_timeout_ms() -> u64 {
        50
    }
    pub(super) fn failures() -> u32 {
        3
    }
    pub(super) fn retry_ms() -> u64 {
        1000
    }
    pub(super) fn drain_s() -> u64 {
        10
    }
    pub(super) fn yes() -> bool {
        true
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolFile {
    nodes: Vec<Spanned<NodeFile>>,
    distribution: Option<Spanned<String>>,
    hash: Option<Spanned<String>>,
    hash_tag: Option<Spanned<String>>,
    #[serde(default)]
    hash_stop: bool,
    failover: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NodeFile {
    Address(String),
    Table(NodeTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    address: String,
    name: Option<String>,
    #[serde(default)]
    weight: Option<u32>,
    #[serde(default = "defaults::yes")]
    udp: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteFile {
    prefix: String,
    pool: Spanned<String>,
}

/// A configuration that can be served.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where TCP clients come.
    pub listen: Option<SocketAddr>,
    /// Where UDP clients come.
    pub udp: Option<SocketAddr>,
    /// Where clients of this host come.
    pub unix: Option<PathBuf>,
    /// Where the metrics page and the health end-point are.
    pub http: Option<SocketAddr>,
    /// Worker threads; as many as there are cores if 0.
    pub threads: usize,
    /// Most client connections of all workers.
    pub max_connections: usize,
    /// Largest value, in bytes.
    pub value_max: u32,
    /// Most bytes of replies and requests held by all workers.
    pub memory: usize,
    /// How long a partial batch is held behind another, in microseconds.
    pub window: u64,
    /// How long a node may take over TCP, in microseconds.
    pub timeout: u64,
    /// How long a node may take over UDP, in microseconds.
    pub udp_timeout: u64,
    /// After how many failures in a row a node is taken out.
    pub failures: u32,
    /// After how long it is tried again, in microseconds.
    pub retry: u64,
    /// How long clients may take to go when the proxy ends, in microseconds.
    pub drain: u64,
    /// Networks of UDP clients; private and loopback ones if empty.
    pub allow: Vec<Network>,
    /// All nodes, each once.
    pub nodes: Vec<Node>,
    /// Pools of them.
    pub pools: Vec<Pool>,
    /// Prefixes of keys, longest first, with the index of a pool. The last one
    /// is empty.
    pub routes: Vec<(Vec<u8>, usize)>,
}

/// A node's address and what it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// As written.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// It is Hippos: a GET of several keys over UDP has one reply.
    pub udp: bool,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Which node has a key.
    pub ring: Ring,
    /// Which part of the key decides.
    pub part: RoutingKey,
    /// Indices of nodes.
    pub nodes: Vec<usize>,
    /// The pool that is asked while a node of this one is out.
    pub failover: Option<usize>,
}

/// Addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    mask: u128,
}

impl Network {
    /// Reads `address/length` or an address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: std::net::IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let len = len.unwrap_or(most);
        if len > most {
            return None;
        }
        let host = most - len;
        let mask = u128::MAX.checked_shl(host).unwrap_or(0);
        let bits = wide(address) & mask;
        Some(Self { bits, mask })
    }

    /// Whether `address` is among them.
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        wide(address) & self.mask == self.bits
    }
}

/// An address of either family as one of IPv6.
fn wide(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        std::net::IpAddr::V6(address) => u128::from(address),
    }
}

/// Private and loopback addresses, as the module's.
const PRIVATE: [&str; 8] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1",
    "fc00::/7",
    "fe80::/10",
];

impl Config {
    /// Reads and checks a file's text.
    pub fn parse(text: &str) -> Result<Self, Errors> {
        let line = |at: usize| 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            Errors(vec![(line(at), error.message().to_owned())])
        })?;
        let mut errors = Vec::new();
        let mut wrong = |span: Range<usize>, text: String| errors.push((line(span.start), text));
        let mut socket = |text: &Option<Spanned<String>>| {
            let text = text.as_ref()?;
            let address = resolve(text.get_ref());
            if let Err(why) = &address {
                wrong(text.span(), why.clone());
            }
            address.ok()
        };
        let listen = socket(&file.listen);
        let udp = socket(&file.udp);
        let http = socket(&file.http);

        let mut allow = Vec::new();
        for text in &file.allow {
            match Network::parse(text.get_ref()) {
                Some(network) => allow.push(network),
                None => wrong(text.span(), format!("no network: {}", text.get_ref())),
            }
        }
        if allow.is_empty() {
            allow = PRIVATE
                .iter()
                .filter_map(|text| Network::parse(text))
                .collect();
        }

        let names: Vec<&String> = file.pools.keys().collect();
        let pool_index = |name: &str| names.iter().position(|known| *known == name);
        let mut nodes: Vec<Node> = Vec::new();
        let mut pools = Vec::new();
        for (name, pool) in &file.pools {
            let span = pool.span();
            let pool = pool.get_ref();
            let mut indices = Vec::new();
            let mut ring_nodes = Vec::new();
            for node in &pool.nodes {
                let (address, name, weight, udp) = match node.get_ref() {
                    NodeFile::Address(address) => (address, None, 1, true),
                    NodeFile::Table(table) => (
                        &table.address,
                        table.name.clone(),
                        table.weight.unwrap_or(1),
                        table.udp,
                    ),
                };
                let resolved = match resolve(address) {
                    Ok(address) => address,
                    Err(why) => {
                        wrong(node.span(), why);
                        continue;
                    }
                };
                let host = address.rsplit_once(':').map_or("", |(host, _)| host);
                ring_nodes.push(match name {
                    Some(name) => RingNode { name, weight },
                    None => RingNode::address(host, resolved.port(), weight),
                });
                let node = Node {
                    name: address.clone(),
                    address: resolved,
                    udp,
                };
                let known = nodes.iter().position(|known| *known == node);
                indices.push(known.unwrap_or(nodes.len()));
                if known.is_none() {
                    nodes.push(node);
                }
            }
            let distribution = match &pool.distribution {
                None => Distribution::KetamaWeighted,
                Some(text) => match text.get_ref().as_str() {
                    "ketama" => Distribution::Ketama,
                    "ketama_weighted" => Distribution::KetamaWeighted,
                    "modulo" => Distribution::Modulo,
                    "modulo_by_name" => Distribution::ModuloByName,
                    "jump" => Distribution::Jump,
                    "rendezvous" => Distribution::Rendezvous,
                    other => {
                        let known =
                            "ketama, ketama_weighted, modulo, modulo_by_name, jump, rendezvous";
                        wrong(text.span(), format!("no distribution {other}: {known}"));
                        Distribution::Jump
                    }
                },
            };
            let hash = match &pool.hash {
                None => Hash::Md5,
                Some(text) => Hash::named(text.get_ref()).unwrap_or_else(|| {
                    let known: Vec<_> = Hash::names().collect();
                    let (text, span) = (text.get_ref(), text.span());
                    wrong(span, format!("no hash {text}: {}", known.join(", ")));
                    Hash::Md5
                }),
            };
            let tag = pool
                .hash_tag
                .as_ref()
                .and_then(|text| match text.get_ref().as_bytes() {
                    [open, close] => Some((*open, *close)),
                    _ => {
                        wrong(text.span(), "a hash tag is two characters".to_owned());
                        None
                    }
                });
            let failover = pool.failover.as_ref().and_then(|text| {
                let index = pool_index(text.get_ref());
                if index.is_none() || text.get_ref() == name {
                    wrong(text.span(), format!("no other pool {}", text.get_ref()));
                }
                index
            });
            let ring = match Ring::new(&ring_nodes, distribution, hash) {
                Ok(ring) => ring,
                Err(error) => {
                    let at = match error {
                        hippos_ring::Error::Duplicate(index)
                        | hippos_ring::Error::NoWeight(index) => {
                            pool.nodes.get(index).map(|node| node.span())
                        }
                        _ => None,
                    };
                    wrong(at.unwrap_or(span), format!("pool {name}: {error}"));
                    continue;
                }
            };
            pools.push(Pool {
                name: name.clone(),
                ring,
                part: RoutingKey {
                    tag,
                    stop: pool.hash_stop,
                },
                nodes: indices,
                failover,
            });
        }

        let mut routes: Vec<(Vec<u8>, usize)> = Vec::new();
        for route in &file.routes {
            let RouteFile { prefix, pool } = route.get_ref();
            let prefix = prefix.as_bytes().to_vec();
            if routes.iter().any(|(known, _)| *known == prefix) {
                wrong(route.span(), "a prefix has two routes".to_owned());
            }
            match pool_index(pool.get_ref()) {
                Some(index) => routes.push((prefix, index)),
                None => wrong(pool.span(), format!("no pool {}", pool.get_ref())),
            }
        }
        if !routes.iter().any(|(prefix, _)| prefix.is_empty()) {
            match (names.len(), pool_index("default")) {
                (1, _) => routes.push((Vec::new(), 0)),
                (_, Some(index)) => routes.push((Vec::new(), index)),
                _ => {
                    let text = "several pools, and no route with an empty prefix";
                    wrong(0..0, text.to_owned());
                }
            }
        }
        routes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        if listen.is_none() && udp.is_none() && file.unix.is_none() {
            wrong(0..0, "nowhere to listen: listen, udp or unix".to_owned());
        }
        if file.max_connections == 0 || file.memory_mb == 0 || file.timeout_ms == 0 {
            wrong(0..0, "limits must be above 0".to_owned());
        }
        if file.window_us > 10_000 {
            wrong(0..0, "window_us is at most 10000".to_owned());
        }
        if !errors.is_empty() {
            errors.sort();
            return Err(Errors(errors));
        }
        Ok(Self {
            listen,
            udp,
            unix: file.unix,
            http,
            threads: file.threads,
            max_connections: file.max_connections,
            value_max: file.value_max.min(1 << 30),
            memory: file.memory_mb << 20,
            window: file.window_us,
            timeout: file.timeout_ms * 1000,
            udp_timeout: file.udp_timeout_ms.max(1) * 1000,
            failures: file.failures.max(1),
            retry: file.retry_ms.max(10) * 1000,
            drain: file.drain_s * 1_000_000,
            allow,
            nodes,
            pools,
            routes,
        })
    }

    /// The pool of `key`.
    pub fn pool(&self, key: &[u8]) -> &Pool {
        let route = self
            .routes
            .iter()
            .find(|(prefix, _)| key.starts_with(prefix));
        &self.pools[route.map_or(0, |&(_, pool)| pool)]
    }
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| format!("{text}: {error}"))?;
    found.next().ok_or_else(|| format!("{text}: no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_told_with_their_lines() {
        let text = r#"
listen = "127.0.0.1:0"
allow = ["10.0.0.0/8", "10.0.0.0/33"]

[pools.a]
distribution = "ketam"
nodes = ["127.0.0.1:1", "127.0.0.1:1"]

[pools.b]
hash = "sha"
hash_tag = "{"
failover = "b"
nodes = ["127.0.0.1:2", "nowhere"]

[[routes]]
prefix = "x"
pool = "c"
"#;
        let errors = Config::parse(text).unwrap_err().to_string();
        let lines: Vec<_> = errors
            .lines()
            .map(|line| line.split(':').next().unwrap())
            .collect();
        let want = [1, 3, 6, 7, 10, 11, 12, 13, 17].map(|line| format!("line {line}"));
        assert_eq!(lines, want, "{errors}");
        let errors = Config::parse("listen = \"127.0.0.1:0\"\nfoo = 1\n[pools]").unwrap_err();
        assert!(
            errors.to_string().starts_with("line 2: unknown field"),
            "{errors}"
        );
    }

    #[test]
    fn the_longest_prefix_decides() {
        let text = r#"
listen = "127.0.0.1:0"
[pools.default]
nodes = ["127.0.0.1:1"]
[pools.a]
nodes = [{ address = "127.0.0.1:2", weight = 3, name = "x", udp = false }, "127.0.0.1:1"]
failover = "default"
[[routes]]
prefix = "a"
pool = "a"
[[routes]]
prefix = "ab"
pool = "default"
"#;
        let config = Config::parse(text).unwrap();
        for (key, pool) in [
            ("x", "default"),
            ("a", "a"),
            ("abc", "default"),
            ("ac", "a"),
        ] {
            assert_eq!(config.pool(key.as_bytes()).name, pool, "{key}");
        }
        assert_eq!(config.nodes.len(), 2);
        assert!(!config.nodes[0].udp && config.nodes[1].udp);
    }

    #[test]
    fn networks_contain_their_addresses() {
        let contains = |network, address: &str| {
            Network::parse(network)
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "11.0.0.1"));
        assert!(contains("::1", "::1") && !contains("::1", "::2"));
        assert!(contains("fc00::/7", "fd00::1"));
        assert!(!contains("0.0.0.0/0", "fd00::1"));
    }
}
