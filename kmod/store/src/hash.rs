//! The keyed hash, and comparing keys by words.
//!
//! Folded multiplication: two words of the key, each under a secret of the boot, are multiplied to
//! 128 bits and the halves are joined. Who does not know the secrets can't aim keys at a bucket.

/// A key's hash under the store's seed. Its high 16 bits are the tag, its low ones the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub(crate) u64);

impl Hash {
    /// What a bucket keeps of the hash beside the reference.
    #[inline]
    pub(crate) fn tag(self) -> u64 {
        self.0 >> 48
    }

    /// The hash as a number, for those who spread things of their own by it.
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

/// Secrets that are never zero, of which no multiplication loses everything.
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

#[inline]
pub(crate) fn hash(secrets: &[u64; 4], key: &[u8]) -> Hash {
    let [start, mask, last, end] = *secrets;
    let mut state = start ^ key.len() as u64;
    let (a, b) = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(tail)) if key.len() <= 16 => (word(first), word(tail)),
        (Some(_), Some(tail)) => {
            let mut rest = key;
            let mut middle = 0;
            while let Some((pair, more)) = rest.split_first_chunk::<16>() {
                let pair = u128::from_le_bytes(*pair);
                state = fold(pair as u64 ^ mask, (pair >> 64) as u64 ^ state);
                rest = more;
            }
            // At most 15 bytes are left; the last 16 of the key cover them.
            if let Some((_, end)) = key.split_last_chunk::<16>() {
                middle = u128::from_le_bytes(*end) as u64;
            }
            (middle, word(tail))
        }
        _ => match (key.first_chunk::<4>(), key.last_chunk::<4>()) {
            (Some(first), Some(tail)) => (
                u64::from(u32::from_le_bytes(*first)),
                u64::from(u32::from_le_bytes(*tail)),
            ),
            _ => {
                let at = |i: usize| u64::from(key.get(i).copied().unwrap_or(0));
                (at(0) | at(1) << 8 | at(2) << 16, 0)
            }
        },
    };
    state = fold(a ^ mask, b ^ state);
    Hash(fold(state ^ last, end))
}

/// Are two keys the same? A word at a time, without a call.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(last_a), Some(last_b)) => {
            let (mut x, mut y) = (a, b);
            while let (Some((i, more_x)), Some((j, more_y))) =
                (x.split_first_chunk::<8>(), y.split_first_chunk::<8>())
            {
                if word(i) != word(j) {
                    return false;
                }
                (x, y) = (more_x, more_y);
            }
            word(last_a) == word(last_b)
        }
        _ => a.iter().zip(b).all(|(x, y)| x == y),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    #[test]
    fn every_byte_and_the_length_count() {
        let secrets = secrets([1, 2, 3, 4]);
        for len in 0..100usize {
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
