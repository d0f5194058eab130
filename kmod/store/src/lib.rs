// SPDX-License-Identifier: GPL-2.0-only
//! The store: an RCU hash table over slab arenas, with eviction by CLOCK, SIEVE or S3-FIFO.
//!
//! Lookups take no lock and may run in softirq; a hit writes at most its item's reference mark. All operations that
//! change the table run in process context. The store reaches its environment (memory, RCU, spin locks) through
//! [`Platform`]; the kernel implements it, and so does [`host::Host`] for tests.
//!
//! README.md beside this crate describes the design and the measurements.
#![no_std]
#![warn(clippy::undocumented_unsafe_blocks)]

#[cfg(any(feature = "host", test, loom))]
extern crate std;

mod array_vec;
mod capacities;
mod config;
mod counters;
mod event_log;
mod eviction;
mod hash;
#[cfg(feature = "host")]
pub mod host;
mod index;
mod item;
mod lock;
#[cfg(all(test, loom))]
mod loom_models;
mod maintenance;
mod maintenance_state;
mod memory;
mod operations;
mod platform;
pub mod selftest;
mod stats;
mod store;
mod sync;
mod table;
mod time;
mod verify;

pub use config::{Config, Eviction, NewError};
pub use counters::{ClassCounter, Counter};
pub use event_log::{Event, LoggedEvent, NextEvent};
pub use hash::{Hash, KeyWords};
pub use hippos_semantics::{StoreMode, KEY_MAX, RELATIVE_MAX};
pub use item::{Item, ItemSnapshot};
pub use maintenance::Maintained;
pub use operations::allocate::AllocError;
pub use operations::attempts::Attempts;
pub use operations::commit::{
    Arith, ArithError, Arithmetic, Commit, Deleted, Invalidate, Outcome, StoreError, StoredItem,
};
pub use operations::get::{Inspected, Lookup, OneLineLookup};
pub use operations::in_place::ItemChange;
pub use operations::reservation::{Pin, Reservation};
pub use operations::walk::{Walk, WalkStep};
pub use platform::{Cookie, LockClass, Platform, RawLock, Removed, REACH};
pub use stats::{ClassSnapshot, Snapshot};
pub use store::{Dead, Guard, Store, FACTOR, ITEM_MAX, ITEM_MIN};
pub use time::Expiry;
pub use verify::{Census, Rule, Violation};
