// SPDX-License-Identifier: GPL-2.0-only
//! Parses replies as strictly as any client.

/// The first words of reply lines in the text protocol.
const WORDS: &[&str] = &[
    "STORED",
    "NOT_STORED",
    "EXISTS",
    "NOT_FOUND",
    "DELETED",
    "TOUCHED",
    "OK",
    "END",
    "ERROR",
    "CLIENT_ERROR",
    "SERVER_ERROR",
    "Error",
    "VERSION",
    "HD",
    "EN",
    "NS",
    "EX",
    "NF",
    "MN",
    "ME",
    "STAT",
    "RESET",
    "ITEM",
    "PREFIX",
    "BUSY",
    "BADCLASS",
    "SAME",
    "NOSPARE",
    "MEMLIMIT_TOO_SMALL",
    "MEMLIMIT_ADJUST_FAILED",
];

/// Parses replies of the text protocol to their end. Panics where a client would lose synchronisation.
pub(crate) fn check_text(mut rest: &[u8]) {
    while !rest.is_empty() {
        let end = rest
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .expect("a line without an end");
        let (line, after) = (&rest[..end], &rest[end + 2..]);
        rest = after;
        let text = String::from_utf8_lossy(line);
        let mut words = text.split(' ');
        let first = words.next().unwrap_or_default();
        let value = match first {
            "VALUE" => words.nth(2),
            "VA" => words.next(),
            _ => None,
        };
        if matches!(first, "VALUE" | "VA") {
            let length: usize = value
                .and_then(|length| length.parse().ok())
                .unwrap_or_else(|| panic!("no length: {text:?}"));
            assert!(
                rest.get(length..length + 2) == Some(b"\r\n"),
                "a value of another length: {text:?}"
            );
            rest = &rest[length + 2..];
            continue;
        }
        let known = WORDS.contains(&first)
            || first.starts_with("key=")
            // The reply to arithmetic is a number.
            || (!first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()));
        assert!(known, "what is this? {text:?}");
    }
}
