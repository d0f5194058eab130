// SPDX-License-Identifier: GPL-2.0-only
//! Maintenance: what a background thread does so that writers seldom have to.
//!
//! Each call is one bounded step: take retired memory back, keep the classes' reserves, grow or
//! shrink the index, move a slab from a class that makes little of it to one that is pressed, give
//! memory back when the limit was lowered, look for expired items.

use crate::counters::{ClassCounter, Counter};
use crate::index::{Step, Unchained, LOAD};
use crate::item::Slot;
use crate::platform::{Cookie, Platform};
use crate::policy::{Picked, PICK};
use crate::pool::{Block, Use, NONE};
use crate::slab::{Class, CLASSES, HEAD};
use crate::store::Store;
use crate::sync::{Acquire, AtomicBool, AtomicU32, AtomicU64, Relaxed, Release};

/// Bytes that the store keeps however short the platform is of memory.
const LEAST: usize = 8 << 20;
/// Items that a step evicts in a class to keep its reserve.
const RESERVE: usize = 128;
/// Buckets that a step grows or shrinks the index by.
const BUCKETS: usize = 1024;
/// Slots that a step looks at to empty a slab.
const DRAIN: usize = 1024;
/// Times that a draining slab is gone over, with a grace period after each, before it is given up:
/// what was being written the first time can be evicted the second.
const DRAIN_ROUNDS: u32 = 2;
/// Steps that a writer makes to empty a slab before it lets others run.
const STEAL_STEPS: u32 = 16;
/// Slabs that are emptied at the same time: each has to wait for two grace periods.
const DRAINS: usize = 8;
/// Spare overflow buckets that maintenance sees to.
const SPARE: usize = 64;
/// A class is pressed when it has evicted a slab's worth of slots, divided by this.
pub(crate) const PRESSED: u32 = 4;
/// A slab moves if it is worth so many times as much to the class that gets it.
const WORTH: u128 = 2;
/// A hit is worth so many evictions.
const HIT: u128 = 16;
/// Slots that a step of the sweep looks at: at least so many, at most so many.
const SWEEP: (usize, usize) = (1024, 16384);
/// Steps after which a sweep should be through.
const SWEEP_STEPS: usize = 4096;
/// Seconds between sweeps.
const SWEEP_EVERY: u32 = 10;
/// Seconds after which half of what a reserve has grown by is given up.
const RESERVE_HALF: u32 = 8;

/// The state of maintenance. But for `hungry`, only who has set `busy` touches it.
pub(crate) struct Upkeep {
    /// Somebody is at it.
    busy: AtomicBool,
    /// The index wants to grow, but has no segment for it.
    hungry: AtomicBool,
    drains: [Drain; DRAINS],
    /// Attempts to empty a slab so far.
    attempts: AtomicU32,
    /// Where the sweep for expired items is, when it began, and the flush epoch then.
    sweep_block: AtomicU32,
    sweep_at: AtomicU32,
    swept: AtomicU32,
    swept_epoch: AtomicU32,
    /// When the reserves were last lowered.
    lowered: AtomicU32,
    /// What happened to each class lately.
    lately: [Lately; CLASSES],
}

/// A slab that is being emptied.
struct Drain {
    /// The slab, or NONE.
    block: AtomicU32,
    /// How far it was gone over, and how often.
    at: AtomicU32,
    rounds: AtomicU32,
    /// It was gone over: what was evicted comes back after this grace period.
    over: AtomicBool,
    /// It is empty, and can be used for something else after this grace period.
    empty: AtomicBool,
    cookie: AtomicU64,
}

/// What happened to a class lately.
#[derive(Default)]
struct Lately {
    hits: Recent,
    evictions: Recent,
}

/// A counter, as it was last, and what it has counted lately.
#[derive(Default)]
struct Recent {
    last: AtomicU64,
    recent: AtomicU64,
}

impl Recent {
    fn note(&self, total: u64) {
        let new = total.saturating_sub(self.last.swap(total, Relaxed));
        let old = self.recent.load(Relaxed) / 2;
        self.recent.store(old.saturating_add(new), Relaxed);
    }
}

impl Drain {
    fn new() -> Self {
        Self {
            block: AtomicU32::new(NONE),
            at: AtomicU32::new(0),
            rounds: AtomicU32::new(0),
            over: AtomicBool::new(false),
            empty: AtomicBool::new(false),
            cookie: AtomicU64::new(0),
        }
    }

    fn is_idle(&self) -> bool {
        self.block.load(Relaxed) == NONE
    }
}

impl Upkeep {
    pub(crate) fn new() -> Self {
        Self {
            busy: AtomicBool::new(false),
            hungry: AtomicBool::new(false),
            drains: core::array::from_fn(|_| Drain::new()),
            attempts: AtomicU32::new(0),
            sweep_block: AtomicU32::new(NONE),
            sweep_at: AtomicU32::new(0),
            swept: AtomicU32::new(0),
            swept_epoch: AtomicU32::new(0),
            lowered: AtomicU32::new(0),
            lately: core::array::from_fn(|_| Lately::default()),
        }
    }
}

/// What a step of maintenance wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintained {
    /// Call again after so many milliseconds; [`Platform::wake`] asks for less.
    pub next_ms: u32,
}

/// Nothing to do but look at times.
const IDLE_MS: u32 = 250;
/// Something goes on that takes its time.
const SOON_MS: u32 = 10;
/// There is more to do at once.
const NOW_MS: u32 = 1;

/// What became of a writer's attempt to take a slab from another class.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stolen {
    /// A slab was emptied: a block is to be had, if the limit allows it.
    Slab,
    /// There is more to do at once.
    Working,
    /// It waits for a grace period.
    Waiting,
    /// There was none to be had.
    Nothing,
    /// Somebody else is at it: a slab may be on its way.
    Busy,
}

/// What became of a step of emptying a slab.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drained {
    /// There is more to evict.
    Working,
    /// It waits for a grace period or for somebody to let go of a slot.
    Waiting,
    /// A block has become free.
    Done,
    /// It was given up.
    Failed,
}

/// A class as one bit of all.
fn bit(class: usize) -> u64 {
    1u64.wrapping_shl(class as u32)
}

impl<P: Platform> Store<P> {
    /// One bounded step of maintenance: some thousand slots are looked at, at most. To be called
    /// from one place, as often as it says. Process context, may sleep.
    pub fn maintain(&self) -> Maintained {
        if self.upkeep.busy.swap(true, Acquire) {
            return Maintained { next_ms: SOON_MS };
        }
        self.heed_platform();
        self.retire.close_all(&self.platform);
        let mut next_ms = if self.retire.count() == 0 {
            IDLE_MS
        } else {
            SOON_MS
        };
        self.harvest();
        self.keep_reserves();
        for step in [self.size_index(), self.move_memory(), self.sweep()] {
            next_ms = next_ms.min(step);
        }
        self.upkeep.busy.store(false, Release);
        Maintained { next_ms }
    }

    /// Changes the memory limit. Lowering it takes effect by and by, through `maintain`. False if
    /// it is less than the least that a store can have, or more than `Config::memory_max`.
    pub fn resize(&self, memory: usize) -> bool {
        let blocks = memory.checked_div(self.pool.block_size()).unwrap_or(0);
        if blocks < 2 || blocks > self.pool.capacity() {
            return false;
        }
        self.pool.set_limit(blocks);
        self.platform.wake();
        true
    }

    /// Holds less memory than the limit allows while the platform is short of it.
    fn heed_platform(&self) {
        let (held, block) = (self.pool.held(), self.pool.block_size());
        let blocks = |bytes: usize| bytes.checked_div(block).unwrap_or(0);
        let ceiling = match self.platform.spare() {
            None => usize::MAX,
            Some(spare @ 0..) => {
                let ceiling = held.saturating_add(blocks(spare as usize));
                // All that the limit allows is to be had.
                if ceiling < self.pool.limit() {
                    ceiling
                } else {
                    usize::MAX
                }
            }
            Some(lack) => {
                self.count(Counter::Shortages, 1);
                let back = blocks(lack.unsigned_abs()).saturating_add(1);
                let least = blocks(LEAST).max(2);
                held.saturating_sub(back).max(least)
            }
        };
        self.pool.set_ceiling(ceiling);
    }

    /// The memory limit in bytes.
    pub fn memory_limit(&self) -> usize {
        let blocks = self.pool.limit();
        blocks.saturating_mul(self.pool.block_size())
    }

    /// The most bytes of blocks that may be held now: less than the limit while the platform is short
    /// of memory.
    pub fn allowed(&self) -> usize {
        let blocks = self.pool.allowed();
        blocks.saturating_mul(self.pool.block_size())
    }

    fn keep_reserves(&self) {
        let now = self.now();
        let lower = now.wrapping_sub(self.upkeep.lowered.load(Relaxed)) >= RESERVE_HALF;
        if lower {
            self.upkeep.lowered.store(now, Relaxed);
        }
        for (i, of) in (0..CLASSES).zip(self.slabs.classes()) {
            let reserve = of.reserve.load(Relaxed);
            if reserve == 0 {
                continue;
            }
            let low = of.low_water.fetch_min(of.free(), Relaxed).min(of.free());
            if lower {
                // What was never used is not needed.
                of.reserve.store(reserve.saturating_sub(low / 2), Relaxed);
                of.low_water.store(u32::MAX, Relaxed);
            }
            let lacks = self.lacks(of) as usize;
            if lacks != 0 {
                self.evict(i, lacks.min(RESERVE));
            }
        }
    }

    /// Grows the index by a bucket, on behalf of a writer whose stripe is crowded. No lock or
    /// section is held.
    pub(crate) fn grow_index(&self) {
        match self.split() {
            Step::NoSegment => {
                if !self.upkeep.hungry.swap(true, Relaxed) {
                    self.platform.wake();
                }
                if self.pool.room() != 0 && self.add_segment() {
                    self.upkeep.hungry.store(false, Relaxed);
                }
            }
            Step::NoOverflow => {
                self.add_overflow();
            }
            Step::Done | Step::NotNow => {}
        }
    }

    fn split(&self) -> Step {
        let mut unchained = Unchained::new();
        let step = self.index.split(
            |slot| self.hash_of(slot),
            |cookie| self.platform.gp_done(cookie),
            &mut unchained,
        );
        self.discard(&Picked::new(), &unchained);
        if step == Step::Done {
            self.count(Counter::Splits, 1);
        }
        step
    }

    fn merge(&self) -> Step {
        let mut unchained = Unchained::new();
        let step = self.index.merge(
            |slot| self.hash_of(slot),
            || self.platform.gp_start(),
            |cookie| self.platform.gp_done(cookie),
            &mut unchained,
        );
        self.discard(&Picked::new(), &unchained);
        if step == Step::Done {
            self.count(Counter::Merges, 1);
        }
        step
    }

    /// Adds a block of overflow buckets. False if none is to be had.
    pub(crate) fn add_overflow(&self) -> bool {
        if self.index.spare() != 0 {
            return true;
        }
        let Some(id) = self.pool.take(&self.platform, Use::Overflow) else {
            return false;
        };
        let at = self.pool.get(id).and_then(Block::at);
        let buckets = self.pool.block_size() / crate::index::BUCKET;
        // SAFETY: the block was just taken for this.
        let added = at.is_some_and(|at| unsafe { self.index.add_overflow(at, buckets) });
        if !added {
            // SAFETY: nobody has seen the block.
            unsafe { self.pool.give(&self.platform, id) };
        }
        self.index.spare() != 0
    }

    /// Makes the index larger if it is crowded; smaller if it is sparse and memory is short.
    fn size_index(&self) -> u32 {
        if self.index.spare() < SPARE && self.pool.room() != 0 {
            self.add_overflow();
        }
        let items = self.classes_counted(ClassCounter::Items) as usize;
        let buckets = self.index.buckets();
        if items > buckets.saturating_mul(LOAD) {
            for _ in 0..BUCKETS {
                match self.split() {
                    Step::Done => {}
                    Step::NoSegment if self.pool.room() != 0 && self.add_segment() => {}
                    Step::NoSegment => {
                        self.upkeep.hungry.store(true, Relaxed);
                        return SOON_MS;
                    }
                    Step::NoOverflow if self.add_overflow() => {}
                    Step::NoOverflow | Step::NotNow => return SOON_MS,
                }
            }
            return NOW_MS;
        }
        self.upkeep.hungry.store(false, Relaxed);
        // Two thirds of the load at which it grows, so that it does not swing.
        let sparse = |buckets: usize| items < buckets.saturating_mul(LOAD) / 3 * 2;
        if self.pool.room() == 0 && sparse(buckets) {
            for _ in 0..BUCKETS {
                if !sparse(self.index.buckets()) || self.merge() != Step::Done {
                    break;
                }
            }
            return if self.trim() || self.index.buckets() != buckets {
                NOW_MS
            } else {
                IDLE_MS
            };
        }
        if self.pool.room() == 0 && self.trim() {
            return NOW_MS;
        }
        IDLE_MS
    }

    /// Gives a segment of the index that holds no bucket back.
    fn trim(&self) -> bool {
        let Some(id) = self.index.trim(|cookie| self.platform.gp_done(cookie)) else {
            return false;
        };
        // SAFETY: the segment was out of use for longer than a grace period.
        unsafe { self.pool.give(&self.platform, id) };
        self.count(Counter::Moves, 1);
        true
    }

    /// Moves memory: slabs are emptied for a class that is pressed, for the index, or to be given
    /// back to the platform.
    fn move_memory(&self) -> u32 {
        while self.pool.shed(&self.platform) {}
        let mut next_ms = IDLE_MS;
        for drain in self.upkeep.drains.iter().filter(|drain| !drain.is_idle()) {
            next_ms = next_ms.min(match self.drain(drain) {
                Drained::Working | Drained::Done => NOW_MS,
                Drained::Waiting => SOON_MS,
                Drained::Failed => IDLE_MS,
            });
        }
        let hungry = &self.upkeep.hungry;
        if hungry.load(Relaxed) && self.pool.room() != 0 && self.add_segment() {
            hungry.store(false, Relaxed);
        }
        if next_ms != IDLE_MS {
            // More is decided when this is done.
            return next_ms;
        }
        let over = self.pool.held().saturating_sub(self.pool.allowed());
        if over != 0 {
            return self.start_drains(None, over);
        }
        if self.pool.room() != 0 {
            return IDLE_MS;
        }
        if hungry.load(Relaxed) {
            return self.start_drains(None, 1);
        }
        let Some((class, of)) = self.most_pressed() else {
            return IDLE_MS;
        };
        let worth = of.pressure.load(Relaxed).saturating_mul(PRESSED);
        let slabs = worth.checked_div(of.slots_per_slab()).unwrap_or(0) as usize;
        self.note_use();
        for of in self.slabs.classes() {
            of.pressure.store(0, Relaxed);
        }
        self.start_drains(Some(class), slabs)
    }

    /// Begins to empty up to `slabs` slabs for a class or for any other use.
    fn start_drains(&self, to: Option<usize>, slabs: usize) -> u32 {
        let mut started = IDLE_MS;
        for drain in self
            .upkeep
            .drains
            .iter()
            .filter(|drain| drain.is_idle())
            .take(slabs)
        {
            if !self.start_drain(drain, to) {
                break;
            }
            started = NOW_MS;
        }
        started
    }

    /// The class that has had to evict most, if that is worth a slab.
    fn most_pressed(&self) -> Option<(usize, &Class<P::Lock>)> {
        let pressed = |(_, of): &(usize, &Class<P::Lock>)| {
            of.pressure.load(Relaxed) > of.slots_per_slab() / PRESSED
        };
        // In slabs' worth of slots, so that classes can be compared.
        let worth = |of: &Class<P::Lock>| {
            u64::from(of.pressure.load(Relaxed)).saturating_mul(u64::from(of.size()))
        };
        (0..CLASSES)
            .zip(self.slabs.classes())
            .filter(pressed)
            .max_by_key(|(_, of)| worth(of))
    }

    /// Counts the hits and evictions that classes had lately: older ones count half each time.
    fn note_use(&self) {
        for (i, lately) in (0..self.slabs.classes().len()).zip(&self.upkeep.lately) {
            lately
                .hits
                .note(self.class_counted(i, ClassCounter::GetHits));
            lately
                .evictions
                .note(self.class_counted(i, ClassCounter::Evicted));
        }
    }

    /// What memory is worth to a class, by what happened lately: hits, and that items had to go, of
    /// which some might have been hit. At least 1.
    fn worth(&self, class: usize) -> u128 {
        let lately = self.upkeep.lately.get(class);
        let hits = lately.map_or(0, |lately| lately.hits.recent.load(Relaxed));
        let evictions = lately.map_or(0, |lately| lately.evictions.recent.load(Relaxed));
        u128::from(hits)
            .saturating_mul(HIT)
            .saturating_add(u128::from(evictions))
            .saturating_add(1)
    }

    /// The class that makes least of its slabs, `but` and those of the bits `not` excepted: one that
    /// has more than a slab's worth of slots free, or the one to which a slab is worth least.
    fn donor(&self, but: Option<usize>, not: u64) -> Option<usize> {
        let all = || {
            (0..CLASSES)
                .zip(self.slabs.classes())
                .filter(|(i, of)| of.slabs() != 0 && Some(*i) != but && not & bit(*i) == 0)
        };
        let spare = |of: &Class<P::Lock>| {
            of.free() > of.slots_per_slab().saturating_add(of.reserve.load(Relaxed))
        };
        if let Some((i, _)) = all().find(|(_, of)| spare(of)) {
            return Some(i);
        }
        let mut best: Option<(usize, u128, u128)> = None;
        for (i, of) in all() {
            let (worth, slabs) = (self.worth(i), u128::from(of.slabs()));
            let less =
                best.is_none_or(|(_, w, s)| worth.saturating_mul(s) < w.saturating_mul(slabs));
            if less {
                best = Some((i, worth, slabs));
            }
        }
        let (from, worth, slabs) = best?;
        if let Some(of) = but.and_then(|i| self.slabs.get(i)) {
            // Worth it?
            let gains = self.worth(but?).saturating_mul(slabs);
            let loses = worth.saturating_mul(u128::from(of.slabs().max(1)));
            if of.slabs() != 0 && gains < loses.saturating_mul(WORTH) {
                return None;
            }
        }
        Some(from)
    }

    /// Begins to empty a slab for a class, or for any other use.
    fn start_drain(&self, drain: &Drain, to: Option<usize>) -> bool {
        let now = self.upkeep.attempts.fetch_add(1, Relaxed);
        let mut not = 0;
        let id = loop {
            let Some(class) = self.donor(to, not) else {
                return false;
            };
            let Some(of) = self.slabs.get(class) else {
                return false;
            };
            match self.slabs.next_to_go(&self.pool, of, now) {
                // All of them are left alone for now.
                NONE => not |= bit(class),
                id => break id,
            }
        };
        if !self.slabs.drain(&self.pool, id) {
            return false;
        }
        drain.at.store(HEAD as u32, Relaxed);
        drain.rounds.store(0, Relaxed);
        drain.over.store(false, Relaxed);
        drain.empty.store(false, Relaxed);
        drain.block.store(id, Relaxed);
        true
    }

    /// A step of emptying a slab.
    fn drain(&self, drain: &Drain) -> Drained {
        let id = drain.block.load(Relaxed);
        let Some(block) = self.pool.get(id) else {
            return Drained::Failed;
        };
        if drain.empty.load(Relaxed) {
            // Sweeps and walks may still look at its slots.
            if !self.platform.gp_done(Cookie(drain.cookie.load(Relaxed))) {
                return Drained::Waiting;
            }
            drain.block.store(NONE, Relaxed);
            // SAFETY: all slots are free, nobody can take one, and a grace period has passed.
            unsafe { self.pool.give(&self.platform, id) };
            self.count(Counter::Moves, 1);
            return Drained::Done;
        }
        if !drain.over.load(Relaxed) {
            let at = drain.at.load(Relaxed);
            if let (Some(next), _) = self.evict_range(block, at, DRAIN, |_| true) {
                drain.at.store(next, Relaxed);
                return Drained::Working;
            }
            self.retire.close_all(&self.platform);
            drain.cookie.store(self.platform.gp_start().0, Relaxed);
            drain.over.store(true, Relaxed);
        }
        let passed = self.platform.gp_done(Cookie(drain.cookie.load(Relaxed)));
        self.harvest();
        if self.slabs.drained(&self.pool, id) {
            drain.cookie.store(self.platform.gp_start().0, Relaxed);
            drain.empty.store(true, Relaxed);
        } else if passed {
            if drain.rounds.fetch_add(1, Relaxed).saturating_add(1) >= DRAIN_ROUNDS {
                // A value that is long in coming, or a reader that is slow.
                drain.block.store(NONE, Relaxed);
                let now = self.upkeep.attempts.load(Relaxed);
                self.slabs.undrain(&self.pool, id, now);
                return Drained::Failed;
            }
            drain.at.store(HEAD as u32, Relaxed);
            drain.over.store(false, Relaxed);
            return Drained::Working;
        }
        Drained::Waiting
    }

    /// A step towards a slab of another class for one that has none. No lock or section is held;
    /// does not sleep.
    #[cold]
    pub(crate) fn steal(&self, class: usize) -> Stolen {
        if self.upkeep.busy.swap(true, Acquire) {
            return Stolen::Busy;
        }
        let drains = &self.upkeep.drains;
        if drains.iter().all(Drain::is_idle) {
            self.note_use();
            self.start_drains(Some(class), 1);
        }
        let mut stolen = Stolen::Nothing;
        for drain in drains.iter().filter(|drain| !drain.is_idle()) {
            let mut steps = STEAL_STEPS;
            let mut drained = self.drain(drain);
            while drained == Drained::Working && steps != 0 {
                steps = steps.wrapping_sub(1);
                drained = self.drain(drain);
            }
            stolen = match (drained, stolen) {
                (Drained::Done, _) => Stolen::Slab,
                (_, Stolen::Slab) => Stolen::Slab,
                // Another slab may be luckier.
                (Drained::Working | Drained::Failed, _) => Stolen::Working,
                (Drained::Waiting, Stolen::Nothing) => Stolen::Waiting,
                (Drained::Waiting, other) => other,
            };
        }
        self.upkeep.busy.store(false, Release);
        stolen
    }

    /// Evicts the items of a slab that are `wanted`, from `at` on, looking at up to `most` slots.
    /// Returns where to go on, None at the end, and how many slots it looked at.
    fn evict_range(
        &self,
        block: &Block,
        at: u32,
        most: usize,
        wanted: impl Fn(Slot) -> bool,
    ) -> (Option<u32>, usize) {
        let mut at = at;
        let mut looked = 0usize;
        loop {
            let mut unlinked = Picked::new();
            let mut overflow = Unchained::new();
            let mut end = false;
            let guard = self.read();
            // The slab may have become something else since the last section.
            let Some(of) = self.slabs.class_at(block, at) else {
                return (None, looked);
            };
            // A section's worth.
            for _ in 0..PICK {
                let Some(slot) = self.slabs.slot_at(block, at) else {
                    end = true;
                    break;
                };
                at = at.wrapping_add(of.size());
                looked = looked.wrapping_add(1);
                if slot.is_live() && wanted(slot) && self.unlink(slot, &mut overflow) {
                    // There is room for a section's worth.
                    unlinked.push(slot);
                }
            }
            drop(guard);
            self.discard(&unlinked, &overflow);
            if end {
                return (None, looked);
            }
            if looked >= most {
                return (Some(at), looked);
            }
            self.platform.relax();
        }
    }

    /// A step of the sweep for expired and flushed items.
    fn sweep(&self) -> u32 {
        let up = &self.upkeep;
        let mut id = up.sweep_block.load(Relaxed);
        let now = self.now();
        if id == NONE {
            let epoch = self.clock.epoch();
            let due = now.wrapping_sub(up.swept.load(Relaxed)) >= SWEEP_EVERY;
            if !due && epoch == up.swept_epoch.load(Relaxed) {
                return IDLE_MS;
            }
            up.swept.store(now, Relaxed);
            up.swept_epoch.store(epoch, Relaxed);
            up.sweep_at.store(HEAD as u32, Relaxed);
            id = 0;
        }
        let items = self.classes_counted(ClassCounter::Items) as usize;
        let (least, most) = SWEEP;
        let mut left = (items / SWEEP_STEPS).clamp(least, most);
        let end = self.pool.used();
        while id < end && left != 0 {
            let Some(block) = self.pool.get(id).filter(|b| b.what() == Use::Slab) else {
                id = id.wrapping_add(1);
                up.sweep_at.store(HEAD as u32, Relaxed);
                continue;
            };
            let at = up.sweep_at.load(Relaxed);
            let (next, looked) = self.evict_range(block, at, left, |slot| !self.alive(slot));
            self.count(Counter::Checked, looked as u64);
            left = left.saturating_sub(looked);
            up.sweep_at.store(next.unwrap_or(HEAD as u32), Relaxed);
            if next.is_none() {
                id = id.wrapping_add(1);
            }
        }
        up.sweep_block
            .store(if id < end { id } else { NONE }, Relaxed);
        SOON_MS
    }
}
