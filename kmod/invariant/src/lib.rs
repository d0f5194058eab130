// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Conditions that hold unless there is a bug in the code.
//!
//! A broken invariant panics in host tests, loom models, fuzzers and on the debug kernel. In the module for a stock
//! kernel the check compiles to nothing: softirq must not panic, and each use has a safe outcome without the check.
#![no_std]

/// Whether broken invariants panic. The kernel's build shows `MODULE` and its options to all crates;
/// the debug kernel is the one with KASAN.
pub const CHECKED: bool = cfg!(any(not(MODULE), CONFIG_KASAN));

/// Panics with a message, formatted as by `format!`, when the condition is false and
/// [`CHECKED`] is true. The condition is not evaluated otherwise.
#[macro_export]
macro_rules! invariant {
    ($condition:expr, $($message:tt)+) => {
        if $crate::CHECKED && !$condition {
            $crate::broken(::core::format_args!($($message)+));
        }
    };
}

/// Reports a broken invariant.
#[cfg(any(not(MODULE), CONFIG_KASAN))]
#[cold]
#[inline(never)]
#[track_caller]
#[allow(clippy::panic, reason = "never in the module for a stock kernel")]
pub fn broken(message: core::fmt::Arguments<'_>) {
    panic!("broken invariant: {message}");
}

/// Does nothing: nothing calls it.
#[cfg(not(any(not(MODULE), CONFIG_KASAN)))]
#[inline(always)]
pub fn broken(_: core::fmt::Arguments<'_>) {}

/// Sums, differences, products and shifts that fit unless there is a bug. An overflow is a broken invariant; where
/// invariants are not checked the operation wraps, and costs no more than the plain instruction.
///
/// `wrapping_*` is for values that are meant to wrap: hashes, sequence numbers, counters that are sums of differences.
/// `saturating_*` is for values that a client, a clock or an operator may make too large, and for a difference that
/// bounds a write: after a bug the bound is then 0, and nothing is written.
pub trait Exact: Copy {
    /// `self + other`.
    #[must_use]
    fn add_exact(self, other: Self) -> Self;
    /// `self - other`.
    #[must_use]
    fn sub_exact(self, other: Self) -> Self;
    /// `self * other`.
    #[must_use]
    fn mul_exact(self, other: Self) -> Self;
    /// `self << bits`, for fewer bits than the type has. Bits that are shifted out are lost.
    #[must_use]
    fn shl_by(self, bits: u32) -> Self;
    /// `self >> bits`, for fewer bits than the type has.
    #[must_use]
    fn shr_by(self, bits: u32) -> Self;
}

macro_rules! exact {
    ($($integer:ty)+) => {
        $(impl Exact for $integer {
            #[inline(always)]
            #[track_caller]
            fn add_exact(self, other: Self) -> Self {
                invariant!(self.checked_add(other).is_some(), "{self} + {other} overflows");
                self.wrapping_add(other)
            }

            #[inline(always)]
            #[track_caller]
            fn sub_exact(self, other: Self) -> Self {
                invariant!(self.checked_sub(other).is_some(), "{self} - {other} overflows");
                self.wrapping_sub(other)
            }

            #[inline(always)]
            #[track_caller]
            fn mul_exact(self, other: Self) -> Self {
                invariant!(self.checked_mul(other).is_some(), "{self} * {other} overflows");
                self.wrapping_mul(other)
            }

            #[inline(always)]
            #[track_caller]
            fn shl_by(self, bits: u32) -> Self {
                invariant!(bits < Self::BITS, "{self} << {bits} overflows");
                self.wrapping_shl(bits)
            }

            #[inline(always)]
            #[track_caller]
            fn shr_by(self, bits: u32) -> Self {
                invariant!(bits < Self::BITS, "{self} >> {bits} overflows");
                self.wrapping_shr(bits)
            }
        })+
    };
}

exact!(u8 u16 u32 u64 u128 usize i64);

#[cfg(test)]
mod tests {
    use super::Exact;

    #[test]
    fn a_true_condition_passes() {
        invariant!(1 < 2, "{} is not less than {}", 1, 2);
    }

    #[test]
    #[should_panic(expected = "broken invariant: 2 is not less than 1")]
    fn a_false_condition_panics_on_the_host() {
        invariant!(2 < 1, "{} is not less than {}", 2, 1);
    }

    #[test]
    fn exact_sums_differences_and_products_are_the_plain_ones() {
        assert_eq!(7u32.add_exact(2), 9);
        assert_eq!(7usize.sub_exact(7), 0);
        assert_eq!(7u64.mul_exact(2), 14);
        assert_eq!((-7i64).add_exact(2), -5);
    }

    #[test]
    fn exact_shifts_are_the_plain_ones() {
        assert_eq!(3u8.shl_by(7), 0x80);
        assert_eq!(0x80u8.shr_by(7), 1);
    }

    #[test]
    #[should_panic(expected = "broken invariant: 1 << 32 overflows")]
    fn a_shift_by_all_bits_panics_on_the_host() {
        let _ = 1u32.shl_by(32);
    }

    #[test]
    #[should_panic(expected = "broken invariant: 2 - 3 overflows")]
    fn an_underflow_panics_on_the_host() {
        let _ = 2u32.sub_exact(3);
    }

    #[test]
    #[should_panic(expected = "broken invariant: 255 + 1 overflows")]
    fn an_overflow_panics_on_the_host() {
        let _ = 255u8.add_exact(1);
    }
}
