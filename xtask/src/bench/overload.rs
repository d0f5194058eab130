//! More than a server can serve: GETs at twice the rate of its peak, and SETs
//! over TCP beside them.

use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};

use super::guest::{Guest, Server};
use super::load::WORKLOADS;
use super::{load, Plan, Tools};

/// SETs a second, few enough to be no load themselves.
const SETS: f64 = 200.0;
/// For each rate.
const LENGTH: Duration = Duration::from_secs(3);

/// Prints a line for each workload: the peak, what of it is left at twice the
/// rate, and how SETs over TCP fared.
pub(super) fn measure(tools: &Tools, plan: &Plan, server: Server) -> Result<()> {
    let guest = Guest::boot(tools, server, plan.vcpus, None)?;
    let load = load(tools, plan, &guest, server);
    let find = |name| WORKLOADS.iter().find(|workload| workload.name == name);
    let set = find("set").context("there is a workload of SETs")?;
    for workload in super::answerable(plan, server) {
        let busy = load.prepare(workload, plan.requests / 10)?;
        // What a closed loop gets is the most that it can serve without a queue; the peak is
        // sought by open loops from there.
        let mut peak = load.open(workload, busy.per_second, LENGTH)?;
        let mut rate = busy.per_second;
        while rate < 4.0 * busy.per_second {
            rate *= 1.25;
            let next = load.open(workload, rate, LENGTH)?;
            if next.per_second < 1.03 * peak.per_second {
                break;
            }
            peak = next;
        }
        let twice = 2.0 * peak.per_second;
        let (over, sets) = thread::scope(|scope| {
            let sets = scope.spawn(|| {
                // Begins when the others are at it, and ends before them.
                thread::sleep(2 * load::WARMUP);
                load.open(set, SETS, LENGTH - 3 * load::WARMUP)
            });
            let over = load.open(workload, twice, LENGTH);
            (over, sets.join())
        });
        let sets = sets.map_err(|_| anyhow!("the SETs' thread panicked"))??;
        let over = over?;
        println!(
            "{}, {}: {:.0} a second at most; {:.0} of {:.0} sent a second: {:.0} answered, \
             {:.0} % of the peak; SETs over TCP meanwhile: {:.0} of {SETS} a second, {:.0} us",
            server.name(),
            workload.name,
            peak.per_second,
            over.sent_per_second,
            twice,
            over.per_second,
            100.0 * over.per_second / peak.per_second,
            sets.per_second,
            sets.mean_us,
        );
    }
    guest.off()
}
