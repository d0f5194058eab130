// SPDX-License-Identifier: GPL-2.0-only
//! Runs the table against a server.

use anyhow::{Context, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::case::{self, Case, CaseStep, End, Exchange};
use crate::fresh_key::fresh_key;
use crate::options::{Options, Target};
use crate::packet::REQUEST;
use crate::show::{brief, show_tokens};
use crate::template::{self, Match, Scope, Template, Token};
use crate::udp;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases that passed with every feed.
    pub passed: usize,
    /// Cases that need UDP when there is none, or that the reference cannot run.
    pub skipped: usize,
    /// Number of runs of cases.
    pub played: usize,
    /// A description of each failed case.
    pub failures: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}\n")?;
        }
        let (failed, skipped) = (self.failures.len(), self.skipped);
        write!(
            f,
            "conformance: {} passed, {failed} failed, {skipped} skipped",
            self.passed
        )
    }
}

/// How long to wait for a longer reply where a shorter one or none is valid as well.
const SILENCE: Duration = Duration::from_millis(200);

/// How the input of a case is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// As it is written, waiting for each answer.
    Steps,
    /// Byte by byte, waiting for each answer.
    Bytes,
    /// Cut at random places, waiting for each answer.
    Random(u64),
    /// All of it at once, then the client's side is closed.
    Pipelined,
}

/// Runs the whole table.
pub fn run(target: &Target, options: &Options) -> Result<Report> {
    Ok(run_cases(&case::all()?, target, options))
}

/// Runs some cases.
pub fn run_cases(cases: &[Case], target: &Target, options: &Options) -> Report {
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|c| c.name.contains(&options.filter))
        .collect();
    let (mut alone, mut together): (Vec<&Case>, Vec<&Case>) = chosen.iter().partition(|c| c.alone);
    // Cases that pause start first, so that the run does not end with a wait for them.
    together.sort_by_key(|c| !pauses(c));
    alone.sort_by_key(|c| c.line);

    let report = Mutex::new(Report::default());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..options.parallel.max(1) {
            scope.spawn(|| {
                while let Some(case) = together.get(next.fetch_add(1, Ordering::Relaxed)) {
                    play(case, target, options, &report);
                }
            });
        }
    });
    for case in alone {
        play(case, target, options, &report);
    }
    let mut report = report.into_inner().unwrap_or_default();
    report.failures.sort();
    report
}

/// How often a case that pauses is run before it fails: it checks states that last some seconds, which a machine
/// with other work may miss. A wrong server fails each time.
const TIMED_TRIES: u32 = 3;

/// Whether a case's expected replies depend on the clock.
fn pauses(case: &Case) -> bool {
    case.steps.iter().any(|s| matches!(s, CaseStep::Pause(_)))
}

/// Runs one case with every feed and records the result.
fn play(case: &Case, target: &Target, options: &Options, report: &Mutex<Report>) {
    let mut played = 0;
    let mut failure = None;
    let skipped = case.udp && target.udp.is_none() || case.hippos && options.reference;
    if !skipped {
        for feed in feeds(case, options) {
            played += 1;
            let once = || match (case.udp, target.udp) {
                (true, Some(address)) => udp::play(case, address, options),
                _ => Player::new(target.tcp, options).play(case, feed),
            };
            let mut result = once();
            if pauses(case) {
                for _ in 1..TIMED_TRIES {
                    result = result.or_else(|_| once());
                }
            }
            if let Err(error) = result {
                let note = match case.note.as_str() {
                    "" => String::new(),
                    note => format!("\n  note: {note}"),
                };
                failure = Some(format!("{} ({feed:?}): {error:#}{note}", case.place()));
                break;
            }
        }
    }
    if let Ok(mut report) = report.lock() {
        report.played += played;
        match (failure, skipped) {
            (Some(failure), _) => report.failures.push(failure),
            (None, true) => report.skipped += 1,
            (None, false) => report.passed += 1,
        }
    }
}

fn feeds(case: &Case, options: &Options) -> Vec<Feed> {
    let mut feeds = vec![Feed::Steps];
    if options.splits && !case.udp && !case.whole && !pauses(case) {
        feeds.extend([
            Feed::Bytes,
            Feed::Random(options.seed),
            Feed::Random(options.seed + 1),
        ]);
        let keeps = |t: &Option<Template>| t.as_deref().is_some_and(template::keeps);
        let straight = |s: &CaseStep| match s {
            CaseStep::Exchange(e) => !template::keeps(&e.input) && !keeps(&e.output),
            _ => false,
        };
        let piped = !(case.unpiped && options.reference);
        if case.steps.iter().all(straight) && matches!(case.end, End::Open | End::Closed) && piped {
            feeds.push(Feed::Pipelined);
        }
    }
    feeds
}

/// A number generator for splits: splitmix64.
struct Splits(u64);

impl Splits {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

/// One connection, and the data kept from its replies.
pub(crate) struct Player<'a> {
    address: SocketAddr,
    options: &'a Options,
    stream: Option<TcpStream>,
    /// First byte that the connection was sent.
    first: Option<u8>,
    pub(crate) scope: Scope,
    /// Received and not yet matched.
    got: Vec<u8>,
    closed: bool,
}

impl<'a> Player<'a> {
    pub(crate) fn new(address: SocketAddr, options: &'a Options) -> Self {
        Player {
            address,
            options,
            stream: None,
            first: None,
            scope: Scope {
                key: fresh_key(),
                ..Scope::default()
            },
            got: Vec::new(),
            closed: false,
        }
    }

    fn play(&mut self, case: &Case, feed: Feed) -> Result<()> {
        self.connect()?;
        if feed == Feed::Pipelined {
            return self.pipelined(case);
        }
        for step in &case.steps {
            match step {
                CaseStep::Exchange(exchange) => self.exchange(exchange, feed)?,
                other => self.other(other)?,
            }
        }
        self.end(case.end)
    }

    /// Runs a step that is no exchange.
    pub(crate) fn other(&mut self, step: &CaseStep) -> Result<()> {
        match step {
            CaseStep::Exchange(_) => {}
            CaseStep::Pause(time) => std::thread::sleep(*time),
            CaseStep::HalfClose => self.stream()?.shutdown(Shutdown::Write)?,
            CaseStep::Reconnect => self.connect()?,
        }
        Ok(())
    }

    pub(crate) fn connect(&mut self) -> Result<()> {
        // Many connections at once can fill the accept queue: one retry is allowed.
        let stream = TcpStream::connect_timeout(&self.address, self.options.timeout)
            .or_else(|_| TcpStream::connect_timeout(&self.address, self.options.timeout))
            .context("can't connect")?;
        stream.set_nodelay(true)?;
        self.stream = Some(stream);
        self.first = None;
        self.got.clear();
        self.closed = false;
        Ok(())
    }

    fn stream(&self) -> Result<&TcpStream> {
        self.stream.as_ref().context("not connected")
    }

    fn exchange(&mut self, exchange: &Exchange, feed: Feed) -> Result<()> {
        let input = template::bytes(&exchange.input, &self.scope)?;
        self.send(&input, feed)?;
        let output = exchange.output.as_deref().unwrap_or_default();
        let mut expected = vec![template::tokens(output, &self.scope)?];
        if let (Some(other), false) = (&exchange.other, self.options.reference) {
            expected.push(template::tokens(other, &self.scope)?);
        }
        self.expect(&expected)
            .with_context(|| format!("after sending {} (line {})", brief(&input), exchange.line))
    }

    /// Sends bytes. A server that closes meanwhile is not an error here.
    pub(crate) fn send(&mut self, bytes: &[u8], feed: Feed) -> Result<()> {
        if self.first.is_none() {
            self.first = bytes.first().copied();
        }
        let pieces = cuts(bytes, feed);
        let mut stream = self.stream()?;
        for (i, piece) in pieces.iter().enumerate() {
            match stream.write_all(piece) {
                Ok(()) => {}
                Err(e) if closing(e.kind()) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
            if pieces.len() > 1 && i < 64 {
                // Usually makes the server read this piece separately.
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Reads until one of the expected outputs has arrived.
    fn expect(&mut self, expected: &[Vec<Token>]) -> Result<()> {
        let end = Instant::now() + self.options.timeout;
        // Long replies arrive in many pieces: compare only when the length suffices.
        let length = |tokens: &Vec<Token>| -> usize {
            let known = |token: &Token| match token {
                Token::Bytes(bytes) => bytes.len(),
                _ => 0,
            };
            tokens.iter().map(known).sum()
        };
        let least = expected.iter().map(length).min().unwrap_or(0);
        loop {
            let mut why = String::new();
            let mut more = false;
            let mut whole = None;
            for tokens in expected {
                match template::compare(tokens, &self.got) {
                    Match::Whole(len, kept) => whole = Some((len, kept)),
                    Match::Part => more = true,
                    Match::No(reason) => why = reason,
                }
            }
            // Where one reply is a prefix of another, wait for the longer.
            if let Some((len, kept)) = whole {
                if !more || self.closed || !self.read(Instant::now() + SILENCE)? {
                    self.got.drain(..len);
                    self.scope.kept.extend(kept);
                    return Ok(());
                }
                continue;
            }
            let enough = least.min(2 * self.got.len());
            let mut came = more && !self.closed && self.read(end)?;
            while came && !self.closed && self.got.len() < enough {
                came = self.read(end)?;
            }
            if !came {
                if more {
                    why = match self.closed {
                        true => "the connection was closed".to_owned(),
                        false => "no more came".to_owned(),
                    };
                }
                self.read_rest(Duration::from_millis(30));
                let want = expected.iter().map(|e| show_tokens(e)).collect::<Vec<_>>();
                let want = want.join("\n        or: ");
                anyhow::bail!(
                    "{why}\n  expected: {want}\n       got: {}",
                    brief(&self.got)
                );
            }
        }
    }

    /// Reads some bytes; false at a timeout.
    fn read(&mut self, end: Instant) -> Result<bool> {
        let mut buffer = vec![0; 1 << 16];
        let left = end.saturating_duration_since(Instant::now());
        let mut stream = self.stream()?;
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(n) => self.got.extend(&buffer[..n]),
            Err(e) if closing(e.kind()) => self.closed = true,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(false)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
        Ok(true)
    }

    /// Reads until nothing more arrives for `quiet`.
    pub(crate) fn read_rest(&mut self, quiet: Duration) -> (&[u8], bool) {
        while !self.closed && matches!(self.read(Instant::now() + quiet), Ok(true)) {}
        (&self.got, self.closed)
    }

    /// Discards the received bytes.
    pub(crate) fn clear(&mut self) {
        self.got.clear();
    }

    /// Checks that nothing more arrived, and the state of the connection.
    pub(crate) fn end(&mut self, end: End) -> Result<()> {
        match end {
            End::Open => {
                let (ask, answer) = sentinel(self.first);
                self.send(&ask, Feed::Steps)?;
                self.expect(&[vec![Token::Bytes(answer)]])
                    .context("after the last step")
            }
            End::Closed => self.expect_close(),
            End::Any => Ok(()),
            End::Timeout => {
                self.read_rest(Duration::from_millis(50));
                let stuck = !self.closed && self.got.is_empty();
                anyhow::ensure!(
                    stuck,
                    "it did not wait for more input: {}",
                    brief(&self.got)
                );
                Ok(())
            }
        }
    }

    fn expect_close(&mut self) -> Result<()> {
        let end = Instant::now() + self.options.timeout;
        while !self.closed && self.got.is_empty() && self.read(end)? {}
        anyhow::ensure!(
            self.got.is_empty(),
            "more came at the end: {}",
            brief(&self.got)
        );
        anyhow::ensure!(self.closed, "the connection was not closed");
        Ok(())
    }

    /// Everything at once, with a half-closed connection at the end.
    fn pipelined(&mut self, case: &Case) -> Result<()> {
        let mut input = Vec::new();
        let mut expected = vec![Vec::new()];
        for step in &case.steps {
            let CaseStep::Exchange(exchange) = step else {
                continue;
            };
            input.extend(template::bytes(&exchange.input, &self.scope)?);
            let output = exchange.output.as_deref().unwrap_or_default();
            let tokens = template::tokens(output, &self.scope)?;
            let mut grown = Vec::new();
            for so_far in &expected {
                grown.push([so_far.clone(), tokens.clone()].concat());
                if let (Some(other), false) = (&exchange.other, self.options.reference) {
                    let tokens = template::tokens(other, &self.scope)?;
                    grown.push([so_far.clone(), tokens].concat());
                }
            }
            // Each alternative doubles the number: cases with alternatives are short.
            grown.truncate(64);
            expected = grown;
        }
        if case.end == End::Open {
            let (ask, answer) = sentinel(input.first().copied());
            input.extend(ask);
            for tokens in &mut expected {
                tokens.push(Token::Bytes(answer.clone()));
            }
        }
        let stream = self.stream()?.try_clone()?;
        std::thread::scope(|scope| {
            // The server may not read on before its replies are read.
            scope.spawn(move || {
                let mut stream = stream;
                let _ = stream.write_all(&input);
                let _ = stream.shutdown(Shutdown::Write);
            });
            self.expect(&expected)?;
            self.expect_close()
        })
    }
}

/// A harmless command of the connection's protocol and its reply: everything before it has been answered when the reply
/// arrives.
fn sentinel(first: Option<u8>) -> (Vec<u8>, Vec<u8>) {
    if first != Some(REQUEST) {
        return (b"mn\r\n".to_vec(), b"MN\r\n".to_vec());
    }
    let mut ask = vec![0; 24];
    ask[0] = REQUEST;
    ask[1] = 0x0a;
    ask[12..16].copy_from_slice(b"done");
    let mut answer = ask.clone();
    answer[0] = crate::packet::RESPONSE;
    (ask, answer)
}

fn cuts(bytes: &[u8], feed: Feed) -> Vec<&[u8]> {
    /// The part of a long input that is sent byte by byte.
    const BYTEWISE_MAX: usize = 600;
    match feed {
        Feed::Steps | Feed::Pipelined => vec![bytes],
        Feed::Bytes => {
            let (slowly, rest) = bytes.split_at(bytes.len().min(BYTEWISE_MAX));
            let (rest, last) = rest.split_at(rest.len().saturating_sub(BYTEWISE_MAX));
            slowly
                .chunks(1)
                .chain(rest.chunks(700 + rest.len() / 64))
                .chain(last.chunks(1))
                .collect()
        }
        Feed::Random(seed) => {
            let mut splits = Splits(seed ^ bytes.len() as u64);
            let mut rest = bytes;
            let mut pieces = Vec::new();
            while !rest.is_empty() {
                // Long inputs are split into larger pieces: their ends matter most.
                let most = [3, 20, 200, 3000][splits.next(4)] * (1 + bytes.len() / 10_000);
                let (piece, later) = rest.split_at(rest.len().min(1 + splits.next(most)));
                pieces.push(piece);
                rest = later;
            }
            pieces
        }
    }
}

fn closing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected
    )
}
