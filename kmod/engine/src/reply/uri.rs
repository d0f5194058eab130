// SPDX-License-Identifier: GPL-2.0-only
//! URI-encoded keys, for lines of words.

use hippos_proto::reply::Out;

/// A byte as `%` and two digits.
pub(crate) fn percent_encoded(byte: u8) -> [u8; 3] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |n: u8| HEX[usize::from(n & 15)];
    [b'%', digit(byte >> 4), digit(byte)]
}

/// Writes `key` URI-encoded.
pub(crate) fn put_uri(out: &mut impl Out, key: &[u8]) {
    for &byte in key {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.put(&[byte]);
        } else {
            out.put(&percent_encoded(byte));
        }
    }
}
