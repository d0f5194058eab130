// SPDX-License-Identifier: GPL-2.0-only
//! Which clients may use administration commands: those that change how the
//! server runs, forget what it holds or counted, or tell its keys.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use hippos_store::Platform;

use crate::counters::Tally;
use crate::session::state::{Session, Transport};
use crate::Engine;

/// Which clients may use administration commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Administration {
    /// All of them, as in memcached.
    #[default]
    Network = 0,
    /// Those on this host, over TCP.
    Local = 1,
    /// None.
    Off = 2,
}

impl Administration {
    const ALL: [Self; 3] = [Self::Network, Self::Local, Self::Off];

    /// The one of that name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.name().as_bytes() == name)
    }

    /// The one of that number.
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

/// An [`Administration`] that changes while it is read.
pub(crate) struct Setting(AtomicU8);

impl Setting {
    pub(crate) fn new(value: Administration) -> Self {
        Self(AtomicU8::new(value as u8))
    }
}

/// Where a client is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Anywhere.
    Network,
    /// On this host.
    Local,
    /// Behind the control device.
    Owner,
}

impl<P: Platform> Engine<P> {
    /// Which clients may use administration commands.
    pub fn administration(&self) -> Administration {
        let number = self.administration.0.load(Relaxed);
        Administration::from_number(number.into()).unwrap_or(Administration::Off)
    }

    /// Sets it, for open connections too.
    pub fn set_administration(&self, value: Administration) {
        self.administration.0.store(value as u8, Relaxed);
    }
}

impl<P: Platform> Session<'_, P> {
    /// Says whether the client is on this host.
    pub fn set_local(&mut self, local: bool) {
        self.origin = if local {
            Origin::Local
        } else {
            Origin::Network
        };
    }

    /// Whether the client may use administration commands; counted if not.
    pub(crate) fn administers(&self) -> bool {
        let may = match (self.origin, self.engine.administration()) {
            (Origin::Owner, _) | (_, Administration::Network) => true,
            // The source of a datagram is whatever its sender says.
            (Origin::Local, Administration::Local) => self.transport == Transport::Tcp,
            _ => false,
        };
        if !may {
            self.engine.tally(Tally::AdminRefused, 1);
        }
        may
    }
}
