// SPDX-License-Identifier: GPL-2.0-only
//! A client's session without its socket.

pub(crate) mod admin;
pub(crate) mod binary;
pub(crate) mod listing;
pub(crate) mod login;
pub(crate) mod meta;
pub(crate) mod state;
pub(crate) mod upload;
