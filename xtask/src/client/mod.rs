// SPDX-License-Identifier: GPL-2.0-only
//! Tests that run on the host, as clients of a guest, through the forwarded port.
//!
//! To add one: write `pub(super) fn name(port: u16) -> anyhow::Result<()>` in the
//! file of its theme and name it below, with the module's parameters. The
//! module is loaded anew for each, and answers when the test begins.

mod stock;

use anyhow::Result;

/// One test.
pub(crate) struct Test {
    /// `client::theme::name`.
    pub(crate) name: &'static str,
    /// The module's parameters.
    pub(crate) parameters: &'static str,
    /// The test itself, given the port of 127.0.0.1.
    pub(crate) run: fn(u16) -> Result<()>,
}

/// Lists the tests of each theme's file, each with the module's parameters.
macro_rules! tests {
    ($($theme:ident: $($name:ident($parameters:literal)),+;)+) => {
        /// Every test, in the order in which they run.
        pub(crate) const TESTS: &[Test] = &[
            $($(Test {
                name: concat!("client::", stringify!($theme), "::", stringify!($name)),
                parameters: $parameters,
                run: $theme::$name,
            },)+)+
        ];
    };
}

tests! {
    stock: text(""), binary(""), udp("");
}
