//! The commonest request of all, `get` of one key, by a way of its own.
//!
//! A [`Plan`](crate::Plan) has room for any reply of the fast path; what is
//! asked for most needs one item and no room at all. What this way does not
//! serve is left to the plan, and nothing has been counted then.

use hippos_proto::number::digits;
use hippos_proto::reply::{self, Cursor, Out};
use hippos_proto::token;
use hippos_proto::udp::{self, Frame, DATA_MAX, FRAME};
use hippos_proto::KEY_MAX;
use hippos_store::{Guard, Item, Platform};

use crate::counters::Tally;
use crate::Engine;

/// The reply to one key's `get`, in one datagram, found but not yet written.
#[derive(Clone, Copy)]
pub struct Single<'g> {
    item: Option<Item<'g>>,
    id: u16,
    len: usize,
}

impl Single<'_> {
    /// Bytes of the datagram, frame included; at least one.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        FRAME.wrapping_add(self.len)
    }

    /// Writes the datagram to the start of `buffer`, which has room for
    /// [`len`](Self::len) bytes, and needs nothing of the request for it.
    /// Returns how many bytes it wrote.
    #[inline]
    pub fn write(&self, buffer: &mut [u8]) -> usize {
        let mut out = Cursor::new(buffer);
        out.put(&udp::reply_frame(self.id, 0, 1));
        if let Some(item) = &self.item {
            out.put(b"VALUE ");
            out.put(item.key());
            out.put(b" ");
            out.put_decimal(u64::from(item.flags()));
            out.put(b" ");
            out.put_decimal(item.value().len() as u64);
            out.put(reply::CRLF);
            out.put(item.value());
            out.put(reply::CRLF);
        }
        out.put(reply::END);
        out.len()
    }
}

/// Whether `key` can be one, with nothing in it that ends a word or a line.
#[inline]
pub(crate) fn plain(key: &[u8]) -> bool {
    (1..=KEY_MAX).contains(&key.len()) && token::plain_len(key) == key.len()
}

/// The request's number and key, if `payload` is a `get` of one.
#[inline]
fn request(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (frame, data) = Frame::parse(payload)?;
    let key = data.strip_prefix(b"get ")?.strip_suffix(b"\r\n")?;
    (frame.total == 1 && plain(key)).then_some((frame.id, key))
}

impl<P: Platform> Engine<P> {
    /// Looks up what `payload`, a UDP payload with its frame, asks for, if it
    /// is a plain `get` of one key whose reply fits a datagram; else `None`,
    /// and [`plan`](Self::plan) has to see. Softirq-safe.
    #[inline]
    pub fn single<'g>(&self, guard: &'g Guard<'_, P>, payload: &[u8]) -> Option<Single<'g>> {
        let (id, key) = request(payload)?;
        if self.detail() {
            return None;
        }
        let item = self.store.get(guard, key, self.store.hash(key));
        let mut len = reply::END.len();
        match &item {
            Some(item) => {
                let value = item.value().len();
                // "VALUE ", two spaces and two line ends.
                len = len
                    .wrapping_add(12)
                    .wrapping_add(key.len())
                    .wrapping_add(digits(u64::from(item.flags())))
                    .wrapping_add(digits(value as u64))
                    .wrapping_add(value);
                if len > DATA_MAX {
                    return None;
                }
                self.hit(item);
            }
            None => self.miss(1),
        }
        self.tally(Tally::FastDatagrams, 1);
        self.tally(Tally::FastCommands, 1);
        Some(Single { item, id, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Plan, Settings, Verdict, TALLIES};
    use hippos_store::host::Host;
    use hippos_store::{Commit, Config, Store};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn engine() -> Engine<Host> {
        let config = Config {
            tallies: TALLIES,
            ..Config::default()
        };
        let store = Store::new(config, Host::new()).unwrap();
        Engine::new(store, Settings::default(), &())
    }

    fn set(engine: &Engine<Host>, key: &[u8], flags: u32, value: &[u8]) {
        let store = &engine.store;
        let hash = store.hash(key);
        let expiry = store.expiry(0);
        let slot = store.reserve(key, hash, flags, expiry, value.len());
        let mut slot = slot.unwrap();
        assert_eq!(slot.write(value), value.len());
        store.commit(slot, &Commit::default()).unwrap();
    }

    fn datagram(request: &[u8]) -> Vec<u8> {
        [b"\x12\x34\0\0\0\x01\0\0", request].concat()
    }

    fn singly(engine: &Engine<Host>, payload: &[u8]) -> Option<Vec<u8>> {
        let guard = engine.store.read();
        let single = engine.single(&guard, payload)?;
        let mut buffer = std::vec![0xaa; single.len()];
        assert_eq!(single.write(&mut buffer), buffer.len());
        Some(buffer)
    }

    fn planned(engine: &Engine<Host>, payload: &[u8]) -> Vec<u8> {
        let guard = engine.store.read();
        Plan::with(|plan| {
            assert_eq!(engine.plan(&guard, payload, plan), Verdict::Answer);
            let mut buffer = std::vec![0; plan.datagram_len(0)];
            assert_eq!(plan.write(0, &mut buffer), buffer.len());
            buffer
        })
    }

    proptest! {
        /// The short way says what the long one does.
        #[test]
        fn it_answers_as_the_plan_does(
            key in "[!-~]{1,250}",
            flags in prop_oneof![Just(0u32), 0..1000u32, any::<u32>()],
            value in prop::collection::vec(any::<u8>(), 0..1000),
            stored in any::<bool>(),
        ) {
            let engine = engine();
            if stored {
                set(&engine, key.as_bytes(), flags, &value);
            }
            let payload = datagram(std::format!("get {key}\r\n").as_bytes());
            prop_assert_eq!(singly(&engine, &payload), Some(planned(&engine, &payload)));
        }
    }

    #[test]
    fn what_is_not_one_plain_get_is_left_to_the_plan() {
        let engine = engine();
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
            assert_eq!(singly(&engine, &datagram(request)), None, "{request:?}");
        }
        let long = [&b"get "[..], &[b'k'; 251], b"\r\n"].concat();
        assert_eq!(singly(&engine, &datagram(&long)), None);
        // A request of two datagrams.
        assert_eq!(singly(&engine, b"\0\x01\0\0\0\x02\0\0get a\r\n"), None);
        assert_eq!(engine.tallied(Tally::FastDatagrams), 0);
    }
}
