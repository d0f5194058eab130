// SPDX-License-Identifier: GPL-2.0-only
//! Properties that hold for any input, one function for each target: a panic is a finding.
//!
//! `cargo xtask fuzz TARGET` runs them on libFuzzer's inputs; the tests run them on the corpus, the seeds and random
//! mutations of those, which needs only a stable compiler.

mod backend;
// The files themselves, and not the proxy's crate: its TLS library could not be linked with the engine (licences).
#[allow(dead_code, unreachable_pub)]
#[path = "../../../fleet/proxy/src/batch.rs"]
mod batch;
#[path = "../../../kmod/engine/tests/common/mod.rs"]
mod common;
mod datagram;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../fleet/proxy/src/framing.rs"]
mod framing;
mod front;
mod meta;
mod model;
mod replies;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../fleet/proxy/src/session.rs"]
mod session;
mod stream;

use common::TestEngine;

/// An engine of the least memory.
fn engine() -> TestEngine {
    common::engine_of(8 << 20, Default::default())
}

/// A property of any input.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Panics when it does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: &'static [&'static [u8]],
}

macro_rules! targets {
    ($($name:ident),+) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            run: $name::$name,
            seeds: $name::SEEDS,
        }),+];
    };
}

targets!(stream, datagram, meta, model, front, backend);

/// The target of that name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    let found = TARGETS.iter().find(|target| target.name == name)?;
    Some(found.run)
}
