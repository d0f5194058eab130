// SPDX-License-Identifier: GPL-2.0-only
//! Which CPU does what, after section 2.4.2 of the Hippos paper. Where cards
//! have one receive queue, one CPU polls them: it serves GETs alone and TCP
//! workers keep off it. When it gets too busy, receive packet steering spreads
//! the packets over all CPUs, and the workers come back; when one CPU could
//! carry the load again, steering ends.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_kapi::cpu;
use hippos_kapi::namespace::Namespace;
use hippos_kapi::steer::{Cards, Work};
use hippos_kapi::thread::Context;

/// Seconds in a row that must agree before steering begins, and before it ends.
const BEGIN: u32 = 2;
const END: u32 = 3;

/// A CPU that receives less often in a second polls nothing.
const RECEIVES: u32 = 32;

/// No CPU's number.
const NONE: u32 = u32::MAX;

/// What is known of it to others. A static, as connections are.
pub(crate) static TOLD: Told = Told {
    polling: AtomicU32::new(NONE),
    load: AtomicU32::new(0),
    steered: AtomicU32::new(0),
    changes: AtomicU64::new(0),
};

pub(crate) struct Told {
    /// The CPU that polls all cards, if workers are to keep off it.
    polling: AtomicU32,
    /// How busy it is, or was last, percent.
    load: AtomicU32,
    steered: AtomicU32,
    changes: AtomicU64,
}

impl Told {
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

/// A worker's place.
pub(crate) struct Seat {
    own: u32,
    /// It has left its own CPU to the cards.
    away: bool,
}

impl Seat {
    /// On `own`, where the thread is bound.
    pub(crate) fn new(own: u32) -> Self {
        Self { own, away: false }
    }

    /// Moves the worker when it is time to.
    #[inline]
    pub(crate) fn take(&mut self, context: &Context) {
        let away = TOLD.polling.load(Relaxed) == self.own;
        if away != self.away {
            self.away = away;
            if away {
                context.move_from(self.own);
            } else {
                context.move_to(self.own);
            }
        }
    }
}

/// What decides.
pub(crate) struct Steering {
    cards: Cards,
    /// Percent; 0 is never.
    threshold: u32,
    work: KVec<(u32, Work)>,
    polling: u32,
    /// When it last looked, seconds.
    looked: u32,
    /// Seconds in a row that wanted a change.
    wishes: u32,
}

impl Steering {
    pub(crate) fn new(namespace: Arc<Namespace>, threshold: u32) -> Result<Self> {
        let mut work = KVec::new();
        for cpu in cpu::online() {
            work.push((cpu, Work::of(cpu)), GFP_KERNEL)?;
        }
        TOLD.changes.store(0, Relaxed);
        TOLD.load.store(0, Relaxed);
        Ok(Self {
            cards: Cards::new(namespace),
            threshold,
            work,
            polling: NONE,
            looked: 0,
            wishes: 0,
        })
    }

    /// Looks once a second. May sleep.
    pub(crate) fn tick(&mut self, uptime: u32) {
        if self.looked == uptime {
            return;
        }
        self.looked = uptime;
        if self.threshold == 0 || self.work.len() < 2 || self.cards.single_queue() == 0 {
            self.change(false);
            self.polling = NONE;
            self.tell();
            return;
        }
        let steered = self.cards.steered();
        // What one CPU would have to do, as far as that can be told.
        let (mut together, mut most) = (0u32, RECEIVES);
        for (cpu, work) in &mut self.work {
            let now = Work::of(*cpu);
            let load = now.percent(work);
            let receives = now.receives.wrapping_sub(work.receives);
            *work = now;
            together = together.saturating_add(load);
            // Steered packets make all CPUs receive: then the last one known stays.
            if !steered && receives > most {
                most = receives;
                self.polling = *cpu;
            }
            if *cpu == self.polling {
                TOLD.load.store(load, Relaxed);
            }
        }
        // A quarter below the threshold, so that the end of it is no beginning.
        let low = self.threshold.saturating_mul(3) / 4;
        let wish = if steered {
            together < low
        } else {
            self.polling != NONE && TOLD.load() > self.threshold
        };
        self.wishes = if wish {
            self.wishes.saturating_add(1)
        } else {
            0
        };
        if self.wishes >= if steered { END } else { BEGIN } {
            self.change(!steered);
        }
        self.tell();
    }

    fn change(&mut self, on: bool) {
        self.wishes = 0;
        if on != self.cards.steered() {
            self.cards.steer(on);
            TOLD.changes.fetch_add(1, Relaxed);
        }
    }

    fn tell(&self) {
        let steered = self.cards.steered();
        TOLD.steered.store(u32::from(steered), Relaxed);
        let alone = if steered { NONE } else { self.polling };
        TOLD.polling.store(alone, Relaxed);
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        TOLD.steered.store(0, Relaxed);
        TOLD.polling.store(NONE, Relaxed);
    }
}
