// SPDX-License-Identifier: MIT

//! The program: a configuration, signals.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use hippos_proxy::config::Config;
use hippos_proxy::server::Server;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A fleet of memcached servers behind one address.
///
/// SIGHUP reads the configuration again, SIGTERM ends when all clients have
/// their answers.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Configuration file
    config: PathBuf,
    /// Check the configuration and end
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = load(&args.config)?;
    if args.check {
        return Ok(());
    }
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let server = Server::start(config)?;
    let shown = |name, address: Option<std::net::SocketAddr>| {
        address.map_or(String::new(), |address| format!(" {name} {address}"))
    };
    println!(
        "hippos-proxy: ready{}{}{}",
        shown("tcp", server.tcp),
        shown("udp", server.udp),
        shown("http", server.http)
    );
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        match load(&args.config) {
            Ok(config) => {
                server.reload(config);
                eprintln!("hippos-proxy: configuration taken");
            }
            Err(error) => eprintln!("hippos-proxy: configuration kept: {error:#}"),
        }
    }
    server.drain();
    Ok(())
}

fn load(path: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Config::parse(&text).with_context(|| path.display().to_string())
}
