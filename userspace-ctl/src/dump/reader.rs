// SPDX-License-Identifier: GPL-2.0-only
//! Reads a dump block by block, and accepts only complete blocks.

use std::io::{ErrorKind, Read};

use zstd::bulk::Decompressor;

use super::file::{BlockHeader, BlockKind, Damage, Header, Records, Totals, BLOCK_HEADER, HEADER};

/// A dump that is being read.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    pub(crate) header: Header,
    /// The number of the next block.
    pub(crate) next: u64,
    pub(crate) totals: Totals,
    /// Bytes of complete blocks read.
    pub(crate) read: u64,
    is_over: bool,
}

/// A block of records as in the file; its checksum is right.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) header: BlockHeader,
    pub(crate) bytes: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub(crate) fn new(mut input: R) -> Result<Self, Damage> {
        let damage = |what| Damage { block: 0, what };
        let bytes = fixed::<HEADER>(&mut input).map_err(damage)?;
        let Some(bytes) = bytes else {
            return Err(damage("the file is empty".into()));
        };
        Ok(Self {
            input,
            header: Header::parse(&bytes).map_err(damage)?,
            next: 0,
            totals: Totals::default(),
            read: HEADER as u64,
            is_over: false,
        })
    }

    /// The next block; `None` after the end, if the totals match.
    pub(crate) fn block(&mut self) -> Result<Option<Packed>, Damage> {
        if self.is_over {
            return Ok(None);
        }
        let block = self.next;
        let read = self.take();
        // Nothing after damage is accepted.
        self.is_over = !matches!(read, Ok(Some(_)));
        read.map_err(|what| Damage { block, what })
    }

    fn take(&mut self) -> Result<Option<Packed>, String> {
        let Some(bytes) = fixed::<BLOCK_HEADER>(&mut self.input)? else {
            return Err("the file ends without its end: it is not complete".into());
        };
        let header = BlockHeader::parse(&bytes, self.header.identity)?;
        if header.number != self.next {
            return Err(format!("block {} stands here", header.number));
        }
        let mut bytes = Vec::new();
        // No more memory is allocated than the file has bytes.
        let mut limited = (&mut self.input).take(u64::from(header.packed));
        limited.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if bytes.len() != header.packed as usize {
            return Err("the file ends within a block".into());
        }
        if crc32fast::hash(&bytes) != header.sum {
            return Err("the block's checksum is wrong".into());
        }
        if header.kind == BlockKind::End {
            return self.end(&bytes).map(|()| None);
        }
        self.next += 1;
        self.totals.items += u64::from(header.items);
        self.totals.bytes += u64::from(header.raw);
        self.read += (BLOCK_HEADER + bytes.len()) as u64;
        Ok(Some(Packed { header, bytes }))
    }

    fn end(&mut self, bytes: &[u8]) -> Result<(), String> {
        let stated = Totals::parse(bytes);
        if stated != self.totals {
            return Err(format!(
                "the end states {} items, {} were there",
                stated.items, self.totals.items
            ));
        }
        let mut more = [0];
        match self.input.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err("there are bytes after the end".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Reads `N` bytes, or `None` at the end of the file.
fn fixed<const N: usize>(input: &mut impl Read) -> Result<Option<[u8; N]>, String> {
    let mut bytes = [0; N];
    let mut len = 0;
    while len < N {
        match input.read(&mut bytes[len..]) {
            Ok(0) if len == 0 => return Ok(None),
            Ok(0) => return Err("the file ends within a header".into()),
            Ok(read) => len += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(Some(bytes))
}

/// Decompresses blocks, into memory of its own.
pub(crate) struct Unpacker {
    zstd: Decompressor<'static>,
    raw: Vec<u8>,
}

impl Unpacker {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            zstd: Decompressor::new()?,
            raw: Vec::new(),
        })
    }

    /// Decompresses a block's records.
    pub(crate) fn unpack(&mut self, block: &Packed) -> Result<Records<'_>, Damage> {
        let header = &block.header;
        let len = header.raw as usize;
        self.raw.clear();
        self.raw.reserve(len);
        let unpacked = self.zstd.decompress_to_buffer(&block.bytes, &mut self.raw);
        let what = match unpacked {
            Ok(have) if have == len => return Ok(Records::new(&self.raw, header.items)),
            Ok(have) => format!("{have} bytes are in the block, not {len}"),
            Err(error) => format!("the block can't be decompressed: {error}"),
        };
        Err(Damage {
            block: header.number,
            what,
        })
    }
}

/// Reads all of a dump to its end, and parses its records.
pub(crate) fn verify(input: impl Read) -> Result<Totals, Damage> {
    let mut reader = Reader::new(input)?;
    let mut unpacker = Unpacker::new().map_err(|error| Damage {
        block: 0,
        what: error.to_string(),
    })?;
    while let Some(block) = reader.block()? {
        for record in unpacker.unpack(&block)? {
            record.map_err(|what| Damage {
                block: block.header.number,
                what,
            })?;
        }
    }
    Ok(reader.totals)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::file::{BlockHeader, Record, RAW_MOST};
    use super::super::writer::{Packer, Writer};
    use super::*;

    /// A dump of `blocks` blocks, and the offset of each of its parts.
    fn dump(blocks: u8) -> (Vec<u8>, Vec<usize>) {
        let header = Header {
            made: 1_800_000_000,
            identity: 99,
        };
        let mut writer = Writer::new(Vec::new(), header).unwrap();
        let mut packer = Packer::new().unwrap();
        let mut borders = vec![0, HEADER];
        for block in 0..blocks {
            let mut raw = Vec::new();
            for item in 0..5u8 {
                let record = Record {
                    key: &[b'a' + block, b'a' + item],
                    value: &[item; 30],
                    ..Record::default()
                };
                record.put(&mut raw);
            }
            writer.block(packer.pack(&raw, 5).unwrap()).unwrap();
            borders.push(writer.written as usize);
        }
        let (bytes, totals, _) = writer.end().unwrap();
        assert_eq!(totals.items, 5 * u64::from(blocks));
        (bytes, borders)
    }

    #[test]
    fn a_whole_dump_has_all_its_items() {
        let (bytes, _) = dump(3);
        assert_eq!(verify(&bytes[..]).unwrap().items, 15);
        let (bytes, _) = dump(0);
        assert_eq!(verify(&bytes[..]).unwrap().items, 0);
    }

    #[test]
    fn a_truncated_dump_is_refused_and_the_blocks_before_can_be_read() {
        let (bytes, borders) = dump(3);
        for len in 0..bytes.len() {
            assert!(verify(&bytes[..len]).is_err(), "{len}");
        }
        for (blocks, border) in borders[1..].iter().enumerate() {
            for len in [*border, border + 1, border + 59] {
                let damage = verify(&bytes[..len]).unwrap_err();
                assert_eq!(damage.block, blocks as u64, "{len}: {damage}");
            }
        }
    }

    #[test]
    fn each_flipped_byte_is_noticed() {
        let (bytes, _) = dump(2);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x41;
            assert!(verify(&bad[..]).is_err(), "byte {at}");
        }
    }

    #[test]
    fn blocks_that_are_twice_there_or_missing_or_another_dumps_are_noticed() {
        let (bytes, borders) = dump(3);
        let [first, second, third] = [1, 2, 3].map(|at| &bytes[borders[at]..borders[at + 1]]);
        let (head, end) = (&bytes[..HEADER], &bytes[borders[4]..]);
        let of = |parts: &[&[u8]]| verify(&parts.concat()[..]);
        assert!(of(&[head, first, second, third, end]).is_ok());
        for parts in [
            &[head, first, third, end][..],
            &[head, first, second, second, third, end],
            &[head, second, first, third, end],
            &[head, first, second, third, end, end],
            &[head, first, second, end],
            &[head, end],
        ] {
            assert!(of(parts).is_err());
        }
        let other = Header {
            made: 1_800_000_000,
            identity: 100,
        };
        assert!(of(&[&other.to_bytes(), first, second, third, end]).is_err());
    }

    /// A block of a hostile file, with all checksums right.
    fn hostile(raw: u32, items: u32, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            made: 1,
            identity: 1,
        };
        let block = BlockHeader {
            kind: BlockKind::Items,
            number: 0,
            made: 1,
            raw,
            packed: payload.len() as u32,
            items,
            sum: crc32fast::hash(payload),
        };
        [&header.to_bytes()[..], &block.to_bytes(1), payload].concat()
    }

    #[test]
    fn unpacking_stops_at_the_size_in_the_header() {
        let bomb = zstd::bulk::compress(&vec![0; 2 * RAW_MOST], 1).unwrap();
        for raw in [1000, RAW_MOST as u32] {
            let damage = verify(&hostile(raw, 1, &bomb)[..]).unwrap_err();
            assert!(damage.what.contains("can't be decompressed"), "{damage}");
        }
        let mut unpacker = Unpacker::new().unwrap();
        let mut file = &hostile(RAW_MOST as u32, 1, &bomb)[..];
        let block = Reader::new(&mut file).unwrap().block().unwrap().unwrap();
        assert!(unpacker.unpack(&block).is_err());
        assert!(unpacker.raw.capacity() <= RAW_MOST);
    }

    #[test]
    fn memory_follows_the_bytes_in_the_file_not_its_stated_sizes() {
        let mut file = hostile(RAW_MOST as u32, 1, &[0; 100]);
        file.truncate(HEADER + BLOCK_HEADER + 50);
        let mut bad =
            BlockHeader::parse(file[HEADER..HEADER + BLOCK_HEADER].try_into().unwrap(), 1).unwrap();
        bad.packed = RAW_MOST as u32;
        file[HEADER..HEADER + BLOCK_HEADER].copy_from_slice(&bad.to_bytes(1));
        let damage = verify(&file[..]).unwrap_err();
        assert_eq!(damage.what, "the file ends within a block");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(verify(&bytes[..]).is_err());
        }

        #[test]
        fn no_payload_with_right_checksums_makes_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 27..400),
            items in 1u32..12,
            is_packed: bool,
        ) {
            let payload = match is_packed {
                true => zstd::bulk::compress(&bytes, 1).unwrap(),
                false => bytes.clone(),
            };
            prop_assert!(verify(&hostile(bytes.len() as u32, items, &payload)[..]).is_err());
        }

        #[test]
        fn changed_bytes_are_detected(at in any::<prop::sample::Index>(), to: u8) {
            let (mut bytes, _) = dump(2);
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            prop_assert!(verify(&bytes[..]).is_err());
        }
    }
}
