// SPDX-License-Identifier: GPL-2.0-only
//! `conformance`: checks that a server replies as memcached does.

use anyhow::{ensure, Context, Result};
use clap::Parser;
use hippos_conformance::random::{self, StreamProtocol};
use hippos_conformance::{case, counters, record, run, Options, Target};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Checks that a server replies as memcached does.
#[derive(Parser)]
struct Args {
    /// The server, HOST:PORT, for TCP and UDP.
    #[arg(long)]
    target: String,
    /// UDP at another address, or `off`.
    #[arg(long)]
    udp: Option<String>,
    /// Only cases of this protocol.
    #[arg(long, value_parser = ["text", "meta", "binary", "udp"])]
    protocol: Option<String>,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
    /// The server is memcached itself: accept no alternatives.
    #[arg(long)]
    reference: bool,
    /// Write the server's answers into the case files where they lack one.
    #[arg(long)]
    record: bool,
    /// Compare the counters that commands change instead; with `--record`, write the server's changes.
    #[arg(long)]
    counters: bool,
    /// Compare with this server, HOST:PORT, on random streams of commands instead.
    #[arg(long, requires = "random")]
    against: Option<String>,
    /// How many random streams of each kind.
    #[arg(long, requires = "against")]
    random: Option<u32>,
    /// Feed the cases as written only, not in splits as well.
    #[arg(long)]
    no_splits: bool,
    /// Connections at a time.
    #[arg(long, default_value_t = 24)]
    parallel: usize,
    /// Seconds that an answer may take.
    #[arg(long, default_value_t = 5)]
    timeout: u64,
    /// Seed of the random splits and streams.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let tcp = resolve(&args.target)?;
    let udp = match args.udp.as_deref() {
        None => Some(tcp),
        Some("off") => None,
        Some(address) => Some(resolve(address)?),
    };
    let target = Target { tcp, udp };
    let options = Options {
        filter: args.filter.clone(),
        parallel: args.parallel,
        timeout: Duration::from_secs(args.timeout),
        reference: args.reference || args.record,
        splits: !args.no_splits,
        seed: args.seed,
    };
    if args.counters {
        return count(&target, &args);
    }
    let in_protocol = |group: &str| match &args.protocol {
        Some(protocol) => group.split('/').next() == Some(protocol),
        None => true,
    };
    if args.record {
        for (group, _) in case::FILES.iter().filter(|(group, _)| in_protocol(group)) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("cases")
                .join(format!("{group}.txt"));
            let count = record::record(group, &path, &target, &options)?;
            println!("{group}: {count} answers recorded");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let started = Instant::now();
    if let (Some(against), Some(streams)) = (&args.against, args.random) {
        let reference = resolve(against)?;
        for protocol in [StreamProtocol::Text, StreamProtocol::Binary] {
            random::compare(reference, tcp, protocol, streams, args.seed)?;
        }
        println!("conformance: {} passed, 0 failed", 2 * streams);
        println!("random streams in {:.1} s", started.elapsed().as_secs_f32());
        return Ok(ExitCode::SUCCESS);
    }
    let mut cases = case::all()?;
    cases.retain(|c| in_protocol(&c.name));
    ensure!(
        cases.iter().any(|c| c.name.contains(&options.filter)),
        "no case has such a name"
    );
    let report = run::run_cases(&cases, &target, &options);
    println!("{report}");
    println!(
        "{} plays in {:.1} s",
        report.played,
        started.elapsed().as_secs_f32()
    );
    Ok(match report.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The matrix of counters.
fn count(target: &Target, args: &Args) -> Result<ExitCode> {
    if args.record {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("counters/recorded.txt");
        std::fs::write(&path, counters::record(target)?)?;
        println!("{}", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let server = match args.reference {
        true => counters::Server::Memcached,
        false => counters::Server::Module,
    };
    let report = counters::compare(target, &args.filter, server)?;
    println!("{report}");
    Ok(match report.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn resolve(address: &str) -> Result<SocketAddr> {
    let mut found = address
        .to_socket_addrs()
        .with_context(|| address.to_owned())?;
    found
        .next()
        .with_context(|| format!("{address} has no address"))
}
