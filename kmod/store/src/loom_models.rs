// SPDX-License-Identifier: GPL-2.0-only
//! Models of the store's small parts, which loom runs through all interleavings and memory orders that it supports.
//! Each model also runs with a planted bug, to check that loom finds it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p hippos_store --lib loom_models`

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use std::alloc::Layout;
use std::boxed::Box;
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::Arc;
use loom::thread;

use crate::event_log::{Event, EventLog, NextEvent};
use crate::hash::Hash;
use crate::index::{Index, ResizeResult, Unchained, ENTRIES};
use crate::item::{Fields, Item, Slot, STALE, TOKEN_SENT};
use crate::platform::{Cookie, Platform, RawLock};
use crate::sync::{plant, Bug, Relaxed};
use crate::table::Part;
use crate::time::Expiry;

/// Runs a model as it is, and then with a planted bug, which must be found.
fn check(bug: Option<Bug>, model: impl Fn() + Sync + Send + Copy + 'static) {
    let run = move || {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    };
    plant(None);
    run();
    if let Some(bug) = bug {
        plant(bug.into());
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err();
        plant(None);
        assert!(found, "{bug:?} was not found");
    }
}

std::thread_local! {
    /// A planted bug: the lock admits every thread.
    static OPEN: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
}

struct ModelLock(AtomicBool);

impl Default for ModelLock {
    fn default() -> Self {
        Self(AtomicBool::new(false))
    }
}

// SAFETY: the flag is taken by a compare-exchange and cleared by its holder.
unsafe impl RawLock for ModelLock {
    fn lock(&self) {
        while !self.try_lock() {
            thread::yield_now();
        }
    }
    fn try_lock(&self) -> bool {
        if OPEN.get() {
            return true;
        }
        self.0
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A platform that only allocates tables.
struct Tables;

// SAFETY: tables come from the system's allocator; there are no blocks, sections or grace periods.
unsafe impl Platform for Tables {
    type Guard = ();
    type Lock = ModelLock;
    fn read_lock(&self) {}
    fn block_alloc(&self, _: usize) -> Option<NonNull<u8>> {
        None
    }
    unsafe fn block_free(&self, _: NonNull<u8>, _: usize) {}
    fn table_alloc(&self, bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe {
            std::alloc::alloc_zeroed(Layout::from_size_align(bytes, 4096).ok()?)
        })
    }
    unsafe fn table_free(&self, table: NonNull<u8>, bytes: usize) {
        if let Ok(layout) = Layout::from_size_align(bytes, 4096) {
            // SAFETY: the table came from `table_alloc`.
            unsafe { std::alloc::dealloc(table.as_ptr(), layout) };
        }
    }
    fn gp_start(&self) -> Cookie {
        Cookie(0)
    }
    fn gp_done(&self, _: Cookie) -> bool {
        true
    }
    fn gp_wait(&self) {}
    fn cpu(&self) -> usize {
        0
    }
    fn cpus(&self) -> usize {
        1
    }
}

/// Counts the readers in sections. This is coarser than RCU, because a grace period also waits for sections that began
/// after it, but a grace period is never shorter.
struct Sections(AtomicUsize);

impl Sections {
    fn enter(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
    fn wait(&self) {
        while self.0.fetch_add(0, Ordering::AcqRel) != 0 {
            thread::yield_now();
        }
    }
}

/// Buckets of a block in a model's index.
const BUCKETS: usize = 2;
type Model = Index<ModelLock>;

/// An index of one bucket, in segments of two, with two spare overflow buckets.
struct Rig {
    index: Model,
    blocks: Vec<NonNull<u8>>,
}

// SAFETY: the blocks are only kept to be freed.
unsafe impl Send for Rig {}
// SAFETY: as above.
unsafe impl Sync for Rig {}

fn layout() -> Layout {
    // loom's atomics are larger than the machine's: allow for buckets of any size.
    Layout::from_size_align(1 << 12, 4096).expect("a layout")
}

impl Rig {
    fn new(n: usize) -> Self {
        let index = Model::new(&Tables, 2, BUCKETS, 1).expect("an index").keep();
        index.init();
        let mut blocks = Vec::new();
        let mut block = || {
            // SAFETY: the layout is not empty.
            let at = NonNull::new(unsafe { std::alloc::alloc(layout()) }).expect("memory");
            blocks.push(at);
            at
        };
        // SAFETY: the blocks are large enough and live as long as the index.
        unsafe {
            assert!(index.add_segment(block(), 0));
            assert!(index.add_overflow(block(), 2));
        }
        index.open(n);
        Self { index, blocks }
    }

    fn insert(&self, item: usize) {
        let mut chain = self.index.lock(hash(item)).expect("a chain");
        let vacancy = chain.vacancy().expect("a place");
        chain.insert(vacancy, slot(item));
    }

    /// Whether a lookup finds the item. Only addresses are compared.
    fn has(&self, item: usize) -> bool {
        self.index.find(hash(item), |s| s == slot(item)).is_some()
    }

    fn split(&self) -> Unchained {
        let mut unchained = Unchained::new();
        let step = self
            .index
            .split(|s| hash(number(s)), |_| true, &mut unchained);
        assert_eq!(step, ResizeResult::Done);
        unchained
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for block in &self.blocks {
            // SAFETY: the block was allocated with this layout and is not used any more.
            unsafe { std::alloc::dealloc(block.as_ptr(), layout()) };
        }
        // SAFETY: the index is not used again.
        unsafe { self.index.free(&Tables) };
    }
}

/// Items are numbers in these models. If there are several buckets, the low bits select one.
fn hash(item: usize) -> Hash {
    Hash((item as u64) << 48 | item as u64)
}

fn slot(item: usize) -> Slot {
    // SAFETY: models look at addresses only.
    unsafe { Slot::new(NonNull::new(((item + 1) * 64) as *mut u8).expect("not null")) }
}

fn number(slot: Slot) -> usize {
    slot.address().get() / 64 - 1
}

/// A reader that finds an item may read it until its section ends, even if the item is replaced, retired and reused
/// meanwhile.
fn replace(grace: bool) {
    let rig = Arc::new(Rig::new(1));
    let sections = Arc::new(Sections(AtomicUsize::new(0)));
    // Two versions of the item of hash 1, at the addresses of items 1 and 2.
    let memory = Arc::new([UnsafeCell::new(0), UnsafeCell::new(7), UnsafeCell::new(0)]);
    rig.insert(1);
    let reader = {
        let (rig, sections, memory) = (rig.clone(), sections.clone(), memory.clone());
        thread::spawn(move || {
            sections.enter();
            let found = rig.index.find(hash(1), |s| {
                // SAFETY: loom checks it.
                memory[number(s)].with(|v| unsafe { *v }) == 7
            });
            assert!(found.is_some());
            sections.leave();
        })
    };
    // SAFETY: loom checks it.
    memory[2].with_mut(|v| unsafe { *v = 7 });
    {
        let mut chain = rig.index.lock(hash(1)).expect("a chain");
        let place = chain.find(|s| s == slot(1)).expect("it is there");
        chain.replace(&place, slot(2));
    }
    if grace {
        sections.wait();
    }
    // SAFETY: loom checks it.
    memory[1].with_mut(|v| unsafe { *v = 0xdb });
    reader.join().expect("the reader");
}

#[test]
fn replaced_items_stay_readable() {
    check(Some(Bug::RelaxedEntry), || replace(true));
}

#[test]
#[should_panic]
fn reuse_without_a_grace_period_is_found() {
    check(None, || replace(false));
}

/// A split moves one of two items while a reader looks for either.
fn split() {
    let rig = Arc::new(Rig::new(1));
    rig.insert(0);
    rig.insert(1);
    let reader = {
        let rig = rig.clone();
        thread::spawn(move || {
            assert!(rig.has(1));
            assert!(rig.has(0));
        })
    };
    rig.split();
    reader.join().expect("the reader");
    assert_eq!(rig.index.buckets(), 2);
}

#[test]
fn readers_find_what_a_split_moves() {
    check(Some(Bug::LateCopy), split);
}

#[test]
fn readers_look_again_after_a_split() {
    check(Some(Bug::NoRetry), split);
}

#[test]
fn splits_clear_last() {
    check(Some(Bug::EarlyClear), split);
}

/// Two threads try to grow the index at the same time: one grows it, the other may, and no item is lost.
#[test]
fn splits_do_not_overlap() {
    check(None, || {
        let rig = Arc::new(Rig::new(1));
        rig.insert(0);
        rig.insert(1);
        let grow = |rig: &Rig| {
            let mut unchained = Unchained::new();
            rig.index
                .split(|s| hash(number(s)), |_| true, &mut unchained)
        };
        let other = {
            let rig = rig.clone();
            thread::spawn(move || grow(&rig))
        };
        let mine = grow(&rig);
        // A third attempt while one of them may still run.
        let third = grow(&rig);
        let steps = [mine, third, other.join().expect("the other")];
        let done = steps.iter().filter(|s| **s == ResizeResult::Done).count();
        assert_eq!(rig.index.buckets(), 1 + done);
        assert!(rig.has(0) && rig.has(1));
    });
}

/// A split moves an item that stays from an overflow bucket to the bucket itself, while a reader looks for it.
fn fold() {
    let rig = Arc::new(Rig::new(1));
    for i in 0..ENTRIES {
        rig.insert(i * 2 + 1);
    }
    // The eighth item goes to an overflow bucket, and stays when all others move.
    rig.insert(0);
    let reader = {
        let rig = rig.clone();
        thread::spawn(move || assert!(rig.has(0)))
    };
    let unchained = rig.split();
    assert_eq!(unchained.len(), 1);
    reader.join().expect("the reader");
    assert!((0..ENTRIES).all(|i| rig.has(i * 2 + 1)) && rig.has(0));
}

#[test]
fn readers_find_what_leaves_an_overflow_bucket() {
    check(Some(Bug::LateHead), fold);
}

/// A merge brings items back while a reader looks for them.
fn merge() {
    let rig = Arc::new(Rig::new(2));
    rig.insert(0);
    rig.insert(1);
    let reader = {
        let rig = rig.clone();
        thread::spawn(move || {
            assert!(rig.has(1));
            assert!(rig.has(0));
        })
    };
    let mut unchained = Unchained::new();
    let step = rig
        .index
        .merge(|s| hash(number(s)), || Cookie(0), |_| true, &mut unchained);
    assert_eq!(step, ResizeResult::Done);
    reader.join().expect("the reader");
}

#[test]
fn readers_find_what_a_merge_moves() {
    check(Some(Bug::LateMerge), merge);
}

/// Two writers in one bucket, of which one makes it overflow, beside a reader of an item that stays.
fn writers() {
    let rig = Arc::new(Rig::new(1));
    for i in 0..ENTRIES - 1 {
        rig.insert(i);
    }
    let writer = {
        let rig = rig.clone();
        thread::spawn(move || rig.insert(10))
    };
    rig.insert(11);
    assert!(rig.has(0));
    writer.join().expect("the writer");
    assert!((0..ENTRIES - 1).all(|i| rig.has(i)));
    assert!(rig.has(10) && rig.has(11));
}

#[test]
fn writers_of_a_bucket_do_not_lose_entries() {
    check(None, writers);
}

#[test]
#[should_panic]
fn an_open_lock_is_found() {
    OPEN.set(true);
    check(None, writers);
}

/// A writer that empties an overflow bucket and unchains it, beside a reader of another item.
#[test]
fn readers_pass_an_emptied_overflow_bucket() {
    check(None, || {
        let rig = Arc::new(Rig::new(1));
        for i in 0..=ENTRIES {
            rig.insert(i);
        }
        let reader = {
            let rig = rig.clone();
            thread::spawn(move || {
                assert!(rig.has(3));
                rig.has(ENTRIES)
            })
        };
        let emptied: Option<NonZeroUsize> = {
            let mut chain = rig.index.lock(hash(ENTRIES)).expect("a chain");
            let place = chain.find(|s| s == slot(ENTRIES)).expect("it is there");
            chain.remove(&place)
        };
        assert!(emptied.is_some());
        reader.join().expect("the reader");
        assert!(!rig.has(ENTRIES));
    });
}

/// A header in memory of its own.
fn header() -> Slot {
    let room: Box<[u64; 64]> = Box::new([0; 64]);
    let at = NonNull::from(Box::leak(room)).cast();
    // SAFETY: the memory is large enough for loom's atomics, and leaked.
    let slot = unsafe { Slot::carve(at) };
    slot.publish(0);
    slot
}

/// A hit that comes late must not revive a retired item; the hand may see the hit or not.
#[test]
fn hit_does_not_relink_evicted_item() {
    check(Some(Bug::TornMark), || {
        let slot = header();
        let reader = thread::spawn(move || slot.hit(1, 5));
        // As the hand does.
        let refs = &slot.header().refs;
        if refs.load(Relaxed) != 0 {
            refs.store(0, Relaxed);
        }
        slot.retire();
        reader.join().expect("the reader");
        assert!(!slot.is_live());
    });
}

/// A slot that was hit before the hand came is not picked.
#[test]
fn clock_gives_second_chance_to_hit_items() {
    check(None, || {
        let slot = header();
        let reader = thread::spawn(move || slot.hit(1, 5));
        reader.join().expect("the reader");
        assert_ne!(slot.header().refs.load(Relaxed), 0);
        assert_eq!(slot.header().atime.load(Relaxed), 5);
    });
}

/// A reader sees an invalidation completely or not at all, or that it is in progress.
#[test]
fn a_snapshot_is_of_one_moment() {
    check(Some(Bug::UnmarkedChange), || {
        let slot = header();
        slot.header().cas.store(1, Relaxed);
        let writer = thread::spawn(move || {
            slot.change(&Fields {
                cas: Some(2),
                expiry: Some(Expiry(20)),
                set: STALE,
                clear: TOKEN_SENT,
            });
        });
        // SAFETY: the slot stays live.
        let item = unsafe { Item::new(slot, 0) };
        if let Some(seen) = item.snapshot() {
            let seen = (seen.cas(), seen.ttl(), seen.stale());
            let (before, after) = ((1, None, false), (2, Some(20), true));
            assert!(seen == before || seen == after, "{seen:?}");
        }
        writer.join().expect("the writer");
    });
}

/// The same if the CAS number does not change, because the client chose it.
#[test]
fn a_snapshot_under_one_number_is_of_one_moment() {
    check(Some(Bug::UnmarkedChange), || {
        let slot = header();
        slot.header().cas.store(1, Relaxed);
        let writer = thread::spawn(move || {
            slot.change(&Fields {
                cas: Some(1),
                expiry: Some(Expiry(20)),
                set: STALE,
                clear: TOKEN_SENT,
            });
        });
        // SAFETY: the slot stays live.
        let item = unsafe { Item::new(slot, 0) };
        if let Some(seen) = item.snapshot() {
            assert_eq!(seen.ttl() == Some(20), seen.stale());
        }
        writer.join().expect("the writer");
    });
}

/// A hit concurrent with a change in place does not undo any of it.
#[test]
fn a_hit_does_not_undo_a_change() {
    check(Some(Bug::TornMark), || {
        let slot = header();
        let reader = thread::spawn(move || slot.hit(1, 5));
        slot.change(&Fields {
            set: TOKEN_SENT,
            ..Fields::default()
        });
        reader.join().expect("the reader");
        assert_ne!(slot.marks() & TOKEN_SENT, 0);
    });
}

/// A pin taken in a section keeps the slot from being reused after it.
fn pin(wait: bool) {
    let slot = header();
    let sections = Arc::new(Sections(AtomicUsize::new(0)));
    let linked = Arc::new(AtomicBool::new(true));
    let memory = Arc::new(UnsafeCell::new(7));
    let reader = {
        let (sections, linked, memory) = (sections.clone(), linked.clone(), memory.clone());
        thread::spawn(move || {
            sections.enter();
            let found = linked.load(Ordering::Acquire);
            if found {
                // SAFETY: the section keeps it.
                let _ = unsafe { Item::new(slot, 0) }.pin().expect("a pin");
            }
            sections.leave();
            if found {
                // SAFETY: loom checks it.
                assert_eq!(memory.with(|v| unsafe { *v }), 7);
                slot.unpin();
            }
        })
    };
    linked.store(false, Ordering::Release);
    slot.retire();
    if wait {
        sections.wait();
    }
    if !slot.pinned() {
        // SAFETY: loom checks it.
        memory.with_mut(|v| unsafe { *v = 0xdb });
    }
    reader.join().expect("the reader");
}

#[test]
fn pinned_slots_are_not_reused() {
    check(None, || pin(true));
}

#[test]
#[should_panic]
fn early_pin_check_is_detected() {
    check(None, || pin(false));
}

/// Logs events, and returns how many were kept.
fn write(log: &EventLog, times: core::ops::Range<u64>) -> u64 {
    let keep = |time: u64| log.push(time, &Event::default(), &time.to_le_bytes());
    times.filter(|time| keep(*time)).count() as u64
}

/// The number of events that were read or lost until the log is at its end.
fn read(log: &EventLog, at: &mut u64) -> u64 {
    match log.read(at) {
        NextEvent::Event(event) => {
            assert_eq!(event.key_word(), event.unix_us, "a torn event");
            1
        }
        NextEvent::Lost(lost) => lost,
        NextEvent::None => 0,
    }
}

/// A reader that a writer overtakes never sees a torn event.
#[test]
fn events_are_read_whole_or_lost() {
    check(Some(Bug::OneLook), || {
        let log = Arc::new(EventLog::new());
        assert!(log.open(&Tables));
        let first = log.next();
        let reading = {
            let log = log.clone();
            thread::spawn(move || {
                let mut at = first;
                read(&log, &mut at);
                read(&log, &mut at);
            })
        };
        write(&log, 1..4);
        reading.join().expect("the reader");
        // SAFETY: the log is not used again.
        unsafe { log.free(&Tables) };
    });
}

/// Two writers that collide use each number once and skip none: every event is read or reported as lost.
#[test]
fn each_event_is_read_or_lost() {
    check(Some(Bug::BlindHelp), || {
        let log = Arc::new(EventLog::new());
        assert!(log.open(&Tables));
        let mut at = log.next();
        let writing = {
            let log = log.clone();
            thread::spawn(move || write(&log, 10..11))
        };
        let kept = write(&log, 1..4) + writing.join().expect("a writer");
        let mut seen = 0;
        loop {
            match read(&log, &mut at) {
                0 => break,
                some => seen += some,
            }
        }
        assert_eq!(seen, kept);
        // SAFETY: the log is not used again.
        unsafe { log.free(&Tables) };
    });
}
