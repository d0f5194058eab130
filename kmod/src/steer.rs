// SPDX-License-Identifier: GPL-2.0-only
//! Assigns work to CPUs, after section 2.4.2 of the Hippos paper. Where NICs have one receive queue, one CPU polls
//! them: it serves only GETs, and TCP workers are moved to other CPUs. When it gets too busy, receive packet steering
//! spreads the packets over the CPUs, and the workers return; when one CPU could carry the load again, steering ends.
//! Isolated CPUs get neither packets nor workers.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_invariant::Exact;
use hippos_kapi::cpu;
use hippos_kapi::namespace::Namespace;
use hippos_kapi::steer::{CpuTimes, Nics};
use hippos_kapi::thread::Context;
use hippos_kapi::trace;

/// Seconds in a row with the same result before steering begins, and before it ends.
const BEGIN: u32 = 2;
const END: u32 = 3;

/// A CPU with fewer receive polls a second is not the polling CPU.
const RECEIVES: u32 = 32;

/// No CPU's number.
const NONE: u32 = u32::MAX;

/// The state that other threads read. A static, as connections are.
pub(crate) static STEERING: SteeringState = SteeringState {
    polling: AtomicU32::new(NONE),
    load: AtomicU32::new(0),
    steered: AtomicU32::new(0),
    changes: AtomicU64::new(0),
};

pub(crate) struct SteeringState {
    /// The CPU that polls all NICs, if workers are to avoid it.
    polling: AtomicU32,
    /// Its load when it was measured last, in percent.
    load: AtomicU32,
    steered: AtomicU32,
    changes: AtomicU64,
}

impl SteeringState {
    /// The CPU that polls for all.
    pub(crate) fn polling(&self) -> Option<u32> {
        Some(self.polling.load(Relaxed)).filter(|cpu| *cpu != NONE)
    }

    pub(crate) fn load(&self) -> u32 {
        self.load.load(Relaxed)
    }

    pub(crate) fn steered(&self) -> bool {
        self.steered.load(Relaxed) != 0
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }
}

/// The CPU of a worker.
pub(crate) struct WorkerCpu {
    own: u32,
    /// It has left its own CPU to the NICs.
    away: bool,
}

impl WorkerCpu {
    /// On `own`, where the thread is bound.
    pub(crate) fn new(own: u32) -> Self {
        Self { own, away: false }
    }

    /// Moves the worker if its CPU has changed.
    #[inline]
    pub(crate) fn migrate(&mut self, context: &Context) {
        let away = STEERING.polling.load(Relaxed) == self.own;
        if away != self.away {
            let moved = if away {
                context.move_from(self.own)
            } else {
                context.move_to(self.own)
            };
            // A worker that could not move tries again at its next turn.
            if moved {
                self.away = away;
                if trace::steering_on() {
                    let own = Some(self.own);
                    let (from, to) = if away { (own, None) } else { (None, own) };
                    trace::steer(c"worker", from, to, STEERING.load());
                }
            }
        } else if !away && context.has_lost(self.own) {
            context.move_to(self.own);
        }
    }
}

/// The state of the decision.
pub(crate) struct Steering {
    nics: Nics,
    /// Percent; 0 is never.
    threshold: u32,
    work: KVec<(u32, CpuTimes)>,
    polling: u32,
    /// The uptime of the last tick, seconds.
    last_tick: u32,
    /// Seconds in a row that wanted a change.
    agreeing_ticks: u32,
}

impl Steering {
    pub(crate) fn new(namespace: Arc<Namespace>, threshold: u32) -> Result<Self> {
        let mut work = KVec::new();
        for cpu in cpu::online() {
            work.push((cpu, CpuTimes::of(cpu)), GFP_KERNEL)?;
        }
        STEERING.changes.store(0, Relaxed);
        STEERING.load.store(0, Relaxed);
        Ok(Self {
            nics: Nics::new(namespace),
            threshold,
            work,
            polling: NONE,
            last_tick: 0,
            agreeing_ticks: 0,
        })
    }

    /// Checks the load once a second. May sleep.
    pub(crate) fn tick(&mut self, uptime: u32) {
        if self.last_tick == uptime {
            return;
        }
        self.last_tick = uptime;
        let alone = cpu::usable().nth(1).is_none();
        if self.threshold == 0 || alone || self.nics.single_queue() == 0 {
            self.change(false);
            self.polling = NONE;
            self.publish();
            return;
        }
        let steered = self.nics.steered();
        // The load that one CPU would have, as far as it can be estimated.
        let (mut total, mut most) = (0u32, RECEIVES);
        for (cpu, work) in &mut self.work {
            let now = CpuTimes::of(*cpu);
            let load = now.percent(work);
            let receives = now.receives.wrapping_sub(work.receives);
            *work = now;
            total = total.add_exact(load);
            // Steered packets make all CPUs receive: the CPU that polls can't be found then, and the last one stays.
            if !steered && receives > most {
                most = receives;
                self.polling = *cpu;
            }
            if *cpu == self.polling {
                STEERING.load.store(load, Relaxed);
            }
        }
        // A quarter below the threshold (hysteresis), so that its end does not start it again.
        let low = self.threshold.saturating_mul(3) / 4;
        let wants_change = if steered {
            total < low
        } else {
            self.polling != NONE && STEERING.load() > self.threshold
        };
        self.agreeing_ticks = if wants_change {
            self.agreeing_ticks.saturating_add(1)
        } else {
            0
        };
        if self.agreeing_ticks >= if steered { END } else { BEGIN } {
            self.change(!steered);
        }
        self.publish();
    }

    fn change(&mut self, on: bool) {
        let change = on != self.nics.steered();
        // A failure is repeated at the next tick.
        if self.nics.steer(on) {
            self.agreeing_ticks = 0;
            if change && trace::steering_on() {
                let polling = Some(self.polling).filter(|cpu| *cpu != NONE);
                let (from, to) = if on { (polling, None) } else { (None, polling) };
                trace::steer(c"packets", from, to, STEERING.load());
            }
            STEERING.changes.fetch_add(u64::from(change), Relaxed);
        }
    }

    fn publish(&self) {
        let steered = self.nics.steered();
        STEERING.steered.store(u32::from(steered), Relaxed);
        let alone = if steered { NONE } else { self.polling };
        STEERING.polling.store(alone, Relaxed);
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        STEERING.steered.store(0, Relaxed);
        STEERING.polling.store(NONE, Relaxed);
    }
}
