// SPDX-License-Identifier: MIT

//! GETs of many keys in one datagram.
//!
//! A [`Batch`] is a request being collected; [`Ids`] assigns the request ids by which a UDP channel (one socket, one
//! source port) distinguishes replies. Both do no I/O and get the time from their caller.
//!
//! A reply that arrives too late must not be mistaken for another's: its `END` would turn hits into misses. Therefore
//! an id whose request timed out is never reused on its channel, and a channel with many such ids gives up its port.

use std::ops::Range;

use hippos_proto::reply;
use hippos_proto::udp::{reply_frame, DATA_MAX, FRAME};

use crate::framing::{self, Expect, Framed};

/// The most keys of a batch: those that a Hippos node answers by its multi get.
pub const KEYS_MAX: usize = 16;

/// The most `mg` of a batch: a Hippos node's fast path holds that many replies with their keys.
pub const META_MAX: usize = 8;

/// A `get` of fewer keys is sparse. A node takes about 3,800 instructions for a datagram and 400 for each of its keys, and
/// 12,700 for a TCP segment and 900 for each request in it; the proxy's own cost is about the same for either.
const SPARSE: usize = 4;

/// The commands of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// The keys of one `get`.
    Get,
    /// The keys of one `gets`.
    Gets,
    /// Lines of `mg`, each with its reply.
    Meta,
}

impl Asks {
    /// All kinds.
    pub const ALL: [Asks; 3] = [Asks::Get, Asks::Gets, Asks::Meta];
}

/// A `get` or `gets` of several keys, or several `mg`, collected for one node. `W` identifies the waiter for a value.
#[derive(Debug)]
pub struct Batch<W> {
    asks: Asks,
    /// The datagram so far: frame, command, keys; [`seal`](Batch::seal) adds the line end.
    datagram: Vec<u8>,
    keys: Vec<(Range<usize>, u32)>,
    waiters: Vec<(u8, W)>,
    expected: usize,
    /// When the first key was added, in microseconds.
    pub since: u64,
}

impl<W> Batch<W> {
    /// An empty batch.
    pub fn new(asks: Asks, now: u64) -> Self {
        let mut datagram = Vec::with_capacity(512);
        datagram.extend_from_slice(&[0; FRAME]);
        datagram.extend_from_slice(match asks {
            Asks::Get => b"get",
            Asks::Gets => b"gets",
            Asks::Meta => b"",
        });
        Self {
            asks,
            datagram,
            keys: Vec::new(),
            waiters: Vec::new(),
            expected: reply::END.len(),
            since: now,
        }
    }

    /// The kind of its commands.
    pub fn asks(&self) -> Asks {
        self.asks
    }

    fn most(&self) -> usize {
        match self.asks {
            Asks::Meta => META_MAX,
            _ => KEYS_MAX,
        }
    }

    /// Adds a key, or a line of `mg` without its end, whose value is expected to have `reply` bytes with its line. A
    /// key that is already in the batch is not sent again, but a line is: of two that find a stale item only one may
    /// win. Returns the waiter if the key needs another batch: there are too many keys, or bytes, here or in the reply.
    pub fn push(&mut self, key: &[u8], hash: u32, reply: usize, waiter: W) -> Result<(), W> {
        let datagram = &self.datagram;
        let same = |(range, other): &(Range<usize>, u32)| {
            *other == hash && datagram.get(range.clone()) == Some(key)
        };
        let sent = match self.asks {
            Asks::Meta => None,
            _ => self.keys.iter().position(same),
        };
        if let Some(index) = sent {
            // Bounded, because waiters take memory.
            if self.waiters.len() >= 16 * KEYS_MAX {
                return Err(waiter);
            }
            self.waiters.push((index as u8, waiter));
            return Ok(());
        }
        let room = FRAME + DATA_MAX - 2;
        if self.is_full()
            || self.waiters.len() >= 16 * KEYS_MAX
            || self.datagram.len() + 2 + key.len() > room
            || !self.keys.is_empty() && self.expected + reply > DATA_MAX
        {
            return Err(waiter);
        }
        self.expected += reply;
        if self.asks != Asks::Meta {
            self.datagram.push(b' ');
        }
        let start = self.datagram.len();
        self.datagram.extend_from_slice(key);
        let index = self.keys.len() as u8;
        self.keys.push((start..self.datagram.len(), hash));
        if self.asks == Asks::Meta {
            self.datagram.extend_from_slice(reply::CRLF);
        }
        self.waiters.push((index, waiter));
        Ok(())
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether no further key will fit.
    pub fn is_full(&self) -> bool {
        self.keys.len() == self.most()
    }

    /// Whether it has so few keys that a datagram costs more than their part of a TCP segment with other requests.
    pub fn is_sparse(&self) -> bool {
        self.asks != Asks::Meta && self.keys.len() < SPARSE
    }

    /// The number of waiters.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Ends the request and sets its id.
    pub fn finish(&mut self, id: u16) -> &[u8] {
        self.datagram[..FRAME].copy_from_slice(&reply_frame(id, 0, 1));
        if !self.datagram.ends_with(b"\r\n") {
            self.datagram.extend_from_slice(b"\r\n");
        }
        &self.datagram
    }

    /// Key number `index` and its hash.
    pub fn key(&self, index: usize) -> (&[u8], u32) {
        let (range, hash) = &self.keys[index];
        (&self.datagram[range.clone()], *hash)
    }

    /// The values in `reply`, one for each key that was found; `None` if it is not the complete reply to this request.
    pub fn values<'r>(&self, reply: &'r [u8]) -> Option<[Option<&'r [u8]>; KEYS_MAX]> {
        let mut values = [None; KEYS_MAX];
        if self.asks == Asks::Meta {
            return self.replies(reply, values);
        }
        let mut rest = reply;
        let mut next = 0;
        while rest != reply::END {
            let value = framing::value(rest)?;
            let ahead = self.keys.get(next..)?;
            let found = ahead
                .iter()
                .position(|(range, _)| &self.datagram[range.clone()] == value.key)?;
            values[next + found] = Some(value.whole);
            next += found + 1;
            rest = &rest[value.whole.len()..];
        }
        Some(values)
    }

    /// One reply for each `mg`, in their order.
    fn replies<'r>(
        &self,
        reply: &'r [u8],
        mut values: [Option<&'r [u8]>; KEYS_MAX],
    ) -> Option<[Option<&'r [u8]>; KEYS_MAX]> {
        let mut rest = reply;
        for value in &mut values[..self.keys.len()] {
            // An error may be about all lines.
            if !matches!(rest.get(..2)?, b"VA" | b"HD" | b"EN") {
                return None;
            }
            let framed = framing::frame(rest, Expect::Meta, false, rest.len());
            let Framed::Reply { reply, .. } = framed else {
                return None;
            };
            let (whole, more) = rest.split_at(reply);
            *value = Some(whole);
            rest = more;
        }
        rest.is_empty().then_some(values)
    }

    /// The waiters, each with the index of a key.
    pub fn waiters(&mut self) -> impl Iterator<Item = (usize, W)> + '_ {
        self.waiters
            .drain(..)
            .map(|(index, waiter)| (usize::from(index), waiter))
    }
}

/// Whether a partial batch is to be sent: at once if no datagram is in flight to the node, otherwise after the window.
/// `None` for a fixed window, whatever is in flight.
pub fn is_due(now: u64, since: u64, window: u64, in_flight: Option<usize>) -> bool {
    in_flight == Some(0) || now.saturating_sub(since) >= window
}

/// The request ids of a UDP channel, each with the state of its request.
#[derive(Debug)]
pub struct Ids<T> {
    next: u16,
    slots: Vec<Option<(u16, T)>>,
    used: usize,
    lost: Box<[u64; 1024]>,
    losses: u32,
}

impl<T> Ids<T> {
    /// The most requests in flight on a channel.
    pub const IN_FLIGHT_MAX: usize = 256;
    /// The most lost ids before the channel's port is given up.
    pub const LOSSES_MAX: u32 = 1024;

    /// All ids, starting at `first`.
    pub fn new(first: u16) -> Self {
        Self {
            next: first,
            slots: (0..Self::IN_FLIGHT_MAX).map(|_| None).collect(),
            used: 0,
            lost: Box::new([0; 1024]),
            losses: 0,
        }
    }

    fn slot(id: u16) -> usize {
        usize::from(id) % Self::IN_FLIGHT_MAX
    }

    fn is_lost(&self, id: u16) -> bool {
        self.lost[usize::from(id / 64)] >> (id % 64) & 1 != 0
    }

    /// An id that is neither in flight nor lost, and has been unused for as long as possible. `None` when too many are
    /// in flight.
    pub fn take(&mut self) -> Option<u16> {
        if self.used == Self::IN_FLIGHT_MAX {
            return None;
        }
        // This passes all slots, and lost ids are few.
        for _ in 0..Self::IN_FLIGHT_MAX + Self::LOSSES_MAX as usize + 1 {
            let id = self.next;
            self.next = self.next.wrapping_add(1);
            if self.slots[Self::slot(id)].is_none() && !self.is_lost(id) {
                return Some(id);
            }
        }
        None
    }

    /// Stores the state of the request `id`, which was just taken.
    pub fn put(&mut self, id: u16, what: T) {
        let slot = &mut self.slots[Self::slot(id)];
        if slot.is_none() {
            self.used += 1;
        }
        *slot = Some((id, what));
    }

    /// The state of the request `id`.
    pub fn get(&mut self, id: u16) -> Option<&mut T> {
        match &mut self.slots[Self::slot(id)] {
            Some((other, what)) if *other == id => Some(what),
            _ => None,
        }
    }

    /// The reply to `id` has arrived.
    pub fn done(&mut self, id: u16) -> Option<T> {
        let slot = &mut self.slots[Self::slot(id)];
        match slot {
            Some((other, _)) if *other == id => {
                self.used -= 1;
                slot.take().map(|(_, what)| what)
            }
            _ => None,
        }
    }

    /// Stops waiting for the reply to `id`; the id is not reused.
    pub fn lose(&mut self, id: u16) -> Option<T> {
        let what = self.done(id)?;
        self.lost[usize::from(id / 64)] |= 1 << (id % 64);
        self.losses += 1;
        Some(what)
    }

    /// The number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.used
    }

    /// Whether so many ids are lost that the channel should use another port.
    pub fn is_exhausted(&self) -> bool {
        self.losses >= Self::LOSSES_MAX
    }

    /// Removes and returns all requests in flight.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.used = 0;
        let slots = self.slots.iter_mut();
        slots.filter_map(|slot| slot.take().map(|(_, what)| what))
    }
}

/// The hash that distinguishes keys in batches and on connections; never 0, which stands for no key.
pub(crate) fn hash_of(key: &[u8]) -> u32 {
    hippos_ring::Hash::Fnv1a32.of(key).max(1)
}

/// The kind of batch for a key.
pub(crate) fn asks(cas: bool) -> Asks {
    match cas {
        false => Asks::Get,
        true => Asks::Gets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn fnv(key: &[u8]) -> u32 {
        hippos_ring::Hash::Fnv1a32.of(key)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// For any keys: the datagram is a `get` of the distinct keys in order, within all limits, and every waiter
        /// gets its own key's value.
        #[test]
        fn waiters_get_their_keys_values(
            keys in proptest::collection::vec("[a-d]{1,3}|[a-z]{200,250}", 1..80),
            value in 0usize..400,
            found: u64,
        ) {
            let mut batch = Batch::new(Asks::Get, 0);
            let mut taken = Vec::new();
            for (number, key) in keys.iter().enumerate() {
                match batch.push(key.as_bytes(), fnv(key.as_bytes()), value, number) {
                    Ok(()) => taken.push(number),
                    Err(back) => {
                        prop_assert_eq!(back, number);
                        break;
                    }
                }
            }
            let mut distinct: Vec<&str> = Vec::new();
            for &number in &taken {
                if !distinct.contains(&keys[number].as_str()) {
                    distinct.push(&keys[number]);
                }
            }
            prop_assert!(!distinct.is_empty() && distinct.len() <= KEYS_MAX);
            prop_assert_eq!(batch.len(), distinct.len());
            let want = format!("get {}\r\n", distinct.join(" "));
            let datagram = batch.finish(0x1234).to_vec();
            prop_assert_eq!(&datagram[..FRAME], b"\x12\x34\0\0\0\x01\0\0");
            prop_assert_eq!(&datagram[FRAME..], want.as_bytes());
            prop_assert!(datagram.len() <= FRAME + DATA_MAX);

            let hit = |index: usize| found >> (index % 64) & 1 != 0;
            let data = |key: &str| format!("VALUE {key} 0 {}\r\n{key}\r\n", key.len());
            let mut reply = String::new();
            for (index, key) in distinct.iter().enumerate() {
                if hit(index) {
                    reply += &data(key);
                }
            }
            reply += "END\r\n";
            let values = batch.values(reply.as_bytes()).unwrap();
            let mut answered = Vec::new();
            for (index, number) in batch.waiters() {
                let key = &keys[number];
                prop_assert_eq!(distinct[index], key);
                let want = hit(index).then(|| data(key));
                prop_assert_eq!(values[index], want.as_ref().map(|data| data.as_bytes()));
                answered.push(number);
            }
            prop_assert_eq!(answered, taken);
        }

        /// An id is reused only after its reply has arrived.
        #[test]
        fn a_request_id_is_not_reused_while_it_is_in_flight_or_after_its_loss(
            first: u16,
            steps in proptest::collection::vec((0u8..4, any::<u16>()), 1..3000),
        ) {
            let mut ids = Ids::new(first);
            let mut in_flight = BTreeMap::new();
            let mut lost = BTreeSet::new();
            for (kind, pick) in steps {
                let some = in_flight.keys().nth(usize::from(pick) % in_flight.len().max(1)).copied();
                match (kind, some) {
                    (2, Some(id)) => {
                        prop_assert_eq!(ids.done(id), in_flight.remove(&id));
                        prop_assert_eq!(ids.done(id), None);
                    }
                    (3, Some(id)) if !ids.is_exhausted() => {
                        prop_assert_eq!(ids.lose(id), in_flight.remove(&id));
                        lost.insert(id);
                    }
                    _ => match ids.take() {
                        Some(id) => {
                            prop_assert!(!in_flight.contains_key(&id) && !lost.contains(&id));
                            ids.put(id, pick);
                            in_flight.insert(id, pick);
                        }
                        None => prop_assert!(!in_flight.is_empty()),
                    },
                }
                prop_assert_eq!(ids.in_flight(), in_flight.len());
            }
        }
    }

    #[test]
    fn only_the_reply_to_this_request_is_taken() {
        let mut batch = Batch::new(Asks::Gets, 0);
        for key in ["a", "b", "c"] {
            batch
                .push(key.as_bytes(), fnv(key.as_bytes()), 1, ())
                .unwrap();
        }
        assert!(batch.finish(1).ends_with(b"gets a b c\r\n"));
        for reply in [
            "",
            "END",
            "END\r\nEND\r\n",
            "VALUE d 0 1 1\r\nx\r\nEND\r\n",
            "VALUE b 0 1 1\r\nx\r\nVALUE a 0 1 1\r\nx\r\nEND\r\n",
            "VALUE a 0 1 1\r\nx\r\nVALUE a 0 1 1\r\nx\r\nEND\r\n",
            "VALUE a 0 1 1\r\nx\r\n",
            "VALUE a 0 9 1\r\nx\r\nEND\r\n",
            "SERVER_ERROR reply too large for UDP\r\n",
        ] {
            assert!(batch.values(reply.as_bytes()).is_none(), "{reply}");
        }
        let values = batch.values(b"VALUE b 0 1 1\r\nx\r\nEND\r\n").unwrap();
        assert_eq!((values[0], values[2]), (None, None));
        assert!(values[1].is_some());
    }

    #[test]
    fn lines_of_mg_have_a_reply_each() {
        let mut batch = Batch::new(Asks::Meta, 0);
        for (number, line) in ["mg a v", "mg b k"].into_iter().enumerate() {
            batch
                .push(line.as_bytes(), fnv(line.as_bytes()), 1, number)
                .unwrap();
        }
        assert!(batch.finish(1).ends_with(b"\0\0mg a v\r\nmg b k\r\n"));
        let values = batch.values(b"VA 5\r\nEN\r\nx\r\nHD kb\r\n").unwrap();
        assert_eq!(values[0], Some(&b"VA 5\r\nEN\r\nx\r\n"[..]));
        assert_eq!(values[1], Some(&b"HD kb\r\n"[..]));
        for reply in [
            "",
            "EN\r\n",
            "EN\r\nEN",
            "EN\r\nEN\r\nEN\r\n",
            "CLIENT_ERROR bad command line format\r\nEN\r\n",
            "VA 1\r\nx\r\nVA 2\r\nx\r\n",
        ] {
            assert!(batch.values(reply.as_bytes()).is_none(), "{reply}");
        }
        let waiters: Vec<_> = batch.waiters().collect();
        assert_eq!(waiters, [(0, 0), (1, 1)]);
    }

    #[test]
    fn only_one_of_equal_lines_of_mg_wins_a_stale_item() {
        let mut batch = Batch::new(Asks::Meta, 0);
        for waiter in 0..2 {
            batch.push(b"mg a v", fnv(b"mg a v"), 1, waiter).unwrap();
        }
        assert!(batch.finish(1).ends_with(b"\0\0mg a v\r\nmg a v\r\n"));
        let values = batch.values(b"VA 1 W X\r\nx\r\nVA 1 X Z\r\nx\r\n").unwrap();
        assert_eq!(values[0], Some(&b"VA 1 W X\r\nx\r\n"[..]));
        assert_eq!(values[1], Some(&b"VA 1 X Z\r\nx\r\n"[..]));
        let waiters: Vec<_> = batch.waiters().collect();
        assert_eq!(waiters, [(0, 0), (1, 1)]);
    }

    #[test]
    fn a_partial_batch_waits_only_behind_another() {
        assert!(is_due(100, 100, 20, Some(0)));
        assert!(!is_due(119, 100, 20, Some(1)));
        assert!(is_due(120, 100, 20, Some(1)));
        assert!(is_due(100, 100, 0, Some(1)));
        // With a fixed window also behind none.
        assert!(!is_due(119, 100, 20, None));
        assert!(is_due(120, 100, 20, None));
    }

    #[test]
    fn udp_channel_is_replaced_before_ids_run_out() {
        let mut ids = Ids::new(65_500);
        for _ in 0..Ids::<()>::LOSSES_MAX {
            assert!(!ids.is_exhausted());
            let id = ids.take().unwrap();
            ids.put(id, ());
            ids.lose(id);
        }
        assert!(ids.is_exhausted());
        for _ in 0..200_000 {
            let id = ids.take().unwrap();
            ids.put(id, ());
            ids.done(id);
        }
    }
}
