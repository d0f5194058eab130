// SPDX-License-Identifier: MIT

//! A GET of a route with singleflight, while another client may be filling the value.

use hippos_proto::number::{parse_u32, parse_u64};
use hippos_proto::reply;
use hippos_proto::token::Words;

use crate::answer::OwnedAnswer;
use crate::job_step::JobStep;

/// The pause, in microseconds, before the first check for a value that another client is filling; it doubles with each
/// check.
pub(crate) const PAUSE: u64 = 1000;
const PAUSE_MAX: u64 = 20_000;

/// A GET that waits for the client that fills the value.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) cas: bool,
    /// The end of its wait.
    pub(crate) until: u64,
    pub(crate) pause: u64,
    /// How long the filling client may take, in seconds.
    pub(crate) fill: u64,
}

/// The reply to `mg KEY N f c v`.
#[derive(Debug, PartialEq, Eq)]
struct Found<'a> {
    flags: u32,
    cas: u64,
    /// This client has to fill it.
    won: bool,
    /// Another client is filling it.
    taken: bool,
    stale: bool,
    data: &'a [u8],
}

fn found(bytes: &[u8]) -> Option<Found<'_>> {
    let end = bytes.iter().position(|&byte| byte == b'\r')?;
    let mut words = Words::new(bytes[..end].strip_prefix(b"VA ")?);
    let len = parse_u32(words.next()?)? as usize;
    let data = bytes.get(end + 2..)?.strip_suffix(b"\r\n")?;
    let mut found = Found {
        flags: 0,
        cas: 0,
        won: false,
        taken: false,
        stale: false,
        data,
    };
    for word in words {
        match word.split_first()? {
            (b'f', number) => found.flags = parse_u32(number)?,
            (b'c', number) => found.cas = parse_u64(number)?,
            (b'W', _) => found.won = true,
            (b'Z', _) => found.taken = true,
            (b'X', _) => found.stale = true,
            _ => return None,
        }
    }
    (data.len() == len).then_some(found)
}

impl Flight {
    pub(crate) fn request(&self, key: &[u8]) -> Vec<u8> {
        let flags = format!(" N{} f c v\r\n", self.fill);
        [&b"mg "[..], key, flags.as_bytes()].concat()
    }

    pub(crate) fn take(&mut self, key: &[u8], answer: OwnedAnswer, now: u64) -> JobStep {
        let OwnedAnswer::Reply(bytes) = &answer else {
            return JobStep::end(answer);
        };
        let Some(found) = found(bytes) else {
            return JobStep::end(OwnedAnswer::Error(bytes.clone()));
        };
        let miss = || JobStep::end(OwnedAnswer::Reply(Vec::new()));
        if found.won {
            return miss();
        }
        // It was created by a miss and is not filled yet; a stale item has a value.
        if found.taken && (!found.stale || found.data.is_empty()) {
            if now >= self.until {
                return miss();
            }
            let wake = (now + self.pause).min(self.until);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            return JobStep {
                wake: Some(wake),
                ..JobStep::default()
            };
        }
        let mut rest = format!(" {} {}", found.flags, found.data.len());
        if self.cas {
            rest += &format!(" {}", found.cas);
        }
        let value = [
            b"VALUE ",
            key,
            rest.as_bytes(),
            reply::CRLF,
            found.data,
            reply::CRLF,
        ]
        .concat();
        JobStep::end(OwnedAnswer::Reply(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singleflight_waiters_time_out() {
        let flight = || Flight {
            cas: true,
            until: 5000,
            pause: PAUSE,
            fill: 2,
        };
        assert_eq!(flight().request(b"k"), b"mg k N2 f c v\r\n");
        let take = |flight: &mut Flight, text: &str, now| {
            let step = flight.take(b"k", OwnedAnswer::Reply(text.into()), now);
            let answer = step.answer.map(|answer| match answer {
                OwnedAnswer::Reply(bytes) => String::from_utf8(bytes).unwrap(),
                other => format!("{other:?}"),
            });
            (answer, step.wake)
        };
        let some = |text: &str| (Some(text.to_owned()), None);
        assert_eq!(take(&mut flight(), "VA 0 f0 c5 W\r\n\r\n", 0), some(""));
        let hit = "VA 2 f7 c9\r\n\r\n\r\n";
        assert_eq!(
            take(&mut flight(), hit, 0),
            some("VALUE k 7 2 9\r\n\r\n\r\n")
        );
        let stale = "VA 1 f7 c9 Z X\r\nx\r\n";
        assert_eq!(
            take(&mut flight(), stale, 0),
            some("VALUE k 7 1 9\r\nx\r\n")
        );
        let mut waits = flight();
        let taken = "VA 0 f0 c5 Z\r\n\r\n";
        assert_eq!(take(&mut waits, taken, 0), (None, Some(1000)));
        assert_eq!(take(&mut waits, taken, 1000), (None, Some(3000)));
        assert_eq!(take(&mut waits, taken, 3000), (None, Some(5000)));
        assert_eq!(take(&mut waits, taken, 5000), some(""));
    }
}
