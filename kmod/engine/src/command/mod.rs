// SPDX-License-Identifier: GPL-2.0-only
//! Operations on the engine, whatever protocol they came by, and what they count. A plain get is not here: it is a lookup in the
//! store, which `session/get.rs` and each file of `datagram/` make themselves.

mod arith;
pub(crate) mod events;
pub(crate) mod meta;
pub(crate) mod store;
mod touch;

/// How often a store that lost a race is tried again before it gives up.
pub(crate) const TRIES: usize = 16;
