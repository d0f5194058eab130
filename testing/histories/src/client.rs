// SPDX-License-Identifier: GPL-2.0-only
//! A client that records: one TCP connection for everything, one UDP socket
//! for some of the reads, all in the text protocol.

use crate::model::{Action, Answer, Ttl, RECACHE};
use anyhow::{bail, ensure, Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// How long an answer may take; after that it counts as [`Answer::Unknown`].
const TIMEOUT: Duration = Duration::from_secs(20);

/// Reads over UDP are tried this long, since packets may be lost.
const UDP_TIMEOUT: Duration = Duration::from_secs(2);

/// A value with the number that `cas` wants.
pub(crate) type Tagged = (Vec<u8>, u64);

pub(crate) struct Client {
    tcp: BufReader<TcpStream>,
    udp: UdpSocket,
    request_id: u16,
}

impl Client {
    pub(crate) fn connect(server: SocketAddr) -> Result<Self> {
        let tcp = TcpStream::connect_timeout(&server, TIMEOUT)
            .with_context(|| format!("can't connect to {server}"))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        tcp.set_write_timeout(Some(TIMEOUT))?;
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let udp = UdpSocket::bind(any)?;
        udp.connect(server)?;
        udp.set_read_timeout(Some(UDP_TIMEOUT))?;
        Ok(Self {
            tcp: BufReader::new(tcp),
            udp,
            request_id: 0,
        })
    }

    /// Does `action` on `key`; `token` is the number for a `cas`.
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
                write!(self.tcp.get_ref(), "gats {} {key}\r\n", ttl.exptime())?;
                return Ok(value_or_absent(read_value(&mut self.tcp, key)?));
            }
            Action::MetaGet(ttl) => format!("mg {key} t{}\r\n", ttl_flag(*ttl)).into_bytes(),
            Action::MetaGetRecache => format!("mg {key} t R{RECACHE}\r\n").into_bytes(),
            Action::MetaGetVivify(ttl) => format!("mg {key} t N{}\r\n", ttl.exptime()).into_bytes(),
            Action::Invalidate(ttl) => format!("md {key} I{}\r\n", ttl_flag(*ttl)).into_bytes(),
        };
        self.tcp.get_ref().write_all(&request)?;
        let line = self.line()?;
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
        write!(self.tcp.get_ref(), "gets {key}\r\n")?;
        read_value(&mut self.tcp, key)
    }

    /// Reads over UDP; `None` when no whole answer came in time.
    pub(crate) fn get_udp(&mut self, key: &str) -> Result<Option<Answer>> {
        self.request_id = self.request_id.wrapping_add(1);
        let mut request = self.request_id.to_be_bytes().to_vec();
        request.extend_from_slice(&[0, 0, 0, 1, 0, 0]);
        request.extend_from_slice(format!("gets {key}\r\n").as_bytes());
        // A closed port answers by ICMP, which shows here as an error.
        self.udp.send(&request)?;
        let mut buffer = [0; 2048];
        loop {
            let length = match self.udp.recv(&mut buffer) {
                Ok(length) => length,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e).context("reading over UDP"),
            };
            let datagram = &buffer[..length];
            ensure!(length >= 8, "a UDP answer of {length} bytes has no frame");
            if datagram[..2] != self.request_id.to_be_bytes() {
                continue; // Late, of a question given up.
            }
            // Values here are small; more than one datagram is not expected.
            ensure!(
                datagram[2..6] == [0, 0, 0, 1],
                "unexpected frame {:?}",
                &datagram[..8]
            );
            return Ok(Some(value_or_absent(read_value(&mut &datagram[8..], key)?)));
        }
    }

    fn line(&mut self) -> Result<String> {
        read_line(&mut self.tcp)
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
