// SPDX-License-Identifier: GPL-2.0-only
//! Lines of statistics, as far as they fit into the reply.

use core::fmt::{Arguments, Write};

use heapless::String;
use hippos_invariant::Exact;
use hippos_proto::reply::{self, Out};

use crate::reply::binary::BinaryRequest;
use crate::reply::REPLY_HEADER_MAX;

/// Statistics, as far as they fit into the reply.
pub(super) struct Lines<'a, O> {
    pub(super) out: &'a mut O,
    pub(super) request: Option<BinaryRequest>,
    /// Lines that were written before.
    pub(super) skip: u32,
    /// Lines so far.
    pub(super) lines_done: u32,
    /// The next line does not fit.
    pub(super) full: bool,
}

impl<O> Lines<'_, O> {
    /// Restarts the line count: the lines written so far are not generated again.
    pub(super) fn checkpoint(&mut self) {
        self.skip = 0;
        self.lines_done = 0;
    }
}

impl<O: Out> Lines<'_, O> {
    pub(super) fn put(&mut self, name: Arguments<'_>, value: Arguments<'_>) {
        if self.full {
            return;
        }
        if self.lines_done < self.skip {
            self.lines_done = self.lines_done.add_exact(1);
            return;
        }
        if self.out.room() < REPLY_HEADER_MAX {
            self.full = true;
            return;
        }
        self.lines_done = self.lines_done.add_exact(1);
        let mut text = String::<64>::new();
        let _ = text.write_fmt(name);
        let mut number = String::<128>::new();
        let _ = number.write_fmt(value);
        match self.request {
            Some(request) => request.stat(self.out, text.as_bytes(), number.as_bytes()),
            None => {
                self.out.put(b"STAT ");
                self.out.put(text.as_bytes());
                self.out.put(b" ");
                self.out.put(number.as_bytes());
                self.out.put(reply::CRLF);
            }
        }
    }

    /// A row that does not exist now counts as a line, so that the lines after it keep their numbers if it begins to exist,
    /// or ceases to, before the next page.
    pub(super) fn absent(&mut self) {
        if !self.full {
            self.lines_done = self.lines_done.add_exact(1);
        }
    }

    /// Writes a line that is not a `STAT` line. The binary protocol sends it under a name.
    pub(super) fn line(&mut self, name: &[u8], line: &[u8]) {
        if self.full {
            return;
        }
        if self.lines_done >= self.skip {
            if self.out.room() < REPLY_HEADER_MAX {
                self.full = true;
                return;
            }
            match self.request {
                Some(request) => request.stat(self.out, name, line),
                None => self.out.put(line),
            }
        }
        self.lines_done = self.lines_done.add_exact(1);
    }

    pub(super) fn stat(&mut self, name: &str, value: Arguments<'_>) {
        self.put(format_args!("{name}"), value);
    }

    pub(super) fn number(&mut self, name: &str, value: impl TryInto<u64>) {
        let value = value.try_into().unwrap_or(u64::MAX);
        self.stat(name, format_args!("{value}"));
    }

    pub(super) fn words(&mut self, words: &[(&str, &str)]) {
        for (name, word) in words {
            self.stat(name, format_args!("{word}"));
        }
    }
}
