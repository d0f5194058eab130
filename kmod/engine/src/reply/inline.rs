// SPDX-License-Identifier: GPL-2.0-only
//! Values of the text protocol, written to memory word by word instead of through an [`Out`](hippos_proto::reply::Out).

use hippos_invariant::{invariant, Exact};
use hippos_proto::number::{put_text, Decimal, ShortDecimal};
use hippos_proto::reply;
use hippos_store::KeyWords;

/// Space for the bytes before the value, and for words that end beyond them: frame, `VALUE `, a key, two spaces and
/// numbers, the line end.
pub(crate) const WINDOW: usize = 64;

/// Writes `VALUE key flags bytes` and the value, without its line end, to `buffer`, `AT` bytes from its start, and
/// returns the offset of its end; up to eight bytes after that become arbitrary, or all of them if the result is
/// `None`. The buffer has at least [`WINDOW`] bytes.
#[inline(always)]
pub(crate) fn put_item<const AT: usize>(
    buffer: &mut [u8],
    key: &KeyWords,
    value: &[u8],
    flags: u32,
) -> Option<usize> {
    const NAME: usize = b"VALUE ".len();
    let window = buffer.first_chunk_mut::<WINDOW>()?;
    let mut word = |at: usize, bytes: [u8; 8]| -> Option<()> {
        *window.get_mut(at..)?.first_chunk_mut()? = bytes;
        Some(())
    };
    // A word may extend beyond its piece: the next piece overwrites it.
    word(AT, *b"VALUE \0\0")?;
    let [a, b, c, d] = key.words().map(u64::to_le_bytes);
    let end = (AT + NAME).add_exact(key.len());
    word(AT + NAME, a)?;
    if key.len() >= 16 {
        word(AT + NAME + 8, b)?;
        word(end.sub_exact(16), c)?;
        word(end.sub_exact(8), d)?;
    } else {
        word(end.sub_exact(8), b)?;
    }
    let end = put_text(window, end, flags)?;
    let end = put_text(window, end, value.len() as u32)?;
    *window.get_mut(end..)?.first_chunk_mut()? = *b"\r\n";
    let end = end.add_exact(2);
    reply::copy(buffer.get_mut(end..)?.get_mut(..value.len())?, value);
    Some(end.add_exact(value.len()))
}

/// Writes `bytes` to the start of `rest` and returns the rest.
#[inline(always)]
pub(crate) fn put<'r>(rest: &'r mut [u8], bytes: &[u8]) -> &'r mut [u8] {
    match rest.split_at_mut_checked(bytes.len()) {
        Some((place, rest)) => {
            reply::copy(place, bytes);
            rest
        }
        None => {
            invariant!(false, "{} bytes too many for a reply", bytes.len());
            &mut []
        }
    }
}

/// Writes the reply for one key: its line, the value and the value's line end.
#[inline(always)]
pub(crate) fn put_whole_item<'r>(
    rest: &'r mut [u8],
    key: &[u8],
    value: &[u8],
    flags: u32,
) -> &'r mut [u8] {
    let rest = put(rest, b"VALUE ");
    let rest = put(rest, key);
    let rest = put_number(rest, flags);
    let rest = put_number(rest, value.len() as u32);
    let rest = put(rest, reply::CRLF);
    let rest = put(rest, value);
    put(rest, reply::CRLF)
}

#[inline(always)]
fn put_number(rest: &mut [u8], number: u32) -> &mut [u8] {
    match ShortDecimal::new(number) {
        Some(short) => put_short(rest, short),
        None => put_long(rest, number),
    }
}

#[inline(always)]
pub(crate) fn put_short(rest: &mut [u8], number: ShortDecimal) -> &mut [u8] {
    if rest.len() < 8 {
        return put_slowly(rest, number);
    }
    // This may store more bytes than the number has: the next write overwrites them.
    if let Some(place) = rest.first_chunk_mut::<8>() {
        *place = number.word.to_le_bytes();
    }
    rest.get_mut(number.len..).unwrap_or_default()
}

#[cold]
#[inline(never)]
fn put_slowly(rest: &mut [u8], number: ShortDecimal) -> &mut [u8] {
    let bytes = number.word.to_le_bytes();
    put(rest, bytes.get(..number.len).unwrap_or(&[]))
}

#[cold]
#[inline(never)]
pub(crate) fn put_long(rest: &mut [u8], number: u32) -> &mut [u8] {
    let rest = put(rest, b" ");
    put(rest, Decimal::new(u64::from(number)).as_bytes())
}
