// SPDX-License-Identifier: GPL-2.0-only
//! Signals that end a dump or a load. They are deferred until every token that the dump was given is put back, and
//! every stored item has its marks.

use std::fs;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{raise, SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that would end the process.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
/// The interval between two checks for a signal.
const EVERY: Duration = Duration::from_millis(50);

/// The signal that was received, if any.
#[derive(Debug, Default)]
pub(crate) struct Interrupt(AtomicI32);

impl Interrupt {
    /// Blocks the signals in this thread and in those that it starts.
    pub(crate) fn hold(&self) -> Result<Held<'_>> {
        let mut mask = SigSet::empty();
        let ignored = ignored();
        let heeded = |signal: &Signal| ignored >> (*signal as i32 - 1) & 1 == 0;
        mask.extend(SIGNALS.into_iter().filter(heeded));
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags)?;
        let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Held {
            interrupt: self,
            before,
            signals,
        })
    }

    pub(crate) fn has_come(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// Ends the process by the signal that was received, as if it had not been blocked.
    pub(crate) fn pass_on(&self) {
        if let Ok(signal) = Signal::try_from(self.0.load(Relaxed)) {
            // The only error is an invalid signal number.
            let _ = raise(signal);
        }
    }
}

/// Signals that are blocked until this is dropped.
#[derive(Debug)]
pub(crate) struct Held<'i> {
    interrupt: &'i Interrupt,
    before: SigSet,
    signals: SignalFd,
}

impl Held<'_> {
    /// Sets `is_over` when a signal is received; a second one ends the process at once. Returns when `is_done` is set,
    /// for which this thread can be unparked.
    pub(crate) fn watch(&self, is_over: &AtomicBool, is_done: &AtomicBool) {
        while !is_done.load(Relaxed) {
            if let Ok(Some(signal)) = self.signals.read_signal() {
                // Signal numbers are small.
                let number = signal.ssi_signo as i32;
                if self.interrupt.0.swap(number, Relaxed) != 0 {
                    process::exit(128 + number);
                }
                is_over.store(true, Relaxed);
            }
            thread::park_timeout(EVERY);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// The set of signals that this process was started to ignore, from bit 0 for signal 1.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or(0)
}
