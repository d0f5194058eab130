// SPDX-License-Identifier: GPL-2.0-only
//! Streams with a deadline: a peer that sends or takes a byte now and then can't hold its reader for longer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// A stream whose reads and writes can end after a time.
pub(crate) trait Timeout: Read + Write {
    /// Sets that time, which is not zero, for the reads and writes from now on.
    fn set_timeout(&mut self, time: Duration) -> io::Result<()>;

    /// Ends the writes: the peer reads to the end of the stream.
    fn end_writes(&mut self) -> io::Result<()>;
}

impl Timeout for TcpStream {
    fn set_timeout(&mut self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }

    fn end_writes(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// A stream with a time-out for each read and write, and with a deadline for all of them.
#[derive(Debug)]
pub(crate) struct Timed<S = TcpStream> {
    stream: S,
    each: Duration,
    deadline: Option<Instant>,
    clock: fn() -> Instant,
}

impl<S: Timeout> Timed<S> {
    /// `each` read and write has that time; together they have no deadline yet.
    pub(crate) fn new(stream: S, each: Duration) -> Self {
        Self::with_clock(stream, each, Instant::now)
    }

    pub(crate) fn with_clock(stream: S, each: Duration, clock: fn() -> Instant) -> Self {
        Timed {
            stream,
            each,
            deadline: None,
            clock,
        }
    }

    /// All reads and writes must end within that time from now, and by `most`; without both there is no deadline.
    pub(crate) fn limit(&mut self, time: Option<Duration>, most: Option<Instant>) {
        let end = time.map(|time| (self.clock)() + time);
        self.deadline = [end, most].into_iter().flatten().min();
    }

    /// Ends the writes, and discards the peer's bytes, up to `most` and for that time, until it has closed the connection.
    /// Closing a socket with unread bytes would reset the connection, and the peer might lose a part of the reply.
    pub(crate) fn finish(mut self, time: Duration, most: u64) -> io::Result<()> {
        self.stream.end_writes()?;
        self.limit(Some(time), None);
        io::copy(&mut self.take(most), &mut io::sink()).map(drop)
    }

    /// The stream with the time-out of a single read or write.
    pub(crate) fn into_stream(mut self) -> io::Result<S> {
        self.stream.set_timeout(self.each)?;
        Ok(self.stream)
    }

    /// Gives the next read or write its time-out.
    fn start(&mut self) -> io::Result<()> {
        let Some(deadline) = self.deadline else {
            return self.stream.set_timeout(self.each);
        };
        let left = deadline.saturating_duration_since((self.clock)());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "it takes too long"));
        }
        self.stream.set_timeout(left.min(self.each))
    }
}

impl<S: Timeout> Read for Timed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.start()?;
        self.stream.read(buffer)
    }
}

impl<S: Timeout> Write for Timed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.start()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static SECONDS: Cell<u64> = const { Cell::new(0) };
        static START: Instant = Instant::now();
    }

    /// A clock that goes a second further each time that it is read.
    pub(crate) fn clock() -> Instant {
        SECONDS.set(SECONDS.get() + 1);
        START.with(|start| *start) + Duration::from_secs(SECONDS.get())
    }

    /// A peer that sends some bytes at once, and then sends and takes one byte at a time, for ever.
    #[derive(Debug, Default)]
    pub(crate) struct Dripping {
        pub(crate) first: &'static [u8],
        pub(crate) timeouts: Vec<Duration>,
    }

    impl Read for Dripping {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(self.timeouts.len() < 1000, "no deadline");
            if self.first.is_empty() {
                buffer[0] = b'x';
                return Ok(1);
            }
            self.first.read(buffer)
        }
    }

    impl Write for Dripping {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            assert!(self.timeouts.len() < 1000, "no deadline");
            Ok(1)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Timeout for Dripping {
        fn set_timeout(&mut self, time: Duration) -> io::Result<()> {
            assert!(!time.is_zero());
            self.timeouts.push(time);
            Ok(())
        }

        fn end_writes(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_that_drips_is_cut_off_at_the_deadline_in_both_directions() {
        let mut timed = Timed::with_clock(Dripping::default(), 3 * S, clock);
        timed.limit(Some(6 * S), None);
        let error = timed.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(timed.stream.timeouts, [3 * S, 3 * S, 3 * S, 2 * S, S]);
        timed.limit(Some(6 * S), None);
        let error = timed.write_all(&[0; 100]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(timed.stream.timeouts.len(), 10);
    }

    #[test]
    fn bytes_of_a_peer_that_does_not_close_are_discarded_up_to_a_number_and_for_a_time() {
        let timed = || Timed::with_clock(Dripping::default(), 3 * S, clock);
        let error = timed().finish(6 * S, 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        timed().finish(6 * S, 3).unwrap();
    }

    #[test]
    fn the_earlier_of_two_deadlines_counts_and_without_one_each_read_has_its_time() {
        let mut timed = Timed::with_clock(Dripping::default(), 3 * S, clock);
        let most = clock() + 4 * S;
        timed.limit(Some(60 * S), Some(most));
        assert!(timed.read_to_end(&mut Vec::new()).is_err());
        assert_eq!(timed.stream.timeouts.len(), 2);
        timed.limit(None, None);
        timed.write_all(&[0; 100]).unwrap();
        assert_eq!(timed.stream.timeouts[2..], [3 * S; 100]);
    }
}
