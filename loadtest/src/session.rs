// SPDX-License-Identifier: GPL-2.0-only
//! A session with the servers: it connects once, and can then fill and run many times.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{unbounded, Receiver, RecvTimeoutError};

use crate::arrival::Schedule;
use crate::binary;
use crate::link::Link;
use crate::report::{IntervalReport, Latency, Pace, Run};
use crate::request::Request;
use crate::settings::{Endpoint, Failure, Protocol, Settings, Transport};
use crate::source::{Draws, Source};
use crate::stats::{histogram, Counters, Interval, RequestKind};
use crate::versions::Versions;
use crate::wire::Frame;
use crate::worker::{Channels, Done, Shared, Span, VersionsRef, Worker};
use crate::workload::{Mix, Model, Sampler};

/// Requests in flight on each connection during a fill.
const FILL_WINDOW: usize = 64;

/// The parameters of a run.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// How requests leave.
    pub pace: Pace,
    /// Time at the start that is not measured.
    pub warmup: Duration,
    /// Time that is measured; `None` to end after the requests.
    pub duration: Option<Duration>,
    /// The most requests, warm-up included.
    pub requests: Option<u64>,
    /// Length of an interval of the timeline.
    pub interval: Duration,
}

/// An observer of a run, called about once per interval.
pub trait Watch {
    /// The newest interval of the timeline, all workers together.
    fn moment(&mut self, moment: &IntervalReport);
}

/// Ignores all intervals.
impl Watch for () {
    fn moment(&mut self, _: &IntervalReport) {}
}

/// Connections to the servers, and the known state of their contents.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    model: Model,
    versions: VersionsRef,
    channels: Vec<Channels>,
    servers: Vec<String>,
    interrupt: Arc<AtomicBool>,
}

impl Session {
    /// Connects to the servers. A run ends early when `interrupt` becomes true.
    pub fn connect(
        settings: &Settings,
        model: &Model,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let fail = |e: anyhow::Error| Failure::Server(format!("{e:#}"));
        settings
            .check()
            .map_err(|e| Failure::Input(format!("{e:#}")))?;
        let servers = settings
            .servers
            .iter()
            .map(|server| probe(server, settings))
            .collect::<Result<_, _>>()?;
        let channels = (0..settings.threads)
            .map(|_| Channels::connect(settings))
            .collect::<Result<_, _>>()
            .map_err(fail)?;
        let mut model = model.clone().placed(&settings.prefix, settings.part);
        if settings.mirror {
            model.workload.mix = Mix {
                get: 1.0,
                ..Mix::default()
            };
        }
        let base = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |d| d.as_secs() as u32);
        // Without versions of their own, no value of a key counts as too old.
        let known = if settings.shared || !settings.check {
            0
        } else {
            model.count()
        };
        let versions = VersionsRef(Versions::new(known, base));
        Ok(Self {
            settings: settings.clone(),
            model,
            versions,
            channels,
            servers,
            interrupt,
        })
    }

    /// The versions that the servers report.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// The session's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Stores every key of the workload once, as fast as the servers accept them. Does nothing for mirrors.
    pub fn fill(&mut self, watch: &mut dyn Watch) -> (Run, Option<Failure>) {
        let step = self.settings.threads as u64;
        let model = self.model.clone();
        let sources = (0..step)
            .map(|next| Source::Fill {
                model: &model,
                next,
                step,
                ttl: Draws::new(next),
            })
            .collect();
        let span = Span {
            from: 0,
            end: u64::MAX,
            interval: 1_000_000_000,
            window: Some(FILL_WINDOW),
            ordered: false,
        };
        self.drive(
            sources,
            span,
            Pace::Closed {
                window: FILL_WINDOW,
            },
            watch,
        )
    }

    /// Runs the workload.
    pub fn run(&mut self, load: &Load, seed: u64, watch: &mut dyn Watch) -> (Run, Option<Failure>) {
        let nanos = |d: Duration| d.as_nanos() as u64;
        let from = nanos(load.warmup);
        let span = Span {
            from,
            end: load.duration.map_or(u64::MAX, |d| from + nanos(d)),
            interval: nanos(load.interval).max(1_000_000),
            window: match load.pace {
                Pace::Closed { window } => Some(window),
                _ => None,
            },
            ordered: self.settings.fill_on_miss,
        };
        let workers = self.settings.threads;
        let model = self.model.clone();
        let total = load.requests.unwrap_or(u64::MAX);
        let sources = (0..workers)
            .map(|worker| Source::Sample {
                sampler: Box::new(Sampler::new(
                    &model,
                    crate::payload::mix(seed ^ (worker as u64) << 32),
                )),
                model: &model,
                schedule: match load.pace {
                    Pace::Open { rate, arrival } => {
                        Some(Schedule::new(arrival, rate, worker, workers, seed))
                    }
                    _ => None,
                },
                left: total / workers as u64 + u64::from((worker as u64) < total % workers as u64),
                end: span.end,
            })
            .collect();
        self.drive(sources, span, load.pace, watch)
    }

    /// Replays batches of requests with their times, one channel for each worker.
    pub fn replay(
        &mut self,
        batches: Vec<Receiver<Vec<(u64, Request)>>>,
        load: &Load,
        watch: &mut dyn Watch,
    ) -> (Run, Option<Failure>) {
        let window = match load.pace {
            Pace::Closed { window } => Some(window),
            _ => None,
        };
        let nanos = |d: Duration| d.as_nanos() as u64;
        let from = nanos(load.warmup);
        let sources = batches
            .into_iter()
            .map(|batches| Source::Trace {
                batches,
                batch: Vec::new(),
                timed: window.is_none(),
            })
            .collect();
        let span = Span {
            from,
            end: load.duration.map_or(u64::MAX, |d| from + nanos(d)),
            interval: nanos(load.interval).max(1_000_000),
            window,
            ordered: true,
        };
        self.drive(sources, span, load.pace, watch)
    }

    fn drive(
        &mut self,
        sources: Vec<Source>,
        span: Span,
        pace: Pace,
        watch: &mut dyn Watch,
    ) -> (Run, Option<Failure>) {
        let stop = AtomicBool::new(false);
        let shared = Shared {
            settings: &self.settings,
            versions: &self.versions,
            stop: &stop,
        };
        let interrupt = &self.interrupt;
        let (sender, receiver) = unbounded();
        let start = Instant::now();
        let (timeline, done): (_, Vec<Done>) = std::thread::scope(|scope| {
            let workers: Vec<_> = (self.channels.iter_mut())
                .zip(sources)
                .map(|(channels, source)| {
                    let sender = sender.clone();
                    scope.spawn(move || {
                        Worker::new(channels, shared, source, span, start, sender).run()
                    })
                })
                .collect();
            drop(sender);
            let timeline = collect(&receiver, span, workers.len() as u64, watch, || {
                if interrupt.load(Ordering::Relaxed) {
                    stop.store(true, Ordering::Relaxed);
                }
            });
            let done = workers.into_iter().map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|e| std::panic::resume_unwind(e))
            });
            (timeline, done.collect())
        });
        let mut failure = done.iter().find_map(|done| done.failure.clone());
        if failure.is_none() && self.interrupt.load(Ordering::Relaxed) {
            failure = Some(Failure::Interrupted);
        }
        let run = summary(
            &done,
            timeline,
            span,
            pace,
            start.elapsed().as_nanos() as u64,
            failure.is_some(),
        );
        let silent = run.counters.sent > 0 && run.counters.answered + run.counters.late == 0;
        if failure.is_none() && silent && !self.settings.reconnect {
            failure = Some(Failure::Server(format!(
                "not one of {} requests was answered",
                run.counters.sent
            )));
        }
        (run, failure)
    }
}

/// Collects the workers' intervals until all workers have ended.
fn collect(
    receiver: &Receiver<Interval>,
    span: Span,
    workers: u64,
    watch: &mut dyn Watch,
    mut poll: impl FnMut(),
) -> Vec<IntervalReport> {
    let mut open: BTreeMap<u64, (u64, Interval)> = BTreeMap::new();
    let mut timeline = Vec::new();
    let mut close =
        |index: u64, open: &mut BTreeMap<u64, (u64, Interval)>, watch: &mut dyn Watch| {
            while let Some(entry) = open.first_entry().filter(|entry| *entry.key() < index) {
                let moment = moment(&entry.remove().1, span);
                watch.moment(&moment);
                timeline.push(moment);
            }
        };
    loop {
        poll();
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(part) => {
                let index = part.index;
                let (count, whole) = open
                    .entry(index)
                    .or_insert_with(|| (0, Interval::new(index)));
                whole.add(&part);
                *count += 1;
                // A worker that slept through an interval does not report it: an interval two before the newest is
                // complete.
                let done = if *count == workers {
                    index + 1
                } else {
                    index.saturating_sub(1)
                };
                close(done, &mut open, watch);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    close(u64::MAX, &mut open, watch);
    timeline
}

fn moment(interval: &Interval, span: Span) -> IntervalReport {
    let latency = Latency::of(&interval.latency);
    let start = interval.index * span.interval;
    IntervalReport {
        at: start as f64 / 1e9,
        seconds: span.interval as f64 / 1e9,
        warmup: start < span.from,
        sent: interval.sent,
        answered: interval.answered,
        errors: interval.errors,
        timeouts: interval.timeouts,
        hits: interval.hits,
        misses: interval.misses,
        mean_us: latency.mean_us,
        p50_us: latency.p50_us,
        p99_us: latency.p99_us,
        p99_9_us: latency.p99_9_us,
        lag_p99_us: Latency::of(&interval.lag).p99_us,
        histogram: latency.histogram,
    }
}

fn summary(
    done: &[Done],
    timeline: Vec<IntervalReport>,
    span: Span,
    pace: Pace,
    elapsed: u64,
    early: bool,
) -> Run {
    let mut counters = Counters::default();
    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    let (mut all, mut lag) = (histogram(), histogram());
    let mut kinds: Vec<_> = RequestKind::ALL.iter().map(|_| histogram()).collect();
    let (mut unanswered, mut open) = (kinds.clone(), histogram());
    for done in done {
        let recorder = &done.recorder;
        counters.add(&recorder.counters);
        for (text, n) in &recorder.error_texts {
            *errors.entry(text.clone()).or_default() += n;
        }
        // All histograms have the same bounds, so adding cannot fail.
        for (sum, part) in kinds.iter_mut().zip(&recorder.latency) {
            let _ = sum.add(part);
            let _ = all.add(part);
        }
        for (sum, part) in unanswered.iter_mut().zip(&recorder.unanswered) {
            let _ = sum.add(part);
            let _ = open.add(part);
        }
        let _ = lag.add(&recorder.lag);
    }
    let latest = |time: fn(&Done) -> u64| done.iter().map(time).max().unwrap_or(0);
    let (sent_until, last_answer) = (latest(|d| d.sent_until), latest(|d| d.recorder.last_answer));
    // A run of a given length is measured over it; other runs from start to end.
    let timed = span.end != u64::MAX && !early;
    let (sending, answering) = match timed {
        true => (span.end, span.end),
        false => (sent_until.min(elapsed), last_answer.max(sent_until)),
    };
    let seconds = |until: u64| (until.saturating_sub(span.from) as f64 / 1e9).max(1e-9);
    let in_time: u64 = done.iter().map(|d| d.recorder.in_time).sum();
    let asked = counters.hits + counters.misses;
    Run {
        pace,
        seconds: seconds(answering),
        offered_per_second: (counters.sent + counters.unsent) as f64 / seconds(sending),
        answered_per_second: in_time as f64 / seconds(answering),
        hit_ratio: (asked > 0).then(|| counters.hits as f64 / asked as f64),
        latency: Latency::bounded(&all, &open),
        kinds: RequestKind::ALL
            .iter()
            .zip(kinds.iter().zip(&unanswered))
            .filter(|(_, (histogram, _))| !histogram.is_empty())
            .map(|(kind, (histogram, open))| {
                (kind.name().to_string(), Latency::bounded(histogram, open))
            })
            .collect(),
        lag: Latency::of(&lag),
        counters,
        errors,
        timeline,
        cpu_seconds: done.iter().map(|d| d.cpu.as_secs_f64()).sum(),
    }
}

/// Reads a server's version, over every transport that will be used.
fn probe(server: &Endpoint, settings: &Settings) -> Result<String, Failure> {
    let mut version = "mirror".to_string();
    if !settings.mirror {
        version = Link::connect(server, settings)
            .and_then(|mut link| link.version(settings.protocol))
            .map_err(|e| Failure::Server(format!("TCP {server}: {e}")))?;
    }
    if let (Transport::Udp, Endpoint::Net(address)) = (settings.get, server) {
        probe_udp(*address, settings).map_err(|e| Failure::Server(format!("UDP {server}: {e}")))?;
    }
    Ok(version)
}

fn probe_udp(server: SocketAddr, settings: &Settings) -> std::io::Result<()> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mirror = settings.mirror;
    let (asked, answer): (Vec<u8>, &[u8]) = match settings.protocol {
        Protocol::Binary => (binary::version(), &[binary::REPLY, binary::opcode::VERSION]),
        _ => (b"version\r\n".to_vec(), b"VERSION "),
    };
    let request = [
        &Frame {
            id: 7,
            sequence: 0,
            total: 1,
        }
        .bytes()[..],
        &asked,
    ]
    .concat();
    let mut reply = [0; 2048];
    // A datagram may be lost; a server that is just starting gets a little time.
    for _ in 0..6 {
        socket.send(&request)?;
        match socket.recv(&mut reply) {
            Ok(n) if mirror && reply[..n] == request => return Ok(()),
            Ok(n)
                if !mirror
                    && reply[..n]
                        .get(8..)
                        .is_some_and(|body| body.starts_with(answer)) =>
            {
                return Ok(())
            }
            Ok(n) => {
                let shown = String::from_utf8_lossy(&reply[..n]).into_owned();
                return Err(std::io::Error::other(format!(
                    "it answers version with {shown:?}"
                )));
            }
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Err(std::io::Error::other(
                    "nothing listens there (port unreachable); memcached wants -U PORT",
                ));
            }
            Err(e) => return Err(e),
        }
    }
    Err(std::io::Error::other(
        "no answer to six datagrams; is UDP on, and is this host allowed?",
    ))
}
