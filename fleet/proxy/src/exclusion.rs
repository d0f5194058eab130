// SPDX-License-Identifier: MIT

//! Mutual exclusion: misses that only one client may fill, and locks.
//!
//! The state of both is in the node's item, so they hold across workers and proxies. A miss is requested with
//! memcached's `N`, which lets one reader win the token and shows that to the others. A lock is an item that `add`
//! created, whose owner is the connection; its CAS value is the token that is needed to extend or release it.

use hippos_proto::number::{parse_u32, parse_u64};
use hippos_proto::reply;
use hippos_proto::text::{self, Request};
use hippos_proto::token::Words;
use hippos_proto::StoreMode;

use crate::client::{Client, ReplyShape, Waiter};
use crate::dispatch::DispatchResult;
use crate::framing::Expect;
use crate::job::{JobKind, JobStep, OwnedAnswer};
use crate::route::Class;
use crate::worker::Worker;

/// The most locks of a connection, and the most bytes of a lock's value.
const LOCKS_MAX: usize = 64;
const TOKEN_MAX: u32 = 1024;

const NO_LOCK: &[u8] =
    b"CLIENT_ERROR locks are taken by add, kept by touch, given back by delete\r\n";
const TOO_MANY: &[u8] = b"SERVER_ERROR too many locks\r\n";

/// The pause, in microseconds, before the first check for a value that another client is filling; it doubles with each
/// check.
const PAUSE: u64 = 1000;
const PAUSE_MAX: u64 = 20_000;

/// A GET that waits for the client that fills the value.
#[derive(Debug)]
pub(crate) struct Flight {
    cas: bool,
    /// The end of its wait.
    until: u64,
    pause: u64,
    /// How long the filling client may take, in seconds.
    fill: u64,
}

/// The reply to `mg KEY N f c v`.
#[derive(Debug, PartialEq, Eq)]
struct Found<'a> {
    flags: u32,
    cas: u64,
    /// This client has to fill it.
    won: bool,
    /// Another client is filling it.
    taken: bool,
    stale: bool,
    data: &'a [u8],
}

fn found(bytes: &[u8]) -> Option<Found<'_>> {
    let end = bytes.iter().position(|&byte| byte == b'\r')?;
    let mut words = Words::new(bytes[..end].strip_prefix(b"VA ")?);
    let len = parse_u32(words.next()?)? as usize;
    let data = bytes.get(end + 2..)?.strip_suffix(b"\r\n")?;
    let mut found = Found {
        flags: 0,
        cas: 0,
        won: false,
        taken: false,
        stale: false,
        data,
    };
    for word in words {
        match word.split_first()? {
            (b'f', number) => found.flags = parse_u32(number)?,
            (b'c', number) => found.cas = parse_u64(number)?,
            (b'W', _) => found.won = true,
            (b'Z', _) => found.taken = true,
            (b'X', _) => found.stale = true,
            _ => return None,
        }
    }
    (data.len() == len).then_some(found)
}

impl Flight {
    pub(crate) fn request(&self, key: &[u8]) -> Vec<u8> {
        let flags = format!(" N{} f c v\r\n", self.fill);
        [&b"mg "[..], key, flags.as_bytes()].concat()
    }

    pub(crate) fn take(&mut self, key: &[u8], answer: OwnedAnswer, now: u64) -> JobStep {
        let OwnedAnswer::Reply(bytes) = &answer else {
            return JobStep::end(answer);
        };
        let Some(found) = found(bytes) else {
            return JobStep::end(OwnedAnswer::Error(bytes.clone()));
        };
        let miss = || JobStep::end(OwnedAnswer::Reply(Vec::new()));
        if found.won {
            return miss();
        }
        // It was created by a miss and is not filled yet; a stale item has a value.
        if found.taken && (!found.stale || found.data.is_empty()) {
            if now >= self.until {
                return miss();
            }
            let wake = (now + self.pause).min(self.until);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            return JobStep {
                wake: Some(wake),
                ..JobStep::default()
            };
        }
        let mut value = format!(
            "VALUE {} {} {}",
            String::from_utf8_lossy(key),
            found.flags,
            found.data.len()
        );
        if self.cas {
            value += &format!(" {}", found.cas);
        }
        let value = [value.as_bytes(), reply::CRLF, found.data, reply::CRLF].concat();
        JobStep::end(OwnedAnswer::Reply(value))
    }
}

/// A lock that a client holds.
#[derive(Clone, Debug)]
pub(crate) struct Lock {
    key: Vec<u8>,
    cas: u64,
    flags: u32,
    data: Vec<u8>,
}

/// A lock operation in flight.
#[derive(Debug)]
pub(crate) enum LockOperation {
    Take(Lock),
    Keep(Lock),
    GiveBack,
}

impl LockOperation {
    /// The reply to the client, and the lock that it holds then.
    pub(crate) fn take(&mut self, answer: OwnedAnswer) -> JobStep {
        let OwnedAnswer::Reply(bytes) = &answer else {
            return JobStep::end(answer);
        };
        let cas = bytes
            .strip_prefix(b"HD c")
            .and_then(|rest| parse_u64(rest.strip_suffix(b"\r\n")?));
        // Error replies have flags too.
        let gone = matches!(bytes.get(..2), Some(b"EX" | b"NF" | b"NS"));
        if let (Some(cas), LockOperation::Take(lock) | LockOperation::Keep(lock)) =
            (cas, &mut *self)
        {
            lock.cas = cas;
            let lock = Some(lock.clone());
            let line: &[u8] = match self {
                LockOperation::Take(_) => reply::STORED,
                _ => b"TOUCHED\r\n",
            };
            return JobStep {
                lock,
                ..JobStep::end(OwnedAnswer::Reply(line.to_vec()))
            };
        }
        let line: &[u8] = match self {
            LockOperation::Take(_) if gone => b"NOT_STORED\r\n",
            LockOperation::GiveBack if bytes.starts_with(b"HD") => b"DELETED\r\n",
            _ if gone => b"NOT_FOUND\r\n",
            _ => return JobStep::end(answer),
        };
        JobStep::end(OwnedAnswer::Reply(line.to_vec()))
    }
}

impl Worker {
    /// Reads a key of a route with singleflight.
    pub(crate) fn start_flight(
        &mut self,
        route: usize,
        waiter: Waiter,
        key: &[u8],
        hash: u32,
        cas: bool,
    ) {
        let route = &self.config.routes[route];
        let wait = route.single_flight;
        let node_ref = self.locate(route.pools[0], key);
        let flight = Flight {
            cas,
            until: self.now + wait,
            pause: PAUSE,
            fill: wait.div_ceil(1_000_000) + 1,
        };
        let request = flight.request(key);
        let job = self.add_job(waiter, key, hash, vec![node_ref], JobKind::Flight(flight));
        self.send_for(job, 0, node_ref, &[&request], Expect::Meta, false);
    }

    /// A command that may change an item of a lock route.
    pub(crate) fn lock_command(
        &mut self,
        index: u32,
        client: &mut Client,
        number: usize,
        key: &[u8],
        parts: &[&[u8]; 3],
        expect: Expect,
    ) -> DispatchResult {
        if client.writes > 0 {
            return DispatchResult::Ordered;
        }
        let route = &self.config.routes[number];
        let most = route.lock;
        let node_ref = self.locate(route.pools[0], key);
        if self.nodes[node_ref.node as usize].is_busy(false) {
            return DispatchResult::Busy;
        }
        let time = |asked: i32| match u32::try_from(asked) {
            Ok(asked) if asked != 0 => asked.min(most),
            _ => most,
        };
        let held = client.locks.iter().position(|lock| lock.key == key);
        let name = String::from_utf8_lossy(key);
        let request = match expect {
            Expect::Line => text::parse(parts[0]),
            _ => Request::Noop,
        };
        let (line, data, work, quiet) = match (request, held) {
            (Request::Store(store), _)
                if store.mode == StoreMode::Add && store.len <= TOKEN_MAX =>
            {
                if client.locks.len() >= LOCKS_MAX {
                    client.say(TOO_MANY);
                    return DispatchResult::Taken;
                }
                let lock = Lock {
                    key: key.to_vec(),
                    cas: 0,
                    flags: store.flags,
                    data: parts[2].to_vec(),
                };
                let ttl = time(store.exptime);
                let line = format!("ms {name} {} F{} T{ttl} ME c\r\n", store.len, store.flags);
                (
                    line,
                    lock.data.clone(),
                    LockOperation::Take(lock),
                    store.noreply,
                )
            }
            (Request::Delete { noreply, .. }, Some(held)) => {
                let lock = client.locks.swap_remove(held);
                let line = format!("md {name} C{}\r\n", lock.cas);
                (line, Vec::new(), LockOperation::GiveBack, noreply)
            }
            (
                Request::Touch {
                    exptime, noreply, ..
                },
                Some(held),
            ) => {
                let lock = client.locks.swap_remove(held);
                let len = lock.data.len() - 2;
                let (flags, cas, ttl) = (lock.flags, lock.cas, time(exptime));
                let line = format!("ms {name} {len} F{flags} T{ttl} C{cas} c\r\n");
                (line, lock.data.clone(), LockOperation::Keep(lock), noreply)
            }
            (Request::Delete { noreply, .. } | Request::Touch { noreply, .. }, None) => {
                let line: &[u8] = if noreply { b"" } else { b"NOT_FOUND\r\n" };
                client.say(line);
                return DispatchResult::Taken;
            }
            _ if expect == Expect::Binary => {
                client.say(&crate::session::refused(parts[0]));
                return DispatchResult::Taken;
            }
            _ => {
                client.say(NO_LOCK);
                return DispatchResult::Taken;
            }
        };
        let shape = match quiet {
            true => ReplyShape::Instead(Vec::new()),
            false => ReplyShape::Plain,
        };
        let stamp = self.stamp(number, Class::Set, crate::node::hash_of(key).max(1));
        let waiter = Waiter {
            client: index,
            generation: client.generation,
            number: client.expect(shape, 1, true, stamp, &mut self.clients.budget),
            part: 0,
            reading: 0,
        };
        let job = self.add_job(waiter, key, 0, vec![node_ref], JobKind::Lock(work));
        self.send_for(
            job,
            0,
            node_ref,
            &[line.as_bytes(), &data],
            Expect::Meta,
            false,
        );
        DispatchResult::Taken
    }

    /// The client gets the lock; if the client has gone, the lock is released.
    pub(crate) fn hand_over(&mut self, waiter: &Waiter, lock: Lock) {
        match self.clients.get(waiter.client) {
            Some(client) if client.generation == waiter.generation => client.locks.push(lock),
            _ => self.give_back(lock),
        }
    }

    /// Releases a lock whose owner has gone.
    pub(crate) fn give_back(&mut self, lock: Lock) {
        let number = self.config.route(&lock.key, Class::Set);
        let node_ref = self.locate(self.config.routes[number].pools[0], &lock.key);
        let name = String::from_utf8_lossy(&lock.key);
        let line = format!("md {name} C{}\r\n", lock.cas);
        self.tell(node_ref, line.as_bytes(), Expect::Meta);
        self.again = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singleflight_waiters_time_out() {
        let flight = || Flight {
            cas: true,
            until: 5000,
            pause: PAUSE,
            fill: 2,
        };
        assert_eq!(flight().request(b"k"), b"mg k N2 f c v\r\n");
        let take = |flight: &mut Flight, text: &str, now| {
            let step = flight.take(b"k", OwnedAnswer::Reply(text.into()), now);
            let answer = step.answer.map(|answer| match answer {
                OwnedAnswer::Reply(bytes) => String::from_utf8(bytes).unwrap(),
                other => format!("{other:?}"),
            });
            (answer, step.wake)
        };
        let some = |text: &str| (Some(text.to_owned()), None);
        assert_eq!(take(&mut flight(), "VA 0 f0 c5 W\r\n\r\n", 0), some(""));
        let hit = "VA 2 f7 c9\r\n\r\n\r\n";
        assert_eq!(
            take(&mut flight(), hit, 0),
            some("VALUE k 7 2 9\r\n\r\n\r\n")
        );
        let stale = "VA 1 f7 c9 Z X\r\nx\r\n";
        assert_eq!(
            take(&mut flight(), stale, 0),
            some("VALUE k 7 1 9\r\nx\r\n")
        );
        let mut waits = flight();
        let taken = "VA 0 f0 c5 Z\r\n\r\n";
        assert_eq!(take(&mut waits, taken, 0), (None, Some(1000)));
        assert_eq!(take(&mut waits, taken, 1000), (None, Some(3000)));
        assert_eq!(take(&mut waits, taken, 3000), (None, Some(5000)));
        assert_eq!(take(&mut waits, taken, 5000), some(""));
    }
}
