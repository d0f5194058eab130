// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! memcached's protocols: requests in, replies out, no allocation.
//!
//! All types here borrow the caller's bytes or live on the stack: text and meta commands ([`text`], [`meta`]), the
//! binary protocol ([`binary`]), the UDP frame ([`udp`]) and their parts. The crate is independent of stores, sockets
//! and clocks. The reference is memcached 1.6.38; where its documents are silent, its answers were compared byte for
//! byte.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod base64;
pub mod binary;
mod flag;
pub mod meta;
pub mod number;
pub mod reply;
pub mod text;
pub mod token;
pub mod udp;

pub use flag::{Argument, Flag, GetEffect, FLAGS};
pub use hippos_semantics::{StoreMode, KEY_MAX, RELATIVE_MAX};

/// A text line that has no newline within this many bytes ends the connection, unless it is a list of keys.
pub const LINE_MAX: usize = 2048;

/// The most blanks before the command of a list of keys that has no end within [`LINE_MAX`].
pub const BLANKS_MAX: usize = 100;

/// The version of the protocol that is implemented: clients parse it.
pub const VERSION: &str = "1.6.38";
