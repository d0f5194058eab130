// SPDX-License-Identifier: GPL-2.0-only
//! Replies as bytes: what each protocol writes, from what was found. Nothing here knows the engine.

pub(crate) mod binary;
pub(crate) mod event;
pub(crate) mod inline;
pub(crate) mod meta;
pub(crate) mod text;
pub(crate) mod uri;

/// The least room that a session wants for a reply other than a value's
/// bytes. A sink that is empty has at least this.
pub const REPLY_HEADER_MAX: usize = 1024;
