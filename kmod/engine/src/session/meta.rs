// SPDX-License-Identifier: GPL-2.0-only
//! Meta commands: `mg`, `ms`, `md`, `ma` and `me`, and their replies.

use hippos_invariant::Exact;
use hippos_proto::meta::{Command, MetaVerb};
use hippos_proto::reply::{self, Out};
use hippos_proto::StoreMode;
use hippos_store::{Arithmetic, ClassCounter, Counter, Hash, ItemSnapshot, Platform};

use crate::command::meta::{shows_old_ttl, Creation, MetaDeleted};
use crate::command::TRIES;
use crate::counters::EngineCounter;
use crate::reply::event::DeleteCommand;
use crate::reply::meta::{
    hit_line, hit_line_len, miss_line, put_number, put_returns, wants_value, MetaHit, MetaSet,
};
use crate::session::state::{AfterSwallow, PendingStore, SendMode, Session, State, StoreReply};

impl<P: Platform> Session<'_, P> {
    /// Serves a meta command. `ms` leaves the session waiting for its value.
    pub(super) fn meta(&mut self, command: &Command<'_>, out: &mut impl Out) {
        let hash = self.engine.store.hash(command.key());
        match command.verb {
            MetaVerb::Get => self.meta_get(command, hash, out),
            MetaVerb::Set { mode, len } => self.meta_set(command, hash, mode, len),
            MetaVerb::Delete => self.meta_delete(command, hash, out),
            MetaVerb::Arith { decrement } => self.meta_arith(command, hash, decrement, out),
            MetaVerb::Debug => self.meta_debug(command, hash, out),
        }
    }

    fn meta_get(&mut self, command: &Command<'_>, hash: Hash, out: &mut impl Out) {
        let engine = self.engine;
        let times = engine.times(command);
        let mut attempts = self.attempts();
        for _ in 0..TRIES {
            let dead = {
                let guard = engine.store.read();
                let room = out.room();
                let mut mode = None;
                let found = engine.meta_modify(&guard, command, hash, &times, |item, hit| {
                    let head = || hit_line_len(command, hit, item.value());
                    mode = if hit.value {
                        self.send_mode(item, head, reply::CRLF, room)
                    } else {
                        self.may_reply(head, room).then_some(SendMode::Whole)
                    };
                    mode.is_some()
                });
                if let Some((item, hit)) = found {
                    engine.meta_hit(command, item.class());
                    engine.observe_lookup(self.number, command.key(), Ok(&item));
                    let Some(mode) = mode else {
                        if !self.refuse_datagram() {
                            out.put(reply::GET_OUT_OF_MEMORY);
                        }
                        return;
                    };
                    hit_line(out, command, &hit, item.value());
                    if hit.value {
                        self.send(&item, mode, reply::CRLF, out);
                    }
                    return;
                }
                guard.take_dead()
            };
            if self.is_first_turn() {
                engine.observe_lookup(self.number, command.key(), Err(dead));
            }
            let created = |seen| MetaHit {
                key: command.key(),
                value: wants_value(command, &seen),
                len: 0,
                flags: 0,
                seen,
                won: true,
                created: true,
                times,
            };
            // The item's CAS number is not known yet: that of the most digits.
            let head = || {
                hit_line_len(command, &created(ItemSnapshot::new(u64::MAX)), b"")
                    .add_exact(reply::CRLF.len())
            };
            if times.vivify.is_some() && !self.may_reply(head, out.room()) {
                engine.miss(1);
                self.refuse_datagram();
                return;
            }
            let (cas, item) = match engine.meta_create(command, hash, times.now, &mut attempts) {
                Creation::Created { cas, item, .. } => (cas, item),
                Creation::NotAsked => break,
                Creation::NoMemory if self.parks(&attempts) => return,
                // To the client it is a miss like any other.
                Creation::NoMemory => {
                    engine.refused_memory(self.number);
                    break;
                }
                Creation::Overtaken => continue,
            };
            engine.meta_hit(command, item.class);
            let hit = created(ItemSnapshot::new(cas));
            hit_line(out, command, &hit, b"");
            if hit.value {
                out.put(reply::CRLF);
            }
            return;
        }
        engine.miss(1);
        if !command.flags.quiet() {
            miss_line(out, command);
        }
    }

    fn meta_set(&mut self, command: &Command<'_>, hash: Hash, mode: StoreMode, len: u32) {
        let store = &self.engine.store;
        let (commit, expiry) = self.engine.meta_commit(command, mode);
        let (key, client) = (command.key(), command.flags.client);
        let Some(reserved) = self.reserve_upload(key, hash, client, expiry, len as usize) else {
            return;
        };
        match reserved {
            Ok(reserved) => {
                let reply = StoreReply::Meta(MetaSet::new(command, len));
                self.state = State::Data(PendingStore::new(reserved, commit, reply));
            }
            Err(error) => {
                self.engine
                    .observe_refused(self.number, key, &commit, error);
                self.engine.observe_change(self.number, key, hash);
                // For any mode, the old value must not be mistaken for the new one.
                store.delete(key, hash, None);
                let line = self.engine.refused(self.number, error);
                self.swallow(u64::from(len).add_exact(2), AfterSwallow::Say(line));
            }
        }
    }

    fn meta_delete(&mut self, command: &Command<'_>, hash: Hash, out: &mut impl Out) {
        let engine = self.engine;
        let key = command.key();
        let mut attempts = self.attempts();
        let seen = if self.is_first_turn() {
            engine.observe_change(self.number, key, hash)
        } else {
            engine.seen_again(key, hash)
        };
        let outcome = engine.meta_delete(command, hash, &mut attempts);
        if self.parks(&attempts) {
            return;
        }
        let Ok(outcome) = outcome else {
            engine.refused_memory(self.number);
            out.put(reply::ARITH_OUT_OF_MEMORY);
            return;
        };
        let status = match outcome {
            MetaDeleted::Removed { class } => {
                engine.observe_deleted(key, DeleteCommand::Meta, seen);
                engine.store.count_class(class, ClassCounter::DeleteHits, 1);
                b"HD"
            }
            MetaDeleted::Emptied { empty } => {
                engine.observe_emptied(self.number, key, seen, &empty);
                // As in memcached, not in the class of the old item.
                engine
                    .store
                    .count_class(empty.class, ClassCounter::DeleteHits, 1);
                b"HD"
            }
            MetaDeleted::Invalidated { empty } => {
                if let Some(empty) = &empty {
                    engine.observe_emptied(self.number, key, seen, empty);
                }
                b"HD"
            }
            MetaDeleted::Exists => {
                engine.store.count(Counter::DeleteMisses, 1);
                b"EX"
            }
            MetaDeleted::NotFound => {
                engine.store.count(Counter::DeleteMisses, 1);
                b"NF"
            }
        };
        if status == b"HD" && command.flags.quiet() {
            return;
        }
        out.put(status);
        put_returns(out, command);
        out.put(reply::CRLF);
    }

    fn meta_arith(
        &mut self,
        command: &Command<'_>,
        hash: Hash,
        decrement: bool,
        out: &mut impl Out,
    ) {
        let engine = self.engine;
        let flags = &command.flags;
        let key = command.key();
        // Read once: a tick between two reads would show in the reply.
        let now = engine.store.now();
        let how = engine.meta_arith(command, decrement, now);
        let shows_old_ttl = shows_old_ttl(command);
        let mut attempts = self.attempts();
        for _ in 0..TRIES {
            if self.is_first_turn() {
                engine.observe_change(self.number, key, hash);
            }
            let result = engine.arith(key, hash, &how, &mut attempts);
            if self.parks(&attempts) {
                return;
            }
            let status: &[u8] = match result {
                Ok(Arithmetic::Value {
                    value,
                    cas,
                    expiry,
                    expiry_before,
                    ..
                }) => {
                    if !flags.quiet() {
                        let shown = if shows_old_ttl { expiry_before } else { expiry };
                        put_number(out, command, value, cas, shown.ttl(now));
                    }
                    return;
                }
                Ok(Arithmetic::NotFound) => {
                    match engine.meta_create_number(command, hash, now, &mut attempts) {
                        Creation::Created { cas, item, ttl } => {
                            engine.observe_made(self.number, key, &item);
                            // Even when quiet, memcached reports an item that it created.
                            put_number(out, command, flags.initial, cas, ttl);
                            return;
                        }
                        Creation::NoMemory if self.parks(&attempts) => return,
                        Creation::NoMemory => {
                            engine.refused_memory(self.number);
                            out.put(reply::VIVIFY_OUT_OF_MEMORY);
                            return;
                        }
                        Creation::Overtaken => continue,
                        Creation::NotAsked => {
                            engine.arith_miss(decrement);
                            b"NF"
                        }
                    }
                }
                Ok(Arithmetic::Exists { .. }) => b"EX",
                Ok(Arithmetic::NonNumeric) => {
                    out.put(reply::NON_NUMERIC);
                    return;
                }
                Ok(Arithmetic::Contended) => break,
                Err(_) => {
                    engine.refused_memory(self.number);
                    out.put(reply::ARITH_OUT_OF_MEMORY);
                    return;
                }
            };
            out.put(status);
            put_returns(out, command);
            out.put(reply::CRLF);
            return;
        }
        out.put(reply::CONTENDED);
    }

    fn meta_debug(&mut self, command: &Command<'_>, hash: Hash, out: &mut impl Out) {
        let engine = self.engine;
        engine.tally(EngineCounter::MetaCommands, 1);
        let guard = engine.store.read();
        let found = engine.store.inspect(&guard, command.key(), hash);
        let item = found.as_ref().map(|(item, _)| item);
        let item = item.ok_or_else(|| guard.take_dead());
        engine.observe_lookup(self.number, command.key(), item);
        let Some((item, seen)) = found else {
            out.put(reply::EN);
            return;
        };
        out.put(b"ME ");
        if seen.binary_key() {
            out.put_base64(item.key());
        } else {
            out.put(item.key());
        }
        out.put(b" exp=");
        match seen.ttl() {
            Some(ttl) => out.put_decimal(u64::from(ttl)),
            None => out.put(b"-1"),
        }
        out.put(b" la=");
        out.put_decimal(u64::from(seen.idle()));
        out.put(b" cas=");
        out.put_decimal(seen.cas());
        out.put(if seen.fetched() {
            b" fetch=yes"
        } else {
            b" fetch=no"
        });
        out.put(b" cls=");
        // memcached's classes start from 1.
        out.put_decimal(item.class().add_exact(1) as u64);
        out.put(b" size=");
        out.put_decimal(item.size() as u64);
        out.put(reply::CRLF);
    }
}
