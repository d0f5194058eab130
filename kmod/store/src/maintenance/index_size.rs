// SPDX-License-Identifier: GPL-2.0-only
//! The size of the index: it grows when it is too full, and shrinks when it is sparse and memory is short.

use hippos_invariant::Exact;

use crate::counters::{ClassCounter, Counter};
use crate::eviction::Picked;
use crate::index::{ResizeResult, Unchained, LOAD};
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
            ResizeResult::NoSegment => {
                if !self.maintenance.needs_segment.swap(true, Relaxed) {
                    self.platform.wake();
                }
                if self.pool.available() != 0 && self.add_segment() {
                    self.maintenance.needs_segment.store(false, Relaxed);
                }
            }
            ResizeResult::NoOverflow => {
                self.add_overflow();
            }
            ResizeResult::Done | ResizeResult::NotNow => {}
        }
    }

    fn split(&self) -> ResizeResult {
        let mut unchained = Unchained::new();
        let result = self.index.split(
            |slot| self.hash_of(slot),
            |cookie| self.platform.gp_done(cookie),
            &mut unchained,
        );
        self.retire_unlinked(&Picked::new(), &unchained);
        if result == ResizeResult::Done {
            self.count(Counter::Splits, 1);
        }
        result
    }

    fn merge(&self) -> ResizeResult {
        let mut unchained = Unchained::new();
        let result = self.index.merge(
            |slot| self.hash_of(slot),
            || self.platform.gp_start(),
            |cookie| self.platform.gp_done(cookie),
            &mut unchained,
        );
        self.retire_unlinked(&Picked::new(), &unchained);
        if result == ResizeResult::Done {
            self.count(Counter::Merges, 1);
        }
        result
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
                    ResizeResult::Done => {}
                    ResizeResult::NoSegment if self.pool.available() != 0 && self.add_segment() => {
                    }
                    ResizeResult::NoSegment => {
                        self.maintenance.needs_segment.store(true, Relaxed);
                        return SOON_MS;
                    }
                    ResizeResult::NoOverflow if self.add_overflow() => {}
                    ResizeResult::NoOverflow | ResizeResult::NotNow => return SOON_MS,
                }
            }
            return NOW_MS;
        }
        self.maintenance.needs_segment.store(false, Relaxed);
        // Hysteresis: it shrinks at two thirds of the load at which it grows, so that it does not oscillate.
        let sparse = |buckets: usize| items < buckets.mul_exact(LOAD) / 3 * 2;
        if self.pool.available() == 0 && sparse(buckets) {
            for _ in 0..BUCKETS {
                if !sparse(self.index.buckets()) || self.merge() != ResizeResult::Done {
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
