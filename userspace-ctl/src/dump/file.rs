// SPDX-License-Identifier: GPL-2.0-only
//! The layout of a dump: a header, blocks of records, and an end with totals. Numbers are
//! little-endian. docs/operations.md lists the kept fields.
//!
//! Everything that is read from a file is untrusted: each length is compared with its bound before memory is allocated
//! for it.

use std::fmt;

/// The first bytes of a dump.
const MAGIC: [u8; 8] = *b"HIPPOSDC";
/// The version of the format that is written, so far the only one.
pub(crate) const VERSION: u32 = 1;
/// The first bytes of a block.
const MARKER: [u8; 4] = *b"HDB\n";

/// Bytes of the header.
pub(crate) const HEADER: usize = 36;
/// Bytes of a block's header.
pub(crate) const BLOCK_HEADER: usize = 44;
/// Bytes of a record before its key.
const FIXED: usize = 26;

/// A block of records is closed when it has this many bytes.
pub(crate) const BLOCK: usize = 1 << 20;
/// The longest key.
pub(crate) const KEY_MOST: usize = 250;
/// The longest key in base64, which has at most [`KEY_MOST`] digits. A server replies to a longer one that the line is
/// bad, and interprets the value after it as commands.
const BINARY_MOST: usize = KEY_MOST / 4 * 3;
/// The longest value. Hippos has no items of more than 4 MiB, but a memcached may have.
pub(crate) const VALUE_MOST: usize = 64 << 20;
/// The most bytes of a block's records.
pub(crate) const RAW_MOST: usize = BLOCK + FIXED + KEY_MOST + VALUE_MOST;
/// The most bytes of a block in the file; zstd adds less to data that it cannot compress.
const PACKED_MOST: usize = RAW_MOST + RAW_MOST / 128 + 1024;

/// The damage in a file, and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The block that cannot be read; those before it are complete.
    pub(crate) block: u64,
    pub(crate) what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}: {}", self.block, self.what)
    }
}

impl std::error::Error for Damage {}

/// The properties of the whole dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Unix time.
    pub(crate) made: u64,
    /// Part of each block's checksum, so that a block of another dump is not accepted.
    pub(crate) identity: u64,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.made.to_le_bytes());
        out[24..32].copy_from_slice(&self.identity.to_le_bytes());
        let sum = crc32fast::hash(&out[..32]);
        out[32..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// # Errors
    ///
    /// The reason why the header is invalid.
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Result<Self, String> {
        let mut fields = Fields(bytes);
        if fields.take() != Some(MAGIC) {
            return Err("not a dump of hippos-ctl".into());
        }
        let version = fields.u32();
        if version > VERSION {
            return Err(format!(
                "layout {version} of a newer hippos-ctl; this one knows layout {VERSION}"
            ));
        }
        let reserved = fields.u32();
        let (made, identity) = (fields.u64(), fields.u64());
        if fields.u32() != crc32fast::hash(&bytes[..32]) {
            return Err("the header's checksum is wrong".into());
        }
        if version != VERSION || reserved != 0 {
            return Err(format!("there is no layout {version}"));
        }
        Ok(Self { made, identity })
    }
}

/// The kind of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    Items,
    /// The totals; the file ends after them.
    End,
}

/// The header of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) kind: BlockKind,
    /// From 0, without gaps.
    pub(crate) number: u64,
    /// Unix time.
    pub(crate) made: u64,
    /// Bytes of the records when decompressed.
    pub(crate) raw: u32,
    /// Bytes that follow the header.
    pub(crate) packed: u32,
    pub(crate) items: u32,
    /// The checksum of the bytes that follow.
    pub(crate) sum: u32,
}

impl BlockHeader {
    pub(crate) fn to_bytes(self, identity: u64) -> [u8; BLOCK_HEADER] {
        let kind: u32 = match self.kind {
            BlockKind::Items => 1,
            BlockKind::End => 2,
        };
        let mut out = [0; BLOCK_HEADER];
        out[..4].copy_from_slice(&MARKER);
        out[4..8].copy_from_slice(&kind.to_le_bytes());
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.made.to_le_bytes());
        out[24..28].copy_from_slice(&self.raw.to_le_bytes());
        out[28..32].copy_from_slice(&self.packed.to_le_bytes());
        out[32..36].copy_from_slice(&self.items.to_le_bytes());
        out[36..40].copy_from_slice(&self.sum.to_le_bytes());
        let sum = header_sum(&out[..40], identity);
        out[40..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// # Errors
    ///
    /// The reason why the header is invalid; none of its numbers may be used then.
    pub(crate) fn parse(bytes: &[u8; BLOCK_HEADER], identity: u64) -> Result<Self, String> {
        let mut fields = Fields(bytes);
        if fields.take() != Some(MARKER) {
            return Err("no block begins here".into());
        }
        let kind = fields.u32();
        let (number, made) = (fields.u64(), fields.u64());
        let (raw, packed, items, sum) = (fields.u32(), fields.u32(), fields.u32(), fields.u32());
        if fields.u32() != header_sum(&bytes[..40], identity) {
            return Err("the checksum of the block's header is wrong".into());
        }
        let kind = match kind {
            1 => BlockKind::Items,
            2 => BlockKind::End,
            other => return Err(format!("there are no blocks of kind {other}")),
        };
        let (raw_len, packed_len) = (raw as usize, packed as usize);
        // A record has a key of at least one byte.
        let least = items as usize * (FIXED + 1);
        let fits = match kind {
            BlockKind::Items => {
                items > 0
                    && least <= raw_len
                    && raw_len <= RAW_MOST
                    && (1..=PACKED_MOST).contains(&packed_len)
            }
            BlockKind::End => (raw_len, packed_len, items) == (Totals::BYTES, Totals::BYTES, 0),
        };
        if !fits {
            return Err(format!(
                "a block of {packed} bytes for {raw} with {items} items"
            ));
        }
        Ok(Self {
            kind,
            number,
            made,
            raw,
            packed,
            items,
            sum,
        })
    }
}

fn header_sum(bytes: &[u8], identity: u64) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&identity.to_le_bytes());
    sum.update(bytes);
    sum.finalize()
}

/// The totals at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) items: u64,
    /// Bytes of the records before they are compressed.
    pub(crate) bytes: u64,
}

impl Totals {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.items.to_le_bytes());
        out[8..].copy_from_slice(&self.bytes.to_le_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut fields = Fields(bytes);
        Self {
            items: fields.u64(),
            bytes: fields.u64(),
        }
    }
}

/// The key was sent in base64 (flag `b`).
pub(crate) const BINARY: u8 = 1;
/// The item is stale (`X`).
pub(crate) const STALE: u8 = 2;
/// A client has won the token to refresh it (`Z`).
pub(crate) const WON: u8 = 4;

/// An item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record<'b> {
    /// A combination of [`BINARY`], [`STALE`] and [`WON`].
    pub(crate) marks: u8,
    pub(crate) flags: u32,
    /// Unix time; 0 is never.
    pub(crate) expiry: u64,
    /// 0 if the server has none.
    pub(crate) cas: u64,
    pub(crate) key: &'b [u8],
    pub(crate) value: &'b [u8],
}

impl<'b> Record<'b> {
    /// Appends the record.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let value_len = u32::try_from(self.value.len()).unwrap_or(u32::MAX);
        out.push(self.marks);
        out.push(u8::try_from(self.key.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.expiry.to_le_bytes());
        out.extend_from_slice(&self.cas.to_le_bytes());
        out.extend_from_slice(&value_len.to_le_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
    }

    /// Parses a record from the front.
    fn take(from: &mut &'b [u8]) -> Result<Self, String> {
        let Some((fixed, rest)) = from.split_at_checked(FIXED) else {
            return Err("a record ends early".into());
        };
        let (marks, key_len) = (fixed[0], usize::from(fixed[1]));
        let mut fields = Fields(&fixed[2..]);
        let (flags, expiry, cas) = (fields.u32(), fields.u64(), fields.u64());
        let value_len = fields.u32() as usize;
        if marks & !(BINARY | STALE | WON) != 0 {
            return Err(format!("a record has unknown marks {marks:#x}"));
        }
        if !(1..=KEY_MOST).contains(&key_len) || value_len > VALUE_MOST {
            return Err(format!("a record of {key_len} and {value_len} bytes"));
        }
        let split = rest.split_at_checked(key_len);
        let split = split.and_then(|(key, rest)| Some((key, rest.split_at_checked(value_len)?)));
        let Some((key, (value, rest))) = split else {
            return Err("a record ends early".into());
        };
        let is_sendable = match marks & BINARY {
            // Any other key would be interpreted as a command if it were sent.
            0 => is_plain(key),
            _ => fits_base64(key),
        };
        if !is_sendable {
            return Err("a key that no client could send".into());
        }
        *from = rest;
        Ok(Self {
            marks,
            flags,
            expiry,
            cas,
            key,
            value,
        })
    }
}

/// Whether a key is valid in a line of the text protocol.
pub(crate) fn is_plain(key: &[u8]) -> bool {
    key.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// Whether a key can be sent in base64.
pub(crate) fn fits_base64(key: &[u8]) -> bool {
    key.len() <= BINARY_MOST
}

/// The records of a block.
#[derive(Debug)]
pub(crate) struct Records<'b> {
    rest: &'b [u8],
    left: u32,
}

impl<'b> Records<'b> {
    pub(crate) fn new(raw: &'b [u8], items: u32) -> Self {
        Self {
            rest: raw,
            left: items,
        }
    }
}

impl<'b> Iterator for Records<'b> {
    type Item = Result<Record<'b>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let is_more = !std::mem::take(&mut self.rest).is_empty();
            return is_more.then(|| Err("bytes after the last record".into()));
        }
        let record = Record::take(&mut self.rest);
        self.left = match record {
            Ok(_) => self.left - 1,
            Err(_) => {
                self.rest = &[];
                0
            }
        };
        Some(record)
    }
}

/// Parses numbers from the front; 0 when there are no more bytes.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> u32 {
        self.take().map_or(0, u32::from_le_bytes)
    }

    fn u64(&mut self) -> u64 {
        self.take().map_or(0, u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_in_a_header_is_noticed() {
        let header = Header {
            made: 1_800_000_000,
            identity: 77,
        };
        let bytes = header.to_bytes();
        assert_eq!(Header::parse(&bytes), Ok(header));
        let block = BlockHeader {
            kind: BlockKind::Items,
            number: 3,
            made: 5,
            raw: 1000,
            packed: 100,
            items: 7,
            sum: 9,
        };
        let block_bytes = block.to_bytes(77);
        assert_eq!(BlockHeader::parse(&block_bytes, 77), Ok(block));
        assert!(BlockHeader::parse(&block_bytes, 78).is_err());
        for bit in 0..8 {
            for at in 0..HEADER {
                let mut bad = bytes;
                bad[at] ^= 1 << bit;
                assert!(Header::parse(&bad).is_err(), "byte {at}");
            }
            for at in 0..BLOCK_HEADER {
                let mut bad = block_bytes;
                bad[at] ^= 1 << bit;
                assert!(BlockHeader::parse(&bad, 77).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn other_versions_are_named_in_the_error() {
        let of = |version: u32| {
            let mut bytes = Header {
                made: 1,
                identity: 2,
            }
            .to_bytes();
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let sum = crc32fast::hash(&bytes[..32]);
            bytes[32..].copy_from_slice(&sum.to_le_bytes());
            Header::parse(&bytes).unwrap_err()
        };
        assert!(of(2).contains("newer hippos-ctl"));
        assert_eq!(of(0), "there is no layout 0");
    }

    #[test]
    fn lengths_beyond_their_bounds_are_refused_though_the_checksum_is_right() {
        let good = BlockHeader {
            kind: BlockKind::Items,
            number: 0,
            made: 0,
            raw: 1000,
            packed: 100,
            items: 7,
            sum: 0,
        };
        let (most, packed_most) = (RAW_MOST as u32, PACKED_MOST as u32);
        for bad in [
            BlockHeader {
                raw: most + 1,
                ..good
            },
            BlockHeader {
                raw: u32::MAX,
                ..good
            },
            BlockHeader {
                packed: packed_most + 1,
                ..good
            },
            BlockHeader { packed: 0, ..good },
            BlockHeader { items: 0, ..good },
            BlockHeader { items: 38, ..good },
            BlockHeader {
                items: u32::MAX,
                ..good
            },
            BlockHeader {
                kind: BlockKind::End,
                ..good
            },
        ] {
            assert!(BlockHeader::parse(&bad.to_bytes(1), 1).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn records_that_would_be_commands_are_refused() {
        let of = |record: Record<'_>| {
            let mut raw = Vec::new();
            record.put(&mut raw);
            Records::new(&raw, 1).next().unwrap().map(drop)
        };
        fn record(key: &[u8], marks: u8) -> Record<'_> {
            Record {
                key,
                marks,
                ..Record::default()
            }
        }
        assert_eq!(of(record(b"key", 0)), Ok(()));
        assert_eq!(of(record(b"a b\r\n", BINARY)), Ok(()));
        for key in [&b"k\r\nflush_all"[..], b"a b", b"\0", b""] {
            assert!(of(record(key, 0)).is_err(), "{key:?}");
        }
        assert!(of(record(b"key", 8)).is_err());
        // 187 bytes are 252 digits.
        assert_eq!(of(record(&[1; 186], BINARY)), Ok(()));
        for len in 187..=250 {
            let key = vec![1; len];
            assert!(of(record(&key, BINARY)).is_err(), "{len}");
        }
    }

    #[test]
    fn a_block_has_as_many_records_as_it_says() {
        let mut raw = Vec::new();
        for key in [&b"a"[..], b"b"] {
            let record = Record {
                key,
                value: b"value",
                ..Record::default()
            };
            record.put(&mut raw);
        }
        let count = |raw: &[u8], items| {
            let all: Result<Vec<_>, _> = Records::new(raw, items).collect();
            all.map(|records| records.len())
        };
        assert_eq!(count(&raw, 2), Ok(2));
        assert!(count(&raw, 1).is_err());
        assert!(count(&raw, 3).is_err());
        for len in 0..raw.len() {
            assert!(count(&raw[..len], 2).is_err(), "{len}");
        }
    }
}
