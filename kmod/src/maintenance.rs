// SPDX-License-Identifier: GPL-2.0-only
//! The thread that tells the store the time and keeps its memory in order.

use kernel::sync::Arc;

use hippos_kapi::thread::{Context, Listener, Started};
use hippos_kapi::time;

use crate::server::{Server, CONNECTIONS};
use crate::steer::Steering;

/// The store's clock goes by seconds: it is told often enough to be right.
const TICK_MS: u32 = 250;

/// The thread's life.
pub(crate) fn run(
    server: Arc<Server>,
    mut steering: Steering,
    context: &Context,
    started: Started,
) {
    let store = &server.engine.store;
    let Ok(listener) = Listener::new(&store.platform().bell, context) else {
        return;
    };
    // memcached's clock starts at 2 as well: 0 means never in many places.
    let start = time::uptime_ms().saturating_sub(2000);
    let mut tick = || {
        let uptime_ms = time::uptime_ms().saturating_sub(start);
        store.tick_ms(uptime_ms, time::unix_ms());
        let uptime = (uptime_ms / 1000) as u32;
        CONNECTIONS.tick(uptime);
        steering.tick(uptime);
    };
    tick();
    started.ready();
    while !context.should_stop() {
        tick();
        let next = store.maintain().next_ms;
        listener.wait(next.min(TICK_MS));
    }
}
