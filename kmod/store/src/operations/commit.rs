// SPDX-License-Identifier: GPL-2.0-only
//! Storing: what a writer asks for and what it gets.

use crate::time::Expiry;

/// How a reservation is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verb {
    /// Whether the key is there or not.
    #[default]
    Set,
    /// Only if it is not.
    Add,
    /// Only if it is.
    Replace,
    /// The reservation's value goes behind that of the item, whose flags and expiry stay.
    Append,
    /// The reservation's value goes before that of the item, whose flags and expiry stay.
    Prepend,
}

/// The conditions and side effects of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The verb.
    pub verb: Verb,
    /// Only over an item of this CAS number. `Set` and `Replace` become memcached's `cas`: nothing
    /// there is `NotFound`, another number, or 0, is `Exists`. `Append` and `Prepend` compare
    /// unless it is 0. `Add` ignores it.
    pub compare: Option<u64>,
    /// The new item's CAS number; None or 0 for the next one.
    pub new_cas: Option<u64>,
    /// With `compare`: an older number than the item's stores too, but keeps the item's expiry and
    /// win token and marks the new item stale (`ms` with I).
    pub invalidate: bool,
    /// `Append` or `Prepend` to nothing stores the reservation as it is (`ms` with N).
    pub vivify: bool,
    /// The new item is born stale (`md` with I and x).
    pub stale: bool,
    /// The new item is born with its win token given out (`mg` with N).
    pub token_sent: bool,
    /// The key came base64-encoded.
    pub binary_key: bool,
}

impl Commit {
    /// A plain store by a verb.
    pub fn new(verb: Verb) -> Self {
        Self {
            verb,
            ..Self::default()
        }
    }
}

/// What became of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was stored under this CAS number.
    Stored {
        /// The new item's number.
        cas: u64,
    },
    /// The verb's condition was not met.
    NotStored,
    /// The item has another CAS number.
    Exists,
    /// There is nothing to compare with.
    NotFound,
}

/// Why memory for an item was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Key and value are more than the largest item holds.
    TooLarge,
    /// No memory, though the store tried to make room.
    OutOfMemory,
}

/// What became of a delete or an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// Done; the class that the item was of.
    Deleted {
        /// For the class's counters.
        class: usize,
    },
    /// The item has another CAS number.
    Exists {
        /// For the class's counters.
        class: usize,
    },
    /// There is nothing.
    NotFound,
}

/// What to do to a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arith {
    /// Subtract (stopping at 0) instead of adding (wrapping).
    pub decrement: bool,
    /// How much.
    pub by: u64,
    /// Only if the item has this CAS number.
    pub compare: Option<u64>,
    /// The new CAS number; None or 0 for the next one.
    pub new_cas: Option<u64>,
    /// A new expiry; None keeps the item's.
    pub expiry: Option<Expiry>,
}

/// What became of an arithmetic command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Done.
    Value {
        /// The new value.
        value: u64,
        /// Its CAS number.
        cas: u64,
        /// Seconds until it expires, None for never.
        ttl: Option<u32>,
        /// The same of the item that it replaced.
        ttl_before: Option<u32>,
        /// The class, for its counters.
        class: usize,
    },
    /// There is nothing.
    NotFound,
    /// The item has another CAS number.
    Exists {
        /// For the class's counters.
        class: usize,
    },
    /// The value is not a decimal number that fits 64 bits.
    NonNumeric,
}

/// How `md` with I changes an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Invalidate {
    /// Only if the item has this CAS number.
    pub compare: Option<u64>,
    /// The new CAS number; None or 0 for the next one.
    pub new_cas: Option<u64>,
    /// A new expiry; None keeps the item's.
    pub expiry: Option<Expiry>,
}
