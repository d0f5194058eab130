// SPDX-License-Identifier: GPL-2.0-only
//! Replies as bytes: each protocol's format of a result. This module does not use the engine.

pub(crate) mod binary;
pub(crate) mod event;
pub(crate) mod inline;
pub(crate) mod meta;
pub(crate) mod text;
pub(crate) mod uri;

/// The least space that a session needs for a reply without a value's bytes. An empty sink has at least this much.
pub const REPLY_HEADER_MAX: usize = 1024;
