// SPDX-License-Identifier: GPL-2.0-only
//! memcached's replies, as one table of cases, and the means to query a server.
//!
//! The table is recorded from memcached itself; [`run()`] plays it against any server. [`random`]
//! compares two servers on random streams of commands.

pub mod case;
pub mod counters;
mod fresh_key;
pub mod options;
pub mod packet;
pub mod races;
pub mod random;
pub mod record;
pub mod run;
mod show;
pub mod template;
pub mod udp;

pub use options::{Options, Target};
pub use run::{run, Report};
