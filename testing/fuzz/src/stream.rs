// SPDX-License-Identifier: GPL-2.0-only
//! A TCP stream: the replies do not depend on how it is split, and can be parsed.

use hippos_engine::REPLY_HEADER_MAX;

use crate::common::{play, Cut, WHOLE};
use crate::{engine, replies};

/// Two bytes that determine the split, then the stream.
pub(crate) const SEEDS: &[&[u8]] = &[
    b"\x03\x00set a 1 0 3\r\nabc\r\nget a b\r\ngets a\r\n",
    b"\x05\x01add a 0 0 1 noreply\r\nx\r\nappend a 0 0 1\r\ny\r\ncas a 0 0 1 7\r\nz\r\nincr a 1\r\n",
    b"\x02\x00ms a 2 T0 c\r\nhi\r\nmg a v k f c t q\r\nmn\r\nme a\r\nmd a q\r\nma n N0 J5 v\r\nmg Zm9v b k\r\n",
    b"\x01\x02gat 30 a b\r\ntouch a 5\r\nflush_all 0\r\nverbosity 1\r\nversion\r\nbogus\r\nquit\r\n",
    b"\x04\x00\x80\x01\x00\x01\x08\x00\x00\x00\x00\x00\x00\x0b\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00ahi\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00a",
    b"\x07\x00set big 0 0 999999999\r\nlru_crawler metadump all\r\nslabs reassign 1 2\r\n",
];

pub(crate) fn stream(data: &[u8]) {
    let Some(([cut, room], input)) = data.split_first_chunk() else {
        return;
    };
    let whole = play(&engine(), input, WHOLE);
    // Statistics contain the number of bytes read so far, and the size of a listing's pages depends on the buffer.
    let telling = |word: &[u8]| input.windows(word.len()).any(|part| part == word);
    if !telling(b"stat") && !telling(b"\x80\x10") && !telling(b"dump") {
        let piece = 1 + usize::from(*cut) % 97;
        let room = REPLY_HEADER_MAX + usize::from(*room) * 16;
        let cut = play(&engine(), input, Cut { piece, room });
        assert_eq!(whole, cut, "pieces of {piece} bytes");
    }
    if input.first().is_some_and(|first| *first != 0x80) {
        replies::check_text(&whole.output);
    }
}
