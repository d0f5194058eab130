// SPDX-License-Identifier: GPL-2.0-only
//! The event log: a ring buffer that any context writes to. Writers overwrite events that a slow reader has not read.
//!
//! Writers do not wait. A writer claims the number after the last event's by marking that number's slot as being
//! written. It cannot claim a slot whose previous writer, one round earlier, has not finished (that writer was
//! preempted, or the new one is a softirq that interrupted it); events are then dropped until the previous writer
//! finishes.
//!
//! A slot's state is twice the event's number, plus 1 while the event is written and plus 2 when it is complete. A
//! reader copies the event and then checks the state again. All words are stored with release and loaded with acquire,
//! so that a reader that has seen a word of a newer event also sees that the slot was claimed for it.

use crate::platform::Platform;
use crate::sync::{planted, Acquire, AtomicBool, AtomicU64, Bug, Padded, Relaxed, Release};
use crate::table::{LateTable, Part};
use crate::KEY_MAX;

/// Events that the ring holds, a power of two.
const EVENTS: usize = if cfg!(loom) { 2 } else { 4096 };
/// Words of a key or an address.
const TEXT: usize = if cfg!(loom) { 1 } else { KEY_MAX.div_ceil(8) };
/// Words before the text.
const HEAD: usize = if cfg!(loom) { 1 } else { 4 };
/// How often a writer tries to claim a slot while other writers compete for it.
const TRIES: usize = if cfg!(loom) { 3 } else { 16 };

const _: () = assert!(EVENTS.is_power_of_two());

/// An event. The meaning of the numbers depends on the kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// [`EVICTION`](Self::EVICTION), or a kind that a layer above the store defines.
    pub kind: u8,
    /// The outcome.
    pub status: u8,
    /// The command of the request.
    pub command: u8,
    /// The item's slab class, counted from 1; 0 for none.
    pub class: u8,
    /// The client's number.
    pub client: u32,
    /// Bytes of the value.
    pub size: u32,
    /// Seconds until the item expires; -1 may mean that it never does.
    pub ttl: i32,
    /// Seconds since the item was last used.
    pub idle: u32,
}

impl Event {
    /// An item was evicted; the status is whether it had been hit.
    pub const EVICTION: u8 = 0;
}

/// An event as the log gives it back.
#[derive(Clone, Copy, Debug)]
pub struct LoggedEvent {
    /// The event's number; later events have higher ones.
    pub number: u64,
    /// When it was logged, microseconds since 1970.
    pub unix_us: u64,
    /// The event.
    pub event: Event,
    text: [[u8; 8]; TEXT],
    len: usize,
}

impl LoggedEvent {
    /// The key that the event is about.
    pub fn key(&self) -> &[u8] {
        self.text.as_flattened().get(..self.len).unwrap_or(&[])
    }

    /// The key's first word.
    #[cfg(all(loom, test))]
    pub(crate) fn key_word(&self) -> u64 {
        self.text
            .first()
            .map_or(0, |word| u64::from_le_bytes(*word))
    }
}

/// The result of reading the log.
// It lives for a moment, on the stack.
#[allow(clippy::large_enum_variant, reason = "there is no heap here")]
pub enum NextEvent {
    /// The next event.
    Event(LoggedEvent),
    /// This reader has lost that many events.
    Lost(u64),
    /// There is no new event.
    None,
}

#[repr(align(64))]
struct EventSlot {
    state: AtomicU64,
    words: [AtomicU64; HEAD + TEXT],
}

impl EventSlot {
    fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            words: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// The ring. It has no memory before it is [opened](Self::open).
pub(crate) struct EventLog {
    slots: LateTable<EventSlot>,
    /// The next event's number; it may lag behind the slots for a moment.
    next: Padded<AtomicU64>,
    /// Whether evictions are logged.
    pub(crate) evictions: AtomicBool,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self {
            slots: LateTable::new(EVENTS),
            next: Padded(AtomicU64::new(1)),
            evictions: AtomicBool::new(false),
        }
    }

    /// Allocates the ring, once, and returns whether it is there. Process context, may sleep.
    pub(crate) fn open<P: Platform>(&self, platform: &P) -> bool {
        self.slots.get_or_make(platform, EventSlot::new).is_some()
    }

    /// Bytes taken from the platform.
    pub(crate) fn size(&self) -> usize {
        self.slots.size()
    }

    /// The number that the next event will have.
    pub(crate) fn next(&self) -> u64 {
        self.next.0.load(Relaxed)
    }

    fn slot(slots: &[EventSlot], number: u64) -> Option<&EventSlot> {
        slots.get(number as usize & (EVENTS - 1))
    }

    /// Claims the next number and its slot.
    fn claim<'s>(&self, slots: &'s [EventSlot]) -> Option<(&'s EventSlot, u64)> {
        for _ in 0..TRIES {
            let number = self.next();
            let slot = Self::slot(slots, number)?;
            let writing = number.wrapping_mul(2).wrapping_add(1);
            let mut state = slot.state.load(Relaxed);
            let mut mine = false;
            if state < writing {
                if state & 1 != 0 {
                    return None;
                }
                let claimed = slot
                    .state
                    .compare_exchange(state, writing, Acquire, Relaxed);
                mine = claimed.is_ok();
                state = claimed.err().unwrap_or(writing);
            }
            if state < writing && !planted(Bug::BlindHelp) {
                // The state belonged to an earlier event: try again.
                continue;
            }
            // A writer that finds the number taken advances `next` on behalf of the writer that took it, which may have
            // been interrupted here.
            let after = number.wrapping_add(1);
            let _ = self
                .next
                .0
                .compare_exchange(number, after, Relaxed, Relaxed);
            if mine {
                return Some((slot, number));
            }
        }
        None
    }

    /// Logs an event; false if it was dropped. Any context.
    pub(crate) fn push(&self, unix_us: u64, event: &Event, text: &[u8]) -> bool {
        let Some((slot, number)) = self.slots.get().and_then(|slots| self.claim(slots)) else {
            return false;
        };
        let Event {
            kind,
            status,
            command,
            class,
            client,
            size,
            ttl,
            idle,
        } = *event;
        let len = text.len().min(KEY_MAX) as u8;
        let [s0, s1, s2, s3] = size.to_le_bytes();
        let head = [
            unix_us,
            u64::from_le_bytes([kind, status, command, class, s0, s1, s2, s3]),
            u64::from(client) | u64::from(ttl as u32) << 32,
            u64::from(idle) | u64::from(len) << 32,
        ];
        let words = head
            .into_iter()
            .take(HEAD)
            .chain(text.chunks(8).map(|chunk| {
                let mut word = [0; 8];
                for (to, from) in word.iter_mut().zip(chunk) {
                    *to = *from;
                }
                u64::from_le_bytes(word)
            }));
        for (place, word) in slot.words.iter().zip(words) {
            place.store(word, Release);
        }
        slot.state
            .store(number.wrapping_mul(2).wrapping_add(2), Release);
        true
    }

    /// Reads the event of number `at`, or the oldest one that is left, and advances `at` past it.
    pub(crate) fn read(&self, at: &mut u64) -> NextEvent {
        let slots = self.slots.get().unwrap_or(&[]);
        let Some(slot) = Self::slot(slots, *at) else {
            return NextEvent::None;
        };
        let there = at.wrapping_mul(2).wrapping_add(2);
        let state = slot.state.load(Acquire);
        if state < there {
            return NextEvent::None;
        }
        let mut words = [0; HEAD + TEXT];
        for (to, from) in words.iter_mut().zip(&slot.words) {
            *to = from.load(Acquire);
        }
        let changed = slot.state.load(Relaxed) != there && !planted(Bug::OneLook);
        if state != there || changed {
            // Skip half of the ring, so that writers do not overtake this reader again at once.
            let left = self.next().saturating_sub(EVENTS as u64 / 2);
            let left = left.max(at.wrapping_add(1));
            let lost = left.wrapping_sub(*at);
            *at = left;
            return NextEvent::Lost(lost);
        }
        let number = *at;
        *at = at.wrapping_add(1);
        NextEvent::Event(unpack(number, &words))
    }
}

impl<P: Platform> Part<P> for EventLog {
    unsafe fn free(&self, platform: &P) {
        // SAFETY: the caller's promise.
        unsafe { self.slots.free(platform) }
    }
}

/// Unpacks an event that [`EventLog::push`] has packed.
fn unpack(number: u64, words: &[u64; HEAD + TEXT]) -> LoggedEvent {
    let (head, text) = words.split_at(HEAD);
    let word = |at: usize| head.get(at).copied().unwrap_or(0);
    let [kind, status, command, class, size @ ..] = word(1).to_le_bytes();
    let mut bytes = [[0; 8]; TEXT];
    for (to, from) in bytes.iter_mut().zip(text) {
        *to = from.to_le_bytes();
    }
    LoggedEvent {
        number,
        unix_us: word(0),
        event: Event {
            kind,
            status,
            command,
            class,
            client: word(2) as u32,
            size: u32::from_le_bytes(size),
            ttl: (word(2) >> 32) as i32,
            idle: word(3) as u32,
        },
        text: bytes,
        len: (word(3) >> 32) as usize,
    }
}

#[cfg(all(test, not(loom), feature = "host"))]
mod tests {
    use super::*;
    use crate::host::Host;

    fn log() -> (Host, EventLog) {
        let (host, log) = (Host::new(), EventLog::new());
        assert!(log.open(&host));
        (host, log)
    }

    fn done(host: &Host, log: &EventLog) {
        // SAFETY: the log was opened with this platform and is not used again.
        unsafe { log.free(host) };
    }

    #[test]
    fn an_event_comes_back_as_it_was_noted() {
        let (host, log) = log();
        let event = Event {
            kind: 1,
            status: 2,
            command: 3,
            class: 63,
            client: u32::MAX,
            size: 1 << 20,
            ttl: -1,
            idle: u32::MAX - 1,
        };
        let mut at = log.next();
        for key in [&[b'k'; KEY_MAX][..], b"", b"abc", b"12345678"] {
            assert!(log.push(u64::MAX, &event, key));
            let NextEvent::Event(found) = log.read(&mut at) else {
                panic!("no event");
            };
            assert_eq!((found.event, found.key()), (event, key));
            assert_eq!((found.unix_us, found.number + 1), (u64::MAX, at));
        }
        assert!(matches!(log.read(&mut at), NextEvent::None));
        done(&host, &log);
    }

    #[test]
    fn a_log_without_memory_takes_and_gives_nothing() {
        let log = EventLog::new();
        assert!(!log.push(0, &Event::default(), b"key"));
        assert!(matches!(log.read(&mut log.next()), NextEvent::None));
        assert_eq!(log.size(), 0);
    }

    #[test]
    fn an_overtaken_reader_gets_the_number_of_events_that_it_lost() {
        let (host, log) = log();
        let mut at = log.next();
        let all = 3 * EVENTS as u64 + 17;
        for n in 0..all {
            assert!(log.push(n, &Event::default(), b""));
        }
        let (mut read, mut lost, mut last) = (0, 0, 0);
        loop {
            match log.read(&mut at) {
                NextEvent::Event(event) => {
                    assert!(event.number > last);
                    last = event.number;
                    read += 1;
                }
                NextEvent::Lost(n) => lost += n,
                NextEvent::None => break,
            }
        }
        assert_eq!(read + lost, all);
        assert_eq!(read, EVENTS as u64 / 2);
        done(&host, &log);
    }

    #[test]
    fn a_writer_that_is_a_round_late_has_events_dropped_and_none_torn() {
        let (host, log) = log();
        let mut at = log.next();
        let slots = log.slots.get().unwrap();
        let (slot, late) = log.claim(slots).unwrap();
        for _ in 1..EVENTS {
            assert!(log.push(7, &Event::default(), b""));
        }
        // The next number's slot is still being written.
        assert!(!log.push(7, &Event::default(), b""));
        assert!(matches!(log.read(&mut at), NextEvent::None));
        slot.state.store(late * 2 + 2, Release);
        assert!(log.push(7, &Event::default(), b""));
        assert!(matches!(log.read(&mut at), NextEvent::Lost(_)));
        done(&host, &log);
    }
}
