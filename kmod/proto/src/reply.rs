//! Reply lines, and the sink that they are written to.

use crate::base64;
use crate::number::Decimal;

/// Where reply bytes go.
///
/// Whoever writes asks for [`room`](Out::room) first; bytes beyond it are
/// lost.
pub trait Out {
    /// How many more bytes it takes now.
    fn room(&self) -> usize;

    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);

    /// Appends a number in decimal digits.
    #[inline]
    fn put_decimal(&mut self, value: u64) {
        if value < 10 {
            self.put(&[b'0' | value as u8]);
        } else {
            self.put(Decimal::new(value).as_bytes());
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

    /// How many bytes were written.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What was written.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or(&[])
    }
}

impl Out for Cursor<'_> {
    #[inline]
    fn room(&self) -> usize {
        self.buffer.len().saturating_sub(self.len)
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let Some(place) = self
            .buffer
            .get_mut(self.len..)
            .and_then(|spare| spare.get_mut(..bytes.len()))
        else {
            return;
        };
        place.copy_from_slice(bytes);
        self.len = self.len.wrapping_add(bytes.len());
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
    /// A value could not be sent.
    GET_OUT_OF_MEMORY = "SERVER_ERROR out of memory writing get response";
    /// The reply to one datagram would be larger than allowed.
    UDP_TOO_LARGE = "SERVER_ERROR reply too large for UDP";
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
    fn cursor_takes_what_fits() {
        let mut buffer = [0; 8];
        let mut out = Cursor::new(&mut buffer);
        out.put(b"ab");
        out.put_decimal(7);
        out.put_decimal(123);
        assert_eq!(out.room(), 2);
        out.put(b"xyz");
        assert_eq!(out.as_bytes(), b"ab7123");
        out.put(b"xy");
        assert_eq!((out.room(), out.as_bytes()), (0, &b"ab7123xy"[..]));
    }

    #[test]
    fn the_version_is_spoken_once() {
        assert!(VERSION.ends_with(concat!("1.6.38", "\r\n").as_bytes()));
        assert_eq!(crate::VERSION, "1.6.38");
    }
}
