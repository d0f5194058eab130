// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Lines for the kernel's log. It cuts a line that is longer than its longest record, and refuses a longer one that a tool
//! writes, so that long lines are logged in parts.

use core::fmt::{self, Display, Write};

/// The most bytes of a part, without its marks: a record has 1,024 (`PRINTKRB_RECORD_MAX`, kernel/printk/printk.c),
/// which includes `hippos-ctl: ` and the name of the user who made a change.
pub const PART_MAX: usize = 900;

/// The mark between a part and the next one, at the end of one and at the beginning of the other.
const MARK: &str = "...";

/// Calls `log` with each part of a line. Parts end behind a blank or a comma, if there is one.
pub fn each_part(line: &dyn Display, mut log: impl FnMut(&dyn Display)) {
    let mut from = 0;
    loop {
        let mut ahead = Ahead {
            at: 0,
            from,
            last_break: None,
        };
        // This writer accepts everything.
        let _ = write!(ahead, "{line}");
        let is_last = ahead.at.saturating_sub(from) <= PART_MAX;
        let to = match ahead.last_break {
            _ if is_last => ahead.at,
            Some(at) => at,
            None => from.saturating_add(PART_MAX),
        };
        log(&Part {
            line,
            from,
            to,
            is_last,
        });
        if is_last {
            return;
        }
        from = to;
    }
}

/// Finds the end of a part that begins at `from`.
struct Ahead {
    at: usize,
    from: usize,
    last_break: Option<usize>,
}

impl Write for Ahead {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.at = self.at.saturating_add(1);
            let is_inside = self.at > self.from && self.at.saturating_sub(self.from) <= PART_MAX;
            if is_inside && matches!(byte, b' ' | b',') {
                self.last_break = Some(self.at);
            }
        }
        Ok(())
    }
}

/// The bytes of a line from one place to another, marked where they are not its first or last ones.
struct Part<'a> {
    line: &'a dyn Display,
    from: usize,
    to: usize,
    is_last: bool,
}

impl Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from > 0 {
            write!(f, "{MARK} ")?;
        }
        let mut window = Window {
            f,
            at: 0,
            part: self,
        };
        write!(window, "{}", self.line)?;
        if !self.is_last {
            write!(f, " {MARK}")?;
        }
        Ok(())
    }
}

/// Passes on the bytes of one part.
struct Window<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    at: usize,
    part: &'a Part<'a>,
}

impl Write for Window<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            // A character belongs to the part in which it begins.
            if self.at >= self.part.from && self.at < self.part.to {
                self.f.write_char(character)?;
            }
            self.at = self.at.saturating_add(character.len_utf8());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::borrow::ToOwned;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn parts(line: &str) -> Vec<String> {
        let mut parts = Vec::new();
        each_part(&line, |part| parts.push(part.to_string()));
        parts
    }

    fn together(parts: &[String]) -> String {
        let without = |part: &String| {
            let part = part.strip_prefix("... ").unwrap_or(part);
            part.strip_suffix(" ...").unwrap_or(part).to_owned()
        };
        parts.iter().map(without).collect()
    }

    #[test]
    fn a_line_that_fits_is_one_part() {
        for len in [0, 1, PART_MAX - 1, PART_MAX] {
            let line = "x".repeat(len);
            assert_eq!(parts(&line), [line]);
        }
    }

    #[test]
    fn a_long_line_is_whole_in_parts_that_the_kernel_does_not_cut() {
        let networks: Vec<_> = (0..32)
            .map(|n| std::format!("fd00:1111:2222:3333:4444:5555:{n}::/120"))
            .collect();
        let list = std::format!("allow={} admin=off", networks.join(","));
        let one_word = "x".repeat(2 * PART_MAX + 1);
        let wide = "\u{20ac}".repeat(PART_MAX);
        for line in [&list, &one_word, &wide] {
            let parts = parts(line);
            assert!(parts.len() > 1, "{parts:?}");
            assert_eq!(together(&parts), *line);
            for part in &parts {
                assert!(
                    part.len() <= PART_MAX + 3 + 2 * " ...".len(),
                    "{} bytes",
                    part.len()
                );
            }
        }
        let parts = parts(&list);
        assert!(parts[0].ends_with("/120, ..."), "{parts:?}");
        assert!(parts[1].starts_with("... fd00:"), "{parts:?}");
    }
}
