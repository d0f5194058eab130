// SPDX-License-Identifier: GPL-2.0-only
//! A client that watches: it reads the store's log at its own speed.
//!
//! It has no memory of its own except its connection's; events that the log overwrites before they are sent are lost,
//! and the client receives their number.

use hippos_invariant::{invariant, Exact};
use hippos_proto::reply::Out;
use hippos_store::{NextEvent, Platform};

use crate::counters::EngineCounter;
use crate::reply::event::{put_event, EventKind};
use crate::reply::REPLY_HEADER_MAX;
use crate::watchers::Kinds;
use crate::Engine;

const TOO_MANY: &[u8] = b"WATCHER_TOO_MANY log watcher limit reached\r\n";
const FAILED: &[u8] = b"WATCHER_FAILED failed to add log watcher\r\n";

/// Events that are looked at before other clients get a turn.
const LOOKS: usize = 1024;

/// A client that watches. Dropping it ends the watch.
pub(crate) struct Watcher<'e, P: Platform> {
    engine: &'e Engine<P>,
    kinds: Kinds,
    /// The number of the next event.
    at: u64,
    /// Events that it lost and that were not reported yet.
    skipped: u64,
}

impl<'e, P: Platform> Watcher<'e, P> {
    /// A watcher of events from now on, or the error reply for its client.
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

    /// Writes the events that fit; whether these are all for now.
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
                    let kind = EventKind::of(&logged.event);
                    invariant!(kind.is_some(), "an event of no kind: {:?}", logged.event);
                    let Some(kind) = kind.filter(|kind| self.kinds.any(kinds(*kind))) else {
                        continue;
                    };
                    if self.skipped != 0 {
                        out.put(b"skipped=");
                        out.put_decimal(self.skipped);
                        out.put(b"\n");
                        self.skipped = 0;
                    }
                    put_event(out, kind, &logged);
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

/// The kinds of watchers that receive an event.
fn kinds(of: EventKind) -> Kinds {
    match of {
        EventKind::Eviction => Kinds::EVICTIONS,
        EventKind::Get => Kinds::FETCHERS,
        EventKind::Store => Kinds::MUTATIONS,
        EventKind::Delete => Kinds::DELETIONS,
        EventKind::Connect | EventKind::Close => Kinds::CONNECTIONS,
    }
}
