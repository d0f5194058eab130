// SPDX-License-Identifier: MIT

//! Which node of a pool has a key.
//!
//! No I/O: a [`Ring`] is made of the nodes' names and weights, and maps the
//! bytes of a key to a node's index. The ketama rings are those of libmemcached
//! and of twemproxy, point by point, so that a pool can change from clients
//! that hash by themselves to a proxy, and back, without losing its contents;
//! `vectors/` holds what the real ones answered.
#![forbid(unsafe_code)]

pub mod hash;
mod ring;
mod routing_key;

pub use hash::Hash;
pub use ring::{Distribution, Error, Node, Ring};
pub use routing_key::RoutingKey;
