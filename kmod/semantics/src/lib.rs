// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Shared by protocols, store, module and tools: memcached's limits and store modes, the clients that may administer,
//! and numbers as text.
#![no_std]
#![forbid(unsafe_code)]

mod administration;
mod decimal;

pub use administration::Administration;
pub use decimal::Decimal;

/// The longest key, in bytes, of every protocol.
pub const KEY_MAX: usize = 250;

/// Expiry times of up to this many seconds (30 days) count from now, larger ones are Unix times.
pub const RELATIVE_MAX: i64 = 60 * 60 * 24 * 30;

/// The smallest memory limit, bytes: the smallest that memcached's `cache_memlimit` accepts. The store keeps so much even
/// if the platform is short of memory.
pub const MEMORY_MIN: u64 = 8 << 20;

/// The most networks of the list of allowed clients.
pub const NETWORKS_MAX: usize = 32;

/// Bytes a second that a value must arrive with, or be taken with, if it takes longer than the timeout.
pub const VALUE_RATE_MIN: usize = 4096;

/// The condition of a store, and how its value combines with that of an existing item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreMode {
    /// Unconditionally.
    #[default]
    Set,
    /// Only if the key does not exist.
    Add,
    /// Only if the key exists.
    Replace,
    /// Appends the value to that of the item, whose flags and expiry stay.
    Append,
    /// Prepends the value to that of the item, whose flags and expiry stay.
    Prepend,
}
