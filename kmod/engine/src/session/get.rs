// SPDX-License-Identifier: GPL-2.0-only
//! `get` and its variants: one key, and lists of keys, which are answered while they arrive.

use hippos_invariant::Exact;
use hippos_proto::number::parse_i32;
use hippos_proto::reply::{self, Cursor, Out};
use hippos_proto::text::Get;
use hippos_proto::token::{self, memchr3, plain_len, Words};
use hippos_proto::{BLANKS_MAX, KEY_MAX, LINE_MAX};
use hippos_store::{ClassCounter, Counter, Dead, Item, Platform};

use crate::reply::text::{put_value_line, value_line_len, whole_len};
use crate::reply::{check_len, REPLY_HEADER_MAX};
use crate::session::state::{FeedStep, Keys, Session, State};

impl<P: Platform> Session<'_, P> {
    /// A long line without an end so far: a list of keys is answered as it arrives, any other line ends the connection.
    pub(super) fn long_line(&mut self, window: &[u8]) -> FeedStep {
        let blanks = window.iter().take_while(|&&byte| byte == b' ').count();
        let mut words = Words::new(token::trim(window));
        let (cas, touch) = match words.next() {
            _ if blanks > BLANKS_MAX => return self.cut(),
            Some(b"get") => (false, false),
            Some(b"gets") => (true, false),
            Some(b"gat") => (false, true),
            Some(b"gats") => (true, true),
            _ => return self.cut(),
        };
        let mut keys = Keys { cas, touch: None };
        self.commands = self.commands.add_exact(1);
        let mut start = words.rest();
        if touch {
            let exptime = words.next().and_then(parse_i32);
            // The first word, or the line, has no end so far either.
            let (Some(exptime), false) = (exptime, words.rest().is_empty()) else {
                self.state = State::SkipLine(reply::BAD_EXPTIME);
                return FeedStep::Took(0);
            };
            keys.touch = Some(self.engine.store.expiry(i64::from(exptime)));
            start = words.rest();
        }
        self.state = State::Keys(keys);
        // Bytes after a carriage return or a NUL are not among the words, but are still there.
        let hidden = window.len().sub_exact(token::trim(window).len());
        FeedStep::Took(window.len().sub_exact(hidden).sub_exact(start.len()))
    }

    /// Ends a connection whose line does not end.
    fn cut(&mut self) -> FeedStep {
        self.begin_close();
        FeedStep::Took(0)
    }

    fn keys_of(&self, get: &Get<'_>) -> Keys {
        Keys {
            cas: get.cas,
            touch: get
                .touch
                .map(|exptime| self.engine.store.expiry(i64::from(exptime))),
        }
    }

    /// `get` and its variants with a complete line. Returns how many bytes of keys are left.
    pub(super) fn get(&mut self, get: &Get<'_>, out: &mut impl Out) -> usize {
        let mut keys = get.keys;
        // One bad key refuses the whole command.
        if keys.any(|key| key.len() > KEY_MAX) {
            out.put(reply::BAD_FORMAT);
            return 0;
        }
        let wanted = self.keys_of(get);
        let mut keys = get.keys;
        let Some(key) = keys.next() else {
            out.put(reply::END);
            return 0;
        };
        if keys.next().is_none() {
            self.get_key(wanted, key, true, out);
            return 0;
        }
        self.state = State::Keys(wanted);
        get.keys.rest().len()
    }

    /// Answers the keys that have arrived.
    pub(super) fn keys(&mut self, keys: Keys, input: &[u8], out: &mut impl Out) -> FeedStep {
        self.prefetch(input);
        let mut rest = input;
        loop {
            while let [b' ', more @ ..] = rest {
                rest = more;
            }
            // Most keys are plain, and end at the next space or line end.
            if let Some((key @ [_, ..], more @ ([b' ', ..] | [b'\r', b'\n', ..]))) =
                plain_word(rest)
            {
                if key.len() <= KEY_MAX && out.room() >= REPLY_HEADER_MAX {
                    self.get_key(keys, key, false, out);
                    rest = more;
                    if self.sending.is_some() || !matches!(self.state, State::Keys(_)) {
                        return FeedStep::Took(input.len().sub_exact(rest.len()));
                    }
                    continue;
                }
            }
            let taken = input.len().sub_exact(rest.len());
            if out.room() < REPLY_HEADER_MAX {
                return if taken == 0 {
                    FeedStep::Write
                } else {
                    FeedStep::Took(taken)
                };
            }
            let Some(end) = memchr3(b' ', b'\n', 0, rest) else {
                // A carriage return at the end is not part of the key.
                let key = match rest {
                    [key @ .., b'\r'] => key,
                    key => key,
                };
                if key.len() > KEY_MAX {
                    return self.bad_key(taken);
                }
                return if taken == 0 {
                    FeedStep::Read
                } else {
                    FeedStep::Took(taken)
                };
            };
            let (Some(word), Some(&stop)) = (rest.get(..end), rest.get(end)) else {
                return FeedStep::Read;
            };
            let key = match word {
                [key @ .., b'\r'] if stop == b'\n' => key,
                key => key,
            };
            if key.len() > KEY_MAX {
                return self.bad_key(taken);
            }
            if !key.is_empty() {
                rest = rest.get(key.len()..).unwrap_or(&[]);
                self.get_key(keys, key, false, out);
                if self.sending.is_some() || !matches!(self.state, State::Keys(_)) {
                    return FeedStep::Took(input.len().sub_exact(rest.len()));
                }
                continue;
            }
            // The end of the line, or of the part that memcached parses.
            let taken = taken.add_exact(word.len());
            self.state = State::SkipLine(reply::END);
            return FeedStep::Took(taken);
        }
    }

    /// A key that is too long, in a list that is answered while it arrives.
    fn bad_key(&mut self, taken: usize) -> FeedStep {
        self.state = State::SkipLine(reply::BAD_FORMAT);
        FeedStep::Took(taken)
    }

    /// Prefetches the buckets of the next keys, then their items.
    fn prefetch(&self, input: &[u8]) {
        const AHEAD: usize = 8;
        let store = &self.engine.store;
        let mut hashes = [None; AHEAD];
        let line = match memchr3(b'\n', 0, b'\r', input.get(..LINE_MAX).unwrap_or(input)) {
            Some(end) => input.get(..end).unwrap_or(&[]),
            None => &[],
        };
        for (place, key) in hashes.iter_mut().zip(Words::new(line)) {
            let hash = store.hash(key);
            store.prefetch(hash);
            *place = Some(hash);
        }
        let guard = store.read();
        for hash in hashes.iter().flatten() {
            store.prefetch_item(&guard, *hash);
        }
    }

    /// Answers one key; `last` if only `END` follows.
    #[inline]
    pub(super) fn get_key(&mut self, keys: Keys, key: &[u8], last: bool, out: &mut impl Out) {
        if !self.try_get(keys, key, last, out) {
            self.get_large(keys, key, last, out);
        }
    }

    /// Answers one key, unless the reply does not fit: then the lookup has no effect. Softirq-safe.
    pub(super) fn try_get(&self, keys: Keys, key: &[u8], last: bool, out: &mut impl Out) -> bool {
        let engine = self.engine;
        let store = &engine.store;
        let hash = store.hash(key);
        let guard = store.read();
        let tail: &[u8] = if last { b"\r\nEND\r\n" } else { reply::CRLF };
        let room = out.spare().len();
        let found = match keys.touch {
            // The expiry does not change when the reply does not fit.
            Some(expiry) => engine.get_and_touch(&guard, key, hash, |item, cas| {
                (whole_len(item, keys.cas.then_some(cas), tail) <= room).then_some(expiry)
            }),
            None => store.peek(&guard, key, hash).map(|item| (item, item.cas())),
        };
        let Some((item, cas)) = found else {
            if last && out.room() < reply::END.len() {
                return false;
            }
            self.missed(keys, key, last, guard.take_dead(), out);
            return true;
        };
        let cas = keys.cas.then_some(cas);
        // The whole reply is written to its final place.
        let whole = whole_len(&item, cas, tail);
        let Some(place) = out.spare().get_mut(..whole) else {
            return false;
        };
        store.bump(&item);
        self.found(keys, key, &item);
        let mut place = Cursor::new(place);
        put_value_line(&mut place, &item, cas);
        place.put(item.value());
        place.put(tail);
        let written = place.len();
        check_len(written, || whole);
        out.advance(written);
        true
    }

    /// Answers one key whose value does not fit, or did not fit in an earlier try.
    #[inline(never)]
    fn get_large(&mut self, keys: Keys, key: &[u8], last: bool, out: &mut impl Out) {
        let engine = self.engine;
        let store = &engine.store;
        let guard = store.read();
        let hash = store.hash(key);
        let tail: &[u8] = if last { b"\r\nEND\r\n" } else { reply::CRLF };
        let room = out.room();
        let mode_of = |item: &Item<'_>, cas| {
            // Behind the last value there is the end.
            let end = if last { 0 } else { reply::END.len() };
            let head = || value_line_len(item, keys.cas.then_some(cas)).add_exact(end);
            self.send_mode(item, head, tail, room)
        };
        let mut mode = None;
        let found = match keys.touch {
            // The expiry does not change when the value cannot be sent.
            Some(expiry) => engine.get_and_touch(&guard, key, hash, |item, cas| {
                mode = mode_of(item, cas);
                mode.as_ref().map(|_| expiry)
            }),
            None => store.peek(&guard, key, hash).map(|item| {
                let cas = item.cas();
                mode = mode_of(&item, cas);
                (item, cas)
            }),
        };
        let Some((item, cas)) = found else {
            // The item was removed meanwhile. Another lookup could find a value that does not fit.
            self.missed(keys, key, last, guard.take_dead(), out);
            return;
        };
        self.found(keys, key, &item);
        let Some(mode) = mode else {
            if self.refuse_datagram() {
                return;
            }
            out.put(reply::GET_OUT_OF_MEMORY);
            if !last {
                self.state = State::SkipLine(b"");
            }
            return;
        };
        store.bump(&item);
        put_value_line(out, &item, keys.cas.then_some(cas));
        self.send(&item, mode, tail, out);
    }

    /// Counts a key that was not found, and writes the `END` that follows the last one: there is room for it.
    #[inline(always)]
    fn missed(&self, keys: Keys, key: &[u8], last: bool, dead: Option<Dead>, out: &mut impl Out) {
        let engine = self.engine;
        engine.observe_get(self.number, key, Err(dead));
        if keys.touch.is_some() {
            engine.store.count(Counter::TouchMisses, 1);
        } else {
            engine.miss(1);
        }
        if last {
            out.put(reply::END);
        }
    }

    /// Counts a key that was found.
    #[inline]
    fn found(&self, keys: Keys, key: &[u8], item: &Item<'_>) {
        let engine = self.engine;
        engine.observe_get(self.number, key, Ok(item));
        match keys.touch {
            Some(_) => {
                let class = item.class();
                engine.store.count_class(class, ClassCounter::TouchHits, 1);
            }
            None => engine.hit(item),
        }
    }
}

/// A `get` or `gets` of one key, if `input` begins with a complete and plain one: whether it requests the CAS number,
/// the key, and the rest of the input.
#[inline]
pub(super) fn plain_get(input: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (cas, words) = match input {
        [b'g', b'e', b't', b' ', rest @ ..] => (false, rest),
        [b'g', b'e', b't', b's', b' ', rest @ ..] => (true, rest),
        _ => return None,
    };
    let (key, rest) = plain_word(words)?;
    let rest = rest.strip_prefix(b"\r\n")?;
    (1..=KEY_MAX)
        .contains(&key.len())
        .then_some((cas, key, rest))
}

/// The plain bytes at the start of `text`, and the rest.
#[inline]
pub(super) fn plain_word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    text.split_at_checked(plain_len(text))
}
