// SPDX-License-Identifier: GPL-2.0-only
//! A list of what there is now, kept in a static and read by whoever asks.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::ffi;

/// Members in no particular order. One mutex (`kmod/c/lock.c`) guards every
/// roster: joining and leaving are rare and short.
pub struct Roster<T> {
    members: UnsafeCell<KVVec<Arc<Entry<T>>>>,
}

struct Entry<T> {
    /// Its place in the list; changed under the mutex.
    at: AtomicUsize,
    value: T,
}

// SAFETY: the list is reached under the mutex alone.
unsafe impl<T: Send + Sync> Sync for Roster<T> {}

impl<T> Roster<T> {
    /// Nobody yet.
    pub const fn new() -> Self {
        Self {
            members: UnsafeCell::new(KVVec::new()),
        }
    }

    /// Does `work` with the list, which nobody else reaches meanwhile.
    fn with<R>(&self, work: impl FnOnce(&mut KVVec<Arc<Entry<T>>>) -> R) -> R {
        // SAFETY: called in process context; unlocked below.
        unsafe { ffi::hippos_roster_lock() };
        // SAFETY: under the mutex this is the only reference.
        let result = work(unsafe { &mut *self.members.get() });
        // SAFETY: locked above.
        unsafe { ffi::hippos_roster_unlock() };
        result
    }

    /// Adds `value` for as long as the result lives.
    pub fn join(&'static self, value: T) -> Result<Member<T>> {
        let entry = Arc::new(
            Entry {
                at: AtomicUsize::new(0),
                value,
            },
            GFP_KERNEL,
        )?;
        self.with(|members| {
            entry.at.store(members.len(), Relaxed);
            members.push(entry.clone(), GFP_KERNEL)
        })?;
        Ok(Member {
            roster: self,
            entry,
        })
    }

    /// What `look` makes of member number `index`, unless there are fewer.
    pub fn nth<R>(&self, index: usize, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.with(|members| members.get(index).map(|entry| look(&entry.value)))
    }
}

impl<T> Default for Roster<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A membership; ends when dropped.
pub struct Member<T: 'static> {
    roster: &'static Roster<T>,
    entry: Arc<Entry<T>>,
}

impl<T> Member<T> {
    /// What was put on the list.
    pub fn value(&self) -> &T {
        &self.entry.value
    }
}

impl<T> Drop for Member<T> {
    fn drop(&mut self) {
        self.roster.with(|members| {
            // The last one takes the place.
            let Some(last) = members.pop() else {
                return;
            };
            let at = self.entry.at.load(Relaxed);
            if let Some(place) = members.get_mut(at) {
                last.at.store(at, Relaxed);
                *place = last;
            } else if members.is_empty() {
                // A static is never dropped.
                *members = KVVec::new();
            }
        });
    }
}
