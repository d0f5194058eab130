// SPDX-License-Identifier: GPL-2.0-only
//! One request, from a workload's sampler or from a trace.

use crate::payload;

/// The operation of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Verb {
    #[default]
    Get,
    /// GET with the CAS value in the reply.
    Gets,
    Set,
    Add,
    Replace,
    Delete,
    Touch,
    /// GET that sets a new expiry time.
    Gat,
    Append,
    Incr,
    /// SET with the CAS value of an earlier GETS.
    Cas,
}

impl Verb {
    /// GET, GETS or GAT: answered with values.
    pub fn reads(self) -> bool {
        matches!(self, Verb::Get | Verb::Gets | Verb::Gat)
    }

    /// SET, ADD, REPLACE, APPEND or CAS: carries a value.
    pub fn stores(self) -> bool {
        matches!(
            self,
            Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Cas
        )
    }

    /// Changes the value that a later GET returns.
    pub fn writes(self) -> bool {
        self.stores() || matches!(self, Verb::Delete | Verb::Incr)
    }

    /// The word on the wire and in trace files.
    pub fn word(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Gets => "gets",
            Verb::Set => "set",
            Verb::Add => "add",
            Verb::Replace => "replace",
            Verb::Delete => "delete",
            Verb::Touch => "touch",
            Verb::Gat => "gat",
            Verb::Append => "append",
            Verb::Incr => "incr",
            Verb::Cas => "cas",
        }
    }
}

/// One key of a request, with the expected properties of the reply.
#[derive(Debug, Clone, Copy)]
pub struct RequestKey {
    start: u32,
    end: u32,
    /// [`payload::hash`] of the key's bytes.
    pub hash: u64,
    /// Number of the key in its workload, or [`RequestKey::NO_ID`]; with
    /// [`RequestKey::ABSENT`] set for keys that are never stored.
    pub id: u64,
    /// Bytes of the value if the workload determines it, or [`RequestKey::UNKNOWN`].
    pub value_len: u32,
}

impl RequestKey {
    /// The key comes from a trace and has no number.
    pub const NO_ID: u64 = u64::MAX;
    /// Flag of ids whose keys are never stored: a hit on one is an error.
    pub const ABSENT: u64 = 1 << 63;
    /// The length of the value is not known beforehand.
    pub const UNKNOWN: u32 = u32::MAX;

    /// Flag of ids of counters: keys of their own, for INCR.
    pub const COUNTER: u64 = 1 << 62;
    /// Flag of ids of values that grow: keys of their own, for APPEND.
    pub const GROWING: u64 = 1 << 61;

    /// The key is a counter.
    pub fn counter(&self) -> bool {
        self.id != Self::NO_ID && self.id & Self::COUNTER != 0
    }

    /// The key is one that is never stored.
    pub fn absent(&self) -> bool {
        self.id != Self::NO_ID && self.id & Self::ABSENT != 0
    }
}

/// A request; its buffers are reused from one request to the next.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The operation.
    pub verb: Verb,
    /// The keys: several for a multi-key GET only.
    pub keys: Vec<RequestKey>,
    bytes: Vec<u8>,
    /// Bytes of the value to store, or of the value to store after a miss.
    pub value_len: u32,
    /// Expiry time in seconds, 0 for never.
    pub ttl: u32,
    /// The CAS value of a CAS.
    pub cas: u64,
    /// A GETS whose hit is followed by a CAS.
    pub then_cas: bool,
}

impl Request {
    /// Resets it to a request of this kind without keys.
    pub fn reset(&mut self, verb: Verb) {
        self.verb = verb;
        self.keys.clear();
        self.bytes.clear();
        self.value_len = 0;
        self.ttl = 0;
        self.cas = 0;
        self.then_cas = false;
    }

    /// Adds the key that `write` appends to its argument.
    pub fn push(&mut self, id: u64, value_len: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let hash = payload::hash(&self.bytes[start..]);
        self.keys.push(RequestKey {
            start: start as u32,
            end: self.bytes.len() as u32,
            hash,
            id,
            value_len,
        });
    }

    /// Adds another request's key.
    pub fn push_from(&mut self, other: &Request, key: &RequestKey) {
        self.push(key.id, key.value_len, |out| {
            out.extend_from_slice(other.key(key))
        });
    }

    /// The bytes of one of its keys.
    pub fn key(&self, key: &RequestKey) -> &[u8] {
        &self.bytes[key.start as usize..key.end as usize]
    }

    /// Bytes of all keys together.
    pub fn key_bytes(&self) -> usize {
        self.bytes.len()
    }
}
