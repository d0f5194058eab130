// SPDX-License-Identifier: GPL-2.0-only
//! Lines of the text and meta protocols: dispatches each to the code that serves it.

use hippos_invariant::Exact;
use hippos_proto::meta;
use hippos_proto::reply::{self, Out};
use hippos_proto::text::{self, TextRequest};
use hippos_store::{Arith, Arithmetic, ClassCounter, Counter, Deleted, Platform};

use crate::host_stats::Change;
use crate::reply::event::DeleteCommand;
use crate::session::admin;
use crate::session::state::{AfterSwallow, Session};

impl<P: Platform> Session<'_, P> {
    /// Serves a line, which had `consumed` bytes with its line end. Returns how many bytes are consumed.
    pub(super) fn line(&mut self, line: &[u8], consumed: usize, out: &mut impl Out) -> usize {
        match text::parse(line) {
            TextRequest::Get(get) => {
                let rest = self.get(&get, out);
                // The keys that are left, and the line end.
                return consumed.sub_exact(match rest {
                    0 => 0,
                    rest => rest.add_exact(consumed.sub_exact(line.len())),
                });
            }
            TextRequest::Store(store) => self.store(&store),
            TextRequest::Meta(tokens) => match meta::Command::parse(tokens) {
                Ok(command) => self.meta(&command, out),
                Err(refused) => {
                    self.swallow(u64::from(refused.swallow), AfterSwallow::Say(refused.line));
                }
            },
            TextRequest::Noop => out.put(reply::MN),
            TextRequest::Delete { key, noreply } => self.text_delete(key, noreply, out),
            TextRequest::Arith {
                key,
                decrement,
                by,
                noreply,
            } => {
                let how = Arith {
                    decrement,
                    by,
                    ..Arith::default()
                };
                self.text_arith(key, &how, noreply, out);
            }
            TextRequest::Touch {
                key,
                exptime,
                noreply,
            } => self.text_touch(key, exptime, noreply, out),
            TextRequest::FlushAll { delay, noreply } => self.text_flush(delay, noreply, out),
            TextRequest::Verbosity { level, noreply } => {
                let line = if self.administers() {
                    self.engine.set_verbosity(level);
                    self.report(Change::Verbosity(level));
                    reply::OK
                } else {
                    admin::VERBOSITY_REFUSED
                };
                say(out, line, noreply);
            }
            TextRequest::Version => out.put(reply::VERSION),
            TextRequest::Quit => self.begin_quit(),
            TextRequest::Admin(tokens) => self.admin(&tokens, out),
            TextRequest::Reply { line, noreply } => say(out, line, noreply),
            TextRequest::Hangup => self.begin_close(),
        }
        consumed
    }

    fn text_delete(&mut self, key: &[u8], noreply: bool, out: &mut impl Out) {
        let engine = self.engine;
        engine.note_delete(key);
        let store = &engine.store;
        let hash = store.hash(key);
        let seen = engine.observe_change(self.number, key, hash);
        let line = match store.delete(key, hash, None) {
            Deleted::Deleted { class } => {
                engine.observe_deleted(key, DeleteCommand::Delete, seen);
                store.count_class(class, ClassCounter::DeleteHits, 1);
                reply::DELETED
            }
            Deleted::Exists { .. } | Deleted::NotFound => {
                store.count(Counter::DeleteMisses, 1);
                reply::NOT_FOUND
            }
        };
        say(out, line, noreply);
    }

    fn text_arith(&mut self, key: &[u8], how: &Arith, noreply: bool, out: &mut impl Out) {
        let hash = self.engine.store.hash(key);
        if self.is_first_turn() {
            self.engine.observe_change(self.number, key, hash);
        }
        let mut attempts = self.attempts();
        let result = self.engine.arith(key, hash, how, &mut attempts);
        if self.parks(&attempts) {
            return;
        }
        match result {
            Ok(Arithmetic::Value { value, .. }) if !noreply => {
                out.put_decimal(value);
                out.put(reply::CRLF);
            }
            Ok(Arithmetic::Value { .. }) => {}
            Ok(Arithmetic::NotFound | Arithmetic::Exists { .. }) => {
                self.engine.arith_miss(how.decrement);
                say(out, reply::NOT_FOUND, noreply);
            }
            Ok(Arithmetic::NonNumeric) => say(out, reply::NON_NUMERIC, noreply),
            Ok(Arithmetic::Contended) => say(out, reply::CONTENDED, noreply),
            Err(_) => {
                self.engine.refused_memory(self.number);
                say(out, reply::ARITH_OUT_OF_MEMORY, noreply);
            }
        }
    }

    fn text_touch(&mut self, key: &[u8], exptime: i32, noreply: bool, out: &mut impl Out) {
        let hash = self.engine.store.hash(key);
        self.engine.observe_change(self.number, key, hash);
        let touched = self.engine.touch(key, hash, i64::from(exptime));
        let line = if touched {
            reply::TOUCHED
        } else {
            reply::NOT_FOUND
        };
        say(out, line, noreply);
    }

    fn text_flush(&mut self, delay: Option<i32>, noreply: bool, out: &mut impl Out) {
        self.engine.store.count(Counter::CmdFlush, 1);
        let line = match delay {
            _ if !self.administers() => admin::FLUSH_REFUSED,
            Some(delay) => {
                self.engine.flush(i64::from(delay));
                self.report(Change::Flush(i64::from(delay)));
                reply::OK
            }
            None => reply::BAD_EXPTIME,
        };
        say(out, line, noreply);
    }
}

/// Replies with a line, unless the client wants none.
fn say(out: &mut impl Out, line: &[u8], noreply: bool) {
    if !noreply {
        out.put(line);
    }
}
