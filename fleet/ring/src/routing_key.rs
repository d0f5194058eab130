// SPDX-License-Identifier: MIT

//! The part of a key that is hashed.

/// The part of a key that determines its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoutingKey {
    /// twemproxy's hash tag: the text between the first of these bytes and the next occurrence of the other, unless it
    /// is empty.
    pub tag: Option<(u8, u8)>,
    /// mcrouter's stop: the text before the first `|#|`.
    pub stop: bool,
}

impl RoutingKey {
    /// The part of `key` that is to be hashed.
    pub fn of<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        if let Some((open, close)) = self.tag {
            if let Some(start) = key.iter().position(|&byte| byte == open) {
                let rest = &key[start + 1..];
                match rest.iter().position(|&byte| byte == close) {
                    Some(len) if len > 0 => return &rest[..len],
                    _ => {}
                }
            }
        }
        if self.stop {
            if let Some(end) = key.windows(3).position(|window| window == b"|#|") {
                return &key[..end];
            }
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_and_stop_choose_the_part() {
        let tag = RoutingKey {
            tag: Some((b'{', b'}')),
            stop: false,
        };
        for (key, want) in [
            ("user:{42}:name", "42"),
            ("{}x", "{}x"),
            ("{x", "{x"),
            ("}{a}", "a"),
            ("a", "a"),
        ] {
            assert_eq!(tag.of(key.as_bytes()), want.as_bytes(), "{key}");
        }
        let stop = RoutingKey {
            tag: None,
            stop: true,
        };
        assert_eq!(stop.of(b"user:1|#|name|#|x"), b"user:1");
        assert_eq!(stop.of(b"|#|x"), b"");
        assert_eq!(stop.of(b"a|#b"), b"a|#b");
        assert_eq!(RoutingKey::default().of(b"{a}|#|b"), b"{a}|#|b");
    }
}
