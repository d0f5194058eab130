// SPDX-License-Identifier: GPL-2.0-only
//! The source of a worker's requests: a workload, its fill, or a trace.

use crossbeam_channel::{Receiver, TryRecvError};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::arrival::Schedule;
use crate::dist::Sizes;
use crate::payload;
use crate::request::{Request, Verb};
use crate::workload::{Model, Sampler};

/// The result of asking for the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The request is made, and due at this time (nanoseconds since the start).
    At(u64),
    /// The request is ready, to be sent as soon as there is a free slot.
    Now,
    /// No request is available yet.
    Later,
    /// There are no more requests.
    End,
}

/// Random draws from a distribution of sizes.
#[derive(Debug)]
pub struct Draws(SmallRng);

impl Draws {
    /// The same seed gives the same draws.
    pub fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    fn random(&mut self, sizes: &Sizes) -> u32 {
        match sizes {
            Sizes::Constant(size) => *size,
            sizes => sizes.quantile(self.0.random()),
        }
    }
}

/// A source of requests.
#[derive(Debug)]
pub enum Source<'m> {
    /// Operations drawn from a workload.
    Sample {
        /// Draws them.
        sampler: Box<Sampler<'m>>,
        /// The workload.
        model: &'m Model,
        /// Their times; `None` for a closed loop.
        schedule: Option<Schedule>,
        /// How many are left.
        left: u64,
        /// No request is due later than this.
        end: u64,
    },
    /// Every key of a workload once.
    Fill {
        /// The workload.
        model: &'m Model,
        /// The next key.
        next: u64,
        /// The step from one key to the next: the number of workers.
        step: u64,
        /// Draws expiry times.
        ttl: Draws,
    },
    /// A trace, read by another thread.
    Trace {
        /// Batches of requests with their times.
        batches: Receiver<Vec<(u64, Request)>>,
        /// The current batch, last request first.
        batch: Vec<(u64, Request)>,
        /// Requests are sent at their times, not as soon as there is a free slot.
        timed: bool,
    },
}

impl Source<'_> {
    /// Skips requests that are due before `before` and will not be sent; returns how many of them are due after `from`.
    /// `None` for a trace, of which nothing is skipped.
    pub fn skip(&mut self, before: u64, from: u64) -> Option<u64> {
        let Source::Sample {
            schedule: Some(schedule),
            left,
            end,
            ..
        } = self
        else {
            return None;
        };
        let unmeasured = schedule.jump(before.min(from)).min(*left);
        *left -= unmeasured;
        let unsent = schedule.jump(before.min(*end)).min(*left);
        *left -= unsent;
        if before > *end {
            *left = 0;
        }
        Some(unsent)
    }

    /// Generates the next request; all keys of one GET belong to the same one of `servers` servers.
    pub fn next(&mut self, servers: usize, request: &mut Request) -> Next {
        match self {
            Source::Sample {
                sampler,
                model,
                schedule,
                left,
                end,
            } => {
                if *left == 0 {
                    return Next::End;
                }
                *left -= 1;
                let next = match schedule {
                    Some(schedule) => Next::At(schedule.departure()),
                    None => Next::Now,
                };
                if matches!(next, Next::At(due) if due > *end) {
                    *left = 0;
                    return Next::End;
                }
                let op = if servers == 1 {
                    sampler.draw()
                } else {
                    sampler.draw_within(|a, b| {
                        server_of(model, a, servers) == server_of(model, b, servers)
                    })
                };
                let verb = op.verb;
                // A CAS begins with the GETS that returns the value's number.
                request.reset(if verb == Verb::Cas { Verb::Gets } else { verb });
                request.then_cas = verb == Verb::Cas;
                request.ttl = op.ttl;
                for id in &op.ids {
                    model.push(*id, request);
                }
                if let Some(len) = request.keys.first().map(|key| key.value_len) {
                    request.value_len = match verb {
                        Verb::Append => (len / 16).max(1),
                        _ => len,
                    };
                }
                next
            }
            Source::Fill {
                model,
                next,
                step,
                ttl,
            } => {
                if *next >= model.part_count() {
                    return Next::End;
                }
                let id = model.part_id(*next);
                request.reset(Verb::Set);
                model.push(id, request);
                request.value_len = model.value_len(id);
                request.ttl = ttl.random(&model.workload.values.ttl);
                *next += *step;
                Next::Now
            }
            Source::Trace {
                batches,
                batch,
                timed,
            } => {
                if batch.is_empty() {
                    *batch = match batches.try_recv() {
                        Ok(batch) => batch,
                        Err(TryRecvError::Empty) => return Next::Later,
                        Err(TryRecvError::Disconnected) => return Next::End,
                    };
                    batch.reverse();
                }
                let Some((due, next)) = batch.pop() else {
                    return Next::Later;
                };
                *request = next;
                if *timed {
                    Next::At(due)
                } else {
                    Next::Now
                }
            }
        }
    }
}

/// The index of the server that holds a key.
pub fn server(hash: u64, servers: usize) -> usize {
    if servers == 1 {
        return 0;
    }
    (payload::mix(hash) % servers as u64) as usize
}

fn server_of(model: &Model, id: u64, servers: usize) -> usize {
    let mut key = Vec::with_capacity(64);
    model.write_key(id, &mut key);
    server(payload::hash(&key), servers)
}
