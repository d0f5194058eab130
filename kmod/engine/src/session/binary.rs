// SPDX-License-Identifier: GPL-2.0-only
//! Binary commands on the store.

use hippos_invariant::Exact;
use hippos_proto::binary::{op, Header, Status, FRONT_MAX, HEADER};
use hippos_proto::reply::Out;
use hippos_proto::{KEY_MAX, VERSION};
use hippos_store::{
    Arith, Arithmetic, ClassCounter, Commit, Counter, Deleted, Item, Outcome, Platform, StoreError,
    StoreMode,
};

use crate::command::TRIES;
use crate::host_stats::Change;
use crate::reply::binary::{put_found, BinaryRequest};
use crate::session::listing::Listing;
use crate::session::state::{
    AfterSwallow, FeedStep, PendingStore, SendMode, Session, State, StoreReply,
};

impl<P: Platform> Session<'_, P> {
    /// Serves the request at the start of `input`.
    pub(super) fn binary(&mut self, input: &[u8], out: &mut impl Out) -> FeedStep {
        use hippos_proto::binary::REQUEST;
        let Some(head) = Header::parse(input) else {
            return FeedStep::Read;
        };
        if head.magic != REQUEST {
            self.begin_close();
            return FeedStep::Took(0);
        }
        let request = BinaryRequest::new(&head);
        let value_len = match head.value() {
            Some(len) if usize::from(head.key) <= KEY_MAX => len,
            // A key that is refused need not be read.
            value => {
                let front = usize::from(head.key).add_exact(usize::from(head.extras));
                if front.add_exact(HEADER) > FRONT_MAX {
                    self.begin_close();
                    return FeedStep::Took(HEADER);
                }
                let left = u64::from(head.key).add_exact(u64::from(head.extras));
                let status = match value {
                    None => Status::UnknownCommand,
                    Some(_) => Status::Invalid,
                };
                self.swallow(left, AfterSwallow::Close(request, status));
                return FeedStep::Took(HEADER);
            }
        };
        let body = input.get(HEADER..).unwrap_or(&[]);
        let Some((extras, rest)) = body.split_at_checked(usize::from(head.extras)) else {
            return FeedStep::Read;
        };
        let Some(key) = rest.get(..usize::from(head.key)) else {
            return FeedStep::Read;
        };
        if !self.binary_command(&head, request, extras, key, value_len, out) {
            request.error(out, Status::Invalid);
            self.begin_close();
        }
        let front = HEADER.add_exact(extras.len());
        FeedStep::Took(front.add_exact(key.len()))
    }

    /// `false` when the request is malformed.
    fn binary_command(
        &mut self,
        head: &Header,
        request: BinaryRequest,
        extras: &[u8],
        key: &[u8],
        value_len: u32,
        out: &mut impl Out,
    ) -> bool {
        let bare = extras.is_empty() && key.is_empty() && value_len == 0;
        let keyed = |extras_len: usize| extras.len() == extras_len && !key.is_empty();
        let full = value_len == 0;
        match request.command() {
            op::GET | op::GETK if keyed(0) && full => self.binary_get(request, key, None, out),
            op::TOUCH | op::GAT | op::GATK if keyed(4) => {
                let exptime = be32(extras);
                self.binary_get(request, key, Some(exptime), out);
                self.ignore(value_len);
            }
            op::SET | op::ADD | op::REPLACE if keyed(8) => {
                let flags = be32(extras);
                let exptime = be32(extras.get(4..).unwrap_or(&[]));
                self.binary_store(head, request, key, (flags, exptime), value_len);
            }
            op::APPEND | op::PREPEND if keyed(0) => {
                self.binary_store(head, request, key, (0, 0), value_len);
            }
            op::DELETE if keyed(0) && full => self.binary_delete(head, request, key, out),
            op::INCREMENT | op::DECREMENT if keyed(20) && full => {
                self.binary_arith(head, request, key, extras, out);
            }
            op::VERSION if bare => request.done(out, VERSION.as_bytes(), 0),
            op::NOOP if bare => request.done(out, &[], 0),
            op::FLUSH if matches!(extras.len(), 0 | 4) && key.is_empty() && full => {
                if self.administers() {
                    self.engine.store.count(Counter::CmdFlush, 1);
                    let exptime = i64::from(be32(extras));
                    self.engine.flush(exptime);
                    self.report(Change::Flush(exptime));
                    request.done(out, &[], 0);
                } else {
                    request.error(out, Status::AuthError);
                }
            }
            op::QUIT if bare => {
                request.done(out, &[], 0);
                self.begin_quit();
            }
            op::STAT if extras.is_empty() && full => {
                self.binary_stat(request, key, out);
            }
            op::SASL_LIST_MECHS if bare => request.error(out, Status::UnknownCommand),
            op::SASL_AUTH | op::SASL_STEP if keyed(0) => {
                let then = AfterSwallow::Refuse(request, Status::UnknownCommand);
                self.swallow(u64::from(value_len), then);
            }
            op::GET
            | op::GETK
            | op::TOUCH
            | op::GAT
            | op::GATK
            | op::SET
            | op::ADD
            | op::REPLACE
            | op::APPEND
            | op::PREPEND
            | op::DELETE
            | op::INCREMENT
            | op::DECREMENT
            | op::VERSION
            | op::NOOP
            | op::FLUSH
            | op::QUIT
            | op::STAT
            | op::SASL_LIST_MECHS
            | op::SASL_AUTH
            | op::SASL_STEP => return false,
            _ => {
                let then = AfterSwallow::Refuse(request, Status::UnknownCommand);
                self.swallow(u64::from(value_len), then);
            }
        }
        true
    }

    /// Skips a value that the command does not have.
    fn ignore(&mut self, len: u32) {
        // After a datagram was refused, the session serves nothing more.
        if len != 0 && matches!(self.state, State::Command) {
            self.swallow(u64::from(len), AfterSwallow::Say(b""));
        }
    }

    fn binary_get(
        &mut self,
        request: BinaryRequest,
        key: &[u8],
        touch: Option<u32>,
        out: &mut impl Out,
    ) {
        const FLAGS: usize = 4;
        let engine = self.engine;
        let store = &engine.store;
        let command = request.command();
        let named = matches!(command, op::GETK | op::GATK);
        let hash = store.hash(key);
        let guard = store.read();
        let room = out.room();
        let mode_of = |item: &Item<'_>| match command {
            op::TOUCH => Some(SendMode::Whole),
            _ => {
                let key = if named { item.key().len() } else { 0 };
                let head = || HEADER.add_exact(FLAGS).add_exact(key);
                self.send_mode(item, head, &[], room)
            }
        };
        let mut mode = None;
        let found = match touch {
            Some(exptime) => {
                let expiry = store.expiry(i64::from(exptime));
                // The expiry does not change when the value cannot be sent.
                engine.get_and_touch(&guard, key, hash, |item, _| {
                    mode = mode_of(item);
                    mode.as_ref().map(|_| expiry)
                })
            }
            None => store.peek(&guard, key, hash).map(|item| {
                mode = mode_of(&item);
                (item, item.cas())
            }),
        };
        let item = found.as_ref().map(|(item, _)| item);
        let item = item.ok_or_else(|| guard.take_dead());
        engine.observe_get(self.number, key, item);
        let Some((item, cas)) = found else {
            if touch.is_some() {
                store.count(Counter::TouchMisses, 1);
            } else {
                engine.miss(1);
            }
            if request.quiet {
                return;
            }
            if named {
                request.missing_key(out, key);
            } else {
                request.error(out, Status::NotFound);
            }
            return;
        };
        match touch {
            Some(_) => store.count_class(item.class(), ClassCounter::TouchHits, 1),
            None => engine.hit(&item),
        }
        let key = if named { item.key() } else { &[] };
        let value: &[u8] = if command == op::TOUCH {
            &[]
        } else {
            item.value()
        };
        let head = request.head(Status::Success, FLAGS, key.len(), value.len(), cas);
        let Some(mode) = mode else {
            if !self.refuse_datagram() {
                request.error(out, Status::OutOfMemory);
            }
            return;
        };
        store.bump(&item);
        put_found(out, &head, item.flags(), key, value);
        if command != op::TOUCH {
            self.send(&item, mode, &[], out);
        }
    }

    fn binary_store(
        &mut self,
        head: &Header,
        request: BinaryRequest,
        key: &[u8],
        (flags, exptime): (u32, u32),
        len: u32,
    ) {
        let engine = self.engine;
        let store = &engine.store;
        let command = request.command();
        let compare = Some(head.cas).filter(|&cas| cas != 0);
        let mode = match command {
            op::APPEND => StoreMode::Append,
            op::PREPEND => StoreMode::Prepend,
            // Any other store with a CAS value is a compare-and-swap.
            _ if compare.is_some() => StoreMode::Set,
            op::ADD => StoreMode::Add,
            op::REPLACE => StoreMode::Replace,
            _ => StoreMode::Set,
        };
        let commit = Commit {
            mode,
            compare,
            ..Commit::default()
        };
        let hash = store.hash(key);
        let expiry = store.expiry(i64::from(exptime));
        let Some(reserved) = self.reserve_upload(key, hash, flags, expiry, len as usize) else {
            return;
        };
        engine.note_set(key);
        match reserved {
            Ok(reserved) => {
                self.state = State::Data(PendingStore::new(
                    reserved,
                    commit,
                    StoreReply::Binary(request),
                ));
            }
            Err(error) => {
                engine.observe_refused(self.number, key, &commit, error);
                engine.refused_binary(self.number, error);
                if command == op::SET {
                    engine.observe_change(self.number, key, hash);
                    store.delete(key, hash, None);
                }
                let then = match error {
                    StoreError::TooLarge => AfterSwallow::Refuse(request, Status::TooLarge),
                    StoreError::OutOfMemory => AfterSwallow::NoMemory(request),
                };
                self.swallow(u64::from(len), then);
            }
        }
    }

    fn binary_delete(
        &mut self,
        head: &Header,
        request: BinaryRequest,
        key: &[u8],
        out: &mut impl Out,
    ) {
        let engine = self.engine;
        let store = &engine.store;
        let compare = Some(head.cas).filter(|&cas| cas != 0);
        engine.note_delete(key);
        let hash = store.hash(key);
        // memcached logs the lookup, but not the deletion.
        engine.observe_change(self.number, key, hash);
        match store.delete(key, hash, compare) {
            Deleted::Deleted { class } => {
                store.count_class(class, ClassCounter::DeleteHits, 1);
                request.done(out, &[], 0);
            }
            Deleted::Exists { .. } => request.error(out, Status::Exists),
            Deleted::NotFound => {
                store.count(Counter::DeleteMisses, 1);
                request.error(out, Status::NotFound);
            }
        }
    }

    fn binary_arith(
        &mut self,
        head: &Header,
        request: BinaryRequest,
        key: &[u8],
        extras: &[u8],
        out: &mut impl Out,
    ) {
        let engine = self.engine;
        let initial = be64(extras.get(8..).unwrap_or(&[]));
        let exptime = be32(extras.get(16..).unwrap_or(&[]));
        let decrement = request.command() == op::DECREMENT;
        let how = Arith {
            decrement,
            by: be64(extras),
            compare: Some(head.cas).filter(|&cas| cas != 0),
            ..Arith::default()
        };
        let hash = engine.store.hash(key);
        let mut attempts = self.attempts();
        for _ in 0..TRIES {
            let absent = exptime == u32::MAX;
            if self.is_first_turn() {
                engine.observe_change(self.number, key, hash);
            }
            let result = engine.arith(key, hash, &how, &mut attempts);
            if self.parks(&attempts) {
                return;
            }
            match result {
                Ok(Arithmetic::Value { value, cas, .. }) => {
                    request.done(out, &value.to_be_bytes(), cas);
                }
                Ok(Arithmetic::NotFound) if absent => {
                    engine.arith_miss(decrement);
                    request.error(out, Status::NotFound);
                }
                Ok(Arithmetic::NotFound) => {
                    match engine.begin(key, initial, exptime, &mut attempts) {
                        Ok(Outcome::Stored { cas, item, .. }) => {
                            engine.observe_made(self.number, key, &item);
                            request.done(out, &initial.to_be_bytes(), cas);
                        }
                        // Another client created it first: count again.
                        Ok(_) => continue,
                        Err(_) if self.parks(&attempts) => {}
                        Err(_) => {
                            engine.refused_memory(self.number);
                            let text = b"Out of memory allocating new item";
                            request.error_text(out, Status::OutOfMemory, text);
                        }
                    }
                }
                Ok(Arithmetic::Exists { .. }) => request.error(out, Status::Exists),
                Ok(Arithmetic::NonNumeric) => request.error(out, Status::NonNumeric),
                Ok(Arithmetic::Contended) => break,
                Err(_) => {
                    engine.refused_memory(self.number);
                    let text = b"Out of memory incrementing value";
                    request.error_text(out, Status::OutOfMemory, text);
                }
            }
            return;
        }
        request.error(out, Status::NotStored);
    }

    fn binary_stat(&mut self, request: BinaryRequest, name: &[u8], out: &mut impl Out) {
        let changes = name.starts_with(b"reset") || name.starts_with(b"detail");
        if changes && !self.administers() {
            return request.error(out, Status::AuthError);
        }
        let listing = match name {
            [] => Some(Listing::stats()),
            _ if name.starts_with(b"reset") => {
                self.engine.reset();
                self.report(Change::Reset);
                Some(Listing::nothing())
            }
            _ if name.starts_with(b"settings") => Some(Listing::settings()),
            _ if name.starts_with(b"detail") => {
                let how = name.get(6..).unwrap_or(&[]);
                if how.starts_with(b" dump") {
                    Some(Listing::detail())
                } else if how.starts_with(b" on") || how.starts_with(b" off") {
                    let on = how.starts_with(b" on");
                    self.engine.set_detail(on);
                    self.report(Change::Detail(on));
                    Some(Listing::nothing())
                } else {
                    None
                }
            }
            _ => Listing::named(name),
        };
        match listing {
            Some(listing) => self.state = State::Listing(listing.binary(request)),
            None => request.error(out, Status::NotFound),
        }
    }
}

/// The most bytes of a request that are looked at together: extras have at most 255.
const _: () = assert!(HEADER + 255 + KEY_MAX < hippos_proto::LINE_MAX);

fn be32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_be_bytes(*b))
}
