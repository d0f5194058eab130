// SPDX-License-Identifier: GPL-2.0-only
//! Memory for items: blocks, the slabs that they become, and slots on their way back.
//!
//! [`Pool::alloc_block`](pool::Pool::alloc_block) takes a block from the platform, within the limit;
//! [`Slabs::make_slab`](slab::Slabs::make_slab) makes it a slab of a class;
//! [`Slabs::alloc_slot`](slab::Slabs::alloc_slot) gives one of its slots to a writer. `operations/allocate.rs` calls
//! them, and decides what to do when there is no block.

pub(crate) mod class;
mod magazine;
pub(crate) mod pool;
pub(crate) mod retire;
mod sizes;
pub(crate) mod slab;
