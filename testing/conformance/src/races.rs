// SPDX-License-Identifier: GPL-2.0-only
//! Readers and writers for races: each form of a reader beside each write that changes an item in place gets a reply that
//! is framed as it announces, despite the changes meanwhile.
//!
//! Writers alternate between numbers of 1 and of 20 digits, so that a reply that is sized by one and written by the
//! other is torn. `kmod/engine/tests/races.rs` runs all pairs in the engine, the guest test
//! `consistency::replies_are_framed_beside_writes` in the module.

use crate::packet::request as binary;

/// The commands that make the items.
pub const ITEMS: &[u8] = b"set k 0 0 2\r\n10\r\nset other 5 0 3\r\n123\r\n";

/// The framing of replies to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines of `get` and its variants.
    Text,
    /// A meta command's.
    Meta,
    /// That of `me`.
    Debug,
    /// A packet of the binary protocol.
    Binary,
    /// Lines of `lru_crawler metadump`.
    Dump,
}

/// The readers: the framing of the reply, and the request.
pub fn readers() -> Vec<(Form, Vec<u8>)> {
    let text = |text: &str| (Form::Text, text.as_bytes().to_vec());
    let meta = |text: &str| (Form::Meta, text.as_bytes().to_vec());
    let expiry = 1000u32.to_be_bytes();
    vec![
        text("get k\r\n"),
        text("gets k\r\n"),
        text("get k other\r\n"),
        text("gets k other\r\n"),
        text("gets k other k other k other k other\r\n"),
        text("gat 1000 k\r\n"),
        text("gats 1000 k\r\n"),
        text("gats 1000 k other\r\n"),
        meta("mg k c v\r\n"),
        meta("mg k t c l h f s k v O7\r\n"),
        meta("mg k t c l h\r\n"),
        meta("mg k c T1000 t v\r\n"),
        meta("mg k c R30 t v\r\n"),
        meta("mg k c N30 R1000000 T100 t v\r\n"),
        (Form::Debug, b"me k\r\n".to_vec()),
        (Form::Binary, binary(0x00, &[], b"k")),
        (Form::Binary, binary(0x0c, &[], b"k")),
        (Form::Binary, binary(0x1c, &expiry, b"k")),
        (Form::Binary, binary(0x1d, &expiry, b"k")),
        (Form::Binary, binary(0x23, &expiry, b"k")),
        (Form::Dump, b"lru_crawler metadump all\r\n".to_vec()),
    ]
}

/// The writers: requests that are sent alternately, those of one writer all text or all binary.
pub fn writers() -> Vec<Vec<Vec<u8>>> {
    let texts = |texts: &[&str]| texts.iter().map(|t| t.as_bytes().to_vec()).collect();
    vec![
        texts(&["md k I E1\r\n", "md k I E18446744073709551615\r\n"]),
        texts(&[
            "md k I T30 E1\r\n",
            "md k I T2000000 E18446744073709551615\r\n",
        ]),
        texts(&[
            "ms k 2 C1 I E18446744073709551615 T0\r\n10\r\n",
            "ms k 2 C2 I E3 T0\r\n10\r\n",
        ]),
        texts(&["touch k 1\r\n", "touch k 2000000\r\n", "touch k 0\r\n"]),
        texts(&["gat 9 k\r\n", "gats 1000000 k\r\n"]),
        texts(&["mg k T9\r\n", "mg k T1000000 R60\r\n"]),
        texts(&["incr k 1\r\n", "decr k 1\r\n"]),
        texts(&["ma k E1\r\n", "ma k E18446744073709551615 T7\r\n"]),
        texts(&["md k I\r\n", "mg k\r\n", "ms k 2 I C1\r\n10\r\n"]),
        vec![
            binary(0x1c, &9u32.to_be_bytes(), b"k"),
            binary(0x1d, &1_000_000u32.to_be_bytes(), b"k"),
        ],
    ]
}

/// Whether `bytes` are one reply of that form, complete and with nothing behind it.
pub fn is_framed(form: Form, bytes: &[u8]) -> bool {
    reply(form, bytes) == Some(&[])
}

/// The value that readers see: two halves of digits, of which one is counted up and down.
fn is_value(value: &[u8]) -> bool {
    value.iter().all(u8::is_ascii_digit) || value.ends_with(b" ")
}

/// The words of the line at the start of `bytes`, and the bytes after it.
fn line(bytes: &[u8]) -> Option<(Vec<&str>, &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    Some((text.split(' ').collect(), &bytes[end + 2..]))
}

/// `len` bytes of a value and its line end.
fn value<'b>(bytes: &'b [u8], len: &str) -> Option<&'b [u8]> {
    let (value, rest) = bytes.split_at_checked(len.parse().ok()?)?;
    let rest = rest.strip_prefix(b"\r\n")?;
    is_value(value).then_some(rest)
}

/// The bytes after one complete reply, if `bytes` begins with one.
fn reply(form: Form, bytes: &[u8]) -> Option<&[u8]> {
    match form {
        Form::Text => {
            let mut rest = bytes;
            loop {
                let (words, after) = line(rest)?;
                match words[..] {
                    ["END"] => return Some(after),
                    ["VALUE", "k" | "other", _, len] => rest = value(after, len)?,
                    ["VALUE", "k" | "other", _, len, cas] => {
                        cas.parse::<u64>().ok()?;
                        rest = value(after, len)?;
                    }
                    _ => return None,
                }
            }
        }
        Form::Meta => {
            let (words, after) = line(bytes)?;
            let flags = |words: &[&str]| {
                words.iter().all(|word| {
                    let (letter, number) = word.split_at(1);
                    match letter {
                        "t" | "c" | "s" | "f" | "l" | "h" => number.parse::<i128>().is_ok(),
                        "k" => number == "k",
                        "O" => number == "7",
                        _ => ["Z", "X", "W"].contains(word),
                    }
                })
            };
            match words[..] {
                ["EN"] => Some(after),
                ["HD", ref rest @ ..] if flags(rest) => Some(after),
                ["VA", len, ref rest @ ..] if flags(rest) => value(after, len),
                _ => None,
            }
        }
        Form::Debug => {
            let (words, after) = line(bytes)?;
            match words[..] {
                ["EN"] => Some(after),
                ["ME", "k", exp, la, cas, fetch, cls, size] => {
                    let names = ["exp=", "la=", "cas=", "fetch=", "cls=", "size="];
                    let all = [exp, la, cas, fetch, cls, size];
                    let named = names.iter().zip(all).all(|(n, word)| word.starts_with(n));
                    named.then_some(after)
                }
                _ => None,
            }
        }
        Form::Binary => {
            let (head, rest) = bytes.split_at_checked(24)?;
            let body = u32::from_be_bytes(head[8..12].try_into().ok()?) as usize;
            let key = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let extras = usize::from(head[4]);
            let (body, rest) = rest.split_at_checked(body)?;
            let value = body.get(extras + key..)?;
            let status = u16::from_be_bytes([head[6], head[7]]);
            let right = head[0] == 0x81 && (status != 0 || is_value(value));
            right.then_some(rest)
        }
        Form::Dump => {
            let mut rest = bytes;
            loop {
                if let Some(after) = rest.strip_prefix(b"END\r\n") {
                    return Some(after);
                }
                let end = rest.iter().position(|&byte| byte == b'\n')?;
                let text = std::str::from_utf8(&rest[..end]).ok()?;
                let words: Vec<&str> = text.split(' ').collect();
                let names = [
                    "key=", "exp=", "la=", "cas=", "fetch=", "cls=", "size=", "flags=",
                ];
                let named = names
                    .iter()
                    .zip(&words)
                    .all(|(n, word)| word.starts_with(n));
                if !named || words.len() != names.len() {
                    return None;
                }
                rest = &rest[end + 1..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_is_cut_or_too_long_is_not_framed() {
        let packet = [
            b"\x81\x0c\0\x01\x04\0\0\0\0\0\0\x07",
            &[0; 12][..],
            b"\0\0\0\x05k10",
        ]
        .concat();
        let whole: [(Form, &[u8]); 8] = [
            (Form::Text, b"END\r\n"),
            (
                Form::Text,
                b"VALUE k 0 2\r\n10\r\nVALUE other 5 3 7\r\n123\r\nEND\r\n",
            ),
            (Form::Meta, b"HD t-1 c18446744073709551615 W\r\n"),
            (Form::Meta, b"VA 2 s2 kk O7\r\n10\r\n"),
            (
                Form::Debug,
                b"ME k exp=-1 la=0 cas=1 fetch=no cls=1 size=50\r\n",
            ),
            (Form::Binary, &packet),
            (Form::Dump, b"END\r\n"),
            (
                Form::Dump,
                b"key=k exp=-1 la=0 cas=1 fetch=no cls=1 size=50 flags=0\nEND\r\n",
            ),
        ];
        for (form, bytes) in whole {
            let shown = bytes.escape_ascii();
            assert!(is_framed(form, bytes), "{form:?} {shown}");
            assert!(
                !is_framed(form, &[bytes, b"0"].concat()),
                "{form:?} {shown}"
            );
            for at in 0..bytes.len() {
                assert!(!is_framed(form, &bytes[..at]), "{form:?} {shown}, {at}");
            }
        }
    }

    #[test]
    fn a_writer_has_requests_of_one_protocol() {
        for writes in writers() {
            let binary = |write: &Vec<u8>| write.first() == Some(&crate::packet::REQUEST);
            assert!(writes
                .iter()
                .all(|write| binary(write) == binary(&writes[0])));
        }
    }
}
