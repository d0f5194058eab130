// SPDX-License-Identifier: GPL-2.0-only
//! Meta commands on the store: what `mg`, `ms`, `md`, `ma` and `me` do and say.

use heapless::Vec;
use hippos_proto::meta::{Command, Mode, Verb as Meta};
use hippos_proto::number::Decimal;
use hippos_proto::reply::{self, Out};
use hippos_proto::KEY_MAX;
use hippos_store::{
    Arith, Arithmetic, Change, ClassCounter, Commit, Counter, Deleted, Expiry, Guard, Hash,
    Invalidate, Item, ItemSnapshot, Outcome, Platform, Verb,
};

use crate::counters::Tally;
use crate::session::state::{Data, Kind, Session, State, Then};
use crate::Engine;

/// How often a store that lost a race is tried again before it gives up.
pub(crate) const TRIES: usize = 16;

/// What `mg` tells of an item.
pub(crate) struct Hit<'a> {
    key: &'a [u8],
    len: usize,
    flags: u32,
    /// As it was before this hit.
    seen: ItemSnapshot,
    /// `v`, unless `C` tells the item's CAS number: then the client has the value.
    pub(crate) value: bool,
    /// The client got the token.
    won: bool,
    /// `mg` made it just now.
    created: bool,
    times: Times,
}

/// The times that an `mg` brings.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    /// The store's clock.
    now: u32,
    /// `T`.
    touch: Option<Expiry>,
    /// `N`.
    vivify: Option<Expiry>,
    /// `R`, in seconds from now.
    recache: Option<u32>,
}

impl<'a> Hit<'a> {
    /// Of a client that changes nothing.
    pub(crate) fn of(command: &Command<'_>, item: &Item<'a>, seen: ItemSnapshot) -> Self {
        let flags = &command.flags;
        Self {
            value: flags.value() && flags.compare != Some(seen.cas()),
            key: item.key(),
            len: item.value().len(),
            flags: item.flags(),
            seen,
            won: false,
            created: false,
            times: Times::default(),
        }
    }
}

impl Times {
    /// Whether the client is to make anew what it sees so: who is told so first gets the token.
    fn wants_token(&self, command: &Command<'_>, seen: &ItemSnapshot) -> bool {
        if seen.token_sent() {
            return false;
        }
        let Some(recache) = self.recache else {
            return seen.stale();
        };
        // Flags are taken in order.
        let mut ttl = seen.ttl();
        let mut early = false;
        for word in command.words() {
            match (word.first(), self.touch, ttl) {
                (Some(b'T'), Some(expiry), _) => ttl = expiry.ttl(self.now),
                (Some(b'R'), _, Some(left)) => early = left < recache,
                _ => {}
            }
        }
        seen.stale() || early
    }
}

impl<P: Platform> Engine<P> {
    /// The times that `command` brings, on the store's clock.
    fn times(&self, command: &Command<'_>) -> Times {
        let flags = &command.flags;
        Times {
            now: self.store.now(),
            touch: flags.ttl.map(|ttl| self.store.expiry(i64::from(ttl))),
            vivify: flags.vivify.map(|ttl| self.store.expiry(i64::from(ttl))),
            recache: flags.recache.map(|ttl| self.seconds_until(ttl)),
        }
    }

    /// Looks an item up for `mg`, gives it a new time and its token to the client, as the flags
    /// ask for. Process context.
    fn meta_visit<'g>(
        &self,
        guard: &'g Guard<'_, P>,
        command: &Command<'_>,
        hash: Hash,
        times: &Times,
    ) -> Option<(Item<'g>, Hit<'g>)> {
        let store = &self.store;
        let key = command.key();
        let mut won = false;
        let found = if command.flags.writes() {
            None
        } else {
            Some(store.inspect(guard, key, hash)?)
        };
        let (item, seen) = match found {
            Some((item, seen)) if !times.wants_token(command, &seen) => (item, seen),
            _ => store.visit(guard, key, hash, |_, seen| {
                won = times.wants_token(command, seen);
                Change {
                    expiry: times.touch,
                    token: won,
                }
            })?,
        };
        if !command.flags.has(b'u') {
            store.bump(&item);
        }
        let hit = Hit {
            won,
            times: *times,
            ..Hit::of(command, &item, seen)
        };
        Some((item, hit))
    }

    /// Seconds from now until an expiry time as clients write it; 0 for never
    /// and for the past.
    fn seconds_until(&self, exptime: i32) -> u32 {
        const RELATIVE_MAX: i64 = 60 * 60 * 24 * 30;
        let exptime = i64::from(exptime);
        let seconds = if exptime <= RELATIVE_MAX {
            exptime
        } else {
            exptime.saturating_sub(self.store.unix())
        };
        u32::try_from(seconds).unwrap_or(0)
    }
}

/// Writes the status line of a hit. What the flags tell is as it is when their turn comes.
pub(crate) fn hit_line(out: &mut impl Out, command: &Command<'_>, hit: &Hit<'_>) {
    let Hit { seen, times, .. } = hit;
    let mut ttl = seen.ttl();
    if hit.value {
        out.put(b"VA ");
        out.put_decimal(hit.len as u64);
    } else {
        out.put(b"HD");
    }
    for word in command.words() {
        match word.first() {
            Some(b'T') => {
                if let Some(expiry) = times.touch {
                    ttl = expiry.ttl(times.now);
                }
            }
            Some(b'N') => {
                if let (true, Some(expiry)) = (hit.created, times.vivify) {
                    ttl = expiry.ttl(times.now);
                }
            }
            Some(b's') => {
                out.put(b" s");
                out.put_decimal(hit.len as u64);
            }
            Some(b't') => put_ttl(out, ttl),
            Some(b'c') => {
                out.put(b" c");
                out.put_decimal(seen.cas());
            }
            Some(b'f') => {
                out.put(b" f");
                out.put_decimal(u64::from(hit.flags));
            }
            Some(b'l') => {
                out.put(b" l");
                out.put_decimal(u64::from(seen.idle()));
            }
            Some(b'h') => out.put(if seen.fetched() { b" h1" } else { b" h0" }),
            Some(b'O') => put_word(out, word),
            Some(b'k') => put_key(out, hit.key, seen.binary_key()),
            _ => {}
        }
    }
    if seen.token_sent() {
        out.put(b" Z");
    }
    if seen.stale() {
        out.put(b" X");
    }
    if hit.won {
        out.put(b" W");
    }
    out.put(reply::CRLF);
}

/// Writes the line of a miss.
pub(crate) fn miss_line(out: &mut impl Out, command: &Command<'_>) {
    out.put(b"EN");
    put_returns(out, command);
    out.put(reply::CRLF);
}

/// Writes the opaque and the key, where they were asked for.
fn put_returns(out: &mut impl Out, command: &Command<'_>) {
    for word in command.words() {
        match word.first() {
            Some(b'O') => put_word(out, word),
            Some(b'k') => put_key(out, command.key(), command.flags.has(b'b')),
            _ => {}
        }
    }
}

fn put_word(out: &mut impl Out, word: &[u8]) {
    out.put(b" ");
    out.put(word);
}

fn put_ttl(out: &mut impl Out, ttl: Option<u32>) {
    match ttl {
        Some(ttl) => {
            out.put(b" t");
            out.put_decimal(u64::from(ttl));
        }
        None => out.put(b" t-1"),
    }
}

fn put_key(out: &mut impl Out, key: &[u8], binary: bool) {
    out.put(b" k");
    if binary {
        out.put_base64(key);
        out.put(b" b");
    } else {
        out.put(key);
    }
}

/// What the reply to an `ms` needs when its value has come.
pub(crate) struct MetaSet {
    quiet: bool,
    binary: bool,
    len: u32,
    /// The letters of what is to be returned, in order, then zeroes.
    returns: [u8; 4],
    opaque: Vec<u8, 32>,
}

impl MetaSet {
    fn new(command: &Command<'_>, len: u32) -> Self {
        let mut set = Self {
            quiet: command.flags.quiet(),
            binary: command.flags.has(b'b'),
            len,
            returns: [0; 4],
            opaque: Vec::new(),
        };
        let words = command.words().iter();
        let wanted = words.filter(|word| matches!(word.first(), Some(b'O' | b'k' | b'c' | b's')));
        for (place, word) in set.returns.iter_mut().zip(wanted) {
            *place = word.first().copied().unwrap_or(0);
            if *place == b'O' {
                let _ = set.opaque.extend_from_slice(word);
            }
        }
        set
    }

    /// Whether the reply needs the key.
    pub(crate) fn wants_key(&self) -> bool {
        self.returns.contains(&b'k')
    }

    /// Whether the reply tells how long the value is.
    pub(crate) fn wants_len(&self) -> bool {
        self.returns.contains(&b's')
    }

    /// Writes the reply. `len` is the size of the value that is there now, if
    /// it isn't the one that came.
    pub(crate) fn put(&self, out: &mut impl Out, outcome: Outcome, key: &[u8], len: Option<usize>) {
        let (status, cas) = match outcome {
            Outcome::Stored { .. } if self.quiet => return,
            Outcome::Stored { cas } => (b"HD", cas),
            Outcome::NotStored => (b"NS", 0),
            Outcome::Exists => (b"EX", 0),
            Outcome::NotFound => (b"NF", 0),
        };
        out.put(status);
        for letter in &self.returns {
            match letter {
                b'O' => put_word(out, &self.opaque),
                b'k' => put_key(out, key, self.binary),
                b'c' => {
                    out.put(b" c");
                    out.put_decimal(cas);
                }
                b's' => {
                    out.put(b" s");
                    out.put_decimal(len.map_or(u64::from(self.len), |len| len as u64));
                }
                _ => {}
            }
        }
        out.put(reply::CRLF);
    }
}

impl<P: Platform> Session<'_, P> {
    /// Serves a meta command. `ms` leaves the session waiting for its value.
    pub(crate) fn meta(&mut self, command: &Command<'_>, out: &mut impl Out) {
        let hash = self.engine.store.hash(command.key());
        match command.verb {
            Meta::Get => self.meta_get(command, hash, out),
            Meta::Set { mode, len } => self.meta_set(command, hash, mode, len),
            Meta::Delete => self.meta_delete(command, hash, out),
            Meta::Arith { decrement } => self.meta_arith(command, hash, decrement, out),
            Meta::Debug => self.meta_debug(command, hash, out),
        }
    }

    fn meta_get(&mut self, command: &Command<'_>, hash: Hash, out: &mut impl Out) {
        let engine = self.engine;
        let flags = &command.flags;
        let times = engine.times(command);
        for _ in 0..TRIES {
            {
                let guard = engine.store.read();
                if let Some((item, hit)) = engine.meta_visit(&guard, command, hash, &times) {
                    engine.meta_hit(command, item.class());
                    if hit.value {
                        let head = |out: &mut _| hit_line(out, command, &hit);
                        if !self.send(&item, out, reply::CRLF, head) {
                            out.put(reply::GET_OUT_OF_MEMORY);
                        }
                    } else {
                        hit_line(out, command, &hit);
                    }
                    return;
                }
            }
            let Some(vivify) = flags.vivify else { break };
            // At once with the time to live that it ends up with: others may change it from now on.
            let (last, _) = ttls(command, vivify);
            let expiry = engine.store.expiry(i64::from(last));
            if let Some((cas, class)) = engine.vivify(command, hash, b"", expiry, true) {
                let guard = engine.store.read();
                if let Some(item) = engine.store.peek(&guard, command.key(), hash) {
                    if !flags.has(b'u') {
                        engine.store.bump(&item);
                    }
                }
                engine.meta_hit(command, class);
                let hit = Hit {
                    key: command.key(),
                    value: flags.value() && flags.compare != Some(cas),
                    len: 0,
                    flags: 0,
                    seen: ItemSnapshot::new(cas),
                    won: true,
                    created: true,
                    times,
                };
                hit_line(out, command, &hit);
                if hit.value {
                    out.put(reply::CRLF);
                }
                return;
            }
            if engine.meta_absent(command, hash) {
                // No memory: a miss like any other.
                break;
            }
        }
        engine.miss(1);
        if !flags.quiet() {
            miss_line(out, command);
        }
    }

    fn meta_set(&mut self, command: &Command<'_>, hash: Hash, mode: Mode, len: u32) {
        let store = &self.engine.store;
        let flags = &command.flags;
        let verb = match mode {
            Mode::Set => Verb::Set,
            Mode::Add => Verb::Add,
            Mode::Replace => Verb::Replace,
            Mode::Append => Verb::Append,
            Mode::Prepend => Verb::Prepend,
        };
        let vivify = matches!(verb, Verb::Append | Verb::Prepend) && flags.vivify.is_some();
        let exptime = match flags.vivify {
            Some(ttl) if vivify => ttl,
            _ => flags.ttl.unwrap_or(0),
        };
        let commit = Commit {
            verb,
            compare: flags.compare,
            new_cas: flags.cas,
            invalidate: flags.has(b'I'),
            vivify,
            binary_key: flags.has(b'b'),
            ..Commit::default()
        };
        let expiry = store.expiry(i64::from(exptime));
        let key = command.key();
        let Some(room) = self.room_for(key, hash, flags.client, expiry, len as usize) else {
            return;
        };
        match room {
            Ok(room) => {
                let kind = Kind::Meta(MetaSet::new(command, len));
                self.state = State::Data(Data::new(room, commit, kind));
            }
            Err(error) => {
                // Whatever the mode, nothing old may be taken for new.
                store.delete(key, hash, None);
                let line = self.engine.refused(error);
                self.swallow(u64::from(len).wrapping_add(2), Then::Say(line));
            }
        }
    }

    fn meta_delete(&mut self, command: &Command<'_>, hash: Hash, out: &mut impl Out) {
        let engine = self.engine;
        let flags = &command.flags;
        let outcome = if flags.has(b'x') {
            engine.meta_tombstone(command, hash)
        } else if flags.has(b'I') {
            let how = Invalidate {
                compare: flags.compare,
                new_cas: flags.cas,
                expiry: flags.ttl.map(|ttl| engine.store.expiry(i64::from(ttl))),
            };
            Some(engine.store.invalidate(command.key(), hash, &how))
        } else {
            Some(engine.store.delete(command.key(), hash, flags.compare))
        };
        let Some(outcome) = outcome else {
            out.put(reply::ARITH_OUT_OF_MEMORY);
            return;
        };
        let status = match outcome {
            Deleted::Deleted { class } => {
                if !flags.has(b'I') {
                    engine.store.count_class(class, ClassCounter::DeleteHits, 1);
                }
                if flags.quiet() {
                    return;
                }
                b"HD"
            }
            Deleted::Exists { .. } => {
                engine.store.count(Counter::DeleteMisses, 1);
                b"EX"
            }
            Deleted::NotFound => {
                engine.store.count(Counter::DeleteMisses, 1);
                b"NF"
            }
        };
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
        let store = &engine.store;
        let flags = &command.flags;
        let key = command.key();
        let how = Arith {
            decrement,
            by: flags.delta.unwrap_or(1),
            // 0 compares with nothing.
            compare: flags.compare.filter(|&cas| cas != 0),
            new_cas: flags.cas,
            expiry: flags.ttl.map(|ttl| store.expiry(i64::from(ttl))),
        };
        let told_before = told_before(command);
        for _ in 0..TRIES {
            let status: &[u8] = match engine.arith(key, hash, &how) {
                Ok(Arithmetic::Value {
                    value,
                    cas,
                    ttl,
                    ttl_before,
                    ..
                }) => {
                    if !flags.quiet() {
                        let ttl = if told_before { ttl_before } else { ttl };
                        put_number(out, command, value, cas, ttl);
                    }
                    return;
                }
                Ok(Arithmetic::NotFound) => match flags.vivify {
                    Some(ttl) => {
                        let initial = Decimal::new(flags.initial);
                        let (last, told) = ttls(command, ttl);
                        let expiry = store.expiry(i64::from(last));
                        let made = engine.vivify(command, hash, initial.as_bytes(), expiry, false);
                        if let Some((cas, _)) = made {
                            // Quiet or not: memcached tells of an item made anew.
                            let told = Some(told).filter(|&ttl| ttl != 0);
                            let told = told.map(|ttl| engine.seconds_until(ttl));
                            put_number(out, command, flags.initial, cas, told);
                            return;
                        }
                        if engine.meta_absent(command, hash) {
                            out.put(reply::VIVIFY_OUT_OF_MEMORY);
                            return;
                        }
                        continue;
                    }
                    None => {
                        engine.arith_miss(decrement);
                        b"NF"
                    }
                },
                Ok(Arithmetic::Exists { .. }) => b"EX",
                Ok(Arithmetic::NonNumeric) => {
                    out.put(reply::NON_NUMERIC);
                    return;
                }
                Err(_) => {
                    out.put(reply::ARITH_OUT_OF_MEMORY);
                    return;
                }
            };
            out.put(status);
            put_returns(out, command);
            out.put(reply::CRLF);
            return;
        }
        out.put(reply::ARITH_OUT_OF_MEMORY);
    }

    fn meta_debug(&mut self, command: &Command<'_>, hash: Hash, out: &mut impl Out) {
        let engine = self.engine;
        engine.tally(Tally::MetaCommands, 1);
        let guard = engine.store.read();
        let Some((item, seen)) = engine.store.inspect(&guard, command.key(), hash) else {
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
        out.put_decimal(item.class().saturating_add(1) as u64);
        out.put(b" size=");
        out.put_decimal(item.size() as u64);
        out.put(reply::CRLF);
    }
}

impl<P: Platform> Engine<P> {
    /// Makes the item that `mg` or `ma` with `N` did not find. Its CAS value and class,
    /// or nothing when somebody was faster or there is no memory.
    fn vivify(
        &self,
        command: &Command<'_>,
        hash: Hash,
        value: &[u8],
        expiry: Expiry,
        token_sent: bool,
    ) -> Option<(u64, usize)> {
        let mut reservation = self
            .store
            .reserve(command.key(), hash, 0, expiry, value.len())
            .ok()?;
        reservation.write(value);
        let class = reservation.class();
        let commit = Commit {
            verb: Verb::Add,
            new_cas: command.flags.cas,
            token_sent,
            ..Commit::default()
        };
        match self.store.commit(reservation, &commit) {
            Ok(Outcome::Stored { cas }) => Some((cas, class)),
            _ => None,
        }
    }

    /// Counts a hit of `mg`.
    fn meta_hit(&self, command: &Command<'_>, class: usize) {
        let counter = if command.flags.ttl.is_some() {
            ClassCounter::TouchHits
        } else {
            ClassCounter::GetHits
        };
        self.store.count_class(class, counter, 1);
    }

    fn meta_absent(&self, command: &Command<'_>, hash: Hash) -> bool {
        let guard = self.store.read();
        self.store.peek(&guard, command.key(), hash).is_none()
    }

    /// `md` with `x`: the value goes, the item stays. Nothing when there is no
    /// memory for it.
    fn meta_tombstone(&self, command: &Command<'_>, hash: Hash) -> Option<Deleted> {
        let flags = &command.flags;
        let key = command.key();
        for _ in 0..TRIES {
            let (cas, class) = {
                let guard = self.store.read();
                let Some(item) = self.store.peek(&guard, key, hash) else {
                    return Some(Deleted::NotFound);
                };
                (item.cas(), item.class())
            };
            if flags.compare.is_some_and(|compare| compare != cas) {
                return Some(Deleted::Exists { class });
            }
            let stale = flags.has(b'I');
            let kept = if stale { None } else { Some(cas) };
            let expiry = self.store.expiry(i64::from(flags.ttl.unwrap_or(0)));
            let reservation = self
                .store
                .reserve(key, hash, flags.client, expiry, 0)
                .ok()?;
            let commit = Commit {
                verb: Verb::Replace,
                compare: Some(cas),
                new_cas: flags.cas.or(kept),
                stale,
                ..Commit::default()
            };
            match self.store.commit(reservation, &commit) {
                Ok(Outcome::Stored { .. }) => return Some(Deleted::Deleted { class }),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// The time to live that an item made by `ma` ends up with, and the one that
/// `t` tells: flags are taken in order.
fn ttls(command: &Command<'_>, vivify: i32) -> (i32, i32) {
    let (mut last, mut told) = (0, 0);
    for word in command.words() {
        match word.first() {
            Some(b'T') => last = command.flags.ttl.unwrap_or(0),
            Some(b'N') => last = vivify,
            Some(b't') => told = last,
            _ => {}
        }
    }
    (last, told)
}

/// Whether `t` comes before `T`, so that it tells the old time to live.
fn told_before(command: &Command<'_>) -> bool {
    let letters = command.words().iter().filter_map(|word| word.first());
    let mut told = letters.skip_while(|&&letter| letter != b't' && letter != b'T');
    told.next() == Some(&b't') && command.flags.ttl.is_some()
}

/// Writes the reply of a successful `ma`.
fn put_number(out: &mut impl Out, command: &Command<'_>, value: u64, cas: u64, ttl: Option<u32>) {
    let value = Decimal::new(value);
    let value = value.as_bytes();
    if command.flags.value() {
        out.put(b"VA ");
        out.put_decimal(value.len() as u64);
    } else {
        out.put(b"HD");
    }
    for word in command.words() {
        match word.first() {
            Some(b'c') => {
                out.put(b" c");
                out.put_decimal(cas);
            }
            Some(b't') => put_ttl(out, ttl),
            Some(b'O') => put_word(out, word),
            Some(b'k') => put_key(out, command.key(), command.flags.has(b'b')),
            _ => {}
        }
    }
    out.put(reply::CRLF);
    if command.flags.value() {
        out.put(value);
        out.put(reply::CRLF);
    }
}

/// A key copied out of a reservation, for a reply that comes after it.
pub(crate) type Key = Vec<u8, KEY_MAX>;
