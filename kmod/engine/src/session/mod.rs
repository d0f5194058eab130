// SPDX-License-Identifier: GPL-2.0-only
//! A client's session without its socket: bytes in, bytes out.
//!
//! The host feeds whatever has arrived and sends whatever comes out. How the
//! bytes are cut into pieces makes no difference to the answers. Values
//! stream straight into the store's memory, and large ones leave it without
//! ever being copied as a whole.
//!
//! `state` has what a session is, `feed` what it does with input; the files
//! between serve one kind of command each.

mod admin;
mod binary;
mod feed;
mod get;
mod latency;
mod lines;
mod listing;
mod login;
mod meta;
pub(crate) mod state;
mod stats;
mod store;
mod text;
mod upload;
mod watch;
mod watcher;
