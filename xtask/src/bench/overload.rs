// SPDX-License-Identifier: GPL-2.0-only
//! More than a server can serve: GETs at twice the rate of its peak, and SETs
//! over TCP beside them.
//!
//! The server's work is measured by its own counters, since a load generator that
//! sends so much loses answers. Rates mean little on a machine with other work, so
//! the instructions for each request are shown as well: a server that spends more on
//! a request under overload serves fewer of them.

use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};

use super::guest::Guest;
use super::load::WORKLOADS;
use super::meter::Meter;
use super::server::Server;
use super::tools::Tools;
use super::{load, Plan};
use crate::vm;

/// SETs a second, few enough to be no load themselves.
const SETS: f64 = 200.0;
/// How long too much is offered.
const LENGTH: Duration = Duration::from_secs(3);

/// Prints a line for each workload.
pub(super) fn measure(tools: &Tools, meter: &vm::Meter, plan: &Plan, server: Server) -> Result<()> {
    ensure!(!server.mirrors(), "a mirror counts nothing");
    let mut guest = Guest::boot(tools, server, plan.vcpus, Some(meter))?;
    let mut meter = Meter::connect(&guest.meter())?;
    meter.settle()?;
    let load = load(tools, plan, &guest, server);
    let mut find = WORKLOADS.iter();
    let set = find
        .find(|workload| workload.name == "set")
        .context("there is a workload of SETs")?;
    for workload in super::answerable(plan, server) {
        load.prepare(workload)?;
        let before = meter.count()?;
        let busy = load.closed(workload, plan.requests)?;
        let each = (meter.count()? - before) as f64 / busy.answered as f64;
        let twice = 2.0 * busy.per_second;
        let counts = |guest: &mut Guest| -> Result<(f64, f64)> {
            let stats = guest.vm.ask("exec hippos-ctl stats")?;
            Ok((
                super::stat(&stats, "hippos_udp_fast_commands") as f64,
                super::stat(&stats, "cmd_set") as f64,
            ))
        };
        let (gets, sets) = counts(&mut guest)?;
        let before = meter.count()?;
        let (over, setting) = thread::scope(|scope| {
            let setting = scope.spawn(|| {
                // Begins after the other threads, and ends before them.
                thread::sleep(LENGTH / 6);
                load.open(set, SETS, LENGTH / 2)
            });
            (load.open(workload, twice, LENGTH), setting.join())
        });
        let spent = (meter.count()? - before) as f64;
        let (all_gets, all_sets) = counts(&mut guest)?;
        let (gets, sets) = (all_gets - gets, all_sets - sets);
        let setting = setting.map_err(|_| anyhow!("the SETs' thread panicked"))?;
        println!(
            "{}, {}: {:.0} a second in a closed loop, {each:.0} instructions each; {:.0} a second \
             offered, {gets:.0} served, {:.0} instructions each, {:.2} times; SETs over TCP \
             meanwhile: {sets:.0} made{}",
            server.name(),
            workload.name,
            busy.per_second,
            over?.sent_per_second,
            spent / gets,
            spent / gets / each,
            match setting {
                Ok(run) => format!(", {:.0} us each", run.mean_us),
                Err(error) => format!(": {error}"),
            },
        );
    }
    guest.off()
}
