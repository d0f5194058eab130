// SPDX-License-Identifier: GPL-2.0-only
//! Templates: the little language of the case files, and matching bytes against it.
//!
//! | written      | as input                      | as expected output                       |
//! |--------------|-------------------------------|------------------------------------------|
//! | `$`          | eight bytes that no other case uses | the same                           |
//! | `\r \n \t \s \0 \xHH \\ \$ \{` | that byte   | the same                                 |
//! | `{9*text}`   | `text` nine times (it nests)  | the same                                 |
//! | `{#}`        | the count within the innermost repeat, from 0 | the same                 |
//! | `{b64:text}` | the base64 of `text`          | the same                                 |
//! | `{n}` `{n:a}`| –                             | one decimal number, kept as `a`          |
//! | `{=a}`       | the number kept as `a`        | the same                                 |
//! | `{*}`        | –                             | anything up to the carriage return       |

use anyhow::{bail, ensure, Context, Result};
use std::collections::HashMap;

/// One packet, request or response.
#[derive(Clone, Debug)]
pub struct Packet {
    pub(crate) magic: u8,
    pub(crate) opcode: u8,
    pub(crate) data_type: u8,
    /// Status of a response, vbucket of a request.
    pub(crate) status: u16,
    pub(crate) opaque: u32,
    pub(crate) cas: Cas,
    pub(crate) extras: Vec<u8>,
    pub(crate) key: Template,
    pub(crate) value: Template,
    pub(crate) key_len: Option<u16>,
    pub(crate) extras_len: Option<u8>,
    pub(crate) body_len: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) enum Cas {
    Number(u64),
    Kept(String),
    Any(Option<String>),
}

/// One element of a template.
#[derive(Clone, Debug)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The case's own eight bytes.
    Key,
    /// The count within the innermost repeat.
    Index,
    /// A template so many times.
    Repeat(usize, Template),
    /// The base64 of a template.
    Base64(Template),
    /// A decimal number that may vary, kept under a name if it has one.
    Number(Option<String>),
    /// A number kept before.
    Kept(String),
    /// Anything up to the carriage return.
    Anything,
    /// One packet of the binary protocol.
    Packet(Box<Packet>),
    /// A block of statistics with at least these names (or `name=value`).
    Stats(Vec<String>),
    /// The same in the binary protocol: one packet each, an empty one to end.
    PacketStats(Vec<String>),
}

/// The bytes to send, or those to expect.
pub type Template = Vec<Piece>;

/// The values of a template's variables.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The case's own bytes, for `$`.
    pub key: Vec<u8>,
    /// The numbers kept so far.
    pub kept: HashMap<String, u64>,
}

/// A part of a template whose known variables are filled in.
#[derive(Clone, Debug)]
pub enum Token {
    /// Exactly these bytes.
    Bytes(Vec<u8>),
    /// A decimal number.
    Number(Option<String>),
    /// A big-endian number of eight bytes.
    Wide(Option<String>),
    /// Anything up to the carriage return.
    Anything,
    /// A block of statistics.
    Stats(Vec<String>),
    /// A block of statistics in the binary protocol.
    PacketStats(Vec<String>),
}

/// The result of a comparison.
#[derive(Clone, Debug)]
pub enum Match {
    /// The first `usize` bytes fit; numbers were kept.
    Whole(usize, Vec<(String, u64)>),
    /// All bytes fit so far, and there must be more.
    Part,
    /// This does not fit, for this reason.
    No(String),
}

/// Parses a template.
pub fn parse(text: &str) -> Result<Template> {
    let mut chars = text.chars().peekable();
    let template = parse_until(&mut chars, false).with_context(|| format!("in `{text}`"))?;
    Ok(template)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn parse_until(chars: &mut Chars, inside: bool) -> Result<Template> {
    let mut out = Template::new();
    let mut bytes = Vec::new();
    let flush = |bytes: &mut Vec<u8>, out: &mut Template| {
        if !bytes.is_empty() {
            out.push(Piece::Bytes(std::mem::take(bytes)));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' => bytes.push(escape(chars)?),
            '$' => {
                flush(&mut bytes, &mut out);
                out.push(Piece::Key);
            }
            '{' => {
                flush(&mut bytes, &mut out);
                out.push(braces(chars)?);
            }
            '}' if inside => {
                flush(&mut bytes, &mut out);
                return Ok(out);
            }
            c => bytes.extend(c.to_string().as_bytes()),
        }
    }
    ensure!(!inside, "a brace is not closed");
    flush(&mut bytes, &mut out);
    Ok(out)
}

fn escape(chars: &mut Chars) -> Result<u8> {
    Ok(match chars.next() {
        Some('r') => b'\r',
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('s') => b' ',
        Some('0') => 0,
        Some('x') => {
            let digits: String = chars.take(2).collect();
            u8::from_str_radix(&digits, 16).with_context(|| format!("\\x{digits}"))?
        }
        Some(c @ ('\\' | '$' | '{' | '}')) => c as u8,
        other => bail!(
            "unknown escape \\{}",
            other.map_or(String::new(), String::from)
        ),
    })
}

fn braces(chars: &mut Chars) -> Result<Piece> {
    let word = |chars: &mut Chars| -> Result<String> {
        let mut word = String::new();
        for c in chars.by_ref() {
            if c == '}' {
                return Ok(word);
            }
            word.push(c);
        }
        bail!("a brace is not closed")
    };
    match chars.peek() {
        Some('#') => {
            ensure!(word(chars)? == "#", "`{{#}}` takes nothing more");
            Ok(Piece::Index)
        }
        Some('*') => {
            ensure!(word(chars)? == "*", "`{{*}}` takes nothing more");
            Ok(Piece::Anything)
        }
        Some('=') => Ok(Piece::Kept(word(chars)?.split_off(1))),
        Some('n') => match word(chars)?.as_str() {
            "n" => Ok(Piece::Number(None)),
            name => {
                let name = name.strip_prefix("n:").context("expected {n:name}")?;
                Ok(Piece::Number(Some(name.to_owned())))
            }
        },
        Some('b') => {
            let head: String = chars.take(4).collect();
            ensure!(head == "b64:", "expected {{b64:text}}");
            Ok(Piece::Base64(parse_until(chars, true)?))
        }
        Some('0'..='9') => {
            let mut count = String::new();
            loop {
                match chars.next() {
                    Some(c @ '0'..='9') => count.push(c),
                    Some('*') => break,
                    _ => bail!("expected {{count*text}}"),
                }
            }
            Ok(Piece::Repeat(count.parse()?, parse_until(chars, true)?))
        }
        _ => bail!("unknown braces"),
    }
}

/// Does the template use a number that was kept?
pub fn keeps(template: &[Piece]) -> bool {
    template.iter().any(|piece| match piece {
        Piece::Kept(_) => true,
        Piece::Repeat(_, inner) | Piece::Base64(inner) => keeps(inner),
        Piece::Packet(packet) => packet.keeps(),
        _ => false,
    })
}

/// The bytes of a template. Fails on varying values, which can be expected but not sent.
pub fn bytes(template: &[Piece], scope: &Scope) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for token in tokens(template, scope)? {
        match token {
            Token::Bytes(bytes) => out.extend(bytes),
            _ => bail!("a varying value can't be sent"),
        }
    }
    Ok(out)
}

/// The template with its known variables filled in, neighbouring bytes joined.
pub fn tokens(template: &[Piece], scope: &Scope) -> Result<Vec<Token>> {
    let mut out = Vec::new();
    fill(template, scope, 0, &mut out)?;
    Ok(out)
}

fn fill(template: &[Piece], scope: &Scope, index: usize, out: &mut Vec<Token>) -> Result<()> {
    for piece in template {
        match piece {
            Piece::Bytes(bytes) => join(out, bytes),
            Piece::Key => join(out, &scope.key),
            Piece::Index => join(out, index.to_string().as_bytes()),
            Piece::Repeat(count, inner) => {
                for i in 0..*count {
                    fill(inner, scope, i, out)?;
                }
            }
            Piece::Base64(inner) => join(out, base64(&bytes(inner, scope)?).as_bytes()),
            Piece::Number(name) => out.push(Token::Number(name.clone())),
            Piece::Kept(name) => {
                let n = scope
                    .kept
                    .get(name)
                    .with_context(|| format!("`{name}` was never kept"))?;
                join(out, n.to_string().as_bytes());
            }
            Piece::Anything => out.push(Token::Anything),
            Piece::Packet(packet) => {
                for token in packet.tokens(scope)? {
                    match token {
                        Token::Bytes(bytes) => join(out, &bytes),
                        other => out.push(other),
                    }
                }
            }
            Piece::Stats(names) => out.push(Token::Stats(names.clone())),
            Piece::PacketStats(names) => out.push(Token::PacketStats(names.clone())),
        }
    }
    Ok(())
}

fn join(out: &mut Vec<Token>, more: &[u8]) {
    match out.last_mut() {
        Some(Token::Bytes(bytes)) => bytes.extend(more),
        _ => out.push(Token::Bytes(more.to_vec())),
    }
}

/// Whether `got` begins with the expected output.
pub fn compare(expected: &[Token], got: &[u8]) -> Match {
    let mut at = 0;
    let mut kept = Vec::new();
    for token in expected {
        let rest = &got[at..];
        match token {
            Token::Bytes(bytes) => {
                let n = bytes.len().min(rest.len());
                if let Some(i) = (0..n).find(|&i| bytes[i] != rest[i]) {
                    return Match::No(format!("byte {} differs", at + i));
                }
                if n < bytes.len() {
                    return Match::Part;
                }
                at += n;
            }
            Token::Number(name) => {
                let n = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                if n == rest.len() {
                    return Match::Part;
                }
                let digits = String::from_utf8_lossy(&rest[..n]);
                match (digits.parse(), name) {
                    (Ok(number), Some(name)) => kept.push((name.clone(), number)),
                    (Ok(_), None) => {}
                    (Err(_), _) => return Match::No(format!("no number at byte {at}")),
                }
                at += n;
            }
            Token::Wide(name) => {
                let Some(wide) = rest.first_chunk::<8>() else {
                    return Match::Part;
                };
                if let Some(name) = name {
                    kept.push((name.clone(), u64::from_be_bytes(*wide)));
                }
                at += 8;
            }
            Token::Anything => match rest.iter().position(|&b| b == b'\r') {
                Some(n) => at += n,
                None => return Match::Part,
            },
            Token::Stats(names) => match stats(rest) {
                Match::Whole(n, _) => {
                    let found = stat_lines(&rest[..n]);
                    if let Some(missing) = missing(names, &found) {
                        return Match::No(format!("statistics lack {missing}"));
                    }
                    at += n;
                }
                other => return other,
            },
            Token::PacketStats(names) => match packet_stats(rest) {
                Some((n, found)) => {
                    if let Some(missing) = missing(names, &found) {
                        return Match::No(format!("statistics lack {missing}"));
                    }
                    at += n;
                }
                None => return Match::Part,
            },
        }
    }
    Match::Whole(at, kept)
}

/// How long a block of `STAT` lines up to its `END` is.
fn stats(got: &[u8]) -> Match {
    let mut at = 0;
    while let Some(n) = got[at..].windows(2).position(|w| w == b"\r\n") {
        let line = &got[at..at + n];
        at += n + 2;
        if line == b"END" {
            return Match::Whole(at, Vec::new());
        }
        if !line.starts_with(b"STAT ") {
            return Match::No(format!("no statistic: {}", String::from_utf8_lossy(line)));
        }
    }
    Match::Part
}

/// The statistics of a text reply as pairs, names with their numbers as `N`.
pub fn stat_lines(got: &[u8]) -> Vec<(String, String)> {
    String::from_utf8_lossy(got)
        .lines()
        .filter_map(|line| line.strip_prefix("STAT "))
        .map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
        .map(|(name, value)| (general(name), value.to_owned()))
        .collect()
}

/// The statistics of a binary reply, and its length, once it is complete.
pub fn packet_stats(got: &[u8]) -> Option<(usize, Vec<(String, String)>)> {
    let mut at = 0;
    let mut found = Vec::new();
    loop {
        let head = got.get(at..at + 24)?;
        let key_len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let body_len = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let body = got.get(at + 24..at + 24 + body_len)?;
        at += 24 + body_len;
        if body_len == 0 {
            return Some((at, found));
        }
        let (key, value) = body.split_at(key_len.min(body_len));
        found.push((
            general(&String::from_utf8_lossy(key)),
            String::from_utf8_lossy(value).into_owned(),
        ));
    }
}

/// A statistic's name with the slab class, connection or size in it as `N`.
fn general(name: &str) -> String {
    let part = |p: &str| match !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) {
        true => "N".to_owned(),
        false => p.to_owned(),
    };
    name.split(':').map(part).collect::<Vec<_>>().join(":")
}

fn missing<'a>(names: &'a [String], found: &[(String, String)]) -> Option<&'a str> {
    let has = |want: &str| match want.split_once('=') {
        Some((name, value)) => found.iter().any(|(n, v)| n == name && v == value),
        None => found.iter().any(|(n, _)| n == want),
    };
    names.iter().map(String::as_str).find(|want| !has(want))
}

/// The base64 of `bytes`, padded.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, &b| word << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            match i <= chunk.len() {
                true => out.push(DIGITS[(word >> (18 - 6 * i)) as usize & 63] as char),
                false => out.push('='),
            }
        }
    }
    out
}

/// Bytes as a template writes them, for reports and for recorded output.
pub fn show(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut i = 0;
    while i < bytes.len() {
        let b = bytes[i];
        let run = bytes[i..].iter().take_while(|&&x| x == b).count();
        let one = match b {
            b'\r' => "\\r".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\t' => "\\t".to_owned(),
            b'\\' | b'$' | b'{' | b'}' => format!("\\{}", b as char),
            b' '..=b'~' => (b as char).to_string(),
            b => format!("\\x{b:02x}"),
        };
        if run >= 32 {
            out += &format!("{{{run}*{one}}}");
            i += run;
        } else {
            out += &one;
            i += 1;
        }
    }
    match out.strip_suffix(' ') {
        Some(most) => format!("{most}\\s"),
        None => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            key: b"kkkkkkkk".to_vec(),
            kept: HashMap::from([("a".to_owned(), 7)]),
        }
    }

    fn text(template: &str) -> String {
        String::from_utf8_lossy(&bytes(&parse(template).unwrap(), &scope()).unwrap()).into_owned()
    }

    #[test]
    fn all_placeholders_are_filled_in() {
        assert_eq!(text("get $a\\r\\n"), "get kkkkkkkka\r\n");
        assert_eq!(text("{3*ab{#}}{=a}\\{\\x41"), "ab0ab1ab27{A");
        assert_eq!(text("{2*{3*x}y}"), "xxxyxxxy");
        assert_eq!(
            text("{b64:foobar}{b64:fooba}{b64:foob}"),
            "Zm9vYmFyZm9vYmE=Zm9vYg=="
        );
    }

    #[test]
    fn errors_name_the_placeholder() {
        for bad in ["{3*x", "{q}", "\\q", "{n:a", "\\xzz"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn varying_values_are_kept() {
        let expected = tokens(&parse("VALUE $ {n:c}\\r\\n{*}\\r\\n").unwrap(), &scope()).unwrap();
        let got = b"VALUE kkkkkkkk 81\r\nwhatever\r\nmore";
        match compare(&expected, got) {
            Match::Whole(len, kept) => {
                assert_eq!(len, got.len() - 4);
                assert_eq!(kept, [("c".to_owned(), 81)]);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(compare(&expected, &got[..12]), Match::Part));
        assert!(matches!(
            compare(&expected, b"VALUE kkkkkkkk x\r\n"),
            Match::No(_)
        ));
        assert!(matches!(compare(&expected, b"VALUF"), Match::No(_)));
    }

    #[test]
    fn statistics_are_checked_by_name() {
        let expected = vec![Token::Stats(vec!["pid".into(), "items:N:age=3".into()])];
        assert!(matches!(compare(&expected, b"STAT pid 1\r\n"), Match::Part));
        assert!(matches!(
            compare(&expected, b"STAT pid 1\r\nEND\r\n"),
            Match::No(_)
        ));
        assert!(matches!(
            compare(&expected, b"STAT pid 1\r\nSTAT items:12:age 3\r\nEND\r\n"),
            Match::Whole(38, _)
        ));
    }

    #[test]
    fn shown_bytes_parse_back() {
        let bytes_in: Vec<u8> = (0..=255).chain([b'x'; 100]).chain([b' ']).collect();
        let back = bytes(&parse(&show(&bytes_in)).unwrap(), &scope()).unwrap();
        assert_eq!(back, bytes_in);
    }
}
