// SPDX-License-Identifier: GPL-2.0-only
//! `keys`: the keys that begin with a prefix, from a dump of all items.

use std::io::Write;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::json;

use crate::exit::end;
use crate::server::Server;
use crate::terminal_text::shown;

/// The reply while the server is busy with another dump; then it is asked again.
const BUSY: &str = "BUSY currently processing crawler request";
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Prints at most `most` keys; returns how many there are.
pub(crate) fn keys(
    server: &mut Server,
    prefix: &[u8],
    most: u64,
    is_json: bool,
    out: &mut impl Write,
) -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut found = 0u64;
    let mut each = |line: &str| {
        // Sent first by some versions of memcached.
        if line == "OK" {
            return Ok(());
        }
        let item = Item::parse(line).with_context(|| format!("not an item: {line:?}"))?;
        if !item.key.starts_with(prefix) {
            return Ok(());
        }
        found += 1;
        if found > most {
            return Ok(());
        }
        let key = shown(&item.key);
        let left = item.expiry.map(|at| at.saturating_sub(now));
        if is_json {
            let line =
                json!({"key": key, "bytes": item.bytes, "expires_in": left, "read": item.is_read});
            writeln!(out, "{line}")?;
        } else {
            let left = left.map_or("-".to_owned(), |left| format!("{left} s"));
            let read = if item.is_read { "read" } else { "never read" };
            writeln!(out, "{key}  {} bytes  {left}  {read}", item.bytes)?;
        }
        Ok(())
    };
    let mut tries = 0;
    while server.ask("lru_crawler metadump all", &["END", BUSY], &mut each)? == BUSY {
        tries += 1;
        if tries == TRIES {
            end!(Refused, "the server is busy with another dump");
        }
        thread::sleep(PAUSE);
    }
    Ok(found)
}

/// A line of the dump.
struct Item {
    key: Vec<u8>,
    expiry: Option<u64>,
    bytes: u64,
    is_read: bool,
}

impl Item {
    fn parse(line: &str) -> Option<Self> {
        let of = |name: &str| {
            let mut words = line.split(' ');
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        Some(Item {
            key: decoded(of("key")?.as_bytes()),
            // -1 means that it does not expire.
            expiry: of("exp").and_then(|at| at.parse().ok()),
            bytes: of("size")?.parse().ok()?,
            is_read: of("fetch") == Some("yes"),
        })
    }
}

/// A key, decoded from the dump's %XX.
pub(crate) fn decoded(mut rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = hex.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                key.push(byte);
                rest = &after[2..];
            }
            _ => {
                key.push(*first);
                rest = after;
            }
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    #[test]
    fn keys_are_listed_after_busy_and_ok() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            for answer in [
                format!("{BUSY}\r\n"),
                "OK\r\nkey=a exp=-1 la=1 cas=1 fetch=no cls=1 size=1\r\nEND\r\n".into(),
            ] {
                stream.read_line(&mut String::new()).unwrap();
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut server = Server::connect(&address, b"").unwrap();
        let mut out = Vec::new();
        assert_eq!(keys(&mut server, b"", 9, false, &mut out).unwrap(), 1);
        assert_eq!(out, b"a  1 bytes  -  never read\n");
        answers.join().unwrap();
    }

    #[test]
    fn lines_of_a_dump_are_items() {
        let line = "key=user%3A1 exp=-1 la=17 cas=3 fetch=yes cls=2 size=80";
        let item = Item::parse(line).unwrap();
        assert_eq!(
            (&item.key[..], item.expiry, item.bytes),
            (&b"user:1"[..], None, 80)
        );
        assert!(item.is_read);
        let item = Item::parse("key=a exp=99 la=1 cas=1 fetch=no cls=1 size=1").unwrap();
        assert_eq!((item.expiry, item.is_read), (Some(99), false));
        assert!(Item::parse("ERROR").is_none());
    }

    #[test]
    fn escaped_keys_are_decoded() {
        assert_eq!(decoded(b"a%20%ff%2"), b"a \xff%2");
    }
}
