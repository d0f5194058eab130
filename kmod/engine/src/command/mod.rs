// SPDX-License-Identifier: GPL-2.0-only
//! Operations on the engine, independent of the protocol, with their counters. A plain get is not here:
//! `session/get.rs` and each file of `datagram/` look the key up in the store themselves.

mod arith;
pub(crate) mod events;
pub(crate) mod meta;
pub(crate) mod store;
mod touch;

/// How often a store is retried after it has lost a race.
pub(crate) const TRIES: usize = 16;
