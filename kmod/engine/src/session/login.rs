// SPDX-License-Identifier: GPL-2.0-only
//! memcached's authentication for the text protocol: the first command is a `set` of any key whose value is a name and
//! a password.

use hippos_invariant::Exact;
use hippos_proto::number::parse_u32;
use hippos_proto::reply::{self, Out};
use hippos_proto::token::{self, memchr, Words};
use hippos_proto::LINE_MAX;
use hippos_store::Platform;

use crate::counters::EngineCounter;
use crate::host_stats::Refusal;
use crate::refusals::RefusalCounter;
use crate::session::state::{AfterSwallow, FeedStep, Session, State};

/// A longer value cannot be valid.
const VALUE_MAX: usize = 1024;

impl<P: Platform> Session<'_, P> {
    /// The first line of a client that has not authenticated. The reply fits.
    pub(super) fn login_line(&mut self, input: &[u8], out: &mut impl Out) -> FeedStep {
        /// `set`, key, flags, expiry time and length.
        const WORDS: usize = 5;
        // memcached waits for two bytes, even after a line end.
        if input.len() < 2 {
            return FeedStep::Read;
        }
        let window = input.get(..=LINE_MAX).unwrap_or(input);
        let Some(end) = memchr(b'\n', window) else {
            if window.len() <= LINE_MAX {
                return FeedStep::Read;
            }
            self.begin_close();
            return FeedStep::Took(0);
        };
        let line = token::trim(window.get(..end).unwrap_or(&[]));
        let mut words = Words::new(line);
        let is_set = words.next() == Some(b"set");
        let len = words.nth(WORDS - 2).and_then(parse_u32);
        match len {
            Some(len) if is_set && len as usize <= VALUE_MAX => self.state = State::Login(len),
            Some(len) if is_set => {
                self.engine.tally(EngineCounter::AuthCommands, 1);
                self.login_failed();
                let left = u64::from(len).add_exact(reply::CRLF.len() as u64);
                self.swallow(left, AfterSwallow::Say(reply::AUTH_FAILURE));
            }
            _ => {
                self.engine.host_stats.refused(self.number, Refusal::Login);
                out.put(reply::UNAUTHENTICATED);
            }
        }
        FeedStep::Took(end.add_exact(1))
    }

    /// The value, of `len` bytes, with its line end.
    pub(super) fn login(&mut self, len: u32, input: &[u8], out: &mut impl Out) -> FeedStep {
        let Some((value, rest)) = input.split_at_checked(len as usize) else {
            return FeedStep::Read;
        };
        let Some((ending, _)) = rest.split_at_checked(reply::CRLF.len()) else {
            return FeedStep::Read;
        };
        self.state = State::Command;
        out.put(self.logged_in(value, ending));
        FeedStep::Took(value.len().add_exact(ending.len()))
    }

    fn logged_in(&mut self, value: &[u8], ending: &[u8]) -> &'static [u8] {
        if ending != reply::CRLF {
            return reply::AUTH_TERMINATION;
        }
        let value = match memchr(0, value) {
            Some(end) => value.get(..end).unwrap_or(&[]),
            None => value,
        };
        let mut words = Words::new(value);
        let (Some(user), Some(password)) = (words.next(), words.next()) else {
            return reply::AUTH_FORMAT;
        };
        self.engine.tally(EngineCounter::AuthCommands, 1);
        if self.engine.authenticate(user, password) {
            self.authenticated = true;
            return reply::STORED;
        }
        self.login_failed();
        reply::AUTH_FAILURE
    }

    fn login_failed(&self) {
        self.engine.count_refused(RefusalCounter::Logins);
        self.engine.host_stats.refused(self.number, Refusal::Login);
    }
}
