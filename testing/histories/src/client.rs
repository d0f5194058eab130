// SPDX-License-Identifier: GPL-2.0-only
//! A client that records: one TCP connection for everything, one UDP socket
//! for some of the reads, all in the text protocol.

use crate::model::{Action, Answer, Ttl, RECACHE};
use anyhow::{bail, ensure, Context, Result};
use hippos_client::{Tcp, Udp, FRAME};
use std::io::BufRead;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a reply may take; after that it counts as [`Answer::Unknown`].
const TIMEOUT: Duration = Duration::from_secs(20);

/// Reads over UDP are tried this long, since packets may be lost.
const UDP_TIMEOUT: Duration = Duration::from_secs(2);

/// A value with its CAS number.
pub(crate) type Tagged = (Vec<u8>, u64);

pub(crate) struct Client {
    tcp: Tcp,
    udp: Udp,
}

impl Client {
    pub(crate) fn connect(server: SocketAddr) -> Result<Self> {
        Ok(Self {
            tcp: Tcp::to(server, TIMEOUT)?,
            udp: Udp::to(server, UDP_TIMEOUT)?,
        })
    }

    /// Runs `action` on `key`; `token` is the number for a `cas`.
    pub(crate) fn perform(&mut self, key: &str, action: &Action, token: u64) -> Result<Answer> {
        let with = |line: String, value: &[u8]| [line.as_bytes(), b"\r\n", value, b"\r\n"].concat();
        let store = |verb: &str, value: &[u8], tail: String| {
            with(format!("{verb} {key} 0 0 {}{tail}", value.len()), value)
        };
        let request = match action {
            Action::Get => return Ok(value_or_absent(self.gets(key)?)),
            Action::Set(value) => store("set", value, String::new()),
            Action::SetExpired(value) => with(format!("set {key} 0 -1 {}", value.len()), value),
            Action::MetaSetInvalidate(_, value) => {
                with(format!("ms {key} {} I C{token}", value.len()), value)
            }
            Action::Add(value) => store("add", value, String::new()),
            Action::Replace(value) => store("replace", value, String::new()),
            Action::Append(value) => store("append", value, String::new()),
            Action::Prepend(value) => store("prepend", value, String::new()),
            Action::Cas(_, value) => store("cas", value, format!(" {token}")),
            Action::Delete => format!("delete {key}\r\n").into_bytes(),
            Action::Incr(by) => format!("incr {key} {by}\r\n").into_bytes(),
            Action::Touch(ttl) => format!("touch {key} {}\r\n", ttl.exptime()).into_bytes(),
            Action::GetAndTouch(ttl) => {
                let request = format!("gats {} {key}\r\n", ttl.exptime());
                return Ok(value_or_absent(self.value(&request, key)?));
            }
            Action::MetaGet(ttl) => format!("mg {key} t{}\r\n", ttl_flag(*ttl)).into_bytes(),
            Action::MetaGetRecache => format!("mg {key} t R{RECACHE}\r\n").into_bytes(),
            Action::MetaGetVivify(ttl) => format!("mg {key} t N{}\r\n", ttl.exptime()).into_bytes(),
            Action::Invalidate(ttl) => format!("md {key} I{}\r\n", ttl_flag(*ttl)).into_bytes(),
        };
        self.tcp.send(&request)?;
        let line = read_line(self.tcp.reader())?;
        Ok(match line.as_str() {
            "STORED" => Answer::Stored,
            "NOT_STORED" => Answer::NotStored,
            "CLIENT_ERROR cannot increment or decrement non-numeric value" => Answer::NotStored,
            "EXISTS" => Answer::Exists,
            "NOT_FOUND" => Answer::Absent,
            "DELETED" => Answer::Deleted,
            "TOUCHED" | "HD" => Answer::Done,
            "EN" | "NF" => Answer::Absent,
            seen if seen.starts_with("HD t") => {
                let mut words = seen.split(' ').skip(1);
                let left = words.next().and_then(|word| word.strip_prefix('t'));
                let has = |flag| seen.split(' ').any(|word| word == flag);
                Answer::Seen {
                    ttl: Ttl::of(left.context("no t")?.parse()?),
                    stale: has("X"),
                    sent: has("Z"),
                    won: has("W"),
                }
            }
            number => match number.parse() {
                Ok(number) => Answer::Number(number),
                Err(_) => bail!("{action:?} on {key}: unexpected answer {line:?}"),
            },
        })
    }

    /// Reads over TCP, with the number for a later `cas`.
    pub(crate) fn gets(&mut self, key: &str) -> Result<Option<Tagged>> {
        self.value(&format!("gets {key}\r\n"), key)
    }

    fn value(&mut self, request: &str, key: &str) -> Result<Option<Tagged>> {
        self.tcp.send(request.as_bytes())?;
        read_value(self.tcp.reader(), key)
    }

    /// Reads over UDP; `None` when no whole answer came in time.
    pub(crate) fn get_udp(&mut self, key: &str) -> Result<Option<Answer>> {
        // A closed port answers by ICMP, which shows here as an error.
        let id = self.udp.send(format!("gets {key}\r\n").as_bytes())?;
        let mut buffer = [0; 2048];
        loop {
            let length = match self.udp.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e).context("reading over UDP"),
            };
            let datagram = &buffer[..length];
            ensure!(
                length >= FRAME,
                "a UDP answer of {length} bytes has no frame"
            );
            if !datagram.starts_with(&id.to_be_bytes()) {
                continue; // A late reply to a request that was given up.
            }
            // Values here are small; more than one datagram is not expected.
            let total = hippos_client::check(datagram, id, 0)?;
            ensure!(total == 1, "{total} datagrams of a small answer");
            let value = read_value(&mut &datagram[FRAME..], key)?;
            return Ok(Some(value_or_absent(value)));
        }
    }
}

/// The flag that gives an item a new life.
fn ttl_flag(ttl: Option<Ttl>) -> String {
    ttl.map_or_else(String::new, |ttl| format!(" T{}", ttl.exptime()))
}

fn value_or_absent(value: Option<Tagged>) -> Answer {
    value.map_or(Answer::Absent, |(value, _)| Answer::Value(value))
}

fn read_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    ensure!(
        from.read_line(&mut line)? > 0,
        "the server closed the connection"
    );
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => bail!("an answer without its end: {line:?}"),
    }
}

fn read_value(from: &mut impl BufRead, key: &str) -> Result<Option<Tagged>> {
    let line = read_line(from)?;
    if line == "END" {
        return Ok(None);
    }
    let words: Vec<&str> = line.split(' ').collect();
    let ["VALUE", name, _flags, length, cas] = words[..] else {
        bail!("unexpected answer {line:?}");
    };
    ensure!(name == key, "asked for {key}, answered {name}");
    let mut value = vec![0; length.parse::<usize>()? + 2];
    from.read_exact(&mut value)?;
    ensure!(value.ends_with(b"\r\n"), "a value without its end");
    value.truncate(value.len() - 2);
    ensure!(read_line(from)? == "END", "an answer without END");
    Ok(Some((value, cas.parse()?)))
}
