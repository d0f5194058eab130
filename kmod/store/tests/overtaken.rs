// SPDX-License-Identifier: GPL-2.0-only
//! Another client's change of an item right before a command locks its stripe, each time that it does so.

mod instrumented;

use std::cell::{Cell, RefCell};
use std::sync::mpsc;
use std::thread;

use hippos_store::host::Host;
use hippos_store::{
    Arith, Arithmetic, ClassCounter, Commit, Config, Deleted, Expiry, Invalidate, ItemChange,
    LockClass, Outcome, Store, StoreMode,
};

use instrumented::{Instrumented, Watch, LOCKING};

const KEY: &[u8] = b"overtaken";
/// The hook acts so often at most, so that a command without a bound ends, too.
const MOST: usize = 1000;

struct Sections;

impl Watch for Sections {
    fn entering(&self) {
        if let Some(mut hook) = BEFORE_LOOKUP.take() {
            let locking = HOOK.take();
            hook();
            HOOK.set(locking);
            BEFORE_LOOKUP.set(Some(hook));
        }
    }
}

type TestStore = Store<Instrumented<Sections>>;
type Hook = Box<dyn FnMut(usize)>;

std::thread_local! {
    /// Called before this thread enters a section, except from the hook itself.
    static BEFORE_LOOKUP: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    /// How often the command has locked a stripe.
    static LOCKED: Cell<usize> = const { Cell::new(0) };
}

fn locking(class: LockClass) {
    if class != LockClass::Stripe {
        return;
    }
    // The hook's own locks are not the command's.
    if let Some(mut hook) = HOOK.take() {
        let before = LOCKED.replace(LOCKED.get() + 1);
        if before < MOST {
            hook(before);
        }
        HOOK.set(Some(hook));
    }
}

fn store() -> &'static TestStore {
    let platform = Instrumented {
        host: Host::new().poison(),
        watch: Sections,
    };
    let store = Store::new(Config::default(), platform).ok().unwrap();
    store.tick(100, 1_700_000_000);
    LOCKING.set(Some(locking));
    Box::leak(Box::new(store))
}

/// The result of a command with `hook` before each of its locks, and how many these were.
fn beside<R>(hook: impl FnMut(usize) + 'static, command: impl FnOnce() -> R) -> (R, usize) {
    LOCKED.set(0);
    HOOK.set(Some(Box::new(hook)));
    let result = command();
    HOOK.set(None);
    (result, LOCKED.get())
}

fn put(store: &TestStore, value: &[u8], commit: &Commit) -> Outcome {
    let hash = store.hash(KEY);
    let new = store.reserve(KEY, hash, 0, Expiry::NEVER, value.len());
    let mut new = new.unwrap();
    new.write(value);
    store.commit(new, commit).unwrap()
}

fn set(store: &TestStore, value: &[u8]) {
    put(store, value, &Commit::default());
}

fn increment(store: &TestStore, compare: Option<u64>) -> Arithmetic {
    let one = Arith {
        by: 1,
        compare,
        ..Arith::default()
    };
    store.arith(KEY, store.hash(KEY), &one).unwrap()
}

fn invalidate(store: &TestStore, new_cas: Option<u64>) {
    let how = Invalidate {
        new_cas,
        ..Invalidate::default()
    };
    let done = store.invalidate(KEY, store.hash(KEY), &how);
    assert!(matches!(done, Deleted::Deleted { .. }), "{done:?}");
}

fn delete(store: &TestStore) {
    store.delete(KEY, store.hash(KEY), None);
}

fn value(store: &TestStore) -> Vec<u8> {
    let guard = store.read();
    let item = store.peek(&guard, KEY, store.hash(KEY)).unwrap();
    item.value().to_vec()
}

#[test]
fn update_copies_once_beside_invalidations() {
    let store = store();
    for (mode, joined) in [(StoreMode::Append, b"12"), (StoreMode::Prepend, b"21")] {
        set(store, b"1");
        let (outcome, locked) = beside(
            move |_| invalidate(store, None),
            || put(store, b"2", &Commit::new(mode)),
        );
        assert!(matches!(outcome, Outcome::Stored { .. }), "{outcome:?}");
        assert_eq!((value(store), locked), (joined.to_vec(), 1), "{mode:?}");
    }
    set(store, b"1");
    let (outcome, locked) = beside(move |_| invalidate(store, None), || increment(store, None));
    assert!(matches!(outcome, Arithmetic::Value { value: 2, .. }));
    assert_eq!((value(store), locked), (b"2".to_vec(), 1));
}

/// The number is the client's at each lookup, and another one under each lock.
#[test]
fn update_that_compares_is_refused_by_an_invalidation_in_between() {
    let store = store();
    let numbered = Commit {
        new_cas: Some(7),
        ..Commit::default()
    };
    put(store, b"1", &numbered);
    let hook = move |_| invalidate(store, Some(8));
    BEFORE_LOOKUP.set(Some(Box::new(move || invalidate(store, Some(7)))));
    let (outcome, locked) = beside(hook, || increment(store, Some(7)));
    BEFORE_LOOKUP.set(None);
    assert!(matches!(outcome, Arithmetic::Exists { .. }), "{outcome:?}");
    assert_eq!((value(store), locked), (b"1".to_vec(), 1));

    put(store, b"1", &numbered);
    let append = Commit {
        mode: StoreMode::Append,
        compare: Some(7),
        ..Commit::default()
    };
    BEFORE_LOOKUP.set(Some(Box::new(move || invalidate(store, Some(7)))));
    let (outcome, locked) = beside(hook, || put(store, b"2", &append));
    BEFORE_LOOKUP.set(None);
    assert!(matches!(outcome, Outcome::Exists { .. }), "{outcome:?}");
    assert_eq!((value(store), locked), (b"1".to_vec(), 1));
}

#[test]
fn update_includes_an_increment_in_between() {
    let store = store();
    let once = move |before| {
        if before == 0 {
            increment(store, None);
        }
    };
    set(store, b"1");
    beside(once, || put(store, b"5", &Commit::new(StoreMode::Append)));
    assert_eq!(value(store), b"25");
    set(store, b"1");
    beside(once, || put(store, b"5", &Commit::new(StoreMode::Prepend)));
    assert_eq!(value(store), b"52");
    set(store, b"1");
    beside(once, || increment(store, None));
    assert_eq!(value(store), b"3");
}

#[test]
fn update_of_an_item_that_is_deleted_in_between_ends() {
    let store = store();
    let hook = move |_| delete(store);
    set(store, b"1");
    let (outcome, locked) = beside(hook, || increment(store, None));
    assert_eq!((outcome, locked), (Arithmetic::NotFound, 1));
    set(store, b"1");
    let append = Commit::new(StoreMode::Append);
    let (outcome, locked) = beside(hook, || put(store, b"2", &append));
    assert_eq!((outcome, locked), (Outcome::NotStored, 1));
}

/// It has tried 128 times then.
#[test]
fn update_ends_although_the_key_is_stored_each_time() {
    let store = store();
    set(store, b"1");
    for same_class in [true, false] {
        // Of another class, so that the copy's memory is not used again.
        let hook = move |before| {
            let len = if same_class { 1 } else { before % 2 * 1000 + 1 };
            set(store, &vec![b'1'; len]);
        };
        let append = Commit::new(StoreMode::Append);
        let (outcome, locked) = beside(hook, || put(store, b"2", &append));
        assert_eq!(outcome, Outcome::NotStored);
        assert!((64..=128).contains(&locked), "{locked}");
    }
    set(store, b"1");
    let hook = move |_| set(store, b"1");
    let (outcome, locked) = beside(hook, || increment(store, None));
    assert_eq!((outcome, locked), (Arithmetic::Contended, 128));
}

/// The item is there at each lookup of the append, and gone when it is to be joined, or the reverse.
#[test]
fn append_that_may_create_ends_although_the_key_comes_and_goes() {
    let store = store();
    set(store, b"1");
    let append = Commit {
        mode: StoreMode::Append,
        vivify: true,
        ..Commit::default()
    };
    let toggle = move |before: usize| match before % 2 {
        0 => delete(store),
        _ => set(store, b"1"),
    };
    let (outcome, locked) = beside(toggle, || put(store, b"2", &append));
    assert_eq!((outcome, locked), (Outcome::NotStored, 256));
}

/// A client has found the item valid when it expires, and extends its life; the crawler has found it expired by then, and
/// waits for the stripe.
#[test]
fn crawler_keeps_an_item_whose_life_was_extended_before_it_is_unlinked() {
    std::thread_local! {
        static WAITING: RefCell<Option<mpsc::Sender<()>>> = const { RefCell::new(None) };
    }
    fn waits(class: LockClass) {
        if class == LockClass::Stripe {
            if let Some(waiting) = WAITING.take() {
                waiting.send(()).unwrap();
            }
        }
    }
    let store = store();
    let hash = store.hash(KEY);
    let mut new = store.reserve(KEY, hash, 0, store.expiry(10), 1).unwrap();
    new.write(b"1");
    store.commit(new, &Commit::default()).unwrap();
    let mut crawler = None;
    let guard = store.read();
    let found = store.modify(&guard, KEY, hash, |_, _| {
        store.tick(120, 1_700_000_020);
        let (waiting, is_waiting) = mpsc::channel();
        crawler = Some(thread::spawn(move || {
            WAITING.set(Some(waiting));
            LOCKING.set(Some(waits));
            for _ in 0..100 {
                store.maintain();
            }
            assert!(WAITING.take().is_none(), "the crawler has passed the item");
        }));
        is_waiting.recv().unwrap();
        ItemChange {
            expiry: Some(store.expiry(100)),
            token: false,
        }
    });
    assert!(found.is_some());
    drop(guard);
    crawler.unwrap().join().unwrap();
    assert_eq!(value(store), b"1");
    assert_eq!(store.classes_counted(ClassCounter::Reclaimed), 0);
    // It is taken back when it expires at last.
    store.tick(300, 1_700_000_200);
    for _ in 0..100 {
        store.maintain();
    }
    assert_eq!(store.classes_counted(ClassCounter::Reclaimed), 1);
}

#[test]
fn store_is_sound_after_all_of_it() {
    let store = store();
    set(store, b"1");
    let append = Commit::new(StoreMode::Append);
    beside(move |_| set(store, b"1"), || put(store, b"2", &append));
    let census = store.verify().unwrap();
    assert_eq!((census.reserved, census.pinned), (0, 0));
}
