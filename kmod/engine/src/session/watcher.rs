// SPDX-License-Identifier: GPL-2.0-only
//! A client that watches: it reads the store's log at its own pace.
//!
//! It has no memory of its own beside what its connection holds; what the log has overwritten meanwhile
//! is lost to it, and it is told how much that was.

use hippos_invariant::Exact;
use hippos_proto::reply::Out;
use hippos_store::{Event, NextEvent, Platform};

use crate::counters::EngineCounter;
use crate::reply::event::{kind, put_event};
use crate::reply::REPLY_HEADER_MAX;
use crate::watchers::Kinds;
use crate::Engine;

const TOO_MANY: &[u8] = b"WATCHER_TOO_MANY log watcher limit reached\r\n";
const FAILED: &[u8] = b"WATCHER_FAILED failed to add log watcher\r\n";

/// Events that are looked at before others have their turn.
const LOOKS: usize = 1024;

/// A client that watches. It ends when dropped.
pub(crate) struct Watcher<'e, P: Platform> {
    engine: &'e Engine<P>,
    kinds: Kinds,
    /// The number of the next event.
    at: u64,
    /// Events that it lost and was not told of yet.
    skipped: u64,
}

impl<'e, P: Platform> Watcher<'e, P> {
    /// One of events from now on, or what its client is told instead.
    pub(super) fn new(engine: &'e Engine<P>, kinds: Kinds) -> Result<Self, &'static [u8]> {
        if !engine.store.open_events() {
            return Err(FAILED);
        }
        let at = engine.store.next_event();
        if !engine.add_watcher(kinds) {
            return Err(TOO_MANY);
        }
        Ok(Self {
            engine,
            kinds,
            at,
            skipped: 0,
        })
    }

    /// Writes what there is, as far as there is room; whether that is all for now.
    pub(super) fn run(&mut self, out: &mut impl Out) -> bool {
        let engine = self.engine;
        for _ in 0..LOOKS {
            if out.room() < REPLY_HEADER_MAX {
                return false;
            }
            match engine.store.read_event(&mut self.at) {
                NextEvent::None => return true,
                NextEvent::Lost(lost) => {
                    self.skipped = self.skipped.add_exact(lost);
                    engine.tally(EngineCounter::EventsSkipped, lost);
                }
                NextEvent::Event(logged) => {
                    if !self.kinds.any(kinds(logged.event.kind)) {
                        continue;
                    }
                    if self.skipped != 0 {
                        out.put(b"skipped=");
                        out.put_decimal(self.skipped);
                        out.put(b"\n");
                        self.skipped = 0;
                    }
                    put_event(out, &logged);
                    engine.tally(EngineCounter::EventsSent, 1);
                }
            }
        }
        false
    }
}

impl<P: Platform> Drop for Watcher<'_, P> {
    fn drop(&mut self) {
        self.engine.remove_watcher(self.kinds);
    }
}

/// What watches an event.
fn kinds(of: u8) -> Kinds {
    match of {
        Event::EVICTION => Kinds::EVICTIONS,
        kind::GET => Kinds::FETCHERS,
        kind::STORE => Kinds::MUTATIONS,
        kind::DELETE => Kinds::DELETIONS,
        _ => Kinds::CONNECTIONS,
    }
}
