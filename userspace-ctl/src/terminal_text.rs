// SPDX-License-Identifier: GPL-2.0-only
//! Text of clients and servers, made safe for a terminal.

/// A key, or another text, for the terminal: bytes that are not text as `\xNN`, control characters escaped.
pub(crate) fn shown(key: &[u8]) -> String {
    let mut text = String::new();
    for chunk in key.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_bytes_that_are_no_text_are_escaped() {
        assert_eq!(shown(b"a\x1b[2J\xff\xc3\xa4"), "a\\u{1b}[2J\\xffä");
    }
}
