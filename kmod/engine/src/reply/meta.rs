// SPDX-License-Identifier: GPL-2.0-only
//! Replies of the meta commands.

use heapless::Vec;
use hippos_invariant::Exact;
use hippos_proto::meta::Command;
use hippos_proto::number::Decimal;
use hippos_proto::reply::{self, Out};
use hippos_proto::KEY_MAX;
use hippos_store::{Expiry, Item, ItemSnapshot, Outcome};

use crate::reply::check_len;

/// The properties of an item that `mg` reports.
pub(crate) struct MetaHit<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) len: usize,
    pub(crate) flags: u32,
    /// The item before this hit.
    pub(crate) seen: ItemSnapshot,
    /// `v`, unless `C` matches the item's CAS number: then the client has the value.
    pub(crate) value: bool,
    /// The client got the token.
    pub(crate) won: bool,
    /// This `mg` created the item.
    pub(crate) created: bool,
    pub(crate) times: Times,
}

/// The expiry times in an `mg`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    /// The store's clock.
    pub(crate) now: u32,
    /// `T`.
    pub(crate) touch: Option<Expiry>,
    /// `N`.
    pub(crate) vivify: Option<Expiry>,
    /// `R`, in seconds from now.
    pub(crate) recache: Option<u32>,
}

impl<'a> MetaHit<'a> {
    /// For a client that changes nothing.
    pub(crate) fn of(command: &Command<'_>, item: &Item<'a>, seen: ItemSnapshot) -> Self {
        Self {
            value: wants_value(command, &seen),
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

/// Whether the client gets the value of the item: it requests it, and does not have it.
#[inline]
pub(crate) fn wants_value(command: &Command<'_>, seen: &ItemSnapshot) -> bool {
    let flags = &command.flags;
    flags.value() && flags.compare != Some(seen.cas())
}

/// Writes the status line of a hit. Each flag shows the state at its position in the list of flags. `value` is what the
/// caller writes behind it, with a line end, if the client gets the value.
pub(crate) fn hit_line(out: &mut impl Out, command: &Command<'_>, hit: &MetaHit<'_>, value: &[u8]) {
    let MetaHit { seen, times, .. } = hit;
    let mut ttl = seen.ttl();
    if hit.value {
        check_len(value.len(), || hit.len);
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

/// The length of what [`hit_line`] writes.
pub(crate) fn hit_line_len(command: &Command<'_>, hit: &MetaHit<'_>, value: &[u8]) -> usize {
    let mut counted = Counted(0);
    hit_line(&mut counted, command, hit, value);
    counted.0
}

/// A sink that only counts.
struct Counted(usize);

impl Out for Counted {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0 = self.0.add_exact(bytes.len());
    }
}

/// Writes the line of a miss.
pub(crate) fn miss_line(out: &mut impl Out, command: &Command<'_>) {
    out.put(b"EN");
    put_returns(out, command);
    out.put(reply::CRLF);
}

/// Writes the opaque and the key, if they were requested.
pub(crate) fn put_returns(out: &mut impl Out, command: &Command<'_>) {
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

/// The flags that the reply to an `ms` gives back: [`MetaSet::put`] writes each.
const SET_RETURNS: &[u8] = b"Okcs";

/// The data for the reply to an `ms`, kept until its value has arrived.
pub(crate) struct MetaSet {
    quiet: bool,
    binary: bool,
    pub(crate) len: u32,
    /// The letters of the flags to be returned, in order, followed by zeros.
    returns: [u8; SET_RETURNS.len()],
    opaque: Vec<u8, 32>,
}

impl MetaSet {
    pub(crate) fn new(command: &Command<'_>, len: u32) -> Self {
        let mut set = Self {
            quiet: command.flags.quiet(),
            binary: command.flags.has(b'b'),
            len,
            returns: [0; SET_RETURNS.len()],
            opaque: Vec::new(),
        };
        let words = command.words().iter();
        let wanted = words.filter(|word| word.first().is_some_and(|l| SET_RETURNS.contains(l)));
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

    /// Writes the reply.
    pub(crate) fn put(&self, out: &mut impl Out, outcome: Outcome, key: &[u8]) {
        let sent = self.len as usize;
        let (status, cas, len) = match outcome {
            Outcome::Stored { .. } if self.quiet => return,
            // A joined value is longer than the part that was sent.
            Outcome::Stored { cas, item, .. } => (b"HD", cas, item.len),
            Outcome::NotStored => (b"NS", 0, sent),
            Outcome::Exists { .. } => (b"EX", 0, sent),
            Outcome::NotFound => (b"NF", 0, sent),
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
                    out.put_decimal(len as u64);
                }
                _ => {}
            }
        }
        out.put(reply::CRLF);
    }
}

/// Writes the reply of a successful `ma`.
pub(crate) fn put_number(
    out: &mut impl Out,
    command: &Command<'_>,
    value: u64,
    cas: u64,
    ttl: Option<u32>,
) {
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

/// A key copied from a reservation, for a reply that is written after it is committed.
pub(crate) type KeyBuffer = Vec<u8, KEY_MAX>;

#[cfg(test)]
mod tests {
    use super::*;
    use hippos_proto::reply::Cursor;
    use hippos_proto::token::Tokens;

    #[test]
    #[should_panic(expected = "broken invariant: 2 bytes of a reply of 3")]
    fn a_value_of_another_length_than_announced_panics() {
        let command = Command::parse(Tokens::new(b"mg k v")).expect("a command");
        let hit = MetaHit {
            key: b"k",
            len: 3,
            flags: 0,
            seen: ItemSnapshot::new(1),
            value: true,
            won: false,
            created: false,
            times: Times::default(),
        };
        let mut buffer = [0; 64];
        hit_line(&mut Cursor::new(&mut buffer), &command, &hit, b"va");
    }
}
