// SPDX-License-Identifier: GPL-2.0-only
//! The thread that sets the store's clock and maintains its memory.

use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_kapi::pages::ShrinkerWatch;
use hippos_kapi::thread::{Context, Started, WakeReceiver};
use hippos_kapi::time;
use hippos_store::Counter;

use crate::server::{Server, CONNECTIONS};
use crate::steer::Steering;

/// The store's clock counts seconds: it is set often enough to be exact.
const TICK_MS: u32 = 250;

/// Seconds between two lines in the log about a shortage of memory.
const LOG_INTERVAL_SECS: u32 = 60;

/// The state of log messages about a shortage of memory.
#[derive(Default)]
struct Shortage {
    /// The shortages counted so far.
    seen: u64,
    /// A shortage was logged, but not yet its end.
    logged: bool,
    /// The time of the last message.
    last: Option<u32>,
}

impl Shortage {
    fn log(&mut self, server: &Server) {
        let store = &server.engine.store;
        let (allowed, limit) = (store.allowed(), store.memory_limit());
        let seen = store.counted(Counter::Shortages);
        let now = (time::uptime_ms() / 1000) as u32;
        let long_ago = |last: u32| now.saturating_sub(last) >= LOG_INTERVAL_SECS;
        if seen > self.seen && !self.logged && self.last.is_none_or(long_ago) {
            (self.logged, self.last) = (true, Some(now));
            pr_warn!(
                "memory shortage: limit lowered to {} of {} MiB\n",
                allowed >> 20,
                limit >> 20
            );
        }
        self.seen = seen;
        if self.logged && allowed >= limit {
            self.logged = false;
            pr_info!("memory shortage over: limit is {} MiB again\n", limit >> 20);
        }
    }
}

/// The thread's main loop.
pub(crate) fn run(
    server: Arc<Server>,
    mut steering: Steering,
    context: &Context,
    started: Started,
) {
    let store = &server.engine.store;
    let kernel = store.platform();
    let Ok(wakeups) = WakeReceiver::new(&kernel.waker, context) else {
        return;
    };
    // Without memory for the shrinker the shortage is noticed at the next tick.
    let _watch = ShrinkerWatch::new(&kernel.waker, kernel.low());
    let mut shortage = Shortage::default();
    // memcached's clock starts at 2 as well: 0 means never in many places.
    let start = time::uptime_ms().saturating_sub(2000);
    let mut tick = || {
        let uptime_ms = store.tick_by(|| time::uptime_ms().saturating_sub(start), time::unix_ms);
        let uptime = (uptime_ms / 1000) as u32;
        CONNECTIONS.tick(uptime);
        steering.tick(uptime);
    };
    tick();
    started.ready();
    while !context.should_stop() {
        tick();
        let next = {
            let _maintaining = server.lock_maintenance();
            store.maintain().next_ms
        };
        shortage.log(&server);
        wakeups.wait(next.min(TICK_MS));
    }
}
