// SPDX-License-Identifier: GPL-2.0-only
//! The picture of a terminal: the characters and the control sequences that `hippos-ctl top` sends (ECMA-48, xterm).

/// A screen of fixed size.
pub(crate) struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// The beginning of a sequence, or of a character, whose end has not come yet.
    pending: Vec<u8>,
    /// Whether the alternate screen is shown.
    pub(crate) is_alternate: bool,
    /// Whether the cursor is shown.
    pub(crate) has_cursor: bool,
}

impl Screen {
    pub(crate) fn new(columns: usize, rows: usize) -> Self {
        Self {
            cells: vec![vec![' '; columns]; rows],
            row: 0,
            column: 0,
            pending: Vec::new(),
            is_alternate: false,
            has_cursor: true,
        }
    }

    /// The lines, without the blanks at their ends.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |cells: &Vec<char>| cells.iter().collect::<String>().trim_end().to_owned();
        self.cells.iter().map(line).collect()
    }

    /// Shows these bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        while let Some(len) = self.step(rest) {
            rest = &rest[len..];
        }
        self.pending = rest.to_vec();
    }

    /// Takes the first character or sequence; returns its length, or `None` if it is not complete.
    fn step(&mut self, bytes: &[u8]) -> Option<usize> {
        match bytes {
            [] | [0x1b] => None,
            [0x1b, b'[', rest @ ..] => {
                let end = rest.iter().position(|byte| (0x40..0x7f).contains(byte))?;
                let parameters = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.control(&parameters, rest[end]);
                Some(end + 3)
            }
            // Sequences of two bytes: none of them prints.
            [0x1b, _, ..] => Some(2),
            [b'\r', ..] => {
                self.column = 0;
                Some(1)
            }
            [b'\n', ..] => {
                self.row += 1;
                Some(1)
            }
            [0..0x20, ..] => Some(1),
            [first, ..] => {
                let len = match first {
                    0xf0.. => 4,
                    0xe0.. => 3,
                    0xc0.. => 2,
                    _ => 1,
                };
                let text = String::from_utf8_lossy(bytes.get(..len)?);
                self.put(text.chars().next().unwrap_or('?'));
                Some(len)
            }
        }
    }

    fn put(&mut self, character: char) {
        let row = self.cells.get_mut(self.row);
        if let Some(cell) = row.and_then(|row| row.get_mut(self.column)) {
            *cell = character;
        }
        self.column += 1;
    }

    fn control(&mut self, parameters: &str, end: u8) {
        let mut numbers = parameters
            .split(';')
            .map(|number| number.parse().unwrap_or(0));
        let mut number = || numbers.next().unwrap_or(0usize);
        match (end, parameters) {
            (b'H', _) => {
                self.row = number().max(1) - 1;
                self.column = number().max(1) - 1;
            }
            (b'G', _) => self.column = number().max(1) - 1,
            (b'd', _) => self.row = number().max(1) - 1,
            (b'C', _) => self.column += number().max(1),
            (b'B', _) => self.row += number().max(1),
            (b'J', "2" | "3") => self.cells.iter_mut().for_each(|row| row.fill(' ')),
            (b'K', "" | "0") => {
                let row = self.cells.get_mut(self.row);
                if let Some(row) = row.and_then(|row| row.get_mut(self.column..)) {
                    row.fill(' ');
                }
            }
            (b'h' | b'l', "?1049") => self.is_alternate = end == b'h',
            (b'h' | b'l', "?25") => self.has_cursor = end == b'h',
            // Colours and the like.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_where_the_cursor_was_put() {
        let mut screen = Screen::new(10, 3);
        screen.feed(b"\x1b[?1049h\x1b[?25l\x1b[2Jone\r\n\x1b[1mtwo\x1b[0m\x1b[3;4Hthree");
        assert_eq!(screen.lines(), ["one", "two", "   three"]);
        assert!(screen.is_alternate && !screen.has_cursor);
        screen.feed(b"\x1b[1;2HX\x1b[3;6H\x1b[K\x1b[?1049l\x1b[?25h");
        assert_eq!(screen.lines(), ["oXe", "two", "   th"]);
        assert!(!screen.is_alternate && screen.has_cursor);
    }

    #[test]
    fn sequences_and_characters_may_come_in_parts() {
        let mut screen = Screen::new(10, 2);
        for byte in "\x1b[2;1Ha\u{2502}b\x1b7\x1b[38;5;2mc".bytes() {
            screen.feed(&[byte]);
        }
        assert_eq!(screen.lines(), ["", "a\u{2502}bc"]);
    }

    #[test]
    fn what_is_outside_of_the_screen_is_not_shown() {
        let mut screen = Screen::new(2, 1);
        screen.feed(b"abc\r\nd\x1b[9;9He");
        assert_eq!(screen.lines(), ["ab"]);
    }
}
