// SPDX-License-Identifier: GPL-2.0-only
//! Bytes and expected replies, as reports show them.

use crate::template::{self, Token};

/// Bytes for a report: the beginning and the end.
pub(crate) fn brief(bytes: &[u8]) -> String {
    const MOST: usize = 700;
    if bytes.len() <= MOST {
        return template::show(bytes);
    }
    let (head, tail) = (&bytes[..MOST / 2], &bytes[bytes.len() - MOST / 4..]);
    format!(
        "{} …{} bytes in all… {}",
        template::show(head),
        bytes.len(),
        template::show(tail)
    )
}

/// The expected output, for a report.
pub(crate) fn show_tokens(tokens: &[Token]) -> String {
    let mut out = String::new();
    for token in tokens {
        out += &match token {
            Token::Bytes(bytes) => brief(bytes),
            Token::Number(_) => "{n}".to_owned(),
            Token::Wide(_) => "{8 bytes}".to_owned(),
            Token::Anything => "{*}".to_owned(),
            Token::Stats(names) | Token::PacketStats(names) => {
                format!("{{statistics: {}}}", names.join(" "))
            }
        };
    }
    out
}
