// SPDX-License-Identifier: GPL-2.0-only
//! Memory for items: blocks, the slabs that they become, and slots on their way back.

pub(crate) mod class;
mod magazine;
pub(crate) mod pool;
pub(crate) mod retire;
mod sizes;
pub(crate) mod slab;
