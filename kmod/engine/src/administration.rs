// SPDX-License-Identifier: GPL-2.0-only
//! Which clients may use administration commands, as a setting in force.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use hippos_semantics::Administration;

/// An [`Administration`] that may change at any time.
pub(crate) struct Setting(AtomicU8);

impl Setting {
    pub(crate) fn new(value: Administration) -> Self {
        Self(AtomicU8::new(value as u8))
    }

    pub(crate) fn get(&self) -> Administration {
        Administration::from_number(self.0.load(Relaxed).into()).unwrap_or(Administration::Off)
    }

    pub(crate) fn set(&self, value: Administration) {
        self.0.store(value as u8, Relaxed);
    }
}
