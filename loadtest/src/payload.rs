// SPDX-License-Identifier: GPL-2.0-only
//! Verifiable values: each is derived from its key's hash, a version and its own length, so that a value which is cut
//! short, mixed with another's, or belongs to another key is detected.
//!
//! Values of 8 bytes and more begin with their version (4 bytes, little endian); shorter ones are too short for it and
//! depend on the key alone.

use xxhash_rust::xxh3::xxh3_64;

/// The version that a server without a store answers with: newer than any real one.
pub const NEWEST: u32 = u32::MAX;

/// The minimum length of a value that carries its version.
const VERSIONED: usize = 8;

/// Hash of a key, from which its flags and values follow.
#[inline]
pub fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The client flags that every value of the key is stored with (16 bits).
#[inline]
pub fn flags(hash: u64) -> u32 {
    (hash >> 48) as u32
}

/// Mixes 64 bits (the finaliser of splitmix64).
#[inline]
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The endless stream of words that a value is cut from.
#[derive(Debug)]
struct Words(u64);

impl Words {
    fn new(hash: u64, version: u32, len: usize) -> Self {
        Self(mix(hash ^ mix((u64::from(version) << 32) ^ len as u64)))
    }

    #[inline]
    fn next(&mut self) -> [u8; 8] {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (x ^ (x >> 32)).to_le_bytes()
    }
}

/// Writes the value of a key at a version into the whole of `out`.
pub fn fill(out: &mut [u8], hash: u64, version: u32) {
    let len = out.len();
    let (version, body) = match out.split_first_chunk_mut::<4>() {
        Some((head, body)) if len >= VERSIONED => {
            *head = version.to_le_bytes();
            (version, body)
        }
        _ => (0, out),
    };
    let mut words = Words::new(hash, version, len);
    for chunk in body.chunks_mut(8) {
        chunk.copy_from_slice(&words.next()[..chunk.len()]);
    }
}

/// Appends the value of a key at a version, `len` bytes, to `out`.
pub fn append(out: &mut Vec<u8>, len: usize, hash: u64, version: u32) {
    let start = out.len();
    out.resize(start + len, 0);
    fill(&mut out[start..], hash, version);
}

/// A value that is generated piece by piece, because it is too large to generate at once.
#[derive(Debug)]
pub struct Stream {
    words: Words,
    version: Option<u32>,
    left: usize,
}

impl Stream {
    /// The value of a key at a version, `len` bytes, at least 8.
    pub fn new(hash: u64, version: u32, len: usize) -> Self {
        Self {
            words: Words::new(hash, version, len),
            version: Some(version),
            left: len,
        }
    }

    /// Bytes that are not generated yet.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Appends at most about `most` bytes: a multiple of 8, or the rest.
    pub fn append(&mut self, most: usize, out: &mut Vec<u8>) {
        if let Some(version) = self.version.take() {
            out.extend_from_slice(&version.to_le_bytes());
            self.left -= 4;
        }
        let mut len = (most & !7).min(self.left);
        self.left -= len;
        while len > 0 {
            let n = len.min(8);
            out.extend_from_slice(&self.words.next()[..n]);
            len -= n;
        }
    }
}

/// Verifies a complete value: returns its version (`None` if it is too short to have one), or the offset of the first
/// wrong 8-byte word.
pub fn check(value: &[u8], hash: u64) -> Result<Option<u32>, usize> {
    let (version, skip) = match value.first_chunk::<4>() {
        Some(head) if value.len() >= VERSIONED => (Some(u32::from_le_bytes(*head)), 4),
        _ => (None, 0),
    };
    let mut words = Words::new(hash, version.unwrap_or(0), value.len());
    let mut offset = skip;
    for chunk in value[skip..].chunks(8) {
        if *chunk != words.next()[..chunk.len()] {
            return Err(offset);
        }
        offset += chunk.len();
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &[u8], len: usize, version: u32) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, len, hash(key), version);
        out
    }

    #[test]
    fn a_filled_value_passes_the_check() {
        for len in (0..70).chain([1000, 1_048_000]) {
            let expected = (len >= 8).then_some(7);
            assert_eq!(
                check(&value(b"key", len, 7), hash(b"key")),
                Ok(expected),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn a_value_made_in_pieces_is_the_same() {
        for len in [8, 9, 100, 70_001] {
            let mut stream = Stream::new(hash(b"key"), 7, len);
            let mut out = Vec::new();
            while stream.left() > 0 {
                stream.append(64, &mut out);
            }
            assert_eq!(out, value(b"key", len, 7), "{len} bytes");
        }
    }

    #[test]
    fn every_changed_byte_of_a_value_is_detected() {
        let right = value(b"key", 100, 7);
        for at in 0..100 {
            let mut wrong = right.clone();
            wrong[at] ^= 1;
            assert!(check(&wrong, hash(b"key")).is_err(), "byte {at}");
        }
        assert!(check(&right[..99], hash(b"key")).is_err(), "cut short");
        assert!(check(&right, hash(b"other")).is_err(), "another key's");
        let mut torn = value(b"key", 100, 7);
        torn[50..].copy_from_slice(&value(b"key", 100, 8)[50..]);
        assert!(check(&torn, hash(b"key")).is_err(), "two versions in one");
        assert!(
            check(&value(b"kez", 2, 1), hash(b"key")).is_err(),
            "short value of another key"
        );
    }
}
