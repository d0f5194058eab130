// SPDX-License-Identifier: MIT

//! The configuration: a TOML file that is checked completely before it is used.

use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use hippos_ring::{Distribution, Hash, Node as RingNode, Ring, RoutingKey};
use toml::Spanned;

use crate::file::{File, NodeFile, RouteFile};
use crate::l1::Settings;
pub use crate::network::Network;
use crate::network::PRIVATE;
use crate::route::{Class, Limit, Migration, Read, Route, Write, PIECES_MAX, PIECE_MIN};

/// The errors in a file, each with its line.
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

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address for TCP clients.
    pub listen: Option<SocketAddr>,
    /// The address for TLS clients, and the server's TLS settings.
    pub tls: Option<(SocketAddr, Arc<rustls::ServerConfig>)>,
    /// The address for UDP clients.
    pub udp: Option<SocketAddr>,
    /// The Unix socket for clients of this host.
    pub unix: Option<PathBuf>,
    /// The address of the metrics page and the health endpoint.
    pub http: Option<SocketAddr>,
    /// Worker threads; as many as there are cores if 0.
    pub threads: usize,
    /// Most client connections of all workers.
    pub max_connections: usize,
    /// Largest value, in bytes.
    pub value_max: u32,
    /// Most bytes of replies and requests held by all workers.
    pub memory: usize,
    /// Whether requests to a node are batched; otherwise each is sent at once.
    pub batch: bool,
    /// How long a partial batch waits while another is in flight, in microseconds.
    pub window: u64,
    /// Whether it waits that long also while none is in flight.
    pub fixed_window: bool,
    /// The timeout of a node over TCP, in microseconds.
    pub timeout: u64,
    /// The timeout of a node over UDP, in microseconds.
    pub udp_timeout: u64,
    /// After how many failures in a row a node is ejected.
    pub failures: u32,
    /// After how long an ejected node is probed again, in microseconds.
    pub retry: u64,
    /// How long clients may take to finish when the proxy is drained, in microseconds.
    pub drain: u64,
    /// The interval at which nodes' names are resolved again, in seconds; 0 for never.
    pub resolve: u64,
    /// One command in this many is logged; 0 for none.
    pub log_one_in: u64,
    /// The cache of hot keys' values, if there is one.
    pub l1: Option<Settings>,
    /// Networks of UDP clients; private and loopback ones if empty.
    pub allow: Vec<Network>,
    /// All nodes, each once.
    pub nodes: Vec<Node>,
    /// The pools of nodes.
    pub pools: Vec<Pool>,
    /// The routes, longest prefix first. Some match every key.
    pub routes: Vec<Route>,
}

/// How an ejected node that answers again is readmitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RejoinPolicy {
    /// It is used with its contents.
    #[default]
    Keep,
    /// It is flushed first.
    Flush,
    /// It stays ejected until an operator admits it.
    Hold,
}

/// A node's addresses and capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// As in the file; with its address if it is one of several of a name.
    pub name: String,
    /// Its addresses: if one cannot be reached, the next is tried.
    pub addresses: Vec<SocketAddr>,
    /// It is a Hippos node: a GET of several keys over UDP has one reply.
    pub udp: bool,
    /// How it is readmitted.
    pub returning: RejoinPolicy,
    /// Its TLS settings, if any.
    pub tls: Option<NodeTls>,
}

/// The TLS settings for nodes.
#[derive(Clone, Debug)]
pub struct NodeTls {
    /// The name in their certificates.
    pub(crate) name: String,
    /// The files, for comparisons.
    files: (PathBuf, Option<PathBuf>, Option<PathBuf>),
    pub(crate) client: Arc<rustls::ClientConfig>,
}

impl PartialEq for NodeTls {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.files) == (&other.name, &other.files)
    }
}

impl Eq for NodeTls {}

impl std::hash::Hash for NodeTls {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.name, &self.files).hash(state);
    }
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The ring, which determines the node of a key.
    pub ring: Ring,
    /// The part of the key that is hashed.
    pub part: RoutingKey,
    /// Indices of nodes.
    pub nodes: Vec<usize>,
    /// The pool that is used while a node of this one is ejected, and the longest time to live of items stored there
    /// then, in seconds; 0 for any.
    pub failover: Option<(usize, u32)>,
    /// The zone of the pool.
    pub zone: Option<String>,
}

impl Config {
    /// Parses and checks a file's text.
    pub fn parse(text: &str) -> Result<Self, Errors> {
        Self::parse_with(text, &|name| {
            name.to_socket_addrs().map(|found| found.collect())
        })
    }

    /// The same; names are resolved by `lookup`.
    pub fn parse_with(text: &str, lookup: &Lookup) -> Result<Self, Errors> {
        let line = |at: usize| 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            Errors(vec![(line(at), error.message().to_owned())])
        })?;
        let mut errors = Vec::new();
        let mut wrong = |span: Range<usize>, text: String| errors.push((line(span.start), text));
        let mut socket = |text: &Option<Spanned<String>>| {
            let text = text.as_ref()?;
            match resolve(text.get_ref(), lookup) {
                Ok(addresses) => addresses.first().copied(),
                Err(why) => {
                    wrong(text.span(), why);
                    None
                }
            }
        };
        let listen = socket(&file.listen);
        let udp = socket(&file.udp);
        let http = socket(&file.http);

        let tls_text = file.tls.as_ref().map(|tls| tls.get_ref().listen.clone());
        let tls_listen = socket(&tls_text);
        let tls = file.tls.as_ref().and_then(|tls| {
            let span = tls.span();
            let tls = tls.get_ref();
            let listen = tls_listen?;
            let ca = tls.client_ca.as_deref();
            match crate::tls::server(&tls.certificate, &tls.key, ca) {
                Ok(config) => Some((listen, config)),
                Err(why) => {
                    wrong(span, why);
                    None
                }
            }
        });

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
            let returning = match pool.returning.as_ref().map(|text| text.get_ref().as_str()) {
                None | Some("keep") => RejoinPolicy::Keep,
                Some("flush") => RejoinPolicy::Flush,
                Some("hold") => RejoinPolicy::Hold,
                Some(other) => {
                    let text = format!("no way to return: {other}: keep, flush, hold");
                    wrong(pool.returning.as_ref().map_or(0..0, Spanned::span), text);
                    RejoinPolicy::Keep
                }
            };
            let client = pool.tls.as_ref().and_then(|tls| {
                let own = tls.get_ref().certificate.as_deref();
                let own = own.zip(tls.get_ref().key.as_deref());
                match crate::tls::client(&tls.get_ref().ca, own) {
                    Ok(config) => Some((tls.get_ref(), config)),
                    Err(why) => {
                        wrong(tls.span(), why);
                        None
                    }
                }
            });
            let mut indices = Vec::new();
            let mut ring_nodes = Vec::new();
            for node in &pool.nodes {
                let (address, name, weight, udp, each) = match node.get_ref() {
                    NodeFile::Address(address) => (address, None, 1, true, false),
                    NodeFile::Table(table) => (
                        &table.address,
                        table.name.clone(),
                        table.weight.unwrap_or(1),
                        table.udp,
                        table.each,
                    ),
                };
                let resolved = match resolve(address, lookup) {
                    Ok(addresses) => addresses,
                    Err(why) => {
                        wrong(node.span(), why);
                        continue;
                    }
                };
                let host = address.rsplit_once(':').map_or("", |(host, _)| host);
                let tls = client.as_ref().map(|(tls, client)| {
                    let bare = host.trim_start_matches('[').trim_end_matches(']');
                    NodeTls {
                        name: tls.name.clone().unwrap_or_else(|| bare.to_owned()),
                        files: (tls.ca.clone(), tls.certificate.clone(), tls.key.clone()),
                        client: client.clone(),
                    }
                });
                // Datagrams would not be encrypted.
                let udp = udp && tls.is_none();
                let mut add = |ring_node, name: String, addresses: Vec<SocketAddr>| {
                    ring_nodes.push(ring_node);
                    let node = Node {
                        name,
                        addresses,
                        udp,
                        returning,
                        tls: tls.clone(),
                    };
                    let known = nodes.iter().position(|known| *known == node);
                    indices.push(known.unwrap_or(nodes.len()));
                    if known.is_none() {
                        nodes.push(node);
                    }
                };
                if each {
                    for one in resolved {
                        let name = name.as_deref().unwrap_or(host);
                        let name = format!("{name}@{one}");
                        let ring_node = RingNode {
                            name: name.clone(),
                            weight,
                        };
                        add(ring_node, name, vec![one]);
                    }
                    continue;
                }
                let ring_node = match name {
                    Some(name) => RingNode { name, weight },
                    None => RingNode::address(host, resolved[0].port(), weight),
                };
                add(ring_node, address.clone(), resolved);
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
                index.map(|index| (index, pool.failover_ttl_s))
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
                zone: pool.zone.clone(),
            });
        }

        let mut routes: Vec<Route> = Vec::new();
        for route in &file.routes {
            let read = read_route(route.get_ref(), &pool_index, &mut wrong);
            let Some(mut read) = read else { continue };
            // A route for all commands gets those that routes for some commands do not match.
            let same = |known: &Route| {
                known.prefix == read.prefix
                    && known.commands & read.commands != 0
                    && known.is_for_all() == read.is_for_all()
            };
            if routes.iter().any(same) {
                let text = "a prefix has two routes for one command";
                wrong(route.span(), text.to_owned());
            }
            let alone = read.pools.len() == 1 && read.warm.is_none() && read.migrate.is_none();
            if (read.single_flight, read.lock) != (0, 0) && !alone {
                let text = "single_flight_ms and lock_s want one pool, without warm and migrate";
                wrong(route.span(), text.to_owned());
            }
            // With two nodes a lock would have two owners.
            let spare = pools
                .get(read.pools[0])
                .is_some_and(|pool| pool.failover.is_some());
            if read.lock != 0 && spare {
                let text = "a pool of locks has no failover";
                wrong(route.span(), text.to_owned());
            }
            let others = read.shadow.is_some() || (read.single_flight, read.lock) != (0, 0);
            if read.split != 0 && (!alone || spare || others || !read.is_for_all()) {
                let text =
                    "split_bytes wants one pool without failover, all commands, and none of warm, \
                            migrate, shadow, single_flight_ms and lock_s";
                wrong(route.span(), text.to_owned());
            }
            let pieces = |split: u32| file.value_max.div_ceil(split) as usize;
            if read.split != 0 && (read.split < PIECE_MIN || pieces(read.split) > PIECES_MAX) {
                let text = format!(
                    "split_bytes is at least {PIECE_MIN}, and value_max at most {PIECES_MAX} times as large"
                );
                wrong(route.span(), text);
            }
            // Otherwise a pool is missing, which was reported.
            if pools.len() == names.len() {
                let own =
                    |&pool: &usize| pools[pool].zone.is_none() || pools[pool].zone != file.zone;
                read.pools_by_zone.sort_by_key(own);
            }
            routes.push(read);
        }
        let everything = (1u8 << Class::ALL.len()) - 1;
        let taken = routes.iter().filter(|route| route.prefix.is_empty());
        let rest = taken.fold(everything, |rest, route| rest & !route.commands);
        if rest != 0 {
            let only = (names.len() == 1).then_some(0);
            match pool_index("default").or(only) {
                Some(index) => routes.push(Route::to(index, rest)),
                None => {
                    let text = "no pool default, and no route for every key";
                    wrong(0..0, text.to_owned());
                }
            }
        }
        routes.sort_by_key(|route| (std::cmp::Reverse(route.prefix.len()), route.is_for_all()));
        if listen.is_none() && tls.is_none() && udp.is_none() && file.unix.is_none() {
            wrong(
                0..0,
                "nowhere to listen: listen, tls, udp or unix".to_owned(),
            );
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
            tls,
            udp,
            unix: file.unix,
            http,
            threads: file.threads,
            max_connections: file.max_connections,
            value_max: file.value_max.min(1 << 30),
            memory: file.memory_mb << 20,
            batch: file.batch,
            window: file.window_us,
            fixed_window: file.fixed_window,
            timeout: file.timeout_ms * 1000,
            udp_timeout: file.udp_timeout_ms.max(1) * 1000,
            failures: file.failures.max(1),
            retry: file.retry_ms.max(10) * 1000,
            drain: file.drain_s * 1_000_000,
            resolve: file.resolve_s,
            log_one_in: file.log_one_in,
            l1: file.l1.map(|l1| Settings {
                ttl: l1.ttl_ms * 1000,
                keys: l1.keys,
            }),
            allow,
            nodes,
            pools,
            routes,
        })
    }

    /// The index of the route of `key` in commands of `class`.
    pub fn route(&self, key: &[u8], class: Class) -> usize {
        let route = self.routes.iter().position(|route| route.takes(key, class));
        route.unwrap_or(0)
    }
}

/// Resolves a `host:port`.
pub type Lookup<'l> = dyn Fn(&str) -> std::io::Result<Vec<SocketAddr>> + 'l;

/// All addresses of a name, in an order that is the same in each lookup.
fn resolve(text: &str, lookup: &Lookup) -> Result<Vec<SocketAddr>, String> {
    let mut found = lookup(text).map_err(|error| format!("{text}: {error}"))?;
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return Err(format!("{text}: no address"));
    }
    Ok(found)
}

/// Parses a route; `None` if it has no pool.
fn read_route(
    file: &RouteFile,
    pool_index: &dyn Fn(&str) -> Option<usize>,
    wrong: &mut dyn FnMut(Range<usize>, String),
) -> Option<Route> {
    let mut pool = |text: &Spanned<String>| {
        let index = pool_index(text.get_ref());
        if index.is_none() {
            wrong(text.span(), format!("no pool {}", text.get_ref()));
        }
        index
    };
    let pools: Vec<usize> = file
        .pool
        .iter()
        .chain(&file.pools)
        .filter_map(&mut pool)
        .collect();
    let warm = file.warm.as_ref().and_then(&mut pool);
    let shadow = file.shadow.as_ref().and_then(|shadow| {
        let share = *shadow.share.get_ref();
        let pool = pool(&shadow.pool)?;
        Some((pool, (share * 4_294_967_296.0) as u64))
    });
    let migrate = file.migrate.as_ref().and_then(|migrate| {
        Some(Migration {
            to: pool(&migrate.to)?,
            start: migrate.start,
            interval: migrate.interval_s,
        })
    });
    if let Some(shadow) = &file.shadow {
        if !(0.0..=1.0).contains(shadow.share.get_ref()) {
            wrong(shadow.share.span(), "a share is from 0.0 to 1.0".to_owned());
        }
    }
    let mut commands = 0;
    for text in file.commands.iter().flatten() {
        let class = Class::ALL.iter().find(|(_, name)| name == text.get_ref());
        match class {
            Some((class, _)) => commands |= 1 << *class as u8,
            None => {
                let known = Class::ALL.map(|(_, name)| name).join(", ");
                wrong(
                    text.span(),
                    format!("no commands {}: {known}", text.get_ref()),
                );
            }
        }
    }
    if file.commands.is_none() {
        commands = (1 << Class::ALL.len()) - 1;
    }
    let mut policy = |text: &Spanned<String>, known: &str| {
        wrong(
            text.span(),
            format!("no policy {}: {known}", text.get_ref()),
        );
    };
    let write = file.write.as_ref().map_or(Write::default(), |text| {
        Write::named(text.get_ref()).unwrap_or_else(|| {
            policy(text, "all_sync, all_majority, all_fastest, all_async");
            Write::default()
        })
    });
    let read = file.read.as_ref().map_or(Read::default(), |text| {
        Read::named(text.get_ref()).unwrap_or_else(|| {
            policy(text, "failover, miss_failover, fastest, spread");
            Read::default()
        })
    });
    if pools.is_empty() {
        let named = file.pool.iter().chain(&file.pools).next();
        if named.is_none() {
            wrong(0..0, format!("route {:?} has no pool", file.prefix));
        }
        return None;
    }
    let named = match file.prefix.as_str() {
        "" => "default",
        prefix => prefix,
    };
    Some(Route {
        name: file.name.clone().unwrap_or_else(|| named.to_owned()),
        prefix: file.prefix.clone().into_bytes(),
        commands,
        pools_by_zone: pools.clone(),
        pools,
        write,
        read,
        warm,
        shadow,
        migrate,
        limit: Limit {
            requests: file.limit.requests,
            bytes: file.limit.bytes,
            in_flight: file.limit.in_flight,
        },
        single_flight: file.single_flight_ms * 1000,
        lock: file.lock_s,
        split: file.split_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that `text` is refused, with one error for each of these lines.
    fn assert_error_lines(text: &str, want: &[u32]) {
        let errors = Config::parse(text).unwrap_err().to_string();
        let lines: Vec<_> = errors
            .lines()
            .map(|line| line.split(':').next().unwrap())
            .collect();
        let want: Vec<_> = want.iter().map(|line| format!("line {line}")).collect();
        assert_eq!(lines, want, "{errors}");
    }

    #[test]
    fn all_errors_are_reported_with_their_lines() {
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
        assert_error_lines(text, &[1, 3, 6, 7, 10, 11, 12, 13, 17]);
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
[[routes]]
prefix = "abd"
commands = ["set", "delete"]
pool = "a"
"#;
        let config = Config::parse(text).unwrap();
        let pool_of = |key: &str, class| {
            let route = &config.routes[config.route(key.as_bytes(), class)];
            config.pools[route.pools[0]].name.as_str()
        };
        for (key, pool) in [
            ("x", "default"),
            ("a", "a"),
            ("abc", "default"),
            ("ac", "a"),
        ] {
            assert_eq!(pool_of(key, Class::Get), pool, "{key}");
        }
        // A route for some commands leaves all other commands to shorter prefixes.
        assert_eq!(pool_of("abd", Class::Set), "a");
        assert_eq!(pool_of("abd", Class::Get), "default");
        assert_eq!(config.nodes.len(), 2);
        assert!(!config.nodes[0].udp && config.nodes[1].udp);
    }

    #[test]
    fn a_name_may_be_one_node_or_one_for_each_address() {
        let address = |last| SocketAddr::from(([10, 0, 0, last], 11211));
        let lookup = |text: &str| {
            Ok(match text {
                "cache:11211" => vec![address(2), address(1), address(2)],
                _ => vec![([127, 0, 0, 1], 0).into()],
            })
        };
        let text = "listen = \"a:0\"\n[pools.a]\nnodes = [\"cache:11211\"]\n[pools.default]\n\
             nodes = [{ address = \"cache:11211\", each = true }]\n";
        let config = Config::parse_with(text, &lookup).unwrap();
        let addresses: Vec<_> = config
            .nodes
            .iter()
            .map(|node| node.addresses.clone())
            .collect();
        let (one, two) = (address(1), address(2));
        assert_eq!(addresses, [vec![one, two], vec![one], vec![two]]);
        assert_eq!(config.pools[0].nodes, [0]);
        assert_eq!(config.pools[1].nodes, [1, 2]);
    }

    #[test]
    fn errors_in_routes_are_reported() {
        let text = r#"listen = "127.0.0.1:0"
[pools.default]
nodes = ["127.0.0.1:1"]
returning = "never"
[[routes]]
prefix = "a"
commands = ["get", "fly"]
pools = ["default", "none"]
write = "all"
read = "some"
shadow = { pool = "default", share = 1.5 }
[[routes]]
prefix = "b"
commands = ["get"]
pool = "default"
[[routes]]
prefix = "b"
commands = ["get", "set"]
pool = "default"
"#;
        assert_error_lines(text, &[4, 7, 8, 9, 10, 11, 16]);
    }

    #[test]
    fn a_route_with_split_values_has_one_pool_and_nothing_else() {
        let text = |route: &str| {
            format!(
                "listen = \"127.0.0.1:0\"\nvalue_max = 100000000\n[pools.default]\nnodes = [\"127.0.0.1:1\"]\n\
                 [pools.b]\nnodes = [\"127.0.0.1:2\"]\nfailover = \"default\"\n[[routes]]\n{route}\n"
            )
        };
        Config::parse(&text("pool = \"default\"\nsplit_bytes = 100000")).unwrap();
        for route in [
            "pool = \"default\"\nsplit_bytes = 1000",
            "pool = \"default\"\nsplit_bytes = 10000",
            "pools = [\"default\", \"b\"]\nsplit_bytes = 100000",
            "pool = \"b\"\nsplit_bytes = 100000",
            "pool = \"default\"\nsplit_bytes = 100000\nlock_s = 5",
            "pool = \"default\"\nsplit_bytes = 100000\nwarm = \"b\"",
            "pool = \"default\"\nsplit_bytes = 100000\ncommands = [\"get\", \"set\"]",
        ] {
            assert_error_lines(&text(route), &[8]);
        }
    }
}
