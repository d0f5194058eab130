// SPDX-License-Identifier: GPL-2.0-only
//! Replies of the text protocol.

use hippos_invariant::Exact;
use hippos_proto::number::{digits, put_text};
use hippos_proto::reply::{self, Out};
use hippos_store::{Item, Outcome};

/// Writes `VALUE key flags bytes [cas]`, the value and its line end.
#[inline]
pub(crate) fn put_value(out: &mut impl Out, item: &Item<'_>, cas: Option<u64>) {
    put_value_line(out, item, cas);
    out.put(item.value());
    out.put(reply::CRLF);
}

/// Writes the line before a value.
#[inline]
pub(crate) fn put_value_line(out: &mut impl Out, item: &Item<'_>, cas: Option<u64>) {
    let (flags, len) = (item.flags(), item.value().len() as u32);
    out.put(b"VALUE ");
    out.put(item.key());
    let mut buffer = [0; NUMBERS_MAX];
    match put_numbers(&mut buffer, flags, len) {
        Some(numbers) => out.put(numbers),
        None => {
            out.put(b" ");
            out.put_decimal(u64::from(flags));
            out.put(b" ");
            out.put_decimal(u64::from(len));
        }
    }
    if let Some(cas) = cas {
        out.put(b" ");
        out.put_decimal(cas);
    }
    out.put(reply::CRLF);
}

/// Space for two numbers of [`put_text`], and for the bytes that become arbitrary after them.
const NUMBERS_MAX: usize = 7 + 7 + 8;

/// Flags and length, each after a space: most have at most six digits, and are copied from a table. Otherwise `None`.
#[inline(always)]
fn put_numbers(buffer: &mut [u8; NUMBERS_MAX], flags: u32, len: u32) -> Option<&[u8]> {
    let end = put_text(buffer, 0, flags)?;
    let end = put_text(buffer, end, len)?;
    buffer.get(..end)
}

/// The length of a value in the reply to `get`: its line, itself and its line end.
#[inline]
pub(crate) fn value_len(item: &Item<'_>, cas: Option<u64>) -> usize {
    let len = item.value().len();
    let numbers = digits(u64::from(item.flags())).add_exact(digits(len as u64));
    // "VALUE ", two spaces and two line ends.
    let mut total = len
        .add_exact(item.key().len())
        .add_exact(numbers)
        .add_exact(12);
    if let Some(cas) = cas {
        total = total.add_exact(1).add_exact(digits(cas));
    }
    total
}

/// The length of the line before a value.
#[inline]
pub(crate) fn value_line_len(item: &Item<'_>, cas: Option<u64>) -> usize {
    let after = item.value().len().add_exact(reply::CRLF.len());
    value_len(item, cas).sub_exact(after)
}

/// The length of an item in the reply to `get`, with a tail that contains the value's line end.
#[inline]
pub(crate) fn whole_len(item: &Item<'_>, cas: Option<u64>, tail: &[u8]) -> usize {
    let after = tail.len().sub_exact(reply::CRLF.len());
    value_len(item, cas).add_exact(after)
}

/// The reply line for the outcome of a store.
pub(crate) fn stored(outcome: Outcome) -> &'static [u8] {
    match outcome {
        Outcome::Stored { .. } => reply::STORED,
        Outcome::NotStored => reply::NOT_STORED,
        Outcome::Exists { .. } => reply::EXISTS,
        Outcome::NotFound => reply::NOT_FOUND,
    }
}
