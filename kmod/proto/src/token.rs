// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Lines and tokens: finding the end of a command line and its words.

use hippos_invariant::Exact;

use heapless::Vec;
pub use memchr::{memchr, memchr3};

/// A command line found in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The line without its ending, cut at the first NUL as memcached does.
    pub text: &'a [u8],
    /// The number of bytes of the input that it took, line end included.
    pub consumed: usize,
}

/// Finds the first line of `input`; `None` when no newline has arrived yet.
#[inline]
pub fn line(input: &[u8]) -> Option<Line<'_>> {
    let end = memchr(b'\n', input)?;
    let text = input.get(..end)?;
    Some(Line {
        text: trim(text),
        consumed: end.add_exact(1),
    })
}

/// Cuts a line at its carriage return (a lone one is kept, which makes no difference to any command) and at a NUL.
#[inline]
pub fn trim(text: &[u8]) -> &[u8] {
    let text = match text {
        [rest @ .., b'\r'] if !rest.is_empty() => rest,
        text => text,
    };
    match memchr(0, text) {
        Some(nul) => text.get(..nul).unwrap_or(text),
        None => text,
    }
}

/// Marks the lowest byte in a word that is not greater than the space; higher marks may be wrong.
#[inline(always)]
const fn not_plain(word: u64) -> u64 {
    // In each byte, one more than the last value that is not plain.
    const LIMIT: u64 = ONES * (b' ' as u64 + 1);
    // The lowest mark is right; a higher one may result from a borrow.
    word.wrapping_sub(LIMIT) & !word & HIGH
}

/// Whether all of `text` is plain: see [`plain_len`].
#[inline(always)]
pub fn is_plain(text: &[u8]) -> bool {
    let both = |bytes: &[u8; 16]| {
        let pair = u128::from_le_bytes(*bytes);
        not_plain(pair as u64) | not_plain((pair >> 64) as u64)
    };
    if text.len() > 32 {
        plain_len(text) == text.len()
    } else if let Some(first) = text.first_chunk::<16>() {
        both(first) | text.last_chunk::<16>().map_or(0, both) == 0
    } else if let Some(first) = text.first_chunk::<8>() {
        let last = text.last_chunk::<8>().unwrap_or(first);
        not_plain(u64::from_le_bytes(*first)) | not_plain(u64::from_le_bytes(*last)) == 0
    } else {
        text.iter().all(|&byte| byte > b' ')
    }
}

/// Whether all bytes of some words are plain.
#[inline(always)]
pub fn are_plain<const N: usize>(words: [u64; N]) -> bool {
    words
        .into_iter()
        .fold(0, |marks, word| marks | not_plain(word))
        == 0
}

/// How many bytes at the start of `text` are plain: greater than the space, so that they cannot end a word or a line.
#[inline]
pub fn plain_len(text: &[u8]) -> usize {
    until(text, not_plain, |byte| byte <= b' ')
}

/// The offset of the first space, or of the end. Words are short: this search costs less than a call.
#[inline]
fn space(text: &[u8]) -> usize {
    const SPACES: u64 = ONES * b' ' as u64;
    until(
        text,
        |word| {
            // A space becomes zero.
            let word = word ^ SPACES;
            word.wrapping_sub(ONES) & !word & HIGH
        },
        |byte| byte == b' ',
    )
}

/// One in each byte of a word.
const ONES: u64 = u64::MAX / 255;
/// The highest bit of each byte of a word.
const HIGH: u64 = ONES << 7;

/// How many bytes precede the first match. `marks` sets the highest bit of the matching bytes in a word, of which only
/// the lowest is used; `found` does the same for one byte.
#[inline(always)]
fn until(text: &[u8], marks: impl Fn(u64) -> u64, found: impl Fn(u8) -> bool) -> usize {
    let mut at = 0usize;
    let mut rest = text;
    while let Some(word) = rest.first_chunk::<8>() {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return at.add_exact((marks.trailing_zeros() / 8) as usize);
        }
        at = at.add_exact(8);
        rest = text.get(at..).unwrap_or_default();
    }
    let mut before = at;
    // The last word again, without the bytes that were checked.
    if let Some(last) = text.last_chunk::<8>() {
        let seen = 8usize.sub_exact(rest.len()) as u32;
        let marks = marks(u64::from_le_bytes(*last))
            .checked_shr(seen.mul_exact(8))
            .unwrap_or(0);
        // Without a match, the result is the number of bytes in a word.
        let more = (marks.trailing_zeros() / 8) as usize;
        return before.add_exact(more.min(rest.len()));
    }
    for &byte in rest {
        if found(byte) {
            break;
        }
        before = before.add_exact(1);
    }
    before
}

/// Splits at spaces, and only at spaces.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// The words of `text`, which is a line without its ending.
    #[inline]
    pub const fn new(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// The unread part.
    #[inline]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while let [b' ', rest @ ..] = self.0 {
            self.0 = rest;
        }
        if self.0.is_empty() {
            return None;
        }
        let word;
        (word, self.0) = self.0.split_at_checked(space(self.0))?;
        Some(word)
    }
}

/// The most words of a line that memcached parses (except for lists of keys).
pub const TOKENS_MAX: usize = 23;

/// The words of a command line, at most [`TOKENS_MAX`] of them.
pub struct Tokens<'a> {
    list: Vec<&'a [u8], TOKENS_MAX>,
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    /// Splits `text`, a line without its ending.
    #[inline]
    pub fn new(text: &'a [u8]) -> Self {
        let mut list = Vec::new();
        let mut words = Words::new(text);
        while !list.is_full() {
            match words.next() {
                Some(word) => {
                    let _ = list.push(word);
                }
                None => break,
            }
        }
        Self {
            list,
            rest: words.rest(),
        }
    }

    /// How many words there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether the line was blank.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Word number `index`, or an empty one if there is none.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.list.get(index).copied().unwrap_or(&[])
    }

    /// The words from `index` on.
    #[inline]
    pub fn from(&self, index: usize) -> &[&'a [u8]] {
        self.list.get(index..).unwrap_or(&[])
    }

    /// The last word that was parsed.
    #[inline]
    pub fn last(&self) -> &'a [u8] {
        self.list.last().copied().unwrap_or(&[])
    }

    /// The text after the last word that was parsed.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether the last word asks for no reply.
    #[inline]
    pub fn noreply(&self) -> bool {
        self.last() == b"noreply"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_ends_at_its_newline_and_is_cut_at_a_nul() {
        assert_eq!(line(b"get a"), None);
        let ended = |text: &'static [u8], consumed| Some(Line { text, consumed });
        assert_eq!(line(b"get a\r\nx"), ended(b"get a", 7));
        assert_eq!(line(b"get a\nx"), ended(b"get a", 6));
        assert_eq!(line(b"get a\r\r\n"), ended(b"get a\r", 8));
        assert_eq!(line(b"\r\n"), ended(b"\r", 2));
        assert_eq!(line(b"\n"), ended(b"", 1));
        assert_eq!(line(b"a\0b\r\n"), ended(b"a", 5));
    }

    #[test]
    fn tokens_stop_at_the_limit() {
        let text = b" a ".repeat(30);
        let tokens = Tokens::new(&text);
        assert_eq!(tokens.len(), TOKENS_MAX);
        assert_eq!(Words::new(tokens.rest()).count(), 30 - TOKENS_MAX);
        assert!(Tokens::new(b"  ").is_empty());
        assert!(Tokens::new(b"a noreply ").noreply());
        assert!(!Tokens::new(b"noreply a").noreply());
    }

    proptest! {
        #[test]
        fn plain_bytes_are_above_the_space(text: std::vec::Vec<u8>, start in "[ -~\x7f-\u{ff}]{0,40}") {
            let text = [start.as_bytes(), &text].concat();
            let want = text.iter().position(|&byte| byte <= b' ').unwrap_or(text.len());
            prop_assert_eq!(plain_len(&text), want);
            prop_assert_eq!(is_plain(&text), want == text.len());
            prop_assert!(is_plain(&text[..want]));
        }

        #[test]
        fn words_agree_with_split(text in "[ a-c\t]{0,40}") {
            let want = text.split(' ').filter(|w| !w.is_empty()).map(str::as_bytes);
            prop_assert!(Words::new(text.as_bytes()).eq(want));
        }
    }
}
