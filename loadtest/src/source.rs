// SPDX-License-Identifier: GPL-2.0-only
//! Where a worker's requests come from: a workload, its fill, or a trace.

use crossbeam_channel::{Receiver, TryRecvError};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::arrival::Schedule;
use crate::dist::Sizes;
use crate::payload;
use crate::request::{Request, Verb};
use crate::workload::{Model, Sampler};

/// What a source says of the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The request is made, and due at this time (nanoseconds since the start).
    At(u64),
    /// The request is made, and due when there is room for it.
    Now,
    /// There is none yet.
    Later,
    /// There will be no more.
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
        /// Their times; none for a closed loop.
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
        /// From one key to the next: the number of workers.
        step: u64,
        /// Draws expiry times.
        ttl: Draws,
    },
    /// A trace, read by another thread.
    Trace {
        /// Batches of requests with their times.
        batches: Receiver<Vec<(u64, Request)>>,
        /// The batch at hand, last request first.
        batch: Vec<(u64, Request)>,
        /// Requests leave at their times, not as soon as there is room.
        timed: bool,
    },
}

impl Source<'_> {
    /// Passes over what is due before a time and will not be sent: how many requests of these are due
    /// after `from`. None for a trace, of which nothing is left out.
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

    /// Makes the next request; the keys of one GET all belong to one of `servers` servers.
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
                // A CAS begins with the GETS that tells the value's number.
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

/// Which of several servers holds a key.
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
