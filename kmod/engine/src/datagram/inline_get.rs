// SPDX-License-Identifier: GPL-2.0-only
//! The fastest way to answer the most frequent request: `get` of one key of 8 to 32 bytes whose lookup is decided by
//! one cache line.
//!
//! The key is read once, into four words, which are used to check that it is plain, to hash, to compare and to write
//! it. This path has no calls and no loops; unusual requests are left to [`single_get`](Engine::single_get), before
//! anything is counted.

use hippos_invariant::{invariant, Exact};
use hippos_proto::reply;
use hippos_proto::token;
use hippos_proto::udp::{DATAGRAM_MAX, FRAME};
use hippos_store::{Guard, KeyWords, OneLineLookup, Platform};

use crate::reply::inline::{put_item, WINDOW};
use crate::Engine;

/// Frame and `get `.
const PREFIX_LEN: usize = FRAME + 4;
/// The line end.
const SUFFIX_LEN: usize = 2;
/// The most bytes of a reply besides key and value: frame, `VALUE `, two spaces with numbers, the line end, and the
/// bytes after the value, written as a word.
const OVERHEAD_MAX: usize = FRAME + 6 + 7 + 7 + 2 + 8;

/// The reply to a `get` of one key, in one datagram, found but not yet written.
#[derive(Clone, Copy)]
pub(crate) struct InlineGet<'g> {
    hit: Option<InlineHit<'g>>,
    key: KeyWords,
    id: u16,
    bound: usize,
}

#[derive(Clone, Copy)]
struct InlineHit<'g> {
    value: &'g [u8],
    flags: u32,
    class: usize,
}

impl InlineGet<'_> {
    /// The size of the buffer that it is written to.
    #[inline(always)]
    pub(crate) fn bound(&self) -> usize {
        self.bound
    }

    /// Writes the datagram to the start of `buffer`, which has [`bound`](Self::bound) bytes, without reading the request.
    /// Returns the length of the datagram.
    #[inline(always)]
    pub(crate) fn write(&self, buffer: &mut [u8]) -> usize {
        let written = match &self.hit {
            Some(hit) => write_hit(buffer, self.id, &self.key, hit),
            None => write_miss(buffer, self.id),
        };
        invariant!(written.is_some(), "the buffer of a reply is too small");
        written.unwrap_or(0)
    }
}

#[inline(always)]
fn frame(id: u16) -> [u8; FRAME] {
    (u64::from(id) | 1 << 40).to_le_bytes()
}

#[inline(always)]
fn write_miss(buffer: &mut [u8], id: u16) -> Option<usize> {
    let (head, rest) = buffer.split_first_chunk_mut::<FRAME>()?;
    *head = frame(id);
    *rest.first_chunk_mut::<8>()? = *b"END\r\n\0\0\0";
    Some(FRAME + reply::END.len())
}

#[inline(always)]
fn write_hit(buffer: &mut [u8], id: u16, key: &KeyWords, hit: &InlineHit<'_>) -> Option<usize> {
    *buffer.first_chunk_mut()? = frame(id);
    let end = put_item::<FRAME>(buffer, key, hit.value, hit.flags)?;
    *buffer.get_mut(end..)?.first_chunk_mut()? = *b"\r\nEND\r\n\0";
    Some(end.add_exact(2 + reply::END.len()))
}

/// The request id and the key, if `payload` is a `get` of one key that fits a [`KeyWords`].
#[inline(always)]
fn request(payload: &[u8]) -> Option<(u16, KeyWords)> {
    const LONG: usize = 16 + SUFFIX_LEN;
    const SHORT: usize = KeyWords::MIN + SUFFIX_LEN;
    // The length of a shorter request wraps, and is then too long.
    let len = payload.len().wrapping_sub(PREFIX_LEN + SUFFIX_LEN);
    let key = match len {
        16..=KeyWords::MAX => {
            let first = payload.first_chunk::<{ PREFIX_LEN + 16 }>()?.last_chunk()?;
            let (last, end) = payload.last_chunk::<LONG>()?.split_first_chunk()?;
            (end == b"\r\n").then_some(KeyWords::long(first, last, len)?)?
        }
        KeyWords::MIN..16 => {
            let first = payload.first_chunk::<{ PREFIX_LEN + 8 }>()?.last_chunk()?;
            let (last, end) = payload.last_chunk::<SHORT>()?.split_first_chunk()?;
            (end == b"\r\n").then_some(KeyWords::short(first, last, len)?)?
        }
        _ => return None,
    };
    let head = payload.first_chunk::<PREFIX_LEN>()?;
    // One datagram; the two bytes before and after that are ignored.
    const PREFIX: u64 = u64::from_le_bytes(*b"\0\x01\0\0get ");
    const PREFIX_MASK: u64 = !0xffff_0000;
    let fits = u64::from_le_bytes(*head.last_chunk()?) & PREFIX_MASK == PREFIX;
    (fits && token::are_plain(key.words()))
        .then_some((u16::from_le_bytes(*head.first_chunk()?), key))
}

impl<P: Platform> Engine<P> {
    /// Looks up the key that `payload`, a UDP payload with its frame, requests; `None` if it cannot be answered inline,
    /// so that [`single_get`](Self::single_get) is tried. Softirq-safe. The caller that sends the reply calls
    /// [`count_inline_get`](Self::count_inline_get).
    #[inline(always)]
    pub(crate) fn inline_get<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        payload: &[u8],
    ) -> Option<InlineGet<'g>> {
        let (id, key) = request(payload)?;
        if self.needs_slow_get() {
            return None;
        }
        match self.store.lookup_one_line(guard, &key) {
            OneLineLookup::Hit(item) => {
                let ((_, value), flags) = (item.parts(), item.flags());
                let bound = OVERHEAD_MAX.add_exact(key.len()).add_exact(value.len());
                if bound > DATAGRAM_MAX || flags > 999_999 {
                    return None;
                }
                let class = item.class();
                Some(InlineGet {
                    hit: Some(InlineHit {
                        value,
                        flags,
                        class,
                    }),
                    key,
                    id,
                    bound: bound.max(WINDOW),
                })
            }
            OneLineLookup::Miss => Some(InlineGet {
                hit: None,
                key,
                id,
                bound: FRAME + 8,
            }),
            OneLineLookup::Undecided => None,
        }
    }

    /// Counts a request that is answered inline. `cpu` is the current one.
    #[inline(always)]
    pub(crate) fn count_inline_get(&self, found: &InlineGet<'_>, cpu: usize) {
        match &found.hit {
            Some(hit) => self.store.count_single_hit(cpu, hit.class),
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
    use std::vec;
    use std::vec::Vec;

    fn by_inline_get(engine: &Engine<Host>, payload: &[u8]) -> Option<Vec<u8>> {
        let guard = engine.store.read();
        let found = engine.inline_get(&guard, payload)?;
        assert!(found.bound() <= DATAGRAM_MAX);
        engine.count_inline_get(&found, 0);
        let mut buffer = std::vec![0xaa; found.bound()];
        let used = found.write(&mut buffer);
        buffer.truncate(used);
        Some(buffer)
    }

    proptest! {
        #[test]
        fn inline_get_reply_equals_the_plan_reply(
            key in "[!-~]{8,32}",
            flags in prop_oneof![Just(0u32), 0..1000u32, 0..1_000_000u32],
            value in prop::collection::vec(any::<u8>(), 0..1300),
            stored in any::<bool>(),
        ) {
            let engine = engine(Settings::default());
            let payload = datagram(std::format!("get {key}\r\n").as_bytes());
            if stored {
                set(&engine, key.as_bytes(), flags, &value);
                // The first hit sets the item's mark.
                prop_assert_eq!(by_inline_get(&engine, &payload), None);
            }
            let want = planned(&engine, &payload);
            prop_assert_eq!(by_inline_get(&engine, &payload), Some(want));
        }

        /// For arbitrary bytes it gives no reply, or the plan's.
        #[test]
        fn arbitrary_bytes_get_no_reply_or_the_plan_s(
            head in prop::sample::select(vec![
                &b"\x12\x34\0\0\0\x01\0\0get "[..],
                b"\x12\x34\x55\x66\0\x01\x77\x88get ",
                b"\x12\x34\0\0\0\x02\0\0get ",
                b"\x12\x34\0\0\0\x01\0\0gets",
            ]),
            key: [u8; 32],
            len in 0usize..=32,
            tail in prop::sample::select(vec![&b"\r\n"[..], b"\n\n", b""]),
        ) {
            let engine = engine(Settings::default());
            let payload = [head, &key[..len], tail].concat();
            if let Some(found) = by_inline_get(&engine, &payload) {
                prop_assert_eq!(found, planned(&engine, &payload));
            }
        }
    }

    #[test]
    fn each_counts_as_a_lookup_a_command_and_a_datagram() {
        let engine = engine(Settings::default());
        set(&engine, b"here it is", 0, b"value");
        let hit = datagram(b"get here_it_is\r\n");
        set(&engine, b"here_it_is", 0, b"value");
        planned(&engine, &hit);
        let before = engine.engine_counted(EngineCounter::FastDatagrams);
        assert!(by_inline_get(&engine, &hit).is_some());
        assert!(by_inline_get(&engine, &datagram(b"get here_it_is_not\r\n")).is_some());
        let store = &engine.store;
        assert_eq!(store.classes_counted(ClassCounter::GetHits), 2);
        assert_eq!(store.counted(Counter::GetMisses), 1);
        assert_eq!(
            engine.engine_counted(EngineCounter::FastDatagrams) - before,
            2
        );
    }

    #[test]
    fn inline_get_leaves_unusual_requests() {
        let engine = engine(Settings::default());
        set(&engine, b"large_one", 0, &[b'x'; 1392]);
        set(&engine, b"long_flags", 1_000_000, b"");
        for request in [
            &b"get large_one\r\n"[..],
            b"get long_flags\r\n",
            b"get short\r\n",
            b"get two_keys of_it\r\n",
            b"get no_line_end_here",
            b"get a_very_long_key_of_more_than_32_bytes\r\n",
        ] {
            let payload = datagram(request);
            if request.starts_with(b"get l") {
                planned(&engine, &datagram(b"get long_flags\r\n"));
            }
            assert_eq!(by_inline_get(&engine, &payload), None, "{request:?}");
        }
    }
}
