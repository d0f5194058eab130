// SPDX-License-Identifier: GPL-2.0-only
//! A client's session without its socket: bytes in, bytes out.
//!
//! The host feeds the bytes that arrive and sends the bytes that result. The replies do not depend on how the bytes are
//! cut into pieces. Values are written directly into the store's memory, and large ones are sent without being copied
//! as a whole.
//!
//! `state` has the session's state, `feed` consumes input; each of the other files serves one kind of command.

mod admin;
mod binary;
mod feed;
mod get;
mod latency;
mod lines;
mod listing;
mod login;
mod meta;
mod settings_rows;
pub(crate) mod state;
mod stats;
mod store;
mod text;
mod upload;
mod watch;
mod watcher;
