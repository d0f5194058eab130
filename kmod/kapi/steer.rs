// SPDX-License-Identifier: GPL-2.0-only
//! Receive packet steering of NICs with one receive queue, and what tells
//! when it is needed. `kmod/c/steer.c` says how it keeps out of an
//! administrator's way.

use kernel::sync::Arc;

use crate::ffi;
use crate::namespace::Namespace;
use crate::thread::Context;

/// The NICs of a namespace; steered no more when dropped.
pub struct Nics {
    raw: ffi::hippos_steer,
    on: bool,
    _namespace: Arc<Namespace>,
}

// SAFETY: belongs to no thread; its functions lock for themselves.
unsafe impl Send for Nics {}

impl Nics {
    /// Of `namespace`, as they are.
    pub fn new(namespace: Arc<Namespace>) -> Self {
        Self {
            raw: ffi::hippos_steer::new(namespace.as_ptr()),
            on: false,
            _namespace: namespace,
        }
    }

    /// How many NICs have one receive queue and are steered by no other owner.
    pub fn single_queue(&self) -> u32 {
        // SAFETY: the namespace is held.
        unsafe { ffi::hippos_steer_devices(&self.raw) }
    }

    /// Whether what they receive is spread over all CPUs.
    pub fn steered(&self) -> bool {
        self.on
    }

    /// Spreads it, or not. Whether it is so now: not while others configure network devices.
    /// May sleep, but not for them.
    pub fn steer(&mut self, on: bool) -> bool {
        if on == self.on {
            return true;
        }
        // SAFETY: the namespace is held; process context.
        let done = unsafe {
            if on {
                ffi::hippos_steer_on(&mut self.raw)
            } else {
                ffi::hippos_steer_off(&mut self.raw, false)
            }
        };
        if done {
            self.on = on;
        }
        done
    }
}

impl Drop for Nics {
    fn drop(&mut self) {
        if self.on {
            // SAFETY: the namespace is held; process context.
            unsafe { ffi::hippos_steer_off(&mut self.raw, true) };
        }
    }
}

/// What a CPU has done so far.
#[derive(Clone, Copy, Default)]
pub struct CpuTimes {
    /// Microseconds without any.
    pub idle: u64,
    /// Microseconds altogether.
    pub time: u64,
    /// Times that it went to receive packets; wraps.
    pub receives: u32,
}

impl CpuTimes {
    /// Of the CPU with this number, which must exist.
    pub fn of(cpu: u32) -> Self {
        let mut time = 0;
        // SAFETY: numbers of CPUs come from `cpu::online`; they only read.
        let (idle, receives) = unsafe {
            (
                ffi::hippos_cpu_idle(cpu, &mut time),
                ffi::hippos_cpu_receives(cpu),
            )
        };
        Self {
            idle,
            time,
            receives,
        }
    }

    /// How busy it was since `before`, in percent.
    pub fn percent(&self, before: &Self) -> u32 {
        let time = self.time.saturating_sub(before.time).max(1);
        let idle = self.idle.saturating_sub(before.idle).min(time);
        let busy = time.saturating_sub(idle).saturating_mul(100);
        busy.checked_div(time).unwrap_or(0) as u32
    }
}

impl Context {
    /// Moves the thread to `cpu`; whether it is there.
    pub fn move_to(&self, cpu: u32) -> bool {
        // SAFETY: on the thread itself, as the context shows.
        unsafe { ffi::hippos_thread_bind(cpu, false) }
    }

    /// Moves the thread to any CPU but `cpu`; whether there is one.
    pub fn move_from(&self, cpu: u32) -> bool {
        // SAFETY: on the thread itself, as the context shows.
        unsafe { ffi::hippos_thread_bind(cpu, true) }
    }

    /// Whether the thread, bound to `cpu` before, may run elsewhere although that CPU is online.
    #[inline]
    pub fn has_lost(&self, cpu: u32) -> bool {
        // SAFETY: on the thread itself, as the context shows.
        unsafe { ffi::hippos_thread_lost(cpu) }
    }
}
