// SPDX-License-Identifier: GPL-2.0-only
//! The proxy's parser of clients: the commands do not depend on how the stream is split, and what is sent to a node is
//! one request with one reply, whatever a client sends. (Otherwise a client could desynchronise the pipeline that all
//! clients share.)

use hippos_proto::token::Words;

use crate::batch::{Asks, Batch};
use crate::common::{play, TestEngine, WHOLE};
use crate::engine;
use crate::framing::{frame, Expect, Framed, BINARY_FENCE, FENCE};
use crate::session::{Command, Forward, Next, Session, Transport};

/// A byte that determines the split, then the stream.
pub(crate) const SEEDS: &[&[u8]] = &[
    b"\x03set a 1 0 3\r\nabc\r\nget a b\r\ngets a\r\ngat 5 a\r\n",
    b"\x05add a 0 0 1 noreply\r\nx\r\nset a 0 0 3\r\nabcdef\r\ncas a 0 0 1 7\r\nz\r\nincr a 1\r\ndelete a noreply\r\n",
    b"\x02ms a 2 T0 c\r\nhi\r\nmg a v k f c t q\r\nmn\r\nme a\r\nmd a q\r\nma n N0 J5 v\r\nmg Zm9v b k\r\n",
    b"\x01touch a 5\r\nflush_all 0\r\nverbosity 1\r\nversion\r\nstats settings\r\nslabs automove 1\r\nbogus\r\nquit\r\n",
    b"\x07set big 0 0 999999999\r\nset a 0 0 -1\r\nms b 9999999 c\r\nget a\rb c\0d\r\nget \xff\x01 \t\r\n",
    b"\x04\x80\x01\x00\x01\x08\x00\x00\x00\x00\x00\x00\x0b\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00ahi\x80\x11\x00\x01\x08\x00\x00\x00\x00\x00\x00\x0b\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00ahi\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00a",
    b"\x06\x80\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x80\x08\x00\x00\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x10get 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67\r\nmn\r\n",
];

/// The largest value.
const VALUE_MAX: u32 = 1 << 20;

pub(crate) fn front(data: &[u8]) {
    let Some((cut, input)) = data.split_first() else {
        return;
    };
    let engine = engine();
    let whole = commands(input, input.len(), Transport::Stream, Some(&engine));
    let piece = 1 + usize::from(*cut) % 97;
    let pieces = commands(input, piece, Transport::Stream, None);
    assert_eq!(whole, pieces, "pieces of {piece} bytes");
    commands(input, input.len(), Transport::Datagram, Some(&engine));
}

/// The commands of a stream that arrives in pieces; each request for a node is sent to `node`.
fn commands(
    input: &[u8],
    piece: usize,
    transport: Transport,
    node: Option<&TestEngine>,
) -> Vec<String> {
    let mut session = Session::new(transport, VALUE_MAX);
    let mut waiting = Vec::new();
    let mut all = Vec::new();
    let mut steps = 0;
    for part in input.chunks(piece.max(1)) {
        waiting.extend_from_slice(part);
        loop {
            steps += 1;
            assert!(steps <= 4 * input.len() + 16, "it never ends");
            let (taken, command) = match session.next(&waiting) {
                Next::More(_) => break,
                Next::Took(taken, command) => (taken, command),
            };
            assert!(taken <= waiting.len(), "more than there is");
            let over = matches!(command, Some(Command::Close));
            if let Some(command) = command {
                note(&command, &mut all);
                if let Some(node) = node {
                    send(&command, node);
                }
            }
            if over {
                return all;
            }
            waiting.drain(..taken);
        }
    }
    all
}

/// Adds a description that is the same for a list of keys in one piece and in several.
fn note(command: &Command<'_>, all: &mut Vec<String>) {
    match command {
        Command::Get {
            cas,
            touch,
            keys,
            end,
        } => {
            let keys = keys.map(|key| format!("key {cas} {touch:?} {}", key.escape_ascii()));
            all.extend(keys);
            if *end {
                all.push("end of keys END\\r\\n".to_owned());
            }
        }
        Command::EndOfKeys(line) => all.push(format!("end of keys {}", line.escape_ascii())),
        other => all.push(format!("{other:?}")),
    }
}

/// Sends a node what the proxy would, and checks that the proxy finds the end of the reply.
fn send(command: &Command<'_>, node: &TestEngine) {
    match command {
        Command::Forward(forward) => {
            let request = forward.parts.concat();
            same(forward, &request);
            exchange(node, &request, forward.expect, forward.fence);
        }
        Command::Broadcast {
            request, expect, ..
        } => drop(exchange(node, request, *expect, *expect == Expect::Line)),
        Command::Stats(b"proxy") => {}
        Command::Stats(argument) => {
            let request = [b"stats ", *argument, b"\r\n"].concat();
            exchange(node, &request, Expect::Listing, false);
        }
        Command::BinaryStats { request, .. } => {
            exchange(node, request, Expect::BinaryListing, false);
        }
        Command::Get {
            cas, touch, keys, ..
        } => get(node, *cas, *touch, *keys),
        Command::Say(_) | Command::Packet(_) | Command::EndOfKeys(_) | Command::Close => {}
    }
}

/// The request, parsed once more, is the same single command.
fn same(forward: &Forward<'_>, request: &[u8]) {
    let mut session = Session::new(Transport::Stream, VALUE_MAX);
    let Next::Took(taken, Some(Command::Forward(again))) = session.next(request) else {
        panic!("not one command: {:?}", request.escape_ascii().to_string());
    };
    assert_eq!(taken, request.len(), "a command and more");
    assert_eq!(again.parts.concat(), request);
    assert_eq!(again.key.bytes(), forward.key.bytes());
    assert_eq!(
        (again.expect, again.fence, again.write),
        (forward.expect, forward.fence, forward.write)
    );
}

/// The node's reply to one request, which must be one reply.
fn exchange(node: &TestEngine, request: &[u8], expect: Expect, fence: bool) -> Vec<u8> {
    let mut sent = request.to_vec();
    if fence {
        sent.extend_from_slice(match expect {
            Expect::Binary => &BINARY_FENCE,
            _ => FENCE,
        });
    }
    let seen = play(node, &sent, WHOLE);
    let text = || {
        let (request, reply) = (sent.escape_ascii(), seen.output.escape_ascii());
        format!("{expect:?} {request} is answered by {reply}")
    };
    assert!(!seen.closed, "{}", text());
    let limit = VALUE_MAX as usize + (64 << 10);
    match frame(&seen.output, expect, fence, limit) {
        Framed::Reply { taken, .. } => assert_eq!(taken, seen.output.len(), "{}", text()),
        other => panic!("{other:?}: {}", text()),
    }
    seen.output
}

/// Each key by itself, and all in batches.
fn get(node: &TestEngine, cas: bool, touch: Option<i32>, keys: Words<'_>) {
    let verb = if cas { "gets" } else { "get" };
    let asks = if cas { Asks::Gets } else { Asks::Get };
    let mut batch = Batch::new(asks, 0);
    for (number, key) in keys.enumerate() {
        let command = match touch {
            Some(time) => format!("{} {time} ", verb.replace('e', "a")),
            None => format!("{verb} "),
        };
        let request = [command.as_bytes(), key, b"\r\n"].concat();
        exchange(node, &request, Expect::Values, false);
        let hash = hippos_ring::Hash::Fnv1a32.of(key);
        if batch.push(key, hash, 1, number).is_err() {
            break;
        }
    }
    let request = batch.finish(1)[hippos_proto::udp::FRAME..].to_vec();
    let reply = exchange(node, &request, Expect::Values, false);
    let values = batch.values(&reply);
    assert!(values.is_some(), "no answer: {}", reply.escape_ascii());
}
