// SPDX-License-Identifier: GPL-2.0-only
//! Which clients may use administration commands.

use anyhow::{Context, Result};
use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AdminAccess {
    /// All clients, as with memcached
    Network,
    /// Clients on this host, over TCP
    Local,
    /// No client
    Off,
}

impl AdminAccess {
    const ALL: [(AdminAccess, u32, &'static str); 3] = [
        (AdminAccess::Network, hippos_abi::ADMIN_NETWORK, "network"),
        (AdminAccess::Local, hippos_abi::ADMIN_LOCAL, "local"),
        (AdminAccess::Off, hippos_abi::ADMIN_OFF, "off"),
    ];

    pub(crate) fn number(self) -> u32 {
        let found = Self::ALL.iter().find(|(who, ..)| *who == self);
        found.map_or(hippos_abi::ADMIN_OFF, |(_, number, _)| *number)
    }

    /// The number of the setting of that name.
    pub(crate) fn numbered(name: &str) -> Option<u32> {
        let found = Self::ALL.iter().find(|(.., n)| *n == name);
        found.map(|(_, number, _)| *number)
    }

    /// The name of a number that the module returned.
    pub(crate) fn named(number: u32) -> Result<&'static str> {
        let found = Self::ALL.iter().find(|(_, n, _)| *n == number);
        let name = found.map(|(.., name)| *name);
        name.with_context(|| format!("the module answers {number}, which is none of the three"))
    }
}
