// SPDX-License-Identifier: MIT

//! The mapping from a key to a node's index.

use crate::hash::{md5_part, mixed, Hash};

/// The properties of a node that determine its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// twemproxy's name, or `host:port`. libmemcached leaves out the port 11211, and so does twemproxy when it makes
    /// the name from the address: [`Node::address`] does the same.
    pub name: String,
    /// Its share of the keys, relative to the other nodes.
    pub weight: u32,
}

impl Node {
    /// A node that has its address as its name.
    pub fn address(host: &str, port: u16, weight: u32) -> Self {
        let name = match port {
            11211 => host.to_owned(),
            port => format!("{host}:{port}"),
        };
        Self { name, weight }
    }
}

/// The distribution of keys over nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// libmemcached's `MEMCACHED_BEHAVIOR_KETAMA`: 100 points per node, weights are ignored.
    Ketama,
    /// libmemcached's `MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED` and twemproxy's `ketama`: 160 points per node on average.
    KetamaWeighted,
    /// The hash modulo the number of nodes, each as often as its weight says
    /// (libmemcached's `modula`, which has no weights).
    Modulo,
    /// The same with the nodes in twemproxy's order, which is by name: shorter ones first, then by their bytes.
    ModuloByName,
    /// Jump consistent hashing (Lamping, Veach 2014): even and without a table, but nodes can be added and removed only
    /// at the end.
    Jump,
    /// Rendezvous hashing: weighted, and removing a node moves only its own keys; a lookup takes one step per node.
    Rendezvous,
}

/// Why a ring cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no node.
    Empty,
    /// Too many nodes or too much weight: [`Ring::NODES_MAX`], [`Ring::WEIGHT_MAX`].
    TooLarge,
    /// Two nodes have the same name.
    Duplicate(usize),
    /// A weight of 0.
    NoWeight(usize),
    /// The distribution does not support weights.
    Unweighted,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Empty => write!(f, "a pool needs a node"),
            Error::TooLarge => write!(f, "too many nodes, or too much weight"),
            Error::Duplicate(index) => write!(f, "node {index} has another's name"),
            Error::NoWeight(index) => write!(f, "node {index} has no weight"),
            Error::Unweighted => write!(f, "this distribution knows no weights"),
        }
    }
}

impl std::error::Error for Error {}

/// A pool's nodes, ready for lookups.
#[derive(Clone, Debug)]
pub struct Ring {
    hash: Hash,
    table: Table,
}

#[derive(Clone, Debug)]
enum Table {
    /// Points on the circle in order, each with its node.
    Circle(Vec<(u32, u16)>),
    /// The node for each remainder.
    Rests(Vec<u16>),
    /// The number of nodes.
    Jump(u32),
    /// Each node's seed, and its weight unless all are equal.
    Rendezvous(Vec<(u64, f64)>, bool),
}

impl Ring {
    /// The most nodes.
    pub const NODES_MAX: usize = 4096;
    /// The largest sum of all weights.
    pub const WEIGHT_MAX: u64 = 1 << 20;

    /// The ring of `nodes`, whose order matters to [`Distribution::Modulo`] and
    /// [`Distribution::Jump`]. `hash` is that of the keys.
    pub fn new(nodes: &[Node], distribution: Distribution, hash: Hash) -> Result<Self, Error> {
        if nodes.is_empty() {
            return Err(Error::Empty);
        }
        let total: u64 = nodes.iter().map(|node| u64::from(node.weight)).sum();
        if nodes.len() > Self::NODES_MAX || total > Self::WEIGHT_MAX {
            return Err(Error::TooLarge);
        }
        let mut names = std::collections::HashSet::new();
        for (index, node) in nodes.iter().enumerate() {
            if node.weight == 0 {
                return Err(Error::NoWeight(index));
            }
            if !names.insert(&node.name) {
                return Err(Error::Duplicate(index));
            }
        }
        let even = nodes.iter().all(|node| node.weight == nodes[0].weight);
        let table = match distribution {
            Distribution::Ketama => circle(nodes, hash, None),
            Distribution::KetamaWeighted => circle(nodes, hash, Some(total)),
            Distribution::Modulo | Distribution::ModuloByName => {
                let mut order: Vec<_> = (0u16..).zip(nodes).collect();
                if distribution == Distribution::ModuloByName {
                    order.sort_by_key(|(_, node)| (node.name.len(), &node.name));
                }
                let times = |(index, node): (u16, &Node)| (0..node.weight).map(move |_| index);
                Table::Rests(order.into_iter().flat_map(times).collect())
            }
            Distribution::Jump if !even => return Err(Error::Unweighted),
            Distribution::Jump => Table::Jump(nodes.len() as u32),
            Distribution::Rendezvous => Table::Rendezvous(
                nodes
                    .iter()
                    .map(|node| (mixed(node.name.as_bytes(), 0), f64::from(node.weight)))
                    .collect(),
                even,
            ),
        };
        Ok(Self { hash, table })
    }

    /// The index of the node that has `key`.
    pub fn node(&self, key: &[u8]) -> usize {
        match &self.table {
            Table::Circle(points) => {
                let hash = self.hash.of(key);
                let at = points.partition_point(|&(point, _)| point < hash);
                // After the last point the circle begins again.
                let (_, node) = points.get(at).unwrap_or(&points[0]);
                usize::from(*node)
            }
            Table::Rests(nodes) => usize::from(nodes[self.hash.of(key) as usize % nodes.len()]),
            Table::Jump(nodes) => jump(mixed(key, 0), *nodes) as usize,
            Table::Rendezvous(nodes, even) => {
                let mut best = (0, f64::NEG_INFINITY, 0);
                for (index, &(seed, weight)) in nodes.iter().enumerate() {
                    let hash = mixed(key, seed);
                    // Equal weights need no logarithm to be compared.
                    let score = if *even {
                        0.0
                    } else {
                        let unit = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
                        -weight / unit.ln()
                    };
                    if score > best.1 || score == best.1 && hash > best.2 {
                        best = (index, score, hash);
                    }
                }
                best.0
            }
        }
    }
}

/// The points of all nodes. `total` is the sum of weights, if they count.
fn circle(nodes: &[Node], hash: Hash, total: Option<u64>) -> Table {
    /// The longest name of a point in both C sources, its zero not counted.
    const NAME_MAX: usize = 85;
    let mut points = Vec::new();
    for (index, node) in (0u16..).zip(nodes) {
        let mut each = |number: u32, parts: usize| {
            let mut name = format!("{}-{number}", node.name).into_bytes();
            name.truncate(NAME_MAX);
            if parts == 1 {
                points.push((hash.of(&name), index));
                return;
            }
            let digest = md5::compute(&name).0;
            points.extend((0..parts).map(|part| (md5_part(&digest, part), index)));
        };
        match total {
            None => (0..100).for_each(|number| each(number, 1)),
            // In single precision, with the order of operations of the C sources.
            Some(total) => {
                let share = node.weight as f32 / total as f32;
                let names = (share * 160.0 / 4.0 * nodes.len() as f32 + 1e-10).floor() as u32;
                (0..names).for_each(|number| each(number, 4));
            }
        }
    }
    // A node of very little weight may have no point; not all nodes can.
    points.sort_by_key(|&(point, _)| point);
    Table::Circle(points)
}

/// The bucket of a hash among `buckets`.
fn jump(mut hash: u64, buckets: u32) -> u32 {
    let (mut bucket, mut next) = (-1i64, 0i64);
    while next < i64::from(buckets) {
        bucket = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let step = (1u64 << 31) as f64 / ((hash >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * step) as i64;
    }
    bucket as u32
}
