// SPDX-License-Identifier: GPL-2.0-only
//! Packets of the binary protocol as the case files write them.
//!
//! `set key=$ extras=00000005.00000000 value=hello` is a request; in expected output the same
//! words describe the response: `set status=0 cas={n:a}`. Lengths are computed; `keylen=`,
//! `extlen=` and `bodylen=` override them, `magic=` and `type=` the rest of the header.

use anyhow::{bail, Context, Result};

use crate::template::{self, Cas, Packet, Piece, Scope, Template, Token};

/// The opcodes that have names, in the order of their numbers.
const OPCODES: [(&str, u8); 39] = [
    ("get", 0x00),
    ("set", 0x01),
    ("add", 0x02),
    ("replace", 0x03),
    ("delete", 0x04),
    ("incr", 0x05),
    ("decr", 0x06),
    ("quit", 0x07),
    ("flush", 0x08),
    ("getq", 0x09),
    ("noop", 0x0a),
    ("version", 0x0b),
    ("getk", 0x0c),
    ("getkq", 0x0d),
    ("append", 0x0e),
    ("prepend", 0x0f),
    ("stat", 0x10),
    ("setq", 0x11),
    ("addq", 0x12),
    ("replaceq", 0x13),
    ("deleteq", 0x14),
    ("incrq", 0x15),
    ("decrq", 0x16),
    ("quitq", 0x17),
    ("flushq", 0x18),
    ("appendq", 0x19),
    ("prependq", 0x1a),
    ("verbosity", 0x1b),
    ("touch", 0x1c),
    ("gat", 0x1d),
    ("gatq", 0x1e),
    ("sasl_list", 0x20),
    ("sasl_auth", 0x21),
    ("sasl_step", 0x22),
    ("gatk", 0x23),
    ("gatkq", 0x24),
    ("rget", 0x30),
    ("rset", 0x31),
    ("rincr", 0x39),
];

/// An opcode by its name.
pub(crate) fn opcode(name: &str) -> Option<u8> {
    let found = OPCODES.iter().find(|(n, _)| *n == name);
    found.map(|(_, code)| *code)
}

/// Bytes of a header.
pub const HEADER: usize = 24;
/// First byte of a request.
pub const REQUEST: u8 = 0x80;
/// First byte of a response.
pub const RESPONSE: u8 = 0x81;

/// A request without a value, CAS number or opaque.
pub fn request(opcode: u8, extras: &[u8], key: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; HEADER];
    packet[0] = REQUEST;
    packet[1] = opcode;
    packet[2..4].copy_from_slice(&(key.len() as u16).to_be_bytes());
    packet[4] = extras.len() as u8;
    let body = (extras.len() + key.len()) as u32;
    packet[8..12].copy_from_slice(&body.to_be_bytes());
    packet.extend_from_slice(extras);
    packet.extend_from_slice(key);
    packet
}

impl Packet {
    /// Parses one line of a case file.
    pub fn parse(text: &str, magic: u8) -> Result<Packet> {
        let mut words = text.split(' ').filter(|w| !w.is_empty());
        let name = words.next().context("expected an opcode")?;
        let opcode = match OPCODES.iter().find(|(n, _)| *n == name) {
            Some((_, code)) => *code,
            None => number(name)? as u8,
        };
        let mut packet = Packet {
            magic,
            opcode,
            data_type: 0,
            status: 0,
            opaque: 0,
            cas: Cas::Number(0),
            extras: Vec::new(),
            key: Template::new(),
            value: Template::new(),
            key_len: None,
            extras_len: None,
            body_len: None,
        };
        for word in words {
            let (field, value) = word.split_once('=').with_context(|| format!("`{word}`"))?;
            match field {
                "magic" => packet.magic = number(value)? as u8,
                "type" => packet.data_type = number(value)? as u8,
                "status" | "vbucket" => packet.status = number(value)? as u16,
                "opaque" => packet.opaque = number(value)? as u32,
                "extras" => packet.extras = hex(value)?,
                "key" => packet.key = template::parse(value)?,
                "value" => packet.value = template::parse(value)?,
                "keylen" => packet.key_len = Some(number(value)? as u16),
                "extlen" => packet.extras_len = Some(number(value)? as u8),
                "bodylen" => packet.body_len = Some(number(value)? as u32),
                "cas" => {
                    packet.cas = match template::parse(value)?.as_slice() {
                        [Piece::Number(name)] => Cas::Any(name.clone()),
                        [Piece::Kept(name)] => Cas::Kept(name.clone()),
                        _ => Cas::Number(number(value)?),
                    }
                }
                _ => bail!("a packet has no `{field}`"),
            }
        }
        Ok(packet)
    }

    /// Whether it refers to a number that was kept.
    pub fn keeps(&self) -> bool {
        let cas = matches!(self.cas, Cas::Kept(_));
        cas || template::keeps(&self.key) || template::keeps(&self.value)
    }

    /// The packet's bytes, but for a CAS that may vary.
    pub fn tokens(&self, scope: &Scope) -> Result<Vec<Token>> {
        let key = template::bytes(&self.key, scope)?;
        let value = template::bytes(&self.value, scope)?;
        let body = self.extras.len() + key.len() + value.len();
        let mut head = vec![self.magic, self.opcode];
        head.extend(self.key_len.unwrap_or(key.len() as u16).to_be_bytes());
        head.push(self.extras_len.unwrap_or(self.extras.len() as u8));
        head.push(self.data_type);
        head.extend(self.status.to_be_bytes());
        head.extend(self.body_len.unwrap_or(body as u32).to_be_bytes());
        head.extend(self.opaque.to_be_bytes());
        let cas = match &self.cas {
            Cas::Number(n) => Token::Bytes(n.to_be_bytes().to_vec()),
            Cas::Kept(name) => {
                let n = scope
                    .kept
                    .get(name)
                    .with_context(|| format!("`{name}` was never kept"))?;
                Token::Bytes(n.to_be_bytes().to_vec())
            }
            Cas::Any(name) => Token::Wide(name.clone()),
        };
        let rest = [self.extras.as_slice(), &key, &value].concat();
        Ok(vec![Token::Bytes(head), cas, Token::Bytes(rest)])
    }
}

/// Removes the first packet from `bytes` and formats it as in a case file, with `cas` as given.
pub fn show(bytes: &[u8], cas: Option<&str>) -> Option<(String, usize)> {
    let head = bytes.get(..HEADER)?;
    let opcode = head[1];
    let key_len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let extras_len = usize::from(head[4]);
    let status = u16::from_be_bytes([head[6], head[7]]);
    let body_len = u32::from_be_bytes(*head[8..].first_chunk()?) as usize;
    let opaque = u32::from_be_bytes(*head[12..].first_chunk()?);
    let number = u64::from_be_bytes(*head[16..].first_chunk()?);
    let body = bytes.get(HEADER..HEADER + body_len)?;
    if head[0] != RESPONSE || key_len + extras_len > body_len {
        return None;
    }
    let (extras, rest) = body.split_at(extras_len);
    let (key, value) = rest.split_at(key_len);
    let mut out = match OPCODES.iter().find(|(_, code)| *code == opcode) {
        Some((name, _)) => (*name).to_owned(),
        None => format!("{opcode:#04x}"),
    };
    out += &format!(" status={status:#x}");
    if head[5] != 0 {
        out += &format!(" type={}", head[5]);
    }
    if opaque != 0 {
        out += &format!(" opaque={opaque:#x}");
    }
    match cas {
        Some(cas) => out += &format!(" cas={cas}"),
        None if number != 0 => out += &format!(" cas={number}"),
        None => {}
    }
    if !extras.is_empty() {
        out += " extras=";
        out.extend(extras.iter().map(|b| format!("{b:02x}")));
    }
    let word = |bytes: &[u8]| template::show(bytes).replace(' ', "\\s");
    if !key.is_empty() {
        out += &format!(" key={}", word(key));
    }
    if !value.is_empty() {
        out += &format!(" value={}", word(value));
    }
    Some((out, HEADER + body_len))
}

fn number(text: &str) -> Result<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .with_context(|| format!("`{text}` is no number"))
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<char> = text.chars().filter(|&c| c != '.').collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair: String = pair.iter().collect();
            u8::from_str_radix(&pair, 16).with_context(|| format!("`{text}` is not hexadecimal"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_reads_back() {
        let line = "set status=0x1 opaque=0x7 cas=9 extras=0a0b key=\\$k value=a\\sb";
        let scope = Scope::default();
        let packet = Packet::parse(line, RESPONSE).unwrap();
        let bytes = template::bytes(&[Piece::Packet(Box::new(packet))], &scope).unwrap();
        assert_eq!(bytes.len(), 24 + 2 + 2 + 3);
        assert_eq!(show(&bytes, None), Some((line.to_owned(), bytes.len())));
        assert_eq!(show(&bytes[..bytes.len() - 1], None), None);
    }
}
