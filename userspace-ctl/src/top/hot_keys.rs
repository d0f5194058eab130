// SPDX-License-Identifier: GPL-2.0-only
//! The most requested keys, from a sample of the gets: `watch fetchers`, for a moment.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::exit::end;
use crate::source::Source;
use crate::terminal_text::shown;

/// How long gets are watched for a sample. Meanwhile gets of one key are still answered in place,
/// each logged; other UDP requests go to the socket (docs/protocol.md).
const WINDOW: Duration = Duration::from_millis(200);

/// The longest line of the log: a key as `%XX` and numbers.
const LINE_MOST: u64 = 4096;

/// The gets of a moment, by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gets {
    counts: HashMap<String, u64>,
    seconds: f64,
}

impl Gets {
    /// Watches the gets of a server.
    pub(crate) fn watch(source: &Source) -> Result<Self> {
        Self::of(source.connect()?.into_stream()?, WINDOW)
    }

    fn of(mut stream: TcpStream, window: Duration) -> Result<Self> {
        stream.write_all(b"watch fetchers\r\n")?;
        let mut input = BufReader::new(stream);
        let mut line = Vec::new();
        (&mut input).take(LINE_MOST).read_until(b'\n', &mut line)?;
        if line != b"OK\r\n" {
            let answer = shown(line.trim_ascii_end());
            end!(Refused, "watch fetchers: {answer}");
        }
        let mut gets = Gets::default();
        let begun = Instant::now();
        line.clear();
        while let Some(left) = window.checked_sub(begun.elapsed()) {
            input
                .get_ref()
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let room = LINE_MOST - line.len() as u64;
            match (&mut input).take(room).read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) if line.len() as u64 == LINE_MOST => {
                    end!(Failed, "watch fetchers: a line without an end")
                }
                Ok(_) => {
                    gets.add(&String::from_utf8_lossy(&line));
                    line.clear();
                }
                // The part of a line that has arrived stays in `line`.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
        gets.seconds = begun.elapsed().as_secs_f64();
        Ok(gets)
    }

    /// Counts a line of the log.
    fn add(&mut self, line: &str) {
        let words = || line.split_ascii_whitespace();
        if !words().any(|word| word == "type=item_get") {
            return;
        }
        if let Some(key) = words().find_map(|word| word.strip_prefix("key=")) {
            *self.counts.entry(key.to_owned()).or_default() += 1;
        }
    }

    /// The `most` keys with the highest rates, a second.
    pub(crate) fn hottest(&self, most: usize) -> Vec<(String, f64)> {
        let mut keys: Vec<_> = self.counts.iter().collect();
        keys.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
        let rate = |count: u64| count as f64 / self.seconds.max(f64::MIN_POSITIVE);
        let keys = keys.into_iter().take(most);
        keys.map(|(key, count)| (key.clone(), rate(*count)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// The gets that a watcher counts in these bytes.
    fn watched(answer: &'static [u8]) -> Result<Gets> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(answer).unwrap();
            line
        });
        let gets = Gets::of(
            TcpStream::connect(address).unwrap(),
            Duration::from_secs(60),
        );
        assert_eq!(server.join().unwrap(), "watch fetchers\r\n");
        gets
    }

    #[test]
    fn gets_are_counted_by_key() {
        let mut gets = watched(
            b"OK\r\n\
            ts=1.2 gid=1 type=item_get key=b status=found clsid=1 cfd=9 size=3\r\n\
            ts=1.2 gid=2 type=item_get key=a status=not_found clsid=0 cfd=9 size=0\r\n\
            skipped=7\r\n\
            ts=1.3 gid=3 type=item_store key=c status=stored cmd=set ttl=0 clsid=1 cfd=9 size=3\r\n\
            ts=1.3 gid=4 type=item_get key=b status=found clsid=1 cfd=9 size=3\r\n",
        )
        .unwrap();
        gets.seconds = 0.5;
        assert_eq!(
            gets.hottest(9),
            [("b".to_owned(), 4.0), ("a".to_owned(), 2.0)]
        );
        assert_eq!(gets.hottest(1).len(), 1);
    }

    #[test]
    fn line_without_an_end_is_an_error() {
        let error = watched([b"OK\r\n", &[b'x'; 5000][..]].concat().leak()).unwrap_err();
        assert!(error.to_string().contains("without an end"), "{error}");
    }

    #[test]
    fn a_server_that_can_not_be_watched_is_an_error() {
        let error = watched(b"CLIENT_ERROR watch commands not allowed\r\n").unwrap_err();
        assert!(error.to_string().contains("not allowed"), "{error}");
    }
}
