// SPDX-License-Identifier: GPL-2.0-only
//! Runs concurrent clients with random operations on few keys and collects their replies.

use crate::check::Operation;
use crate::client::Client;
use crate::model::{Action, Answer, Ttl};
use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

/// The size of a recording.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The server.
    pub server: SocketAddr,
    /// Concurrent clients.
    pub clients: usize,
    /// Keys that all clients share. Every fourth is a counter.
    pub keys: usize,
    /// Operations of each client.
    pub operations: usize,
    /// Whether half of the reads go over UDP.
    pub udp: bool,
    /// The seed that repeats the same operations (not the same timing).
    pub seed: u64,
}

/// Each key's operations, of all clients.
pub type History = BTreeMap<String, Vec<Operation>>;

/// Records a history on keys of its own.
pub fn record(plan: &Plan) -> Result<History> {
    let began = Instant::now();
    let recorded: Vec<Result<Vec<(usize, Operation)>>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients)
            .map(|client| scope.spawn(move || run(plan, client, began)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client panicked"))
            .collect()
    });
    let mut history = History::new();
    for operations in recorded {
        for (key, operation) in operations? {
            history.entry(name(plan, key)).or_default().push(operation);
        }
    }
    Ok(history)
}

fn name(plan: &Plan, key: usize) -> String {
    format!("history-{:x}-{key}", plan.seed)
}

fn is_counter(key: usize) -> bool {
    key % 4 == 3
}

fn run(plan: &Plan, client: usize, began: Instant) -> Result<Vec<(usize, Operation)>> {
    let mut random = SmallRng::seed_from_u64(plan.seed ^ (client as u64) << 32);
    let mut connection = Client::connect(plan.server)?;
    let mut recorded = Vec::with_capacity(plan.operations);
    let mut tokens: BTreeMap<usize, (Vec<u8>, u64)> = BTreeMap::new();
    let now = || began.elapsed().as_nanos() as u64;
    for turn in 0..plan.operations {
        let key = random.random_range(0..plan.keys);
        let text = name(plan, key);
        // Unique for ever, so that a value identifies its write.
        let fresh = format!("<{client}.{turn}>").into_bytes();
        let called;
        let (action, answer) = if is_counter(key) {
            let ttl = [Ttl::Never, Ttl::Days, Ttl::Weeks][random.random_range(0..3)];
            let some = random.random_bool(0.5).then_some(ttl);
            // Rarely, or most keys would be absent most of the time.
            let last = match random.random_range(0..8) {
                0 => Ttl::Expired,
                _ => ttl,
            };
            let action = match random.random_range(0..20) {
                0..=1 => Action::Get,
                2..=3 => Action::Add(b"1000".to_vec()),
                4 => Action::Touch(last),
                5..=6 => Action::GetAndTouch(last),
                7..=9 => Action::MetaGet(some),
                10 => Action::MetaGetRecache,
                11 => Action::MetaGetVivify(ttl),
                12..=13 => Action::Invalidate(some),
                _ => Action::Incr(random.random_range(1..100)),
            };
            called = now();
            let answer = connection.perform(&text, &action, 0)?;
            (action, answer)
        } else {
            match random.random_range(0..24) {
                0..=4 if plan.udp => {
                    called = now();
                    let answer = connection.get_udp(&text)?;
                    (Action::Get, answer.unwrap_or(Answer::Unknown))
                }
                0..=9 => {
                    called = now();
                    let answer = match connection.gets(&text)? {
                        Some((value, token)) => {
                            tokens.insert(key, (value.clone(), token));
                            Answer::Value(value)
                        }
                        None => Answer::Absent,
                    };
                    (Action::Get, answer)
                }
                choice => {
                    let action = match (choice, tokens.remove(&key)) {
                        (10..=15, Some((old, token))) => {
                            called = now();
                            let action = match choice {
                                10..=13 => Action::Cas(old, fresh),
                                _ => Action::MetaSetInvalidate(old, fresh),
                            };
                            let answer = connection.perform(&text, &action, token)?;
                            recorded.push((key, done(client, action, answer, called, now())));
                            continue;
                        }
                        (16, _) => Action::Add(fresh),
                        (17, _) => Action::Replace(fresh),
                        (18, _) => Action::Append(fresh),
                        (19, _) => Action::Prepend(fresh),
                        (20, _) => Action::Delete,
                        (21, _) => Action::SetExpired(fresh),
                        (22..=23, _) => Action::MetaGet(None),
                        _ => Action::Set(fresh),
                    };
                    called = now();
                    let answer = connection.perform(&text, &action, 0)?;
                    (action, answer)
                }
            }
        };
        recorded.push((key, done(client, action, answer, called, now())));
    }
    Ok(recorded)
}

fn done(client: usize, action: Action, answer: Answer, called: u64, returned: u64) -> Operation {
    Operation {
        client,
        action,
        answer,
        called,
        returned,
    }
}
