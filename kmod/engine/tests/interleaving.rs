// SPDX-License-Identifier: GPL-2.0-only
//! Another client's commands at a chosen moment of a command: right before the session enters a read-side section, as
//! it does for each lookup, or right before it locks a stripe, as it does for each write.

#[path = "../../store/tests/instrumented/mod.rs"]
mod instrumented;

use std::cell::{Cell, RefCell};

use hippos_engine::{
    Engine, Next, Out, Session, Settings, Transport, ENGINE_COUNTERS, REPLY_HEADER_MAX,
};
use hippos_store::host::Host;
use hippos_store::{Config, Counter, LockClass, Store};

use instrumented::{Instrumented, Watch, LOCKING};

type Hook = Box<dyn FnMut()>;
type LockHook = Box<dyn FnMut(usize)>;

std::thread_local! {
    /// Called before this thread enters a section, except from the hook itself.
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

struct Sections;

impl Watch for Sections {
    fn entering(&self) {
        if let Some(mut hook) = HOOK.take() {
            hook();
            HOOK.set(Some(hook));
        }
    }
}

type TestEngine = Engine<Instrumented<Sections>>;

fn engine() -> &'static TestEngine {
    let config = Config {
        tallies: ENGINE_COUNTERS,
        ..Config::default()
    };
    let platform = Instrumented {
        host: Host::new().poison(),
        watch: Sections,
    };
    let store = Store::new(config, platform).ok().unwrap();
    store.tick(100, 1_700_000_100);
    Box::leak(Box::new(Engine::new(store, Settings::default(), &())))
}

/// A sink that holds few bytes until they are sent.
#[derive(Default)]
struct Small(Vec<u8>);

impl Out for Small {
    fn room(&self) -> usize {
        REPLY_HEADER_MAX - self.0.len()
    }
    fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room());
        self.0.extend(bytes);
    }
}

/// The replies to `input` of a new client.
fn ask(engine: &TestEngine, input: &[u8]) -> String {
    let mut session = Session::new(engine, Transport::Tcp);
    let (mut input, mut replies) = (input, Vec::new());
    loop {
        let mut out = Small::default();
        let fed = session.feed(input, &mut out);
        input = &input[fed.consumed..];
        replies.append(&mut out.0);
        if fed.next == Next::Read {
            return String::from_utf8(replies).unwrap();
        }
    }
}

/// The same, with `hook` called before each section, with the number of sections before it.
fn ask_beside(engine: &TestEngine, input: &[u8], mut hook: impl FnMut(usize) + 'static) -> String {
    let sections = Cell::new(0);
    HOOK.set(Some(Box::new(move || {
        hook(sections.replace(sections.get() + 1));
    })));
    let replies = ask(engine, input);
    HOOK.set(None);
    replies
}

std::thread_local! {
    /// Called before this thread locks a stripe, except from the hook itself, with the number of such locks before it.
    static LOCKING_STRIPE: RefCell<Option<LockHook>> = const { RefCell::new(None) };
    static STRIPES_LOCKED: Cell<usize> = const { Cell::new(0) };
}

fn locking(class: LockClass) {
    if class != LockClass::Stripe {
        return;
    }
    if let Some(mut hook) = LOCKING_STRIPE.take() {
        hook(STRIPES_LOCKED.replace(STRIPES_LOCKED.get() + 1));
        LOCKING_STRIPE.set(Some(hook));
    }
}

/// The replies to `input` of a new client, with `hook` called before each lock of a stripe.
fn ask_beside_locks(
    engine: &TestEngine,
    input: &[u8],
    hook: impl FnMut(usize) + 'static,
) -> String {
    STRIPES_LOCKED.set(0);
    LOCKING_STRIPE.set(Some(Box::new(hook)));
    LOCKING.set(Some(locking));
    let replies = ask(engine, input);
    LOCKING.set(None);
    LOCKING_STRIPE.set(None);
    replies
}

fn set(len: usize) -> Vec<u8> {
    let value = "v".repeat(len);
    format!("set k 0 0 {len} noreply\r\n{value}\r\n").into_bytes()
}

#[test]
fn get_is_answered_when_its_value_goes_and_comes_back() {
    for command in [
        "get k",
        "gets k",
        "gat 0 k",
        "get other k",
        "gats 0 k other",
    ] {
        for gone in 0..8 {
            let engine = engine();
            ask(engine, &set(2000));
            let counted = || {
                let counted = engine.store.counted(Counter::GetMisses);
                counted + engine.store.counted(Counter::TouchMisses)
            };
            let before = counted();
            let line = format!("{command}\r\n");
            let said = ask_beside(engine, line.as_bytes(), move |section| {
                if section == gone {
                    ask(engine, b"delete k noreply\r\n");
                } else if section == gone + 1 {
                    ask(engine, &set(2000));
                }
            });
            let values = said.matches("VALUE").count();
            let lines = said.matches("\r\n").count();
            let what = format!("{command} {gone}: {said:?}");
            assert!(
                said.ends_with("END\r\n") && lines == 2 * values + 1,
                "{what}"
            );
            let keys = command.matches(['k', 'o']).count() as u64;
            assert_eq!(counted() - before, keys - values as u64, "{what}");
        }
    }
}

#[test]
fn joined_length_is_that_of_the_stored_value() {
    for mode in ["MA", "MP"] {
        for gone in [false, true] {
            let engine = engine();
            ask(engine, &set(10));
            let line = format!("ms k 2 {mode} s\r\nab\r\n");
            let said = ask_beside(engine, line.as_bytes(), move |_| {
                if ask(engine, b"mg k s\r\n") == "HD s12\r\n" {
                    ask(
                        engine,
                        if gone {
                            b"delete k\r\n".to_vec()
                        } else {
                            set(10)
                        }
                        .as_slice(),
                    );
                }
            });
            assert_eq!(said, "HD s12\r\n", "{mode} {gone}");
        }
    }
    assert_eq!(ask(engine(), b"ms k 2 MA N0 s\r\nab\r\n"), "HD s2\r\n");
}

#[test]
fn arithmetic_decides_by_one_item() {
    for (value, later, expected) in [
        ("1", "", "EX\r\n"),
        (
            "",
            "1",
            "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        ),
    ] {
        let engine = engine();
        let store = |value: &str| format!("ms k {} E7\r\n{value}\r\n", value.len());
        ask(engine, store(value).as_bytes());
        let later = store(later);
        let said = ask_beside(engine, b"ma k C5\r\n", move |section| {
            if section == 1 {
                ask(engine, later.as_bytes());
            }
        });
        assert_eq!(said, expected, "{value:?}");
    }
}

#[test]
fn tombstone_is_stored_beside_invalidations() {
    for (flags, number) in [("", "100"), (" E5", "5"), (" C8", "8")] {
        let engine = engine();
        ask(engine, b"ms k 5 E8\r\nvalue\r\n");
        let line = format!("md k x{flags}\r\n");
        let said = ask_beside_locks(engine, line.as_bytes(), move |before| {
            let number = match flags {
                " C8" => 8,
                _ => 100 + before,
            };
            let invalidate = format!("md k I E{number}\r\n");
            assert_eq!(ask(engine, invalidate.as_bytes()), "HD\r\n");
        });
        assert_eq!(said, "HD\r\n", "{flags:?}");
        // Neither stale nor with a token.
        let expected = format!("VA 0 c{number} s0\r\n\r\n");
        assert_eq!(ask(engine, b"mg k v c s\r\n"), expected, "{flags:?}");
    }
}

#[test]
fn tombstone_that_compares_is_refused_by_an_invalidation_in_between() {
    let engine = engine();
    ask(engine, b"ms k 5 E8\r\nvalue\r\n");
    let said = ask_beside_locks(engine, b"md k x C8\r\n", move |_| {
        ask(engine, b"md k I E9\r\n");
    });
    assert_eq!(said, "EX\r\n");
    assert!(ask(engine, b"mg k v\r\n").starts_with("VA 5"));
}

#[test]
fn tombstone_of_an_item_that_is_deleted_in_between_finds_none() {
    let engine = engine();
    ask(engine, &set(5));
    let said = ask_beside_locks(engine, b"md k x\r\n", move |_| {
        ask(engine, b"delete k\r\n");
    });
    assert_eq!(said, "NF\r\n");
    assert_eq!(ask(engine, b"mg k v\r\n"), "EN\r\n");
}

/// Another client creates the item right before it is created, and deletes it before the next lookup.
#[test]
fn creating_is_tried_again_when_the_item_comes_and_goes() {
    // The lookup of `mg` locks the stripe, too.
    for (command, locks, again, lost) in [
        (
            "ma k N0 v",
            1,
            "VA 1\r\n0\r\n",
            "SERVER_ERROR too many concurrent changes\r\n",
        ),
        ("mg k N0 s", 2, "HD s0 W\r\n", "EN\r\n"),
    ] {
        for races in [1, 3, 1000] {
            let engine = engine();
            let created = Cell::new(0);
            let line = format!("{command}\r\n");
            HOOK.set(Some(Box::new(move || {
                let locking = LOCKING.take();
                ask(engine, b"delete k noreply\r\n");
                LOCKING.set(locking);
            })));
            let said = ask_beside_locks(engine, line.as_bytes(), move |before| {
                if before % locks == locks - 1 && created.replace(created.get() + 1) < races {
                    ask(engine, b"set k 0 0 1 noreply\r\n1\r\n");
                }
            });
            HOOK.set(None);
            let expected = if races < 16 { again } else { lost };
            assert_eq!(said, expected, "{command} {races}");
        }
    }
}

/// One command copies a number at most 128 times, however often it begins again: here the item is stored before each
/// lock but the last of an update, is gone then, and is back when it is to be created.
#[test]
fn creating_and_counting_share_the_attempts_of_one_command() {
    for command in [&b"ma k N0 v\r\n"[..], b"ma k N0 MD D2\r\n"] {
        let engine = engine();
        ask(engine, b"set k 0 0 1 noreply\r\n1\r\n");
        let said = ask_beside_locks(engine, command, move |before| {
            let other: &[u8] = match before % 129 {
                127 => b"delete k noreply\r\n",
                _ => b"set k 0 0 1 noreply\r\n1\r\n",
            };
            ask(engine, other);
        });
        assert_eq!(said, "SERVER_ERROR too many concurrent changes\r\n");
        assert_eq!(STRIPES_LOCKED.get(), 129);
    }
}

/// The clock ticks before each lock: a reply shows the seconds that the client asked for.
#[test]
fn a_tick_within_a_command_does_not_show() {
    for (command, reply) in [
        ("ma k T10 t", "HD t10\r\n"),
        ("ma k t T10", "HD t50\r\n"),
        ("ma none N10 t", "HD t10\r\n"),
        ("mg k T10 t", "HD t10\r\n"),
        ("mg none N10 t", "HD t10 W\r\n"),
    ] {
        let engine = engine();
        ask(engine, b"set k 0 50 1\r\n1\r\n");
        let line = format!("{command}\r\n");
        let said = ask_beside_locks(engine, line.as_bytes(), move |_| {
            let (now, unix) = (engine.store.now(), engine.store.unix());
            engine.store.tick(now - 1, unix + 1);
        });
        assert_eq!(said, reply, "{command}");
    }
}
