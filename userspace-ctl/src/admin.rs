// SPDX-License-Identifier: GPL-2.0-only
//! Which clients may use administration commands.

use anyhow::{Context, Result};
use clap::builder::PossibleValue;
use clap::ValueEnum;
use hippos_abi::Administration;

/// An [`Administration`] as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AdminAccess(pub(crate) Administration);

impl ValueEnum for AdminAccess {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [AdminAccess; 3] = {
            let [a, b, c] = Administration::ALL;
            [AdminAccess(a), AdminAccess(b), AdminAccess(c)]
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self.0 {
            Administration::Network => "All clients, as with memcached",
            Administration::Local => "Clients on this host, over TCP",
            Administration::Off => "No client",
        };
        Some(PossibleValue::new(self.0.name()).help(help))
    }
}

impl AdminAccess {
    /// The number of the setting of that name.
    pub(crate) fn numbered(name: &str) -> Option<u32> {
        Administration::parse(name.as_bytes()).map(Administration::number)
    }

    /// The name of a number that the module returned.
    pub(crate) fn named(number: u32) -> Result<&'static str> {
        let found = Administration::from_number(number).map(Administration::name);
        found.with_context(|| format!("the module answers {number}, which is none of the three"))
    }
}
