// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Decimal numbers as memcached parses and writes them.
//!
//! memcached parses with `strtoull` and `strtol`: blanks and a sign may come first, a blank ends the number, and 32-bit
//! fields take the low half of the result. No client relies on this deliberately, but some do by accident.

use hippos_invariant::Exact;

pub use hippos_semantics::Decimal;

/// The blanks of C's `isspace`.
#[inline]
pub const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Sign and magnitude of a token, or `None` when it isn't a number. The
/// magnitude is exact: more than 64 bits is an error.
#[inline]
fn magnitude(token: &[u8]) -> Option<(bool, u64)> {
    let mut bytes = token
        .iter()
        .copied()
        .skip_while(|&b| is_blank(b))
        .peekable();
    let negative = match bytes.peek() {
        Some(b'-') => {
            bytes.next();
            true
        }
        Some(b'+') => {
            bytes.next();
            false
        }
        _ => false,
    };
    let mut value: u64 = 0;
    let mut digits = false;
    for byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            // A blank after the digits ends the number; the bytes behind it are not read.
            if is_blank(byte) && digits {
                break;
            }
            return None;
        }
        digits = true;
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    digits.then_some((negative, value))
}

/// A 64-bit unsigned number. A minus sign is accepted if the negated value is still positive as a signed number, so
/// `-0` and `-18446744073709551615` (which is 1) are numbers and `-1` is not.
#[inline]
pub fn parse_u64(token: &[u8]) -> Option<u64> {
    let (negative, value) = magnitude(token)?;
    if !negative {
        return Some(value);
    }
    let value = value.wrapping_neg();
    ((value as i64) >= 0).then_some(value)
}

/// The number at the start of `text`, of at most eight digits, and the rest, which may begin with further digits. Clients
/// send numbers without a sign or blanks. The digits are counted and added up as one word, without a loop.
#[inline]
pub fn parse_digits(text: &[u8]) -> Option<(u32, &[u8])> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    const ZEROS: u64 = ONES * b'0' as u64;
    /// The sum with a byte from 10 to 127 has the highest bit.
    const MORE: u64 = ONES * (0x80 - 10);
    let word = match text.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        // No digit follows the last byte.
        None => text
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    let digits = word ^ ZEROS;
    // The highest bit of each byte that is more than 9.
    let others = ((digits & !HIGH).add_exact(MORE) | digits) & HIGH;
    let len = (others.trailing_zeros() / 8) as usize;
    if len == 0 {
        return None;
    }
    // Zeros come first in place of the other bytes. Then digits, pairs and fours of digits are joined; lanes between
    // those that are kept overflow.
    let digits = digits.shl_by(64u32.sub_exact(8u32.mul_exact(len as u32)));
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    let value = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) as u32;
    Some((value, text.get(len..)?))
}

/// A 32-bit unsigned number: the low half of a 64-bit one.
#[inline]
pub fn parse_u32(token: &[u8]) -> Option<u32> {
    parse_u64(token).map(|value| value as u32)
}

/// A 32-bit signed number: the low half of a 64-bit one.
#[inline]
pub fn parse_i32(token: &[u8]) -> Option<i32> {
    let (negative, value) = magnitude(token)?;
    let value = if negative {
        0i64.checked_sub_unsigned(value)?
    } else {
        i64::try_from(value).ok()?
    };
    Some(value as i32)
}

/// How many digits `value` has.
#[inline]
pub const fn digits(value: u64) -> usize {
    // Most numbers are short: flags and lengths.
    match value {
        0..=9 => 1,
        10..=99 => 2,
        100..=999 => 3,
        1000..=9999 => 4,
        10_000..=99_999 => 5,
        _ => match value.checked_ilog10() {
            Some(log) => log as usize + 1,
            None => 1,
        },
    }
}

/// A space and a number of up to six digits, ready to be stored as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortDecimal {
    /// The bytes, the first one lowest; arbitrary beyond the last.
    pub word: u64,
    /// How many bytes there are, 2 to 7.
    pub len: usize,
}

impl ShortDecimal {
    /// `None` when the number has more digits.
    #[inline(always)]
    pub fn new(value: u32) -> Option<Self> {
        if let Some(&word) = TEXTS.get(value as usize) {
            let len = text_len(word);
            return Some(Self { word, len });
        }
        let thousands = value / 1000;
        let rest = value.sub_exact(thousands.mul_exact(1000));
        let &high = TEXTS.get(thousands as usize)?;
        let &low = TEXTS.get(rest as usize)?;
        let len = text_len(high);
        // Of the last three digits only those, behind the first ones: at most 7 bytes.
        let three = low >> 32 & 0xff_ffff;
        Some(Self {
            word: high & 0xffff_ffff | three.shl_by(8u32.mul_exact(len as u32)),
            len: len.add_exact(3),
        })
    }
}

/// The texts of the numbers below 1000, as words whose lowest byte comes first: a space and the digits; from byte 4 on,
/// three digits with leading zeros; in byte 7 the number of bytes with the space. The flags and lengths in use are few,
/// so their entries stay in the CPU's cache.
static TEXTS: [u64; 1000] = texts();

const fn texts() -> [u64; 1000] {
    let mut texts = [0; 1000];
    let mut n = 0u64;
    while n < 1000 {
        let [a, b, c] = [n / 100, n / 10 % 10, n % 10];
        let three = 0x30_3030 | c << 16 | b << 8 | a;
        let digits = if n < 10 {
            1
        } else if n < 100 {
            2
        } else {
            3
        };
        let text = three >> (8 * (3 - digits)) << 8 | b' ' as u64;
        texts[n as usize] = (digits + 1) << 56 | three << 32 | text;
        n += 1;
    }
    texts
}

/// The bytes of an entry of [`TEXTS`] with the space: at most 4. The mask lets the compiler see a bound.
#[inline(always)]
const fn text_len(text: u64) -> usize {
    (text >> 56) as usize & 7
}

/// Writes a space and a number of up to six digits to `buffer`, `at` bytes from its start, and returns the offset of
/// their end. Up to seven bytes after that become arbitrary. `None` when the number is longer, or the buffer ends
/// before those bytes.
#[inline(always)]
pub fn put_text<const N: usize>(buffer: &mut [u8; N], at: usize, number: u32) -> Option<usize> {
    let end = |text: u64| at.add_exact(text_len(text));
    if let Some(&text) = TEXTS.get(number as usize) {
        *buffer.get_mut(at..)?.first_chunk_mut()? = text.to_le_bytes();
        return Some(end(text));
    }
    let thousands = number / 1000;
    let rest = number.sub_exact(thousands.mul_exact(1000));
    let &text = TEXTS.get(thousands as usize)?;
    *buffer.get_mut(at..)?.first_chunk_mut()? = text.to_le_bytes();
    let middle = end(text);
    let &text = TEXTS.get(rest as usize)?;
    *buffer.get_mut(middle..)?.first_chunk_mut()? = ((text >> 32) as u32).to_le_bytes();
    Some(middle.add_exact(3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    #[test]
    fn short_numbers_are_written_as_long_ones_are() {
        for value in 0..=999_999u32 {
            let short = ShortDecimal::new(value).unwrap();
            let bytes = short.word.to_le_bytes();
            let want = std::format!(" {value}");
            assert_eq!(&bytes[..short.len], want.as_bytes());
        }
        for value in [1_000_000, 1 << 24, u32::MAX] {
            assert_eq!(ShortDecimal::new(value), None);
        }
    }

    #[test]
    fn put_text_writes_a_space_and_the_digits() {
        for value in (0..=999_999u32).filter(|n| *n < 3000 || n % 7 == 0) {
            let mut buffer = [0; 20];
            let end = put_text(&mut buffer, 3, value).unwrap();
            assert_eq!(buffer[3..end], *std::format!(" {value}").as_bytes());
        }
        assert_eq!(put_text(&mut [0; 20], 3, 1_000_000), None);
        assert_eq!(put_text(&mut [0; 20], 3, u32::MAX), None);
        assert_eq!(put_text(&mut [0; 20], 13, 1), None);
        assert_eq!(put_text(&mut [0; 20], usize::MAX, 1), None);
    }

    #[test]
    fn numbers_are_parsed_as_by_memcached() {
        for (token, want) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("+5", Some(5)),
            ("-0", Some(0)),
            ("-1", None),
            ("-18446744073709551615", Some(1)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("\t 5", Some(5)),
            ("5\t7", Some(5)),
            ("5x", None),
            ("", None),
            ("+", None),
            ("- 1", None),
            ("\t", None),
        ] {
            assert_eq!(parse_u64(token.as_bytes()), want, "{token:?}");
        }
        assert_eq!(parse_u32(b"4294967296"), Some(0));
        assert_eq!(parse_u32(b"18446744073709551615"), Some(u32::MAX));
        assert_eq!(parse_i32(b"2147483648"), Some(i32::MIN));
        assert_eq!(parse_i32(b"-2147483649"), Some(i32::MAX));
        assert_eq!(parse_i32(b"-9223372036854775808"), Some(0));
        assert_eq!(parse_i32(b"9223372036854775808"), None);
        assert_eq!(parse_i32(b"-99999999999999999999"), None);
    }

    /// C's `strtoull`, written independently: no early exit, wide arithmetic.
    fn oracle(token: &[u8]) -> Option<(bool, u64)> {
        let text: String = token.iter().map(|&b| b as char).collect();
        let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, tail) = text.split_at(end);
        let blank = [' ', '\t', '\n', '\u{b}', '\u{c}', '\r'];
        if number.is_empty() || !(tail.is_empty() || tail.starts_with(blank)) {
            return None;
        }
        number.parse().ok().map(|value| (negative, value))
    }

    proptest! {
        #[test]
        fn parsing_agrees_with_the_oracle(token in "[ \t\r+-]{0,2}[0-9]{0,21}[ \tx]{0,2}") {
            prop_assert_eq!(magnitude(token.as_bytes()), oracle(token.as_bytes()));
        }

        #[test]
        fn leading_digits_are_parsed_up_to_eight(text in "[0-9]{0,11}[0-9 +:/\u{80}-]{0,4}") {
            let digits = text.bytes().take(8).take_while(u8::is_ascii_digit).count();
            let (number, rest) = text.split_at(digits);
            let want = number.parse().ok().map(|number| (number, rest.as_bytes()));
            prop_assert_eq!(parse_digits(text.as_bytes()), want);
        }

        #[test]
        fn any_bytes_are_parsed_as_the_oracle_parses_them(token: Vec<u8>) {
            prop_assert_eq!(magnitude(&token), oracle(&token));
        }

        #[test]
        fn parsing_reverses_formatting(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let decimal = Decimal::new(value);
            let text = value.to_string();
            prop_assert_eq!(decimal.as_bytes(), text.as_bytes());
            prop_assert_eq!(parse_u64(decimal.as_bytes()), Some(value));
            prop_assert_eq!(digits(value), decimal.as_bytes().len());
        }
    }
}
