// SPDX-License-Identifier: GPL-2.0-only
//! The size of the index: it grows when it is too full, and shrinks when it is sparse and memory is short.

use hippos_invariant::Exact;

use crate::counters::{ClassCounter, Counter};
use crate::eviction::Picked;
use crate::index::{Step, Unchained, LOAD};
use crate::platform::Platform;
use crate::store::Store;
use crate::sync::Relaxed;

use super::{IDLE_MS, NOW_MS, SOON_MS};

/// Buckets by which one step grows or shrinks the index.
const BUCKETS: usize = 1024;
/// Spare overflow buckets that maintenance keeps ready.
const SPARE: usize = 64;

impl<P: Platform> Store<P> {
    /// Grows the index by one bucket, for a writer whose stripe is too full. No lock or section is held.
    pub(crate) fn grow_index(&self) {
        match self.split() {
            Step::NoSegment => {
                if !self.maintenance.needs_segment.swap(true, Relaxed) {
                    self.platform.wake();
                }
                if self.pool.available() != 0 && self.add_segment() {
                    self.maintenance.needs_segment.store(false, Relaxed);
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
        self.retire_unlinked(&Picked::new(), &unchained);
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
        self.retire_unlinked(&Picked::new(), &unchained);
        if step == Step::Done {
            self.count(Counter::Merges, 1);
        }
        step
    }

    /// Grows the index if it is too full; shrinks it if it is sparse and memory is short.
    pub(super) fn resize_index(&self) -> u32 {
        if self.index.spare() < SPARE && self.pool.available() != 0 {
            self.add_overflow();
        }
        let items = self.classes_counted(ClassCounter::Items) as usize;
        let buckets = self.index.buckets();
        if items > buckets.mul_exact(LOAD) {
            for _ in 0..BUCKETS {
                match self.split() {
                    Step::Done => {}
                    Step::NoSegment if self.pool.available() != 0 && self.add_segment() => {}
                    Step::NoSegment => {
                        self.maintenance.needs_segment.store(true, Relaxed);
                        return SOON_MS;
                    }
                    Step::NoOverflow if self.add_overflow() => {}
                    Step::NoOverflow | Step::NotNow => return SOON_MS,
                }
            }
            return NOW_MS;
        }
        self.maintenance.needs_segment.store(false, Relaxed);
        // Hysteresis: it shrinks at two thirds of the load at which it grows, so that it does not oscillate.
        let sparse = |buckets: usize| items < buckets.mul_exact(LOAD) / 3 * 2;
        if self.pool.available() == 0 && sparse(buckets) {
            for _ in 0..BUCKETS {
                if !sparse(self.index.buckets()) || self.merge() != Step::Done {
                    break;
                }
            }
            return if self.trim_index() || self.index.buckets() != buckets {
                NOW_MS
            } else {
                IDLE_MS
            };
        }
        if self.pool.available() == 0 && self.trim_index() {
            return NOW_MS;
        }
        IDLE_MS
    }
}
