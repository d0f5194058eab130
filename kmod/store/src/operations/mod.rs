// SPDX-License-Identifier: GPL-2.0-only
//! The store's operations for its callers.

pub(crate) mod allocate;
pub(crate) mod attempts;
pub(crate) mod commit;
pub(crate) mod get;
pub(crate) mod in_place;
pub(crate) mod number;
pub(crate) mod reservation;
pub(crate) mod set;
mod update;
pub(crate) mod walk;
