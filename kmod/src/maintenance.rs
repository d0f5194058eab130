// SPDX-License-Identifier: GPL-2.0-only
//! The thread that tells the store the time and keeps its memory in order.

use kernel::sync::Arc;

use hippos_kapi::thread::{Context, Listener, Started};
use hippos_kapi::time;

use crate::server::Server;

/// The store's clock goes by seconds: it is told often enough to be right.
const TICK_MS: u32 = 250;

/// The thread's life.
pub(crate) fn run(server: Arc<Server>, context: &Context, started: Started) {
    let store = &server.engine.store;
    let Ok(listener) = Listener::new(&store.platform().bell, context) else {
        return;
    };
    store.tick(time::uptime(), time::unix());
    started.ready();
    while !context.should_stop() {
        store.tick(time::uptime(), time::unix());
        let next = store.maintain().next_ms;
        listener.wait(next.min(TICK_MS));
    }
}
