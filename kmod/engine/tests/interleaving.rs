// SPDX-License-Identifier: GPL-2.0-only
//! What another client does at a chosen moment of a command: right before the session enters a read-side section, as
//! it does for each lookup.

#[path = "../../store/tests/instrumented/mod.rs"]
mod instrumented;

use std::cell::{Cell, RefCell};

use hippos_engine::{
    Engine, Next, Out, Session, Settings, Transport, ENGINE_COUNTERS, REPLY_HEADER_MAX,
};
use hippos_store::host::Host;
use hippos_store::{Config, Counter, Store};

use instrumented::{Instrumented, Watch};

type Hook = Box<dyn FnMut()>;

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
