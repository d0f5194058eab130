// SPDX-License-Identifier: GPL-2.0-only
//! `watch`: a connection that receives events from then on, and whose input is ignored.

use hippos_proto::reply::{self, Out};
use hippos_proto::token::Tokens;
use hippos_store::Platform;

use crate::session::state::{FeedStep, Origin, Session, State, Transport};
use crate::session::watcher::Watcher;
use crate::watchers::Kinds;

const NOT_ALLOWED: &[u8] = b"CLIENT_ERROR watch commands not allowed\r\n";
const PIPELINED: &[u8] = b"ERROR cannot pipeline other commands before watch\r\n";

impl<P: Platform> Session<'_, P> {
    /// Whether the client watches.
    pub fn is_watching(&self) -> bool {
        matches!(self.state, State::Watching(_))
    }

    /// `watch`: returns the reply.
    pub(super) fn begin_watch(&mut self, tokens: &Tokens<'_>) -> &'static [u8] {
        // An endless reply is not possible in a datagram, or in a call of the control device.
        let stream = self.transport == Transport::Tcp && self.origin != Origin::Owner;
        if !stream || !self.administers() {
            return NOT_ALLOWED;
        }
        // Before the names are checked, as in memcached.
        if self.commands != 0 {
            return PIPELINED;
        }
        let mut kinds = match tokens.len() {
            1 => Kinds::FETCHERS,
            _ => Kinds::NONE,
        };
        for at in 1..tokens.len() {
            match Kinds::named(tokens.at(at)) {
                Some(named) => kinds = kinds.and(named),
                None => return reply::ERROR,
            }
        }
        match Watcher::new(self.engine, kinds) {
            Ok(watcher) => {
                self.state = State::Watching(watcher);
                reply::OK
            }
            Err(line) => line,
        }
    }

    /// Continues with the lines. The client's input is ignored. Not inlined, so that the code of other commands stays
    /// short.
    #[inline(never)]
    pub(super) fn watch(&mut self, input: &[u8], out: &mut impl Out) -> FeedStep {
        let State::Watching(watcher) = &mut self.state else {
            return FeedStep::Took(0);
        };
        if !input.is_empty() {
            FeedStep::Took(input.len())
        } else if watcher.run(out) {
            FeedStep::Watch
        } else {
            FeedStep::Write
        }
    }
}
