// SPDX-License-Identifier: GPL-2.0-only
//! Stores a dump's items in a running cache, over several connections.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{sync_channel, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{anyhow, Result};

use super::client::{put_base64, Client, Target};
use super::file::{Damage, Record, BINARY, STALE, WON};
use super::progress::Progress;
use super::reader::{Packed, Reader, Unpacker};
use super::save::{put_key, stale};
use super::writer::now;

/// Requests that are sent before their answers are read. The answers, of at most some sixty bytes
/// each, fit the buffers of the sockets.
const REQUESTS: usize = 1000;
/// No more is sent when there are so many bytes.
const REQUEST_BYTES: usize = 256 << 10;
/// Longer times to live are given as Unix time (`REALTIME_MAXDELTA` of memcached).
const RELATIVE_MOST: u64 = 60 * 60 * 24 * 30;
/// Seconds that an item has which does not expire, until its mark is made.
const MEANWHILE: u64 = 3600;

/// Which values win where the cache has the key already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// The cache's
    #[default]
    Add,
    /// The dump's
    Set,
}

/// What became of the items.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) stored: AtomicU64,
    /// The cache had a value for the key.
    pub(crate) kept: AtomicU64,
    pub(crate) expired: AtomicU64,
    /// No memory, or too large for this cache.
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

/// The first block that is not stored, of blocks that end out of order.
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

/// Stores all items from a block on. Damage ends it, when what comes before it is stored.
pub(crate) fn replay<R: Read>(
    target: &Target,
    connections: usize,
    mode: Mode,
    reader: &mut Reader<R>,
    counts: &Counts,
    done: &Mutex<Done>,
    (progress, size): (&mut Progress, Option<u64>),
) -> Result<Option<Damage>> {
    let from = lock(done).next();
    let clients: Result<Vec<Client>> = (0..connections).map(|_| Client::connect(target)).collect();
    let clients = clients?;
    thread::scope(|scope| {
        let (put_blocks, blocks) = sync_channel(connections);
        let blocks = Arc::new(Mutex::new(blocks));
        let mut storers = Vec::new();
        for client in clients {
            let blocks = blocks.clone();
            storers.push(scope.spawn(move || {
                Storer::new(client, mode, counts).and_then(|s| s.run(&blocks, done))
            }));
        }
        drop(blocks);
        let mut damage = None;
        loop {
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
        ended
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stores blocks over one connection.
struct Storer<'c> {
    client: Client,
    mode: Mode,
    counts: &'c Counts,
    requests: Vec<u8>,
    sent: usize,
    /// What follows when a request of that number is done, and how many answers that has.
    marks: Vec<(usize, Vec<u8>, usize)>,
}

impl<'c> Storer<'c> {
    fn new(client: Client, mode: Mode, counts: &'c Counts) -> Result<Self> {
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
    ) -> Result<Option<Damage>> {
        let mut unpacker = Unpacker::new()?;
        loop {
            let next = lock(blocks).recv();
            let Ok(block) = next else {
                return Ok(None);
            };
            let number = block.header.number;
            // A clock that stands before the dump's must not make lives longer.
            let now = now().max(block.header.made);
            let records = match unpacker.unpack(&block) {
                Ok(records) => records,
                Err(damage) => return Ok(Some(damage)),
            };
            for record in records {
                match record {
                    Ok(record) => self.store(&record, now)?,
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

    fn store(&mut self, record: &Record<'_>, now: u64) -> Result<()> {
        let Some(left) = left(record.expiry, now) else {
            self.counts.expired.fetch_add(1, Relaxed);
            return Ok(());
        };
        if record.marks & (STALE | WON) != 0 {
            let (follow, answers) = follow(record, left);
            self.marks.push((self.sent, follow, answers));
        }
        put_request(record, left, self.mode, &mut self.requests);
        self.sent += 1;
        if self.sent >= REQUESTS || self.requests.len() >= REQUEST_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what there is, and reads the answers.
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
                // What a client stored is not touched.
                if is_stored {
                    self.requests.extend_from_slice(&follow);
                    answers += more;
                }
            }
        }
        self.client.send(&self.requests)?;
        self.requests.clear();
        for _ in 0..answers {
            // A client may have changed the item since: that is no failure.
            self.client.line()?;
        }
        Ok(())
    }
}

/// Seconds until then, 0 for never; nothing if it has come.
fn left(expiry: u64, now: u64) -> Option<u64> {
    match expiry {
        0 => Some(0),
        at => at.checked_sub(now).filter(|left| *left > 0),
    }
}

/// What `T` takes.
fn ttl(left: u64) -> u64 {
    match left {
        0..=RELATIVE_MOST => left,
        // The server's clock, which is this host's or as good.
        _ => now().saturating_add(left),
    }
}

fn put_request(record: &Record<'_>, left: u64, mode: Mode, out: &mut Vec<u8>) {
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
    let is_won_for_ever = record.marks & (STALE | WON) == WON && left == 0;
    match if is_won_for_ever { MEANWHILE } else { left } {
        0 => {}
        left => {
            let _ = write!(out, " T{}", ttl(left));
        }
    }
    if record.cas != 0 {
        let _ = write!(out, " E{}", record.cas);
    }
    if mode == Mode::Add {
        out.extend_from_slice(b" ME");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(record.value);
    out.extend_from_slice(b"\r\n");
}

/// Requests that make the marks of a stored item, and how many they are.
fn follow(record: &Record<'_>, left: u64) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut answers = 0;
    let is_stale = record.marks & STALE != 0;
    if is_stale {
        stale(record.key, record.marks, record.cas, &mut out);
        answers += 1;
    }
    if record.marks & WON != 0 {
        // The first client that asks wins the token, and none after it.
        out.extend_from_slice(b"mg ");
        put_key(record.key, record.marks, &mut out);
        if !is_stale {
            let recache = left.max(MEANWHILE).saturating_mul(2).min(i32::MAX as u64);
            let _ = write!(out, " R{recache}");
            if left == 0 {
                out.extend_from_slice(b" T0");
            }
        }
        out.extend_from_slice(b"\r\n");
        answers += 1;
    }
    (out, answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(record: Record<'_>, left: u64) -> String {
        let mut out = Vec::new();
        put_request(&record, left, Mode::Add, &mut out);
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
        assert_eq!(left(0, 100), Some(0));
        assert_eq!(left(101, 100), Some(1));
        assert_eq!(left(100, 100), None);
        assert_eq!(left(1, 100), None);
        assert_eq!(ttl(RELATIVE_MOST), RELATIVE_MOST);
        assert!(ttl(RELATIVE_MOST + 1) > now() + RELATIVE_MOST);
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
