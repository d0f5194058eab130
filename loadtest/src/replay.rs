// SPDX-License-Identifier: GPL-2.0-only
//! Replays traces: a thread reads the file ahead and hands batches to the workers.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{ensure, Result};
use crossbeam_channel::{bounded, Sender};
use indicatif::{ProgressBar, ProgressStyle};

use crate::arrival::Schedule;
use crate::live::describe;
use crate::report::{IntervalReport, Pace, Run, Trace};
use crate::request::Request;
use crate::session::{Load, Session, Watch};
use crate::settings::{Failure, Part};
use crate::source;
use crate::trace::{Options, Reader};

/// Requests in a batch.
const BATCH: usize = 256;
/// Batches that may queue for each worker.
const AHEAD: usize = 64;
/// Unreadable lines that a report names.
const SHOWN: usize = 10;
/// The most requests of one second that are spread over it together.
const SECOND_MAX: usize = 1 << 20;

/// How to replay.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// How to read them.
    pub options: Options,
    /// At recorded times, at a rate, or as fast as replies arrive; and for how long.
    pub load: Load,
    /// How many unreadable lines are skipped before it gives up.
    pub skip_bad: u64,
    /// Starts again at the end.
    pub again: bool,
}

/// The result of reading the files.
#[derive(Debug, Default)]
struct Reading {
    trace: Trace,
    failure: Option<Failure>,
}

/// Replays a trace in a session. Returns the run, the trace's statistics, and an early failure.
pub fn replay(
    session: &mut Session,
    how: &Replay,
    show: bool,
) -> Result<(Run, Trace, Option<Failure>)> {
    let settings = session.settings();
    let options = Options {
        prefix: settings.prefix.clone(),
        ..how.options.clone()
    };
    let reader = Reader::open(&how.paths, &options)?;
    let speed = match how.load.pace {
        Pace::Recorded { speed } => Some(speed),
        _ => None,
    };
    ensure!(
        speed.is_none() || reader.has_times(),
        "the trace has no times: replay it with --speed max or --rate"
    );
    let schedule = match how.load.pace {
        Pace::Open { rate, arrival } => Some(Schedule::new(arrival, rate, 0, 1, settings.seed)),
        _ => None,
    };
    let (workers, servers) = (settings.threads, settings.servers.len());
    let marks = Marks::default();
    let mut bar = Bar::new(reader.progress().0, marks.clone(), show && !how.again);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| bounded(AHEAD)).unzip();
    let end = (how.load.warmup + how.load.duration.unwrap_or(Duration::MAX / 2)).as_nanos();
    let feeder = Feeder {
        reader,
        speed,
        schedule,
        end: u64::try_from(end).unwrap_or(u64::MAX),
        left: how.load.requests.unwrap_or(u64::MAX),
        skip_bad: how.skip_bad,
        again: how.again,
        part: settings.part,
        servers,
        given: 0,
        marks,
        batches: vec![Vec::new(); workers],
        senders,
    };
    let thread = std::thread::spawn(move || feeder.run());
    let (run, failure) = session.replay(receivers, &how.load, &mut bar);
    let reading = join(thread);
    Ok((run, reading.trace, failure.or(reading.failure)))
}

fn join(thread: JoinHandle<Reading>) -> Reading {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The position in the file after a number of requests: `(requests, bytes)`, oldest first.
type Marks = Arc<Mutex<VecDeque<(u64, u64)>>>;

struct Feeder {
    reader: Reader,
    /// Times faster than recorded; `None` for other times.
    speed: Option<f64>,
    /// The times, if they are not the recorded ones.
    schedule: Option<Schedule>,
    /// No request is due later.
    end: u64,
    left: u64,
    skip_bad: u64,
    again: bool,
    part: Part,
    servers: usize,
    given: u64,
    marks: Marks,
    batches: Vec<Vec<(u64, Request)>>,
    senders: Vec<Sender<Vec<(u64, Request)>>>,
}

impl Feeder {
    fn run(mut self) -> Reading {
        let mut trace = Trace {
            format: self.reader.format().name(),
            rounds: 1,
            ..Trace::default()
        };
        let mut failure = None;
        let mut last_round = 0;
        // Times in whole seconds: the requests of one second are spread over it.
        let coarse = self.speed.is_some() && self.reader.coarse();
        let mut second: Vec<(u64, Request)> = Vec::new();
        while self.left > 0 {
            let (at, request) = match self.reader.read() {
                Ok(Some(next)) => next,
                Ok(None) if self.again && trace.requests > last_round => {
                    last_round = trace.requests;
                    trace.rounds += 1;
                    match self.reader.rewind() {
                        Ok(()) => continue,
                        Err(e) => failure = Some(Failure::Input(format!("{e:#}"))),
                    }
                    break;
                }
                Ok(None) => break,
                Err(e) if trace.skipped < self.skip_bad => {
                    trace.skipped += 1;
                    if trace.skipped_why.len() < SHOWN {
                        trace.skipped_why.push(format!("{e:#}"));
                    }
                    continue;
                }
                Err(e) => {
                    failure = Some(Failure::Input(format!("{e:#}")));
                    break;
                }
            };
            self.left -= 1;
            trace.requests += 1;
            let goes_on = if coarse {
                let full = second.first().is_some_and(|(first, _)| *first != at)
                    || second.len() >= SECOND_MAX;
                let goes_on = !full || self.spread(&mut second);
                second.push((at, request));
                goes_on
            } else {
                self.give(at, request)
            };
            if !goes_on {
                break;
            }
        }
        self.spread(&mut second);
        self.hand_over();
        let counts = self.reader.counts();
        trace.cut_keys = counts.cut_keys;
        trace.truncated = counts.truncated;
        Reading { trace, failure }
    }

    fn spread(&mut self, second: &mut Vec<(u64, Request)>) -> bool {
        let n = second.len() as u64;
        second
            .drain(..)
            .enumerate()
            .all(|(i, (at, request))| self.give(at + i as u64 * 1_000_000_000 / n, request))
    }

    /// Adds a request to its worker's batch; false when no more are needed.
    fn give(&mut self, at: u64, request: Request) -> bool {
        let due = match (&mut self.schedule, self.speed) {
            (Some(schedule), _) => schedule.departure(),
            (None, Some(speed)) => (at as f64 / speed) as u64,
            (None, None) => 0,
        };
        if due > self.end {
            return false;
        }
        let apart = self.servers > 1 || self.batches.len() > 1 || self.part.of > 1;
        if apart && request.keys.len() > 1 {
            return self
                .split(&request)
                .into_iter()
                .all(|part| self.give_one(due, part));
        }
        self.give_one(due, request)
    }

    fn give_one(&mut self, due: u64, request: Request) -> bool {
        let Some(key) = request.keys.first() else {
            return true;
        };
        if !self.part.holds(key.hash) {
            return true;
        }
        let worker = self.worker(key.hash);
        self.batches[worker].push((due, request));
        self.given += 1;
        self.batches[worker].len() < BATCH || self.hand_over()
    }

    /// All requests of one key go to the same worker, in their order.
    fn worker(&self, hash: u64) -> usize {
        (hash >> 32) as usize % self.batches.len()
    }

    /// Splits a multi-key GET by server and worker, without the keys of other parts.
    fn split(&self, request: &Request) -> Vec<Request> {
        let workers = self.batches.len();
        let mut parts = vec![Request::default(); self.servers * workers];
        for key in request.keys.iter().filter(|key| self.part.holds(key.hash)) {
            let at = source::server(key.hash, self.servers) * workers + self.worker(key.hash);
            let part = &mut parts[at];
            if part.keys.is_empty() {
                part.reset(request.verb);
                part.value_len = request.value_len;
                part.ttl = request.ttl;
            }
            part.push_from(request, key);
        }
        parts.retain(|part| !part.keys.is_empty());
        parts
    }

    /// Hands over all batches at once, so that no worker waits for requests that have been read already.
    fn hand_over(&mut self) -> bool {
        if let Ok(mut marks) = self.marks.lock() {
            marks.push_back((self.given, self.reader.progress().1));
        }
        for (batch, sender) in self.batches.iter_mut().zip(&self.senders) {
            if !batch.is_empty() && sender.send(std::mem::take(batch)).is_err() {
                return false;
            }
        }
        true
    }
}

/// A progress bar over the file, by the requests that have been sent.
struct Bar {
    bar: ProgressBar,
    marks: Marks,
    sent: u64,
}

impl Bar {
    fn new(size: u64, marks: Marks, show: bool) -> Self {
        let bar = if show {
            ProgressBar::new(size)
        } else {
            ProgressBar::hidden()
        };
        let template = "{percent:>3}% {eta:>3} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            marks,
            sent: 0,
        }
    }
}

impl Watch for Bar {
    fn moment(&mut self, moment: &IntervalReport) {
        self.sent += moment.sent;
        if let Ok(mut marks) = self.marks.lock() {
            while marks
                .front()
                .is_some_and(|(requests, _)| *requests <= self.sent)
            {
                if let Some((_, bytes)) = marks.pop_front() {
                    self.bar.set_position(bytes);
                }
            }
        }
        self.bar.set_message(describe(moment));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
