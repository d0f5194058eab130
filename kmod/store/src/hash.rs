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

/// The two words at the start, or at the end, of more than 16 bytes.
#[inline(always)]
fn pair(bytes: &[u8; 16]) -> (u64, u64) {
    let pair = u128::from_le_bytes(*bytes);
    (pair as u64, (pair >> 64) as u64)
}

#[inline(always)]
pub(crate) fn hash(secrets: &[u64; 4], key: &[u8]) -> Hash {
    let [start, mask, last, end] = *secrets;
    let mut state = start ^ key.len() as u64;
    let (a, b);
    if key.len() > 16 {
        // All but the last 16 bytes, which may be gone over twice in part.
        if let Some(first) = key.first_chunk::<16>() {
            let (a, b) = pair(first);
            state = fold(a ^ mask, b ^ state);
        }
        if key.len() > 32 {
            state = middle(mask, state, key);
        }
        (a, b) = key.last_chunk::<16>().map_or((0, 0), pair);
    } else if let Some(first) = key.first_chunk::<8>() {
        a = word(first);
        b = key.last_chunk::<8>().map_or(0, word);
    } else {
        (a, b) = short(key);
    }
    state = fold(a ^ mask, b ^ state);
    Hash(fold(state ^ last, end))
}

/// What is between the first and the last 16 bytes.
#[inline(never)]
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

/// Are two keys the same? By words, and without a call for most.
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

/// Whether two keys of at least `N` bytes and one length begin and end alike.
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
