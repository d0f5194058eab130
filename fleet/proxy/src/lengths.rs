// SPDX-License-Identifier: MIT

//! The lengths of the values that a node has returned, from which those of its next replies are expected.

use hippos_proto::reply;
use hippos_proto::udp::DATA_MAX;

/// The keys whose last lengths are recorded.
const KEYS: usize = 4096;

/// The most bytes of values that fit a datagram with their `END`.
const FITS: usize = DATA_MAX - reply::END.len();

/// The length that is expected before any value has arrived.
const FIRST: usize = 64;

/// The lengths of values, with their `VALUE` lines.
#[derive(Debug)]
pub(crate) struct Lengths {
    /// The last key of each place, which is the lower part of its hash, by the upper part, and its value's length; 0 if
    /// there is none. Empty before the first value.
    last: Vec<(u16, u16)>,
    /// The mean of all values.
    mean: usize,
}

impl Default for Lengths {
    fn default() -> Self {
        Self {
            last: Vec::new(),
            mean: FIRST,
        }
    }
}

impl Lengths {
    fn place(hash: u32) -> (usize, u16) {
        (hash as usize % KEYS, (hash >> 16) as u16)
    }

    /// Records a value's length.
    #[inline]
    pub(crate) fn note(&mut self, hash: u32, len: usize) {
        // A few very large values say nothing about the others.
        self.mean = (self.mean * 15 + len.min(2 * DATA_MAX)).div_ceil(16);
        self.record(hash, len);
    }

    /// Records that a value does not fit a datagram.
    pub(crate) fn note_large(&mut self, hash: u32) {
        self.record(hash, usize::MAX);
    }

    fn record(&mut self, hash: u32, len: usize) {
        if self.last.is_empty() {
            self.last = vec![(0, 0); KEYS];
        }
        let (place, tag) = Self::place(hash);
        self.last[place] = (tag, u16::try_from(len).unwrap_or(u16::MAX));
    }

    /// The expected length of a key's value: the last one, or somewhat more than the mean.
    #[inline]
    pub(crate) fn expected(&self, hash: u32) -> usize {
        let (place, tag) = Self::place(hash);
        match self.last.get(place) {
            Some(&(known, len)) if known == tag && len > 0 => usize::from(len),
            _ => self.mean + self.mean / 8,
        }
    }

    /// Whether a key's value is not expected to fit a datagram.
    #[inline]
    pub(crate) fn is_large(&self, hash: u32) -> bool {
        self.expected(hash) > FITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_last_length_is_expected_and_the_mean_of_other_keys() {
        let mut lengths = Lengths::default();
        assert_eq!(lengths.expected(7), FIRST + FIRST / 8);
        for _ in 0..100 {
            lengths.note(1, 800);
        }
        lengths.note(2, 80);
        assert_eq!((lengths.expected(1), lengths.expected(2)), (800, 80));
        assert!((800..900).contains(&lengths.expected(3)), "{lengths:?}");
        // Of two keys in one place the later one is known.
        let other = 1 | 1 << 16;
        lengths.note(other, 100);
        assert_eq!(lengths.expected(other), 100);
        assert!((800..900).contains(&lengths.expected(1)), "{lengths:?}");
    }

    #[test]
    fn a_value_is_large_until_a_smaller_one_has_arrived() {
        let mut lengths = Lengths::default();
        lengths.note_large(1);
        lengths.note(2, FITS + 1);
        lengths.note(3, FITS);
        assert!(lengths.is_large(1) && lengths.is_large(2));
        assert!(!lengths.is_large(3) && !lengths.is_large(4));
        lengths.note(1, 50);
        lengths.note(2, 50);
        assert!(!lengths.is_large(1) && !lengths.is_large(2));
    }

    #[test]
    fn a_few_very_large_values_make_no_others_large() {
        let mut lengths = Lengths::default();
        for round in 0..1000 {
            lengths.note(round, if round % 20 == 0 { 1 << 20 } else { 100 });
            assert!(!lengths.is_large(5000 | 1 << 16), "{lengths:?}");
        }
    }
}
