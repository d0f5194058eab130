// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Reply lines, and the sink that they are written to.

use hippos_invariant::{invariant, Exact};

use crate::base64;
use crate::number::Decimal;

/// The destination of reply bytes.
///
/// A writer checks [`room`](Out::room) first; bytes beyond it break an invariant. A sink whose free space is a slice
/// returns it from [`spare`](Out::spare) and implements [`advance`](Out::advance), and needs no [`put`](Out::put) of
/// its own: short pieces are then copied by words, without a call. All other sinks implement `put`.
pub trait Out {
    /// The number of bytes that it accepts now.
    fn room(&self) -> usize;

    /// The free space itself, or its first contiguous part.
    #[inline]
    fn spare(&mut self) -> &mut [u8] {
        &mut []
    }

    /// Marks the first `n` bytes of [`spare`](Out::spare) as written.
    #[inline]
    fn advance(&mut self, n: usize) {
        let _ = n;
    }

    /// Appends `bytes`.
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.spare().get_mut(..bytes.len()) {
            copy(place, bytes);
            self.advance(bytes.len());
        } else {
            no_room(self.room(), bytes);
        }
    }

    /// Appends a number in decimal digits.
    #[inline]
    fn put_decimal(&mut self, value: u64) {
        let digit = |n: u64| b'0' | (n % 10) as u8;
        match value {
            0..=9 => self.put(&[digit(value)]),
            10..=99 => self.put(&[digit(value / 10), digit(value)]),
            100..=999 => self.put(&[digit(value / 100), digit(value / 10), digit(value)]),
            _ => self.put(Decimal::new(value).as_bytes()),
        }
    }

    /// Appends `bytes` as base64.
    fn put_base64(&mut self, bytes: &[u8]) {
        base64::encode(bytes, |four| self.put(&four));
    }
}

/// A sink over a slice.
pub struct Cursor<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Cursor<'a> {
    /// Writes to `buffer` from its start.
    #[inline]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// The number of bytes written.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes written.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or(&[])
    }

    /// The bytes written, for the lifetime of the slice.
    #[inline]
    pub fn into_bytes(self) -> &'a [u8] {
        self.buffer.get(..self.len).unwrap_or(&[])
    }
}

impl Out for Cursor<'_> {
    #[inline]
    fn room(&self) -> usize {
        self.buffer.len().saturating_sub(self.len)
    }

    #[inline]
    fn spare(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.len..).unwrap_or_default()
    }

    #[inline]
    fn advance(&mut self, n: usize) {
        self.len = self.len.add_exact(n);
    }

    // When inlined, a piece of constant length is a few stores.
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        let spare = self.buffer.get_mut(self.len..);
        if let Some(place) = spare.and_then(|spare| spare.get_mut(..bytes.len())) {
            copy(place, bytes);
            self.len = self.len.add_exact(bytes.len());
        } else {
            no_room(self.room(), bytes);
        }
    }
}

/// A reply is longer than its writer announced.
#[inline(always)]
fn no_room(room: usize, bytes: &[u8]) {
    invariant!(false, "{} bytes for a room of {room}", bytes.len());
}

/// Above this length a call pays off.
const SHORT: usize = 128;

/// Copies between slices of the same length. For the few bytes of most pieces, a call or a string instruction would
/// cost more.
#[inline(always)]
pub fn copy(to: &mut [u8], from: &[u8]) {
    if ends::<16>(to, from) {
        if from.len() > SHORT {
            if to.len() == from.len() {
                to.copy_from_slice(from);
            }
        } else if from.len() > 32 {
            middle(to, from);
        }
    } else if !ends::<8>(to, from) && !ends::<4>(to, from) {
        for (place, byte) in to.iter_mut().zip(from) {
            *place = *byte;
        }
    }
}

/// Copies the first and the last `N` bytes, which may overlap; `false` if there are fewer than `N`.
#[inline(always)]
fn ends<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
    let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else {
        return false;
    };
    let Some(place) = to.first_chunk_mut::<N>() else {
        return false;
    };
    *place = *first;
    let Some(place) = to.last_chunk_mut::<N>() else {
        return false;
    };
    *place = *last;
    true
}

/// Copies the bytes between the first and the last 16.
#[inline(never)]
fn middle(to: &mut [u8], from: &[u8]) {
    let (mut to, mut from) = (to, from);
    while let (Some((place, to_rest)), Some((bytes, rest))) = (
        to.split_first_chunk_mut::<16>(),
        from.split_first_chunk::<16>(),
    ) {
        *place = *bytes;
        (to, from) = (to_rest, rest);
    }
}

macro_rules! lines {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &[u8] = concat!($text, "\r\n").as_bytes();)*
    };
}

lines! {
    /// The end of a line.
    CRLF = "";
    /// Unknown command, or the wrong number of words.
    ERROR = "ERROR";
    /// After the last value, and after statistics.
    END = "END";
    /// Done.
    OK = "OK";
    /// Stored.
    STORED = "STORED";
    /// A condition of add, replace, append or prepend did not hold.
    NOT_STORED = "NOT_STORED";
    /// The item has another CAS value.
    EXISTS = "EXISTS";
    /// No such item.
    NOT_FOUND = "NOT_FOUND";
    /// Deleted.
    DELETED = "DELETED";
    /// Touched.
    TOUCHED = "TOUCHED";
    /// Statistics cleared.
    RESET = "RESET";
    /// The answer to `version`.
    VERSION = "VERSION 1.6.38";
    /// Meta no-op.
    MN = "MN";
    /// Meta miss without return flags.
    EN = "EN";
    /// A bad key, number or word.
    BAD_FORMAT = "CLIENT_ERROR bad command line format";
    /// Too few words.
    BAD_LINE = "CLIENT_ERROR bad command line";
    /// A data block without its line end.
    BAD_CHUNK = "CLIENT_ERROR bad data chunk";
    /// touch, gat, flush_all: not a number.
    BAD_EXPTIME = "CLIENT_ERROR invalid exptime argument";
    /// incr, decr: not a number.
    BAD_DELTA = "CLIENT_ERROR invalid numeric delta argument";
    /// incr, decr: the value is not a number.
    NON_NUMERIC = "CLIENT_ERROR cannot increment or decrement non-numeric value";
    /// delete with more than a key.
    DELETE_USAGE = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
    /// The item is larger than the limit.
    TOO_LARGE = "SERVER_ERROR object too large for cache";
    /// No memory for the item.
    OUT_OF_MEMORY = "SERVER_ERROR out of memory storing object";
    /// No memory for the new number.
    ARITH_OUT_OF_MEMORY = "SERVER_ERROR out of memory";
    /// No memory for the number to begin with.
    VIVIFY_OUT_OF_MEMORY = "SERVER_ERROR Out of memory allocating new item";
    /// Other clients changed the key in each attempt.
    CONTENDED = "SERVER_ERROR too many concurrent changes";
    /// A value could not be sent.
    GET_OUT_OF_MEMORY = "SERVER_ERROR out of memory writing get response";
    /// The reply to one datagram would be larger than allowed.
    UDP_TOO_LARGE = "SERVER_ERROR reply too large for UDP";
    /// A UDP request whose commands take too long.
    UDP_TOO_SLOW = "SERVER_ERROR request takes too long for UDP";
    /// `shutdown` is never allowed.
    NO_SHUTDOWN = "ERROR: shutdown not enabled";
    /// Before authentication, anything but its fake set.
    UNAUTHENTICATED = "CLIENT_ERROR unauthenticated";
    /// Wrong user or password.
    AUTH_FAILURE = "CLIENT_ERROR authentication failure";
    /// Authentication data without its line end.
    AUTH_TERMINATION = "CLIENT_ERROR bad command line termination";
    /// Authentication data without two words.
    AUTH_FORMAT = "CLIENT_ERROR bad authentication token format";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_accepts_bytes_that_fit() {
        let mut buffer = [0; 8];
        let mut out = Cursor::new(&mut buffer);
        out.put(b"ab");
        out.put_decimal(7);
        out.put_decimal(123);
        assert_eq!(out.room(), 2);
        out.put(b"xy");
        assert_eq!((out.room(), out.as_bytes()), (0, &b"ab7123xy"[..]));
    }

    #[test]
    #[should_panic(expected = "3 bytes for a room of 2")]
    fn bytes_beyond_the_room_of_a_cursor_are_found() {
        Cursor::new(&mut [0; 2]).put(b"xyz");
    }

    #[test]
    #[should_panic(expected = "3 bytes for a room of 2")]
    fn bytes_beyond_the_room_of_a_sink_are_found() {
        struct Two([u8; 2]);
        impl Out for Two {
            fn room(&self) -> usize {
                2
            }
            fn spare(&mut self) -> &mut [u8] {
                &mut self.0
            }
        }
        Two([0; 2]).put(b"xyz");
    }

    #[test]
    fn slices_of_any_length_are_copied() {
        let from: std::vec::Vec<u8> = (0..200).collect();
        for len in 0..from.len() {
            let mut buffer = [0xaa; 210];
            let mut out = Cursor::new(&mut buffer);
            out.put(b"1");
            out.put(&from[..len]);
            assert_eq!(out.as_bytes(), [&b"1"[..], &from[..len]].concat());
            assert!(buffer[len + 1..].iter().all(|&byte| byte == 0xaa));
        }
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for value in [0, 9, 10, 42, 99, 100, 907, 999, 1000, 65_536, u64::MAX] {
            let mut buffer = [0; Decimal::MAX];
            let mut out = Cursor::new(&mut buffer);
            out.put_decimal(value);
            assert_eq!(out.as_bytes(), std::format!("{value}").as_bytes());
        }
    }

    #[test]
    fn the_version_line_has_the_version() {
        assert!(VERSION.ends_with(concat!("1.6.38", "\r\n").as_bytes()));
        assert_eq!(crate::VERSION, "1.6.38");
    }
}
