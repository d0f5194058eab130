// SPDX-License-Identifier: GPL-2.0-only
//! Receive packet steering of NICs with one receive queue, and the measurements
//! that decide on it. `kmod/c/steer.c` describes how an administrator's settings
//! are preserved.

use kernel::sync::Arc;

use crate::ffi;
use crate::namespace::Namespace;
use crate::thread::Context;

/// The NICs of a namespace; dropping it ends their steering.
pub struct Nics {
    raw: ffi::hippos_steer,
    on: bool,
    _namespace: Arc<Namespace>,
}

// SAFETY: belongs to no thread; its functions lock for themselves.
unsafe impl Send for Nics {}

impl Nics {
    /// The NICs of `namespace`, not steered yet.
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

    /// Whether their packets are spread over the CPUs.
    pub fn steered(&self) -> bool {
        self.on
    }

    /// Starts or ends steering; `false` if that was not possible, as while network devices are
    /// being configured. May sleep, but does not wait for that.
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

/// A CPU's idle time and its number of receive softirqs, since boot.
#[derive(Clone, Copy, Default)]
pub struct CpuTimes {
    /// Microseconds idle.
    pub idle: u64,
    /// The time of the reading, in microseconds.
    pub time: u64,
    /// Receive softirqs; wraps.
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

    /// Its load since `before`, in percent.
    pub fn percent(&self, before: &Self) -> u32 {
        let time = self.time.saturating_sub(before.time).max(1);
        let idle = self.idle.saturating_sub(before.idle).min(time);
        let busy = time.saturating_sub(idle).saturating_mul(100);
        busy.checked_div(time).unwrap_or(0) as u32
    }
}

impl Context {
    /// Moves the thread to `cpu`; `false` if that failed.
    pub fn move_to(&self, cpu: u32) -> bool {
        // SAFETY: on the thread itself, as the context shows.
        unsafe { ffi::hippos_thread_bind(cpu, false) }
    }

    /// Moves the thread to any CPU but `cpu`; `false` if there is no other.
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
