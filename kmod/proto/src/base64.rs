// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Base64 for binary keys in the meta protocol.
//!
//! The decoder accepts what memcached's accepts: bytes outside the alphabet are skipped, the rest must come in groups
//! of four, padding ends it.

use hippos_invariant::Exact;

use crate::KEY_MAX;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The most bytes that a key of [`KEY_MAX`] base64 digits holds.
pub const DECODED_MAX: usize = KEY_MAX / 4 * 3;

/// A decoded key that was sent as base64.
#[derive(Clone, Debug)]
pub struct Decoded {
    bytes: [u8; DECODED_MAX],
    len: usize,
}

impl Decoded {
    /// Decodes `text`, at most [`KEY_MAX`] bytes; `None` when it is not base64 or is empty.
    pub fn new(text: &[u8]) -> Option<Self> {
        let digits = text.iter().fold(0usize, |digits, &byte| {
            digits.add_exact(usize::from(value(byte).is_some()))
        });
        if digits == 0 || digits % 4 != 0 || text.len() > KEY_MAX {
            return None;
        }
        let mut bytes = [0; DECODED_MAX];
        let mut len: usize = 0;
        let mut block: u32 = 0;
        let mut filled = 0u32;
        let mut padding: usize = 0;
        for &byte in text {
            let Some(digit) = value(byte) else { continue };
            padding = padding.add_exact(usize::from(byte == b'='));
            block = block << 6 | u32::from(digit);
            filled = filled.add_exact(1);
            if filled == 4 {
                let [_, three @ ..] = block.to_be_bytes();
                *bytes.get_mut(len..)?.first_chunk_mut::<3>()? = three;
                len = len.add_exact(3);
                (block, filled) = (0, 0);
                if padding > 2 {
                    return None;
                } else if padding > 0 {
                    len = len.sub_exact(padding);
                    break;
                }
            }
        }
        Some(Self { bytes, len })
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// A digit's six bits. Padding counts as a digit of value 0.
#[inline]
fn value(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        b'=' => 0,
        _ => return None,
    })
}

/// The length of the base64 form of `len` bytes.
#[inline]
pub const fn encoded_len(len: usize) -> usize {
    len.div_ceil(3) * 4
}

/// Passes the base64 form of `bytes` to `put`, four digits at a time.
pub fn encode(bytes: &[u8], mut put: impl FnMut([u8; 4])) {
    for chunk in bytes.chunks(3) {
        let (a, b, c) = match *chunk {
            [a, b, c] => (a, b, c),
            [a, b] => (a, b, 0),
            [a] => (a, 0, 0),
            _ => return,
        };
        let block = u32::from_be_bytes([0, a, b, c]);
        let digit = |shift: u32| ALPHABET[(block >> shift & 63) as usize];
        let mut four = [digit(18), digit(12), digit(6), digit(0)];
        if chunk.len() < 3 {
            four[3] = b'=';
        }
        if chunk.len() < 2 {
            four[2] = b'=';
        }
        put(four);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        encode(bytes, |four| text.extend_from_slice(&four));
        text
    }

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        Decoded::new(text).map(|key| key.as_bytes().to_vec())
    }

    #[test]
    fn the_decoder_accepts_what_memcached_accepts() {
        for (text, want) in [
            ("Zm9v", Some(&b"foo"[..])),
            ("Zm8=", Some(b"fo")),
            ("Zg==", Some(b"f")),
            ("Zh==", Some(b"f")),
            ("Zm!9v", Some(b"foo")),
            ("Zg==Zg==", Some(b"f")),
            ("Z=Zv", Some(&[0x64, 0x06])),
            ("Zm9", None),
            ("Zm9v=", None),
            ("Z===", None),
            ("====", None),
            ("Zm9v====", None),
            ("", None),
            ("!!!!", None),
        ] {
            assert_eq!(decoded(text.as_bytes()).as_deref(), want, "{text:?}");
        }
        assert_eq!(encoded(b"foo"), b"Zm9v");
        assert_eq!(encoded(b"fo"), b"Zm8=");
        assert_eq!(encoded(b"f"), b"Zg==");
        assert_eq!(decoded(&[b'A'; 250]), None);
        assert_eq!(
            decoded(&[b'A'; 248]).map(|key| key.len()),
            Some(DECODED_MAX)
        );
    }

    proptest! {
        #[test]
        fn decoding_reverses_encoding(bytes in proptest::collection::vec(any::<u8>(), 1..=DECODED_MAX)) {
            let text = encoded(&bytes);
            prop_assert_eq!(text.len(), encoded_len(bytes.len()));
            prop_assert_eq!(decoded(&text), Some(bytes));
        }

        #[test]
        fn the_decoder_accepts_any_bytes_without_a_panic(text: Vec<u8>) {
            let _ = decoded(&text);
        }
    }
}
