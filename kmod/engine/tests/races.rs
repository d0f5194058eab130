// SPDX-License-Identifier: GPL-2.0-only
//! Each form of a reader concurrent with each write that changes an item in place: a reply is framed as it announces,
//! despite the changes meanwhile, and no write that was acknowledged is lost.

mod common;

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::Mutex;
use std::thread;

use common::{
    engine, fast, framed, message, planned, play, say, slow, Client, InPlaceOut, TestEngine, START,
    WHOLE,
};
use hippos_conformance::packet::request as binary;
use hippos_conformance::races::{is_framed, readers, writers, Form, ITEMS};
use hippos_engine::{Next, PlanOutcome, Session, Transport, REPLY_HEADER_MAX};

/// Replies for each pair of reader and writer, on each receive path.
const ROUNDS: usize = 200;

/// `HIPPOS_STRESS` lengthens the runs by a factor.
fn rounds() -> usize {
    let factor = std::env::var("HIPPOS_STRESS").ok();
    let factor = factor.and_then(|text| text.parse().ok()).unwrap_or(1);
    ROUNDS * factor
}

/// Runs `read` with each form of a reader while `writes` are sent.
fn beside(engine: &TestEngine, writes: &[Vec<u8>], read: impl Fn(Form, &[u8])) {
    let done = &AtomicBool::new(false);
    let ready = &AtomicBool::new(false);
    struct End<'d>(&'d AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut client = Client::new(engine, 1 << 16);
            for write in writes.iter().cycle() {
                client.send(write);
                client.seen.output.clear();
                ready.store(true, Relaxed);
                if done.load(Relaxed) {
                    break;
                }
            }
        });
        let _end = End(done);
        while !ready.load(Relaxed) {
            thread::yield_now();
        }
        for (form, request) in readers() {
            for _ in 0..rounds() {
                read(form, &request);
            }
        }
    });
}

fn filled() -> TestEngine {
    let engine = engine();
    play_whole(&engine, ITEMS);
    engine
}

/// Fails with the request and its reply if the reply is malformed.
fn whole(form: Form, request: &[u8], seen: &[u8]) {
    assert!(
        is_framed(form, seen),
        "{}: {}",
        request.escape_ascii(),
        seen.escape_ascii()
    );
}

/// On the fast path's ways to answer a datagram, and on the worker's.
#[test]
fn datagrams_are_framed_beside_writes_in_place() {
    let engine = &filled();
    for writes in writers() {
        beside(engine, &writes, |form, request| {
            let payload = &framed(request);
            for (verdict, datagrams) in [fast(engine, payload), planned(engine, payload)] {
                if verdict == PlanOutcome::Answer {
                    whole(form, request, &message(&datagrams));
                }
            }
            whole(form, request, &message(&slow(engine, payload)));
        });
    }
}

/// On a connection: in the callback and in the worker, into one buffer and into one that grows.
#[test]
fn connections_are_framed_beside_writes_in_place() {
    let engine = &filled();
    for writes in writers() {
        beside(engine, &writes, |form, request| {
            let mut session = Session::new(engine, Transport::Tcp);
            let mut out = InPlaceOut::new(2 * REPLY_HEADER_MAX);
            if session.feed_softirq(request, 64, &mut out) != 0 {
                whole(form, request, out.written());
            }
            let mut out = InPlaceOut::new(4 * REPLY_HEADER_MAX);
            let mut fed = session.feed(request, &mut out);
            // A dump of many slots yields to other clients before it continues.
            while form == Form::Dump && fed.next == Next::Write {
                let more = session.feed(&request[fed.consumed..], &mut out);
                fed.consumed += more.consumed;
                fed.next = more.next;
            }
            assert_eq!((fed.consumed, fed.next), (request.len(), Next::Read));
            whole(form, request, out.written());
            whole(form, request, &play(engine, request, WHOLE).output);
        });
    }
}

/// Runs two requests at once, `tries` times: `prepare`, then both, then `check` with the reply to each. A failure names
/// the try.
fn at_once(
    engine: &TestEngine,
    tries: usize,
    (mine, other): (&[u8], &[u8]),
    prepare: impl Fn(),
    check: impl Fn(&[u8], &[u8]) -> Result<(), String>,
) {
    let turn = &AtomicUsize::new(0);
    let answer = &Mutex::new(Vec::new());
    let wait = |goal: usize| {
        for spins in 0usize.. {
            let now = turn.load(Acquire);
            if now >= goal {
                return now;
            }
            if spins > 100 {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
        usize::MAX
    };
    struct End<'t>(&'t AtomicUsize);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(usize::MAX, Relaxed);
        }
    }
    thread::scope(|scope| {
        scope.spawn(move || {
            for try_ in 0..tries {
                // Odd: go. Even: done.
                if wait(2 * try_ + 1) == usize::MAX {
                    return;
                }
                let seen = play(engine, other, WHOLE);
                *answer.lock().unwrap() = seen.output;
                if turn.load(Acquire) != usize::MAX {
                    turn.fetch_add(1, AcqRel);
                }
            }
        });
        let _end = End(turn);
        for try_ in 0..tries {
            prepare();
            turn.fetch_add(1, AcqRel);
            let seen = play(engine, mine, WHOLE);
            wait(2 * try_ + 2);
            if let Err(error) = check(&seen.output, &answer.lock().unwrap()) {
                panic!(
                    "try {}: {} beside {}: {error}",
                    try_ + 1,
                    mine.escape_ascii(),
                    other.escape_ascii()
                );
            }
        }
    });
}

/// Like `say`, for input that may begin with a binary request.
fn play_whole(engine: &TestEngine, input: &[u8]) -> Vec<u8> {
    play(engine, input, WHOLE).output
}

/// A client whose touch was acknowledged finds the new expiry, whichever update replaced the item.
#[test]
fn a_touch_is_not_lost_to_an_update() {
    let engine = &engine();
    let expiry = 1000u32.to_be_bytes();
    let touches: [&[u8]; 8] = [
        b"touch k 1000\r\n",
        b"gat 1000 k\r\n",
        b"gats 1000 k other\r\n",
        b"mg k T1000\r\n",
        b"mg k v c T1000 N30 R5\r\n",
        &binary(0x1c, &expiry, b"k"),
        &binary(0x1d, &expiry, b"k"),
        &binary(0x23, &expiry, b"k"),
    ];
    let updates: [&[u8]; 5] = [
        b"incr k 1\r\n",
        b"append k 0 0 1\r\n1\r\n",
        b"prepend k 0 0 1\r\n1\r\n",
        b"ma k\r\n",
        b"ms k 2 I C7\r\n11\r\n",
    ];
    for touch in touches {
        for update in updates {
            let prepare = || {
                play_whole(engine, b"ms k 2 T5 E9\r\n10\r\n");
            };
            at_once(engine, 500, (touch, update), prepare, |touched, updated| {
                let ttl = play_whole(engine, b"mg k t\r\n");
                if ttl.starts_with(b"HD t1000") {
                    return Ok(());
                }
                Err(format!(
                    "{}, {}, then {}",
                    touched.escape_ascii(),
                    updated.escape_ascii(),
                    ttl.escape_ascii()
                ))
            });
        }
    }
}

fn has(reply: &[u8], flag: &str) -> bool {
    let text = String::from_utf8_lossy(reply);
    text.split_ascii_whitespace().any(|word| word == flag)
}

/// Tries for each pair that competes for a token: the race window is a few instructions.
const TOKENS: usize = 2000;

/// Of two clients that read a stale item exactly one gets the token, even if an update replaces the item.
#[test]
fn a_token_has_one_winner_beside_an_update() {
    let engine = &engine();
    for update in ["incr k 1", "ma k", "ma k T90", "md k I T90\r\nmg k"] {
        let prepare = || {
            play_whole(engine, b"set k 0 0 2\r\n10\r\nmd k I\r\n");
        };
        let update = format!("{update}\r\n");
        at_once(
            engine,
            TOKENS * rounds() / ROUNDS,
            (b"mg k\r\n", update.as_bytes()),
            prepare,
            |first, updated| {
                let last = play_whole(engine, b"mg k\r\n");
                let again = updated.windows(3).any(|three| three == b"HD ");
                let winners = [first, updated, &last]
                    .iter()
                    .filter(|r| has(r, "W"))
                    .count();
                // An invalidation takes the token back, so that one more client may win it.
                if winners == 1 || again && winners == 2 {
                    return Ok(());
                }
                Err(format!("{winners} winners"))
            },
        );
    }
}

/// A client that wins a token sees the state that the token is for: the token is not taken from an item that was
/// invalidated after the lookup.
#[test]
fn a_token_is_won_for_what_was_seen() {
    let engine = &engine();
    let prepare = || {
        play_whole(engine, b"set k 0 100 2\r\n10\r\n");
    };
    for invalidate in ["md k I", "md k I T50", "md k I E5"] {
        let invalidate = format!("{invalidate}\r\n");
        let reader = b"mg k R1000\r\n";
        at_once(
            engine,
            TOKENS * rounds() / ROUNDS,
            (reader, invalidate.as_bytes()),
            prepare,
            |seen, _| {
                let next = play_whole(engine, b"mg k\r\n");
                let right = has(seen, "W") && (has(seen, "X") != has(&next, "W"));
                if right {
                    return Ok(());
                }
                let (seen, next) = (seen.escape_ascii(), next.escape_ascii());
                Err(format!("{seen}, then {next}"))
            },
        );
    }
}

#[test]
fn time_to_live_is_what_was_set_while_the_clock_ticks() {
    let engine = engine();
    let stop = AtomicBool::new(false);
    let round_began = AtomicU32::new(100);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut second = 101;
            while !stop.load(Relaxed) {
                // While the other thread does not run, the item may not expire.
                if second > round_began.load(Relaxed) + 1_000_000 {
                    thread::yield_now();
                    continue;
                }
                engine.store.tick(second, START + i64::from(second));
                second += 1;
            }
        });
        let line = "ms k 1\r\nx\r\nmg k T2500000 t\r\nmd k\r\nmg k N2500000 t\r\nmd k\r\n";
        let expected = "HD\r\nHD t2500000\r\nHD\r\nHD t2500000 W\r\nHD\r\n";
        let wrong: Vec<String> = (0..100 * rounds())
            .map(|_| {
                round_began.store(engine.store.now(), Relaxed);
                say(&engine, line)
            })
            .filter(|said| said != expected)
            .collect();
        stop.store(true, Relaxed);
        assert!(wrong.is_empty(), "{}: {:?}", wrong.len(), wrong[0]);
    });
}
