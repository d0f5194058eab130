// SPDX-License-Identifier: GPL-2.0-only
//! A list of registered members, kept in a static and read by any caller.

use core::cell::UnsafeCell;
use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_invariant::Exact;

use crate::ffi;

/// Members, each of which keeps its place. One mutex (`kmod/c/lock.c`) guards
/// every registry: joining and leaving are rare and short.
pub struct Registry<T> {
    list: UnsafeCell<List<T>>,
}

struct List<T> {
    members: KVVec<Option<Arc<T>>>,
    /// Places without a member, with capacity for all, so that leaving can't fail.
    vacant: KVVec<usize>,
}

// SAFETY: the list is reached under the mutex alone.
unsafe impl<T: Send + Sync> Sync for Registry<T> {}

impl<T> List<T> {
    const fn new() -> Self {
        Self {
            members: KVVec::new(),
            vacant: KVVec::new(),
        }
    }

    /// Gives the member a place.
    fn add(&mut self, member: Arc<T>) -> Result<usize> {
        if let Some(at) = self.vacant.pop() {
            if let Some(place) = self.members.get_mut(at) {
                *place = Some(member);
                return Ok(at);
            }
        }
        let at = self.members.len();
        self.vacant.reserve(at.add_exact(1), GFP_KERNEL)?;
        self.members.push(Some(member), GFP_KERNEL)?;
        Ok(at)
    }

    fn remove(&mut self, at: usize) {
        if let Some(place) = self.members.get_mut(at) {
            *place = None;
        }
        // Its capacity suffices: see `add`.
        let _ = self.vacant.push_within_capacity(at);
        if self.vacant.len() == self.members.len() {
            // A static is never dropped.
            *self = Self::new();
        }
    }
}

impl<T> Registry<T> {
    /// An empty list.
    pub const fn new() -> Self {
        Self {
            list: UnsafeCell::new(List::new()),
        }
    }

    /// Calls `work` with exclusive access to the list.
    fn with<R>(&self, work: impl FnOnce(&mut List<T>) -> R) -> R {
        // SAFETY: called in process context; unlocked below.
        unsafe { ffi::hippos_registry_lock() };
        // SAFETY: under the mutex this is the only reference.
        let result = work(unsafe { &mut *self.list.get() });
        // SAFETY: locked above.
        unsafe { ffi::hippos_registry_unlock() };
        result
    }

    /// Adds `value` for as long as the result lives.
    pub fn register(&'static self, value: T) -> Result<Registration<T>> {
        let value = Arc::new(value, GFP_KERNEL)?;
        let at = self.with(|list| list.add(value.clone()))?;
        Ok(Registration {
            registry: self,
            at,
            value,
        })
    }

    /// The first member at or behind place `from`: its place, and the result of `look` for it.
    pub fn next<R>(&self, from: usize, look: impl FnOnce(&T) -> R) -> Option<(usize, R)> {
        self.with(|list| {
            let mut at = from;
            while let Some(place) = list.members.get(at) {
                if let Some(member) = place {
                    return Some((at, look(member)));
                }
                at = at.add_exact(1);
            }
            None
        })
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A membership; ends when dropped.
pub struct Registration<T: 'static> {
    registry: &'static Registry<T>,
    at: usize,
    value: Arc<T>,
}

impl<T> Registration<T> {
    /// The member's value.
    pub fn value(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for Registration<T> {
    fn drop(&mut self) {
        self.registry.with(|list| list.remove(self.at));
    }
}
