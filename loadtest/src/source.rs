//! Where a worker's requests come from: a workload, its fill, or a trace.

use crossbeam_channel::{Receiver, TryRecvError};

use crate::arrival::Schedule;
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
                request.reset(op.verb);
                for id in &op.ids {
                    model.push(*id, request);
                }
                if let (true, Some(key)) = (op.verb.stores(), request.keys.first()) {
                    request.value_len = key.value_len;
                }
                next
            }
            Source::Fill { model, next, step } => {
                if *next >= model.count() {
                    return Next::End;
                }
                request.reset(Verb::Set);
                model.push(*next, request);
                request.value_len = model.value_len(*next);
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
