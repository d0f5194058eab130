// SPDX-License-Identifier: GPL-2.0-only
//! The store: an RCU hash table over slab arenas, with eviction by CLOCK.
//!
//! Lookups take no lock and may run in softirq; a hit writes at most its item's reference mark.
//! Everything that changes the table runs in process context. What the store needs of its
//! surroundings (memory, RCU, spin locks) is [`Platform`]; the kernel implements it, and so does
//! [`host::Host`] for tests.
//!
//! README.md beside this crate tells the design and the evidence.
#![no_std]
#![warn(clippy::undocumented_unsafe_blocks)]

#[cfg(any(feature = "host", test, loom))]
extern crate std;

mod commit;
mod config;
mod counters;
mod few;
mod hash;
#[cfg(feature = "host")]
pub mod host;
mod in_place;
mod index;
mod item;
mod lock;
#[cfg(all(test, loom))]
mod loom_models;
mod maintain;
mod number;
mod platform;
mod policy;
mod pool;
mod queue;
mod reservation;
mod retire;
mod room;
mod s3fifo;
pub mod selftest;
mod sieve;
mod slab;
mod stats;
mod store;
mod sync;
mod table;
mod time;
mod verify;
mod walk;
mod write;

pub use commit::{Arith, Arithmetic, Commit, Deleted, Invalidate, Outcome, StoreError, Verb};
pub use config::{Config, Eviction, NewError};
pub use counters::{ClassCounter, Counter};
pub use hash::{Hash, Key};
pub use in_place::Change;
pub use item::{Item, ItemSnapshot, KEY_MAX};
pub use maintain::Maintained;
pub use platform::{Cookie, Platform, RawLock, Role, REACH};
pub use reservation::{Pin, Reservation};
pub use room::Short;
pub use stats::{ClassSnapshot, Snapshot};
pub use store::{Guard, Inspected, Look, Probe, Store};
pub use time::Expiry;
pub use verify::{Census, Rule, Violation};
pub use walk::{Step, Walk};
