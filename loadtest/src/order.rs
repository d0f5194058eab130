// SPDX-License-Identifier: GPL-2.0-only
//! Keeps the requests of each key in their order, across sockets and connections.
//!
//! A GET waits until the key's earlier writes are answered, and a write until its earlier GETs are; GETs run
//! concurrently. With `refilling`, the value is stored after a GET that misses, so that GETs of a key that may be
//! missing run one by one until one has hit, and a miss is stored once. Requests that have to wait are parked in order
//! of arrival, in the queue of each of their keys.
//!
//! Writes of one key do not wait for each other: they use the same connection.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::request::Request;

/// The most parked requests; above that, no further request is accepted.
const PARKED_MAX: usize = 8192;

/// Keys are hashed already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The requests of one key.
#[derive(Debug, Default)]
struct Line {
    /// GETs in flight.
    reads: u32,
    /// Writes in flight.
    writes: u32,
    /// According to the last reply, the key exists.
    present: bool,
    /// One of the writes stores a value after a miss.
    refilling: bool,
    /// Indices of the parked requests, and whether each reads.
    waiting: VecDeque<(usize, bool)>,
}

impl Line {
    fn admits(&self, read: bool, refilling: bool) -> bool {
        if read {
            self.writes == 0 && (self.reads == 0 || self.present || !refilling)
        } else {
            self.reads == 0
        }
    }

    fn take(&mut self, read: bool) {
        if read {
            self.reads += 1;
        } else {
            self.writes += 1;
        }
    }
}

#[derive(Debug)]
struct Parked {
    request: Request,
    due: u64,
    /// The number of keys that it still waits for.
    left: usize,
}

/// The order of one worker's requests.
#[derive(Debug)]
pub struct KeyOrdering {
    refilling: bool,
    lines: HashMap<u64, Line, BuildHasherDefault<Hashed>>,
    parked: Vec<Option<Parked>>,
    free: Vec<usize>,
    ready: VecDeque<usize>,
    spare: Vec<VecDeque<(usize, bool)>>,
}

impl KeyOrdering {
    /// `refilling`: the clients store the value after a miss.
    pub fn new(refilling: bool) -> Self {
        Self {
            refilling,
            lines: HashMap::default(),
            parked: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Whether no further request may be admitted now.
    pub fn full(&self) -> bool {
        self.parked() >= PARKED_MAX
    }

    /// Requests that are parked.
    pub fn parked(&self) -> usize {
        self.parked.len() - self.free.len()
    }

    /// Whether the request may be sent now; if not, it is parked.
    pub fn admit(&mut self, request: &Request, due: u64) -> bool {
        let read = request.verb.reads();
        if let [key] = request.keys.as_slice() {
            let line = self.lines.entry(key.hash).or_insert_with(|| Line {
                waiting: self.spare.pop().unwrap_or_default(),
                ..Line::default()
            });
            if line.waiting.is_empty() && line.admits(read, self.refilling) {
                line.take(read);
                return true;
            }
        }
        self.admit_or_park(request, due, read)
    }

    #[cold]
    fn admit_or_park(&mut self, request: &Request, due: u64, read: bool) -> bool {
        let place = self.free.pop().unwrap_or_else(|| {
            self.parked.push(None);
            self.parked.len() - 1
        });
        let mut left = 0;
        for (at, key) in request.keys.iter().enumerate() {
            // A key that is named twice waits once.
            if request.keys[..at]
                .iter()
                .any(|other| other.hash == key.hash)
            {
                continue;
            }
            let line = self.lines.entry(key.hash).or_default();
            if line.waiting.is_empty() && line.admits(read, self.refilling) {
                line.take(read);
            } else {
                line.waiting.push_back((place, read));
                left += 1;
            }
        }
        if left == 0 {
            self.free.push(place);
            return true;
        }
        self.parked[place] = Some(Parked {
            request: request.clone(),
            due,
            left,
        });
        false
    }

    /// A parked request that may be sent now, and when it was due.
    pub fn pop_ready(&mut self) -> Option<(Request, u64)> {
        let place = self.ready.pop_front()?;
        self.free.push(place);
        let parked = self.parked[place].take()?;
        Some((parked.request, parked.due))
    }

    /// Whether the value is to be stored after a GET that missed; [`Self::done`] of the write ends that state.
    pub fn refill(&mut self, hash: u64) -> bool {
        let Some(line) = self.lines.get_mut(&hash) else {
            return false;
        };
        if line.refilling {
            return false;
        }
        line.refilling = true;
        line.writes += 1;
        true
    }

    /// Releases all of a request's keys; `present` returns which keys exist now.
    pub fn done(&mut self, request: &Request, present: impl Fn(usize) -> bool) {
        let read = request.verb.reads();
        for (at, key) in request.keys.iter().enumerate() {
            if at > 0
                && request.keys[..at]
                    .iter()
                    .any(|other| other.hash == key.hash)
            {
                continue;
            }
            let Some(line) = self.lines.get_mut(&key.hash) else {
                continue;
            };
            if read {
                line.reads = line.reads.saturating_sub(1);
            } else {
                line.writes = line.writes.saturating_sub(1);
                line.refilling &= line.writes > 0;
            }
            line.present = present(at);
            while let Some((place, read)) = line.waiting.front().copied() {
                if !line.admits(read, self.refilling) {
                    break;
                }
                line.take(read);
                line.waiting.pop_front();
                if let Some(parked) = self.parked[place].as_mut() {
                    parked.left -= 1;
                    if parked.left == 0 {
                        self.ready.push_back(place);
                    }
                }
            }
            if line.reads == 0 && line.writes == 0 && line.waiting.is_empty() {
                if let Some(line) = self.lines.remove(&key.hash) {
                    if line.waiting.capacity() > 0 && self.spare.len() < 1024 {
                        self.spare.push(line.waiting);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{RequestKey, Verb};

    fn request(verb: Verb, keys: &[&str]) -> Request {
        let mut request = Request::default();
        request.reset(verb);
        for key in keys {
            request.push(RequestKey::NO_ID, 0, |out| {
                out.extend_from_slice(key.as_bytes())
            });
        }
        request
    }

    fn next(order: &mut KeyOrdering) -> Option<u64> {
        order.pop_ready().map(|(_, due)| due)
    }

    #[test]
    fn a_get_waits_for_the_writes_before_it_and_a_write_for_the_gets() {
        let mut order = KeyOrdering::new(false);
        let (set, get) = (request(Verb::Set, &["a"]), request(Verb::Get, &["a"]));
        assert!(order.admit(&set, 0));
        assert!(order.admit(&set, 1), "one connection keeps writes in order");
        assert!(!order.admit(&get, 2));
        assert!(!order.admit(&get, 3));
        assert!(!order.admit(&set, 4));
        assert!(!order.admit(&get, 5));
        assert!(order.admit(&request(Verb::Get, &["b"]), 6));
        order.done(&set, |_| true);
        assert_eq!(next(&mut order), None);
        order.done(&set, |_| true);
        assert_eq!((next(&mut order), next(&mut order)), (Some(2), Some(3)));
        assert_eq!(next(&mut order), None);
        order.done(&get, |_| true);
        order.done(&get, |_| true);
        assert_eq!((next(&mut order), next(&mut order)), (Some(4), None));
        order.done(&set, |_| true);
        assert_eq!(next(&mut order), Some(5));
        assert_eq!(order.parked(), 0);
    }

    #[test]
    fn a_get_of_several_keys_has_its_place_in_each_line() {
        let mut order = KeyOrdering::new(false);
        let (a, b) = (request(Verb::Set, &["a"]), request(Verb::Set, &["b"]));
        let both = request(Verb::Get, &["a", "b", "a"]);
        assert!(order.admit(&a, 0) && order.admit(&b, 1));
        assert!(!order.admit(&both, 2));
        assert!(!order.admit(&a, 3));
        order.done(&a, |_| true);
        assert_eq!(next(&mut order), None);
        order.done(&b, |_| true);
        assert_eq!((next(&mut order), next(&mut order)), (Some(2), None));
        order.done(&both, |_| true);
        assert_eq!(next(&mut order), Some(3));
    }

    #[test]
    fn a_miss_is_filled_in_once() {
        let mut order = KeyOrdering::new(true);
        let (get, set) = (request(Verb::Get, &["a"]), request(Verb::Set, &["a"]));
        let hash = get.keys[0].hash;
        assert!(order.admit(&get, 0));
        assert!(!order.admit(&get, 1), "it may miss as well");
        assert!(!order.admit(&get, 2));
        assert!(order.refill(hash) && !order.refill(hash));
        order.done(&get, |_| false);
        assert_eq!(next(&mut order), None, "the refill is under way");
        order.done(&set, |_| true);
        assert_eq!((next(&mut order), next(&mut order)), (Some(1), Some(2)));
    }

    #[test]
    fn gets_of_a_key_that_was_found_go_together() {
        let mut order = KeyOrdering::new(true);
        let get = request(Verb::Get, &["a"]);
        assert!(order.admit(&get, 0));
        assert!(!order.admit(&get, 1) && !order.admit(&get, 2));
        order.done(&get, |_| true);
        assert_eq!((next(&mut order), next(&mut order)), (Some(1), Some(2)));
        assert!(order.admit(&get, 3));
    }
}
