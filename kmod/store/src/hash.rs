// SPDX-License-Identifier: GPL-2.0-only
//! The keyed hash, and comparing keys word by word.
//!
//! Folded multiplication: two words of the key, each combined with a secret of this boot, are multiplied to 128 bits
//! and the halves are combined. A client that does not know the secrets cannot choose keys that fall into one bucket.

/// A key's hash under the store's seed. Its high 16 bits are the tag, its low bits select the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub(crate) u64);

impl Hash {
    /// The part of the hash that a bucket stores beside the reference.
    #[inline]
    pub(crate) fn tag(self) -> u64 {
        self.0 >> 48
    }

    /// The hash as a number, for callers that distribute their own data by it.
    #[inline]
    pub fn get(self) -> u64 {
        self.0
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b));
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline]
fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

/// The secrets, made non-zero: a multiplication by zero would lose the key.
pub(crate) fn secrets(seed: [u64; 4]) -> [u64; 4] {
    const FILL: [u64; 4] = [
        0x9e37_79b9_7f4a_7c15,
        0xd1b5_4a32_d192_ed03,
        0x8cb9_2ba7_2f3d_8dd7,
        0xabc9_8388_fb8f_ac03,
    ];
    let mut out = FILL;
    for (out, seed) in out.iter_mut().zip(seed) {
        *out = fold(*out ^ seed, FILL[0] ^ seed.rotate_left(32)) | 1;
    }
    out
}

/// The first two words, or the last two, of more than 16 bytes.
#[inline(always)]
fn pair(bytes: &[u8; 16]) -> (u64, u64) {
    let pair = u128::from_le_bytes(*bytes);
    (pair as u64, (pair >> 64) as u64)
}

/// A key of 8 to 32 bytes, read once: its first and its last 16 bytes, or twice its first and last 8 if it has less
/// than 16. Together these are all bytes of the key and no others.
#[derive(Clone, Copy, Debug)]
pub struct KeyWords {
    words: [u64; 4],
    len: usize,
}

impl KeyWords {
    /// The shortest length.
    pub const MIN: usize = 8;
    /// The longest length.
    pub const MAX: usize = 32;

    /// `None` if the key is shorter or longer.
    #[inline(always)]
    pub fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            len @ 16.. => Self::long(key.first_chunk()?, key.last_chunk()?, len),
            len => Self::short(key.first_chunk()?, key.last_chunk()?, len),
        }
    }

    /// Makes a key of 16 to 32 bytes from its first and last 16 bytes; `None` for another length.
    #[inline(always)]
    pub fn long(first: &[u8; 16], last: &[u8; 16], len: usize) -> Option<Self> {
        let ((a, b), (c, d)) = (pair(first), pair(last));
        let words = [a, b, c, d];
        (16..=Self::MAX)
            .contains(&len)
            .then_some(Self { words, len })
    }

    /// Makes a key of 8 to 15 bytes from its first and last 8 bytes; `None` for another length.
    #[inline(always)]
    pub fn short(first: &[u8; 8], last: &[u8; 8], len: usize) -> Option<Self> {
        let (first, last) = (word(first), word(last));
        let words = [first, last, first, last];
        (Self::MIN..16)
            .contains(&len)
            .then_some(Self { words, len })
    }

    /// The words, each with its first byte lowest.
    #[inline(always)]
    pub fn words(&self) -> [u64; 4] {
        self.words
    }

    /// Bytes of the key, [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    #[inline(always)]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The same as [`hash`] of the key's bytes.
    #[inline(always)]
    pub(crate) fn hash(&self, secrets: &[u64; 4]) -> Hash {
        let [start, mask, last, end] = *secrets;
        let [a, b, c, d] = self.words;
        let state = fold(a ^ mask, b ^ start ^ self.len as u64);
        let state = fold(c ^ mask, d ^ state);
        Hash(fold(state ^ last, end))
    }
}

#[inline(always)]
pub(crate) fn hash(secrets: &[u64; 4], key: &[u8]) -> Hash {
    match KeyWords::new(key) {
        Some(key) => key.hash(secrets),
        None => hash_other(secrets, key),
    }
}

/// The hash of a key that is shorter or longer than most.
#[inline(never)]
fn hash_other(secrets: &[u64; 4], key: &[u8]) -> Hash {
    let [start, mask, last, end] = *secrets;
    let mut state = start ^ key.len() as u64;
    let (a, b) = match key.first_chunk::<16>() {
        Some(first) => {
            let (a, b) = pair(first);
            state = middle(mask, fold(a ^ mask, b ^ state), key);
            key.last_chunk::<16>().map_or((0, 0), pair)
        }
        None => short(key),
    };
    state = fold(a ^ mask, b ^ state);
    Hash(fold(state ^ last, end))
}

/// Mixes in the bytes between the first and the last 16.
fn middle(mask: u64, mut state: u64, key: &[u8]) -> u64 {
    let mut rest = key.get(16..).unwrap_or(&[]);
    while let Some((next, more)) = rest.split_first_chunk::<16>() {
        if more.is_empty() {
            break;
        }
        let (a, b) = pair(next);
        state = fold(a ^ mask, b ^ state);
        rest = more;
    }
    state
}

/// Less than 8 bytes as two words.
#[inline]
fn short(key: &[u8]) -> (u64, u64) {
    match (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        (Some(first), Some(tail)) => (
            u64::from(u32::from_le_bytes(*first)),
            u64::from(u32::from_le_bytes(*tail)),
        ),
        _ => {
            let at = |i: usize| u64::from(key.get(i).copied().unwrap_or(0));
            (at(0) | at(1) << 8 | at(2) << 16, 0)
        }
    }
}

/// Whether two keys are equal. Compares words, and needs no call for most keys.
#[inline(always)]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if a.len() > 16 {
        ends::<16>(a, b) && (a.len() <= 32 || long(a, b))
    } else if a.len() >= 8 {
        ends::<8>(a, b)
    } else {
        a.iter().zip(b).all(|(x, y)| x == y)
    }
}

/// Whether two keys of the same length, at least `N` bytes, have equal first and last `N` bytes.
#[inline(always)]
fn ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    match (a.first_chunk::<N>(), b.first_chunk::<N>()) {
        (Some(x), Some(y)) if x == y => a.last_chunk::<N>() == b.last_chunk::<N>(),
        _ => false,
    }
}

#[inline(never)]
fn long(a: &[u8], b: &[u8]) -> bool {
    a == b
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    #[test]
    fn every_byte_and_the_length_count() {
        let secrets = secrets([1, 2, 3, 4]);
        for len in 0..=250usize {
            let key: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let h = hash(&secrets, &key);
            for i in 0..len {
                let mut other = key.clone();
                other[i] ^= 1;
                assert_ne!(hash(&secrets, &other), h, "byte {i} of {len}");
                assert!(!same(&key, &other));
            }
            let mut longer = key.clone();
            longer.push(0);
            assert_ne!(hash(&secrets, &longer), h);
            assert!(same(&key, &key.clone()));
            assert!(!same(&key, &longer));
        }
    }

    #[test]
    fn a_key_in_words_is_the_key() {
        let secrets = secrets([1, 2, 3, 4]);
        for len in 0..=40usize {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let Some(key) = KeyWords::new(&bytes) else {
                assert!(!(8..=32).contains(&len), "{len}");
                continue;
            };
            assert_eq!(key.len(), len);
            assert_eq!(key.hash(&secrets), hash(&secrets, &bytes));
            for i in 0..len {
                let mut other = bytes.clone();
                other[i] ^= 1;
                assert_ne!(
                    KeyWords::new(&other).unwrap().words(),
                    key.words(),
                    "{i} of {len}"
                );
            }
        }
    }

    #[test]
    fn seeds_give_other_hashes() {
        let a = hash(&secrets([0; 4]), b"key");
        let b = hash(&secrets([0, 0, 0, 1]), b"key");
        assert_ne!(a, b);
    }

    #[test]
    fn buckets_fill_evenly() {
        let secrets = secrets([7; 4]);
        let mut buckets = [0u32; 1024];
        let mut tags = [0u32; 1024];
        for i in 0..1024 * 100u32 {
            let h = hash(&secrets, std::format!("key-{i:016}").as_bytes());
            buckets[h.0 as usize % 1024] += 1;
            tags[h.tag() as usize >> 6] += 1;
        }
        for counts in [buckets, tags] {
            // 100 expected, standard deviation 10.
            assert!(counts.iter().all(|c| (40..160).contains(c)), "{counts:?}");
        }
    }
}
