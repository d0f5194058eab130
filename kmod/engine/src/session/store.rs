// SPDX-License-Identifier: GPL-2.0-only
//! Receiving values: `set` and its variants, and the data that follows them.

use hippos_invariant::Exact;
use hippos_proto::number::parse_digits;
use hippos_proto::reply::{self, Out};
use hippos_proto::text::StoreRequest;
use hippos_proto::{StoreMode, KEY_MAX, LINE_MAX};
use hippos_store::{ClassCounter, Commit, Platform};

use crate::engine::DETAIL;
use crate::reply::meta::KeyBuffer;
use crate::reply::text::stored;
use crate::reply::REPLY_HEADER_MAX;
use crate::session::get::plain_word;
use crate::session::state::{AfterSwallow, FeedStep, PendingStore, Session, State, StoreReply};
use crate::watchers::Kinds;

/// The states in which a plain `set` has more to record.
const SLOW_SET: u8 = DETAIL | Kinds::FETCHERS.and(Kinds::MUTATIONS).flags();

impl<'e, P: Platform> Session<'e, P> {
    /// `set` of a value that has arrived completely.
    pub(super) fn fast_set(
        &mut self,
        input: &[u8],
        words: &[u8],
        out: &mut impl Out,
    ) -> Option<FeedStep> {
        /// The longest value for which this is faster.
        const VALUE_MAX: usize = 16 << 10;
        let (key, rest) = plain_word(words)?;
        let (flags, rest) = parse_digits(rest.strip_prefix(b" ")?)?;
        let (exptime, rest) = parse_digits(rest.strip_prefix(b" ")?)?;
        let (len, rest) = parse_digits(rest.strip_prefix(b" ")?)?;
        let (noreply, rest) = match rest.strip_prefix(b" noreply") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.strip_prefix(b"\r\n")?;
        let len = len as usize;
        let line = input.len().sub_exact(rest.len());
        if key.is_empty() || key.len() > KEY_MAX || len > VALUE_MAX || line > LINE_MAX {
            return None;
        }
        let (value, rest) = rest.split_at_checked(len)?;
        let rest = rest.strip_prefix(b"\r\n")?;
        let engine = self.engine;
        if engine.has_flags(SLOW_SET) {
            return None;
        }
        let store = &engine.store;
        let expiry = store.expiry(i64::from(exptime));
        // Refusals are left to the general code.
        let mut reservation = store.reserve_nowait(key, flags, expiry, len)?;
        // The command may have waited for memory before its value had arrived.
        self.waited = 0;
        reservation.write(value);
        store.count_class(reservation.class(), ClassCounter::CmdSet, 1);
        let line = match store.commit(reservation, &Commit::default()) {
            Ok(outcome) => stored(outcome),
            Err(error) => engine.refused(self.number, error),
        };
        if !noreply {
            out.put(line);
        }
        Some(FeedStep::Took(input.len().sub_exact(rest.len())))
    }

    /// `set` and its variants: reserves memory for the value that follows.
    pub(super) fn store(&mut self, request: &StoreRequest<'_>) {
        let engine = self.engine;
        let store = &engine.store;
        let key = request.key;
        let commit = Commit {
            mode: request.mode,
            compare: request.compare,
            ..Commit::default()
        };
        let hash = store.hash(key);
        let expiry = store.expiry(i64::from(request.exptime));
        let Some(reserved) =
            self.reserve_upload(key, hash, request.flags, expiry, request.len as usize)
        else {
            return;
        };
        engine.note_set(key);
        match reserved {
            Ok(reserved) => {
                let reply = StoreReply::Text {
                    noreply: request.noreply,
                };
                self.state = State::Data(PendingStore::new(reserved, commit, reply));
            }
            Err(error) => {
                engine.observe_refused(self.number, key, &commit, error);
                if request.mode == StoreMode::Set && request.compare.is_none() {
                    engine.observe_change(self.number, key, hash);
                    store.delete(key, hash, None);
                }
                let mut line = engine.refused(self.number, error);
                if request.noreply {
                    line = b"";
                }
                let left = u64::from(request.len).add_exact(2);
                self.swallow(left, AfterSwallow::Say(line));
            }
        }
    }

    /// Receives a value's bytes and stores it when it is complete.
    pub(super) fn data(&mut self, input: &[u8], out: &mut impl Out) -> FeedStep {
        if out.room() < REPLY_HEADER_MAX {
            return FeedStep::Write;
        }
        if core::mem::take(&mut self.park_requested) {
            return FeedStep::Park;
        }
        let State::Data(data) = &mut self.state else {
            return FeedStep::Took(0);
        };
        let mut taken = data.reservation.write(input);
        let mut whole = data.reservation.remaining() == 0;
        if whole && !matches!(data.reply, StoreReply::Binary(_)) {
            while let (Some(place), Some(&byte)) =
                (data.end.get_mut(usize::from(data.ended)), input.get(taken))
            {
                *place = byte;
                data.ended = data.ended.add_exact(1);
                taken = taken.add_exact(1);
            }
            whole = data.ended == 2;
        }
        if !whole {
            return if taken == 0 {
                FeedStep::Read
            } else {
                FeedStep::Took(taken)
            };
        }
        if let State::Data(data) = core::mem::replace(&mut self.state, State::Command) {
            self.complete(data, out);
        }
        // The bytes that were taken are consumed first.
        if taken == 0 && core::mem::take(&mut self.park_requested) {
            return FeedStep::Park;
        }
        FeedStep::Took(taken)
    }

    /// Stores a value that is complete. If there is no memory for joining it to another one, it stays the value that is
    /// being received.
    fn complete(&mut self, mut data: PendingStore<'e, P>, out: &mut impl Out) {
        let engine = self.engine;
        if self.is_first_turn() {
            let class = data.reservation.class();
            engine.store.count_class(class, ClassCounter::CmdSet, 1);
        }
        if !matches!(data.reply, StoreReply::Binary(_)) && data.end != *b"\r\n" {
            if !matches!(data.reply, StoreReply::Text { noreply: true }) {
                out.put(reply::BAD_CHUNK);
            }
            return;
        }
        let mut key = KeyBuffer::new();
        if let StoreReply::Meta(set) = &data.reply {
            if set.wants_key() {
                let _ = key.extend_from_slice(data.reservation.key());
            }
        }
        let mut attempts = self.attempts();
        let (outcome, back) =
            engine.commit(self.number, data.reservation, &data.commit, &mut attempts);
        if let Some(reservation) = back.filter(|_| self.parks(&attempts)) {
            data.reservation = reservation;
            self.state = State::Data(data);
            return;
        }
        self.waited = 0;
        match data.reply {
            StoreReply::Text { noreply } => {
                let line = match outcome {
                    Ok(outcome) => stored(outcome),
                    Err(error) => engine.refused(self.number, error),
                };
                if !noreply {
                    out.put(line);
                }
            }
            StoreReply::Meta(set) => match outcome {
                Ok(outcome) => set.put(out, outcome, &key),
                Err(error) => out.put(engine.refused(self.number, error)),
            },
            StoreReply::Binary(request) => {
                if let Err(error) = outcome {
                    engine.refused_binary(self.number, error);
                }
                request.stored(outcome, out);
            }
        }
    }
}
