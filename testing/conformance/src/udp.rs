// SPDX-License-Identifier: GPL-2.0-only
//! Plays a case over UDP, and checks the frames of every answer.
//!
//! A frame is eight bytes before the payload: request id, sequence number, number of datagrams
//! in the message, zero; each two bytes, big endian. An answer carries the request's id, counts
//! its datagrams from 0; each has their number, and at most 1400 bytes.

use anyhow::{bail, ensure, Context, Result};
use hippos_client::{framed, DATAGRAM, FRAME};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::case::{Case, CaseStep, Exchange};
use crate::fresh_key::fresh_key;
use crate::options::Options;
use crate::show::{brief, show_tokens};
use crate::template::{self, Match, Scope, Token};

/// Plays one case.
pub(crate) fn play(case: &Case, address: SocketAddr, options: &Options) -> Result<()> {
    let mut player = Player::new(address, options)?;
    for step in &case.steps {
        match step {
            CaseStep::Exchange(exchange) => player.exchange(exchange)?,
            CaseStep::Pause(time) => std::thread::sleep(*time),
            CaseStep::Reconnect => player.socket = hippos_client::socket(address)?,
            CaseStep::HalfClose => bail!("UDP has no connections to close"),
        }
    }
    player.quiet()
}

/// One socket, and the data kept from its replies.
pub(crate) struct Player<'a> {
    socket: UdpSocket,
    options: &'a Options,
    pub(crate) scope: Scope,
}

/// Whether it is a frame that announces no datagrams.
fn nothing(datagram: &[u8]) -> bool {
    datagram.len() == FRAME && datagram[4..6] == [0, 0]
}

fn fresh_id() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0x1111);
    NEXT.fetch_add(0x0137, Ordering::Relaxed)
}

impl<'a> Player<'a> {
    pub(crate) fn new(address: SocketAddr, options: &'a Options) -> Result<Self> {
        let scope = Scope {
            key: fresh_key(),
            ..Scope::default()
        };
        Ok(Player {
            socket: hippos_client::socket(address)?,
            options,
            scope,
        })
    }

    /// Sends the request and returns its id and how to send it.
    pub(crate) fn send(&mut self, exchange: &Exchange) -> Result<u16> {
        let input = template::bytes(&exchange.input, &self.scope)?;
        if exchange.bare {
            self.socket.send(&input)?;
            return Ok(match input.first_chunk::<2>() {
                Some(id) => u16::from_be_bytes(*id),
                None => 0,
            });
        }
        let id = fresh_id();
        self.socket.send(&framed(id, &input))?;
        Ok(id)
    }

    fn exchange(&mut self, exchange: &Exchange) -> Result<()> {
        let id = self.send(exchange)?;
        let output = exchange.output.as_deref().unwrap_or_default();
        let mut expected = vec![template::tokens(output, &self.scope)?];
        if let (Some(other), false) = (&exchange.other, self.options.reference) {
            expected.push(template::tokens(other, &self.scope)?);
        }
        let result = match expected[0].is_empty() && expected.len() == 1 {
            true => self.quiet(),
            false => self.expect(&expected, id, exchange.framed),
        };
        result.with_context(|| {
            let input = template::bytes(&exchange.input, &self.scope).unwrap_or_default();
            format!("after sending {} (line {})", brief(&input), exchange.line)
        })
    }

    fn expect(&mut self, expected: &[Vec<Token>], id: u16, framed: bool) -> Result<()> {
        let end = Instant::now() + self.options.timeout;
        let mut message = Message::new(id, self.options.reference);
        let mut got = Vec::new();
        let mut why = String::new();
        let mut silent = false;
        let mut fence = None;
        loop {
            let mut more = false;
            for tokens in expected {
                // Where silence is one of several valid replies, wait for the non-empty ones first.
                let waits = tokens.is_empty() && expected.len() > 1 && !silent;
                match template::compare(tokens, &got) {
                    Match::Whole(..) if waits => more = true,
                    Match::Whole(len, kept) if len == got.len() => {
                        self.scope.kept.extend(kept);
                        if let Some(fence) = fence.filter(|_| !silent) {
                            let answer = self.next(end)?;
                            ensure!(answer == Some(fence), "more came than that: {answer:?}");
                        }
                        return match framed {
                            true => Ok(()),
                            false => message.end(),
                        };
                    }
                    Match::Whole(..) => why = "more came than that".to_owned(),
                    Match::Part => more = true,
                    Match::No(reason) => why = reason,
                }
            }
            if more {
                let may_be_silent = expected.iter().any(Vec::is_empty) && got.is_empty();
                if may_be_silent && fence.is_none() {
                    fence = Some(self.send_fence()?);
                }
                let came = if framed {
                    self.receive(end)?
                } else {
                    self.next(end)?
                };
                match came {
                    Some(datagram) if may_be_silent && fence.as_ref() == Some(&datagram) => {
                        silent = true;
                    }
                    Some(datagram) if framed => got.extend(datagram),
                    Some(datagram) => got.extend(message.add(&datagram)?),
                    None => {
                        why = "no more came".to_owned();
                        more = false;
                    }
                }
            }
            if !more {
                let want = expected.iter().map(|e| show_tokens(e)).collect::<Vec<_>>();
                let want = want.join("\n        or: ");
                bail!("{why}\n  expected: {want}\n       got: {}", brief(&got));
            }
        }
    }

    /// Sends a command that the worker of the UDP socket answers after all earlier ones; returns its reply.
    fn send_fence(&mut self) -> Result<Vec<u8>> {
        let id = fresh_id();
        let request = framed(id, b"touch nothing 0\r\n");
        self.socket.send(&request)?;
        Ok(framed(id, b"NOT_FOUND\r\n"))
    }

    /// The next datagram that is not empty. The reference sends a frame of no datagrams for a reply that is suppressed.
    pub(crate) fn next(&mut self, end: Instant) -> Result<Option<Vec<u8>>> {
        loop {
            match self.receive(end)? {
                Some(datagram) if self.options.reference && nothing(&datagram) => {}
                other => return Ok(other),
            }
        }
    }

    /// One datagram, or none after a timeout.
    pub(crate) fn receive(&mut self, end: Instant) -> Result<Option<Vec<u8>>> {
        let left = end.saturating_duration_since(Instant::now());
        self.socket
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut buffer = vec![0; 1 << 16];
        match self.socket.recv(&mut buffer) {
            Ok(n) => Ok(Some(buffer[..n].to_vec())),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Checks that no reply arrives: the next one must be that of a harmless command.
    fn quiet(&mut self) -> Result<()> {
        let id = fresh_id();
        self.socket.send(&framed(id, b"mn\r\n"))?;
        let answer = framed(id, b"MN\r\n");
        let next = self.next(Instant::now() + self.options.timeout)?;
        let next = next.context("the server answers no more")?;
        ensure!(
            next == answer,
            "an answer was not expected: {}",
            brief(&next)
        );
        let late = self.next(Instant::now() + Duration::from_millis(20))?;
        ensure!(
            late.is_none(),
            "a late answer was not expected: {}",
            brief(&late.unwrap_or_default())
        );
        Ok(())
    }
}

/// A reply that is being reassembled.
pub(crate) struct Message {
    id: u16,
    lenient: bool,
    next: u16,
    total: Option<u16>,
}

impl Message {
    pub(crate) fn new(id: u16, lenient: bool) -> Self {
        Message {
            id,
            lenient,
            next: 0,
            total: None,
        }
    }

    /// The payload of the next datagram.
    pub(crate) fn add<'d>(&mut self, datagram: &'d [u8]) -> Result<&'d [u8]> {
        let show = || brief(datagram);
        ensure!(datagram.len() >= FRAME, "no frame: {}", show());
        ensure!(
            datagram.len() <= DATAGRAM,
            "{} bytes in a datagram",
            datagram.len()
        );
        let word = |i: usize| u16::from_be_bytes([datagram[i], datagram[i + 1]]);
        let (id, sequence, total, reserved) = (word(0), word(2), word(4), word(6));
        ensure!(
            id == self.id,
            "the answer's id is not the request's: {}",
            show()
        );
        ensure!(
            reserved == 0,
            "the frame's last two bytes are not zero: {}",
            show()
        );
        if self.lenient && sequence == 0 {
            // The reference answers several keys with several messages.
            self.next = 0;
            self.total = None;
        }
        ensure!(
            sequence == self.next,
            "number {sequence}, not {}: {}",
            self.next,
            show()
        );
        let known = *self.total.get_or_insert(total);
        ensure!(
            total == known,
            "of {total} datagrams, earlier of {known}: {}",
            show()
        );
        ensure!(sequence < total, "number {sequence} of {total}: {}", show());
        self.next += 1;
        Ok(&datagram[FRAME..])
    }

    /// Whether the message is complete.
    pub(crate) fn end(&self) -> Result<()> {
        let total = self.total.unwrap_or(0);
        ensure!(
            total == self.next,
            "{} datagrams said to be {total}",
            self.next
        );
        Ok(())
    }
}
