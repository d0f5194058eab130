//! Replays traces: a thread reads the file ahead and hands batches to the workers.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{ensure, Result};
use crossbeam_channel::{bounded, Sender};
use indicatif::{ProgressBar, ProgressStyle};

use crate::live::describe;
use crate::report::{Moment, Pace, Run};
use crate::request::Request;
use crate::session::{Session, Watch};
use crate::settings::Failure;
use crate::source;
use crate::trace::{Format, Reader};

/// Requests in a batch.
const BATCH: usize = 256;
/// Batches that wait at each worker.
const AHEAD: usize = 64;
/// Requests of one second that are spread over it together.
const SECOND_MAX: usize = 1 << 20;

/// How to replay.
#[derive(Debug, Clone, Copy)]
pub struct Replay {
    /// At recorded times or as fast as replies make room.
    pub pace: Pace,
    /// Ends after so many requests.
    pub requests: Option<u64>,
    /// Passes over so many unreadable lines before giving up.
    pub skip_bad: u64,
    /// Length of an interval of the timeline.
    pub interval: Duration,
}

/// What came of reading the file.
#[derive(Debug, Default)]
struct Reading {
    skipped: u64,
    failure: Option<Failure>,
}

/// Replays a trace on a session: the run, how many bad lines were passed over, and what ended it early.
pub fn replay(
    session: &mut Session,
    path: &Path,
    format: Option<Format>,
    how: &Replay,
    show: bool,
) -> Result<(Run, u64, Option<Failure>)> {
    let reader = Reader::open(path, format)?;
    let timed = matches!(how.pace, Pace::Recorded { .. });
    ensure!(
        !timed || reader.has_times(),
        "{}: the trace has no times: replay it with --speed max",
        path.display()
    );
    let (workers, servers) = (session.settings().threads, session.settings().servers.len());
    let marks = Marks::default();
    let mut bar = Bar::new(reader.progress().0, marks.clone(), show);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| bounded(AHEAD)).unzip();
    let feeder = Feeder {
        reader,
        speed: match how.pace {
            Pace::Recorded { speed } => Some(speed),
            _ => None,
        },
        left: how.requests.unwrap_or(u64::MAX),
        skip_bad: how.skip_bad,
        servers,
        given: 0,
        marks,
        batches: vec![Vec::new(); workers],
        senders,
    };
    let thread = std::thread::spawn(move || feeder.run());
    let (run, failure) = session.replay(receivers, how.pace, how.interval, &mut bar);
    let reading = join(thread);
    Ok((run, reading.skipped, failure.or(reading.failure)))
}

fn join(thread: JoinHandle<Reading>) -> Reading {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// How far into the file so many requests are: `(requests, bytes)`, oldest first.
type Marks = Arc<Mutex<VecDeque<(u64, u64)>>>;

struct Feeder {
    reader: Reader,
    /// Times faster than recorded; none for as fast as possible.
    speed: Option<f64>,
    left: u64,
    skip_bad: u64,
    servers: usize,
    given: u64,
    marks: Marks,
    batches: Vec<Vec<(u64, Request)>>,
    senders: Vec<Sender<Vec<(u64, Request)>>>,
}

impl Feeder {
    fn run(mut self) -> Reading {
        let mut reading = Reading::default();
        // Times in whole seconds: the requests of one second are spread over it.
        let coarse = self.speed.is_some() && self.reader.format().unit() == 1_000_000_000;
        let mut second: Vec<(u64, Request)> = Vec::new();
        while self.left > 0 {
            let (at, request) = match self.reader.read() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(_) if reading.skipped < self.skip_bad => {
                    reading.skipped += 1;
                    continue;
                }
                Err(e) => {
                    reading.failure = Some(Failure::Input(format!("{e:#}")));
                    break;
                }
            };
            self.left -= 1;
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
        reading
    }

    fn spread(&mut self, second: &mut Vec<(u64, Request)>) -> bool {
        let n = second.len() as u64;
        second
            .drain(..)
            .enumerate()
            .all(|(i, (at, request))| self.give(at + i as u64 * 1_000_000_000 / n, request))
    }

    /// Puts a request into its worker's batch; false when the workers are gone.
    fn give(&mut self, at: u64, request: Request) -> bool {
        let due = self.speed.map_or(0, |speed| (at as f64 / speed) as u64);
        if self.servers > 1 && request.keys.len() > 1 {
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
        // One key's requests stay in one worker and in their order.
        let worker = (key.hash >> 32) as usize % self.batches.len();
        self.batches[worker].push((due, request));
        self.given += 1;
        self.batches[worker].len() < BATCH || self.hand_over()
    }

    /// A multi-key GET, apart for each server.
    fn split(&self, request: &Request) -> Vec<Request> {
        let mut parts = vec![Request::default(); self.servers];
        for key in &request.keys {
            let part = &mut parts[source::server(key.hash, self.servers)];
            if part.keys.is_empty() {
                part.reset(request.verb);
                part.value_len = request.value_len;
            }
            part.push_from(request, key);
        }
        parts.retain(|part| !part.keys.is_empty());
        parts
    }

    /// Hands all batches over at once, so that no worker waits for requests that are read already.
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

/// A progress bar over the file, by what has been sent.
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
        let template =
            "{wide_bar} {percent:>3} %  {bytes}/{total_bytes}  {elapsed} + {eta} left\n{msg}";
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
    fn moment(&mut self, moment: &Moment) {
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
