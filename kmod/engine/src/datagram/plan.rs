// SPDX-License-Identifier: GPL-2.0-only
//! The UDP fast path in two phases, for softirq.
//!
//! Phase 1, [`Engine::plan`], parses a datagram, looks up all its keys and records the parts of the reply. Phase 2,
//! [`Plan::write`], does not read the request any more, so that it may overwrite it. Neither phase sleeps, locks or
//! allocates. A datagram that the fast path does not serve is left untouched for a [`Session`](crate::Session) in
//! process context.

use heapless::Vec;
use hippos_invariant::Exact;
use hippos_proto::binary::{self, op, Response, Status};
use hippos_proto::reply::{self, Cursor, Out};
use hippos_proto::text::{self, TextRequest};
use hippos_proto::token::{self, Words};
use hippos_proto::udp::{self, Frame, DATA_MAX, FRAME};
use hippos_proto::{meta, KEY_MAX};
use hippos_store::{Guard, Hash, Inspected, Item, Platform};

use crate::counters::EngineCounter;
use crate::reply::check_len;
use crate::reply::meta::{hit_line, miss_line, MetaHit};
use crate::reply::text::{put_value, value_len};
use crate::Engine;

/// The most parts of a reply of the fast path: one for each value or line.
pub const PIECES: usize = 64;

/// Bytes for lines that contain parts of the request.
const SCRATCH: usize = 512;

/// How many keys are looked up interleaved.
const BATCH: usize = 16;

/// The result of planning a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanOutcome {
    /// The plan holds the reply.
    Answer,
    /// It was served and needs no reply.
    Silent,
    /// It is not a request: the socket counts it and does not reply, if it is meant for that socket.
    Invalid,
    /// The fast path does not serve it: the UDP socket's worker does.
    Pass,
}

/// A part of the plan's scratch buffer.
#[derive(Clone, Copy)]
struct Span {
    start: u16,
    len: u16,
}

#[derive(Clone, Copy)]
enum Piece<'g> {
    /// `VALUE key flags bytes`, value, line end.
    Text(Item<'g>),
    /// The same with the CAS value, which is read once.
    TextCas(Item<'g>, u64),
    /// A header from the scratch buffer, value, line end.
    Meta(Item<'g>, MetaLine),
    /// Only a header from the scratch buffer.
    MetaHead(Item<'g>, MetaLine),
    /// A binary response.
    Binary(Item<'g>, BinaryHead),
    /// Bytes from the scratch buffer.
    Scratch(Span),
    /// A fixed line.
    Line(&'static [u8]),
}

/// The first line of a reply to `mg`, in the scratch buffer.
#[derive(Clone, Copy)]
struct MetaLine {
    text: Span,
    /// Whether the hit is recorded in the item: not with `u`.
    marks: bool,
}

/// The parts of the request that a binary response has, and the item's CAS value, which is read once.
#[derive(Clone, Copy)]
struct BinaryHead {
    cas: u64,
    opaque: u32,
    /// Determines whether the response has the key.
    opcode: u8,
}

impl<'g> Piece<'g> {
    /// The item that was hit.
    #[inline]
    fn item(&self) -> Option<&Item<'g>> {
        match self {
            Self::Text(item)
            | Self::TextCas(item, _)
            | Self::Meta(item, _)
            | Self::MetaHead(item, _)
            | Self::Binary(item, ..) => Some(item),
            Self::Scratch(_) | Self::Line(_) => None,
        }
    }

    /// The item in which the hit is recorded.
    #[inline]
    fn marked_item(&self) -> Option<&Item<'g>> {
        match self {
            Self::Meta(_, line) | Self::MetaHead(_, line) if !line.marks => None,
            other => other.item(),
        }
    }
}

/// The reply to one datagram, found but not yet written.
pub struct Plan<'p, 'g> {
    pieces: &'p mut Vec<Piece<'g>, PIECES>,
    scratch: &'p mut Vec<u8, SCRATCH>,
    id: u16,
    len: usize,
    lookups: LookupCounts,
}

impl<'g> Plan<'_, 'g> {
    /// Makes an empty plan on the stack and calls `serve` with it.
    ///
    /// Its buffers are not initialised. As fields of one structure they would be, by some compilers that the kernel is
    /// built with.
    #[inline]
    pub fn with<R>(serve: impl FnOnce(&mut Plan<'_, 'g>) -> R) -> R {
        let mut pieces = Vec::new();
        let mut scratch = Vec::new();
        serve(&mut Plan {
            pieces: &mut pieces,
            scratch: &mut scratch,
            id: 0,
            len: 0,
            lookups: LookupCounts::default(),
        })
    }

    /// Reply bytes in total, without frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no reply.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of datagrams of the reply.
    #[inline]
    pub fn datagrams(&self) -> u16 {
        if self.len <= DATA_MAX {
            return 1;
        }
        u16::try_from(udp::datagrams(self.len)).unwrap_or(u16::MAX)
    }

    /// Bytes of all datagrams, frames included.
    #[inline]
    pub(crate) fn datagrams_len(&self) -> usize {
        self.len
            .add_exact(usize::from(self.datagrams()).mul_exact(FRAME))
    }

    /// Bytes of datagram `index`, frame included.
    #[inline]
    pub fn datagram_len(&self, index: u16) -> usize {
        let before = usize::from(index).mul_exact(DATA_MAX);
        FRAME.add_exact(self.len.saturating_sub(before).min(DATA_MAX))
    }

    /// Writes datagram `index`, frame included, to the start of `buffer`, which has
    /// [`datagram_len`](Self::datagram_len) bytes. Returns how many bytes it wrote.
    #[inline]
    pub fn write(&self, index: u16, buffer: &mut [u8]) -> usize {
        let mut out = Cursor::new(buffer);
        let datagrams = self.datagrams();
        out.put(&udp::reply_frame(self.id, index, datagrams));
        if datagrams == 1 {
            for piece in self.pieces.iter() {
                self.put(piece, &mut out);
            }
        } else {
            self.write_part(index, &mut out);
        }
        check_len(out.len(), || self.datagram_len(index));
        out.len()
    }

    /// Writes the part of the reply that belongs to datagram `index`.
    fn write_part(&self, index: u16, out: &mut Cursor<'_>) {
        let start = usize::from(index).mul_exact(DATA_MAX);
        let end = start.add_exact(DATA_MAX);
        let mut from = 0usize;
        for piece in self.pieces.iter() {
            let to = from.add_exact(piece_len(piece));
            if start <= from && to <= end {
                self.put(piece, out);
            } else if start < to && from < end {
                // Only a part of the piece belongs to this datagram.
                let mut window = Window {
                    skip: start.saturating_sub(from),
                    left: end.sub_exact(start.max(from)),
                    out,
                };
                self.put(piece, &mut window);
            } else if from >= end {
                break;
            }
            from = to;
        }
    }

    #[inline]
    fn put(&self, piece: &Piece<'g>, out: &mut impl Out) {
        match *piece {
            Piece::Text(item) => put_value(out, &item, None),
            Piece::TextCas(item, cas) => put_value(out, &item, Some(cas)),
            Piece::Meta(item, line) => {
                out.put(self.span(line.text));
                out.put(item.value());
                out.put(reply::CRLF);
            }
            Piece::Binary(item, head) => put_binary(out, &item, &head),
            Piece::MetaHead(_, line) => out.put(self.span(line.text)),
            Piece::Scratch(span) => out.put(self.span(span)),
            Piece::Line(line) => out.put(line),
        }
    }

    #[inline]
    fn span(&self, span: Span) -> &[u8] {
        let from = self.scratch.get(usize::from(span.start)..).unwrap_or(&[]);
        from.get(..usize::from(span.len)).unwrap_or(&[])
    }

    #[inline]
    fn reset(&mut self, id: u16) {
        self.pieces.clear();
        self.scratch.clear();
        self.id = id;
        self.len = 0;
        self.lookups = LookupCounts::default();
    }

    /// Adds a piece of `len` bytes; `false` if the plan is full.
    #[inline(never)]
    fn push(&mut self, piece: Piece<'g>, len: usize) -> bool {
        self.len = self.len.add_exact(len);
        self.pieces.push(piece).is_ok()
    }

    /// Writes to the scratch buffer; `None` if it is full.
    fn push_scratch(&mut self, write: impl FnOnce(&mut Scratch<'_>)) -> Option<Span> {
        let start = self.scratch.len();
        let mut scratch = Scratch {
            buffer: self.scratch,
            lost: false,
        };
        write(&mut scratch);
        if scratch.lost {
            return None;
        }
        let len = self.scratch.len().sub_exact(start);
        Some(Span {
            start: u16::try_from(start).ok()?,
            len: u16::try_from(len).ok()?,
        })
    }
}

/// The scratch buffer as a sink.
struct Scratch<'a> {
    buffer: &'a mut Vec<u8, SCRATCH>,
    lost: bool,
}

impl Out for Scratch<'_> {
    fn room(&self) -> usize {
        SCRATCH.sub_exact(self.buffer.len())
    }

    fn put(&mut self, bytes: &[u8]) {
        self.lost |= self.buffer.extend_from_slice(bytes).is_err();
    }
}

/// Passes on only the bytes that belong to one datagram.
struct Window<'a, O> {
    out: &'a mut O,
    /// Bytes before the datagram's, still to be skipped.
    skip: usize,
    /// Bytes still to be passed on.
    left: usize,
}

impl<O: Out> Out for Window<'_, O> {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn put(&mut self, bytes: &[u8]) {
        match bytes.get(self.skip..) {
            Some(rest) => {
                self.skip = 0;
                let part = rest.get(..self.left).unwrap_or(rest);
                self.left = self.left.sub_exact(part.len());
                self.out.put(part);
            }
            None => self.skip = self.skip.sub_exact(bytes.len()),
        }
    }
}

/// The piece that answers a key of `get`, or of `gets` if `cas`, and its length.
#[inline]
fn text_piece<'g>(item: Item<'g>, cas: bool) -> (Piece<'g>, usize) {
    if cas {
        let cas = item.cas();
        (Piece::TextCas(item, cas), value_len(&item, Some(cas)))
    } else {
        (Piece::Text(item), value_len(&item, None))
    }
}

/// The length of a piece when it is written.
fn piece_len(piece: &Piece<'_>) -> usize {
    match piece {
        Piece::Text(item) => value_len(item, None),
        Piece::TextCas(item, cas) => value_len(item, Some(*cas)),
        Piece::Meta(item, line) => usize::from(line.text.len)
            .add_exact(item.value().len())
            .add_exact(reply::CRLF.len()),
        Piece::Binary(item, head) => binary_len(item, head.opcode),
        Piece::MetaHead(_, line) => usize::from(line.text.len),
        Piece::Scratch(span) => usize::from(span.len),
        Piece::Line(line) => line.len(),
    }
}

/// The number of bytes that [`put_binary`] writes.
fn binary_len(item: &Item<'_>, opcode: u8) -> usize {
    binary::HEADER
        .add_exact(EXTRAS)
        .add_exact(binary_key(item, opcode).len())
        .add_exact(item.value().len())
}

/// The key in a binary response, if the opcode requests it.
#[inline]
fn binary_key<'g>(item: &Item<'g>, opcode: u8) -> &'g [u8] {
    match opcode {
        op::GETK | op::GETKQ => item.key(),
        _ => &[],
    }
}

/// Bytes of flags in a binary response.
const EXTRAS: usize = 4;

fn put_binary(out: &mut impl Out, item: &Item<'_>, of: &BinaryHead) {
    let key = binary_key(item, of.opcode);
    let body = EXTRAS.add_exact(key.len()).add_exact(item.value().len());
    let head = Response {
        opcode: of.opcode,
        status: Status::Success,
        key: key.len() as u16,
        extras: EXTRAS as u8,
        body: body as u32,
        opaque: of.opaque,
        cas: of.cas,
    };
    out.put(&head.to_bytes());
    out.put(&item.flags().to_be_bytes());
    out.put(key);
    out.put(item.value());
}

/// The counts of the lookups so far.
#[derive(Default)]
struct LookupCounts {
    commands: u32,
    misses: u32,
}

impl<P: Platform> Engine<P> {
    /// Phase 1: parses `payload`, a UDP payload with its frame, and fills `plan` with the reply.
    ///
    /// Softirq-safe. It changes no item, so that the next receive path does not find marks of a read that was not
    /// answered. The caller that sends the reply, or has none to send, calls [`count_plan`](Self::count_plan).
    #[inline]
    pub fn plan<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        payload: &[u8],
        most: usize,
        plan: &mut Plan<'_, 'g>,
    ) -> PlanOutcome {
        let Some((frame, data)) = Frame::parse(payload) else {
            return self.invalid();
        };
        if frame.total != 1 {
            return self.invalid();
        }
        plan.reset(frame.id);
        let gets = match data {
            [b'g', b'e', b't', b' ', keys @ ..] => Some((keys, false)),
            [b'g', b'e', b't', b's', b' ', keys @ ..] => Some((keys, true)),
            _ => None,
        };
        if let Some((keys, cas)) = gets {
            if let Some(verdict) = self.plan_gets(guard, keys, cas, most, plan) {
                return verdict;
            }
            plan.reset(frame.id);
        }
        self.plan_any(guard, data, most, plan)
    }

    /// `get` or `gets` of plain keys and nothing else: words separated by single spaces, the line end, and the end of
    /// the datagram. `None` if the datagram has another form; nothing is counted then.
    fn plan_gets<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        keys: &[u8],
        cas: bool,
        most: usize,
        plan: &mut Plan<'_, 'g>,
    ) -> Option<PlanOutcome> {
        if self.needs_slow_get() {
            return None;
        }
        let mut misses = 0u32;
        let mut rest = keys;
        if rest == b"\r\n" {
            return None;
        }
        while rest != b"\r\n" {
            let mut batch: Vec<(&[u8], Hash), BATCH> = Vec::new();
            while !batch.is_full() && rest != b"\r\n" {
                let (key, more) = rest.split_at_checked(token::plain_len(rest))?;
                if key.is_empty() || key.len() > KEY_MAX {
                    return None;
                }
                rest = match more {
                    [b' ', more @ ..] if more != b"\r\n" => more,
                    b"\r\n" => more,
                    _ => return None,
                };
                let hash = self.store.hash(key);
                self.store.prefetch(hash);
                let _ = batch.push((key, hash));
            }
            for &(_, hash) in &batch {
                self.store.prefetch_item(guard, hash);
            }
            for &(key, hash) in &batch {
                let Some(item) = self.store.peek(guard, key, hash) else {
                    misses = misses.add_exact(1);
                    continue;
                };
                let (piece, len) = text_piece(item, cas);
                if !plan.push(piece, len) {
                    return Some(PlanOutcome::Pass);
                }
            }
        }
        if !plan.push(Piece::Line(reply::END), reply::END.len()) || !self.fits(plan, most) {
            return Some(PlanOutcome::Pass);
        }
        plan.lookups = LookupCounts {
            commands: 1,
            misses,
        };
        Some(PlanOutcome::Answer)
    }

    /// Whether the fast path may send the reply, in `most` bytes with its frame.
    #[inline]
    fn fits(&self, plan: &Plan<'_, '_>, most: usize) -> bool {
        plan.len <= self.fast_bytes() && FRAME.add_exact(plan.len) <= most
    }

    /// Counts a datagram that [`plan`](Self::plan) has answered, or that needs no reply, and records its hits. Called
    /// once the reply has its buffer, because otherwise the next receive path serves and counts the request.
    #[inline]
    pub fn count_plan(&self, plan: &Plan<'_, '_>) {
        for item in plan.pieces.iter().filter_map(Piece::marked_item) {
            self.store.bump(item);
        }
        self.count_items(plan.pieces.iter().filter_map(Piece::item));
        self.miss(plan.lookups.misses);
        self.tally(EngineCounter::FastDatagrams, 1);
        self.tally(
            EngineCounter::FastCommands,
            u64::from(plan.lookups.commands),
        );
    }

    /// Not counted: the last receive path counts it.
    #[cold]
    fn invalid(&self) -> PlanOutcome {
        PlanOutcome::Invalid
    }

    /// Any number of commands, if the fast path serves all of them.
    #[inline(never)]
    fn plan_any<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        data: &[u8],
        most: usize,
        plan: &mut Plan<'_, 'g>,
    ) -> PlanOutcome {
        if udp::is_reply(data) {
            return self.invalid();
        }
        if self.needs_slow_get() {
            return PlanOutcome::Pass;
        }
        let mut lookups = LookupCounts::default();
        let served = if data.first() == Some(&binary::REQUEST) {
            self.plan_binary(guard, data, plan, &mut lookups)
        } else {
            self.plan_lines(guard, data, plan, &mut lookups)
        };
        if !served || !self.fits(plan, most) {
            return PlanOutcome::Pass;
        }
        if lookups.commands == 0 {
            return self.invalid();
        }
        plan.lookups = lookups;
        if plan.is_empty() {
            PlanOutcome::Silent
        } else {
            PlanOutcome::Answer
        }
    }

    /// Text and meta commands; `false` if the fast path does not serve one of them.
    fn plan_lines<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        data: &[u8],
        plan: &mut Plan<'_, 'g>,
        lookups: &mut LookupCounts,
    ) -> bool {
        let mut rest = data;
        while let Some(line) = token::line(rest) {
            rest = rest.get(line.consumed..).unwrap_or(&[]);
            lookups.commands = lookups.commands.add_exact(1);
            let served = match text::parse(line.text) {
                TextRequest::Get(get) if get.touch.is_none() => {
                    self.plan_keys(guard, get.keys, get.cas, plan, lookups)
                }
                TextRequest::Meta(tokens) if tokens.at(0) == b"mg" => {
                    match meta::Command::parse(tokens) {
                        Ok(command) => self.plan_meta(guard, &command, plan, lookups),
                        Err(_) => false,
                    }
                }
                TextRequest::Noop => plan.push(Piece::Line(reply::MN), reply::MN.len()),
                _ => false,
            };
            if !served {
                return false;
            }
        }
        true
    }

    /// Looks keys up in batches: prefetches all buckets first, then all items.
    fn plan_keys<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        mut keys: Words<'_>,
        cas: bool,
        plan: &mut Plan<'_, 'g>,
        lookups: &mut LookupCounts,
    ) -> bool {
        loop {
            let mut batch: Vec<(&[u8], Hash), BATCH> = Vec::new();
            while !batch.is_full() {
                let Some(key) = keys.next() else { break };
                if key.len() > KEY_MAX {
                    return false;
                }
                let hash = self.store.hash(key);
                self.store.prefetch(hash);
                let _ = batch.push((key, hash));
            }
            for &(_, hash) in &batch {
                self.store.prefetch_item(guard, hash);
            }
            for &(key, hash) in &batch {
                match self.store.peek(guard, key, hash) {
                    Some(item) => {
                        let (piece, len) = text_piece(item, cas);
                        if !plan.push(piece, len) {
                            return false;
                        }
                    }
                    None => lookups.misses = lookups.misses.add_exact(1),
                }
            }
            if !batch.is_full() {
                return plan.push(Piece::Line(reply::END), reply::END.len());
            }
        }
    }

    /// `mg`, unless it changes the item.
    fn plan_meta<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        command: &meta::Command<'_>,
        plan: &mut Plan<'_, 'g>,
        lookups: &mut LookupCounts,
    ) -> bool {
        if command.flags.writes() {
            return false;
        }
        let hash = self.store.hash(command.key());
        let (item, seen) = match self.store.try_inspect(guard, command.key(), hash) {
            Inspected::Hit(item, seen) => (item, seen),
            Inspected::Miss => {
                lookups.misses = lookups.misses.add_exact(1);
                if command.flags.quiet() {
                    return true;
                }
                let Some(line) = plan.push_scratch(|out| miss_line(out, command)) else {
                    return false;
                };
                return plan.push(Piece::Scratch(line), usize::from(line.len));
            }
            Inspected::Changing => return false,
        };
        // The token is given out under the stripe's lock, which needs process context.
        if seen.stale() && !seen.token_sent() {
            return false;
        }
        // A read of the same datagram shows, but is recorded only when the reply is sent.
        if command.flags.shows_reads() {
            let mut read = plan.pieces.iter().filter_map(Piece::marked_item);
            if read.any(|read| core::ptr::eq(read.key(), item.key())) {
                return false;
            }
        }
        let value = item.value().len().add_exact(reply::CRLF.len());
        let hit = MetaHit::of(command, &item, seen);
        if hit.value && value.add_exact(SCRATCH) > self.fast_bytes() {
            return false;
        }
        let Some(line) = plan.push_scratch(|out| hit_line(out, command, &hit, item.value())) else {
            return false;
        };
        let head = usize::from(line.len);
        let line = MetaLine {
            text: line,
            marks: !command.flags.has(b'u'),
        };
        if hit.value {
            plan.push(Piece::Meta(item, line), head.add_exact(value))
        } else {
            plan.push(Piece::MetaHead(item, line), head)
        }
    }

    /// Binary get requests and no-ops; `false` if there is any other.
    fn plan_binary<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        data: &[u8],
        plan: &mut Plan<'_, 'g>,
        lookups: &mut LookupCounts,
    ) -> bool {
        let mut rest = data;
        while let Some(head) = binary::Header::parse(rest) {
            let body = rest.get(binary::HEADER..).unwrap_or(&[]);
            let len = usize::from(head.key);
            let quiet = binary::non_quiet(head.opcode).is_some();
            let named = matches!(head.opcode, op::GETK | op::GETKQ);
            let shape = match head.opcode {
                op::GET | op::GETQ | op::GETK | op::GETKQ => (1..=KEY_MAX).contains(&len),
                op::NOOP => len == 0,
                _ => false,
            };
            let Some((key, more)) = body.split_at_checked(len) else {
                return false;
            };
            let plain = head.extras == 0 && head.body as usize == len;
            if !shape || !plain || head.magic != binary::REQUEST {
                return false;
            }
            rest = more;
            lookups.commands = lookups.commands.add_exact(1);
            let mut response = Response {
                opcode: head.opcode,
                status: Status::Success,
                key: 0,
                extras: 0,
                body: 0,
                opaque: head.opaque,
                cas: 0,
            };
            let mut tail = &[][..];
            if head.opcode != op::NOOP {
                let hash = self.store.hash(key);
                if let Some(item) = self.store.peek(guard, key, hash) {
                    let len = binary_len(&item, head.opcode);
                    let of = BinaryHead {
                        cas: item.cas(),
                        opaque: head.opaque,
                        opcode: head.opcode,
                    };
                    if !plan.push(Piece::Binary(item, of), len) {
                        return false;
                    }
                    continue;
                }
                lookups.misses = lookups.misses.add_exact(1);
                if quiet {
                    continue;
                }
                response.status = Status::NotFound;
                if named {
                    response.key = head.key;
                    tail = key;
                } else {
                    tail = Status::NotFound.text();
                }
                response.body = tail.len() as u32;
            }
            let note = plan.push_scratch(|out| {
                out.put(&response.to_bytes());
                out.put(tail);
            });
            let Some(span) = note else { return false };
            if !plan.push(Piece::Scratch(span), usize::from(span.len)) {
                return false;
            }
        }
        true
    }
}
