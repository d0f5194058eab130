// SPDX-License-Identifier: GPL-2.0-only
//! A `get` of any one key, tried after [`inline_get`](Engine::inline_get) has declined.
//!
//! A [`Plan`](crate::Plan) has space for any reply of the fast path; one key needs one item and no plan. A request that
//! is declined here goes on to [`multi_get`](Engine::multi_get), before anything is counted.

use hippos_invariant::Exact;
use hippos_proto::number::{digits, ShortDecimal};
use hippos_proto::reply;
use hippos_proto::token;
use hippos_proto::udp::{DATA_MAX, FRAME};
use hippos_proto::KEY_MAX;
use hippos_store::{Guard, Item, Platform};

use crate::reply::check_len;
use crate::reply::inline::{put, put_long, put_short};
use crate::Engine;

/// The reply to a `get` of one key, in one datagram, found but not yet written.
#[derive(Clone, Copy)]
pub(crate) struct SingleGet<'g> {
    hit: Option<SingleHit<'g>>,
    id: [u8; 2],
    len: usize,
}

#[derive(Clone, Copy)]
struct SingleHit<'g> {
    item: Item<'g>,
    key: &'g [u8],
    value: &'g [u8],
    flags: u32,
    /// Flags and length as they are written; `None` if the flags are long.
    short: Option<ShortDecimal>,
    size: ShortDecimal,
}

impl SingleGet<'_> {
    /// Bytes of the datagram, frame included; at least one.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub(crate) fn len(&self) -> usize {
        FRAME.add_exact(self.len)
    }

    /// Writes the datagram to the start of `buffer`, which has [`len`](Self::len) bytes, without reading the request.
    /// Returns how many bytes it wrote.
    #[inline(always)]
    pub(crate) fn write(&self, buffer: &mut [u8]) -> usize {
        let all = buffer.len();
        let [i0, i1] = self.id;
        let rest = match &self.hit {
            Some(hit) => {
                let head = [i0, i1, 0, 0, 0, 1, 0, 0, b'V', b'A', b'L', b'U', b'E', b' '];
                let rest = put(buffer, &head);
                let rest = put(rest, hit.key);
                let rest = match hit.short {
                    Some(flags) => put_short(rest, flags),
                    None => put_long(rest, hit.flags),
                };
                let rest = put_short(rest, hit.size);
                let rest = put(rest, reply::CRLF);
                let rest = put(rest, hit.value);
                put(rest, b"\r\nEND\r\n")
            }
            None => put(
                buffer,
                &[i0, i1, 0, 0, 0, 1, 0, 0, b'E', b'N', b'D', b'\r', b'\n'],
            ),
        };
        let written = all.sub_exact(rest.len());
        check_len(written, || self.len());
        written
    }
}

/// Whether `key` is a valid key without bytes that end a word or a line.
#[inline(always)]
pub(crate) fn plain(key: &[u8]) -> bool {
    (1..=KEY_MAX).contains(&key.len()) && token::is_plain(key)
}

/// The request id and the text after `get `, if `payload` begins with it.
#[inline(always)]
pub(crate) fn command(payload: &[u8]) -> Option<([u8; 2], &[u8])> {
    let (head, line) = payload.split_first_chunk::<{ FRAME + 4 }>()?;
    let [id @ .., _, _, t0, t1, _, _, c0, c1, c2, c3] = *head;
    let command = u32::from_le_bytes([c0, c1, c2, c3]);
    let total = u16::from_be_bytes([t0, t1]);
    (command == u32::from_le_bytes(*b"get ") && total == 1).then_some((id, line))
}

/// The request id and the key, if `payload` is a `get` of one key.
#[inline(always)]
fn request(payload: &[u8]) -> Option<([u8; 2], &[u8])> {
    let (id, line) = command(payload)?;
    let key = line.strip_suffix(b"\r\n")?;
    plain(key).then_some((id, key))
}

impl<P: Platform> Engine<P> {
    /// Looks up the key in `payload`, a UDP payload with its frame, if it is a plain `get` of one key whose reply fits
    /// a datagram and has at most `most` bytes, frame included; otherwise `None`, so that
    /// [`multi_get`](Self::multi_get) is tried. Softirq-safe. The caller that sends the reply calls
    /// [`count_single_get`](Self::count_single_get).
    #[inline(always)]
    pub(crate) fn single_get<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        payload: &[u8],
        most: usize,
    ) -> Option<SingleGet<'g>> {
        let (id, key) = request(payload)?;
        if self.needs_slow_path() {
            return None;
        }
        let Some(item) = self.store.peek(guard, key, self.store.hash(key)) else {
            if most < FRAME + reply::END.len() {
                return None;
            }
            return Some(SingleGet {
                hit: None,
                id,
                len: reply::END.len(),
            });
        };
        let (key, value) = item.parts();
        let flags = item.flags();
        let short = ShortDecimal::new(flags);
        // A space and the digits.
        let numbers = short.map_or_else(|| 1 + digits(u64::from(flags)), |short| short.len);
        let size = ShortDecimal::new(u32::try_from(value.len()).ok()?)?;
        // "VALUE " and three line ends with "END" between them.
        let len = (b"VALUE ".len() + 2 + 2 + reply::END.len())
            .add_exact(key.len())
            .add_exact(numbers)
            .add_exact(size.len)
            .add_exact(value.len());
        if len > DATA_MAX || FRAME.add_exact(len) > most {
            return None;
        }
        let hit = SingleHit {
            item,
            key,
            value,
            flags,
            short,
            size,
        };
        Some(SingleGet {
            hit: Some(hit),
            id,
            len,
        })
    }

    /// Logs the lookup for watchers. Softirq-safe.
    #[cold]
    pub(crate) fn log_single_get(
        &self,
        guard: &Guard<'_, P>,
        single: &SingleGet<'_>,
        payload: &[u8],
    ) {
        if let Some((_, key)) = request(payload) {
            let found = single.hit.as_ref();
            let found = found.map(|hit| (hit.item.class(), hit.value.len()));
            let found = found.ok_or_else(|| guard.take_dead());
            self.log_fetch(self.udp_number(), key, found);
        }
    }

    /// Counts a request that [`single_get`](Self::single_get) has answered, and records its hit. Called once the reply
    /// has its buffer, because otherwise the next receive path serves and counts the request.
    #[inline(always)]
    pub(crate) fn count_single_get(&self, single: &SingleGet<'_>) {
        let cpu = self.store.cpu();
        match &single.hit {
            Some(hit) => {
                self.store.bump(&hit.item);
                self.store.count_single_hit(cpu, hit.item.class());
            }
            None => self.store.count_single_miss(cpu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{datagram, engine, planned, set};
    use crate::{EngineCounter, Settings};
    use hippos_store::host::Host;
    use hippos_store::{ClassCounter, Counter};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn by_single_get(engine: &Engine<Host>, payload: &[u8]) -> Option<Vec<u8>> {
        let guard = engine.store.read();
        let single = engine.single_get(&guard, payload, usize::MAX)?;
        engine.count_single_get(&single);
        let mut buffer = std::vec![0xaa; single.len()];
        assert_eq!(single.write(&mut buffer), buffer.len());
        Some(buffer)
    }

    proptest! {
        #[test]
        fn single_get_reply_equals_the_plan_reply(
            key in "[!-~]{1,250}",
            flags in prop_oneof![Just(0u32), 0..1000u32, any::<u32>()],
            value in prop::collection::vec(any::<u8>(), 0..1000),
            stored in any::<bool>(),
        ) {
            let engine = engine(Settings::default());
            if stored {
                set(&engine, key.as_bytes(), flags, &value);
            }
            let payload = datagram(std::format!("get {key}\r\n").as_bytes());
            prop_assert_eq!(by_single_get(&engine, &payload), Some(planned(&engine, &payload)));
        }
    }

    #[test]
    fn each_counts_as_a_lookup_a_command_and_a_datagram() {
        let engine = engine(Settings::default());
        set(&engine, b"here", 0, b"value");
        for request in [&b"get here\r\n"[..], b"get here\r\n", b"get gone\r\n"] {
            assert!(by_single_get(&engine, &datagram(request)).is_some());
        }
        let store = &engine.store;
        assert_eq!(store.classes_counted(ClassCounter::GetHits), 2);
        assert_eq!(store.counted(Counter::GetMisses), 1);
        assert_eq!(engine.engine_counted(EngineCounter::FastCommands), 3);
        assert_eq!(engine.engine_counted(EngineCounter::FastDatagrams), 3);
        planned(&engine, &datagram(b"get here\r\n"));
        assert_eq!(store.classes_counted(ClassCounter::GetHits), 3);
        assert_eq!(engine.engine_counted(EngineCounter::FastDatagrams), 4);
        store.reset_counters();
        assert_eq!(store.classes_counted(ClassCounter::GetHits), 0);
        assert_eq!(store.counted(Counter::GetMisses), 0);
        assert_eq!(engine.engine_counted(EngineCounter::FastCommands), 0);
    }

    #[test]
    fn single_get_leaves_other_requests_to_the_plan() {
        let engine = engine(Settings::default());
        set(&engine, b"large", 0, &[b'x'; 1392]);
        for request in [
            &b"get a b\r\n"[..],
            b"get a\n",
            b"get a\r\nget b\r\n",
            b"get \r\n",
            b"gets a\r\n",
            b"get large\r\n",
            b"set a 0 0 1\r\nx\r\n",
        ] {
            assert_eq!(
                by_single_get(&engine, &datagram(request)),
                None,
                "{request:?}"
            );
        }
        let long = [&b"get "[..], &[b'k'; 251], b"\r\n"].concat();
        assert_eq!(by_single_get(&engine, &datagram(&long)), None);
        // A request of two datagrams.
        assert_eq!(
            by_single_get(&engine, b"\0\x01\0\0\0\x02\0\0get a\r\n"),
            None
        );
        assert_eq!(engine.engine_counted(EngineCounter::FastDatagrams), 0);
    }
}
