// SPDX-License-Identifier: GPL-2.0-only
//! Which clients may use administration commands: those that change how the server runs, delete its items or
//! statistics, or list its keys.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Which clients may use administration commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Administration {
    /// All clients, as in memcached.
    #[default]
    Network = 0,
    /// Clients on this host, over TCP.
    Local = 1,
    /// No client.
    Off = 2,
}

impl Administration {
    const ALL: [Self; 3] = [Self::Network, Self::Local, Self::Off];

    /// The setting of that name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.name().as_bytes() == name)
    }

    /// The setting of that number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|one| *one as u32 == number)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Local => "local",
            Self::Off => "off",
        }
    }
}

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
