// SPDX-License-Identifier: GPL-2.0-only
//! Decimal values, as memcached reads them.

use hippos_invariant::Exact;

/// Parses a value as memcached's `strtoull` does: white space, an optional sign, digits, and then white space, a zero
/// byte or the end. A negative number is accepted only if its two's complement is small: `-18446744073709551615` is 1.
pub(crate) fn parse(value: &[u8]) -> Option<u64> {
    let space = |b: &u8| matches!(*b, b' ' | b'\t'..=b'\r');
    let mut rest = value.iter().skip_while(|b| space(b)).copied().peekable();
    let negative = rest.next_if(|b| matches!(b, b'+' | b'-')) == Some(b'-');
    let mut number = 0u64;
    let mut digits = false;
    while let Some(b) = rest.next_if(u8::is_ascii_digit) {
        digits = true;
        let digit = u64::from(b.sub_exact(b'0'));
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    let ended = rest.peek().is_none_or(|b| *b == 0 || space(b));
    if !digits || !ended {
        return None;
    }
    if negative {
        number = number.wrapping_neg();
    }
    // memcached looks for the sign up to the number's end.
    (!negative || number >> 63 == 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_accepts_what_strtoull_accepts() {
        let cases: [(&[u8], Option<u64>); 24] = [
            (b"0", Some(0)),
            (b"42", Some(42)),
            (b"  42", Some(42)),
            (b"42   ", Some(42)),
            (b"42 apples", Some(42)),
            (b"42\0x", Some(42)),
            (b"+7", Some(7)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"000000000000000000000000042", Some(42)),
            (b"-1", None),
            (b"-18446744073709551615", Some(1)),
            (b"-0", Some(0)),
            (b"18446744073709551614 -5", Some(u64::MAX - 1)),
            (b"9223372036854775808\0-", Some(1 << 63)),
            (b"-18446744073709551615 -", Some(1)),
            (b"-9223372036854775808 ", None),
            (b"", None),
            (b" ", None),
            (b"+", None),
            (b"42x", None),
            (b"x42", None),
            (b"4-2", None),
            (b"\t\n42\r", Some(42)),
        ];
        for (text, value) in cases {
            assert_eq!(parse(text), value, "{text:?}");
        }
    }
}
