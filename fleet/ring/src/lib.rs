// SPDX-License-Identifier: MIT

//! Maps a key to its node in a pool.
//!
//! No I/O: a [`Ring`] is made from the nodes' names and weights, and maps the bytes of a key to a node's index. The
//! ketama rings equal those of libmemcached and of twemproxy, point by point, so that a pool can switch from clients
//! that hash keys themselves to a proxy, and back, without losing its contents; `vectors/` has the results of the
//! originals.
#![forbid(unsafe_code)]

pub mod hash;
mod ring;
mod routing_key;

pub use hash::Hash;
pub use ring::{Distribution, Error, Node, Ring};
pub use routing_key::RoutingKey;
