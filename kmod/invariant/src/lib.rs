// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Conditions that hold unless there is a mistake in the code.
//!
//! A broken one panics in host tests, loom models, fuzzers and on the debug kernel. In the module
//! for a stock kernel nothing is left of it: softirq must not panic, and each use has an outcome
//! that is safe without it.
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
#[allow(clippy::panic, reason = "never in the module for a stock kernel")]
pub fn broken(message: core::fmt::Arguments<'_>) {
    panic!("broken invariant: {message}");
}

/// Does nothing: nothing calls it.
#[cfg(not(any(not(MODULE), CONFIG_KASAN)))]
#[inline(always)]
pub fn broken(_: core::fmt::Arguments<'_>) {}

#[cfg(test)]
mod tests {
    #[test]
    fn a_true_condition_passes() {
        invariant!(1 < 2, "{} is not less than {}", 1, 2);
    }

    #[test]
    #[should_panic(expected = "broken invariant: 2 is not less than 1")]
    fn a_false_condition_panics_on_the_host() {
        invariant!(2 < 1, "{} is not less than {}", 2, 1);
    }
}
