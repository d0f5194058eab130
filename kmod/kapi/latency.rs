// SPDX-License-Identifier: GPL-2.0-only
//! The measuring of times: a static branch (`linux/jump_label.h`) and a clock for any context.

use crate::ffi;

/// Whether times are measured: a no-op that is patched.
#[inline(always)]
fn branch() -> bool {
    // SAFETY: a static key that C defines; its type holds it alone.
    unsafe {
        kernel::jump_label::static_branch_unlikely!(
            ffi::hippos_latency,
            ffi::hippos_latency_key,
            key
        )
    }
}

/// The same, for callers that only show it.
pub fn is_on() -> bool {
    // SAFETY: reads a number.
    unsafe { ffi::hippos_latency_is_on() }
}

/// Measures times until it is dropped, while that is switched on.
pub struct Latency(());

impl Latency {
    /// The module's only one. Measures at once, or not.
    pub fn new(on: bool) -> Self {
        set(on);
        Self(())
    }
}

impl Drop for Latency {
    fn drop(&mut self) {
        set(false);
    }
}

/// Switches it on or off, for as long as there is a [`Latency`]. May sleep.
pub fn set(on: bool) {
    // SAFETY: has no requirements.
    unsafe { ffi::hippos_latency_set(on) }
}

/// A moment.
#[derive(Clone, Copy)]
pub struct Moment(u64);

/// This moment, while times are measured. Any context.
#[inline(always)]
pub fn begin() -> Option<Moment> {
    branch().then(now)
}

/// This moment, whether times are measured or not. Any context.
#[cold]
pub fn now() -> Moment {
    // SAFETY: reads a clock.
    Moment(unsafe { ffi::hippos_latency_now() })
}

impl Moment {
    /// Nanoseconds since then; 0 if the clock was set back meanwhile.
    pub fn elapsed(self) -> u64 {
        now().0.saturating_sub(self.0)
    }
}

/// C's value for a missing time stamp.
const NOT_QUEUED: u64 = u64::MAX;

/// A time as C returns it, if there is one.
pub(crate) fn queued(ns: u64) -> Option<u64> {
    (ns != NOT_QUEUED).then_some(ns)
}
