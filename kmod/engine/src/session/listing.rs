// SPDX-License-Identifier: GPL-2.0-only
//! Replies of many lines: statistics and dumps.
//!
//! A listing is written as far as it fits and continues where it stopped. Statistics are generated again each time,
//! starting with the slab class or socket that was begun, and the lines that were written already are skipped.

use hippos_invariant::Exact;
use hippos_proto::reply::{self, Out};
use hippos_store::{Item, Platform, Walk, WalkStep};

use crate::reply::binary::BinaryRequest;
use crate::reply::uri::put_uri;
use crate::reply::REPLY_HEADER_MAX;
use crate::session::lines::Lines;
use crate::Engine;

/// A reply of many lines, in progress.
pub(crate) struct Listing<'e, P: Platform> {
    what: What<'e, P>,
    /// Lines that were written.
    lines_done: u32,
    /// The binary request that it answers.
    request: Option<BinaryRequest>,
}

enum What<'e, P: Platform> {
    Nothing,
    Stats(Option<Summands>),
    Settings,
    Items(ClassResume),
    Slabs(ClassResume),
    Sizes,
    Connections(Resume),
    Detail,
    Passes,
    Cpus,
    Latency,
    Metadump(Walk<'e, P>),
    Mgdump(Walk<'e, P>),
    Cachedump(Walk<'e, P>, u32),
}

/// The counters that the sums of `stats` are computed from.
#[derive(Clone, Copy)]
pub(super) struct Summands {
    pub(super) get_hits: u64,
    pub(super) touch_hits: u64,
    pub(super) get_misses: u64,
    pub(super) touch_misses: u64,
}

/// Where statistics of slab classes continue.
#[derive(Clone, Copy, Default)]
pub(super) struct ClassResume {
    /// The class, counted from 0.
    pub(super) class: usize,
    /// Some of its lines were written.
    pub(super) begun: bool,
    /// How many of the classes so far have slabs.
    pub(super) active: u64,
    /// How many slabs these have.
    pub(super) slabs: u64,
}

impl ClassResume {
    /// All lines of the class are written.
    pub(super) fn next<O>(&mut self, lines: &mut Lines<'_, O>) {
        if self.begun {
            lines.checkpoint();
        }
        self.begun = false;
        self.class = self.class.add_exact(1);
    }
}

/// Where `stats conns` continues.
#[derive(Clone, Copy, Default)]
pub(super) struct Resume {
    /// At the socket in this place, or the next one.
    pub(super) place: usize,
    /// The socket of which some lines were written.
    pub(super) begun: Option<u32>,
}

/// The slab classes of a dump: bit i for class i, counted from 0.
#[derive(Clone, Copy)]
pub(crate) struct Classes(pub(crate) u64);

impl Classes {
    pub(crate) const ALL: Self = Self(u64::MAX);
}

impl<'e, P: Platform> Listing<'e, P> {
    fn new(what: What<'e, P>) -> Self {
        Self {
            what,
            lines_done: 0,
            request: None,
        }
    }

    /// Only the end line.
    pub(super) fn nothing() -> Self {
        Self::new(What::Nothing)
    }

    /// `stats`.
    pub(super) fn stats() -> Self {
        Self::new(What::Stats(None))
    }

    /// `stats settings`.
    pub(super) fn settings() -> Self {
        Self::new(What::Settings)
    }

    /// `stats conns`.
    pub(super) fn connections() -> Self {
        Self::new(What::Connections(Resume::default()))
    }

    /// `stats detail dump`.
    pub(super) fn detail() -> Self {
        Self::new(What::Detail)
    }

    /// Statistics by name.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Some(Self::new(match name {
            b"items" => What::Items(ClassResume::default()),
            b"slabs" => What::Slabs(ClassResume::default()),
            b"sizes" => What::Sizes,
            b"hippos_pass" => What::Passes,
            b"hippos_cpus" => What::Cpus,
            b"hippos_latency" => What::Latency,
            _ => return None,
        }))
    }

    /// `lru_crawler metadump`.
    pub(super) fn metadump(engine: &'e Engine<P>, classes: Classes) -> Self {
        Self::new(What::Metadump(engine.store.walk_classes(classes.0)))
    }

    /// `lru_crawler mgdump`.
    pub(super) fn mgdump(engine: &'e Engine<P>, classes: Classes) -> Self {
        Self::new(What::Mgdump(engine.store.walk_classes(classes.0)))
    }

    /// `stats cachedump`, at most `limit` items.
    pub(super) fn cachedump(engine: &'e Engine<P>, classes: Classes, limit: u32) -> Self {
        if classes.0 == 0 {
            return Self::nothing();
        }
        Self::new(What::Cachedump(engine.store.walk_classes(classes.0), limit))
    }

    /// The listing in reply to a binary request.
    pub(super) fn binary(mut self, request: BinaryRequest) -> Self {
        self.request = Some(request);
        self
    }

    /// Writes the lines that fit; `false` if there are more.
    pub(super) fn run(&mut self, engine: &'e Engine<P>, out: &mut impl Out) -> bool {
        let mut lines = Lines {
            request: self.request,
            skip: self.lines_done,
            lines_done: 0,
            full: false,
            out,
        };
        match &mut self.what {
            What::Nothing => {}
            What::Stats(summands) => engine.stats(&mut lines, summands),
            What::Settings => engine.stats_settings(&mut lines),
            What::Items(resume) => engine.stats_items(&mut lines, resume),
            What::Slabs(resume) => engine.stats_slabs(&mut lines, resume),
            What::Sizes => lines.stat("sizes_status", format_args!("disabled")),
            What::Connections(cursor) => engine.stats_connections(&mut lines, cursor),
            What::Detail => engine.stats_detail(&mut lines),
            What::Passes => engine.stats_passes(&mut lines),
            What::Cpus => engine.stats_cpus(&mut lines),
            What::Latency => engine.stats_latency(&mut lines),
            What::Metadump(walk) => {
                let more = dump(engine, walk, lines.out, |item, out| {
                    put_metadump(engine, item, out);
                    true
                });
                return !more && finish(lines.out, reply::END);
            }
            What::Mgdump(walk) => {
                let more = dump(engine, walk, lines.out, |item, out| {
                    put_mgdump(engine, item, out);
                    true
                });
                return !more && finish(lines.out, reply::EN);
            }
            What::Cachedump(walk, left) => {
                let more = dump(engine, walk, lines.out, |item, out| {
                    let Some(rest) = left.checked_sub(1) else {
                        return false;
                    };
                    *left = rest;
                    put_cachedump(engine, item, out);
                    true
                });
                return !more && finish(lines.out, reply::END);
            }
        }
        self.lines_done = lines.lines_done;
        if lines.full {
            return false;
        }
        match self.request {
            Some(request) => request.stat(lines.out, &[], &[]),
            None => lines.out.put(reply::END),
        }
        true
    }
}

fn finish(out: &mut impl Out, line: &[u8]) -> bool {
    out.put(line);
    true
}

/// Sections after which other clients get a turn, even if no line was written yet.
const SECTIONS: usize = 64;

/// Writes the items that fit, for a limited time; `false` when the walk is over.
fn dump<'e, P: Platform, O: Out>(
    engine: &'e Engine<P>,
    walk: &mut Walk<'e, P>,
    out: &mut O,
    mut tell: impl FnMut(&Item<'_>, &mut O) -> bool,
) -> bool {
    for _ in 0..SECTIONS {
        let guard = engine.store.read();
        loop {
            if out.room() < REPLY_HEADER_MAX {
                return true;
            }
            match walk.next(&guard) {
                WalkStep::Item(item) => {
                    if !tell(&item, out) {
                        return false;
                    }
                }
                WalkStep::Pause => break,
                WalkStep::End => return false,
            }
        }
        drop(guard);
        engine.store.platform().cond_resched();
    }
    true
}

fn put_metadump<P: Platform>(engine: &Engine<P>, item: &Item<'_>, out: &mut impl Out) {
    let seen = engine.store.snapshot_of(item);
    let now = u64::try_from(engine.store.unix_of(item)).unwrap_or(0);
    out.put(b"key=");
    put_uri(out, item.key());
    out.put(b" exp=");
    match seen.ttl() {
        Some(ttl) => out.put_decimal(now.saturating_add(u64::from(ttl))),
        None => out.put(b"-1"),
    }
    out.put(b" la=");
    out.put_decimal(now.saturating_sub(u64::from(seen.idle())));
    out.put(b" cas=");
    out.put_decimal(seen.cas());
    out.put(if seen.fetched() {
        b" fetch=yes cls="
    } else {
        b" fetch=no cls="
    });
    out.put_decimal(item.class().add_exact(1) as u64);
    out.put(b" size=");
    out.put_decimal(item.size() as u64);
    out.put(b" flags=");
    out.put_decimal(u64::from(item.flags()));
    out.put(b"\n");
}

fn put_mgdump<P: Platform>(engine: &Engine<P>, item: &Item<'_>, out: &mut impl Out) {
    out.put(b"mg ");
    if engine.store.snapshot_of(item).binary_key() {
        out.put_base64(item.key());
        out.put(b" b");
    } else {
        out.put(item.key());
    }
    out.put(reply::CRLF);
}

fn put_cachedump<P: Platform>(engine: &Engine<P>, item: &Item<'_>, out: &mut impl Out) {
    let now = u64::try_from(engine.store.unix_of(item)).unwrap_or(0);
    out.put(b"ITEM ");
    out.put(item.key());
    out.put(b" [");
    out.put_decimal(item.value().len() as u64);
    out.put(b" b; ");
    out.put_decimal(match engine.store.snapshot_of(item).ttl() {
        Some(ttl) => now.saturating_add(u64::from(ttl)),
        None => 0,
    });
    out.put(b" s]\r\n");
}
