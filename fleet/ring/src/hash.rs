// SPDX-License-Identifier: MIT

//! Hash functions of keys, as in libmemcached's hashkit and in twemproxy.

/// A hash function of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// Bob Jenkins's one-at-a-time; libmemcached's default.
    OneAtATime,
    /// The first four bytes of MD5, little endian.
    Md5,
    /// CRC-16 (CCITT); twemproxy's `crc16`.
    Crc16,
    /// Fifteen bits of CRC-32; `crc` of libmemcached, `crc32` of twemproxy.
    Crc32,
    /// CRC-32 whole; twemproxy's `crc32a`.
    Crc32a,
    /// The lower half of FNV-1 of 64 bits.
    Fnv1_64,
    /// FNV-1a with the lower halves of the constants of 64 bits; twemproxy's
    /// default.
    Fnv1a64,
    /// FNV-1 of 32 bits.
    Fnv1_32,
    /// FNV-1a of 32 bits.
    Fnv1a32,
}

/// Names in configurations.
const NAMES: [(&str, Hash); 9] = [
    ("one_at_a_time", Hash::OneAtATime),
    ("md5", Hash::Md5),
    ("crc16", Hash::Crc16),
    ("crc32", Hash::Crc32),
    ("crc32a", Hash::Crc32a),
    ("fnv1_64", Hash::Fnv1_64),
    ("fnv1a_64", Hash::Fnv1a64),
    ("fnv1_32", Hash::Fnv1_32),
    ("fnv1a_32", Hash::Fnv1a32),
];

impl Hash {
    /// The function with this name in twemproxy's notation.
    pub fn named(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|&(_, hash)| hash)
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|&(name, _)| name)
    }

    /// The hash of `key`.
    pub fn of(self, key: &[u8]) -> u32 {
        const FNV_64_INIT: u64 = 0xcbf2_9ce4_8422_2325;
        const FNV_64_PRIME: u64 = 0x0100_0000_01b3;
        const FNV_32_INIT: u32 = 2_166_136_261;
        const FNV_32_PRIME: u32 = 16_777_619;
        // The C sources hash `char`s, which are signed on x86-64.
        let signed = |byte: u8| byte as i8 as u32;
        match self {
            Hash::OneAtATime => one_at_a_time(key),
            Hash::Md5 => md5_part(&md5::compute(key).0, 0),
            Hash::Crc16 => key.iter().fold(0, |crc, &byte| crc16(crc, byte)),
            Hash::Crc32 => (crc32(key) >> 16) & 0x7fff,
            Hash::Crc32a => crc32(key),
            Hash::Fnv1_64 => key.iter().fold(FNV_64_INIT, |hash, &byte| {
                hash.wrapping_mul(FNV_64_PRIME) ^ (byte as i8 as u64)
            }) as u32,
            Hash::Fnv1a64 => key.iter().fold(FNV_64_INIT as u32, |hash, &byte| {
                (hash ^ signed(byte)).wrapping_mul(FNV_64_PRIME as u32)
            }),
            Hash::Fnv1_32 => key.iter().fold(FNV_32_INIT, |hash, &byte| {
                hash.wrapping_mul(FNV_32_PRIME) ^ signed(byte)
            }),
            Hash::Fnv1a32 => key.iter().fold(FNV_32_INIT, |hash, &byte| {
                (hash ^ signed(byte)).wrapping_mul(FNV_32_PRIME)
            }),
        }
    }
}

/// Four bytes of a digest.
pub(crate) fn md5_part(digest: &[u8; 16], part: usize) -> u32 {
    let at = (part % 4) * 4;
    u32::from_le_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]])
}

fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = 0u32;
    for &byte in key {
        hash = hash.wrapping_add(byte as i8 as u32);
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

fn crc32(key: &[u8]) -> u32 {
    !key.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Adds a byte to a CRC-16, kept in 32 bits without being cut to 16, as in twemproxy.
fn crc16(crc: u32, byte: u8) -> u32 {
    let index = ((crc >> 8) ^ u32::from(byte)) & 0xff;
    let entry = (0..8).fold(index << 8, |entry, _| {
        ((entry << 1) ^ (0x1021 & ((entry >> 15) & 1).wrapping_neg())) & 0xffff
    });
    (crc << 8) ^ entry
}

/// FNV-1a of 64 bits with a final mix, for distributions that need all bits.
pub(crate) fn mixed(key: &[u8], seed: u64) -> u64 {
    let hash = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
