// SPDX-License-Identifier: GPL-2.0-only
//! Lines, words, numbers, base64 and meta commands: a parsed input has the input's content, and parses the same when
//! written again.

use hippos_proto::base64::{self, Decoded};
use hippos_proto::meta::Command;
use hippos_proto::number::{parse_i32, parse_u64, Decimal};
use hippos_proto::token::{self, Tokens, TOKENS_MAX};
use hippos_proto::KEY_MAX;

pub(crate) const SEEDS: &[&[u8]] = &[
    b"mg key v f c t h l s k O123 q N30 R9 T90 E5 I b\r\n",
    b"ms key 5 T60 c F7 I C12 ME\r\n",
    b"ma key N0 J13 D5 T90 MD q t c v\r\n",
    b"md Zm9v b q I T30 C5\r\n",
    b"me key b\r\n",
    b"get 18446744073709551615 -2147483648 007 +1\r\n",
];

pub(crate) fn meta(data: &[u8]) {
    let Some(line) = token::line(data) else {
        assert!(!data.contains(&b'\n'), "a line was not seen");
        return;
    };
    assert!(line.consumed <= data.len() && data[line.consumed - 1] == b'\n');
    assert!(line.text.len() < line.consumed, "more than it consumed");
    assert!(!line.text.contains(&b'\n') && !line.text.contains(&0));
    let words: Vec<&[u8]> = (0..Tokens::new(line.text).len())
        .map(|index| Tokens::new(line.text).at(index))
        .collect();
    assert!(words.len() <= TOKENS_MAX);
    for word in &words {
        numbers(word);
        if let Some(decoded) = Decoded::new(word) {
            let mut again = Vec::new();
            base64::encode(decoded.as_bytes(), |four| again.extend_from_slice(&four));
            let mut both = Vec::new();
            let twice = Decoded::new(&again).expect("what was encoded can be decoded");
            both.extend_from_slice(twice.as_bytes());
            assert_eq!(decoded.as_bytes(), both);
        }
    }
    if words
        .first()
        .is_none_or(|word| word.len() != 2 || word[0] != b'm')
    {
        return;
    }
    let Ok(command) = Command::parse(Tokens::new(line.text)) else {
        return;
    };
    assert!(command.key().len() <= KEY_MAX);
    // Its words, one space between them, are the same command.
    let again = words.join(&b' ');
    let again = Command::parse(Tokens::new(&again)).unwrap_or_else(|_| panic!("refused at last"));
    assert!(command.verb == again.verb && command.key() == again.key());
    assert_eq!(command.words(), again.words());
}

fn numbers(word: &[u8]) {
    if let Some(number) = parse_u64(word) {
        let text = Decimal::new(number);
        assert_eq!(parse_u64(text.as_bytes()), Some(number));
    }
    if let Some(number) = parse_i32(word) {
        assert_eq!(parse_i32(number.to_string().as_bytes()), Some(number));
    }
}
