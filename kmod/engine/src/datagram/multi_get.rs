// SPDX-License-Identifier: GPL-2.0-only
//! `get` of several keys whose reply is one datagram.
//!
//! The lookups run interleaved: first the buckets of all keys are prefetched, then the items that they lead to, so that
//! each is in the cache when it is needed. Other requests are left to the [`Plan`](crate::Plan), before anything is
//! counted.

use hippos_invariant::Exact;
use hippos_proto::reply;
use hippos_proto::token;
use hippos_proto::udp::{DATA_MAX, FRAME};
use hippos_proto::KEY_MAX;
use hippos_store::{ClassCounter, Guard, Item, KeyWords, Lookup, Platform};

use crate::counters::EngineCounter;
use crate::datagram::single_get::command;
use crate::reply::check_len;
use crate::reply::inline::{put, put_item, put_whole_item, WINDOW};
use crate::reply::text::value_len;
use crate::Engine;

/// The most keys of one request.
pub const MULTI_GET_MAX: usize = 16;

/// The most bytes of a value in the reply besides key and value: `VALUE `, two numbers with their spaces, two line
/// ends.
const OVERHEAD_MAX: usize = 6 + 11 + 5 + 2 + 2;

/// The reply to a `get` of several keys, in one datagram, found but not yet written.
pub(crate) struct MultiGet<'g> {
    items: [Option<Item<'g>>; MULTI_GET_MAX],
    id: [u8; 2],
    /// An upper bound of the reply's length, without the frame.
    bound: usize,
    /// The slab classes of the hits, one bit each, and the numbers of hits and misses.
    classes: u64,
    hits: u64,
    misses: u32,
    /// Whether one of the hits has to be recorded in its item.
    marks: bool,
}

impl Default for MultiGet<'_> {
    #[inline(always)]
    fn default() -> Self {
        Self {
            items: [None; MULTI_GET_MAX],
            id: [0; 2],
            bound: 0,
            classes: 0,
            hits: 0,
            misses: 0,
            marks: false,
        }
    }
}

impl MultiGet<'_> {
    /// The most bytes that the datagram can have, frame included, with some more for words that end beyond it.
    #[inline]
    pub(crate) fn bound(&self) -> usize {
        FRAME.add_exact(self.bound)
    }

    /// Writes the datagram to the start of `buffer`, which has [`bound`](Self::bound) bytes, without reading the
    /// request. Returns how many bytes it wrote.
    #[inline]
    pub(crate) fn write(&self, buffer: &mut [u8]) -> usize {
        let all = buffer.len();
        let [i0, i1] = self.id;
        let mut room = put(buffer, &[i0, i1, 0, 0, 0, 1, 0, 0]);
        for item in self.items.iter().flatten() {
            let ((key, value), flags) = (item.parts(), item.flags());
            let end = KeyWords::new(key).and_then(|key| put_item::<0>(room, &key, value, flags));
            room = match end {
                Some(end) => put(room.get_mut(end..).unwrap_or_default(), reply::CRLF),
                None => put_whole_item(room, key, value, flags),
            };
        }
        let written = all.sub_exact(put(room, reply::END).len());
        check_len(written, || self.len());
        written
    }

    /// The exact length of the datagram, frame included.
    fn len(&self) -> usize {
        let ends = FRAME + reply::END.len();
        let items = self.items.iter().flatten();
        items.fold(ends, |len, item| len.add_exact(value_len(item, None)))
    }
}

impl<P: Platform> Engine<P> {
    /// Looks up the keys in `payload`, a UDP payload with its frame, if it is a plain `get` of at most
    /// [`MULTI_GET_MAX`] keys whose reply fits a datagram and has at most `most` bytes, frame included; otherwise
    /// `None`. Softirq-safe. The caller that sends the reply calls [`count_multi_get`](Self::count_multi_get).
    #[inline]
    pub(crate) fn multi_get<'g>(
        &'g self,
        guard: &'g Guard<'_, P>,
        payload: &[u8],
        most: usize,
    ) -> Option<MultiGet<'g>> {
        let (id, mut rest) = command(payload)?;
        if self.needs_slow_get() {
            return None;
        }
        let mut wanted: [(&[u8], Lookup<'g>); MULTI_GET_MAX] = [(&[], Lookup::NONE); MULTI_GET_MAX];
        let mut keys = 0usize;
        for place in &mut wanted {
            let (key, more) = rest.split_at_checked(token::plain_len(rest))?;
            if key.is_empty() || key.len() > KEY_MAX {
                return None;
            }
            *place = (key, self.store.begin_lookup(guard, self.store.hash(key)));
            keys = keys.add_exact(1);
            match more {
                [b' ', next @ ..] => rest = next,
                _ => {
                    rest = more;
                    break;
                }
            }
        }
        if rest != b"\r\n" {
            return None;
        }
        let wanted = wanted.get_mut(..keys)?;
        for (_, lookup) in wanted.iter_mut() {
            self.store.advance_lookup(guard, lookup);
        }
        let mut many = MultiGet {
            id,
            ..MultiGet::default()
        };
        let mut bound = reply::END.len() + WINDOW;
        let mut misses = 0u32;
        // Mostly all items have the same class: one bit for each class.
        let (mut classes, mut hits, mut marks) = (0u64, 0u64, false);
        for ((key, lookup), place) in wanted.iter().zip(&mut many.items) {
            match self.store.finish_lookup(guard, key, lookup) {
                Some((item, mark)) => {
                    marks |= mark;
                    classes |= 1u64.shl_by(item.class() as u32);
                    hits = hits.add_exact(1);
                    let (key, value) = item.parts();
                    bound = bound
                        .add_exact(OVERHEAD_MAX)
                        .add_exact(key.len())
                        .add_exact(value.len());
                    *place = Some(item);
                }
                None => misses = misses.add_exact(1),
            }
        }
        if bound > DATA_MAX || FRAME.add_exact(bound) > most {
            return None;
        }
        many.bound = bound;
        (many.classes, many.hits, many.misses) = (classes, hits, misses);
        many.marks = marks;
        Some(many)
    }

    /// Counts a request that [`multi_get`](Self::multi_get) has answered, and records its hits. Called once the reply
    /// has its buffer, because otherwise the next receive path serves and counts the request.
    #[inline]
    pub(crate) fn count_multi_get(&self, many: &MultiGet<'_>) {
        if many.marks {
            for item in many.items.iter().flatten() {
                self.store.bump(item);
            }
        }
        if many.classes.is_power_of_two() {
            let class = many.classes.trailing_zeros() as usize;
            self.store
                .count_class(class, ClassCounter::GetHits, many.hits);
        } else {
            self.count_items(many.items.iter().flatten());
        }
        self.miss(many.misses);
        self.tally(EngineCounter::FastDatagrams, 1);
        self.tally(EngineCounter::FastCommands, 1);
    }

    /// Counts items that were hit, class by class.
    #[inline]
    pub(crate) fn count_items<'i, 'g: 'i>(&self, items: impl Iterator<Item = &'i Item<'g>>) {
        let (mut class, mut hits) = (0, 0u64);
        let count = |class, hits| {
            if hits != 0 {
                self.store.count_class(class, ClassCounter::GetHits, hits);
            }
        };
        for item in items {
            if item.class() != class {
                count(class, hits);
                (class, hits) = (item.class(), 0);
            }
            hits = hits.add_exact(1);
        }
        count(class, hits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{datagram, engine, planned, set};
    use crate::Settings;
    use hippos_store::host::Host;
    use hippos_store::Counter;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    fn by_multi_get(engine: &Engine<Host>, payload: &[u8]) -> Option<Vec<u8>> {
        let guard = engine.store.read();
        let many = engine.multi_get(&guard, payload, usize::MAX)?;
        engine.count_multi_get(&many);
        let mut buffer = std::vec![0xaa; many.bound()];
        let used = many.write(&mut buffer);
        buffer.truncate(used);
        Some(buffer)
    }

    proptest! {
        #[test]
        fn multi_get_reply_and_counts_equal_those_of_the_plan(
            keys in prop::collection::vec(("[!-~]{1,40}", any::<bool>()), 1..=MULTI_GET_MAX),
            flags in prop_oneof![Just(0u32), 0..200_000u32, any::<u32>()],
            value in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let engine = engine(Settings::default());
            let mut request = String::from("get");
            for (key, stored) in &keys {
                if *stored {
                    set(&engine, key.as_bytes(), flags, &value);
                }
                request.extend([" ", key]);
            }
            let payload = datagram((request + "\r\n").as_bytes());
            let hits = || engine.store.classes_counted(ClassCounter::GetHits);
            let misses = || engine.store.counted(Counter::GetMisses);
            let want = planned(&engine, &payload);
            let (hit, missed) = (hits(), misses());
            if let Some(found) = by_multi_get(&engine, &payload) {
                prop_assert_eq!(found, want);
                prop_assert_eq!((hits(), misses()), (2 * hit, 2 * missed));
                prop_assert_eq!(engine.engine_counted(EngineCounter::FastDatagrams), 2);
            } else {
                // Only because the bound is higher than the reply's length.
                prop_assert!(want.len() + keys.len() * OVERHEAD_MAX + WINDOW > DATA_MAX);
            }
        }
    }

    #[test]
    fn multi_get_leaves_other_requests_to_the_plan() {
        let engine = engine(Settings::default());
        set(&engine, b"large", 0, &[b'x'; 1360]);
        let many = |n: usize| std::format!("get{}\r\n", " k".repeat(n));
        assert!(by_multi_get(&engine, &datagram(many(MULTI_GET_MAX).as_bytes())).is_some());
        for request in [
            &*many(MULTI_GET_MAX + 1),
            "get a b \r\n",
            "get  a b\r\n",
            "get \r\n",
            "get\r\n",
            "get a b\n",
            "get a\r\nget b\r\n",
            "gets a b\r\n",
            "get a large\r\n",
            "get a b",
            "get a b\r",
        ] {
            assert!(
                by_multi_get(&engine, &datagram(request.as_bytes())).is_none(),
                "{request:?}"
            );
        }
        let long = std::format!("get a {}\r\n", "k".repeat(251));
        assert!(by_multi_get(&engine, &datagram(long.as_bytes())).is_none());
        assert_eq!(engine.engine_counted(EngineCounter::FastDatagrams), 1);
    }
}
