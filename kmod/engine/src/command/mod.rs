// SPDX-License-Identifier: GPL-2.0-only
//! Operations on the engine, whatever protocol they came by, and what they count.

mod arith;
pub(crate) mod events;
mod get;
pub(crate) mod meta;
pub(crate) mod store;

/// How often a store that lost a race is tried again before it gives up.
pub(crate) const TRIES: usize = 16;
