//! Concurrent clients on few keys: what they saw must have one order.

use std::net::SocketAddr;

use anyhow::{bail, ensure, Context, Result};
use hippos_histories::{check, record, Plan};

use crate::client::PORT;
use crate::modules::Hippos;
use crate::netns::Client;

/// Histories of a run that nobody gave a number for.
const HISTORIES: u64 = 4;

/// Histories over TCP and UDP, each on keys of its own: `TEST [COUNT]`
pub(super) fn histories(arguments: &[String]) -> Result<()> {
    let count: u64 = arguments
        .first()
        .map_or(Ok(HISTORIES), |text| text.parse().context("how many?"))?;
    let client = Client::new()?;
    let hippos = Hippos::load("")?;
    let mut total = 0;
    for seed in 1..=count {
        let plan = Plan {
            server: SocketAddr::new(client.server(), PORT),
            clients: 6,
            keys: 8,
            operations: 250,
            udp: true,
            seed,
        };
        let history = client.enter(|| record(&plan))?;
        let operations: usize = history.values().map(Vec::len).sum();
        ensure!(
            operations == plan.clients * plan.operations,
            "operations are missing: {operations}"
        );
        total += operations;
        if let Some(key) = check(&history) {
            let mut seen = history[key].clone();
            seen.sort_by_key(|operation| operation.called);
            let lines: Vec<_> = seen.iter().map(|line| format!("{line:?}")).collect();
            bail!("{key} is not linearizable:\n{}", lines.join("\n"));
        }
    }
    println!("{count} histories, {total} operations");
    hippos.unload()
}
