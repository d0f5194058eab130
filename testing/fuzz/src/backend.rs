// SPDX-License-Identifier: GPL-2.0-only
//! The proxy's parsers of nodes' output: the end of a reply does not depend on how the bytes are split, and a datagram
//! is taken for the answer to a batch only as a whole.

use crate::batch::{Asks, Batch};
use crate::framing::{frame, Expect, Framed};

/// A byte for the kind of reply, one for the split, then the output.
pub(crate) const SEEDS: &[&[u8]] = &[
    b"\x00\x20STORED\r\nNOT_FOUND\r\n12\r\n",
    b"\x01\x40VALUE a 0 2\r\n\r\n\r\nVALUE b 0 0 7\r\n\r\nEND\r\n",
    b"\x01\x80VALUE key 5 1 18446744073709551615\r\nx\r\nEND\r\nEND\r\n",
    b"\x02\x90VA 3 t-1 kkey\r\nabc\r\nEN\r\nHD O1\r\n",
    b"\x82\x50SERVER_ERROR out of memory storing object\r\nMN\r\n",
    b"\x80\x10MN\r\nMN\r\n",
    b"\x03\xa0STAT a b\r\nSTAT c \r\nEND\r\n",
    b"\x84\x30\x81\x01\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00x\x81\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x05\x70\x81\x10\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00ab\x81\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
];

const EXPECT: [Expect; 6] = [
    Expect::Line,
    Expect::Values,
    Expect::Meta,
    Expect::Listing,
    Expect::Binary,
    Expect::BinaryListing,
];

/// No reply is this large.
const LIMIT: usize = 1 << 16;

const KEYS: [&[u8]; 3] = [b"a", b"b", b"key"];

pub(crate) fn backend(data: &[u8]) {
    let Some(([kind, cut], output)) = data.split_first_chunk() else {
        return;
    };
    let expect = EXPECT[usize::from(*kind & 0x7f) % EXPECT.len()];
    let fence = kind & 0x80 != 0;
    let whole = frame(output, expect, fence, LIMIT);
    if let Framed::Reply { reply, taken } = whole {
        assert!(reply <= taken && taken <= output.len());
        assert!(taken > 0, "a reply of no bytes would be found for ever");
    }
    let part = &output[..output.len() * usize::from(*cut) / 256];
    let first = frame(part, expect, fence, LIMIT);
    if first != Framed::More {
        assert_eq!(first, whole, "after {} bytes", part.len());
    }
    for asks in Asks::ALL {
        datagram(asks, output);
    }
}

/// The output as the reply to a batch.
fn datagram(asks: Asks, output: &[u8]) {
    let mut batch = Batch::new(asks, 0);
    for (number, key) in KEYS.iter().enumerate() {
        let line = [b"mg ", *key, b" v"].concat();
        let key = if asks == Asks::Meta { &line } else { *key };
        let hash = hippos_ring::Hash::Fnv1a32.of(key);
        batch.push(key, hash, 1, number).expect("three are few");
    }
    let Some(values) = batch.values(output) else {
        return;
    };
    let all: Vec<u8> = values
        .iter()
        .flatten()
        .copied()
        .flatten()
        .copied()
        .collect();
    if asks == Asks::Meta {
        assert_eq!(all, output, "a reply to each line, and nothing else");
        return;
    }
    assert_eq!([&all[..], b"END\r\n"].concat(), output);
    for (key, value) in KEYS.iter().zip(values) {
        let head = [b"VALUE ", *key, b" "].concat();
        assert!(value.is_none_or(|value| value.starts_with(&head)));
    }
    let whole = Framed::Reply {
        reply: output.len(),
        taken: output.len(),
    };
    assert_eq!(frame(output, Expect::Values, false, LIMIT), whole);
}
