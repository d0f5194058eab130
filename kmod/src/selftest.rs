// SPDX-License-Identifier: GPL-2.0-only
//! `selftest=1`: the store's own test on the kernel's memory, grace periods and locks, and that of the code that sends
//! replies, before requests are served. A fault makes the load fail.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use kernel::prelude::*;
use kernel::sync::Arc;

use hippos_invariant::Exact;
use hippos_kapi::thread::Thread;
use hippos_kapi::{cpu, fault, hook, rcu};
use hippos_store::{selftest, Counter, Store};

use crate::config::ServerConfig;
use crate::platform::Kernel;
use crate::server;

/// Threads for each CPU, so that they compete for memory.
const THREADS: usize = 2;
/// Rounds of each thread.
const ROUNDS: u32 = 2_000;
/// Memory blocks: too few for all sizes that are stored, so that slabs must move.
const BLOCKS: usize = 8;

struct Test {
    store: Store<Kernel>,
    running: AtomicU32,
    faults: AtomicU32,
}

/// Tests both if `selftest` is set; `EIO` after a fault.
#[inline(never)]
pub(crate) fn run(config: &ServerConfig) -> Result {
    if !config.params.selftest {
        return Ok(());
    }
    hook::test_transmit()?;
    let planted = fault::shares_a_lane();
    let block = config.store.item_max.max(1 << 20);
    let block = block.checked_next_power_of_two().ok_or(EINVAL)?;
    let store = server::store(hippos_store::Config {
        memory: BLOCKS.mul_exact(block),
        tallies: 0,
        ..config.store
    })?;
    let test = Arc::new(
        Test {
            store,
            running: AtomicU32::new(0),
            faults: AtomicU32::new(0),
        },
        GFP_KERNEL,
    )?;
    let mut threads = KVec::new();
    let mut lane = 0u32;
    for cpu in (0..THREADS).flat_map(|_| cpu::online()) {
        // Two threads on one lane disturb each other.
        lane = if planted { 0 } else { lane.add_exact(1) };
        let test = test.clone();
        test.running.fetch_add(1, Relaxed);
        let thread = Thread::spawn(c"hippos/test", Some(cpu), move |_, started| {
            started.ready();
            if let Err(fault) = selftest::run(&test.store, lane, ROUNDS) {
                test.faults.fetch_add(1, Relaxed);
                pr_err!("selftest: {fault:?} in thread {lane}\n");
            }
            test.running.fetch_sub(1, Relaxed);
        })?;
        threads.push(thread, GFP_KERNEL)?;
    }
    while test.running.load(Relaxed) != 0 {
        test.store.maintain();
        cpu::short_sleep();
    }
    let lanes = threads.len();
    drop(threads);
    if let Err(fault) = selftest::check(&test.store) {
        test.faults.fetch_add(1, Relaxed);
        pr_err!("selftest: {fault:?}\n");
    }
    // No thread is in a read-side section of the store any more, as ending the store requires.
    rcu::wait();
    let faults = test.faults.load(Relaxed);
    if faults != 0 {
        pr_err!("selftest: {faults} faults, not serving\n");
        return Err(EIO);
    }
    let waits = test.store.counted(Counter::Waits);
    pr_info!("selftest: {lanes} threads, {ROUNDS} rounds each, {waits} waits: passed\n");
    Ok(())
}
