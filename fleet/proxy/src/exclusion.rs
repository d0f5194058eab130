// SPDX-License-Identifier: MIT

//! Mutual exclusion: misses that only one client may fill, and locks.
//!
//! The state of both is in the node's item, so they hold across workers and proxies. A miss is requested with
//! memcached's `N`, which lets one reader win the token and shows that to the others. A lock is an item that `add`
//! created, whose owner is the connection; its CAS value, a random number, is the token that is needed to extend or
//! release it.

use std::hash::{BuildHasher, RandomState};

use hippos_proto::text::{self, TextRequest};
use hippos_proto::StoreMode;

use crate::answer::Waiter;
use crate::batch::hash_of;
use crate::client::{Client, Lock, ReplyShape};
use crate::flight::{Flight, PAUSE};
use crate::framing::Expect;
use crate::job::JobKind;
use crate::lock::LockOperation;
use crate::route::Class;
use crate::worker::{DispatchResult, Worker};

/// The most locks of a connection, and the most bytes of a lock's value.
const LOCKS_MAX: usize = 64;
const TOKEN_MAX: u32 = 1024;

pub(crate) const NO_LOCK: &[u8] =
    b"CLIENT_ERROR locks are taken by add, kept by touch, given back by delete\r\n";
const TOO_MANY: &[u8] = b"SERVER_ERROR too many locks\r\n";

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
        (expect, silent): (Expect, bool),
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
        let line = |verb: &str, rest: String| meta_line(verb, key, &rest);
        let request = match expect {
            Expect::Line => text::parse(parts[0]),
            _ => TextRequest::Noop,
        };
        let refuse = |client: &mut Client, line: &[u8]| {
            if !silent {
                client.say(line);
            }
            DispatchResult::Taken
        };
        // The node's own numbers begin again when it is restarted, and would release the lock of its next owner.
        let cas = RandomState::new().hash_one(key).max(1);
        let (line, data, work) = match (request, held) {
            (TextRequest::Store(store), _)
                if store.mode == StoreMode::Add && store.len <= TOKEN_MAX =>
            {
                if client.locks.len() >= LOCKS_MAX {
                    return refuse(client, TOO_MANY);
                }
                let lock = Lock {
                    key: key.to_vec(),
                    cas: 0,
                    flags: store.flags,
                    data: parts[2].to_vec(),
                };
                let ttl = time(store.exptime);
                let (len, flags) = (store.len, store.flags);
                let line = line("ms", format!("{len} F{flags} T{ttl} ME E{cas} c"));
                (line, lock.data.clone(), LockOperation::Take(lock))
            }
            (TextRequest::Delete { .. }, Some(held)) => {
                let lock = client.locks.swap_remove(held);
                let line = line("md", format!("C{}", lock.cas));
                (line, Vec::new(), LockOperation::GiveBack)
            }
            (TextRequest::Touch { exptime, .. }, Some(held)) => {
                let lock = client.locks.swap_remove(held);
                let len = lock.data.len() - 2;
                let (flags, old, ttl) = (lock.flags, lock.cas, time(exptime));
                let line = line("ms", format!("{len} F{flags} T{ttl} C{old} E{cas} c"));
                (line, lock.data.clone(), LockOperation::Keep(lock))
            }
            (TextRequest::Delete { .. } | TextRequest::Touch { .. }, None) => {
                return refuse(client, b"NOT_FOUND\r\n");
            }
            _ if expect == Expect::Binary => {
                client.say(&crate::session::refused(parts[0]));
                return DispatchResult::Taken;
            }
            _ => return refuse(client, NO_LOCK),
        };
        let shape = match silent {
            true => ReplyShape::Instead(Vec::new()),
            false => ReplyShape::Plain,
        };
        let stamp = self.stamp(number, Class::Set, hash_of(key));
        let waiter = Waiter {
            client: index,
            generation: client.generation,
            number: client.expect(shape, 1, true, stamp, &mut self.clients.budget),
            part: 0,
            reading: 0,
        };
        let job = self.add_job(waiter, key, 0, vec![node_ref], JobKind::Lock(work));
        self.send_for(job, 0, node_ref, &[&line, &data], Expect::Meta, false);
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
        let line = meta_line("md", &lock.key, &format!("C{}", lock.cas));
        self.tell(node_ref, &line, Expect::Meta);
        self.again = true;
    }
}

/// A line of a meta command.
fn meta_line(verb: &str, key: &[u8], rest: &str) -> Vec<u8> {
    [verb.as_bytes(), b" ", key, b" ", rest.as_bytes(), b"\r\n"].concat()
}
