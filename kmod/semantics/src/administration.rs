// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! Which clients may use administration commands: those that change how the server runs, delete its items or
//! statistics, or list its keys.

/// Which clients may use administration commands. The control device and the parameter `admin` both mean these values.
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
    /// Every setting.
    pub const ALL: [Self; 3] = [Self::Network, Self::Local, Self::Off];

    /// The setting of that name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.name().as_bytes() == name)
    }

    /// The setting of that number.
    #[inline]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.number() == number)
    }

    /// Its number, as control calls pass it.
    #[inline]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Local => "local",
            Self::Off => "off",
        }
    }
}
