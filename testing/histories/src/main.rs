// SPDX-License-Identifier: GPL-2.0-only
//! `hippos-histories`: records and checks histories against a server.

use anyhow::{bail, Context, Result};
use clap::Parser;
use hippos_histories::{check, record, Plan};
use std::net::{SocketAddr, ToSocketAddrs};

/// Let concurrent clients operate on few keys and check that the replies are linearizable
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  hippos-histories 127.0.0.1:11211 --rounds 20"
)]
struct Arguments {
    /// The server
    #[arg(value_name = "HOST:PORT")]
    server: String,
    /// Histories to record, each on keys of its own
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Concurrent clients
    #[arg(long, default_value_t = 6)]
    clients: usize,
    /// Keys of a history
    #[arg(long, default_value_t = 8)]
    keys: usize,
    /// Operations of each client in a history
    #[arg(long, default_value_t = 400)]
    operations: usize,
    /// Use no UDP
    #[arg(long)]
    no_udp: bool,
    /// The first history's seed; each further one is greater by one
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let server: SocketAddr = arguments
        .server
        .to_socket_addrs()
        .with_context(|| format!("{} is not HOST:PORT", arguments.server))?
        .next()
        .context("the server's name has no address")?;
    let mut total = 0;
    for round in 0..arguments.rounds {
        let plan = Plan {
            server,
            clients: arguments.clients,
            keys: arguments.keys,
            operations: arguments.operations,
            udp: !arguments.no_udp,
            seed: arguments.seed + round,
        };
        let history = record(&plan)?;
        total += history.values().map(Vec::len).sum::<usize>();
        if let Some(key) = check(&history) {
            let mut operations = history[key].clone();
            operations.sort_by_key(|operation| operation.called);
            for operation in operations {
                println!("{operation:?}");
            }
            bail!(
                "{key}: these operations are not linearizable (seed {})",
                plan.seed
            );
        }
    }
    println!(
        "{} histories, {total} operations: linearizable",
        arguments.rounds
    );
    Ok(())
}
