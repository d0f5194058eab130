// SPDX-License-Identifier: GPL-2.0-only
//! A worker's counters and measurements.

use std::collections::BTreeMap;

use crossbeam_channel::Sender;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Kinds of requests that are measured separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RequestKind {
    Get,
    MultiGet,
    Set,
    Delete,
    Touch,
    Gat,
    Append,
    Incr,
    Cas,
}

impl RequestKind {
    /// All kinds, in the order of reports.
    pub const ALL: [RequestKind; 9] = [
        RequestKind::Get,
        RequestKind::MultiGet,
        RequestKind::Set,
        RequestKind::Delete,
        RequestKind::Touch,
        RequestKind::Gat,
        RequestKind::Append,
        RequestKind::Incr,
        RequestKind::Cas,
    ];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        [
            "get", "mget", "set", "delete", "touch", "gat", "append", "incr", "cas",
        ][self as usize]
    }
}

/// Counters of one run, in requests unless stated otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Passed to the kernel.
    pub sent: u64,
    /// Answered in full before their timeout, errors included.
    pub answered: u64,
    /// Keys that GETs found.
    pub hits: u64,
    /// Keys that GETs did not find.
    pub misses: u64,
    /// SETs, ADDs and REPLACEs that stored.
    pub stored: u64,
    /// SETs, ADDs and REPLACEs that did not store.
    pub not_stored: u64,
    /// DELETEs that found their key.
    pub deleted: u64,
    /// DELETEs and TOUCHes that did not find their key.
    pub not_found: u64,
    /// TOUCHes that found their key.
    pub touched: u64,
    /// INCRs that found their key.
    #[serde(default)]
    pub counted: u64,
    /// CASes whose value had changed meanwhile.
    #[serde(default)]
    pub exists: u64,
    /// Not sent, or not answered, because the connection was down.
    #[serde(default)]
    pub lost: u64,
    /// Connections that were made again.
    #[serde(default)]
    pub reconnects: u64,
    /// Answered with `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR`.
    pub errors: u64,
    /// Not completely answered in time: over UDP, lost.
    pub timeouts: u64,
    /// Of the timeouts, those with some datagrams of the reply.
    pub partial: u64,
    /// Replies that arrived after their timeout.
    pub late: u64,
    /// Datagrams that belong to no request.
    pub strays: u64,
    /// Due, but not sent: the connection's backlog was full, or the generator was late by more than the timeout at the
    /// end of the run.
    pub unsent: u64,
    /// SETs made after a miss.
    pub refills: u64,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
}

impl Counters {
    /// Adds another worker's counters.
    pub fn add(&mut self, other: &Counters) {
        let Counters {
            sent,
            answered,
            hits,
            misses,
            stored,
            not_stored,
            deleted,
            not_found,
            touched,
            counted,
            exists,
            lost,
            reconnects,
            errors,
            timeouts,
            partial,
            late,
            strays,
            unsent,
            refills,
            bytes_sent,
            bytes_received,
        } = other;
        self.sent += sent;
        self.answered += answered;
        self.hits += hits;
        self.misses += misses;
        self.stored += stored;
        self.not_stored += not_stored;
        self.deleted += deleted;
        self.not_found += not_found;
        self.touched += touched;
        self.counted += counted;
        self.exists += exists;
        self.lost += lost;
        self.reconnects += reconnects;
        self.errors += errors;
        self.timeouts += timeouts;
        self.partial += partial;
        self.late += late;
        self.strays += strays;
        self.unsent += unsent;
        self.refills += refills;
        self.bytes_sent += bytes_sent;
        self.bytes_received += bytes_received;
    }
}

/// A histogram of nanoseconds, with a precision of one part in a thousand, up to ten minutes.
pub fn histogram() -> Histogram<u64> {
    histogram_of(3)
}

fn histogram_of(digits: u8) -> Histogram<u64> {
    // The bounds are constants for which this cannot fail; the fallback keeps the types honest.
    Histogram::new_with_bounds(64, 600_000_000_000, digits)
        .unwrap_or_else(|_| Histogram::new(1).expect("one digit"))
}

/// The events of one interval of the timeline, in one worker.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Number of the interval since the start of the run.
    pub index: u64,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Of these, with an error.
    pub errors: u64,
    /// Requests given up or lost.
    pub timeouts: u64,
    /// Keys that GETs found.
    pub hits: u64,
    /// Keys that GETs did not find.
    pub misses: u64,
    /// Latencies in nanoseconds; requests that were given up count with the time that they had taken.
    pub latency: Histogram<u64>,
    /// From the scheduled time to the sending.
    pub lag: Histogram<u64>,
}

impl Interval {
    /// An interval without events.
    pub fn new(index: u64) -> Self {
        Self {
            index,
            sent: 0,
            answered: 0,
            errors: 0,
            timeouts: 0,
            hits: 0,
            misses: 0,
            latency: histogram_of(2),
            lag: histogram_of(2),
        }
    }

    /// Adds another worker's events in the same interval.
    pub fn add(&mut self, other: &Interval) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.errors += other.errors;
        self.timeouts += other.timeouts;
        self.hits += other.hits;
        self.misses += other.misses;
        let _ = self.lag.add(&other.lag);
        // The bounds are the same, so this cannot fail.
        let _ = self.latency.add(&other.latency);
    }
}

/// Distinct error texts that are kept.
const ERROR_TEXTS: usize = 16;

/// A worker's measurements.
#[derive(Debug)]
pub struct Recorder {
    /// Counts of the measured requests.
    pub counters: Counters,
    /// Latency of each [`RequestKind`], from the scheduled time, in nanoseconds.
    pub latency: [Histogram<u64>; RequestKind::ALL.len()],
    /// Of these, the ones that are only lower bounds, by [`RequestKind`].
    pub unanswered: [Histogram<u64>; RequestKind::ALL.len()],
    /// From the scheduled time to the sending, in nanoseconds: the generator's own delay.
    pub lag: Histogram<u64>,
    /// Error replies with their counts.
    pub error_texts: BTreeMap<String, u64>,
    /// Replies that arrived while measured requests were being sent.
    pub in_time: u64,
    /// When the last reply arrived, in nanoseconds since the start.
    pub last_answer: u64,
    /// Requests due before this are not measured.
    from: u64,
    interval: u64,
    current: Interval,
    /// `None` when the run is over: the receiver ends with the last sender.
    timeline: Option<Sender<Interval>>,
}

impl Recorder {
    /// Measures requests due after `from` nanoseconds, and sends an [`Interval`] to `timeline` every `interval`
    /// nanoseconds.
    pub fn new(from: u64, interval: u64, timeline: Sender<Interval>) -> Self {
        Self {
            counters: Counters::default(),
            latency: std::array::from_fn(|_| histogram()),
            unanswered: std::array::from_fn(|_| histogram()),
            lag: histogram(),
            error_texts: BTreeMap::new(),
            in_time: 0,
            last_answer: 0,
            from,
            interval,
            current: Interval::new(0),
            timeline: Some(timeline),
        }
    }

    /// The counters, if a request due at that time is measured.
    pub fn counted(&mut self, due: u64) -> Option<&mut Counters> {
        (due >= self.from).then_some(&mut self.counters)
    }

    /// Advances to the interval that contains `now`.
    pub fn tick(&mut self, now: u64) {
        let index = now / self.interval;
        if index > self.current.index {
            self.close(index);
        }
    }

    /// Sends the current interval and begins another.
    fn close(&mut self, next: u64) {
        let done = std::mem::replace(&mut self.current, Interval::new(next));
        if let Some(timeline) = &self.timeline {
            // The receiver outlives the workers; if not, the timeline is not needed.
            let _ = timeline.send(done);
        }
    }

    /// The end of the current interval.
    pub fn interval_end(&self) -> u64 {
        (self.current.index + 1) * self.interval
    }

    /// A request was sent.
    pub fn sent(&mut self, due: u64, now: u64, bytes: usize) {
        self.current.sent += 1;
        if let Some(counters) = self.counted(due) {
            counters.sent += 1;
            counters.bytes_sent += bytes as u64;
            let lag = now.saturating_sub(due);
            self.lag.saturating_record(lag);
            self.current.lag.saturating_record(lag);
        }
    }

    /// A GET was answered.
    pub fn got(&mut self, due: u64, hits: u64, misses: u64) {
        self.current.hits += hits;
        self.current.misses += misses;
        if let Some(counters) = self.counted(due) {
            counters.hits += hits;
            counters.misses += misses;
        }
    }

    /// A request was answered; `in_time` if requests were still being sent.
    pub fn answered(&mut self, kind: RequestKind, due: u64, now: u64, in_time: bool) {
        let latency = now.saturating_sub(due);
        // Also requests due before: under overload, all replies are late by up to the timeout.
        self.in_time += u64::from(in_time && now >= self.from);
        self.current.answered += 1;
        self.current.latency.saturating_record(latency);
        self.last_answer = self.last_answer.max(now);
        if let Some(counters) = self.counted(due) {
            counters.answered += 1;
            self.latency[kind as usize].saturating_record(latency);
        }
    }

    /// A request was answered with an error.
    pub fn error(&mut self, due: u64, text: &[u8]) {
        self.current.errors += 1;
        let Some(counters) = self.counted(due) else {
            return;
        };
        counters.errors += 1;
        let text = String::from_utf8_lossy(&text[..text.len().min(100)]).into_owned();
        if self.error_texts.len() < ERROR_TEXTS || self.error_texts.contains_key(&text) {
            *self.error_texts.entry(text).or_default() += 1;
        }
    }

    /// A request was given up after this time; `partial` if a part of its reply was received. Its latency is that of
    /// its reply, if the reply still arrives ([`Self::late`]), and unknown otherwise ([`Self::unanswered`]).
    pub fn timeout(&mut self, due: u64, gave_up: u64, partial: bool) {
        self.current.timeouts += 1;
        self.current.latency.saturating_record(gave_up);
        if let Some(counters) = self.counted(due) {
            counters.timeouts += 1;
            counters.partial += u64::from(partial);
        }
    }

    /// The reply to a request that had been given up has arrived.
    pub fn late(&mut self, kind: RequestKind, due: u64, now: u64) {
        if let Some(counters) = self.counted(due) {
            counters.late += 1;
            self.latency[kind as usize].saturating_record(now.saturating_sub(due));
        }
    }

    /// No reply will arrive any more: it would have taken more than `least`.
    pub fn unanswered(&mut self, kind: RequestKind, due: u64, least: u64) {
        if self.counted(due).is_some() {
            self.latency[kind as usize].saturating_record(least);
            self.unanswered[kind as usize].saturating_record(least);
        }
    }

    /// A request was lost with its connection, and would have taken more than `least`.
    pub fn lost(&mut self, kind: RequestKind, due: u64, least: u64) {
        self.current.timeouts += 1;
        if let Some(counters) = self.counted(due) {
            counters.lost += 1;
        }
        self.unanswered(kind, due, least);
    }

    /// Sends the rest of the timeline, and drops the sender.
    pub fn finish(&mut self) {
        self.close(0);
        self.timeline = None;
    }
}
