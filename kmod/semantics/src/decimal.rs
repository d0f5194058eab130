// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Decimal numbers as text.

/// A number in decimal digits, formatted without `core::fmt`.
pub struct Decimal {
    digits: [u8; Self::MAX],
    start: usize,
}

impl Decimal {
    /// The most digits that a 64-bit number has.
    pub const MAX: usize = 20;

    /// Formats `value`.
    #[inline]
    pub fn new(value: u64) -> Self {
        let mut digits = [0; Self::MAX];
        let mut start = Self::MAX;
        let mut rest = value;
        // From the last digit to the first.
        for place in digits.iter_mut().rev() {
            *place = b'0' | (rest % 10) as u8;
            rest /= 10;
            start -= 1;
            if rest == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    /// The digits as bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or(&[])
    }
}
