// SPDX-License-Identifier: GPL-2.0-only
//! Helpers for the tests of the ways to answer a datagram.

use std::vec::Vec;

use hippos_store::host::Host;
use hippos_store::{Commit, Config, Store};

use crate::{Engine, Plan, PlanOutcome, Settings, ENGINE_COUNTERS};

/// An empty engine.
pub(crate) fn engine(settings: Settings) -> Engine<Host> {
    let config = Config {
        tallies: ENGINE_COUNTERS,
        ..Config::default()
    };
    Engine::new(Store::new(config, Host::new()).unwrap(), settings, &())
}

/// Stores a value that never expires.
pub(crate) fn set(engine: &Engine<Host>, key: &[u8], flags: u32, value: &[u8]) {
    let store = &engine.store;
    let hash = store.hash(key);
    let slot = store.reserve(key, hash, flags, store.expiry(0), value.len());
    let mut slot = slot.unwrap();
    assert_eq!(slot.write(value), value.len());
    store.commit(slot, &Commit::default()).unwrap();
}

/// A UDP payload with its frame.
pub(crate) fn datagram(request: &[u8]) -> Vec<u8> {
    [b"\x12\x34\0\0\0\x01\0\0", request].concat()
}

/// The single datagram of a plan's reply.
pub(crate) fn planned(engine: &Engine<Host>, payload: &[u8]) -> Vec<u8> {
    let guard = engine.store.read();
    Plan::with(|plan| {
        let verdict = engine.plan(&guard, payload, usize::MAX, plan);
        assert_eq!(verdict, PlanOutcome::Answer);
        engine.count_plan(plan);
        let mut buffer = std::vec![0; plan.datagram_len(0)];
        assert_eq!(plan.write(0, &mut buffer), buffer.len());
        buffer
    })
}
