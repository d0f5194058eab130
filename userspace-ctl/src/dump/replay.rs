// SPDX-License-Identifier: GPL-2.0-only
//! Stores a dump's items in a running cache, over several connections.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{sync_channel, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{anyhow, Result};

use super::client::{put_base64, Client, Target};
use super::file::{Damage, Record, BINARY, STALE, WON};
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::reader::{Packed, Reader, Unpacker};
use super::save::{put_key, stale};
use super::writer::now;
use crate::arguments::LoadMode;
use crate::exit::end;

/// Requests that are sent before their replies are read. The replies, of at most some sixty bytes each, fit into the
/// sockets' buffers.
const REQUESTS: usize = 1000;
/// The most bytes of requests that are sent before their replies are read.
const REQUEST_BYTES: usize = 256 << 10;
/// Longer times to live are sent as Unix time (memcached's `REALTIME_MAXDELTA`).
const RELATIVE_MAX: u64 = hippos_semantics::RELATIVE_MAX as u64;
/// The last Unix time that a request can express, in 2038: servers take the low 32 bits of a larger one.
const LATEST: u64 = i32::MAX as u64;
/// The time to live, in seconds, that an item whose expiry no request can express gets until its mark is set.
const MEANWHILE: u64 = 3600;
/// The difference by which one time must exceed another to be later on the server's clock too.
const MARGIN: u64 = 3600;

/// The outcomes for the items.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) stored: AtomicU64,
    /// The cache already had a value for the key.
    pub(crate) kept: AtomicU64,
    pub(crate) expired: AtomicU64,
    /// There was no memory, or the item is too large for this cache.
    pub(crate) refused: AtomicU64,
}

impl Counts {
    fn all(&self) -> u64 {
        [&self.stored, &self.kept, &self.expired, &self.refused]
            .iter()
            .map(|count| count.load(Relaxed))
            .sum()
    }
}

/// The first block that is not stored yet; blocks may be finished out of order.
#[derive(Debug, Default)]
pub(crate) struct Done {
    next: u64,
    ahead: BTreeSet<u64>,
}

impl Done {
    pub(crate) fn from(next: u64) -> Self {
        Self {
            next,
            ahead: BTreeSet::new(),
        }
    }

    fn add(&mut self, number: u64) {
        self.ahead.insert(number);
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}

/// Stores all items from a block on. Damage ends the load after all blocks before it are stored. A signal ends it after
/// the blocks that were begun are stored and their items have their marks.
#[allow(clippy::too_many_arguments, reason = "each is another's")]
pub(crate) fn replay<R: Read>(
    target: &Target,
    connections: usize,
    mode: LoadMode,
    reader: &mut Reader<R>,
    counts: &Counts,
    done: &Mutex<Done>,
    interrupt: &Interrupt,
    (progress, size): (&mut Progress, Option<u64>),
) -> Result<Option<Damage>> {
    let from = lock(done).next();
    let clients: Result<Vec<Client>> = (0..connections).map(|_| connect(target)).collect();
    let clients = clients?;
    let (is_over, is_done) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let held = interrupt.hold()?;
    thread::scope(|scope| {
        let watcher = scope.spawn(|| held.watch(is_over, is_done));
        let (put_blocks, blocks) = sync_channel(connections);
        let blocks = Arc::new(Mutex::new(blocks));
        let mut storers = Vec::new();
        for client in clients {
            let blocks = blocks.clone();
            storers.push(scope.spawn(move || {
                Storer::new(client, mode, counts).and_then(|s| s.run(&blocks, done, is_over))
            }));
        }
        drop(blocks);
        let mut damage = None;
        while !is_over.load(Relaxed) {
            match reader.block() {
                Ok(None) => break,
                Ok(Some(block)) if block.header.number < from => {}
                Ok(Some(block)) => {
                    if put_blocks.send(block).is_err() {
                        break;
                    }
                }
                Err(found) => {
                    damage = Some(found);
                    break;
                }
            }
            let read = reader.read as f64;
            progress.show(counts.all(), size.map(|size| read / size as f64));
        }
        drop(put_blocks);
        let mut ended = Ok(damage);
        for thread in storers {
            let stored = thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a thread panicked")));
            match stored {
                Ok(None) => {}
                Ok(found) => ended = ended.map(|damage| damage.or(found)),
                Err(error) => ended = ended.and(Err(error)),
            }
        }
        is_done.store(true, Relaxed);
        watcher.thread().unpark();
        if ended.is_ok() && interrupt.has_come() {
            end!(Failed, "interrupted");
        }
        ended
    })
}

/// Connects to a server that skips the value of an `ms` that it refuses. A server without `ms`, or with another form of
/// it, would interpret values as commands.
fn connect(target: &Target) -> Result<Client> {
    let mut client = Client::connect(target)?;
    // Refused for its mode, before any item is touched.
    client.send(b"ms hippos 2 MX\r\nmg\r\nmn\r\n")?;
    let is_refused = client.line()?.starts_with(b"CLIENT_ERROR ");
    if !is_refused || client.line()? != b"MN" {
        end!(
            Refused,
            "{}: it does not take values by meta commands",
            target.address
        );
    }
    Ok(client)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stores blocks over one connection.
struct Storer<'c> {
    client: Client,
    mode: LoadMode,
    counts: &'c Counts,
    requests: Vec<u8>,
    sent: usize,
    /// The requests to send after the request of that number is done, and the number of their replies.
    marks: Vec<(usize, Vec<u8>, usize)>,
}

impl<'c> Storer<'c> {
    fn new(client: Client, mode: LoadMode, counts: &'c Counts) -> Result<Self> {
        Ok(Self {
            client,
            mode,
            counts,
            requests: Vec::new(),
            sent: 0,
            marks: Vec::new(),
        })
    }

    fn run(
        mut self,
        blocks: &Mutex<Receiver<Packed>>,
        done: &Mutex<Done>,
        is_over: &AtomicBool,
    ) -> Result<Option<Damage>> {
        let mut unpacker = Unpacker::new()?;
        loop {
            let next = lock(blocks).recv();
            let Ok(block) = next else {
                return Ok(None);
            };
            if is_over.load(Relaxed) {
                return Ok(None);
            }
            let number = block.header.number;
            let made = block.header.made;
            let records = match unpacker.unpack(&block) {
                Ok(records) => records,
                Err(damage) => return Ok(Some(damage)),
            };
            for record in records {
                match record {
                    Ok(record) => self.store(&record, made)?,
                    Err(what) => {
                        self.flush()?;
                        return Ok(Some(Damage {
                            block: number,
                            what,
                        }));
                    }
                }
            }
            self.flush()?;
            lock(done).add(number);
        }
    }

    fn store(&mut self, record: &Record<'_>, made: u64) -> Result<()> {
        // All times of a record are computed from the same current time.
        let now = now();
        let Some(ttl) = ttl(record.expiry, made, now) else {
            self.counts.expired.fetch_add(1, Relaxed);
            return Ok(());
        };
        if record.marks & (STALE | WON) != 0 {
            let (follow, answers) = follow(record, ttl, now);
            self.marks.push((self.sent, follow, answers));
        }
        put_request(record, ttl, now, self.mode, &mut self.requests);
        self.sent += 1;
        if self.sent >= REQUESTS || self.requests.len() >= REQUEST_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends the pending requests, and reads the replies.
    fn flush(&mut self) -> Result<()> {
        self.client.send(&self.requests)?;
        self.requests.clear();
        let mut marks = std::mem::take(&mut self.marks).into_iter().peekable();
        let mut answers = 0;
        for number in 0..std::mem::take(&mut self.sent) {
            let counts = self.counts;
            let line = self.client.line()?;
            let count = match line {
                line if line.starts_with(b"HD") => &counts.stored,
                line if line.starts_with(b"NS") => &counts.kept,
                line if line.starts_with(b"SERVER_ERROR ") => &counts.refused,
                _ => return Err(self.client.unexpected()),
            };
            count.fetch_add(1, Relaxed);
            let is_stored = std::ptr::eq(count, &counts.stored);
            if let Some((_, follow, more)) = marks.next_if(|(of, ..)| *of == number) {
                // An item that a client stored is not changed.
                if is_stored {
                    self.requests.extend_from_slice(&follow);
                    answers += more;
                }
            }
        }
        self.client.send(&self.requests)?;
        self.requests.clear();
        for _ in 0..answers {
            // A client may have changed the item since: that is not an error.
            self.client.line()?;
        }
        Ok(())
    }
}

/// The argument of `T` for an expiry in a block that was made at `made`: 0 (never) for an expiry after [`LATEST`];
/// `None` if it has passed.
fn ttl(expiry: u64, made: u64, now: u64) -> Option<u64> {
    if expiry == 0 {
        return Some(0);
    }
    // A clock behind that of the dump must not make times to live longer.
    let left = expiry.checked_sub(now.max(made)).filter(|left| *left > 0)?;
    if left <= RELATIVE_MAX {
        return Some(left);
    }
    // The expiry itself, unless the clock is behind that of the dump.
    let at = now.saturating_add(left);
    Some(if at <= LATEST { at } else { 0 })
}

/// An argument of `R` that is later than that of `T`; `None` if there is no such time.
fn beyond(ttl: u64, now: u64) -> Option<u64> {
    let at = match ttl {
        0 => return None,
        left if left < RELATIVE_MAX => return Some(RELATIVE_MAX),
        RELATIVE_MAX => now.saturating_add(RELATIVE_MAX),
        at => at,
    };
    at.checked_add(MARGIN).filter(|beyond| *beyond <= LATEST)
}

fn put_request(record: &Record<'_>, ttl: u64, now: u64, mode: LoadMode, out: &mut Vec<u8>) {
    let is_binary = record.marks & BINARY != 0;
    out.extend_from_slice(b"ms ");
    if is_binary {
        put_base64(record.key, out);
    } else {
        out.extend_from_slice(record.key);
    }
    // Writing to memory does not fail.
    let _ = write!(out, " {}", record.value.len());
    if is_binary {
        out.extend_from_slice(b" b");
    }
    if record.flags != 0 {
        let _ = write!(out, " F{}", record.flags);
    }
    let is_first_short = record.marks & (STALE | WON) == WON && beyond(ttl, now).is_none();
    match if is_first_short { MEANWHILE } else { ttl } {
        0 => {}
        ttl => {
            let _ = write!(out, " T{ttl}");
        }
    }
    if record.cas != 0 {
        let _ = write!(out, " E{}", record.cas);
    }
    if mode == LoadMode::Add {
        out.extend_from_slice(b" ME");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(record.value);
    out.extend_from_slice(b"\r\n");
}

/// Requests that set the marks of a stored item, and their number.
fn follow(record: &Record<'_>, ttl: u64, now: u64) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut answers = 0;
    let is_stale = record.marks & STALE != 0;
    if is_stale {
        stale(record.key, record.marks, record.cas, &mut out);
        answers += 1;
    }
    if record.marks & WON != 0 {
        // The first client that reads it wins the token, and later ones do not.
        out.extend_from_slice(b"mg ");
        put_key(record.key, record.marks, &mut out);
        if !is_stale {
            let _ = match beyond(ttl, now) {
                Some(beyond) => write!(out, " R{beyond}"),
                // Flags are evaluated in order: the item gets its own expiry after its mark is set.
                None => write!(out, " R{RELATIVE_MAX} T{ttl}"),
            };
        }
        out.extend_from_slice(b"\r\n");
        answers += 1;
    }
    (out, answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    fn request(record: Record<'_>, ttl: u64) -> String {
        let mut out = Vec::new();
        put_request(&record, ttl, NOW, LoadMode::Add, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_becomes_a_request() {
        let record = Record {
            key: b"key",
            value: b"v",
            flags: 5,
            cas: 7,
            ..Record::default()
        };
        assert_eq!(request(record, 9), "ms key 1 F5 T9 E7 ME\r\nv\r\n");
        let record = Record {
            marks: BINARY,
            key: b" \n",
            ..Record::default()
        };
        assert_eq!(request(record, 0), "ms IAo= 0 b ME\r\n\r\n");
    }

    #[test]
    fn a_time_to_live_is_what_is_left_of_it() {
        let of = |expiry| ttl(expiry, NOW, NOW);
        assert_eq!(of(0), Some(0));
        assert_eq!(of(NOW + 1), Some(1));
        assert_eq!(of(NOW), None);
        assert_eq!(of(1), None);
        assert_eq!(of(NOW + 30 * DAY), Some(30 * DAY));
    }

    #[test]
    fn a_far_expiry_becomes_a_time_that_a_request_can_express_or_never() {
        let far = NOW + 30 * DAY + 1;
        assert_eq!(ttl(far, NOW, NOW), Some(far));
        // For any time of the request during the load.
        assert_eq!(ttl(far + 60, NOW, NOW + 59), Some(far + 60));
        assert_eq!(ttl(LATEST, NOW, NOW), Some(LATEST));
        for later in [LATEST + 1, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(ttl(later, NOW, NOW), Some(0), "{later}");
        }
        // In 2038 only times relative to now can be expressed.
        assert_eq!(ttl(LATEST + 10, NOW, LATEST - 10), Some(20));
        assert_eq!(ttl(LATEST + 40 * DAY, NOW, LATEST - 10), Some(0));
    }

    #[test]
    fn a_clock_before_the_dumps_makes_no_life_longer() {
        for (expiry, wanted) in [(NOW + 5, 5), (NOW + 40 * DAY, NOW + 39 * DAY)] {
            assert_eq!(ttl(expiry, NOW, NOW - DAY), Some(wanted));
        }
    }

    /// The seconds from now, as a server interprets `T` and `R`.
    fn seconds(word: &str) -> u64 {
        let time: u64 = word[1..].parse().unwrap();
        assert!(time <= LATEST, "{word}");
        match time {
            0..=RELATIVE_MAX => time,
            at => at.saturating_sub(NOW),
        }
    }

    #[test]
    fn the_token_is_taken_whatever_the_time_to_live_is() {
        let record = Record {
            marks: WON,
            key: b"k",
            ..Record::default()
        };
        let lives = [1, 14 * DAY, 16 * DAY, 30 * DAY - 1, 30 * DAY, 31 * DAY];
        let lives = lives.map(|left| NOW + left).into_iter();
        for expiry in lives.chain([0, LATEST - MARGIN, LATEST - 1, LATEST, LATEST + 1]) {
            let ttl = ttl(expiry, NOW, NOW).unwrap();
            let stored = request(record, ttl);
            let word = |line: &str, of: char| {
                line.split([' ', '\r'])
                    .rfind(|w| w.starts_with(of))
                    .map(str::to_owned)
            };
            let life = seconds(&word(&stored, 'T').unwrap());
            let (asked, answers) = follow(&record, ttl, NOW);
            let asked = String::from_utf8(asked).unwrap();
            assert_eq!(answers, 1);
            assert!(
                seconds(&word(&asked, 'R').unwrap()) > life && life > 0,
                "{expiry}: {stored}{asked}"
            );
            // Its final time to live.
            let last = word(&asked, 'T').or(word(&stored, 'T')).unwrap();
            assert_eq!(last, format!("T{ttl}"));
        }
    }

    #[test]
    fn blocks_that_end_out_of_order_are_done_up_to_the_first_gap() {
        let mut done = Done::from(2);
        done.add(3);
        done.add(5);
        assert_eq!(done.next(), 2);
        done.add(2);
        assert_eq!(done.next(), 4);
        done.add(4);
        assert_eq!(done.next(), 6);
    }
}
