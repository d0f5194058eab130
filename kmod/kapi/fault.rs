// SPDX-License-Identifier: GPL-2.0-only
//! Planted faults, for debug kernels.

/// Commits the fault that a parameter asks for, on a debug kernel, and returns whether one was: then the module must do
/// nothing else.
pub fn selftest() -> bool {
    #[cfg(CONFIG_KASAN)]
    return planted::selftest();
    #[cfg(not(CONFIG_KASAN))]
    false
}

/// Whether a parameter, on a debug kernel, makes the self-test run two threads on one lane, which it must report.
pub fn shares_a_lane() -> bool {
    #[cfg(CONFIG_KASAN)]
    return planted::name() == SHARED_LANE;
    #[cfg(not(CONFIG_KASAN))]
    false
}

#[cfg(CONFIG_KASAN)]
const SHARED_LANE: &[u8] = b"shared_lane";

/// One fault for each checker of a debug kernel.
#[cfg(CONFIG_KASAN)]
mod planted {
    use core::ptr::NonNull;

    use kernel::prelude::*;
    use kernel::str::CStr;

    use crate::{ffi, pages, rcu};

    /// The name of the fault to commit; empty for none.
    pub(super) fn name() -> &'static [u8] {
        // SAFETY: reads a pointer that insmod set before the module's init ran.
        let Some(name) = NonNull::new(unsafe { ffi::hippos_selftest() }.cast_mut()) else {
            return b"";
        };
        // SAFETY: a string that lives as long as the module.
        unsafe { CStr::from_char_ptr(name.as_ptr()) }.to_bytes()
    }

    pub(super) fn selftest() -> bool {
        match name() {
            b"" | super::SHARED_LANE => return false,
            b"use_after_free" => use_after_free(),
            b"freed_pages" => freed_pages(),
            b"sleep_in_softirq" => sleep_in_softirq(),
            b"sleep_under_rcu" => {
                let _guard = rcu::read_lock();
                sleep();
            }
            b"leak" => {
                if let Ok(lost) = KBox::new([0u64; 100], GFP_KERNEL) {
                    let _ = KBox::into_raw(lost);
                }
            }
            // SAFETY: these are faulty, but end with every lock and all memory given back.
            b"unsafe_lock" => unsafe { ffi::hippos_fault_unsafe_lock() },
            // SAFETY: as above.
            b"lock_order" => unsafe { ffi::hippos_fault_lock_order() },
            // SAFETY: as above.
            b"unguarded" => unsafe { ffi::hippos_fault_unguarded() },
            // SAFETY: as above; the kernel removes the timer when it reports the fault.
            b"freed_timer" => unsafe { ffi::hippos_fault_freed_timer() },
            _ => {}
        }
        true
    }

    /// An allocation that may sleep.
    fn sleep() {
        drop(KBox::new(0u64, GFP_KERNEL));
    }

    fn use_after_free() {
        let Ok(number) = KBox::new(0u64, GFP_KERNEL) else {
            return;
        };
        let pointer = KBox::into_raw(number);
        // SAFETY: from `into_raw` just now.
        drop(unsafe { KBox::from_raw(pointer) });
        // SAFETY: none. This is the fault: the memory is no longer ours. It is mapped, and the
        // value read is not used.
        unsafe { pointer.read_volatile() };
    }

    fn freed_pages() {
        const BLOCK: usize = 1 << 20;
        let Some(block) = pages::alloc(BLOCK) else {
            return;
        };
        // SAFETY: allocated just now, with the same size.
        unsafe { pages::free(block, BLOCK) };
        // SAFETY: none. This is the fault, as in `use_after_free`.
        unsafe { block.as_ptr().read_volatile() };
    }

    fn sleep_in_softirq() {
        // SAFETY: enabled again below.
        unsafe { ffi::hippos_bh_disable() };
        sleep();
        // SAFETY: disabled above.
        unsafe { ffi::hippos_bh_enable() };
    }
}
