// SPDX-License-Identifier: GPL-2.0-only
//! Reads all items of a running cache: one connection lists the keys (`lru_crawler metadump`), the others request their
//! values (`mg`).
//!
//! `mgdump` would show which keys were sent in base64, but prints a key that came by the binary protocol unencoded,
//! including line ends; `metadump` encodes every key with `%XX`.

use std::collections::hash_map::RandomState;
use std::collections::HashSet;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::BufWriter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};

use super::client::{put_base64, Client, Target};
use super::file::{fits_base64, is_plain, Record, BINARY, BLOCK, KEY_MOST, STALE, VALUE_MOST, WON};
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::reader::Packed;
use super::writer::{now, Packer, Writer};
use crate::exit::end;
use crate::item_keys::decoded;

/// Requests that are sent at once. Their bytes fit into the sockets' buffers, whether or not the server reads before
/// its replies are read, so that neither side waits for the other forever.
const REQUESTS: usize = 512;
const REQUEST_BYTES: usize = 32 << 10;
/// Bytes of a request besides its key.
const REQUEST_REST: usize = 24;
/// Nothing is written before all replies are read, so that the tokens are put back soon. This is the most bytes of
/// items that are requested at once (or one item more).
const ITEM_BYTES: u64 = 8 << 20;
/// Lists the keys in the order of the hash table. When listing by class, memcached misses items that move between its
/// LRU lists meanwhile.
const BY_HASH: &[u8] = b"lru_crawler metadump hash\r\n";
/// For a memcached that is too old for listing by hash.
const BY_CLASS: &[u8] = b"lru_crawler metadump all\r\n";
/// How often a dump is tried while the server is busy with another one.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// The outcomes for the items.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) items: AtomicU64,
    /// Deleted, expired or evicted after they were listed.
    pub(crate) gone: AtomicU64,
    /// Larger than a dump supports.
    pub(crate) too_large: AtomicU64,
    /// No text command can name their keys: they have blanks or control characters, and are too long for base64.
    pub(crate) binary_only: AtomicU64,
    /// The server had no memory for the reply.
    pub(crate) refused: AtomicU64,
}

/// Keys, stored one after the other.
#[derive(Debug, Default)]
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Bytes of their items.
    items: u64,
}

impl Keys {
    fn push(&mut self, key: &[u8], item: u64) {
        self.items = self.items.saturating_add(item);
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn is_full(&self) -> bool {
        let most = REQUEST_BYTES - KEY_MOST * 2;
        self.ends.len() == REQUESTS
            || self.items >= ITEM_BYTES
            || self.bytes.len() * 4 / 3 + self.ends.len() * REQUEST_REST >= most
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        begins
            .zip(&self.ends)
            .map(|(begin, end)| &self.bytes[begin..*end])
    }
}

/// Keys that the file already contains.
#[derive(Debug, Default)]
pub(crate) struct Known {
    hashes: HashSet<u128>,
    random: (RandomState, RandomState),
}

impl Known {
    pub(crate) fn insert(&mut self, key: &[u8]) {
        self.hashes.insert(self.hash(key));
    }

    fn has(&self, key: &[u8]) -> bool {
        !self.hashes.is_empty() && self.hashes.contains(&self.hash(key))
    }

    /// Long enough that no two keys have the same hash.
    fn hash(&self, key: &[u8]) -> u128 {
        let half = |random: &RandomState| u128::from(random.hash_one(key));
        half(&self.random.0) << 64 | half(&self.random.1)
    }
}

/// Writes all items that the file does not contain yet.
pub(crate) fn save(
    target: &Target,
    connections: usize,
    known: &Known,
    writer: &mut Writer<BufWriter<File>>,
    counts: &Counts,
    interrupt: &Interrupt,
    (progress, expected): (&mut Progress, u64),
) -> Result<()> {
    let (is_over, is_done) = (&AtomicBool::new(false), &AtomicBool::new(false));
    // A connection that is made before a thread starts can fail at once.
    let lister = Client::connect(target)?;
    let clients: Result<Vec<Client>> = (0..connections).map(|_| Client::connect(target)).collect();
    let clients = clients?;
    let held = interrupt.hold()?;
    thread::scope(|scope| {
        let watcher = scope.spawn(|| held.watch(is_over, is_done));
        let (put_keys, keys) = sync_channel(connections * 4);
        let keys = Arc::new(Mutex::new(keys));
        let (put_blocks, blocks) = sync_channel(connections);
        let lister = scope.spawn(move || {
            let listed = list(lister, known, counts, &put_keys, is_over);
            // An error here means that the list has ended already.
            if listed.is_err() {
                is_over.store(true, Relaxed);
            }
            listed
        });
        let mut askers = Vec::new();
        for client in clients {
            let (keys, put_blocks) = (keys.clone(), put_blocks.clone());
            askers.push(scope.spawn(move || {
                let asker = Asker::new(target, client, counts);
                let asked = asker.and_then(|a| a.run(&keys, &put_blocks, is_over));
                if asked.is_err() {
                    is_over.store(true, Relaxed);
                }
                asked
            }));
        }
        // The other threads end when their channels are closed.
        drop((keys, put_blocks));
        let mut written = Ok(());
        for block in blocks {
            written = writer.block(block);
            if written.is_err() {
                break;
            }
            let items = writer.totals.items;
            let part = (expected > 0).then(|| items as f64 / expected as f64);
            progress.show(items, part);
        }
        let panicked = |_| Err(anyhow!("a thread panicked"));
        let mut ended = written.context("the dump can't be written");
        for thread in askers.into_iter().chain([lister]) {
            // The first error is the cause of the others.
            ended = ended.and(thread.join().unwrap_or_else(panicked));
        }
        is_done.store(true, Relaxed);
        watcher.thread().unpark();
        if ended.is_ok() && interrupt.has_come() {
            end!(Failed, "interrupted");
        }
        ended
    })
}

/// Lists the keys.
fn list(
    mut client: Client,
    known: &Known,
    counts: &Counts,
    out: &SyncSender<Keys>,
    is_over: &AtomicBool,
) -> Result<()> {
    let mut keys = Keys::default();
    let mut tries = 0;
    let mut command = BY_HASH;
    client.send(command)?;
    loop {
        let line = client.line()?;
        if let Some(item) = line.strip_prefix(b"key=") {
            let mut words = item.split(|byte| *byte == b' ');
            let key = decoded(words.next().unwrap_or_default());
            let size = words.find_map(|word| word.strip_prefix(b"size="));
            if !can_be_asked_for(&key) {
                counts.binary_only.fetch_add(1, Relaxed);
            } else if !known.has(&key) {
                keys.push(&key, size.and_then(number).unwrap_or(0));
            }
            if keys.is_full()
                && (is_over.load(Relaxed) || out.send(std::mem::take(&mut keys)).is_err())
            {
                // The thread that ended reports why.
                return Ok(());
            }
        } else if line == b"END" {
            let _ = out.send(keys);
            return Ok(());
        } else if line.starts_with(b"BUSY") && tries < TRIES {
            tries += 1;
            thread::sleep(PAUSE);
            client.send(command)?;
        } else if command == BY_HASH && line.windows(5).any(|word| word == b"ERROR") {
            command = BY_CLASS;
            client.send(command)?;
        } else if line != b"OK" {
            return Err(client.unexpected());
        }
    }
}

/// Whether a request can name a key, unencoded or in base64.
fn can_be_asked_for(key: &[u8]) -> bool {
    (1..=KEY_MOST).contains(&key.len()) && (is_plain(key) || fits_base64(key))
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Requests the values of keys.
struct Asker<'c> {
    target: &'c Target,
    client: Client,
    counts: &'c Counts,
    packer: Packer,
    requests: Vec<u8>,
    value: Vec<u8>,
    raw: Vec<u8>,
    items: u32,
    /// Records of complete blocks, and the number of items in each.
    full: Vec<(Vec<u8>, u32)>,
}

impl<'c> Asker<'c> {
    fn new(target: &'c Target, client: Client, counts: &'c Counts) -> Result<Self> {
        Ok(Self {
            target,
            client,
            counts,
            packer: Packer::new()?,
            requests: Vec::new(),
            value: Vec::new(),
            raw: Vec::new(),
            items: 0,
            full: Vec::new(),
        })
    }

    fn run(
        mut self,
        keys: &Mutex<Receiver<Keys>>,
        out: &SyncSender<Packed>,
        is_over: &AtomicBool,
    ) -> Result<()> {
        loop {
            let next = keys.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(keys) = next else {
                break;
            };
            if is_over.load(Relaxed) {
                break;
            }
            self.ask(&keys)?;
            self.read(&keys)?;
            if !self.put_blocks(out)? {
                return Ok(());
            }
        }
        self.close_block();
        self.put_blocks(out).map(drop)
    }

    fn ask(&mut self, keys: &Keys) -> Result<()> {
        self.requests.clear();
        for key in keys.iter() {
            self.requests.extend_from_slice(b"mg ");
            if is_plain(key) {
                // `k` shows whether the key was sent in base64.
                self.requests.extend_from_slice(key);
                self.requests.extend_from_slice(b" k v f t c u\r\n");
            } else {
                put_base64(key, &mut self.requests);
                self.requests.extend_from_slice(b" b v f t c u\r\n");
            }
        }
        self.client.send(&self.requests)
    }

    /// Reads all replies, and puts back the tokens that came with them, even after another error.
    fn read(&mut self, keys: &Keys) -> Result<()> {
        self.requests.clear();
        let mut taken = 0;
        let mut read = self.answers(keys, &mut taken);
        if taken > 0 {
            let put = match &read {
                Ok(()) => put_back(&mut self.client, &self.requests, taken),
                // The state of this connection is unknown.
                Err(_) => Client::connect(self.target)
                    .and_then(|mut client| put_back(&mut client, &self.requests, taken)),
            };
            read = read.and(put);
        }
        read
    }

    /// Parses the replies into records, and counts the tokens that the requests in `requests` put back.
    fn answers(&mut self, keys: &Keys, taken: &mut u32) -> Result<()> {
        for key in keys.iter() {
            let line = self.client.line()?;
            let Some(found) = line.strip_prefix(b"VA ") else {
                let count = match line {
                    b"EN" => &self.counts.gone,
                    // This server does not accept this key in base64.
                    line if line.starts_with(b"CLIENT_ERROR ") => &self.counts.binary_only,
                    line if line.starts_with(b"SERVER_ERROR ") => &self.counts.refused,
                    _ => return Err(self.client.unexpected()),
                };
                count.fetch_add(1, Relaxed);
                continue;
            };
            let Some(Found {
                len,
                took,
                mut record,
            }) = Found::parse(found, is_plain(key))
            else {
                return Err(self.client.unexpected());
            };
            if took {
                *taken += 1;
                stale(key, record.marks, record.cas, &mut self.requests);
            }
            if len > VALUE_MOST as u64 {
                self.client.skip(len)?;
                self.counts.too_large.fetch_add(1, Relaxed);
                continue;
            }
            self.value.clear();
            self.client.value(len as usize, &mut self.value)?;
            (record.key, record.value) = (key, &self.value);
            record.put(&mut self.raw);
            self.items += 1;
            self.counts.items.fetch_add(1, Relaxed);
            if self.raw.len() >= BLOCK {
                self.close_block();
            }
        }
        Ok(())
    }

    fn close_block(&mut self) {
        if self.items > 0 {
            let raw = std::mem::take(&mut self.raw);
            self.full.push((raw, std::mem::take(&mut self.items)));
        }
    }

    /// Sends the complete blocks; whether they were accepted.
    fn put_blocks(&mut self, out: &SyncSender<Packed>) -> Result<bool> {
        for (raw, items) in self.full.drain(..) {
            let block = self.packer.pack(&raw, items)?;
            if out.send(block).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn put_back(client: &mut Client, requests: &[u8], answers: u32) -> Result<()> {
    client.send(requests)?;
    for _ in 0..answers {
        // The item may have been removed or replaced by now.
        client.line()?;
    }
    Ok(())
}

/// A request that marks an item stale, without giving its token to a client, if it is still the same item.
pub(super) fn stale(key: &[u8], marks: u8, cas: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"md ");
    put_key(key, marks, out);
    out.extend_from_slice(b" I");
    if cas != 0 {
        out.extend_from_slice(format!(" C{cas} E{cas}").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// A key, with its flag.
pub(super) fn put_key(key: &[u8], marks: u8, out: &mut Vec<u8>) {
    if marks & BINARY != 0 {
        put_base64(key, out);
        out.extend_from_slice(b" b");
    } else {
        out.extend_from_slice(key);
    }
}

/// The fields of a reply's first line.
struct Found {
    len: u64,
    /// The dump won the token of a client that would store the item anew: it must be put back.
    took: bool,
    /// Without key and value.
    record: Record<'static>,
}

impl Found {
    fn parse(line: &[u8], is_plain: bool) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ').filter(|w| !w.is_empty());
        let len = number(words.next()?)?;
        let mut record = Record::default();
        let mut took = false;
        if !is_plain {
            record.marks = BINARY;
        }
        for word in words {
            match word.split_first()? {
                (b'f', flags) => record.flags = u32::try_from(number(flags)?).ok()?,
                (b't', b"-1") => record.expiry = 0,
                (b't', left) => record.expiry = now().saturating_add(number(left)?),
                (b'c', cas) => record.cas = number(cas)?,
                (b'b', []) => record.marks |= BINARY,
                (b'X', []) => record.marks |= STALE,
                (b'Z', []) => record.marks |= WON,
                (b'W', []) => took = true,
                _ => {}
            }
        }
        Some(Self { len, took, record })
    }
}

/// The number of items, for the progress line.
pub(crate) fn expected(target: &Target) -> Result<u64> {
    let mut client = Client::connect(target)?;
    client.send(b"stats\r\n")?;
    let mut items = 0;
    loop {
        let line = client.line()?;
        if let Some(number) = line.strip_prefix(b"STAT curr_items ") {
            items = String::from_utf8_lossy(number).parse().unwrap_or(0);
        } else if line == b"END" {
            return Ok(items);
        } else if !line.starts_with(b"STAT ") {
            end!(Refused, "{}", client.unexpected());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_an_answer_become_a_record() {
        let found = Found::parse(b"3 kZm9v b f7 t-1 c9 X W", true).unwrap();
        let wanted = Record {
            marks: BINARY | STALE,
            flags: 7,
            cas: 9,
            ..Record::default()
        };
        assert_eq!((found.len, found.took, found.record), (3, true, wanted));
        let found = Found::parse(b"0 kWb f0 t0 c1 Z", true).unwrap();
        assert_eq!((found.record.marks, found.took), (WON, false));
        assert!(found.record.expiry > 0);
        for bad in ["", "x", "3 f99999999999", "3 tx"] {
            assert!(Found::parse(bad.as_bytes(), true).is_none(), "{bad}");
        }
    }

    #[test]
    fn items_asked_for_at_once_are_bounded() {
        let mut keys = Keys::default();
        for _ in 0..4 {
            assert!(!keys.is_full());
            keys.push(b"key", 2 << 20);
        }
        assert!(keys.is_full());
        keys.push(b"key", u64::MAX);
        assert!(keys.is_full());
    }

    #[test]
    fn keys_that_are_too_long_for_base64_are_asked_for_as_they_are() {
        assert!(can_be_asked_for(&[b'k'; 250]) && can_be_asked_for(&[1; 186]));
        assert!(!can_be_asked_for(&[b'k'; 251]) && !can_be_asked_for(&[1; 187]));
        assert!(!can_be_asked_for(b""));
    }

    #[test]
    fn requests_sent_at_once_are_bounded() {
        for len in [1, 40, KEY_MOST] {
            let mut keys = Keys::default();
            while !keys.is_full() {
                keys.push(&vec![b' '; len], 100);
            }
            let bytes: usize = keys
                .iter()
                .map(|key| {
                    let mut out = Vec::new();
                    put_base64(key, &mut out);
                    out.len() + b"mg  b v f t c u\r\n".len()
                })
                .sum();
            assert!(bytes <= REQUEST_BYTES, "{len}: {bytes}");
        }
    }
}
