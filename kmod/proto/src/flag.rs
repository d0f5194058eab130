// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! The flags of meta commands: one table for the parser, for tests that draw flags at random, and for the
//! documentation.

/// The argument that follows a flag's letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// None; bytes that follow nevertheless are ignored.
    None,
    /// Bytes, at most 31.
    Opaque,
    /// Seconds, like the `exptime` of a text command: 32 bits, signed.
    Seconds,
    /// 32 bits, unsigned.
    Word,
    /// 64 bits, unsigned.
    Number,
    /// One letter.
    Mode,
    /// Bytes that are ignored.
    Ignored,
}

/// A flag of meta commands.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// ASCII letter.
    pub letter: u8,
    /// Its argument.
    pub argument: Argument,
    /// The commands that use it, separated by spaces. All others ignore it.
    pub commands: &'static str,
    /// Its meaning.
    pub text: &'static str,
}

const fn flag(letter: u8, argument: Argument, commands: &'static str, text: &'static str) -> Flag {
    Flag {
        letter,
        argument,
        commands,
        text,
    }
}

/// All flags; any other letter is refused.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    flag(b'b', Argument::None, "mg ms md ma me", "The key comes, and is given back, in base64"),
    flag(b'c', Argument::None, "mg ms ma", "Give back the CAS number"),
    flag(b'f', Argument::None, "mg", "Give back the client flags"),
    flag(b'h', Argument::None, "mg", "Give back whether the item was hit before"),
    flag(b'k', Argument::None, "mg ms md ma", "Give back the key"),
    flag(b'l', Argument::None, "mg", "Give back the seconds since the last access"),
    flag(b'q', Argument::None, "mg ms md ma", "No reply to a nominal outcome: `EN`, and `HD` of all but `mg`"),
    flag(b's', Argument::None, "mg ms", "Give back the size of the value"),
    flag(b't', Argument::None, "mg ma", "Give back the seconds that are left, -1 for all time"),
    flag(b'u', Argument::None, "mg", "The hit does not count for eviction"),
    flag(b'v', Argument::None, "mg ma", "Give back the value"),
    flag(b'x', Argument::None, "md", "Remove the value and the client flags, keep the item"),
    flag(b'C', Argument::Number, "mg ms md ma", "The CAS number to compare with"),
    flag(b'D', Argument::Number, "ma", "The number to add or subtract"),
    flag(b'E', Argument::Number, "mg ms md ma", "The CAS number to give the item"),
    flag(b'F', Argument::Word, "ms", "The client flags to store"),
    flag(b'I', Argument::None, "ms md", "Invalidate: `md` marks the item stale, `ms` stores over a newer item, as stale"),
    flag(b'J', Argument::Number, "ma", "The number to begin with, beside `N`"),
    flag(b'L', Argument::Ignored, "", "For proxies"),
    flag(b'M', Argument::Mode, "ms ma", "The mode: `E` add, `A` append, `P` prepend, `R` replace, `S` set; `I` or `+`, `D` or `-`"),
    flag(b'N', Argument::Seconds, "mg ms ma", "On a miss make the item, with this time to live"),
    flag(b'O', Argument::Opaque, "mg ms md ma", "Give this back as it is"),
    flag(b'P', Argument::Ignored, "", "For proxies"),
    flag(b'R', Argument::Seconds, "mg", "Win the token when fewer seconds are left"),
    flag(b'T', Argument::Seconds, "mg ms md ma", "The new time to live"),
];

/// The bit of a letter in sets of flags.
#[inline]
pub(crate) const fn bit(letter: u8) -> u64 {
    1 << (letter.wrapping_sub(b'@') & 63)
}

/// The set of all flags, without the letters that are not flags. Only ASCII letters may be looked up.
pub(crate) const KNOWN: u64 = {
    let (mut known, mut rest) = (0, FLAGS);
    while let [flag, more @ ..] = rest {
        known |= bit(flag.letter);
        rest = more;
    }
    known
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_is_a_letter_that_is_there_once() {
        for (at, flag) in FLAGS.iter().enumerate() {
            assert!(flag.letter.is_ascii_alphabetic());
            assert!(FLAGS[..at].iter().all(|other| other.letter != flag.letter));
        }
        assert_eq!(KNOWN.count_ones() as usize, FLAGS.len());
    }
}
