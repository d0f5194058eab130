// SPDX-License-Identifier: GPL-2.0-only
//! A connection on which many requests are sent before their replies are read.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::Result;

use crate::exit::{end, Status, StatusError};
use crate::server::{Server, UNAUTHENTICATED};
use crate::terminal_text::shown;

/// The longest line of a server: a key as `%XX` and numbers.
const LINE_MOST: u64 = 4096;
/// Bytes of replies that are read at once.
const BUFFER: usize = 256 << 10;

/// The server's address, and the user.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) users: Vec<u8>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
    address: String,
}

impl Client {
    /// Connects, and authenticates if there are users.
    pub(crate) fn connect(target: &Target) -> Result<Self> {
        let stream = Server::connect(&target.address, &target.users)?.into_stream()?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::with_capacity(BUFFER, stream),
            line: Vec::new(),
            address: target.address.clone(),
        })
    }

    pub(crate) fn send(&mut self, requests: &[u8]) -> Result<()> {
        let sent = self.stream.get_mut().write_all(requests);
        sent.map_err(|error| silent(&self.address, &error))
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> Result<&[u8]> {
        self.line.clear();
        let mut limited = (&mut self.stream).take(LINE_MOST);
        match limited.read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.ends_with(b"\n") => {}
            Ok(len) if len as u64 == LINE_MOST => {
                end!(Failed, "{}: a line without an end", self.address)
            }
            Ok(_) => end!(NotLoaded, "{} closed the connection", self.address),
            Err(error) => return Err(silent(&self.address, &error)),
        }
        let line = self.line.trim_ascii_end();
        if line == UNAUTHENTICATED.as_bytes() {
            end!(
                NoPermission,
                "{}: clients have to log in: --auth-file FILE",
                self.address
            );
        }
        Ok(line)
    }

    /// Reads `len` bytes of a value, appends them to `into`, and reads the end of the block.
    pub(crate) fn value(&mut self, len: usize, into: &mut Vec<u8>) -> Result<()> {
        let from = into.len();
        into.resize(from + len, 0);
        let mut tail = [0; 2];
        let read = self.stream.read_exact(&mut into[from..]);
        let read = read.and_then(|()| self.stream.read_exact(&mut tail));
        read.map_err(|error| silent(&self.address, &error))?;
        if tail != *b"\r\n" {
            end!(Failed, "{}: a value without its end", self.address);
        }
        Ok(())
    }

    /// Skips a value.
    pub(crate) fn skip(&mut self, len: u64) -> Result<()> {
        let whole = len.saturating_add(2);
        let mut limited = (&mut self.stream).take(whole);
        match io::copy(&mut limited, &mut io::sink()) {
            Ok(read) if read == whole => Ok(()),
            Ok(_) => end!(NotLoaded, "{} closed the connection", self.address),
            Err(error) => Err(silent(&self.address, &error)),
        }
    }

    /// The error for a reply that does not match the request.
    pub(crate) fn unexpected(&self) -> anyhow::Error {
        let line = shown(self.line.trim_ascii_end());
        let what = format!("{}: {line}", self.address);
        StatusError::new(Status::Refused, what).into()
    }
}

fn silent(address: &str, error: &io::Error) -> anyhow::Error {
    let what = format!("{address} stopped answering: {error}");
    StatusError::new(Status::NotLoaded, what).into()
}

/// Bytes in base64, as the flag `b` takes a key.
pub(crate) fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            out.push(match at <= three.len() {
                true => DIGITS[(bits >> (18 - 6 * at)) as usize & 63],
                false => b'=',
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_base64_are_those_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("\0~\u{ff}", "AH7Dvw=="),
        ] {
            let mut out = Vec::new();
            put_base64(bytes.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
