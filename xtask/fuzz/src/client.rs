//! An engine on the host, and a client of its sessions.

use hippos_engine::{Engine, Message, Next, Out, Session, Settings, Transport, TALLIES};
use hippos_store::host::Host;
use hippos_store::{Config, Store};

/// An engine of the least memory, which shows whoever reads freed memory.
pub(crate) fn engine() -> Engine<Host> {
    let config = Config {
        memory: 8 << 20,
        seed: [1, 2, 3, 4],
        tallies: TALLIES,
        ..Config::default()
    };
    let store = Store::new(config, Host::new().poison()).expect("a store");
    store.tick(100, 1_700_000_100);
    Engine::new(store, Settings::default(), &())
}

/// Replies, of which only so many bytes are kept before they are sent.
pub(crate) struct Small {
    pub(crate) waiting: Vec<u8>,
    pub(crate) most: usize,
}

impl Out for Small {
    fn room(&self) -> usize {
        self.most - self.waiting.len()
    }

    fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "more than there is room for");
        self.waiting.extend_from_slice(bytes);
    }
}

impl Message for Small {
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// What a client saw.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) output: Vec<u8>,
    pub(crate) closed: bool,
}

/// Sends `input` in pieces over one connection, and reads as it goes.
pub(crate) fn play(engine: &Engine<Host>, input: &[u8], piece: usize, room: usize) -> Seen {
    let mut session = Session::new(engine, Transport::Tcp);
    let mut out = Small {
        waiting: Vec::new(),
        most: room,
    };
    let mut seen = Seen::default();
    let mut unread: Vec<u8> = Vec::new();
    for piece in input.chunks(piece.max(1)) {
        unread.extend_from_slice(piece);
        loop {
            let fed = session.feed(&unread, &mut out);
            assert!(fed.consumed <= unread.len(), "consumed more than there was");
            let stuck = out.waiting.is_empty() && fed.consumed == 0;
            unread.drain(..fed.consumed);
            seen.output.append(&mut out.waiting);
            match fed.next {
                Next::Read => break,
                Next::Write => assert!(!stuck, "wants room and has it all"),
                Next::Close => {
                    seen.closed = true;
                    return seen;
                }
            }
        }
        assert!(unread.len() <= 2049, "{} bytes kept", unread.len());
    }
    seen
}
