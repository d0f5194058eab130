// SPDX-License-Identifier: GPL-2.0-only
//! Storing: a writer's conditions and the results.

use hippos_semantics::StoreMode;

use crate::time::Expiry;

/// The conditions and side effects of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The mode.
    pub mode: StoreMode,
    /// Stores only over an item with this CAS number. `Set` and `Replace` become memcached's `cas`: without an item the
    /// outcome is `NotFound`; for another number, or 0, it is `Exists`. `Append` and `Prepend` compare unless it is 0.
    /// `Add` ignores it.
    pub compare: Option<u64>,
    /// The new item's CAS number; None for the next one.
    pub new_cas: Option<u64>,
    /// Without `new_cas` the new item has the CAS number of the item that it replaces (`md` with x).
    pub keep_cas: bool,
    /// With `compare`: a number older than the item's stores too, but keeps the item's expiry and win token and marks
    /// the new item stale (`ms` with I).
    pub invalidate: bool,
    /// `Append` or `Prepend` without an item stores the reservation as it is (`ms` with N).
    pub vivify: bool,
    /// The new item is stored as stale (`md` with I and x).
    pub stale: bool,
    /// The new item is stored with its win token given out (`mg` with N).
    pub token_sent: bool,
    /// The key came base64-encoded.
    pub binary_key: bool,
}

impl Commit {
    /// A plain store with this mode.
    pub fn new(mode: StoreMode) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }
}

/// An item that was stored, as it was then: a lookup may find another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredItem {
    /// Its slab class.
    pub class: usize,
    /// Bytes of its value: with `Append` and `Prepend` of the joined one.
    pub len: usize,
    /// When it expires.
    pub expiry: Expiry,
}

/// The outcome of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was stored under this CAS number.
    Stored {
        /// The new item's number.
        cas: u64,
        /// The new item.
        item: StoredItem,
        /// The class of the item that it replaced, unless that had expired or was flushed.
        replaced: Option<usize>,
    },
    /// The mode's condition was not met, or other clients stored the key each time that `Append` or `Prepend` had
    /// joined the values.
    NotStored,
    /// The item has another CAS number.
    Exists {
        /// For the class's counters.
        class: usize,
    },
    /// There is no item to compare with.
    NotFound,
}

/// Why memory for an item was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Key and value are more than the largest item holds.
    TooLarge,
    /// There is no memory, even after eviction.
    OutOfMemory,
}

/// The outcome of a delete or an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// Done. The class is that of the item.
    Deleted {
        /// For the class's counters.
        class: usize,
    },
    /// The item has another CAS number.
    Exists {
        /// For the class's counters.
        class: usize,
    },
    /// There is no item.
    NotFound,
}

/// An arithmetic command's operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arith {
    /// Subtract (stopping at 0) instead of adding (wrapping).
    pub decrement: bool,
    /// The amount.
    pub by: u64,
    /// Only if the item has this CAS number.
    pub compare: Option<u64>,
    /// The new CAS number; None for the next one.
    pub new_cas: Option<u64>,
    /// A new expiry; None keeps the item's.
    pub expiry: Option<Expiry>,
}

/// The outcome of an arithmetic command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Done.
    Value {
        /// The new value.
        value: u64,
        /// Its CAS number.
        cas: u64,
        /// When it expires.
        expiry: Expiry,
        /// When the item before the command would have expired.
        expiry_before: Expiry,
        /// The class of the item before the command, for its counters.
        class: usize,
    },
    /// There is no item.
    NotFound,
    /// The item has another CAS number.
    Exists {
        /// For the class's counters.
        class: usize,
    },
    /// The value is not a decimal number that fits 64 bits.
    NonNumeric,
    /// Other clients stored the key in each of many attempts.
    Contended,
}

/// Why a number was not changed although its item was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArithError {
    /// Why the new item was refused.
    pub error: StoreError,
    /// The class of the item that it would have replaced, for its counters.
    pub class: usize,
}

/// How `md` with I changes an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Invalidate {
    /// Only if the item has this CAS number.
    pub compare: Option<u64>,
    /// The new CAS number; None for the next one.
    pub new_cas: Option<u64>,
    /// A new expiry; None keeps the item's.
    pub expiry: Option<Expiry>,
}
