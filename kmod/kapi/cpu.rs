// SPDX-License-Identifier: GPL-2.0-only
//! CPU numbers (`linux/cpumask.h`, `linux/smp.h`).

use crate::ffi;

/// The present CPU. For choosing among counters, not for exclusive access: the
/// caller may run on another CPU at its next instruction.
#[inline]
pub fn current() -> usize {
    // SAFETY: reads a number.
    unsafe { ffi::hippos_cpu() as usize }
}

/// One more than the highest possible CPU number.
#[inline]
pub fn count() -> usize {
    // SAFETY: reads a number.
    unsafe { ffi::hippos_cpus() as usize }
}

/// The numbers of the CPUs that are online now.
#[derive(Clone, Copy, Debug)]
pub struct Online {
    last: i32,
}

/// See [`Online`].
pub fn online() -> Online {
    Online { last: -1 }
}

impl Iterator for Online {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        // SAFETY: -1 or a CPU's number.
        self.last = unsafe { ffi::hippos_next_cpu(self.last) };
        u32::try_from(self.last).ok()
    }
}

/// Whether the CPU is kept free of the kernel's own work: by `isolcpus=` or `nohz_full=`, or in an isolated partition of
/// cpusets.
pub fn is_isolated(cpu: u32) -> bool {
    // SAFETY: reads the kernel's masks, which have a bit for every number of `online()`.
    unsafe { ffi::hippos_cpu_is_isolated(cpu as i32) }
}

/// The numbers of the CPUs that are online now, without isolated ones unless all are.
pub fn usable() -> impl Iterator<Item = u32> + Clone {
    let all = online().all(is_isolated);
    online().filter(move |cpu| all || !is_isolated(*cpu))
}

/// Yields the CPU if another task waits for it. May sleep.
pub fn resched() {
    // SAFETY: every caller of kapi's sleeping functions is in process context.
    unsafe { ffi::hippos_resched() }
}

/// The kernel's clock in ticks of 1 to 10 ms (`jiffies`); it wraps around.
pub fn ticks() -> u32 {
    // SAFETY: reads a number, in any context.
    unsafe { ffi::hippos_ticks() }
}

/// Sleeps for about a tenth of a millisecond.
pub fn short_sleep() {
    // SAFETY: every caller of kapi's sleeping functions is in process context.
    unsafe { ffi::hippos_short_sleep() }
}
